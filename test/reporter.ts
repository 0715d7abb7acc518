/**
 * Mocha's own dots, each failure when it happens, the files that took longest, and the two numbers for scripts/test in the
 * file that TUNPATH_TEST_COUNTS names.
 */

import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import Mocha from 'mocha';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const SHOWN = 12;

export default class CountingReporter extends Mocha.reporters.Dot {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    // At once, too: a run that is cut off still says what had failed.
    runner.on('fail', (test, error: Error) => {
      process.stdout.write(`\n  failed: ${test.fullTitle()}: ${error.message.split('\n')[0]}\n`);
    });
    const seconds = new Map<string, number>();
    let since = performance.now();
    const charge = (file: string | undefined) => {
      const now = performance.now();
      if (file !== undefined) seconds.set(file, (seconds.get(file) ?? 0) + (now - since) / 1000);
      since = now;
    };
    runner.on('test end', test => charge(test.file));
    runner.on('hook end', hook => charge(hook.file ?? hook.parent?.file));
    // Whoever ends it wants no more tests, and none of their namespaces and processes left behind.
    let isEnded = false;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      // It comes twice: to the group, and by way of mocha.
      process.on(signal, () => {
        isEnded = true;
        runner.abort();
      });
    }
    runner.once('end', () => {
      const longest = [...seconds].sort(([, a], [, b]) => b - a).slice(0, SHOWN);
      const lines = longest.map(([file, took]) => `${took.toFixed(0).padStart(5)} s  ${relative(HERE, file)}\n`);
      // Of a few files everybody sees it.
      if (seconds.size > SHOWN) process.stdout.write(`\n  longest:\n${lines.join('')}`);
      const path = process.env.TUNPATH_TEST_COUNTS;
      const { passes, failures, tests } = runner.stats!;
      // A run without a single test proves nothing.
      const failed = tests === 0 || isEnded ? Math.max(1, failures) : failures;
      if (path !== undefined) writeFileSync(path, `${passes} passed, ${failed} failed\n`);
      if (tests === 0 || isEnded) process.exitCode = 1;
    });
  }
}

/** Mocha's own dots, each failure when it happens, and the two numbers for scripts/test in the file that TUNPATH_TEST_COUNTS names. */

import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

export default class CountingReporter extends Mocha.reporters.Dot {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    // At once, too: a run that is cut off still says what had failed.
    runner.on('fail', (test, error: Error) => {
      process.stdout.write(`\n  failed: ${test.fullTitle()}: ${error.message.split('\n')[0]}\n`);
    });
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
      const path = process.env.TUNPATH_TEST_COUNTS;
      const { passes, failures, tests } = runner.stats!;
      // A run without a single test proves nothing.
      const failed = tests === 0 || isEnded ? Math.max(1, failures) : failures;
      if (path !== undefined) writeFileSync(path, `${passes} passed, ${failed} failed\n`);
      if (tests === 0 || isEnded) process.exitCode = 1;
    });
  }
}

import assert from 'node:assert/strict';
import { runAll } from '../../bench/all.ts';
import { environment } from '../../bench/environment.ts';
import type { Row } from '../../bench/result.ts';
import { summarize } from '../../bench/stats.ts';
import { SUITES, type Suite } from '../../bench/suites.ts';

const ENVIRONMENT = environment(new Date(0));

function row(suite: string): Row {
  return { suite, name: 'x', unit: 'ns', params: {}, ours: summarize([1]) };
}

function suite(name: string, run: Suite['run']): Suite {
  return { name, description: `what ${name} does`, needsRoot: false, seconds: { quick: 10, full: 100 }, run };
}

describe('bench/all', () => {
  const good = suite('good', async (_options, print) => {
    print('line', { text: 'half', share: 0.5 });
    return { environment: ENVIRONMENT, results: [row('good')] };
  });

  it('puts the rows of all suites together, gives each what is there, and says how long the rest takes', async () => {
    const lines: string[] = [];
    let seen: readonly Row[] = [];
    const second = suite('second', async ({ earlier, quick }) => {
      seen = [...earlier];
      assert.equal(quick, true);
      return { environment: ENVIRONMENT, results: [row('second')] };
    });
    const { environment: env, results } = await runAll({
      quick: true,
      suites: [good, second],
      print: line => lines.push(line),
    });
    assert.deepEqual(
      results.map(r => r.suite),
      ['good', 'second'],
    );
    assert.deepEqual(
      seen.map(r => r.suite),
      ['good'],
    );
    assert.equal(env.complete, true);
    assert.deepEqual(
      env.suites.map(({ name, complete, results: n }) => [name, complete, n]),
      [
        ['good', true, 1],
        ['second', true, 1],
      ],
    );
    assert.ok(
      lines.some(line => /good: what good does {2}\(20 s left\)/.test(line)),
      lines.join('\n'),
    );
    assert.ok(
      lines.some(line => /good: half {2}\(1[01] s left\)/.test(line)),
      lines.join('\n'),
    );
  });

  it('reports the others when one fails, and says which and why', async () => {
    const bad = suite('bad', async () => {
      throw new Error('no such device');
    });
    const { environment: env, results } = await runAll({ suites: [bad, good] });
    assert.equal(results.length, 1);
    assert.equal(env.complete, false);
    assert.ok(env.warnings.includes('bad: no such device'));
  });

  it('ends early with what there is: the suite in hand is told, the rest do not start', async () => {
    const controller = new AbortController();
    const slow = suite('slow', async (_options, _print, signal) => {
      controller.abort();
      assert.equal(signal.aborted, true);
      return { environment: { ...ENVIRONMENT, complete: false } as never, results: [row('slow')] };
    });
    const { environment: env, results } = await runAll({ suites: [slow, good], signal: controller.signal });
    assert.deepEqual(
      results.map(r => r.suite),
      ['slow'],
    );
    assert.equal(env.complete, false);
    assert.ok(env.warnings.includes('ended early'));
  });

  it('every suite has a name of its own, and together they keep to 5 and 45 minutes', () => {
    assert.equal(new Set(SUITES.map(s => s.name)).size, SUITES.length);
    const total = (of: 'quick' | 'full') => SUITES.reduce((sum, s) => sum + s.seconds[of], 0);
    assert.ok(total('quick') < 300, `${total('quick')} s`);
    assert.ok(total('full') < 2700, `${total('full')} s`);
  });
});

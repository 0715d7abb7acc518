/** Every scenario on real devices, as `tunpath lab scenario run --all` runs them. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Lab } from '../../datapath/lab/lab.ts';
import { runScenario, type ScenarioResult } from '../../datapath/lab/scenario.ts';
import { SCENARIOS } from '../../datapath/lab/scenarios/index.ts';
import { MAIN } from '../fixtures/program.ts';

/** Unique per run of the tests, so that two at once do not meet. */
const LAB = `s${process.pid}`;

/** Failed checks, one per line. */
function failuresOf(result: ScenarioResult): string[] {
  return result.checks
    .filter(check => !check.pass)
    .map(check => `${check.what}: expected ${check.expected}, seen ${check.seen}`);
}

async function tunpath(...argv: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  try {
    return { ...(await promisify(execFile)(process.execPath, [MAIN, 'lab', 'scenario', ...argv])), code: 0 };
  } catch (error) {
    return error as { stdout: string; stderr: string; code: number };
  }
}

describe('scenarios', function () {
  this.timeout(240_000);
  afterEach(() => Lab.down(LAB));

  for (const scenario of SCENARIOS) {
    it(`${scenario.name}: ${scenario.shows}`, async () => {
      const result = await runScenario(scenario, { labName: LAB });
      assert.deepEqual(failuresOf(result), []);
      assert.equal(result.pass, true);
      assert.equal(Lab.exists(LAB), false, 'the lab is still there');
    });
  }

  it('have names of their own', () => {
    const names = SCENARIOS.map(scenario => scenario.name);
    assert.deepEqual([...new Set(names)], names);
  });

  it('count what the experiment throws as a failed check, and take the lab down', async () => {
    const [first] = SCENARIOS;
    const result = await runScenario(
      {
        ...first!,
        async run(context) {
          context.check('a check before', 1, 1);
          await context.capture({ nowhere: ['nosuchhost', ''] }, async () => {});
        },
      },
      { labName: LAB },
    );
    assert.equal(result.pass, false);
    assert.match(failuresOf(result).join('\n'), /^the experiment runs to its end: .*nosuchhost/);
    assert.equal(Lab.exists(LAB), false);
  });
});

describe('tunpath lab scenario', function () {
  this.timeout(60_000);
  afterEach(() => Lab.down(LAB));

  it('lists them', async () => {
    const { stdout, code } = await tunpath('list', '-o', 'json');
    assert.equal(code, 0);
    const rows = JSON.parse(stdout) as { name: string; article: string }[];
    assert.deepEqual(
      rows.map(row => row.name),
      SCENARIOS.map(scenario => scenario.name),
    );
  });

  it('prints results as an array of name, article, pass and checks', async () => {
    const { stdout, code } = await tunpath('run', 'cilium-native-blackhole', '--name', LAB, '-o', 'json');
    assert.equal(code, 0);
    const results = JSON.parse(stdout) as ScenarioResult[];
    assert.equal(results.length, 1);
    assert.deepEqual(Object.keys(results[0]!), ['name', 'article', 'pass', 'checks']);
    assert.equal(results[0]!.name, 'cilium-native-blackhole');
    assert.equal(results[0]!.article, '001');
    assert.equal(results[0]!.pass, true);
    for (const check of results[0]!.checks) {
      assert.deepEqual(Object.keys(check), ['what', 'expected', 'seen', 'pass']);
    }
  });

  it('refuses names that are none, and neither names nor --all, before anything is made', async () => {
    for (const argv of [['run', 'nosuch', 'calico-ipip'], ['run'], ['run', 'calico-ipip', '--all']]) {
      const { stdout, stderr, code } = await tunpath(...argv, '--name', LAB);
      assert.equal(code, 2, argv.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, /no scenario 'nosuch': expected one of calico-ipip, |expected names of scenarios, or --all/);
      assert.equal(Lab.exists(LAB), false);
    }
  });
});

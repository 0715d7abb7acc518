/** Clusters in memory: who reaches whom, and that it is noticed when somebody does not. */
import { strict as assert } from 'node:assert';
import { execFileSync, spawnSync } from 'node:child_process';
import { type SimulateOptions, simulate } from '../../datapath/lab/simulate.ts';
import { MAIN } from '../fixtures/program.ts';

const SMALL: SimulateOptions = { nodes: 5, pods: 3, mode: 'vxlan', policies: false, everyPod: false, seed: 1 };

describe('simulate', function () {
  this.timeout(120_000);

  for (const mode of ['native', 'ipip', 'vxlan', 'geneve'] as const) {
    it(`${mode}: every node reaches every other, and every service`, () => {
      const { pods, probes, wrong, drops } = simulate({ ...SMALL, mode });
      assert.equal(pods, 15);
      assert.deepEqual(probes, [
        // From each node to each other, and from a pod to another of its own node where those are not one.
        { what: 'pods', tried: 20, answered: 20, right: 20 },
        { what: 'services', tried: 15, answered: 15, right: 15 },
      ]);
      assert.deepEqual([wrong, drops], [[], []]);
    });
  }

  it('asks every pod of every other, and policies deny what they should', () => {
    const { probes, wrong, drops } = simulate({ ...SMALL, policies: true, everyPod: true });
    const denied = 5 * 2 * 5 - 5; // from k0 and k2 to k0, but to themselves
    assert.deepEqual(probes[0], { what: 'pods', tried: 15 * 14, answered: 15 * 14 - denied, right: 15 * 14 });
    assert.equal(probes[1].right, probes[1].tried);
    assert.deepEqual(wrong, []);
    assert.deepEqual(
      drops.map(({ name }) => name),
      ['drop-policy-denied-ingress'],
    );
  });

  it('is the same again with the same seed', () => {
    const once = () => ({ ...simulate({ ...SMALL, policies: true }), upMs: 0, probeMs: 0 });
    assert.deepEqual(once(), once());
  });

  it('says what does not answer, in tables and documents', () => {
    const argv = [MAIN, 'lab', 'up', '--simulate', '--nodes', '3', '--pods', '2'];
    const document = JSON.parse(execFileSync(process.execPath, [...argv, '-o', 'json'], { encoding: 'utf8' }));
    assert.deepEqual([document.nodes, document.pods, document.wrong], [3, 6, []]);
    const table = spawnSync(process.execPath, argv, { encoding: 'utf8' });
    assert.equal(table.status, 0);
    assert.match(table.stdout, /^ASKED +TRIED +ANSWERED +AS-EXPECTED\npods +6 +6 +6\nservices +6 +6 +6\n$/);
  });

  it('refuses sizes that cannot be', () => {
    for (const [flags, message] of [
      [['--nodes', '1'], /--nodes 1: expected 2 to 255/],
      [['--nodes', '300'], /--nodes 300: expected 2 to 255/],
      [['--pods', 'x'], /'--pods <n>' argument 'x' is invalid. Expected a whole number/],
      [['--pods', '1', '--policies'], /--pods 1: expected 2 to 200/],
    ] as const) {
      const { status, stderr } = spawnSync(process.execPath, [MAIN, 'lab', 'up', '--simulate', ...flags], {
        encoding: 'utf8',
      });
      assert.equal(status, 2);
      assert.match(stderr, message);
    }
    const { status, stderr } = spawnSync(process.execPath, [MAIN, 'lab', 'up', '--nodes', '3'], { encoding: 'utf8' });
    assert.equal(status, 2);
    assert.match(stderr, /--nodes: expected with --simulate/);
  });
});

import assert from 'node:assert/strict';
import { METRICS, SUITES } from '../../bench/e2e/metrics.ts';
import { planScenes, type Selection, secondsOfScene } from '../../bench/e2e/plan.ts';
import { UPLINKS } from '../../bench/e2e/topologies.ts';

function plan(selection: Partial<Selection>): string[] {
  return planScenes({ ceiling: true, quick: false, ...selection }).map(
    ({ mode, nat, uplink, suites, ceiling }) =>
      `${mode} ${nat} ${uplink}${ceiling ? ' veth' : ''}: ${suites.join(' ')}`,
  );
}

describe('bench/e2e/plan', () => {
  it('every mode with and without a service where nothing is selected', () => {
    const scenes = planScenes({ ceiling: true, quick: false });
    for (const mode of ['vxlan', 'geneve', 'ipip', 'native']) {
      for (const [nat, suites] of [
        ['none', ['tcp1', 'ndr64', 'ndr1400', 'latency-loaded', 'connections']],
        ['service', ['tcp1', 'ndr64', 'connections']],
      ] as const) {
        const scene = scenes.find(one => one.mode === mode && one.nat === nat);
        for (const suite of suites) assert.ok(scene?.suites.includes(suite), `${mode} ${nat} ${suite}`);
      }
    }
    assert.ok(scenes.some(({ nat }) => nat === 'masquerade'));
    for (const uplink of UPLINKS)
      assert.ok(scenes.some(scene => scene.uplink === uplink && scene.suites.includes('tcp1')));
    assert.deepEqual(
      scenes.map(({ ceiling }) => ceiling),
      scenes.map((_, i) => i === 0),
    );
  });

  it('every combination of what is selected, but no NAT where it has none', () => {
    assert.deepEqual(plan({ modes: ['local', 'vxlan'], nats: ['none', 'service'], suites: ['rr'] }), [
      'local none tap veth: rr',
      'vxlan none tap: rr',
      'vxlan service tap: rr',
    ]);
    assert.deepEqual(plan({ suites: ['tcp1'], quick: true, ceiling: false }), ['vxlan none tap: tcp1']);
  });

  it('the other uplinks of two nodes, where they are asked for', () => {
    assert.deepEqual(
      plan({ modes: ['vxlan', 'local'], uplinks: ['tap', 'routed'], suites: ['tcp1'], ceiling: false }),
      ['vxlan none tap: tcp1', 'local none tap: tcp1', 'vxlan none routed: tcp1'],
    );
  });

  it('the quick selection takes less than a minute a round', () => {
    const seconds = planScenes({ ceiling: true, quick: true }).map(scene => secondsOfScene(scene, 1));
    assert.ok(seconds.reduce((a, b) => a + b) < 60, `${seconds}`);
  });

  it('no two rows of a suite have the same name', () => {
    const names = SUITES.flatMap(suite => METRICS[suite].map(({ name }) => name));
    assert.equal(new Set(names).size, names.length, `${names}`);
  });
});

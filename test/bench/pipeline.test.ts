import assert from 'node:assert/strict';
import { type Case, MODES, NATS, Rig } from '../../bench/pipeline/rig.ts';
import { DEFAULT } from '../../bench/pipeline.ts';
import { EVENT_DECAPSULATED, EVENT_DELIVERED_POD, EVENT_ENCAPSULATED } from '../../datapath/counters.ts';
import { DROP_INVALID_SOURCE, DROP_MULTICAST } from '../../datapath/verdict.ts';

const FLOWS = 500;
const PACKETS = 640;

/** Runs PACKETS through a new rig. @returns it, and how many packets and bytes came out */
function run(c: Partial<Case>): { rig: Rig; packets: number; bytes: number } {
  const rig = new Rig({ ...DEFAULT, flows: FLOWS, ...c });
  const { packets, bytes } = rig.sink;
  rig.run(PACKETS);
  rig.check();
  return { rig, packets: rig.sink.packets - packets, bytes: rig.sink.bytes - bytes };
}

describe('bench/pipeline', () => {
  const overheads = { native: 14, ipip: 34, vxlan: 64, geneve: 64 };
  for (const mode of MODES) {
    for (const nat of NATS) {
      it(`${mode}, ${nat}: every packet comes out, in both directions, with its headers on or off`, () => {
        const out = run({ mode, nat });
        assert.deepEqual([out.packets, out.bytes], [PACKETS, PACKETS * (64 + overheads[mode])]);
        const back = run({ mode, nat, direction: 'in' });
        assert.deepEqual([back.packets, back.bytes], [PACKETS, PACKETS * 64]);
        const { counters } = back.rig;
        const tunnelled = mode === 'native' ? 0 : 1;
        assert.equal(counters.events(EVENT_ENCAPSULATED), tunnelled * FLOWS);
        assert.equal(counters.events(EVENT_DECAPSULATED), tunnelled * (FLOWS + PACKETS));
        assert.equal(counters.events(EVENT_DELIVERED_POD), FLOWS + PACKETS);
      });
    }
  }

  it('hits flows that are known and answered, and makes no new ones', () => {
    const { rig } = run({ nat: 'service' });
    const { table } = rig.datapath.flows!;
    assert.equal(table.used, FLOWS);
    assert.equal(table.stats.created, FLOWS);
  });

  it('mixes sizes 7 : 4 : 1 for IMIX', () => {
    const { bytes } = run({ size: 'IMIX', flows: 1200, mode: 'native', nat: 'none' });
    const mean = bytes / PACKETS - 14;
    const expected = (7 * 64 + 4 * 576 + 1500) / 12;
    assert.ok(Math.abs(mean - expected) < 0.15 * expected, `mean ${mean}, expected ${expected}`);
  });

  it('takes partial checksums with offloads, and bursts as long as wanted', () => {
    const { rig, packets } = run({ offload: 'auto', burst: 4 });
    assert.equal(packets, PACKETS);
    assert.equal(rig.source.burst, 4);
  });

  it('goes as far as it is told, for the cost of a part', () => {
    const source = run({ until: 'source' });
    assert.equal(source.rig.counters.dropped(DROP_INVALID_SOURCE), PACKETS);
    const parse = run({ until: 'parse' });
    assert.equal(parse.rig.counters.dropped(DROP_MULTICAST), PACKETS);
    assert.equal(run({ until: 'devices' }).packets, PACKETS);
  });
});

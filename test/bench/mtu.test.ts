import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { podMtu, UNDERLAY_MTU, uplinkMtu, type Way, wirePackets } from '../../bench/mtu/theory.ts';
import { MODES, runMtu } from '../../bench/mtu.ts';
import { TOO_BIG_NAMES } from '../../datapath/route/nexthop.ts';
import { ipv4, pattern } from '../fixtures/packets.ts';
import { slowFragment } from '../model/fragment.ts';

const OVERHEADS = { native: 0, ipip: 20, vxlan: 50, geneve: 50 };

/** The same by cutting real packets. */
function cutForReal(mode: (typeof MODES)[number], way: Way, length: number): number {
  const cut = (packet: Uint8Array, mtu: number) => (packet.length <= mtu ? [packet] : slowFragment(packet, mtu));
  const overhead = OVERHEADS[mode];
  return cut(ipv4(17, pattern(length - 20)), podMtu(mode, way))
    .flatMap(packet => (way === 'fragment-inner' ? cut(packet, UNDERLAY_MTU - overhead) : [packet]))
    .flatMap(packet => cut(ipv4(17, pattern(packet.length + overhead - 20)), uplinkMtu(mode, way))).length;
}

describe('bench mtu', () => {
  it('expects as many packets as cutting gives, at every length', function () {
    this.timeout(20_000);
    for (const mode of MODES) {
      for (const way of TOO_BIG_NAMES) {
        for (let length = 28; length < 6200; length += length % 1500 < 60 || length % 1500 > 1400 ? 7 : 61) {
          const want = cutForReal(mode, way, length);
          assert.equal(wirePackets(mode, way, length), want, `${mode} ${way} ${length}`);
        }
      }
    }
  });

  it('finds on the wire what it expects, at every boundary', async function () {
    this.timeout(60_000);
    const { environment, results } = await runMtu({ modes: ['geneve'], quick: true, rounds: 0 });
    assert.equal(environment.complete, true, environment.warnings.join('; '));
    assert.equal(results.length, 4 * 3 * 2, 'ways, lengths, rows');
    for (const row of results)
      assert.equal(row.ours.median, row.predicted, `${row.name} ${JSON.stringify(row.params)}`);
  });

  it('measures what arrives and what it costs', async function () {
    this.timeout(60_000);
    const { environment, results } = await runMtu({ modes: ['ipip'], ways: ['fragment-outer'], quick: true });
    assert.equal(environment.complete, true, environment.warnings.join('; '));
    const measured = results.filter(row => row.predicted === undefined);
    assert.deepEqual([...new Set(measured.map(row => row.name))], ['udp delivered', 'udp cpu', 'tcp', 'tcp cpu']);
    for (const row of measured) assert.ok(row.ours.median > 0, `${row.name} ${JSON.stringify(row.params)}`);
  });
});

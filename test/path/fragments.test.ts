/** TCP in fragments too small for its header: put together before anybody looks, where the profile has it so. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FRAGMENT_TIMEOUT_MS } from '../../datapath/mtu/virtual-reassembly.ts';
import { VERDICT_NAMES } from '../../datapath/verdict.ts';
import { SYN } from '../../datapath/wire/tcp.ts';
import { fragment, patch, pattern, tcp4 } from '../fixtures/packets.ts';
import { POD, POD2, TestNode } from '../forward-rig.ts';

const OPTIONS = { masquerade: [{ from: '10.244.0.0/16', notTo: '10.244.0.0/16', action: 'MASQUERADE' }] };
const dropped = (node: TestNode, reason: string) => node.counters.dropped(VERDICT_NAMES.indexOf(reason));

/** A segment cut at these offsets, all of 8 bytes and more. */
function pieces(segment: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const ends = [...cuts, segment.length - 20];
  return [0, ...cuts].map((from, i) => fragment(segment, from, ends[i] - from));
}

function arrived(node: TestNode, list: readonly Uint8Array[]): Uint8Array[] {
  for (const piece of list) node.device('p1').inject(piece);
  node.work('p1');
  return node.collect('p2');
}

describe('TCP in small fragments', () => {
  it('comes whole, whatever the cuts and the order', () => {
    const node = new TestNode(OPTIONS);
    let id = 0;
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 6 }),
        fc.integer(),
        (units, seed) => {
          const segment = tcp4({ src: POD, dst: POD2, sport: 1000 + ++id, id, flags: SYN, payload: pattern(90, id) });
          const cuts = units.sort((a, b) => a - b).map(unit => unit * 8);
          const order = pieces(segment, cuts).sort((a, b) => ((a[7] * 31 + seed) % 7) - ((b[7] * 31 + seed) % 7));
          const [whole, ...more] = arrived(node, order);
          assert.equal(more.length, 0);
          assert.deepEqual(whole.subarray(20), segment.subarray(20));
          assert.deepEqual([whole[6], whole[7], whole[8]], [0, 0, 63], 'no fragment, one hop older');
        },
      ),
      { numRuns: 200 },
    );
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('is refused by its header when that is wrong, and the connection is not made', () => {
    const node = new TestNode(OPTIONS);
    const segment = patch(tcp4({ src: POD, dst: POD2, flags: SYN, payload: pattern(40) }), 32, 0x10);
    assert.deepEqual(arrived(node, pieces(segment, [8, 16])), []);
    assert.equal(dropped(node, 'drop-malformed-l4'), 3);
    assert.equal(node.datapath.flows!.table.used, 0);
  });

  it('that stays incomplete is counted piece by piece, and nobody is told', () => {
    const node = new TestNode(OPTIONS);
    const [first, , last] = pieces(tcp4({ src: POD, dst: POD2, flags: SYN, payload: pattern(40) }), [8, 16]);
    assert.deepEqual(arrived(node, [first, last]), []);
    node.advance(FRAGMENT_TIMEOUT_MS + 1000, 1000);
    assert.equal(dropped(node, 'drop-fragment-timeout'), 2);
    assert.deepEqual(node.collect('p1'), []);
    assert.equal(node.leaked, 0);
  });

  it('is dropped in profile rfc, and in cilium where the flags are missing', () => {
    const segment = tcp4({ src: POD, dst: POD2, flags: SYN, payload: pattern(40) });
    const seen = (profile: 'rfc' | 'cilium', cuts: number[]) => {
      const node = new TestNode({ ...OPTIONS, profile });
      return arrived(node, pieces(segment, cuts)).length > 0;
    };
    assert.deepEqual(
      [seen('rfc', [8]), seen('rfc', [16]), seen('cilium', [8]), seen('cilium', [24])],
      [false, false, false, true],
    );
  });
});

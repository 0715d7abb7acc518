import assert from 'node:assert/strict';
import fc from 'fast-check';
import { HeldPackets } from '../../datapath/route/held-packets.ts';

const NEIGHBORS = 3;
const SLOTS = 12;

describe('HeldPackets', () => {
  it('keeps a queue for each neighbour, and knows the oldest of all', () => {
    const step = fc.record({ what: fc.constantFrom('add', 'add', 'add', 'oldest', 'all'), i: fc.nat(NEIGHBORS - 1) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), steps => {
        const held = new HeldPackets(NEIGHBORS, SLOTS);
        let model: { i: number; slot: number }[] = [];
        const free = Array.from({ length: SLOTS }, (_, slot) => slot);
        for (const { what, i } of steps) {
          const own = model.filter(one => one.i === i).map(({ slot }) => slot);
          if (what === 'add' && free.length > 0) {
            const slot = free.shift()!;
            held.add(i, slot);
            model.push({ i, slot });
          } else if (what === 'oldest' && own.length > 0) {
            assert.equal(held.takeOldest(i), own[0]);
            model = model.filter(({ slot }) => slot !== own[0]);
            free.push(own[0]);
          } else if (what === 'all') {
            const taken: number[] = [];
            for (let slot = held.takeAll(i); slot >= 0; slot = held.next(slot)) taken.push(slot);
            assert.deepEqual(taken, own);
            model = model.filter(one => one.i !== i);
            free.push(...own);
          }
          assert.equal(held.count, model.length);
          assert.equal(held.of(i), model.filter(one => one.i === i).length);
          if (model.length > 0) assert.equal(held.oldestHolder, model[0].i);
        }
      }),
    );
  });
});

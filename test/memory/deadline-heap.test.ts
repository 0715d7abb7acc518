import assert from 'node:assert/strict';
import fc from 'fast-check';
import { DeadlineHeap } from '../../datapath/memory/deadline-heap.ts';

const CAPACITY = 12;

describe('DeadlineHeap', () => {
  it('has first what a sorted list has first, ties in their order', () => {
    const step = fc.record({ entry: fc.nat(CAPACITY - 1), when: fc.option(fc.integer({ min: -3, max: 8 })) });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 200 }),
        fc.shuffledSubarray([...Array(CAPACITY).keys()], { minLength: CAPACITY }),
        (steps, order) => {
          const tie = Int32Array.from(order);
          const heap = new DeadlineHeap(CAPACITY, tie);
          const model = new Map<number, number>();
          for (const { entry, when } of steps) {
            if (when === null) {
              heap.disarm(entry);
              model.delete(entry);
            } else {
              heap.arm(entry, when);
              model.set(entry, when);
            }
            const sorted = [...model].sort((a, b) => a[1] - b[1] || tie[a[0]] - tie[b[0]]);
            assert.equal(heap.first(), sorted[0]?.[0] ?? -1);
            assert.equal(heap.firstTime(), sorted[0]?.[1] ?? Number.POSITIVE_INFINITY);
          }
          // And to the end, in order.
          const drained: number[] = [];
          for (let entry = heap.first(); entry >= 0; entry = heap.first()) {
            drained.push(entry);
            heap.disarm(entry);
          }
          assert.deepEqual(
            drained,
            [...model].sort((a, b) => a[1] - b[1] || tie[a[0]] - tie[b[0]]).map(([entry]) => entry),
          );
        },
      ),
      { numRuns: 300 },
    );
  });
});

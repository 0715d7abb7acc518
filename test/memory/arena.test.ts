import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Arena, MAX_RUN } from '../../datapath/memory/arena.ts';

interface Run {
  offset: number;
  length: number;
  /** What its owner wrote into every word. */
  mark: number;
}

describe('Arena', () => {
  it('gives every run words of its own, and keeps what is written there', () => {
    const step = fc.oneof(
      fc.record({ take: fc.oneof(fc.nat(20), fc.nat(MAX_RUN)) }),
      fc.record({ give: fc.nat(1000) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 150 }), steps => {
        const arena = new Arena(16);
        const runs: Run[] = [];
        let mark = 0;
        for (const one of steps) {
          if ('take' in one) {
            const run = { offset: arena.allocate(one.take), length: one.take, mark: ++mark };
            arena.words.fill(run.mark, run.offset, run.offset + run.length);
            runs.push(run);
          } else if (runs.length > 0) {
            const [run] = runs.splice(one.give % runs.length, 1);
            arena.release(run.offset, run.length);
          }
          for (const { offset, length, mark } of runs) {
            assert.ok(arena.words.subarray(offset, offset + length).every(word => word === mark));
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  it('takes a run that was given back before it takes new memory', () => {
    const arena = new Arena(16);
    for (let length = 1; length <= MAX_RUN; length++) {
      const offset = arena.allocate(length);
      arena.release(offset, length);
      assert.equal(arena.allocate(length), offset);
      arena.release(offset, length);
    }
    const { length } = arena.words;
    for (let n = 0; n < 10_000; n++) arena.release(arena.allocate(MAX_RUN), MAX_RUN);
    assert.equal(arena.words.length, length);
  });
});

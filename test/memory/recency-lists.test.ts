import assert from 'node:assert/strict';
import fc from 'fast-check';
import { RecencyLists } from '../../datapath/memory/recency-lists.ts';

const NUMBERS = 8;
const LISTS = 2;

describe('RecencyLists', () => {
  it('keeps each number on one list or none, in the order of use', () => {
    const step = fc.record({
      what: fc.constantFrom('enlist', 'demote', 'delist'),
      i: fc.nat(NUMBERS - 1),
      list: fc.nat(LISTS - 1),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), steps => {
        const lists = new RecencyLists(NUMBERS, LISTS);
        const model: number[][] = [[], []];
        for (const { what, i, list } of steps) {
          const on = model.findIndex(all => all.includes(i));
          if (what === 'demote' && on < 0) continue;
          for (const all of model) if (all.includes(i)) all.splice(all.indexOf(i), 1);
          if (what === 'enlist') {
            lists.enlist(i, list);
            model[list].unshift(i);
          } else if (what === 'demote') {
            lists.demote(i);
            model[on].push(i);
          } else lists.delist(i);
          assert.equal(
            lists.listOf(i),
            model.findIndex(all => all.includes(i)),
          );
          for (const [n, all] of model.entries()) {
            assert.equal(lists.size(n), all.length);
            if (all.length > 0) assert.equal(lists.last(n), all.at(-1));
          }
        }
        // Emptied from their ends they are what the model is.
        for (const [n, all] of model.entries()) {
          const drained: number[] = [];
          while (lists.size(n) > 0) {
            drained.unshift(lists.last(n));
            lists.delist(lists.last(n));
          }
          assert.deepEqual(drained, all);
        }
      }),
    );
  });
});

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Rounds } from '../../datapath/drive/rounds.ts';

describe('how long rounds take', () => {
  it('each counts in the narrowest row that it fits in', () => {
    const times = fc.array(
      fc.oneof(fc.double({ min: 0, max: 1000, noNaN: true }), fc.constantFrom(0.001, 0.002, 0.064)),
    );
    fc.assert(
      fc.property(times, all => {
        const rounds = new Rounds();
        for (const ms of all) rounds.add(ms);
        const rows = rounds.rows();
        let below = 0;
        for (let us = 1; us <= 2 ** 18; us *= 2) {
          const expected = all.filter(ms => Math.ceil(ms * 1000) <= us).length;
          below += rows.find(({ upToUs }) => upToUs === us)?.rounds ?? 0;
          assert.equal(below, expected, `up to ${us} us`);
        }
        assert.equal(below + (rows.find(({ upToUs }) => upToUs === null)?.rounds ?? 0), all.length);
      }),
    );
  });
});

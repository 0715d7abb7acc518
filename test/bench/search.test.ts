import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type RateSearch, type RateTrial, searchRates } from '../../bench/e2e/search.ts';

const SEARCH: RateSearch = { acceptable: [0, 0.001, 0.01], resolution: 0.03, attempts: 2, least: 500 };

/** A path that carries `capacity` and loses the rest, and a sender that sends `most`. */
function pathOf(capacity: number, most: number): (rate: number) => RateTrial {
  return asked => {
    const rate = Math.min(asked, most);
    return { rate, loss: Math.max(0, 1 - capacity / rate) };
  };
}

describe('bench/e2e/search', () => {
  it('finds the highest rate for each share of loss, to the resolution', () => {
    const rates = fc.record({
      capacity: fc.integer({ min: 1000, max: 2_000_000 }),
      spare: fc.double({ min: 1.2, max: 50, noNaN: true }),
    });
    fc.assert(
      fc.property(rates, ({ capacity, spare }) => {
        const found = searchRates(pathOf(capacity, capacity * spare), SEARCH);
        for (const [i, { acceptable, rate, loss, senderLimited }] of found.entries()) {
          assert.equal(acceptable, SEARCH.acceptable[i]);
          const best = capacity / (1 - acceptable);
          assert.ok(rate <= best * (1 + 1e-9) && rate * (1 + SEARCH.resolution) >= best, `${rate} of ${best}`);
          assert.ok(loss <= acceptable);
          assert.equal(senderLimited, false);
        }
      }),
    );
  });

  it('asks the fewer the better: all three answers in 20 trials', () => {
    let trials = 0;
    const path = pathOf(123_456, 1_000_000);
    searchRates(rate => {
      trials++;
      return path(rate);
    }, SEARCH);
    assert.ok(trials <= 20, `${trials}`);
  });

  it('says so when the sender could not send more', () => {
    const found = searchRates(pathOf(500_000, 200_000), SEARCH);
    for (const { rate, loss, senderLimited } of found) {
      assert.deepEqual({ rate, loss, senderLimited }, { rate: 200_000, loss: 0, senderLimited: true });
    }
  });

  it('says so when the sender falls behind at a rate that it can send without a limit', () => {
    // As where it has to share its processor with the path as soon as that keeps up.
    const trial = (asked: number): RateTrial =>
      asked === Infinity ? { rate: 800_000, loss: 0.5 } : { rate: Math.min(asked, 100_000), loss: 0 };
    for (const { rate, senderLimited } of searchRates(trial, SEARCH)) {
      assert.deepEqual({ rate, senderLimited }, { rate: 100_000, senderLimited: true });
    }
  });

  it('is not led astray by a packet lost now and then, but is by one that is always lost', () => {
    const path = pathOf(100_000, 1_000_000);
    let count = 0;
    const hiccups = (asked: number): RateTrial => {
      const { rate, loss } = path(asked);
      return { rate, loss: loss === 0 && count++ % 2 === 0 ? 1e-4 : loss };
    };
    const [none] = searchRates(hiccups, SEARCH);
    assert.ok(none.rate > 97_000 && none.loss === 0, `${none.rate}`);

    const leaky = (asked: number): RateTrial => {
      const { rate, loss } = path(asked);
      return { rate, loss: Math.max(loss, 1e-4) };
    };
    const [never, partial] = searchRates(leaky, SEARCH);
    assert.deepEqual(never, { acceptable: 0, rate: 0, loss: 1, senderLimited: false });
    assert.ok(partial.rate > 97_000, `${partial.rate}`);
  });

  it('ends, and keeps the answers in order, whatever the trials say', () => {
    const anything = fc.infiniteStream(
      fc.record({
        share: fc.double({ min: 0.01, max: 1, noNaN: true }),
        loss: fc.constantFrom(0, 1e-4, 5e-3, 0.03, 0.5),
      }),
    );
    fc.assert(
      fc.property(anything, stream => {
        let trials = 0;
        const trial = (asked: number): RateTrial => {
          assert.ok(++trials < 500);
          const { share, loss } = stream.next().value;
          return { rate: asked === Infinity ? 1e6 : asked * share, loss };
        };
        const [none, tenth, whole] = searchRates(trial, SEARCH);
        assert.ok(none.rate <= tenth.rate && tenth.rate <= whole.rate);
      }),
    );
  });
});

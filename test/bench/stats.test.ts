import assert from 'node:assert/strict';
import { ci95, compareMeans, judge, median, outliersOf, studentT, summarizeRatios } from '../../bench/stats.ts';

describe('bench/stats', () => {
  it('takes the middle, or the mean of the two in the middle', () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 3, 2]), 2.5);
    assert.equal(median([7]), 7);
    assert.ok(Number.isNaN(median([])));
  });

  // Ranks from tables of the binomial distribution, counted from 1: the narrowest symmetric ones that give 95 %.
  const ranks: [n: number, low: number, high: number][] = [
    [1, 1, 1],
    [5, 1, 5],
    [6, 1, 6],
    [8, 1, 8],
    [9, 2, 8],
    [12, 3, 10],
    [20, 6, 15],
    [25, 8, 18],
  ];
  for (const [n, low, high] of ranks) {
    it(`${n} values: the interval goes from the value of rank ${low} to that of rank ${high}`, () => {
      const values = Array.from({ length: n }, (_, i) => n - i);
      assert.deepEqual(ci95(values), [low, high]);
    });
  }

  it('takes ratios pair by pair: what slows both sides of a pair does not show', () => {
    const kernel = [10, 5, 20, 8, 13, 2];
    const ours = kernel.map(value => value * 0.5);
    const { median: ratio, ci95: interval } = summarizeRatios(ours, kernel);
    assert.equal(ratio, 0.5);
    assert.deepEqual(interval, [0.5, 0.5]);
  });

  it('widens the range of five ratios to their t interval, worked by hand', () => {
    // Logarithms -2 -1 0 1 2: variance 2.5, standard error sqrt(0.5), times 2.776 is 1.9629; less than the range of 2.
    const spread = [-2, -1, 0, 1, 2].map(Math.exp);
    const wide = summarizeRatios(spread, [1, 1, 1, 1, 1]).ci95;
    assert.deepEqual(wide, [Math.exp(-2), Math.exp(2)]);
    // -1 -1 0 1 1: variance 1, standard error sqrt(0.2), times 2.776 is 1.24147; more than the range of 1.
    const [low, high] = summarizeRatios([-1, -1, 0, 1, 1].map(Math.exp), [1, 1, 1, 1, 1]).ci95;
    assert.ok(Math.abs(Math.log(low) + 1.24147) < 1e-4, `${low}`);
    assert.ok(Math.abs(Math.log(high) - 1.24147) < 1e-4, `${high}`);
  });

  it("finds what lies outside Tukey's fences, worked by hand", () => {
    // Quartiles 2 and 4, so the fences are at -1 and 7.
    assert.deepEqual(outliersOf([3, 1, 2, 5, 4]), []);
    assert.deepEqual(outliersOf([1, 2, 3, 4, 8]), [8]);
    assert.deepEqual(outliersOf([-2, 2, 3, 4, 1]), []);
    assert.deepEqual(outliersOf([1, 2, 3, 1000]), []);
  });

  it('names a winner only outside the noise', () => {
    const of = (...samples: number[]) =>
      summarizeRatios(
        samples,
        samples.map(() => 1),
      );
    assert.equal(judge(of(1.1, 1.2, 1.15, 1.12, 1.18), 'higher'), 'better');
    assert.equal(judge(of(1.1, 1.2, 1.15, 1.12, 1.18), 'lower'), 'worse');
    assert.equal(judge(of(0.5, 0.52, 0.51, 0.5, 0.49), 'higher'), 'worse');
    assert.equal(judge(of(0.5, 0.52, 0.51, 0.5, 0.49), 'lower'), 'better');
    assert.equal(judge(of(0.9, 1.2, 1.15, 1.12, 1.18), 'higher'), 'no difference');
    assert.equal(judge(of(1, 1, 1, 1, 1), 'higher'), 'no difference');
    assert.equal(judge(of(2, 2.1), 'higher'), 'too few pairs');
  });

  it('claims a difference between equal things in at most one run of twenty', () => {
    // A small generator, so that the test is the same every time: Park and Miller, ACM 31 (1988).
    let state = 12345;
    const uniform = () => {
      state = (state * 16807) % 2147483647;
      return state / 2147483647;
    };
    const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    const trial = () => 10 * Math.exp(0.1 * normal());
    for (const pairs of [3, 5, 6, 9]) {
      let claims = 0;
      for (let run = 0; run < 4000; run++) {
        const ours = Array.from({ length: pairs }, trial);
        const kernel = Array.from({ length: pairs }, trial);
        if (judge(summarizeRatios(ours, kernel), 'higher') !== 'no difference') claims++;
      }
      assert.ok(claims / 4000 <= 0.055, `${pairs} pairs: ${claims} of 4000`);
      assert.ok(claims > 0, `${pairs} pairs: never, so nothing is ever found`);
    }
  });

  it('8 pairs: intervals of two runs of the same thing overlap, but in one row of thousands', () => {
    let state = 4711;
    const uniform = () => {
      state = (state * 16807) % 2147483647;
      return state / 2147483647;
    };
    const rows = 20_000;
    const run = () => summarizeRatios(Array.from({ length: 8 }, uniform), Array(8).fill(1)).ci95;
    let apart = 0;
    for (let row = 0; row < rows; row++) {
      const [first, second] = [run(), run()];
      if (first[1] < second[0] || second[1] < first[0]) apart++;
    }
    // All 8 of the one below all 8 of the other: 2 * 8! * 8! / 16! = 1 of 6435.
    assert.ok(apart / rows < 3 / 6435, `${apart} of ${rows}`);
  });

  // From printed tables, two-sided.
  for (const [alpha, degrees, expected] of [
    [0.05, 1, 12.706],
    [0.05, 4, 2.776],
    [0.01, 8, 3.355],
    [0.001, 20, 3.85],
    [0.05, 1000, 1.962],
  ]) {
    it(`Student's t for ${alpha} and ${degrees} degrees of freedom is ${expected}`, () => {
      assert.ok(Math.abs(studentT(alpha, degrees) - expected) < 0.002, String(studentT(alpha, degrees)));
    });
  }

  it("compares means by Welch's interval, worked by hand", () => {
    // Variances 1 and 4, 3 values each: standard error sqrt(5/3) = 1.291, 2.941 degrees, t 3.220.
    const { difference, low, high } = compareMeans([1, 2, 3], [8, 10, 12], 0.05);
    assert.equal(difference, 8);
    assert.ok(Math.abs(low - (8 - 4.157)) < 0.01 && Math.abs(high - (8 + 4.157)) < 0.01, `${low} ${high}`);
    assert.deepEqual(compareMeans([1, 1], [2, 2], 0.05), { difference: 1, low: 1, high: 1 });
  });
});

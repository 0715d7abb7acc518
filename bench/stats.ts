/** Statistics of repeated measurements: robust ones, since a shared machine throws outliers to one side. */

export interface Summary {
  median: number;
  /** 95 % confidence interval of the median. */
  ci95: [low: number, high: number];
  samples: number[];
}

/** The middle value, or the mean of the two in the middle. NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * A confidence interval of the median of at least 95 %, from order statistics: no assumption about the distribution.
 * Fewer than 6 values cannot give 95 %; then it is their whole range.
 */
export function ci95(values: readonly number[]): [low: number, high: number] {
  const sorted = [...values].sort((a, b) => a - b);
  const n = sorted.length;
  // The interval [x(k), x(n-1-k)] misses the median with probability 2 * P(Binomial(n, 1/2) <= k).
  let k = 0;
  let term = 0.5 ** n;
  let tail = term;
  while (k + 1 < n / 2) {
    term *= (n - k) / (k + 1);
    if (2 * (tail + term) > 0.05) break;
    tail += term;
    k++;
  }
  return [sorted[k], sorted[n - 1 - k]];
}

export function summarize(samples: readonly number[]): Summary {
  return { median: median(samples), ci95: ci95(samples), samples: [...samples] };
}

/** Quantiles 0.975 of Student's t distribution for 1 to 4 degrees of freedom. */
const STUDENT_T = [12.706, 4.303, 3.182, 2.776];

/**
 * How many times `ours` is `theirs`, from trials made in pairs: the ratio is taken pair by pair, so that what slows the
 * machine for a while slows both sides of it.
 *
 * Below 6 pairs order statistics cannot give 95 %: five cover the median only with 93.75 %. There the range is widened to
 * the t interval of the ratios' logarithms where that is wider. One pair has no interval; it is given as [ratio, ratio].
 * @param ours, theirs  positive, of the same length, at least one
 */
export function summarizeRatios(ours: readonly number[], theirs: readonly number[]): Summary {
  const ratios = ours.map((value, i) => value / theirs[i]);
  const summary = summarize(ratios);
  const n = ratios.length;
  if (n < 2 || n > 5) return summary;
  const logs = ratios.map(Math.log);
  const mean = logs.reduce((sum, log) => sum + log, 0) / n;
  const variance = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0) / (n - 1);
  const half = STUDENT_T[n - 2] * Math.sqrt(variance / n);
  const [low, high] = summary.ci95;
  summary.ci95 = [Math.min(low, Math.exp(mean - half)), Math.max(high, Math.exp(mean + half))];
  return summary;
}

/** Values beyond Tukey's fences: more than 1.5 times the quartiles' distance outside of them. None of fewer than 5. */
export function outliersOf(values: readonly number[]): number[] {
  if (values.length < 5) return [];
  const sorted = [...values].sort((a, b) => a - b);
  const quartile = (share: number): number => {
    const at = share * (sorted.length - 1);
    const below = Math.floor(at);
    return sorted[below] + (at - below) * (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
  };
  const [low, high] = [quartile(0.25), quartile(0.75)];
  const fence = 1.5 * (high - low);
  return values.filter(value => value < low - fence || value > high + fence);
}

export type Verdict = 'better' | 'worse' | 'no difference' | 'too few pairs';

/** Names a winner only outside the noise: where the interval covers 1 there is none, and fewer than 3 pairs show nothing. */
export function judge(ratio: Summary, better: 'higher' | 'lower'): Verdict {
  if (ratio.samples.length < 3) return 'too few pairs';
  const [low, high] = ratio.ci95;
  if (low <= 1 && high >= 1) return 'no difference';
  return low > 1 === (better === 'higher') ? 'better' : 'worse';
}

const T_CELLS = 1000;

/**
 * Quantile of Student's t distribution: the t that a variable exceeds in absolute value with probability `alpha`. To three
 * digits. With t = sqrt(n) tan(x) the density becomes cos(x)^(n-1) on [0, pi/2], which is summed from its far end.
 */
export function studentT(alpha: number, degrees: number): number {
  const width = Math.PI / 2 / T_CELLS;
  const cells = Array.from({ length: T_CELLS }, (_, i) => Math.cos((i + 0.5) * width) ** (degrees - 1));
  const wanted = alpha * cells.reduce((sum, cell) => sum + cell, 0);
  let tail = 0;
  let i = T_CELLS;
  while (tail + cells[i - 1] < wanted) tail += cells[--i];
  return Math.sqrt(degrees) * Math.tan((i - (wanted - tail) / cells[i - 1]) * width);
}

/**
 * How much greater the mean of `after` is than that of `before`, from samples that were not taken in pairs: Welch's t
 * interval.
 * @param alpha probability of an interval that misses
 * @param before, after  two values or more each
 */
export function compareMeans(
  before: readonly number[],
  after: readonly number[],
  alpha: number,
): { difference: number; low: number; high: number } {
  const a = meanAndVariance(before);
  const b = meanAndVariance(after);
  const va = a.variance / before.length;
  const vb = b.variance / after.length;
  const difference = b.mean - a.mean;
  if (va + vb === 0) return { difference, low: difference, high: difference };
  const degrees = (va + vb) ** 2 / (va ** 2 / (before.length - 1) + vb ** 2 / (after.length - 1));
  const half = studentT(alpha, degrees) * Math.sqrt(va + vb);
  return { difference, low: difference - half, high: difference + half };
}

function meanAndVariance(values: readonly number[]): { mean: number; variance: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return { mean, variance };
}

/** Of the values on each side, which a trimmed mean leaves out. */
const TRIM = 0.2;

/**
 * A confidence interval of the trimmed mean (Yuen 1974): Student's interval of the middle three fifths, with the variance of
 * all values, the outer ones drawn in. A value far off widens it little.
 * @param alpha probability of an interval that misses
 * @param values 5 or more
 */
export function trimmedInterval(
  values: readonly number[],
  alpha: number,
): { estimate: number; low: number; high: number } {
  const sorted = [...values].sort((a, b) => a - b);
  const n = sorted.length;
  const cut = Math.floor(TRIM * n);
  const middle = sorted.slice(cut, n - cut);
  const estimate = middle.reduce((sum, value) => sum + value, 0) / middle.length;
  const drawnIn = sorted.map(value => Math.min(Math.max(value, middle[0]), middle[middle.length - 1]));
  const error = Math.sqrt(meanAndVariance(drawnIn).variance / n) / (1 - 2 * TRIM);
  const half = studentT(alpha, middle.length - 1) * error;
  return { estimate, low: estimate - half, high: estimate + half };
}

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

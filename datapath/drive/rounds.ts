/**
 * How long the rounds of a loop take: so long a packet may wait that comes meanwhile. Counted by powers of two, so that it
 * costs the loop no more than an addition.
 */

/** The last is for what takes longer than all others: 0.26 s. */
const BUCKETS = 20;

/** Rounds that took no longer than this, and longer than the row before says. */
export interface RoundRow {
  /** Microseconds; null: there is no bound. */
  upToUs: number | null;
  rounds: number;
  /** Of all of them together. */
  seconds: number;
}

export class Rounds {
  private readonly counts = new Float64Array(BUCKETS);
  private readonly ms = new Float64Array(BUCKETS);

  /** @param tookMs may be a fraction; a clock that has been set back gives the shortest */
  add(tookMs: number): void {
    const us = Math.ceil(tookMs * 1000) | 0;
    const bucket = us <= 1 ? 0 : Math.min(BUCKETS - 1, 32 - Math.clz32(us - 1));
    this.counts[bucket]++;
    this.ms[bucket] += tookMs;
  }

  /** Those that there were. */
  rows(): RoundRow[] {
    return Array.from(this.counts, (rounds, i) => {
      const seconds = Number((this.ms[i] / 1000).toFixed(6));
      return { upToUs: i === BUCKETS - 1 ? null : 2 ** i, rounds, seconds };
    }).filter(({ rounds }) => rounds > 0);
  }
}

/** Bounds of the buckets that have one, in microseconds. */
export const ROUND_BOUNDS_US: readonly number[] = Array.from({ length: BUCKETS - 1 }, (_, i) => 2 ** i);

/**
 * xorshift32 (Marsaglia 2003): fast, allocation-free and seedable; good enough to spread ports and backends, not for
 * secrets.
 */
export class Random {
  /** Where the sequence is; put back, it goes on from there again. */
  state: number;

  /** @param seed any integer but 0; the same seed gives the same sequence */
  constructor(seed: number) {
    this.state = seed | 0 || 0x6d2b79f5;
  }

  /** The next value as int32, never 0. */
  next(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return x;
  }

  /** A whole number in [0, n). */
  below(n: number): number {
    return Math.floor(((this.next() >>> 0) / 4294967296) * n);
  }
}

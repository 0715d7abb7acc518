/** Time comes from outside: the wall in a running node, the test or the capture file elsewhere. */
export interface Clock {
  /** Milliseconds since any fixed point; never goes back. */
  now(): number;
}

/**
 * The machine's monotonic clock, in whole milliseconds: V8 keeps those without allocating, where a fraction costs 16 bytes
 * of heap each time it is stored.
 */
export const monotonicClock: Clock = { now: () => Math.floor(performance.now()) };

/** A clock that stands until it is moved. */
export class ManualClock implements Clock {
  private ms = 0;
  now(): number {
    return this.ms;
  }
  advance(ms: number): void {
    this.ms += ms;
  }
}

/** Time comes from outside: the wall in a running node, the test or the capture file elsewhere. */
export interface Clock {
  /** Milliseconds since any fixed point; never goes back. */
  now(): number;
}

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

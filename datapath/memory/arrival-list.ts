/** Some of the numbers [0, capacity) in an order of arrival, each at most once; any can be taken out at once. */
const NONE = -1;

export class ArrivalList {
  /** The one that has been in longest, or -1. */
  first = NONE;
  private last = NONE;
  private readonly before: Int32Array;
  private readonly after: Int32Array;

  constructor(capacity: number) {
    this.before = new Int32Array(capacity);
    this.after = new Int32Array(capacity);
  }

  append(i: number): void {
    this.before[i] = this.last;
    this.after[i] = NONE;
    if (this.last === NONE) this.first = i;
    else this.after[this.last] = i;
    this.last = i;
  }

  remove(i: number): void {
    const before = this.before[i];
    const after = this.after[i];
    if (before === NONE) this.first = after;
    else this.after[before] = after;
    if (after === NONE) this.last = before;
    else this.before[after] = before;
  }
}

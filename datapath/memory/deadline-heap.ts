const NONE = -1;

/**
 * Binary heap of entry numbers by deadline. Equal deadlines come in the order of `tie`, so that a replay sees them as
 * the first run did.
 */
export class DeadlineHeap {
  private readonly heap: Int32Array;
  /** Place in `heap` by entry; -1: not armed. */
  private readonly place: Int32Array;
  private readonly when: Float64Array;
  private readonly tie: Int32Array;
  private size = 0;

  /**
   * @param capacity entries are numbers below it
   * @param tie by entry; its owner may change it while the entry is not armed
   */
  constructor(capacity: number, tie: Int32Array) {
    this.heap = new Int32Array(capacity);
    this.place = new Int32Array(capacity).fill(NONE);
    this.when = new Float64Array(capacity);
    this.tie = tie;
  }

  /** The earliest entry; -1 when there is none. */
  first(): number {
    return this.size === 0 ? NONE : this.heap[0];
  }

  /** The earliest deadline; Infinity when there is none. */
  firstTime(): number {
    return this.size === 0 ? Number.POSITIVE_INFINITY : this.when[this.heap[0]];
  }

  /** Sets or moves the deadline of `entry`. */
  arm(entry: number, when: number): void {
    this.when[entry] = when;
    if (this.place[entry] === NONE) {
      this.heap[this.size] = entry;
      this.place[entry] = this.size++;
    }
    this.settle(entry);
  }

  disarm(entry: number): void {
    const hole = this.place[entry];
    if (hole === NONE) return;
    this.place[entry] = NONE;
    const last = this.heap[--this.size];
    if (last === entry) return;
    this.heap[hole] = last;
    this.place[last] = hole;
    this.settle(last);
  }

  private before(a: number, b: number): boolean {
    return this.when[a] !== this.when[b] ? this.when[a] < this.when[b] : this.tie[a] < this.tie[b];
  }

  private settle(entry: number): void {
    let at = this.place[entry];
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (!this.before(entry, this.heap[up])) break;
      this.put(this.heap[up], at);
      at = up;
    }
    for (;;) {
      let down = 2 * at + 1;
      if (down >= this.size) break;
      if (down + 1 < this.size && this.before(this.heap[down + 1], this.heap[down])) down++;
      if (!this.before(this.heap[down], entry)) break;
      this.put(this.heap[down], at);
      at = down;
    }
    this.put(entry, at);
  }

  private put(entry: number, at: number): void {
    this.heap[at] = entry;
    this.place[entry] = at;
  }
}

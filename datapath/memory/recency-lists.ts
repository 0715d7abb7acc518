/**
 * A few lists of small numbers, each number on one of them or on none, most recently used first: for what gives way when there
 * is no more room. All memory is made once; every call takes the same time.
 */
const NIL = -1;

export class RecencyLists {
  private readonly capacity: number;
  // Rings, each with a sentinel behind the last number: that of list n is capacity + n.
  private readonly nextOf: Int32Array;
  private readonly previous: Int32Array;
  private readonly list: Int8Array;
  private readonly sizes: Int32Array;

  /** @param capacity numbers are 0 to this, exclusively @param lists how many; 127 at most */
  constructor(capacity: number, lists: number) {
    this.capacity = capacity;
    this.nextOf = new Int32Array(capacity + lists);
    this.previous = new Int32Array(capacity + lists);
    this.list = new Int8Array(capacity).fill(NIL);
    this.sizes = new Int32Array(lists);
    for (let i = capacity; i < capacity + lists; i++) this.nextOf[i] = this.previous[i] = i;
  }

  /** How many are on a list. */
  size(list: number): number {
    return this.sizes[list];
  }

  /** The list that `i` is on, or -1. */
  listOf(i: number): number {
    return this.list[i];
  }

  /** The one on a list that was used longest ago. The list must not be empty. */
  last(list: number): number {
    return this.previous[this.capacity + list];
  }

  /** Puts `i` at the recently used end of `list`, wherever it was. */
  enlist(i: number, list: number): void {
    this.delist(i);
    this.list[i] = list;
    this.sizes[list]++;
    this.linkBehind(i, this.capacity + list);
  }

  /** Moves `i`, which is on a list, to its other end. */
  demote(i: number): void {
    this.unlink(i);
    this.linkBehind(i, this.previous[this.capacity + this.list[i]]);
  }

  /** Takes `i` off its list, if it is on one. */
  delist(i: number): void {
    if (this.list[i] === NIL) return;
    this.unlink(i);
    this.sizes[this.list[i]]--;
    this.list[i] = NIL;
  }

  private linkBehind(i: number, before: number): void {
    const after = this.nextOf[before];
    this.nextOf[before] = i;
    this.previous[i] = before;
    this.nextOf[i] = after;
    this.previous[after] = i;
  }

  private unlink(i: number): void {
    const before = this.previous[i];
    const after = this.nextOf[i];
    this.nextOf[before] = after;
    this.previous[after] = before;
  }
}

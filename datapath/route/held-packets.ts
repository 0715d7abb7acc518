/**
 * Packets that wait for a neighbour, by pool slot: each is in its neighbour's queue, in the order in which they came, and in the
 * order of all. All memory is made once.
 */
const NIL = -1;

export class HeldPackets {
  /** In all queues. */
  count = 0;
  // By neighbour.
  private readonly head: Int32Array;
  private readonly tail: Int32Array;
  private readonly lengths: Uint32Array;
  // By slot.
  private readonly queueNext: Int32Array;
  private readonly orderNext: Int32Array;
  private readonly orderPrevious: Int32Array;
  private readonly holder: Int32Array;
  private orderHead = NIL;
  private orderTail = NIL;

  constructor(neighbors: number, slots: number) {
    this.head = new Int32Array(neighbors).fill(NIL);
    this.tail = new Int32Array(neighbors).fill(NIL);
    this.lengths = new Uint32Array(neighbors);
    this.queueNext = new Int32Array(slots);
    this.orderNext = new Int32Array(slots);
    this.orderPrevious = new Int32Array(slots);
    this.holder = new Int32Array(slots);
  }

  /** How many wait for neighbour `i`. */
  of(i: number): number {
    return this.lengths[i];
  }

  /** The neighbour that the oldest packet of all waits for. There must be one. */
  get oldestHolder(): number {
    return this.holder[this.orderHead];
  }

  add(i: number, slot: number): void {
    this.queueNext[slot] = NIL;
    if (this.lengths[i]++ === 0) this.head[i] = slot;
    else this.queueNext[this.tail[i]] = slot;
    this.tail[i] = slot;
    this.holder[slot] = i;
    this.orderPrevious[slot] = this.orderTail;
    this.orderNext[slot] = NIL;
    if (this.orderTail === NIL) this.orderHead = slot;
    else this.orderNext[this.orderTail] = slot;
    this.orderTail = slot;
    this.count++;
  }

  /** Takes the oldest packet of `i` out; there must be one. @returns its slot */
  takeOldest(i: number): number {
    const slot = this.head[i];
    this.head[i] = this.queueNext[slot];
    if (--this.lengths[i] === 0) this.tail[i] = NIL;
    this.leaveOrder(slot);
    return slot;
  }

  /**
   * Takes the whole queue of `i` out.
   * @returns its first slot or -1; the rest follows by next(). Read that before a packet is handed over: its slot may come
   *   back with another packet at once.
   */
  takeAll(i: number): number {
    const head = this.head[i];
    for (let slot = head; slot !== NIL; slot = this.queueNext[slot]) this.leaveOrder(slot);
    this.head[i] = NIL;
    this.tail[i] = NIL;
    this.lengths[i] = 0;
    return head;
  }

  /** The slot behind one that takeAll() has taken out, or -1. */
  next(slot: number): number {
    return this.queueNext[slot];
  }

  private leaveOrder(slot: number): void {
    const next = this.orderNext[slot];
    const previous = this.orderPrevious[slot];
    if (previous === NIL) this.orderHead = next;
    else this.orderNext[previous] = next;
    if (next === NIL) this.orderTail = previous;
    else this.orderPrevious[next] = previous;
    this.count--;
  }
}

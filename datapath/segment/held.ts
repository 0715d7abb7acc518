/** Packets on their way along a wire: a heap by the time at which each is due; those of one time in the order they came. */
import type { Packet } from '../packet/packet.ts';

export class Held {
  /** How many. */
  size = 0;
  /** The tag of the packet that pop() gave out last. */
  tag = 0;
  private due = new Float64Array(64);
  private order = new Float64Array(64);
  private tags = new Int32Array(64);
  private readonly packets: Packet[] = [];
  private pushed = 0;

  /** When the first is due; Infinity if there is none. */
  get first(): number {
    return this.size === 0 ? Number.POSITIVE_INFINITY : this.due[0];
  }

  push(p: Packet, tag: number, due: number): void {
    if (this.size === this.due.length) this.grow();
    let i = this.size++;
    const order = this.pushed++;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (this.due[parent] <= due) break;
      this.move(parent, i);
      i = parent;
    }
    this.due[i] = due;
    this.order[i] = order;
    this.tags[i] = tag;
    this.packets[i] = p;
  }

  /** The one that is due first. There must be one. */
  pop(): Packet {
    const p = this.packets[0];
    this.tag = this.tags[0];
    const last = --this.size;
    let i = 0;
    while (true) {
      let child = 2 * i + 1;
      if (child >= last) break;
      if (child + 1 < last && this.before(child + 1, child)) child++;
      if (!this.before(child, last)) break;
      this.move(child, i);
      i = child;
    }
    this.move(last, i);
    return p;
  }

  /** What came by the port `tag` came by nobody: the port is gone. */
  forgetTag(tag: number): void {
    for (let i = 0; i < this.size; i++) if (this.tags[i] === tag) this.tags[i] = -1;
  }

  private before(a: number, b: number): boolean {
    const { due, order } = this;
    return due[a] < due[b] || (due[a] === due[b] && order[a] < order[b]);
  }

  private move(from: number, to: number): void {
    this.due[to] = this.due[from];
    this.order[to] = this.order[from];
    this.tags[to] = this.tags[from];
    this.packets[to] = this.packets[from];
  }

  private grow(): void {
    const double = <T extends Float64Array | Int32Array>(old: T, bigger: T): T => {
      bigger.set(old);
      return bigger;
    };
    const n = 2 * this.due.length;
    this.due = double(this.due, new Float64Array(n));
    this.order = double(this.order, new Float64Array(n));
    this.tags = double(this.tags, new Int32Array(n));
  }
}

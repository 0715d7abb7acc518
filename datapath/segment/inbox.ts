/** Frames that wait for a node, in the memory of the thread that runs it. */
import { clone } from '../packet/copy.ts';
import { HEADROOM, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';

/** Several bursts. A power of two. */
const QUEUE = 1024;
/** What a node may put in front of a frame's payload (HEADROOM says what), less the frame's own header. */
const NEEDED_HEADROOM = 340 - 14;

export class Inbox {
  private readonly pool: Pool;
  private readonly queue: Packet[] = [];
  private head = 0;
  private count = 0;

  constructor(pool: Pool) {
    this.pool = pool;
    for (let i = 0; i < QUEUE; i++) this.queue.push(pool.packets[0]);
  }

  get size(): number {
    return this.count;
  }

  get isFull(): boolean {
    return this.count === QUEUE;
  }

  /** There is room. Takes ownership. */
  push(p: Packet): void {
    this.queue[(this.head + this.count++) & (QUEUE - 1)] = p;
  }

  /** The oldest of those that are there. */
  shift(): Packet {
    const p = this.queue[this.head];
    this.head = (this.head + 1) & (QUEUE - 1);
    this.count--;
    return p;
  }

  /** As Device.readBurst. */
  read(slots: Packet[], max: number): number {
    const n = Math.min(max, this.count);
    for (let i = 0; i < n; i++) {
      const p = this.shift();
      this.pool.release(slots[i]);
      slots[i] = p.off - p.start >= NEEDED_HEADROOM ? p : this.moveBack(p);
      slots[i].forget();
    }
    return n;
  }

  /** Nodes that encapsulate what others have encapsulated use the headroom up. */
  private moveBack(p: Packet): Packet {
    // There is one: the slot that it takes the place of has just been released.
    const q = clone(this.pool, p, HEADROOM) as Packet;
    this.pool.release(p);
    return q;
  }
}

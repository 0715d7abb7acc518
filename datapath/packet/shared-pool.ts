/**
 * The packets of one thread out of a slab that several share, each its own slots. Every thread sees all slots, at the same
 * positions, through Packet objects of its own; whoever holds a packet may read and write it, and releases it as any other:
 * a slot of another thread goes back to that thread by a ring.
 *
 * Who holds which slot stands in shared memory, written by the one who receives it: what a thread held when it died is
 * found there. A slot that lies unread in a ring is still its sender's.
 */
import { RowRing } from '../memory/row-ring.ts';
import { type Packet, SLOT_BYTES } from './packet.ts';
import { Pool } from './pool.ts';

/** Positions in the slab are int32. */
export const MOST_SLOTS = Math.floor(0x7fffffff / SLOT_BYTES);

/** What the threads have in common. Threads count from 0. */
export interface SharedSlab {
  threads: number;
  /** Slots of each. */
  share: number;
  bytes: Uint8Array;
  /** By slot: who holds it. */
  holders: SharedArrayBuffer;
  /** [from][to]: slots that go back. */
  returns: (SharedArrayBuffer | null)[][];
}

/**
 * @param share slots of each thread; `threads` times as many are at most MOST_SLOTS
 * @param allocate for the slab: memory that threads share
 */
export function makeSharedSlab(threads: number, share: number, allocate: (bytes: number) => Uint8Array): SharedSlab {
  const holders = new SharedArrayBuffer(4 * threads * share);
  const words = new Int32Array(holders);
  for (let slot = 0; slot < words.length; slot++) words[slot] = Math.floor(slot / share);
  // A slot is in one ring at most: they are never full.
  const rows = 2 ** Math.ceil(Math.log2(share));
  const returns = Array.from({ length: threads }, (_, from) =>
    Array.from({ length: threads }, (_, to) => (from === to ? null : RowRing.allocate(rows, 1))),
  );
  return { threads, share, bytes: allocate(threads * share * SLOT_BYTES), holders, returns };
}

export class SharedPool extends Pool {
  /** Whose it is. */
  readonly thread: number;
  private readonly share: number;
  private readonly holders: Int32Array;
  /** To the others, and from them; null for itself, and for who is no more. */
  private readonly out: (RowRing | null)[];
  private readonly in: (RowRing | null)[];

  constructor({ threads, share, bytes, holders, returns }: SharedSlab, thread: number) {
    super(threads * share, bytes, { first: thread * share, size: share });
    this.thread = thread;
    this.share = share;
    this.holders = new Int32Array(holders);
    this.out = returns[thread].map(memory => (memory === null ? null : new RowRing(memory, 1, 'writer')));
    this.in = returns.map(row => (row[thread] === null ? null : new RowRing(row[thread], 1, 'reader')));
  }

  override take(): Packet | null {
    if (this.available === 0) this.collect();
    return super.take();
  }

  override release(p: Packet): void {
    const owner = Math.floor(p.slot / this.share);
    if (owner === this.thread) super.release(p);
    else this.giveBack(p.slot, owner);
  }

  private giveBack(slot: number, owner: number): void {
    const ring = this.out[owner];
    // Nobody needs it any more.
    if (ring === null) return;
    ring.words[ring.claim()] = slot;
    ring.stage();
  }

  /** A slot has come from another thread. */
  receive(slot: number): Packet {
    this.holders[slot] = this.thread;
    return this.packets[slot];
  }

  /** Takes in what others have given back. */
  collect(): void {
    for (let i = 0; i < this.in.length; i++) {
      const ring = this.in[i];
      if (ring === null) continue;
      for (let at = ring.peek(); at >= 0; at = ring.peek()) {
        super.release(this.receive(ring.words[at]));
        ring.next();
      }
      ring.settle();
    }
  }

  /** Lets the others have what has been given back to them. */
  flush(): void {
    for (let i = 0; i < this.out.length; i++) this.out[i]?.publish();
  }

  /** Whether this thread still holds a slot that it has sent. */
  holds(slot: number): boolean {
    return this.holders[slot] === this.thread;
  }

  /** A thread is no more: what it had given back is taken in, and it is given nothing. */
  forget(thread: number): void {
    this.collect();
    this.in[thread] = null;
    this.out[thread] = null;
  }

  /**
   * Takes back the slots of its own that a thread held which is no more. All threads have forgotten it by then: what it had
   * sent to them has another holder. @returns how many there were
   */
  reclaim(thread: number): number {
    let count = 0;
    const first = this.thread * this.share;
    for (let slot = first; slot < first + this.share; slot++) {
      if (this.holders[slot] !== thread) continue;
      super.release(this.receive(slot));
      count++;
    }
    return count;
  }
}

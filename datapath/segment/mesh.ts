/**
 * Frames between threads of one process: a ring of rows from each to each other one (memory/row-ring.ts), and the slots
 * themselves, which stay where they are (packet/shared-pool.ts). A frame crosses without a copy and without a lock.
 *
 * A crossing joins a node's uplink in one thread to its port of a segment in another; its number is the same at both ends,
 * and never used again. Nothing that is taken from a ring is sent on, or given back, before the ring is settled (receive()
 * settles, flush() publishes): so each slot has one holder whenever a thread dies.
 */
import { RowRing } from '../memory/row-ring.ts';
import type { Packet } from '../packet/packet.ts';
import { SharedPool, type SharedSlab } from '../packet/shared-pool.ts';

/** Frames that may be on their way from one thread to another. */
export const RING_FRAMES = 1024;

/** A row: the crossing, the slot, and what a Packet says of a frame that nobody has looked at yet. A cache line. */
const ROW = 16;
const CROSSING = 0;
const SLOT = 1;
const OFF = 2;
const LEN = 3;
const VNET_FLAGS = 4;
const GSO_TYPE = 5;
const GSO_SIZE = 6;
const CSUM_START = 7;
const CSUM_OFFSET = 8;
const OUTER_TRANSPORT = 9;
const INNER_NETWORK = 10;

/** What the threads have in common. */
export interface MeshMemory extends SharedSlab {
  /** [from][to] */
  frames: (SharedArrayBuffer | null)[][];
  /** By thread: 1 while it sleeps. */
  asleep: SharedArrayBuffer;
}

/** One end of a crossing. */
export interface CrossingEnd {
  /** Whether it takes another frame now; until then they wait in the ring, with all that came behind them. */
  readonly hasSpace: boolean;
  /** Takes ownership. */
  arrive(p: Packet): void;
}

export function makeMeshMemory(slab: SharedSlab): MeshMemory {
  const frames = slab.returns.map(row => row.map(memory => memory && RowRing.allocate(RING_FRAMES, ROW)));
  return { ...slab, frames, asleep: new SharedArrayBuffer(4 * slab.threads) };
}

export class Mesh {
  readonly pool: SharedPool;
  private readonly thread: number;
  private readonly out: (RowRing | null)[];
  private readonly in: (RowRing | null)[];
  private readonly asleep: Int32Array;
  private readonly ends: (CrossingEnd | undefined)[] = [];
  private readonly wake: (thread: number) => void;

  /** @param wake called with a thread that sleeps and has something to do now */
  constructor(memory: MeshMemory, thread: number, wake: (thread: number) => void) {
    this.pool = new SharedPool(memory, thread);
    this.thread = thread;
    this.out = memory.frames[thread].map(ring => (ring === null ? null : new RowRing(ring, ROW, 'writer')));
    this.in = memory.frames.map(row => (row[thread] === null ? null : new RowRing(row[thread], ROW, 'reader')));
    this.asleep = new Int32Array(memory.asleep);
    this.wake = wake;
  }

  /** This end of a crossing, from now on. */
  setEnd(crossing: number, end: CrossingEnd): void {
    this.ends[crossing] = end;
  }

  /** Whether a thread takes another frame. */
  hasRoom(thread: number): boolean {
    const ring = this.out[thread];
    return ring !== null && ring.claim() >= 0;
  }

  /**
   * Sends a frame to the other end of a crossing; it leaves at the next flush(). Takes ownership where it returns true.
   * @returns false when the ring is full, or the thread no more
   */
  send(p: Packet, thread: number, crossing: number): boolean {
    const ring = this.out[thread];
    if (ring === null) return false;
    const at = ring.claim();
    if (at < 0) return false;
    const { words } = ring;
    words[at + CROSSING] = crossing;
    words[at + SLOT] = p.slot;
    words[at + OFF] = p.off;
    words[at + LEN] = p.len;
    words[at + VNET_FLAGS] = p.vnetFlags;
    words[at + GSO_TYPE] = p.gsoType;
    words[at + GSO_SIZE] = p.gsoSize;
    words[at + CSUM_START] = p.csumStart;
    words[at + CSUM_OFFSET] = p.csumOffset;
    words[at + OUTER_TRANSPORT] = p.outerTransport;
    words[at + INNER_NETWORK] = p.innerNetwork;
    ring.stage();
    return true;
  }

  /** Takes in what others have sent and given back. @returns whether there was a frame */
  receive(): boolean {
    const { pool, ends } = this;
    pool.collect();
    let any = false;
    for (let i = 0; i < this.in.length; i++) {
      const ring = this.in[i];
      if (ring === null) continue;
      const { words } = ring;
      for (let at = ring.peek(); at >= 0; at = ring.peek()) {
        const end = ends[words[at + CROSSING]]!;
        if (!end.hasSpace) break;
        const p = this.unpack(words, at);
        ring.next();
        any = true;
        end.arrive(p);
      }
      ring.settle();
    }
    return any;
  }

  private unpack(words: Int32Array, at: number): Packet {
    const p = this.pool.receive(words[at + SLOT]);
    p.off = words[at + OFF];
    p.len = words[at + LEN];
    p.vnetFlags = words[at + VNET_FLAGS];
    p.gsoType = words[at + GSO_TYPE];
    p.gsoSize = words[at + GSO_SIZE];
    p.csumStart = words[at + CSUM_START];
    p.csumOffset = words[at + CSUM_OFFSET];
    p.outerTransport = words[at + OUTER_TRANSPORT];
    p.innerNetwork = words[at + INNER_NETWORK];
    p.forget();
    return p;
  }

  /** Lets the others have what is theirs, and wakes whoever sleeps. */
  flush(): void {
    const { out, asleep } = this;
    this.pool.flush();
    for (let i = 0; i < out.length; i++) {
      if (out[i]?.publish() && Atomics.compareExchange(asleep, i, 1, 0) === 1) this.wake(i);
    }
  }

  /** Whether a frame waits. */
  get hasFrames(): boolean {
    for (let i = 0; i < this.in.length; i++) {
      const ring = this.in[i];
      if (ring !== null && ring.peek() >= 0) return true;
    }
    return false;
  }

  /** About to sleep: who sends something from now on wakes this thread. @returns false if something has come already */
  lieDown(): boolean {
    Atomics.store(this.asleep, this.thread, 1);
    if (!this.hasFrames) return true;
    this.getUp();
    return false;
  }

  getUp(): void {
    Atomics.store(this.asleep, this.thread, 0);
  }

  /**
   * A thread is no more: what it had sent is taken in, what it has not taken comes back, and it is sent nothing. When all have
   * done so, each may reclaim() the slots of its own that it held.
   */
  forget(thread: number): void {
    const { pool } = this;
    const sent = this.out[thread];
    if (sent === null) return;
    // Rows that it had taken and not settled are not ours any more.
    for (const at of sent.unread()) {
      const slot = sent.words[at + SLOT];
      if (pool.holds(slot)) pool.release(pool.packets[slot]);
    }
    this.out[thread] = null;
    const left = this.in[thread]!;
    for (let at = left.peek(); at >= 0; at = left.peek()) {
      const p = this.unpack(left.words, at);
      left.next();
      this.ends[left.words[at + CROSSING]]!.arrive(p);
    }
    this.in[thread] = null;
    pool.forget(thread);
    this.flush();
  }

  /** As SharedPool.reclaim. */
  reclaim(thread: number): number {
    return this.pool.reclaim(thread);
  }
}

/** The slab and its free list. Everything is made once; taking and giving back allocates nothing. */
import { HEADROOM, Packet, SLOT_BYTES } from './packet.ts';

export class Pool {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly packets: Packet[] = [];
  /** Packets of its own: all of them, but where several threads share the slab (shared-pool.ts). */
  readonly size: number;
  /** Free slots, last in first out: the slot given back last is the one that the cache still holds. */
  private readonly free: Packet[] = [];
  private freeCount = 0;

  /**
   * @param slots how many packets may be in flight at once. Untouched slots cost address space only.
   * @param bytes for them, zeroed or of a pool that nobody uses any more; huge pages make a node 4 % faster
   * @param own the first of its own slots, and how many these are; default: all
   */
  constructor(
    slots: number,
    bytes: Uint8Array = new Uint8Array(new SharedArrayBuffer(slots * SLOT_BYTES)),
    own: { first: number; size: number } = { first: 0, size: slots },
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.bytes = bytes;
    for (let i = 0; i < slots; i++) this.packets.push(new Packet(i * SLOT_BYTES, i));
    for (let i = own.size - 1; i >= 0; i--) this.free.push(this.packets[own.first + i]);
    this.freeCount = own.size;
    this.size = own.size;
  }

  /** Packets that can still be taken. */
  get available(): number {
    return this.freeCount;
  }

  /** An empty packet at HEADROOM, or null when all are in use. */
  take(): Packet | null {
    if (this.freeCount === 0) return null;
    const p = this.free[--this.freeCount];
    p.reset(HEADROOM);
    return p;
  }

  /** Gives a packet back. It must not be used afterwards. */
  release(p: Packet): void {
    this.free[this.freeCount++] = p;
  }
}

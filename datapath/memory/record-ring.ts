/**
 * Records of different lengths from one thread to another, through shared memory: one writes, one reads, nobody waits. A
 * record that finds no room is counted and lost; what was written stays.
 *
 *   control   | written | read | lost |             units of 8 bytes since the start, modulo 2^32
 *   data      | size | body ... | size | body ... | -size (to the end) | size | body
 *
 * A record lies in one piece: where the rest of the memory is too short for one, a negative size says so and it lies at
 * the start. Sizes are in bytes, a multiple of 8, their own word included.
 */

const WRITTEN = 0;
const READ = 1;
const LOST = 2;
const CONTROL_WORDS = 16;
const UNIT_SHIFT = 3;

export class RecordRing {
  /** The data, for whoever fills in a record or reads one. Positions are in bytes. */
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly bytes: Uint8Array;
  readonly buffer: SharedArrayBuffer;
  private readonly control: Int32Array;
  private readonly size: number;
  /** Size of the record that is being filled in, with what was skipped in front of it. */
  private pending = 0;

  /** @param memory from RecordRing.allocate, the same in both threads */
  constructor(memory: SharedArrayBuffer) {
    this.buffer = memory;
    this.control = new Int32Array(memory, 0, CONTROL_WORDS);
    this.words = new Int32Array(memory, CONTROL_WORDS * 4);
    this.doubles = new Float64Array(memory, CONTROL_WORDS * 4);
    this.bytes = new Uint8Array(memory, CONTROL_WORDS * 4);
    this.size = this.bytes.length;
  }

  /** @param bytes of data; a power of two from 64 to 2^30 */
  static allocate(bytes: number): SharedArrayBuffer {
    if (bytes < 64 || bytes > 2 ** 30 || (bytes & (bytes - 1)) !== 0) {
      throw new RangeError(`ring of ${bytes} bytes, expected a power of two from 64 to 2^30`);
    }
    return new SharedArrayBuffer(CONTROL_WORDS * 4 + bytes);
  }

  /** The memory of a ring that nobody uses any more, for another one. */
  static emptied(memory: SharedArrayBuffer): SharedArrayBuffer {
    new Int32Array(memory, 0, CONTROL_WORDS).fill(0);
    return memory;
  }

  /** Records that found no room, modulo 2^32. */
  get lost(): number {
    return Atomics.load(this.control, LOST) >>> 0;
  }

  // ---------------------------------------------------------------- the writer's side

  /**
   * Room for a record of `bytes` (its size word included). Fill it in from byte 4 on, then call publish().
   * @returns its position; -1 if there is no room, which is counted
   */
  reserve(bytes: number): number {
    const needed = (bytes + 7) & ~7;
    const written = this.control[WRITTEN];
    const used = ((written - Atomics.load(this.control, READ)) | 0) << UNIT_SHIFT;
    let at = (written << UNIT_SHIFT) & (this.size - 1);
    const left = this.size - at;
    const skipped = needed > left ? left : 0;
    if (used + skipped + needed > this.size) {
      Atomics.add(this.control, LOST, 1);
      return -1;
    }
    if (skipped > 0) {
      this.words[at >> 2] = -skipped;
      at = 0;
    }
    this.words[at >> 2] = needed;
    this.pending = skipped + needed;
    return at;
  }

  /** Hands the reserved record to the reader. */
  publish(): void {
    Atomics.store(this.control, WRITTEN, (this.control[WRITTEN] + (this.pending >> UNIT_SHIFT)) | 0);
    this.pending = 0;
  }

  // ---------------------------------------------------------------- the reader's side

  /**
   * Takes the records that are there, `most` at most, in the order in which they were written.
   * @param take gets the record's position and its size; both are valid until it returns
   * @returns how many there were
   */
  drain(take: (at: number, size: number) => void, most: number): number {
    let read = this.control[READ];
    const written = Atomics.load(this.control, WRITTEN);
    let taken = 0;
    while (read !== written && taken < most) {
      const at = (read << UNIT_SHIFT) & (this.size - 1);
      const size = this.words[at >> 2];
      if (size > 0) {
        take(at, size);
        taken++;
      }
      read = (read + (Math.abs(size) >> UNIT_SHIFT)) | 0;
      Atomics.store(this.control, READ, read);
    }
    return taken;
  }
}

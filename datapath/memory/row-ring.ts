/**
 * Rows of equal length from one thread to another, through shared memory: one writes, one reads, nobody locks or waits.
 *
 *   control   | written |   (a cache line each)   | read |        rows since the start, modulo 2^32
 *   words     | row | row | row | ...
 *
 * The writer stages any number of rows and publishes them together; the reader takes any number and settles them together:
 * one store that both processors see for each burst. What is not settled when its reader dies is the writer's to take back
 * (unread()), what is not published when its writer dies has never been there.
 */

const WRITTEN = 0;
const READ = 16;
const CONTROL_WORDS = 32;

export class RowRing {
  /** The rows. What stands in one is its users' business. */
  readonly words: Int32Array;
  private readonly control: Int32Array;
  /** Words of a row. */
  private readonly stride: number;
  private readonly mask: number;
  /** Rows that this side has staged, or taken; the other side knows of them once they are published, or settled. */
  private mine: number;
  /** What the other side had done when this one last looked. */
  private theirs: number;

  /**
   * @param memory from RowRing.allocate, the same in both threads
   * @param stride as there
   */
  constructor(memory: SharedArrayBuffer, stride: number, side: 'writer' | 'reader') {
    this.control = new Int32Array(memory, 0, CONTROL_WORDS);
    this.words = new Int32Array(memory, CONTROL_WORDS * 4);
    this.stride = stride;
    this.mask = this.words.length / stride - 1;
    this.mine = Atomics.load(this.control, side === 'writer' ? WRITTEN : READ);
    this.theirs = Atomics.load(this.control, side === 'writer' ? READ : WRITTEN);
  }

  /** @param rows a power of two @param stride words of each */
  static allocate(rows: number, stride: number): SharedArrayBuffer {
    if (rows < 1 || (rows & (rows - 1)) !== 0) throw new RangeError(`ring of ${rows} rows, expected a power of two`);
    return new SharedArrayBuffer(4 * (CONTROL_WORDS + rows * stride));
  }

  // ---------------------------------------------------------------- the writer's side

  /** Where the next row is to be filled in, for stage(); -1 when there is no room. */
  claim(): number {
    const { mine, mask } = this;
    if (((mine - this.theirs) | 0) > mask) {
      this.theirs = Atomics.load(this.control, READ);
      if (((mine - this.theirs) | 0) > mask) return -1;
    }
    return (mine & mask) * this.stride;
  }

  /** The claimed row is filled in. */
  stage(): void {
    this.mine = (this.mine + 1) | 0;
  }

  /** Hands over what is staged. @returns whether there was anything */
  publish(): boolean {
    if (this.control[WRITTEN] === this.mine) return false;
    Atomics.store(this.control, WRITTEN, this.mine);
    return true;
  }

  /** Of a ring whose reader is no more: the rows that it has not settled, the oldest first. */
  *unread(): Generator<number> {
    for (let row = Atomics.load(this.control, READ); row !== this.mine; row = (row + 1) | 0) {
      yield (row & this.mask) * this.stride;
    }
  }

  // ---------------------------------------------------------------- the reader's side

  /** Where the oldest row stands that has not been taken; -1 when there is none. */
  peek(): number {
    const { mine } = this;
    if (mine === this.theirs) {
      this.theirs = Atomics.load(this.control, WRITTEN);
      if (mine === this.theirs) return -1;
    }
    return (mine & this.mask) * this.stride;
  }

  /** It is taken. */
  next(): void {
    this.mine = (this.mine + 1) | 0;
  }

  /** The writer may use the rows that are taken again. */
  settle(): void {
    if (this.control[READ] !== this.mine) Atomics.store(this.control, READ, this.mine);
  }
}

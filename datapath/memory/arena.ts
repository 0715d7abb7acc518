/**
 * Runs of int32 words in one growing buffer. A run is named by its offset; its owner remembers its length. Sizes are
 * rounded to classes (exact up to 8 words, then four classes per doubling: at most a fifth is lost), and each class has
 * its list of free runs, linked through their first word. Nothing is ever moved, except all of it when the buffer grows.
 */

/** Longest run, in words. */
export const MAX_RUN = 1024;
const NONE = -1;

export class Arena {
  /** The memory; another array after a growth, so do not keep it across allocate(). */
  words: Int32Array<ArrayBuffer>;
  private used = 0;
  private readonly freeRuns = new Int32Array(MAX_RUN + 1).fill(NONE);

  /** @param capacity first size of the buffer in words */
  constructor(capacity: number) {
    this.words = new Int32Array(capacity);
  }

  /**
   * @param length words, 0..MAX_RUN
   * @returns the offset of a run with whatever it held before; 0 for an empty run, which is no memory at all
   */
  allocate(length: number): number {
    if (length === 0) return 0;
    const size = roundToClass(length);
    const reused = this.freeRuns[size];
    if (reused !== NONE) {
      this.freeRuns[size] = this.words[reused];
      return reused;
    }
    if (this.used + size > this.words.length) this.words = grow(this.words, this.used + size);
    const offset = this.used;
    this.used += size;
    return offset;
  }

  /** Gives a run back. `length` is the one it was allocated with. */
  release(offset: number, length: number): void {
    if (length === 0) return;
    const size = roundToClass(length);
    this.words[offset] = this.freeRuns[size];
    this.freeRuns[size] = offset;
  }
}

/** A copy with room for at least `needed` words. The new part costs address space only, until it is written to. */
export function grow(words: Int32Array, needed: number): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(Math.max(needed, words.length + (words.length >>> 1)));
  grown.set(words);
  return grown;
}

function roundToClass(length: number): number {
  if (length <= 8) return length;
  const step = 1 << (29 - Math.clz32(length - 1)); // a quarter of the power of two below
  return (length + step - 1) & -step;
}

/**
 * A small map from three words to two, in one Int32Array: quotas per source, ports in use per destination, service
 * frontends, affinity. Open addressing with linear probing; a deletion closes its gap, so there are no tombstones and a
 * miss stays one cache line.
 *
 *   slot: | key a | key b | key c | value | extra | taken |
 *
 * It grows by doubling when half full, up to `limit` keys. Growth copies everything at once, so what changes per packet
 * is made with its final size.
 */
import type { Random } from '../random.ts';
import { hash3, powerOfTwo } from './hash.ts';

const WORDS = 6;
const VALUE = 3;
const EXTRA = 4;
const TAKEN = 5;

export class CountTable {
  /** Keys present. */
  size = 0;
  private slots: Int32Array;
  private mask: number;
  private readonly limit: number;
  private readonly k0: number;
  private readonly k1: number;
  private readonly k2: number;

  /**
   * @param expected keys to make room for at once
   * @param limit keys at most; set() refuses more
   */
  constructor(expected: number, random: Random, limit = 1 << 26) {
    const size = powerOfTwo(Math.max(8, expected * 2));
    this.slots = new Int32Array(size * WORDS);
    this.mask = size - 1;
    this.limit = limit;
    this.k0 = random.next();
    this.k1 = random.next();
    this.k2 = random.next();
  }

  /** Bytes of memory. */
  get bytes(): number {
    return this.slots.byteLength;
  }

  /** Where the key lies (a handle for value(), valid until the next change), or -1. */
  find(a: number, b: number, c: number): number {
    const slots = this.slots;
    let i = hash3(a, b, c, this.k0, this.k1, this.k2) & this.mask;
    for (;;) {
      const at = i * WORDS;
      if (slots[at + TAKEN] === 0) return -1;
      if (slots[at] === a && slots[at + 1] === b && slots[at + 2] === c) return at;
      i = (i + 1) & this.mask;
    }
  }

  value(at: number): number {
    return this.slots[at + VALUE];
  }

  extra(at: number): number {
    return this.slots[at + EXTRA];
  }

  setValue(at: number, value: number): void {
    this.slots[at + VALUE] = value;
  }

  setExtra(at: number, extra: number): void {
    this.slots[at + EXTRA] = extra;
  }

  /** The value of a key, or 0. */
  get(a: number, b: number, c: number): number {
    const at = this.find(a, b, c);
    return at < 0 ? 0 : this.slots[at + VALUE];
  }

  /** Finds or makes the key. @returns its handle, or -1 if the table has its limit of keys */
  make(a: number, b: number, c: number): number {
    const found = this.find(a, b, c);
    if (found >= 0) return found;
    if (this.size >= this.limit) return -1;
    if ((this.size + 1) * 2 > this.mask + 1) this.grow();
    const at = this.place(a, b, c);
    this.slots[at + VALUE] = 0;
    this.slots[at + EXTRA] = 0;
    this.size++;
    return at;
  }

  /** @returns false if the table has its limit of keys */
  set(a: number, b: number, c: number, value: number, extra = 0): boolean {
    const at = this.make(a, b, c);
    if (at < 0) return false;
    this.slots[at + VALUE] = value;
    this.slots[at + EXTRA] = extra;
    return true;
  }

  /** Adds to the value of a key, which is made at 0 and removed at 0. @returns the new value; -1 if there is no room */
  add(a: number, b: number, c: number, n: number): number {
    const at = this.make(a, b, c);
    if (at < 0) return -1;
    const value = this.slots[at + VALUE] + n;
    if (value === 0) this.removeAt(at);
    else this.slots[at + VALUE] = value;
    return value;
  }

  remove(a: number, b: number, c: number): boolean {
    const at = this.find(a, b, c);
    if (at < 0) return false;
    this.removeAt(at);
    return true;
  }

  /** Removes the key at a handle; what follows it may move there. */
  removeAt(at: number): void {
    const { slots, mask } = this;
    let hole = at / WORDS;
    let i = hole;
    for (;;) {
      i = (i + 1) & mask;
      const from = i * WORDS;
      if (slots[from + TAKEN] === 0) break;
      const home = hash3(slots[from], slots[from + 1], slots[from + 2], this.k0, this.k1, this.k2) & mask;
      if (((i - home) & mask) >= ((i - hole) & mask)) {
        slots.copyWithin(hole * WORDS, from, from + WORDS);
        hole = i;
      }
    }
    slots[hole * WORDS + TAKEN] = 0;
    this.size--;
  }

  /** Number of slots, for walks with `slotAt`. */
  get slotCount(): number {
    return this.mask + 1;
  }

  /** The handle of slot `i`, or -1 if it is empty. */
  slotAt(i: number): number {
    return this.slots[i * WORDS + TAKEN] === 0 ? -1 : i * WORDS;
  }

  /** Word 0, 1 or 2 of the key at a handle. */
  key(at: number, word: number): number {
    return this.slots[at + word];
  }

  private place(a: number, b: number, c: number): number {
    const { slots, mask } = this;
    let i = hash3(a, b, c, this.k0, this.k1, this.k2) & mask;
    while (slots[i * WORDS + TAKEN] !== 0) i = (i + 1) & mask;
    const at = i * WORDS;
    slots[at] = a;
    slots[at + 1] = b;
    slots[at + 2] = c;
    slots[at + TAKEN] = 1;
    return at;
  }

  private grow(): void {
    const old = this.slots;
    const size = (this.mask + 1) * 2;
    this.slots = new Int32Array(size * WORDS);
    this.mask = size - 1;
    for (let at = 0; at < old.length; at += WORDS) {
      if (old[at + TAKEN] === 0) continue;
      const to = this.place(old[at], old[at + 1], old[at + 2]);
      this.slots[to + VALUE] = old[at + VALUE];
      this.slots[to + EXTRA] = old[at + EXTRA];
    }
  }
}

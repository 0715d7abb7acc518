/**
 * A map from three words to two: quotas per source, ports in use per destination, service frontends, affinity.
 *
 * Extendible hashing (Fagin, Nievergelt, Pippenger, Strong, ACM TODS 4(3), 1979): the first bits of a key's hash name a
 * segment of 256 slots, in which linear probing finds the key. A segment that has become too full is split in two by one
 * more bit, so growth never moves more than one segment (2 to 5 us), where doubling a table of half a million keys stopped
 * the loop for 270 ms.
 *
 *   directory (by first bits)     segments, one behind the other in one array
 *   | 0 | 1 | 0 | 2 | ...   --->  | 256 slots | 256 slots | ...        slot: | key a | b | c | value | extra | taken |
 *
 * The array has its final size from the start, and only what is used of it becomes memory. A deletion closes its gap, so
 * there are no tombstones and a miss stays one cache line or two.
 */
import type { Random } from '../random.ts';
import { hash3, powerOfTwo } from './hash.ts';

const WORDS = 6;
const VALUE = 3;
const EXTRA = 4;
const TAKEN = 5;

const SEGMENT_BITS = 8;
const SEGMENT_SLOTS = 1 << SEGMENT_BITS;
const SLOT_MASK = SEGMENT_SLOTS - 1;
const SEGMENT_WORDS = SEGMENT_SLOTS * WORDS;
/** Keys from which on a segment is split: a miss then visits 4 slots on average (Knuth 6.4), 2 after it. */
const SPLIT_FROM = 160;
/** Keys that a segment takes that cannot be split: as many keys with like hashes are an attack. There is always a free slot. */
const MOST_KEYS = 240;
/** Segments are split between half full and full, so that they have 110 keys on average. */
const KEYS_PER_SEGMENT = 64;
/** Hashes are not perfectly even: where a segment has many keys its neighbours have fewer, and share places. */
const PLACES_PER_SEGMENT = 4;
const HASH_BITS = 32;

export class CountTable {
  /** Keys present. */
  size = 0;
  private slots: Int32Array;
  /** Segment by the first `depth` bits of the hash. */
  private directory: Int32Array;
  private depth = 0;
  /** Bits by which a segment's keys are told from those of others, and how many keys it has. */
  private segmentDepth: Uint8Array;
  private keys: Uint8Array;
  private segments = 1;
  private readonly limit: number;
  private readonly k0: number;
  private readonly k1: number;
  private readonly k2: number;
  /** The segment that is being split. */
  private readonly scratch = new Int32Array(SEGMENT_WORDS);

  /**
   * @param expected keys to take address space for, about 96 bytes each: up to here nothing is ever copied as a whole. What
   *   changes per packet says its limit.
   * @param limit keys at most; set() refuses more
   */
  constructor(expected: number, random: Random, limit = 1 << 26) {
    const reserved = Math.ceil(expected / KEYS_PER_SEGMENT) + 1;
    // Shared memory, which the collector does not count: most of it is never used.
    this.slots = new Int32Array(new SharedArrayBuffer(4 * reserved * SEGMENT_WORDS));
    this.segmentDepth = new Uint8Array(reserved);
    this.keys = new Uint8Array(reserved);
    this.directory = new Int32Array(powerOfTwo(reserved * PLACES_PER_SEGMENT));
    this.limit = limit;
    this.k0 = random.next();
    this.k1 = random.next();
    this.k2 = random.next();
  }

  /** Bytes of memory in use. */
  get bytes(): number {
    return (this.segments * SEGMENT_WORDS + (1 << this.depth)) * 4;
  }

  /** Where the key lies (a handle for value(), valid until the next change), or -1. */
  find(a: number, b: number, c: number): number {
    const { slots } = this;
    const h = hash3(a, b, c, this.k0, this.k1, this.k2);
    const first = this.directory[firstBits(h, this.depth)] << SEGMENT_BITS;
    let i = h & SLOT_MASK;
    for (;;) {
      const at = (first + i) * WORDS;
      if (slots[at + TAKEN] === 0) return -1;
      if (slots[at] === a && slots[at + 1] === b && slots[at + 2] === c) return at;
      i = (i + 1) & SLOT_MASK;
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

  /** Finds or makes the key. @returns its handle, or -1 if there is no room: the limit, or too many keys of like hashes */
  make(a: number, b: number, c: number): number {
    const found = this.find(a, b, c);
    if (found >= 0) return found;
    if (this.size >= this.limit) return -1;
    const h = hash3(a, b, c, this.k0, this.k1, this.k2);
    let segment = this.directory[firstBits(h, this.depth)];
    while (this.keys[segment] >= SPLIT_FROM && this.split(segment, h)) {
      segment = this.directory[firstBits(h, this.depth)];
    }
    if (this.keys[segment] >= MOST_KEYS) return -1;
    const at = this.place(segment, h);
    const { slots } = this;
    slots[at] = a;
    slots[at + 1] = b;
    slots[at + 2] = c;
    slots[at + VALUE] = 0;
    slots[at + EXTRA] = 0;
    this.size++;
    return at;
  }

  /** @returns false if there is no room, as make() */
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
    const { slots } = this;
    const slot = at / WORDS;
    const first = slot & ~SLOT_MASK;
    let hole = slot & SLOT_MASK;
    let i = hole;
    for (;;) {
      i = (i + 1) & SLOT_MASK;
      const from = (first + i) * WORDS;
      if (slots[from + TAKEN] === 0) break;
      const home = hash3(slots[from], slots[from + 1], slots[from + 2], this.k0, this.k1, this.k2) & SLOT_MASK;
      if (((i - home) & SLOT_MASK) >= ((i - hole) & SLOT_MASK)) {
        slots.copyWithin((first + hole) * WORDS, from, from + WORDS);
        hole = i;
      }
    }
    slots[(first + hole) * WORDS + TAKEN] = 0;
    this.keys[slot >>> SEGMENT_BITS]--;
    this.size--;
  }

  /** Number of slots, for walks with `slotAt`. A key that is made during a walk may be met or not, or move ahead and be met again. */
  get slotCount(): number {
    return this.segments << SEGMENT_BITS;
  }

  /** The handle of slot `i`, or -1 if it is empty. */
  slotAt(i: number): number {
    return this.slots[i * WORDS + TAKEN] === 0 ? -1 : i * WORDS;
  }

  /** Word 0, 1 or 2 of the key at a handle. */
  key(at: number, word: number): number {
    return this.slots[at + word];
  }

  /** Takes the slot for a new key of hash `h`. @returns its handle */
  private place(segment: number, h: number): number {
    const { slots } = this;
    const first = segment << SEGMENT_BITS;
    let i = h & SLOT_MASK;
    while (slots[(first + i) * WORDS + TAKEN] !== 0) i = (i + 1) & SLOT_MASK;
    const at = (first + i) * WORDS;
    slots[at + TAKEN] = 1;
    this.keys[segment]++;
    return at;
  }

  /**
   * Gives half of a segment's keys, by the next bit of their hashes, to a new one.
   * @param h hash of any key that belongs into it
   * @returns false if the hashes are too much alike
   */
  private split(segment: number, h: number): boolean {
    const bits = this.segmentDepth[segment] + 1;
    if (bits > this.depth && !this.deepen()) return false;
    if (this.segments === this.keys.length) this.grow();
    const added = this.segments++;
    this.segmentDepth[segment] = bits;
    this.segmentDepth[added] = bits;
    const places = 1 << (this.depth - bits);
    // The upper half of the places that named the segment.
    const from = (firstBits(h, bits) | 1) * places;
    this.directory.fill(added, from, from + places);

    const { slots, scratch } = this;
    const begin = segment * SEGMENT_WORDS;
    scratch.set(slots.subarray(begin, begin + SEGMENT_WORDS));
    slots.fill(0, begin, begin + SEGMENT_WORDS);
    this.keys[segment] = 0;
    for (let from = 0; from < SEGMENT_WORDS; from += WORDS) {
      if (scratch[from + TAKEN] === 0) continue;
      const own = hash3(scratch[from], scratch[from + 1], scratch[from + 2], this.k0, this.k1, this.k2);
      const at = this.place(this.directory[firstBits(own, this.depth)], own);
      for (let word = 0; word < TAKEN; word++) slots[at + word] = scratch[from + word];
    }
    return true;
  }

  /** Doubles the directory: every place becomes two. @returns false if it has its final size */
  private deepen(): boolean {
    const { directory } = this;
    const places = 1 << this.depth;
    if (places === directory.length) return false;
    for (let i = places - 1; i >= 0; i--) {
      directory[2 * i] = directory[i];
      directory[2 * i + 1] = directory[2 * i];
    }
    this.depth++;
    return true;
  }

  /** Twice as many segments: copies all, for tables that only the control plane fills beyond what they were made for. */
  private grow(): void {
    const copyOf = <T extends Int32Array | Uint8Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.slots = copyOf(this.slots, new Int32Array(this.slots.length * 2));
    this.keys = copyOf(this.keys, new Uint8Array(this.keys.length * 2));
    this.segmentDepth = copyOf(this.segmentDepth, new Uint8Array(this.segmentDepth.length * 2));
    this.directory = copyOf(this.directory, new Int32Array(this.directory.length * 2));
  }
}

/** The first `n` bits of a hash, 0 to 31. */
function firstBits(h: number, n: number): number {
  return (h >>> 1) >>> (HASH_BITS - 1 - n);
}

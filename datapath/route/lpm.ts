/**
 * Longest prefix match for IPv4: DIR-24-8 (Gupta, Lin, McKeown, "Routing Lookups in Hardware at Memory Access Speeds",
 * INFOCOM 1998).
 *
 *   table[address >>> 8]     2^24 words: a value, 0 for no route, or ~offset of a block
 *   blocks[offset + (address & 255)]     256 words for each /24 that holds longer prefixes
 *
 * A lookup is one read, two where there are prefixes longer than /24. The table is 64 MiB of address space, but only what
 * is written to becomes memory: a page of 4 KiB for each /14 in use. Ten routes of a cluster cost some KiB, a /8 256 KiB,
 * a million routes 82 MB with what is kept beside it.
 *
 * Beside what lookups read stands what the routes are. A node is 256 words side by side: a /16 with its /24s, or a
 * /24 with its addresses. Each keeps the prefixes that end in its 8 bits in a run of (index, value) pairs, by
 * index: a prefix of k bits has index 2^k + bits, as in a binary heap, so shorter ones come first, and painting them in
 * order leaves the longest on top. Prefixes up to /16 are a whole heap, `short`. An edit paints the one node that holds its
 * prefix, or, when it is /16 or shorter, every /16 that it decides: it paints aside and then copies, so each word holds
 * the old answer or the new one and nothing else. The default route is in no node: it stands for every 0 that a lookup
 * finds, so that changing it never means painting the whole table.
 *
 * Chosen by measurement, 2^20 prefixes, ns per lookup of random addresses / of 1024 hot ones / where each waits for the
 * one before. 40 interleaved rounds of the bare loops on a machine that was doing other work as well (Intel Xeon, 2 cores,
 * Node v20.20.2); the best round of each, and memory for lookups alone:
 *   this                                                                  21 / 1.8 / 238   74 MB
 *   the same with 16-bit words, which needs values below 2^15             19 / 1.9 / 163   37 MB
 *   16-8-8, a block for each /16 in use: a branch that is mispredicted    31 / 4.5 / 186   69 MB
 *   bitmap and popcount for every /19, equal neighbours in one word       34 / 4.8 / 276   13 MB
 * The medians have the same order. Huge pages from mmap made no difference outside the noise; the default route as above
 * costs 3 ns.
 */
import { Arena, grow } from '../memory/arena.ts';

/** Values are 1 to this. Words below 0 name a block. */
export const MAX_VALUE = 0xffffff;

/** One route as the control plane sees it. `prefix` is int32 with all bits behind `length` zero. */
export interface Route {
  prefix: number;
  length: number;
  value: number;
}

const SHORT_BITS = 16;
/** Nodes of /16s; those of /24s are numbered from here on. */
const SHORT_NODES = 1 << SHORT_BITS;
const SLOTS = 256;
/** Room for nodes of /24s at first, so that a small table never copies what is kept of the /16s. */
const FIRST_BLOCKS = 64;
const NODES_PER_PAGE = 4; // 4 KiB
/** So many routes are quicker put into an empty table one by one than all together, which looks at every /16: 15 ms. */
const FEW = 500;
const NONE = -1;

// What a node keeps beside its slots.
const ABOUT_WORDS = 4;
const ROUTES = 0; // offset in `routes` of its own prefixes
const ROUTE_COUNT = 1;
const COVER = 2; // the value behind its own prefixes, from shorter ones; 0 for none
const CHILDREN = 3; // how many of its slots name a node

export class Lpm {
  /** Shared memory, which the collector does not count: for what is counted and so large it walks the whole heap, 20 ms. */
  private table = new Int32Array(new SharedArrayBuffer(4 * SHORT_NODES * SLOTS));
  private blocks: Int32Array = new Int32Array(FIRST_BLOCKS * SLOTS);
  /** Value of the /0. */
  private defaultValue = 0;

  private short = new Int32Array(2 * SHORT_NODES);
  private about: Int32Array = new Int32Array((SHORT_NODES + FIRST_BLOCKS) * ABOUT_WORDS);
  private routes = new Arena(1024);
  private count = 0;
  private nodesEnd = SHORT_NODES;
  /** Has held a route at some time. */
  private isUsed = false;
  /** First of the free nodes of /24s, linked through their ROUTES. */
  private freeNode = NONE;

  /** Slots of the node being made, and of the one below it. */
  private readonly slots = new Int32Array(SLOTS);
  private readonly childSlots = new Int32Array(SLOTS);

  /** How many prefixes there are. */
  get size(): number {
    return this.count;
  }

  /** Bytes in use: the pages of the table that routes have written to, and all other buffers whole. */
  get memoryBytes(): number {
    let pages = 0;
    for (let first = 0; first < SHORT_NODES; first += NODES_PER_PAGE) {
      let used = false;
      for (let node = first; node < first + NODES_PER_PAGE; node++) {
        used ||= this.holdsRoutes(node) || this.about[node * ABOUT_WORDS + COVER] !== 0;
      }
      if (used) pages++;
    }
    const words = this.blocks.length + this.short.length + this.about.length + this.routes.words.length;
    return (pages * NODES_PER_PAGE * SLOTS + words) * 4;
  }

  /**
   * The hot path.
   * @param address int32
   * @returns the value of the longest prefix that holds the address, or 0
   */
  lookup(address: number): number {
    let v = this.table[address >>> 8];
    if (v < 0) v = this.blocks[~v + (address & 255)];
    // The default route where v is 0, without a branch: with random addresses it would be mispredicted every third time.
    return v | (((v - 1) >> 31) & this.defaultValue);
  }

  /**
   * Adds a route, or gives the prefix another value.
   * @param prefix int32; bits behind `length` must be 0
   * @param length 0 to 32
   * @param value 1 to MAX_VALUE
   * @throws RangeError naming the prefix; the table is as before
   */
  insert(prefix: number, length: number, value: number): void {
    this.isUsed = true;
    checkRoute(prefix, length, value);
    const old = this.get(prefix, length);
    if (old === value) return;
    this.edit(prefix, length, value, old === 0 ? 1 : 0);
  }

  /**
   * Takes a route away; what it covered goes to the next shorter prefix.
   * @returns false when there was none
   * @throws RangeError as insert()
   */
  delete(prefix: number, length: number): boolean {
    if (this.get(prefix, length) === 0) return false;
    this.edit(prefix, length, 0, -1);
    return true;
  }

  /**
   * The value of exactly this prefix, or 0.
   * @throws RangeError as insert()
   */
  get(prefix: number, length: number): number {
    checkPrefix(prefix, length);
    if (length <= SHORT_BITS) return this.short[indexIn(prefix, 0, length)];
    if (length <= 24) return this.routeIn(prefix >>> 16, indexIn(prefix, 16, length));
    const ref = this.table[prefix >>> 8];
    return ref >= 0 ? 0 : this.routeIn(nodeOf(ref), indexIn(prefix, 24, length));
  }

  /** The longest prefix that holds the address, from the routes themselves and not from what lookup() reads. Slow. */
  match(address: number): Route | null {
    for (let length = 32; length >= 0; length--) {
      const prefix = length === 0 ? 0 : address & (-1 << (32 - length));
      const value = this.get(prefix, length);
      if (value !== 0) return { prefix, length, value };
    }
    return null;
  }

  /** All routes, by address (0.0.0.0 first) and then by length. Slow. */
  entries(): Route[] {
    const found: Route[] = [];
    this.collect(this.short, 0, 0, found);
    return found;
  }

  /**
   * Replaces the whole table. The new one is made beside the old one, so a bad route changes nothing. Of equal prefixes
   * the last one counts.
   * @param prefixes int32
   * @param lengths of the same length, 0 to 32
   * @param values of the same length, 1 to MAX_VALUE
   * @throws RangeError as insert()
   */
  replaceAll(prefixes: Int32Array, lengths: Uint8Array, values: Int32Array): void {
    if (lengths.length !== prefixes.length || values.length !== prefixes.length) {
      throw new RangeError(`${prefixes.length} prefixes, ${lengths.length} lengths, ${values.length} values`);
    }
    for (let i = 0; i < prefixes.length; i++) checkRoute(prefixes[i], lengths[i], values[i]);
    // What has never held a route needs no second table beside it.
    if (!this.isUsed) {
      if (prefixes.length > FEW) this.load(prefixes, lengths, values);
      else for (let i = 0; i < prefixes.length; i++) this.insert(prefixes[i], lengths[i], values[i]);
      return;
    }
    const next = new Lpm();
    next.load(prefixes, lengths, values);
    this.table = next.table;
    this.blocks = next.blocks;
    this.defaultValue = next.defaultValue;
    this.short = next.short;
    this.about = next.about;
    this.routes = next.routes;
    this.count = next.count;
    this.nodesEnd = next.nodesEnd;
    this.freeNode = next.freeNode;
  }

  /** Fills an empty table with checked routes: /16 by /16, each node made once. */
  private load(prefixes: Int32Array, lengths: Uint8Array, values: Int32Array): void {
    this.isUsed = true;
    // Routes longer than /16, chained by /16 in the order given.
    const first = new Int32Array(SHORT_NODES).fill(-1);
    const following = new Int32Array(prefixes.length);
    for (let i = prefixes.length - 1; i >= 0; i--) {
      if (lengths[i] > SHORT_BITS) {
        const node = prefixes[i] >>> 16;
        following[i] = first[node];
        first[node] = i;
      } else {
        const index = indexIn(prefixes[i], 0, lengths[i]);
        if (this.short[index] !== 0) continue; // a later one of the same prefix
        this.short[index] = values[i];
        this.count++;
      }
    }
    this.defaultValue = this.short[1];
    this.repaint(1, 0);

    const heap = new Int32Array(2 * SLOTS);
    const deep = new Int32Array(SLOTS).fill(-1);
    for (let node = 0; node < SHORT_NODES; node++) {
      if (first[node] < 0) continue;
      let children = 0;
      for (let i = first[node], after = 0; i >= 0; i = after) {
        after = following[i];
        if (lengths[i] <= 24) {
          heap[indexIn(prefixes[i], 16, lengths[i])] = values[i];
        } else {
          const t = (prefixes[i] >>> 8) & 255;
          if (deep[t] < 0) children++;
          following[i] = deep[t]; // this turns the order round
          deep[t] = i;
        }
      }
      const about = node * ABOUT_WORDS;
      this.storeRoutes(node, heap);
      this.paint(this.slots, node, this.about[about + COVER]);
      for (let t = 0; t < SLOTS && children > 0; t++) {
        if (deep[t] < 0) continue;
        for (let i = deep[t]; i >= 0; i = following[i]) {
          const index = indexIn(prefixes[i], 24, lengths[i]);
          if (heap[index] === 0) heap[index] = values[i];
        }
        deep[t] = -1;
        const child = this.allocateNode();
        this.storeRoutes(child, heap);
        this.renewChild(child, this.slots[t]);
        this.slots[t] = refOf(child);
      }
      this.about[about + CHILDREN] = children;
      this.write(node, this.slots);
    }
  }

  /**
   * Makes one change that get() has shown to be one.
   * @param value 0 to delete
   * @param added 1, 0 or -1: what it does to the number of routes
   */
  private edit(prefix: number, length: number, value: number, added: number): void {
    if (length > SHORT_BITS) {
      this.changeInNode(prefix, length, value, added);
    } else {
      const index = indexIn(prefix, 0, length);
      this.short[index] = value;
      if (index === 1) this.defaultValue = value;
      else this.repaint(index, this.shortCover(index));
    }
    this.count += added;
  }

  /** The value that short prefixes other than /0 give to a place in their heap. */
  private shortCover(index: number): number {
    for (let i = index; i > 1; i >>= 1) if (this.short[i] !== 0) return this.short[i];
    return 0;
  }

  /** Gives `cover` to a place in the heap of short prefixes and to all below it that have no value of their own. */
  private repaint(index: number, cover: number): void {
    if (index >= SHORT_NODES) {
      const node = index - SHORT_NODES;
      if (this.about[node * ABOUT_WORDS + COVER] === cover) return;
      this.paint(this.slots, node, cover);
      this.placeChildren(node);
      this.write(node, this.slots);
      return;
    }
    for (let child = 2 * index; child <= 2 * index + 1; child++) {
      const own = this.short[child];
      this.repaint(child, own === 0 ? cover : own);
    }
  }

  /** Adds, changes or (value 0) deletes a route longer than /16. */
  private changeInNode(prefix: number, length: number, value: number, added: number): void {
    const node = prefix >>> 16;
    const about = node * ABOUT_WORDS;
    if (length <= 24) this.changeRoutes(node, indexIn(prefix, 16, length), value, added);
    this.paint(this.slots, node, this.about[about + COVER]);
    const t = (prefix >>> 8) & 255;
    const cover = this.slots[t];
    this.placeChildren(node);
    if (length > 24) {
      const ref = this.slots[t];
      const child = ref < 0 ? nodeOf(ref) : this.allocateNode();
      this.changeRoutes(child, indexIn(prefix, 24, length), value, added);
      const remains = this.about[child * ABOUT_WORDS + ROUTE_COUNT] > 0;
      if (remains) this.renewChild(child, cover);
      else this.releaseNode(child);
      this.slots[t] = remains ? refOf(child) : cover;
      this.about[about + CHILDREN] += (remains ? 1 : 0) - (ref < 0 ? 1 : 0);
    }
    this.write(node, this.slots);
  }

  /** Puts the nodes of /24s, as they stand in the node of a /16, over what has just been painted for it. */
  private placeChildren(node: number): void {
    if (this.about[node * ABOUT_WORDS + CHILDREN] === 0) return;
    for (let t = 0; t < SLOTS; t++) {
      const ref = this.table[node * SLOTS + t];
      if (ref >= 0) continue;
      const child = nodeOf(ref);
      if (this.about[child * ABOUT_WORDS + COVER] !== this.slots[t]) this.renewChild(child, this.slots[t]);
      this.slots[t] = ref;
    }
  }

  /** Paints the node of a /24 anew, its routes or its cover having changed. */
  private renewChild(child: number, cover: number): void {
    this.paint(this.childSlots, child, cover);
    this.write(child, this.childSlots);
  }

  /** Fills `slots` with a new cover and then with the node's own routes, shorter ones first. */
  private paint(slots: Int32Array, node: number, cover: number): void {
    const about = node * ABOUT_WORDS;
    this.about[about + COVER] = cover;
    slots.fill(cover);
    const routes = this.routes.words;
    const begin = this.about[about + ROUTES];
    const end = begin + 2 * this.about[about + ROUTE_COUNT];
    for (let i = begin; i < end; i += 2) {
      const width = SLOTS >> (31 - Math.clz32(routes[i]));
      const from = routes[i] * width - SLOTS;
      const value = routes[i + 1];
      for (let t = from; t < from + width; t++) slots[t] = value;
    }
  }

  /** Makes a node say these 256 slots. */
  private write(node: number, slots: Int32Array): void {
    if (node < SHORT_NODES) this.table.set(slots, node * SLOTS);
    else this.blocks.set(slots, (node - SHORT_NODES) * SLOTS);
  }

  /** A node without routes, for a /24. */
  private allocateNode(): number {
    const reused = this.freeNode;
    if (reused !== NONE) {
      this.freeNode = this.about[reused * ABOUT_WORDS + ROUTES];
      return reused;
    }
    const node = this.nodesEnd++;
    const blockWords = (this.nodesEnd - SHORT_NODES) * SLOTS;
    if (blockWords > this.blocks.length) this.blocks = grow(this.blocks, blockWords);
    if (this.nodesEnd * ABOUT_WORDS > this.about.length) this.about = grow(this.about, this.nodesEnd * ABOUT_WORDS);
    return node;
  }

  /** Gives back the node of a /24 that has no routes left. Its block holds what it held until it is used again. */
  private releaseNode(node: number): void {
    this.about[node * ABOUT_WORDS + ROUTES] = this.freeNode;
    this.freeNode = node;
  }

  /** The value at an index among a node's own routes, or 0. */
  private routeIn(node: number, index: number): number {
    const routes = this.routes.words;
    const own = this.about[node * ABOUT_WORDS + ROUTES];
    let low = 0;
    let high = this.about[node * ABOUT_WORDS + ROUTE_COUNT];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (routes[own + 2 * middle] < index) low = middle + 1;
      else high = middle;
    }
    const found = low < this.about[node * ABOUT_WORDS + ROUTE_COUNT] && routes[own + 2 * low] === index;
    return found ? routes[own + 2 * low + 1] : 0;
  }

  /** Adds, changes or (value 0) leaves out one of a node's own routes. */
  private changeRoutes(node: number, index: number, value: number, added: number): void {
    const about = node * ABOUT_WORDS;
    const old = this.about[about + ROUTES];
    const oldCount = this.about[about + ROUTE_COUNT];
    const changed = this.routes.allocate(2 * (oldCount + added));
    const routes = this.routes.words;
    const end = old + 2 * oldCount;
    let from = old;
    while (from < end && routes[from] < index) from += 2;
    let to = changed + from - old;
    routes.copyWithin(changed, old, from);
    if (from < end && routes[from] === index) from += 2;
    if (value !== 0) {
      routes[to] = index;
      routes[to + 1] = value;
      to += 2;
    }
    routes.copyWithin(to, from, end);
    this.routes.release(old, 2 * oldCount);
    this.about[about + ROUTES] = changed;
    this.about[about + ROUTE_COUNT] = oldCount + added;
  }

  /** Makes the routes of a heap a node's own, and empties the heap. */
  private storeRoutes(node: number, heap: Int32Array): void {
    let count = 0;
    for (let index = 2; index < 2 * SLOTS; index++) if (heap[index] !== 0) count++;
    const own = this.routes.allocate(2 * count);
    const routes = this.routes.words;
    let to = own;
    for (let index = 2; to < own + 2 * count; index++) {
      if (heap[index] === 0) continue;
      routes[to] = index;
      routes[to + 1] = heap[index];
      heap[index] = 0;
      to += 2;
    }
    const about = node * ABOUT_WORDS;
    this.about[about + ROUTES] = own;
    this.about[about + ROUTE_COUNT] = count;
    this.count += count;
  }

  /**
   * Adds the routes of one stride and of all below it, in preorder: a prefix before those inside it.
   * @param heap the routes of the stride
   * @param start bits before the stride: 0, 16 or 24
   * @param base those bits
   */
  private collect(heap: Int32Array, start: number, base: number, found: Route[]): void {
    const leaves = heap.length >>> 1;
    const end = start + 31 - Math.clz32(leaves);
    let index = 1;
    do {
      if (heap[index] !== 0) {
        const length = 31 - Math.clz32(index);
        const prefix = base | ((index - (1 << length)) << (32 - start - length));
        found.push({ prefix, length: start + length, value: heap[index] });
      }
      if (index < leaves) {
        index *= 2;
        continue;
      }
      const inside = base | ((index - leaves) << (32 - end));
      const node = start === 0 ? inside >>> 16 : start === 16 ? nodeOf(this.table[inside >>> 8]) : NONE;
      if (node !== NONE) {
        const below = this.heapOf(node);
        if (below !== null) this.collect(below, end, inside, found);
      }
      while (index & 1) index >>= 1;
      index++;
    } while (index !== 1);
  }

  /** Whether there are routes here or below, longer than what covers the node. */
  private holdsRoutes(node: number): boolean {
    const about = node * ABOUT_WORDS;
    return this.about[about + ROUTE_COUNT] > 0 || this.about[about + CHILDREN] > 0;
  }

  /** A node's own routes as a heap; null when there are none here and below. */
  private heapOf(node: number): Int32Array | null {
    if (!this.holdsRoutes(node)) return null;
    const about = node * ABOUT_WORDS;
    const heap = new Int32Array(2 * SLOTS);
    const own = this.about[about + ROUTES];
    for (let i = own; i < own + 2 * this.about[about + ROUTE_COUNT]; i += 2) {
      heap[this.routes.words[i]] = this.routes.words[i + 1];
    }
    return heap;
  }
}

/** The node of a /24 that a word of the table names; NONE when it is a value. */
function nodeOf(ref: number): number {
  return ref < 0 ? SHORT_NODES + ~ref / SLOTS : NONE;
}

/** The word of the table that names the node of a /24. */
function refOf(node: number): number {
  return ~((node - SHORT_NODES) * SLOTS);
}

/** Place of a prefix in the heap of the stride that begins after `start` bits. */
function indexIn(prefix: number, start: number, length: number): number {
  const bits = length - start;
  return bits === 0 ? 1 : (1 << bits) | ((prefix << start) >>> (32 - bits));
}

function checkRoute(prefix: number, length: number, value: number): void {
  checkPrefix(prefix, length);
  if (!(value >= 1 && value <= MAX_VALUE && Number.isInteger(value))) {
    throw new RangeError(`${describe(prefix, length)}: value ${value} is not in 1..${MAX_VALUE}`);
  }
}

function checkPrefix(prefix: number, length: number): void {
  if (prefix !== (prefix | 0)) throw new RangeError(`prefix ${prefix}/${length}: not an int32`);
  if (!(length >= 0 && length <= 32 && Number.isInteger(length))) {
    throw new RangeError(`${describe(prefix, length)}: length is not in 0..32`);
  }
  if (length < 32 && prefix << length !== 0) throw new RangeError(`${describe(prefix, length)}: host bits are set`);
}

function describe(prefix: number, length: number): string {
  return `${prefix >>> 24}.${(prefix >>> 16) & 255}.${(prefix >>> 8) & 255}.${prefix & 255}/${length}`;
}

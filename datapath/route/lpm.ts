/**
 * Longest prefix match for IPv4: a compressed table over /24, with compressed /24s below it where there are longer
 * prefixes.
 *
 *   nodes    one for each /16, then those of /24s; 16 words for 256 slots, one word pair for every 32:
 *            | bits | base | bits | base | ... 8 pairs |     bits: slot i differs from slot i - 1
 *              |                                             base: index in `runs` of the value before the pair
 *              v                                             so slot i holds runs[base + bits set up to i]
 *   runs     | v | v | ~node | v ...                         a value, or the node of a /24; 0 is no route
 *
 * A lookup reads two cache lines, four below /24, with a single branch, which is rarely taken. Equal neighbours share a
 * word. A million prefixes take about 13 MB, where a flat array over /24 takes 64; a table of ten next to nothing:
 * memory never written to does not exist yet.
 *
 * Beside what lookups read stands what the routes are. Each node keeps the prefixes that end in its stride of 8 bits in
 * a run of (index, value) pairs, by index: a prefix of k bits has index 2^k + bits, as in a binary heap, so shorter
 * ones come first, and painting them in order leaves the longest on top. Prefixes up to /16 are a whole heap, `short`.
 * An edit paints the one node that holds its prefix, or, when it is /16 or shorter, every /16 that it decides. The
 * default route is in no node: it stands for every 0 that a lookup finds, so changing it never means painting the
 * whole table. The loop that owns the table makes its edits between lookups, so none is ever seen half done.
 */
import { Arena, grow } from './arena.ts';

/** Values are 1 to this: the top bit of a word says that it names a node. */
export const MAX_VALUE = 0xffffff;

/** One route as the control plane sees it. `prefix` is int32 with all bits behind `length` zero. */
export interface Route {
  prefix: number;
  length: number;
  value: number;
}

const ROOT_BITS = 16;
const ROOT_SLOTS = 1 << ROOT_BITS;
const NODE_SLOTS = 256;
const NODE_WORDS = 16;
const ROOT_WORDS = ROOT_SLOTS * NODE_WORDS;
/** Nodes of /24s that there is room for from the start, so that a small table never copies those of the /16s. */
const FIRST_NODES = 1024;
const NO_NODE = -1;

// What a node keeps beside its slots.
const ABOUT_WORDS = 4;
const ROUTES = 0; // offset in `routes` of its own prefixes
const ROUTE_COUNT = 1;
const COVER = 2; // the value behind its own prefixes, from shorter ones; 0 for none
const CHILDREN = 3; // how many of its slots name a node

export class Lpm {
  /** Nodes are named by their offset in here. That of a /16 is (address >>> 16) * NODE_WORDS. */
  private nodes = new Int32Array(ROOT_WORDS + FIRST_NODES * NODE_WORDS);
  private runs = new Arena(FIRST_NODES);
  /** Value of the /0. */
  private defaultValue = 0;

  private short = new Int32Array(2 * ROOT_SLOTS);
  private about = new Int32Array((ROOT_SLOTS + FIRST_NODES) * ABOUT_WORDS);
  private routes = new Arena(FIRST_NODES);
  private count = 0;
  private nodesEnd = ROOT_WORDS;
  private freeNode = NO_NODE;

  /** Slots of the node being made, of the one it replaces, and of the one below it. */
  private readonly slots = new Int32Array(NODE_SLOTS);
  private readonly oldSlots = new Int32Array(NODE_SLOTS);
  private readonly childSlots = new Int32Array(NODE_SLOTS);

  constructor() {
    // Run 0 is a single 0: the nodes of an empty table are all zero, and so name it.
    this.runs.words[this.runs.allocate(1)] = 0;
  }

  /** How many prefixes there are. */
  get size(): number {
    return this.count;
  }

  /** Bytes of all buffers. What of them was never written to takes no memory yet. */
  get memoryBytes(): number {
    const words =
      this.nodes.length + this.runs.words.length + this.short.length + this.about.length + this.routes.words.length;
    return words * 4;
  }

  /**
   * The hot path.
   * @param address int32
   * @returns the value of the longest prefix that holds the address, or 0
   */
  lookup(address: number): number {
    const nodes = this.nodes;
    const runs = this.runs.words;
    let pair = (address >>> 13) << 1;
    let v = runs[nodes[pair + 1] + countBits(nodes[pair] & ~(-2 << (address >>> 8)))];
    if (v < 0) {
      pair = ~v + ((address >>> 4) & 14);
      v = runs[nodes[pair + 1] + countBits(nodes[pair] & ~(-2 << address))];
    }
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
    if (length <= ROOT_BITS) return this.short[indexIn(prefix, 0, length)];
    const node = (prefix >>> 16) * NODE_WORDS;
    if (length <= 24) return this.routeIn(node, indexIn(prefix, 16, length));
    const ref = this.slotOf(node, (prefix >>> 8) & 255);
    return ref >= 0 ? 0 : this.routeIn(~ref, indexIn(prefix, 24, length));
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
    this.collect(this.short, 0, 0, NO_NODE, found);
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
    const next = new Lpm();
    next.load(prefixes, lengths, values);
    this.nodes = next.nodes;
    this.runs = next.runs;
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
    // Routes longer than /16, chained by /16 in the order given.
    const first = new Int32Array(ROOT_SLOTS).fill(-1);
    const following = new Int32Array(prefixes.length);
    for (let i = prefixes.length - 1; i >= 0; i--) {
      if (lengths[i] > ROOT_BITS) {
        const slot = prefixes[i] >>> 16;
        following[i] = first[slot];
        first[slot] = i;
      } else {
        const index = indexIn(prefixes[i], 0, lengths[i]);
        if (this.short[index] !== 0) continue; // a later one of the same prefix
        this.short[index] = values[i];
        this.count++;
      }
    }
    this.defaultValue = this.short[1];
    this.repaint(1, 0);

    const heap = new Int32Array(2 * NODE_SLOTS);
    const deep = new Int32Array(NODE_SLOTS).fill(-1);
    for (let slot = 0; slot < ROOT_SLOTS; slot++) {
      if (first[slot] < 0) continue;
      let children = 0;
      for (let i = first[slot], after = 0; i >= 0; i = after) {
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
      const node = slot * NODE_WORDS;
      const about = aboutOf(node);
      this.storeRoutes(node, heap);
      this.paint(this.slots, node, this.about[about + COVER]);
      for (let t = 0; t < NODE_SLOTS && children > 0; t++) {
        if (deep[t] < 0) continue;
        for (let i = deep[t]; i >= 0; i = following[i]) {
          const index = indexIn(prefixes[i], 24, lengths[i]);
          if (heap[index] === 0) heap[index] = values[i];
        }
        deep[t] = -1;
        const child = this.allocateNode();
        this.storeRoutes(child, heap);
        this.renewChild(child, this.slots[t]);
        this.slots[t] = ~child;
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
    if (length > ROOT_BITS) {
      this.changeInSlot(prefix, length, value, added);
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
    if (index >= ROOT_SLOTS) {
      const node = (index - ROOT_SLOTS) * NODE_WORDS;
      if (this.about[aboutOf(node) + COVER] === cover) return;
      if (this.holdsRoutes(node)) {
        this.paint(this.slots, node, cover);
        this.placeChildren(node);
        this.write(node, this.slots);
      } else {
        this.writeCover(node, cover);
      }
      return;
    }
    for (let child = 2 * index; child <= 2 * index + 1; child++) {
      const own = this.short[child];
      this.repaint(child, own === 0 ? cover : own);
    }
  }

  /** Adds, changes or (value 0) deletes a route longer than /16. */
  private changeInSlot(prefix: number, length: number, value: number, added: number): void {
    const node = (prefix >>> 16) * NODE_WORDS;
    const about = aboutOf(node);
    if (length <= 24) this.changeRoutes(node, indexIn(prefix, 16, length), value, added);
    this.paint(this.slots, node, this.about[about + COVER]);
    const t = (prefix >>> 8) & 255;
    const cover = this.slots[t];
    this.placeChildren(node);
    if (length > 24) {
      let child = ~this.slots[t];
      if (child < 0) {
        child = this.allocateNode();
        this.about[about + CHILDREN]++;
      }
      this.changeRoutes(child, indexIn(prefix, 24, length), value, added);
      if (this.about[aboutOf(child) + ROUTE_COUNT] > 0) {
        this.renewChild(child, cover);
        this.slots[t] = ~child;
      } else {
        this.slots[t] = cover;
        this.about[about + CHILDREN]--;
        this.write(node, this.slots);
        this.releaseNode(child);
        return;
      }
    }
    this.write(node, this.slots);
  }

  /** Puts the nodes of /24s, as they stand in the node of a /16, over what has just been painted for it. */
  private placeChildren(node: number): void {
    if (this.about[aboutOf(node) + CHILDREN] === 0) return;
    const slots = this.slots;
    const old = this.oldSlots;
    this.expand(node, old);
    for (let t = 0; t < NODE_SLOTS; t++) {
      if (old[t] >= 0) continue;
      if (this.about[aboutOf(~old[t]) + COVER] !== slots[t]) this.renewChild(~old[t], slots[t]);
      slots[t] = old[t];
    }
  }

  /** Paints the node of a /24 anew, its routes or its cover having changed. */
  private renewChild(child: number, cover: number): void {
    this.paint(this.childSlots, child, cover);
    this.write(child, this.childSlots);
  }

  /** Fills `slots` with a new cover and then with the node's own routes, shorter ones first. */
  private paint(slots: Int32Array, node: number, cover: number): void {
    const about = aboutOf(node);
    this.about[about + COVER] = cover;
    slots.fill(cover);
    const routes = this.routes.words;
    const begin = this.about[about + ROUTES];
    const end = begin + 2 * this.about[about + ROUTE_COUNT];
    for (let i = begin; i < end; i += 2) {
      const width = NODE_SLOTS >> (31 - Math.clz32(routes[i]));
      const from = routes[i] * width - NODE_SLOTS;
      const value = routes[i + 1];
      for (let t = from; t < from + width; t++) slots[t] = value;
    }
  }

  /** Makes a node say these 256 slots, each a value or ~node. */
  private write(node: number, slots: Int32Array): void {
    let length = 1;
    for (let t = 1; t < NODE_SLOTS; t++) if (slots[t] !== slots[t - 1]) length++;
    const oldBegin = this.runBegin(node);
    const oldLength = this.runLength(node);
    let next = this.runs.allocate(length);
    const runs = this.runs.words;
    const nodes = this.nodes;
    let last = ~slots[0];
    for (let pair = 0; pair < NODE_WORDS; pair += 2) {
      const base = next - 1;
      let bits = 0;
      for (let i = 0; i < 32; i++) {
        const v = slots[pair * 16 + i];
        if (v === last) continue;
        last = v;
        bits |= 1 << i;
        runs[next++] = v;
      }
      nodes[node + pair] = bits;
      nodes[node + pair + 1] = base;
    }
    this.runs.release(oldBegin, oldLength);
  }

  /** The same for a node of a /16 without routes, where nothing needs painting. */
  private writeCover(node: number, cover: number): void {
    const oldBegin = this.runBegin(node);
    const oldLength = this.runLength(node);
    const run = cover === 0 ? 0 : this.runs.allocate(1);
    this.runs.words[run] = cover;
    this.nodes[node] = cover === 0 ? 0 : 1;
    this.nodes[node + 1] = cover === 0 ? 0 : run - 1;
    for (let pair = node + 2; pair < node + NODE_WORDS; pair += 2) {
      this.nodes[pair] = 0;
      this.nodes[pair + 1] = run;
    }
    this.about[aboutOf(node) + COVER] = cover;
    this.runs.release(oldBegin, oldLength);
  }

  /** Where the run of a node begins. */
  private runBegin(node: number): number {
    return this.nodes[node + 1] + 1;
  }

  /** 0 for a node that stands at run 0, which is everybody's: its first slot has no bit. */
  private runLength(node: number): number {
    if (this.nodes[node] === 0) return 0;
    const lastPair = node + NODE_WORDS - 2;
    return this.nodes[lastPair + 1] + countBits(this.nodes[lastPair]) - this.nodes[node + 1];
  }

  /** What a node says of one of its slots. */
  private slotOf(node: number, slot: number): number {
    const pair = node + ((slot >>> 4) & 14);
    return this.runs.words[this.nodes[pair + 1] + countBits(this.nodes[pair] & ~(-2 << slot))];
  }

  private expand(node: number, slots: Int32Array): void {
    const runs = this.runs.words;
    for (let pair = 0; pair < NODE_WORDS; pair += 2) {
      const bits = this.nodes[node + pair];
      let at = this.nodes[node + pair + 1];
      for (let i = 0; i < 32; i++) {
        at += (bits >>> i) & 1;
        slots[pair * 16 + i] = runs[at];
      }
    }
  }

  /** A node without routes, for a /24. */
  private allocateNode(): number {
    let node = this.freeNode;
    if (node !== NO_NODE) {
      this.freeNode = this.nodes[node + 1];
    } else {
      node = this.nodesEnd;
      const about = aboutOf(node);
      if (node + NODE_WORDS > this.nodes.length) this.nodes = grow(this.nodes, node + NODE_WORDS);
      if (about + ABOUT_WORDS > this.about.length) this.about = grow(this.about, about + ABOUT_WORDS);
      this.nodesEnd += NODE_WORDS;
    }
    this.nodes[node] = 0; // no run
    return node;
  }

  /** Gives back the node of a /24 that has no routes left and that no slot names. */
  private releaseNode(node: number): void {
    this.runs.release(this.runBegin(node), this.runLength(node));
    this.nodes[node + 1] = this.freeNode;
    this.freeNode = node;
  }

  /** The value at an index among a node's own routes, or 0. */
  private routeIn(node: number, index: number): number {
    const routes = this.routes.words;
    const own = this.about[aboutOf(node) + ROUTES];
    let low = 0;
    let high = this.about[aboutOf(node) + ROUTE_COUNT];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (routes[own + 2 * middle] < index) low = middle + 1;
      else high = middle;
    }
    const found = low < this.about[aboutOf(node) + ROUTE_COUNT] && routes[own + 2 * low] === index;
    return found ? routes[own + 2 * low + 1] : 0;
  }

  /** Adds, changes or (value 0) leaves out one of a node's own routes. */
  private changeRoutes(node: number, index: number, value: number, added: number): void {
    const about = aboutOf(node);
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
    for (let index = 2; index < 2 * NODE_SLOTS; index++) if (heap[index] !== 0) count++;
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
    const about = aboutOf(node);
    this.about[about + ROUTES] = own;
    this.about[about + ROUTE_COUNT] = count;
    this.count += count;
  }

  /** Adds the routes of one stride and of all below it, in preorder: a prefix before those inside it. */
  private collect(heap: Int32Array, start: number, base: number, node: number, found: Route[]): void {
    const bits = start === 0 ? ROOT_BITS : 8;
    const leaves = 1 << bits;
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
      const slot = index - leaves;
      const ref = node === NO_NODE ? ~(slot * NODE_WORDS) : this.slotOf(node, slot);
      if (ref < 0 && this.holdsRoutes(~ref)) {
        const below = new Int32Array(2 * NODE_SLOTS);
        const own = this.about[aboutOf(~ref) + ROUTES];
        const end = own + 2 * this.about[aboutOf(~ref) + ROUTE_COUNT];
        for (let i = own; i < end; i += 2) below[this.routes.words[i]] = this.routes.words[i + 1];
        this.collect(below, start + bits, base | (slot << (32 - start - bits)), ~ref, found);
      }
      while (index & 1) index >>= 1;
      index++;
    } while (index !== 1);
  }

  private holdsRoutes(node: number): boolean {
    const about = aboutOf(node);
    return this.about[about + ROUTE_COUNT] > 0 || this.about[about + CHILDREN] > 0;
  }
}

/** Place of a prefix in the heap of the stride that begins after `start` bits. */
function indexIn(prefix: number, start: number, length: number): number {
  const bits = length - start;
  return bits === 0 ? 1 : (1 << bits) | ((prefix << start) >>> (32 - bits));
}

function aboutOf(node: number): number {
  return (node / NODE_WORDS) * ABOUT_WORDS;
}

/** Bits set in a word, 0 to 32 (Warren, Hacker's Delight, section 5-1). */
function countBits(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  x = (x + (x >>> 4)) & 0x0f0f0f0f;
  return Math.imul(x, 0x01010101) >>> 24;
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

/**
 * The flow table: every flow findable by its tuple in either direction.
 *
 *   index (8 bytes a slot, at most half full)      entries (128 bytes, two cache lines, each its own)
 *   | hash | entry << 1 | direction |   ------->   | both tuples, state, deadline, ... | TCP windows, owner's words |
 *
 * A hit reads one index line and one entry line (TCP: both lines of the entry, which the processor fetches as a pair);
 * a miss reads one index line, because the slot holds all 32 bits of the hash and an entry is looked at only if they
 * agree. Everything is allocated at the start. A new flow is built in a scratch entry and copied when it is confirmed, so
 * that a packet dropped before leaves nothing behind. There are two: entry 0 for packets that came in, and the one behind
 * the last for what the node sends in the middle of judging such a packet (an ICMP error).
 *
 * Time is milliseconds of any monotonic clock, kept modulo 2^32 and compared by difference: deadlines up to 24 days.
 * An entry past its deadline is gone for every lookup at once; its memory is collected by `sweep`, which walks a bounded
 * stretch of the table at a time.
 */
import { hash3, powerOfTwo } from '../memory/hash.ts';
import type { Random } from '../random.ts';
import { PROTO_TCP } from '../wire/ipv4.ts';
import { TCP_CLOSE, TCP_FIN_WAIT } from './timeouts.ts';

// Words of an entry. First cache line: all that UDP, ICMP and lookups need.
export const O_SRC = 0; // the tuple of the original direction, as its packets arrive
export const O_DST = 1;
export const O_PORTS = 2; // source port << 16 | destination port
export const R_SRC = 3; // the tuple of the reply direction, as its packets arrive
export const R_DST = 4;
export const R_PORTS = 5;
export const META = 6; // protocol, state, FLAG_*
export const DEADLINE = 7;
export const CLIENT_WORD = 8; // of the flow's client (flows.ts), as the next two
export const ATTACHED = 9; // not 0: the client is asked whether the flow still stands
export const CLIENT_WORD_MORE = 10;
export const POLICY_EPOCH = 11; // the policies that it was judged by (path/policy.ts)
export const LAST_SEEN = 12;
export const TCP_FLAGS = 13; // tcp.ts
export const TCP_LAST = 14; // tcp.ts; for UDP the time from which it is a stream
export const GENERATION = 15; // << 16: changes when the entry is reused; low half: tcp.ts
// Second cache line.
export const TCP_SEEN = 16; // 2 x (end, maxend, maxwin, maxack)
export const TCP_LAST_SEQ = 24;
export const TCP_LAST_ACK_SEQ = 25;
export const TCP_LAST_END = 26;
export const CREATED = 27;
export const EGRESS_RULE = 28; // what allows it to leave its pod; 0: nothing had to; -1: nothing does any more
export const INGRESS_RULE = 29; // and to enter the other
export const ATTACHED_FAR = 30; // of the client: what it has to give back when the flow does not come to be
export const CLIENT_WORD_FAR = 31; // of the client
export const ENTRY_WORDS = 32;
export const ENTRY_SHIFT = 5;
export const ENTRY_BYTES = ENTRY_WORDS * 4;

// META: protocol in bits 0-7, state in bits 8-12.
export const PROTOCOL_MASK = 0xff;
export const STATE_SHIFT = 8;
export const STATE_MASK = 0x1f;
export const FLAG_USED = 1 << 16;
export const FLAG_SEEN_REPLY = 1 << 17;
/** Traffic in both directions has been seen: not evicted for unassured ones. */
export const FLAG_ASSURED = 1 << 18;
/** Of the flow's client. */
export const CLIENT_FLAG_A = 1 << 19;
export const CLIENT_FLAG_B = 1 << 20;
/** Has no deadline. */
export const FLAG_PERMANENT = 1 << 21;
/** Bits 22-30: whose quota it is on, by any number from 1; 0: nobody's. */
export const PAYER_SHIFT = 22;
export const PAYER_MASK = 0x1ff;

export const ORIGINAL = 0;
export const REPLY = 1;

/** What `insert` says instead of an entry number. */
export const REFUSED_FULL = -1;
export const REFUSED_QUOTA = -2;
export const REFUSED_CLASH = -3;

/** Index slots that a lookup may visit; an insertion that needs more is refused. Half full, random keys stay below 100. */
const MAX_PROBES = 256;
/** Entries looked at for one to evict. Linux: 8 buckets. */
const EVICT_SAMPLE = 64;
const LRU_SAMPLE = 16;
/** From one of them to the next, as a part of the table: the golden ratio leaves no two near each other. */
const EVICT_STRIDE = 0.618;
/** The whole table is swept in this time... */
const SWEEP_MS = 5000;
/** ...unless that is more entries than this per call (about 50 us), or more expired flows than a burst can make. */
const SWEEP_MAX = 16384;
const EXPIRE_MAX = 64;

export type FullPolicy = 'drop-new' | 'evict-unassured-first' | 'lru';

export interface TableOptions {
  /** Flows, 16 to 4 Mi. */
  capacity: number;
  /** Secrets of the hash, and which entries are looked at for eviction. */
  random: Random;
  /** What happens to a new flow when the table is full. `lru` may evict established flows, as Cilium's maps do. */
  whenFull?: FullPolicy;
  /** Flows that one payer may have; 0: no limit. */
  perPayer?: number;
  /**
   * Zeroed memory for entries and index. Huge pages halve the time of a hit in a big table (bench/conntrack.ts), and memory
   * that is there from the start spares the loop the first touch of each.
   */
  memory?: (bytes: number) => Uint8Array;
}

/** Told of every flow that goes, before its words are cleared. */
export interface FlowOwner {
  flowRemoved(entry: number): void;
}

/** Every entry ever made is counted once more when it goes: created = used + expired + evicted + deleted. */
export interface TableStats {
  created: number;
  expired: number;
  evicted: number;
  deleted: number;
  /** Insertions refused. */
  full: number;
  quota: number;
  clash: number;
  /** Of `full`: the hash chain was too long (an attack on the hash, or luck beyond belief). */
  chain: number;
}

export class FlowTable {
  readonly capacity: number;
  /** All entries; entry e begins at word e << ENTRY_SHIFT. */
  readonly words: Int32Array;
  owner: FlowOwner | null = null;
  /** Entries in use. */
  used = 0;
  /** Entries 1..highWater have been used at some time; beyond, memory is untouched. */
  highWater = 0;
  whenFull: FullPolicy;
  readonly perPayer: number;

  private readonly index: Int32Array;
  private readonly mask: number;
  private readonly random: Random;
  private readonly k0: number;
  private readonly k1: number;
  private readonly k2: number;
  /** Head of the list of free entries, linked through word 0; 0: none, take the next above highWater. */
  private free = 0;
  private cursor = 1;
  private sweptAt = 0;
  /** Entries that tick() is behind with. */
  private due = 0;
  private readonly flowsOfPayer = new Int32Array(PAYER_MASK + 1);

  // The parts of TableStats, in doubles: they pass 2^31.
  private readonly counts = new Float64Array(8);

  constructor(options: TableOptions) {
    const { capacity, random } = options;
    if (!(capacity >= 16 && capacity <= 1 << 22)) throw new RangeError(`a flow table of ${capacity} entries`);
    this.capacity = capacity;
    const memory = options.memory ?? (bytes => new Uint8Array(bytes));
    this.words = wordsOf(memory((capacity + 2) * ENTRY_BYTES));
    const slots = powerOfTwo(capacity * 4);
    this.index = wordsOf(memory(slots * 8));
    this.mask = slots - 1;
    this.random = random;
    this.k0 = random.next();
    this.k1 = random.next();
    this.k2 = random.next();
    this.whenFull = options.whenFull ?? 'evict-unassured-first';
    this.perPayer = options.perPayer ?? 0;
  }

  /** The scratch entry for packets of the node's own. That for all others is entry 0. */
  get ownScratch(): number {
    return this.capacity + 1;
  }

  /** Bytes allocated per entry: the entry, its part of the index, its part of the quota table. */
  get bytesPerEntry(): number {
    return (this.words.byteLength + this.index.byteLength) / this.capacity;
  }

  get stats(): TableStats {
    const [created, expired, evicted, deleted, full, quota, clash, chain] = this.counts;
    return { created, expired, evicted, deleted, full, quota, clash, chain };
  }

  /**
   * Finds the flow of a tuple. Addresses int32, `ports` source << 16 | destination.
   * @returns entry << 1 | direction (ORIGINAL, REPLY), or -1
   */
  find(src: number, dst: number, ports: number, protocol: number, now: number): number {
    const { index, words, mask } = this;
    const h = hash3(src, dst, ports ^ (protocol << 8), this.k0, this.k1, this.k2);
    let i = (h & mask) << 1;
    for (;;) {
      const ref = index[i + 1];
      if (ref === 0) return -1;
      if (index[i] === h) {
        const base = (ref >>> 1) << ENTRY_SHIFT;
        const key = base + (ref & 1) * R_SRC;
        if (
          words[key] === src &&
          words[key + 1] === dst &&
          words[key + 2] === ports &&
          (words[base + META] & PROTOCOL_MASK) === protocol
        ) {
          if (((words[base + DEADLINE] - now) | 0) > 0 || (words[base + META] & FLAG_PERMANENT) !== 0) return ref;
          this.expire(ref >>> 1);
          return -1;
        }
      }
      i = (i + 2) & (mask * 2 + 1);
    }
  }

  /**
   * Reads what lookups of these tuples will read, and uses nothing of it: index slots first, then the entries that they
   * name. Called for a burst before its first packet is judged, it lets the processor wait for all cache misses at once.
   * @param tuples n x (src, dst, ports, protocol); overwritten
   * @returns anything; to be kept, so that the reads are not optimised away
   */
  touchAll(tuples: Int32Array, n: number): number {
    const { index, words, mask, k0, k1, k2 } = this;
    for (let i = 0; i < 4 * n; i += 4) {
      const h = hash3(tuples[i], tuples[i + 1], tuples[i + 2] ^ (tuples[i + 3] << 8), k0, k1, k2);
      tuples[i] = index[((h & mask) << 1) + 1];
    }
    let sum = 0;
    for (let i = 0; i < 4 * n; i += 4) sum = (sum + words[((tuples[i] >>> 1) << ENTRY_SHIFT) + META]) | 0;
    return sum;
  }

  /**
   * Copies the flow built in a scratch entry (tuples and META must be set) into a free entry and makes it findable.
   * @returns the entry, or REFUSED_*; REFUSED_CLASH: one of its tuples is that of another flow
   */
  insert(now: number, scratch = 0): number {
    const { words } = this;
    const from = scratch << ENTRY_SHIFT;
    const protocol = words[from + META] & PROTOCOL_MASK;
    const src = words[from + O_SRC];
    const dst = words[from + O_DST];
    const ports = words[from + O_PORTS];
    const payer = (words[from + META] >>> PAYER_SHIFT) & PAYER_MASK;
    if (payer !== 0 && this.perPayer > 0 && this.flowsOfPayer[payer] >= this.perPayer) {
      this.counts[5]++;
      return REFUSED_QUOTA;
    }
    const entry = this.takeEntry(now);
    if (entry === 0) {
      this.counts[4]++;
      return REFUSED_FULL;
    }
    const placed = this.link(src, dst, ports, protocol, entry << 1, now, from);
    if (placed !== 0) return this.refuse(entry, placed);
    const replyPlaced = this.link(
      words[from + R_SRC],
      words[from + R_DST],
      words[from + R_PORTS],
      protocol,
      (entry << 1) | 1,
      now,
      from,
    );
    if (replyPlaced !== 0) {
      this.unlink(src, dst, ports, protocol, entry << 1);
      return this.refuse(entry, replyPlaced);
    }

    const base = entry << ENTRY_SHIFT;
    const generation = (words[base + GENERATION] + 0x10000) & ~0xffff;
    for (let i = 0; i < ENTRY_WORDS; i++) words[base + i] = words[from + i];
    words[base + META] |= FLAG_USED;
    words[base + GENERATION] = generation | (words[from + GENERATION] & 0xffff);
    words[base + CREATED] = now;
    words[base + LAST_SEEN] = now;
    this.flowsOfPayer[payer]++;
    this.used++;
    this.counts[0]++;
    return entry;
  }

  /** Removes a flow. */
  remove(entry: number): void {
    this.counts[3]++;
    this.release(entry);
  }

  /** True if the entry holds a flow that has not expired. */
  alive(entry: number, now: number): boolean {
    const base = entry << ENTRY_SHIFT;
    return (this.words[base + META] & FLAG_USED) !== 0 && !this.isOver(base, now);
  }

  /**
   * Sweeps as many entries as time has passed for, but only so many at once. To be called once per burst or so.
   * @returns entries that are left to sweep: if not 0, it wants to be called again when there is nothing else to do
   */
  tick(now: number): number {
    const elapsed = (now - this.sweptAt) | 0;
    if (elapsed > 0) {
      const passed = Math.ceil((this.highWater * Math.min(elapsed, SWEEP_MS)) / SWEEP_MS);
      this.due = Math.min(this.due + passed, this.highWater);
      this.sweptAt = now | 0;
    }
    this.due -= this.look(now, Math.min(this.due, SWEEP_MAX), EXPIRE_MAX);
    return this.due;
  }

  /** Looks at the next `limit` entries and frees those that have expired. @returns how many */
  sweep(now: number, limit: number): number {
    const { used } = this;
    this.look(now, Math.min(limit, this.highWater), limit);
    return used - this.used;
  }

  /** Frees what has expired of the next `limit` entries, until there were `most`. @returns entries looked at */
  private look(now: number, limit: number, most: number): number {
    const { words } = this;
    let expired = 0;
    let looked = 0;
    let at = this.cursor;
    while (looked < limit && expired < most) {
      if (at > this.highWater) at = 1;
      const base = at << ENTRY_SHIFT;
      if ((words[base + META] & FLAG_USED) !== 0 && this.isOver(base, now)) {
        this.expire(at);
        expired++;
      }
      at++;
      looked++;
    }
    this.cursor = at;
    return looked;
  }

  /**
   * Calls `visit` for the flows among the next `limit` entries from `from`, for listings and deletions that do not stop
   * the loop. `visit` may remove the flow it is given. Start with `from` 1. @returns where to go on, or 0 at the end
   */
  walk(from: number, limit: number, now: number, visit: (entry: number) => void): number {
    const end = Math.min(from + limit, this.highWater + 1);
    for (let entry = from; entry < end; entry++) if (this.alive(entry, now)) visit(entry);
    return end > this.highWater ? 0 : end;
  }

  /** True if the flow at `base` is past its deadline. */
  private isOver(base: number, now: number): boolean {
    const { words } = this;
    return ((words[base + DEADLINE] - now) | 0) <= 0 && (words[base + META] & FLAG_PERMANENT) === 0;
  }

  private expire(entry: number): void {
    this.counts[1]++;
    this.release(entry);
  }

  private release(entry: number): void {
    const { words } = this;
    const base = entry << ENTRY_SHIFT;
    if (this.owner !== null) this.owner.flowRemoved(entry);
    const protocol = words[base + META] & PROTOCOL_MASK;
    this.unlink(words[base + O_SRC], words[base + O_DST], words[base + O_PORTS], protocol, entry << 1);
    this.unlink(words[base + R_SRC], words[base + R_DST], words[base + R_PORTS], protocol, (entry << 1) | 1);
    this.flowsOfPayer[(words[base + META] >>> PAYER_SHIFT) & PAYER_MASK]--;
    words[base + META] = 0;
    words[base] = this.free;
    this.free = entry;
    this.used--;
  }

  /** A free entry, by eviction if need be, or 0. */
  private takeEntry(now: number): number {
    if (this.free === 0) {
      if (this.highWater < this.capacity) return ++this.highWater;
      if (this.sweep(now, EVICT_SAMPLE) === 0 && this.whenFull !== 'drop-new') this.evict(now);
    }
    const entry = this.free;
    if (entry !== 0) this.free = this.words[entry << ENTRY_SHIFT];
    return entry;
  }

  private refuse(entry: number, reason: number): number {
    this.words[entry << ENTRY_SHIFT] = this.free;
    this.free = entry;
    if (reason === REFUSED_CLASH) this.counts[6]++;
    else {
      this.counts[4]++;
      this.counts[7]++;
    }
    return reason;
  }

  /** Frees one of a random sample of entries, if the policy finds one. */
  private evict(now: number): void {
    const { words } = this;
    const lru = this.whenFull === 'lru';
    // Neighbours were made at the same time and are alike: a thousand established ones would hide all others behind them.
    const stride = this.highWater <= EVICT_SAMPLE ? 1 : Math.floor(this.highWater * EVICT_STRIDE) | 1;
    let at = 1 + this.random.below(this.highWater);
    let victim = 0;
    let victimIdle = -1;
    for (let n = lru ? LRU_SAMPLE : EVICT_SAMPLE; n > 0; n--, at += stride) {
      if (at > this.highWater) at -= this.highWater;
      const base = at << ENTRY_SHIFT;
      const meta = words[base + META];
      if ((meta & FLAG_USED) === 0) continue;
      if (lru) {
        const idle = (now - words[base + LAST_SEEN]) | 0;
        if (idle > victimIdle) {
          victimIdle = idle;
          victim = at;
        }
      } else if ((meta & FLAG_ASSURED) === 0 || isClosing(meta)) {
        victim = at;
        break;
      }
    }
    if (victim === 0) return;
    this.counts[2]++;
    this.release(victim);
  }

  /** Puts a reference into the index. @returns 0, or REFUSED_FULL (chain too long), REFUSED_CLASH (tuple is taken) */
  private link(
    src: number,
    dst: number,
    ports: number,
    protocol: number,
    ref: number,
    now: number,
    from: number,
  ): number {
    const { index, words, mask } = this;
    const h = hash3(src, dst, ports ^ (protocol << 8), this.k0, this.k1, this.k2);
    let i = h & mask;
    for (let n = 0; n < MAX_PROBES; n++) {
      const slot = i << 1;
      const other = index[slot + 1];
      if (other === 0) {
        index[slot] = h;
        index[slot + 1] = ref;
        return 0;
      }
      if (index[slot] === h) {
        const base = (other >>> 1) << ENTRY_SHIFT;
        // The entry that is being inserted still lies in scratch space; only its own first tuple can be met here.
        const at = other >>> 1 === ref >>> 1 ? from : base;
        const key = at + (other & 1) * R_SRC;
        const meta = words[at + META];
        if (
          words[key] === src &&
          words[key + 1] === dst &&
          words[key + 2] === ports &&
          (meta & PROTOCOL_MASK) === protocol
        ) {
          if (other >>> 1 === ref >>> 1 || !this.isOver(base, now)) return REFUSED_CLASH;
          this.expire(other >>> 1);
          return this.link(src, dst, ports, protocol, ref, now, from);
        }
      }
      i = (i + 1) & mask;
    }
    return REFUSED_FULL;
  }

  /** Takes a reference out of the index and closes the gap. */
  private unlink(src: number, dst: number, ports: number, protocol: number, ref: number): void {
    const { index, mask } = this;
    const h = hash3(src, dst, ports ^ (protocol << 8), this.k0, this.k1, this.k2);
    let hole = h & mask;
    while (index[(hole << 1) + 1] !== ref) {
      if (index[(hole << 1) + 1] === 0) return;
      hole = (hole + 1) & mask;
    }
    let i = hole;
    for (;;) {
      i = (i + 1) & mask;
      const other = index[(i << 1) + 1];
      if (other === 0) break;
      if (((i - index[i << 1]) & mask) >= ((i - hole) & mask)) {
        index[hole << 1] = index[i << 1];
        index[(hole << 1) + 1] = other;
        hole = i;
      }
    }
    index[hole << 1] = 0;
    index[(hole << 1) + 1] = 0;
  }
}

function wordsOf(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** A TCP flow that is on its way out may go before its time, as in Linux's tcp_can_early_drop. */
function isClosing(meta: number): boolean {
  const state = (meta >>> STATE_SHIFT) & STATE_MASK;
  return (meta & PROTOCOL_MASK) === PROTO_TCP && state >= TCP_FIN_WAIT && state <= TCP_CLOSE;
}

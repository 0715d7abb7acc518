/**
 * Datagrams of which fragments are about: who they are (RFC 791: source, destination, protocol, identification), how old,
 * and which of their bytes have come. What becomes of the fragments is the business of virtual-reassembly.ts, which lets
 * them go on one by one, and reassembly.ts, which makes a packet of them.
 *
 * Bytes are counted in units of 8, as fragment offsets are: one bit says that a unit has come, another that a fragment
 * begins there. 2 KiB for each datagram, and no limit to its pieces or holes, where a list of holes (RFC 815) has to be
 * cut off somewhere. A fragment of 1480 bytes touches at most 7 words of either.
 *
 * All memory is taken at the start.
 */
import { ArrivalList } from '../memory/arrival-list.ts';
import { CountTable } from '../memory/count-table.ts';
import { hash3, powerOfTwo } from '../memory/hash.ts';
import type { Packet } from '../packet/packet.ts';
import type { Random } from '../random.ts';
import { CONTINUE, DROP_FRAGMENT_DUPLICATE, DROP_FRAGMENT_MALFORMED, DROP_FRAGMENT_OVERLAP } from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';

/** Words of 32 units that 64 KiB of payload take. */
const WORDS = 256;
const UNKNOWN = -1;
const NONE = -1;

export class DatagramTable {
  readonly capacity: number;
  /** Datagrams present. */
  used = 0;
  /** Of each datagram, in the order in which their first fragments came. Since all live equally long, also that of their deadlines. */
  readonly byAge: ArrivalList;

  /** Milliseconds from a datagram's first fragment; those that are there keep their deadline. */
  lifetime: number;
  /** So many fragments of one source may come between two of a datagram: net.ipv4.ipfrag_max_dist. */
  maxDistance = Number.POSITIVE_INFINITY;
  private readonly src: Int32Array;
  private readonly dst: Int32Array;
  /** Identification << 8 | protocol. */
  private readonly idProtocol: Int32Array;
  private readonly zone: Int32Array;
  private readonly deadlines: Float64Array;
  /** How many fragments its source had sent when the last one of the datagram came. */
  private readonly counts: Int32Array;
  /** By source and zone, as long as it has datagrams here: fragments that it has sent, and in `extra` those datagrams. */
  private readonly sources: CountTable;
  /** Payload bytes of the whole datagram: known with the last fragment. */
  private readonly totals: Int32Array;
  /** Greatest end of any fragment. */
  private readonly highest: Int32Array;
  /** Units that have come. */
  private readonly units: Int32Array;
  /** One bit for each unit: it has come. */
  private readonly come: Int32Array;
  /** One bit for each unit: a fragment begins with it. */
  private readonly begins: Int32Array;

  /** First datagram by hash; the next with the same hash, or the next free one. */
  private readonly buckets: Int32Array;
  private readonly next: Int32Array;
  private free: number;
  private readonly k0: number;
  private readonly k1: number;
  private readonly k2: number;

  /**
   * @param capacity datagrams at most
   * @param lifetime milliseconds from a datagram's first fragment
   * @param random secrets of the hash
   */
  constructor(capacity: number, lifetime: number, random: Random) {
    this.capacity = capacity;
    this.lifetime = lifetime;
    this.byAge = new ArrivalList(capacity);
    this.src = new Int32Array(capacity);
    this.dst = new Int32Array(capacity);
    this.idProtocol = new Int32Array(capacity);
    this.zone = new Int32Array(capacity);
    this.deadlines = new Float64Array(capacity);
    this.counts = new Int32Array(capacity);
    this.sources = new CountTable(capacity, random);
    this.totals = new Int32Array(capacity);
    this.highest = new Int32Array(capacity);
    this.units = new Int32Array(capacity);
    // Shared memory, which the collector does not count: most of it is never used.
    this.come = new Int32Array(new SharedArrayBuffer(4 * capacity * WORDS));
    this.begins = new Int32Array(new SharedArrayBuffer(4 * capacity * WORDS));
    this.buckets = new Int32Array(powerOfTwo(capacity * 2)).fill(NONE);
    this.next = new Int32Array(capacity);
    for (let i = 0; i < capacity; i++) this.next[i] = i + 1 < capacity ? i + 1 : NONE;
    this.free = 0;
    this.k0 = random.next();
    this.k1 = random.next();
    this.k2 = random.next();
  }

  get isFull(): boolean {
    return this.free === NONE;
  }

  /** The datagram of the parsed fragment, or -1. `zone` keeps apart what comes from places with address spaces of their own. */
  find(view: DataView, p: Packet, zone: number): number {
    const idProtocol = (view.getUint16(p.off + ipv4.ID) << 8) | p.protocol;
    let i = this.buckets[this.bucketOf(p.src, p.dst, idProtocol, zone)];
    while (i !== NONE) {
      if (
        this.src[i] === p.src &&
        this.dst[i] === p.dst &&
        this.idProtocol[i] === idProtocol &&
        this.zone[i] === zone
      ) {
        return i;
      }
      i = this.next[i];
    }
    return NONE;
  }

  /** Begins the datagram of a fragment for which `find` said -1. The caller has seen that the table is not full. */
  begin(view: DataView, p: Packet, zone: number, now: number): number {
    const i = this.free;
    this.free = this.next[i];
    const idProtocol = (view.getUint16(p.off + ipv4.ID) << 8) | p.protocol;
    this.src[i] = p.src;
    this.dst[i] = p.dst;
    this.idProtocol[i] = idProtocol;
    this.zone[i] = zone;
    this.deadlines[i] = now + this.lifetime;
    const source = this.sources.make(p.src, zone, 0);
    if (source >= 0) this.sources.setExtra(source, this.sources.extra(source) + 1);
    this.countFragment(i, source);
    this.totals[i] = UNKNOWN;
    this.highest[i] = 0;
    this.units[i] = 0;
    this.come.fill(0, i * WORDS, (i + 1) * WORDS);
    this.begins.fill(0, i * WORDS, (i + 1) * WORDS);
    const bucket = this.bucketOf(p.src, p.dst, idProtocol, zone);
    this.next[i] = this.buckets[bucket];
    this.buckets[bucket] = i;
    this.byAge.append(i);
    this.used++;
    return i;
  }

  remove(i: number): void {
    const bucket = this.bucketOf(this.src[i], this.dst[i], this.idProtocol[i], this.zone[i]);
    if (this.buckets[bucket] === i) {
      this.buckets[bucket] = this.next[i];
    } else {
      let at = this.buckets[bucket];
      while (this.next[at] !== i) at = this.next[at];
      this.next[at] = this.next[i];
    }
    this.byAge.remove(i);
    const source = this.sources.find(this.src[i], this.zone[i], 0);
    const others = source < 0 ? 0 : this.sources.extra(source) - 1;
    if (others > 0) this.sources.setExtra(source, others);
    else if (source >= 0) this.sources.removeAt(source);
    this.next[i] = this.free;
    this.free = i;
    this.used--;
  }

  /**
   * Counts a fragment of a datagram that `find` found. @returns true if its source has sent so many others since the last one
   * that this one is of another datagram with the same identification, which has come round (Linux ip_frag_too_far)
   */
  isTooFar(i: number): boolean {
    const before = this.counts[i];
    this.countFragment(i, this.sources.find(this.src[i], this.zone[i], 0));
    return ((this.counts[i] - before) | 0) > this.maxDistance;
  }

  /** @param source its place in `sources`, or -1 where there was none left */
  private countFragment(i: number, source: number): void {
    if (source < 0) return;
    const count = (this.sources.value(source) + 1) | 0;
    this.sources.setValue(source, count);
    this.counts[i] = count;
  }

  /** When the datagram must be complete. */
  deadline(i: number): number {
    return this.deadlines[i];
  }

  /** Payload bytes of the datagram, or -1 before its last fragment has come. */
  total(i: number): number {
    return this.totals[i];
  }

  /** True if nothing is missing. */
  isComplete(i: number): boolean {
    return this.totals[i] !== UNKNOWN && this.units[i] === (this.totals[i] + 7) >>> 3;
  }

  /**
   * Enters a fragment with the payload bytes [from, end) of its datagram. parseIpv4 has seen that `from`, and `end` unless
   * it is the last, are multiples of 8, that it is not empty, and that it ends below 64 KiB.
   *
   * @param more its MF bit: it is not the last
   * @returns CONTINUE; DROP_FRAGMENT_DUPLICATE if the same bytes have come in one fragment before (then nothing changes);
   *   or DROP_FRAGMENT_OVERLAP or DROP_FRAGMENT_MALFORMED: the datagram is beyond rescue (RFC 5722 section 4)
   *
   * Linux also takes for a duplicate what lies within a run of fragments that came in order (inet_frag_queue_insert); here
   * that is an overlap, whatever the order.
   */
  enter(i: number, from: number, end: number, more: boolean): number {
    const total = this.totals[i];
    if (total !== UNKNOWN) {
      if (more ? end >= total : end !== total) return DROP_FRAGMENT_MALFORMED;
    } else if (!more && end <= this.highest[i]) {
      return DROP_FRAGMENT_MALFORMED;
    }

    const first = from >>> 3;
    const past = (end + 7) >>> 3;
    const { come, begins } = this;
    const base = i * WORDS;
    const firstWord = base + (first >>> 5);
    const lastWord = base + ((past - 1) >>> 5);
    let any = 0;
    let missing = 0;
    let inner = 0;
    for (let w = firstWord; w <= lastWord; w++) {
      let mask = -1;
      if (w === firstWord) mask &= -1 << (first & 31);
      if (w === lastWord) mask &= -1 >>> (31 - ((past - 1) & 31));
      any |= come[w] & mask;
      missing |= ~come[w] & mask;
      // The fragment's own beginning is not inside it.
      if (w === firstWord) mask &= ~(1 << (first & 31));
      inner |= begins[w] & mask;
    }
    if (any !== 0) {
      const same = missing === 0 && inner === 0 && this.bit(begins, i, first) && this.isBoundary(i, past);
      return same ? DROP_FRAGMENT_DUPLICATE : DROP_FRAGMENT_OVERLAP;
    }

    for (let w = firstWord; w <= lastWord; w++) {
      let mask = -1;
      if (w === firstWord) mask &= -1 << (first & 31);
      if (w === lastWord) mask &= -1 >>> (31 - ((past - 1) & 31));
      come[w] |= mask;
    }
    begins[firstWord] |= 1 << (first & 31);
    this.units[i] += past - first;
    if (end > this.highest[i]) this.highest[i] = end;
    if (!more) this.totals[i] = end;
    return CONTINUE;
  }

  /** True if no fragment reaches across the beginning of unit `u`, given that one comes up to it. */
  private isBoundary(i: number, u: number): boolean {
    return u >= WORDS * 32 || this.bit(this.begins, i, u) || !this.bit(this.come, i, u);
  }

  private bit(bits: Int32Array, i: number, u: number): boolean {
    return (bits[i * WORDS + (u >>> 5)] & (1 << (u & 31))) !== 0;
  }

  private bucketOf(src: number, dst: number, idProtocol: number, zone: number): number {
    const hash = hash3(src, dst ^ Math.imul(zone, 0x9e3779b1), idProtocol, this.k0, this.k1, this.k2);
    return hash & (this.buckets.length - 1);
  }
}

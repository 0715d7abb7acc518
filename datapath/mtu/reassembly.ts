/**
 * Reassembly of fragments that are addressed to the node itself: those of tunnel packets (RFC 791 section 3.2, RFC 1122
 * section 3.3.2, RFC 4459 section 3.1).
 *
 * Each datagram has one packet of the pool from its first arrival on. Payload is copied to its place in it at once and
 * the fragment given back, so that a datagram costs one packet however small its pieces are:
 *
 *   start        off                     l4 (fixed)
 *     | headroom  | header of the first   | payload as it comes ...                    |
 *
 * A contradiction between fragments refuses the whole datagram, and what comes of it later; a repeated fragment is dropped
 * alone (datagram-table.ts).
 */
import {
  type Counters,
  EVENT_DATAGRAMS_REASSEMBLED,
  EVENT_FRAGMENTS_REASSEMBLED,
  PORT_RX_DROPPED,
} from '../counters.ts';
import { copyBytes, copyContext } from '../packet/copy.ts';
import { HEADROOM, type Packet } from '../packet/packet.ts';
import { parseIpv4 } from '../packet/parse.ts';
import type { Pool } from '../packet/pool.ts';
import type { Random } from '../random.ts';
import {
  CONTINUE,
  DROP_FRAGMENT_DUPLICATE,
  DROP_FRAGMENT_ECN,
  DROP_FRAGMENT_MALFORMED,
  DROP_FRAGMENT_QUEUE_FULL,
  DROP_FRAGMENT_TIMEOUT,
  DROP_NO_BUFFER,
  TAKEN,
} from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { DatagramTable } from './datagram-table.ts';
import { FRAGMENT_TIMEOUT_MS } from './virtual-reassembly.ts';

/** Datagrams that one tick() ends at most. */
const TICK_WORK = 32;
const NONE = -1;
/** Payload lies here or up to 7 bytes behind, alike in its word in fragment and datagram (packet/copy.ts). */
const PAYLOAD = HEADROOM + ipv4.MAX_HEADER_LEN;

/**
 * ECN of the whole (RFC 3168 section 5.3) by the set of values seen, one bit each: -1 to drop, or the bits to add to the
 * first fragment's. Linux ip_frag_ecn_table: Not-ECT goes with nothing else, and CE is not lost.
 */
const ECN_OF_SET: Int8Array = (() => {
  const table = new Int8Array(16);
  for (let set = 0; set < 16; set++) {
    const hasNotEct = (set & (1 << ipv4.ECN_NOT_ECT)) !== 0;
    const hasOther = (set & ~(1 << ipv4.ECN_NOT_ECT)) !== 0;
    if (hasNotEct && hasOther) table[set] = -1;
    else if ((set & (1 << ipv4.ECN_CE)) !== 0) table[set] = ipv4.ECN_CE;
  }
  return table;
})();

export interface ReassemblyEvents {
  /**
   * The time of a datagram is over, and its first fragment has come: its sender is to hear of it (ICMP 11/1; RFC 792, RFC
   * 1122 section 3.3.2). `first` is that fragment as it came, parsed; it is only lent.
   */
  timeout(first: Packet): void;
}

export interface ReassemblyOptions {
  pool: Pool;
  counters: Counters;
  random: Random;
  events: ReassemblyEvents;
  /** Datagrams at once, each with a packet of the pool. Well below the size of the pool. */
  datagrams?: number;
  /** Time from a datagram's first arrival until it must be complete. */
  timeoutMs?: number;
}

export class Reassembly {
  /** Fragments in datagrams that are not complete yet. */
  held = 0;
  private readonly pool: Pool;
  private readonly view: DataView;
  private readonly counters: Counters;
  private readonly events: ReassemblyEvents;
  private readonly table: DatagramTable;
  private whole: Packet | null = null;

  // Of each datagram.
  /** Slot of the packet it is put together in; -1 when it has been refused. */
  private readonly slots: Int32Array;
  private readonly reasons: Uint8Array;
  /** Length of its first fragment, header included; 0 before that has come. */
  private readonly firstLen: Int32Array;
  /** Fragments in it, and their bytes with headers. */
  private readonly pieces: Int32Array;
  private readonly bytes: Int32Array;
  private readonly ecnSets: Uint8Array;

  constructor(options: ReassemblyOptions) {
    const datagrams = options.datagrams ?? 256;
    this.pool = options.pool;
    this.view = options.pool.view;
    this.counters = options.counters;
    this.events = options.events;
    this.table = new DatagramTable(datagrams, options.timeoutMs ?? FRAGMENT_TIMEOUT_MS, options.random);
    this.slots = new Int32Array(datagrams);
    this.reasons = new Uint8Array(datagrams);
    this.firstLen = new Int32Array(datagrams);
    this.pieces = new Int32Array(datagrams);
    this.bytes = new Int32Array(datagrams);
    this.ecnSets = new Uint8Array(datagrams);
  }

  /**
   * @param timeoutMs how long datagrams are waited for that begin from now on
   * @param distance so many fragments of one source may come between two of a datagram
   */
  setLimits(timeoutMs: number, distance: number): void {
    this.table.lifetime = timeoutMs;
    this.table.maxDistance = distance;
  }

  /** Datagrams known. */
  get datagrams(): number {
    return this.table.used;
  }

  /**
   * Takes a parsed fragment (MF set or offset not 0).
   * @param zone keeps apart what comes from places with address spaces of their own
   * @returns TAKEN, then takeWhole() tells whether it was the last one missing; or a DROP_*, and `p` stays the caller's
   */
  accept(p: Packet, zone: number, now: number): number {
    const { table, view } = this;
    let d = table.find(view, p, zone);
    if (d !== NONE && table.deadline(d) <= now) {
      this.expire(d);
      d = NONE;
    } else if (d !== NONE && table.isTooFar(d)) {
      this.refuse(d, DROP_FRAGMENT_TIMEOUT);
      table.remove(d);
      d = NONE;
    }
    if (d === NONE) {
      d = this.begin(p, zone, now);
      if (d === NONE) return DROP_NO_BUFFER;
    } else if (this.slots[d] === NONE) {
      return this.reasons[d];
    }

    const from = (p.fragment & ipv4.OFFSET_MASK) << 3;
    const len = p.off + p.len - p.l4;
    const v = table.enter(d, from, from + len, (p.fragment & ipv4.FLAG_MF) !== 0);
    if (v !== CONTINUE) {
      if (v !== DROP_FRAGMENT_DUPLICATE) this.refuse(d, v);
      return v;
    }

    const a = this.pool.packets[this.slots[d]];
    copyBytes(this.pool, a.l4 + from, p.l4, len);
    if (from === 0) {
      const headerLen = p.l4 - p.off;
      a.off = a.l4 - headerLen;
      copyBytes(this.pool, a.off, p.off, headerLen);
      copyContext(a, p);
      this.firstLen[d] = p.len;
    }
    this.ecnSets[d] |= 1 << (view.getUint8(p.off + ipv4.TOS) & ipv4.ECN_MASK);
    this.pieces[d]++;
    this.held++;
    this.bytes[d] += p.len;
    this.pool.release(p);
    if (table.isComplete(d)) this.finish(d, a);
    return TAKEN;
  }

  /**
   * The datagram that accept() has just completed, once; null if it has not. It is a packet as parseIpv4 leaves it, no
   * fragment, with the context of its first fragment; the caller's from now on.
   */
  takeWhole(): Packet | null {
    const { whole } = this;
    this.whole = null;
    return whole;
  }

  /** Ends datagrams whose time is over, a bounded number of them. @returns milliseconds until there is more to do */
  tick(now: number): number {
    const { table } = this;
    for (let work = TICK_WORK; work > 0; work--) {
      const d = table.byAge.first;
      if (d === NONE || table.deadline(d) > now) break;
      this.expire(d);
    }
    const d = table.byAge.first;
    return d === NONE ? Number.POSITIVE_INFINITY : Math.max(0, Math.ceil(table.deadline(d) - now));
  }

  private begin(p: Packet, zone: number, now: number): number {
    const { table } = this;
    // Under a flood the oldest is the likeliest to be part of it.
    if (table.isFull) {
      const oldest = table.byAge.first;
      this.refuse(oldest, DROP_FRAGMENT_QUEUE_FULL);
      table.remove(oldest);
    }
    const a = this.pool.take();
    if (a === null) return NONE;
    const d = table.begin(this.view, p, zone, now);
    a.l4 = a.start + PAYLOAD + ((p.l4 - a.start - PAYLOAD) & 7);
    a.off = a.l4;
    a.inPort = p.inPort;
    a.owner = p.owner;
    this.slots[d] = a.slot;
    this.firstLen[d] = 0;
    this.pieces[d] = 0;
    this.bytes[d] = 0;
    this.ecnSets[d] = 0;
    return d;
  }

  /** All bytes are there: makes them a packet, or drops them. */
  private finish(d: number, a: Packet): void {
    const { view, table } = this;
    const len = a.l4 - a.off + table.total(d);
    const ecn = ECN_OF_SET[this.ecnSets[d]];
    let v = CONTINUE;
    if (len > ipv4.MAX_TOTAL_LEN) v = DROP_FRAGMENT_MALFORMED;
    else if (ecn < 0) v = DROP_FRAGMENT_ECN;
    else {
      a.len = len;
      view.setUint8(a.off + ipv4.TOS, view.getUint8(a.off + ipv4.TOS) | ecn);
      view.setUint16(a.off + ipv4.TOTAL_LEN, len);
      view.setUint16(a.off + ipv4.FLAGS_FRAGMENT, 0);
      ipv4.setHeaderChecksum(view, a.off);
      v = parseIpv4(view, a);
    }
    if (v !== CONTINUE) {
      this.dropPieces(d, v);
    } else {
      this.held -= this.pieces[d];
      this.counters.event(EVENT_DATAGRAMS_REASSEMBLED);
      this.counters.event(EVENT_FRAGMENTS_REASSEMBLED, this.pieces[d]);
      this.whole = a;
    }
    table.remove(d);
  }

  private expire(d: number): void {
    if (this.slots[d] !== NONE) {
      if (this.firstLen[d] > 0) {
        const a = this.pool.packets[this.slots[d]];
        a.len = this.firstLen[d];
        this.events.timeout(a);
      }
      this.dropPieces(d, DROP_FRAGMENT_TIMEOUT);
    }
    this.table.remove(d);
  }

  /** The datagram stays known until its time is over, so that nothing more of it is collected. */
  private refuse(d: number, reason: number): void {
    if (this.slots[d] === NONE) return;
    this.dropPieces(d, reason);
    this.slots[d] = NONE;
    this.reasons[d] = reason;
  }

  /** Counts what has come of the datagram as dropped, fragment by fragment, and gives its packet back. */
  private dropPieces(d: number, reason: number): void {
    const a = this.pool.packets[this.slots[d]];
    this.held -= this.pieces[d];
    this.counters.drop(reason, this.bytes[d]);
    for (let i = 1; i < this.pieces[d]; i++) this.counters.drop(reason, 0);
    this.counters.port(a.inPort, PORT_RX_DROPPED, this.pieces[d]);
    this.pool.release(a);
  }
}

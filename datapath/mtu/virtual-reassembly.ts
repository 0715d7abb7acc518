/**
 * Virtual reassembly: fragments pass through conntrack, NAT and policy one by one, but are judged as one datagram, by its
 * first fragment, which alone has the transport header (RFC 4787 REQ-14). Those that come before it wait.
 *
 *   accept(p)       for each parsed fragment: CONTINUE, it may go on; TAKEN, it is held; or a DROP_*
 *     the first:    the path judges it, then says admit(p) or refuse(p, reason)
 *     a later one:  its ports are filled in, and what the path has decided about the first one
 *   nextReleased(d) after the first: those that waited, in order of arrival, ready to go on as later ones do
 *
 * One contradiction between its fragments, overlap above all, and the whole datagram is refused, with what comes of it
 * later: RFC 5722 section 4 for IPv6, and the attacks of RFC 1858 and RFC 3128 on IPv4 are the same. A repeated
 * fragment is dropped alone. A datagram that is complete is forgotten at once, so that its identification is free again
 * (RFC 6864 section 4.3: at high rates they come round within a second).
 *
 * No ICMP error is ever sent from here: the first fragment has gone on, and if the datagram stays incomplete, that is for
 * the destination to notice and say (RFC 792; Linux's conntrack is silent likewise, frag_expire_skip_icmp in ip_expire).
 */
import { type Counters, EVENT_FRAGMENTS_HELD } from '../counters.ts';
import { ArrivalList } from '../memory/arrival-list.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import type { Random } from '../random.ts';
import {
  CONTINUE,
  DROP_FRAGMENT_DUPLICATE,
  DROP_FRAGMENT_OVERLAP,
  DROP_FRAGMENT_QUEUE_FULL,
  DROP_FRAGMENT_TIMEOUT,
  TAKEN,
} from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { DatagramTable } from './datagram-table.ts';

/** net.ipv4.ipfrag_time. */
export const FRAGMENT_TIMEOUT_MS = 30_000;
/** Datagrams that one tick() ends at most. */
const TICK_WORK = 32;
const NONE = -1;

// What a datagram waits for.
const FIRST_MISSING = 0;
const FIRST_UNDECIDED = 1;
const ADMITTED = 2;
const REFUSED = 3;
const CLOSED = 4;

export interface FragmentEvents {
  /** A fragment that was held ends here. The receiver owns it now. */
  release(p: Packet, reason: number): void;
}

export interface VirtualReassemblyOptions {
  pool: Pool;
  counters: Counters;
  random: Random;
  events: FragmentEvents;
  /** Datagrams known at once. */
  datagrams?: number;
  /** Fragments held at once, of all datagrams and of one. Well below the size of the pool. */
  held?: number;
  heldPerDatagram?: number;
  /** Time from a datagram's first arrival until it is forgotten. */
  timeoutMs?: number;
}

export class VirtualReassembly {
  /** Fragments held. */
  held = 0;

  private readonly pool: Pool;
  private readonly view: DataView;
  private readonly counters: Counters;
  private readonly events: FragmentEvents;
  private readonly maxHeld: number;
  private readonly maxHeldPerDatagram: number;
  private readonly table: DatagramTable;

  // Of each datagram.
  private readonly state: Uint8Array;
  private readonly reasons: Uint8Array;
  private readonly ports: Int32Array;
  // Of its first fragment: flow << 1 | direction, generation and newId.
  private readonly flows: Int32Array;
  private readonly generations: Int32Array;
  private readonly newIds: Int32Array;
  /** Held fragments by slot number, first and last; -1 for none. */
  private readonly firstHeld: Int32Array;
  private readonly lastHeld: Int32Array;
  private readonly heldCounts: Int32Array;
  /** Datagrams that hold fragments. */
  private readonly holders: ArrivalList;
  /** The fragment held behind this one, by slot number. */
  private readonly nextHeld: Int32Array;

  constructor(options: VirtualReassemblyOptions) {
    const datagrams = options.datagrams ?? 1024;
    this.pool = options.pool;
    this.view = options.pool.view;
    this.counters = options.counters;
    this.events = options.events;
    this.maxHeld = options.held ?? 1024;
    this.maxHeldPerDatagram = options.heldPerDatagram ?? 64;
    this.table = new DatagramTable(datagrams, options.timeoutMs ?? FRAGMENT_TIMEOUT_MS, options.random);
    this.state = new Uint8Array(datagrams);
    this.reasons = new Uint8Array(datagrams);
    this.ports = new Int32Array(datagrams);
    this.flows = new Int32Array(datagrams);
    this.generations = new Int32Array(datagrams);
    this.newIds = new Int32Array(datagrams);
    this.firstHeld = new Int32Array(datagrams);
    this.lastHeld = new Int32Array(datagrams);
    this.heldCounts = new Int32Array(datagrams);
    this.holders = new ArrivalList(datagrams);
    this.nextHeld = new Int32Array(options.pool.packets.length);
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
   * Takes a parsed fragment (MF set or offset not 0). Sets `p.datagram`.
   * @param zone keeps apart what comes from places with address spaces of their own
   * @returns CONTINUE: it may go on, and if it is a first one, admit() or refuse() must follow; TAKEN: it is held; DROP_*
   */
  accept(p: Packet, zone: number, now: number): number {
    const { table, view } = this;
    let d = table.find(view, p, zone);
    if (d !== NONE && (table.deadline(d) <= now || table.isTooFar(d))) {
      this.forget(d, DROP_FRAGMENT_TIMEOUT);
      d = NONE;
    }
    if (d === NONE) d = this.begin(p, zone, now);
    else if (this.state[d] === REFUSED) return this.reasons[d];
    p.datagram = d;

    const from = (p.fragment & ipv4.OFFSET_MASK) << 3;
    const v = table.enter(d, from, from + p.off + p.len - p.l4, (p.fragment & ipv4.FLAG_MF) !== 0);
    if (v !== CONTINUE) return this.contradict(d, p, from, v);

    if (from === 0) {
      this.state[d] = FIRST_UNDECIDED;
      this.ports[d] = (p.srcPort << 16) | p.dstPort;
      return CONTINUE;
    }
    if (this.state[d] !== ADMITTED || this.heldCounts[d] > 0) return this.hold(d, p);
    this.give(d, p);
    if (table.isComplete(d)) this.close(d);
    return CONTINUE;
  }

  /**
   * The first fragment that accept() has let through goes on, and so shall the rest of its datagram: with its flow,
   * direction, generation and newId.
   */
  admit(p: Packet): void {
    const d = p.datagram;
    if (this.state[d] !== FIRST_UNDECIDED) return;
    this.flows[d] = (p.flow << 1) | p.direction;
    this.generations[d] = p.generation;
    this.newIds[d] = p.newId;
    this.state[d] = ADMITTED;
    if (this.heldCounts[d] === 0 && this.table.isComplete(d)) this.close(d);
  }

  /** The first fragment that accept() has let through has been dropped, and so shall be the rest of its datagram. */
  refuse(p: Packet, reason: number): void {
    if (this.state[p.datagram] === FIRST_UNDECIDED) this.refuseDatagram(p.datagram, reason);
  }

  /** The next fragment of datagram `d`, just admitted, that has waited for it, as accept() gives it; null: no more. */
  nextReleased(d: number): Packet | null {
    const slot = this.state[d] === ADMITTED ? this.firstHeld[d] : NONE;
    if (slot === NONE) return null;
    const p = this.unlinkFirst(d, slot);
    this.give(d, p);
    if (this.heldCounts[d] === 0 && this.table.isComplete(d)) this.close(d);
    return p;
  }

  /** Ends datagrams whose time is over, a bounded number of them. @returns milliseconds until there is more to do */
  tick(now: number): number {
    const { table } = this;
    for (let work = TICK_WORK; work > 0; work--) {
      const d = table.byAge.first;
      if (d === NONE || table.deadline(d) > now) break;
      this.forget(d, DROP_FRAGMENT_TIMEOUT);
    }
    const d = table.byAge.first;
    return d === NONE ? Number.POSITIVE_INFINITY : Math.max(0, Math.ceil(table.deadline(d) - now));
  }

  private begin(p: Packet, zone: number, now: number): number {
    const { table } = this;
    // Under a flood the oldest is the likeliest to be part of it.
    if (table.isFull) this.forget(table.byAge.first, DROP_FRAGMENT_QUEUE_FULL);
    const d = table.begin(this.view, p, zone, now);
    this.state[d] = FIRST_MISSING;
    this.firstHeld[d] = NONE;
    this.lastHeld[d] = NONE;
    this.heldCounts[d] = 0;
    return d;
  }

  private contradict(d: number, p: Packet, from: number, v: number): number {
    if (v === DROP_FRAGMENT_DUPLICATE) {
      if (from !== 0 || ((p.srcPort << 16) | p.dstPort) === this.ports[d]) return v;
      v = DROP_FRAGMENT_OVERLAP; // as long as the first, but not the same
    }
    this.refuseDatagram(d, v);
    return v;
  }

  private hold(d: number, p: Packet): number {
    if (this.heldCounts[d] >= this.maxHeldPerDatagram) {
      this.refuseDatagram(d, DROP_FRAGMENT_QUEUE_FULL);
      return DROP_FRAGMENT_QUEUE_FULL;
    }
    if (this.held >= this.maxHeld) {
      const oldest = this.holders.first;
      this.forget(oldest, DROP_FRAGMENT_QUEUE_FULL);
      if (oldest === d) return DROP_FRAGMENT_QUEUE_FULL;
    }
    this.nextHeld[p.slot] = NONE;
    if (this.heldCounts[d] === 0) {
      this.firstHeld[d] = p.slot;
      this.holders.append(d);
    } else {
      this.nextHeld[this.lastHeld[d]] = p.slot;
    }
    this.lastHeld[d] = p.slot;
    this.heldCounts[d]++;
    this.held++;
    this.counters.event(EVENT_FRAGMENTS_HELD);
    return TAKEN;
  }

  /** A later fragment goes on. */
  private give(d: number, p: Packet): void {
    p.srcPort = this.ports[d] >>> 16;
    p.dstPort = this.ports[d] & 0xffff;
    p.flow = this.flows[d] >>> 1;
    p.direction = this.flows[d] & 1;
    p.generation = this.generations[d];
    p.newId = this.newIds[d];
  }

  private unlinkFirst(d: number, slot: number): Packet {
    this.firstHeld[d] = this.nextHeld[slot];
    if (--this.heldCounts[d] === 0) this.holders.remove(d);
    this.held--;
    return this.pool.packets[slot];
  }

  private dropHeld(d: number, reason: number): void {
    for (let slot = this.firstHeld[d]; slot !== NONE; slot = this.firstHeld[d]) {
      this.events.release(this.unlinkFirst(d, slot), reason);
    }
  }

  /** The datagram stays known until its time is over, so that nothing more of it passes. */
  private refuseDatagram(d: number, reason: number): void {
    this.state[d] = REFUSED;
    this.reasons[d] = reason;
    this.dropHeld(d, reason);
  }

  private forget(d: number, reason: number): void {
    this.dropHeld(d, reason);
    this.close(d);
  }

  private close(d: number): void {
    this.state[d] = CLOSED;
    this.table.remove(d);
  }
}

/**
 * Path MTU discovery for the tunnel's own packets (RFC 1191): what the underlay's routers say in ICMP "fragmentation
 * needed", by destination. An error is believed only after tunnel-quote.ts has seen that it quotes a packet of ours.
 */
import { type Counters, EVENT_PATH_MTU_LOWERED } from '../counters.ts';
import { CountTable } from '../memory/count-table.ts';
import type { Random } from '../random.ts';

/** Every IPv4 link takes this (RFC 791 section 3.2): no path is believed to be narrower (RFC 1191 section 3). */
export const MIN_MTU = 68;
/** Linux net.ipv4.route.min_pmtu: 512 bytes of data and two headers. */
export const LINUX_MIN_PMTU = 552;
/** RFC 1191 section 6.3; Linux net.ipv4.route.mtu_expires. */
export const MTU_EXPIRES_MS = 600_000;
/** MTUs of the links there are, RFC 1191 section 7.1. */
export const PLATEAUS: readonly number[] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/** Slots that one tick() looks at. */
const TICK_WORK = 64;

/** The greatest plateau below `len`; MIN_MTU if there is none. */
export function plateauBelow(len: number): number {
  for (let i = 0; i < PLATEAUS.length; i++) if (PLATEAUS[i] < len) return PLATEAUS[i];
  return MIN_MTU;
}

/** What is known of one path. */
export interface PathMtuRow {
  /** Underlay address (int32). */
  peer: number;
  /** In bytes, the outer header included. */
  mtu: number;
  /** The router that said so last (int32). */
  from: number;
  expiresMs: number;
}

export interface PathMtuOptions {
  counters: Counters;
  random: Random;
  /** MTU of the uplink: that of every path that nothing is known about. */
  linkMtu: number;
  /** No message lowers a path below this; MIN_MTU by default. */
  floor?: number;
  /** A message without an MTU means the next plateau, or `floor`. */
  ofOldRouters?: 'plateau' | 'minimum';
  expiresMs?: number;
  /** Destinations at most; a new one displaces the one that was learnt first. */
  capacity?: number;
}

export class PathMtu {
  private readonly counters: Counters;
  private linkMtu: number;
  private floor: number;
  private usePlateaus: boolean;
  private readonly expires: number;
  private readonly capacity: number;
  /** Address to MTU, and the time it was learnt: milliseconds modulo 2^32. */
  private readonly table: CountTable;
  /** Address to that of the router which said so. */
  private readonly routers: CountTable;
  private sweepAt = 0;

  constructor(options: PathMtuOptions) {
    this.counters = options.counters;
    this.linkMtu = options.linkMtu;
    this.floor = options.floor ?? MIN_MTU;
    this.usePlateaus = options.ofOldRouters !== 'minimum';
    this.expires = options.expiresMs ?? MTU_EXPIRES_MS;
    this.capacity = options.capacity ?? 1024;
    this.table = new CountTable(this.capacity, options.random, this.capacity);
    this.routers = new CountTable(this.capacity, options.random, this.capacity);
  }

  /** The MTU of the link itself is another one. What was learnt above it waits for its end, capped. */
  setLinkMtu(mtu: number): void {
    this.linkMtu = mtu;
  }

  /** As the options of the constructor; what is known stays. */
  setLimits(floor: number, ofOldRouters: 'plateau' | 'minimum'): void {
    this.floor = floor;
    this.usePlateaus = ofOldRouters !== 'minimum';
  }

  /** Destinations with an MTU of their own. */
  get size(): number {
    return this.table.size;
  }

  /** MTU of the path to an underlay address (int32), outer header included. */
  lookup(address: number, now: number): number {
    if (this.table.size === 0) return this.linkMtu;
    const at = this.table.find(address, 0, 0);
    return at < 0 || this.isOver(at, now) ? this.linkMtu : Math.min(this.linkMtu, this.table.value(at));
  }

  /**
   * Takes in what a "fragmentation needed" said about a packet to `address`. It lowers the path's MTU, or confirms it for
   * another ten minutes; it never raises it.
   *
   * @param mtu the message's next-hop MTU; 0 from a router older than RFC 1191
   * @param totalLen total length in the quoted header, and its header length in bytes
   * @param from the router that says so (int32)
   * @returns the path's MTU if the message was believed, else 0
   */
  update(address: number, mtu: number, totalLen: number, headerLen: number, now: number, from = 0): number {
    const current = this.lookup(address, now);
    if (mtu === 0) {
      // Routers derived from 4.2BSD add the header length once more (RFC 1191 section 5).
      mtu = this.usePlateaus ? plateauBelow(totalLen >= current ? totalLen - headerLen : totalLen) : this.floor;
    } else if (mtu >= totalLen) {
      return 0; // the packet would have fitted
    }
    if (mtu < this.floor) mtu = this.floor;
    if (mtu > current || mtu >= this.linkMtu) return 0;
    if (mtu < current) this.counters.event(EVENT_PATH_MTU_LOWERED);
    this.store(address, mtu, now, from);
    return mtu;
  }

  /** Forgets old entries, a bounded number of slots at a time. There is no hurry: lookup() minds their age. */
  tick(now: number): void {
    const { table } = this;
    if (table.size === 0) return;
    for (let work = TICK_WORK; work > 0; work--) {
      const at = table.slotAt(this.sweepAt);
      // What follows a removed entry may move into its slot: look at it again.
      if (at >= 0 && this.isOver(at, now)) this.remove(at);
      else this.sweepAt = (this.sweepAt + 1) % table.slotCount;
    }
  }

  private isOver(at: number, now: number): boolean {
    const age = ((now | 0) - this.table.extra(at)) | 0;
    return age >= this.expires || age < 0;
  }

  /** What is known now, for `get pmtu`. Walks all of it: not for each packet. */
  rows(now: number): PathMtuRow[] {
    const { table, routers } = this;
    const rows: PathMtuRow[] = [];
    for (let i = 0; i < table.slotCount; i++) {
      const at = table.slotAt(i);
      if (at < 0 || this.isOver(at, now)) continue;
      const peer = table.key(at, 0);
      const expiresMs = this.expires - (((now | 0) - table.extra(at)) | 0);
      rows.push({ peer, mtu: Math.min(this.linkMtu, table.value(at)), from: routers.get(peer, 0, 0), expiresMs });
    }
    return rows.sort((a, b) => (a.peer >>> 0) - (b.peer >>> 0));
  }

  private store(address: number, mtu: number, now: number, from: number): void {
    const { table } = this;
    if (table.size >= this.capacity && table.find(address, 0, 0) < 0) this.removeOldest(now);
    table.set(address, 0, 0, mtu, now | 0);
    this.routers.set(address, 0, 0, from);
  }

  private removeOldest(now: number): void {
    const { table } = this;
    let oldest = -1;
    let oldestAge = -1;
    for (let i = 0; i < table.slotCount; i++) {
      const at = table.slotAt(i);
      if (at < 0) continue;
      const age = ((now | 0) - table.extra(at)) >>> 0;
      if (age > oldestAge) {
        oldest = at;
        oldestAge = age;
      }
    }
    if (oldest >= 0) this.remove(oldest);
  }

  private remove(at: number): void {
    this.routers.remove(this.table.key(at, 0), 0, 0);
    this.table.removeAt(at);
  }
}

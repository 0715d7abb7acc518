/**
 * The neighbours on the uplink: which MAC stands behind a next hop, found and answered by ARP (RFC 826, RFC 5227),
 * with the states, timers and rules of Linux (net/core/neighbour.c, net/ipv4/arp.c), so that `get neighbors` reads
 * like `ip neigh`:
 *
 *             resolve()               answer, or their request to us
 *   (none) ------------> INCOMPLETE ---------------------------------> REACHABLE / STALE
 *             3 requests, 1 s apart |                                     |
 *                                   v        reachableMs: not used        v
 *                 FAILED  <----- (no answer)   REACHABLE ------------> STALE ---> forgotten, unused
 *                   ^                              | used                 | used
 *                   |      3 unicast requests      v       delayMs        v
 *                   +--------------------------- PROBE <--------------- DELAY        (an answer leads to REACHABLE)
 *
 * The next packet to a FAILED neighbour begins again with broadcasts. PERMANENT entries are the user's and never change.
 *
 * Everything that a stranger can make grow has a cap: unresolved entries, entries learnt from requests, held packets.
 * When a cap is reached the least recently used of the same kind goes; a neighbour that was resolved and used never
 * gives way to one that is not, so a scan of the subnet costs the known ones nothing.
 *
 * All memory is made once. An index is good until its entry is deleted: find() or resolve() again for every packet.
 */

import type { Clock } from '../clock.ts';
import {
  type Counters,
  EVENT_ARP_RECEIVED,
  EVENT_ARP_REPLY_SENT,
  EVENT_ARP_REQUEST_SENT,
  EVENT_NEIGHBOR_FAILED,
  EVENT_NEIGHBOR_LEARNT,
  EVENT_NEIGHBOR_MOVED,
} from '../counters.ts';
import { DeadlineHeap } from '../memory/deadline-heap.ts';
import { RecencyLists } from '../memory/recency-lists.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import type { Random } from '../random.ts';
import {
  CONTINUE,
  DROP_ADDRESS_CONFLICT,
  DROP_INVALID_SOURCE,
  DROP_MALFORMED_ARP,
  DROP_NEIGHBOR_QUEUE_FULL,
  DROP_NEIGHBOR_UNREACHABLE,
  DROP_NO_BUFFER,
  DROP_OTHER_MAC,
  TAKEN,
} from '../verdict.ts';
import * as arp from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';
import { type Announcement, Announcements } from './announcements.ts';
import { ARP_FRAME, writeArp } from './arp-frame.ts';
import { AddressClaims } from './claims.ts';
import { HeldPackets } from './held-packets.ts';
import type { NeighborEntry, NeighborEvents, NeighborOptions } from './neighbor-options.ts';

const FREE = 0;
export const INCOMPLETE = 1;
export const REACHABLE = 2;
export const STALE = 3;
export const DELAY = 4;
export const PROBE = 5;
export const FAILED = 6;
export const PERMANENT = 7;
export const NEIGHBOR_STATE_NAMES: readonly string[] = [
  '',
  'INCOMPLETE',
  'REACHABLE',
  'STALE',
  'DELAY',
  'PROBE',
  'FAILED',
  'PERMANENT',
];

/** One bit per state: the MAC may be used. */
const USABLE = (1 << REACHABLE) | (1 << STALE) | (1 << DELAY) | (1 << PROBE) | (1 << PERMANENT);

const NIL = -1;

// The two lists of entries that may be evicted. Other entries are on none.
/** INCOMPLETE and FAILED. */
const UNRESOLVED = 0;
/** STALE, learnt from a request to us, and never sent to. */
const LEARNT = 1;
const LISTS = 2;

export class NeighborTable {
  // By index.
  readonly address: Int32Array;
  readonly state: Uint8Array;
  /** Valid where usable() says so. */
  readonly macHi: Uint16Array;
  readonly macLo: Int32Array;
  private readonly probes: Uint16Array;
  /** When ARP last changed state or MAC: locktime counts from here. */
  private readonly changed: Float64Array;
  /** When an answer last proved that it is there. */
  private readonly confirmed: Float64Array;
  /** When we last wanted to send to it. */
  private readonly used: Float64Array;
  private readonly chain: Int32Array;

  private readonly free: Int32Array;
  private freeCount: number;
  private readonly buckets: Int32Array;
  private readonly hashShift: number;
  private readonly hashSeed: number;
  private readonly deadlines: DeadlineHeap;

  /** UNRESOLVED and LEARNT: entries that may be evicted. */
  private readonly evictable: RecencyLists;

  private readonly packets: HeldPackets;

  // When an address was last asked for by broadcast, also if its entry is gone: evicted and wanted again must not mean
  // asked again. Direct mapped; a collision forgets the older one, at the price of an early request.
  private readonly askedAddress: Int32Array;
  private readonly askedShift: number;
  private readonly askedAt: Float64Array;

  /** The node's own addresses, and who else uses them. */
  readonly claims: AddressClaims;
  /** Addresses of load balancers that the node leads. */
  readonly announced = new Announcements();
  private readonly clock: Clock | null;
  private ownAddress: number;
  private mask: number;
  private own: ethernet.Mac;
  private readonly pool: Pool;
  private readonly view: DataView;
  private readonly counters: Counters;
  private readonly events: NeighborEvents;
  private readonly random: Random | null;
  private readonly capacity: number;
  private readonly queuePerNeighbor: number;
  private readonly totalQueue: number;
  private readonly maxUnresolved: number;
  private readonly maxLearnt: number;
  private readonly reachableMs: number;
  private readonly delayMs: number;
  private readonly retransMs: number;
  private readonly maxProbes: number;
  private readonly unicastProbes: number;
  private readonly broadcastReprobes: number;
  private readonly lockMs: number;
  private readonly gcStaleMs: number;
  private readonly gcIdleMs: number;
  private readonly tickWork: number;
  /** The time of the last call that brought one; the owner reads its clock once per burst. */
  private now = 0;

  /** @throws RangeError for a capacity, cap, probe count, or a time that drives a timer, under 1 */
  constructor(o: NeighborOptions) {
    this.capacity = atLeastOne('capacity', o.capacity);
    this.pool = o.pool;
    this.view = o.pool.view;
    this.counters = o.counters;
    this.events = o.events;
    this.random = o.random ?? null;
    this.clock = o.clock ?? null;
    this.ownAddress = o.address | 0;
    this.mask = o.prefixLength === 0 ? 0 : -1 << (32 - o.prefixLength);
    this.own = { hi: o.mac.hi, lo: o.mac.lo | 0 };
    this.claims = new AddressClaims(
      this.random,
      (sender, target) => {
        this.sendArp(arp.REQUEST, 0xffff, -1, 0, 0, sender, target);
      },
      () => this.events.canTransmit?.() !== false,
    );
    this.claims.add(this.ownAddress);

    const slots = o.pool.packets.length;
    this.queuePerNeighbor = atLeastOne('queuePerNeighbor', o.queuePerNeighbor ?? 64);
    this.totalQueue = atLeastOne('totalQueue', o.totalQueue ?? Math.max(1, Math.min(1024, o.pool.size >> 2)));
    this.maxUnresolved = atLeastOne('maxUnresolved', o.maxUnresolved ?? Math.max(1, this.capacity >> 1));
    this.maxLearnt = atLeastOne('maxLearnt', o.maxLearnt ?? Math.max(1, this.capacity >> 2));
    this.reachableMs = atLeastOne('reachableMs', o.reachableMs ?? 30_000);
    this.delayMs = o.delayMs ?? 5000;
    this.retransMs = atLeastOne('retransMs', o.retransMs ?? 1000);
    this.maxProbes = atLeastOne('maxProbes', o.maxProbes ?? 3);
    this.unicastProbes = atLeastOne('unicastProbes', o.unicastProbes ?? 3);
    this.broadcastReprobes = o.broadcastReprobes ?? 0;
    this.lockMs = o.lockMs ?? 1000;
    this.gcStaleMs = atLeastOne('gcStaleMs', o.gcStaleMs ?? 60_000);
    this.gcIdleMs = o.gcIdleMs ?? 600_000;
    this.tickWork = atLeastOne('tickWork', o.tickWork ?? 64);

    const n = this.capacity;
    this.address = new Int32Array(n);
    this.state = new Uint8Array(n);
    this.macHi = new Uint16Array(n);
    this.macLo = new Int32Array(n);
    this.probes = new Uint16Array(n);
    this.changed = new Float64Array(n);
    this.confirmed = new Float64Array(n);
    this.used = new Float64Array(n);
    this.chain = new Int32Array(n);
    this.deadlines = new DeadlineHeap(n, this.address);

    this.free = new Int32Array(n);
    for (let i = 0; i < n; i++) this.free[i] = n - 1 - i;
    this.freeCount = n;

    const bits = Math.max(4, 33 - Math.clz32(n - 1)); // at least two buckets per entry
    this.buckets = new Int32Array(1 << bits).fill(NIL);
    this.hashShift = 32 - bits;
    this.hashSeed = this.random === null ? 0 : this.random.next();
    const askedBits = Math.max(12, bits + 2);
    this.askedShift = 32 - askedBits;
    this.askedAddress = new Int32Array(1 << askedBits);
    this.askedAt = new Float64Array(1 << askedBits).fill(Number.NEGATIVE_INFINITY);

    this.evictable = new RecencyLists(n, LISTS);
    this.packets = new HeldPackets(n, slots);
  }

  /** Entries of any state. */
  get size(): number {
    return this.capacity - this.freeCount;
  }

  /** Packets held in all. */
  get held(): number {
    return this.packets.count;
  }

  /** INCOMPLETE and FAILED entries. */
  get unresolved(): number {
    return this.evictable.size(UNRESOLVED);
  }

  // ---- For each packet

  /** Index of the entry for `addr` (int32), or -1. Creates nothing. */
  find(addr: number): number {
    let i = this.buckets[this.hash(addr) >>> this.hashShift];
    while (i !== NIL && this.address[i] !== addr) i = this.chain[i];
    return i;
  }

  /**
   * Index of the entry for `addr` (int32). Without one, or with a FAILED one, resolution starts and the first request goes out.
   * @returns -1 when no room can be made (DROP_NEIGHBOR_TABLE_FULL is the reason for it), or when `addr` is one that
   *   nobody else can have: our own, not unicast, the subnet's network or broadcast address
   */
  resolve(addr: number, now: number): number {
    this.now = now;
    const i = this.find(addr);
    if (i === NIL) return this.createUnresolved(addr);
    const state = this.state[i];
    if (state === INCOMPLETE) {
      this.used[i] = now;
      this.evictable.enlist(i, UNRESOLVED);
    } else if (state === FAILED) {
      this.startResolution(i);
    }
    return i;
  }

  /** True if the MAC may be used now. Counts as use: a STALE neighbour will be asked whether it is still there. */
  usable(index: number): boolean {
    const state = this.state[index];
    if (((USABLE >> state) & 1) === 0) return false;
    this.used[index] = this.now;
    if (state === STALE) {
      this.evictable.delist(index);
      this.state[index] = DELAY;
      this.deadlines.arm(index, this.now + this.delayMs);
    }
    return true;
  }

  /** Writes the Ethernet header of an IPv4 packet to a usable neighbour at `off`. */
  writeHeader(index: number, off: number): void {
    ethernet.setMac(this.view, off + ethernet.DST, this.macHi[index], this.macLo[index]);
    ethernet.setMac(this.view, off + ethernet.SRC, this.own.hi, this.own.lo);
    this.view.setUint16(off + ethernet.TYPE, ethernet.TYPE_IPV4);
  }

  /**
   * Keeps an IPv4 packet until its neighbour is known; `p.off` at the 14 bytes for the Ethernet header, which is written
   * then. When a queue is full its oldest packet is dropped for the new one, as Linux does: the newest is the one that
   * somebody still waits for.
   * @returns TAKEN; or DROP_NEIGHBOR_UNREACHABLE when `index` is not being resolved: the packet stays the caller's
   */
  hold(index: number, p: Packet): number {
    if (this.usable(index)) {
      this.writeHeader(index, p.off);
      this.events.transmit(p);
      return TAKEN;
    }
    if (this.state[index] !== INCOMPLETE) return DROP_NEIGHBOR_UNREACHABLE;
    const { packets } = this;
    if (packets.of(index) >= this.queuePerNeighbor) this.dropOldest(index);
    else if (packets.count >= this.totalQueue) this.dropOldest(packets.oldestHolder);
    packets.add(index, p.slot);
    return TAKEN;
  }

  // ---- ARP from the uplink

  /**
   * Learns from and answers an ARP frame; `p.off` at its Ethernet header.
   *
   * A request for an own address is answered and its sender learnt; any other packet only updates an entry that exists
   * (RFC 826's merge; Linux with arp_accept=0). Only a unicast answer proves reachability. A packet whose sender lies
   * outside the subnet creates nothing, but a request is answered: a Linux router asks with any of its addresses.
   *
   * @returns TAKEN when `p` became the answer and was transmitted; CONTINUE when it has been dealt with; or DROP_*:
   *   OTHER_MAC, MALFORMED_ARP (also for a sender MAC that no station has, or that is not the frame's own source),
   *   INVALID_SOURCE (our own frame come back), ADDRESS_CONFLICT (another station uses an address of ours)
   */
  handleArp(p: Packet, now: number): number {
    this.now = now;
    this.counters.event(EVENT_ARP_RECEIVED);
    const view = this.view;
    const off = p.off;
    const packet = off + ethernet.HEADER_LEN;
    if (!arp.check(view, packet, p.len - ethernet.HEADER_LEN)) return DROP_MALFORMED_ARP;

    const toHi = ethernet.macHi(view, off + ethernet.DST);
    const toUs = toHi === this.own.hi && ethernet.macLo(view, off + ethernet.DST) === this.own.lo;
    if (!toUs && !ethernet.isGroup(toHi)) return DROP_OTHER_MAC;

    const operation = view.getUint16(packet + arp.OPER);
    if (operation !== arp.REQUEST && operation !== arp.REPLY) return DROP_MALFORMED_ARP;
    const hi = ethernet.macHi(view, packet + arp.SHA);
    const lo = ethernet.macLo(view, packet + arp.SHA);
    if (ethernet.isGroup(hi) || (hi | lo) === 0) return DROP_MALFORMED_ARP;
    if (hi !== ethernet.macHi(view, off + ethernet.SRC) || lo !== ethernet.macLo(view, off + ethernet.SRC))
      return DROP_MALFORMED_ARP;
    const sender = view.getInt32(packet + arp.SPA);
    if (hi === this.own.hi && lo === this.own.lo) {
      this.claims.meet(sender, hi, lo, now);
      return DROP_INVALID_SOURCE;
    }
    const target = view.getInt32(packet + arp.TPA);
    const asksUs = operation === arp.REQUEST && (this.claims.has(target) || this.leads(target));
    // RFC 5227 section 2.1.1: somebody asks whether the address is free. It is not; who asks has no address to learn.
    if (sender === 0) {
      if (!asksUs) return CONTINUE;
      this.reply(p, hi, lo, sender, target);
      return TAKEN;
    }
    if (this.claims.has(sender)) {
      this.claims.meet(sender, hi, lo, now);
      return DROP_ADDRESS_CONFLICT;
    }
    if (!this.mayBeNeighbor(sender)) return DROP_MALFORMED_ARP;

    const i = this.find(sender);
    if (asksUs) {
      if (i !== NIL) this.update(i, hi, lo, STALE, true);
      else if (((sender ^ this.ownAddress) & this.mask) === 0) this.createLearnt(sender, hi, lo);
      this.reply(p, hi, lo, sender, target);
      return TAKEN;
    }
    if (i !== NIL) {
      // A gratuitous reply repeats the sender's MAC as the target's. Gratuitous packets overrule the locktime, or a
      // second takeover within a second would be missed.
      const gratuitous =
        sender === target &&
        (operation === arp.REQUEST ||
          (ethernet.macHi(view, packet + arp.THA) === hi && ethernet.macLo(view, packet + arp.THA) === lo));
      const override = gratuitous || now - this.changed[i] > this.lockMs;
      this.update(i, hi, lo, operation === arp.REPLY && toUs ? REACHABLE : STALE, override);
    }
    return CONTINUE;
  }

  private leads(addr: number): boolean {
    return !this.announced.isEmpty && this.announced.answers(addr, this.clock === null ? this.now : this.clock.now());
  }

  // ---- Control

  /**
   * The node leads these addresses and no others. Of those that it has not led until now the link is told at once.
   * @param again it is told of all
   */
  lead(list: readonly Announcement[], now: number, again = false): void {
    this.now = now;
    const fresh = this.announced.replace(list, now);
    for (const address of fresh) this.delete(address);
    if (again || this.events.canTransmit?.() === false) this.announced.isTold = false;
    else for (const address of fresh) this.tellLink(address);
    this.followLink();
  }

  /** Tells the link of all addresses that the node leads where it does not know them, or not by this MAC; as soon as it is up. */
  private followLink(): void {
    const { announced } = this;
    if (announced.isEmpty) return;
    if (this.events.canTransmit?.() === false) announced.isTold = false;
    else if (!announced.isTold) {
      announced.isTold = true;
      for (const { address } of announced.rows(this.now)) this.tellLink(address);
    }
  }

  private tellLink(address: number): void {
    // Linux' hosts heed either; others only one of the two.
    this.sendArp(arp.REQUEST, 0xffff, -1, 0, 0, address, address);
    this.sendArp(arp.REPLY, 0xffff, -1, this.own.hi, this.own.lo, address, address);
  }

  /** Answers for `addr` (int32) from now on. An entry for it as a neighbour is deleted: the address has moved to us. */
  addOwnAddress(addr: number): void {
    this.claims.add(addr | 0);
    this.delete(addr | 0);
  }

  /** The node has another address, subnet or MAC on the link: what is known of neighbours is forgotten, but PERMANENT ones. */
  setOwn(addr: number, prefixLength: number, mac: ethernet.Mac): void {
    this.claims.remove(this.ownAddress);
    this.ownAddress = addr | 0;
    this.mask = prefixLength === 0 ? 0 : -1 << (32 - prefixLength);
    this.own = { hi: mac.hi, lo: mac.lo | 0 };
    this.announced.isTold = false;
    for (let i = 0; i < this.capacity; i++) {
      if (this.state[i] !== FREE && this.state[i] !== PERMANENT) this.remove(i, DROP_NEIGHBOR_UNREACHABLE);
    }
    this.addOwnAddress(addr);
  }

  /** Stops answering for `addr`. Requests go on being sent in the name of the node's address. */
  removeOwnAddress(addr: number): void {
    this.claims.remove(addr | 0);
  }

  /**
   * Tells everybody on the link that an own address is here: gratuitous ARP, as request (what Linux sends) or as reply
   * (for hosts that heed only those).
   * @returns false if the address is not ours or no buffer was free
   */
  announce(addr: number, asReply = false): boolean {
    if (!this.claims.has(addr | 0)) return false;
    if (!asReply) return this.sendArp(arp.REQUEST, 0xffff, -1, 0, 0, addr, addr);
    return this.sendArp(arp.REPLY, 0xffff, -1, this.own.hi, this.own.lo, addr, addr);
  }

  /**
   * Sets a MAC that ARP never changes (flannel's and the user's static entries). Packets held for it leave.
   * @returns false when there is no room, or `addr` is one that nobody else can have
   */
  addPermanent(addr: number, macHi: number, macLo: number): boolean {
    let i = this.find(addr);
    if (i === NIL) {
      if (!this.mayBeNeighbor(addr) || this.claims.has(addr)) return false;
      if (!this.makeRoom(true)) return false;
      i = this.allocate(addr);
    }
    this.evictable.delist(i);
    this.deadlines.disarm(i);
    this.state[i] = PERMANENT;
    this.macHi[i] = macHi;
    this.macLo[i] = macLo;
    this.probes[i] = 0;
    this.changed[i] = this.now;
    this.flush(i);
    return true;
  }

  /** Forgets an entry of any state; packets held for it are dropped. @returns false if there is none */
  delete(addr: number): boolean {
    const i = this.find(addr);
    if (i === NIL) return false;
    this.remove(i, DROP_NEIGHBOR_UNREACHABLE);
    return true;
  }

  /**
   * Serves the timers that are due, `tickWork` of them at most.
   * @returns whole milliseconds until the next one: 0 when more are due already, Infinity when none is set
   */
  tick(now: number): number {
    this.now = now;
    for (let work = this.tickWork; work > 0 && this.deadlines.firstTime() <= now; work--) {
      this.expire(this.deadlines.first());
    }
    this.followLink();
    const claims = this.claims.tick(now);
    return Math.max(0, Math.ceil(Math.min(claims, this.deadlines.firstTime() - now)));
  }

  /** All entries by address, for display. */
  entries(now: number): NeighborEntry[] {
    const rows: NeighborEntry[] = [];
    for (let i = 0; i < this.capacity; i++) {
      const state = this.state[i];
      if (state === FREE) continue;
      rows.push({
        address: this.address[i],
        mac: ((USABLE >> state) & 1) === 0 ? null : { hi: this.macHi[i], lo: this.macLo[i] },
        state: NEIGHBOR_STATE_NAMES[state],
        ageMs: now - Math.max(this.changed[i], this.confirmed[i]),
        idleMs: now - this.used[i],
        queued: this.packets.of(i),
        probes: this.probes[i],
      });
    }
    return rows.sort((a, b) => (a.address >>> 0) - (b.address >>> 0));
  }

  // ---- States

  private createUnresolved(addr: number): number {
    if (!this.mayBeNeighbor(addr) || this.claims.has(addr)) return NIL;
    // Neighbours that fail in PROBE join the list beyond its cap, hence the loop.
    while (this.evictable.size(UNRESOLVED) >= this.maxUnresolved) this.evictLast(UNRESOLVED);
    if (!this.makeRoom(true)) return NIL;
    const i = this.allocate(addr);
    this.startResolution(i);
    return i;
  }

  /** A station that asks for us will soon be sent to. It may replace only others of its kind. */
  private createLearnt(addr: number, hi: number, lo: number): void {
    if (this.evictable.size(LEARNT) >= this.maxLearnt) this.evictLast(LEARNT);
    if (!this.makeRoom(false)) return;
    const i = this.allocate(addr);
    this.evictable.enlist(i, LEARNT);
    this.update(i, hi, lo, STALE, true);
  }

  private startResolution(i: number): void {
    this.state[i] = INCOMPLETE;
    this.probes[i] = 0;
    this.changed[i] = this.now;
    this.used[i] = this.now;
    this.evictable.enlist(i, UNRESOLVED);
    this.askAll(i);
  }

  /** What ARP says about entry `i`: neigh_update() of Linux without its administrative part. */
  private update(i: number, hi: number, lo: number, next: number, override: boolean): void {
    const state = this.state[i];
    if (state === PERMANENT) return;
    const known = ((USABLE >> state) & 1) !== 0;
    const same = known && this.macHi[i] === hi && this.macLo[i] === lo;
    if (known && !same && !override) return;
    // An answer to what we never asked proves nothing; it must not lift an entry off the evictable list either.
    if (this.evictable.listOf(i) === LEARNT) next = STALE;
    if (same && next === STALE) return;
    if (!same || next !== state) this.changed[i] = this.now;
    this.state[i] = next;
    this.macHi[i] = hi;
    this.macLo[i] = lo;
    if (next === REACHABLE) {
      this.probes[i] = 0;
      this.confirmed[i] = this.now;
      const spread =
        this.random === null ? this.reachableMs : this.reachableMs / 2 + this.random.below(this.reachableMs);
      this.deadlines.arm(i, this.now + spread);
    } else {
      this.waitForGarbage(i);
    }
    if (known) {
      if (!same) this.counters.event(EVENT_NEIGHBOR_MOVED);
      return;
    }
    this.probes[i] = 0;
    this.counters.event(EVENT_NEIGHBOR_LEARNT);
    if (this.evictable.listOf(i) === UNRESOLVED) this.evictable.delist(i);
    this.flush(i);
  }

  /** The timer of entry `i` has run out: neigh_timer_handler() and the garbage collector of Linux. */
  private expire(i: number): void {
    switch (this.state[i]) {
      case INCOMPLETE:
        if (this.probes[i] >= this.maxProbes) this.fail(i);
        else this.askAll(i);
        break;
      case REACHABLE:
        if (this.now - this.used[i] <= this.delayMs) {
          this.state[i] = DELAY;
          this.deadlines.arm(i, this.now + this.delayMs);
        } else {
          this.state[i] = STALE;
          this.waitForGarbage(i);
        }
        break;
      case DELAY:
        this.state[i] = PROBE;
        this.probes[i] = 0;
        this.askOne(i);
        break;
      case PROBE:
        if (this.probes[i] >= this.unicastProbes + this.broadcastReprobes) this.fail(i);
        else if (this.probes[i] >= this.unicastProbes) this.askAll(i);
        else this.askOne(i);
        break;
      case STALE: {
        const crowded = this.size * 2 > this.capacity;
        const until = this.lastNeeded(i) + (crowded ? this.gcStaleMs : this.gcIdleMs);
        if (until <= this.now) this.remove(i, DROP_NEIGHBOR_UNREACHABLE);
        else this.deadlines.arm(i, Math.min(until, this.now + this.gcStaleMs)); // the table may become crowded
        break;
      }
      case FAILED:
        this.remove(i, DROP_NEIGHBOR_UNREACHABLE);
        break;
      default:
        this.deadlines.disarm(i);
    }
  }

  private fail(i: number): void {
    this.state[i] = FAILED;
    this.changed[i] = this.now;
    this.counters.event(EVENT_NEIGHBOR_FAILED);
    this.evictable.enlist(i, UNRESOLVED);
    this.evictable.demote(i);
    this.deadlines.arm(i, this.now + this.gcStaleMs);
    // The owner's ICMP error may want this very neighbour: its packets are off the queue before the first call.
    let slot = this.packets.takeAll(i);
    while (slot !== NIL) {
      const next = this.packets.next(slot);
      this.events.unreachable(this.pool.packets[slot]);
      slot = next;
    }
  }

  private lastNeeded(i: number): number {
    return Math.max(this.used[i], this.confirmed[i]);
  }

  private waitForGarbage(i: number): void {
    this.deadlines.arm(i, this.lastNeeded(i) + this.gcStaleMs);
  }

  // ---- Frames

  /** Broadcasts a request for entry `i`, now or as soon as its address may be asked for again. */
  private askAll(i: number): void {
    const addr = this.address[i];
    const mark = this.hash(addr) >>> this.askedShift;
    const earliest = this.askedAddress[mark] === addr ? this.askedAt[mark] + this.retransMs : this.now;
    if (earliest > this.now) {
      this.deadlines.arm(i, earliest);
      return;
    }
    this.askedAddress[mark] = addr;
    this.askedAt[mark] = this.now;
    this.probes[i]++;
    this.deadlines.arm(i, this.now + this.retransMs);
    this.sendArp(arp.REQUEST, 0xffff, -1, 0, 0, this.ownAddress, addr);
  }

  /** Asks the neighbour itself, at the MAC that it had. */
  private askOne(i: number): void {
    this.probes[i]++;
    this.deadlines.arm(i, this.now + this.retransMs);
    this.sendArp(arp.REQUEST, this.macHi[i], this.macLo[i], 0, 0, this.ownAddress, this.address[i]);
  }

  private sendArp(
    operation: number,
    toHi: number,
    toLo: number,
    targetHi: number,
    targetLo: number,
    sender: number,
    target: number,
  ): boolean {
    const p = this.pool.take();
    if (p === null) {
      this.counters.drop(DROP_NO_BUFFER, ARP_FRAME);
      return false;
    }
    writeArp(this.view, p, this.own, operation, toHi, toLo, targetHi, targetLo, sender, target);
    this.counters.event(operation === arp.REQUEST ? EVENT_ARP_REQUEST_SENT : EVENT_ARP_REPLY_SENT);
    this.events.transmit(p);
    return true;
  }

  /** Turns the request `p` into its answer. */
  private reply(p: Packet, hi: number, lo: number, sender: number, target: number): void {
    p.vnetFlags = 0;
    p.gsoType = 0;
    p.gsoSize = 0;
    writeArp(this.view, p, this.own, arp.REPLY, hi, lo, hi, lo, target, sender);
    this.counters.event(EVENT_ARP_REPLY_SENT);
    this.events.transmit(p);
  }

  // ---- Held packets

  /** Sends what is held for a neighbour that has just become usable, in the order in which it came. */
  private flush(i: number): void {
    if (this.packets.of(i) === 0) return;
    this.usable(i);
    let slot = this.packets.takeAll(i);
    while (slot !== NIL) {
      const next = this.packets.next(slot);
      const p = this.pool.packets[slot];
      this.writeHeader(i, p.off);
      this.events.transmit(p);
      slot = next;
    }
  }

  private dropOldest(i: number): void {
    const slot = this.packets.takeOldest(i);
    this.events.release(this.pool.packets[slot], DROP_NEIGHBOR_QUEUE_FULL);
  }

  // ---- Room

  /** A free entry, by eviction if need be. */
  private makeRoom(evictUnresolved: boolean): boolean {
    if (this.freeCount > 0) return true;
    if (evictUnresolved && this.evictable.size(UNRESOLVED) > 0) this.evictLast(UNRESOLVED);
    else if (this.evictable.size(LEARNT) > 0) this.evictLast(LEARNT);
    return this.freeCount > 0;
  }

  private evictLast(list: number): void {
    this.remove(this.evictable.last(list), DROP_NEIGHBOR_QUEUE_FULL);
  }

  private allocate(addr: number): number {
    const i = this.free[--this.freeCount];
    const bucket = this.hash(addr) >>> this.hashShift;
    this.address[i] = addr;
    this.chain[i] = this.buckets[bucket];
    this.buckets[bucket] = i;
    this.probes[i] = 0;
    this.changed[i] = this.now;
    this.used[i] = this.now;
    this.confirmed[i] = Number.NEGATIVE_INFINITY;
    return i;
  }

  private remove(i: number, reason: number): void {
    this.evictable.delist(i);
    this.deadlines.disarm(i);
    const bucket = this.hash(this.address[i]) >>> this.hashShift;
    if (this.buckets[bucket] === i) {
      this.buckets[bucket] = this.chain[i];
    } else {
      let before = this.buckets[bucket];
      while (this.chain[before] !== i) before = this.chain[before];
      this.chain[before] = this.chain[i];
    }
    this.state[i] = FREE;
    this.free[this.freeCount++] = i;
    let slot = this.packets.takeAll(i);
    while (slot !== NIL) {
      const next = this.packets.next(slot);
      this.events.release(this.pool.packets[slot], reason);
      slot = next;
    }
  }

  /** All 32 bits of a multiplicative hash; the upper ones are the good ones. */
  private hash(addr: number): number {
    return Math.imul(addr ^ this.hashSeed, 0x9e3779b1);
  }

  /** An address that a station on the link can have: unicast, not loopback, not the subnet's first or last. */
  private mayBeNeighbor(addr: number): boolean {
    const top = addr >>> 24;
    if (top === 0 || top === 127 || top >= 224) return false;
    const inSubnet = ((addr ^ this.ownAddress) & this.mask) === 0;
    if (!inSubnet || ~this.mask >>> 0 < 2) return true; // RFC 3021: a /31 has neither network nor broadcast address
    return (addr & ~this.mask) !== 0 && (addr | this.mask) !== -1;
  }
}

function atLeastOne(name: string, value: number): number {
  if (!(value >= 1)) throw new RangeError(`${name} must be at least 1, got ${value}`);
  return value;
}

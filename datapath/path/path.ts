/**
 * What the steps of the path share: memory, tables, ports, the time, and where a packet enters the path again. A step is a
 * function of this and a packet; what it finds out goes onto the packet, never in here.
 */
import type { Clock } from '../clock.ts';
import type { Counters } from '../counters.ts';
import * as counters from '../counters.ts';
import type { Flows } from '../flow/flows.ts';
import { IcmpLimiter } from '../mtu/icmp-error.ts';
import { PathMtu } from '../mtu/path-mtu.ts';
import { Reassembly } from '../mtu/reassembly.ts';
import { VirtualReassembly } from '../mtu/virtual-reassembly.ts';
import type { Nat } from '../nat/nat.ts';
import { Packet } from '../packet/packet.ts';
import { WHOLE_HEADER } from '../packet/parse.ts';
import type { Pool } from '../packet/pool.ts';
import type { Policies } from '../policy/policies.ts';
import { PORT_HOST, PORT_UPLINK, type Port } from '../port.ts';
import type { Profile } from '../profile.ts';
import type { Random } from '../random.ts';
import { Lpm } from '../route/lpm.ts';
import { NeighborTable } from '../route/neighbor.ts';
import type { NextHop } from '../route/nexthop.ts';
import * as hops from '../route/nexthop.ts';
import { Tunnels } from '../tunnel/tunnels.ts';
import { DONE } from '../verdict.ts';
import * as ip from './ipv4.ts';
import type { Ledger } from './ledger.ts';
import type { Watcher } from './watcher.ts';

/** Linux's gc_thresh3: as many neighbours as a default kernel would keep. */
export const NEIGHBORS = 1024;
/** A 64 KiB superpacket cut to the smallest sensible MTU. */
export const MAX_PIECES = 1400;

/** Datagrams of TCP that are put together at once: a fragment of TCP is rare, and each takes a packet of the pool. */
const JOINED_DATAGRAMS = 64;
const SILENT = { timeout() {} };
/** Flags end with the 14th byte of a TCP header. */
const LEAST_OF_TCP: Record<Profile['firstTcpFragment'], number> = { 'whole-header': WHOLE_HEADER, flags: 14, any: 0 };
/** Of a time in a Timestamp option: not milliseconds since midnight UT. */
const NON_STANDARD_TIME = 0x80000000;

const NO_HOP = hops.nextHop(hops.HOP_REFUSE, { mtu: 0 });

/** What the node is on its underlay. Addresses int32, MACs as in wire/ethernet.ts. */
export interface Underlay {
  address: number;
  prefixLength: number;
  macHi: number;
  macLo: number;
  /** Of the uplink, in bytes. */
  mtu: number;
  /** The node's kernel is on the link by an interface of its own: what it says to others there does not pass through here. */
  besideKernel?: boolean;
}

export interface PathOptions {
  pool: Pool;
  counters: Counters;
  clock: Clock;
  random: Random;
  profile: Profile;
  underlay: Underlay;
  hostAddress: number;
  /** Milliseconds since midnight UT; without it, Timestamp options get a time that says of itself that it is another. */
  timeOfDay?: () => number;
}

let paths = 0;

export abstract class Path {
  /** Of this thread's paths: no other's. */
  readonly id = ++paths;
  readonly pool: Pool;
  readonly view: DataView;
  readonly counters: Counters;
  readonly underlay: Underlay;
  /** Address of the host port, the source of ICMP errors towards pods; the underlay address where there is none. */
  hostAddress: number;
  /** Whole milliseconds, read once per burst: a fraction would be a number on the heap for every call it is passed to. */
  now = 0;

  readonly ports: Port[] = [];
  uplink: Port | null = null;
  host: Port | null = null;

  readonly routes = new Lpm();
  /** [0] stands for no route. */
  readonly nextHops: NextHop[] = [NO_HOP];
  readonly tunnels = new Tunnels();
  /** Null while nobody wants to know of flows (as the kernel's hooks, registered by the first rule). */
  flows: Flows | null = null;
  /** Null: nothing to translate. What is there translates `flows`. */
  nat: Nat | null = null;
  /** Null: no network policy. */
  policies: Policies | null = null;
  readonly neighbors: NeighborTable;
  readonly virtual: VirtualReassembly;
  readonly reassembly: Reassembly;
  /** TCP that is forwarded, where the profile wants it whole. If it stays incomplete, that is for its receiver to say. */
  readonly joined: Reassembly;
  readonly pathMtu: PathMtu;
  readonly limiter = new IcmpLimiter();
  /** Null: nobody keeps account of what goes between nodes. */
  ledger: Ledger | null = null;
  /** Set by watch(). */
  watcher: Watcher | null = null;

  // On what systems disagree (profile.ts).
  relayTunnelErrors = false;
  strictSources = false;
  fillsOptions = false;
  /** As parseIpv4 has it. */
  tcpFragmentLeast = WHOLE_HEADER;
  dropFromExit = false;
  freshIds = false;
  decrementAtDelivery = false;
  alwaysMasquerade = false;

  /** Packets (segments of superpackets, too) sent on that no flow control holds back, since somebody set this to 0. */
  uncontrolled = 0;

  // Room for what one packet is cut into.
  readonly segments: Packet[] = [];
  readonly fragments: Packet[] = [];
  /** Of a tunnel packet, whose inner packet may be a fragment itself. */
  readonly outerFragments: Packet[] = [];
  readonly train: Packet[] = [];
  /** Room for the inner packet that an ICMP error quotes; no slot of the pool is its own. */
  readonly quoted = new Packet(0, -1);

  readonly timeOfDay: () => number;
  protected readonly clock: Clock;
  protected readonly random: Random;
  /**
   * The last IP id of our own: for what is cut although it said DF, whose id need not be unique (RFC 6864 section 4.1), and
   * for what a profile translates with a fresh one.
   */
  private lastId: number;

  constructor(options: PathOptions) {
    const { pool, counters, underlay, random, profile } = options;
    this.pool = pool;
    this.view = pool.view;
    this.counters = counters;
    this.clock = options.clock;
    this.random = random;
    this.underlay = underlay;
    this.hostAddress = options.hostAddress;
    this.timeOfDay = options.timeOfDay ?? (() => NON_STANDARD_TIME | (this.now & 0x7fffffff));
    for (let i = 0; i < MAX_PIECES; i++) {
      this.segments.push(pool.packets[0]);
      this.fragments.push(pool.packets[0]);
      this.outerFragments.push(pool.packets[0]);
      this.train.push(pool.packets[0]);
    }
    this.lastId = random.next() & 0xffff;
    this.virtual = new VirtualReassembly({ pool, counters, random, events: this });
    this.reassembly = new Reassembly({ pool, counters, random, events: this });
    this.joined = new Reassembly({ pool, counters, random, events: SILENT, datagrams: JOINED_DATAGRAMS });
    this.pathMtu = new PathMtu({
      counters,
      random,
      linkMtu: underlay.mtu,
    });
    this.neighbors = new NeighborTable({
      pool,
      counters,
      random,
      clock: options.clock,
      capacity: NEIGHBORS,
      address: underlay.address,
      prefixLength: underlay.prefixLength,
      mac: { hi: underlay.macHi, lo: underlay.macLo },
      events: this,
    });
    this.setProfile(profile);
  }

  /** What systems disagree on: from now on as in this profile. */
  setProfile(profile: Profile): void {
    this.fillsOptions = profile.recordRoute === 'fill';
    this.tcpFragmentLeast = LEAST_OF_TCP[profile.firstTcpFragment];
    this.strictSources = profile.martianSources === 'rfc1812';
    this.relayTunnelErrors = profile.tunnelErrors === 'relay';
    this.dropFromExit = profile.fromTunnelExit === 'drop';
    this.freshIds = profile.natIdentification === 'fresh';
    this.decrementAtDelivery = profile.ttlDecrement === 'delivery';
    this.alwaysMasquerade = profile.externalService === 'always-masquerade';
    const timeoutMs = profile.fragmentSeconds * 1000;
    const distance = profile.fragmentDistance;
    this.virtual.setLimits(timeoutMs, distance);
    this.reassembly.setLimits(timeoutMs, distance);
    this.joined.setLimits(timeoutMs, distance);
    this.pathMtu.setLimits(profile.minPathMtu, profile.pathMtuOfOldRouters);
  }

  /** A parsed packet goes through the path at once, wherever it came from. @returns TAKEN, or why it ends here */
  abstract forward(p: Packet): number;

  /** A parsed packet will go through the path behind those of the burst that came before it. Takes ownership. */
  abstract enter(p: Packet): void;

  // What tables that hold packets say of them: NeighborEvents, FragmentEvents, ReassemblyEvents.
  abstract transmit(p: Packet): void;
  abstract unreachable(p: Packet): void;
  abstract timeout(first: Packet): void;
  release(p: Packet, reason: number): void {
    this.drop(p, reason);
  }

  /** Puts a port in its place, that of its index. */
  putPort(port: Port): void {
    this.ports[port.index] = port;
    if (port.kind === PORT_UPLINK) this.uplink = port;
    if (port.kind === PORT_HOST) this.host = port;
    port.watcher = this.watcher;
  }

  /** Reports a step of a packet that somebody follows. @returns the verdict */
  took(step: number, p: Packet, verdict: number): number {
    if (this.watcher !== null && p.trace !== 0) this.watcher.stepped(p, step, verdict);
    return verdict;
  }

  /** Lets somebody look at packets; null: nobody looks. */
  watch(watcher: Watcher | null): void {
    this.watcher = watcher;
    for (const port of this.ports) port.watcher = watcher;
  }

  /** @param instead what packets that came by it are taken to have come by */
  removePort(port: Port, instead: Port): void {
    this.ports[port.index] = instead;
    if (this.uplink === port) this.uplink = null;
    if (this.host === port) this.host = null;
  }

  /** The underlay's address, MAC or MTU is another one. Neighbours are asked for anew; what was learnt of paths is forgotten. */
  setUnderlay(underlay: Underlay): void {
    const { address, prefixLength, macHi, macLo, mtu, besideKernel = false } = underlay;
    const moved =
      address !== this.underlay.address ||
      prefixLength !== this.underlay.prefixLength ||
      macHi !== this.underlay.macHi ||
      macLo !== this.underlay.macLo;
    Object.assign(this.underlay, { address, prefixLength, macHi, macLo, mtu, besideKernel });
    if (moved) this.neighbors.setOwn(address, prefixLength, { hi: macHi, lo: macLo });
    this.pathMtu.setLinkMtu(mtu);
  }

  /** Fragments that wait for others of their datagram. */
  get fragmentsHeld(): number {
    return this.virtual.held + this.reassembly.held + this.joined.held;
  }

  /** Writes out what all ports have queued. */
  flush(): void {
    for (let i = 0; i < this.ports.length; i++) this.ports[i].flush();
  }

  /** Ends a packet: gives its slot back, and counts why unless it was the node's own (DONE). */
  drop(p: Packet, reason: number): void {
    if (reason !== DONE) {
      this.counters.drop(reason, p.len);
      this.counters.port(p.inPort, counters.PORT_RX_DROPPED, 1);
      if (this.watcher !== null) this.watcher.dropped(p, reason);
    }
    this.pool.release(p);
  }

  /** Takes `n` IP ids and returns the first. */
  takeIds(n: number): number {
    const id = (this.lastId + 1) & 0xffff;
    this.lastId += n;
    return id;
  }

  /** True for a source that nobody outside can have: ours, or one that names no host. */
  isMartian(source: number): boolean {
    if (ip.isMartian(source) || this.isLocal(source)) return true;
    return this.strictSources && (ip.isRfc1812Martian(source) || this.isSubnetBroadcast(source));
  }

  private isSubnetBroadcast(address: number): boolean {
    const { address: own, prefixLength } = this.underlay;
    // RFC 3021: there is none on a link of two.
    if (prefixLength >= 31) return false;
    const hosts = -1 >>> prefixLength;
    return (address & ~hosts) === (own & ~hosts) && (address & hosts) === (hosts | 0);
  }

  /** True for an address of the node itself. */
  isOwnAddress(address: number): boolean {
    return address === this.underlay.address || address === this.hostAddress || this.host?.owns(address) === true;
  }

  /** True for an address of this node: of a pod, or of the node itself. */
  isLocal(address: number): boolean {
    const hop = this.routes.lookup(address);
    if (hop === 0) return false;
    const { kind, gateway } = this.nextHops[hop];
    // With a gateway it leads through the host's kernel, to what is not its own.
    return kind === hops.HOP_POD || (kind === hops.HOP_HOST && gateway === 0);
  }
}

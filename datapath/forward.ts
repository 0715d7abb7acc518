/**
 * The path of a packet. Functions stand in the order in which a packet meets them.
 *
 * From a pod or the host:
 *    1. source check        a pod may only send from its own addresses
 *    2. parse and validate  one IPv4 header, checked once, trusted afterwards
 *    3. conntrack           a packet of a known flow follows that flow's rewrite
 *    4. service             a new flow to a service address gets a backend
 *    5. egress policy       (its place: judged on the rewritten destination)
 *    6. route               longest prefix match: a pod, the host, a gateway, a tunnel peer, or a reason to refuse
 *    7. ingress policy      (its place)
 *    8. masquerade          the first matching rule allocates a source port; then the new flow exists
 *    9. TTL and MTU         time exceeded; MSS clamp; too big: one of the four ways of RFC 4459
 *   10. encapsulate         a header template moved into the headroom
 *   11. next hop            ARP on the uplink, then out
 *
 * From the uplink: Ethernet, ARP, or an IPv4 packet: one of our tunnel's is decapsulated and its inner packet enters at 2,
 * as does everything else that is for us or routed through us.
 *
 * A step returns a verdict: CONTINUE, TAKEN (somebody else owns the packet now), or the DROP_* that the caller counts.
 * Nothing here allocates, throws, or drops without a reason.
 */
import type { Clock } from './clock.ts';
import type { Counters } from './counters.ts';
import * as counters from './counters.ts';
import { fragment } from './mtu/fragment.ts';
import { buildIcmpError, IcmpLimiter, mayAnswer, relayedCode, turnEcho } from './mtu/icmp-error.ts';
import { clampMss } from './mtu/mss.ts';
import { MIN_MTU, PathMtu, TunnelQuote } from './mtu/path-mtu.ts';
import { Reassembly } from './mtu/reassembly.ts';
import { VirtualReassembly } from './mtu/virtual-reassembly.ts';
import type { Nat } from './nat/nat.ts';
import type { Services } from './nat/service.ts';
import type { Packet } from './packet/packet.ts';
import { parseIpv4 } from './packet/parse.ts';
import type { Pool } from './packet/pool.ts';
import { completeChecksum, headersOf, isCuttable, segment, segmentsOf, wireBytes } from './packet/segment.ts';
import { IDENTITY_REMOTE_NODE, IDENTITY_WORLD, PORT_HOST, PORT_POD, PORT_UPLINK, type Port } from './port.ts';
import type { Profile } from './profile.ts';
import type { Random } from './random.ts';
import { Lpm } from './route/lpm.ts';
import { NeighborTable } from './route/neighbor.ts';
import type { NextHop, Route } from './route/nexthop.ts';
import * as hops from './route/nexthop.ts';
import type { Tunnel } from './tunnel/tunnel.ts';
import * as verdict from './verdict.ts';
import { CONTINUE, TAKEN } from './verdict.ts';
import * as ethernet from './wire/ethernet.ts';
import * as icmp from './wire/icmp.ts';
import * as ipv4 from './wire/ipv4.ts';
import * as vnet from './wire/virtio-net.ts';

/** Packets read from one port before the next has its turn. */
export const BURST = 64;
/** Linux's gc_thresh3: as many neighbours as a default kernel would keep. */
export const NEIGHBORS = 1024;
/** A smaller flow table stays in the cache, and a smaller burst leaves nothing to overlap. */
const LOOK_AHEAD_FLOWS = 4096;
const LOOK_AHEAD_BURST = 4;
/** How often an idle node looks for flows that have run out; a busy one looks after each round. */
const NAT_TICK_MS = 1000;
/** A 64 KiB superpacket cut to the smallest sensible MTU. */
const MAX_PIECES = 1400;

const NO_HOP = hops.nextHop(hops.HOP_REFUSE, { mtu: 0 });

// What Datapath.admit says of a packet that may go: as it is, or in pieces.
const FITS = CONTINUE;
const MUST_CUT = 2;

/** Behind its header, an error quotes so much of a packet at least (RFC 792). */
const QUOTED_PAYLOAD = 8;

/** No IP id. */
const KEEP_ID = -1;

/** Zone of fragments that came through the tunnel; the others' is the port that they came by. */
const ZONE_TUNNEL = -1;

/** What the node is on its underlay. Addresses int32, MACs as in wire/ethernet.ts. */
export interface Underlay {
  address: number;
  prefixLength: number;
  macHi: number;
  macLo: number;
  /** Of the uplink, in bytes. */
  mtu: number;
}

export class Datapath {
  readonly pool: Pool;
  readonly counters: Counters;
  readonly neighbors: NeighborTable;
  readonly underlay: Underlay;
  /** Address of the host port, the source of ICMP errors towards pods; the underlay address where there is none. */
  readonly hostAddress: number;
  ports: Port[] = [];
  readonly routes: Lpm;
  /** [0] stands for no route. */
  nextHops: NextHop[] = [NO_HOP];
  tunnel: Tunnel | null = null;
  /** Null: nothing to translate, so flows are not tracked either (as the kernel's hooks, registered by the first rule). */
  nat: Nat | null = null;
  /** Whole milliseconds, read once per burst: a fraction would be a number on the heap for every call it is passed to. */
  now = 0;

  private readonly view: DataView;
  private readonly clock: Clock;
  private readonly relayTunnelErrors: boolean;
  private readonly dropFromExit: boolean;
  private readonly freshIds: boolean;
  private readonly decrementAtDelivery: boolean;
  private readonly alwaysMasquerade: boolean;
  /** The way of the packet in hand. */
  private hop: NextHop = NO_HOP;
  /** 1 if the packet in hand has other addresses than it came with. */
  private translated = 0;
  /** The IP id that the packet in hand leaves with, or KEEP_ID. Written late: an error about it quotes what its sender knows. */
  private newId = KEEP_ID;
  /** Where the packet in hand was sent, if that was the outside address of a mapping and its sender is inside too; else 0. */
  private hairpin = 0;
  /** The source that the packet in hand came with (int32): what answers it comes back by the way that leads there. */
  private sender = 0;
  /**
   * The last IP id of our own: for what is cut although it said DF, whose id need not be unique (RFC 6864 section 4.1), and
   * for what a profile translates with a fresh one.
   */
  private fragmentId: number;
  private readonly virtual: VirtualReassembly;
  private readonly reassembly: Reassembly;
  private readonly pathMtu: PathMtu;
  private readonly quote = new TunnelQuote();
  private readonly limiter = new IcmpLimiter();
  private readonly slots: Packet[] = [];
  private readonly tuples = new Int32Array(4 * BURST);
  /** Packets (segments of superpackets, too) sent on that no flow control holds back, since somebody set this to 0. */
  uncontrolled = 0;
  /** What lookAhead() has read; means nothing. */
  touched = 0;
  private readonly segments: Packet[] = [];
  private readonly fragments: Packet[] = [];
  /** Of a tunnel packet, whose inner packet may be a fragment itself. */
  private readonly outerFragments: Packet[] = [];
  private readonly train: Packet[] = [];
  private uplink: Port | null = null;
  private host: Port | null = null;

  constructor(options: {
    pool: Pool;
    counters: Counters;
    clock: Clock;
    random: Random;
    profile: Profile;
    underlay: Underlay;
    hostAddress: number;
    routes?: Lpm;
  }) {
    const { pool, counters, clock, underlay } = options;
    this.pool = pool;
    this.view = pool.view;
    this.counters = counters;
    this.clock = clock;
    this.underlay = underlay;
    this.hostAddress = options.hostAddress;
    this.routes = options.routes ?? new Lpm();
    this.relayTunnelErrors = options.profile.tunnelErrors === 'relay';
    this.dropFromExit = options.profile.fromTunnelExit === 'drop';
    this.freshIds = options.profile.natIdentification === 'fresh';
    this.decrementAtDelivery = options.profile.ttlDecrement === 'delivery';
    this.alwaysMasquerade = options.profile.externalService === 'always-masquerade';
    for (let i = 0; i < BURST; i++) this.slots.push(pool.packets[0]);
    for (let i = 0; i < BURST; i++) {
      const p = pool.take();
      if (p === null) throw new RangeError(`the pool must hold more than ${BURST} packets`);
      this.slots[i] = p;
    }
    for (let i = 0; i < MAX_PIECES; i++) {
      this.segments.push(pool.packets[0]);
      this.fragments.push(pool.packets[0]);
      this.outerFragments.push(pool.packets[0]);
      this.train.push(pool.packets[0]);
    }
    const { random } = options;
    this.fragmentId = random.next() & 0xffff;
    const { profile } = options;
    const timeoutMs = profile.fragmentSeconds * 1000;
    this.virtual = new VirtualReassembly({ pool, counters, random, events: this, timeoutMs });
    this.reassembly = new Reassembly({ pool, counters, random, events: this, timeoutMs });
    this.pathMtu = new PathMtu({
      counters,
      random,
      linkMtu: underlay.mtu,
      floor: profile.minPathMtu,
      ofOldRouters: profile.pathMtuOfOldRouters,
    });
    this.neighbors = new NeighborTable({
      pool,
      counters,
      random,
      capacity: NEIGHBORS,
      address: underlay.address,
      prefixLength: underlay.prefixLength,
      mac: { hi: underlay.macHi, lo: underlay.macLo },
      events: this,
    });
  }

  /** Puts the ports in place; their index is their position. */
  setPorts(ports: Port[]): void {
    this.ports = ports;
    this.uplink = ports.find(port => port.kind === PORT_UPLINK) ?? null;
    this.host = ports.find(port => port.kind === PORT_HOST) ?? null;
  }

  /** Replaces next hops, routes and tunnel at once, between two packets. `nextHops[0]` is unused. */
  setRoutes(routes: Route[], nextHops: NextHop[], tunnel: Tunnel | null): void {
    this.routes.replaceAll(
      Int32Array.from(routes, r => r.prefix),
      Uint8Array.from(routes, r => r.length),
      Int32Array.from(routes, r => r.hop),
    );
    this.nextHops = nextHops;
    this.tunnel = tunnel;
  }

  /**
   * Changes some routes in place, about 5 us each, where setRoutes takes 10 ms whatever there is: for a node that forwards.
   * @param nextHops all of them; those of routes that stay are where they were
   */
  changeRoutes(changed: Route[], removed: Route[], nextHops: NextHop[], tunnel: Tunnel | null): void {
    this.nextHops = nextHops;
    this.tunnel = tunnel;
    for (const { prefix, length, hop } of changed) this.routes.insert(prefix, length, hop);
    for (const { prefix, length } of removed) this.routes.delete(prefix, length);
  }

  // ---------------------------------------------------------------- bursts

  /**
   * Reads one burst from a port, takes every packet through the path, and writes what came of it.
   * @returns packets read; a negative errno when the device is gone
   */
  receive(port: Port): number {
    const { slots, pool, counters: c } = this;
    const n = port.device.readBurst(slots, BURST);
    if (n <= 0) return n;
    this.now = Math.floor(this.clock.now());
    let packets = 0;
    let bytes = 0;
    for (let i = 0; i < n; i++) {
      packets += segmentsOf(this.view, slots[i]);
      bytes += wireBytes(this.view, slots[i]);
    }
    const left = port.coalesceInput(slots, n);
    if (this.nat !== null) this.lookAhead(left, port, this.nat);
    for (let i = 0; i < left; i++) {
      const p = slots[i];
      p.inPort = port.index;
      this.enter(p, port);
    }
    for (let i = 0; i < n; i++) {
      let p = pool.take();
      if (p === null) {
        // All that ports have queued. What is held (ARP, reassembly) is capped well below the pool's size.
        this.flush();
        p = pool.take();
      }
      slots[i] = p as Packet;
    }
    c.port(port.index, counters.PORT_RX_PACKETS, packets);
    c.port(port.index, counters.PORT_RX_BYTES, bytes);
    c.port(port.index, counters.PORT_READS, n);
    c.event(counters.EVENT_BURSTS);
    this.flush();
    return n;
  }

  /**
   * Fetches what the burst will need of a big flow table. The packets are not parsed yet, so this guesses where their
   * tuples are; a wrong guess costs a read of something else.
   */
  private lookAhead(n: number, port: Port, nat: Nat): void {
    const { table } = nat.conntrack;
    if (table.used < LOOK_AHEAD_FLOWS || n < LOOK_AHEAD_BURST) return;
    const { view, slots, tuples } = this;
    const outer =
      port.kind !== PORT_UPLINK ? 0 : ethernet.HEADER_LEN + (this.tunnel === null ? 0 : this.tunnel.overhead);
    const tupleEnd = outer + ipv4.HEADER_LEN + 4;
    for (let i = 0; i < n; i++) {
      const p = slots[i];
      // Too short for a tuple: then that of any other will do.
      const ip = (p.len < tupleEnd ? slots[0].start : p.off) + outer;
      tuples[4 * i] = view.getInt32(ip + ipv4.SRC);
      tuples[4 * i + 1] = view.getInt32(ip + ipv4.DST);
      tuples[4 * i + 2] = view.getInt32(ip + ipv4.HEADER_LEN);
      tuples[4 * i + 3] = view.getUint8(ip + ipv4.PROTOCOL);
    }
    this.touched = table.touchAll(tuples, n);
  }

  /** Writes out what all ports have queued. */
  flush(): void {
    for (let i = 0; i < this.ports.length; i++) this.ports[i].flush();
  }

  /** Fragments that wait for others of their datagram. */
  get fragmentsHeld(): number {
    return this.virtual.held + this.reassembly.held;
  }

  /** Timers: ARP, fragments, path MTUs, flows. @returns milliseconds until it wants to be called again */
  tick(): number {
    this.now = Math.floor(this.clock.now());
    const { now } = this;
    this.pathMtu.tick(now);
    const wait = Math.min(this.neighbors.tick(now), this.virtual.tick(now), this.reassembly.tick(now));
    this.flush();
    if (this.nat === null) return wait;
    this.nat.tick(now);
    return Math.min(wait, NAT_TICK_MS);
  }

  private enter(p: Packet, port: Port): void {
    const v = port.kind === PORT_UPLINK ? this.fromUplink(p) : this.fromPodOrHost(p, port);
    if (v !== TAKEN) this.drop(p, v);
  }

  private drop(p: Packet, reason: number): void {
    // CONTINUE: the packet was for the datapath itself (ARP) and is done with.
    if (reason !== CONTINUE) {
      this.counters.drop(reason, p.len);
      this.counters.port(p.inPort, counters.PORT_RX_DROPPED, 1);
    }
    this.pool.release(p);
  }

  // ---------------------------------------------------------------- 1. source check

  private fromPodOrHost(p: Packet, port: Port): number {
    const { view } = this;
    if (p.len < ipv4.HEADER_LEN) return verdict.DROP_MALFORMED_IPV4;
    if (view.getUint8(p.off) >> 4 !== 4) return verdict.DROP_NOT_IPV4;
    if (port.kind === PORT_POD && !port.owns(view.getInt32(p.off + ipv4.SRC))) return verdict.DROP_INVALID_SOURCE;
    p.identity = port.identity;

    const v = parseIpv4(view, p);
    if (v !== CONTINUE) return v;
    if (port.kind === PORT_POD && this.isOwnTunnel(p)) return verdict.DROP_ENCAP_FROM_WORKLOAD;
    return this.forward(p);
  }

  /** A pod that speaks our tunnel's protocol to a node could put words into another pod's mouth (Calico refuses it, too). */
  private isOwnTunnel(p: Packet): boolean {
    const { tunnel } = this;
    return tunnel?.matches(p) === true && (p.dst === this.underlay.address || tunnel.findPeer(p.dst) >= 0);
  }

  // ---------------------------------------------------------------- from the uplink

  private fromUplink(p: Packet): number {
    const { view, underlay } = this;
    if (p.len < ethernet.HEADER_LEN) return verdict.DROP_MALFORMED_ETHERNET;
    const hi = ethernet.macHi(view, p.off);
    const group = ethernet.isGroup(hi);
    if (!group && (hi !== underlay.macHi || ethernet.macLo(view, p.off) !== underlay.macLo)) {
      return verdict.DROP_OTHER_MAC;
    }
    const type = view.getUint16(p.off + ethernet.TYPE);
    if (type === ethernet.TYPE_ARP) return this.neighbors.handleArp(p, this.now);
    if (type !== ethernet.TYPE_IPV4) return verdict.DROP_NOT_IPV4;
    if (group) return verdict.DROP_MULTICAST;
    p.pull(ethernet.HEADER_LEN);

    const v = parseIpv4(view, p);
    if (v !== CONTINUE) return v;
    if (ipv4.isMartian(p.src) || this.isLocal(p.src)) return verdict.DROP_MARTIAN_SOURCE;
    p.identity = IDENTITY_WORLD;
    return p.dst === underlay.address && this.tunnel !== null ? this.toNode(p, this.tunnel) : this.forward(p);
  }

  /** A packet for the node's own address: the tunnel's, an error about the tunnel's, or anybody's. */
  private toNode(p: Packet, tunnel: Tunnel): number {
    if (ipv4.isFragment(p.fragment) && tunnel.mayCarry(p)) return this.reassemble(p, tunnel);
    if (tunnel.matches(p)) return this.fromTunnel(p, tunnel);
    if (p.protocol === ipv4.PROTO_ICMP && this.quote.matches(this.view, p, tunnel)) return this.tunnelError(p, tunnel);
    return this.forward(p);
  }

  /** A fragment of what may be a tunnel packet: the exit of a tunnel puts together what was cut on its way (RFC 4459 section 3.1). */
  private reassemble(p: Packet, tunnel: Tunnel): number {
    const v = this.reassembly.accept(p, 0, this.now);
    const whole = this.reassembly.takeWhole();
    if (whole === null) return v;
    whole.inPort = (this.uplink as Port).index;
    whole.identity = IDENTITY_WORLD;
    const w = tunnel.matches(whole) ? this.fromTunnel(whole, tunnel) : this.forward(whole);
    if (w !== TAKEN) this.drop(whole, w);
    return v;
  }

  /** The underlay says that a tunnel packet was too big: the peer's path MTU goes down, and the inner sender hears of it if that is our way. */
  private tunnelError(p: Packet, tunnel: Tunnel): number {
    const { quote, view, pathMtu } = this;
    const v = quote.read(view, p, tunnel);
    if (v !== CONTINUE) return v;
    const type = view.getUint8(p.l4 + icmp.TYPE);
    const errorCode = view.getUint8(p.l4 + icmp.CODE);
    if (type !== icmp.UNREACHABLE || errorCode !== icmp.CODE_FRAG_NEEDED) {
      const code = this.relayTunnelErrors ? relayedCode(type, errorCode) : -1;
      if (code < 0 || quote.inner.len === 0) return verdict.DROP_TUNNEL_ERROR;
      this.counters.event(counters.EVENT_TUNNEL_ERRORS);
      this.answerInner(p, icmp.UNREACHABLE, code, 0);
      return CONTINUE;
    }
    this.counters.event(counters.EVENT_TUNNEL_ERRORS);
    const mtu = pathMtu.update(quote.destination, quote.mtu, quote.totalLen, quote.headerLen, this.now);
    const { inner } = quote;
    if (mtu > 0 && inner.len > 0 && this.nextHops[this.routes.lookup(inner.dst)].tooBig === hops.TOO_BIG_SIGNAL) {
      this.answerInner(p, icmp.UNREACHABLE, icmp.CODE_FRAG_NEEDED, Math.max(MIN_MTU, mtu - tunnel.overhead));
    }
    return CONTINUE;
  }

  /** Tells the sender of the inner packet that `p`, an error of the underlay, quotes. */
  private answerInner(p: Packet, type: number, code: number, info: number): void {
    const { inner, destination } = this.quote;
    inner.inPort = p.inPort;
    inner.tunnelSource = destination;
    this.answer(inner, type, code, info);
  }

  private fromTunnel(p: Packet, tunnel: Tunnel): number {
    if (p.gsoType === vnet.GSO_UDP_L4) return this.fromTunnelTrain(p, tunnel);
    let v = tunnel.decap(p);
    if (v !== CONTINUE) return v;
    v = parseIpv4(this.view, p);
    if (v !== CONTINUE) return v;
    // The outer source was checked as a peer; the inner one is another matter: nobody outside may speak for us.
    if (ipv4.isMartian(p.src) || this.isLocal(p.src)) return verdict.DROP_MARTIAN_SOURCE;
    this.counters.event(counters.EVENT_DECAPSULATED);
    return this.forward(p);
  }

  /** Tunnel packets that somebody's GRO has joined into one train: each is a packet of its own. */
  private fromTunnelTrain(p: Packet, tunnel: Tunnel): number {
    const n = segment(this.pool, p, this.train, MAX_PIECES);
    if (n === 0) return verdict.DROP_NO_BUFFER;
    this.counters.event(counters.EVENT_SEGMENTED);
    this.counters.event(counters.EVENT_SEGMENTS_SENT, n);
    for (let i = 0; i < n; i++) {
      const s = this.train[i];
      let v = parseIpv4(this.view, s);
      if (v === CONTINUE) v = this.fromTunnel(s, tunnel);
      if (v !== TAKEN) this.drop(s, v);
    }
    this.pool.release(p);
    return TAKEN;
  }

  private isLocal(address: number): boolean {
    const hop = this.routes.lookup(address);
    if (hop === 0) return false;
    const { kind, gateway } = this.nextHops[hop];
    // With a gateway it is the way through the host's kernel, to what is not its own.
    return kind === hops.HOP_POD || (kind === hops.HOP_HOST && gateway === 0);
  }

  // ---------------------------------------------------------------- 2 to 8

  /** A parsed packet, wherever it came from. */
  private forward(p: Packet): number {
    if (p.dst >>> 28 >= 14) return verdict.DROP_MULTICAST;
    // Somebody else's tunnel: on the way it may have to be cut.
    if ((p.gsoType & vnet.GSO_UDP_TUNNEL_IPV4) !== 0 && !isCuttable(this.view, p)) {
      return verdict.DROP_MALFORMED_VNET_HEADER;
    }
    if (this.nat !== null && ipv4.isFragment(p.fragment)) return this.forwardFragment(p, this.nat, this.virtual);
    const v = this.judge(p);
    if (v !== CONTINUE) return v;
    if (this.freshIds && p.src !== this.sender && (p.fragment & ipv4.FLAG_DF) === 0) {
      this.newId = this.takeFragmentId();
      // The segments of a superpacket count on from the first.
      this.fragmentId += segmentsOf(this.view, p) - 1;
    }
    return this.send(p, this.hop);
  }

  /** Steps 3 to 8: the packet gets its final addresses and, in `hop`, the way that it goes. */
  private judge(p: Packet): number {
    const { nat } = this;
    this.translated = 0;
    this.hairpin = 0;
    this.newId = KEEP_ID;
    this.sender = p.src;
    if (nat !== null) {
      const v = this.trackFlow(p, nat);
      if (v !== CONTINUE) return v;
    }

    // 5. egress policy stands here.

    // 6. route
    const v = this.lookupRoute(p);
    if (v !== CONTINUE) return v;

    // 7. ingress policy stands here.

    return nat !== null && nat.conntrack.isNew !== 0 ? this.masqueradeFlow(p, this.hop, nat) : CONTINUE;
  }

  private send(p: Packet, hop: NextHop): number {
    if (p.protocol !== ipv4.PROTO_TCP) this.uncontrolled += segmentsOf(this.view, p);
    switch (hop.kind) {
      case hops.HOP_POD:
        return this.toPod(p, hop);
      case hops.HOP_HOST:
        return this.toHost(p, hop);
      default:
        return this.toUnderlay(p, hop);
    }
  }

  // ---------------------------------------------------------------- 2. fragments

  /** Fragments are judged as one datagram, by the first; those that come before it wait. Each then goes on as it is. */
  private forwardFragment(p: Packet, nat: Nat, virtual: VirtualReassembly): number {
    const { conntrack } = nat;
    const v = virtual.accept(p, p.tunnelSource !== 0 ? ZONE_TUNNEL : p.inPort, this.now);
    if (v !== CONTINUE) return v;
    if ((p.fragment & ipv4.OFFSET_MASK) !== 0) return this.forwardLaterFragment(p, nat, virtual);

    const first = this.judge(p);
    if (first !== CONTINUE) {
      virtual.refuse(first);
      return first;
    }
    const { flow, direction } = conntrack;
    if (this.freshIds && p.src !== this.sender) this.newId = this.takeFragmentId();
    virtual.admit((flow << 1) | direction, (this.newId << 16) | conntrack.generation(flow));
    const sent = this.send(p, this.hop);
    for (let held = virtual.nextReleased(); held !== null; held = virtual.nextReleased()) {
      const w = this.forwardLaterFragment(held, nat, virtual);
      if (w !== TAKEN) this.drop(held, w);
    }
    return sent;
  }

  private forwardLaterFragment(p: Packet, nat: Nat, virtual: VirtualReassembly): number {
    const { decision, mark } = virtual;
    const { src, dst } = p;
    let v = nat.conntrack.translateFragment(p, decision >>> 1, mark & 0xffff, decision & 1);
    if (v !== CONTINUE) return v;
    this.newId = this.freshIds && p.src !== src ? mark >>> 16 : KEEP_ID;
    this.translated = p.src !== src || p.dst !== dst ? 1 : 0;
    v = this.lookupRoute(p);
    return v === CONTINUE ? this.send(p, this.hop) : v;
  }

  // ---------------------------------------------------------------- 3. conntrack, 4. service

  /** Gives a packet of a known flow its final addresses; for a new flow chooses where it goes. */
  private trackFlow(p: Packet, nat: Nat): number {
    const { conntrack } = nat;
    const v = conntrack.track(p, this.now);
    if (v !== CONTINUE) {
      // Our own errors about packets that no flow came of: those were not rewritten, so neither is their quote.
      return p.local !== 0 && v === verdict.DROP_CT_ICMP_NO_FLOW ? CONTINUE : v;
    }
    const { src, dst } = p;
    const w = conntrack.isNew === 0 ? conntrack.translate(p) : this.chooseBackend(p, nat);
    this.translated = p.src !== src || p.dst !== dst ? 1 : 0;
    return w;
  }

  private chooseBackend(p: Packet, nat: Nat): number {
    const { conntrack, services } = nat;
    const outside = this.ports[p.inPort].kind === PORT_UPLINK && p.tunnelSource === 0;
    const v = services.select(p, outside ? 1 : 0, this.now);
    if (v === verdict.DROP_NO_SERVICE_ENDPOINT || v === verdict.DROP_UNKNOWN_SERVICE_PORT) {
      this.answer(p, icmp.UNREACHABLE, icmp.CODE_PORT_UNREACHABLE, 0); // kube-proxy's REJECT
    }
    if (v !== CONTINUE) return v;
    if (services.backend !== 0) {
      return conntrack.translateDestination(p, services.address, services.port, services.backend);
    }
    const { dst } = p;
    const w = conntrack.translateInbound(p, this.now, !outside);
    if (!outside && p.dst !== dst) this.hairpin = dst;
    return w;
  }

  // ---------------------------------------------------------------- 6. route

  /** Finds the next hop for p.dst and leaves it in `hop`, or says why there is none. */
  private lookupRoute(p: Packet): number {
    const index = this.routes.lookup(p.dst);
    this.hop = this.nextHops[index];
    if (index !== 0 && this.hop.kind !== hops.HOP_REFUSE) return CONTINUE;
    // A first packet that has a backend already would be quoted with the backend's address, which its sender never saw.
    if (this.translated === 0) {
      const code = index === 0 ? icmp.CODE_NET_UNREACHABLE : icmp.CODE_HOST_UNREACHABLE;
      this.answer(p, icmp.UNREACHABLE, code, 0);
    }
    return index === 0 ? verdict.DROP_NO_ROUTE : verdict.DROP_ROUTE_REFUSED;
  }

  // ---------------------------------------------------------------- 8. masquerade

  /** Decides under which source a new flow leaves, and enters the flow into the table. */
  private masqueradeFlow(p: Packet, hop: NextHop, nat: Nat): number {
    const { conntrack, services, rules } = nat;
    // Towards a pod or a peer the interface is the host's; on the uplink it is the underlay's.
    const own = hop.kind === hops.HOP_POD || hop.kind === hops.HOP_TUNNEL ? this.hostAddress : this.underlay.address;
    let v = CONTINUE;
    if (services.backend !== 0 && this.mustReturnHere(p, hop, services)) {
      v = conntrack.translateSource(p, own, 0, true, this.now);
      this.translated = 1;
    } else if (hop.kind !== hops.HOP_HOST && p.local === 0) {
      // A hairpin leaves as if it had gone outside: with the outside source (RFC 4787 REQ-9a).
      const { hairpin } = this;
      const rule = rules.match(p.src, hairpin !== 0 ? hairpin : p.dst, p.protocol, 0);
      if (rule > 0) {
        const { keepPort, minPort, maxPort } = rules;
        const source = rules.source !== 0 ? rules.source : hairpin !== 0 ? hairpin : own;
        v = conntrack.translateSource(p, source, rule, keepPort, this.now, minPort, maxPort);
      }
    }
    if (v === CONTINUE) v = conntrack.confirm(p, this.now);
    if (isOutOfResources(v)) {
      conntrack.restore(p);
      this.answer(p, icmp.UNREACHABLE, icmp.CODE_ADMIN_PROHIBITED, 0); // RFC 5508 REQ-8
    }
    return v;
  }

  /** Would the backend's answer miss us? Then the flow must carry our source. */
  private mustReturnHere(p: Packet, hop: NextHop, services: Services): boolean {
    if (services.masquerade === 0) return false;
    // Cilium keeps the client's address for a backend on the node that was asked; a hairpin needs ours in any case.
    return this.alwaysMasquerade || hop.kind !== hops.HOP_POD || p.src === p.dst;
  }

  // ---------------------------------------------------------------- where it can lead

  private toPod(p: Packet, hop: NextHop): number {
    // Linux decrements wherever it forwards; Cilium at delivery, whoever sent.
    const forwarded = this.decrementAtDelivery || !this.isFromHost(p);
    const port = this.ports[hop.port];
    const v = this.admit(p, hop, forwarded);
    if (v === FITS) return this.deliver(p, port, counters.EVENT_DELIVERED_POD);
    return v === MUST_CUT ? this.cutAndSend(p, hop, port) : v;
  }

  private toHost(p: Packet, hop: NextHop): number {
    const { host } = this;
    if (host === null || !host.owns(p.dst)) return this.answerEcho(p);
    if (this.ports[p.inPort] === host && p.local === 0) return verdict.DROP_ROUTE_LOOP;
    if (hop.clampMss !== 0 && p.protocol === ipv4.PROTO_TCP) this.clampToPath(p, hop);
    return this.deliver(p, host, counters.EVENT_DELIVERED_HOST);
  }

  private deliver(p: Packet, port: Port, event: number): number {
    if (!port.takes(p)) {
      if (p.gsoType !== 0) return this.segmentAndSend(p, null, port);
      completeChecksum(this.view, p);
    }
    this.counters.event(event);
    port.queue(p);
    return TAKEN;
  }

  private toUnderlay(p: Packet, hop: NextHop): number {
    const { uplink } = this;
    if (uplink === null) return verdict.DROP_NO_PORT;
    const inPort = this.ports[p.inPort];
    // Somebody else's packet for somebody else: only where an explicit route says so, or the wire would be open to anyone.
    const foreign = inPort === uplink && p.tunnelSource === 0 && p.local === 0 && this.translated === 0;
    if (foreign && hop.transit === 0) return verdict.DROP_NOT_ROUTED;
    // Cilium's tunnel node leaves the TTL alone on the way in; what comes from a tunnel and goes on is decremented always.
    const intoTunnel = hop.kind === hops.HOP_TUNNEL && this.decrementAtDelivery && inPort.kind === PORT_POD;
    const v = this.admit(p, hop, !intoTunnel && !this.isFromHost(p));
    if (v === FITS) return this.encapAndSend(p, hop, uplink);
    return v === MUST_CUT ? this.cutAndSend(p, hop, uplink) : v;
  }

  // ---------------------------------------------------------------- 9. TTL and MTU

  /** The node's own packets are not forwarded, so they keep their TTL. */
  private isFromHost(p: Packet): boolean {
    return p.local !== 0 || this.ports[p.inPort].kind === PORT_HOST;
  }

  /**
   * May it go this way, and in one piece? In the order of Linux's ip_forward: a packet that is refused is quoted with the
   * TTL that it came with.
   * @returns FITS, MUST_CUT, or the reason to drop it
   */
  private admit(p: Packet, hop: NextHop, forwarded: boolean): number {
    const { view } = this;
    if (forwarded && view.getUint8(p.off + ipv4.TTL) <= 1) {
      this.answer(p, icmp.TIME_EXCEEDED, icmp.CODE_TTL_IN_TRANSIT, 0);
      return verdict.DROP_TTL_EXCEEDED;
    }
    if (hop.clampMss !== 0 && p.protocol === ipv4.PROTO_TCP) this.clampToPath(p, hop);
    let v = FITS;
    if (this.wireLength(p) > this.mtuOf(hop)) {
      v = this.tooBig(p, hop);
      if (v !== MUST_CUT) return v;
    }
    if (forwarded) ipv4.decrementTtl(view, p.off);
    if (this.newId !== KEEP_ID) ipv4.setId(view, p.off, this.newId);
    return v;
  }

  /** Too long for its way, which of the four ways of RFC 4459 is taken decides about it. */
  private tooBig(p: Packet, hop: NextHop): number {
    if (hop.tooBig === hops.TOO_BIG_FRAGMENT_INNER) return MUST_CUT;
    if (hop.tooBig === hops.TOO_BIG_LARGER_UNDERLAY) return verdict.DROP_UNDERLAY_TOO_SMALL;
    if ((p.fragment & ipv4.FLAG_DF) === 0) return MUST_CUT;
    this.answer(p, icmp.UNREACHABLE, icmp.CODE_FRAG_NEEDED, this.mtuOf(hop));
    return verdict.DROP_OVER_MTU_DONT_FRAGMENT;
  }

  /**
   * What may take this way: the route's MTU, or less where the path to the tunnel's peer has turned out narrower and that
   * is the packet's business, not the tunnel's.
   */
  private mtuOf(hop: NextHop): number {
    if (hop.tooBig === hops.TOO_BIG_FRAGMENT_OUTER || hop.tooBig === hops.TOO_BIG_LARGER_UNDERLAY) return hop.mtu;
    // A path so narrow that the tunnel's headers leave less: no sender can be told of less, nor cut to it (RFC 791).
    return Math.max(MIN_MTU, this.uncutMtuOf(hop));
  }

  /** What takes this way without being cut anywhere, as far as is known. */
  private uncutMtuOf(hop: NextHop): number {
    if (hop.kind !== hops.HOP_TUNNEL || this.tunnel === null) return hop.mtu;
    if (this.pathMtu.size === 0 && hop.tooBig !== hops.TOO_BIG_FRAGMENT_OUTER) return hop.mtu;
    return Math.min(hop.mtu, this.pathMtu.lookup(hop.peerAddress, this.now) - this.tunnel.overhead);
  }

  /** The MSS that a SYN offers is for what will come back: its way back counts as well as the way it goes. */
  private clampToPath(p: Packet, hop: NextHop): void {
    const back = this.nextHops[this.routes.lookup(this.sender)];
    const mtu = Math.min(this.uncutMtuOf(hop), back === NO_HOP ? hop.mtu : this.uncutMtuOf(back));
    if (clampMss(this.view, p, Math.max(MIN_MTU, mtu))) this.counters.event(counters.EVENT_MSS_CLAMPED);
  }

  /** Length of the longest IP packet that `p` will be on the wire: for a superpacket that of one full segment. */
  private wireLength(p: Packet): number {
    if (p.gsoType === 0) return p.len;
    return Math.min(headersOf(this.view, p) + p.gsoSize, p.len);
  }

  private cutAndSend(p: Packet, hop: NextHop, port: Port): number {
    return p.gsoType !== 0 ? this.segmentAndSend(p, hop, port) : this.fragmentAndSend(p, hop, port);
  }

  private fragmentAndSend(p: Packet, hop: NextHop, port: Port): number {
    const atomic = (p.fragment & ipv4.FLAG_DF) !== 0 && !ipv4.isFragment(p.fragment);
    if (atomic) this.view.setUint16(p.off + ipv4.ID, this.takeFragmentId());
    const n = fragment(this.pool, p, this.mtuOf(hop), this.fragments);
    if (n === 0) return verdict.DROP_NO_BUFFER;
    this.counters.event(counters.EVENT_FRAGMENTED);
    this.counters.event(counters.EVENT_FRAGMENTS_SENT, n);
    for (let i = 0; i < n; i++) this.sendPiece(this.fragments[i], hop, port);
    this.pool.release(p);
    return TAKEN;
  }

  private takeFragmentId(): number {
    this.fragmentId = (this.fragmentId + 1) & 0xffff;
    return this.fragmentId;
  }

  /** Cuts a superpacket in software, for a way that does not take it whole. Pieces still too long are fragmented. */
  private segmentAndSend(p: Packet, hop: NextHop | null, port: Port): number {
    const n = segment(this.pool, p, this.segments, MAX_PIECES);
    if (n === 0) return verdict.DROP_NO_BUFFER;
    this.counters.event(counters.EVENT_SEGMENTED);
    this.counters.event(counters.EVENT_SEGMENTS_SENT, n);
    for (let i = 0; i < n; i++) {
      const s = this.segments[i];
      if (hop === null || s.len <= this.mtuOf(hop)) {
        this.sendPiece(s, hop, port);
        continue;
      }
      const v = this.fragmentAndSend(s, hop, port);
      if (v !== TAKEN) this.drop(s, v);
    }
    this.pool.release(p);
    return TAKEN;
  }

  private sendPiece(p: Packet, hop: NextHop | null, port: Port): void {
    if (port.kind === PORT_UPLINK && hop !== null) {
      const v = this.encapAndSend(p, hop, port);
      if (v !== TAKEN) this.drop(p, v);
      return;
    }
    this.counters.event(port.kind === PORT_POD ? counters.EVENT_DELIVERED_POD : counters.EVENT_DELIVERED_HOST);
    port.queue(p);
  }

  // ---------------------------------------------------------------- 10. encapsulate

  private encapAndSend(p: Packet, hop: NextHop, uplink: Port): number {
    const isTunnel = hop.kind === hops.HOP_TUNNEL;
    const tunnel = isTunnel ? this.tunnel : null;
    if (isTunnel && tunnel === null) return verdict.DROP_NO_TUNNEL_PEER;
    if (isTunnel && this.dropFromExit && p.src === hop.peerAddress) return verdict.DROP_ROUTE_LOOP;
    if (tunnel !== null && hop.tooBig === hops.TOO_BIG_FRAGMENT_OUTER && this.wireLength(p) > this.uncutMtuOf(hop)) {
      return p.gsoType !== 0 ? this.segmentAndSend(p, hop, uplink) : this.encapAndFragment(p, hop, tunnel, uplink);
    }
    if (!(tunnel === null ? uplink.takes(p) : uplink.takesInside(tunnel, p))) {
      if (p.gsoType !== 0) return this.segmentAndSend(p, hop, uplink);
      completeChecksum(this.view, p);
    }
    if (tunnel !== null) {
      p.innerNetwork = p.off;
      tunnel.encap(p, hop.peer);
      this.counters.event(counters.EVENT_ENCAPSULATED);
    }
    return this.sendToNeighbor(p, hop.kind === hops.HOP_ONLINK ? p.dst : hop.gateway, uplink);
  }

  /** The tunnel's own packet is what is cut (RFC 4459 section 3.1). */
  private encapAndFragment(p: Packet, hop: NextHop, tunnel: Tunnel, uplink: Port): number {
    completeChecksum(this.view, p);
    const { outerFragments: pieces } = this;
    const l4 = tunnel.overhead + p.l4 - p.off;
    tunnel.encap(p, hop.peer);
    this.counters.event(counters.EVENT_ENCAPSULATED);
    const n = fragment(this.pool, p, this.pathMtu.lookup(hop.peerAddress, this.now), pieces);
    if (n === 0) return verdict.DROP_NO_BUFFER;
    this.counters.event(counters.EVENT_FRAGMENTED);
    this.counters.event(counters.EVENT_FRAGMENTS_SENT, n);
    for (let i = 0; i < n; i++) {
      const q = pieces[i];
      // As after every encapsulation, what was parsed is the inner packet's.
      q.l4 = q.off + l4;
      q.innerNetwork = q.off + tunnel.overhead;
      const v = this.sendToNeighbor(q, hop.gateway, uplink);
      if (v !== TAKEN) this.drop(q, v);
    }
    this.pool.release(p);
    return TAKEN;
  }

  // ---------------------------------------------------------------- 11. next hop

  private sendToNeighbor(p: Packet, address: number, uplink: Port): number {
    const { neighbors } = this;
    p.push(ethernet.HEADER_LEN);
    const n = neighbors.resolve(address, this.now);
    if (n < 0) return verdict.DROP_NEIGHBOR_TABLE_FULL;
    if (!neighbors.usable(n)) return neighbors.hold(n, p);
    neighbors.writeHeader(n, p.off);
    uplink.queue(p);
    return TAKEN;
  }

  // NeighborEvents: what the neighbour table asks of us.

  /** A frame of the neighbour table's own, or one that it held until its next hop was known. */
  transmit(p: Packet): void {
    if (this.uplink === null) this.drop(p, verdict.DROP_NO_PORT);
    else this.uplink.queue(p);
  }

  release(p: Packet, reason: number): void {
    this.drop(p, reason);
  }

  /** ReassemblyEvents: a datagram for the tunnel stayed incomplete; `first` is only lent. */
  timeout(first: Packet): void {
    this.answer(first, icmp.TIME_EXCEEDED, icmp.CODE_REASSEMBLY, 0);
  }

  /** The next hop of a held packet never answered: its sender hears of it, as from Linux. */
  unreachable(p: Packet): void {
    p.pull(ethernet.HEADER_LEN);
    if (this.takeOffTunnel(p)) this.answer(p, icmp.UNREACHABLE, icmp.CODE_HOST_UNREACHABLE, 0);
    this.drop(p, verdict.DROP_NEIGHBOR_UNREACHABLE);
  }

  /**
   * Moves a packet that has been encapsulated back to the inner one, which alone its sender knows; any other stays. By what
   * the packet says of itself: the tunnel may be another by now.
   * @returns false for a piece of a tunnel packet with too little of the inner one to quote
   */
  private takeOffTunnel(p: Packet): boolean {
    const { view } = this;
    // Parsed fields are those of the inner packet: if the header in front is not that of `l4`, it is the tunnel's.
    if ((p.fragment & ipv4.OFFSET_MASK) !== 0 || p.off + ipv4.headerLen(view, p.off) === p.l4) return true;
    const isCut = (view.getUint16(p.off + ipv4.FLAGS_FRAGMENT) & ipv4.FLAG_MF) !== 0;
    if (isCut && p.off + p.len < p.l4 + QUOTED_PAYLOAD) return false;
    p.pull(p.innerNetwork - p.off);
    p.fragment = view.getUint16(p.off + ipv4.FLAGS_FRAGMENT);
    return true;
  }

  // ---------------------------------------------------------------- ICMP of our own

  /** Sends an error about `p` to its sender, if the rules allow one. `p` stays the caller's. */
  private answer(p: Packet, type: number, code: number, info: number): void {
    if (!mayAnswer(this.view, p)) return;
    if (!this.limiter.allow(type, code, p.src, this.now)) {
      this.counters.drop(verdict.DROP_ICMP_RATE_LIMIT, 0);
      return;
    }
    const e = buildIcmpError(this.pool, p, type, code, info, this.errorSource(p));
    if (e === null) return;
    e.inPort = p.inPort;
    e.identity = IDENTITY_REMOTE_NODE;
    this.counters.event(
      type === icmp.TIME_EXCEEDED
        ? counters.EVENT_ICMP_TIME_EXCEEDED_SENT
        : code === icmp.CODE_FRAG_NEEDED
          ? counters.EVENT_ICMP_FRAG_NEEDED_SENT
          : counters.EVENT_ICMP_UNREACHABLE_SENT,
    );
    const v = this.forward(e);
    if (v !== TAKEN) this.drop(e, v);
  }

  /** An address that the sender can reach, and that its kernel does not take for its own (RFC 1812 section 4.3.2.4). */
  private errorSource(p: Packet): number {
    const port = this.ports[p.inPort];
    if (port.kind === PORT_HOST) return p.dst;
    if (port.kind === PORT_UPLINK && p.tunnelSource === 0) return this.underlay.address;
    return this.hostAddress;
  }

  /** The node still answers ping to an address of its own that is at no host port: there is none, or the address is not its. */
  private answerEcho(p: Packet): number {
    const { view } = this;
    const isPart = ipv4.isFragment(p.fragment);
    if (p.protocol !== ipv4.PROTO_ICMP || isPart || view.getUint8(p.l4 + icmp.TYPE) !== icmp.ECHO) {
      return verdict.DROP_NO_HOST_PORT;
    }
    turnEcho(view, p);
    p.identity = IDENTITY_REMOTE_NODE;
    this.counters.event(counters.EVENT_ICMP_ECHO_ANSWERED);
    return this.forward(p);
  }
}

/** No flow could be made, for want of a port or of a place in the table. */
function isOutOfResources(v: number): boolean {
  return (
    v === verdict.DROP_NAT_PORTS_EXHAUSTED || v === verdict.DROP_CT_TABLE_FULL || v === verdict.DROP_CT_SOURCE_QUOTA
  );
}

/**
 * What becomes of one packet on its path. The nodes are whole datapaths in memory (drive/sim.ts), so whatever happens at a
 * node is what its path does; only the underlay between them is played here, as its stretches say.
 */
import { EVENT_ICMP_FRAG_NEEDED_SENT } from '../counters.ts';
import { Sim, type SimNode } from '../drive/sim.ts';
import { BURST } from '../forward.ts';
import { arpFrame, dotted, fragmentAll, icmpError, ipv4 as ipv4Packet } from '../packet/build.ts';
import { PORT_UPLINK } from '../port.ts';
import * as hops from '../route/nexthop.ts';
import * as arp from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Network, ProvedNode, ProvedPod, Stretch } from './network.ts';
import type { Leg, Path } from './path.ts';

/** A packet that was cut on the way. */
export interface Cut {
  by: string;
  /** The pod's packet, put together by the receiver; or the tunnel's, put together at its exit. */
  where: 'inner' | 'outer';
  pieces: number;
  /** Who puts it together. */
  joinedBy: string;
}

/** A router's "fragmentation needed" about a tunnel packet, which cost that packet. */
export interface Lesson {
  router: string;
  mtu: number;
  node: string;
}

export type Ending =
  | { kind: 'delivered'; cuts: Cut[]; lessons: Lesson[] }
  /** The sender is told `mtu`. */
  | { kind: 'signalled'; by: string; mtu: number; lessons: Lesson[] }
  /** Nobody is told. `dropped`: by whom; null where the wire loses it. */
  | { kind: 'lost'; at: string; dropped: string | null; icmpLostAt: string | null; carriedBy: Stretch['carriedBy'] };

type Lost = Extract<Ending, { kind: 'lost' }>;
type Attempt =
  | { kind: 'delivered'; cuts: Cut[] }
  | { kind: 'signalled'; by: string; mtu: number }
  | Lost
  | { kind: 'learns'; node: ProvedNode; router: string; stretch: Stretch };

/** Nodes in memory at once, some MB each; the one that was used longest ago makes room. */
const MAX_NODES = 400;
/** Packets of the pool beyond the burst of each node: what they hold and cut. */
const SLOTS = 2048;
/** Path MTUs and fragments are forgotten by then. */
const FORGET_MS = 700_000;
/** The experimental one of RFC 3692: no node looks behind its header. */
const PROTOCOL = 253;
const SHORTEST = ipv4.HEADER_LEN + 8;
/** Source of what routers say; TEST-NET-3. */
const ROUTER = '203.0.113.1';
/** RFC 1812 section 4.3.2.3: an error is no longer than 576 bytes. */
const QUOTED = 576 - ipv4.HEADER_LEN - icmp.HEADER_LEN;
/** First bytes of the MAC of every neighbour; the others are its address. */
const NEIGHBOR_MAC = 0x0201;
/** Nodes that an error passes at most; by then it goes in circles. */
const MAX_BACK = 8;

interface Station {
  node: ProvedNode;
  sim: SimNode;
  uplink: string;
  /** Errors that it had sent when it got its last packet. */
  errors: number;
}

export class Walker {
  private readonly network: Network;
  private readonly sim: Sim;
  /** The one used last at the end. */
  private readonly stations = new Map<ProvedNode, Station>();
  /** Of the last path and sender, by length and DF: a case asks for some twice. */
  private endings = new Map<string, Ending>();
  private endingsOf: { path: Path; sender: ProvedPod } | null = null;

  constructor(network: Network) {
    this.network = network;
    this.sim = new Sim({ slots: Math.min(network.nodes.length, MAX_NODES) * BURST + SLOTS });
  }

  /**
   * What becomes of a packet once the nodes on its path have learnt what there is to learn: what that cost is in `lessons`.
   * @param path one that is not broken
   */
  walk(path: Path, sender: ProvedPod, len: number, df: boolean): Ending {
    if (path !== this.endingsOf?.path || sender !== this.endingsOf.sender) {
      this.endingsOf = { path, sender };
      this.endings = new Map();
    }
    const key = `${len} ${df}`;
    const ending = this.endings.get(key) ?? this.send(path, sender, len, df);
    this.endings.set(key, ending);
    return ending;
  }

  private send(path: Path, sender: ProvedPod, len: number, df: boolean): Ending {
    const receiver = path.pod;
    if (receiver === null) throw new RangeError(`no path: ${path.broken}`);
    const packet = ipv4Packet(PROTOCOL, new Uint8Array(Math.max(len, SHORTEST) - ipv4.HEADER_LEN), {
      src: dotted(sender.address),
      dst: dotted(receiver.address),
      fragment: df ? ipv4.FLAG_DF : 0,
    });
    const lessons: Lesson[] = [];
    let ending: Ending | null = null;
    let learntOf: Stretch | null = null;
    while (ending === null) {
      const attempt = this.attempt(path.legs, sender, receiver, packet);
      if (attempt.kind === 'lost') ending = attempt;
      else if (attempt.kind !== 'learns') ending = { ...attempt, lessons };
      else {
        const { node, router, stretch } = attempt;
        // Told twice: it has not learnt.
        if (stretch === learntOf) ending = lost(stretch.name, router, null, stretch.carriedBy);
        else lessons.push({ router, mtu: stretch.limit, node: node.name });
        learntOf = stretch;
      }
    }
    if (learntOf !== null || ending.kind === 'lost') this.forget(path.legs, sender, receiver);
    return ending;
  }

  private attempt(legs: readonly Leg[], sender: ProvedPod, receiver: ProvedPod, packet: Uint8Array): Attempt {
    const cuts: Cut[] = [];
    let pieces = 1;
    this.work(this.station(sender.node), sender.name, [packet]);
    for (const leg of legs) {
      const { node, to, hop } = leg;
      const station = this.station(node);
      const frames = this.sent(station);
      if (to === null) {
        const got = station.sim.collect(receiver.name).length;
        if (got < pieces) return this.refused(station, sender, frames);
        if (got > pieces) cuts.push({ by: node.name, where: 'inner', pieces: got, joinedBy: receiver.name });
        break;
      }
      const isTunnel = hop.kind === hops.HOP_TUNNEL;
      const [onward, back] = split(frames, isTunnel ? hop.peerAddress : receiver.address);
      const wholes = isTunnel ? onward.filter(beginsDatagram).length : onward.length;
      if (wholes < pieces) return this.refused(station, sender, back);
      if (wholes > pieces) cuts.push({ by: node.name, where: 'inner', pieces: wholes, joinedBy: receiver.name });
      pieces = wholes;
      const joinedBy = isTunnel ? to.name : receiver.name;
      if (onward.length > wholes) cuts.push({ by: node.name, where: 'outer', pieces: onward.length, joinedBy });

      let outer = onward;
      for (const stretch of leg.stretches) {
        const { limit, router, carriedBy } = stretch;
        const tooLong = outer.find(piece => piece.length > limit);
        if (tooLong === undefined) continue;
        if (router === null) return lost(stretch.name, null, null, carriedBy);
        if (hasDf(tooLong)) return this.answered(station, sender, isTunnel, tooLong, stretch, router);
        outer = outer.flatMap(piece => (piece.length > limit ? fragmentAll(piece, limit) : [piece]));
        cuts.push({ by: router, where: isTunnel ? 'outer' : 'inner', pieces: outer.length, joinedBy });
      }
      // The tunnel's own fragments are joined at its exit; a packet without a tunnel stays cut.
      if (!isTunnel) pieces = outer.length;
      this.arrive(this.station(to), outer);
    }
    return { kind: 'delivered', cuts };
  }

  /** A node has not sent all of it on. */
  private refused(station: Station, sender: ProvedPod, back: readonly Uint8Array[]): Attempt {
    const { name } = station.node;
    const answers = errorsOf(station) > station.errors;
    const end = this.carryBack(station, back);
    const mtu = this.told(sender);
    if (mtu > 0) return { kind: 'signalled', by: name, mtu };
    return lost(name, name, answers ? `${end} itself` : null);
  }

  /** A router does not send it on and answers; to whom the packet says it is from. */
  private answered(
    station: Station,
    sender: ProvedPod,
    isTunnel: boolean,
    packet: Uint8Array,
    stretch: Stretch,
    router: string,
  ): Attempt {
    const { name, limit, icmpLostAt, carriedBy } = stretch;
    if (icmpLostAt !== null) return lost(name, router, icmpLostAt, carriedBy);
    const error = icmpError(icmp.UNREACHABLE, icmp.CODE_FRAG_NEEDED, packet.subarray(0, QUOTED), {
      src: ROUTER,
      dst: dotted(addressAt(packet, ipv4.SRC)),
      mtu: limit,
    });
    const { node } = station;
    const to = isTunnel ? station : this.station(sender.node);
    this.arrive(to, [error]);
    const end = this.carryBack(to, this.sent(to));
    const mtu = this.told(sender);
    if (isTunnel) return { kind: 'learns', node, router, stretch };
    return mtu > 0 ? { kind: 'signalled', by: router, mtu } : lost(name, router, `${end} itself`, carriedBy);
  }

  /** Takes what a node sends back as far as it gets. @returns the node where that ends */
  private carryBack(from: Station, packets: readonly Uint8Array[]): string {
    let at = from;
    let left = packets;
    for (let passed = 0; left.length > 0 && passed < MAX_BACK; passed++) {
      const address = addressAt(left[0], ipv4.DST);
      const to = this.network.nodeAt(address) ?? this.network.podAt(address)?.node;
      if (to === undefined || to === at.node) break;
      const narrow = this.network.between(at.node, to).some(({ limit }) => left[0].length > limit);
      if (narrow) break;
      at = this.station(to);
      this.arrive(at, left);
      left = this.sent(at);
    }
    return at.node.name;
  }

  /** The MTU that the sender has been told of; 0: none. */
  private told(sender: ProvedPod): number {
    const got = this.station(sender.node)
      .sim.collect(sender.name)
      .map(({ bytes }) => bytes);
    const error = got.find(bytes => bytes[ipv4.PROTOCOL] === ipv4.PROTO_ICMP);
    return error === undefined ? 0 : viewOf(error).getUint16(ipv4.HEADER_LEN + icmp.NEXT_HOP_MTU);
  }

  // ---------------------------------------------------------------- nodes

  private station(node: ProvedNode): Station {
    let station = this.stations.get(node);
    if (station === undefined) {
      if (this.stations.size === MAX_NODES) this.remove(this.stations.keys().next().value as ProvedNode);
      // Sizes do not depend on policies and translation.
      const program = { ...node.program, nat: null, policy: null };
      const sim = this.sim.addNode(node.config, { program, uplink: 'queue' });
      const uplink = program.ports.find(({ kind }) => kind === PORT_UPLINK)!.name;
      station = { node, sim, uplink, errors: 0 };
    } else this.stations.delete(node);
    this.stations.set(node, station);
    return station;
  }

  private remove(node: ProvedNode): void {
    this.stations.delete(node);
    this.sim.removeNode(node.name);
  }

  private work(station: Station, port: string, packets: readonly Uint8Array[]): void {
    station.errors = errorsOf(station);
    for (const packet of packets) station.sim.inject(port, packet);
    station.sim.work();
  }

  /** IP packets come in by the uplink. */
  private arrive(station: Station, packets: readonly Uint8Array[]): void {
    const { macHi, macLo } = station.node.program.underlay;
    const frames = packets.map(packet => {
      const frame = new Uint8Array(ethernet.HEADER_LEN + packet.length);
      const view = viewOf(frame);
      ethernet.setMac(view, ethernet.DST, macHi, macLo);
      ethernet.setMac(view, ethernet.SRC, NEIGHBOR_MAC, 0);
      view.setUint16(ethernet.TYPE, ethernet.TYPE_IPV4);
      frame.set(packet, ethernet.HEADER_LEN);
      return frame;
    });
    this.work(station, station.uplink, frames);
  }

  /** The IP packets that a node has sent by its uplink, where every neighbour answers ARP. */
  private sent(station: Station): Uint8Array[] {
    const { sim, uplink, node } = station;
    const packets: Uint8Array[] = [];
    for (let isAsked = true; isAsked; ) {
      isAsked = false;
      for (const { bytes } of sim.collect(uplink)) {
        const packet = bytes.subarray(ethernet.HEADER_LEN);
        if (viewOf(bytes).getUint16(ethernet.TYPE) === ethernet.TYPE_IPV4) packets.push(packet);
        else if (addressAt(packet, arp.TPA) !== node.address) {
          isAsked = true;
          sim.inject(uplink, this.arpAnswer(node, addressAt(packet, arp.TPA)));
        }
      }
      if (isAsked) sim.work();
    }
    return packets;
  }

  private arpAnswer(node: ProvedNode, asked: number): Uint8Array {
    const sha = macText(NEIGHBOR_MAC, asked);
    const { macHi, macLo } = node.program.underlay;
    return arpFrame({
      oper: arp.REPLY,
      sha,
      spa: dotted(asked),
      tha: macText(macHi, macLo),
      tpa: dotted(node.address),
    });
  }

  /** Lets pass what the nodes remember path MTUs and fragments for. */
  private forget(legs: readonly Leg[], sender: ProvedPod, receiver: ProvedPod): void {
    this.sim.skip(FORGET_MS);
    for (const { node } of legs) {
      const station = this.station(node);
      station.sim.datapath.tick();
      this.carryBack(station, this.sent(station));
    }
    for (const pod of [sender, receiver]) this.station(pod.node).sim.collect(pod.name);
  }
}

function errorsOf({ sim }: Station): number {
  return sim.counters.events(EVENT_ICMP_FRAG_NEEDED_SENT);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function addressAt(packet: Uint8Array, at: number): number {
  return viewOf(packet).getInt32(at);
}

function hasDf(packet: Uint8Array): boolean {
  return (viewOf(packet).getUint16(ipv4.FLAGS_FRAGMENT) & ipv4.FLAG_DF) !== 0;
}

/** True for what is no fragment, or the first one. */
function beginsDatagram(packet: Uint8Array): boolean {
  return (viewOf(packet).getUint16(ipv4.FLAGS_FRAGMENT) & ipv4.OFFSET_MASK) === 0;
}

/** Packets to `destination`, and others. */
function split(packets: readonly Uint8Array[], destination: number): [to: Uint8Array[], others: Uint8Array[]] {
  const to: Uint8Array[] = [];
  const others: Uint8Array[] = [];
  for (const packet of packets) (addressAt(packet, ipv4.DST) === destination ? to : others).push(packet);
  return [to, others];
}

function macText(hi: number, lo: number): string {
  const digits = hi.toString(16).padStart(4, '0') + (lo >>> 0).toString(16).padStart(8, '0');
  return digits.replace(/..(?=.)/g, '$&:');
}

function lost(
  at: string,
  dropped: string | null,
  icmpLostAt: string | null = null,
  carriedBy: Stretch['carriedBy'] = null,
): Lost {
  return { kind: 'lost', at, dropped, icmpLostAt, carriedBy };
}

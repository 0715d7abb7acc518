/**
 * What is reasoned about: nodes as the datapath would have them (compiled routes, real tunnels), and the underlay between.
 * Nothing here knows a size of its own: overheads, MTUs and what a tunnel accepts are asked of the program's parts.
 */
import { contains } from '../control/address.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import type { SegmentConfig } from '../control/segment-config.ts';
import type { LinkConfig, UnderlayConfig } from '../control/underlay.ts';
import { parseAddress, parseCidr } from '../control/validated.ts';
import { Counters } from '../counters.ts';
import { usable } from '../nat/service.ts';
import { udp4 } from '../packet/build.ts';
import type { Packet } from '../packet/packet.ts';
import { parseIpv4 } from '../packet/parse.ts';
import { Pool } from '../packet/pool.ts';
import { PROFILES } from '../profile.ts';
import { compile } from '../program/compile.ts';
import { type Mtus, mtusOf, podMtuOf } from '../program/mtus.ts';
import { type HopProgram, type Program, portKey } from '../program/program.ts';
import { Random } from '../random.ts';
import { Tunnel } from '../tunnel/tunnel.ts';
import { CONTINUE, VERDICT_NAMES } from '../verdict.ts';
import { PrefixMap } from './prefix-map.ts';

export interface ProvedPod {
  name: string;
  /** portKey() */
  port: string;
  /** int32 */
  address: number;
  node: ProvedNode;
  /** Of its device, and of its default route: what its kernel lets an ordinary packet have. */
  deviceMtu: number;
  routeMtu: number;
}

/** A service port as the node's clients see it. */
export interface ProvedService {
  name: string;
  /** The cluster address, int32; 0 if it has none. */
  address: number;
  /** Addresses of the backends that a new flow from a pod may get. */
  backends: number[];
}

export interface ProvedNode {
  name: string;
  config: ResolvedConfig;
  program: Program;
  mtus: Mtus;
  /** Underlay address, int32. */
  address: number;
  routes: PrefixMap<HopProgram>;
  /** By name. */
  tunnels: Map<string, Tunnel>;
  pods: ProvedPod[];
  services: ProvedService[];
}

/** One stretch of the underlay. What is too long for it never gets further whole. */
export interface Stretch {
  /** `link r-b`, `interface of b` */
  name: string;
  /** Longest IP packet that it carries. */
  limit: number;
  /** Who cuts a packet in front of it or answers for it; null: nobody, it is lost without a word. */
  router: string | null;
  /** Why an answer would not come back; null: it does. */
  icmpLostAt: string | null;
  /** Set where the limit is what a carrier leaves. */
  carriedBy: { protocol: string; overhead: number; of: number } | null;
}

/** Slots for a packet on its way in and out of two tunnels. */
const SLOTS = 4;
const IDENTITY = 1;
const SMALL = udp4({ src: '10.0.0.1', dst: '10.0.0.2' });
const UNCOUNTED = new Counters();

export class Network {
  readonly nodes: ProvedNode[];
  private readonly byAddress = new Map<number, ProvedNode>();
  private readonly podsByAddress = new Map<number, ProvedPod>();
  private readonly neighbors = new Map<string, { to: string; link: LinkConfig }[]>();
  private readonly pool = new Pool(SLOTS);
  private readonly segments = new Map<string, SegmentConfig>();
  private readonly stretches = new Map<string, Stretch[]>();
  private readonly acceptance = new Map<string, string | null>();

  /** @param configs of nodes with different names and underlay addresses (checked by load.ts) */
  constructor(
    configs: readonly ResolvedConfig[],
    underlays: readonly UnderlayConfig[],
    segments: readonly SegmentConfig[] = [],
  ) {
    for (const segment of segments) this.segments.set(segment.metadata.name, segment);
    this.nodes = configs.map(config => makeNode(config, this.pool));
    for (const node of this.nodes) {
      this.byAddress.set(node.address, node);
      for (const pod of node.pods) this.podsByAddress.set(pod.address, pod);
    }
    for (const link of underlays.flatMap(({ spec }) => spec.links)) {
      const [a, b] = link.between;
      for (const [from, to] of [
        [a, b],
        [b, a],
      ]) {
        const known = this.neighbors.get(from);
        if (known === undefined) this.neighbors.set(from, [{ to, link }]);
        else known.push({ to, link });
      }
    }
  }

  nodeAt(underlayAddress: number): ProvedNode | undefined {
    return this.byAddress.get(underlayAddress);
  }

  podAt(address: number): ProvedPod | undefined {
    return this.podsByAddress.get(address);
  }

  /** The underlay from one node to another, in order, the receiver's interface last. */
  between(from: ProvedNode, to: ProvedNode): Stretch[] {
    const key = `${from.name} ${to.name}`;
    let stretches = this.stretches.get(key);
    if (stretches === undefined) {
      stretches = this.described(from, to) ?? this.onSegment(from, to) ?? [this.assumed(from, to)];
      this.stretches.set(key, stretches);
    }
    return stretches;
  }

  /** By the links of the Underlay documents; undefined where they do not join the two. */
  private described(from: ProvedNode, to: ProvedNode): Stretch[] | undefined {
    const way = this.shortestWay(from.name, to.name);
    if (way === undefined) return undefined;
    const stretches: Stretch[] = [];
    let lostAt: string | null = null;
    let near = from.name;
    for (const { to: far, link } of way) {
      const name = `link ${near}-${far}`;
      if (link.icmp === 'filtered') lostAt ??= name;
      // A node sends what its interface takes; a link that takes less has its router somewhere behind the node's port.
      const router = this.nodes.some(node => node.name === near) ? `a router on ${name}` : near;
      const { carriedBy, mtu } = link;
      stretches.push({
        name,
        limit: mtu - (carriedBy?.overhead ?? 0),
        router: link.layer === 3 ? router : null,
        icmpLostAt: lostAt,
        carriedBy: carriedBy === undefined ? null : { ...carriedBy, of: mtu },
      });
      near = far;
    }
    stretches.push(interfaceOf(to));
    return stretches;
  }

  private shortestWay(from: string, to: string): { to: string; link: LinkConfig }[] | undefined {
    const cameBy = new Map<string, { from: string; step: { to: string; link: LinkConfig } }>();
    const queue = [from];
    for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
      for (const step of this.neighbors.get(at) ?? []) {
        if (step.to === from || cameBy.has(step.to)) continue;
        cameBy.set(step.to, { from: at, step });
        // A node is an end: the underlay's packets do not go through it.
        if (!this.nodes.some(node => node.name === step.to)) queue.push(step.to);
      }
    }
    const way: { to: string; link: LinkConfig }[] = [];
    for (let at = to; at !== from; ) {
      const came = cameBy.get(at);
      if (came === undefined) return undefined;
      way.unshift(came.step);
      at = came.from;
    }
    return way;
  }

  /** By the Segment document that both are on; undefined where there is none. What is too long for it is lost without a word. */
  private onSegment(from: ProvedNode, to: ProvedNode): Stretch[] | undefined {
    const { kind, device } = from.config.spec.uplink;
    const other = to.config.spec.uplink;
    const segment = this.segments.get(device);
    if (segment === undefined || kind !== 'segment' || other.kind !== 'segment' || other.device !== device) {
      return undefined;
    }
    const { mtu, impairments, ports } = segment.spec;
    const sent = ports.find(({ node }) => node === from.name)?.from?.mtu ?? 0;
    const got = ports.find(({ node }) => node === to.name)?.to?.mtu ?? 0;
    const limit = Math.min(...[mtu, impairments.mtu, sent, got].filter(bytes => bytes > 0));
    return [{ name: `segment ${device}`, limit, router: null, icmpLostAt: null, carriedBy: null }, interfaceOf(to)];
  }

  /** Without a description: one wire inside a subnet; between subnets routers whose last leg is as wide as the receiver. */
  private assumed(from: ProvedNode, to: ProvedNode): Stretch {
    const subnet = parseCidr(from.config.spec.uplink.address);
    if (contains(subnet, to.address)) return interfaceOf(to);
    return { ...interfaceOf(to), name: `the way to ${to.name}`, router: 'the router between' };
  }

  /**
   * Whether `to` takes what `from` sends it into the tunnel of a next hop, asked of the tunnels of both with a small packet.
   * @returns null, or the drop reason
   */
  refusal(from: ProvedNode, hop: HopProgram, to: ProvedNode): string | null {
    const key = `${from.name} ${hop.tunnel} ${to.name}`;
    let reason = this.acceptance.get(key);
    if (reason === undefined) {
      reason = this.tryTunnel(from, hop, to);
      this.acceptance.set(key, reason);
    }
    return reason;
  }

  private tryTunnel(from: ProvedNode, hop: HopProgram, to: ProvedNode): string | null {
    if (to.tunnels.size === 0) return 'no tunnel';
    const p = this.packet(SMALL);
    this.encapsulate(from, hop, p);
    parseIpv4(this.pool.view, p);
    let reason: string | null = 'another protocol or port';
    for (const tunnel of to.tunnels.values()) {
      if (reason === null || !tunnel.matches(p)) continue;
      const verdict = tunnel.decap(p);
      reason = verdict === CONTINUE ? null : VERDICT_NAMES[verdict];
    }
    this.pool.release(p);
    return reason;
  }

  /** What `node` makes of a packet that it sends into the tunnel of a next hop. */
  encapsulated(node: ProvedNode, hop: HopProgram, inner: Uint8Array): Uint8Array {
    const p = this.packet(inner);
    this.encapsulate(node, hop, p);
    const outer = this.pool.bytes.slice(p.off, p.off + p.len);
    this.pool.release(p);
    return outer;
  }

  private encapsulate(node: ProvedNode, { tunnel, peerAddress }: HopProgram, p: Packet): void {
    p.identity = IDENTITY;
    const taken = node.tunnels.get(tunnel);
    taken?.encap(p, taken.findPeer(peerAddress));
  }

  private packet(bytes: Uint8Array): Packet {
    const p = this.pool.take();
    if (p === null) throw new RangeError('a packet was not given back');
    this.pool.bytes.set(bytes, p.off);
    p.len = bytes.length;
    parseIpv4(this.pool.view, p);
    return p;
  }
}

/** What comes in at a node: its device takes no more than its MTU, and answers nothing. */
function interfaceOf(node: ProvedNode): Stretch {
  const limit = node.config.spec.uplink.mtu;
  return { name: `interface of ${node.name}`, limit, router: null, icmpLostAt: null, carriedBy: null };
}

function makeNode(config: ResolvedConfig, pool: Pool): ProvedNode {
  const { spec } = config;
  const program = compile(config);
  const mtus = mtusOf(config);
  const routes = new PrefixMap<HopProgram>();
  for (const { prefix, length, hop } of program.routes) routes.set(prefix, length, program.nextHops[hop]);
  const profile = PROFILES[program.profile];
  const node: ProvedNode = {
    name: config.metadata.name,
    config,
    program,
    mtus,
    address: program.underlay.address,
    routes,
    tunnels: new Map(
      program.tunnels.map(spec => [spec.name, new Tunnel(spec, profile, pool.view, UNCOUNTED, new Random(1))]),
    ),
    pods: [],
    services: servicesOf(program),
  };
  node.pods = spec.pods.map((pod, i) => {
    const { device, route } = podMtuOf(pod, mtus);
    return {
      name: pod.name,
      port: portKey(program.ports[i]),
      address: parseAddress(pod.address),
      node,
      deviceMtu: device,
      routeMtu: route,
    };
  });
  return node;
}

/** Services by their cluster addresses, with the backends of all their ports. */
function servicesOf({ nat }: Program): ProvedService[] {
  return (nat?.services ?? []).map(service => {
    const local = service.internalTrafficPolicy === 'Local';
    const backends = new Set<number>();
    for (const { endpoints } of service.ports) {
      const candidates = local ? endpoints.filter(endpoint => endpoint.local) : endpoints;
      for (const { address } of usable(candidates)) backends.add(address);
    }
    return { name: service.name, address: service.clusterAddresses[0] ?? 0, backends: [...backends] };
  });
}

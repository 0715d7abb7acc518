/** From a node's configuration, in words, to the datapath's program, in numbers. Pure: no device is touched. */
import { IDENTITY_REMOTE_NODE, IDENTITY_WORLD, PORT_HOST, PORT_POD, PORT_UPLINK } from '../port.ts';
import { type EcnVariant, type OuterHeader, PROFILES } from '../profile.ts';
import type { PortProgram, Program } from '../program.ts';
import type { NextHop, Route } from '../route/nexthop.ts';
import * as hops from '../route/nexthop.ts';
import { overheadOf } from '../tunnel/overhead.ts';
import { type GeneveOption, TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN, type TunnelSpec } from '../tunnel/spec.ts';
import * as ethernet from '../wire/ethernet.ts';
import { type Cidr, contains } from './address.ts';
import { compileNat } from './compile-nat.ts';
import type { GeneveOptionConfig } from './config.ts';
import type { ResolvedConfig, ResolvedUplink } from './resolved.ts';
import { parseAddress, parseCidr, parseMac } from './validated.ts';

const PROTOCOLS = { none: 0, ipip: TUNNEL_IPIP, vxlan: TUNNEL_VXLAN, geneve: TUNNEL_GENEVE } as const;

/** Destinations that never leave a host (RFC 6890): whatever the default route says, the answer is no. */
const NEVER_ROUTED = ['0.0.0.0/8', '127.0.0.0/8'];

const NO_MAC = { hi: 0, lo: 0 };

/** MTUs that follow from the uplink's and the tunnel's. */
export interface Mtus {
  /** What a packet may have that goes into the tunnel; the uplink's own without a tunnel. */
  tunnel: number;
  /** Of the pods' devices. */
  device: number;
  /** Of the pods' default route, where it is lower than the device's; else 0. */
  route: number;
}

/** Bytes that a tunnel as configured adds to a packet; 0 for none. */
export function configuredOverhead(tunnel: {
  protocol: keyof typeof PROTOCOLS;
  options?: readonly GeneveOptionConfig[];
}): number {
  const { protocol, options = [] } = tunnel;
  if (protocol === 'none') return 0;
  return overheadOf({ protocol: PROTOCOLS[protocol], options: options.map(compileOption) });
}

export function mtusOf(config: ResolvedConfig): Mtus {
  const { uplink, tunnel, profile, mtu } = config.spec;
  const inner = uplink.mtu - configuredOverhead(tunnel);
  // Where the tunnel cuts what is too long, pods need not know of it.
  if (mtu.tooBig.startsWith('fragment')) return { tunnel: inner, device: uplink.mtu, route: 0 };
  if (mtu.tooBig === 'larger-underlay') return { tunnel: inner, device: Math.min(inner, ethernet.MTU), route: 0 };
  const perRoute = PROFILES[profile].mtuAt === 'route';
  return {
    tunnel: inner,
    device: perRoute ? uplink.mtu : inner,
    route: perRoute && inner < uplink.mtu ? inner : 0,
  };
}

/** What a pod's kernel is told: the MTU of its device, and that of its default route, which is the smaller one where they differ. */
export function podMtuOf(pod: { mtu?: number }, mtus: Mtus): { device: number; route: number } {
  const device = pod.mtu ?? mtus.device;
  return { device, route: mtus.route > 0 ? Math.min(mtus.route, device) : device };
}

/** Compiles a configuration that loadConfig has accepted, its uplink resolved. Port order: pods, host, uplink. */
export function compile(config: ResolvedConfig): Program {
  const { spec } = config;
  const uplinkNet = parseCidr(spec.uplink.address);
  const mac = parseMac(spec.uplink.mac);
  const mtus = mtusOf(config);
  const hostAddress = spec.host === undefined ? uplinkNet.address : parseCidr(spec.host.address).address;

  const ports: PortProgram[] = spec.pods.map(pod => ({
    kind: PORT_POD,
    name: pod.name,
    addresses: [parseCidr(pod.address).address],
    networks: pod.networks.map(network => {
      const { prefix, length } = parseCidr(network);
      return { address: prefix, length };
    }),
    identity: pod.identity ?? 0,
  }));
  if (spec.host !== undefined) {
    const addresses = spec.uplink.onHostPort ? [hostAddress, uplinkNet.address] : [hostAddress];
    ports.push({ kind: PORT_HOST, name: spec.host.device, addresses, identity: IDENTITY_REMOTE_NODE });
  }
  ports.push({ kind: PORT_UPLINK, name: spec.uplink.device, addresses: [uplinkNet.address], identity: IDENTITY_WORLD });

  const table = new RouteBuilder();
  const uplinkPort = ports.length - 1;
  const tunnel = compileTunnel(config, uplinkNet.address);
  const underlay = new UnderlayRoutes(config, uplinkNet);

  for (const never of NEVER_ROUTED) table.add(parseCidr(never), hops.nextHop(hops.HOP_REFUSE));
  if (uplinkNet.length < 31) {
    // Directed broadcasts are nobody's neighbour.
    const size = 2 ** (32 - uplinkNet.length);
    table.add({ ...uplinkNet, prefix: uplinkNet.prefix, length: 32 }, hops.nextHop(hops.HOP_REFUSE));
    table.add({ ...uplinkNet, prefix: (uplinkNet.prefix + size - 1) | 0, length: 32 }, hops.nextHop(hops.HOP_REFUSE));
  }
  if (uplinkNet.length < 32) {
    table.add(uplinkNet, hops.nextHop(hops.HOP_ONLINK, { port: uplinkPort, mtu: spec.uplink.mtu }));
  }
  if (spec.uplink.gateway !== undefined && spec.uplink.kernelMac === undefined) {
    const gateway = parseAddress(spec.uplink.gateway);
    const hop = hops.nextHop(hops.HOP_GATEWAY, { port: uplinkPort, gateway, mtu: spec.uplink.mtu });
    table.add(parseCidr('0.0.0.0/0'), hop);
  }
  const host = hops.nextHop(hops.HOP_HOST, { transit: 1 });
  for (const route of spec.routes) {
    const to = parseCidr(route.to);
    const via = parseAddress(route.via);
    if (!route.encap && via === hostAddress) {
      table.add(to, { ...host, gateway: via });
      continue;
    }
    const tooBig = route.tooBig ?? spec.mtu.tooBig;
    // A tunnel whose own packets are cut takes any that IPv4 can count with the tunnel's headers on.
    const cutOutside = route.encap && tooBig === 'fragment-outer';
    const widest = cutOutside ? 65535 - configuredOverhead(spec.tunnel) : route.encap ? mtus.tunnel : spec.uplink.mtu;
    const hop = hops.nextHop(route.encap ? hops.HOP_TUNNEL : hops.HOP_GATEWAY, {
      port: uplinkPort,
      gateway: underlay.neighborFor(via),
      mtu: Math.min(route.mtu ?? 65535, widest),
      transit: to.length > 0 ? 1 : 0,
    });
    if (route.encap || route.tooBig !== undefined) hop.tooBig = hops.TOO_BIG_NAMES.indexOf(tooBig);
    if (route.encap) {
      hop.peer = tunnel?.peers.findIndex(peer => peer.address === via) ?? -1;
      hop.peerAddress = via;
    }
    table.add(to, hop);
  }
  table.add({ ...uplinkNet, prefix: uplinkNet.address, length: 32 }, host);
  if (spec.host !== undefined) table.add({ ...uplinkNet, prefix: hostAddress, length: 32 }, host);
  spec.pods.forEach((pod, port) => {
    const mtu = podMtuOf(pod, mtus).device;
    for (const to of [pod.address, ...pod.networks]) {
      table.add(parseCidr(to), hops.nextHop(hops.HOP_POD, { port, mtu, transit: 1 }));
    }
  });
  if (spec.mtu.clampMss) for (const hop of table.nextHops) hop.clampMss = 1;

  return {
    profile: spec.profile,
    underlay: {
      address: uplinkNet.address,
      prefixLength: uplinkNet.length,
      macHi: mac.hi,
      macLo: mac.lo,
      mtu: spec.uplink.mtu,
    },
    hostAddress,
    ports,
    routes: table.routes(),
    nextHops: table.nextHops,
    tunnel,
    neighbors: permanentNeighbors(spec.uplink),
    nat: compileNat(config, uplinkNet.address, spec.uplink.ports),
  };
}

function permanentNeighbors({ gateway, kernelMac }: ResolvedUplink): Program['neighbors'] {
  if (gateway === undefined || kernelMac === undefined) return [];
  const { hi, lo } = parseMac(kernelMac);
  return [{ address: parseAddress(gateway), macHi: hi, macLo: lo }];
}

/** Collects routes; a later one replaces an earlier one to the same prefix; equal next hops are shared. */
class RouteBuilder {
  readonly nextHops: NextHop[] = [hops.nextHop(hops.HOP_REFUSE)];
  private readonly byPrefix = new Map<string, Route>();
  private readonly byHop = new Map<string, number>();

  add(to: Pick<Cidr, 'prefix' | 'length'>, hop: NextHop): void {
    const key = JSON.stringify(hop);
    let index = this.byHop.get(key);
    if (index === undefined) {
      index = this.nextHops.push(hop) - 1;
      this.byHop.set(key, index);
    }
    this.byPrefix.set(`${to.prefix}/${to.length}`, { prefix: to.prefix, length: to.length, hop: index });
  }

  routes(): Route[] {
    return [...this.byPrefix.values()];
  }
}

/** Who on the uplink leads to an address of the underlay. */
class UnderlayRoutes {
  private readonly subnet: Cidr;
  private readonly gateway: number | undefined;
  private readonly routes: { to: Cidr; via: number }[];

  constructor(config: ResolvedConfig, subnet: Cidr) {
    const { uplink, routes, host } = config.spec;
    const hostAddress = host?.address.split('/')[0];
    this.subnet = subnet;
    this.gateway = uplink.gateway === undefined ? undefined : parseAddress(uplink.gateway);
    this.routes = routes
      .filter(route => !route.encap && route.via !== hostAddress)
      .map(route => ({ to: parseCidr(route.to), via: parseAddress(route.via) }))
      .sort((a, b) => b.to.length - a.to.length);
  }

  /** The neighbour to hand a packet for `address` to; `address` itself where it is on the subnet. */
  neighborFor(address: number): number {
    let at = address;
    // A chain of gateways can be no longer than the list of routes.
    for (let i = 0; i <= this.routes.length; i++) {
      if (contains(this.subnet, at) || at === this.gateway) return at;
      const route = this.routes.find(candidate => contains(candidate.to, at));
      const next = route?.via ?? this.gateway;
      if (next === undefined || next === at) return at;
      at = next;
    }
    return at;
  }
}

function compileTunnel(config: ResolvedConfig, localAddress: number): TunnelSpec | null {
  const { tunnel } = config.spec;
  if (tunnel.protocol === 'none') return null;
  const mac = tunnel.mac === undefined ? NO_MAC : parseMac(tunnel.mac);
  return {
    protocol: PROTOCOLS[tunnel.protocol],
    port: tunnel.port ?? 0,
    vni: tunnel.vni === 'identity' ? -1 : (tunnel.vni ?? 0),
    localAddress,
    localMacHi: mac.hi,
    localMacLo: mac.lo,
    peers: tunnel.peers.map(peer => {
      const { hi, lo } = 'mac' in peer && peer.mac !== undefined ? parseMac(peer.mac) : NO_MAC;
      return { address: parseAddress(peer.address), macHi: hi, macLo: lo };
    }),
    acceptAny: tunnel.acceptFrom === 'any',
    outer: outerOf(config),
    ...(tunnel.ecn === undefined ? {} : { ecnEncap: tunnel.ecn, ecnDecap: tunnel.ecn }),
    options: (tunnel.options ?? []).map(compileOption),
  };
}

const DF = { clear: 0, set: 1, inherit: 'inherit' } as const;

/** What the configuration says of the outer header instead of the profile. */
function outerOf({ spec: { tunnel, mtu, routes } }: ResolvedConfig): Partial<OuterHeader> {
  const cuts =
    mtu.tooBig === 'fragment-outer' || routes.some(route => route.encap && route.tooBig === 'fragment-outer');
  // Cut by us or by a router on the way: with DF only the first of these could be.
  const df = tunnel.df ?? (cuts ? 'clear' : undefined);
  return {
    ...(df === undefined ? {} : { df: DF[df] }),
    ...(tunnel.ttl === undefined ? {} : { ttl: tunnel.ttl }),
    ...(tunnel.dscp === undefined ? {} : { dscp: tunnel.dscp }),
    ...(tunnel.udpChecksum === undefined ? {} : { udpChecksum: tunnel.udpChecksum }),
  };
}

/** The outer header as it is sent: the profile's, with what the configuration says instead. Undefined without a tunnel. */
export function outerHeaderOf(config: ResolvedConfig): (OuterHeader & { ecn: EcnVariant }) | undefined {
  const { tunnel, profile } = config.spec;
  if (tunnel.protocol === 'none') return undefined;
  const habits = PROFILES[profile];
  return { ...habits[tunnel.protocol], ...outerOf(config), ecn: tunnel.ecn ?? habits.ecnEncap };
}

function compileOption(option: GeneveOptionConfig): GeneveOption {
  return { optionClass: option.class, type: option.type, data: [...Buffer.from(option.data, 'hex')] };
}

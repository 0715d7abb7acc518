/** From a node's configuration, in words, to the datapath's program, in numbers. Pure: no device is touched. */

import { type Cidr, contains } from '../control/address.ts';
import type { PodConfig } from '../control/config.ts';
import type { ResolvedConfig, ResolvedUplink } from '../control/resolved.ts';
import { parseAddress, parseCidr, parseMac } from '../control/validated.ts';
import { IDENTITY_REMOTE_NODE, IDENTITY_WORLD, PORT_HOST, PORT_POD, PORT_UPLINK } from '../port.ts';
import type { Route } from '../route/nexthop.ts';
import * as hops from '../route/nexthop.ts';
import { compileNat } from './compile-nat.ts';
import { compilePolicy } from './compile-policy.ts';
import { compileTunnel } from './compile-tunnel.ts';
import { innerMtu, mtusOf, podMtuOf } from './mtus.ts';
import { type HopProgram, hopKey, hopProgram, type PortProgram, type Program, portKey } from './program.ts';

/** Destinations that never leave a host (RFC 6890): whatever the default route says, the answer is no. */
const NEVER_ROUTED = ['0.0.0.0/8', '127.0.0.0/8'];

/** What makes the device of a pod another one. */
function placeOf({ netns, device, kind, mac, app }: PodConfig): string {
  if (kind === 'memory') return `memory ${app}`;
  return kind === 'tun' ? `${netns}/${device}` : `${kind} ${netns}/${device} ${mac ?? ''}`;
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
    mark: pod.mark,
    place: placeOf(pod),
    ...(pod.mac === undefined ? {} : { mac: parseMac(pod.mac) }),
  }));
  if (spec.host !== undefined) {
    const { onHostPort, ofKernel = false } = spec.uplink;
    const addresses = onHostPort || ofKernel ? [hostAddress, uplinkNet.address] : [hostAddress];
    ports.push({
      kind: PORT_HOST,
      name: spec.host.device,
      addresses,
      identity: IDENTITY_REMOTE_NODE,
      place: spec.host.netns ?? '',
    });
  }
  const uplinkPort: PortProgram = {
    kind: PORT_UPLINK,
    name: spec.uplink.device,
    addresses: [uplinkNet.address],
    identity: IDENTITY_WORLD,
    place: '',
  };
  ports.push(uplinkPort);

  const table = new RouteBuilder();
  const byUplink = portKey(uplinkPort);
  const underlay = new UnderlayRoutes(config, uplinkNet);

  for (const never of NEVER_ROUTED) table.add(parseCidr(never), hopProgram(hops.HOP_REFUSE));
  if (uplinkNet.length < 31) {
    // Directed broadcasts are nobody's neighbour.
    const size = 2 ** (32 - uplinkNet.length);
    table.add({ ...uplinkNet, prefix: uplinkNet.prefix, length: 32 }, hopProgram(hops.HOP_REFUSE));
    table.add({ ...uplinkNet, prefix: (uplinkNet.prefix + size - 1) | 0, length: 32 }, hopProgram(hops.HOP_REFUSE));
  }
  if (uplinkNet.length < 32) {
    table.add(uplinkNet, hopProgram(hops.HOP_ONLINK, { port: byUplink, mtu: spec.uplink.mtu }));
  }
  if (spec.uplink.gateway !== undefined && spec.uplink.kernelMac === undefined) {
    const gateway = parseAddress(spec.uplink.gateway);
    const hop = hopProgram(hops.HOP_GATEWAY, { port: byUplink, gateway, mtu: spec.uplink.mtu });
    table.add(parseCidr('0.0.0.0/0'), hop);
  }
  const host = hopProgram(hops.HOP_HOST, { transit: 1 });
  for (const route of spec.routes) {
    const to = parseCidr(route.to);
    const via = parseAddress(route.via);
    if (!route.encap && via === hostAddress) {
      table.add(to, { ...host, gateway: via });
      continue;
    }
    const tooBig = route.tooBig ?? spec.mtu.tooBig;
    // A tunnel whose own packets are cut takes any that IPv4 can count with the tunnel's headers on.
    const cutOutside = route.encap !== null && tooBig === 'fragment-outer';
    const inner = innerMtu(config, route.encap);
    const widest = cutOutside ? 65535 - (spec.uplink.mtu - inner) : inner;
    const hop = hopProgram(route.encap ? hops.HOP_TUNNEL : hops.HOP_GATEWAY, {
      port: byUplink,
      gateway: underlay.neighborFor(via),
      mtu: Math.min(route.mtu ?? 65535, widest),
      transit: to.length > 0 ? 1 : 0,
    });
    if (route.encap || route.tooBig !== undefined) hop.tooBig = hops.TOO_BIG_NAMES.indexOf(tooBig);
    if (route.encap) {
      hop.tunnel = route.encap;
      hop.peerAddress = via;
    }
    table.add(to, hop);
  }
  table.add({ ...uplinkNet, prefix: uplinkNet.address, length: 32 }, host);
  if (spec.host !== undefined) table.add({ ...uplinkNet, prefix: hostAddress, length: 32 }, host);
  spec.pods.forEach((pod, i) => {
    const mtu = podMtuOf(pod, mtus).device;
    const port = portKey(ports[i]);
    for (const to of [pod.address, ...pod.networks]) {
      table.add(parseCidr(to), hopProgram(hops.HOP_POD, { port, mtu, transit: 1 }));
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
      besideKernel: !spec.uplink.onHostPort,
    },
    hostAddress,
    ports,
    routes: table.routes(),
    nextHops: table.nextHops,
    tunnels: spec.tunnels.map(tunnel => compileTunnel(config, tunnel, uplinkNet.address)),
    neighbors: permanentNeighbors(spec.uplink),
    nat: compileNat(config, uplinkNet.address, spec.uplink.ports),
    policy: compilePolicy({ ...spec, own: [uplinkNet.address, hostAddress] }),
  };
}

function permanentNeighbors({ gateway, kernelMac }: ResolvedUplink): Program['neighbors'] {
  if (gateway === undefined || kernelMac === undefined) return [];
  const { hi, lo } = parseMac(kernelMac);
  return [{ address: parseAddress(gateway), macHi: hi, macLo: lo }];
}

/** Collects routes; a later one replaces an earlier one to the same prefix; equal next hops are shared. */
class RouteBuilder {
  readonly nextHops: HopProgram[] = [hopProgram(hops.HOP_REFUSE)];
  private readonly byPrefix = new Map<string, Route>();
  private readonly byHop = new Map<string, number>();

  add(to: Pick<Cidr, 'prefix' | 'length'>, hop: HopProgram): void {
    const key = hopKey(hop);
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

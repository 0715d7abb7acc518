/** What a cluster's network means to one node: its tunnels, its routes to pods of others, its masquerade rules. Pure. */
import { contains, parseAddress, parseCidr } from '../../control/address.ts';
import type { Json, KubeObject } from '../object.ts';
import { type Encap, encapsOf, type Network, podCidrsOf, poolOf } from './network.ts';

const MULTICAST = '224.0.0.0/4';

/** Another node. */
export interface Peer {
  name: string;
  /** On the underlay. */
  address: string;
  podCidrs: string[];
  /** Of its VTEP; undefined: it follows from its address. */
  mac?: string;
}

/** The node itself. */
export interface Own {
  /** `192.168.10.1/24`; undefined: the kernel of the host knows who is near. */
  subnet?: string;
  gateway?: string;
  podCidrs: string[];
  mac?: string;
}

/** How a cluster goes over from one network to another; at rest there is one. */
export interface NetworkPlan {
  /** Tunnels of all of these are taken from. */
  accepts: readonly Network[];
  /** By which packets for a peer's pods go. */
  towards(peer: string): Network;
  /** Whose masquerade rules hold, and whose name the profile has. */
  settled: Network;
}

export function atRest(network: Network): NetworkPlan {
  return { accepts: [network], towards: () => network, settled: network };
}

/** @param macOf of a node's VTEP, where it is known */
export function peersOf(
  nodes: readonly KubeObject[],
  macOf: (node: KubeObject) => string | undefined,
): { peers: Peer[]; missing: string[] } {
  const peers: Peer[] = [];
  const missing: string[] = [];
  for (const node of nodes) {
    const { name } = node.metadata;
    const address = internalIP(node);
    if (address === undefined) {
      missing.push(`Node ${name} has no InternalIP of IPv4: nothing is sent to its pods`);
      continue;
    }
    const podCidrs = podCidrsOf(node);
    if (podCidrs.length === 0) missing.push(`Node ${name} has no podCIDR of IPv4: its pods have no route`);
    const mac = macOf(node);
    peers.push({ name, address, podCidrs, ...(mac === undefined ? {} : { mac }) });
  }
  return { peers, missing };
}

export function internalIP({ status }: KubeObject): string | undefined {
  return (status?.addresses ?? []).find(
    ({ type, address }: Json) => type === 'InternalIP' && parseAddress(address) !== undefined,
  )?.address;
}

/** `spec.tunnels` of the node: every tunnel that it takes packets from, each with all peers. */
export function tunnelsOf({ accepts }: NetworkPlan, own: Own, peers: readonly Peer[]): Json[] {
  const encaps = new Map(accepts.flatMap(network => encapsOf(network).map(encap => [encap.name, encap])));
  return [...encaps.values()].map(encap => tunnelOf(encap, own, peers));
}

function tunnelOf(encap: Encap, own: Own, peers: readonly Peer[]): Json {
  const withMac = encap.protocol !== 'ipip';
  return {
    ...encap,
    ...(withMac && own.mac !== undefined ? { mac: own.mac } : {}),
    peers: peers.map(({ address, mac }) => ({ address, ...(withMac && mac !== undefined ? { mac } : {}) })),
  };
}

/** Whether the peer is in the node's own subnet. Of uplinks that take over an interface, the kernel knows who is where. */
export function isNear({ subnet }: Own, { address }: Peer): boolean {
  const cidr = subnet === undefined ? undefined : parseCidr(subnet);
  return cidr === undefined || contains(cidr, parseAddress(address)!);
}

/**
 * `spec.routes` of the node towards its peers' pods.
 * @param encap what a route says that leads into a tunnel
 */
export function routesOf(
  plan: NetworkPlan,
  own: Own,
  peers: readonly Peer[],
  encap: (encap: Encap) => Json = ({ name }) => name,
): { routes: Json[]; missing: string[] } {
  const missing: string[] = [];
  const routes = peers.flatMap(peer => {
    const network = plan.towards(peer.name);
    const near = isNear(own, peer);
    return peer.podCidrs.flatMap(to => {
      const pool = poolOf(network.pools, to);
      const tunnel = pool === undefined || pool.encap === null || (pool.direct && near) ? null : pool.encap;
      if (tunnel !== null) return [{ to, via: peer.address, encap: encap(tunnel) }];
      if (network.plain === 'none' || (network.plain === 'near' && !near)) {
        if (network.system !== null) missing.push(withoutRoute(network, peer, to));
        return [];
      }
      if (!near && own.gateway === undefined) {
        missing.push(withoutGateway(own, peer));
        return [];
      }
      return [{ to, via: near ? peer.address : own.gateway! }];
    });
  });
  return { routes, missing };
}

/** Why a node that is in another subnet cannot be reached. */
export function withoutGateway({ subnet }: Own, { name, address }: Peer): string {
  return `Node ${name} has ${address}, not in ${subnet}, and there is no gateway: its pods have no route`;
}

function withoutRoute({ plain }: Network, { name, address }: Peer, to: string): string {
  const why = plain === 'none' ? 'auto-direct-node-routes is not true' : `its address ${address} is in another subnet`;
  return `Node ${name}: no route to ${to} of its own, for there is no tunnel and ${why}: static routes decide`;
}

/** `spec.masquerade`. @param nodes addresses of all nodes @returns undefined where the network says nothing of it */
export function masqueradeOf(
  { system, masquerade }: Pick<Network, 'system' | 'masquerade'>,
  podCidrs: readonly string[],
  nodes: readonly string[],
): Json[] | undefined {
  if (masquerade === undefined) return undefined;
  const { from, inside } = masquerade;
  switch (system) {
    case 'cilium': {
      if (from.length === 0) return [];
      // What goes to another node keeps the pod's address, too.
      const own = podCidrs.length === 0 ? from : podCidrs;
      return [{ from: [...own], notTo: [...inside, ...[...nodes].sort().map(address => `${address}/32`)] }];
    }
    case 'flannel':
      return from.flatMap(cluster => flannelChain(cluster, podCidrs));
    default:
      // natOutgoing: from a pool that has it, to none of all pools. Without a word about nodes, so those see a node.
      return from.map(pool => ({ from: [pool], notTo: [...inside], randomFully: true }));
  }
}

/** FLANNEL-POSTRTG of flannel's pkg/trafficmngr/iptables, rule by rule. */
function flannelChain(cluster: string, pods: readonly string[]): Json[] {
  const own =
    pods.length === 0
      ? []
      : [
          { from: [...pods], to: [cluster], action: 'RETURN' },
          { from: [cluster], to: [...pods], action: 'RETURN' },
          { notFrom: [cluster], to: [...pods], action: 'RETURN' },
        ];
  return [
    // kube-proxy has seen to what carries its mark. The article prints the rule without the match: it would return all.
    { mark: '0x4000/0x4000', action: 'RETURN' },
    ...own,
    { from: [cluster], notTo: [MULTICAST], randomFully: true },
    { notFrom: [cluster], to: [cluster], randomFully: true },
  ];
}

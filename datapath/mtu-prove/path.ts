/** Where a packet goes: from node to node until a pod has it, or until it is clear that none gets it. */
import { formatAddress } from '../control/address.ts';
import type { HopProgram } from '../program/program.ts';
import * as hops from '../route/nexthop.ts';
import type { Network, ProvedNode, ProvedPod, Stretch } from './network.ts';

/** What one node does with the packet. */
export interface Leg {
  node: ProvedNode;
  hop: HopProgram;
  /** The node that it comes to; null: a pod of this one. */
  to: ProvedNode | null;
  stretches: Stretch[];
}

export interface Path {
  legs: Leg[];
  /** The receiver, if it gets there. */
  pod: ProvedPod | null;
  /** Why it does not; null if it does. */
  broken: string | null;
}

/** Nodes that a packet may pass; by then it goes in circles. */
const MAX_LEGS = 8;

export function findPath(network: Network, from: ProvedNode, destination: number): Path {
  const legs: Leg[] = [];
  const broken = (why: string): Path => ({ legs, pod: null, broken: why });
  let node = from;
  while (true) {
    const hop = node.routes.lookup(destination);
    if (hop === undefined) return broken(`${node.name} has no route to ${formatAddress(destination)}`);
    switch (hop.kind) {
      case hops.HOP_REFUSE:
        return broken(`${node.name} refuses ${formatAddress(destination)}`);
      case hops.HOP_HOST:
        return broken(`${formatAddress(destination)} is ${node.name} itself`);
      case hops.HOP_POD: {
        legs.push({ node, hop, to: null, stretches: [] });
        const pod = node.pods.find(({ port }) => port === hop.port)!;
        return { legs, pod, broken: null };
      }
    }
    if (legs.length > 0 && legs.at(-1)?.hop.kind !== hops.HOP_TUNNEL && hop.transit === 0) {
      return broken(`${node.name} does not route for others by its default or connected route`);
    }
    const next = nextNode(network, hop, destination);
    if (typeof next === 'string') return broken(next);
    const circle = legs.some(leg => leg.node === next) || next === node || legs.length === MAX_LEGS;
    legs.push({ node, hop, to: next, stretches: next === node ? [] : network.between(node, next) });
    if (circle) return broken(`goes in circles: ${[...legs.map(leg => leg.node.name), next.name].join(' > ')}`);
    if (hop.kind === hops.HOP_TUNNEL) {
      const refusal = network.refusal(node, hop, next);
      if (refusal !== null)
        return broken(`${next.name} does not take what the tunnel of ${node.name} sends: ${refusal}`);
    }
    node = next;
  }
}

/** The node that this hop leads to, or why it is not known. */
function nextNode(network: Network, hop: HopProgram, destination: number): ProvedNode | string {
  if (hop.kind === hops.HOP_TUNNEL) {
    return network.nodeAt(hop.peerAddress) ?? `no configuration of the peer ${formatAddress(hop.peerAddress)}`;
  }
  const neighbor = hop.kind === hops.HOP_ONLINK ? destination : hop.gateway;
  // A router that no configuration describes is taken to know the way.
  const next = network.nodeAt(neighbor) ?? network.podAt(destination)?.node;
  return next ?? `no configuration knows ${formatAddress(destination)}`;
}

/** Bytes that the leg puts in front of the packet on the underlay. */
export function overheadOn({ node, hop }: Leg): number {
  return node.tunnels.get(hop.tunnel)?.overhead ?? 0;
}

/** The lengths above which something happens to a packet on this path. */
export function limitsOf(path: Path): number[] {
  return path.legs.flatMap(leg => {
    const overhead = overheadOn(leg);
    return [uncutBy(leg), ...leg.stretches.map(({ limit }) => limit - overhead)];
  });
}

/** Longest packet that the node sends on in one piece. */
export function uncutBy({ node, hop }: Leg): number {
  const { program } = node;
  const tunnel = node.tunnels.get(hop.tunnel);
  const cutsOutside = tunnel !== undefined && hop.tooBig === hops.TOO_BIG_FRAGMENT_OUTER;
  return cutsOutside ? Math.min(hop.mtu, program.underlay.mtu - tunnel.overhead) : hop.mtu;
}

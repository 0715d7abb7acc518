/**
 * What the control plane wants of a node: plain data, so that it can be posted to the loop's thread, printed, compared, and
 * made by a test without any device. Addresses are int32, MACs as in wire/ethernet.ts.
 *
 * Everything in it has an identity that stays while the program around it changes: ports, tunnels and services a name, peers
 * their address, next hops and masquerade rules what they say. diff.ts compares two programs by it, and install.ts gives each
 * the small number that the tables of a loop know it by.
 */

import { MAX_PORTS } from '../counters.ts';
import type { NatProgram } from '../nat/nat.ts';
import type { Underlay } from '../path/path.ts';
import type { PolicyProgram } from '../policy/policies.ts';
import { PORT_KINDS, type PortOwner } from '../port.ts';
import type { ProfileName } from '../profile.ts';
import { type NextHop, nextHop, type Route } from '../route/nexthop.ts';
import type { TunnelSpec } from '../tunnel/spec.ts';
import type { Mac } from '../wire/ethernet.ts';

export interface PortProgram extends PortOwner {
  kind: number;
  /** Unique among the ports of its kind. */
  name: string;
  /** Which device it has, in any words: other words mean another device. */
  place: string;
  /** Of the port itself, where it has a link layer and not the usual one. */
  mac?: Mac;
}

/** A next hop, with names for what the loop has numbers for. */
export interface HopProgram extends Omit<NextHop, 'port' | 'tunnel' | 'peer'> {
  /** portKey() of the port that it leaves by; '' where there is none. */
  port: string;
  /** Name of the tunnel whose peer is at `peerAddress`; '' where it leads into none. */
  tunnel: string;
}

export interface TunnelProgram extends TunnelSpec {
  name: string;
}

export interface Program {
  profile: ProfileName;
  underlay: Underlay;
  hostAddress: number;
  ports: PortProgram[];
  /** `hop` is a place in `nextHops`. */
  routes: Route[];
  /** [0] is a placeholder: no route. */
  nextHops: HopProgram[];
  tunnels: TunnelProgram[];
  /** Entries of the neighbour table that ARP never changes. */
  neighbors: { address: number; macHi: number; macLo: number }[];
  /** Null: no service, no masquerade rule and no policy, so that flows need not be tracked. */
  nat: NatProgram | null;
  /** Null: no policy. */
  policy: PolicyProgram | null;
}

/** The identity of a port: "pod default/p1". */
export function portKey({ kind, name }: Pick<PortProgram, 'kind' | 'name'>): string {
  return `${PORT_KINDS[kind]} ${name}`;
}

/** A next hop; what `fields` leaves out means nothing to its kind. */
export function hopProgram(kind: number, fields: Partial<HopProgram> = {}): HopProgram {
  const { port: _port, tunnel: _tunnel, peer: _peer, ...rest } = nextHop(kind);
  return { ...rest, port: '', tunnel: '', ...fields };
}

/** The identity of a next hop. */
export function hopKey(hop: HopProgram): string {
  return JSON.stringify(hop);
}

/** What a loop could not take of a program, one line each: names that nothing has, and more ports than there are numbers. */
export function findFaults({ ports, routes, nextHops, tunnels }: Program): string[] {
  const faults: string[] = [];
  const keys = new Set(ports.map(portKey));
  // One number stands for ports that are gone.
  if (ports.length >= MAX_PORTS) faults.push(`${ports.length} ports, expected at most ${MAX_PORTS - 1}`);
  if (keys.size < ports.length) faults.push('two ports of one kind and name');
  const peers = new Map(tunnels.map(({ name, peers }) => [name, new Set(peers.map(peer => peer.address))]));
  if (peers.size < tunnels.length) faults.push('two tunnels of one name');
  for (const { port, tunnel, peerAddress } of nextHops) {
    if (port !== '' && !keys.has(port)) faults.push(`a next hop by port "${port}", which there is not`);
    if (tunnel !== '' && peers.get(tunnel)?.has(peerAddress) !== true) {
      faults.push(`a next hop into tunnel "${tunnel}" to a peer that it does not have`);
    }
  }
  for (const { hop } of routes) if (nextHops[hop] === undefined) faults.push(`a route to next hop ${hop}`);
  return faults;
}

/**
 * From one program to another: a list of changes, each about one thing by its identity, in an order in which packets can flow
 * between any two of them: what is new comes first, then what leads to it, and what nothing leads to any more goes last.
 *
 * Changes say what shall be, not what was. So a list may be cut into pieces, applied twice, and taken back by the list of
 * the other direction, however much of it has been applied.
 */
import { isDeepStrictEqual } from 'node:util';
import type { DeviceHandle } from '../io/handle.ts';
import type { MasqueradeRule, Prefix } from '../nat/masquerade.ts';
import type { NatProgram } from '../nat/nat.ts';
import type { Service } from '../nat/service.ts';
import type { Underlay } from '../path/path.ts';
import type { PolicyProgram } from '../policy/policies.ts';
import type { ProfileName } from '../profile.ts';
import type { Route } from '../route/nexthop.ts';
import { type HopProgram, hopKey, type PortProgram, type Program, portKey, type TunnelProgram } from './program.ts';

/** Null stands for what shall be gone. */
export type Change =
  | { kind: 'port'; key: string; port: PortProgram | null; device: 'new' | 'other' | 'kept'; handle?: DeviceHandle }
  /** Its device is gone, and there is none in its place yet: what leads there is refused. */
  | { kind: 'detach'; key: string; port: PortProgram }
  | { kind: 'condition'; key: string; condition: number }
  /** Its device takes no longer packets, whatever the routes that lead there say. */
  | { kind: 'mtu'; key: string; mtu: number }
  | { kind: 'host'; address: number }
  | { kind: 'underlay'; underlay: Underlay }
  | { kind: 'tunnel'; name: string; tunnel: TunnelProgram | null; was: 'new' | 'same headers' | 'other headers' }
  | { kind: 'route'; prefix: number; length: number; hop: HopProgram | null }
  /** On what systems disagree; tunnels follow it, too. */
  | { kind: 'profile'; profile: ProfileName }
  /** Flows are tracked from now on. */
  | { kind: 'nat'; nat: NatProgram }
  /** Timeouts, and what else of flows follows the profile. */
  | { kind: 'habits'; nat: NatProgram }
  /** Where node ports answer, and the networks of service addresses. */
  | { kind: 'addresses'; node: number[]; services: Prefix[] }
  | { kind: 'service'; name: string; service: Service | null }
  | { kind: 'rules'; rules: MasqueradeRule[] }
  /** All policies at once: which one allows a flow is decided among all. */
  | { kind: 'policy'; policy: PolicyProgram | null };

/** What a piece may weigh that the loop takes between two bursts: 0.1 to 0.3 ms of its time. */
const PIECE_WEIGHT = 64;
/** What a service costs beside its endpoints, in endpoints; removing one costs half of that. */
const SERVICE_WEIGHT = 4;
const REMOVAL_WEIGHT = 2;
/** A maglev table is made anew with every change: it has a piece of its own. */
const MAGLEV_WEIGHT = PIECE_WEIGHT;

/** @returns what makes `from` into `to`; permanent neighbours and the size of the flow table are taken to be the same in both */
export function diff(from: Program, to: Program): Change[] {
  const ports = diffPorts(from, to);
  const [tunnels, lateTunnels] = diffTunnels(from, to);
  const routes = diffRoutes(from, to);
  return [
    ...(from.profile === to.profile ? [] : [{ kind: 'profile' as const, profile: to.profile }]),
    ...ports.filter(change => !isLast(change)),
    ...(isDeepStrictEqual(from.underlay, to.underlay) ? [] : [{ kind: 'underlay' as const, underlay: to.underlay }]),
    ...(from.hostAddress === to.hostAddress ? [] : [{ kind: 'host' as const, address: to.hostAddress }]),
    ...tunnels,
    ...routes.filter(change => change.hop !== null),
    ...diffNat(from, to),
    ...(isDeepStrictEqual(from.policy, to.policy) ? [] : [{ kind: 'policy' as const, policy: to.policy }]),
    ...routes.filter(change => change.hop === null),
    ...lateTunnels,
    ...ports.filter(isLast),
  ];
}

/** Closes a device, which nothing brings back: only when all else is done. */
export function isLast(change: Change): boolean {
  return change.kind === 'port' && (change.port === null || change.device === 'other');
}

type Kind<K extends Change['kind']> = Extract<Change, { kind: K }>;

function diffPorts(from: Program, to: Program): Kind<'port'>[] {
  const old = new Map(from.ports.map(port => [portKey(port), port]));
  const changes: Kind<'port'>[] = [];
  for (const port of to.ports) {
    const key = portKey(port);
    const before = old.get(key);
    old.delete(key);
    if (isDeepStrictEqual(before, port)) continue;
    const device = before === undefined ? 'new' : before.place === port.place ? 'kept' : 'other';
    changes.push({ kind: 'port', key, port, device });
  }
  for (const key of old.keys()) changes.push({ kind: 'port', key, port: null, device: 'kept' });
  return changes;
}

function diffTunnels(from: Program, to: Program): [early: Kind<'tunnel'>[], late: Kind<'tunnel'>[]] {
  const old = new Map(from.tunnels.map(tunnel => [tunnel.name, tunnel]));
  const changes: Kind<'tunnel'>[] = [];
  const late: Kind<'tunnel'>[] = [];
  for (const tunnel of to.tunnels) {
    const { name } = tunnel;
    const before = old.get(name);
    old.delete(name);
    if (isDeepStrictEqual(before, tunnel)) continue;
    if (before === undefined) {
      changes.push({ kind: 'tunnel', name, tunnel, was: 'new' });
      continue;
    }
    const was = changesHeaders(before, tunnel) ? 'other headers' : 'same headers';
    const kept = new Set(tunnel.peers.map(({ address }) => address));
    const gone = before.peers.filter(({ address }) => !kept.has(address));
    changes.push({ kind: 'tunnel', name, tunnel: { ...tunnel, peers: [...tunnel.peers, ...gone] }, was });
    // When no route leads to them any more.
    if (gone.length > 0) late.push({ kind: 'tunnel', name, tunnel, was: 'same headers' });
  }
  for (const name of old.keys()) late.push({ kind: 'tunnel', name, tunnel: null, was: 'same headers' });
  return [changes, late];
}

/** Is it more than the peers that differs? */
export function changesHeaders(from: TunnelProgram, to: TunnelProgram): boolean {
  return !isDeepStrictEqual({ ...from, peers: [] }, { ...to, peers: [] });
}

function diffRoutes(from: Program, to: Program): Kind<'route'>[] {
  const oldHops = from.nextHops.map(hopKey);
  const newHops = to.nextHops.map(hopKey);
  const prefixKey = ({ prefix, length }: Route) => `${prefix}/${length}`;
  const old = new Map(from.routes.map(route => [prefixKey(route), route]));
  const changes: Kind<'route'>[] = [];
  for (const route of to.routes) {
    const { prefix, length, hop } = route;
    const key = prefixKey(route);
    const before = old.get(key);
    old.delete(key);
    if (before !== undefined && oldHops[before.hop] === newHops[hop]) continue;
    changes.push({ kind: 'route', prefix, length, hop: to.nextHops[hop] });
  }
  for (const { prefix, length } of old.values()) changes.push({ kind: 'route', prefix, length, hop: null });
  return changes;
}

/** A loop that tracks flows goes on with it: without services and rules it rewrites nothing. */
function diffNat({ profile, nat: from }: Program, { profile: newProfile, nat: to }: Program): Change[] {
  if (from === null && to === null) return [];
  const addresses = (nat: NatProgram | null) => ({
    node: nat?.nodeAddresses ?? [],
    services: nat?.serviceNetworks ?? [],
  });
  const habits = (nat: NatProgram | null) => [nat?.timeouts, nat?.ports];
  const sameHabits = to === null || (profile === newProfile && isDeepStrictEqual(habits(from), habits(to)));
  const rules = to?.rules ?? [];
  return [
    ...(from === null && to !== null ? [{ kind: 'nat' as const, nat: { ...to, services: [], rules: [] } }] : []),
    ...(sameHabits ? [] : [{ kind: 'habits' as const, nat: { ...to, services: [], rules: [] } }]),
    ...(isDeepStrictEqual(addresses(from), addresses(to)) ? [] : [{ kind: 'addresses' as const, ...addresses(to) }]),
    ...diffServices(from?.services ?? [], to?.services ?? []),
    ...(isDeepStrictEqual(from?.rules ?? [], rules) ? [] : [{ kind: 'rules' as const, rules }]),
  ];
}

function diffServices(from: readonly Service[], to: readonly Service[]): Kind<'service'>[] {
  const old = new Map(from.map(service => [service.name, service]));
  const kept = new Set(to.map(service => service.name));
  const changed = to.filter(service => !isDeepStrictEqual(service, old.get(service.name)));
  const set = (service: Service): Kind<'service'> => ({ kind: 'service', name: service.name, service });
  // A frontend belongs to whoever has it first. One that moves between services is free only when its old owner has been
  // set: whoever gets it is set once more behind all others.
  const owners = new Map<string, string>();
  for (const { name } of changed) for (const frontend of frontendsOf(old.get(name))) owners.set(frontend, name);
  const late = changed.filter(service =>
    frontendsOf(service).some(frontend => (owners.get(frontend) ?? service.name) !== service.name),
  );
  return [
    ...[...old.keys()].filter(name => !kept.has(name)).map(name => ({ kind: 'service' as const, name, service: null })),
    ...changed.map(set),
    ...late.map(set),
  ];
}

/** Where a service answers, as texts. */
function frontendsOf(service: Service | undefined): string[] {
  if (service === undefined) return [];
  const { clusterAddresses, externalAddresses = [], loadBalancerAddresses = [] } = service;
  return service.ports.flatMap(({ protocol, port, nodePort = 0 }) => [
    ...[...clusterAddresses, ...externalAddresses, ...loadBalancerAddresses].map(
      address => `${address} ${protocol} ${port}`,
    ),
    ...(nodePort === 0 ? [] : [`node ${protocol} ${nodePort}`]),
  ]);
}

/**
 * Changes in pieces that the loop can take between two bursts. A tunnel that gets other headers changes together with all
 * routes that change, whose MTUs go with them: about 5 us each.
 */
export function* inPieces(changes: readonly Change[]): Generator<Change[]> {
  let piece: Change[] = [];
  let weight = 0;
  let together = false;
  for (const change of changes) {
    const joins = together && change.kind === 'route' && change.hop !== null;
    const own = joins ? 0 : weightOf(change);
    if (piece.length > 0 && weight + own > PIECE_WEIGHT) {
      yield piece;
      piece = [];
      weight = 0;
      together = false;
    }
    piece.push(change);
    weight += own;
    if (change.kind === 'tunnel' && change.was === 'other headers') together = true;
  }
  if (piece.length > 0) yield piece;
}

function weightOf(change: Change): number {
  if (change.kind !== 'service') return 1;
  if (change.service === null) return REMOVAL_WEIGHT;
  const endpoints = change.service.ports.reduce((n, port) => n + port.endpoints.length, 0);
  return SERVICE_WEIGHT + endpoints + (change.service.selector === 'maglev' ? MAGLEV_WEIGHT : 0);
}

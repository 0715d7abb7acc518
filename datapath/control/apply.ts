/**
 * What a new configuration changes of a running node. Pure: compares two configurations that loadConfig has accepted, and
 * says what the loop and the kernel must be told, or what cannot change while the node runs.
 */
import { isDeepStrictEqual } from 'node:util';
import type { MasqueradeRule } from '../nat/masquerade.ts';
import type { Service } from '../nat/service.ts';
import type { Program } from '../program.ts';
import type { NextHop, Route } from '../route/nexthop.ts';
import { compile, mtusOf } from './compile.ts';
import { compileNat } from './compile-nat.ts';
import type { NodeConfig, ServiceConfig } from './config.ts';
import { hostRoutes } from './host-routes.ts';
import { type ResolvedConfig, withUplink } from './resolved.ts';
import { allAddressesOf } from './service-config.ts';

export interface Refusal {
  /** Where in the new configuration. */
  path: (string | number)[];
  message: string;
}

export interface Change {
  /** The new configuration, with the uplink that the node runs with. */
  config: ResolvedConfig;
  /** The program, with next hops where the running one has them. */
  program: Program;
  /** Names of services that are gone. */
  removed: string[];
  /** Services that are new or different, in the order in which to set them. */
  set: Service[];
  /** All rules, if one has changed. */
  rules: MasqueradeRule[] | null;
  /** Routes that are new or lead elsewhere, and those that are gone. */
  changedRoutes: Route[];
  removedRoutes: Route[];
  /** Whether the tunnel is different. */
  tunnel: boolean;
  /** Kernel routes of the host port, as `ip route` takes them. */
  addedHostRoutes: string[];
  removedHostRoutes: string[];
}

/** Endpoints that a set-services request may carry: 0.1 ms of the loop, a cold start or a collection of garbage 1 to 3. */
const ENDPOINTS_PER_REQUEST = 64;
/** What a service costs beside its endpoints, in endpoints. */
const SERVICE_WEIGHT = 4;
/** A maglev table is made anew with every change: it has a request of its own. */
const MAGLEV_WEIGHT = ENDPOINTS_PER_REQUEST;

/**
 * @param running the program that the loop has, compiled from `from` or come of earlier changes
 * @returns what is to be done, or why it cannot be done; then nothing of it is
 */
export function planChange(from: ResolvedConfig, running: Program, written: NodeConfig): Change | Refusal[] {
  const to = withUplink(written, from.spec.uplink);
  const refusals = findRefusals(from, written, to);
  if (refusals.length > 0) return refusals;
  const program = withHopsOf(running, compile(to));
  const { removed, set } = compareServices(from, to);
  const oldRoutes = new Set(hostRoutes(from));
  const newRoutes = new Set(hostRoutes(to));
  const sameRules = isDeepStrictEqual(from.spec.masquerade, to.spec.masquerade);
  return {
    config: to,
    program,
    removed,
    set,
    rules: sameRules ? null : (program.nat?.rules ?? []),
    tunnel: !isDeepStrictEqual(running.tunnel, program.tunnel),
    changedRoutes: withoutRoutes(program.routes, running.routes, routeText),
    removedRoutes: withoutRoutes(running.routes, program.routes, prefixText),
    addedHostRoutes: [...newRoutes].filter(route => !oldRoutes.has(route)),
    removedHostRoutes: [...oldRoutes].filter(route => !newRoutes.has(route)),
  };
}

/**
 * The program with the next hops of the running one, new ones behind them: what a route that stays leads to keeps its
 * index. Hops that no route leads to any more stay.
 */
function withHopsOf(running: Program, program: Program): Program {
  const nextHops = [...running.nextHops];
  const known = new Map<string, number>();
  // [0] is no next hop in either.
  for (let index = nextHops.length - 1; index > 0; index--) known.set(JSON.stringify(nextHops[index]), index);
  const place = (hop: NextHop) => {
    const text = JSON.stringify(hop);
    const index = known.get(text) ?? nextHops.push(hop) - 1;
    known.set(text, index);
    return index;
  };
  const routes = program.routes.map(route => ({ ...route, hop: place(program.nextHops[route.hop]) }));
  return { ...program, nextHops, routes };
}

const prefixText = ({ prefix, length }: Route) => `${prefix}/${length}`;
const routeText = ({ prefix, length, hop }: Route) => `${prefix}/${length} ${hop}`;

function withoutRoutes(routes: readonly Route[], others: readonly Route[], text: (route: Route) => string): Route[] {
  const found = new Set(others.map(text));
  return routes.filter(route => !found.has(text(route)));
}

/** Services in pieces that the loop can take between two bursts. */
export function* inRequests(services: readonly Service[]): Generator<Service[]> {
  let piece: Service[] = [];
  let weight = 0;
  for (const service of services) {
    const endpoints = service.ports.reduce((n, port) => n + port.endpoints.length, 0);
    const own = SERVICE_WEIGHT + endpoints + (service.selector === 'maglev' ? MAGLEV_WEIGHT : 0);
    if (piece.length > 0 && weight + own > ENDPOINTS_PER_REQUEST) {
      yield piece;
      piece = [];
      weight = 0;
    }
    piece.push(service);
    weight += own;
  }
  if (piece.length > 0) yield piece;
}

function findRefusals(from: ResolvedConfig, written: NodeConfig, to: ResolvedConfig): Refusal[] {
  const refusals: Refusal[] = [];
  const refuse = (path: (string | number)[], message: string) => refusals.push({ path, message });
  const { name } = from.metadata;
  if (to.metadata.name !== name)
    refuse(['metadata', 'name'], `got ${to.metadata.name}, expected ${name}, the running node`);
  const unchanged = { ...from.spec, uplink: from.spec.uplink.written };
  for (const part of [
    'uplink',
    'host',
    'pods',
    'profile',
    'offload',
    'conntrack',
    'loop',
    'serviceCIDR',
    'nodePortAddresses',
    'zone',
  ] as const) {
    const path = firstDifference(unchanged[part], written.spec[part], ['spec', part]);
    if (path !== null) refuse(path, 'cannot change while the node runs: restart it');
  }
  const was = mtusOf(from);
  const will = mtusOf(to);
  if (refusals.length === 0 && (was.device !== will.device || was.route !== will.route)) {
    const mtu = (mtus: typeof was) => (mtus.route > 0 ? mtus.route : mtus.device);
    refuse(
      from.spec.mtu.tooBig === to.spec.mtu.tooBig ? ['spec', 'tunnel', 'protocol'] : ['spec', 'mtu', 'tooBig'],
      `changes the MTU of the pods from ${mtu(was)} to ${mtu(will)}, which cannot change while the node runs: restart it`,
    );
  }
  if (compileNat(from, 0) === null && compileNat(to, 0) !== null) {
    const part = to.spec.services.length > 0 ? 'services' : 'masquerade';
    refuse(
      ['spec', part],
      'the node was started without services and masquerade rules, so it tracks no flows: restart it',
    );
  }
  return refusals;
}

/** The place of the first difference, as deep as both sides have the same shape; null if there is none. */
function firstDifference(a: unknown, b: unknown, path: (string | number)[]): (string | number)[] | null {
  if (isDeepStrictEqual(a, b)) return null;
  if (!isObject(a) || !isObject(b) || Array.isArray(a) !== Array.isArray(b)) return path;
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (isDeepStrictEqual(a[key], b[key])) continue;
    // What is only in the old one has no place in the new one.
    if (!(key in b)) return path;
    return firstDifference(a[key], b[key], [...path, Array.isArray(b) ? Number(key) : key]);
  }
  return path;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function compareServices(from: ResolvedConfig, to: ResolvedConfig): { removed: string[]; set: Service[] } {
  const old = new Map(from.spec.services.map(service => [service.name, service]));
  const compiled = new Map(compileNat(to, 0)?.services.map(service => [service.name, service]));
  const kept = new Set(to.spec.services.map(service => service.name));
  const changed = to.spec.services.filter(service => !isDeepStrictEqual(service, old.get(service.name)));
  const set = changed.map(service => compiled.get(service.name)!);
  // A frontend belongs to whoever has it first. One that moves between services is free only when its old owner has been
  // set: whoever gets it is set once more behind all others.
  const owners = new Map<string, string>();
  for (const { name } of changed) {
    for (const frontend of frontendsOf(old.get(name))) owners.set(frontend, name);
  }
  const late = changed.filter(service =>
    frontendsOf(service).some(frontend => (owners.get(frontend) ?? service.name) !== service.name),
  );
  set.push(...late.map(service => compiled.get(service.name)!));
  return { removed: [...old.keys()].filter(name => !kept.has(name)), set };
}

/** Where a service answers, as texts. */
function frontendsOf(service: ServiceConfig | undefined): string[] {
  if (service === undefined) return [];
  return service.ports.flatMap(({ protocol, port, nodePort }) => [
    ...allAddressesOf(service).map(address => `${address} ${protocol} ${port}`),
    ...(nodePort === undefined ? [] : [`node ${protocol} ${nodePort}`]),
  ]);
}

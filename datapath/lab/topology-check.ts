/** What does not fit together in a topology, also where parts of it have been refused already. Pure. */
import { type Cidr, contains, formatCidr, parseCidr } from '../control/address.ts';
import { addressOf, type Draft, entries, formatPath, type Path, type Report } from '../control/check-draft.ts';
import { suggest } from '../control/nearest.ts';
import { segmentDevice } from './modes.ts';
import { API_LOG, AWAY, NODES, SEGMENTS, SWITCH } from './names.ts';
import { firstHost, overlap, serviceName } from './topology-defaults.ts';
import type { WrittenTopology } from './topology-form.ts';

type Spec = Draft<WrittenTopology['spec']>;
type ListName = 'subnets' | 'nodes' | 'pods' | 'services' | 'routers' | 'links' | 'hosts';
type Item<K extends ListName> = Draft<WrittenTopology['spec'][K][number]>;

/** What may run in a pod, of which it can have one. */
const SERVERS = ['hostname', 'dns', 'command', 'memory'] as const;
const DEVICE_NAME_LENGTH = 15;

export function checkTopology(written: Draft<WrittenTopology>, report: Report): void {
  const spec = typeof written === 'object' && written !== null ? written.spec : undefined;
  if (typeof spec !== 'object' || spec === null) return;
  checkNames(spec, report);
  checkReferences(spec, report);
  checkNetworks(spec, report);
  checkAddresses(spec, report);
  checkRouters(spec, report);
  checkPods(spec, report);
}

/** The items of a list that are maps, each with its path. */
function itemsOf<K extends ListName>(spec: Spec, key: K): [Path, Item<K>][] {
  const value = spec[key] as unknown;
  if (!Array.isArray(value)) return [];
  return entries(value as unknown[])
    .filter(([, item]) => typeof item === 'object' && item !== null)
    .map(([i, item]) => [['spec', key, i], item as Item<K>]);
}

/** Says of each value that has been there before who has it. */
function unique(report: Report, expected: string) {
  const first = new Map<string | number, Path>();
  return (value: string | number | undefined, path: Path): void => {
    if (value === undefined) return;
    const before = first.get(value);
    if (before === undefined) first.set(value, path);
    else report(path, `${expected} (${formatPath(before)} has it)`);
  };
}

/** What the lab calls things of its own. */
const RESERVED: readonly string[] = [SWITCH, AWAY, API_LOG, NODES, SEGMENTS];

function checkNames(spec: Spec, report: Report): void {
  const once = unique(report, 'a name that nothing else of the lab has');
  for (const kind of ['nodes', 'pods', 'routers', 'hosts'] as const) {
    for (const [path, { name }] of itemsOf(spec, kind)) {
      once(name, [...path, 'name']);
      if (RESERVED.includes(name as string)) report([...path, 'name'], `a name other than ${RESERVED.join(', ')}`);
    }
  }
  const onceAsService = unique(report, 'a name that no other has');
  for (const [path, { name }] of itemsOf(spec, 'services')) {
    if (typeof name === 'string') onceAsService(serviceName(name), [...path, 'name']);
  }
  checkSwitchDevices(spec, report);
}

/** Everything that has a device in the namespace of the switch: bridges, and what is plugged into them. */
function checkSwitchDevices(spec: Spec, report: Report): void {
  const subnets = unique(report, 'a name that no other has');
  const once = unique(report, 'a name that no device of the switch has');
  for (const [path, { name }] of itemsOf(spec, 'subnets')) {
    subnets(name, [...path, 'name']);
    if (typeof name === 'string') for (const device of [name, segmentDevice(name)]) once(device, [...path, 'name']);
  }
  for (const kind of ['nodes', 'hosts'] as const) {
    for (const [path, { name }] of itemsOf(spec, kind)) once(name, [...path, 'name']);
  }
  for (const [path, { name, legs }] of itemsOf(spec, 'routers')) {
    for (const [j, { device = `eth${j + 1}` }] of legsOf(legs)) {
      if (typeof name === 'string') once(`${name}-${device}`, [...path, 'legs', j, 'device']);
    }
  }
}

/** Names that must be those of something. */
function checkReferences(spec: Spec, report: Report): void {
  const known = (kind: 'subnets' | 'nodes' | 'routers') =>
    itemsOf(spec, kind).flatMap(([, { name }]) => (typeof name === 'string' ? [name] : []));
  const expect = (kind: 'subnets' | 'nodes' | 'routers', value: string | undefined, path: Path): void => {
    const names = known(kind);
    if (typeof value !== 'string' || names.includes(value)) return;
    report(path, `one of spec.${kind}: ${names.join(', ') || 'there is none'}${suggest(value, names)}`);
  };
  for (const kind of ['nodes', 'hosts'] as const) {
    for (const [path, { subnet }] of itemsOf(spec, kind)) expect('subnets', subnet, [...path, 'subnet']);
  }
  for (const [path, { legs }] of itemsOf(spec, 'routers')) {
    for (const [j, leg] of legsOf(legs)) expect('subnets', leg.subnet, [...path, 'legs', j, 'subnet']);
  }
  for (const [path, { node }] of itemsOf(spec, 'pods')) expect('nodes', node, [...path, 'node']);
  for (const [path, { endpoints }] of itemsOf(spec, 'links')) {
    for (const [j, end] of entries(endpoints as ({ router?: string } | undefined)[] | undefined)) {
      if (typeof end === 'object') expect('routers', end.router, [...path, 'endpoints', j]);
    }
  }
}

type Leg = { device?: string; subnet?: string; address?: string };

function legsOf(legs: unknown): [number, Leg][] {
  return Array.isArray(legs) ? entries(legs as (Leg | undefined)[]).filter(([, leg]) => typeof leg === 'object') : [];
}

function cidrOf(text: unknown): Cidr | undefined {
  return typeof text === 'string' ? parseCidr(text) : undefined;
}

/** Networks that are too small, or in each other. */
function checkNetworks(spec: Spec, report: Report): void {
  const cluster = cidrOf(spec.clusterCidr);
  const apart = (kind: 'subnets' | 'nodes', field: 'cidr' | 'podCidr', least: number): void => {
    const before: [Path, Cidr][] = [];
    for (const [path, item] of itemsOf(spec, kind)) {
      const cidr = cidrOf((item as Record<string, unknown>)[field]);
      if (cidr === undefined) continue;
      const at = [...path, field];
      if (cidr.length > least) report(at, `a network of /${least} or larger`);
      const other = before.find(([, known]) => overlap(known, cidr));
      if (other !== undefined) report(at, `a network of its own (${formatPath(other[0])} is in it, or it in that)`);
      before.push([at, cidr]);
    }
  };
  apart('subnets', 'cidr', 30);
  apart('nodes', 'podCidr', 30);
  checkPodNetworks(spec, report);
  if (cluster === undefined) return;
  for (const [path, { podCidr }] of itemsOf(spec, 'nodes')) {
    const cidr = cidrOf(podCidr);
    if (cidr !== undefined && (cidr.length < cluster.length || !contains(cluster, cidr.prefix))) {
      report([...path, 'podCidr'], `a network in spec.clusterCidr, ${formatCidr(cluster.prefix, cluster.length)}`);
    }
  }
}

/** Pods have networks of their own, or, as in a VPC, a part of their node's subnet. */
function checkPodNetworks(spec: Spec, report: Report): void {
  for (const [path, { podCidr, subnet }] of itemsOf(spec, 'nodes')) {
    const cidr = cidrOf(podCidr);
    if (cidr === undefined) continue;
    for (const [other, { name, cidr: written }] of itemsOf(spec, 'subnets')) {
      const lan = cidrOf(written);
      if (lan === undefined || !overlap(lan, cidr) || (name === subnet && cidr.length > lan.length)) continue;
      report([...path, 'podCidr'], `a network apart from ${formatPath(other)}, ${formatCidr(lan.prefix, lan.length)}`);
    }
  }
}

/** Addresses that two have, or that are in another network than their owner. */
function checkAddresses(spec: Spec, report: Report): void {
  const once = unique(report, 'an address that nothing else of the lab has');
  const subnets = new Map(itemsOf(spec, 'subnets').map(([, { name, cidr }]) => [name, cidrOf(cidr)]));
  const onSubnet = (address: string | undefined, subnet: string | undefined, path: Path): void => {
    const value = addressOf(address);
    const cidr = subnets.get(subnet);
    once(value, path);
    if (value !== undefined && cidr !== undefined && !isHostOf(cidr, value)) {
      report(path, `a host address of ${subnet}, ${formatCidr(cidr.prefix, cidr.length)}`);
    }
  };
  for (const kind of ['nodes', 'hosts'] as const) {
    for (const [path, { address, subnet }] of itemsOf(spec, kind)) onSubnet(address, subnet, [...path, 'address']);
  }
  for (const [path, { address, podCidr, hostAddress }] of itemsOf(spec, 'nodes')) {
    const cidr = cidrOf(podCidr);
    const chosen = cidr === undefined ? undefined : firstHost(cidr);
    const own = hostAddress === undefined ? chosen : addressOf(hostAddress);
    // As in a VPC, the node's address may be both.
    if (own !== addressOf(address)) once(own, [...path, 'hostAddress']);
  }
  for (const [path, { legs }] of itemsOf(spec, 'routers')) {
    for (const [j, leg] of legsOf(legs)) onSubnet(leg.address, leg.subnet, [...path, 'legs', j, 'address']);
  }
  const nodes = new Map(itemsOf(spec, 'nodes').map(([, { name, podCidr }]) => [name, cidrOf(podCidr)]));
  for (const [path, { address, node }] of itemsOf(spec, 'pods')) {
    const value = addressOf(address);
    const cidr = nodes.get(node);
    once(value, [...path, 'address']);
    if (value !== undefined && cidr !== undefined && !contains(cidr, value)) {
      report([...path, 'address'], `an address of the node's pods, ${formatCidr(cidr.prefix, cidr.length)}`);
    }
  }
  for (const [path, { address }] of itemsOf(spec, 'services')) once(addressOf(address), [...path, 'address']);
}

function isHostOf(cidr: Cidr, address: number): boolean {
  const last = cidr.prefix + 2 ** (32 - cidr.length) - 1;
  return contains(cidr, address) && address !== cidr.prefix && address !== (last | 0);
}

function checkRouters(spec: Spec, report: Report): void {
  const reached = new Set<string | undefined>();
  const devices = unique(report, 'a device that the router has once');
  for (const [path, { name, legs, loops, exit }] of itemsOf(spec, 'routers')) {
    for (const [j, { device = `eth${j + 1}`, subnet }] of legsOf(legs)) {
      const at = [...path, 'legs', j];
      reached.add(subnet);
      devices(`${name}:${device}`, [...at, 'device']);
      if (`${name}-${device}`.length > DEVICE_NAME_LENGTH) {
        report(
          [...at, 'device'],
          `a name with which ${name}-${device} has no more than ${DEVICE_NAME_LENGTH} characters`,
        );
      }
    }
    for (const [j, { device = `loop${j + 1}` }] of legsOf(loops)) devices(`${name}:${device}`, [...path, 'loops', j]);
    if (typeof exit === 'object') devices(`${name}:${exit.device}`, [...path, 'exit']);
  }
  for (const [path, { endpoints }] of itemsOf(spec, 'links')) {
    for (const [j, end] of entries(endpoints as ({ router: string; device: string } | undefined)[] | undefined)) {
      if (typeof end === 'object') devices(`${end.router}:${end.device}`, [...path, 'endpoints', j]);
    }
  }
  // Nodes reach those of another subnet through a router, or not at all.
  const used = new Set(itemsOf(spec, 'nodes').map(([, { subnet }]) => subnet));
  if (used.size < 2) return;
  for (const [path, { subnet }] of itemsOf(spec, 'nodes')) {
    if (subnet === undefined || reached.has(subnet)) continue;
    report([...path, 'subnet'], 'a subnet with a router, for nodes are in several');
    reached.add(subnet);
  }
}

function checkPods(spec: Spec, report: Report): void {
  for (const [path, pod] of itemsOf(spec, 'pods')) {
    const [first, second] = SERVERS.filter(field => pod[field] !== undefined);
    if (second !== undefined) report([...path, second], `nothing, for a pod with ${first}`);
    for (const field of ['port', 'linkLocal'] as const) {
      if (pod[field] !== undefined && pod.hostname === undefined) report([...path, field], 'a hostname beside it');
    }
  }
  const once = unique(report, 'a port that no other service has');
  for (const [path, { ports }] of itemsOf(spec, 'services')) {
    if (!Array.isArray(ports)) continue;
    for (const [j, item] of entries(ports)) {
      if (typeof item === 'object') once(item.nodePort, [...path, 'ports', j, 'nodePort']);
    }
  }
}

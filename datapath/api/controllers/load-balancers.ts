/**
 * LB-IPAM as Cilium does it: services of type LoadBalancer get addresses of CiliumLoadBalancerIPPools, the ones that they
 * ask for where they may, the same one where they share a key and have no port in common. (operator/pkg/lbipam)
 */
import { isDeepStrictEqual } from 'node:util';
import { formatAddress, parseAddress, parseCidr } from '../../control/address.ts';
import { type Json, type KubeObject, placeOf } from '../object.ts';
import { matchesSelector } from '../selector.ts';
import { withCondition } from './cluster.ts';
import type { Controller } from './manager.ts';

const REQUESTED = ['lbipam.cilium.io/ips', 'io.cilium/lb-ipam-ips'];
const SHARING = ['lbipam.cilium.io/sharing-key', 'io.cilium/lb-ipam-sharing-key'];
const CROSS = ['lbipam.cilium.io/sharing-cross-namespace', 'io.cilium/lb-ipam-sharing-cross-namespace'];
const SATISFIED = 'cilium.io/IPAMRequestSatisfied';
const CLASS = 'io.cilium/l2-announcer';

interface Range {
  /** Unsigned, both included. */
  first: number;
  last: number;
}

interface Pool {
  object: KubeObject;
  ranges: Range[];
  /** What is wrong with it, or with which other pool it has addresses in common. */
  conflict: { reason: string; message: string } | undefined;
}

export interface Allocation {
  /** Addresses of each service, by its place. */
  addresses: Map<string, string[]>;
  /** Why a service has none, by its place. */
  faults: Map<string, { reason: string; message: string }>;
  pools: { object: KubeObject; conflict: Pool['conflict']; total: number; available: number; used: number }[];
}

/** Everything hangs together: there is one key. */
export const loadBalancers: Controller = {
  name: 'lb-ipam',
  keys: () => ['all'],
  *affected({ storage, object, previous }) {
    if (storage === 'ciliumloadbalancerippools.cilium.io') yield 'all';
    else if (storage === 'services' && (isBalanced(object) || (previous !== undefined && isBalanced(previous))))
      yield 'all';
  },
  async reconcile(_key, cluster) {
    const services = cluster.list('Service');
    const { addresses, faults, pools } = allocate(cluster.list('CiliumLoadBalancerIPPool'), services);
    const anyPool = pools.length > 0;
    for (const service of services) {
      const place = placeOf(service);
      const given = addresses.get(place) ?? [];
      const ingress = given.map(ip => ({ ip, ipMode: 'VIP' }));
      const before = service.status?.loadBalancer?.ingress ?? [];
      if (!isBalanced(service) && !(before.length > 0 && service.spec.type !== 'LoadBalancer')) continue;
      // It sleeps until there is a pool: addresses that another has given stay. What it has given itself goes with the pool.
      const isOurs = anyPool || service.status?.conditions?.some(({ type }: Json) => type === SATISFIED) === true;
      if (isBalanced(service) && !isOurs) continue;
      const fault = faults.get(place);
      const condition = {
        type: SATISFIED,
        status: fault === undefined ? 'True' : 'False',
        reason: fault?.reason ?? 'satisfied',
        message: fault?.message ?? '',
      };
      const loadBalancer = ingress.length > 0 ? { ingress } : {};
      const conditions = isBalanced(service)
        ? withCondition(service.status?.conditions, condition, cluster.now)
        : service.status?.conditions;
      if (isDeepStrictEqual([before, service.status?.conditions], [ingress, conditions])) continue;
      await cluster.setStatus(service, { loadBalancer, conditions });
    }
    for (const { object, conflict, total, available, used } of pools) {
      const { now } = cluster;
      let conditions = withCondition(
        object.status?.conditions,
        {
          type: 'cilium.io/PoolConflict',
          status: conflict === undefined ? 'False' : 'True',
          reason: conflict?.reason ?? 'resolved',
          message: conflict?.message ?? '',
        },
        now,
      );
      for (const [type, count] of [
        ['IPsTotal', total],
        ['IPsAvailable', available],
        ['IPsUsed', used],
      ] as const) {
        const condition = { type: `cilium.io/${type}`, status: 'Unknown', reason: 'noreason', message: `${count}` };
        conditions = withCondition(conditions, condition, now);
      }
      if (!isDeepStrictEqual(object.status?.conditions, conditions)) await cluster.setStatus(object, { conditions });
    }
    return undefined;
  },
};

function isBalanced({ spec, metadata }: KubeObject): boolean {
  if (spec.type !== 'LoadBalancer' || metadata.deletionTimestamp !== undefined) return false;
  return spec.loadBalancerClass === undefined || spec.loadBalancerClass === CLASS;
}

function annotation({ metadata }: KubeObject, names: readonly string[]): string | undefined {
  return names.map(name => metadata.annotations?.[name]).find(value => value !== undefined && value !== '');
}

/** Who has which address. What a service has, it keeps as long as it may. Pure. */
export function allocate(poolObjects: readonly KubeObject[], services: readonly KubeObject[]): Allocation {
  const pools = readPools(poolObjects);
  const owners = new Map<number, KubeObject[]>();
  const result: Allocation = { addresses: new Map(), faults: new Map(), pools: [] };
  const usable = pools.filter(({ object, conflict }) => conflict === undefined && object.spec.disabled !== true);
  const give = (service: KubeObject, address: number): void => {
    const place = placeOf(service);
    owners.set(address, [...(owners.get(address) ?? []), service]);
    result.addresses.set(place, [...(result.addresses.get(place) ?? []), formatAddress(address | 0)]);
  };
  const balanced = services.filter(isBalanced);
  const isDisabled = (address: number): boolean => !usable.some(({ ranges }) => within(ranges, address));

  // First who has an address and may keep it, then who asks for one, then the rest; in each the older before the younger.
  const pending: KubeObject[] = [];
  for (const service of balanced) {
    const wanted = requested(service);
    const has: number[] = (service.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }: Json) => {
      const address = parseAddress(String(ip));
      return address === undefined ? [] : [address >>> 0];
    });
    const may = has.filter(
      address =>
        (wanted === undefined || wanted.includes(formatAddress(address | 0))) &&
        // A disabled pool gives nothing more, but takes nothing away.
        pools.some(pool => pool.conflict === undefined && within(pool.ranges, address) && selects(pool, service)) &&
        incompatibility(service, owners.get(address) ?? []) === undefined,
    );
    const enough = wanted === undefined ? 1 : wanted.length;
    if (has.length > 0 && may.length === has.length && may.length === enough)
      for (const address of may) give(service, address);
    else pending.push(service);
  }
  const age = ({ metadata }: KubeObject): string =>
    `${metadata.creationTimestamp} ${metadata.namespace}/${metadata.name}`;
  pending.sort(
    (a, b) => Number(requested(a) === undefined) - Number(requested(b) === undefined) || (age(a) < age(b) ? -1 : 1),
  );
  for (const service of pending) {
    const wanted = requested(service);
    const fault = (reason: string, message: string) => result.faults.set(placeOf(service), { reason, message });
    if (wanted !== undefined) {
      for (const text of wanted) {
        const parsed = parseAddress(text);
        const address = (parsed ?? 0) >>> 0;
        const holders = owners.get(address) ?? [];
        const why = incompatibility(service, holders);
        if (parsed === undefined) fault('invalid_ip', `The requested IP '${text}' is not a valid IP`);
        else if (isDisabled(address)) fault('no_pool', `No pool exists with a CIDR containing '${text}'`);
        else if (!usable.some(pool => within(pool.ranges, address) && selects(pool, service))) {
          fault('pool_selector_mismatch', `The pool with the CIDR containing '${text}', doesn't select this service`);
        } else if (holders.length > 0 && annotation(service, SHARING) === undefined) {
          fault('already_allocated', `The IP '${text}' is already allocated to another service`);
        } else if (why !== undefined) {
          fault(
            'already_allocated_incompatible_service',
            `The IP '${text}' is already allocated to an incompatible service. Reason: ${why}`,
          );
        } else give(service, address);
      }
      continue;
    }
    const address = shared(usable, service, owners) ?? free(usable, service, owners);
    if (address !== undefined) give(service, address);
    else if (usable.some(pool => selects(pool, service)))
      fault('out_of_ips', 'All enabled CiliumLoadBalancerIPPools that match this service ran out of allocatable IPs');
    else fault('no_pool', 'There are no enabled CiliumLoadBalancerIPPools that match this service');
  }
  result.pools = pools.map(({ object, ranges, conflict }) => {
    const total = ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
    const used = [...owners.keys()].filter(address => within(ranges, address)).length;
    return { object, conflict, total, used, available: total - used };
  });
  return result;
}

function requested(service: KubeObject): string[] | undefined {
  const text = annotation(service, REQUESTED) ?? service.spec.loadBalancerIP;
  return text === undefined || text === '' ? undefined : text.split(',').map((part: string) => part.trim());
}

function selects({ object }: Pool, { metadata }: KubeObject): boolean {
  const selector = object.spec.serviceSelector;
  if (selector === undefined) return true;
  // Cilium lets a selector also name the service and its namespace.
  const labels = {
    ...metadata.labels,
    'io.kubernetes.service.namespace': metadata.namespace!,
    'io.kubernetes.service.name': metadata.name,
  };
  return matchesSelector(selector, labels);
}

/**
 * Why a service may not have an address beside those that have it, in Cilium's words; undefined: it may. They have the same
 * key, no port in common whatever its protocol, are in one namespace or allow each other's, and send what comes from outside
 * to the same pods where that matters.
 */
function incompatibility(service: KubeObject, owners: readonly KubeObject[]): string | undefined {
  const key = annotation(service, SHARING);
  for (const owner of owners) {
    if (key === undefined || annotation(owner, SHARING) !== key) return 'different sharing key';
    if (owner.metadata.namespace !== service.metadata.namespace && !(allows(owner, service) && allows(service, owner)))
      return 'different and not permitted namespace';
    const taken = new Set((owner.spec.ports ?? []).map(({ port }: Json) => port));
    if ((service.spec.ports ?? []).some(({ port }: Json) => taken.has(port))) return 'same port';
    const [policy, other] = [service, owner].map(({ spec }) => spec.externalTrafficPolicy ?? 'Cluster');
    if (policy !== other) return 'different ExternalTrafficPolicy';
    if (policy === 'Local' && !isDeepStrictEqual(service.spec.selector, owner.spec.selector))
      return 'compatible ExternalTrafficPolicy local but selecting different set of pods';
  }
  return undefined;
}

function allows(service: KubeObject, other: KubeObject): boolean {
  const list =
    annotation(service, CROSS)
      ?.split(',')
      .map(part => part.trim()) ?? [];
  return list.includes('*') || list.includes(other.metadata.namespace!);
}

function shared(
  pools: readonly Pool[],
  service: KubeObject,
  owners: ReadonlyMap<number, KubeObject[]>,
): number | undefined {
  if (annotation(service, SHARING) === undefined) return undefined;
  const mine = pools.filter(pool => selects(pool, service));
  return [...owners].find(
    ([address, list]) =>
      incompatibility(service, list) === undefined && mine.some(({ ranges }) => within(ranges, address)),
  )?.[0];
}

function free(
  pools: readonly Pool[],
  service: KubeObject,
  owners: ReadonlyMap<number, KubeObject[]>,
): number | undefined {
  for (const pool of pools) {
    if (!selects(pool, service)) continue;
    for (const { first, last } of pool.ranges) {
      for (let address = first; address <= last; address++) if (!owners.has(address)) return address;
    }
  }
  return undefined;
}

function within(ranges: readonly Range[], address: number): boolean {
  return ranges.some(({ first, last }) => address >= first && address <= last);
}

function readPools(objects: readonly KubeObject[]): Pool[] {
  // The older one of two that have an address in common is right; of one second, the one that was found right before.
  const age = ({ metadata, status }: KubeObject): number =>
    Date.parse(metadata.creationTimestamp!) + (isRight(status?.conditions) ? 0 : 1);
  const ordered = [...objects].sort((a, b) => age(a) - age(b));
  const pools: Pool[] = [];
  /** Ranges of pools that are in no conflict. */
  const right: { range: Range; object: KubeObject }[] = [];
  for (const object of ordered) {
    const ranges: Range[] = [];
    let conflict: Pool['conflict'];
    for (const block of [...(object.spec.blocks ?? []), ...(object.spec.cidrs ?? [])]) {
      const range = readBlock(block, object.spec.allowFirstLastIPs !== 'No');
      if (range === undefined)
        conflict = {
          reason: 'invalid_block',
          message: `${JSON.stringify(block)}: expected cidr, or start and stop, of IPv4`,
        };
      else if (range.last >= range.first) ranges.push(range);
    }
    const rivals = [...ranges.map(range => ({ range, object })), ...right];
    const clash = ranges
      .flatMap(mine => rivals.map(({ range, object: of }) => ({ mine, range, of })))
      .find(({ mine, range }) => mine !== range && mine.first <= range.last && range.first <= mine.last);
    if (clash !== undefined) {
      const [mine, other] = [clash.mine, clash.range].map(textOf);
      const of = clash.of.metadata.name;
      conflict = {
        reason: 'cidr_overlap',
        message: `Pool conflicts since range '${mine}' overlaps range '${other}' from IP Pool '${of}'`,
      };
    }
    if (conflict === undefined) right.push(...ranges.map(range => ({ range, object })));
    pools.push({ object, ranges, conflict });
  }
  return pools;
}

function textOf({ first, last }: Range): string {
  return `${formatAddress(first | 0)} - ${formatAddress(last | 0)}`;
}

function isRight(conditions: Json[] | undefined): boolean {
  return conditions?.some(({ type, status }) => type === 'cilium.io/PoolConflict' && status === 'False') === true;
}

function readBlock({ cidr, start, stop }: Json, withEnds: boolean): Range | undefined {
  if (cidr !== undefined) {
    const parsed = parseCidr(cidr) ?? (parseAddress(cidr) === undefined ? undefined : parseCidr(`${cidr}/32`));
    if (parsed === undefined) return undefined;
    const first = parsed.prefix >>> 0;
    const last = first + 2 ** (32 - parsed.length) - 1;
    return withEnds || parsed.length >= 31 ? { first, last } : { first: first + 1, last: last - 1 };
  }
  const first = parseAddress(start ?? '');
  const last = parseAddress(stop ?? start ?? '');
  if (first === undefined || last === undefined || last >>> 0 < first >>> 0) return undefined;
  return { first: first >>> 0, last: last >>> 0 };
}

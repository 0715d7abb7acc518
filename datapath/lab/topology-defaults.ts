/**
 * What a topology means where its file says nothing: addresses, MACs and identities are chosen here, the same each time.
 * Pure.
 */
import { type Cidr, formatAddress, formatCidr, formatMac, parseAddress, parseCidr } from '../control/address.ts';
import type { Report } from '../control/check-draft.ts';
import { defaultVtepMac } from '../control/config.ts';
import type { LabLink, LabNode, LabPod, LabRouter, MasqueradeStyle, Topology } from './topology.ts';
import type { WrittenTopology } from './topology-form.ts';

/** Host numbers at which chosen addresses begin, where the network has room for them. */
const FIRST = { router: 1, node: 10, pod: 10, host: 100 };
const FIRST_IDENTITY = 1001;
/** Length of a pod network that is chosen. */
const POD_NETWORK_LENGTH = 24;
/** A link without addresses gets a /30 of 100.64.0.0/10 (RFC 6598). */
const LINK_NETWORK = parseAddress('100.64.0.0')!;

/** Whose masquerade rules go with a profile. */
const STYLES: Record<Topology['profile'], MasqueradeStyle> = {
  cilium: 'cilium',
  calico: 'calico',
  flannel: 'flannel',
  linux: 'aws',
  rfc: 'aws',
};

type Spec = WrittenTopology['spec'];

/** @param report where there is no room for what was to be chosen: the topology then does not count */
export function completeTopology({ metadata, spec }: WrittenTopology, report: Report): Topology {
  const lans = new Map(spec.subnets.map(({ name, cidr }) => [name, new Addresses(cidr)]));
  for (const { subnet, address } of [...spec.routers.flatMap(({ legs }) => legs), ...spec.nodes, ...spec.hosts]) {
    if (address !== undefined) lans.get(subnet)!.take(address);
  }
  /** On a subnet, with prefix length. */
  const placed = (subnet: string, address: string | undefined, first: number, path: (string | number)[]): string => {
    const lan = lans.get(subnet)!;
    return `${address ?? lan.choose(first, ['spec', ...path, 'address'], report)}/${lan.cidr.length}`;
  };
  const routers = spec.routers.map((router, i) => completeRouter(router, i, placed));
  const nodes = completeNodes(spec, placed, report);
  const { description, mode, profile, clusterCidr, subnets, services, hosts, staticRoutes } = spec;
  return {
    name: metadata.name,
    ...(description === undefined ? {} : { description }),
    mode,
    profile,
    clusterCidr,
    masquerade: spec.masquerade ?? STYLES[profile],
    inside: spec.inside ?? [clusterCidr],
    subnets,
    nodes,
    pods: completePods(spec, nodes, report),
    services: services.map(service => ({
      ...service,
      name: serviceName(service.name),
    })),
    routers,
    links: spec.links.map(completeLink),
    hosts: hosts.map((host, i) => ({ ...host, address: placed(host.subnet, host.address, FIRST.host, ['hosts', i]) })),
    staticRoutes,
  };
}

/** With its namespace. */
export function serviceName(written: string): string {
  return written.includes('/') ? written : `default/${written}`;
}

/** The node's own address in the network of its pods, where none is said. */
export function firstHost({ prefix }: Cidr): number {
  return (prefix + 1) | 0;
}

type Place = (subnet: string, address: string | undefined, first: number, path: (string | number)[]) => string;

function completeRouter({ legs, loops, ...router }: Spec['routers'][number], i: number, placed: Place): LabRouter {
  return {
    ...router,
    legs: legs.map((leg, j) => ({
      ...leg,
      device: leg.device ?? `eth${j + 1}`,
      address: placed(leg.subnet, leg.address, FIRST.router, ['routers', i, 'legs', j]),
    })),
    loops: loops.map((loop, j) => ({ ...loop, device: loop.device ?? `loop${j + 1}` })),
  };
}

function completeNodes({ nodes, subnets, clusterCidr }: Spec, placed: Place, report: Report): LabNode[] {
  // A network that is chosen is no part of a subnet.
  const taken = [...subnets.map(({ cidr }) => cidr), ...nodes.flatMap(({ podCidr }) => podCidr ?? [])];
  const networks = taken.map(cidr => parseCidr(cidr)!);
  return nodes.map((node, i) => {
    const address = placed(node.subnet, node.address, FIRST.node, ['nodes', i]);
    const own = parseCidr(address)!.address;
    const podCidr = node.podCidr ?? choosePodNetwork(clusterCidr, networks, i, report);
    return {
      ...node,
      address,
      mac: node.mac ?? formatMac(0x0200, own),
      vtepMac: node.vtepMac ?? defaultVtepMac(own),
      podCidr,
      hostAddress: node.hostAddress ?? formatAddress(firstHost(parseCidr(podCidr)!)),
    };
  });
}

/** The first /24 of the cluster's network that no node has. */
function choosePodNetwork(clusterCidr: string, taken: Cidr[], node: number, report: Report): string {
  const cluster = parseCidr(clusterCidr)!;
  for (let n = 0; n < 2 ** (POD_NETWORK_LENGTH - cluster.length); n++) {
    const cidr = parseCidr(formatCidr(cluster.prefix + n * 2 ** (32 - POD_NETWORK_LENGTH), POD_NETWORK_LENGTH))!;
    if (taken.some(other => overlap(other, cidr))) continue;
    taken.push(cidr);
    return formatCidr(cidr.prefix, cidr.length);
  }
  report(['spec', 'nodes', node, 'podCidr'], `one, for no /${POD_NETWORK_LENGTH} of ${clusterCidr} is left`);
  return clusterCidr;
}

/** True if two networks have an address in common. */
export function overlap(a: Cidr, b: Cidr): boolean {
  const length = Math.min(a.length, b.length);
  return length === 0 || a.prefix >>> (32 - length) === b.prefix >>> (32 - length);
}

function completePods({ pods }: Spec, nodes: readonly LabNode[], report: Report): LabPod[] {
  const networks = new Map(nodes.map(({ name, podCidr }) => [name, new Addresses(podCidr)]));
  for (const { name, hostAddress } of nodes) networks.get(name)!.take(hostAddress);
  for (const { node, address } of pods) if (address !== undefined) networks.get(node)!.take(address);
  return pods.map((pod, i) => ({
    ...pod,
    address: pod.address ?? networks.get(pod.node)!.choose(FIRST.pod, ['spec', 'pods', i, 'address'], report),
    identity: pod.identity ?? FIRST_IDENTITY + i,
  }));
}

function completeLink({ endpoints, addresses, mtu }: Spec['links'][number], i: number): LabLink {
  const [a, b] = addresses ?? [1, 2].map(n => formatCidr(LINK_NETWORK + 4 * i + n, 30));
  return {
    ends: [
      { ...endpoints[0], address: a! },
      { ...endpoints[1], address: b! },
    ],
    mtu,
  };
}

/** The addresses of a network, some of which somebody has. */
class Addresses {
  readonly cidr: Cidr;
  private readonly taken = new Set<number>();

  constructor(cidr: string) {
    this.cidr = parseCidr(cidr)!;
  }

  take(address: string): void {
    this.taken.add(parseAddress(address)!);
  }

  /** The first free one from the `first` on, where the network has so many, else from the beginning. */
  choose(first: number, path: (string | number)[], report: Report): string {
    const { prefix, length } = this.cidr;
    const last = 2 ** (32 - length) - 2;
    for (let n = first <= last ? first : 1; n <= last; n++) {
      const address = (prefix + n) | 0;
      if (this.taken.has(address)) continue;
      this.taken.add(address);
      return formatAddress(address);
    }
    report(path, `one, for none of ${formatCidr(prefix, length)} is left`);
    return formatAddress(prefix);
  }
}

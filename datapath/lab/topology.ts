/**
 * A lab as data: subnets, nodes, pods, routers between the subnets, and hosts outside. Everything the lab makes follows from
 * one value of `Topology`. As people write it, it is a file of kind Topology: topology-file.ts reads one, and the built-in
 * ones lie in topologies/.
 */
import type { Impairments } from '../segment/impairments.ts';

/** How packets go from node to node; see modes.ts. */
export const MODES = ['native', 'ipip', 'vxlan', 'geneve', 'crosssubnet'] as const;
export type Mode = (typeof MODES)[number];

export const PROFILES = ['linux', 'cilium', 'calico', 'flannel', 'rfc'] as const;
export type Profile = (typeof PROFILES)[number];

/** The layer 2 that the hosts of a subnet share: a segment of the nodes' process, and a bridge of that name beside it. */
export interface Subnet {
  name: string;
  /** `192.168.10.0/24` */
  cidr: string;
  /** Longest IP packet, bytes. */
  mtu: number;
  /** What spoils the segment. */
  impairments?: Impairments;
}

export interface LabNode {
  name: string;
  subnet: string;
  /** On the underlay, with prefix length. */
  address: string;
  mac: string;
  /** MAC of its VXLAN or GENEVE endpoint. */
  vtepMac: string;
  podCidr: string;
  /** Address of the node on the pod network: what its own processes send from towards pods. */
  hostAddress: string;
  /** Of its uplink, where it differs from the subnet's. */
  mtu?: number;
}

/** Who answers in a pod that is in memory; see io/memory-pod.ts. */
export type MemoryApp = 'echo' | 'http' | 'sink';

export interface LabPod {
  name: string;
  node: string;
  address: string;
  /** Security identity: the VNI of what the pod sends when the mode takes the VNI from it. */
  identity: number;
  labels: Record<string, string>;
  /** Set where the pod answers HTTP on port 80; the name it gives there. */
  hostname?: string;
  /** Where it answers HTTP, if not on port 80. */
  port?: number;
  /** IPv6 address it lists in its answer, which decides the answer's length. */
  linkLocal?: string;
  /** Set where the pod is the cluster's name server, on UDP port 53. */
  dns?: true;
  /** What runs in it as long as the lab is up. */
  command?: string[];
  /** Set where the pod has no namespace, and its node answers for it. */
  memory?: MemoryApp;
}

/** A service as every node has it. Its endpoints are the pods that have all labels of `selector`. */
export interface LabService {
  name: string;
  /** Cluster address. */
  address: string;
  ports: { name?: string; protocol?: 'TCP' | 'UDP'; port: number; targetPort?: number; nodePort?: number }[];
  selector: Record<string, string>;
  externalTrafficPolicy?: 'Cluster' | 'Local';
}

/** Whose rules decide which pods' packets leave under their node's address; the rules are in masquerade.ts. */
export type MasqueradeStyle = 'cilium' | 'calico' | 'flannel' | 'aws';

export interface LabRouter {
  name: string;
  /** One leg per subnet; `device` is the name inside the router. */
  legs: { device: string; subnet: string; address: string; mtu?: number }[];
  /** Networks that only the router has. The first one carries its web server. */
  loops: { device: string; address: string }[];
  /** Where everything goes that the router does not know: a host that forwards nothing and answers nothing. */
  exit?: { device: string; address: string; gateway: string };
  /** What it knows besides the lab's networks: those of pods, if any. */
  routes: { to: string; via: string }[];
}

/** A cable between two routers. */
export interface LabLink {
  ends: [LinkEnd, LinkEnd];
  mtu: number;
}

export interface LinkEnd {
  router: string;
  device: string;
  /** With prefix length. */
  address: string;
}

/** A host on a subnet that is no node. */
export interface LabHost {
  name: string;
  subnet: string;
  /** With prefix length. */
  address: string;
  /** Set where it answers HTTP on port 80; the name it gives there. */
  hostname?: string;
  command?: string[];
}

export interface Topology {
  name: string;
  /** In a sentence. */
  description?: string;
  /** Unless `--mode` says another. */
  mode: Mode;
  /** What the nodes behave like when `--profile` does not say otherwise; see modes.ts. */
  profile: Profile;
  /** Covers every pod CIDR. */
  clusterCidr: string;
  masquerade: MasqueradeStyle;
  /** Networks that pods reach under their own addresses: Cilium's native routing CIDR, Calico's pools, a VPC. */
  inside: string[];
  subnets: Subnet[];
  nodes: LabNode[];
  pods: LabPod[];
  services: LabService[];
  /** The first one is the cluster's: what tests and experiments mean by the router. */
  routers: LabRouter[];
  links: LabLink[];
  hosts: LabHost[];
  /** What every node sends to the router of its subnet besides what its mode adds. */
  staticRoutes: string[];
}

export const CLUSTER_DOMAIN = 'cluster.local';

/** `192.168.10.100/24` -> `192.168.10.100` */
export function addressOf(cidr: string): string {
  return cidr.slice(0, cidr.indexOf('/'));
}

/** Its machines, by name, with the addresses that they have on its subnets. */
export function machinesOf({ nodes, routers, hosts }: Topology): { name: string; addresses: string[] }[] {
  return [
    ...[...nodes, ...hosts].map(({ name, address }) => ({ name, addresses: [addressOf(address)] })),
    ...routers.map(({ name, legs }) => ({ name, addresses: legs.map(leg => addressOf(leg.address)) })),
  ];
}

/** Names of everything in it that has a namespace, in the order of `lab status`. */
export function hostsOf({ nodes, pods, routers, hosts }: Topology): string[] {
  const placed = pods.filter(({ memory }) => memory === undefined);
  return [...nodes, ...placed, ...routers, ...hosts].map(({ name }) => name);
}

/** The address of the first router on a subnet; undefined where there is none. */
export function gatewayOf({ routers }: Topology, subnet: string): string | undefined {
  const leg = routers.flatMap(({ legs }) => legs).find(candidate => candidate.subnet === subnet);
  return leg === undefined ? undefined : addressOf(leg.address);
}

/** The cluster's router. @throws Error when the topology has none */
export function routerOf({ name, routers }: Topology): LabRouter {
  const [router] = routers;
  if (router === undefined) throw new Error(`${name}: no router`);
  return router;
}

/** Every address of a router on the lab's networks. */
export function addressesOfRouter({ routers, links }: Topology, name: string): string[] {
  const { legs, loops } = routers.find(router => router.name === name)!;
  const ends = links.flatMap(link => link.ends).filter(end => end.router === name);
  return [...legs, ...loops, ...ends].map(({ address }) => addressOf(address));
}

/** Addresses of the pods behind a service. */
export function endpointsOf(topology: Topology, service: LabService): string[] {
  const wanted = Object.entries(service.selector);
  return topology.pods
    .filter(({ labels }) => wanted.every(([key, value]) => labels[key] === value))
    .map(pod => pod.address);
}

/** @throws Error when the topology has no such service. */
export function serviceOf(topology: Topology, name: string): LabService {
  const service = topology.services.find(candidate => candidate.name === name);
  if (service === undefined) throw new Error(`${topology.name}: no service ${name}`);
  return service;
}

/** `default/webpod` -> `webpod.default.svc.cluster.local`, its name in the cluster's DNS */
export function dnsNameOf(service: LabService): string {
  const [namespace, name] = service.name.split('/');
  return `${name}.${namespace}.svc.${CLUSTER_DOMAIN}`;
}

/** The web server of the cluster's router. */
export function routerWebAddress(topology: Topology): string {
  return addressOf(routerOf(topology).loops[0]!.address);
}

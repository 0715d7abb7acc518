/**
 * What the objects of a cluster mean to one of its nodes: its NodeConfig, from a base that says what the cluster does not.
 * What the base says itself stays; the rest follows from Nodes, Pods, Services, EndpointSlices, NetworkPolicies, the
 * ConfigMaps of flannel and Cilium, and Calico's IPPools. Pure.
 */
import { contains, parseAddress, parseCidr } from '../../control/address.ts';
import { type Json, type KubeObject, placeOf } from '../object.ts';
import { Memo } from './memo.ts';
import { ANYWHERE, type Network, networkOf, podCidrsOf, type SwitchObjects } from './network.ts';
import {
  atRest,
  internalIP,
  isNear,
  masqueradeOf,
  type Own,
  type Peer,
  peersOf,
  routesOf,
  tunnelsOf,
  withoutGateway,
} from './node-network.ts';
import { type CompiledPolicies, compilePolicies, namedPorts } from './policies.ts';
import { compileServices } from './services.ts';

export interface ClusterObjects {
  nodes: readonly KubeObject[];
  pods: readonly KubeObject[];
  services: readonly KubeObject[];
  slices: readonly KubeObject[];
  policies: readonly KubeObject[];
  namespaces: readonly KubeObject[];
  configMaps: readonly KubeObject[];
  /** Calico's IPPools. */
  pools: readonly KubeObject[];
  /** CiliumEndpoints, for the identities of pods. */
  endpoints: readonly KubeObject[];
}

export interface NodeProgram {
  /** As a NodeConfig is written. */
  config: Json;
  /** What of the objects is not carried out, a line each. */
  missing: string[];
}

/** Names the network namespace of a pod, by name or path; without, it is NAMESPACE.NAME. */
export const NETNS = 'tunpath.dev/netns';

const FLANNEL = 'flannel.alpha.coreos.com';

const networks = new Memo<{ spec: Json; missing: string[] }>();
const compiledPolicies = new Memo<CompiledPolicies>();
const identitiesOf = new Memo<Map<string, number | undefined>>();
const podsByNode = new Memo<Map<string, KubeObject[]>>();

/**
 * What has not changed since the last time for this base is not made again: it is known by the identity of the lists.
 * @param base a NodeConfig that need not be whole
 * @param netnsExists whether there is a namespace of that name
 */
export function compileNode(
  base: Json,
  objects: ClusterObjects,
  nodeName: string,
  netnsExists: (name: string) => boolean,
): NodeProgram {
  const { nodes, configMaps, pools, pods, policies, namespaces } = objects;
  const network = networks.get(base, [nodes, configMaps, pools, nodeName], () => networkSpec(base, objects, nodeName));
  const missing = [...network.missing];
  const spec: Json = { ...base.spec, ...network.spec };
  spec.pods = [
    ...(base.spec.pods ?? []),
    ...podsOn(nodeName, objects, spec.tunnel?.vni === 'identity', netnsExists, missing),
  ];
  const { services, refused } = compileServices(objects.services, objects.slices);
  const ownName = base.metadata.name;
  // Endpoints name their node as the cluster does; the datapath knows itself by its own name.
  const renamed = ownName === nodeName ? services : services.map(service => withOwnName(service, nodeName, ownName));
  for (const { place, message } of refused) missing.push(`Service ${place}: ${message}`);
  spec.services = [...(base.spec.services ?? []), ...renamed];
  const compiled = compiledPolicies.get(base, [policies, namespaces, pods, nodeName], () =>
    compilePolicies(
      policies,
      namespaces,
      pods.filter(pod => pod.spec.nodeName !== nodeName),
    ),
  );
  spec.policies = [...(base.spec.policies ?? []), ...compiled.policies];
  Object.assign(spec, { namespaces: compiled.namespaces, remotePods: compiled.remotePods });
  return { config: { ...base, spec }, missing };
}

/** What of the network a node has from its cluster, and what of that is not carried out. */
function networkSpec(base: Json, objects: ClusterObjects, nodeName: string): { spec: Json; missing: string[] } {
  const missing: string[] = [];
  const spec: Json = {};
  const node = objects.nodes.find(({ metadata }) => metadata.name === nodeName);
  if (node === undefined) missing.push(`no Node ${nodeName} is in the cluster`);
  const others = objects.nodes.filter(({ metadata }) => metadata.name !== nodeName);
  const network = networkFrom(objects, missing);
  const own = base.spec.profile ?? network.system;
  if (own !== null) spec.profile = own;
  const { peers, missing: unknown } = peersOf(others, vtepMacOf);
  missing.push(...unknown);
  const part = networkPart(base, network, peers, node, missing);
  Object.assign(spec, part);
  if (base.spec.masquerade === undefined) {
    const addresses = others.concat(node ?? []).flatMap(other => internalIP(other) ?? []);
    const rules = masqueradeOf(network, node === undefined ? [] : podCidrsOf(node), addresses);
    if (rules !== undefined) spec.masquerade = rules;
  }
  return { spec, missing };
}

/** The service itself, where no endpoint of it is on this node. */
function withOwnName(service: Json, nodeName: string, ownName: string): Json {
  if (!service.endpoints.some((endpoint: Json) => endpoint.nodeName === nodeName)) return service;
  const endpoints = service.endpoints.map((endpoint: Json) =>
    endpoint.nodeName === nodeName ? { ...endpoint, nodeName: ownName } : endpoint,
  );
  return { ...service, endpoints };
}

/** As it stands where nothing says how packets go between nodes: as they are. */
const PLAIN: Network = { system: null, pools: [], plain: 'all', closed: [] };

/** What the switches say; what is wrong with them is said, and they are as if they were not there. */
function networkFrom(objects: SwitchObjects, missing: string[]): Network {
  const { network, faults, remarks } = networkOf(objects);
  for (const { source, message } of [...faults, ...remarks])
    missing.push(`${source.kind} ${placeOf({ metadata: source })}: ${message}`);
  return network ?? PLAIN;
}

/** Tunnels and routes. What the base says of tunnels stands, and the cluster's nodes are its peers. */
function networkPart(
  base: Json,
  network: Network,
  others: readonly Peer[],
  node: KubeObject | undefined,
  missing: string[],
): Json {
  const { uplink, tunnel: written, tunnels } = base.spec;
  const own: Own = {
    subnet: uplink?.address,
    gateway: uplink?.gateway,
    podCidrs: node === undefined ? [] : podCidrsOf(node),
    ...(node === undefined ? {} : { mac: vtepMacOf(node) }),
  };
  // A tunnel to a node that nothing leads to is none.
  const ways: Json[] = (base.spec.routes ?? []).filter(({ encap }: Json) => encap === undefined || encap === false);
  const isReached = (peer: Peer): boolean =>
    isNear(own, peer) ||
    own.gateway !== undefined ||
    ways.some(({ to }) => parseCidr(to) !== undefined && contains(parseCidr(to)!, parseAddress(peer.address)!));
  const peers = others.filter(isReached);
  missing.push(...others.filter(peer => !isReached(peer)).map(peer => withoutGateway(own, peer)));
  const given = written === undefined ? tunnels?.[0] : written.protocol === 'none' ? null : written;
  const taken = given === undefined ? network : withTunnel(network, given);
  const plan = atRest(taken);
  const several = tunnels !== undefined;
  const { routes, missing: without } = routesOf(plan, own, peers, ({ name }) => (several ? name : true));
  missing.push(...without);
  const known = new Set((base.spec.routes ?? []).map(({ to }: Json) => to));
  const all = [...routes.filter(({ to }) => !known.has(to)), ...(base.spec.routes ?? [])];
  if (several) return { routes: all };
  const [made] = tunnelsOf(plan, own, peers);
  if (made === undefined) return { routes: all, tunnel: written ?? { protocol: 'none' } };
  const { name: _name, ...short } = made;
  if (written === undefined) return { routes: all, tunnel: short };
  const present = new Set((written.peers ?? []).map(({ address }: Json) => address));
  const added = short.peers.filter(({ address }: Json) => !present.has(address));
  return { routes: all, tunnel: { ...written, peers: [...(written.peers ?? []), ...added] } };
}

/** The same with one tunnel for all pods, or none. @param tunnel as a NodeConfig has it; null: none */
function withTunnel(network: Network, tunnel: Json): Network {
  const encap = tunnel === null ? null : { name: tunnel.name ?? tunnel.protocol, protocol: tunnel.protocol };
  return { ...network, plain: 'all', pools: [{ cidr: ANYWHERE, encap, direct: false }] };
}

function podsOn(
  nodeName: string,
  { pods, endpoints }: ClusterObjects,
  needsIdentity: boolean,
  netnsExists: (name: string) => boolean,
  missing: string[],
): Json[] {
  const identities = identitiesOf.get(
    endpoints,
    [],
    () => new Map(endpoints.map(endpoint => [placeOf(endpoint), endpoint.status?.identity?.id])),
  );
  const own = podsByNode.get(pods, [], () => groupByNode(pods)).get(nodeName) ?? [];
  return own.flatMap(pod => {
    const { metadata, spec, status } = pod;
    const address = status?.podIP;
    const ended = status?.phase === 'Succeeded' || status?.phase === 'Failed';
    if (spec.hostNetwork === true || ended || address === undefined) return [];
    const netns = metadata.annotations?.[NETNS] ?? `${metadata.namespace}.${metadata.name}`;
    if (!netnsExists(netns)) {
      missing.push(`Pod ${placeOf(pod)}: there is no network namespace ${netns} (annotation ${NETNS} names another)`);
      return [];
    }
    const identity = identities.get(placeOf(pod));
    if (identity === undefined && needsIdentity) {
      missing.push(`Pod ${placeOf(pod)}: no CiliumEndpoint says its identity, which the tunnel carries`);
      return [];
    }
    return [
      {
        name: placeOf(pod),
        netns,
        device: 'eth0',
        address: `${address}/32`,
        labels: metadata.labels ?? {},
        ports: namedPorts(pod),
        ...(identity === undefined ? {} : { identity }),
      },
    ];
  });
}

function groupByNode(pods: readonly KubeObject[]): Map<string, KubeObject[]> {
  const byNode = new Map<string, KubeObject[]>();
  for (const pod of pods) {
    const known = byNode.get(pod.spec.nodeName);
    if (known === undefined) byNode.set(pod.spec.nodeName, [pod]);
    else known.push(pod);
  }
  return byNode;
}

/** The MAC of a node's VTEP, where flannel has written it down. */
function vtepMacOf({ metadata }: KubeObject): string | undefined {
  try {
    const mac = JSON.parse(metadata.annotations?.[`${FLANNEL}/backend-data`] ?? '{}')?.VtepMAC;
    return typeof mac === 'string' ? mac : undefined;
  } catch {
    return undefined;
  }
}

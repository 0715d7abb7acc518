/**
 * What the objects of a cluster mean to one of its nodes: its NodeConfig, from a base that says what the cluster does not.
 * What the base says itself stays; the rest follows from Nodes, Pods, Services, EndpointSlices, NetworkPolicies and the
 * ConfigMaps of flannel and Cilium. Pure.
 */
import { contains, parseAddress, parseCidr } from '../../control/address.ts';
import { type Json, type KubeObject, placeOf } from '../object.ts';
import { compilePolicies, namedPorts } from './policies.ts';
import { compileServices } from './services.ts';

export interface ClusterObjects {
  nodes: readonly KubeObject[];
  pods: readonly KubeObject[];
  services: readonly KubeObject[];
  slices: readonly KubeObject[];
  policies: readonly KubeObject[];
  namespaces: readonly KubeObject[];
  configMaps: readonly KubeObject[];
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

/**
 * @param base a NodeConfig that need not be whole
 * @param netnsExists whether there is a namespace of that name
 */
export function compileNode(
  base: Json,
  objects: ClusterObjects,
  nodeName: string,
  netnsExists: (name: string) => boolean,
): NodeProgram {
  const missing: string[] = [];
  const spec: Json = { ...base.spec };
  const node = objects.nodes.find(({ metadata }) => metadata.name === nodeName);
  if (node === undefined) missing.push(`no Node ${nodeName} is in the cluster`);
  const others = objects.nodes.filter(({ metadata }) => metadata.name !== nodeName);
  const network = networkOf(objects.configMaps);
  if (base.spec.profile === undefined && network.profile !== undefined) spec.profile = network.profile;
  const peers = others.flatMap(other => {
    const address = internalIP(other);
    if (address !== undefined) return [{ address, ...macOf(other, network.protocol) }];
    missing.push(`Node ${other.metadata.name} has no InternalIP of IPv4: nothing is sent to its pods`);
    return [];
  });
  if (base.spec.tunnels === undefined) spec.tunnel = tunnelOf(base.spec.tunnel, network, peers, node);
  spec.routes = [...routesTo(others, spec, network, base, missing), ...(base.spec.routes ?? [])];
  if (base.spec.masquerade === undefined && network.masquerade !== undefined) {
    spec.masquerade = network.masquerade(others.concat(node ?? []).flatMap(other => internalIP(other) ?? []));
  }
  spec.pods = [
    ...(base.spec.pods ?? []),
    ...podsOn(nodeName, objects, spec.tunnel?.vni === 'identity', netnsExists, missing),
  ];
  const { services, refused } = compileServices(objects.services, objects.slices);
  const own = base.metadata.name;
  // Endpoints name their node as the cluster does; the datapath knows itself by its own name.
  for (const service of services) {
    for (const endpoint of service.endpoints) if (endpoint.nodeName === nodeName) endpoint.nodeName = own;
  }
  for (const { place, message } of refused) missing.push(`Service ${place}: ${message}`);
  spec.services = [...(base.spec.services ?? []), ...services];
  const compiled = compilePolicies(
    objects.policies,
    objects.namespaces,
    objects.pods.filter(pod => pod.spec.nodeName !== nodeName),
  );
  spec.policies = [...(base.spec.policies ?? []), ...compiled.policies];
  Object.assign(spec, { namespaces: compiled.namespaces, remotePods: compiled.remotePods });
  return { config: { ...base, spec }, missing };
}

interface Network {
  protocol: 'none' | 'ipip' | 'vxlan' | 'geneve';
  port?: number;
  vni?: number | 'identity';
  /** To nodes of the own subnet without a tunnel. */
  direct: boolean;
  profile?: string;
  masquerade?: (nodes: readonly string[]) => Json[];
}

/** What the ConfigMaps of flannel or Cilium say of the pod network. */
function networkOf(configMaps: readonly KubeObject[]): Network {
  const named = (name: string): Json | undefined =>
    configMaps.find(({ metadata }) => metadata.name === name)?.data as Json | undefined;
  const flannel = parsed(named('kube-flannel-cfg')?.['net-conf.json']);
  if (flannel !== undefined) {
    const { Backend: backend = {}, Network: cluster } = flannel;
    const protocol = backend.Type === 'vxlan' ? 'vxlan' : backend.Type === 'ipip' ? 'ipip' : 'none';
    return {
      protocol,
      ...(protocol === 'vxlan' ? { port: backend.Port ?? 8472, vni: backend.VNI ?? 1 } : {}),
      direct: backend.DirectRouting === true,
      profile: 'flannel',
      ...(parseCidr(cluster ?? '') === undefined
        ? {}
        : { masquerade: () => [{ from: [cluster], notTo: [cluster, '224.0.0.0/4'], randomFully: true }] }),
    };
  }
  const cilium = named('cilium-config');
  if (cilium === undefined) return { protocol: 'none', direct: false };
  const isTunnelled = cilium['routing-mode'] !== 'native' && cilium.tunnel !== 'disabled';
  const protocol = isTunnelled
    ? ((cilium['tunnel-protocol'] ?? cilium.tunnel ?? 'vxlan') as 'vxlan' | 'geneve')
    : 'none';
  const inside = cilium['ipv4-native-routing-cidr'] ?? cilium['cluster-pool-ipv4-cidr'];
  const isMasqueraded = cilium['enable-ipv4-masquerade'] !== 'false' && parseCidr(inside ?? '') !== undefined;
  return {
    protocol,
    ...(isTunnelled
      ? { port: Number(cilium['tunnel-port'] ?? (protocol === 'geneve' ? 6081 : 8472)), vni: 'identity' }
      : {}),
    direct: false,
    profile: 'cilium',
    ...(isMasqueraded
      ? { masquerade: nodes => [{ from: [inside], notTo: [inside, ...nodes.map(address => `${address}/32`)] }] }
      : {}),
  };
}

function tunnelOf(written: Json, network: Network, peers: Json[], node: KubeObject | undefined): Json {
  const { protocol, port, vni } = network;
  const tunnel: Json = written ?? {
    protocol,
    ...(port === undefined ? {} : { port }),
    ...(vni === undefined ? {} : { vni }),
    ...(protocol === 'vxlan' && node !== undefined ? macOf(node, protocol) : {}),
  };
  const withMac = tunnel.protocol === 'vxlan' || tunnel.protocol === 'geneve';
  if (tunnel.protocol === 'none') return tunnel;
  const known = new Set((tunnel.peers ?? []).map(({ address }: Json) => address));
  const added = peers
    .filter(({ address }) => !known.has(address))
    .map(peer => (withMac ? peer : { address: peer.address }));
  return { ...tunnel, peers: [...(tunnel.peers ?? []), ...added] };
}

function routesTo(others: readonly KubeObject[], spec: Json, network: Network, base: Json, missing: string[]): Json[] {
  const written = new Set((base.spec.routes ?? []).map(({ to }: Json) => to));
  const subnet = parseCidr(String(spec.uplink?.address));
  const { gateway } = spec.uplink ?? {};
  const encap = spec.tunnels === undefined ? spec.tunnel.protocol !== 'none' : spec.tunnels[0]?.name;
  return others.flatMap(other => {
    const { name } = other.metadata;
    const address = internalIP(other);
    if (address === undefined) return [];
    const cidrs: string[] = other.spec?.podCIDRs ?? (other.spec?.podCIDR === undefined ? [] : [other.spec.podCIDR]);
    const networks = cidrs.filter(cidr => parseCidr(cidr) !== undefined);
    if (networks.length === 0) missing.push(`Node ${name} has no podCIDR of IPv4: its pods have no route`);
    // Of uplinks that take over an interface, the kernel knows who is where.
    const isNear = subnet === undefined || contains(subnet, parseAddress(address)!);
    if (!isNear && gateway === undefined) {
      missing.push(
        `Node ${name} has ${address}, not in ${spec.uplink.address}, and there is no gateway: its pods have no route`,
      );
      return [];
    }
    const inTunnel = encap !== false && encap !== undefined && !(network.direct && isNear);
    const via = inTunnel || isNear ? address : gateway;
    return networks.filter(to => !written.has(to)).map(to => ({ to, via, ...(inTunnel ? { encap } : {}) }));
  });
}

function podsOn(
  nodeName: string,
  { pods, endpoints }: ClusterObjects,
  needsIdentity: boolean,
  netnsExists: (name: string) => boolean,
  missing: string[],
): Json[] {
  const identities = new Map(
    endpoints.map(endpoint => [placeOf(endpoint), endpoint.status?.identity?.id as number | undefined]),
  );
  return pods.flatMap(pod => {
    const { metadata, spec, status } = pod;
    const address = status?.podIP;
    const ended = status?.phase === 'Succeeded' || status?.phase === 'Failed';
    if (spec.nodeName !== nodeName || spec.hostNetwork === true || ended || address === undefined) return [];
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

function internalIP({ status }: KubeObject): string | undefined {
  return (status?.addresses ?? []).find(
    ({ type, address }: Json) => type === 'InternalIP' && parseAddress(address) !== undefined,
  )?.address;
}

/** The MAC of a node's VTEP, where flannel has written it down. */
function macOf({ metadata }: KubeObject, protocol: string): { mac?: string } {
  if (protocol !== 'vxlan') return {};
  const mac = parsed(metadata.annotations?.[`${FLANNEL}/backend-data`])?.VtepMAC;
  return typeof mac === 'string' ? { mac } : {};
}

function parsed(text: string | undefined): Json {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

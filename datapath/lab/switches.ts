/**
 * The objects by which a cluster's own system says how its network is, for a lab in a mode: what `kubectl patch` then
 * changes. Pure.
 */
import { type Network, networkOf, podCidrsOf, type System } from '../api/agent/network.ts';
import {
  internalIP,
  masqueradeOf,
  type NetworkPlan,
  type Own,
  peersOf,
  routesOf,
  tunnelsOf,
} from '../api/agent/node-network.ts';
import type { Json, KubeObject } from '../api/object.ts';
import { type Mode, type ModeOptions, profileFor } from './modes.ts';
import { AGENT_VARIABLE } from './terminal-files.ts';
import { gatewayOf, type Topology } from './topology.ts';

export interface SwitchObject {
  kind: 'ConfigMap' | 'IPPool' | 'Namespace' | 'DaemonSet';
  object: Json;
}

/** The system whose switches a lab follows; undefined: it behaves like none of them. */
export function systemOf(topology: Topology, options: ModeOptions): System | undefined {
  const profile = profileFor(topology, options);
  return profile === 'cilium' || profile === 'calico' || profile === 'flannel' ? profile : undefined;
}

/** @returns nothing where the lab's system has no such mode */
export function switchObjects(topology: Topology, options: ModeOptions): SwitchObject[] {
  switch (systemOf(topology, options)) {
    case 'cilium':
      return ciliumConfig(topology, options.mode);
    case 'calico':
      return ipPool(topology, options.mode);
    case 'flannel':
      return flannelConfig(topology, options.mode);
    default:
      return [];
  }
}

/**
 * The agents of a lab's system, as pods of a DaemonSet: `kubectl exec ds/cilium -- cilium-dbg ...` is typed in them. What
 * agents do the node's datapath does: restarting them changes nothing.
 */
export function agentObjects(topology: Topology, options: ModeOptions): SwitchObject[] {
  switch (systemOf(topology, options)) {
    case 'cilium':
      return [
        daemonSet('cilium', 'kube-system', { 'k8s-app': 'cilium' }, 'cilium-agent', 'quay.io/cilium/cilium:v1.18.0'),
      ];
    case 'calico':
      return [
        daemonSet('calico-node', 'kube-system', { 'k8s-app': 'calico-node' }, 'calico-node', 'calico/node:v3.28.1'),
      ];
    case 'flannel': {
      const labels = { app: 'flannel', tier: 'node' };
      const image = 'ghcr.io/flannel-io/flannel:v0.26.1';
      return [
        { kind: 'Namespace', object: { metadata: { name: 'kube-flannel' } } },
        daemonSet('kube-flannel-ds', 'kube-flannel', labels, 'kube-flannel', image),
      ];
    }
    default:
      return [];
  }
}

function daemonSet(
  name: string,
  namespace: string,
  labels: Record<string, string>,
  container: string,
  image: string,
): SwitchObject {
  const env = [{ name: AGENT_VARIABLE, valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }];
  const spec = {
    hostNetwork: true,
    terminationGracePeriodSeconds: 1,
    tolerations: [{ operator: 'Exists' }],
    containers: [{ name: container, image, env }],
  };
  const object = {
    metadata: { name, namespace, labels },
    spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec } },
  };
  return { kind: 'DaemonSet', object };
}

/** The network that those objects say. @returns undefined where there are none */
export function networkOfLab(topology: Topology, options: ModeOptions): Network | undefined {
  const objects = switchObjects(topology, options);
  const of = (kind: string): KubeObject[] => objects.filter(one => one.kind === kind).map(({ object }) => object);
  return networkOf({ configMaps: of('ConfigMap'), pools: of('IPPool'), nodes: [] }).network ?? undefined;
}

/** As the chart of the article writes it, as far as a node here reads it or the article prints it. */
function ciliumConfig({ clusterCidr, inside }: Topology, mode: Mode): SwitchObject[] {
  if (mode !== 'native' && mode !== 'vxlan' && mode !== 'geneve') return [];
  const isNative = mode === 'native';
  const data = {
    'auto-direct-node-routes': `${isNative}`,
    'cluster-name': 'default',
    'cluster-pool-ipv4-cidr': clusterCidr,
    'cluster-pool-ipv4-mask-size': '24',
    'enable-bpf-masquerade': 'true',
    'enable-hubble': 'true',
    'enable-ipv4': 'true',
    'enable-ipv4-masquerade': 'true',
    'enable-ipv6': 'false',
    'enable-l2-announcements': 'false',
    'enable-l2-neigh-discovery': 'false',
    ipam: 'cluster-pool',
    'ipv4-native-routing-cidr': inside[0],
    'kube-proxy-replacement': 'true',
    'routing-mode': isNative ? 'native' : 'tunnel',
    'tunnel-protocol': isNative ? 'vxlan' : mode,
    'tunnel-source-port-range': '0-0',
  };
  return [{ kind: 'ConfigMap', object: { metadata: { name: 'cilium-config', namespace: 'kube-system' }, data } }];
}

/** The pool that Calico makes when there is none. */
function ipPool({ inside }: Topology, mode: Mode): SwitchObject[] {
  if (mode === 'geneve') return [];
  const spec = {
    cidr: inside[0],
    ipipMode: mode === 'ipip' ? 'Always' : mode === 'crosssubnet' ? 'CrossSubnet' : 'Never',
    vxlanMode: mode === 'vxlan' ? 'Always' : 'Never',
    natOutgoing: true,
    nodeSelector: 'all()',
    allowedUses: ['Workload', 'Tunnel'],
  };
  return [{ kind: 'IPPool', object: { metadata: { name: 'default-ipv4-ippool' }, spec } }];
}

/** As kube-flannel.yml has it. */
function flannelConfig({ clusterCidr }: Topology, mode: Mode): SwitchObject[] {
  if (mode === 'geneve') return [];
  const backend = {
    native: { Type: 'host-gw' },
    vxlan: { Type: 'vxlan' },
    ipip: { Type: 'ipip' },
    crosssubnet: { Type: 'ipip', DirectRouting: true },
  }[mode];
  const cni = {
    name: 'cbr0',
    cniVersion: '0.3.1',
    plugins: [
      { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  };
  const data = {
    'cni-conf.json': `${JSON.stringify(cni, null, 2)}\n`,
    'net-conf.json': `${JSON.stringify({ Network: clusterCidr, Backend: backend }, null, 2)}\n`,
  };
  const metadata = { name: 'kube-flannel-cfg', namespace: 'kube-flannel', labels: { app: 'flannel', tier: 'node' } };
  return [
    { kind: 'Namespace', object: { metadata: { name: 'kube-flannel' } } },
    { kind: 'ConfigMap', object: { metadata, data } },
  ];
}

/**
 * The part of a node's configuration that its cluster's network decides: tunnels, routes, profile, masquerade.
 * @param nodes objects of the cluster, those of the lab and others
 */
export function networkSpec(topology: Topology, name: string, nodes: readonly KubeObject[], plan: NetworkPlan): Json {
  const macOf = ({ metadata }: KubeObject): string | undefined =>
    topology.nodes.find(one => one.name === metadata.name)?.vtepMac;
  const node = topology.nodes.find(one => one.name === name)!;
  const self = nodes.find(({ metadata }) => metadata.name === name);
  const { peers } = peersOf(
    nodes.filter(one => one !== self),
    macOf,
  );
  const own: Own = {
    subnet: node.address,
    gateway: gatewayOf(topology, node.subnet),
    podCidrs: self === undefined ? [node.podCidr] : podCidrsOf(self),
    mac: node.vtepMac,
  };
  const tunnels = tunnelsOf(plan, own, peers);
  // The short form, as the lab writes it, where one tunnel has its protocol for a name.
  const isShort = tunnels.length === 1 && tunnels[0].name === tunnels[0].protocol;
  const { routes } = routesOf(plan, own, peers, isShort ? () => true : undefined);
  const { name: _name, ...short } = isShort ? tunnels[0] : { name: '', protocol: 'none' };
  const { gateway } = own;
  const fixed = gateway === undefined ? [] : topology.staticRoutes.map(to => ({ to, via: gateway }));
  const addresses = nodes.flatMap(one => internalIP(one) ?? []);
  const masquerade = masqueradeOf(plan.settled, own.podCidrs, addresses);
  return {
    tunnel: short,
    tunnels: isShort ? [] : tunnels,
    // What goes to the router anyway has no route of its own.
    routes: [...routes.filter(({ via, encap }) => encap !== undefined || via !== own.gateway), ...fixed],
    ...(plan.settled.system === null ? {} : { profile: plan.settled.system }),
    ...(masquerade === undefined ? {} : { masquerade }),
  };
}

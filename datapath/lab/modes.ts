/**
 * From a topology and a mode to one configuration per node, in the plain form that `tunpath node` reads. Pure: no device,
 * no file.
 *
 *   mode         own subnet      other subnet
 *   native       direct          to the router, which knows no pod CIDR
 *   crosssubnet  direct          IPIP
 *   ipip         IPIP            IPIP
 *   vxlan        VXLAN           VXLAN
 *   geneve       GENEVE          GENEVE
 */

import { LabError } from './lab-error.ts';
import { type MasqueradeRule, masqueradeRules } from './masquerade.ts';
import { namespaceOf, nodeNameOf } from './names.ts';
import { addressOf, endpointsOf, gatewayOf, type LabNode, type LabService, type Topology } from './topology.ts';

export const MODES = ['native', 'ipip', 'vxlan', 'geneve', 'crosssubnet'] as const;
export type Mode = (typeof MODES)[number];

export const PROFILES = ['linux', 'cilium', 'calico', 'flannel', 'rfc'] as const;
export type Profile = (typeof PROFILES)[number];

/** Device that a node opens as its uplink, before the lab moves it into the switch. */
export const UPLINK_DEVICE = 'ul0';

export interface ModeOptions {
  mode: Mode;
  /** Default: cilium for native, vxlan and geneve, calico for ipip and crosssubnet; other topologies keep their own. */
  profile?: Profile;
  /** As the node's own `offload`. Default auto. */
  offload?: 'auto' | 'none';
  /** A process a node, with TAPs on a bridge between them, instead of one process with segments. */
  processes?: boolean;
}

/** The part of the plain NodeConfig that a lab writes. */
export interface LabNodeConfig {
  apiVersion: 'tunpath.dev/v1';
  kind: 'NodeConfig';
  metadata: { name: string };
  spec: {
    uplink: { mac: string; address: string; gateway: string; mtu: number } & (
      | { kind: 'tap'; device: string }
      | { kind: 'segment'; segment: string }
    );
    host: { device: string; address: string; netns?: string };
    pods: {
      name: string;
      netns: string;
      device: string;
      address: string;
      labels: Record<string, string>;
      identity: number;
    }[];
    tunnel: {
      protocol: 'none' | 'ipip' | 'vxlan' | 'geneve';
      port?: number;
      vni?: number | 'identity';
      mac?: string;
      peers?: { address: string; mac?: string }[];
      acceptFrom?: 'peers' | 'any';
    };
    routes: { to: string; via: string; encap?: boolean }[];
    profile: Profile;
    offload: 'auto' | 'none';
    masquerade: MasqueradeRule[];
    services: {
      name: string;
      type: 'ClusterIP' | 'NodePort';
      addresses: string[];
      ports: LabService['ports'];
      endpoints: { address: string }[];
      externalTrafficPolicy?: 'Cluster' | 'Local';
    }[];
  };
}

/** The port and VNI each system gives VXLAN; GENEVE takes the VNI and its own port. FIELD.md section 1. */
const OVERLAY: Record<Profile, { port: number; vni: number | 'identity' }> = {
  cilium: { port: 8472, vni: 'identity' },
  calico: { port: 4789, vni: 4096 },
  flannel: { port: 8472, vni: 1 },
  linux: { port: 4789, vni: 1 },
  rfc: { port: 4789, vni: 1 },
};

const GENEVE_PORT = 6081;
const UNDERLAY_MTU = 1500;

/** @throws LabError for a mode that is none. */
export function parseMode(text: string): Mode {
  const mode = MODES.find(known => known === text);
  if (mode === undefined) {
    throw new LabError(`mode '${text}': expected one of ${MODES.join(', ')}`, { usage: true });
  }
  return mode;
}

export function profileFor(topology: Topology, options: ModeOptions): Profile {
  if (options.profile !== undefined) return options.profile;
  if (topology.profile !== 'cilium') return topology.profile;
  return options.mode === 'ipip' || options.mode === 'crosssubnet' ? 'calico' : 'cilium';
}

/** Whether the packets of `node` for the pods of `peer` leave in a tunnel. */
export function encapsulates(mode: Mode, node: LabNode, peer: LabNode): boolean {
  return mode === 'crosssubnet' ? node.bridge !== peer.bridge : mode !== 'native';
}

/** The configuration of one node of lab `lab`. */
export function nodeConfig(lab: string, topology: Topology, node: LabNode, options: ModeOptions): LabNodeConfig {
  const { mode } = options;
  const profile = profileFor(topology, options);
  const gateway = gatewayOf(topology, node);
  const peers = topology.nodes.filter(other => other !== node);

  // A native node installs routes only to neighbours on its own subnet, as Cilium's autoDirectNodeRoutes does: the
  // others' pods fall through to the static routes and so to the router.
  const podRoutes = peers
    .filter(peer => mode !== 'native' || peer.bridge === node.bridge)
    .map(peer => ({
      to: peer.podCidr,
      via: addressOf(peer.address),
      ...(encapsulates(mode, node, peer) ? { encap: true } : {}),
    }));

  return {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: nodeNameOf(lab, node.name) },
    spec: {
      uplink: {
        ...(options.processes ? { kind: 'tap', device: UPLINK_DEVICE } : { kind: 'segment', segment: node.bridge }),
        mac: node.mac,
        address: node.address,
        gateway,
        mtu: UNDERLAY_MTU,
      },
      host: {
        device: 'tp0',
        address: `${node.hostAddress}/32`,
        ...(options.processes ? {} : { netns: namespaceOf(lab, node.name) }),
      },
      pods: topology.pods
        .filter(pod => pod.node === node.name)
        .map(pod => ({
          name: `default/${pod.name}`,
          netns: namespaceOf(lab, pod.name),
          device: 'eth0',
          address: `${pod.address}/32`,
          labels: pod.labels,
          identity: pod.identity,
        })),
      tunnel: tunnelConfig(mode, profile, node, peers),
      routes: [...podRoutes, ...topology.staticRoutes.map(to => ({ to, via: gateway }))],
      profile,
      offload: options.offload ?? 'auto',
      masquerade: masqueradeRules(topology, node),
      services: topology.services.map(service => serviceConfig(topology, service)),
    },
  };
}

/** The subnets as segments, each with a TAP that the lab puts on the bridge of the same name. */
export function segmentConfigs(topology: Topology, options: ModeOptions): object[] {
  return topology.subnets.map(({ bridge }) => ({
    apiVersion: 'tunpath.dev/v1',
    kind: 'Segment',
    metadata: { name: bridge },
    spec: { mtu: UNDERLAY_MTU, tap: { device: segmentDevice(bridge), offload: options.offload ?? 'auto' } },
  }));
}

/** The port of a segment on its bridge. */
export function segmentDevice(bridge: string): string {
  return `${bridge}-nodes`;
}

function serviceConfig(topology: Topology, service: LabService): LabNodeConfig['spec']['services'][number] {
  const { name, address, ports, externalTrafficPolicy } = service;
  return {
    name,
    type: ports.some(port => port.nodePort !== undefined) ? 'NodePort' : 'ClusterIP',
    addresses: [address],
    // Copies: what is changed in one node's configuration stays there.
    ports: ports.map(port => ({ ...port })),
    endpoints: endpointsOf(topology, service).map(endpoint => ({ address: endpoint })),
    ...(externalTrafficPolicy === undefined ? {} : { externalTrafficPolicy }),
  };
}

function tunnelConfig(mode: Mode, profile: Profile, node: LabNode, peers: LabNode[]): LabNodeConfig['spec']['tunnel'] {
  switch (mode) {
    case 'native':
      return { protocol: 'none' };
    case 'ipip':
    case 'crosssubnet':
      return {
        protocol: 'ipip',
        peers: peers.map(peer => ({ address: addressOf(peer.address) })),
        acceptFrom: 'peers',
      };
    case 'vxlan':
    case 'geneve':
      return {
        protocol: mode,
        port: mode === 'geneve' ? GENEVE_PORT : OVERLAY[profile].port,
        vni: OVERLAY[profile].vni,
        mac: node.vtepMac,
        peers: peers.map(peer => ({ address: addressOf(peer.address), mac: peer.vtepMac })),
        acceptFrom: 'peers',
      };
  }
}

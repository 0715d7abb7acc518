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

import { writtenImpairments } from '../control/netem.ts';
import { LabError } from './lab-error.ts';
import { type MasqueradeRule, masqueradeRules } from './masquerade.ts';
import { namespaceOf, nodeNameOf } from './names.ts';
import {
  addressOf,
  endpointsOf,
  gatewayOf,
  type LabNode,
  type LabPod,
  type LabService,
  type MemoryApp,
  MODES,
  type Mode,
  type Profile,
  type Topology,
} from './topology.ts';

export { MODES, type Mode, PROFILES, type Profile } from './topology.ts';

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
  /** Threads that the nodes of one process are spread over; default: one, where a segment joins them. */
  loops?: number;
  /** HOST:PORT of an etcd that the API keeps its objects in, instead of a journal beside the lab. */
  etcd?: string;
}

/** The part of the plain NodeConfig that a lab writes. */
export interface LabNodeConfig {
  apiVersion: 'tunpath.dev/v1';
  kind: 'NodeConfig';
  metadata: { name: string };
  spec: {
    uplink: { mac: string; address: string; gateway?: string; mtu: number } & (
      | { kind: 'tap'; device: string }
      | { kind: 'segment'; segment: string }
    );
    host: { device: string; address: string; netns?: string };
    pods: ({ name: string; address: string; labels: Record<string, string>; identity: number } & (
      | { netns: string; device: string }
      | { kind: 'memory'; app: MemoryApp }
    ))[];
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
    loop: { busyPoll: 'auto' };
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
  return mode === 'crosssubnet' ? node.subnet !== peer.subnet : mode !== 'native';
}

/** The configuration of one node of lab `lab`. */
export function nodeConfig(lab: string, topology: Topology, node: LabNode, options: ModeOptions): LabNodeConfig {
  const { mode } = options;
  const profile = profileFor(topology, options);
  const gateway = gatewayOf(topology, node.subnet);
  const peers = topology.nodes.filter(other => other !== node);

  // A native node installs routes only to neighbours on its own subnet, as Cilium's autoDirectNodeRoutes does: the
  // others' pods fall through to the static routes and so to the router.
  const podRoutes = peers
    .filter(peer => mode !== 'native' || peer.subnet === node.subnet)
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
        ...(options.processes ? { kind: 'tap', device: UPLINK_DEVICE } : { kind: 'segment', segment: node.subnet }),
        mac: node.mac,
        address: node.address,
        ...(gateway === undefined ? {} : { gateway }),
        mtu: node.mtu ?? subnetOf(topology, node).mtu,
      },
      host: {
        device: 'tp0',
        address: `${node.hostAddress}/32`,
        ...(options.processes ? {} : { netns: namespaceOf(lab, node.name) }),
      },
      pods: topology.pods.filter(pod => pod.node === node.name).map(pod => podConfig(lab, pod)),
      tunnel: tunnelConfig(mode, profile, node, peers),
      routes: [...podRoutes, ...(gateway === undefined ? [] : topology.staticRoutes.map(to => ({ to, via: gateway })))],
      profile,
      offload: options.offload ?? 'auto',
      loop: { busyPoll: 'auto' },
      masquerade: masqueradeRules(topology, node),
      services: topology.services.map(service => serviceConfig(topology, service)),
    },
  };
}

function subnetOf({ subnets }: Topology, node: LabNode): Topology['subnets'][number] {
  return subnets.find(({ name }) => name === node.subnet)!;
}

function podConfig(lab: string, pod: LabPod): LabNodeConfig['spec']['pods'][number] {
  const { name, address, labels, identity, memory } = pod;
  return {
    name: `default/${name}`,
    ...(memory === undefined
      ? { netns: namespaceOf(lab, name), device: 'eth0' }
      : { kind: 'memory' as const, app: memory }),
    address: `${address}/32`,
    labels,
    identity,
  };
}

/** The subnets as segments, each with a TAP that the lab puts on the bridge of the same name. */
export function segmentConfigs(topology: Topology, options: ModeOptions): object[] {
  return topology.subnets.map(({ name, mtu, impairments }) => ({
    apiVersion: 'tunpath.dev/v1',
    kind: 'Segment',
    metadata: { name },
    spec: {
      mtu,
      tap: { device: segmentDevice(name), offload: options.offload ?? 'auto' },
      ...(impairments === undefined ? {} : { impairments: writtenImpairments(impairments) }),
    },
  }));
}

/** The port of a segment on its bridge. */
export function segmentDevice(subnet: string): string {
  return `${subnet}-nodes`;
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

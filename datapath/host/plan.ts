/**
 * From what there is on a machine to the configuration of a node that will work there, or to what stands in the way. Pure;
 * whether the uplink itself can be had is asked of its kind afterwards (cli/host.ts).
 */
import { formatAddress } from '../control/address.ts';
import { defaultGateway } from '../control/interfaces.ts';
import { parseCidr } from '../control/validated.ts';
import { IPIP_OVERHEAD } from '../tunnel/ipip.ts';
import { UDP_OVERHEAD } from '../tunnel/udp-encap.ts';
import type { Facts } from './facts.ts';
import { chooseNic, judgeTunnel, machineObstacles, networkObstacles, nicObstacles } from './obstacles.ts';
import {
  cloudOf,
  type Draft,
  isCniInterface,
  networkOf,
  overlap,
  podNetworks,
  type Request,
  tunnelTraffic,
  type UplinkKindName,
} from './request.ts';

/** A configuration to be written, each part with what is to be said about it. */
export interface Plan {
  /** Above everything: what was found. */
  findings: string[];
  name: string;
  uplink: Part<Record<string, unknown>>;
  host: Part<{ device: string; address: string }>;
  pods: Part<{ name: string; netns: string; device: string; address: string }[]>;
  tunnel: Part<Record<string, unknown>>;
  routes: Part<Record<string, unknown>[]>;
  masquerade: Part<Record<string, unknown>[]> | null;
}

interface Part<T> {
  value: T;
  why: string[];
}

export type Outcome = { plan: Plan; obstacles?: undefined } | { plan?: undefined; obstacles: string[] };

/** Every node's pods are in here, unless it is said otherwise. */
const POD_NETWORK = '10.244.0.0/16';
const GROUPS = '224.0.0.0/4';
/** In a pod's network: the host port is the first address, pods begin here. */
const FIRST_POD = 10;
/** Interfaces of other networks that are worth a line. */
const FEW = 8;

/** The kinds of uplink to try, the best one first. */
export function candidates({ uplink, address }: Request): UplinkKindName[] {
  if (uplink !== 'auto') return [uplink];
  return address === undefined ? ['routed', 'raw'] : ['macvtap'];
}

/** @param kind one of candidates() */
export function planNode(facts: Facts, request: Request, kind: UplinkKindName): Outcome {
  const obstacles = machineObstacles(facts);
  const nic = chooseNic(facts, request);
  if (typeof nic === 'string') return { obstacles: [...obstacles, nic] };
  obstacles.push(...nicObstacles(facts, request, kind, nic));
  const own = kind === 'macvtap' ? request.address : nic.addresses[0];
  if (own === undefined) return { obstacles };
  const podNetwork = podNetworks([own, ...request.peers.map(({ address }) => address)]);
  const draft: Draft = {
    facts,
    request,
    kind,
    nic,
    own,
    podCidr: request.podCidr ?? podNetwork(own),
    peers: request.peers.map(({ address, podCidr }) => ({ address, podCidr: podCidr ?? podNetwork(address) })),
    gateway: defaultGateway(facts.routes, nic.name),
  };
  obstacles.push(...networkObstacles(draft), ...judgeTunnel(draft).dropped);
  return obstacles.length > 0 ? { obstacles } : { plan: makePlan(draft) };
}

function makePlan(draft: Draft): Plan {
  const { facts, request, podCidr, peers } = draft;
  return {
    findings: describeFacts(draft),
    name: request.name ?? toLabel(facts.hostname),
    uplink: { value: uplinkConfig(draft), why: whyUplink(draft) },
    host: {
      value: { device: freeName(facts, 'tp'), address: `${addressIn(podCidr, 1)}/32` },
      why: ['By this device the host itself reaches every pod.'],
    },
    pods: planPods(draft),
    tunnel: planTunnel(draft),
    routes: {
      value: peers.map(({ address, podCidr: to }) => ({ to, via: address, encap: true })),
      why: peers.length > 0 ? [] : ['  - { to: 10.244.2.0/24, via: ADDRESS, encap: true }'],
    },
    masquerade: planMasquerade(draft),
  };
}

function planPods({ request, podCidr }: Draft): Plan['pods'] {
  return {
    value: request.pods.map((netns, i) => ({
      name: `default/${toLabel(netns)}`,
      netns,
      device: 'eth0',
      address: addressIn(podCidr, FIRST_POD + i),
    })),
    why: [
      `A pod is a network namespace (ip netns add p1) with an address of ${podCidr}:`,
      `  - { name: default/p1, netns: p1, device: eth0, address: ${addressIn(podCidr, FIRST_POD + request.pods.length)} }`,
    ],
  };
}

function planTunnel({ request, nic, own, peers }: Draft): Plan['tunnel'] {
  const { tunnel, port } = request;
  const overhead = tunnel === 'ipip' ? IPIP_OVERHEAD : UDP_OVERHEAD;
  const [ownAddress] = own.split('/');
  return {
    value: {
      protocol: tunnel,
      ...(port === undefined || tunnel === 'ipip' ? {} : { port }),
      peers: peers.map(({ address }) => ({ address })),
    },
    why: [
      `Pods have an MTU of ${nic.mtu - overhead}: ${tunnel} adds ${overhead} bytes, and ${nic.name} takes ${nic.mtu}.`,
      peers.length === 0
        ? 'No peer was named (--peer ADDRESS): add { address: ... } of each other node, and its route below.'
        : `Peers name this node as ${ownAddress}; between them ${tunnelTraffic(request)} must pass.`,
    ],
  };
}

/** Packets to elsewhere need the node's address: the raw uplink carries none of them. */
function planMasquerade({ kind, gateway, podCidr, peers }: Draft): Plan['masquerade'] {
  if (kind === 'raw' || gateway === undefined) return null;
  const networks = [podCidr, ...peers.map(peer => peer.podCidr)];
  const common = networks.every(network => overlap(network, POD_NETWORK));
  const notTo = [...(common ? [POD_NETWORK] : networks), GROUPS];
  return {
    value: [{ from: podCidr, notTo, randomFully: true }],
    why: ["What pods send to elsewhere leaves with the node's address."],
  };
}

function uplinkConfig({ facts, kind, nic, own, gateway }: Draft): Record<string, unknown> {
  if (kind === 'raw') return { kind, interface: nic.name };
  if (kind === 'routed') return { kind, interface: nic.name, device: freeName(facts, 'tpr') };
  const isReached = gateway !== undefined && (own.endsWith('/32') || overlap(networkOf(own), gateway));
  return { kind, interface: nic.name, address: own, ...(isReached ? { gateway } : {}) };
}

function whyUplink({ facts, request, kind, nic }: Draft): string[] {
  const asked = request.uplink === 'auto' ? '' : ', as asked for';
  const cloud = cloudOf(facts, nic);
  switch (kind) {
    case 'macvtap':
      return [
        `A device of its own on ${nic.name}, with its own MAC and address${asked}. The host and this address cannot reach each other.`,
        ...(cloud === undefined ? [] : [`Careful: ${cloud} forwards no foreign MAC unless it is told to.`]),
      ];
    case 'routed':
      return [`The host keeps its address; rules on ${nic.name} lead the tunnel's packets to the datapath${asked}.`];
    case 'raw':
      return [
        `The host keeps its address; the tunnel is sockets on it${asked}. Pods reach pods, and the outside only where this host masquerades for them.`,
      ];
  }
}

function describeFacts(draft: Draft): string[] {
  const { facts, nic, gateway } = draft;
  const { kernel, machine, tun, tap, cni, interfaces, firewall } = facts;
  const route = gateway === undefined ? [] : [`default route by ${gateway}`];
  const lines = [
    `Linux ${kernel}${machine === '' ? '' : ` on ${machine}`}`,
    `${nic.name}: ${[...(nic.driver === undefined ? [] : [nic.driver]), `MTU ${nic.mtu}`, ...nic.addresses, ...route].join(', ')}`,
    `offloads: TUN ${offloadNames(tun)}; TAP ${offloadNames(tap)}`,
  ];
  const cloud = cloudOf(facts, nic);
  if (cloud !== undefined) lines.push(`the network of ${nic.name} is ${cloud}, which forwards no foreign MAC`);
  const others = [
    ...cni.map(file => `/etc/cni/net.d/${file}`),
    ...interfaces.map(({ name }) => name).filter(isCniInterface),
  ];
  if (others.length > 0) {
    const shown = others.slice(0, FEW).join(', ') + (others.length > FEW ? ', ...' : '');
    lines.push(`another network of pods is here, and left alone: ${shown}`);
  }
  lines.push(
    ...(firewall === null ? ['firewall: neither nft nor iptables could be asked'] : judgeTunnel(draft).unsure),
  );
  const filter = ['off', 'strict', 'loose'][nic.reversePathFilter] ?? 'unknown';
  lines.push(
    `rp_filter ${filter} on ${nic.name}, ip_forward ${facts.forwarding ? 'on' : 'off'}: neither is changed, nor needed`,
  );
  return lines;
}

function offloadNames(probe: Facts['tun']): string {
  return 'error' in probe ? probe.error : probe.join(', ') || 'none';
}

/** The address `n` places above the network's own. */
function addressIn(cidr: string, n: number): string {
  return formatAddress((parseCidr(cidr).prefix + n) | 0);
}

function freeName({ interfaces }: Facts, prefix: string): string {
  const taken = new Set(interfaces.map(({ name }) => name));
  let i = 0;
  while (taken.has(`${prefix}${i}`)) i++;
  return `${prefix}${i}`;
}

/** A DNS label made of a text. */
function toLabel(text: string): string {
  const label = text
    .split('.')[0]
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, '-')
    .slice(0, 63)
    .replace(/^-+|-+$/g, '');
  return label === '' ? 'node' : label;
}

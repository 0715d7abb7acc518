/**
 * What is compared. Ours and the kernel's counterpart of one mode, each with its two pods, side by side in namespaces of
 * their own:
 *
 *        o-p1         o-a           o-sw          o-b         o-p2
 *      [ eth0 ]--[ tunpath node ]--[ br0 ]--[ tunpath node ]--[ eth0 ]
 *
 *        o-p1                 o-a                      o-p2
 *      [ eth0 ]--[ tunpath: node - segment - node ]--[ eth0 ]         uplink segment: both nodes in one process
 *
 *        k-p1              k-a               k-sw           k-b         k-p2
 *      [ eth0 ]--[ cni0 - flannel.1 - eth0 ]--[ br0 ]--[ the same ]--[ eth0 ]
 *
 *        v-p1                                                           v-p2
 *      [ eth0 ]-------------------------------------------------------[ eth0 ]
 *
 * With NAT the client speaks to a service's address, whose one backend is the server on the other node, or to a host
 * outside, o-out or k-out on the same switch, which sees the node's address.
 */
import { callNode, RUN_DIR } from '../../datapath/control/client.ts';
import { forwardingEntry, KERNEL_VXLAN_MTU, vxlanDevice, vxlanPeer } from '../../datapath/lab/kernel-node.ts';
import { LabError } from '../../datapath/lab/lab-error.ts';
import type { Sandbox } from './sandbox.ts';

export const MODES = ['vxlan', 'geneve', 'ipip', 'native', 'local', 'vxlan-no-offload'] as const;
export type Mode = (typeof MODES)[number];

export const NATS = ['none', 'service', 'masquerade'] as const;
export type Nat = (typeof NATS)[number];

/** How our nodes are connected to the switch. */
export const UPLINKS = ['tap', 'segment', 'raw', 'macvtap', 'routed'] as const;
export type Uplink = (typeof UPLINKS)[number];

/** Surroundings that are built, and taken down again, together. */
export interface Scene {
  mode: Mode;
  nat: Nat;
  uplink: Uplink;
}

/** What stands on the kernel's side. There is no GENEVE or IPIP here: those modules are missing from many kernels. */
type Counterpart = 'vxlan' | 'routed veth and bridge' | 'veth and bridge';

export interface Setup {
  /** Namespaces of a pod and of its server, without the sandbox's prefix. */
  client: string;
  server: string;
  /** By which the client knows the server. */
  address: string;
}

/** Offloads in use on either side of a node. */
export interface Offloads {
  uplink: string[];
  pod: string[];
}

interface ModeSpec {
  tunnel: 'vxlan' | 'geneve' | 'ipip' | 'none';
  offload: 'auto' | 'none';
  nodes: 1 | 2;
  counterpart: Counterpart;
}

const SPECS: Record<Mode, ModeSpec> = {
  vxlan: { tunnel: 'vxlan', offload: 'auto', nodes: 2, counterpart: 'vxlan' },
  geneve: { tunnel: 'geneve', offload: 'auto', nodes: 2, counterpart: 'vxlan' },
  ipip: { tunnel: 'ipip', offload: 'auto', nodes: 2, counterpart: 'vxlan' },
  native: { tunnel: 'none', offload: 'auto', nodes: 2, counterpart: 'routed veth and bridge' },
  local: { tunnel: 'none', offload: 'auto', nodes: 1, counterpart: 'veth and bridge' },
  'vxlan-no-offload': { tunnel: 'vxlan', offload: 'none', nodes: 2, counterpart: 'vxlan' },
};

const UNDERLAY_MTU = 1500;
const POD_NETWORKS = '10.244.0.0/16';
const SERVICE_ADDRESS = '10.96.0.10';
const OUTSIDE_ADDRESS = '192.168.10.254';

/** Where servers listen; a service has all of these ports. */
export const PORTS = { iperf: 5201, echo: 5202, packets: 5203, connections: 5204 } as const;

/** In words, for whoever reads the row. */
export function counterpartOf(mode: Mode, nat: Nat): string {
  const { counterpart } = SPECS[mode];
  if (nat === 'none') return counterpart;
  return `${counterpart}, nftables ${nat === 'service' ? 'DNAT' : 'masquerade'}`;
}

/**
 * One node alone has no way out, and the kernel's bridge takes the answers of a service past its NAT. The host outside is on
 * a bridge.
 */
export function isPossible({ mode, nat, uplink }: Scene): boolean {
  if (uplink === 'segment' && nat === 'masquerade') return false;
  return SPECS[mode].nodes === 2 || (nat === 'none' && uplink === 'tap');
}

/** The second pod's, or a host's outside. */
function serverOf(prefix: 'o' | 'k', nat: Nat): Setup {
  const client = `${prefix}-p1`;
  if (nat === 'masquerade') return { client, server: `${prefix}-out`, address: OUTSIDE_ADDRESS };
  return { client, server: `${prefix}-p2`, address: nat === 'service' ? SERVICE_ADDRESS : podAddress(2, 1) };
}

async function addOutside(sandbox: Sandbox, prefix: 'o' | 'k'): Promise<void> {
  const [outside, sw] = [`${prefix}-out`, `${prefix}-sw`];
  await sandbox.addNamespaces(outside);
  await sandbox.ip(outside, [
    `link add eth0 type veth peer name out netns ${sandbox.full(sw)}`,
    'link set eth0 up',
    `addr add ${OUTSIDE_ADDRESS}/24 dev eth0`,
  ]);
  await sandbox.ip(sw, ['link set out master br0 up']);
}

// ---- ours

export async function buildOurs(sandbox: Sandbox, { mode, nat, uplink }: Scene): Promise<Setup> {
  if (SPECS[mode].nodes === 1) {
    await sandbox.addNamespaces('o-a', 'o-p1', 'o-p2');
    const pods = [1, 2].map(i => ourPod(sandbox, i, podAddress(1, i)));
    await sandbox.startNode('o-a', { ...ourNode(mode, 1), uplink: ourUplink('tap', 1), pods });
    return { client: 'o-p1', server: 'o-p2', address: podAddress(1, 2) };
  }
  if (uplink === 'segment') {
    await sandbox.addNamespaces('o-a', 'o-p1', 'o-p2');
    const [a, b] = [1, 2].map(i => ourSpec(sandbox, i, { mode, nat, uplink }));
    await sandbox.startNodes('o-a', { 'o-a': a, 'o-b': b }, { lan: { mtu: UNDERLAY_MTU } });
    return serverOf('o', nat);
  }
  await sandbox.addNamespaces('o-a', 'o-b', 'o-sw', 'o-p1', 'o-p2');
  await sandbox.ip('o-sw', ['link add br0 type bridge', 'link set br0 up']);
  await Promise.all(
    [1, 2].map(async i => {
      const node = nodeNamespace('o', i);
      if (uplink !== 'tap') await addInterface(sandbox, node, i, uplink);
      await sandbox.startNode(node, ourSpec(sandbox, i, { mode, nat, uplink }));
      if (uplink === 'tap') {
        await sandbox.ip(node, [`link set ul0 netns ${sandbox.full('o-sw')} name up-${i}`]);
        await sandbox.ip('o-sw', [`link set up-${i} master br0 up`]);
      }
    }),
  );
  if (nat === 'masquerade') await addOutside(sandbox, 'o');
  return serverOf('o', nat);
}

/** Of one of two nodes. */
function ourSpec(sandbox: Sandbox, i: number, { mode, nat, uplink }: Scene): object {
  const pods = [ourPod(sandbox, i, podAddress(i, 1))];
  const routes = [{ to: podNetwork(3 - i), via: underlay(3 - i), encap: SPECS[mode].tunnel !== 'none' }];
  return { ...ourNode(mode, i), uplink: ourUplink(uplink, i), pods, routes, ...(i === 1 ? ourNat(nat) : {}) };
}

/** A NIC that a node's uplink is put on. The host itself has an address there where the node shares it. */
async function addInterface(sandbox: Sandbox, node: string, i: number, uplink: Uplink): Promise<void> {
  await sandbox.ip(node, [
    `link add eth0 type veth peer name up-${i} netns ${sandbox.full('o-sw')}`,
    'link set eth0 up',
    ...(uplink === 'macvtap' ? [] : [`addr add ${underlay(i)}/24 dev eth0`]),
  ]);
  await sandbox.ip('o-sw', [`link set up-${i} master br0 up`]);
}

function ourUplink(kind: Uplink, i: number): object {
  const address = `${underlay(i)}/24`;
  switch (kind) {
    case 'tap':
      return { kind, device: 'ul0', mac: `02:00:00:00:00:0${i}`, address, mtu: UNDERLAY_MTU };
    case 'segment':
      return { kind, segment: 'lan', mac: `02:00:00:00:00:0${i}`, address, mtu: UNDERLAY_MTU };
    case 'macvtap':
      return { kind, interface: 'eth0', address };
    case 'raw':
      return { kind, interface: 'eth0' };
    case 'routed':
      return { kind, interface: 'eth0', device: 'ul0' };
  }
}

/** Only the client's node has any: with rules a node tracks flows, and the other has no reason to. */
function ourNat(nat: Nat): object {
  switch (nat) {
    case 'none':
      return {};
    case 'service': {
      const ports = Object.entries(PORTS).flatMap(([name, port]) =>
        ['TCP', 'UDP'].map(protocol => ({
          name: `${name}-${protocol.toLowerCase()}`,
          protocol,
          port,
          targetPort: port,
        })),
      );
      const endpoints = [{ address: podAddress(2, 1) }];
      return { services: [{ name: 'default/bench', addresses: [SERVICE_ADDRESS], ports, endpoints }] };
    }
    case 'masquerade':
      return { masquerade: [{ from: [POD_NETWORKS], notTo: [POD_NETWORKS] }] };
  }
}

function ourNode(mode: Mode, i: number): object {
  const { tunnel, offload } = SPECS[mode];
  const peer = { address: underlay(3 - i) };
  const tunnels = {
    none: { protocol: 'none' },
    ipip: { protocol: 'ipip', peers: [peer] },
    geneve: { protocol: 'geneve', port: 6081, vni: 1, mac: vtepMac(i), peers: [{ ...peer, mac: vtepMac(3 - i) }] },
    vxlan: { protocol: 'vxlan', port: 8472, vni: 1, mac: vtepMac(i), peers: [{ ...peer, mac: vtepMac(3 - i) }] },
  };
  return {
    tunnel: tunnels[tunnel],
    profile: 'linux',
    offload,
  };
}

function ourPod(sandbox: Sandbox, i: number, address: string): object {
  return { name: `default/p${i}`, netns: sandbox.full(`o-p${i}`), device: 'eth0', address };
}

/** What the first node says it uses. */
export async function offloadsOfOurs(sandbox: Sandbox): Promise<Offloads> {
  const socket = `${RUN_DIR}/${sandbox.full('o-a')}.sock`;
  const status = (await callNode(socket, 'status')) as { ports: { kind: string; offloads: string[] }[] };
  const of = (kind: string) => status.ports.find(port => port.kind === kind)?.offloads ?? [];
  return { uplink: of('uplink'), pod: of('pod') };
}

// ---- the kernel's

export async function buildKernel(sandbox: Sandbox, { mode, nat }: Scene): Promise<Setup> {
  if (SPECS[mode].nodes === 1) {
    await sandbox.addNamespaces('k-a', 'k-p1', 'k-p2');
    await sandbox.ip('k-a', cniBridge(1, UNDERLAY_MTU));
    for (const i of [1, 2]) await addKernelPod(sandbox, 'k-a', 1, i, `k-p${i}`, UNDERLAY_MTU);
    return { client: 'k-p1', server: 'k-p2', address: podAddress(1, 2) };
  }
  const vxlan = SPECS[mode].counterpart === 'vxlan';
  const mtu = vxlan ? KERNEL_VXLAN_MTU : UNDERLAY_MTU;
  await sandbox.addNamespaces('k-a', 'k-b', 'k-sw', 'k-p1', 'k-p2');
  await sandbox.ip('k-sw', ['link add br0 type bridge', 'link set br0 up']);
  for (const i of [1, 2]) {
    const node = nodeNamespace('k', i);
    await sandbox.ip(
      node,
      [
        `link add eth0 type veth peer name up-${i} netns ${sandbox.full('k-sw')}`,
        'link set eth0 up',
        `addr add ${underlay(i)}/24 dev eth0`,
        ...cniBridge(i, mtu),
        ...(vxlan ? flannelVxlan(i) : [`route add ${podNetwork(3 - i)} via ${underlay(3 - i)}`]),
      ],
      { 'net/ipv4/ip_forward': 1 },
    );
    await sandbox.ip('k-sw', [`link set up-${i} master br0 up`]);
    await addKernelPod(sandbox, node, i, 1, `k-p${i}`, mtu);
    if (vxlan) await runIn(sandbox, node, forwardingEntry(vtepMac(3 - i), underlay(3 - i)));
  }
  if (nat === 'masquerade') await addOutside(sandbox, 'k');
  if (nat !== 'none') await runIn(sandbox, 'k-a', ['nft', kernelNat(nat)]);
  return serverOf('k', nat);
}

/** As kube-proxy's nftables mode and flannel have it: a map from address, protocol and port to a backend; one rule. */
function kernelNat(nat: 'service' | 'masquerade'): string {
  if (nat === 'masquerade') {
    return `table ip bench { chain postrouting { type nat hook postrouting priority srcnat;
      ip saddr ${POD_NETWORKS} ip daddr != ${POD_NETWORKS} masquerade; }; }`;
  }
  const backends = Object.values(PORTS).flatMap(port =>
    ['tcp', 'udp'].map(protocol => `${SERVICE_ADDRESS} . ${protocol} . ${port} : ${podAddress(2, 1)} . ${port}`),
  );
  return `table ip bench { chain prerouting { type nat hook prerouting priority dstnat;
    dnat ip to ip daddr . ip protocol . th dport map { ${backends.join(', ')} }; }; }`;
}

function cniBridge(i: number, mtu: number): string[] {
  return ['link add cni0 type bridge', `link set cni0 up mtu ${mtu}`, `addr add 10.244.${i}.1/24 dev cni0`];
}

/** As flannel's vxlan backend sets it up. */
function flannelVxlan(i: number): string[] {
  const o = 3 - i;
  return [
    ...vxlanDevice(underlay(i), vtepMac(i), 'eth0'),
    `addr add 10.244.${i}.0/32 dev flannel.1`,
    'link set flannel.1 up',
    ...vxlanPeer(podNetwork(o), `10.244.${o}.0`, vtepMac(o)),
  ];
}

/** For commands that are not `ip`. */
async function runIn(sandbox: Sandbox, node: string, argv: readonly string[]): Promise<void> {
  const { code, stderr } = await sandbox.run(node, argv, 10_000, new AbortController().signal);
  if (code !== 0) throw new LabError(`${argv.join(' ')}: ${stderr.trim()}`);
}

async function addKernelPod(
  sandbox: Sandbox,
  node: string,
  i: number,
  n: number,
  pod: string,
  mtu: number,
): Promise<void> {
  await sandbox.ip(node, [
    `link add veth${n} mtu ${mtu} type veth peer name eth0 netns ${sandbox.full(pod)}`,
    `link set veth${n} master cni0 up`,
  ]);
  await sandbox.ip(pod, [
    `link set eth0 mtu ${mtu} up`,
    `addr add ${podAddress(i, n)}/24 dev eth0`,
    `route add default via 10.244.${i}.1`,
  ]);
}

// ---- the ceiling

/** Two pods with one veth pair between them and nothing else. */
export async function buildVeth(sandbox: Sandbox): Promise<Setup> {
  await sandbox.addNamespaces('v-p1', 'v-p2');
  await sandbox.ip('v-p1', [`link add eth0 type veth peer name eth0 netns ${sandbox.full('v-p2')}`]);
  for (const i of [1, 2]) await sandbox.ip(`v-p${i}`, ['link set eth0 up', `addr add ${podAddress(1, i)}/24 dev eth0`]);
  return { client: 'v-p1', server: 'v-p2', address: podAddress(1, 2) };
}

// ---- addresses

function nodeNamespace(prefix: string, i: number): string {
  return `${prefix}-${i === 1 ? 'a' : 'b'}`;
}

function underlay(i: number): string {
  return `192.168.10.${i}`;
}

function podNetwork(i: number): string {
  return `10.244.${i}.0/24`;
}

/** The n-th pod of node i. */
function podAddress(i: number, n: number): string {
  return `10.244.${i}.${9 + n}`;
}

function vtepMac(i: number): string {
  return `02:42:0a:f4:0${i}:00`;
}

/**
 * A node made of the kernel's own parts, as flannel's vxlan backend sets one up: what ours is compared with.
 *
 *   pod eth0 --veth-- cni0 (bridge) -- routing -- flannel.1 (vxlan id 1) -- eth1 --veth-- switch
 *
 * Each peer has one route through its VTEP (onlink, for that address is in no subnet), one permanent neighbour entry for
 * the VTEP and one forwarding entry for the neighbour.
 */
import { formatAddress, parseCidr } from '../control/address.ts';
import { ipBatch } from '../control/ip.ts';
import { LabError } from './lab-error.ts';
import { memberEnvironment, namespaceOf, SWITCH } from './names.ts';
import { configureHost } from './network.ts';
import { addressOf, gatewayOf, type LabNode, type LabPod, type Topology } from './topology.ts';

/** 1500 less Ethernet, IP, UDP and VXLAN. */
export const KERNEL_VXLAN_MTU = 1450;
const VXLAN_PORT = 8472;
const VNI = 1;
const UPLINK = 'eth1';

/** What a node is made in. */
interface Place {
  name: string;
  topology: Topology;
  exec(host: string, argv: readonly string[]): Promise<{ exitCode: number; stderr: string }>;
}

/** Makes a node of a lab, its pods' devices included, and plugs it into its bridge. @throws LabError, IpError */
export async function makeKernelNode(place: Place, node: LabNode): Promise<void> {
  const { name: lab, topology } = place;
  const netns = namespaceOf(lab, SWITCH);
  const { lines, forwarding } = kernelNode(topology, node, { name: node.name, netns }, host => namespaceOf(lab, host));
  await configureHost(lab, node.name, lines, { 'net/ipv4/ip_forward': 1 });
  await ipBatch([`link set dev ${node.name} master ${node.subnet} up`], { netns, env: memberEnvironment(lab) });
  for (const argv of forwarding) {
    const { exitCode, stderr } = await place.exec(node.name, argv);
    if (exitCode !== 0) throw new LabError(`${argv.join(' ')}: ${stderr}`);
  }
  await Promise.all(podsOf(topology, node).map(pod => configureHost(lab, pod.name, kernelPod(node, pod))));
}

/** Commands for `ip` in the node's namespace, and for `bridge fdb` after them. */
interface KernelNode {
  lines: string[];
  forwarding: string[][];
}

/**
 * @param switchPort where the other end of the uplink goes: its name and its namespace
 * @param namespaceOf  namespace of a pod by its name
 */
function kernelNode(
  topology: Topology,
  node: LabNode,
  switchPort: { name: string; netns: string },
  namespaceOf: (host: string) => string,
): KernelNode {
  const peers = topology.nodes.filter(other => other !== node);
  const gateway = gatewayOf(topology, node.subnet);
  const length = node.podCidr.slice(node.podCidr.indexOf('/'));
  const lines = [
    `link add name ${UPLINK} type veth peer name ${switchPort.name} netns ${switchPort.netns}`,
    `addr add ${node.address} dev ${UPLINK}`,
    `link set ${UPLINK} up`,
    ...(gateway === undefined ? [] : [`route add default via ${gateway}`]),
    'link add name cni0 type bridge mcast_snooping 0',
    `addr add ${node.hostAddress}${length} dev cni0`,
    `link set cni0 mtu ${KERNEL_VXLAN_MTU} up`,
    ...vxlanDevice(addressOf(node.address), node.vtepMac, UPLINK),
    `addr add ${vtepAddress(node)}/32 dev flannel.1`,
    'link set flannel.1 up',
    ...peers.flatMap(peer => vxlanPeer(peer.podCidr, vtepAddress(peer), peer.vtepMac)),
    ...podsOf(topology, node).flatMap((pod, i) => [
      `link add name veth${i} mtu ${KERNEL_VXLAN_MTU} type veth peer name eth0 netns ${namespaceOf(pod.name)}`,
      `link set veth${i} master cni0 up`,
    ]),
  ];
  return { lines, forwarding: peers.map(peer => forwardingEntry(peer.vtepMac, addressOf(peer.address))) };
}

/** The pod's side of it. */
function kernelPod(node: LabNode, pod: LabPod): string[] {
  const length = node.podCidr.slice(node.podCidr.indexOf('/'));
  return [
    `link set eth0 mtu ${KERNEL_VXLAN_MTU} up`,
    `addr add ${pod.address}${length} dev eth0`,
    `route add default via ${node.hostAddress}`,
  ];
}

function podsOf(topology: Topology, node: LabNode): LabPod[] {
  return topology.pods.filter(pod => pod.node === node.name && pod.memory === undefined);
}

/** `ip` lines for flannel.1. */
export function vxlanDevice(local: string, mac: string, uplink: string): string[] {
  return [
    `link add flannel.1 address ${mac} type vxlan id ${VNI} local ${local} dev ${uplink} dstport ${VXLAN_PORT} nolearning`,
  ];
}

/** `ip` lines for one peer. */
export function vxlanPeer(podCidr: string, vtep: string, mac: string): string[] {
  return [
    `route add ${podCidr} via ${vtep} dev flannel.1 onlink`,
    `neigh add ${vtep} lladdr ${mac} dev flannel.1 nud permanent`,
  ];
}

/** The `bridge` command for one peer. */
export function forwardingEntry(mac: string, underlay: string): string[] {
  return ['bridge', 'fdb', 'add', mac, 'dev', 'flannel.1', 'dst', underlay];
}

/** flannel gives the VTEP the network's own address. */
function vtepAddress(node: LabNode): string {
  return formatAddress(parseCidr(node.podCidr)!.prefix);
}

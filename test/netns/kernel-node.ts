/**
 * A node made of kernel parts, as flannel makes it (veth, bridge, a VXLAN device that learns nothing, permanent neighbour
 * and FDB entries), and the tunpath node that is its peer.
 */
import type { Rig } from './rig.ts';

export const MTU = 1450;

export const OUR_POD = '10.244.1.10';
export const KERNEL_POD = '10.244.2.10';
const VTEP_MACS = ['02:42:0a:f4:01:00', '02:42:0a:f4:02:00'];

/** Any of these in a kernel's receive path means that the other side computed something wrong. */
export const BAD = ['Ip.InHdrErrors', 'Ip.InAddrErrors', 'Icmp.InCsumErrors', 'Tcp.InCsumErrors', 'Udp.InCsumErrors'];

/** Our node `ours`, with the pod `pod`. */
export function spec(rig: Rig, offload: string | string[]): object {
  return {
    uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
    host: { device: 'tp0', address: '10.244.1.1/32' },
    pods: [{ name: 'default/p', netns: rig.full('pod'), device: 'eth0', address: OUR_POD }],
    tunnel: {
      protocol: 'vxlan',
      port: 8472,
      vni: 1,
      mac: VTEP_MACS[0],
      peers: [{ address: '192.168.10.2', mac: VTEP_MACS[1] }],
    },
    routes: [{ to: '10.244.2.0/24', via: '192.168.10.2', encap: true }],
    profile: 'flannel',
    offload,
  };
}

/** The kernel's node `kernel` with its pod `kpod`, on the switch `sw`; the namespaces must be there. */
export async function setUpKernelNode(rig: Rig): Promise<void> {
  await rig.ip('sw', [
    'link add up-k type veth peer name eth0',
    `link set eth0 netns ${rig.full('kernel')}`,
    'link set up-k master br0 up',
  ]);
  await rig.ip(
    'kernel',
    [
      'link set eth0 up',
      'addr add 192.168.10.2/24 dev eth0',
      'link add cni0 type bridge',
      `link set cni0 up mtu ${MTU}`,
      'addr add 10.244.2.1/24 dev cni0',
      `link add veth0 mtu ${MTU} type veth peer name eth1`,
      `link set eth1 netns ${rig.full('kpod')} name eth0`,
      'link set veth0 master cni0 up',
      `link add flannel.1 address ${VTEP_MACS[1]} type vxlan id 1 local 192.168.10.2 dev eth0 dstport 8472 nolearning`,
      'addr add 10.244.2.0/32 dev flannel.1',
      'link set flannel.1 up',
      'route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink',
      `neigh add 10.244.1.0 lladdr ${VTEP_MACS[0]} dev flannel.1 nud permanent`,
    ],
    { 'net/ipv4/ip_forward': 1 },
  );
  await rig.run('kernel', 'bridge', 'fdb', 'add', VTEP_MACS[0], 'dev', 'flannel.1', 'dst', '192.168.10.1');
  await rig.ip('kpod', [
    `link set eth0 mtu ${MTU} up`,
    `addr add ${KERNEL_POD}/24 dev eth0`,
    'route add default via 10.244.2.1',
  ]);
}

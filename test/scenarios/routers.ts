/**
 * An underlay of two kernel routers, for tests of what happens where its link is narrow:
 *
 *   pods - node1 - left ======= right - node2 - pods
 *                     the link
 */
import type { Rig } from '../netns/rig.ts';

export const nodeAddress = (side: number) => `192.168.${10 * side}.1`;
export const routerAddress = (side: number) => `192.168.${10 * side}.254`;

const routerOf = (side: number) => (side === 1 ? 'left' : 'right');

/** Makes the namespaces left and right, each with a bridge for its node, and the link between them. */
export async function makeRouters(rig: Rig): Promise<void> {
  await rig.bridge('left', `${routerAddress(1)}/24`);
  await rig.bridge('right', `${routerAddress(2)}/24`);
  await rig.ip('left', [`link add mid type veth peer name mid netns ${rig.full('right')}`]);
  for (const side of [1, 2]) {
    const lines = [
      `addr add 192.168.30.${side}/24 dev mid`,
      'link set mid up',
      `route add 192.168.${10 * (3 - side)}.0/24 via 192.168.30.${3 - side}`,
    ];
    // A router that answers each packet: which test sends many is not its business.
    const sysctls = {
      'net/ipv4/ip_forward': 1,
      'net/ipv4/icmp_ratelimit': 0,
      'net/ipv4/icmp_msgs_per_sec': 100_000,
    };
    await rig.ip(routerOf(side), lines, sysctls);
  }
}

/** Connects the uplink of a node that has been started in namespace `node1` or `node2`. */
export async function plugNode(rig: Rig, side: number, mtu: number): Promise<void> {
  const router = routerOf(side);
  await rig.plug(`node${side}`, 'ul0', router, `up${side}`);
  await rig.ip(router, [`link set up${side} mtu ${mtu}`]);
}

export async function setLinkMtu(rig: Rig, mtu: number): Promise<void> {
  await Promise.all([1, 2].map(side => rig.ip(routerOf(side), [`link set mid mtu ${mtu}`])));
}

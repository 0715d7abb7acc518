/**
 * A pod whose veth exists: the node takes the host's end of it. Address, routes and MTU at the pod's end are whoever's made
 * it. The host's kernel still has its end as an interface, and must keep quiet there, or it would answer the pod's ARP and
 * forward its packets a second time:
 *
 *   - it answers no ARP (arp_ignore 8; proxy_arp 0)
 *   - its MAC is not the port's, so what the pod sends is for somebody else (PACKET_OTHERHOST, ip_rcv())
 *   - it speaks no IPv6
 *
 * All of that is put back when the node lets go of it.
 */
import { closeSync, constants, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import type { DeviceHandle } from '../io/handle.ts';
import { Netlink } from '../io/netlink.ts';
import type { Link } from '../io/netlink-message.ts';
import { openPacketSocket } from '../io/packet-socket.ts';
import type { TunTapHandle } from '../io/tuntap.ts';
import { POD_GATEWAY_MAC } from '../port.ts';
import { formatMac } from './address.ts';
import type { PodConfig } from './config.ts';
import { namespacePath } from './netns.ts';
import { parseMac } from './validated.ts';

/** What a host's end was like before, by its name. */
const taken = new Map<string, (() => void)[]>();

/** The host's end of a pod's veth. @throws Error that names what is not there */
export function findHostEnd(netlink: Netlink, { netns, device }: PodConfig): { end: Link; pod: Link } {
  const fd = openSync(namespacePath(netns), constants.O_RDONLY);
  try {
    const pod = netlink.link(device, netlink.nsidOf(fd));
    if (pod === undefined) throw new Error(`${device} in ${netns}: there is no such interface`);
    if (pod.kind !== 'veth') {
      throw new Error(`${device} in ${netns}: expected one end of a veth, which it is not (${pod.kind || 'a NIC'})`);
    }
    const end = netlink.links().find(link => link.index === pod.below && link.kind === 'veth');
    if (end === undefined || end.below !== pod.index) {
      throw new Error(`${device} in ${netns}: its other end is not in this network namespace`);
    }
    return { end, pod };
  } finally {
    closeSync(fd);
  }
}

/**
 * Takes the host's end of a pod's veth. The end is switched on if it was not.
 * @throws Error with everything as before
 */
export function openVeth(config: PodConfig, allowed: number): TunTapHandle {
  const netlink = new Netlink();
  try {
    const { end, pod } = findHostEnd(netlink, config);
    if (end.master !== 0) {
      const master = netlink.links().find(({ index }) => index === end.master)?.name ?? 'a bridge';
      throw new Error(`${end.name}, the other end of ${config.device} in ${config.netns}, belongs to ${master}`);
    }
    quieten(netlink, end, config);
    try {
      const peerMac = parseMac(pod.mac);
      return openPacketSocket({ name: end.name, index: end.index, mtu: pod.mtu, allowed, peerMac });
    } catch (error) {
      putBack(end.name);
      throw error;
    }
  } finally {
    netlink.close();
  }
}

function quieten(netlink: Netlink, { name, index, mac, up }: Link, config: PodConfig): void {
  putBack(name);
  const undo: (() => void)[] = [];
  taken.set(name, undo);
  const set = (file: string, value: string) => {
    if (!existsSync(file)) return;
    const before = readFileSync(file, 'utf8').trim();
    if (before === value) return;
    writeFileSync(file, value);
    undo.push(() => writeFileSync(file, before));
  };
  try {
    set(`/proc/sys/net/ipv4/conf/${name}/arp_ignore`, '8');
    set(`/proc/sys/net/ipv4/conf/${name}/proxy_arp`, '0');
    set(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
    const own = config.mac === undefined ? POD_GATEWAY_MAC : parseMac(config.mac);
    if (mac === formatMac(own.hi, own.lo)) {
      // Any other: nobody sends to it.
      netlink.setLink(index, { mac: otherMac(mac) });
      undo.push(() => netlinkOnce(once => once.setLink(index, { mac })));
    }
    if (!up) netlink.setLink(index, { up: true });
  } catch (error) {
    putBack(name);
    throw error;
  }
}

function otherMac(mac: string): string {
  return `02:${mac.slice(3, -2)}${mac.endsWith('01') ? '02' : '01'}`;
}

function netlinkOnce(work: (netlink: Netlink) => void): void {
  const netlink = new Netlink();
  try {
    work(netlink);
  } finally {
    netlink.close();
  }
}

/** Lets go of a veth: its host's end is as it was. Does nothing for other devices. Never throws: the end may be gone. */
export function releaseVeth(handle: Pick<DeviceHandle, 'kind' | 'name'>): void {
  if (handle.kind === 'veth') putBack(handle.name);
}

function putBack(name: string): void {
  const undo = taken.get(name) ?? [];
  taken.delete(name);
  for (const step of undo.reverse()) {
    try {
      step();
    } catch {
      // The veth is gone, and with it what was changed.
    }
  }
}

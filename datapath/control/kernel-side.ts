/** What every device of ours wants of the kernel. */
import { existsSync, writeFileSync } from 'node:fs';

/** Packets that a TUN or TAP keeps for us while we are busy: the ring between the kernel and our read(). */
export const QUEUE_PACKETS = 1000;

/** The datapath speaks IPv4: the kernel need not solicit routers behind our devices. In the current namespace. */
export function withoutIpv6(device: string): void {
  const file = `/proc/sys/net/ipv6/conf/${device}/disable_ipv6`;
  if (existsSync(file)) writeFileSync(file, '1');
}

/**
 * Has the kernel answer ARP at a device only for addresses of that device, in the current namespace. By itself it answers at
 * every device for every address that the host has (arp_ignore 0), at our TAP for the node's address at the host port, too.
 */
export function answersForItselfAlone(device: string): void {
  writeFileSync(`/proc/sys/net/ipv4/conf/${device}/arp_ignore`, '1');
}

/** As withoutIpv6, for what sets a device up in another namespace. */
export function sysctlsOf(device: string): Record<string, number> {
  return existsSync('/proc/sys/net/ipv6') ? { [`net/ipv6/conf/${device}/disable_ipv6`]: 1 } : {};
}

let passages = 0;

/** Name of a device until it is in its namespace: no other's. */
export function passageName(): string {
  return `tp${process.pid}.${passages++ % 10_000}`;
}

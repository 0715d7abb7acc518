/** What every device of ours wants of the kernel. */
import { existsSync, writeFileSync } from 'node:fs';

/** Packets that a TUN or TAP keeps for us while we are busy: the ring between the kernel and our read(). */
export const QUEUE_PACKETS = 1000;

/** The datapath speaks IPv4: the kernel need not solicit routers behind our devices. In the current namespace. */
export function withoutIpv6(device: string): void {
  const file = `/proc/sys/net/ipv6/conf/${device}/disable_ipv6`;
  if (existsSync(file)) writeFileSync(file, '1');
}

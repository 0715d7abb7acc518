/** What the kinds of uplink have in common when they look again at what they stand on. */
import type { DeviceHandle } from '../../io/handle.ts';
import { type Netlink, placeOfTun } from '../../io/netlink.ts';
import type { Link } from '../../io/netlink-message.ts';
import type { ResolvedConfig, ResolvedUplink } from '../resolved.ts';
import type { Sight } from './uplink.ts';

/** Why an interface of the host carries nothing; null if it does. */
export function troubleOf(name: string, link: Link | undefined): Omit<Sight, 'stale'> | null {
  if (link === undefined) return { state: 'gone', why: `${name} is gone` };
  if (!link.up) return { state: 'down', why: `${name} is down (ip link set ${name} up)` };
  if (!link.running) return { state: 'down', why: `${name} has no carrier` };
  return null;
}

/**
 * An uplink that has its address and MTU from an interface of the host: looks at that, and has it resolved anew.
 * @param resolve as UplinkKind's, without the problem of its place in a file
 */
export async function lookAtInterface(
  netlink: Netlink,
  config: ResolvedConfig,
  resolve: () => Promise<ResolvedUplink | string[]>,
): Promise<Sight> {
  const { uplink } = config.spec;
  const name = 'interface' in uplink.written ? uplink.written.interface : uplink.device;
  const link = netlink.link(name);
  const stale = link === undefined || link.index !== uplink.interfaceIndex;
  const trouble = troubleOf(name, link);
  if (trouble !== null) return { ...trouble, stale };
  const found = await resolve();
  if (Array.isArray(found))
    return { state: 'down', why: found.join('; ').replace(/^spec\.uplink\.interface: /, ''), stale };
  return { state: 'up', why: null, stale, uplink: found };
}

/** The interface is fine, but the node's own device on it has been switched off: the kernel loses what goes through without a word. */
export function switchedOff(sight: Sight, device: string): Sight {
  return sight.state === 'up'
    ? { ...sight, state: 'down', why: `${device} is down (ip link set ${device} up)` }
    : sight;
}

/** Between two questions a device may be moved or renamed; that often in a row it is not. */
const TRIES = 16;

/**
 * The device of a TUN or TAP, wherever it has been moved; undefined if the kernel has taken it away. What is only nowhere to
 * be found is not gone: to close its descriptor would be what takes it away.
 */
export function linkOfTun(
  netlink: Netlink,
  handle: DeviceHandle | null,
): { link: Link; nsid: number | null } | undefined {
  if (handle === null || !('fd' in handle)) return undefined;
  for (let tries = 0; tries < TRIES; tries++) {
    const place = placeOfTun(netlink, handle.fd);
    if (place === undefined) return undefined;
    const link = netlink.link(place.name, place.nsid);
    if (link !== undefined) return { link, nsid: place.nsid };
  }
  throw new Error(`${handle.name} is in no network namespace that can be looked into`);
}

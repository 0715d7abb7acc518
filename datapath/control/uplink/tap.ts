/** `uplink.kind: tap`: a TAP whose other side the user puts where he likes. It goes with its descriptor. */

import { closeHandle } from '../../io/handle.ts';
import { openTunTap } from '../../io/tuntap.ts';
import type { UplinkConfig } from '../config.ts';
import { ipBatch } from '../ip.ts';
import { answersForItselfAlone, QUEUE_PACKETS, withoutIpv6 } from '../kernel-side.ts';
import { resolveTap } from '../resolved.ts';
import { linkOfTun } from './look.ts';
import type { RestOfConfig, UplinkKind } from './uplink.ts';

export const tap: UplinkKind<Extract<UplinkConfig, { kind: 'tap' }>> = {
  resolve: async (written, config) => ({ ...resolveTap(written), onHostPort: isElsewhere(config) }),
  findObstacles: async () => [],
  async look(netlink, config, handle) {
    const { uplink } = config.spec;
    // It is ours: nothing stands in the way of another one.
    if (handle === null) return { state: 'up', why: null, stale: true, uplink };
    const own = linkOfTun(netlink, handle);
    if (own === undefined) return { state: 'gone', why: `${uplink.device} is gone`, stale: true };
    const { link, nsid } = own;
    // While it is in the node's own namespace, the kernel there may be on its link, at a bridge, say: it would answer ARP for
    // the node's address with a MAC of its own, and take what comes from that address for its own come back.
    const now = { ...uplink, mtu: link.mtu, onHostPort: nsid !== null || isElsewhere(config) };
    if (!link.up) return { state: 'down', why: `${link.name} is down`, stale: false, uplink: now };
    return { state: 'up', why: null, stale: false, uplink: now };
  },
  async open(config, allowed) {
    const { device, mtu } = config.spec.uplink;
    const handle = openTunTap({ kind: 'tap', name: device, mtu, allowed });
    try {
      withoutIpv6(device);
      answersForItselfAlone(device);
      await ipBatch([`link set dev ${device} mtu ${mtu} txqueuelen ${QUEUE_PACKETS} up`]);
    } catch (error) {
      closeHandle(handle);
      throw error;
    }
    return { handle, status: () => [], close: async () => {} };
  },
};

/** The host port is in a namespace of its own, whose kernel is not on the TAP's link. */
function isElsewhere({ spec: { host } }: RestOfConfig): boolean {
  return host?.netns !== undefined;
}

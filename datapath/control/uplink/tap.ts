/** `uplink.kind: tap`: a TAP whose other side the user puts where he likes. It goes with its descriptor. */

import { closeHandle } from '../../io/handle.ts';
import { openTunTap } from '../../io/tuntap.ts';
import { ipBatch } from '../../lab/ip.ts';
import type { UplinkConfig } from '../config.ts';
import { QUEUE_PACKETS, withoutIpv6 } from '../kernel-side.ts';
import { resolveTap } from '../resolved.ts';
import { OwnPorts } from './own-ports.ts';
import type { UplinkKind } from './uplink.ts';

export const tap: UplinkKind<Extract<UplinkConfig, { kind: 'tap' }>> = {
  resolve: async written => resolveTap(written),
  findObstacles: async () => [],
  async open(config, allowed) {
    const { device, mtu } = config.spec.uplink;
    const handle = openTunTap({ kind: 'tap', name: device, mtu, allowed });
    try {
      withoutIpv6(device);
      await ipBatch([`link set dev ${device} mtu ${mtu} txqueuelen ${QUEUE_PACKETS} up`]);
    } catch (error) {
      closeHandle(handle);
      throw error;
    }
    const ports = new OwnPorts(config.metadata.name);
    ports.serve(config);
    return {
      handle,
      status: () => ports.status(),
      serve: async (...configs) => ports.serve(...configs),
      close: async () => ports.close(),
    };
  },
};

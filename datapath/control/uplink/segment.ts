/**
 * `uplink.kind: segment`: a port of an Ethernet in the process (`kind: Segment`), which is there before its nodes are
 * (control/loops.ts). Nothing of it is the kernel's.
 */
import { OFFLOAD_CSUM, OFFLOAD_IPIP, OFFLOAD_TUNNEL } from '../../io/device.ts';
import type { UplinkConfig } from '../config.ts';
import { resolveSegment } from '../resolved.ts';
import type { UplinkKind } from './uplink.ts';

export const segment: UplinkKind<Extract<UplinkConfig, { kind: 'segment' }>> = {
  resolve: async written => resolveSegment(written),
  findObstacles: async () => [],
  // Nothing of the kernel's is in it, and it is there as long as the process.
  look: async () => ({ state: 'up', why: null, stale: false }),
  async open({ metadata, spec }, allowed) {
    const { device, mtu } = spec.uplink;
    const all = OFFLOAD_CSUM | OFFLOAD_TUNNEL;
    // No kernel has a word in this: whatever is allowed is in use.
    const offloads = (allowed & all) === all ? allowed | OFFLOAD_IPIP : allowed;
    const handle = { kind: 'segment' as const, name: device, port: metadata.name, mtu, offloads, refused: [] };
    return { handle, status: () => [], close: async () => {} };
  },
};

/** Which MTU is told to whom: pods, and those who ask. */
import type { ResolvedConfig } from '../control/resolved.ts';
import { PROFILES } from '../profile.ts';
import * as ethernet from '../wire/ethernet.ts';
import { configuredOverhead } from './compile-tunnel.ts';

/** MTUs that follow from the uplink's and the tunnel's. */
export interface Mtus {
  /** What a packet may have that goes into any tunnel; the uplink's own without one. */
  tunnel: number;
  /** Of the pods' devices. */
  device: number;
  /** Of the pods' default route, where it is lower than the device's; else 0. */
  route: number;
}

/** What a packet may have that goes into a tunnel, by its name; the uplink's own for null. */
export function innerMtu({ spec: { uplink, tunnels } }: ResolvedConfig, name: string | null): number {
  const tunnel = tunnels.find(one => one.name === name);
  return tunnel === undefined ? uplink.mtu : uplink.mtu - configuredOverhead(tunnel);
}

/** A pod may send into any tunnel: which one a route takes changes without its knowing. */
export function mtusOf(config: ResolvedConfig): Mtus {
  const { uplink, tunnels, profile, mtu } = config.spec;
  const inner = Math.min(uplink.mtu, ...tunnels.map(({ name }) => innerMtu(config, name)));
  // Where the tunnel cuts what is too long, pods need not know of it.
  if (mtu.tooBig.startsWith('fragment')) return { tunnel: inner, device: uplink.mtu, route: 0 };
  if (mtu.tooBig === 'larger-underlay') return { tunnel: inner, device: Math.min(inner, ethernet.MTU), route: 0 };
  const perRoute = PROFILES[profile].mtuAt === 'route';
  return {
    tunnel: inner,
    device: perRoute ? uplink.mtu : inner,
    route: perRoute && inner < uplink.mtu ? inner : 0,
  };
}

/** What a pod's kernel is told: the MTU of its device, and that of its default route, which is the smaller one where they differ. */
export function podMtuOf(pod: { mtu?: number }, mtus: Mtus): { device: number; route: number } {
  const device = pod.mtu ?? mtus.device;
  return { device, route: mtus.route > 0 ? Math.min(mtus.route, device) : device };
}

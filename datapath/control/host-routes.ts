/** The kernel's routes by the host port: all that the datapath can reach, for the node's own processes. */
import { SERVICE_LOOPBACK, SERVICE_OWN } from '../nat/service.ts';
import { innerMtu } from '../program/mtus.ts';
import { formatAddress, formatCidr, parseCidr } from './address.ts';
import type { ResolvedConfig } from './resolved.ts';
import { allAddressesOf } from './service-config.ts';

/** The node's own routes stand behind whatever the host has: a default route of the host's goes on to win. */
export const ROUTE_METRIC = 4278;

/**
 * The routes of a configuration in the words of `ip route`, without the verb; none without a host port. Sources as on a
 * real node: the host address towards pods behind a tunnel or here, the underlay address elsewhere. Without the underlay
 * address at the host port there are no routes to elsewhere: the host has its own.
 */
export function hostRoutes(config: ResolvedConfig): string[] {
  const { uplink, host, pods, routes, services, serviceCIDR = [] } = config.spec;
  if (host === undefined) return [];
  const { tooBig } = config.spec.mtu;
  const [nodeAddress, length] = uplink.address.split('/');
  const [hostAddress] = host.address.split('/');
  const lines: string[] = [];
  const add = (to: string, source: string, mtu = uplink.mtu) => {
    const lower = mtu < uplink.mtu ? ` mtu ${mtu}` : '';
    lines.push(`${to} dev ${host.device} src ${source} metric ${ROUTE_METRIC}${lower}`);
  };
  for (const pod of pods) for (const to of [`${pod.address}/32`, ...pod.networks]) add(to, hostAddress);
  if (uplink.onHostPort) {
    if (Number(length) < 32) add(networkOf(uplink.address), nodeAddress);
    if (uplink.gateway !== undefined && Number(length) === 32) add(`${uplink.gateway}/32`, nodeAddress);
  }
  // Where services lead the node to itself, and its processes to ports of services at its own address.
  if (services.length > 0)
    for (const own of [SERVICE_LOOPBACK, SERVICE_OWN]) add(`${formatAddress(own)}/32`, hostAddress);
  // Those of the service network that no service has, too: the datapath refuses and counts what is sent to them.
  for (const network of serviceCIDR) add(network, hostAddress);
  for (const address of new Set(services.flatMap(allAddressesOf))) {
    // An address that is the node's own stays the kernel's.
    if (address !== nodeAddress) add(`${address}/32`, hostAddress);
  }
  for (const route of routes) {
    const cut = (route.tooBig ?? tooBig).startsWith('fragment');
    if (route.encap)
      add(route.to, hostAddress, Math.min(cut ? uplink.mtu : innerMtu(config, route.encap), route.mtu ?? uplink.mtu));
    else if (uplink.onHostPort) add(route.to, nodeAddress, Math.min(uplink.mtu, route.mtu ?? uplink.mtu));
  }
  const hasDefault = routes.some(route => route.to === '0.0.0.0/0');
  if (uplink.onHostPort && uplink.gateway !== undefined && !hasDefault) add('0.0.0.0/0', nodeAddress);
  return lines;
}

function networkOf(interfaceAddress: string): string {
  const { prefix, length } = parseCidr(interfaceAddress)!;
  return formatCidr(prefix, length);
}

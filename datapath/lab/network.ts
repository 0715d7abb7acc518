/** The kernel's part of a lab: namespaces, bridges, and the router with what is behind it. */
import { existsSync } from 'node:fs';
import { ipBatch } from '../control/ip.ts';
import { AWAY, memberEnvironment, namespaceOf, SWITCH } from './names.ts';
import { hostsOf, type Topology } from './topology.ts';

/** Makes all namespaces of a lab and what is in them before nodes start. */
export async function makeNetwork(lab: string, topology: Topology): Promise<void> {
  const { subnets, nodes, pods, router } = topology;
  const [net, away, at] = [SWITCH, AWAY, router.name].map(host => namespaceOf(lab, host));
  const lines = [
    ...[SWITCH, AWAY, ...hostsOf(topology)].map(host => `netns add ${namespaceOf(lab, host)}`),
    ...router.legs.map(
      leg => `link add name ${leg.device} netns ${at} type veth peer name ${router.name}-${leg.device} netns ${net}`,
    ),
    `link add name ${router.exit.device} netns ${at} type veth peer name ${router.name} netns ${away}`,
  ];
  await ipBatch(lines, { env: memberEnvironment(lab) });

  const exitPrefix = router.exit.address.slice(router.exit.address.indexOf('/'));
  await Promise.all([
    configureHost(lab, SWITCH, [
      ...subnets.map(({ bridge }) => `link add ${bridge} type bridge mcast_snooping 0`),
      ...subnets.map(({ bridge }) => `link set ${bridge} up`),
      ...router.legs.map(leg => `link set ${router.name}-${leg.device} master ${leg.bridge} up`),
    ]),
    configureHost(
      lab,
      router.name,
      [
        ...router.legs.flatMap(leg => [`addr add ${leg.address} dev ${leg.device}`, `link set ${leg.device} up`]),
        // Bridges without ports stand in for dummy devices, which not every kernel has.
        ...router.loops.flatMap(loop => [
          `link add ${loop.device} type bridge`,
          `addr add ${loop.address} dev ${loop.device}`,
          `link set ${loop.device} up`,
        ]),
        `addr add ${router.exit.address} dev ${router.exit.device}`,
        `link set ${router.exit.device} up`,
        `route add default via ${router.exit.gateway} dev ${router.exit.device}`,
        ...(router.routes ?? []).map(({ to, via }) => `route add ${to} via ${via}`),
      ],
      { 'net/ipv4/ip_forward': 1 },
    ),
    configureHost(lab, AWAY, [
      `addr add ${router.exit.gateway}${exitPrefix} dev ${router.name}`,
      `link set ${router.name} up`,
    ]),
    ...[...nodes, ...pods].map(host => configureHost(lab, host.name, [])),
  ]);
}

/** Runs lines for `ip` in a host's namespace, with what all hosts of a lab have set. */
export function configureHost(
  lab: string,
  host: string,
  lines: string[],
  sysctls: Record<string, string | number> = {},
): Promise<void> {
  return ipBatch(['link set lo up', ...lines], {
    netns: namespaceOf(lab, host),
    env: memberEnvironment(lab),
    sysctls: {
      // What the host decided about spoofed sources is not the lab's business.
      'net/ipv4/conf/all/rp_filter': 0,
      'net/ipv4/conf/default/rp_filter': 0,
      // Neighbour discovery would stand between the packets of every capture.
      ...(existsSync('/proc/sys/net/ipv6')
        ? { 'net/ipv6/conf/all/disable_ipv6': 1, 'net/ipv6/conf/default/disable_ipv6': 1 }
        : {}),
      ...sysctls,
    },
  });
}

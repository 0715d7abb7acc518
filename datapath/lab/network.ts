/** The kernel's part of a lab: namespaces, bridges, hosts, and routers with what is behind them. */
import { existsSync } from 'node:fs';
import { ipBatch } from '../control/ip.ts';
import { AWAY, memberEnvironment, namespaceOf, SWITCH } from './names.ts';
import { routesOf } from './routing.ts';
import { gatewayOf, hostsOf, type LabRouter, type Topology } from './topology.ts';

/** Makes all namespaces of a lab and what is in them before nodes start. */
export async function makeNetwork(lab: string, topology: Topology): Promise<void> {
  const { subnets, nodes, pods, routers, links, hosts } = topology;
  const at = (host: string): string => namespaceOf(lab, host);
  const mtuOf = (subnet: string): number => subnets.find(({ name }) => name === subnet)!.mtu;
  const exits = routers.filter(({ exit }) => exit !== undefined);
  const lines = [
    ...[SWITCH, ...(exits.length > 0 ? [AWAY] : []), ...hostsOf(topology)].map(host => `netns add ${at(host)}`),
    ...routers.flatMap(({ name, legs }) =>
      legs.map(leg => {
        const mtu = leg.mtu ?? mtuOf(leg.subnet);
        return `${veth(leg.device, at(name), mtu)} peer name ${name}-${leg.device} mtu ${mtuOf(leg.subnet)} netns ${at(SWITCH)}`;
      }),
    ),
    ...links.map(
      ({ ends: [a, b], mtu }) =>
        `${veth(a.device, at(a.router), mtu)} peer name ${b.device} mtu ${mtu} netns ${at(b.router)}`,
    ),
    ...hosts.map(({ name, subnet }) => {
      const mtu = mtuOf(subnet);
      return `${veth('eth0', at(name), mtu)} peer name ${name} mtu ${mtu} netns ${at(SWITCH)}`;
    }),
    ...exits.map(
      ({ name, exit }) =>
        `link add name ${exit!.device} netns ${at(name)} type veth peer name ${name} netns ${at(AWAY)}`,
    ),
  ];
  await ipBatch(lines, { env: memberEnvironment(lab) });

  await Promise.all([
    configureHost(lab, SWITCH, [
      ...subnets.map(({ name, mtu }) => `link add ${name} mtu ${mtu} type bridge mcast_snooping 0`),
      ...subnets.map(({ name }) => `link set ${name} up`),
      ...routers.flatMap(({ name, legs }) => legs.map(leg => `link set ${name}-${leg.device} master ${leg.subnet} up`)),
      ...hosts.map(({ name, subnet }) => `link set ${name} master ${subnet} up`),
    ]),
    ...routers.map(router => configureRouter(lab, topology, router)),
    ...hosts.map(({ name, subnet, address }) => {
      const gateway = gatewayOf(topology, subnet);
      return configureHost(lab, name, [
        ...addressLines('eth0', address),
        ...(gateway === undefined ? [] : [`route add default via ${gateway}`]),
      ]);
    }),
    ...(exits.length === 0
      ? []
      : [
          configureHost(
            lab,
            AWAY,
            exits.flatMap(({ name, exit }) =>
              addressLines(name, `${exit!.gateway}${exit!.address.slice(exit!.address.indexOf('/'))}`),
            ),
          ),
        ]),
    ...[...nodes, ...pods.filter(({ memory }) => memory === undefined)].map(host => configureHost(lab, host.name, [])),
  ]);
}

function configureRouter(lab: string, topology: Topology, router: LabRouter): Promise<void> {
  const { name, legs, loops, exit } = router;
  const ends = topology.links.flatMap(link => link.ends).filter(end => end.router === name);
  return configureHost(
    lab,
    name,
    [
      ...[...legs, ...ends].flatMap(({ device, address }) => addressLines(device, address)),
      // Bridges without ports stand in for dummy devices, which not every kernel has.
      ...loops.flatMap(({ device, address }) => [`link add ${device} type bridge`, ...addressLines(device, address)]),
      ...(exit === undefined
        ? []
        : [...addressLines(exit.device, exit.address), `route add default via ${exit.gateway} dev ${exit.device}`]),
      ...routesOf(topology, router).map(({ to, via }) => `route add ${to} via ${via}`),
    ],
    { 'net/ipv4/ip_forward': 1 },
  );
}

function veth(device: string, netns: string, mtu: number): string {
  return `link add name ${device} mtu ${mtu} netns ${netns} type veth`;
}

function addressLines(device: string, address: string): string[] {
  return [`addr add ${address} dev ${device}`, `link set ${device} up`];
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

/** The kernel's interfaces and routes in the current namespace, as `ip -json` tells them. */
import { execa } from 'execa';

export interface Interface {
  index: number;
  name: string;
  mac: string;
  mtu: number;
  /** It has been switched on. */
  up: boolean;
  /** There is a carrier, and it is on. */
  running: boolean;
  /** veth, vxlan, macvtap...; undefined for a NIC. */
  kind?: string;
  alias?: string;
  /** Name of the bridge, bond or VRF that it belongs to. */
  master?: string;
  /** Name of the interface below it, of a macvtap or VLAN, where that is in this namespace. */
  below?: string;
  /** IPv4, ADDRESS/LENGTH, in the kernel's order: the first is the one that it sends from. */
  addresses: string[];
}

export interface KernelRoute {
  /** default, an address, or a network. */
  to: string;
  gateway?: string;
  device?: string;
  metric: number;
  /** Address that the kernel sends from. */
  source?: string;
  mtu?: number;
}

/** What `ip -json -details address show` prints, as far as it is of use. */
interface IpAddress {
  ifindex: number;
  ifname: string;
  flags: string[];
  mtu: number;
  address?: string;
  ifalias?: string;
  master?: string;
  link?: string;
  linkinfo?: { info_kind?: string };
  addr_info: { family: string; local: string; prefixlen: number }[];
}

/** What `ip -json route show` prints. */
interface IpRoute {
  dst: string;
  gateway?: string;
  dev?: string;
  metric?: number;
  prefsrc?: string;
  metrics?: { mtu?: number }[];
}

/** Runs `ip -json ARGS`. @throws Error with what it said */
export async function ipJson<Row>(...args: string[]): Promise<Row[]> {
  const { stdout } = await execa('ip', ['-json', ...args], { stdin: 'ignore' });
  // Nothing found is nothing printed.
  return stdout.trim() === '' ? [] : (JSON.parse(stdout) as Row[]);
}

export async function readInterfaces(): Promise<Interface[]> {
  return parseInterfaces(await ipJson('-details', 'address', 'show'));
}

export function parseInterfaces(links: IpAddress[]): Interface[] {
  return links.map(link => ({
    index: link.ifindex,
    name: link.ifname,
    mac: link.address ?? '00:00:00:00:00:00',
    mtu: link.mtu,
    up: link.flags.includes('UP'),
    running: link.flags.includes('UP') && link.flags.includes('LOWER_UP'),
    kind: link.linkinfo?.info_kind,
    alias: link.ifalias,
    master: link.master,
    below: link.link,
    addresses: link.addr_info
      .filter(({ family }) => family === 'inet')
      .map(({ local, prefixlen }) => `${local}/${prefixlen}`),
  }));
}

/** IPv4 routes of the main table, the kernel's order. */
export async function readRoutes(): Promise<KernelRoute[]> {
  return parseRoutes(await ipJson('-4', 'route', 'show', 'table', 'main'));
}

export function parseRoutes(routes: IpRoute[]): KernelRoute[] {
  return routes.map(({ dst, gateway, dev, metric, prefsrc, metrics }) => ({
    to: dst,
    gateway,
    device: dev,
    metric: metric ?? 0,
    source: prefsrc,
    mtu: metrics?.[0]?.mtu,
  }));
}

/** The gateway of the best default route that leaves by an interface. */
export function defaultGateway(routes: readonly KernelRoute[], device: string): string | undefined {
  const found = routes.filter(route => route.to === 'default' && route.device === device);
  return found.sort((a, b) => a.metric - b.metric)[0]?.gateway;
}

/**
 * The interface that a configuration names, or what is wrong with it: it must be there and switched on.
 * @param path where the name stands in the configuration
 */
export function findInterface(interfaces: readonly Interface[], name: string, path: string): Interface | string {
  const found = interfaces.find(candidate => candidate.name === name);
  if (found === undefined) {
    const names = interfaces.filter(candidate => candidate.name !== 'lo').map(candidate => candidate.name);
    return `${path}: there is no interface ${name} in this network namespace (${names.join(', ') || 'none but lo'})`;
  }
  if (!found.up) return `${path}: ${name} is down (ip link set ${name} up)`;
  if (!found.running) return `${path}: ${name} has no carrier: its cable, or its other end, is down`;
  return found;
}

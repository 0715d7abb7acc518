/** What there is on the machine: everything that `host init` decides by, gathered without changing anything. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { release } from 'node:os';
import { basename } from 'node:path';
import { execa } from 'execa';
import { allowedOffloads } from '../control/devices.ts';
import { type Interface, ipJson, type KernelRoute, readInterfaces, readRoutes } from '../control/interfaces.ts';
import { STEERING_PREFIX } from '../control/uplink/steering.ts';
import { OFFLOADS } from '../io/device.ts';
import { closeHandle } from '../io/handle.ts';
import { openTunTap } from '../io/tuntap.ts';
import { combine, parseIptables, parseNft, type Ruleset } from './firewall.ts';

export interface Facts {
  hostname: string;
  kernel: string;
  /** Offloads that a probe TUN and TAP took, by name; or why there was none. */
  tun: string[] | { error: string };
  tap: string[] | { error: string };
  interfaces: Nic[];
  routes: KernelRoute[];
  /** How the kernel sends to each peer that was named; null where it does not. */
  toPeers: Map<string, { device: string; gateway?: string } | null>;
  /** net.ipv4.ip_forward. */
  forwarding: boolean;
  /** UDP ports that something on this host listens on, and at which address. */
  udpPorts: { port: number; address: string }[];
  /** Files of /etc/cni/net.d. */
  cni: string[];
  /** Named network namespaces. */
  namespaces: string[];
  /** "Amazon EC2", "QEMU Standard PC"...: who made the machine, as far as it says. */
  machine: string;
  /** Null where neither nft nor iptables can be asked. */
  firewall: Ruleset | null;
}

export interface Nic extends Interface {
  /** Of the hardware: virtio_net, ena...; undefined for what is made in software. */
  driver?: string;
  wireless: boolean;
  /** UDP port of a VXLAN or GENEVE device of the kernel. */
  tunnelPort?: number;
  /** net.ipv4.conf.NAME.rp_filter and that of `all`: the larger one counts. 1 is strict. */
  reversePathFilter: number;
}

/** @param peers underlay addresses of other nodes */
export async function gatherFacts(peers: readonly string[]): Promise<Facts> {
  const [interfaces, routes, toPeers, tunnelPorts, firewall] = await Promise.all([
    readInterfaces(),
    readRoutes(),
    readRoutesTo(peers),
    readTunnelPorts(),
    readFirewall(),
  ]);
  return {
    hostname: readText('/proc/sys/kernel/hostname'),
    kernel: release(),
    tun: probe('tun'),
    tap: probe('tap'),
    interfaces: interfaces.map(found => ({
      ...found,
      ...describeNic(found.name),
      tunnelPort: tunnelPorts.get(found.name),
    })),
    routes,
    toPeers,
    forwarding: readText('/proc/sys/net/ipv4/ip_forward') === '1',
    udpPorts: ['udp', 'udp6'].flatMap(name => parseUdpPorts(readText(`/proc/net/${name}`))),
    cni: list('/etc/cni/net.d').filter(name => /\.conf(list)?$/.test(name)),
    namespaces: list('/run/netns'),
    machine: ['sys_vendor', 'product_name']
      .map(name => readText(`/sys/class/dmi/id/${name}`))
      .join(' ')
      .trim(),
    firewall,
  };
}

/** Empty where it cannot be read. */
function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

function list(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).sort() : [];
}

/** Opens a device, which is there for as long as this takes, and asks it for everything. */
function probe(kind: 'tun' | 'tap'): string[] | { error: string } {
  try {
    const name = `tp${process.pid}.${kind}`.slice(0, 15);
    const handle = openTunTap({ kind, name, mtu: 1500, allowed: allowedOffloads('auto') });
    closeHandle(handle);
    return OFFLOADS.filter(({ bits }) => (handle.offloads & bits) !== 0).map(({ name }) => name);
  } catch (error) {
    return { error: (error as Error).message };
  }
}

function describeNic(name: string): Pick<Nic, 'driver' | 'wireless' | 'reversePathFilter'> {
  const filter = (where: string) => Number(readText(`/proc/sys/net/ipv4/conf/${where}/rp_filter`));
  let driver: string | undefined;
  try {
    driver = basename(readlinkSync(`/sys/class/net/${name}/device/driver`));
  } catch {
    // Made in software, or /sys shows another namespace.
  }
  return {
    driver,
    wireless: existsSync(`/sys/class/net/${name}/wireless`),
    reversePathFilter: Math.max(filter('all'), filter(name)),
  };
}

/** The kernel's own answer, by all of its tables and rules. An address of this host is in none of them. */
async function readRoutesTo(peers: readonly string[]): Promise<Facts['toPeers']> {
  const toPeers: Facts['toPeers'] = new Map();
  for (const peer of peers) {
    const [route] = await ipJson<{ dev?: string; gateway?: string }>('route', 'get', peer).catch(() => []);
    if (route?.dev === undefined) toPeers.set(peer, null);
    else if (route.dev !== 'lo') toPeers.set(peer, { device: route.dev, gateway: route.gateway });
  }
  return toPeers;
}

/** UDP ports of the kernel's own tunnel devices. */
async function readTunnelPorts(): Promise<Map<string, number>> {
  const links = await ipJson<{ ifname: string; linkinfo?: { info_data?: { port?: number } } }>(
    '-details',
    'link',
    'show',
  );
  return new Map(
    links.flatMap(({ ifname, linkinfo }) => {
      const port = linkinfo?.info_data?.port;
      return port === undefined ? [] : [[ifname, port] as const];
    }),
  );
}

/** Local ports in /proc/net/udp: hexadecimal, the address in host byte order. IPv6 sockets take IPv4 as well. */
export function parseUdpPorts(text: string): { port: number; address: string }[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap(line => {
      const [, address, port] = /^\s*\d+: ([0-9A-F]+):([0-9A-F]{4})/.exec(line) ?? [];
      if (address === undefined) return [];
      const bytes = address.length === 8 ? Buffer.from(address, 'hex').reverse() : Buffer.alloc(4);
      return [{ port: Number.parseInt(port, 16), address: [...bytes].join('.') }];
    });
}

/** Null where neither nft nor iptables can be asked. Rules of our own nodes are not the host's. */
export async function readFirewall(): Promise<Ruleset | null> {
  const [nft, ...tables] = await Promise.all([readNft(), run('iptables-save'), run('iptables-legacy-save')]);
  const iptables = tables.filter(text => text !== null).join('\n');
  if (nft === null && iptables === '') return null;
  return combine(nft ?? { chains: new Map() }, iptables === '' ? null : parseIptables(iptables));
}

/**
 * Table by table: nft 1.0.6 writes the flags of a table with an owner, as our nodes' have, from memory that it has freed,
 * and the whole document ends there or is no JSON. Null where nft, or one of its tables, cannot be read.
 */
async function readNft(): Promise<Ruleset | null> {
  const tables = await run('nft', 'list', 'tables');
  if (tables === null) return null;
  const names = tables
    .split('\n')
    .map(line => line.split(' ').slice(1))
    .filter(([family, name]) => name !== undefined && !(family === 'netdev' && name.startsWith(STEERING_PREFIX)));
  const documents = await Promise.all(names.map(name => run('nft', '-j', 'list', 'table', ...name)));
  try {
    return parseNft({ nftables: documents.flatMap(text => (text === null ? [] : JSON.parse(text).nftables)) });
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** What a command printed; null if there is none such, or it failed. */
async function run(...[command, ...args]: [string, ...string[]]): Promise<string | null> {
  const { exitCode, stdout } = await execa(command, args, { reject: false, stdin: 'ignore' });
  return exitCode === 0 ? stdout : null;
}

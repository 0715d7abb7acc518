/**
 * Addresses and routes of a node as `ip addr`, `ip route` and `ifconfig` print them on a machine whose kernel does what the
 * node does: the uplink is eth1, the tunnel and the pods' ends have the devices that the cluster's system gives them. The
 * kernel itself has one device, the host port. Pure.
 */
import { createHash } from 'node:crypto';
import { contains, formatAddress, parseAddress } from '../control/address.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { parseCidr } from '../control/validated.ts';
import { configuredOverhead } from '../program/compile-tunnel.ts';

/** What the articles' machines call the interface of the nodes' network. */
const UPLINK = 'eth1';

/** What of a node its configuration does not say. */
export interface NodeNetwork {
  /** The CIDR of its pods. */
  podCidr: string;
}

type Tunnel = ResolvedConfig['spec']['tunnels'][number];

interface Device {
  name: string;
  flags: keyof typeof IFCONFIG_FLAGS;
  mtu: number;
  state: 'UP' | 'UNKNOWN';
  /** `ether 02:00:...`, `loopback ...`. */
  link?: string;
  /** ADDRESS/LENGTH, and what stands behind it. */
  address?: [cidr: string, rest: string];
}

const LOOPBACK = '<LOOPBACK,UP,LOWER_UP>';
const BROADCAST = '<BROADCAST,MULTICAST,UP,LOWER_UP>';
const NOARP = '<NOARP,UP,LOWER_UP>';
/** The same in the words of ifconfig. */
const IFCONFIG_FLAGS = {
  [LOOPBACK]: '73<UP,LOOPBACK,RUNNING>',
  [BROADCAST]: '4163<UP,BROADCAST,RUNNING,MULTICAST>',
  [NOARP]: '193<UP,RUNNING,NOARP>',
};

/** The device that a node's packets in this tunnel leave by, as its system calls it. */
export function tunnelDevice({ spec }: ResolvedConfig, { protocol }: Tunnel): string {
  if (spec.profile === 'cilium') return `cilium_${protocol}`;
  if (spec.profile === 'flannel') return protocol === 'ipip' ? 'flannel.ipip' : 'flannel.1';
  if (protocol === 'ipip') return 'tunl0';
  return spec.profile === 'calico' ? 'vxlan.calico' : `${protocol}0`;
}

/** The node's own device on the pod network, where the system has one beside the tunnel's. */
const HOST_DEVICES: Readonly<Record<string, string>> = { cilium: 'cilium_host', flannel: 'cni0' };

/** The node's end of a pod's link: of a hash of its name, as CNI plugins make them. */
function podDevice({ spec }: ResolvedConfig, name: string): string {
  const prefix = { cilium: 'lxc', calico: 'cali', flannel: 'veth', linux: 'eni', rfc: 'veth' }[spec.profile];
  return `${prefix}${createHash('sha1').update(name).digest('hex').slice(0, 11)}`;
}

function bare(cidr: string): string {
  return cidr.split('/')[0]!;
}

function networkOf(cidr: string): string {
  const { prefix, length } = parseCidr(cidr);
  return `${formatAddress(prefix)}/${length}`;
}

function broadcastOf(cidr: string): string {
  const { prefix, length } = parseCidr(cidr);
  return formatAddress(length === 0 ? -1 : prefix | (0xffffffff >>> length));
}

function innerMtu(config: ResolvedConfig, tunnel: Tunnel): number {
  return config.spec.uplink.mtu - configuredOverhead(tunnel);
}

/** flannel: the bridge has the first address of the pods' network, and the tunnel's device the network's own. */
function hostCidr(config: ResolvedConfig, { podCidr }: NodeNetwork, which: 'bridge' | 'tunnel'): string {
  const { host, profile } = config.spec;
  if (profile !== 'flannel') return `${bare(host!.address)}/32`;
  const { prefix, length } = parseCidr(podCidr);
  return which === 'tunnel' ? `${formatAddress(prefix)}/32` : `${formatAddress(prefix + 1)}/${length}`;
}

function devicesOf(config: ResolvedConfig, network: NodeNetwork): Device[] {
  const { uplink, host, pods, tunnels, profile } = config.spec;
  const devices: Device[] = [
    {
      name: 'lo',
      flags: LOOPBACK,
      mtu: 65536,
      state: 'UNKNOWN',
      link: 'loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00',
      address: ['127.0.0.1/8', 'scope host lo'],
    },
    {
      name: UPLINK,
      flags: BROADCAST,
      mtu: uplink.mtu,
      state: 'UP',
      link: `ether ${uplink.mac} brd ff:ff:ff:ff:ff:ff`,
      address: [uplink.address, `brd ${broadcastOf(uplink.address)} scope global ${UPLINK}`],
    },
  ];
  const name = HOST_DEVICES[profile];
  if (host !== undefined && name !== undefined) {
    const cidr = hostCidr(config, network, 'bridge');
    const broadcast = cidr.endsWith('/32') ? '' : `brd ${broadcastOf(cidr)} `;
    devices.push({
      name,
      flags: BROADCAST,
      mtu: uplink.mtu,
      state: 'UP',
      address: [cidr, `${broadcast}scope global ${name}`],
    });
  }
  for (const tunnel of tunnels) {
    const name = tunnelDevice(config, tunnel);
    // Cilium's carries no address, and leaves its MTU to the routes.
    const isBare = profile === 'cilium';
    devices.push({
      name,
      flags: tunnel.protocol === 'ipip' ? NOARP : BROADCAST,
      mtu: isBare ? uplink.mtu : innerMtu(config, tunnel),
      state: 'UNKNOWN',
      ...(tunnel.mac === undefined ? {} : { link: `ether ${tunnel.mac} brd ff:ff:ff:ff:ff:ff` }),
      ...(isBare || host === undefined
        ? {}
        : { address: [hostCidr(config, network, 'tunnel'), `scope global ${name}`] as [string, string] }),
    });
  }
  for (const pod of pods) {
    devices.push({ name: `${podDevice(config, pod.name)}@if2`, flags: BROADCAST, mtu: uplink.mtu, state: 'UP' });
  }
  return devices;
}

export interface AddressOptions {
  brief?: boolean;
  /** This one alone. */
  device?: string;
  /** Only what has an IPv4 address. */
  v4?: boolean;
}

/** `ip addr show`. @returns null where there is no such device */
export function addressText(
  config: ResolvedConfig,
  network: NodeNetwork,
  { brief, device, v4 }: AddressOptions = {},
): string | null {
  const all = devicesOf(config, network).map((one, i) => ({ ...one, index: i + 1 }));
  const chosen = all.filter(({ name }) => device === undefined || bareName(name) === device);
  if (device !== undefined && chosen.length === 0) return null;
  return chosen
    .filter(({ address }) => !v4 || address !== undefined)
    .map(({ index, name, flags, mtu, state, link, address }) => {
      if (brief) return `${name.padEnd(16)} ${state.padEnd(14)} ${address?.[0] ?? ''}`.trimEnd();
      const queue = name === UPLINK ? 'fq_codel' : 'noqueue';
      const lines = [`${index}: ${name}: ${flags} mtu ${mtu} qdisc ${queue} state ${state} group default qlen 1000`];
      if (link !== undefined && !v4) lines.push(`    link/${link}`);
      if (address !== undefined) {
        lines.push(`    inet ${address[0]} ${address[1]}`, '       valid_lft forever preferred_lft forever');
      }
      return lines.join('\n');
    })
    .map(text => `${text}\n`)
    .join('');
}

function bareName(name: string): string {
  return name.split('@')[0]!;
}

/** `ifconfig`, without what it counts. */
export function ifconfigText(config: ResolvedConfig, network: NodeNetwork): string {
  return devicesOf(config, network)
    .map(({ name, flags, mtu, address }) => {
      const head = `${bareName(name)}: flags=${IFCONFIG_FLAGS[flags]}  mtu ${mtu}`;
      if (address === undefined) return `${head}\n\n`;
      const { length } = parseCidr(address[0]);
      const mask = formatAddress(length === 0 ? 0 : -1 << (32 - length));
      // Of an address that was added without one the kernel says 0.0.0.0.
      const broadcast = /^brd (\S+)/.exec(address[1])?.[1] ?? '0.0.0.0';
      const last = flags === BROADCAST ? `  broadcast ${broadcast}` : '';
      return `${head}\n        inet ${bare(address[0])}  netmask ${mask}${last}\n\n`;
    })
    .join('');
}

interface Route {
  to: string;
  /** All behind the destination. */
  words: string;
  device: string;
  via?: string;
  source: string;
  mtu?: number;
}

function routesOf(config: ResolvedConfig, { podCidr }: NodeNetwork): Route[] {
  const { uplink, host, pods, routes, tunnels, profile } = config.spec;
  const node = bare(uplink.address);
  const own = host === undefined ? node : bare(host.address);
  const list: Route[] = [
    { to: networkOf(uplink.address), words: `proto kernel scope link src ${node}`, device: UPLINK, source: node },
  ];
  if (profile === 'cilium') {
    const words = `proto kernel src ${own}`;
    list.push({ to: podCidr, words, device: 'cilium_host', via: own, source: own });
    list.push({ to: `${own}/32`, words: 'proto kernel scope link', device: 'cilium_host', source: own });
  } else if (profile === 'flannel') {
    list.push({ to: podCidr, words: `proto kernel scope link src ${own}`, device: 'cni0', source: own });
  } else {
    for (const pod of pods) {
      const device = podDevice(config, pod.name);
      list.push({ to: `${bare(pod.address)}/32`, words: 'scope link', device, source: node });
    }
  }
  for (const { to, via, encap } of routes) {
    const tunnel = tunnels.find(({ name }) => name === encap);
    if (tunnel === undefined) {
      const isRouter = via === uplink.gateway;
      const protocol = isRouter
        ? ' proto static'
        : { cilium: ' proto kernel', calico: ' proto bird' }[profile as string];
      list.push({ to, words: (protocol ?? '').trim(), device: UPLINK, via, source: node });
    } else if (profile === 'cilium') {
      const mtu = innerMtu(config, tunnel);
      const words = `proto kernel src ${own} mtu ${mtu}`;
      list.push({ to, words, device: 'cilium_host', via: own, source: own, mtu });
    } else {
      const device = tunnelDevice(config, tunnel);
      // flannel goes to the peer's VTEP by the first address of its pods.
      const next = tunnel.protocol === 'ipip' ? via : bare(to);
      list.push({ to, words: profile === 'calico' ? 'proto bird onlink' : 'onlink', device, via: next, source: own });
    }
  }
  if (uplink.gateway !== undefined && !list.some(({ to }) => to === '0.0.0.0/0')) {
    list.push({ to: '0.0.0.0/0', words: 'proto static', device: UPLINK, via: uplink.gateway, source: node });
  }
  const key = (to: string): number => (parseCidr(to).prefix >>> 0) * 64 + parseCidr(to).length;
  return list.sort((a, b) => key(a.to) - key(b.to));
}

/** `ip route show`. */
export function routeText(config: ResolvedConfig, network: NodeNetwork): string {
  return routesOf(config, network)
    .map(({ to, words, device, via }) => {
      const name = to === '0.0.0.0/0' ? 'default' : to.replace(/\/32$/, '');
      return `${name}${via === undefined ? '' : ` via ${via}`} dev ${device} ${words}`.trimEnd();
    })
    .map(line => `${line} \n`)
    .join('');
}

/** `ip route get ADDRESS`. @returns null where no route leads there */
export function routeGetText(config: ResolvedConfig, network: NodeNetwork, address: string): string | null {
  const wanted = parseAddress(address);
  if (wanted === undefined) return null;
  if ([config.spec.uplink.address, config.spec.host?.address].some(one => one !== undefined && bare(one) === address)) {
    return `local ${address} dev lo src ${address} uid 0 \n    cache <local> \n`;
  }
  const best = routesOf(config, network)
    .filter(({ to }) => contains(parseCidr(to), wanted))
    .sort((a, b) => parseCidr(b.to).length - parseCidr(a.to).length)[0];
  if (best === undefined) return null;
  // A gateway that is the node itself stands for the link.
  const via = best.via === undefined || best.via === best.source ? '' : ` via ${best.via}`;
  const mtu = best.mtu === undefined ? '' : `mtu ${best.mtu} `;
  return `${address}${via} dev ${best.device} src ${best.source} uid 0 \n    cache ${mtu}\n`;
}

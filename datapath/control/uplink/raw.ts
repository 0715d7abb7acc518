/**
 * `uplink.kind: raw`: sockets on an interface of the host, which keeps its address, routes and ARP. Nothing is made in the
 * kernel, so nothing is left behind. What this cannot do is refused here, with its place in the configuration.
 */
import { existsSync } from 'node:fs';
import { dirname, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import type { RawHandle } from '../../io/raw.ts';
import { loadRawSocket, openRaw, socketMemory } from '../../io/raw-socket.ts';
import { innerMtu } from '../../program/mtus.ts';
import type { Refusal } from '../apply.ts';
import { formatPath, type Path } from '../check-draft.ts';
import { type NodeSpec, tunnelPath, type UplinkConfig } from '../config.ts';
import { findInterface, readInterfaces } from '../interfaces.ts';
import type { ResolvedConfig } from '../resolved.ts';
import { parseAddress, parseMac } from '../validated.ts';
import { lookAtInterface } from './look.ts';
import type { StatusLine, UplinkKind } from './uplink.ts';

/** The made-up link's other end, by the address and MAC that Calico gives every pod for its gateway: the kernel. */
const KERNEL_ADDRESS = '169.254.1.1';
const KERNEL_MAC = 'ee:ee:ee:ee:ee:ee';

/** A kernel with an IPIP device of its own answers every tunnel packet that is not that device's with an ICMP error. */
const KERNEL_IPIP = '/sys/module/tunnel4';

const PACKAGE = 'raw-socket@1.8.1';

/** What to take where sockets will not do. */
const OTHERS = 'tap, macvtap or routed';

type Written = Extract<UplinkConfig, { kind: 'raw' }>;

export const raw: UplinkKind<Written> = {
  async resolve(written, { spec }) {
    const path = 'spec.uplink.interface';
    const found = findInterface(await readInterfaces(), written.interface, path);
    if (typeof found === 'string') return [found];
    if (found.addresses.length === 0) return [`${path}: ${found.name} has no IPv4 address (ip addr add)`];
    const [address] = found.addresses[0].split('/');
    const unable = findUnable(spec, found.name, address);
    if (unable.length > 0) return unable.map(({ path, message }) => `${formatPath(path)}: ${message}`);
    return {
      kind: 'raw',
      device: found.name,
      // The kernel knows the subnet and who is on it; the datapath hands it every packet.
      address: `${address}/32`,
      gateway: KERNEL_ADDRESS,
      mac: found.mac === '00:00:00:00:00:00' ? '02:00:00:00:00:01' : found.mac,
      mtu: found.mtu,
      onHostPort: false,
      ofKernel: true,
      kernelMac: KERNEL_MAC,
      interfaceIndex: found.index,
      written,
    };
  },

  async look(netlink, config, handle) {
    const { uplink } = config.spec;
    const sight = await lookAtInterface(netlink, config, () => raw.resolve(uplink.written as Written, config));
    // The sockets are bound to address and interface.
    const moved = sight.uplink !== undefined && !isDeepStrictEqual(sight.uplink, uplink);
    return { ...sight, stale: sight.stale || moved || handle === null };
  },

  findObstacles: async () => packageObstacle(loadRawSocket),

  async open(config) {
    const { uplink, tunnels } = config.spec;
    const [tunnel] = tunnels;
    const [own] = uplink.address.split('/');
    const handle = openRaw(loadRawSocket(), {
      interface: uplink.device,
      address: parseAddress(own),
      mac: parseMac(uplink.mac),
      kernelMac: parseMac(KERNEL_MAC),
      mtu: uplink.mtu,
      protocol: tunnel.protocol,
      udpPort: tunnel.port ?? 0,
      innerMtu: innerMtu(config, tunnel.name),
    });
    return {
      handle,
      status: () => describe(handle, config),
      findRefusals: to => [...findUnable(to.spec, handle.name, own), ...findChanges(config, to)],
      close: async () => {},
    };
  },
};

/** What a configuration asks for that cannot be had by sockets on the host's own address, `own`. */
export function findUnable(spec: Omit<NodeSpec, 'uplink'>, device: string, own: string): Refusal[] {
  const { tunnels, routes, services, masquerade } = spec;
  const host = hostAddressOf(spec);
  const withRaw = 'with uplink.kind raw';
  const found: Refusal[] = [];
  const refuse = (path: Path, message: string) => found.push({ path: ['spec', ...path], message });

  if (host === own) refuse(['host', 'address'], `expected an address of its own: ${own} stays with ${device}`);
  if (tunnels.length > 1)
    refuse(['tunnels'], `expected one tunnel: ${withRaw} sockets are open for one; or take ${OTHERS}`);
  if (tunnels.length === 0) {
    refuse(
      ['tunnel', 'protocol'],
      `expected ipip, vxlan or geneve: ${withRaw} only tunnel packets leave; without a tunnel take ${OTHERS}`,
    );
  }
  for (const [i, route] of routes.entries()) {
    if (route.encap || route.via === host) continue;
    const instead = host === undefined ? '' : `; via: ${host} (spec.host.address) lets the host's kernel forward it`;
    refuse(['routes', i], `expected encap: true: ${withRaw} the answers to a pod's own packets go elsewhere${instead}`);
  }
  for (const [i, service] of services.entries()) {
    for (const [j, { nodePort }] of service.ports.entries()) {
      if (nodePort === undefined) continue;
      refuse(
        ['services', i, 'ports', j, 'nodePort'],
        `expected none: ${withRaw} the host's kernel gets what is sent to ${own}; for node ports take ${OTHERS}`,
      );
    }
  }
  for (const [i, { source }] of masquerade.entries()) {
    if (source !== own) continue;
    refuse(
      ['masquerade', i, 'source'],
      `expected another address than ${own}: ${withRaw} the host's kernel gets the answers to it`,
    );
  }
  return found;
}

/** The sockets are open: another protocol or port would want others. */
function findChanges(from: ResolvedConfig, to: ResolvedConfig): Refusal[] {
  return (['protocol', 'port'] as const)
    .filter(field => from.spec.tunnels[0][field] !== to.spec.tunnels[0]?.[field])
    .map(field => ({
      path: [...(to.spec.tunnels.length === 0 ? ['spec', 'tunnel'] : tunnelPath(to.spec, to.spec.tunnels[0])), field],
      message: 'cannot change while the node runs, its sockets being open: restart it',
    }));
}

function hostAddressOf({ host }: Pick<NodeSpec, 'host'>): string | undefined {
  return host?.address.split('/')[0];
}

/** How to get the package, if `load` does not. */
export function packageObstacle(load: () => unknown): string[] {
  try {
    load();
    return [];
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const what = code === 'MODULE_NOT_FOUND' ? 'is not installed or was not built' : `cannot be loaded (${message})`;
    return [
      `spec.uplink.kind: raw needs the optional package raw-socket, which ${what}. It takes a compiler: ` +
        `apt-get install build-essential python3; then ${installCommand()}`,
    ];
  }
}

/** In a checkout beside its other packages; of an installed tunpath, beside tunpath. */
function installCommand(): string {
  const root = findRoot(fileURLToPath(import.meta.url));
  const [prefix, inside] = root.split(`${sep}lib${sep}node_modules${sep}`);
  if (inside === undefined) return `cd ${root} && npm install --no-save ${PACKAGE}`;
  return `npm install --global --prefix ${prefix} --allow-scripts=raw-socket ${PACKAGE}`;
}

function findRoot(file: string): string {
  let directory = dirname(file);
  while (!existsSync(`${directory}${sep}package.json`) && directory !== dirname(directory))
    directory = dirname(directory);
  return directory;
}

function describe(handle: RawHandle, { spec }: ResolvedConfig): StatusLine[] {
  const { udpPort, name, receiveFd } = handle;
  const [own] = spec.uplink.address.split('/');
  const { receiveBuffer, dropped } = socketMemory(receiveFd);
  const what = udpPort === 0 ? 'protocol 4 (IPIP)' : `UDP port ${udpPort}`;
  const host = hostAddressOf(spec);
  const lines = [
    { what: 'sends', how: `a raw socket on ${name}, IP header included, from ${own}` },
    {
      what: 'receives',
      how: `a ${udpPort === 0 ? 'raw' : 'UDP'} socket on ${own} for ${what}; ${receiveBuffer} bytes wait at most, ${dropped} packets found no room`,
    },
    { what: 'path MTU', how: 'a raw socket for ICMP errors about tunnel packets' },
    {
      what: 'kernel',
      how: `keeps address, routes and ARP, and sends by them; to the datapath it is the one neighbour, ${KERNEL_ADDRESS}`,
    },
    { what: 'firewall', how: `the host's own sees the tunnel's packets: it must let in ${what} from the peers` },
    { what: 'fragments', how: 'of tunnel packets are put together by the kernel; none are seen here' },
    {
      what: 'services',
      how: "from pods and this host; from outside none: the kernel gets what is sent to the host's address",
    },
    {
      what: 'outside',
      how:
        host === undefined
          ? "pods reach what is behind the tunnel; for more, give the node a host port and lead a route to the host's kernel"
          : `pods reach what is behind the tunnel; more by a route via ${host} (spec.host.address), where the host's kernel must forward and masquerade`,
    },
  ];
  if (udpPort === 0 && existsSync(KERNEL_IPIP)) {
    lines.push({
      what: 'answers',
      how: 'the kernel has IPIP, too (module tunnel4), and may answer tunnel packets with ICMP errors; tunpath peers ignore them',
    });
  }
  return lines;
}

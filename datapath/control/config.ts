/**
 * The configuration of a node (`kind: NodeConfig`): its schema, and the types that follow from it.
 *
 * Four layers, each in its own place: what one value must look like is in schema.ts, which values there are is here and in
 * service-config.ts, how they must fit together is in check-config.ts, where a value stands in its file in load-config.ts.
 */
import { z } from 'zod';
import { OFFLOADS, type Offload } from '../io/device.ts';
import { POD_APPS } from '../io/memory-pod.ts';
import { PROFILES } from '../profile.ts';
import { TOO_BIG_NAMES } from '../route/nexthop.ts';
import * as geneve from '../wire/geneve.ts';
import { OPT_MAX_DATA_LEN } from '../wire/geneve.ts';
import { formatMac, parseAddress, parseCidr } from './address.ts';
import { suggest } from './nearest.ts';
import { namespace, podPort, policy, remotePod } from './policy-config.ts';
import {
  address,
  choice,
  device,
  filled,
  flag,
  hostAddress,
  interfaceAddress,
  labelFault,
  list,
  mac,
  mtu,
  netns,
  network,
  networks,
  objectName,
  podAddress,
  port,
  ports,
  record,
  text,
  whole,
} from './schema.ts';
import { completeService, service } from './service-config.ts';

export const API_VERSION = 'tunpath.dev/v1';
export const KIND = 'NodeConfig';

const MAX_VNI = 0xffffff;
const MAX_MARK = 0xffffffff;

// ---- the parts of a node --------------------------------------------------------------------------------------------

const uplink = z.discriminatedUnion(
  'kind',
  [
    record({
      kind: z.literal('tap'),
      device,
      mac,
      address: interfaceAddress,
      gateway: address.optional(),
      mtu: mtu.default(1500),
    }),
    // Address, MAC and MTU are those of the interface: known only when the node starts.
    record({ kind: z.literal('raw'), interface: device }),
    record({
      kind: z.literal('macvtap'),
      interface: device,
      device: device.optional(), // default: the node chooses a free name
      mac: mac.optional(), // default: one that follows from the interface's, the address and the node's name
      address: interfaceAddress,
      gateway: address.optional(),
      mtu: mtu.optional(), // default: the interface's
    }),
    record({ kind: z.literal('routed'), interface: device, device }),
    // An Ethernet in the process (segment-config.ts).
    record({
      kind: z.literal('segment'),
      segment: text(labelFault),
      mac,
      address: interfaceAddress,
      gateway: address.optional(),
      mtu: mtu.default(1500),
    }),
  ],
  { error: expectedKind('kind', ['tap', 'raw', 'macvtap', 'routed', 'segment']) },
);

/** Message of a discriminated union: either its discriminator is wrong, or it is no map at all. */
function expectedKind(field: string, values: readonly string[]) {
  return (issue: { code?: string; input?: unknown }): string => {
    if (issue.code !== 'invalid_union') return 'a map';
    const input = (issue.input as Record<string, unknown> | undefined)?.[field];
    return `one of ${values.join(', ')}${suggest(input, values)}`;
  };
}

const host = record({
  device,
  address: hostAddress,
  netns: netns.optional(), // the node's own namespace; default: the one that the process runs in
});

/**
 * tun: a TUN that the node makes; tap: the same with Ethernet and ARP; veth: one that is there, a container's; memory: no
 * process, the node itself answers.
 */
const podKind = choice('tun', 'tap', 'veth', 'memory');

const pod = record({
  name: objectName,
  netns: netns.optional(), // none of kind memory: check-config.ts
  kind: podKind.default('tun'),
  app: choice(...POD_APPS).optional(), // of kind memory: what it does with UDP and TCP
  device: device.optional(), // as netns
  mac: mac.optional(), // of the port, which answers the pod's ARP; default: Calico's
  address: podAddress,
  networks: list(network).default([]), // a router's: it may send from them, and gets what is for them
  labels: z.record(z.string(), z.string('a text (in quotes)'), 'a map of texts').default({}),
  ports: list(podPort).default([]), // what named ports mean
  identity: whole(1, MAX_VNI).optional(), // security identity, which fits into a VNI
  mark: whole(0, MAX_MARK).default(0), // of all that it sends, as a rule of the host's mangle table would set it
  mtu: mtu.optional(),
});

const acceptFrom = choice('peers', 'any').default('peers');

function numberOr<const W extends string>(min: number, max: number, ...words: W[]) {
  return z.custom<number | W>(
    value =>
      words.includes(value as W) || (Number.isInteger(value) && (value as number) >= min && (value as number) <= max),
    { abort: false, error: `${words.join(', ')}, or a whole number from ${min} to ${max}` },
  );
}

/** The outer header, where it is not to be as the profile has it. */
const outer = {
  ttl: numberOr(1, 255, 'inherit').optional(),
  dscp: numberOr(0, 63, 'inherit', 'uniform').optional(),
  df: choice('set', 'clear', 'inherit').optional(),
  ecn: choice('linux', 'rfc6040').optional(),
};

/** The four ways of RFC 4459. */
const tooBig = choice(...TOO_BIG_NAMES);

const vni = numberOr(0, MAX_VNI, 'identity');

/** Hex digits as text: without quotes YAML would take most of them for a number, and lose leading zeros. */
const optionData = text(value => {
  const isHex = /^([0-9a-f]{8})+$/i.test(value) && value.length <= 2 * OPT_MAX_DATA_LEN;
  return isHex
    ? undefined
    : `up to ${OPT_MAX_DATA_LEN} bytes in words of 4, as hex digits in quotes: "0a60000a00000050"`;
}).transform(value => value.toLowerCase());

const geneveOption = record({ class: whole(0, 0xffff), type: whole(0, 0xff), data: optionData.default('') });

const ipipTunnel = {
  protocol: z.literal('ipip'),
  peers: list(record({ address }, { mac: 'no mac: IPIP carries no Ethernet header' })).default([]),
  acceptFrom,
  ...outer,
};

const NOT_OF_IPIP = {
  udpChecksum: 'no udpChecksum: IPIP has no UDP header',
  port: 'no port: IPIP has no UDP header',
  vni: 'no vni: IPIP has no network identifier',
  mac: 'no mac: IPIP carries no Ethernet header',
};

const udpTunnel = {
  protocol: z.enum(['vxlan', 'geneve']),
  port: port.optional(),
  vni: vni.optional(),
  mac: mac.optional(),
  peers: list(record({ address, mac: mac.optional() })).default([]),
  acceptFrom,
  options: list(geneveOption).default([]), // GENEVE only: check-tunnels.ts
  ...outer,
  udpChecksum: flag.optional(),
};

/** The short form, of a node with one tunnel at most. */
const tunnel = z.discriminatedUnion(
  'protocol',
  [
    record(
      { protocol: z.literal('none'), peers: list(record({ address, mac: mac.optional() })).default([]), acceptFrom },
      { port: 'no port: protocol is none', vni: 'no vni: protocol is none', mac: 'no mac: protocol is none' },
    ),
    record(ipipTunnel, NOT_OF_IPIP),
    record(udpTunnel),
  ],
  { error: expectedKind('protocol', ['none', 'ipip', 'vxlan', 'geneve']) },
);

const tunnelName = text(value => (value === 'true' || value === 'false' ? 'another name' : labelFault(value)));

const namedTunnel = z.discriminatedUnion(
  'protocol',
  [record({ name: tunnelName, ...ipipTunnel }, NOT_OF_IPIP), record({ name: tunnelName, ...udpTunnel })],
  { error: expectedKind('protocol', ['ipip', 'vxlan', 'geneve']) },
);

/** Into which tunnel: true where there is one, or its name. */
const encap = z.custom<boolean | string>(value => typeof value === 'boolean' || typeof value === 'string', {
  abort: false,
  error: 'true, false, or the name of a tunnel',
});

const route = record({
  to: network,
  via: address,
  encap: encap.default(false),
  mtu: mtu.optional(),
  tooBig: tooBig.optional(), // default: the node's
});

const OFFLOAD_NAMES = OFFLOADS.map(({ name }) => name);

function isOffload(value: unknown): value is 'auto' | 'none' | Offload[] {
  if (value === 'auto' || value === 'none') return true;
  return Array.isArray(value) && value.every(item => OFFLOAD_NAMES.includes(item));
}

export const offload = z.custom<'auto' | 'none' | Offload[]>(isOffload, {
  abort: false,
  error: `auto, none, or a list of ${OFFLOAD_NAMES.join(', ')}`,
});

/** "VALUE" or "VALUE/MASK", decimal or hexadecimal, 32 bits. A mask that cannot yield the value never matches. */
function parseMark(input: unknown): { value: number; mask: number } | undefined {
  const match = /^(0x[0-9a-f]{1,8}|\d{1,10})(?:\/(0x[0-9a-f]{1,8}|\d{1,10}))?$/i.exec(String(input));
  if (match === null || (typeof input !== 'string' && typeof input !== 'number')) return undefined;
  const value = Number(match[1]);
  const mask = match[2] === undefined ? MAX_MARK : Number(match[2]);
  if (value > MAX_MARK || mask > MAX_MARK || (value & ~mask) !== 0) return undefined;
  return { value, mask };
}

const mark = z
  .custom<string | number>(input => parseMark(input) !== undefined, {
    abort: false,
    error: 'VALUE or VALUE/MASK of 32 bits, such as 0x4000/0x4000, with no bit of the value outside the mask',
  })
  .transform(input => parseMark(input)!);

const masqueradeRule = record({
  from: networks.optional(),
  notFrom: networks.optional(),
  to: networks.optional(),
  notTo: networks.optional(),
  mark: mark.optional(),
  action: choice('MASQUERADE', 'RETURN').default('MASQUERADE'),
  randomFully: flag.default(false),
  source: address.optional(), // default: the address of the outgoing port
  ports: ports.optional(),
});

const seconds = whole(1, 0x7fffffff).optional();

const conntrack = record({
  size: whole(16, 4 << 20).default(131072),
  perSource: whole(0, 4 << 20).default(0), // flows that one pod may have begun; 0: no limit
  timeouts: record({
    synSent: seconds,
    synRecv: seconds,
    established: seconds,
    finWait: seconds,
    closeWait: seconds,
    lastAck: seconds,
    timeWait: seconds,
    close: seconds,
    maxRetrans: seconds,
    unacknowledged: seconds,
    udp: seconds,
    udpStream: seconds,
    icmp: seconds,
    generic: seconds,
  }).default({}), // seconds; what is absent follows the profile
});

/** How the loop's thread spends its time. */
const loop = record({
  ioUring: choice('auto', 'off').default('auto'),
  busyPoll: numberOr(0, 1000, 'auto').default(0), // microseconds, as net.core.busy_poll
});

const spec = record({
  uplink,
  host: host.optional(),
  pods: list(pod).default([]),
  tunnel: tunnel.default(() => ({ protocol: 'none' as const, peers: [], acceptFrom: 'peers' as const })),
  tunnels: list(namedTunnel).default([]),
  routes: list(route).default([]),
  mtu: record({ tooBig: tooBig.default('signal'), clampMss: flag.default(false) }).default(() => ({
    tooBig: 'signal' as const,
    clampMss: false,
  })),
  profile: choice('linux', 'cilium', 'calico', 'flannel', 'rfc').default('linux'),
  offload: offload.default('auto'),
  masquerade: list(masqueradeRule).default([]),
  services: list(service).default([]),
  policies: list(policy).default([]), // networking.k8s.io/v1
  namespaces: list(namespace).default([]), // their labels, for policies
  remotePods: list(remotePod).default([]), // of other nodes, for policies
  serviceCIDR: networks.optional(), // --service-cluster-ip-range of kube-apiserver
  nodePortRange: ports.default(() => ({ low: 30000, high: 32767 })), // --service-node-port-range of kube-apiserver
  nodePortAddresses: networks.optional(), // --nodeport-addresses of kube-proxy; default: the uplink's address
  zone: filled('the name of a zone').optional(), // topology.kubernetes.io/zone of this node
  conntrack: conntrack.default(() => ({ size: 131072, perSource: 0, timeouts: {} })),
  flowHistory: whole(0, 65536).default(0), // flows remembered for observe --last
  loop: loop.default(() => ({ ioUring: 'auto' as const, busyPoll: 0 })),
});

/** The schema of a whole document. */
export const writtenConfig = record({
  apiVersion: choice(API_VERSION),
  kind: choice(KIND),
  metadata: record({ name: text(labelFault) }), // also the name of the control socket
  spec,
});

/** A configuration as written, before the defaults that depend on other values. */
export type WrittenConfig = z.output<typeof writtenConfig>;
export type Profile = WrittenConfig['spec']['profile'];

// ---- defaults that depend on other values ---------------------------------------------------------------------------

/** UDP port of a tunnel. */
export function defaultTunnelPort(protocol: 'vxlan' | 'geneve', profile: Profile): number {
  return protocol === 'geneve' ? geneve.PORT : PROFILES[profile].vxlanPort;
}

/** VNI of a tunnel, or that it is the sender's identity. */
export function defaultVni(profile: Profile): number | 'identity' {
  return PROFILES[profile].vni;
}

/**
 * VTEP MAC of a node that names none: 02:42, then the four bytes of its underlay address. So both ends of a tunnel come
 * to the same MAC without telling each other.
 */
export function defaultVtepMac(underlayAddress: number): string {
  return formatMac(0x0242, underlayAddress);
}

export type GeneveOptionConfig = z.output<typeof geneveOption>;

/** A tunnel with everything it needs: one without Ethernet, or one with. */
export type TunnelConfig = IpipConfig | UdpTunnelConfig;

/** What only a tunnel with Ethernet inside has. */
interface WithoutEthernet {
  udpChecksum?: undefined;
  port?: undefined;
  vni?: undefined;
  mac?: undefined;
  options?: undefined;
}

/** What a configuration may say of the outer header; what is absent follows the profile. */
interface OuterConfig {
  ttl?: number | 'inherit';
  dscp?: number | 'inherit' | 'uniform';
  df?: 'set' | 'clear' | 'inherit';
  ecn?: 'linux' | 'rfc6040';
}

/** What every tunnel has. */
interface AnyTunnelConfig extends OuterConfig {
  name: string;
  /** It is written in the short form, `spec.tunnel`. */
  isShort: boolean;
}

interface IpipConfig extends WithoutEthernet, AnyTunnelConfig {
  protocol: 'ipip';
  peers: { address: string }[];
  acceptFrom: 'peers' | 'any';
}

interface UdpTunnelConfig extends AnyTunnelConfig {
  udpChecksum?: boolean;
  protocol: 'vxlan' | 'geneve';
  port: number;
  vni: number | 'identity';
  /** Absent where the underlay address is the interface's: then it follows from that when the node starts. */
  mac?: string;
  peers: { address: string; mac: string }[];
  acceptFrom: 'peers' | 'any';
  /** GENEVE only: sent with every packet. */
  options?: GeneveOptionConfig[];
}

/** All tunnels of a node; that of the short form has its protocol for a name. */
function completeTunnels({ tunnel, tunnels, profile, uplink }: WrittenConfig['spec']): TunnelConfig[] {
  const short = tunnel.protocol === 'none' ? [] : [{ name: tunnel.protocol, isShort: true, ...tunnel }];
  const others = tunnels.map(one => ({ isShort: false, ...one }));
  return [...short, ...others].map(written => completeTunnel(written, profile, underlayAddress(uplink)));
}

function completeTunnel(
  tunnel: WrittenConfig['spec']['tunnels'][number] & { isShort: boolean },
  profile: Profile,
  own: number | undefined,
): TunnelConfig {
  if (tunnel.protocol === 'ipip') return tunnel;
  const mac = tunnel.mac ?? (own === undefined ? undefined : defaultVtepMac(own));
  const { options, ...rest } = tunnel;
  return {
    ...rest,
    port: tunnel.port ?? defaultTunnelPort(tunnel.protocol, profile),
    vni: tunnel.vni ?? defaultVni(profile),
    ...(mac === undefined ? {} : { mac }),
    peers: tunnel.peers.map(peer => ({
      address: peer.address,
      mac: peer.mac ?? defaultVtepMac(parseAddress(peer.address)!),
    })),
    ...(options.length === 0 ? {} : { options }),
  };
}

/** A pod without a process has neither namespace nor device. */
function completePod({ netns = '', device = 'memory', app, ...pod }: WrittenConfig['spec']['pods'][number]) {
  return { ...pod, netns, device, ...(pod.kind === 'memory' ? { app: app ?? 'echo' } : {}) };
}

/** Fills in the defaults that depend on other values. */
export function completeConfig(written: WrittenConfig) {
  const { tunnel: _short, ...spec } = written.spec;
  const tunnels = completeTunnels(written.spec);
  return {
    ...written,
    spec: {
      ...spec,
      tunnels,
      routes: spec.routes.map(route => ({
        ...route,
        /** Name of the tunnel; null: none. */
        encap: typeof route.encap === 'string' ? route.encap : route.encap ? tunnels[0].name : null,
      })),
      pods: spec.pods.map(completePod),
      services: spec.services.map(service => completeService(service, spec.pods)),
    },
  };
}

/** As the checks across values want it (check-config.ts), which know what is written. */
export function writtenForm(spec: NodeSpec) {
  const short = spec.tunnels.find(({ isShort }) => isShort);
  return {
    ...spec,
    pods: spec.pods.map(({ netns, device, app, ...pod }) =>
      pod.kind === 'memory' ? { ...pod, app } : { ...pod, netns, device },
    ),
    tunnel: short ?? { protocol: 'none' as const },
    tunnels: spec.tunnels.filter(({ isShort }) => !isShort),
    routes: spec.routes.map(({ encap, ...route }) => ({ ...route, encap: encap ?? false })),
  };
}

/** Where a tunnel is written: a path from the root. */
export function tunnelPath(spec: Pick<NodeSpec, 'tunnels'>, tunnel: TunnelConfig): (string | number)[] {
  const named = spec.tunnels.filter(({ isShort }) => !isShort);
  return tunnel.isShort ? ['spec', 'tunnel'] : ['spec', 'tunnels', named.indexOf(tunnel)];
}

/** A checked configuration: every default filled in; addresses stay text, in their one normal spelling. */
export type NodeConfig = ReturnType<typeof completeConfig>;
export type NodeSpec = NodeConfig['spec'];
export type UplinkConfig = NodeSpec['uplink'];
export type HostConfig = NonNullable<NodeSpec['host']>;
export type PodConfig = NodeSpec['pods'][number];
export type RouteConfig = NodeSpec['routes'][number];
export type MasqueradeRuleConfig = NodeSpec['masquerade'][number];
export type ServiceConfig = NodeSpec['services'][number];
export type EndpointConfig = ServiceConfig['endpoints'][number];

/** The underlay address as int32, or undefined where the interface brings its own. */
export function underlayAddress(uplink: UplinkConfig): number | undefined {
  return 'address' in uplink ? parseCidr(uplink.address)?.address : undefined;
}

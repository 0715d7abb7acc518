/**
 * The configuration of a node (`kind: NodeConfig`): its schema, and the types that follow from it.
 *
 * Three layers, each in its own place: what one value must look like is here, how values must fit together is in
 * check-config.ts, where a value stands in its file is in load-config.ts.
 *
 * Every schema carries as its error message what was expected there ("a whole number from 1 to 65535"), never what was
 * found: load-config.ts knows that, and joins the two.
 */
import { z } from 'zod';
import { OFFLOADS, type Offload } from '../io/device.ts';
import { PROFILES } from '../profile.ts';
import { TOO_BIG_NAMES } from '../route/nexthop.ts';
import { isGroup } from '../wire/ethernet.ts';
import * as geneve from '../wire/geneve.ts';
import { OPT_MAX_DATA_LEN } from '../wire/geneve.ts';
import { formatCidr, formatMac, parseAddress, parseCidr, parseMac, prefixMask } from './address.ts';

export const API_VERSION = 'tunpath.dev/v1';
export const KIND = 'NodeConfig';

const MIN_MTU = 68; // RFC 791: every module must be able to forward 68 octets
const MAX_MTU = 65535;
const MAX_VNI = 0xffffff;
const MAX_MARK = 0xffffffff;

// ---- texts ----------------------------------------------------------------------------------------------------------

/**
 * A text with a rule. `fault` says what was expected instead of the value, or undefined if the value is right; it must
 * find fault with ''.
 */
export function text(fault: (value: string) => string | undefined) {
  return z.custom<string>(value => typeof value === 'string' && fault(value) === undefined, {
    abort: false, // so that the checks across values still run
    error: issue => fault(typeof issue.input === 'string' ? issue.input : ''),
  });
}

/** Why an address cannot belong to one host, or undefined if it can. 240.0.0.0/4 may: Linux takes it as unicast. */
function hostAddressFault(address: number): string | undefined {
  const first = address >>> 24;
  if (first === 0) return 'a host address, not one of 0.0.0.0/8';
  if (first === 127) return 'a host address, not a loopback address';
  if (first >= 224 && first < 240) return 'a host address, not a multicast address';
  if (address === -1) return 'a host address, not the broadcast address';
  return undefined;
}

function addressFault(value: string): string | undefined {
  const address = parseAddress(value);
  return address === undefined ? 'an IPv4 address such as 10.244.1.10' : hostAddressFault(address);
}

function networkFault(value: string): string | undefined {
  const alone = parseAddress(value);
  if (alone !== undefined) return `a network with its prefix length (did you mean "${formatCidr(alone, 32)}"?)`;
  const cidr = parseCidr(value);
  if (cidr === undefined) return 'a network such as 10.244.0.0/16';
  if (cidr.address === cidr.prefix) return undefined;
  return `a network without host bits (did you mean "${formatCidr(cidr.prefix, cidr.length)}"?)`;
}

/** The rule for an interface's address: ADDRESS/LENGTH, the address not the network's own nor its broadcast. */
function interfaceFault(value: string): string | undefined {
  const cidr = parseCidr(value);
  if (cidr === undefined) return 'an address with its prefix length, such as 192.168.10.1/24';
  const { address, prefix, length } = cidr;
  const fault = hostAddressFault(address);
  if (fault !== undefined) return fault;
  if (length === 0) return 'a prefix length from 1 to 32';
  if (length > 30) return undefined; // RFC 3021: a /31 has no network and no broadcast address
  if (address === prefix) return `a host address, not the address of the network ${formatCidr(prefix, length)}`;
  if (address === (prefix | ~prefixMask(length))) {
    return `a host address, not the broadcast address of ${formatCidr(prefix, length)}`;
  }
  return undefined;
}

function macFault(value: string): string | undefined {
  const mac = parseMac(value);
  if (mac === undefined) return 'a MAC address such as 02:00:00:00:00:01';
  if (isGroup(mac.hi)) return 'the MAC address of one station, not a group address';
  if (mac.hi === 0 && mac.lo === 0) return 'a MAC address other than zero';
  return undefined;
}

/** Linux: dev_valid_name (net/core/dev.c). "%" would make it a pattern, "all" and "default" are names in sysctl. */
function deviceFault(value: string): string | undefined {
  const wellFormed = value !== '' && Buffer.byteLength(value) <= 15 && !/[/:%\s]/.test(value);
  if (wellFormed && !['.', '..', 'lo', 'all', 'default'].includes(value)) return undefined;
  return 'a device name: 1 to 15 bytes without blank, slash, colon or percent, and not lo, all or default';
}

function netnsFault(value: string): string | undefined {
  const wellFormed = value.length > 0 && Buffer.byteLength(value) <= 255 && !/[/\s\0]/.test(value);
  if (wellFormed && value !== '.' && value !== '..') return undefined;
  return 'the name of a network namespace, as "ip netns" lists it';
}

const LABEL = '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?';
const LABEL_PATTERN = new RegExp(`^${LABEL}$`);
const OBJECT_PATTERN = new RegExp(`^(${LABEL}/)?${LABEL}(\\.${LABEL})*$`);

export function labelFault(value: string): string | undefined {
  if (LABEL_PATTERN.test(value)) return undefined;
  return 'a DNS label: 1 to 63 lower case letters, digits and inner hyphens';
}

function objectNameFault(value: string): string | undefined {
  if (value.length <= 253 && OBJECT_PATTERN.test(value)) return undefined;
  return 'a name such as default/web: lower case letters, digits, hyphens and dots';
}

const filled = (expected: string) => text(value => (value === '' ? expected : undefined));

const address = text(addressFault);
const network = text(networkFault);
const interfaceAddress = text(interfaceFault);
const mac = text(macFault).transform(value => value.toLowerCase());
const device = text(deviceFault);
const objectName = text(objectNameFault);

/** A pod has one address; "/32" behind it is allowed and dropped. */
const podAddress = text(value => {
  const cidr = parseCidr(value);
  if (cidr !== undefined && cidr.length < 32) return 'an address without a prefix length, or with /32';
  return addressFault(value.replace(/\/32$/, ''));
}).transform(value => value.replace('/32', ''));

/** The host port's address; a missing prefix length means /32. */
const hostAddress = text(value => interfaceFault(value.includes('/') ? value : `${value}/32`)).transform(value =>
  value.includes('/') ? value : `${value}/32`,
);

// ---- numbers, choices, lists, maps ----------------------------------------------------------------------------------

export function whole(min: number, max: number) {
  const expected = `a whole number from ${min} to ${max}`;
  return z.int(expected).min(min, expected).max(max, expected);
}

export function choice<const T extends readonly [string, ...string[]]>(...values: T) {
  const expected = values.length === 1 ? values[0] : `one of ${values.join(', ')}`;
  return z.enum(values, { error: issue => expected + suggest(issue.input, values) });
}

const flag = z.boolean('true or false');

export function list<T extends z.ZodType>(item: T) {
  return z.array(item, 'a list');
}

/** One network or a list of them; the result is always a list. */
const networks = z.preprocess(
  value => (typeof value === 'string' ? [value] : value),
  z.array(network, 'a network or a list of networks').min(1, 'at least one network'),
);

/**
 * A map with known fields. Its message for unknown fields is the list of the known ones (load-config.ts splits it).
 * `without` names fields that exist elsewhere but mean nothing here, each with what to say about it.
 */
export function record<T extends z.ZodRawShape, W extends string = never>(
  shape: T,
  without: Record<W, string> = {} as never,
) {
  const known = Object.keys(shape).join(', ');
  const refused = {} as Record<W, z.ZodOptional<z.ZodUndefined>>;
  for (const name in without) refused[name] = z.undefined(without[name]).optional();
  return z.strictObject(
    { ...refused, ...shape },
    { error: issue => (issue.code === 'unrecognized_keys' ? known : 'a map') },
  );
}

/** The one of `names` that a mistyped `word` most likely meant, or undefined if none is near. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.min(3, Math.ceil(word.length / 2));
  for (const name of names) {
    const distance = editDistance(word.toLowerCase(), name.toLowerCase(), bestDistance);
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best;
}

function suggest(input: unknown, names: readonly string[]): string {
  const name = typeof input === 'string' && names.length > 1 ? nearest(input, names) : undefined;
  return name === undefined ? '' : ` (did you mean "${name}"?)`;
}

/** Levenshtein's distance; anything from `limit` up is only known to be too far. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}

// ---- the parts of a node --------------------------------------------------------------------------------------------

export const mtu = whole(MIN_MTU, MAX_MTU);
const port = whole(1, 65535);

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
  ],
  { error: expectedKind('kind', ['tap', 'raw', 'macvtap', 'routed']) },
);

/** Message of a discriminated union: either its discriminator is wrong, or it is no map at all. */
function expectedKind(field: string, values: readonly string[]) {
  return (issue: { code?: string; input?: unknown }): string => {
    if (issue.code !== 'invalid_union') return 'a map';
    const input = (issue.input as Record<string, unknown> | undefined)?.[field];
    return `one of ${values.join(', ')}${suggest(input, values)}`;
  };
}

const host = record({ device, address: hostAddress });

const pod = record({
  name: objectName,
  netns: text(netnsFault),
  device,
  address: podAddress,
  labels: z.record(z.string(), z.string('a text (in quotes)'), 'a map of texts').default({}),
  identity: whole(1, MAX_VNI).optional(), // security identity, which fits into a VNI
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

const tunnel = z.discriminatedUnion(
  'protocol',
  [
    record(
      { protocol: z.literal('none'), peers: list(record({ address, mac: mac.optional() })).default([]), acceptFrom },
      { port: 'no port: protocol is none', vni: 'no vni: protocol is none', mac: 'no mac: protocol is none' },
    ),
    record(
      {
        protocol: z.literal('ipip'),
        peers: list(record({ address }, { mac: 'no mac: IPIP carries no Ethernet header' })).default([]),
        acceptFrom,
        ...outer,
      },
      {
        udpChecksum: 'no udpChecksum: IPIP has no UDP header',
        port: 'no port: IPIP has no UDP header',
        vni: 'no vni: IPIP has no network identifier',
        mac: 'no mac: IPIP carries no Ethernet header',
      },
    ),
    record({
      protocol: z.enum(['vxlan', 'geneve']),
      port: port.optional(),
      vni: vni.optional(),
      mac: mac.optional(),
      peers: list(record({ address, mac: mac.optional() })).default([]),
      acceptFrom,
      options: list(geneveOption).default([]), // GENEVE only: check-config.ts
      ...outer,
      udpChecksum: flag.optional(),
    }),
  ],
  { error: expectedKind('protocol', ['none', 'ipip', 'vxlan', 'geneve']) },
);

const route = record({
  to: network,
  via: address,
  encap: flag.default(false),
  mtu: mtu.optional(),
  tooBig: tooBig.optional(), // default: the node's
});

const OFFLOAD_NAMES = OFFLOADS.map(({ name }) => name);

function isOffload(value: unknown): value is 'auto' | 'none' | Offload[] {
  if (value === 'auto' || value === 'none') return true;
  return Array.isArray(value) && value.every(item => OFFLOAD_NAMES.includes(item));
}

const offload = z.custom<'auto' | 'none' | Offload[]>(isOffload, {
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

function parsePorts(value: string): { low: number; high: number } | undefined {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(value);
  if (match === null) return undefined;
  const low = Number(match[1]);
  const high = Number(match[2]);
  return low >= 1 && low <= high && high <= 65535 ? { low, high } : undefined;
}

const ports = text(value =>
  parsePorts(value) ? undefined : 'a range LOW-HIGH of ports, such as 32768-60999',
).transform(value => parsePorts(value)!);

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

const servicePort = record({
  name: text(labelFault).optional(),
  protocol: choice('TCP', 'UDP', 'SCTP').default('TCP'),
  port,
  targetPort: port.optional(),
  nodePort: whole(30000, 32767).optional(), // --service-node-port-range of kube-apiserver
});

const endpoint = record({
  address,
  ready: flag.default(true),
  serving: flag.optional(),
  terminating: flag.default(false),
  nodeName: filled('the name of a node').optional(),
  zone: filled('the name of a zone').optional(),
  weight: whole(0, 65535).default(1),
});

const service = record({
  name: objectName,
  type: choice('ClusterIP', 'NodePort', 'LoadBalancer').default('ClusterIP'),
  addresses: list(address).default([]),
  externalIPs: list(address).default([]),
  ports: list(servicePort).min(1, 'at least one port'),
  endpoints: list(endpoint).default([]),
  sessionAffinity: choice('None', 'ClientIP').default('None'),
  sessionAffinityTimeoutSeconds: whole(1, 86400).default(10800), // limits and default of the Kubernetes API
  internalTrafficPolicy: choice('Cluster', 'Local').default('Cluster'),
  externalTrafficPolicy: choice('Cluster', 'Local').default('Cluster'),
  loadBalancerSourceRanges: list(network).default([]),
  algorithm: choice('random', 'roundRobin', 'weighted', 'maglev').default('random'),
});

const seconds = whole(1, 0x7fffffff).optional();

const conntrack = record({
  size: whole(16, 4 << 20).default(131072),
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
  busyPoll: whole(0, 1000).default(0), // microseconds, as net.core.busy_poll
});

const spec = record({
  uplink,
  host: host.optional(),
  pods: list(pod).default([]),
  tunnel: tunnel.default(() => ({ protocol: 'none' as const, peers: [], acceptFrom: 'peers' as const })),
  routes: list(route).default([]),
  mtu: record({ tooBig: tooBig.default('signal'), clampMss: flag.default(false) }).default(() => ({
    tooBig: 'signal' as const,
    clampMss: false,
  })),
  profile: choice('linux', 'cilium', 'calico', 'flannel', 'rfc').default('linux'),
  offload: offload.default('auto'),
  masquerade: list(masqueradeRule).default([]),
  services: list(service).default([]),
  conntrack: conntrack.default(() => ({ size: 131072, timeouts: {} })),
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

/** A tunnel with everything it needs: no tunnel, one without Ethernet, or one with. */
export type GeneveOptionConfig = z.output<typeof geneveOption>;

export type TunnelConfig = NoTunnelConfig | IpipConfig | UdpTunnelConfig;

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

interface NoTunnelConfig extends WithoutEthernet, Partial<Record<keyof OuterConfig, undefined>> {
  protocol: 'none';
  peers: { address: string }[]; // always empty
  acceptFrom: 'peers' | 'any';
}

interface IpipConfig extends WithoutEthernet, OuterConfig {
  protocol: 'ipip';
  peers: { address: string }[];
  acceptFrom: 'peers' | 'any';
}

interface UdpTunnelConfig extends OuterConfig {
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

function completeTunnel({ tunnel, profile, uplink }: WrittenConfig['spec']): TunnelConfig {
  const { acceptFrom } = tunnel;
  if (tunnel.protocol === 'none') return { protocol: tunnel.protocol, peers: [], acceptFrom };
  if (tunnel.protocol === 'ipip') return tunnel;
  const own = underlayAddress(uplink);
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

function completeService(service: WrittenConfig['spec']['services'][number]) {
  return {
    ...service,
    ports: service.ports.map(port => ({ ...port, targetPort: port.targetPort ?? port.port })),
    endpoints: service.endpoints.map(endpoint => ({ ...endpoint, serving: endpoint.serving ?? endpoint.ready })),
  };
}

/** Fills in the defaults that depend on other values. */
export function completeConfig(written: WrittenConfig) {
  const { spec } = written;
  return {
    ...written,
    spec: { ...spec, tunnel: completeTunnel(spec), services: spec.services.map(completeService) },
  };
}

/** A checked configuration: every default filled in; addresses stay text, in their one normal spelling. */
export type NodeConfig = ReturnType<typeof completeConfig>;
export type NodeSpec = NodeConfig['spec'];
export type UplinkConfig = NodeSpec['uplink'];
export type PodConfig = NodeSpec['pods'][number];
export type RouteConfig = NodeSpec['routes'][number];
export type MasqueradeRuleConfig = NodeSpec['masquerade'][number];
export type ServiceConfig = NodeSpec['services'][number];
export type EndpointConfig = ServiceConfig['endpoints'][number];

/** The underlay address as int32, or undefined where the interface brings its own. */
export function underlayAddress(uplink: UplinkConfig): number | undefined {
  return 'address' in uplink ? parseCidr(uplink.address)?.address : undefined;
}

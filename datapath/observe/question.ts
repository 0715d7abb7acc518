/** The packet that `explain` is asked about, and where it enters. */
import type { ResolvedConfig } from '../control/resolved.ts';
import { addressesOf } from '../control/service-config.ts';
import { NEIGHBOR_MAC } from '../drive/entry.ts';
import type { CapturedPacket } from '../io/capture-file.ts';
import { DIRECTION_OUT } from '../io/pcapng.ts';
import { ethernet, hex, icmpEcho, ip, pattern, tcp4, udp4 } from '../packet/build.ts';
import { mtusOf } from '../program/mtus.ts';
import * as wire from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import type { Entry } from './explain.ts';

/** Values as they are written, by the options of `tunpath explain`. */
export interface Question {
  from?: string;
  to?: string;
  proto?: string;
  sport: string;
  length?: string;
  ttl: string;
  df: boolean;
  hex?: string;
  port?: string;
  node?: string;
}

/** A packet of a capture. */
export type Seen = Pick<CapturedPacket, 'interface' | 'direction' | 'layer' | 'bytes'>;

/** What is asked for cannot be; the message names the option, and what was expected. */
export class QuestionError extends Error {
  override name = 'QuestionError';
  readonly exitCode = 2;
}

const PROTOCOLS = ['tcp', 'udp', 'icmp'] as const;
const MSS_OPTION = [2, 4];

/**
 * The packet of --from and --to, or that of --hex, or one that was seen in a capture.
 * @throws QuestionError
 */
export function entryOf(configs: readonly ResolvedConfig[], question: Question, seen: Seen | null = null): Entry {
  const given = [question.from ?? question.to, seen, question.hex].filter(one => one !== undefined && one !== null);
  if (given.length !== 1)
    throw new QuestionError('expected one of --from POD --to ADDRESS:PORT, --pcap FILE, --hex BYTES');
  if (seen !== null) return entryOfPacket(configs, seen, question);
  if (question.hex !== undefined) return entryOfPacket(configs, readHex(question.hex), question);
  if (question.from === undefined || question.to === undefined) throw new QuestionError('--from and --to go together');
  return madeEntry(configs, question.from, question.to, question);
}

function readHex(text: string): Seen {
  const digits = text.replace(/[\s:]|0x/g, '');
  if (!/^([0-9a-f]{2})+$/i.test(digits)) throw new QuestionError('--hex: expected bytes as pairs of hex digits');
  const bytes = hex(digits);
  const isIpv4 = bytes[0] >> 4 === 4 && bytes.length >= ipv4.HEADER_LEN && ((bytes[2] << 8) | bytes[3]) <= bytes.length;
  return { interface: '', direction: 0, layer: isIpv4 ? 3 : 2, bytes };
}

/** The node whose port the packet was seen at, by name, MAC or address. */
function entryOfPacket(configs: readonly ResolvedConfig[], seen: Seen, question: Question): Entry {
  const name = question.port ?? seen.interface;
  const { bytes, layer } = seen;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const packet = layer === 2 ? bytes.subarray(wire.HEADER_LEN) : bytes;
  const source = packet.length >= ipv4.HEADER_LEN ? view.getInt32(ipv4.SRC + (layer === 2 ? wire.HEADER_LEN : 0)) : 0;
  const nodes = configsOf(configs, question.node);
  const isPod = (spec: ResolvedConfig['spec']) => spec.pods.some(pod => ip(pod.address.split('/')[0]) === source);
  const byName = nodes.find(({ spec }) => portNames(spec).includes(name));
  const byMac = nodes.find(({ spec }) => layer === 2 && spec.uplink.mac === macAt(bytes, wire.DST));
  const config =
    byName ?? byMac ?? nodes.find(({ spec }) => isPod(spec)) ?? (nodes.length === 1 ? nodes[0] : undefined);
  if (config === undefined) throw new QuestionError(`expected --node with one of ${namesOf(nodes)}`);
  if (question.port !== undefined && byName === undefined) {
    throw new QuestionError(`--port ${question.port}: expected one of ${portNames(config.spec).join(', ')}`);
  }
  if (question.port === undefined && seen.direction === DIRECTION_OUT && byName !== undefined) {
    throw new QuestionError(
      `the node itself had sent this packet, by ${name}: expected --port, or one that it received`,
    );
  }
  const { spec } = config;
  const pod = spec.pods.find(one => ip(one.address.split('/')[0]) === source);
  const isHost =
    spec.host !== undefined && [spec.host.address, spec.uplink.address].some(one => ip(one.split('/')[0]) === source);
  const port =
    byName !== undefined
      ? roleIn(spec, name)
      : layer === 2
        ? 'uplink'
        : (pod?.name ?? (isHost ? spec.host!.device : 'uplink'));
  const isUplink = port === 'uplink';
  const made =
    isUplink && layer === 3 ? ethernet(bytes, { src: NEIGHBOR_MAC, dst: spec.uplink.mac }) : isUplink ? bytes : packet;
  return { node: config.metadata.name, port, bytes: made };
}

function madeEntry(configs: readonly ResolvedConfig[], from: string, to: string, question: Question): Entry {
  const { address, port } = targetOf(configs, to);
  const proto = (question.proto ?? (port === 0 ? 'icmp' : 'tcp')).toLowerCase();
  const protocol = PROTOCOLS.find(one => one === proto);
  if (protocol === undefined)
    throw new QuestionError(`--proto ${question.proto}: expected one of ${PROTOCOLS.join(', ')}`);
  if (protocol !== 'icmp' && port === 0) throw new QuestionError(`--to ${to}: expected ADDRESS:PORT with ${protocol}`);
  const source = sourceOf(configs, from, question.node, address);
  const options = {
    src: source.address,
    dst: address,
    sport: numberOf('--sport', question.sport, 1, 65535),
    dport: port,
    ttl: numberOf('--ttl', question.ttl, 0, 255),
    fragment: question.df ? ipv4.FLAG_DF : 0,
  };
  const packet = makePacket(protocol, options, question.length, source.mtu);
  const bytes = source.port === 'uplink' ? ethernet(packet, { src: NEIGHBOR_MAC, dst: source.mac }) : packet;
  return { node: source.node, port: source.port, bytes };
}

function makePacket(
  protocol: (typeof PROTOCOLS)[number],
  options: Parameters<typeof tcp4>[0],
  length: string | undefined,
  mtu: number,
): Uint8Array {
  const mss = mtu - 40;
  const tcpOptions = Uint8Array.of(...MSS_OPTION, mss >> 8, mss & 255);
  const make = (payload: Uint8Array) => {
    if (protocol === 'udp') return udp4({ ...options, payload });
    if (protocol === 'icmp') return icmpEcho({ ...options, payload });
    // Data does not go with SYN.
    const flags = payload.length === 0 ? tcp.SYN : tcp.ACK_FLAG | tcp.PSH;
    return tcp4({ ...options, flags, payload, ...(payload.length === 0 ? { tcpOptions } : {}) });
  };
  const least = make(new Uint8Array(0)).length;
  if (length === undefined) return make(pattern(protocol === 'icmp' ? 56 : 0));
  const wanted = numberOf('--length', length, least, 65535);
  const packet = make(pattern(wanted - least));
  // A segment with data has no options.
  return packet.length === wanted ? packet : make(pattern(wanted - 40));
}

interface Source {
  node: string;
  port: string;
  address: string;
  mac: string;
  mtu: number;
}

/** A pod, a node, or an address: of one of them, or of somebody outside. */
function sourceOf(configs: readonly ResolvedConfig[], from: string, node: string | undefined, to: string): Source {
  const nodes = configsOf(configs, node);
  const pods = nodes.flatMap(config =>
    config.spec.pods
      .filter(({ name, address }) => name === from || name.endsWith(`/${from}`) || address.split('/')[0] === from)
      .map(pod => ({ pod, config })),
  );
  if (pods.length > 1)
    throw new QuestionError(`--from ${from}: expected one of ${pods.map(({ pod }) => pod.name).join(', ')}`);
  if (pods.length === 1) {
    const { pod, config } = pods[0];
    const mtu = pod.mtu ?? mtusOf(config).device;
    return { node: config.metadata.name, port: pod.name, address: pod.address.split('/')[0], mac: '', mtu };
  }
  const isOf = ({ metadata, spec }: ResolvedConfig) =>
    metadata.name === from || [spec.host?.address, spec.uplink.address].some(one => one?.split('/')[0] === from);
  const own = nodes.find(isOf);
  if (own !== undefined) {
    const { host, uplink } = own.spec;
    if (host === undefined) throw new QuestionError(`--from ${from}: node ${own.metadata.name} has no host port`);
    const address = (own.metadata.name === from ? host.address : from).split('/')[0];
    return { node: own.metadata.name, port: host.device, address, mac: '', mtu: uplink.mtu };
  }
  if (!isAddress(from)) {
    const names = nodes.flatMap(({ spec }) => spec.pods.map(({ name }) => name));
    throw new QuestionError(`--from ${from}: expected a pod (${names.join(', ')}), a node, or an address`);
  }
  const entered = nodes.find(({ spec }) => reaches(spec, to)) ?? (nodes.length === 1 ? nodes[0] : undefined);
  if (entered === undefined)
    throw new QuestionError(`--from ${from}: expected --node with one of ${namesOf(nodes)}: where it enters`);
  const { uplink } = entered.spec;
  return { node: entered.metadata.name, port: 'uplink', address: from, mac: uplink.mac, mtu: uplink.mtu };
}

/** Would somebody outside send a packet for this address to the node? */
function reaches({ uplink, host, pods }: ResolvedConfig['spec'], address: string): boolean {
  return [uplink.address, host?.address, ...pods.map(pod => pod.address)].some(one => one?.split('/')[0] === address);
}

/** ADDRESS, POD or SERVICE, with a port or without (0). */
function targetOf(configs: readonly ResolvedConfig[], to: string): { address: string; port: number } {
  const [, host, portText] = /^(.*?)(?::(\d+))?$/.exec(to) as RegExpExecArray;
  const port = portText === undefined ? 0 : numberOf(`--to ${to}: port`, portText, 1, 65535);
  if (isAddress(host)) return { address: host, port };
  const isNamed = (name: string) => name === host || name.endsWith(`/${host}`);
  for (const { spec } of configs) {
    const pod = spec.pods.find(({ name }) => isNamed(name));
    if (pod !== undefined) return { address: pod.address.split('/')[0], port };
    const service = spec.services.find(({ name }) => isNamed(name));
    if (service === undefined) continue;
    const { cluster, loadBalancer, external } = addressesOf<string>(service);
    const address = [...cluster, ...loadBalancer, ...external][0];
    if (address !== undefined) return { address, port: port === 0 ? service.ports[0].port : port };
  }
  throw new QuestionError(`--to ${to}: expected ADDRESS:PORT, or the name of a pod or a service`);
}

function isAddress(text: string): boolean {
  return /^\d{1,3}(\.\d{1,3}){3}$/.test(text) && text.split('.').every(part => Number(part) <= 255);
}

function configsOf(configs: readonly ResolvedConfig[], node: string | undefined): readonly ResolvedConfig[] {
  if (node === undefined) return configs;
  const found = configs.filter(({ metadata }) => metadata.name === node);
  // A running node goes by a short name, too.
  if (found.length > 0 || configs.length === 1) return found.length > 0 ? found : configs;
  throw new QuestionError(`--node ${node}: expected one of ${namesOf(configs)}`);
}

function namesOf(configs: readonly ResolvedConfig[]): string {
  return configs.map(({ metadata }) => metadata.name).join(', ');
}

function portNames({ pods, host, uplink }: ResolvedConfig['spec']): string[] {
  return [...pods.map(({ name }) => name), ...(host === undefined ? [] : [host.device]), 'uplink', uplink.device];
}

function roleIn({ uplink }: ResolvedConfig['spec'], name: string): string {
  return name === uplink.device ? 'uplink' : name;
}

function macAt(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.subarray(at, at + 6), byte => byte.toString(16).padStart(2, '0')).join(':');
}

/** @throws QuestionError */
export function numberOf(option: string, text: string, from: number, to: number): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < from || number > to) {
    throw new QuestionError(`${option} ${text}: expected a whole number from ${from} to ${to}`);
  }
  return number;
}

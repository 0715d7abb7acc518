/**
 * Moments of packets as `cilium-dbg monitor` prints them (cilium/cilium, pkg/monitor): drops, traces and policy verdicts,
 * in a line each, or with -v in several. What Cilium's messages have and this node has not stands as it does there when
 * it is unknown; a drop has our reason behind Cilium's, and its number where Cilium has a line of its source.
 */

import type { PolicyConfig } from '../control/policy-config.ts';
import type { WatchContext } from '../control/watch.ts';
import { dotted, ip } from '../packet/build.ts';
import { STEP_EGRESS_POLICY } from '../path/watcher.ts';
import type { PolicyRule } from '../policy/policies.ts';
import { PORT_KINDS, PORT_POD } from '../port.ts';
import { compilePolicy } from '../program/compile-policy.ts';
import { CONTINUE, VERDICT_NAMES } from '../verdict.ts';
import {
  KIND_DROPPED,
  KIND_SENT,
  KIND_STEP,
  STATE_NEW,
  STATE_RELATED,
  STATE_REPLY,
  STATE_TRACKED,
  TO_OVERLAY,
  type WatchRecord,
} from '../watch/record.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { CILIUM_DROP_REASONS, type Directory, flowOf, RESERVED_IDENTITIES, tcpFlagNames } from './flow.ts';
import { headersOf } from './headers.ts';

export const MONITOR_TYPES = ['drop', 'trace', 'policy-verdict'] as const;
export type MonitorType = (typeof MONITOR_TYPES)[number];

/** Cilium's names of drop reasons (pkg/monitor/api/drop.go), by their numbers. */
const REASON_TEXTS: Readonly<Record<number, string>> = {
  132: 'Invalid source ip',
  133: 'Policy denied',
  134: 'Invalid packet',
  135: 'CT: Truncated or invalid header',
  136: 'Fragmentation needed',
  139: 'Unsupported L3 protocol',
  151: 'Unroutable',
  155: 'CT: Map insertion failed',
  158: 'Service backend not found',
  160: 'No tunnel/encapsulation endpoint (datapath BUG!)',
  167: 'No mapping for NAT masquerade',
  175: 'First logical datagram fragment not found',
  183: 'Invalid VNI',
  196: 'TTL exceeded',
};

const SEPARATOR = '-'.repeat(78);

export interface MonitorEvent {
  type: MonitorType;
  /** Endpoints that it is about: 0 for who is none of this node. */
  from: number;
  to: number;
  /** One line. */
  text: string;
  record: WatchRecord;
  /** Of -v, in front of the packet. */
  verbose: string;
}

/** The events of one node. */
export class Monitor {
  private readonly endpoints = new Map<number, number>();
  private readonly devices = new Map<number, string>();
  private readonly rules: readonly PolicyRule[];
  private readonly policies: readonly PolicyConfig[];
  private readonly directory: Directory;

  constructor({ config, ports }: WatchContext, directory: Directory) {
    const { spec } = config;
    const addresses = new Map(spec.pods.map(pod => [pod.name, ip(pod.address.split('/')[0])]));
    for (const { number, name, kind, device } of ports) {
      this.devices.set(number, device);
      const address = kind === PORT_KINDS[PORT_POD] ? addresses.get(name) : undefined;
      if (address !== undefined) this.endpoints.set(address, endpointIdOf(number));
    }
    const own = [spec.uplink.address, spec.host?.address].flatMap(one =>
      one === undefined ? [] : ip(one.split('/')[0]),
    );
    this.rules = compilePolicy({ ...spec, own })?.rules ?? [];
    this.policies = spec.policies;
    this.directory = directory;
  }

  /** Null for a record that is none of these. */
  eventOf(record: WatchRecord): MonitorEvent | null {
    if (record.kind === KIND_DROPPED) return this.drop(record);
    if (record.kind === KIND_SENT) return this.trace(record);
    return record.kind === KIND_STEP ? this.policyVerdict(record) : null;
  }

  private endpoint(address: number): number {
    return this.endpoints.get(address) ?? 0;
  }

  private drop(record: WatchRecord): MonitorEvent {
    const name = VERDICT_NAMES[record.detail];
    const number = CILIUM_DROP_REASONS[name]?.number;
    const reason = number === undefined ? name : `${REASON_TEXTS[number]}, ${name}`;
    const [from, to] = [this.endpoint(record.src), this.endpoint(record.dst)];
    const identity = this.identities(record);
    const flow = flowHash(record);
    return {
      type: 'drop',
      from,
      to,
      record,
      text: `xx drop (${reason}) flow ${flow} to endpoint ${to}, ifindex ${this.deviceOf(record.inPort)}, file verdict.ts:${record.detail}, , ${identity}: ${connection(record)}`,
      verbose: `MARK ${flow} FROM ${from} DROP: ${record.length} bytes, reason ${reason}, ${identity}${to === 0 ? '' : `, to endpoint ${to}`}`,
    };
  }

  private trace(record: WatchRecord): MonitorEvent {
    const [from, to] = [this.endpoint(record.src), this.endpoint(record.dst)];
    const kind = this.directory.portKind(record.detail);
    const where =
      kind === 'pod'
        ? `endpoint ${to}`
        : kind === 'host'
          ? 'stack'
          : record.verdict === TO_OVERLAY
            ? 'overlay'
            : 'network';
    const point = kind === 'pod' ? 'to-endpoint' : `to-${where}`;
    const state = stateOf(record);
    const identity = this.identities(record);
    const device = this.deviceOf(record.detail);
    const origin = kind === 'pod' ? dotted(record.src) : '0.0.0.0';
    const flow = flowHash(record);
    return {
      type: 'trace',
      from,
      to,
      record,
      text: `-> ${where} flow ${flow} , ${identity} state ${state} ifindex ${device} orig-ip ${origin}: ${connection(record)}`,
      verbose: `MARK ${flow} FROM ${from} ${point}: ${record.length} bytes (${record.bytes.length} captured), state ${state}, interface ${device}, ${identity}, orig-ip ${origin}${kind === 'pod' ? `, to endpoint ${to}` : ''}`,
    };
  }

  private policyVerdict(record: WatchRecord): MonitorEvent | null {
    const isEgress = record.detail === STEP_EGRESS_POLICY;
    const direction = isEgress ? 'egress' : 'ingress';
    const rule = record.policy > 0 ? this.rules[record.policy] : undefined;
    const isAllowed = record.verdict === CONTINUE;
    // What let it leave stays known while it is judged by who receives it.
    if (isAllowed && rule?.direction !== direction) return null;
    const local = this.endpoint(isEgress ? record.src : record.newDst);
    const remote = this.identityOf(isEgress ? record.newDst : record.src, isEgress ? 0 : record.identity);
    const [from, to] = [this.endpoint(record.src), this.endpoint(record.newDst)];
    const match = isAllowed && rule !== undefined ? this.matchOf(rule) : 'none';
    const text = `Policy verdict log: flow ${flowHash(record)} local EP ID ${local}, remote ID ${remote}, proto ${record.protocol}, ${direction}, action ${isAllowed ? 'allow' : 'deny'}, auth: disabled, match ${match}, ${connection(record)}`;
    return { type: 'policy-verdict', from, to, record, text, verbose: text };
  }

  /** As Cilium calls what a rule looked at: peers (L3), ports (L4). */
  private matchOf({ policy, direction, rule }: PolicyRule): string {
    const written = this.policies.find(({ namespace, name }) => `${namespace}/${name}` === policy);
    const said = direction === 'egress' ? written?.egress[rule] : written?.ingress[rule];
    if (said === undefined) return 'all';
    const peers = 'from' in said ? said.from : said.to;
    if (peers.length === 0) return said.ports.length === 0 ? 'all' : 'L4-Only';
    return said.ports.length === 0 ? 'L3-Only' : 'L3-L4';
  }

  private identities(record: WatchRecord): string {
    return `identity ${this.identityOf(record.src, record.identity)}->${this.identityOf(record.dst, 0)}`;
  }

  private identityOf(address: number, known: number): string {
    const number = this.directory.endpointOf(address)?.identity ?? (known > 0 ? known : WORLD);
    return RESERVED_IDENTITIES[number] ?? String(number);
  }

  private deviceOf(port: number): string {
    return this.devices.get(port) ?? '0';
  }
}

const WORLD = 2;

/** The number that stands for the pod behind a port; 0 is nobody's. */
export function endpointIdOf(port: number): number {
  return port + 1;
}

function stateOf({ state }: WatchRecord): string {
  if ((state & STATE_TRACKED) === 0) return 'unknown';
  if ((state & STATE_RELATED) !== 0) return 'related';
  if ((state & STATE_NEW) !== 0) return 'new';
  return (state & STATE_REPLY) !== 0 ? 'reply' : 'established';
}

/** The same for all packets of a direction. */
function flowHash({ src, dst, srcPort, dstPort, protocol }: WatchRecord): string {
  let hash = Math.imul(src, 0x9e3779b1) ^ Math.imul(dst, 0x85ebca6b);
  hash ^= Math.imul((srcPort << 16) | dstPort, 0xc2b2ae35) ^ protocol;
  return `0x${((hash ^ (hash >>> 15)) >>> 0).toString(16)}`;
}

/** `1.1.1.1:2000 -> 2.2.2.2:80 tcp SYN` */
function connection(record: WatchRecord): string {
  const { src, dst, srcPort, dstPort, protocol, l4Bits } = record;
  const [from, to] = [dotted(src), dotted(dst)];
  switch (protocol) {
    case ipv4.PROTO_TCP:
      return `${from}:${srcPort} -> ${to}:${dstPort} tcp ${tcpFlagNames(l4Bits & 0xff).join(', ')}`;
    case ipv4.PROTO_UDP:
      return `${from}:${srcPort} -> ${to}:${dstPort} udp`;
    case ipv4.PROTO_SCTP:
      return `${from}:${srcPort} -> ${to}:${dstPort} sctp`;
    case ipv4.PROTO_ICMP:
      return `${from} -> ${to} ${icmpName(record)}`;
    case 0:
      return '[unknown]';
    default:
      return `${from} -> ${to} ${protocol}`;
  }
}

/** `EchoRequest`, as Hubble has it behind "ICMPv4". */
function icmpName(record: WatchRecord): string {
  const flow = flowOf({ ...record, kind: KIND_DROPPED, detail: 0 }, NO_DIRECTORY);
  return (flow?.summary ?? '').replace(/^ICMPv4 /, '');
}

const NO_DIRECTORY: Directory = {
  node: '',
  portKind: () => 'none',
  endpointOf: () => undefined,
  serviceOf: () => '',
};

/** As -v prints it: what is known, and the packet's headers, or its bytes in hex. */
export function verboseText({ verbose, type, record }: MonitorEvent, hex: boolean): string {
  if (type === 'policy-verdict') return `${SEPARATOR}\n${verbose}\n`;
  const layer = record.layer === 2 ? 2 : 3;
  const packet = hex
    ? hexDump(record.bytes)
    : headersOf(record.bytes, layer)
        .map(({ name, text }) => `${name}\t{${text}}\n`)
        .join('');
  return `${SEPARATOR}\n${verbose}\n${packet}`;
}

/** As Go's hex.Dump and `hexdump -C`. */
export function hexDump(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const pairs = row.map(byte => byte.toString(16).padStart(2, '0'));
    const left = pairs.slice(0, 8).join(' ').padEnd(23);
    const right = pairs.slice(8).join(' ').padEnd(23);
    const text = row.map(byte => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${left}  ${right}  |${text}|\n`);
  }
  return lines.join('');
}

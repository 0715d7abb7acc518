/**
 * A moment of a packet as a flow of Hubble: who sent it, to whom, where it was seen, and what became of it. Names and
 * numbers are those of Cilium's flow.proto (api/v1/flow), so that its clients can read them.
 */
import { dotted } from '../packet/build.ts';
import { VERDICT_NAMES } from '../verdict.ts';
import {
  KIND_DROPPED,
  KIND_RECEIVED,
  KIND_SENT,
  STATE_REPLY,
  STATE_TRACKED,
  TO_OVERLAY,
  type WatchRecord,
} from '../watch/record.ts';
import * as ipv4 from '../wire/ipv4.ts';

export type Verdict = 'FORWARDED' | 'DROPPED';

/** Observation points, by the names of flow.proto. */
export const OBSERVATION_POINTS = [
  'TO_HOST',
  'TO_STACK',
  'TO_OVERLAY',
  'TO_NETWORK',
  'TO_ENDPOINT',
  'FROM_ENDPOINT',
  'FROM_HOST',
  'FROM_OVERLAY',
  'FROM_NETWORK',
] as const;
export type ObservationPoint = (typeof OBSERVATION_POINTS)[number];

/** Message numbers of cilium's monitor API (pkg/monitor/api/types.go). */
export const MESSAGE_DROP = 1;
export const MESSAGE_TRACE = 4;

/** Sub types of a trace message, TraceToLxc and so on. */
const TRACE_SUB_TYPE: Readonly<Record<ObservationPoint, number>> = {
  TO_ENDPOINT: 0,
  TO_HOST: 2,
  TO_STACK: 3,
  TO_OVERLAY: 4,
  FROM_ENDPOINT: 5,
  FROM_HOST: 7,
  FROM_OVERLAY: 9,
  FROM_NETWORK: 10,
  TO_NETWORK: 11,
};

/** Cilium's reserved identities (pkg/identity/reserved.go). */
export const RESERVED_IDENTITIES: Readonly<Record<number, string>> = {
  0: 'unknown',
  1: 'host',
  2: 'world',
  3: 'unmanaged',
  4: 'health',
  5: 'init',
  6: 'remote-node',
  7: 'kube-apiserver',
  8: 'ingress',
};

/** Cilium's drop reasons (flow.proto, DropReason) for those of ours that mean the same; others are DROP_REASON_UNKNOWN. */
export const CILIUM_DROP_REASONS: Readonly<Record<string, { name: string; number: number }>> = {
  'drop-invalid-source': { name: 'INVALID_SOURCE_IP', number: 132 },
  'drop-policy-denied-egress': { name: 'POLICY_DENIED', number: 133 },
  'drop-policy-denied-ingress': { name: 'POLICY_DENIED', number: 133 },
  'drop-malformed-ipv4': { name: 'INVALID_PACKET_DROPPED', number: 134 },
  'drop-ct-invalid-tcp-flags': { name: 'CT_TRUNCATED_OR_INVALID_HEADER', number: 135 },
  'drop-over-mtu-dont-fragment': { name: 'FRAGMENTATION_NEEDED', number: 136 },
  'drop-not-ipv4': { name: 'UNSUPPORTED_L3_PROTOCOL', number: 139 },
  'drop-no-route': { name: 'UNROUTABLE', number: 151 },
  'drop-route-refused': { name: 'UNROUTABLE', number: 151 },
  'drop-ct-table-full': { name: 'CT_MAP_INSERTION_FAILED', number: 155 },
  'drop-no-service-endpoint': { name: 'SERVICE_BACKEND_NOT_FOUND', number: 158 },
  'drop-no-tunnel-peer': { name: 'NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT', number: 160 },
  'drop-nat-ports-exhausted': { name: 'SNAT_NO_MAPPING', number: 167 },
  'drop-cluster-address-from-outside': { name: 'IS_A_CLUSTERIP', number: 174 },
  'drop-ct-fragment': { name: 'DATAGRAM_FRAGMENT_NOT_FOUND', number: 175 },
  'drop-tunnel-unknown-vni': { name: 'INVALID_VNI', number: 183 },
  'drop-ttl-exceeded': { name: 'TTL_EXCEEDED', number: 196 },
};

/** Cilium's name of a drop reason. @param reason name in verdict.ts */
export function ciliumReasonOf(reason: string): string {
  return CILIUM_DROP_REASONS[reason]?.name ?? 'DROP_REASON_UNKNOWN';
}

export interface Endpoint {
  identity: number;
  namespace: string;
  podName: string;
  labels: string[];
}

export interface Flow {
  timeMs: number;
  nodeName: string;
  verdict: Verdict;
  /** Name in verdict.ts of what ended the packet; '' where nothing did. */
  reason: string;
  point: ObservationPoint | null;
  source: Endpoint;
  destination: Endpoint;
  /** Dotted. */
  ip: { source: string; destination: string };
  protocol: number;
  srcPort: number;
  dstPort: number;
  /** As in the header; 0 but for TCP. */
  tcpFlags: number;
  icmp: { type: number; code: number } | null;
  /** Null where flows are not tracked. */
  isReply: boolean | null;
  direction: 'INGRESS' | 'EGRESS' | 'TRAFFIC_DIRECTION_UNKNOWN';
  sourceService: string;
  destinationService: string;
  eventType: { type: number; subType: number };
  summary: string;
  length: number;
}

/** Who has an address, as far as the node knows. */
export interface Directory {
  node: string;
  /** Of the port with this index: what is behind it. */
  portKind(index: number): 'pod' | 'host' | 'uplink' | 'none';
  endpointOf(address: number): Endpoint | undefined;
  /** The service that answers at this address and port; '' for none. */
  serviceOf(address: number, port: number, protocol: number): string;
}

const NOBODY: Endpoint = { identity: 0, namespace: '', podName: '', labels: [] };
const WORLD: Endpoint = { identity: 2, namespace: '', podName: '', labels: ['reserved:world'] };

/** @returns the flow; null for a record that is none of Hubble's (a step) */
export function flowOf(record: WatchRecord, directory: Directory): Flow | null {
  const { kind, detail, protocol, state } = record;
  if (kind !== KIND_RECEIVED && kind !== KIND_SENT && kind !== KIND_DROPPED) return null;
  const point = kind === KIND_DROPPED ? null : pointOf(record, directory);
  const isTcp = protocol === ipv4.PROTO_TCP;
  const isIcmp = protocol === ipv4.PROTO_ICMP;
  const tcpFlags = isTcp ? record.l4Bits & 0xff : 0;
  const icmp = isIcmp ? { type: record.l4Bits >>> 8, code: record.l4Bits & 0xff } : null;
  const source =
    directory.endpointOf(record.src) ?? (record.identity > 2 ? { ...NOBODY, identity: record.identity } : WORLD);
  const destination = directory.endpointOf(record.dst) ?? WORLD;
  const inKind = directory.portKind(record.inPort);
  return {
    timeMs: record.timeMs,
    nodeName: directory.node,
    verdict: kind === KIND_DROPPED ? 'DROPPED' : 'FORWARDED',
    reason: kind === KIND_DROPPED ? VERDICT_NAMES[detail] : '',
    point,
    source,
    destination,
    ip: { source: dotted(record.src), destination: dotted(record.dst) },
    protocol,
    srcPort: isIcmp ? 0 : record.srcPort,
    dstPort: isIcmp ? 0 : record.dstPort,
    tcpFlags,
    icmp,
    isReply: (state & STATE_TRACKED) === 0 ? null : (state & STATE_REPLY) !== 0,
    direction: inKind === 'pod' ? 'EGRESS' : inKind === 'none' ? 'TRAFFIC_DIRECTION_UNKNOWN' : 'INGRESS',
    sourceService: directory.serviceOf(record.src, record.srcPort, protocol),
    destinationService: directory.serviceOf(record.dst, record.dstPort, protocol),
    eventType:
      point === null
        ? { type: MESSAGE_DROP, subType: CILIUM_DROP_REASONS[VERDICT_NAMES[detail]]?.number ?? 0 }
        : { type: MESSAGE_TRACE, subType: TRACE_SUB_TYPE[point] },
    summary: summaryOf(protocol, tcpFlags, icmp),
    length: record.length,
  };
}

function pointOf(record: WatchRecord, directory: Directory): ObservationPoint {
  if (record.kind === KIND_RECEIVED) {
    const kind = directory.portKind(record.detail);
    if (kind === 'pod') return 'FROM_ENDPOINT';
    return kind === 'host' ? 'FROM_HOST' : record.tunnelSource !== 0 ? 'FROM_OVERLAY' : 'FROM_NETWORK';
  }
  const kind = directory.portKind(record.detail);
  if (kind === 'pod') return 'TO_ENDPOINT';
  if (kind === 'host') return 'TO_STACK';
  return record.verdict === TO_OVERLAY ? 'TO_OVERLAY' : 'TO_NETWORK';
}

const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const;

/** Names of the TCP flags, in the order in which Hubble prints them. */
export function tcpFlagNames(flags: number): string[] {
  const order = ['SYN', 'ACK', 'RST', 'FIN', 'PSH', 'URG', 'ECE', 'CWR'] as const;
  return order.filter(name => (flags & (1 << TCP_FLAGS.indexOf(name))) !== 0);
}

const ICMP_NAMES: Readonly<Record<number, string>> = {
  0: 'EchoReply',
  3: 'DestinationUnreachable',
  4: 'SourceQuench',
  5: 'Redirect',
  8: 'EchoRequest',
  9: 'RouterAdvertisement',
  10: 'RouterSolicitation',
  11: 'TimeExceeded',
  12: 'ParameterProblem',
  13: 'TimestampRequest',
  14: 'TimestampReply',
};

const UNREACHABLE_NAMES = [
  'Net',
  'Host',
  'Protocol',
  'Port',
  'FragmentationNeeded',
  'SourceRoutingFailed',
  'NetUnknown',
  'HostUnknown',
  'SourceIsolated',
  'NetAdminProhibited',
  'HostAdminProhibited',
  'NetTOS',
  'HostTOS',
  'CommAdminProhibited',
];

function summaryOf(protocol: number, tcpFlags: number, icmp: { type: number; code: number } | null): string {
  if (protocol === ipv4.PROTO_TCP) return `TCP Flags: ${tcpFlagNames(tcpFlags).join(', ')}`;
  if (icmp !== null) {
    const name = ICMP_NAMES[icmp.type] ?? `Type ${icmp.type}`;
    const code = icmp.type === 3 ? UNREACHABLE_NAMES[icmp.code] : undefined;
    return `ICMPv4 ${name}${code === undefined ? '' : `(${code})`}`;
  }
  if (protocol === ipv4.PROTO_UDP) return 'UDP';
  if (protocol === ipv4.PROTO_SCTP) return 'SCTP';
  return `IP protocol ${protocol}`;
}

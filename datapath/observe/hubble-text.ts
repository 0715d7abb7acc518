/** Flows as `hubble observe` prints them: compact, dict and jsonpb (cilium/hubble, pkg/printer). */
import * as ipv4 from '../wire/ipv4.ts';
import { CILIUM_DROP_REASONS, type Endpoint, type Flow, RESERVED_IDENTITIES, tcpFlagNames } from './flow.ts';

export const OBSERVE_FORMATS = ['compact', 'dict', 'jsonpb'] as const;
export type ObserveFormat = (typeof OBSERVE_FORMATS)[number];

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const SEPARATOR = '------------';

/** One line: `Nov 28 00:21:05.120: default/p1:40000 (ID:1001) -> default/p2:80 (ID:1002) to-endpoint FORWARDED (TCP Flags: SYN)` */
export function compactLine(flow: Flow, withNode = false): string {
  const swap = flow.isReply === true;
  const arrow = flow.isReply === null ? '<>' : swap ? '<-' : '->';
  const source = `${hostOf(flow, 'source')} ${identityOf(flow.source)}`;
  const destination = `${hostOf(flow, 'destination')} ${identityOf(flow.destination)}`;
  const [left, right] = swap ? [destination, source] : [source, destination];
  const node = withNode ? ` [${flow.nodeName}]` : '';
  return `${timeOf(flow.timeMs)}${node}: ${left} ${arrow} ${right} ${typeOf(flow)} ${flow.verdict} (${flow.summary})`;
}

/** The fields one below the other; a line of dashes stands between two flows. */
export function dictLines(flow: Flow, isFirst: boolean, withNode = false): string {
  const rows: [string, string][] = [
    ['TIMESTAMP', timeOf(flow.timeMs)],
    ...(withNode ? ([['NODE', flow.nodeName]] as [string, string][]) : []),
    ['SOURCE', hostOf(flow, 'source')],
    ['DESTINATION', hostOf(flow, 'destination')],
    ['TYPE', typeOf(flow)],
    ['VERDICT', flow.verdict],
    ['SUMMARY', flow.summary],
  ];
  const lines = rows.map(([key, value]) => `${key.padStart(SEPARATOR.length)}: ${value}`);
  return (isFirst ? lines : [SEPARATOR, ...lines]).join('\n');
}

/** One GetFlowsResponse as protobuf's JSON, with the field names of the proto file. */
export function jsonpbLine(flow: Flow): string {
  return JSON.stringify({ flow: flowMessage(flow), node_name: flow.nodeName, time: isoTime(flow.timeMs) });
}

/** The message flow.Flow; zero values are left out, as protobuf does. */
export function flowMessage(flow: Flow): Record<string, unknown> {
  const drop = CILIUM_DROP_REASONS[flow.reason];
  return {
    time: isoTime(flow.timeMs),
    verdict: flow.verdict,
    ...(drop === undefined ? {} : { drop_reason: drop.number }),
    IP: { source: flow.ip.source, destination: flow.ip.destination, ipVersion: 'IPv4' },
    ...l4Message(flow),
    source: endpointMessage(flow.source),
    destination: endpointMessage(flow.destination),
    Type: 'L3_L4',
    node_name: flow.nodeName,
    ...(flow.isReply === true ? { reply: true } : {}),
    event_type: {
      type: flow.eventType.type,
      ...(flow.eventType.subType === 0 ? {} : { sub_type: flow.eventType.subType }),
    },
    ...serviceMessage('source_service', flow.sourceService),
    ...serviceMessage('destination_service', flow.destinationService),
    ...(flow.direction === 'TRAFFIC_DIRECTION_UNKNOWN' ? {} : { traffic_direction: flow.direction }),
    ...(flow.point === null ? {} : { trace_observation_point: flow.point }),
    ...(flow.reason === '' ? {} : { drop_reason_desc: drop?.name ?? 'DROP_REASON_UNKNOWN' }),
    ...(flow.isReply === null ? {} : { is_reply: flow.isReply }),
    Summary: flow.reason === '' ? flow.summary : `${flow.summary}; ${flow.reason}`,
  };
}

function l4Message(flow: Flow): Record<string, unknown> {
  const ports = { source_port: flow.srcPort, destination_port: flow.dstPort };
  switch (flow.protocol) {
    case ipv4.PROTO_TCP: {
      const flags = Object.fromEntries(tcpFlagNames(flow.tcpFlags).map(name => [name, true]));
      return { l4: { TCP: { ...ports, flags } } };
    }
    case ipv4.PROTO_UDP:
      return { l4: { UDP: ports } };
    case ipv4.PROTO_SCTP:
      return { l4: { SCTP: ports } };
    case ipv4.PROTO_ICMP:
      return { l4: { ICMPv4: nonZero({ type: flow.icmp?.type ?? 0, code: flow.icmp?.code ?? 0 }) } };
    default:
      return {};
  }
}

/** Protobuf's JSON leaves zero values out. */
function nonZero(fields: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== 0));
}

function endpointMessage({ identity, namespace, podName, labels }: Endpoint): Record<string, unknown> {
  return {
    ...(identity === 0 ? {} : { identity }),
    ...(namespace === '' ? {} : { namespace }),
    ...(labels.length === 0 ? {} : { labels }),
    ...(podName === '' ? {} : { pod_name: podName }),
  };
}

function serviceMessage(field: string, name: string): Record<string, unknown> {
  if (name === '') return {};
  const slash = name.indexOf('/');
  return { [field]: { name: name.slice(slash + 1), namespace: slash < 0 ? '' : name.slice(0, slash) } };
}

function hostOf(flow: Flow, side: 'source' | 'destination'): string {
  const { namespace, podName } = flow[side];
  const service = side === 'source' ? flow.sourceService : flow.destinationService;
  const name =
    podName !== '' ? `${namespace === '' ? '' : `${namespace}/`}${podName}` : service !== '' ? service : flow.ip[side];
  const port = side === 'source' ? flow.srcPort : flow.dstPort;
  return port === 0 ? name : `${name}:${port}`;
}

function identityOf({ identity }: Endpoint): string {
  const reserved = RESERVED_IDENTITIES[identity];
  return reserved === undefined ? `(ID:${identity})` : `(${reserved})`;
}

/** `to-endpoint`, or why it was dropped. */
function typeOf(flow: Flow): string {
  if (flow.point === null) return flow.reason.replace(/^drop-/, '');
  return flow.point.toLowerCase().replaceAll('_', '-');
}

/** Go's `Jan _2 15:04:05.000`, in local time as hubble has it. */
function timeOf(ms: number): string {
  const t = new Date(ms);
  const two = (n: number) => String(n).padStart(2, '0');
  const day = String(t.getDate()).padStart(2, ' ');
  const clock = `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
  return `${MONTHS[t.getMonth()]} ${day} ${clock}.${String(t.getMilliseconds()).padStart(3, '0')}`;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

/** A record of a watched packet as the page shows it. */
import type { WatchContext } from '../control/watch.ts';
import type { Endpoint, Flow } from '../observe/flow.ts';
import { hexText } from '../packet/build.ts';
import { VERDICT_NAMES } from '../verdict.ts';
import { KIND_DROPPED, KIND_RECEIVED, type WatchRecord } from '../watch/record.ts';
import type { PageEnd, PageFlow, PagePacket } from './protocol.ts';

export function pageFlow(flow: Flow, record: WatchRecord, { ports }: WatchContext): PageFlow {
  const roleOf = (number: number) => {
    const port = ports.find(one => one.number === number);
    return port === undefined ? '' : port.kind === 'uplink' ? 'uplink' : port.name;
  };
  const isDrop = record.kind === KIND_DROPPED;
  return {
    timeMs: flow.timeMs,
    node: flow.nodeName,
    source: endOf(flow.source, flow.sourceService, flow.ip.source, flow.srcPort),
    destination: endOf(flow.destination, flow.destinationService, flow.ip.destination, flow.dstPort),
    protocol: flow.protocol,
    verdict: flow.verdict,
    reason: flow.reason,
    isReply: flow.isReply === true,
    summary: flow.summary,
    length: flow.length,
    inPort: roleOf(record.inPort),
    outPort: isDrop ? '' : roleOf(record.detail),
    hex: isDrop && record.bytes.length === record.length ? hexText(record.bytes) : '',
  };
}

function endOf({ podName, namespace, labels }: Endpoint, service: string, address: string, port: number): PageEnd {
  const pod = podName === '' ? '' : `${namespace === '' ? '' : `${namespace}/`}${podName}`;
  const reserved = labels[0]?.startsWith('reserved:') ? labels[0].slice('reserved:'.length) : '';
  return { name: service !== '' ? service : pod !== '' ? pod : reserved, address, port };
}

export function pagePacket(node: string, record: WatchRecord, { ports }: WatchContext): PagePacket {
  const isDrop = record.kind === KIND_DROPPED;
  const number = isDrop ? record.inPort : record.detail;
  return {
    timeMs: record.timeMs,
    node,
    port: ports.find(port => port.number === number)?.name ?? '?',
    direction: isDrop || record.kind === KIND_RECEIVED ? 'in' : 'out',
    reason: isDrop ? VERDICT_NAMES[record.detail] : '',
    number: record.number,
    length: record.length,
    layer: record.layer === 2 ? 2 : 3,
    hex: hexText(record.bytes),
  };
}

/** An explained packet as moments of a flow, one for each node: what the picture and the list of flows show. */
import { headersOf } from '../../observe/headers.ts';
import { dotted } from '../../packet/build.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import type { Picture } from '../picture.ts';
import type { ExplainedVisit, PageEnd, PageFlow } from '../protocol.ts';
import { bytesOf } from './html.ts';

export function flowsOfTrip(
  { visits }: { visits: ExplainedVisit[] },
  picture: Picture,
  timeMs: number,
  isReply = false,
): PageFlow[] {
  return visits
    .filter(({ isOwn }) => !isOwn)
    .flatMap(visit => {
      const bytes = bytesOf(visit.packet);
      const tuple = tupleOf(bytes, visit.layer);
      if (tuple === null) return [];
      const [dropped] = visit.dropped.filter(({ isOwn }) => !isOwn);
      return {
        timeMs,
        node: visit.node,
        source: endOf(picture, tuple.source, tuple.sourcePort),
        destination: endOf(picture, tuple.destination, tuple.destinationPort),
        protocol: tuple.protocol,
        verdict: dropped === undefined ? 'FORWARDED' : 'DROPPED',
        reason: dropped?.reason ?? '',
        isReply,
        summary: '',
        length: bytes.length,
        inPort: visit.port,
        outPort: dropped === undefined ? (visit.sent.find(({ isOwn }) => !isOwn)?.port ?? '') : '',
        hex: dropped === undefined ? '' : visit.packet,
      } satisfies PageFlow;
    });
}

/** Of the innermost IPv4 header. */
function tupleOf(bytes: Uint8Array, layer: 2 | 3) {
  const headers = headersOf(bytes, layer);
  const inner = headers.findLast(({ name }) => name === 'ipv4');
  if (inner === undefined) return null;
  const view = new DataView(bytes.buffer);
  const protocol = bytes[inner.at + ipv4.PROTOCOL];
  const transport = headers.find(
    ({ at, name }) => at === inner.at + inner.length && ['tcp', 'udp', 'sctp'].includes(name),
  );
  return {
    protocol,
    source: dotted(view.getInt32(inner.at + ipv4.SRC)),
    destination: dotted(view.getInt32(inner.at + ipv4.DST)),
    sourcePort: transport === undefined ? 0 : view.getUint16(transport.at),
    destinationPort: transport === undefined ? 0 : view.getUint16(transport.at + 2),
  };
}

function endOf({ nodes, services }: Picture, address: string, port: number): PageEnd {
  const pod = nodes.flatMap(({ pods }) => pods).find(one => one.address === address);
  const service = services.find(({ addresses }) => addresses.includes(address));
  const node = nodes.find(one => one.address === address || one.host?.address === address);
  return { name: pod?.name ?? service?.name ?? node?.shortName ?? '', address, port };
}

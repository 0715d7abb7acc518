/** Filters of Hubble's API: the values of a field are or'ed, its fields and'ed, and a list of filters or'ed again. */
import { networkTest } from '../control/address.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { ciliumReasonOf, type Flow, tcpFlagNames } from './flow.ts';
import { hasLabel, isNamed, isPod, protocolOf } from './flow-filter.ts';
import type { FlowFilterMessage } from './hubble-proto.ts';

type Test = (flow: Flow) => boolean;

/** A filter asks for what flows here do not have. */
export class HubbleFilterError extends Error {
  override name = 'HubbleFilterError';
}

const FIELDS: { [K in keyof Required<FlowFilterMessage>]: (value: Required<FlowFilterMessage>[K][number]) => Test } = {
  source_ip: value => inNetwork(value, 'source'),
  destination_ip: value => inNetwork(value, 'destination'),
  source_pod: value => flow => isPod(flow.source, value),
  destination_pod: value => flow => isPod(flow.destination, value),
  source_label: value => flow => hasLabel(flow.source, value),
  destination_label: value => flow => hasLabel(flow.destination, value),
  source_service: value => flow => isNamed(flow.sourceService, value),
  destination_service: value => flow => isNamed(flow.destinationService, value),
  source_port: value => flow => flow.srcPort === Number(value),
  destination_port: value => flow => flow.dstPort === Number(value),
  source_identity: value => flow => flow.source.identity === value,
  destination_identity: value => flow => flow.destination.identity === value,
  verdict: value => flow => flow.verdict === value,
  event_type:
    ({ type = 0, match_sub_type = false, sub_type = 0 }) =>
    ({ eventType }) =>
      eventType.type === type && (!match_sub_type || eventType.subType === sub_type),
  protocol: value => {
    const protocol = protocolOf(value);
    if (protocol === undefined) throw new HubbleFilterError(`protocol ${value}: expected tcp, udp, icmp or sctp`);
    return flow => flow.protocol === protocol;
  },
  reply: value => flow => flow.isReply === value,
  tcp_flags: value => {
    const names = Object.keys(value).filter(name => value[name]);
    return flow => flow.protocol === ipv4.PROTO_TCP && names.every(name => tcpFlagNames(flow.tcpFlags).includes(name));
  },
  node_name: value => flow => flow.nodeName === value,
  ip_version: value => () => value === 'IPv4',
  traffic_direction: value => flow => flow.direction === value,
  drop_reason_desc: value => flow => flow.reason !== '' && ciliumReasonOf(flow.reason) === value,
};

/** Whether one of the filters takes a flow. @throws HubbleFilterError */
export function anyOf(filters: readonly FlowFilterMessage[]): Test {
  const tests = filters.map(filterOf);
  return flow => tests.some(test => test(flow));
}

function filterOf(filter: FlowFilterMessage): Test {
  const tests = Object.entries(filter).map(([name, values]) => {
    if (!Object.hasOwn(FIELDS, name)) throw new HubbleFilterError(`filter by ${name}: flows of this node have none`);
    const make = FIELDS[name as keyof FlowFilterMessage] as (value: unknown) => Test;
    const any = (values as unknown[]).map(make);
    return (flow: Flow) => any.some(test => test(flow));
  });
  return flow => tests.every(test => test(flow));
}

function inNetwork(value: string, side: 'source' | 'destination'): Test {
  const isIn = networkTest(value);
  if (isIn === undefined) throw new HubbleFilterError(`${side}_ip ${value}: expected an address or a network`);
  return flow => isIn(flow.ip[side]);
}

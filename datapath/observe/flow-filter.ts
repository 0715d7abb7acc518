/** Which flows somebody wants to see, by the options of `hubble observe`: values of one option are or'ed, options and'ed. */
import * as ipv4 from '../wire/ipv4.ts';
import { type Endpoint, type Flow, tcpFlagNames } from './flow.ts';

export interface FlowFilterOptions {
  verdict?: string[];
  reason?: string[];
  pod?: string[];
  fromPod?: string[];
  toPod?: string[];
  label?: string[];
  ip?: string[];
  fromIp?: string[];
  toIp?: string[];
  port?: string[];
  fromPort?: string[];
  toPort?: string[];
  protocol?: string[];
  service?: string[];
  tcpFlags?: string[];
  type?: string[];
}

type Test = (flow: Flow) => boolean;
type Side = 'source' | 'destination';

/** By the names that filters use. */
export const PROTOCOLS: Readonly<Record<string, number>> = {
  tcp: ipv4.PROTO_TCP,
  udp: ipv4.PROTO_UDP,
  icmp: ipv4.PROTO_ICMP,
  icmpv4: ipv4.PROTO_ICMP,
  sctp: ipv4.PROTO_SCTP,
};

/** An option's value is none that it can have. */
export class FlowFilterError extends Error {
  override name = 'FlowFilterError';
  readonly exitCode = 2;
}

/** @throws FlowFilterError that names option and value */
export function flowFilter(options: FlowFilterOptions): Test {
  const tests: Test[] = [];
  const add = (values: readonly string[] | undefined, make: (value: string) => Test) => {
    if (values === undefined || values.length === 0) return;
    const any = values.map(make);
    tests.push(flow => any.some(test => test(flow)));
  };
  add(options.verdict, value => {
    const verdict = value.toUpperCase();
    if (verdict !== 'FORWARDED' && verdict !== 'DROPPED') throw wrong('verdict', value, 'FORWARDED or DROPPED');
    return flow => flow.verdict === verdict;
  });
  add(options.reason, value => flow => flow.reason.replace(/^drop-/, '') === value.replace(/^drop-/, ''));
  add(options.pod, value => flow => isPod(flow.source, value) || isPod(flow.destination, value));
  add(options.fromPod, value => flow => isPod(flow.source, value));
  add(options.toPod, value => flow => isPod(flow.destination, value));
  add(options.label, value => flow => hasLabel(flow.source, value) || hasLabel(flow.destination, value));
  add(options.ip, value => either(side => flow => flow.ip[side] === value));
  add(options.fromIp, value => flow => flow.ip.source === value);
  add(options.toIp, value => flow => flow.ip.destination === value);
  for (const [option, sides] of [
    ['port', ['srcPort', 'dstPort']],
    ['fromPort', ['srcPort']],
    ['toPort', ['dstPort']],
  ] as const) {
    add(options[option], value => {
      const port = Number(value);
      if (!/^\d+$/.test(value) || port > 65535) throw wrong(kebab(option), value, 'a port from 0 to 65535');
      return flow => sides.some(side => flow[side] === port);
    });
  }
  add(options.protocol, value => {
    const protocol = PROTOCOLS[value.toLowerCase()];
    if (protocol === undefined) throw wrong('protocol', value, 'tcp, udp, icmp or sctp');
    return flow => flow.protocol === protocol;
  });
  add(options.service, value => flow => isNamed(flow.sourceService, value) || isNamed(flow.destinationService, value));
  add(options.tcpFlags, value => {
    const names = value.toUpperCase().split(',');
    const known = tcpFlagNames(0xff);
    const unknown = names.find(name => !known.includes(name));
    if (unknown !== undefined) throw wrong('tcp-flags', unknown, known.join(', '));
    return flow => flow.protocol === ipv4.PROTO_TCP && names.every(name => tcpFlagNames(flow.tcpFlags).includes(name));
  });
  add(options.type, value => {
    if (value !== 'drop' && value !== 'trace') throw wrong('type', value, 'drop or trace');
    return flow => (flow.verdict === 'DROPPED') === (value === 'drop');
  });
  return flow => tests.every(test => test(flow));
}

/** `default/p1`; `default/` for a whole namespace; `p1` is in the namespace default; a name may be cut, as with hubble. */
export function isPod({ namespace, podName }: Endpoint, value: string): boolean {
  if (podName === '') return false;
  const slash = value.indexOf('/');
  const wanted = slash < 0 ? 'default' : value.slice(0, slash);
  return (wanted === '' || wanted === namespace) && podName.startsWith(value.slice(slash + 1));
}

export function hasLabel({ labels }: Endpoint, value: string): boolean {
  return labels.some(label => label === value || label === `k8s:${value}` || label.startsWith(`k8s:${value}=`));
}

export function isNamed(service: string, value: string): boolean {
  return service !== '' && (service === value || service === `default/${value}`);
}

function either(test: (side: Side) => Test): Test {
  const [source, destination] = [test('source'), test('destination')];
  return flow => source(flow) || destination(flow);
}

function kebab(option: string): string {
  return option.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`);
}

function wrong(option: string, value: string, expected: string): FlowFilterError {
  return new FlowFilterError(`--${option} ${value}: expected ${expected}`);
}

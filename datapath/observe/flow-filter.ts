/** Which flows somebody wants to see, by the options of `hubble observe`: values of one option are or'ed, options and'ed. */
import { networkTest } from '../control/address.ts';
import { nearest } from '../control/nearest.ts';
import { VERDICT_NAMES } from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';
import {
  CILIUM_DROP_REASONS,
  ciliumReasonOf,
  type Endpoint,
  type Flow,
  OBSERVATION_POINTS,
  RESERVED_IDENTITIES,
  tcpFlagNames,
} from './flow.ts';

export interface FlowFilterOptions {
  verdict?: string[];
  reason?: string[];
  dropReasonDesc?: string[];
  type?: string[];
  nodeName?: string[];
  pod?: string[];
  fromPod?: string[];
  toPod?: string[];
  namespace?: string[];
  fromNamespace?: string[];
  toNamespace?: string[];
  label?: string[];
  fromLabel?: string[];
  toLabel?: string[];
  identity?: string[];
  fromIdentity?: string[];
  toIdentity?: string[];
  ip?: string[];
  fromIp?: string[];
  toIp?: string[];
  port?: string[];
  fromPort?: string[];
  toPort?: string[];
  service?: string[];
  fromService?: string[];
  toService?: string[];
  protocol?: string[];
  tcpFlags?: string[];
  trafficDirection?: string[];
}

const DROP_NAMES = VERDICT_NAMES.filter(name => name?.startsWith('drop-'));

type Test = (flow: Flow) => boolean;

/** By the names that filters use. */
const PROTOCOLS: Readonly<Record<string, number>> = {
  tcp: ipv4.PROTO_TCP,
  udp: ipv4.PROTO_UDP,
  icmp: ipv4.PROTO_ICMP,
  icmpv4: ipv4.PROTO_ICMP,
  sctp: ipv4.PROTO_SCTP,
};

export const PROTOCOL_NAMES = Object.keys(PROTOCOLS);

/** The number of a protocol by its name, in upper or lower case. */
export function protocolOf(name: string): number | undefined {
  const word = name.toLowerCase();
  return Object.hasOwn(PROTOCOLS, word) ? PROTOCOLS[word] : undefined;
}

/** An option's value is none that it can have. */
export class FlowFilterError extends Error {
  override name = 'FlowFilterError';
  readonly exitCode = 2;
}

/** One end of a flow. */
interface End {
  endpoint: Endpoint;
  address: string;
  port: number;
  service: string;
}

/** Options that are of one end or of either: `pod`, `fromPod`, `toPod`. */
const OF_AN_END: Readonly<Record<string, (value: string, option: string) => (end: End) => boolean>> = {
  pod: value => end => isPod(end.endpoint, value),
  namespace: value => end => end.endpoint.namespace === value,
  label: value => end => hasLabel(end.endpoint, value),
  service: value => end => isNamed(end.service, value),
  identity: (value, option) => {
    const reserved = Object.values(RESERVED_IDENTITIES).indexOf(value.replace(/^reserved:/, ''));
    if (reserved < 0 && !/^\d{1,9}$/.test(value)) throw wrong(option, value, 'a number, or a name such as world');
    const identity = reserved < 0 ? Number(value) : Number(Object.keys(RESERVED_IDENTITIES)[reserved]);
    return end => end.endpoint.identity === identity;
  },
  ip: (value, option) => {
    const isIn = networkTest(value);
    if (isIn === undefined) throw wrong(option, value, 'an address or a network');
    return end => isIn(end.address);
  },
  port: (value, option) => {
    const port = Number(value);
    if (!/^\d+$/.test(value) || port > 65535) throw wrong(option, value, 'a port from 0 to 65535');
    return end => end.port === port;
  },
};

const OTHERS: Readonly<Record<string, (value: string) => Test>> = {
  verdict: value => {
    const verdict = value.toUpperCase();
    if (verdict !== 'FORWARDED' && verdict !== 'DROPPED') throw wrong('verdict', value, 'FORWARDED or DROPPED');
    return flow => flow.verdict === verdict;
  },
  reason: value => {
    const reason = `drop-${value.replace(/^drop-/, '')}`;
    if (!DROP_NAMES.includes(reason)) throw wrong('reason', value, `a reason of docs/drops.md${likeOf(reason)}`);
    return flow => flow.reason === reason;
  },
  dropReasonDesc: value => {
    const name = value.toUpperCase();
    const known = [...new Set(Object.values(CILIUM_DROP_REASONS).map(reason => reason.name)), 'DROP_REASON_UNKNOWN'];
    if (!known.includes(name)) throw wrong('drop-reason-desc', value, known.join(', '));
    return flow => flow.verdict === 'DROPPED' && ciliumReasonOf(flow.reason) === name;
  },
  type: value => {
    const [type, point] = value.split(':');
    if ((type !== 'drop' && type !== 'trace') || (type === 'drop' && point !== undefined))
      throw wrong('type', value, 'drop, trace, or trace:to-endpoint');
    if (point === undefined) return flow => (flow.verdict === 'DROPPED') === (type === 'drop');
    const wanted = OBSERVATION_POINTS.find(name => optionOf(name) === point);
    if (wanted === undefined)
      throw wrong('type', value, `trace: and one of ${OBSERVATION_POINTS.map(optionOf).join(', ')}`);
    return flow => flow.point === wanted;
  },
  nodeName: value => {
    const pattern = new RegExp(`^${value.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`);
    return flow => pattern.test(flow.nodeName);
  },
  protocol: value => {
    const protocol = protocolOf(value);
    if (protocol === undefined) throw wrong('protocol', value, 'tcp, udp, icmp or sctp');
    return flow => flow.protocol === protocol;
  },
  tcpFlags: value => {
    const names = value.toUpperCase().split(',');
    const known = tcpFlagNames(0xff);
    const unknown = names.find(name => !known.includes(name));
    if (unknown !== undefined) throw wrong('tcp-flags', unknown, known.join(', '));
    return flow => flow.protocol === ipv4.PROTO_TCP && names.every(name => tcpFlagNames(flow.tcpFlags).includes(name));
  },
  trafficDirection: value => {
    const direction = value.toUpperCase();
    if (direction !== 'INGRESS' && direction !== 'EGRESS') throw wrong('traffic-direction', value, 'ingress or egress');
    return flow => flow.direction === direction;
  },
};

/**
 * As with hubble, options of either end all mean the same end: `pod` and `port`, that port of that pod.
 * @param excluded what takes all of those, too, is left out
 * @throws FlowFilterError that names option and value
 */
export function flowFilter(options: FlowFilterOptions, excluded: FlowFilterOptions = {}): Test {
  const isWanted = allOf(options) ?? (() => true);
  const isUnwanted = allOf(excluded) ?? (() => false);
  return flow => isWanted(flow) && !isUnwanted(flow);
}

/** Null where no option is given. */
function allOf(options: FlowFilterOptions): Test | null {
  const [left, right] = [testsOf(options, sourceOf), testsOf(options, destinationOf)];
  if (left.length === 0) return null;
  return flow => left.every(test => test(flow)) || right.every(test => test(flow));
}

/** A test for each option that is given. @param either the end that options of either mean */
function testsOf(options: FlowFilterOptions, either: (flow: Flow) => End): Test[] {
  return Object.entries(options).flatMap(([option, values]) => {
    const make = testOf(option, either);
    const any = make === null ? [] : ((values ?? []) as string[]).map(make);
    return any.length === 0 ? [] : [(flow: Flow) => any.some(test => test(flow))];
  });
}

/** Null for an option that is no filter. */
function testOf(option: string, either: (flow: Flow) => End): ((value: string) => Test) | null {
  if (Object.hasOwn(OTHERS, option)) return OTHERS[option];
  const [, side, rest] = /^(from|to)?(.*)$/.exec(option)!;
  const name = side === undefined ? option : rest.charAt(0).toLowerCase() + rest.slice(1);
  if (!Object.hasOwn(OF_AN_END, name)) return null;
  return value => {
    const test = OF_AN_END[name](value, kebab(option));
    if (side === 'from') return flow => test(sourceOf(flow));
    if (side === 'to') return flow => test(destinationOf(flow));
    return flow => test(either(flow));
  };
}

function sourceOf(flow: Flow): End {
  return { endpoint: flow.source, address: flow.ip.source, port: flow.srcPort, service: flow.sourceService };
}

function destinationOf(flow: Flow): End {
  const { destination, dstPort, destinationService } = flow;
  return { endpoint: destination, address: flow.ip.destination, port: dstPort, service: destinationService };
}

function likeOf(reason: string): string {
  const meant = nearest(reason, DROP_NAMES);
  return meant === undefined ? '' : ` (did you mean ${meant.replace(/^drop-/, '')}?)`;
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

/** As options spell it: `to-endpoint`. */
function optionOf(point: string): string {
  return point.toLowerCase().replaceAll('_', '-');
}

function kebab(option: string): string {
  return option.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`);
}

function wrong(option: string, value: string, expected: string): FlowFilterError {
  return new FlowFilterError(`--${option} ${value}: expected ${expected}`);
}

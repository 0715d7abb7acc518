/** Services, flows and ports as rows for `tunpath get`. */
import { type BackendRow, SERVICE_OWN, type Service, type ServicePort } from '../nat/service.ts';
import type { TranslatedRow } from '../nat/translation.ts';
import type { PolicyRule } from '../policy/policies.ts';
import { PROTO_GRE, PROTO_ICMP, PROTO_SCTP, PROTO_TCP, PROTO_UDP } from '../wire/ipv4.ts';
import { contains, formatAddress } from './address.ts';
import type { MasqueradeRuleConfig } from './config.ts';
import { parseAddress, parseCidr } from './validated.ts';

export interface PortedService {
  service: Service;
  port: ServicePort;
  backends: BackendRow[];
}

export interface PortUsage {
  address: number;
  dst: number;
  dstPort: number;
  protocol: number;
  used: number;
  of: number;
}

/** Of protocols whose flows have a name. */
export const PROTOCOL_NAMES: ReadonlyMap<number, string> = new Map([
  [PROTO_ICMP, 'icmp'],
  [PROTO_TCP, 'tcp'],
  [PROTO_UDP, 'udp'],
  [PROTO_SCTP, 'sctp'],
  [PROTO_GRE, 'gre'],
]);

function protocolName(protocol: number): string {
  return PROTOCOL_NAMES.get(protocol) ?? String(protocol);
}

/** One row for each address and port that a service answers at, as `cilium-dbg bpf lb list` shows its slot 0. */
export function serviceRows(services: PortedService[]): unknown[] {
  return services.flatMap(({ service, port, backends }) => {
    const row = (address: string, number: number, type: string) => ({
      name: service.name,
      type,
      address,
      port: number,
      protocol: protocolName(port.protocol),
      backends: backends
        .filter(backend => !backend.gone)
        .map(backend => `${formatAddress(backend.address)}:${backend.port}`),
      selector: service.selector ?? 'random',
      affinitySeconds: service.affinitySeconds ?? 0,
      internalTrafficPolicy: service.internalTrafficPolicy ?? 'Cluster',
      externalTrafficPolicy: service.externalTrafficPolicy ?? 'Cluster',
    });
    const at = (addresses: readonly number[] | undefined, type: string) =>
      (addresses ?? [])
        .filter(address => address !== SERVICE_OWN)
        .map(address => row(formatAddress(address), port.port, type));
    return [
      ...at(service.clusterAddresses, 'ClusterIP'),
      ...at(service.externalAddresses, 'ExternalIP'),
      ...at(service.loadBalancerAddresses, 'LoadBalancer'),
      ...(port.nodePort ? [row('0.0.0.0', port.nodePort, 'NodePort')] : []),
    ];
  });
}

/** One row for each backend. */
export function endpointRows(services: PortedService[]): unknown[] {
  return services.flatMap(({ service, port, backends }) =>
    backends.map(backend => {
      const spec = port.endpoints.find(e => e.address === backend.address && e.port === backend.port);
      return {
        service: service.name,
        id: backend.backend,
        address: formatAddress(backend.address),
        port: backend.port,
        protocol: protocolName(backend.protocol),
        ready: spec?.ready ?? false,
        serving: spec?.serving ?? false,
        terminating: spec?.terminating ?? false,
        local: spec?.local ?? false,
        weight: spec?.weight ?? 1,
        flows: backend.flows,
      };
    }),
  );
}

/** Addresses as text, and ports, or an ICMP query's identifier and type. */
export interface TupleRow {
  src: string;
  dst: string;
  sport?: number;
  dport?: number;
  id?: number;
  type?: number;
}

/** A row of `get conntrack`. */
export interface FlowRow {
  protocol: string;
  /** Of the protocol. */
  number: number;
  /** Seconds until it expires. */
  timeout: number;
  state: string | null;
  original: TupleRow;
  reply: TupleRow;
  unreplied: boolean;
  assured: boolean;
  dnat: boolean;
  snat: boolean;
  /** Of masquerade; 0: none. */
  rule: number;
  policy: { egress: string | null; ingress: string | null } | null;
  /** Seconds since it began. */
  age: number;
}

/** A flow with the columns of `conntrack -L`: the original tuple, and the one that replies carry. */
export function flowRow(row: TranslatedRow, rules: readonly PolicyRule[] = [], policyEpoch = 0): FlowRow {
  const isIcmp = row.protocol === PROTO_ICMP;
  const tuple = ({ src, dst, sport, dport }: TranslatedRow['original']) => ({
    src: formatAddress(src),
    dst: formatAddress(dst),
    ...(isIcmp ? { id: sport, type: dport } : { sport, dport }),
  });
  return {
    protocol: protocolName(row.protocol),
    number: row.protocol,
    timeout: row.expires,
    state: row.state === '' ? null : row.state,
    original: tuple(row.original),
    reply: tuple(row.reply),
    unreplied: !row.seenReply,
    assured: row.assured,
    dnat: row.dnat,
    snat: row.snat,
    rule: row.rule,
    policy: policyOf(row, rules, policyEpoch),
    age: row.age,
  };
}

/**
 * What the policies of now say of a flow in each direction: the rule that allows it, null where none had to, "denied". All of
 * it null if they have not judged it yet, which they do with its next packet.
 */
function policyOf(
  { policyEpoch, egressRule, ingressRule }: TranslatedRow,
  rules: readonly PolicyRule[],
  epoch: number,
) {
  if (epoch === 0 || (policyEpoch !== epoch && policyEpoch !== ~epoch)) return null;
  const name = (number: number) => {
    if (number < 0) return 'denied';
    return number === 0 || rules[number] === undefined ? null : `${rules[number].policy} rule ${rules[number].rule}`;
  };
  return { egress: name(egressRule), ingress: name(ingressRule) };
}

/** Ports in use some time ago, to tell where it is going. */
export interface PortSample {
  atMs: number;
  /** By portKey(). */
  used: Map<string, number>;
}

export function samplePorts(usage: PortUsage[], atMs: number): PortSample {
  return { atMs, used: new Map(usage.map(row => [portKey(row), row.used])) };
}

function portKey({ address, dst, dstPort, protocol }: PortUsage): string {
  return `${address} ${dst} ${dstPort} ${protocol}`;
}

/**
 * Ports in use towards each destination, the fullest first, and in how many seconds the rest will be gone if it goes on
 * as since `before`; null where it does not grow.
 * @param rules some of which say from which ports
 */
export function natRows(
  usage: PortUsage[],
  before: PortSample,
  nowMs: number,
  rules: readonly MasqueradeRuleConfig[] = [],
): unknown[] {
  const seconds = (nowMs - before.atMs) / 1000;
  return usage.map(row => {
    const { address, dst, dstPort, protocol, used } = row;
    const of = portsOf(rules, row) ?? row.of;
    const free = Math.max(0, of - used);
    const perSecond = (used - (before.used.get(portKey(row)) ?? 0)) / seconds;
    return {
      address: formatAddress(address),
      protocol: protocolName(protocol),
      destination: formatAddress(dst),
      port: dstPort,
      used,
      free,
      usedPercent: Math.round((used / of) * 1000) / 10,
      exhaustedInSeconds: perSecond > 0 ? Math.ceil(free / perSecond) : null,
    };
  });
}

/**
 * How many ports the rules give to flows that leave under this address for this destination: those of all rules that may
 * be meant, for who such a flow comes from is not known here.
 * @returns undefined where one of them names none, or the protocol has none
 */
function portsOf(rules: readonly MasqueradeRuleConfig[], { address, dst, protocol }: PortUsage): number | undefined {
  if (![PROTO_TCP, PROTO_UDP, PROTO_SCTP, PROTO_ICMP].includes(protocol)) return undefined;
  const isIn = (networks: readonly string[] | undefined, otherwise: boolean) =>
    networks === undefined ? otherwise : networks.some(network => contains(parseCidr(network), dst));
  const meant = rules.filter(
    ({ action, source, to, notTo }) =>
      action === 'MASQUERADE' &&
      (source === undefined || parseAddress(source) === address) &&
      isIn(to, true) &&
      !isIn(notTo, false),
  );
  const ranges = meant.map(({ ports }) => ports);
  if (ranges.length === 0 || ranges.some(range => range === undefined)) return undefined;
  const all = new Set<number>();
  for (const { low, high } of ranges as { low: number; high: number }[]) {
    for (let port = low; port <= high; port++) all.add(port);
  }
  return all.size;
}

/** What the loop says of the rules, in their order: hits[0] are the flows that none matched. */
export interface RuleHits {
  numbers: Int32Array;
  hits: Float64Array;
}

/**
 * The rules in order, each with the number that flows remember it by and how many it has decided; `-` for flows that no rule
 * matched. @param found null: no flow has been tracked yet
 */
export function masqueradeRows(rules: readonly MasqueradeRuleConfig[], found: RuleHits | null): unknown[] {
  const hits = found?.hits ?? [];
  const rows = rules.map((rule, i) => ({
    rule: found?.numbers[i + 1] ?? i + 1,
    action: rule.action,
    from: negatable(rule.from, rule.notFrom),
    to: negatable(rule.to, rule.notTo),
    mark: rule.mark === undefined ? null : `0x${rule.mark.value.toString(16)}/0x${rule.mark.mask.toString(16)}`,
    randomFully: rule.randomFully,
    flows: hits[i + 1] ?? 0,
  }));
  return [
    ...rows,
    { rule: null, action: 'none matched', from: null, to: null, mark: null, randomFully: null, flows: hits[0] ?? 0 },
  ];
}

function negatable(yes: readonly string[] | undefined, no: readonly string[] | undefined): string {
  const parts = [...(yes ?? []), ...(no ?? []).map(network => `!${network}`)];
  return parts.length === 0 ? 'any' : parts.join(',');
}

/**
 * What a step of the path went by, in words: the row or the rule, as the tables have it at that moment. Nothing is decided
 * here: the verdict is the step's own.
 */
import type { MasqueradeRuleConfig } from '../control/config.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import type { SimNode } from '../drive/sim.ts';
import type { FlowRow } from '../flow/flows.ts';
import { EGRESS_RULE, ENTRY_SHIFT, INGRESS_RULE, ORIGINAL } from '../flow/table.ts';
import { rowOf } from '../nat/translation.ts';
import { dotted } from '../packet/build.ts';
import type { Packet } from '../packet/packet.ts';
import * as steps from '../path/watcher.ts';
import type { Direction } from '../policy/policies.ts';
import { PORT_POD, PORT_UPLINK } from '../port.ts';
import { matches, namespaceOf, typesOf } from '../program/compile-policy.ts';
import * as hops from '../route/nexthop.ts';
import { CONTINUE, MUST_CUT, TAKEN } from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';

const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 132: 'sctp' };
const PREFIX_NAMES = ['service address', 'external address', 'load balancer address', 'node port'];

/** @param verdict what the step has said */
export function stepWords(node: SimNode, p: Packet, step: number, verdict: number): string {
  switch (step) {
    case steps.STEP_SOURCE:
      return sourceWords(node, p, verdict);
    case steps.STEP_PARSE:
      return parseWords(p, verdict);
    case steps.STEP_TUNNEL:
      return tunnelWords(p, verdict);
    case steps.STEP_FLOW:
      return flowWords(node, p, verdict);
    case steps.STEP_SERVICE:
      return serviceWords(node, p, verdict);
    case steps.STEP_EGRESS_POLICY:
      return policyWords(node, p, 'egress', verdict);
    case steps.STEP_ROUTE:
      return routeWords(node, p);
    case steps.STEP_INGRESS_POLICY:
      return policyWords(node, p, 'ingress', verdict);
    case steps.STEP_MASQUERADE:
      return masqueradeWords(node, p);
    case steps.STEP_REWRITE:
      return p.translated !== 0 || p.newSrc !== p.src ? 'as the flow says' : 'nothing to rewrite';
    case steps.STEP_MTU:
      return mtuWords(node, p, verdict);
    case steps.STEP_ENCAPSULATE:
      return encapsulateWords(node, p);
    case steps.STEP_NEIGHBOR:
      return neighborWords(node, p, verdict);
    default:
      return '';
  }
}

function sourceWords({ datapath }: SimNode, p: Packet, verdict: number): string {
  const port = datapath.ports[p.inPort];
  const source = dotted(datapath.view.getInt32(p.off + ipv4.SRC));
  if (port.kind === PORT_UPLINK) {
    return verdict === CONTINUE ? `${source} is nobody of this node` : `${source} cannot come from outside`;
  }
  if (port.kind !== PORT_POD) return 'the node itself may send from any address';
  return `${source} is ${verdict === CONTINUE ? '' : 'not '}an address of ${port.name}`;
}

function parseWords(p: Packet, verdict: number): string {
  if (verdict !== CONTINUE) return 'its headers do not hold';
  const ports = ipv4.hasPorts(p.protocol) ? ` ports ${p.srcPort} > ${p.dstPort}` : '';
  const piece = ipv4.isFragment(p.fragment) ? ', a fragment' : '';
  return `${PROTOCOLS[p.protocol] ?? `protocol ${p.protocol}`}${ports}${piece}`;
}

function tunnelWords(p: Packet, verdict: number): string {
  if (verdict !== CONTINUE) return 'not taken out of a tunnel';
  if (p.tunnelSource === 0) return 'for the node itself, in no tunnel of its';
  const identity = p.identity > 0 ? `, identity ${p.identity}` : '';
  return `from peer ${dotted(p.tunnelSource)}${identity}`;
}

function flowWords({ datapath }: SimNode, p: Packet, verdict: number): string {
  const { flows } = datapath;
  if (flows === null || verdict !== CONTINUE) return '';
  if (p.isNew !== 0) return 'new: no row of conntrack has these addresses';
  if (p.flow === 0) return 'about a packet that no flow came of';
  const row = rowOf(flows, p.flow, datapath.now);
  const related = p.isRelated !== 0 ? 'an error about ' : '';
  return `${related}${p.direction === ORIGINAL ? 'original' : 'reply'} direction of ${conntrackWords(row)}`;
}

/** `tcp SYN_SENT 10.244.1.10:40000 > 10.96.0.10:80, answered by 10.244.2.10:8080 > 10.244.1.10:40000` */
function conntrackWords({ protocol, state, original, reply }: FlowRow): string {
  const tuple = ({ src, dst, sport, dport }: FlowRow['original']) =>
    ipv4.hasPorts(protocol) ? `${dotted(src)}:${sport} > ${dotted(dst)}:${dport}` : `${dotted(src)} > ${dotted(dst)}`;
  const name = PROTOCOLS[protocol] ?? `protocol ${protocol}`;
  return `${name}${state === '' ? '' : ` ${state}`} ${tuple(original)}, answered by ${tuple(reply)}`;
}

function serviceWords({ datapath }: SimNode, p: Packet, verdict: number): string {
  const { nat } = datapath;
  const asked = ipv4.hasPorts(p.protocol) ? `${dotted(p.dst)}:${p.dstPort}` : dotted(p.dst);
  if (nat === null || verdict !== CONTINUE) return asked;
  if (p.backend === 0) {
    return p.translated !== 0 ? `${asked} is a mapping of ${dotted(p.newDst)}` : `${asked} is no service's`;
  }
  const { service, address, port } = nat.services.backendRow(p.backend);
  return `${service}, ${PREFIX_NAMES[p.via]} ${asked}: backend ${dotted(address)}:${port}`;
}

function routeWords({ datapath, config }: SimNode, p: Packet): string {
  const route = datapath.routes.match(p.newDst);
  if (route === null) return `no route to ${dotted(p.newDst)}`;
  const to = `${dotted(route.prefix)}/${route.length}`;
  const hop = datapath.nextHops[p.hop];
  switch (hop.kind) {
    case hops.HOP_REFUSE:
      return `${to} unreachable`;
    case hops.HOP_POD:
      return `${to} to ${datapath.ports[hop.port].name}, MTU ${hop.mtu}`;
    case hops.HOP_HOST:
      return `${to} to the node itself`;
    case hops.HOP_ONLINK:
      return `${to} on the uplink, MTU ${hop.mtu}`;
    case hops.HOP_GATEWAY:
      return `${to} via ${dotted(hop.gateway)}, MTU ${hop.mtu}`;
    default: {
      const peer = dotted(hop.peerAddress);
      const tunnel = config.spec.tunnels.find(({ peers }) => peers.some(({ address }) => address === peer));
      return `${to} by tunnel ${tunnel?.name ?? ''} to ${peer}, MTU ${hop.mtu}`;
    }
  }
}

function policyWords({ datapath, config }: SimNode, p: Packet, direction: Direction, verdict: number): string {
  const { policies, flows } = datapath;
  if (policies === null || flows === null) return '';
  if (p.isNew === 0) return 'judged when the flow began';
  const rule = flows.table.words[(p.flow << ENTRY_SHIFT) + (direction === 'egress' ? EGRESS_RULE : INGRESS_RULE)];
  if (rule > 0) return `allowed by ${policies.program.rules[rule].policy}, rule ${policies.program.rules[rule].rule}`;
  const who = direction === 'egress' ? p.src : p.newDst;
  const selecting = selectingPolicies(config, who, direction);
  if (selecting === null) return `${dotted(who)} is no pod of this node`;
  if (selecting.length === 0) return `no policy selects ${dotted(who)} for ${direction}`;
  const names = selecting.join(', ');
  return verdict === CONTINUE
    ? `never kept apart, whatever ${names} says`
    : `${names} selects it, and no rule allows this`;
}

/** Null for an address that no pod of the node has. */
function selectingPolicies({ spec }: ResolvedConfig, address: number, direction: Direction): string[] | null {
  const pod = spec.pods.find(one => one.address.split('/')[0] === dotted(address));
  if (pod === undefined) return null;
  return spec.policies
    .filter(
      policy =>
        policy.namespace === namespaceOf(pod.name) &&
        matches(policy.podSelector, pod.labels) &&
        [...typesOf(policy)].some(type => type.toLowerCase() === direction),
    )
    .map(({ namespace, name }) => `${namespace}/${name}`);
}

function masqueradeWords({ datapath, config }: SimNode, p: Packet): string {
  const { flows } = datapath;
  const number = Math.abs(p.rule);
  const rule = config.spec.masquerade[number - 1];
  const row = flows === null || p.flow === 0 ? null : rowOf(flows, p.flow, datapath.now);
  const port = row === null || !row.snat || !ipv4.hasPorts(p.protocol) ? '' : `:${row.reply.dport}`;
  const source = row?.snat === true ? `: source ${dotted(row.reply.dst)}${port}` : '';
  if (rule === undefined)
    return p.newSrc === p.src ? 'no rule matches' : `the service's answers must come back here${source}`;
  return p.rule < 0
    ? `rule ${number} says RETURN (${ruleWords(rule)})`
    : `rule ${number} (${ruleWords(rule)})${source}`;
}

function ruleWords({ from, notFrom, to, notTo }: MasqueradeRuleConfig): string {
  const part = (word: string, yes: readonly string[] | undefined, no: readonly string[] | undefined) => [
    ...(yes === undefined ? [] : [`${word} ${yes.join(', ')}`]),
    ...(no === undefined ? [] : [`not ${word} ${no.join(', ')}`]),
  ];
  const words = [...part('from', from, notFrom), ...part('to', to, notTo)];
  return words.length === 0 ? 'everything' : words.join('; ');
}

function mtuWords({ datapath }: SimNode, p: Packet, verdict: number): string {
  const hop = datapath.nextHops[p.hop];
  const size = `${p.len} bytes, ${hop.mtu} fit`;
  if (verdict === CONTINUE || verdict === MUST_CUT) return size;
  return `${size}; ttl ${datapath.view.getUint8(p.off + ipv4.TTL)}${(p.fragment & ipv4.FLAG_DF) === 0 ? '' : ', DF'}`;
}

function encapsulateWords({ datapath }: SimNode, p: Packet): string {
  const hop = datapath.nextHops[p.hop];
  const tunnel = datapath.tunnels.byNumber[hop.tunnel];
  return `${tunnel?.overhead ?? 0} bytes in front, to ${dotted(hop.peerAddress)}`;
}

function neighborWords({ datapath }: SimNode, p: Packet, verdict: number): string {
  const { kind, gateway } = datapath.nextHops[p.hop];
  const who = dotted(kind === hops.HOP_ONLINK ? p.newDst : gateway);
  if (verdict === TAKEN) return `waits until ${who} has answered ARP`;
  if (verdict !== CONTINUE) return `${who} did not answer ARP`;
  const at = p.off + ethernet.DST;
  const mac = Array.from({ length: 6 }, (_, i) =>
    datapath.view
      .getUint8(at + i)
      .toString(16)
      .padStart(2, '0'),
  );
  return `${who} is at ${mac.join(':')}`;
}

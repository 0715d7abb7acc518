/**
 * Steps 3 to 8 decide: under which addresses a packet leaves, and to which next hop. The decision is on the packet, whose
 * bytes stay as they came until rewriteAddresses, so that an error about it quotes what its sender knows.
 */
import type { Flows } from '../flow/flows.ts';
import type { Nat } from '../nat/nat.ts';
import { FROM_NODE, FROM_OUTSIDE, FROM_POD, SERVICE_LOOPBACK } from '../nat/service.ts';
import { KEEP_ID, type Packet } from '../packet/packet.ts';
import { segmentsOf } from '../packet/segment.ts';
import { PORT_HOST, PORT_POD, PORT_UPLINK } from '../port.ts';
import type { NextHop } from '../route/nexthop.ts';
import * as hops from '../route/nexthop.ts';
import * as verdict from '../verdict.ts';
import { CONTINUE } from '../verdict.ts';
import { answer } from './icmp.ts';
import * as ip from './ipv4.ts';
import type { Path } from './path.ts';

/** Nothing is decided about the packet yet. */
export function beginJudgement(p: Packet): void {
  p.sender = p.src;
  p.newSrc = p.src;
  p.newDst = p.dst;
  p.translated = 0;
  p.hairpin = 0;
  p.newId = KEEP_ID;
  p.isNew = 0;
}

/** Step 3: finds the packet's flow; `p.isNew` if it begins one. */
export function trackFlow(path: Path, p: Packet, flows: Flows): number {
  if (flows.table.perPayer > 0) flows.payer = path.ports[p.inPort].kind === PORT_POD ? p.inPort + 1 : 0;
  const v = flows.track(p, path.now);
  // Our own errors about packets that no flow came of: those were not rewritten, so neither is their quote.
  return p.local !== 0 && v === verdict.DROP_CT_ICMP_NO_FLOW ? CONTINUE : v;
}

/** Step 3, of a known flow: the packet will have the addresses that its flow says. */
export function followFlow(p: Packet, nat: Nat): number {
  return nat.translation.follow(p);
}

/** Step 4: chooses where a new flow goes, if its destination is a service's or a mapping's. */
export function chooseBackend(path: Path, p: Packet, nat: Nat): number {
  const { translation, services } = nat;
  const { kind } = path.ports[p.inPort];
  const outside = kind === PORT_UPLINK && p.tunnelSource === 0;
  const client = outside ? FROM_OUTSIDE : kind === PORT_HOST ? FROM_NODE : FROM_POD;
  const v = services.select(p, client, path.now);
  if (v === verdict.DROP_NO_SERVICE_ENDPOINT || v === verdict.DROP_UNKNOWN_SERVICE_PORT) {
    answer(path, p, ip.PORT_UNREACHABLE, 0); // kube-proxy's REJECT
  }
  if (v !== CONTINUE) return v;
  const w =
    p.backend !== 0
      ? translation.translateDestination(p, p.backendAddress, p.backendPort, p.backend)
      : translation.translateInbound(p, path.now, !outside);
  p.translated = p.newDst !== p.dst ? 1 : 0;
  if (p.backend === 0 && !outside && p.translated !== 0) p.hairpin = p.dst;
  return w;
}

/** Step 6: finds the next hop for the packet's destination, or says why there is none. */
export function lookupRoute(path: Path, p: Packet): number {
  const index = path.routes.lookup(p.newDst);
  p.hop = index;
  if (index !== 0 && path.nextHops[index].kind !== hops.HOP_REFUSE) return CONTINUE;
  // What has become of a service's address its sender does not know, so it hears of nothing.
  if (p.translated === 0) answer(path, p, index === 0 ? ip.NET_UNREACHABLE : ip.HOST_UNREACHABLE, 0);
  return index === 0 ? verdict.DROP_NO_ROUTE : verdict.DROP_ROUTE_REFUSED;
}

/** Step 8: decides under which source a new flow leaves, and enters the flow into the table. */
export function masqueradeFlow(path: Path, p: Packet, nat: Nat): number {
  const { translation, rules } = nat;
  const hop = path.nextHops[p.hop];
  // Towards a pod or a peer the interface is the host's; on the uplink it is the underlay's.
  const inside = hop.kind === hops.HOP_POD || hop.kind === hops.HOP_TUNNEL;
  const own = inside ? path.hostAddress : hop.kind === hops.HOP_HOST ? SERVICE_LOOPBACK : path.underlay.address;
  let v = CONTINUE;
  p.rule = 0;
  if (p.backend !== 0 && mustReturnHere(path, p, hop)) {
    v = translation.translateSource(p, own, 0, true, path.now);
    p.translated = 1;
  } else if (hop.kind !== hops.HOP_HOST && p.local === 0) {
    // A hairpin leaves as if it had gone outside: with the outside source (RFC 4787 REQ-9a).
    const { hairpin } = p;
    const rule = rules.match(p.src, hairpin !== 0 ? hairpin : p.newDst, p.protocol, p.mark);
    p.rule = rules.numberOf(rule);
    if (p.probe === 0) rules.countHit(rule);
    if (rule > 0) {
      const given = rules.source(rule);
      const source = given !== 0 ? given : hairpin !== 0 ? hairpin : own;
      v = translation.translateSource(
        p,
        source,
        p.rule,
        rules.keepsPort(rule),
        path.now,
        rules.minPort(rule),
        rules.maxPort(rule),
      );
    }
  }
  if (v === CONTINUE) v = translation.confirm(p, path.now);
  if (isOutOfResources(v)) answer(path, p, ip.PROHIBITED, 0); // RFC 5508 REQ-8
  return v;
}

/** Step 8 where nothing is translated: enters a new flow into the table. */
export function confirmFlow(path: Path, p: Packet, flows: Flows): number {
  const v = flows.confirm(p, path.now);
  if (isOutOfResources(v)) answer(path, p, ip.PROHIBITED, 0);
  return v;
}

/** The identification of a datagram that has been translated and may yet be fragmented (RFC 6864 section 5.3.1). */
export function chooseId(path: Path, p: Packet): void {
  if (!path.freshIds || p.newSrc === p.src || !ip.mayBeFragmented(p)) return;
  // The segments of a superpacket count on from the first.
  p.newId = path.takeIds(segmentsOf(path.view, p));
}

/** After the decision: the packet gets the addresses and ports of its flow. */
export function rewriteAddresses(p: Packet, nat: Nat): number {
  return nat.translation.translate(p);
}

/** Would the backend's answer miss us? Then the flow must carry our source. */
function mustReturnHere(path: Path, p: Packet, hop: NextHop): boolean {
  const { kind } = path.ports[p.inPort];
  const fromNode = kind === PORT_HOST;
  if (hop.kind === hops.HOP_HOST && hop.gateway === 0) {
    // What the node itself gets it answers by way of here, unless it asked itself, or has another path to who asked: then no
    // policy can keep the client's address.
    const isBeside = path.underlay.besideKernel === true && kind === PORT_UPLINK && p.tunnelSource === 0;
    return isBeside || (fromNode && p.masquerade !== 0);
  }
  if (p.masquerade === 0 || hop.kind === hops.HOP_HOST) return false;
  // Cilium keeps the client's address for a backend on the node that was asked; a hairpin needs ours in any case.
  return path.alwaysMasquerade || fromNode || hop.kind !== hops.HOP_POD || p.src === p.newDst;
}

/** No flow could be made, for want of a port or of a place in the table. */
function isOutOfResources(v: number): boolean {
  return (
    v === verdict.DROP_NAT_PORTS_EXHAUSTED || v === verdict.DROP_CT_TABLE_FULL || v === verdict.DROP_CT_SOURCE_QUOTA
  );
}

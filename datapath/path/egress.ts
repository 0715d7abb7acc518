/**
 * Steps 9 to 11 by where a packet leads: to a pod, to the host, or by the uplink, into the tunnel or not. Whatever the device
 * there does not take as it is gets cut and completed first.
 */
import * as counters from '../counters.ts';
import { KEEP_ID, type Packet } from '../packet/packet.ts';
import { completeChecksum, segment } from '../packet/segment.ts';
import { CONDITION_GONE, PORT_POD, PORT_UPLINK, type Port } from '../port.ts';
import type { NextHop } from '../route/nexthop.ts';
import * as hops from '../route/nexthop.ts';
import type { Tunnel } from '../tunnel/tunnel.ts';
import * as verdict from '../verdict.ts';
import { CONTINUE, MUST_CUT, TAKEN } from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import { answer, answerEcho } from './icmp.ts';
import * as ip from './ipv4.ts';
import { checkTtlAndMtu, clampToPath, isFromHost, mtuOf, uncutMtuOf, wireLength } from './mtu.ts';
import { MAX_PIECES, type Path } from './path.ts';
import { writePodFrame } from './pod-link.ts';
import { STEP_ENCAPSULATE, STEP_MTU, STEP_NEIGHBOR } from './watcher.ts';

// ---------------------------------------------------------------- by destination

export function sendToPod(path: Path, p: Packet, hop: NextHop): number {
  // Linux decrements wherever it forwards; Cilium at delivery, whoever sent.
  const forwarded = path.decrementAtDelivery || !isFromHost(path, p);
  const port = path.ports[hop.port];
  if (!port.isUp()) return refuse(path, p, port);
  const v = path.took(STEP_MTU, p, checkTtlAndMtu(path, p, hop, forwarded));
  if (v === CONTINUE) return deliver(path, p, port, counters.EVENT_DELIVERED_POD);
  return v === MUST_CUT ? cutAndSend(path, p, hop, port) : v;
}

export function sendToHost(path: Path, p: Packet, hop: NextHop): number {
  const { host } = path;
  if (host === null || !host.owns(p.dst) || reachesKernel(path, p)) return answerEcho(path, p);
  // With its own source its kernel would not take it back; with another it is a service of the node that leads to itself.
  if (path.ports[p.inPort] === host && p.local === 0 && p.src === p.sender) return verdict.DROP_ROUTE_LOOP;
  if (hop.clampMss !== 0) clampToPath(path, p, hop);
  return deliver(path, p, host, counters.EVENT_DELIVERED_HOST);
}

export function sendToUnderlay(path: Path, p: Packet, hop: NextHop): number {
  const { uplink } = path;
  if (uplink === null) return verdict.DROP_NO_PORT;
  if (!uplink.isUp()) return refuse(path, p, uplink);
  const inPort = path.ports[p.inPort];
  // Somebody else's packet for somebody else: only where an explicit route says so, or the wire would be open to anyone.
  const foreign = inPort === uplink && p.tunnelSource === 0 && p.local === 0 && p.translated === 0;
  if (foreign && hop.transit === 0) return verdict.DROP_NOT_ROUTED;
  // Cilium's tunnel node leaves the TTL alone on the way in; what comes from a tunnel and goes on is decremented always.
  const intoTunnel = hop.kind === hops.HOP_TUNNEL && path.decrementAtDelivery && inPort.kind === PORT_POD;
  const v = path.took(STEP_MTU, p, checkTtlAndMtu(path, p, hop, !intoTunnel && !isFromHost(path, p)));
  if (v === CONTINUE) return encapsulate(path, p, hop, uplink);
  return v === MUST_CUT ? cutAndSend(path, p, hop, uplink) : v;
}

/** True for what the node's kernel gets from the link itself; a copy is here because it may have been ours (control/uplink/steering.ts). */
function reachesKernel({ underlay, ports }: Path, p: Packet): boolean {
  if (underlay.besideKernel !== true || p.dst !== underlay.address) return false;
  return ports[p.inPort].kind === PORT_UPLINK && p.tunnelSource === 0 && p.local === 0 && p.translated === 0;
}

/** Nothing gets through to where it leads: its sender hears of it, as from a kernel whose neighbour does not answer. */
function refuse(path: Path, p: Packet, { condition }: Port): number {
  answer(path, p, ip.HOST_UNREACHABLE, 0);
  return condition === CONDITION_GONE ? verdict.DROP_PORT_GONE : verdict.DROP_DEVICE_DOWN;
}

function deliver(path: Path, p: Packet, port: Port, event: number): number {
  if (!port.takes(p)) {
    if (p.gsoType !== 0) return segmentAndSend(path, p, null, port);
    completeChecksum(path.view, p);
  }
  path.counters.event(event);
  queuePacket(path, p, port);
  return TAKEN;
}

function queuePacket(path: Path, p: Packet, port: Port): void {
  if (port.link !== null) writePodFrame(path, p, port.link);
  port.queue(p);
}

// ---------------------------------------------------------------- 9. what is too long

function cutAndSend(path: Path, p: Packet, hop: NextHop, port: Port): number {
  return p.gsoType !== 0 ? segmentAndSend(path, p, hop, port) : fragmentAndSend(path, p, hop, port);
}

function fragmentAndSend(path: Path, p: Packet, hop: NextHop, port: Port): number {
  const pieces = path.fragments;
  const n = ip.cut(path.pool, p, mtuOf(path, hop), ip.needsId(p) ? path.takeIds(1) : KEEP_ID, pieces);
  if (n === 0) return verdict.DROP_NO_BUFFER;
  path.counters.event(counters.EVENT_FRAGMENTED);
  path.counters.event(counters.EVENT_FRAGMENTS_SENT, n);
  for (let i = 0; i < n; i++) sendPiece(path, pieces[i], hop, port);
  path.pool.release(p);
  return TAKEN;
}

/** Cuts a superpacket in software, where it is not taken whole. Pieces still too long are fragmented. */
function segmentAndSend(path: Path, p: Packet, hop: NextHop | null, port: Port): number {
  const pieces = path.segments;
  const n = segment(path.pool, p, pieces, MAX_PIECES);
  if (n === 0) return verdict.DROP_NO_BUFFER;
  path.counters.event(counters.EVENT_SEGMENTED);
  path.counters.event(counters.EVENT_SEGMENTS_SENT, n);
  for (let i = 0; i < n; i++) {
    const s = pieces[i];
    if (hop === null || s.len <= mtuOf(path, hop)) {
      sendPiece(path, s, hop, port);
      continue;
    }
    const v = fragmentAndSend(path, s, hop, port);
    if (v !== TAKEN) path.drop(s, v);
  }
  path.pool.release(p);
  return TAKEN;
}

function sendPiece(path: Path, p: Packet, hop: NextHop | null, port: Port): void {
  if (port.kind === PORT_UPLINK && hop !== null) {
    const v = encapsulate(path, p, hop, port);
    if (v !== TAKEN) path.drop(p, v);
    return;
  }
  path.counters.event(port.kind === PORT_POD ? counters.EVENT_DELIVERED_POD : counters.EVENT_DELIVERED_HOST);
  queuePacket(path, p, port);
}

// ---------------------------------------------------------------- 10. encapsulate

/** Puts the tunnel's headers in front where the next hop is a peer, and sends the packet to its neighbour. */
function encapsulate(path: Path, p: Packet, hop: NextHop, uplink: Port): number {
  const isTunnel = hop.kind === hops.HOP_TUNNEL;
  const tunnel = path.tunnels.byNumber[hop.tunnel];
  if (isTunnel && tunnel === null) return verdict.DROP_NO_TUNNEL_PEER;
  if (isTunnel && path.dropFromExit && p.src === hop.peerAddress) return verdict.DROP_ROUTE_LOOP;
  if (tunnel !== null && hop.tooBig === hops.TOO_BIG_FRAGMENT_OUTER && wireLength(path, p) > uncutMtuOf(path, hop)) {
    return p.gsoType !== 0
      ? segmentAndSend(path, p, hop, uplink)
      : encapsulateAndFragment(path, p, hop, tunnel, uplink);
  }
  if (!(tunnel === null ? uplink.takes(p) : uplink.takesInside(tunnel, p))) {
    if (p.gsoType !== 0) return segmentAndSend(path, p, hop, uplink);
    completeChecksum(path.view, p);
  }
  if (path.ledger !== null) path.ledger.sent(p, hop.tunnel);
  if (tunnel !== null) {
    p.innerNetwork = p.off;
    tunnel.encap(p, hop.peer);
    path.took(STEP_ENCAPSULATE, p, CONTINUE);
    path.counters.event(counters.EVENT_ENCAPSULATED);
  }
  return sendToNeighbor(path, p, hop.kind === hops.HOP_ONLINK ? p.dst : hop.gateway, uplink);
}

/** The tunnel's own packet is what is cut (RFC 4459 section 3.1). */
function encapsulateAndFragment(path: Path, p: Packet, hop: NextHop, tunnel: Tunnel, uplink: Port): number {
  completeChecksum(path.view, p);
  const pieces = path.outerFragments;
  const l4 = tunnel.overhead + p.l4 - p.off;
  if (path.ledger !== null) path.ledger.sent(p, hop.tunnel);
  tunnel.encap(p, hop.peer);
  path.counters.event(counters.EVENT_ENCAPSULATED);
  const n = ip.cut(path.pool, p, path.pathMtu.lookup(hop.peerAddress, path.now), KEEP_ID, pieces);
  if (n === 0) return verdict.DROP_NO_BUFFER;
  path.counters.event(counters.EVENT_FRAGMENTED);
  path.counters.event(counters.EVENT_FRAGMENTS_SENT, n);
  for (let i = 0; i < n; i++) {
    const q = pieces[i];
    // As after every encapsulation, what was parsed is the inner packet's.
    q.l4 = q.off + l4;
    q.innerNetwork = q.off + tunnel.overhead;
    const v = sendToNeighbor(path, q, hop.gateway, uplink);
    if (v !== TAKEN) path.drop(q, v);
  }
  path.pool.release(p);
  return TAKEN;
}

// ---------------------------------------------------------------- 11. next hop

/** Writes the Ethernet header for the neighbour with this address, or leaves the packet with ARP until it is known. */
function sendToNeighbor(path: Path, p: Packet, address: number, uplink: Port): number {
  const { neighbors } = path;
  p.push(ethernet.HEADER_LEN);
  const n = neighbors.resolve(address, path.now);
  if (n < 0) return verdict.DROP_NEIGHBOR_TABLE_FULL;
  if (!neighbors.usable(n)) return path.took(STEP_NEIGHBOR, p, neighbors.hold(n, p));
  neighbors.writeHeader(n, p.off);
  path.took(STEP_NEIGHBOR, p, CONTINUE);
  uplink.queue(p);
  return TAKEN;
}

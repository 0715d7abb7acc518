/**
 * What the underlay sends to the node's own address: packets of its tunnels, whole or in fragments, whose inner packet
 * enters the path; and ICMP errors about packets that we sent into a tunnel.
 */
import * as counters from '../counters.ts';
import { MIN_MTU } from '../mtu/path-mtu.ts';
import { quotesTunnel, readQuote } from '../mtu/tunnel-quote.ts';
import type { Packet } from '../packet/packet.ts';
import { segment } from '../packet/segment.ts';
import { IDENTITY_WORLD, type Port } from '../port.ts';
import * as hops from '../route/nexthop.ts';
import type { Tunnel } from '../tunnel/tunnel.ts';
import { CONTINUE, DONE, DROP_MARTIAN_SOURCE, DROP_NO_BUFFER, DROP_TUNNEL_ERROR, TAKEN } from '../verdict.ts';
import * as vnet from '../wire/virtio-net.ts';
import { answer } from './icmp.ts';
import { parsePacket, refuseTunnelPacket } from './ingress.ts';
import * as ip from './ipv4.ts';
import { MAX_PIECES, type Path } from './path.ts';

/**
 * Takes a parsed packet for the node's own address out of its tunnel, if it came through one.
 * @returns CONTINUE: `p` is the inner packet, or no tunnel's business; DONE: it was an error about a tunnel packet; TAKEN
 */
export function openTunnel(path: Path, p: Packet): number {
  const { tunnels } = path;
  if (ip.isFragment(p) && tunnels.mayCarry(p)) return reassemble(path, p);
  const tunnel = tunnels.find(p);
  if (tunnel !== null) return decapsulate(path, p, tunnel);
  return ip.isIcmp(p) ? readTunnelError(path, p) : CONTINUE;
}

function decapsulate(path: Path, p: Packet, tunnel: Tunnel): number {
  if (p.gsoType === vnet.GSO_UDP_L4) return cutTrain(path, p, tunnel);
  let v = tunnel.decap(p);
  if (v !== CONTINUE) return v;
  v = parsePacket(path, p);
  if (v !== CONTINUE) return v;
  // The outer source was checked as a peer; the inner one is another matter: nobody outside may speak for us.
  if (path.isMartian(p.src)) return DROP_MARTIAN_SOURCE;
  v = refuseTunnelPacket(path, p);
  if (v !== CONTINUE) return v;
  path.counters.event(counters.EVENT_DECAPSULATED);
  if (path.ledger !== null) path.ledger.received(p, path.tunnels.byNumber.indexOf(tunnel));
  return CONTINUE;
}

/** Tunnel packets that somebody's GRO has joined into one train: each is a packet of its own. */
function cutTrain(path: Path, p: Packet, tunnel: Tunnel): number {
  const { train } = path;
  const n = segment(path.pool, p, train, MAX_PIECES);
  if (n === 0) return DROP_NO_BUFFER;
  path.counters.event(counters.EVENT_SEGMENTED);
  path.counters.event(counters.EVENT_SEGMENTS_SENT, n);
  for (let i = 0; i < n; i++) {
    const s = train[i];
    let v = parsePacket(path, s);
    if (v === CONTINUE) v = decapsulate(path, s, path.tunnels.find(s) ?? tunnel);
    if (v === CONTINUE) path.enter(s);
    else if (v !== TAKEN) path.drop(s, v);
  }
  path.pool.release(p);
  return TAKEN;
}

/** A fragment of what may be a tunnel packet: the exit of a tunnel puts together what was cut inside (RFC 4459 section 3.1). */
function reassemble(path: Path, p: Packet): number {
  const v = path.reassembly.accept(p, 0, path.now);
  const whole = path.reassembly.takeWhole();
  if (whole === null) return v === CONTINUE ? DONE : v;
  whole.inPort = (path.uplink as Port).index;
  whole.identity = IDENTITY_WORLD;
  const tunnel = path.tunnels.find(whole);
  const w = tunnel === null ? CONTINUE : decapsulate(path, whole, tunnel);
  if (w === CONTINUE) path.enter(whole);
  else if (w !== TAKEN) path.drop(whole, w);
  return v === CONTINUE ? DONE : v;
}

/** Reads an ICMP error that may be about a packet of a tunnel. @returns CONTINUE: it is about something else */
function readTunnelError(path: Path, p: Packet): number {
  const { list } = path.tunnels;
  let refusal = CONTINUE;
  for (let i = 0; i < list.length; i++) {
    if (!quotesTunnel(path.view, p, list[i])) continue;
    const v = readQuote(path.view, p, list[i], path.quoted);
    if (v === CONTINUE) return learnFromError(path, p, list[i]);
    // Of two that share a port the quote may be the other's.
    refusal = v;
  }
  return refusal;
}

/**
 * The underlay says that a packet of the tunnel was too big, and the peer's path MTU goes down; or that it cannot be
 * delivered. The inner sender, whose packet is in `path.quoted`, hears of it where the profile and the route say so.
 */
function learnFromError(path: Path, p: Packet, tunnel: Tunnel): number {
  const { view, quoted } = path;
  const error = ip.errorOf(view, p);
  if (error !== ip.TOO_BIG) {
    const relayed = path.relayTunnelErrors ? ip.relayedError(error) : -1;
    if (relayed < 0 || quoted.len === 0) return DROP_TUNNEL_ERROR;
    path.counters.event(counters.EVENT_TUNNEL_ERRORS);
    answer(path, quoted, relayed, 0);
    return DONE;
  }
  path.counters.event(counters.EVENT_TUNNEL_ERRORS);
  const mtu = ip.learnPathMtu(view, p, path.pathMtu, path.now);
  if (mtu > 0 && quoted.len > 0 && path.nextHops[path.routes.lookup(quoted.dst)].tooBig === hops.TOO_BIG_SIGNAL) {
    answer(path, quoted, ip.TOO_BIG, Math.max(MIN_MTU, mtu - tunnel.overhead));
  }
  return DONE;
}

/** What the node says itself: ICMP errors about packets that end here, and answers to ping. */
import * as counters from '../counters.ts';
import { buildIcmpError, mayAnswer, turnEcho } from '../mtu/icmp-error.ts';
import type { Packet } from '../packet/packet.ts';
import { IDENTITY_REMOTE_NODE, PORT_HOST, PORT_UPLINK } from '../port.ts';
import { DROP_ICMP_RATE_LIMIT, DROP_NO_HOST_PORT, TAKEN } from '../verdict.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Path } from './path.ts';

/** Behind its header, an error quotes so much of a packet at least (RFC 792). */
const QUOTED_PAYLOAD = 8;

/**
 * Sends an error about `p` to its sender, if the rules allow one. `p` stays the caller's, and unchanged: the error goes
 * through the whole path as a packet of its own, in the middle of a step of `p`.
 * @param info the next-hop MTU for CODE_FRAG_NEEDED, else 0
 */
export function answer(path: Path, p: Packet, type: number, code: number, info: number): void {
  if (!mayAnswer(path.view, p)) return;
  if (!path.limiter.allow(type, code, p.src, path.now)) {
    path.counters.drop(DROP_ICMP_RATE_LIMIT, 0);
    return;
  }
  const e = buildIcmpError(path.pool, p, type, code, info, errorSource(path, p));
  if (e === null) return;
  e.inPort = p.inPort;
  e.trace = p.trace;
  e.owner = path.id;
  e.identity = IDENTITY_REMOTE_NODE;
  path.counters.event(
    type === icmp.TIME_EXCEEDED
      ? counters.EVENT_ICMP_TIME_EXCEEDED_SENT
      : code === icmp.CODE_FRAG_NEEDED
        ? counters.EVENT_ICMP_FRAG_NEEDED_SENT
        : counters.EVENT_ICMP_UNREACHABLE_SENT,
  );
  const v = path.forward(e);
  if (v !== TAKEN) path.drop(e, v);
}

/** The node still answers ping to an address of its own that is at no host port: there is none, or the address is not its. */
export function answerEcho(path: Path, p: Packet): number {
  const { view } = path;
  const isPart = ipv4.isFragment(p.fragment);
  if (p.protocol !== ipv4.PROTO_ICMP || isPart || view.getUint8(p.l4 + icmp.TYPE) !== icmp.ECHO) {
    return DROP_NO_HOST_PORT;
  }
  turnEcho(view, p);
  p.identity = IDENTITY_REMOTE_NODE;
  path.counters.event(counters.EVENT_ICMP_ECHO_ANSWERED);
  return path.forward(p);
}

/**
 * Moves a packet that has been encapsulated back to the inner one, which alone its sender knows; any other stays. By what
 * the packet says of itself: the tunnel may be another by now.
 * @returns false for a piece of a tunnel packet with too little of the inner one to quote
 */
export function takeOffTunnel(path: Path, p: Packet): boolean {
  const { view } = path;
  // Parsed fields are those of the inner packet: if the header in front is not that of `l4`, it is the tunnel's.
  if ((p.fragment & ipv4.OFFSET_MASK) !== 0 || p.off + ipv4.headerLen(view, p.off) === p.l4) return true;
  const isCut = (view.getUint16(p.off + ipv4.FLAGS_FRAGMENT) & ipv4.FLAG_MF) !== 0;
  if (isCut && p.off + p.len < p.l4 + QUOTED_PAYLOAD) return false;
  p.pull(p.innerNetwork - p.off);
  p.fragment = view.getUint16(p.off + ipv4.FLAGS_FRAGMENT);
  return true;
}

/** An address that the sender can reach, and that its kernel does not take for its own (RFC 1812 section 4.3.2.4). */
function errorSource(path: Path, p: Packet): number {
  const port = path.ports[p.inPort];
  if (port.kind === PORT_HOST) return p.dst;
  if (port.kind === PORT_UPLINK && p.tunnelSource === 0) return path.underlay.address;
  return path.hostAddress;
}

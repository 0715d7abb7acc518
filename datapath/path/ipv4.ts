/**
 * What the steps of the path need to know of IPv4: its header, hop limit, fragments and errors. The steps themselves know
 * no field of it, so that another family is a module like this one, beside it.
 */
import type { Counters } from '../counters.ts';
import {
  EVENT_ICMP_FRAG_NEEDED_SENT,
  EVENT_ICMP_PARAMETER_PROBLEM_SENT,
  EVENT_ICMP_TIME_EXCEEDED_SENT,
  EVENT_ICMP_UNREACHABLE_SENT,
} from '../counters.ts';
import { fragment } from '../mtu/fragment.ts';
import { buildIcmpError, type IcmpLimiter, mayAnswer, relayedCode, turnEcho } from '../mtu/icmp-error.ts';
import type { PathMtu } from '../mtu/path-mtu.ts';
import { quotedHeader, quotedMtu } from '../mtu/tunnel-quote.ts';
import { KEEP_ID, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { CONTINUE, DROP_MALFORMED_IPV4, DROP_MULTICAST, DROP_NOT_IPV4 } from '../verdict.ts';
import { TYPE_IPV4 } from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';

export { faultyOption, parseIpv4 as parse } from '../packet/parse.ts';
/** Sources that name no host: for any system, and for one that follows RFC 1812 to the letter. */
export { isMartian, isRfc1812Martian } from '../wire/ipv4.ts';
export const ETHERTYPE = TYPE_IPV4;
/** First byte of a header of version 4 with 20 bytes. */
const NO_OPTIONS = 0x45;
/** Behind its header, an error quotes so much of a packet at least (RFC 792). */
const QUOTED_PAYLOAD = 8;

// What a sender is told. By these numbers: ICMP type << 8 | code.
export const NET_UNREACHABLE = (icmp.UNREACHABLE << 8) | icmp.CODE_NET_UNREACHABLE;
export const HOST_UNREACHABLE = (icmp.UNREACHABLE << 8) | icmp.CODE_HOST_UNREACHABLE;
export const PORT_UNREACHABLE = (icmp.UNREACHABLE << 8) | icmp.CODE_PORT_UNREACHABLE;
export const PROHIBITED = (icmp.UNREACHABLE << 8) | icmp.CODE_ADMIN_PROHIBITED;
export const TOO_BIG = (icmp.UNREACHABLE << 8) | icmp.CODE_FRAG_NEEDED;
export const HOPS_EXCEEDED = (icmp.TIME_EXCEEDED << 8) | icmp.CODE_TTL_IN_TRANSIT;
export const BAD_HEADER = icmp.PARAMETER_PROBLEM << 8;
export const REASSEMBLY_EXCEEDED = (icmp.TIME_EXCEEDED << 8) | icmp.CODE_REASSEMBLY;

/** Is there a header of this family at all? Before parse(). */
export function checkVersion(view: DataView, p: Packet): number {
  if (p.len < ipv4.HEADER_LEN) return DROP_MALFORMED_IPV4;
  return view.getUint8(p.off) >> 4 === 4 ? CONTINUE : DROP_NOT_IPV4;
}

/** True where the header is longer than its fixed part. */
export function hasOptions(view: DataView, p: Packet): boolean {
  return view.getUint8(p.off) !== NO_OPTIONS;
}

/** The source, before parse(). */
export function sourceOf(view: DataView, p: Packet): number {
  return view.getInt32(p.off + ipv4.SRC);
}

/** Groups, broadcast and what is reserved are not forwarded. */
export function checkUnicast(p: Packet): number {
  return p.dst >>> 28 >= 14 ? DROP_MULTICAST : CONTINUE;
}

export function isFragment(p: Packet): boolean {
  return ipv4.isFragment(p.fragment);
}

/** A fragment that does not begin its datagram, and so has no transport header. */
export function isLaterFragment(p: Packet): boolean {
  return (p.fragment & ipv4.OFFSET_MASK) !== 0;
}

export function mayBeFragmented(p: Packet): boolean {
  return (p.fragment & ipv4.FLAG_DF) === 0;
}

export function isTcp(p: Packet): boolean {
  return p.protocol === ipv4.PROTO_TCP;
}

export function isSctp(p: Packet): boolean {
  return p.protocol === ipv4.PROTO_SCTP;
}

export function isIcmp(p: Packet): boolean {
  return p.protocol === ipv4.PROTO_ICMP;
}

export function hopLimit(view: DataView, p: Packet): number {
  return view.getUint8(p.off + ipv4.TTL);
}

export function decrementHopLimit(view: DataView, p: Packet): void {
  ipv4.decrementTtl(view, p.off);
}

export function setId(view: DataView, p: Packet, id: number): void {
  ipv4.setId(view, p.off, id);
}

/**
 * Fragments `p`, which stays the caller's.
 * @param id the identification that it gets first, or KEEP_ID
 * @returns how many pieces; 0: there is no room
 */
export function cut(pool: Pool, p: Packet, mtu: number, id: number, out: Packet[]): number {
  if (id !== KEEP_ID) pool.view.setUint16(p.off + ipv4.ID, id);
  return fragment(pool, p, mtu, out);
}

/** True for a packet whose identification need not be unique (RFC 6864 section 4.1), so that it needs one to be cut. */
export function needsId(p: Packet): boolean {
  return (p.fragment & ipv4.FLAG_DF) !== 0 && !ipv4.isFragment(p.fragment);
}

/** Makes the answer of an echo request, in its place. */
/** Whether an error may be sent about this packet at all (RFC 1812 section 4.3.2.7), and not too many are. */
export { mayAnswer, turnEcho as turnIntoEchoReply };

export function isLimited(limiter: IcmpLimiter, p: Packet, error: number, now: number): boolean {
  return !limiter.allow(error >>> 8, error & 0xff, p.src, now);
}

/**
 * Builds an error about `p`, which stays the caller's.
 * @param info the next-hop MTU for TOO_BIG, the byte in question for BAD_HEADER, else 0
 * @param source address that it is sent from (int32)
 * @param options of its header, `optionsLength` bytes of them
 * @returns the packet, parsed and marked local, or null without a free slot
 */
export function buildError(
  pool: Pool,
  p: Packet,
  error: number,
  info: number,
  source: number,
  options: DataView,
  optionsLength: number,
): Packet | null {
  const behind = error === BAD_HEADER ? info << 24 : info;
  return buildIcmpError(pool, p, error >>> 8, error & 0xff, behind, source, options, optionsLength);
}

export function countError(counters: Counters, error: number): void {
  if (error >>> 8 === icmp.TIME_EXCEEDED) counters.event(EVENT_ICMP_TIME_EXCEEDED_SENT);
  else if (error === BAD_HEADER) counters.event(EVENT_ICMP_PARAMETER_PROBLEM_SENT);
  else counters.event(error === TOO_BIG ? EVENT_ICMP_FRAG_NEEDED_SENT : EVENT_ICMP_UNREACHABLE_SENT);
}

/** Which error a parsed ICMP message is. */
export function errorOf(view: DataView, p: Packet): number {
  return (view.getUint8(p.l4 + icmp.TYPE) << 8) | view.getUint8(p.l4 + icmp.CODE);
}

/** What the inner sender is told of an error about its tunnel packet (RFC 2003 section 4); -1: nothing. */
export function relayedError(error: number): number {
  const code = relayedCode(error >>> 8, error & 0xff);
  return code < 0 ? -1 : (icmp.UNREACHABLE << 8) | code;
}

/**
 * Takes in what a TOO_BIG says of the path of the packet that it quotes; readQuote() has seen that this one is ours.
 * @returns as PathMtu.update()
 */
export function learnPathMtu(view: DataView, p: Packet, pathMtu: PathMtu, now: number): number {
  const outer = quotedHeader(p);
  const totalLen = view.getUint16(outer + ipv4.TOTAL_LEN);
  const headerLen = ipv4.headerLen(view, outer);
  return pathMtu.update(view.getInt32(outer + ipv4.DST), quotedMtu(view, p), totalLen, headerLen, now, p.src);
}

export function isEchoRequest(view: DataView, p: Packet): boolean {
  if (p.protocol !== ipv4.PROTO_ICMP || ipv4.isFragment(p.fragment)) return false;
  return view.getUint8(p.l4 + icmp.TYPE) === icmp.ECHO;
}

/**
 * Moves a packet that has been encapsulated back to the inner one, which alone its sender knows; any other stays. By what
 * the packet says of itself: the tunnel may be another by now.
 * @returns false for a piece of a tunnel packet with too little of the inner one to quote
 */
export function takeOffTunnel(view: DataView, p: Packet): boolean {
  // Parsed fields are those of the inner packet: if the header in front is not that of `l4`, it is the tunnel's.
  if (isLaterFragment(p) || p.off + ipv4.headerLen(view, p.off) === p.l4) return true;
  const isCut = (view.getUint16(p.off + ipv4.FLAGS_FRAGMENT) & ipv4.FLAG_MF) !== 0;
  if (isCut && p.off + p.len < p.l4 + QUOTED_PAYLOAD) return false;
  p.pull(p.innerNetwork - p.off);
  p.fragment = view.getUint16(p.off + ipv4.FLAGS_FRAGMENT);
  return true;
}

/** ICMP errors as a router sends them: RFC 792, RFC 1812 section 4.3.2, RFC 1191 section 4. */
import { HEADROOM, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { foldSum, sumWords, update16 } from '../wire/checksum.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';

/** The whole error, outer header included, stays within this (RFC 1812 section 4.3.2.3). */
const MAX_ERROR_BYTES = 576;
const TTL = 64;
/** Precedence "internetwork control", and the type of service of the packet in question (RFC 1812 section 4.3.2.5). */
const PRECEDENCE = 0xc0;
/** The four bits of RFC 1349, as Linux's net/ipv4/icmp.c takes them over. */
const TOS_MASK = 0x1e;

/**
 * May an error be sent about this packet? Never about another error, a later fragment, a group or broadcast destination,
 * or a source that names no single host (RFC 1812 section 4.3.2.7).
 */
export function mayAnswer(view: DataView, p: Packet): boolean {
  if (p.local !== 0) return false;
  if ((p.fragment & ipv4.OFFSET_MASK) !== 0) return false;
  if (p.dst >>> 28 >= 14) return false;
  if (p.src >>> 28 >= 14 || p.src === 0 || p.src >>> 24 === 127) return false;
  if (p.protocol !== ipv4.PROTO_ICMP) return true;
  return !icmp.isError(view.getUint8(p.l4 + icmp.TYPE));
}

const NO_OPTIONS = new DataView(new ArrayBuffer(0));

/**
 * Builds the error about `p`, whose IP header is at p.off and unchanged. `p` stays the caller's.
 *
 * @param info the 32 bits behind the checksum: the next-hop MTU for CODE_FRAG_NEEDED, the pointer for PARAMETER_PROBLEM in
 *   their first byte, else 0
 * @param source address that it is sent from (int32)
 * @param options of its header, `optionsLength` bytes of them, a multiple of 4
 * @returns the packet, parsed and marked local, or null without a free slot
 */
export function buildIcmpError(
  pool: Pool,
  p: Packet,
  type: number,
  code: number,
  info: number,
  source: number,
  options: DataView = NO_OPTIONS,
  optionsLength = 0,
): Packet | null {
  const e = pool.take();
  if (e === null) return null;
  const { view } = pool;
  const headerLen = ipv4.HEADER_LEN + optionsLength;
  const quoted = Math.min(p.len, MAX_ERROR_BYTES - headerLen - icmp.HEADER_LEN);
  const at = e.start + HEADROOM;
  const message = at + headerLen;

  view.setUint8(message + icmp.TYPE, type);
  view.setUint8(message + icmp.CODE, code);
  view.setUint16(message + icmp.CHECKSUM, 0);
  view.setInt32(message + icmp.ID, info);
  pool.bytes.copyWithin(message + icmp.HEADER_LEN, p.off, p.off + quoted);
  view.setUint16(message + icmp.CHECKSUM, ~foldSum(sumWords(view, message, icmp.HEADER_LEN + quoted, 0)) & 0xffff);

  view.setUint8(at + ipv4.VERSION_IHL, 0x40 | (headerLen >> 2));
  view.setUint8(at + ipv4.TOS, PRECEDENCE | (view.getUint8(p.off + ipv4.TOS) & TOS_MASK));
  view.setUint16(at + ipv4.TOTAL_LEN, headerLen + icmp.HEADER_LEN + quoted);
  view.setUint32(at + ipv4.ID, 0);
  view.setUint8(at + ipv4.TTL, TTL);
  view.setUint8(at + ipv4.PROTOCOL, ipv4.PROTO_ICMP);
  view.setInt32(at + ipv4.SRC, source);
  view.setInt32(at + ipv4.DST, p.src);
  for (let i = 0; i < optionsLength; i++) view.setUint8(at + ipv4.HEADER_LEN + i, options.getUint8(i));
  ipv4.setHeaderChecksum(view, at);

  e.off = at;
  e.len = headerLen + icmp.HEADER_LEN + quoted;
  e.src = source;
  e.dst = p.src;
  e.protocol = ipv4.PROTO_ICMP;
  e.l4 = message;
  e.srcPort = 0;
  e.dstPort = 0;
  e.fragment = 0;
  e.local = 1;
  return e;
}

/** The code of the Destination Unreachable that an error inside the tunnel becomes for the inner sender, or -1: RFC 2003 section 4. */
export function relayedCode(type: number, code: number): number {
  if (type === icmp.TIME_EXCEEDED) return code === icmp.CODE_TTL_IN_TRANSIT ? icmp.CODE_HOST_UNREACHABLE : -1;
  if (type !== icmp.UNREACHABLE) return -1;
  if (code === icmp.CODE_NET_UNREACHABLE || code === icmp.CODE_HOST_UNREACHABLE) return code;
  // The sender knows nothing of protocol 4.
  return code === icmp.CODE_PROTOCOL_UNREACHABLE ? icmp.CODE_HOST_UNREACHABLE : -1;
}

/** Makes the answer (RFC 792) of the parsed echo request `p`, in its place; it is the node's own then. */
export function turnEcho(view: DataView, p: Packet): void {
  const checksum = p.l4 + icmp.CHECKSUM;
  view.setUint8(p.l4 + icmp.TYPE, icmp.ECHO_REPLY);
  view.setUint16(checksum, update16(view.getUint16(checksum), icmp.ECHO << 8, icmp.ECHO_REPLY << 8));
  const { src, dst } = p;
  view.setInt32(p.off + ipv4.SRC, dst);
  view.setInt32(p.off + ipv4.DST, src);
  view.setUint8(p.off + ipv4.TTL, 64);
  ipv4.setHeaderChecksum(view, p.off);
  p.src = dst;
  p.dst = src;
  p.local = 1;
}

/** Linux net.ipv4.icmp_ratemask: unreachable, source quench, time exceeded, parameter problem. */
const LIMITED_TYPES =
  (1 << icmp.UNREACHABLE) | (1 << icmp.SOURCE_QUENCH) | (1 << icmp.TIME_EXCEEDED) | (1 << icmp.PARAMETER_PROBLEM);
/** Errors that one destination may get in a row: XRLIM_BURST_FACTOR (net/ipv4/inetpeer.c). */
const DESTINATION_BURST = 6;
/** More than twice the destinations whose buckets the global limit lets be unfilled at once: 6 seconds of 1000, and 50. */
const DESTINATION_BITS = 14;
const DESTINATIONS = 1 << DESTINATION_BITS;
/** Neighbouring slots that a destination may lie in. */
const WAYS = 8;
/** So long ago that the bucket is full. */
const NEVER = Number.NEGATIVE_INFINITY;

export interface IcmpLimits {
  /** net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst: all errors together. */
  perSecond?: number;
  burst?: number;
  /** net.ipv4.icmp_ratelimit: milliseconds between errors to one destination, beyond its burst of 6. */
  perDestinationMs?: number;
}

/**
 * Two token buckets for each error, one for all and one for its destination, as Linux has them (icmpv4_global_allow and
 * icmpv4_xrlim_allow in net/ipv4/icmp.c, inet_peer_xrlim_allow in net/ipv4/inetpeer.c): RFC 1812 section 4.3.2.8. "Fragmentation
 * needed" is never limited: path MTU discovery would take the silence for a black hole.
 *
 * A destination's bucket that is full again needs no memory, and the global limit bounds how many are not. Should more
 * come together in one place, the one unused longest gives way, which starts anew with a full bucket.
 */
export class IcmpLimiter {
  private tokens: number;
  private last = 0;
  private readonly perSecond: number;
  private readonly burst: number;
  private readonly interval: number;
  // By destination.
  private readonly address = new Int32Array(DESTINATIONS);
  /** Milliseconds saved up when it was last looked at; an error costs `interval`. */
  private readonly saved = new Float64Array(DESTINATIONS);
  private readonly seen = new Float64Array(DESTINATIONS).fill(NEVER);

  constructor(limits: IcmpLimits = {}) {
    this.perSecond = limits.perSecond ?? 1000;
    this.burst = limits.burst ?? 50;
    this.interval = limits.perDestinationMs ?? 1000;
    this.tokens = this.burst;
  }

  /** May this error be sent to `destination` (int32)? Then it counts. */
  allow(type: number, code: number, destination: number, now: number): boolean {
    if (type === icmp.UNREACHABLE && code === icmp.CODE_FRAG_NEEDED) return true;
    if (((LIMITED_TYPES >>> type) & 1) === 0) return true;
    this.tokens = Math.min(this.burst, this.tokens + ((now - this.last) * this.perSecond) / 1000);
    this.last = now;
    if (this.tokens < 1) return false;
    if (!this.allowDestination(destination, now)) return false;
    // Linux takes 0 to 2 at random, 1 on average, so that nobody can measure other people's errors by it.
    this.tokens -= 1;
    return true;
  }

  private allowDestination(destination: number, now: number): boolean {
    const { saved, seen } = this;
    const i = this.bucketOf(destination);
    saved[i] = Math.min(DESTINATION_BURST * this.interval, saved[i] + now - seen[i]);
    seen[i] = now;
    if (saved[i] < this.interval) return false;
    saved[i] -= this.interval;
    return true;
  }

  private bucketOf(destination: number): number {
    const { address, saved, seen } = this;
    const home = Math.imul(destination, 0x9e3779b1) >>> (32 - DESTINATION_BITS);
    let oldest = home;
    for (let way = 0; way < WAYS; way++) {
      const i = (home + way) & (DESTINATIONS - 1);
      if (address[i] === destination) return i;
      if (seen[i] < seen[oldest]) oldest = i;
    }
    address[oldest] = destination;
    saved[oldest] = 0;
    seen[oldest] = NEVER;
    return oldest;
  }
}

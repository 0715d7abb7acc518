/** ICMP errors as a router sends them: RFC 792, RFC 1812 section 4.3.2, RFC 1191 section 4. */
import { HEADROOM, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { foldSum, sumWords } from '../wire/checksum.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';

/** The whole error, outer header included, stays within this (RFC 1812 section 4.3.2.3). */
const MAX_ERROR_BYTES = 576;
const TTL = 64;
/** Precedence "internetwork control", RFC 1812 section 4.3.2.5; Linux net/ipv4/icmp.c sends the same. */
const TOS = 0xc0;

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

/**
 * Builds the error about `p`, whose IP header is at p.off and unchanged. `p` stays the caller's.
 *
 * @param info the 32 bits behind the checksum: the next-hop MTU for CODE_FRAG_NEEDED, else 0
 * @param source address that it is sent from (int32)
 * @returns the packet, parsed and marked local, or null without a free slot
 */
export function buildIcmpError(
  pool: Pool,
  p: Packet,
  type: number,
  code: number,
  info: number,
  source: number,
): Packet | null {
  const e = pool.take();
  if (e === null) return null;
  const { view } = pool;
  const quoted = Math.min(p.len, MAX_ERROR_BYTES - ipv4.HEADER_LEN - icmp.HEADER_LEN);
  const at = e.start + HEADROOM;
  const message = at + ipv4.HEADER_LEN;

  view.setUint8(message + icmp.TYPE, type);
  view.setUint8(message + icmp.CODE, code);
  view.setUint16(message + icmp.CHECKSUM, 0);
  view.setInt32(message + icmp.ID, info);
  pool.bytes.copyWithin(message + icmp.HEADER_LEN, p.off, p.off + quoted);
  view.setUint16(message + icmp.CHECKSUM, ~foldSum(sumWords(view, message, icmp.HEADER_LEN + quoted, 0)) & 0xffff);

  view.setUint8(at + ipv4.VERSION_IHL, 0x45);
  view.setUint8(at + ipv4.TOS, TOS);
  view.setUint16(at + ipv4.TOTAL_LEN, ipv4.HEADER_LEN + icmp.HEADER_LEN + quoted);
  view.setUint32(at + ipv4.ID, 0);
  view.setUint8(at + ipv4.TTL, TTL);
  view.setUint8(at + ipv4.PROTOCOL, ipv4.PROTO_ICMP);
  view.setInt32(at + ipv4.SRC, source);
  view.setInt32(at + ipv4.DST, p.src);
  ipv4.setHeaderChecksum(view, at);

  e.off = at;
  e.len = ipv4.HEADER_LEN + icmp.HEADER_LEN + quoted;
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

/** Token bucket over all errors, as Linux icmp_msgs_per_sec and icmp_msgs_burst (net/ipv4/icmp.c). */
export class IcmpLimiter {
  private tokens: number;
  private last = 0;
  private readonly perSecond: number;
  private readonly burst: number;

  constructor(perSecond = 1000, burst = 50) {
    this.perSecond = perSecond;
    this.burst = burst;
    this.tokens = burst;
  }

  /** Takes one token; false when there is none. */
  allow(now: number): boolean {
    this.tokens = Math.min(this.burst, this.tokens + ((now - this.last) * this.perSecond) / 1000);
    this.last = now;
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }
}

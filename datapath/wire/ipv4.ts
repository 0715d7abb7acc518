/**
 * IPv4 (RFC 791): byte offsets from the first byte of the header. All fields are big endian; addresses are read as
 * int32, because a u32 above 2^31 would be a heap number in V8.
 *
 *   0     1     2           4           6           8     9     10          12          16
 *  +-----+-----+-----------+-----------+-----------+-----+-----+-----------+-----------+-----------+
 *  |v ihl| tos | total len |    id     |flags, off | ttl |proto| checksum  |    src    |    dst    |
 *  +-----+-----+-----------+-----------+-----------+-----+-----+-----------+-----------+-----------+
 */
import { foldSum, sumWords, update16 } from './checksum.ts';

export const VERSION_IHL = 0;
export const TOS = 1;
export const TOTAL_LEN = 2;
export const ID = 4;
export const FLAGS_FRAGMENT = 6; // 3 bits of flags, 13 bits of offset in units of 8 bytes
export const TTL = 8;
export const PROTOCOL = 9;
export const CHECKSUM = 10;
export const SRC = 12;
export const DST = 16;
export const HEADER_LEN = DST + 4; // without options
export const MAX_HEADER_LEN = 60;
export const MAX_TOTAL_LEN = 65535;

export const FLAG_DF = 0x4000;
export const FLAG_MF = 0x2000;
export const OFFSET_MASK = 0x1fff;

export const PROTO_ICMP = 1;
export const PROTO_IPIP = 4;
export const PROTO_TCP = 6;
export const PROTO_UDP = 17;
export const PROTO_IPV6 = 41;
export const PROTO_GRE = 47;
export const PROTO_SCTP = 132;

export const ECN_MASK = 3;
export const ECN_NOT_ECT = 0;
export const ECN_ECT1 = 1;
export const ECN_ECT0 = 2;
export const ECN_CE = 3;

export const OPT_END = 0;
export const OPT_NOP = 1;
export const OPT_RECORD_ROUTE = 7;
export const OPT_TIMESTAMP = 68;
export const OPT_LSRR = 131; // loose source route
export const OPT_SSRR = 137; // strict source route
export const OPT_ROUTER_ALERT = 148; // RFC 2113
export const OPT_COPIED = 0x80; // the bit of the type that says: into every fragment

/** In Record Route and Timestamp: where in the option, counted from 1, the next entry goes. */
export const OPT_POINTER = 2;
/** Of Timestamp: overflow << 4 | TS_*. */
export const OPT_TS_FLAGS = 3;
export const TS_ONLY = 0;
export const TS_AND_ADDRESS = 1;
export const TS_PRESPECIFIED = 3;

/** Header length in bytes. */
export function headerLen(view: DataView, off: number): number {
  return (view.getUint8(off) & 15) << 2;
}

/** True for every fragment, the first one included. @param word the 16 bits at FLAGS_FRAGMENT; more above them do not matter */
export function isFragment(word: number): boolean {
  return (word & (FLAG_MF | OFFSET_MASK)) !== 0;
}

/** Writes the header checksum. The header must be complete otherwise. RFC 791 section 3.1. */
export function setHeaderChecksum(view: DataView, off: number): void {
  view.setUint16(off + CHECKSUM, 0);
  view.setUint16(off + CHECKSUM, ~foldSum(sumWords(view, off, headerLen(view, off), 0)) & 0xffff);
}

/** True if the header checksum is right. */
export function headerChecksumOk(view: DataView, off: number, headerLen: number): boolean {
  return foldSum(sumWords(view, off, headerLen, 0)) === 0xffff;
}

/** The node that forwards takes one from the TTL, 2 or more (RFC 1812 section 5.3.1). */
export function decrementTtl(view: DataView, off: number): void {
  const word = view.getUint16(off + TTL);
  view.setUint16(off + TTL, word - 0x100);
  const checksum = off + CHECKSUM;
  view.setUint16(checksum, update16(view.getUint16(checksum), word, word - 0x100));
}

/** Gives the IPv4 header at `off` another identification. */
export function setId(view: DataView, off: number, id: number): void {
  const checksum = off + CHECKSUM;
  view.setUint16(checksum, update16(view.getUint16(checksum), view.getUint16(off + ID), id));
  view.setUint16(off + ID, id);
}

/** Sources that no packet may carry: 0.0.0.0, loopback, groups, the limited broadcast (Linux: ip_route_input_slow). */
export function isMartian(address: number): boolean {
  return address === 0 || address === -1 || address >>> 24 === 127 || address >>> 28 === 14;
}

/** All sources that RFC 1812 section 5.3.7 has no router forward: also the rest of network 0, and class E. */
export function isRfc1812Martian(address: number): boolean {
  const top = address >>> 24;
  return top === 0 || top === 127 || top >= 224;
}

/** Protocols whose header begins with source and destination port. */
export function hasPorts(protocol: number): boolean {
  return protocol === PROTO_TCP || protocol === PROTO_UDP || protocol === PROTO_SCTP;
}

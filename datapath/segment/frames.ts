/** What a wire does to frames that a device would have done: superpackets are cut, checksums completed. */
import type { Packet } from '../packet/packet.ts';
import { parseIpv4 } from '../packet/parse.ts';
import type { Pool } from '../packet/pool.ts';
import { completeChecksum, headersOf, isCuttable, segment } from '../packet/segment.ts';
import { CONTINUE } from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as virtio from '../wire/virtio-net.ts';

/** A 64 KiB superpacket in the smallest sensible segments. */
export const MAX_PIECES = 1400;

/** Length of the longest IP packet that the frame is on a wire. */
export function wireLength(view: DataView, p: Packet): number {
  if (p.gsoType === virtio.GSO_NONE) return p.len - ethernet.HEADER_LEN;
  return Math.min(headersOf(view, p) + p.gsoSize, p.len) - ethernet.HEADER_LEN;
}

/** IP protocol of a frame; 0 if it carries no IPv4. */
export function protocolOf(view: DataView, p: Packet): number {
  if (p.len < ethernet.HEADER_LEN + ipv4.HEADER_LEN) return 0;
  if (view.getUint16(p.off + ethernet.TYPE) !== ethernet.TYPE_IPV4) return 0;
  return view.getUint8(p.off + ethernet.HEADER_LEN + ipv4.PROTOCOL);
}

/**
 * Whether a frame may pass a source/destination check: what is IPv4 and for one station has one of these addresses.
 * @param field of the IPv4 header: its source, or its destination
 * @param addresses int32
 */
export function passesCheck(view: DataView, p: Packet, field: number, addresses: readonly number[]): boolean {
  if (protocolOf(view, p) === 0 || ethernet.isGroup(ethernet.macHi(view, p.off + ethernet.DST))) return true;
  const address = view.getInt32(p.off + ethernet.HEADER_LEN + field);
  for (let i = 0; i < addresses.length; i++) if (addresses[i] === address) return true;
  return false;
}

/**
 * Cuts a superpacket into the frames that a wire carries: new packets of the pool; `p` stays the caller's. All or nothing.
 * @returns how many; 0 when the pool has too few, or when it is none that can be cut (IPv6, or its headers are not right)
 */
export function cutFrame(pool: Pool, p: Packet, out: Packet[]): number {
  const { view } = pool;
  if (view.getUint16(p.off + ethernet.TYPE) !== ethernet.TYPE_IPV4) return 0;
  const header = p.off;
  p.pull(ethernet.HEADER_LEN);
  const isTunnel = (p.gsoType & virtio.GSO_UDP_TUNNEL_IPV4) !== 0;
  const whole = parseIpv4(view, p) === CONTINUE && (!isTunnel || isCuttable(view, p));
  const n = whole ? segment(pool, p, out, MAX_PIECES) : 0;
  p.push(ethernet.HEADER_LEN);
  for (let i = 0; i < n; i++) {
    const q = out[i];
    q.push(ethernet.HEADER_LEN);
    view.setInt32(q.off, view.getInt32(header));
    view.setInt32(q.off + 4, view.getInt32(header + 4));
    view.setInt32(q.off + 8, view.getInt32(header + 8));
    view.setUint16(q.off + 12, view.getUint16(header + 12));
  }
  return n;
}

/** Turns one bit over, as `netem corrupt` does: anywhere in the frame, whose checksums are complete before. */
export function flipBit(view: DataView, p: Packet, bit: number): void {
  completeChecksum(view, p);
  // Nobody vouches for it any more.
  p.vnetFlags = 0;
  const at = p.off + (bit >>> 3);
  view.setUint8(at, view.getUint8(at) ^ (1 << (bit & 7)));
}

/**
 * Sets Congestion Experienced in an IPv4 frame whose sender understands it (RFC 3168 section 5), its header checksum updated.
 * @returns whether the frame has the mark now
 */
export function markCe(view: DataView, p: Packet): boolean {
  if (protocolOf(view, p) === 0) return false;
  const ip = p.off + ethernet.HEADER_LEN;
  const tos = view.getUint8(ip + ipv4.TOS);
  if ((tos & ipv4.ECN_MASK) === 0) return false;
  view.setUint8(ip + ipv4.TOS, tos | ipv4.ECN_MASK);
  ipv4.setHeaderChecksum(view, ip);
  return true;
}

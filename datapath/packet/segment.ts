/**
 * What a device with offloads would do, in software: cut superpackets into segments, complete partial checksums, verify
 * checksums. The counterpart of segment() is coalesce.ts.
 */
import * as checksum from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';
import { copyBytes, copyContext, takeFor } from './copy.ts';
import type { Packet } from './packet.ts';
import type { Pool } from './pool.ts';

/** On the first segment only: it says "I have reduced my window" once. On the last only: they end the data. */
const NOT_LAST = ~(tcp.FIN | tcp.PSH);
const NOT_FIRST = ~tcp.CWR;

/** How many packets a superpacket is on the wire; 1 for a plain packet. */
export function segmentsOf(view: DataView, p: Packet): number {
  if (p.gsoType === virtio.GSO_NONE) return 1;
  return Math.max(1, Math.ceil((p.len - headersOf(view, p)) / Math.max(1, p.gsoSize)));
}

/** Bytes that a packet will be on the wire: each segment of a superpacket has all headers. */
export function wireBytes(view: DataView, p: Packet): number {
  if (p.gsoType === virtio.GSO_NONE) return p.len;
  return p.len + (segmentsOf(view, p) - 1) * headersOf(view, p);
}

/**
 * Bytes in front of the payload; the whole packet where the virtio-net header lies, since devices count before parsing.
 * Under a tunnel the transport header is that of the inner packet, where the checksum is owed.
 */
export function headersOf(view: DataView, p: Packet): number {
  const least = p.csumOffset === tcp.CHECKSUM ? tcp.HEADER_LEN : udp.HEADER_LEN;
  const inside = p.gsoSize > 0 && p.csumStart >= p.off && p.csumStart + least <= p.off + p.len;
  if (!inside) return p.len;
  return p.csumStart + transportHeaderLen(view, p) - p.off;
}

function transportHeaderLen(view: DataView, p: Packet): number {
  return p.csumOffset === tcp.CHECKSUM ? tcp.headerLen(view, p.csumStart) : udp.HEADER_LEN;
}

/**
 * Can this tunnel superpacket be cut in software? The inner header must be IPv4 right in front of the transport header, which
 * must lie within the packet: checkVnet does not look inside a tunnel.
 */
export function isCuttable(view: DataView, p: Packet): boolean {
  const { innerNetwork, csumStart, csumOffset } = p;
  const end = p.off + p.len;
  const isTcp = (p.gsoType & ~(virtio.GSO_ECN | virtio.GSO_UDP_TUNNEL_IPV4)) === virtio.GSO_TCPV4;
  if (csumOffset !== (isTcp ? tcp.CHECKSUM : udp.CHECKSUM)) return false;
  if (csumStart + (isTcp ? tcp.HEADER_LEN : udp.HEADER_LEN) > end) return false;
  if (view.getUint8(innerNetwork) >>> 4 !== 4 || innerNetwork + ipv4.headerLen(view, innerNetwork) !== csumStart) {
    return false;
  }
  const headerLen = transportHeaderLen(view, p);
  return headerLen >= udp.HEADER_LEN && csumStart + headerLen <= end;
}

/**
 * Cuts the parsed superpacket whose IP header is at `p.off` into packets of gsoSize payload bytes, the last with the
 * rest, as Linux does in tcp_gso_segment, __udp_gso_segment and inet_gso_segment: IP ids count up; TCP sequence numbers go
 * on, FIN and PSH stay with the last, CWR with the first; UDP segments are datagrams of their own. All checksums are
 * complete. The segments are new packets of the pool with full headroom; `p` stays the caller's to release.
 *
 * One with tunnel headers in front (skb_udp_tunnel_segment), which isCuttable, keeps them on each segment; an outer UDP
 * checksum that is not 0 is completed as well. Ours are better cut before they are encapsulated.
 *
 * All or nothing: nothing is taken from the pool unless all can be.
 *
 * @param out filled from the front
 * @param max how many `out` may take
 * @returns how many segments; 0 when the pool or `out` has too few places
 */
export function segment(pool: Pool, p: Packet, out: Packet[], max: number): number {
  const view = pool.view;
  const count = segmentsOf(view, p);
  if (count > max || count > pool.available) return 0;

  const inTunnel = (p.gsoType & virtio.GSO_UDP_TUNNEL_IPV4) !== 0;
  const network = inTunnel ? p.innerNetwork - p.off : 0;
  const transport = inTunnel ? p.csumStart - p.off : p.l4 - p.off;
  const protocol = inTunnel ? view.getUint8(p.innerNetwork + ipv4.PROTOCOL) : p.protocol;
  const isTcp = p.csumOffset === tcp.CHECKSUM;
  const headerLen = transport + transportHeaderLen(view, p);
  const end = p.off + p.len;
  const id = view.getUint16(p.off + network + ipv4.ID);
  const outerId = view.getUint16(p.off + ipv4.ID);
  const seq = isTcp ? view.getInt32(p.off + transport + tcp.SEQ) : 0;
  const flags = isTcp ? view.getUint8(p.off + transport + tcp.FLAGS) : 0;

  let from = p.off + headerLen;
  for (let i = 0; i < count; i++) {
    const payload = Math.min(p.gsoSize, end - from);
    const q = takeFor(pool, headerLen, from)!; // counted above
    copyContext(q, p);
    q.len = headerLen + payload;
    q.l4 = q.off + p.l4 - p.off;
    copyBytes(pool, q.off, p.off, headerLen);
    copyBytes(pool, q.off + headerLen, from, payload);

    const l4 = q.off + transport;
    setLengthAndId(view, q.off + network, q.len - network, (id + i) & 0xffff);
    if (isTcp) {
      let own = flags;
      if (i > 0) own &= NOT_FIRST;
      if (i < count - 1) own &= NOT_LAST;
      view.setInt32(l4 + tcp.SEQ, (seq + i * p.gsoSize) | 0);
      view.setUint8(l4 + tcp.FLAGS, own);
    } else {
      view.setUint16(l4 + udp.LENGTH, udp.HEADER_LEN + payload);
    }
    writeTransportChecksum(view, q.off + network, l4, q.off + q.len, protocol, p.csumOffset);
    if (inTunnel) finishOuter(view, q, (outerId + i) & 0xffff);

    from += payload;
    out[i] = q;
  }
  return count;
}

/** The outer headers of a segment whose inner packet is complete. */
function finishOuter(view: DataView, q: Packet, id: number): void {
  setLengthAndId(view, q.off, q.len, id);
  if (q.protocol !== ipv4.PROTO_UDP) return;
  const end = q.off + q.len;
  view.setUint16(q.l4 + udp.LENGTH, end - q.l4);
  if (view.getUint16(q.l4 + udp.CHECKSUM) === 0) return;
  writeTransportChecksum(view, q.off, q.l4, end, ipv4.PROTO_UDP, udp.CHECKSUM);
}

function setLengthAndId(view: DataView, off: number, len: number, id: number): void {
  view.setUint16(off + ipv4.TOTAL_LEN, len);
  view.setUint16(off + ipv4.ID, id);
  ipv4.setHeaderChecksum(view, off);
}

/** Writes the whole TCP or UDP checksum of the packet whose IP header is at `off`, and that ends at `end`. */
function writeTransportChecksum(
  view: DataView,
  off: number,
  l4: number,
  end: number,
  protocol: number,
  offset: number,
): void {
  view.setUint16(l4 + offset, 0);
  // Addresses from the header, not from the fields: they are right also after a rewrite.
  const src = view.getInt32(off + ipv4.SRC);
  const dst = view.getInt32(off + ipv4.DST);
  const sum = checksum.sumWords(view, l4, end - l4, checksum.pseudoSum(src, dst, protocol, end - l4));
  view.setUint16(l4 + offset, notZeroForUdp(~checksum.foldSum(sum) & 0xffff, offset));
}

/** A UDP checksum that comes out as 0 is sent as 0xffff, because 0 says that there is none (RFC 768). */
function notZeroForUdp(value: number, offset: number): number {
  return value === 0 && offset === udp.CHECKSUM ? 0xffff : value;
}

/**
 * Computes the checksum that a NEEDS_CSUM packet owes, in place, and clears the flag; does nothing when none is owed.
 * The field already holds the sum of the pseudo header. Not for superpackets, whose segments have one each.
 */
export function completeChecksum(view: DataView, p: Packet): void {
  if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) === 0) return;
  const sum = checksum.sumWords(view, p.csumStart, p.off + p.len - p.csumStart, 0);
  view.setUint16(p.csumStart + p.csumOffset, notZeroForUdp(~checksum.foldSum(sum) & 0xffff, p.csumOffset));
  p.vnetFlags &= ~virtio.FLAG_NEEDS_CSUM;
}

/**
 * True if the TCP, UDP or ICMP checksum of a parsed packet is right, or the device has vouched for it (NEEDS_CSUM,
 * DATA_VALID). Also true where there is nothing to verify: UDP without checksum, fragments, other protocols.
 */
export function verifyChecksum(view: DataView, p: Packet): boolean {
  if ((p.vnetFlags & virtio.FLAG_DATA_VALID) !== 0) return true;
  if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) !== 0 && p.csumStart === p.l4) return true;
  if (ipv4.isFragment(p.fragment)) return true;
  const available = p.off + p.len - p.l4;
  if (p.protocol === ipv4.PROTO_UDP) {
    if (view.getUint16(p.l4 + udp.CHECKSUM) === 0) return true;
    // There may be bytes behind the datagram.
    return transportChecksumOk(view, p.src, p.dst, p.protocol, p.l4, view.getUint16(p.l4 + udp.LENGTH));
  }
  if (p.protocol === ipv4.PROTO_TCP) return transportChecksumOk(view, p.src, p.dst, p.protocol, p.l4, available);
  if (p.protocol === ipv4.PROTO_ICMP) return checksum.foldSum(checksum.sumWords(view, p.l4, available, 0)) === 0xffff;
  return true;
}

/** True if the TCP or UDP checksum over the `len` bytes at `l4` and their pseudo header is right. */
export function transportChecksumOk(
  view: DataView,
  src: number,
  dst: number,
  protocol: number,
  l4: number,
  len: number,
): boolean {
  const sum = checksum.sumWords(view, l4, len, checksum.pseudoSum(src, dst, protocol, len));
  return checksum.foldSum(sum) === 0xffff;
}

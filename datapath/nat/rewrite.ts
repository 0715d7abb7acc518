/**
 * Address and port translation in place, checksums updated incrementally (RFC 1624): a checksum that was wrong stays
 * wrong, and the payload is never read, so a 64 KiB superpacket costs what a small packet costs.
 *
 * A "delta" is the change of a one's complement sum, 16 bits: fold(sum of the complements of the old words + sum of the
 * new words). A flow keeps two, packed as addresses << 16 | ports, for its original direction; the reply direction's are
 * the complements.
 *
 *   field                         changes by
 *   IPv4 header checksum          addresses
 *   TCP, UDP checksum             addresses + ports   (a UDP checksum of 0 means none and stays 0)
 *   the same with NEEDS_CSUM      addresses, not complemented: the field holds the sum of the pseudo header
 *   ICMP query checksum           ports (the identifier); there is no pseudo header
 *   SCTP CRC32c                   ports, by the linearity of the CRC; there is no pseudo header
 */
import type { Packet } from '../packet/packet.ts';
import { foldSum, sumWords, update16 } from '../wire/checksum.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as sctp from '../wire/sctp.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';

/** Folds a sum below 2^32 to 16 bits. */
function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** Delta of two 32-bit words (an address, or both ports) that changed. */
export function delta32(from: number, to: number): number {
  return fold((~from >>> 16) + (~from & 0xffff) + (to >>> 16) + (to & 0xffff));
}

/** Packs the deltas of a flow's original direction. Addresses int32; ports source << 16 | destination. */
export function packDeltas(
  src: number,
  dst: number,
  ports: number,
  newSrc: number,
  newDst: number,
  newPorts: number,
): number {
  const addresses = fold(delta32(src, newSrc) + delta32(dst, newDst));
  return (addresses << 16) | delta32(ports, newPorts);
}

/** The checksum after its words changed by `delta`. */
function adjust(checksum: number, delta: number): number {
  return ~fold((~checksum & 0xffff) + delta) & 0xffff;
}

/**
 * Gives a parsed packet new addresses and ports; for ICMP queries the high half of `ports` is the new identifier.
 * Later fragments have no ports: only their addresses change. Fields of `p` follow.
 *
 * @param deltas as packDeltas, for this change
 * @returns false, and the packet untouched, where it cannot be done: new ports for SCTP in fragments, whose CRC32c covers
 *   bytes that are elsewhere
 */
export function rewritePacket(
  view: DataView,
  p: Packet,
  src: number,
  dst: number,
  ports: number,
  deltas: number,
): boolean {
  const addresses = deltas >>> 16;
  if ((p.fragment & ipv4.OFFSET_MASK) === 0) {
    const l4 = p.l4;
    const protocol = p.protocol;
    if (protocol === ipv4.PROTO_TCP || protocol === ipv4.PROTO_UDP) {
      const at = l4 + (protocol === ipv4.PROTO_TCP ? tcp.CHECKSUM : udp.CHECKSUM);
      const checksum = view.getUint16(at);
      if (isPartial(p)) {
        view.setUint16(at, fold(checksum + addresses));
      } else if (protocol === ipv4.PROTO_TCP) {
        view.setUint16(at, adjust(checksum, fold(addresses + (deltas & 0xffff))));
      } else if (checksum !== 0) {
        // 0 would say "none": the other zero of one's complement stands for it (RFC 768).
        view.setUint16(at, adjust(checksum, fold(addresses + (deltas & 0xffff))) || 0xffff);
      }
      view.setInt32(l4, ports);
      p.srcPort = ports >>> 16;
      p.dstPort = ports & 0xffff;
    } else if (protocol === ipv4.PROTO_ICMP) {
      if (icmp.isQuery(view.getUint8(l4 + icmp.TYPE)) && p.srcPort !== ports >>> 16) {
        view.setUint16(l4 + icmp.ID, ports >>> 16);
        if (!isPartial(p)) {
          view.setUint16(l4 + icmp.CHECKSUM, adjust(view.getUint16(l4 + icmp.CHECKSUM), deltas & 0xffff));
        }
        p.srcPort = p.dstPort = ports >>> 16;
      }
    } else if (protocol === ipv4.PROTO_SCTP) {
      if (!rewriteSctpPorts(view, p, ports)) return false;
    }
  }
  rewriteAddresses(view, p, src, dst, addresses);
  return true;
}

/** New addresses in the header at `p.off`, its checksum with them. */
function rewriteAddresses(view: DataView, p: Packet, src: number, dst: number, addresses: number): void {
  const off = p.off;
  view.setInt32(off + ipv4.SRC, src);
  view.setInt32(off + ipv4.DST, dst);
  view.setUint16(off + ipv4.CHECKSUM, adjust(view.getUint16(off + ipv4.CHECKSUM), addresses));
  p.src = src;
  p.dst = dst;
}

/** True if the transport checksum of this packet (not that of a packet inside) is left to a device. */
function isPartial(p: Packet): boolean {
  if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) !== 0 && p.csumStart === p.l4) return true;
  // Tunnel superpackets hold the outer UDP checksum in the same form.
  return (p.vnetFlags & virtio.FLAG_UDP_TUNNEL_CSUM) !== 0 && p.outerTransport === p.l4;
}

/**
 * Rewrites an ICMP error and the packet that it quotes, as far as the quote reaches: outer addresses; quoted addresses,
 * header checksum, ports or identifier, and transport checksum if quoted; then the checksum of the error itself. Type,
 * code and MTU stay (RFC 5508 section 4). The caller has checked that the quote holds an IPv4 header and 8 bytes.
 *
 * A quoted SCTP CRC32c and checksums beyond the end of the quote are left: nobody can verify them.
 */
export function rewriteIcmpError(
  view: DataView,
  p: Packet,
  src: number,
  dst: number,
  quotedSrc: number,
  quotedDst: number,
  quotedPorts: number,
): void {
  const end = p.off + p.len;
  const quote = p.l4 + icmp.HEADER_LEN;
  const l4 = quote + ipv4.headerLen(view, quote);
  const protocol = view.getUint8(quote + ipv4.PROTOCOL);
  const changed = Math.min(end, l4 + tcp.HEADER_LEN) - quote;
  const before = foldSum(sumWords(view, quote, changed, 0));

  const oldSrc = view.getInt32(quote + ipv4.SRC);
  const oldDst = view.getInt32(quote + ipv4.DST);
  const addresses = fold(delta32(oldSrc, quotedSrc) + delta32(oldDst, quotedDst));
  view.setInt32(quote + ipv4.SRC, quotedSrc);
  view.setInt32(quote + ipv4.DST, quotedDst);
  view.setUint16(quote + ipv4.CHECKSUM, adjust(view.getUint16(quote + ipv4.CHECKSUM), addresses));

  if (protocol === ipv4.PROTO_ICMP) {
    const delta = delta32(view.getUint16(l4 + icmp.ID), quotedPorts >>> 16);
    view.setUint16(l4 + icmp.ID, quotedPorts >>> 16);
    view.setUint16(l4 + icmp.CHECKSUM, adjust(view.getUint16(l4 + icmp.CHECKSUM), delta));
  } else if (ipv4.hasPorts(protocol)) {
    const both = fold(addresses + delta32(view.getInt32(l4), quotedPorts));
    view.setInt32(l4, quotedPorts);
    if (protocol === ipv4.PROTO_TCP && l4 + tcp.CHECKSUM + 2 <= end) {
      view.setUint16(l4 + tcp.CHECKSUM, adjust(view.getUint16(l4 + tcp.CHECKSUM), both));
    } else if (protocol === ipv4.PROTO_UDP) {
      const checksum = view.getUint16(l4 + udp.CHECKSUM);
      if (checksum !== 0) view.setUint16(l4 + udp.CHECKSUM, adjust(checksum, both) || 0xffff);
    }
  }

  const after = foldSum(sumWords(view, quote, changed, 0));
  view.setUint16(p.l4 + icmp.CHECKSUM, update16(view.getUint16(p.l4 + icmp.CHECKSUM), before, after));
  rewriteAddresses(view, p, src, dst, fold(delta32(p.src, src) + delta32(p.dst, dst)));
}

// --- SCTP ---

const CRC32C = 0x82f63b78 | 0; // reversed Castagnoli polynomial (RFC 9260 appendix A)

/** What 2^k zero bytes do to a CRC, as a 32 x 32 matrix over GF(2): words [32 k, 32 k + 32) are its columns. */
const ZERO_BYTES: Int32Array = (() => {
  const matrices = new Int32Array(16 * 32);
  for (let bit = 0; bit < 32; bit++) {
    let crc = 1 << bit;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (CRC32C & -(crc & 1));
    matrices[bit] = crc;
  }
  for (let k = 1; k < 16; k++) {
    for (let bit = 0; bit < 32; bit++) {
      matrices[k * 32 + bit] = apply(matrices, k - 1, apply(matrices, k - 1, 1 << bit));
    }
  }
  return matrices;
})();

function apply(matrices: Int32Array, k: number, crc: number): number {
  let result = 0;
  for (let column = k * 32; crc !== 0; column++, crc >>>= 1) result ^= matrices[column] & -(crc & 1);
  return result;
}

/**
 * New SCTP ports. The CRC32c is linear: crc(a) ^ crc(b) = L(a ^ b), where L is the CRC without its initial and final
 * inversion. The difference is 4 bytes followed by zeros, and zeros are a matrix power: about 0.3 us whatever the length.
 */
function rewriteSctpPorts(view: DataView, p: Packet, ports: number): boolean {
  const difference = view.getInt32(p.l4) ^ ports;
  if (difference === 0) return true;
  if (ipv4.isFragment(p.fragment)) return false;
  if (!isPartial(p)) {
    // The CRC takes bytes in wire order, low bit first.
    let crc = (difference >>> 24) | ((difference >>> 8) & 0xff00) | ((difference & 0xff00) << 8) | (difference << 24);
    let zeros = p.off + p.len - p.l4;
    for (let k = 0; zeros !== 0; k++, zeros >>>= 1) if ((zeros & 1) !== 0) crc = apply(ZERO_BYTES, k, crc);
    view.setInt32(p.l4 + sctp.CHECKSUM, view.getInt32(p.l4 + sctp.CHECKSUM, true) ^ crc, true);
  }
  view.setInt32(p.l4, ports);
  p.srcPort = ports >>> 16;
  p.dstPort = ports & 0xffff;
  return true;
}

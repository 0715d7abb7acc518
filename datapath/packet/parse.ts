/**
 * The one place where an IPv4 packet is validated. What passes here may be read without further checks: every offset
 * and length that later steps use lies inside [off, off + len).
 *
 * Deliberately not checked: addresses (source check and routing know what is a martian), transport checksums (the
 * datapath forwards them; verifyChecksum in segment.ts is for those who need to know), TCP flags and sequence numbers
 * (conntrack's trade).
 */
import {
  CONTINUE,
  DROP_IPV4_CHECKSUM,
  DROP_MALFORMED_IPV4,
  DROP_MALFORMED_L4,
  DROP_MALFORMED_VNET_HEADER,
  DROP_SOURCE_ROUTE,
  DROP_TRUNCATED,
} from '../verdict.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as sctp from '../wire/sctp.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';
import type { Packet } from './packet.ts';

/** RFC 1858 and RFC 3128. */
export const WHOLE_HEADER = -1;

/**
 * A source route would let the sender choose the path past every policy: refused, as Linux does with accept_source_route 0
 * (RFC 7126 section 4.3).
 */
const FAULTY_SOURCE_ROUTE = -1;

const OFFLOADED = virtio.FLAG_NEEDS_CSUM;

/**
 * Validates the IPv4 packet at `p.off`, cuts Ethernet padding off behind it, and fills src, dst, protocol, fragment, l4,
 * srcPort and dstPort. About 13 ns.
 *
 * @param tcpFragmentLeast bytes of TCP that a first fragment has to hold; WHOLE_HEADER: its header, and no other fragment
 *   begins in it. With less, the transport header of a first fragment of TCP or SCTP is not looked at but for its ports.
 * @returns CONTINUE, or the DROP_* of the first thing that does not hold; then the filled fields mean nothing
 */
export function parseIpv4(view: DataView, p: Packet, tcpFragmentLeast = WHOLE_HEADER): number {
  const off = p.off;
  if (p.len < ipv4.HEADER_LEN) return DROP_TRUNCATED;

  // Five words hold the whole header: read each once, for its fields and for the checksum.
  const word0 = view.getInt32(off + ipv4.VERSION_IHL); // version, ihl, tos, total length
  const word1 = view.getInt32(off + ipv4.ID); // id, flags, fragment offset
  const word2 = view.getInt32(off + ipv4.TTL); // ttl, protocol, checksum
  const src = view.getInt32(off + ipv4.SRC);
  const dst = view.getInt32(off + ipv4.DST);

  const headerLen = (word0 >>> 22) & 60;
  const totalLen = word0 & 0xffff;
  if (word0 >>> 28 !== 4 || headerLen < ipv4.HEADER_LEN || totalLen < headerLen) return DROP_MALFORMED_IPV4;
  if (totalLen > p.len) return DROP_TRUNCATED;

  let sum = (word0 >>> 16) + totalLen + (word1 >>> 16) + (word1 & 0xffff) + (word2 >>> 16) + (word2 & 0xffff);
  sum += (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff);
  if (headerLen > ipv4.HEADER_LEN) {
    for (let at = ipv4.HEADER_LEN; at < headerLen; at += 2) sum += view.getUint16(off + at);
  }
  // 30 words carry at most 29 over; one folding may carry once more.
  sum = (sum & 0xffff) + (sum >>> 16);
  if (((sum + (sum >>> 16)) & 0xffff) !== 0xffff) return DROP_IPV4_CHECKSUM;

  if (headerLen > ipv4.HEADER_LEN) {
    const fault = checkOptions(view, off + ipv4.HEADER_LEN, off + headerLen);
    if (fault !== 0) return fault === FAULTY_SOURCE_ROUTE ? DROP_SOURCE_ROUTE : DROP_MALFORMED_IPV4;
  }
  // A superpacket has no padding, and its length decides how it is cut.
  if (totalLen < p.len && p.gsoType !== virtio.GSO_NONE) return DROP_MALFORMED_IPV4;

  const protocol = (word2 >>> 16) & 0xff;
  const l4 = off + headerLen;
  p.len = totalLen;
  p.src = src;
  p.dst = dst;
  p.protocol = protocol;
  p.l4 = l4;
  p.fragment = word1 & 0xffff;
  p.srcPort = 0;
  p.dstPort = 0;

  const l4Len = totalLen - headerLen;
  if (ipv4.isFragment(word1)) {
    const verdict = checkFragment(word1 & 0xffff, protocol, headerLen, l4Len, tcpFragmentLeast);
    if (verdict !== CONTINUE) return verdict;
    if (p.gsoType !== virtio.GSO_NONE || (p.vnetFlags & OFFLOADED) !== 0) return DROP_MALFORMED_VNET_HEADER;
    if ((word1 & ipv4.OFFSET_MASK) !== 0) return CONTINUE; // no transport header in it
    if (tcpFragmentLeast !== WHOLE_HEADER && (protocol === ipv4.PROTO_TCP || protocol === ipv4.PROTO_SCTP)) {
      if (protocol === ipv4.PROTO_TCP && l4Len < tcpFragmentLeast) return DROP_MALFORMED_L4;
      setPorts(view, p); // a fragment that others follow has 8 bytes
      return CONTINUE;
    }
  }

  if (protocol === ipv4.PROTO_TCP) {
    if (l4Len < tcp.HEADER_LEN) return DROP_MALFORMED_L4;
    const tcpHeaderLen = tcp.headerLen(view, l4);
    if (tcpHeaderLen < tcp.HEADER_LEN || tcpHeaderLen > l4Len) return DROP_MALFORMED_L4;
  } else if (protocol === ipv4.PROTO_UDP) {
    if (l4Len < udp.HEADER_LEN) return DROP_MALFORMED_L4;
    const udpLen = view.getUint16(l4 + udp.LENGTH);
    // In a first fragment the length is that of the whole datagram.
    if (udpLen < udp.HEADER_LEN || (udpLen > l4Len && (word1 & ipv4.FLAG_MF) === 0)) return DROP_MALFORMED_L4;
  } else if (protocol === ipv4.PROTO_ICMP) {
    if (l4Len < icmp.HEADER_LEN) return DROP_MALFORMED_L4;
    if (icmp.isQuery(view.getUint8(l4 + icmp.TYPE))) p.srcPort = p.dstPort = view.getUint16(l4 + icmp.ID);
  } else if (protocol === ipv4.PROTO_SCTP) {
    if (l4Len < sctp.HEADER_LEN) return DROP_MALFORMED_L4;
  }
  if (protocol === ipv4.PROTO_TCP || protocol === ipv4.PROTO_UDP || protocol === ipv4.PROTO_SCTP) {
    setPorts(view, p);
  }

  if (p.gsoType === virtio.GSO_NONE && (p.vnetFlags & OFFLOADED) === 0) return CONTINUE;
  return checkVnet(view, p);
}

/** TCP, UDP and SCTP begin with the two ports. */
function setPorts(view: DataView, p: Packet): void {
  const ports = view.getInt32(p.l4);
  p.srcPort = ports >>> 16;
  p.dstPort = ports & 0xffff;
}

/**
 * Walks the IPv4 options in [at, end), RFC 791 section 3.1, as Linux's __ip_options_compile does; but what a CIPSO option holds
 * is nothing to us.
 * @returns 0; FAULTY_SOURCE_ROUTE; or where what is wrong lies: a Parameter Problem points there
 */
function checkOptions(view: DataView, at: number, end: number): number {
  let routed = false;
  let recorded = false;
  let stamped = false;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === ipv4.OPT_END) break;
    if (type === ipv4.OPT_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end) return at;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return at;
    let fault = 0;
    if (type === ipv4.OPT_LSRR || type === ipv4.OPT_SSRR) {
      fault = faultOfRoute(view, at, length, routed, false);
      routed = true;
    } else if (type === ipv4.OPT_RECORD_ROUTE) {
      fault = faultOfRoute(view, at, length, recorded, true);
      recorded = true;
    } else if (type === ipv4.OPT_TIMESTAMP) {
      fault = faultOfTimestamp(view, at, length, stamped);
      stamped = true;
    } else if (type === ipv4.OPT_ROUTER_ALERT && length < 4) {
      fault = at + 1;
    }
    if (fault !== 0) return fault;
    at += length;
  }
  return routed ? FAULTY_SOURCE_ROUTE : 0;
}

/** @param fills an entry is to be written into it, and not half outside */
function faultOfRoute(view: DataView, at: number, length: number, again: boolean, fills: boolean): number {
  if (fills && again) return at;
  if (length < 3) return at + 1;
  const pointer = view.getUint8(at + ipv4.OPT_POINTER);
  if (pointer < 4 || (fills && pointer <= length && pointer + 3 > length)) return at + ipv4.OPT_POINTER;
  return again ? at : 0;
}

function faultOfTimestamp(view: DataView, at: number, length: number, again: boolean): number {
  if (again) return at;
  if (length < 4) return at + 1;
  const pointer = view.getUint8(at + ipv4.OPT_POINTER);
  const flags = view.getUint8(at + ipv4.OPT_TS_FLAGS);
  const kind = flags & 15;
  if (pointer > length) return kind !== ipv4.TS_PRESPECIFIED && flags >>> 4 === 15 ? at + ipv4.OPT_TS_FLAGS : 0;
  const entry = kind === ipv4.TS_AND_ADDRESS || kind === ipv4.TS_PRESPECIFIED ? 8 : 4;
  return pointer >= 5 && pointer + entry - 1 <= length ? 0 : at + ipv4.OPT_POINTER;
}

/**
 * Where in a packet that parseIpv4 calls DROP_MALFORMED_IPV4 the option lies that is wrong, in bytes from its header; 0: it is
 * something else. The other fields of the packet are filled then.
 */
export function faultyOption(view: DataView, p: Packet): number {
  const { off } = p;
  if (p.len < ipv4.HEADER_LEN || view.getUint8(off) >>> 4 !== 4) return 0;
  const headerLen = ipv4.headerLen(view, off);
  const totalLen = view.getUint16(off + ipv4.TOTAL_LEN);
  if (headerLen <= ipv4.HEADER_LEN || totalLen < headerLen || totalLen > p.len) return 0;
  const fault = checkOptions(view, off + ipv4.HEADER_LEN, off + headerLen);
  if (fault <= 0) return 0;
  p.src = view.getInt32(off + ipv4.SRC);
  p.dst = view.getInt32(off + ipv4.DST);
  p.protocol = view.getUint8(off + ipv4.PROTOCOL);
  p.fragment = view.getUint16(off + ipv4.FLAGS_FRAGMENT);
  p.l4 = off + headerLen;
  p.len = totalLen;
  p.srcPort = 0;
  p.dstPort = 0;
  return fault - off;
}

/**
 * What holds for any fragment. `field` is the flags and offset word.
 * The two tiny-fragment rules are RFC 1858 section 3.2.1 (the first fragment holds the TCP header: checked with the
 * header itself) and RFC 3128 section 3 (no TCP fragment starts inside it: offset 1 is refused).
 */
function checkFragment(field: number, protocol: number, headerLen: number, l4Len: number, least: number): number {
  const offset = (field & ipv4.OFFSET_MASK) << 3;
  if (l4Len === 0 || headerLen + offset + l4Len > ipv4.MAX_TOTAL_LEN) return DROP_MALFORMED_IPV4;
  if ((field & ipv4.FLAG_MF) !== 0 && (l4Len & 7) !== 0) return DROP_MALFORMED_IPV4;
  if (least === WHOLE_HEADER && protocol === ipv4.PROTO_TCP && offset === 8) return DROP_MALFORMED_L4;
  return CONTINUE;
}

/**
 * Checks the virtio-net fields of a parsed packet against what it is, as Linux does in virtio_net_hdr_to_skb
 * (include/linux/virtio_net.h), but stricter: whoever cuts, completes or rewrites the packet later relies on it.
 * parseIpv4 calls this whenever there is something to check.
 *
 * The checksum that NEEDS_CSUM asks for need not be that of this header: a pod may run a tunnel of its own.
 */
export function checkVnet(view: DataView, p: Packet): number {
  const end = p.off + p.len;
  if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) !== 0) {
    if (p.csumStart < p.l4 || p.csumOffset < 0 || p.csumStart + p.csumOffset + 2 > end) {
      return DROP_MALFORMED_VNET_HEADER;
    }
  }
  if (p.gsoType === virtio.GSO_NONE) return CONTINUE;
  if (p.gsoSize <= 0 || (p.vnetFlags & virtio.FLAG_NEEDS_CSUM) === 0) return DROP_MALFORMED_VNET_HEADER;

  if ((p.gsoType & virtio.GSO_UDP_TUNNEL_IPV4) !== 0) {
    // virtio-net has none for IPIP: those come by a segment, or from a raw socket (owed-checksum.ts).
    const least = p.l4 + (p.protocol === ipv4.PROTO_IPIP ? 0 : udp.HEADER_LEN);
    const ordered =
      (p.protocol === ipv4.PROTO_UDP || p.protocol === ipv4.PROTO_IPIP) &&
      p.outerTransport === p.l4 &&
      p.innerNetwork >= least &&
      p.csumStart >= p.innerNetwork + ipv4.HEADER_LEN;
    return ordered ? CONTINUE : DROP_MALFORMED_VNET_HEADER;
  }
  if (p.csumStart !== p.l4) return DROP_MALFORMED_VNET_HEADER;
  if ((p.gsoType & ~virtio.GSO_ECN) === virtio.GSO_TCPV4) {
    if (p.protocol !== ipv4.PROTO_TCP || p.csumOffset !== tcp.CHECKSUM) return DROP_MALFORMED_VNET_HEADER;
    return CONTINUE;
  }
  if (p.gsoType === virtio.GSO_UDP_L4) {
    if (p.protocol !== ipv4.PROTO_UDP || p.csumOffset !== udp.CHECKSUM) return DROP_MALFORMED_VNET_HEADER;
    if (view.getUint16(p.l4 + udp.LENGTH) !== end - p.l4) return DROP_MALFORMED_L4;
    return CONTINUE;
  }
  return DROP_MALFORMED_VNET_HEADER;
}

/** What the raw uplink makes of what its sockets give, byte by byte: pure functions, no system call. */
import * as ethernet from '../wire/ethernet.ts';
import * as geneve from '../wire/geneve.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as udp from '../wire/udp.ts';
import * as vxlan from '../wire/vxlan.ts';

/** What a UDP socket takes away in front of its payload. */
export const UDP_HEADERS_LEN = ipv4.HEADER_LEN + udp.HEADER_LEN;
/** The longest payload of a UDP datagram. */
export const MAX_UDP_PAYLOAD = ipv4.MAX_TOTAL_LEN - UDP_HEADERS_LEN;

const WORD_IPV4 = 0x45000000;
/** No tunnel looks at it: RFC 2003 section 3.1 and the like copy no TTL inwards. */
const TTL = 64;

/**
 * Writes the IPv4 and UDP headers that the socket has taken off, UDP_HEADERS_LEN bytes at `off`, in front of `payload`
 * bytes. The datagram was whole and its checksum right, or the kernel would have kept it; so none is written (0: RFC 768).
 * Addresses int32, `tos` the byte of the header.
 */
export function writeUdpHeaders(
  view: DataView,
  off: number,
  payload: number,
  tos: number,
  src: number,
  dst: number,
  ports: number,
): void {
  view.setInt32(off + ipv4.VERSION_IHL, WORD_IPV4 | (tos << 16) | (UDP_HEADERS_LEN + payload));
  view.setInt32(off + ipv4.ID, 0);
  view.setInt32(off + ipv4.TTL, (TTL << 24) | (ipv4.PROTO_UDP << 16));
  view.setInt32(off + ipv4.SRC, src);
  view.setInt32(off + ipv4.DST, dst);
  ipv4.setHeaderChecksum(view, off);
  const l4 = off + ipv4.HEADER_LEN;
  view.setInt32(l4 + udp.SRC_PORT, ports);
  view.setInt32(l4 + udp.LENGTH, (udp.HEADER_LEN + payload) << 16);
}

/** Where the inner IPv4 header of a VXLAN packet is, if there is one. @param off the VXLAN header */
export function innerOfVxlan(off: number): number {
  return off + vxlan.HEADER_LEN + ethernet.HEADER_LEN;
}

/**
 * The same for GENEVE, whose options are between and whose payload need not be a frame.
 * @returns `end` if the header does not end before that
 */
export function innerOfGeneve(view: DataView, off: number, end: number): number {
  if (end - off < geneve.HEADER_LEN) return end;
  const payload = off + geneve.HEADER_LEN + geneve.optionsLen(view, off);
  const isFrame = view.getUint16(off + geneve.PROTOCOL) !== ethernet.TYPE_IPV4;
  return Math.min(end, isFrame ? payload + ethernet.HEADER_LEN : payload);
}

/**
 * Is the packet of `len` bytes at `off` an ICMP error about one of the tunnel's packets from `local`? The rest of the ICMP
 * that a raw socket sees is the host's own affair. Whether the quote is genuine, mtu/path-mtu.ts finds out.
 * @param udpPort the tunnel's, or 0 for IPIP
 */
export function quotesTunnel(view: DataView, off: number, len: number, local: number, udpPort: number): boolean {
  if (len < ipv4.HEADER_LEN || view.getUint8(off) >>> 4 !== 4) return false;
  const headerLen = ipv4.headerLen(view, off);
  const end = off + len;
  const message = off + headerLen;
  const quote = message + icmp.HEADER_LEN;
  if (headerLen < ipv4.HEADER_LEN || end - quote < ipv4.HEADER_LEN) return false;
  if (view.getUint8(off + ipv4.PROTOCOL) !== ipv4.PROTO_ICMP || !icmp.isError(view.getUint8(message))) return false;
  if (view.getUint8(quote) >>> 4 !== 4 || view.getInt32(quote + ipv4.SRC) !== local) return false;
  const protocol = view.getUint8(quote + ipv4.PROTOCOL);
  if (udpPort === 0) return protocol === ipv4.PROTO_IPIP;
  const l4 = quote + ipv4.headerLen(view, quote);
  return protocol === ipv4.PROTO_UDP && end - l4 >= udp.HEADER_LEN && view.getUint16(l4 + udp.DST_PORT) === udpPort;
}

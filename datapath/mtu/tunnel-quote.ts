/**
 * Reads an ICMP error that came from the underlay about a packet of the tunnel.
 *
 *   | ICMP header | outer IPv4 | UDP | VXLAN, GENEVE | Ethernet | inner IPv4 | 8 bytes or more |
 *                 '------------ quoted, as far as the router quotes -------------------------'
 */
import type { Packet } from '../packet/packet.ts';
import { verifyChecksum } from '../packet/segment.ts';
import { sourcePort } from '../tunnel/entropy.ts';
import { TUNNEL_IPIP, type Tunnel } from '../tunnel/tunnel.ts';
import { CONTINUE, DROP_TUNNEL_ERROR_CHECKSUM, DROP_TUNNEL_ERROR_QUOTE } from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as vxlan from '../wire/vxlan.ts';

/** Least that an ICMP error quotes behind the IP header (RFC 792). */
const QUOTED_PAYLOAD = 8;

/** Where the outer header lies that a parsed ICMP error quotes. */
export function quotedHeader(p: Packet): number {
  return p.l4 + icmp.HEADER_LEN;
}

/** The next-hop MTU of a "fragmentation needed"; 0 from a router older than RFC 1191, and in other errors. */
export function quotedMtu(view: DataView, p: Packet): number {
  return isFragNeeded(view, p) ? view.getUint16(p.l4 + icmp.NEXT_HOP_MTU) : 0;
}

/** True if the parsed packet is an ICMP error that says it is about a packet of this tunnel from us. */
export function quotesTunnel(view: DataView, p: Packet, tunnel: Tunnel): boolean {
  if (p.protocol !== ipv4.PROTO_ICMP || ipv4.isFragment(p.fragment)) return false;
  if (!icmp.isError(view.getUint8(p.l4 + icmp.TYPE))) return false;
  const quote = quotedHeader(p);
  const end = p.off + p.len;
  if (end - quote < ipv4.HEADER_LEN || view.getUint8(quote) >>> 4 !== 4) return false;
  if (view.getInt32(quote + ipv4.SRC) !== tunnel.localAddress) return false;
  const protocol = view.getUint8(quote + ipv4.PROTOCOL);
  if (tunnel.protocol === TUNNEL_IPIP) return protocol === ipv4.PROTO_IPIP;
  const l4 = quote + ipv4.headerLen(view, quote);
  return protocol === ipv4.PROTO_UDP && end - l4 >= udp.HEADER_LEN && view.getUint16(l4 + udp.DST_PORT) === tunnel.port;
}

/**
 * Reads the error that `quotesTunnel`, and checks that what it quotes is a packet as we send them, to a peer that we have.
 * An attacker off the path who does not see our packets cannot know all that, if the quote is long enough (RFC 5927
 * asks the like of TCP).
 *
 * @param inner becomes the quoted inner packet, parsed as far as it is quoted, as if it had come from the peer that it was
 *   sent to: for buildIcmpError, to tell its sender. Its len is 0 if less than its header and 8 bytes are quoted.
 * @returns CONTINUE or DROP_TUNNEL_ERROR_*
 */
export function readQuote(view: DataView, p: Packet, tunnel: Tunnel, inner: Packet): number {
  inner.len = 0;
  const quote = quotedHeader(p);
  const end = p.off + p.len;
  const headerLen = ipv4.headerLen(view, quote);
  const l4 = quote + headerLen;
  if (headerLen < ipv4.HEADER_LEN || end - l4 < QUOTED_PAYLOAD) return DROP_TUNNEL_ERROR_QUOTE;
  if (!verifyChecksum(view, p)) return DROP_TUNNEL_ERROR_CHECKSUM;

  const destination = view.getInt32(quote + ipv4.DST);
  if (tunnel.findPeer(destination) < 0) return DROP_TUNNEL_ERROR_QUOTE;
  const field = view.getUint16(quote + ipv4.FLAGS_FRAGMENT);
  // Of a packet that was fragmented on its way, routers answer for the first fragment only.
  if ((field & ipv4.OFFSET_MASK) !== 0) return DROP_TUNNEL_ERROR_QUOTE;
  // Without DF it would have been fragmented.
  if (isFragNeeded(view, p) && (field & ipv4.FLAG_DF) === 0) return DROP_TUNNEL_ERROR_QUOTE;

  inner.inPort = p.inPort;
  inner.tunnelSource = destination;
  if (tunnel.protocol !== TUNNEL_IPIP) return readUdp(view, l4, end, tunnel, inner);
  readInner(view, l4, end, inner);
  return CONTINUE;
}

function isFragNeeded(view: DataView, p: Packet): boolean {
  return (
    view.getUint8(p.l4 + icmp.TYPE) === icmp.UNREACHABLE && view.getUint8(p.l4 + icmp.CODE) === icmp.CODE_FRAG_NEEDED
  );
}

function readUdp(view: DataView, l4: number, end: number, tunnel: Tunnel, inner: Packet): number {
  const port = view.getUint16(l4 + udp.SRC_PORT);
  if (port < tunnel.portFrom || port >= tunnel.portFrom + tunnel.portRange) return DROP_TUNNEL_ERROR_QUOTE;
  const header = l4 + udp.HEADER_LEN;
  const frame = header + vxlan.HEADER_LEN + 4 * tunnel.optionWords.length;
  if (end - header < vxlan.HEADER_LEN) return tunnel.believeShortQuotes ? CONTINUE : DROP_TUNNEL_ERROR_QUOTE;
  if (view.getInt32(header) !== tunnel.headerWord) return DROP_TUNNEL_ERROR_QUOTE;
  if (!tunnel.vniIsIdentity && view.getInt32(header + vxlan.VNI) !== tunnel.vniWord) return DROP_TUNNEL_ERROR_QUOTE;
  if (end - frame < ethernet.HEADER_LEN) return CONTINUE;
  const own =
    ethernet.macHi(view, frame + ethernet.SRC) === tunnel.localMacHi &&
    ethernet.macLo(view, frame + ethernet.SRC) === tunnel.localMacLo;
  if (!own || view.getUint16(frame + ethernet.TYPE) !== ethernet.TYPE_IPV4) return DROP_TUNNEL_ERROR_QUOTE;

  readInner(view, frame + ethernet.HEADER_LEN, end, inner);
  if (inner.len === 0) return CONTINUE;
  // The source port is made with a secret: the quote proves that we sent it.
  const proven = sourcePort(inner, tunnel.portSeed, tunnel.portFrom, tunnel.portRange) === port;
  return proven ? CONTINUE : DROP_TUNNEL_ERROR_QUOTE;
}

/** Fills `inner` from the IPv4 header at `off`, which is ours, so that only its end is in question. */
function readInner(view: DataView, off: number, end: number, inner: Packet): void {
  if (end - off < ipv4.HEADER_LEN || view.getUint8(off) >>> 4 !== 4) return;
  const headerLen = ipv4.headerLen(view, off);
  const totalLen = view.getUint16(off + ipv4.TOTAL_LEN);
  const len = Math.min(end - off, totalLen);
  if (headerLen < ipv4.HEADER_LEN || len < headerLen + QUOTED_PAYLOAD) return;
  inner.off = off;
  inner.len = len;
  inner.l4 = off + headerLen;
  inner.src = view.getInt32(off + ipv4.SRC);
  inner.dst = view.getInt32(off + ipv4.DST);
  inner.protocol = view.getUint8(off + ipv4.PROTOCOL);
  inner.fragment = view.getUint16(off + ipv4.FLAGS_FRAGMENT);
  inner.srcPort = 0;
  inner.dstPort = 0;
  if ((inner.fragment & ipv4.OFFSET_MASK) !== 0) return;
  if (inner.protocol === ipv4.PROTO_ICMP) {
    if (icmp.isQuery(view.getUint8(inner.l4 + icmp.TYPE))) {
      inner.srcPort = inner.dstPort = view.getUint16(inner.l4 + icmp.ID);
    }
  } else if (
    inner.protocol === ipv4.PROTO_TCP ||
    inner.protocol === ipv4.PROTO_UDP ||
    inner.protocol === ipv4.PROTO_SCTP
  ) {
    inner.srcPort = view.getUint16(inner.l4 + tcp.SRC_PORT);
    inner.dstPort = view.getUint16(inner.l4 + tcp.DST_PORT);
  }
}

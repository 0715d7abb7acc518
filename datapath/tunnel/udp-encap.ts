/**
 * VXLAN and GENEVE: an Ethernet frame in a UDP datagram. They differ in 8 bytes of header; everything else is here.
 *
 *   off        +20      +28              +36                +50
 *    | IPv4     | UDP    | VXLAN, GENEVE  | inner Ethernet   | inner IPv4 ...
 *
 * GENEVE's options stand behind its header, and move what follows.
 */
import type { Packet } from '../packet/packet.ts';
import {
  CONTINUE,
  DROP_TUNNEL_CHECKSUM,
  DROP_TUNNEL_INNER_MAC,
  DROP_TUNNEL_INNER_TYPE,
  DROP_TUNNEL_MALFORMED,
  DROP_TUNNEL_OWN_MAC,
  DROP_TUNNEL_UNKNOWN_VNI,
} from '../verdict.ts';
import { foldSum, pseudoSum, sumWords } from '../wire/checksum.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as geneve from '../wire/geneve.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';
import * as vxlan from '../wire/vxlan.ts';
import { sourcePort } from './entropy.ts';
import { checkGeneve } from './geneve.ts';
import type { TunnelHeaders } from './headers.ts';
import { partialHeaderSum, setOuterIpv4, TEMPLATE_DST, TEMPLATE_IP_SUM } from './outer-ipv4.ts';
import type { TunnelPeer } from './spec.ts';
import { TUNNEL_VXLAN } from './spec.ts';
import { checkVxlan } from './vxlan.ts';

// Both tunnel headers are 8 bytes and have the VNI in the same place.
const TUNNEL_HEADER_LEN = vxlan.HEADER_LEN;
const ETHERNET = ipv4.HEADER_LEN + udp.HEADER_LEN + TUNNEL_HEADER_LEN;
/** Without options. */
export const UDP_OVERHEAD = ETHERNET + ethernet.HEADER_LEN;
/** With as many options as GENEVE can carry. */
export const MAX_UDP_OVERHEAD = UDP_OVERHEAD + geneve.MAX_OPTIONS_LEN;

// Template words behind TEMPLATE_DST and TEMPLATE_IP_SUM: the inner Ethernet header but its type, and the sum of all the
// words under the UDP checksum that are the same for every packet to the peer.
const TEMPLATE_MACS = 2;
const TEMPLATE_UDP_SUM = 5;

/** Fills a peer's template. */
export function templateUdp(t: TunnelHeaders, peer: TunnelPeer, words: Int32Array): void {
  words[TEMPLATE_DST] = peer.address;
  words[TEMPLATE_IP_SUM] = partialHeaderSum(t.localAddress, peer.address, ipv4.PROTO_UDP);
  const frame = new DataView(new ArrayBuffer(ethernet.HEADER_LEN));
  ethernet.setMac(frame, ethernet.DST, peer.macHi, peer.macLo);
  ethernet.setMac(frame, ethernet.SRC, t.localMacHi, t.localMacLo);
  frame.setUint16(ethernet.TYPE, ethernet.TYPE_IPV4);
  for (let i = 0; i < 3; i++) words[TEMPLATE_MACS + i] = frame.getInt32(4 * i);
  const constant =
    pseudoSum(t.localAddress, peer.address, ipv4.PROTO_UDP, 0) +
    t.port +
    (t.headerWord >>> 16) +
    (t.headerWord & 0xffff);
  let sum = sumWords(frame, 0, ethernet.HEADER_LEN, constant);
  for (const word of t.optionWords) sum += (word >>> 16) + (word & 0xffff);
  words[TEMPLATE_UDP_SUM] = foldSum(sum);
}

/** Tunnel.encap for VXLAN and GENEVE. `template` is the index of the peer's first word. */
export function encapUdp(t: TunnelHeaders, p: Packet, template: number): void {
  const view = t.view;
  const inner = p.off;
  const off = inner - t.overhead;
  const l4 = off + ipv4.HEADER_LEN;
  const len = p.len + t.overhead;
  const udpLen = len - ipv4.HEADER_LEN;
  const source = sourcePort(p, t.portSeed, t.portFrom, t.portRange);
  const vniWord = t.vniIsIdentity ? p.identity << 8 : t.vniWord;

  let checksum = 0;
  if (p.gsoType !== virtio.GSO_NONE) {
    p.gsoType |= virtio.GSO_UDP_TUNNEL_IPV4;
    p.outerTransport = l4;
    p.innerNetwork = inner;
    p.vnetFlags = virtio.FLAG_NEEDS_CSUM;
    if (t.udpChecksum) {
      // The kernel finishes it for each segment from the pseudo header's sum (net/ipv4/udp_offload.c).
      checksum = foldSum(pseudoSum(t.localAddress, t.templates[template + TEMPLATE_DST], ipv4.PROTO_UDP, udpLen));
      p.vnetFlags = virtio.FLAG_NEEDS_CSUM | virtio.FLAG_UDP_TUNNEL_CSUM;
    }
  } else {
    // DATA_VALID spoke of what was the first header until now.
    p.vnetFlags &= virtio.FLAG_NEEDS_CSUM;
    if (t.udpChecksum) {
      const constant = t.templates[template + TEMPLATE_UDP_SUM] + (vniWord >>> 16) + (vniWord & 0xffff);
      // The length counts twice: in the UDP header and in the pseudo header.
      checksum = ~foldSum(sumInner(view, p, constant + source + 2 * udpLen)) & 0xffff;
      if (checksum === 0) checksum = 0xffff; // 0 means none (RFC 768)
    }
  }

  p.off = off;
  p.len = len;
  setOuterIpv4(t, p, inner, template, ipv4.PROTO_UDP);

  view.setInt32(l4 + udp.SRC_PORT, (source << 16) | t.port);
  view.setInt32(l4 + udp.LENGTH, (udpLen << 16) | checksum);
  view.setInt32(l4 + udp.HEADER_LEN, t.headerWord);
  view.setInt32(l4 + udp.HEADER_LEN + vxlan.VNI, vniWord);
  const { optionWords } = t;
  for (let i = 0; i < optionWords.length; i++) view.setInt32(off + ETHERNET + 4 * i, optionWords[i]);
  const frame = inner - ethernet.HEADER_LEN;
  view.setInt32(frame, t.templates[template + TEMPLATE_MACS]);
  view.setInt32(frame + 4, t.templates[template + TEMPLATE_MACS + 1]);
  view.setInt32(frame + 8, t.templates[template + TEMPLATE_MACS + 2]);
  view.setUint16(frame + ethernet.TYPE, ethernet.TYPE_IPV4);
}

/**
 * Adds the bytes of the inner packet to `sum`. Its IPv4 header is not read: with a right checksum in it, and only such a
 * packet has come so far, it sums up to 0. Nor are those that a partial checksum covers: once that is complete, they sum up
 * to the complement of the pseudo header's sum that stands in its field ("local checksum offload", Linux
 * Documentation/networking/checksum-offloads.rst).
 */
function sumInner(view: DataView, p: Packet, sum: number): number {
  if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) === 0) return sumWords(view, p.l4, p.off + p.len - p.l4, sum);
  const pseudo = view.getUint16(p.csumStart + p.csumOffset);
  return sumWords(view, p.l4, p.csumStart - p.l4, sum) + (~pseudo & 0xffff);
}

/** Tunnel.decap for VXLAN and GENEVE. */
export function decapUdp(t: TunnelHeaders, p: Packet): number {
  const view = t.view;
  const udpLen = view.getUint16(p.l4 + udp.LENGTH);
  const header = p.l4 + udp.HEADER_LEN;
  const end = p.l4 + udpLen;
  // parseIpv4 has seen that udpLen lies within the packet; bytes behind it belong to nobody.
  if (end - header < TUNNEL_HEADER_LEN) return DROP_TUNNEL_MALFORMED;
  if (!checksumOk(view, p, udpLen)) return DROP_TUNNEL_CHECKSUM;

  let at = header + TUNNEL_HEADER_LEN;
  let bareIp = false;
  if (t.protocol === TUNNEL_VXLAN) {
    const verdict = checkVxlan(view, header, t.dropReserved);
    if (verdict !== CONTINUE) return verdict;
  } else {
    const verdict = checkGeneve(view, header, end, t.dropCriticalBit, t.knownOptions);
    if (verdict !== CONTINUE) return verdict;
    at += geneve.optionsLen(view, header);
    const type = view.getUint16(header + geneve.PROTOCOL);
    bareIp = type === ethernet.TYPE_IPV4 && t.acceptIpPayload;
    if (type !== ethernet.TYPE_TEB && !bareIp) return DROP_TUNNEL_INNER_TYPE;
  }

  const vni = vxlan.vni(view, header);
  if (t.vniIsIdentity ? vni === 0 : vni !== t.vniWord >>> 8) return DROP_TUNNEL_UNKNOWN_VNI;

  if (!bareIp) {
    if (end - at < ethernet.HEADER_LEN) return DROP_TUNNEL_MALFORMED;
    const verdict = checkInnerEthernet(t, at);
    if (verdict !== CONTINUE) return verdict;
    at += ethernet.HEADER_LEN;
  }
  const verdict = t.open(p, at, end);
  if (verdict === CONTINUE && t.vniIsIdentity) p.identity = vni;
  return verdict;
}

/**
 * True unless the outer UDP checksum is wrong. 0 is none; a device that says the checksum is good, or still to be
 * completed (the sender is on this machine), is believed.
 */
function checksumOk(view: DataView, p: Packet, udpLen: number): boolean {
  if (view.getUint16(p.l4 + udp.CHECKSUM) === 0) return true;
  if ((p.vnetFlags & (virtio.FLAG_DATA_VALID | virtio.FLAG_NEEDS_CSUM)) !== 0) return true;
  const pseudo = pseudoSum(p.src, p.dst, ipv4.PROTO_UDP, udpLen);
  return foldSum(sumWords(view, p.l4, udpLen, pseudo)) === 0xffff;
}

/** Checks the inner Ethernet header at `off`. A VLAN tag counts as a type we do not carry (RFC 7348 section 6.1). */
function checkInnerEthernet(t: TunnelHeaders, off: number): number {
  const view = t.view;
  if (view.getUint16(off + ethernet.TYPE) !== ethernet.TYPE_IPV4) return DROP_TUNNEL_INNER_TYPE;
  const sourceHi = ethernet.macHi(view, off + ethernet.SRC);
  if (sourceHi === t.localMacHi && ethernet.macLo(view, off + ethernet.SRC) === t.localMacLo) {
    return DROP_TUNNEL_OWN_MAC;
  }
  if (!t.checkInnerMac) return CONTINUE;
  const hi = ethernet.macHi(view, off + ethernet.DST);
  if (ethernet.isGroup(hi)) return CONTINUE;
  const own = hi === t.localMacHi && ethernet.macLo(view, off + ethernet.DST) === t.localMacLo;
  return own ? CONTINUE : DROP_TUNNEL_INNER_MAC;
}

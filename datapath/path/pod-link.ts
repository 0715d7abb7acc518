/**
 * A pod behind a link layer (a TAP or a veth): it sends Ethernet and asks by ARP, as behind Calico's veth. Its default
 * gateway is 169.254.1.1, which nobody has; whatever it asks for, the port answers with its own MAC (Linux: proxy_arp), and
 * so gets every packet. What the pod's own MAC is, its frames say.
 */
import { EVENT_ARP_RECEIVED, EVENT_ARP_REPLY_SENT } from '../counters.ts';
import type { Packet } from '../packet/packet.ts';
import type { PodLink, Port } from '../port.ts';
import {
  CONTINUE,
  DONE,
  DROP_INVALID_SOURCE,
  DROP_MALFORMED_ARP,
  DROP_MALFORMED_ETHERNET,
  DROP_MULTICAST,
  DROP_NOT_IPV4,
  DROP_OTHER_MAC,
  TAKEN,
} from '../verdict.ts';
import * as arp from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Path } from './path.ts';

/** Takes a packet out of its Ethernet header; an ARP frame ends here. `p.off` at the frame. */
export function openPodFrame(path: Path, p: Packet, port: Port, link: PodLink): number {
  const { view } = path;
  const { off } = p;
  if (p.len < ethernet.HEADER_LEN) return DROP_MALFORMED_ETHERNET;
  const hi = ethernet.macHi(view, off + ethernet.DST);
  const group = ethernet.isGroup(hi);
  if (!group && (hi !== link.macHi || ethernet.macLo(view, off + ethernet.DST) !== link.macLo)) return DROP_OTHER_MAC;
  const fromHi = ethernet.macHi(view, off + ethernet.SRC);
  const fromLo = ethernet.macLo(view, off + ethernet.SRC);
  if (ethernet.isGroup(fromHi) || (fromHi | fromLo) === 0) return DROP_MALFORMED_ETHERNET;
  const type = view.getUint16(off + ethernet.TYPE);
  if (type === ethernet.TYPE_ARP) return answerArp(path, p, port, link);
  if (type !== ethernet.TYPE_IPV4) return DROP_NOT_IPV4;
  if (group) return DROP_MULTICAST;
  if (
    (fromHi !== link.peerHi || fromLo !== link.peerLo) &&
    p.len >= ethernet.HEADER_LEN + ipv4.HEADER_LEN &&
    port.owns(view.getInt32(off + ethernet.HEADER_LEN + ipv4.SRC))
  ) {
    link.peerHi = fromHi;
    link.peerLo = fromLo;
  }
  p.pull(ethernet.HEADER_LEN);
  return CONTINUE;
}

/** Turns a request into its answer, and learns the pod's MAC from what it says of its own address. */
function answerArp(path: Path, p: Packet, port: Port, link: PodLink): number {
  const { view, counters } = path;
  const { off } = p;
  const packet = off + ethernet.HEADER_LEN;
  counters.event(EVENT_ARP_RECEIVED);
  if (!arp.check(view, packet, p.len - ethernet.HEADER_LEN)) return DROP_MALFORMED_ARP;
  const operation = view.getUint16(packet + arp.OPER);
  if (operation !== arp.REQUEST && operation !== arp.REPLY) return DROP_MALFORMED_ARP;
  const hi = ethernet.macHi(view, packet + arp.SHA);
  const lo = ethernet.macLo(view, packet + arp.SHA);
  if (hi !== ethernet.macHi(view, off + ethernet.SRC) || lo !== ethernet.macLo(view, off + ethernet.SRC)) {
    return DROP_MALFORMED_ARP;
  }
  const sender = view.getInt32(packet + arp.SPA);
  if (sender !== 0) {
    if (!port.owns(sender)) return DROP_INVALID_SOURCE;
    link.peerHi = hi;
    link.peerLo = lo;
  }
  const target = view.getInt32(packet + arp.TPA);
  // Its own address: it looks whether somebody else has it (RFC 5227), or says that it is there.
  if (operation === arp.REPLY || port.owns(target)) return DONE;
  ethernet.setMac(view, off + ethernet.DST, hi, lo);
  ethernet.setMac(view, off + ethernet.SRC, link.macHi, link.macLo);
  view.setUint16(packet + arp.OPER, arp.REPLY);
  ethernet.setMac(view, packet + arp.THA, hi, lo);
  view.setInt32(packet + arp.TPA, sender);
  ethernet.setMac(view, packet + arp.SHA, link.macHi, link.macLo);
  view.setInt32(packet + arp.SPA, target);
  p.len = ethernet.HEADER_LEN + arp.PACKET_LEN;
  p.vnetFlags = 0;
  p.gsoType = 0;
  p.local = 1;
  counters.event(EVENT_ARP_REPLY_SENT);
  port.queue(p);
  return TAKEN;
}

/** Puts the Ethernet header in front of an IPv4 packet for the pod. */
export function writePodFrame(path: Path, p: Packet, link: PodLink): void {
  p.push(ethernet.HEADER_LEN);
  ethernet.setMac(path.view, p.off + ethernet.DST, link.peerHi, link.peerLo);
  ethernet.setMac(path.view, p.off + ethernet.SRC, link.macHi, link.macLo);
  path.view.setUint16(p.off + ethernet.TYPE, ethernet.TYPE_IPV4);
}

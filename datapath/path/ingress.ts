/**
 * Steps 1 and 2: what comes in by a port becomes a parsed packet that may be judged. Behind the uplink this includes what is
 * for the node itself before it is a packet of anybody else: ARP (in openFrame), and the tunnels (from-tunnel.ts).
 */
import type { Packet } from '../packet/packet.ts';
import { isCuttable } from '../packet/segment.ts';
import { IDENTITY_WORLD, PORT_POD, PORT_UPLINK, type Port } from '../port.ts';
import {
  CONTINUE,
  DONE,
  DROP_ENCAP_FROM_WORKLOAD,
  DROP_INVALID_SOURCE,
  DROP_MALFORMED_ETHERNET,
  DROP_MALFORMED_IPV4,
  DROP_MALFORMED_VNET_HEADER,
  DROP_MARTIAN_SOURCE,
  DROP_MULTICAST,
  DROP_NOT_IPV4,
  DROP_OTHER_MAC,
} from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as vnet from '../wire/virtio-net.ts';
import { answer } from './icmp.ts';
import * as ip from './ipv4.ts';
import type { Path } from './path.ts';

/** A pod may only send from its own addresses. The port says who the sender is. */
export function checkSource(path: Path, p: Packet, port: Port): number {
  const { view } = path;
  const v = ip.checkVersion(view, p);
  if (v !== CONTINUE) return v;
  if (port.kind === PORT_POD && !port.owns(ip.sourceOf(view, p))) return DROP_INVALID_SOURCE;
  p.identity = port.identity;
  p.mark = port.mark;
  return CONTINUE;
}

/** Parses the packet at `p.off` (packet/parse.ts); afterwards nothing of its headers need be checked again. */
export function parsePacket(path: Path, p: Packet): number {
  const v = ip.parse(path.view, p, path.tcpFragmentLeast);
  if (v === DROP_MALFORMED_IPV4 && path.fillsOptions) refuseOption(path, p);
  return v;
}

/** Who sends options that are wrong hears which byte it is (RFC 1812 section 4.3.3.5; Linux ip_options_compile). */
function refuseOption(path: Path, p: Packet): void {
  const fault = ip.faultyOption(path.view, p);
  if (fault === 0) return;
  const isForeign = path.ports[p.inPort].kind === PORT_UPLINK;
  if (!isForeign || !path.isMartian(p.src)) answer(path, p, ip.BAD_HEADER, fault);
}

/** A pod that speaks the protocol of a tunnel of ours to a node could put words into another pod's mouth (Calico refuses it, too). */
export function refusePodTunnel(path: Path, p: Packet, port: Port): number {
  return port.kind === PORT_POD ? refuseTunnelPacket(path, p) : CONTINUE;
}

/** The same for what has come out of a tunnel: a pod of a peer that did not look. Nodes do not send each other tunnels in tunnels. */
export function refuseTunnelPacket(path: Path, p: Packet): number {
  return path.tunnels.imitates(p, path.underlay.address) ? DROP_ENCAP_FROM_WORKLOAD : CONTINUE;
}

/** Takes a frame for this node out of its Ethernet header; an ARP frame ends here. */
export function openFrame(path: Path, p: Packet): number {
  const { view, underlay } = path;
  if (p.len < ethernet.HEADER_LEN) return DROP_MALFORMED_ETHERNET;
  const hi = ethernet.macHi(view, p.off);
  const group = ethernet.isGroup(hi);
  if (!group && (hi !== underlay.macHi || ethernet.macLo(view, p.off) !== underlay.macLo)) return DROP_OTHER_MAC;
  const type = view.getUint16(p.off + ethernet.TYPE);
  if (type === ethernet.TYPE_ARP) {
    const v = path.neighbors.handleArp(p, path.now);
    return v === CONTINUE ? DONE : v;
  }
  if (type !== ip.ETHERTYPE) return DROP_NOT_IPV4;
  if (group) return DROP_MULTICAST;
  p.pull(ethernet.HEADER_LEN);
  return CONTINUE;
}

/** Nobody outside may speak for us, or from an address that names no host. */
export function checkForeignSource(path: Path, p: Packet): number {
  if (path.isMartian(p.src)) return DROP_MARTIAN_SOURCE;
  p.identity = IDENTITY_WORLD;
  return CONTINUE;
}

/** What is never forwarded, whoever sent it. */
export function checkForwardable(path: Path, p: Packet): number {
  const v = ip.checkUnicast(p);
  if (v !== CONTINUE) return v;
  // Somebody else's tunnel: further on it may have to be cut.
  if ((p.gsoType & vnet.GSO_UDP_TUNNEL_IPV4) !== 0 && !isCuttable(path.view, p)) return DROP_MALFORMED_VNET_HEADER;
  return CONTINUE;
}

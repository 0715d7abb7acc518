/** The outer IPv4 header that all tunnels share. */
import type { Packet } from '../packet/packet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as virtio from '../wire/virtio-net.ts';
import type { TunnelHeaders } from './headers.ts';

// Template words (Tunnel.templates) that every protocol has.
export const TEMPLATE_DST = 0;
export const TEMPLATE_IP_SUM = 1;

/** The 16-bit sum of those header words that are the same for every packet to a peer. */
export function partialHeaderSum(src: number, dst: number, protocol: number): number {
  return 0x4500 + protocol + (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff);
}

/**
 * Writes the complete outer header at `p.off`, which has already moved there.
 *
 * Each word is put together in a register from the template and the packet, and stored once. Measured for the 50 bytes of
 * VXLAN (node 20, 2-core Xeon): so 12 ns; the template's words copied and then patched 24 ns; Uint8Array.set or copyWithin
 * of the template and then patched 51 to 65 ns.
 *
 * @param inner the inner IPv4 header, for what the profile inherits
 * @param template index of the peer's first template word
 */
export function setOuterIpv4(t: TunnelHeaders, p: Packet, inner: number, template: number, protocol: number): void {
  const view = t.view;
  const off = p.off;
  const len = p.len;
  const dst = t.templates[template + TEMPLATE_DST];
  const tos = t.tos[view.getUint8(inner + ipv4.TOS)];
  const ttl = t.ttl !== 0 ? t.ttl : view.getUint8(inner + ipv4.TTL);
  const flags = (p.fragment & t.dfMask) | t.dfSet;
  // Each segment of a superpacket takes an id; whoever cuts it counts up from the first.
  const id = t.takeIds(p.gsoType === virtio.GSO_NONE ? 1 : Math.ceil(len / p.gsoSize));

  let sum = t.templates[template + TEMPLATE_IP_SUM] + tos + len + id + flags + (ttl << 8);
  sum = (sum & 0xffff) + (sum >>> 16);
  sum += sum >>> 16;

  view.setInt32(off + ipv4.VERSION_IHL, 0x45000000 | (tos << 16) | len);
  view.setInt32(off + ipv4.ID, (id << 16) | flags);
  view.setInt32(off + ipv4.TTL, (ttl << 24) | (protocol << 16) | (~sum & 0xffff));
  view.setInt32(off + ipv4.SRC, t.localAddress);
  view.setInt32(off + ipv4.DST, dst);
}

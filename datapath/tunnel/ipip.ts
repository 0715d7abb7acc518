/** IP in IP (RFC 2003): protocol 4, the inner header behind the outer one and nothing between. */
import type { Packet } from '../packet/packet.ts';
import { DROP_TUNNEL_INNER_TYPE, DROP_TUNNEL_MALFORMED } from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as virtio from '../wire/virtio-net.ts';
import type { TunnelHeaders } from './headers.ts';
import { partialHeaderSum, setOuterIpv4, TEMPLATE_DST, TEMPLATE_IP_SUM } from './outer-ipv4.ts';
import type { TunnelPeer } from './spec.ts';

export const IPIP_OVERHEAD = ipv4.HEADER_LEN;

/** Fills a peer's template. */
export function templateIpip(t: TunnelHeaders, peer: TunnelPeer, words: Int32Array): void {
  words[TEMPLATE_DST] = peer.address;
  words[TEMPLATE_IP_SUM] = partialHeaderSum(t.localAddress, peer.address, ipv4.PROTO_IPIP);
}

/** Tunnel.encap for IPIP. `template` is the index of the peer's first word. About 10 ns. */
export function encapIpip(t: TunnelHeaders, p: Packet, template: number): void {
  const inner = p.off;
  if (p.gsoType !== virtio.GSO_NONE) {
    p.gsoType |= virtio.GSO_UDP_TUNNEL_IPV4;
    p.outerTransport = inner;
    p.innerNetwork = inner;
  }
  p.off = inner - IPIP_OVERHEAD;
  p.len += IPIP_OVERHEAD;
  // DATA_VALID spoke of what was the first header until now.
  p.vnetFlags &= virtio.FLAG_NEEDS_CSUM;
  setOuterIpv4(t, p, inner, template, ipv4.PROTO_IPIP);
}

/** Tunnel.decap for IPIP. */
export function decapIpip(t: TunnelHeaders, p: Packet): number {
  const end = p.off + p.len;
  if (end - p.l4 < ipv4.HEADER_LEN) return DROP_TUNNEL_MALFORMED;
  if (t.view.getUint8(p.l4 + ipv4.VERSION_IHL) >>> 4 !== 4) return DROP_TUNNEL_INNER_TYPE;
  return t.open(p, p.l4, end);
}

/** What a tunnel adds to a packet. Here and nowhere else, so that MTUs, checks and encapsulation agree. */
import { optionsBytes } from './geneve.ts';
import { IPIP_OVERHEAD } from './ipip.ts';
import { TUNNEL_GENEVE, TUNNEL_IPIP, type TunnelSpec } from './spec.ts';
import { UDP_OVERHEAD } from './udp-encap.ts';

/** Bytes in front of the inner IP header, without the outer Ethernet header: 20, 50, or with GENEVE's options more. */
export function overheadOf({ protocol, options = [] }: Pick<TunnelSpec, 'protocol' | 'options'>): number {
  if (protocol === TUNNEL_IPIP) return IPIP_OVERHEAD;
  return protocol === TUNNEL_GENEVE ? UDP_OVERHEAD + optionsBytes(options) : UDP_OVERHEAD;
}

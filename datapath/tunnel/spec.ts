/** What a tunnel is made from. */
import type { EcnVariant, OuterHeader } from '../profile.ts';

export const TUNNEL_IPIP = 1;
export const TUNNEL_VXLAN = 2;
export const TUNNEL_GENEVE = 3;

export interface TunnelPeer {
  /** Underlay address, int32. */
  address: number;
  /** Its VTEP MAC (ethernet.Mac): the inner Ethernet destination. */
  macHi: number;
  macLo: number;
}

/** An option that GENEVE carries in front of the inner frame (RFC 8926 section 3.5). */
export interface GeneveOption {
  /** Option class, 16 bits: whose option it is. */
  optionClass: number;
  /** 8 bits; with the high one set it is critical: who does not know it must drop the packet. */
  type: number;
  /** A multiple of 4 bytes, at most 124. */
  data: readonly number[];
}

export interface TunnelSpec {
  /** TUNNEL_*. */
  protocol: number;
  /** UDP destination port, ours and the peers'; without meaning for IPIP. */
  port: number;
  /** The VNI of every packet, or -1: the sender's identity. */
  vni: number;
  /** Our underlay address, int32. */
  localAddress: number;
  /** Our VTEP MAC: the inner Ethernet source. */
  localMacHi: number;
  localMacLo: number;
  peers: TunnelPeer[];
  /** Take packets from senders that are not peers, too. */
  acceptAny: boolean;
  /** GENEVE: sent with every packet, 252 bytes at most in all, and known when they come. */
  options?: readonly GeneveOption[];
  /** Instead of what the profile says. */
  outer?: Partial<OuterHeader>;
  ecnEncap?: EcnVariant;
  ecnDecap?: EcnVariant;
}

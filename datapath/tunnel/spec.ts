/** What a tunnel is made from. */

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
}

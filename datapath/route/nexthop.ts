/** Where a route leads. Many prefixes share one next hop; the route table holds its index. */

/** The route exists in order to say no. */
export const HOP_REFUSE = 1;
/** A pod of this node: out by its port. */
export const HOP_POD = 2;
/** The node itself: up through the host port. */
export const HOP_HOST = 3;
/** Out by the uplink, to a gateway. */
export const HOP_GATEWAY = 4;
/** Out by the uplink, to the destination itself: the subnet is connected. */
export const HOP_ONLINK = 5;
/** Into the tunnel, to a peer. */
export const HOP_TUNNEL = 6;

export const HOP_NAMES: readonly string[] = ['', 'refuse', 'pod', 'host', 'gateway', 'onlink', 'tunnel'];

export interface NextHop {
  kind: number;
  /** Index of the port that it leaves by; -1 for HOP_REFUSE. */
  port: number;
  /** The neighbour asked for on the uplink (int32): the gateway, or for a tunnel whoever leads to the peer. 0 elsewhere. */
  gateway: number;
  /** Tunnel peer index, -1 elsewhere. */
  peer: number;
  /** The peer's underlay address (int32), 0 elsewhere. */
  peerAddress: number;
  /** Longest IP packet in bytes that may take this way, the tunnel's headers already taken off. */
  mtu: number;
  /** 1 if packets from the uplink may take it: an explicit route, as opposed to the default and the connected one. */
  transit: number;
}

/** A route as the control plane gives it. */
export interface Route {
  prefix: number;
  length: number;
  /** Index into the table of next hops; 0 is no next hop. */
  hop: number;
}

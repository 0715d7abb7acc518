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

// What becomes of a packet that is longer than its way takes: the four ways of RFC 4459.

/** Section 3.2: with DF its sender is told the MTU; without, it is cut, as a router does (RFC 791). */
export const TOO_BIG_SIGNAL = 0;
/** Section 3.1: it goes into the tunnel whole; the tunnel's packet is cut, and put together at the exit. */
export const TOO_BIG_FRAGMENT_OUTER = 1;
/** Section 3.4: it is cut before the tunnel, whatever its DF says, and put together by its receiver. */
export const TOO_BIG_FRAGMENT_INNER = 2;
/** Section 3.3: the underlay has room for whatever pods send, by arrangement. Should it not, nothing is done about it. */
export const TOO_BIG_LARGER_UNDERLAY = 3;

/** By the names that configurations use. */
export const TOO_BIG_NAMES = ['signal', 'fragment-outer', 'fragment-inner', 'larger-underlay'] as const;

export interface NextHop {
  kind: number;
  /** Index of the port that it leaves by; -1 for HOP_REFUSE. */
  port: number;
  /**
   * The neighbour asked for on the uplink (int32): the gateway, or for a tunnel whoever leads to the peer. Of HOP_HOST the
   * host port's address, if the way leads on through the host's kernel. 0 elsewhere.
   */
  gateway: number;
  /** Number of the tunnel (tunnels.ts), 0 elsewhere. */
  tunnel: number;
  /** Number of the peer in it, -1 elsewhere. */
  peer: number;
  /** The peer's underlay address (int32), 0 elsewhere. */
  peerAddress: number;
  /** Longest IP packet in bytes that may take this way, the tunnel's headers already taken off. */
  mtu: number;
  /** TOO_BIG_*. */
  tooBig: number;
  /** 1: the MSS of connections that take it, or come by it, is lowered to what fits. */
  clampMss: number;
  /** 1 if packets from the uplink may take it: an explicit route, as opposed to the default and the connected one. */
  transit: number;
}

/** A next hop; what `fields` leaves out means nothing to its kind. */
export function nextHop(kind: number, fields: Partial<NextHop> = {}): NextHop {
  return {
    kind,
    port: -1,
    gateway: 0,
    tunnel: 0,
    peer: -1,
    peerAddress: 0,
    mtu: 65535,
    tooBig: TOO_BIG_SIGNAL,
    clampMss: 0,
    transit: 0,
    ...fields,
  };
}

/** A route as the control plane gives it. */
export interface Route {
  prefix: number;
  length: number;
  /** Index into the table of next hops; 0 is no next hop. */
  hop: number;
}

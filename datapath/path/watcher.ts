/**
 * Who looks at packets on the path. A path without a watcher pays for one comparison where a packet enters and one where it
 * ends; the steps of a packet are reported only if the watcher has set its `trace`.
 */
import type { Packet } from '../packet/packet.ts';
import type { Port } from '../port.ts';

export interface Watcher {
  /** It came in by the port; nothing is known of it yet. May set `p.trace`. */
  received(p: Packet, port: Port): void;
  /** It is complete and leaves by the port. The neighbour table's own frames, too. */
  sent(p: Packet, port: Port): void;
  /** It ends here, for a reason of verdict.ts. */
  dropped(p: Packet, reason: number): void;
  /** A traced packet has taken a step: STEP_*, and what came of it. */
  stepped(p: Packet, step: number, verdict: number): void;
}

// The steps of forward.ts, by their numbers there.
export const STEP_SOURCE = 1;
export const STEP_PARSE = 2;
export const STEP_FLOW = 3;
export const STEP_SERVICE = 4;
export const STEP_EGRESS_POLICY = 5;
export const STEP_ROUTE = 6;
export const STEP_INGRESS_POLICY = 7;
export const STEP_MASQUERADE = 8;
export const STEP_MTU = 9;
export const STEP_ENCAPSULATE = 10;
export const STEP_NEIGHBOR = 11;
/** Before 3, behind the uplink. */
export const STEP_TUNNEL = 12;
/** Behind 8: what has been decided of addresses and ports is done. */
export const STEP_REWRITE = 13;

export const STEP_NAMES: readonly string[] = [
  '',
  'source check',
  'parse',
  'flow',
  'service',
  'egress policy',
  'route',
  'ingress policy',
  'masquerade',
  'TTL and MTU',
  'encapsulate',
  'next hop',
  'tunnel',
  'rewrite',
];

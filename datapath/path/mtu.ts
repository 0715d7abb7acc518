/** Step 9: time to live, and what takes which next hop in one piece. */
import * as counters from '../counters.ts';
import { clampMss } from '../mtu/mss.ts';
import { MIN_MTU } from '../mtu/path-mtu.ts';
import { KEEP_ID, type Packet } from '../packet/packet.ts';
import { headersOf } from '../packet/segment.ts';
import { PORT_HOST } from '../port.ts';
import type { NextHop } from '../route/nexthop.ts';
import * as hops from '../route/nexthop.ts';
import {
  CONTINUE,
  DROP_OVER_MTU_DONT_FRAGMENT,
  DROP_TTL_EXCEEDED,
  DROP_UNDERLAY_TOO_SMALL,
  MUST_CUT,
} from '../verdict.ts';
import { answer } from './icmp.ts';
import * as ip from './ipv4.ts';
import { fillOptions } from './options.ts';
import type { Path } from './path.ts';

/**
 * May the packet leave by this next hop, and in one piece? In the order of Linux's ip_forward: a packet that is refused is
 * quoted with the TTL that it came with.
 * @param forwarded whether its TTL goes down
 * @returns CONTINUE, MUST_CUT, or the reason to drop it
 */
export function checkTtlAndMtu(path: Path, p: Packet, hop: NextHop, forwarded: boolean): number {
  const { view } = path;
  if (forwarded && ip.hopLimit(view, p) <= 1) {
    answer(path, p, ip.HOPS_EXCEEDED, 0);
    return DROP_TTL_EXCEEDED;
  }
  if (hop.clampMss !== 0) clampToPath(path, p, hop);
  let v = CONTINUE;
  if (wireLength(path, p) > mtuOf(path, hop)) {
    v = refuseOrCut(path, p, hop);
    if (v !== MUST_CUT) return v;
  }
  if (forwarded) {
    ip.decrementHopLimit(view, p);
    if (path.fillsOptions && ip.hasOptions(view, p)) fillOptions(path, p, hop);
  }
  if (p.newId !== KEEP_ID) ip.setId(view, p, p.newId);
  return v;
}

/** The node's own packets are not forwarded, so they keep their TTL. */
export function isFromHost(path: Path, p: Packet): boolean {
  return p.local !== 0 || path.ports[p.inPort].kind === PORT_HOST;
}

/** The MSS that a SYN offers is for what will come back: the route back counts as well as the one that it takes. */
export function clampToPath(path: Path, p: Packet, hop: NextHop): void {
  if (!ip.isTcp(p)) return;
  const back = path.routes.lookup(p.sender);
  const mtu = Math.min(uncutMtuOf(path, hop), back === 0 ? hop.mtu : uncutMtuOf(path, path.nextHops[back]));
  if (clampMss(path.view, p, Math.max(MIN_MTU, mtu))) path.counters.event(counters.EVENT_MSS_CLAMPED);
}

/**
 * What may leave by this next hop: its MTU, or less where the path to the tunnel's peer has turned out narrower and that is
 * the packet's business, not the tunnel's.
 */
export function mtuOf(path: Path, hop: NextHop): number {
  if (hop.tooBig === hops.TOO_BIG_FRAGMENT_OUTER || hop.tooBig === hops.TOO_BIG_LARGER_UNDERLAY) return hop.mtu;
  // A path so narrow that the tunnel's headers leave less: no sender can be told of less, nor cut to it (RFC 791).
  return Math.max(MIN_MTU, uncutMtuOf(path, hop));
}

/** What leaves by this next hop without being cut anywhere, as far as is known. */
export function uncutMtuOf(path: Path, hop: NextHop): number {
  if (hop.kind === hops.HOP_POD) return Math.min(hop.mtu, path.ports[hop.port].mtu);
  if (hop.kind !== hops.HOP_TUNNEL) return hop.mtu;
  if (path.pathMtu.size === 0 && hop.tooBig !== hops.TOO_BIG_FRAGMENT_OUTER) return hop.mtu;
  const tunnel = path.tunnels.byNumber[hop.tunnel];
  return tunnel === null
    ? hop.mtu
    : Math.min(hop.mtu, path.pathMtu.lookup(hop.peerAddress, path.now) - tunnel.overhead);
}

/** Length of the longest IP packet that `p` will be on the wire: for a superpacket that of one full segment. */
export function wireLength(path: Path, p: Packet): number {
  if (p.gsoType === 0) return p.len;
  return Math.min(headersOf(path.view, p) + p.gsoSize, p.len);
}

/** Too long: the next hop says which of the four answers of RFC 4459 is given. */
function refuseOrCut(path: Path, p: Packet, hop: NextHop): number {
  if (hop.tooBig === hops.TOO_BIG_FRAGMENT_INNER) return MUST_CUT;
  if (hop.tooBig === hops.TOO_BIG_LARGER_UNDERLAY) return DROP_UNDERLAY_TOO_SMALL;
  if (ip.mayBeFragmented(p)) return MUST_CUT;
  answer(path, p, ip.TOO_BIG, mtuOf(path, hop));
  return DROP_OVER_MTU_DONT_FRAGMENT;
}

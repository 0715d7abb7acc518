/**
 * Steps 3 to 8 for fragments: they are judged as one datagram, by the first; those that come before it wait
 * (mtu/virtual-reassembly.ts). Each then goes on as it is.
 */
import type { Nat } from '../nat/nat.ts';
import type { Packet } from '../packet/packet.ts';
import { CONTINUE } from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { lookupRoute } from './judge.ts';
import type { Path } from './path.ts';

/** Zone of fragments that came through the tunnel; the others' is the port that they came by. */
const ZONE_TUNNEL = -1;

/** Takes in a fragment. @returns CONTINUE: it may be judged now, a first one by itself, a later one like its first; TAKEN */
export function acceptFragment(path: Path, p: Packet): number {
  return path.virtual.accept(p, p.tunnelSource !== 0 ? ZONE_TUNNEL : p.inPort, path.now);
}

/** The first fragment has been judged: the others go where it goes. */
export function admitFragments(path: Path, p: Packet, nat: Nat): void {
  if (path.freshIds && p.src !== p.sender) p.newId = path.takeIds(1);
  p.generation = nat.conntrack.generation(p.flow);
  path.virtual.admit(p);
}

/** Judges a later fragment like the first one: the same addresses, and a route. */
export function judgeLaterFragment(path: Path, p: Packet, nat: Nat): number {
  const { src, dst } = p;
  p.sender = src;
  const v = nat.conntrack.translateFragment(p);
  if (v !== CONTINUE) return v;
  p.translated = p.src !== src || p.dst !== dst ? 1 : 0;
  return lookupRoute(path, p);
}

export function isLaterFragment(p: Packet): boolean {
  return (p.fragment & ipv4.OFFSET_MASK) !== 0;
}

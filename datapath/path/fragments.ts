/**
 * Steps 3 to 8 for fragments: they are judged as one datagram, by the first; those that come before it wait
 * (mtu/virtual-reassembly.ts). Each then goes on as it is.
 */
import type { Nat } from '../nat/nat.ts';
import type { Packet } from '../packet/packet.ts';
import { CONTINUE } from '../verdict.ts';
import { beginJudgement, lookupRoute } from './judge.ts';
import type { Path } from './path.ts';

/** Zone of fragments that came through the tunnel; the others' is the port that they came by. */
const ZONE_TUNNEL = -1;

/** Takes in a fragment. @returns CONTINUE: it may be judged now, a first one by itself, a later one like its first; TAKEN */
export function acceptFragment(path: Path, p: Packet): number {
  return path.virtual.accept(p, p.tunnelSource !== 0 ? ZONE_TUNNEL : p.inPort, path.now);
}

/** The first fragment has been judged: the others go where it goes. */
export function admitFragments(path: Path, p: Packet, nat: Nat): void {
  if (path.freshIds && p.newSrc !== p.src) p.newId = path.takeIds(1);
  p.generation = nat.conntrack.generation(p.flow);
  path.virtual.admit(p);
}

/** Judges a later fragment like the first one: the same addresses, and a route. */
export function judgeLaterFragment(path: Path, p: Packet, nat: Nat): number {
  const { newId } = p;
  beginJudgement(p);
  p.newId = newId;
  const v = nat.conntrack.followFirst(p);
  return v === CONTINUE ? lookupRoute(path, p) : v;
}

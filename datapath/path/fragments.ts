/**
 * Steps 3 to 8 for fragments: they are judged as one datagram, by the first; those that come before it wait
 * (mtu/virtual-reassembly.ts). Each then goes on as it is.
 */
import type { Flows } from '../flow/flows.ts';
import type { Packet } from '../packet/packet.ts';
import { WHOLE_HEADER } from '../packet/parse.ts';
import { CONTINUE, TAKEN } from '../verdict.ts';
import * as ip from './ipv4.ts';
import { beginJudgement, followFlow, lookupRoute } from './judge.ts';
import type { Path } from './path.ts';

/** Zone of fragments that came through the tunnel; the others' is the port that they came by. */
const ZONE_TUNNEL = -1;

/**
 * True for fragments that are put together before anybody looks, as before Linux's conntrack (nf_defrag_ipv4): those of TCP
 * and SCTP where the profile lets a first one pass that does not hold the header.
 */
export function isJoined(path: Path, p: Packet): boolean {
  if (path.tcpFragmentLeast === WHOLE_HEADER) return false;
  return ip.isTcp(p) || ip.isSctp(p);
}

/** Takes in such a fragment; when none is missing, the whole enters the path. @returns TAKEN, or why it ends here */
export function joinFragment(path: Path, p: Packet): number {
  const { identity, tunnelSource } = p;
  const v = path.joined.accept(p, zoneOf(p), path.now);
  const whole = path.joined.takeWhole();
  if (whole === null) return v;
  whole.identity = identity;
  whole.tunnelSource = tunnelSource;
  const w = path.forward(whole);
  if (w !== TAKEN) path.drop(whole, w);
  return v;
}

function zoneOf(p: Packet): number {
  return p.tunnelSource !== 0 ? ZONE_TUNNEL : p.inPort;
}

/** Takes in a fragment. @returns CONTINUE: it may be judged now, a first one by itself, a later one like its first; TAKEN */
export function acceptFragment(path: Path, p: Packet): number {
  return path.virtual.accept(p, zoneOf(p), path.now);
}

/** The first fragment has been judged: the others go where it goes. */
export function admitFragments(path: Path, p: Packet, flows: Flows): void {
  if (path.freshIds && p.newSrc !== p.src) p.newId = path.takeIds(1);
  p.generation = flows.generation(p.flow);
  path.virtual.admit(p);
}

/** Judges a later fragment like the first one: the same addresses, and a route. */
export function judgeLaterFragment(path: Path, p: Packet, flows: Flows): number {
  const { newId } = p;
  beginJudgement(p);
  p.newId = newId;
  let v = flows.trackLaterFragment(p);
  if (v === CONTINUE && path.nat !== null) v = followFlow(p, path.nat);
  return v === CONTINUE ? lookupRoute(path, p) : v;
}

/**
 * The slow, obvious twin of mtu-prove/walk.ts: what becomes of one packet on its path, by arithmetic, with lengths instead of
 * packets. Sizes come from compiled next hops and tunnels.
 */
import type { Network, Stretch } from '../../datapath/mtu-prove/network.ts';
import { findPath, type Leg, overheadOn, type Path } from '../../datapath/mtu-prove/path.ts';
import type { Cut, Ending, Lesson } from '../../datapath/mtu-prove/walk.ts';
import * as hops from '../../datapath/route/nexthop.ts';
import { FLAG_DF, HEADER_LEN } from '../../datapath/wire/ipv4.ts';

/** Path MTUs learnt, by the leg whose tunnel packets they are about. */
type Learnt = Map<Leg, number>;

/** More lessons than links on a path are not to be learnt. */
const MAX_LESSONS = 16;

/**
 * What becomes of a packet once the nodes on its way have learnt what there is to learn: what that cost is in `lessons`.
 * @param path one that is not broken
 */
export function walkByLengths(network: Network, path: Path, sender: number, len: number, df: boolean): Ending {
  const learnt: Learnt = new Map();
  const lessons: Lesson[] = [];
  for (let tries = 0; tries < MAX_LESSONS; tries++) {
    const step = attempt(network, path, sender, len, df, learnt);
    if (step.kind !== 'learn') return step.kind === 'lost' ? step : { ...step, lessons };
    learnt.set(step.leg, step.mtu);
    lessons.push({ router: step.router, mtu: step.mtu, node: step.leg.node.name });
  }
  throw new RangeError('a path MTU that goes down for ever');
}

type Step =
  | { kind: 'delivered'; cuts: Cut[] }
  | { kind: 'signalled'; by: string; mtu: number }
  | Extract<Ending, { kind: 'lost' }>
  | { kind: 'learn'; leg: Leg; router: string; mtu: number };

function attempt(network: Network, path: Path, sender: number, len: number, df: boolean, learnt: Learnt): Step {
  const cuts: Cut[] = [];
  const receiver = path.pod?.name ?? '';
  let pieces = [len];
  let innerDf = df;
  for (const [index, leg] of path.legs.entries()) {
    const { node, hop, to } = leg;
    const limit = admits(leg, learnt);
    if (Math.max(...pieces) > limit) {
      if (hop.tooBig === hops.TOO_BIG_LARGER_UNDERLAY) return lost(node.name, node.name);
      if (innerDf && hop.tooBig !== hops.TOO_BIG_FRAGMENT_INNER) {
        if (index > 0 && findPath(network, node, sender).broken !== null)
          return lost(node.name, node.name, `${node.name} itself`);
        return { kind: 'signalled', by: node.name, mtu: limit };
      }
      pieces = cut(pieces, limit);
      innerDf = false;
      cuts.push({ by: node.name, where: 'inner', pieces: pieces.length, joinedBy: receiver });
    }
    if (to === null) continue;

    const isTunnel = hop.kind === hops.HOP_TUNNEL;
    const overhead = overheadOn(leg);
    let outer = pieces.map(piece => piece + overhead);
    let outerDf = isTunnel ? outerDfOf(leg, innerDf) : innerDf;
    const joinedBy = isTunnel ? to.name : receiver;
    const own = learnt.get(leg) ?? node.program.underlay.mtu;
    if (isTunnel && hop.tooBig === hops.TOO_BIG_FRAGMENT_OUTER && Math.max(...outer) > own) {
      outer = cut(outer, own);
      outerDf = false;
      cuts.push({ by: node.name, where: 'outer', pieces: outer.length, joinedBy });
    }
    for (const stretch of leg.stretches) {
      const { router } = stretch;
      if (Math.max(...outer) <= stretch.limit) continue;
      if (router === null) return lost(stretch.name, null, null, stretch.carriedBy);
      if (!outerDf) {
        outer = cut(outer, stretch.limit);
        cuts.push({ by: router, where: isTunnel ? 'outer' : 'inner', pieces: outer.length, joinedBy });
        continue;
      }
      if (stretch.icmpLostAt !== null) return lost(stretch.name, router, stretch.icmpLostAt, stretch.carriedBy);
      if (!isTunnel) return { kind: 'signalled', by: router, mtu: stretch.limit };
      // By arrangement it fits: nothing is learnt.
      if (hop.tooBig === hops.TOO_BIG_LARGER_UNDERLAY) return lost(stretch.name, router, null, stretch.carriedBy);
      return { kind: 'learn', leg, router, mtu: stretch.limit };
    }
    // The tunnel's own fragments are joined at its exit; a packet without a tunnel stays cut.
    if (!isTunnel) pieces = outer;
  }
  return { kind: 'delivered', cuts };
}

/** mtuOf() of the datapath. */
function admits(leg: Leg, learnt: Learnt): number {
  const { hop } = leg;
  if (hop.tooBig === hops.TOO_BIG_FRAGMENT_OUTER || hop.tooBig === hops.TOO_BIG_LARGER_UNDERLAY) return hop.mtu;
  const path = learnt.get(leg);
  return path === undefined ? hop.mtu : Math.min(hop.mtu, path - overheadOn(leg));
}

function outerDfOf({ node, hop }: Leg, innerDf: boolean): boolean {
  const tunnel = node.tunnels.get(hop.tunnel);
  return tunnel !== undefined && (((innerDf ? FLAG_DF : 0) & tunnel.dfMask) | tunnel.dfSet) !== 0;
}

/** Lengths of the fragments of a packet without options: all but the last hold a multiple of 8, the last may fill its room. */
function fragmentLengths(len: number, mtu: number): number[] {
  const lengths: number[] = [];
  let rest = len - HEADER_LEN;
  for (; rest > mtu - HEADER_LEN; rest -= (mtu - HEADER_LEN) & ~7) lengths.push(HEADER_LEN + ((mtu - HEADER_LEN) & ~7));
  return [...lengths, HEADER_LEN + rest];
}

function cut(pieces: readonly number[], mtu: number): number[] {
  return pieces.flatMap(piece => (piece > mtu ? fragmentLengths(piece, mtu) : [piece]));
}

function lost(
  at: string,
  dropped: string | null,
  icmpLostAt: string | null = null,
  carriedBy: Stretch['carriedBy'] = null,
): Extract<Ending, { kind: 'lost' }> {
  return { kind: 'lost', at, dropped, icmpLostAt, carriedBy };
}

/** A case in words: by which way, why it ends as it does, and what to set so that it does not. */
import { formatAddress } from '../control/address.ts';
import * as hops from '../route/nexthop.ts';
import { type Leg, limitsOf, overheadOn } from './path.ts';
import type { Case, Range } from './prove.ts';
import type { Ending } from './walk.ts';

/** `vxlan`, `geneve (12 B of options)`, `direct`, `local`, `vxlan over wireguard`. */
export function viaOf({ path }: Case): string {
  const ways = path.legs.map(leg => wayOf(leg)).filter((way, _, all) => way !== 'local' || all.length === 1);
  return ways.length === 0 ? '-' : ways.join(', ');
}

function wayOf(leg: Leg): string {
  const { hop, stretches } = leg;
  const carriers = [...new Set(stretches.flatMap(({ carriedBy }) => carriedBy?.protocol ?? []))];
  const over = carriers.map(protocol => ` over ${protocol}`).join('');
  switch (hop.kind) {
    case hops.HOP_POD:
      return 'local';
    case hops.HOP_TUNNEL:
      return `${hop.tunnel}${over}`;
    case hops.HOP_GATEWAY:
      return leg.to?.address === hop.gateway ? `direct${over}` : `via ${formatAddress(hop.gateway)}${over}`;
    default:
      return `direct${over}`;
  }
}

export function whyOf(c: Case): string {
  const { path, ranges } = c;
  if (path.broken !== null) return path.broken;
  if (ranges.length === 0) {
    return `all that a pod sends; longer ones its own kernel refuses (EMSGSIZE, "Message too large"), which is no loss`;
  }
  const withDf = ranges.filter(({ df }) => df);
  const withoutDf = ranges.filter(({ df }) => !df);
  const same = JSON.stringify(withDf.map(plain)) === JSON.stringify(withoutDf.map(plain));
  const said = same
    ? withDf.map(range => `${sizes(range)}: ${endingText(range)}`)
    : [
        ...withDf.map(range => `${sizes(range)} with DF: ${endingText(range)}`),
        ...withoutDf.map(range => `without DF: ${endingText(range)}`),
      ];
  return [...said, ...tcpText(c), ...remedies(c)].join('; ');
}

const plain = ({ from, to, ending }: Range) => ({ from, to, ending });

function sizes({ from, to }: Range): string {
  return from === to ? `${from}` : `${from}-${to}`;
}

function endingText({ ending, atMost }: Range): string {
  switch (ending.kind) {
    case 'delivered':
      return [
        ...ending.lessons.map(
          ({ router, mtu, node }) => `the first is lost, by which ${node} learns of MTU ${mtu} from ${router}`,
        ),
        ...ending.cuts.map(({ by, where, pieces, joinedBy }, i) => {
          const what = where === 'outer' ? "the tunnel's packet" : 'it';
          const most = piecesOf(atMost, i);
          return `${by} cuts ${what} in ${pieces}${most > pieces ? ` to ${most}` : ''}, ${joinedBy} joins them`;
        }),
      ].join(', then ');
    case 'signalled': {
      const lessons = ending.lessons.map(({ router, mtu, node }) => `${router} tells ${node} MTU ${mtu}, `);
      return `${lessons.join('')}${ending.by} tells the sender MTU ${ending.mtu}`;
    }
    case 'lost': {
      const { at, dropped, icmpLostAt, carriedBy } = ending;
      const carrier =
        carriedBy === null
          ? ''
          : `, which is itself ${carriedBy.protocol} and leaves ${carriedBy.of - carriedBy.overhead} of ${carriedBy.of}`;
      if (dropped === null) return `lost at ${at}${carrier}, and nobody is told`;
      if (icmpLostAt !== null)
        return `${dropped} drops it before ${at}${carrier}, and its ICMP is lost at ${icmpLostAt}`;
      return `${dropped} drops it${carrier}, and nobody is told`;
    }
  }
}

function piecesOf(ending: Ending, cut: number): number {
  return ending.kind === 'delivered' ? (ending.cuts[cut]?.pieces ?? 0) : 0;
}

function tcpText({ tcp }: Case): string[] {
  if (tcp === null) return [];
  switch (tcp.result) {
    case 'hangs':
      return [`TCP connects and hangs with its first full segment (${tcp.segment})`];
    case 'passes':
      return [`TCP passes (segments of ${tcp.segment})`];
    case 'learns':
      return [`TCP learns it (segments of ${tcp.segment} at first)`];
    case 'fragments':
      return [`TCP pays for it with every full segment (${tcp.segment})`];
  }
}

/** What to set so that everything passes whole. */
function remedies({ path, largest, sender }: Case): string[] {
  const least = Math.min(...limitsOf(path));
  const narrow = path.legs.find(leg => leg.stretches.some(({ limit }) => limit - overheadOn(leg) === least));
  if (narrow !== undefined && narrow.to !== null) {
    const mtu = least + overheadOn(narrow);
    const names = [narrow.node, narrow.to].filter(({ config }) => config.spec.uplink.mtu > mtu).map(({ name }) => name);
    if (names.length > 0) return [`remedy: uplink.mtu ${mtu} on ${names.join(' and ')}`];
  }
  return largest < sender.routeMtu ? [`remedy: mtu ${largest} for the pods of ${sender.node.name}`] : [];
}

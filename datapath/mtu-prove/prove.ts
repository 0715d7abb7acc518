/**
 * `tunpath mtu prove`: for every pair of pods and every backend of every service, in both directions, the largest packet
 * that passes whole, and what becomes of larger ones. Pure: no device, no clock.
 *
 * Pods of one node that have the same MTUs, and destinations that have the same way, are one case: of 100 nodes with 10
 * pods each, a million pairs, some ten thousand cases are left.
 */
import { formatAddress } from '../control/address.ts';
import type { HopProgram } from '../program/program.ts';
import * as hops from '../route/nexthop.ts';
import { HEADER_LEN as IPV4_HEADER } from '../wire/ipv4.ts';
import { HEADER_LEN as TCP_HEADER } from '../wire/tcp.ts';
import type { Network, ProvedNode, ProvedPod } from './network.ts';
import { findPath, limitsOf, type Path, uncutBy } from './path.ts';
import { type Ending, Walker } from './walk.ts';

export const VERDICTS = ['ok', 'fragments', 'signalled', 'black hole', 'unreachable'] as const;
export type Verdict = (typeof VERDICTS)[number];

/** What becomes of packets of `from` to `to` bytes, with DF or without. */
export interface Range {
  from: number;
  to: number;
  df: boolean;
  /** Of the shortest, and of the longest: they differ in the number of pieces at most. */
  ending: Ending;
  atMost: Ending;
}

/** What full segments of a TCP connection come to; Linux sends them with DF. */
export interface TcpForecast {
  /** Length of the IP packet that a full segment makes. */
  segment: number;
  /** `hangs`: small segments pass, so that the connection stands, and full ones never arrive. */
  result: 'passes' | 'fragments' | 'learns' | 'hangs';
}

/** A packet that does not arrive, exactly. */
export interface FailingPacket {
  bytes: number;
  df: boolean;
  protocol: 'ICMP';
  /** What sends it, in the sender's pod. */
  command: string;
}

export interface Case {
  kind: 'pods' | 'service' | 'reply';
  /** Of `service` and `reply`. */
  service: string | null;
  from: ProvedNode;
  to: ProvedNode | null;
  /** A sender and a receiver that stand for all of the case. */
  sender: ProvedPod;
  receiver: ProvedPod | null;
  /** int32; also where no pod has it. */
  destination: number;
  path: Path;
  pairs: number;
  largest: number;
  verdict: Verdict;
  ranges: Range[];
  tcp: TcpForecast | null;
  fails: FailingPacket | null;
}

/**
 * @param expand every pair as a case of its own
 * @returns cases in the order of the nodes
 */
export function prove(network: Network, expand = false): Case[] {
  const prover = new Prover(network, expand);
  for (const from of network.nodes) {
    prover.pairsFrom(from);
    prover.servicesFrom(from);
  }
  return prover.cases;
}

class Prover {
  readonly cases: Case[] = [];
  private readonly network: Network;
  private readonly walker: Walker;
  private readonly hopNumbers = new Map<HopProgram, number>();
  private readonly byKey = new Map<string, Case>();
  private readonly expand: boolean;

  constructor(network: Network, expand: boolean) {
    this.network = network;
    this.walker = new Walker(network);
    this.expand = expand;
  }

  /** Pods that fare alike; each by itself if every pair is asked for. */
  private sendersOf(node: ProvedNode): ProvedPod[][] {
    return this.expand ? node.pods.map(pod => [pod]) : groupPods(node.pods);
  }

  pairsFrom(from: ProvedNode): void {
    const senders = this.sendersOf(from);
    for (const to of this.network.nodes) {
      let last: { receiver: ProvedPod; hop: HopProgram | undefined; cases: (Case | undefined)[] } | null = null;
      for (const receiver of to.pods) {
        const hop = from.routes.lookup(receiver.address);
        // What goes straight to the node of pods that are alike fares alike; it is not looked at again.
        if (last !== null && last.hop === hop && isAlike(last.receiver, receiver) && !this.expand) {
          for (const [i, known] of last.cases.entries()) if (known !== undefined) known.pairs += senders[i].length;
          continue;
        }
        const path = findPath(this.network, from, receiver.address);
        const ends = { kind: 'pods', service: null, from, to, receiver, destination: receiver.address } as const;
        const cases = senders.map(pods => this.add(ends, pods, path));
        const straight = path.legs[0]?.to === to && path.legs.length === 2;
        last = straight ? { receiver, hop, cases } : null;
      }
    }
  }

  servicesFrom(from: ProvedNode): void {
    const senders = this.sendersOf(from);
    for (const service of from.services) {
      for (const backend of service.backends) {
        const receiver = this.network.podAt(backend) ?? null;
        const to = receiver?.node ?? null;
        const path = findPath(this.network, from, backend);
        const ends = { service: service.name, from, to, receiver, destination: backend };
        for (const pods of senders) {
          const there = this.add({ kind: 'service', ...ends }, pods, path);
          if (there === undefined || receiver === null) continue;
          const client = there.sender;
          const back = { from: receiver.node, to: from, receiver: client, destination: client.address };
          const wayBack = findPath(this.network, receiver.node, client.address);
          const made = this.add({ kind: 'reply', service: service.name, ...back }, [receiver], wayBack);
          // One backend answers all of them.
          if (made !== undefined) made.pairs += pods.filter(pod => pod !== receiver).length - 1;
        }
      }
    }
  }

  /**
   * Enters what `senders`, which are alike, send to the receiver.
   * @returns the case that they are part of; undefined if there is none but the receiver itself
   */
  private add(ends: Omit<Ends, 'sender'>, senders: readonly ProvedPod[], path: Path): Case | undefined {
    // A pod does not send to itself by way of the node.
    const others = senders.filter(pod => pod !== ends.receiver);
    if (others.length === 0) return undefined;
    const pairs = others.length;
    const whole = { ...ends, sender: others[0] };
    const key = this.keyOf(whole, path);
    let known = this.byKey.get(key);
    if (known === undefined) {
      known = { ...whole, path, pairs, ...judge(this.walker, whole.sender, path, ends.destination) };
      this.byKey.set(key, known);
      this.cases.push(known);
    } else if (this.expand) {
      known = { ...known, ...whole, path, pairs };
      this.cases.push(known);
    } else {
      known.pairs += pairs;
    }
    return known;
  }

  /** The same for all that fare alike: the ends' nodes and MTUs, and the next hops between. */
  private keyOf({ kind, service, from, to, sender, receiver }: Ends, path: Path): string {
    const way = path.legs.map(({ hop }) => (hop.kind === hops.HOP_POD ? `p${hop.mtu}` : this.numberOf(hop))).join();
    const ends = `${from.name} ${to?.name} ${sender.deviceMtu} ${sender.routeMtu} ${receiver?.routeMtu}`;
    return `${kind} ${service} ${ends} ${way} ${path.broken}`;
  }

  private numberOf(hop: HopProgram): number {
    let number = this.hopNumbers.get(hop);
    if (number === undefined) {
      number = this.hopNumbers.size;
      this.hopNumbers.set(hop, number);
    }
    return number;
  }
}

/** Who speaks to whom. */
type Ends = Pick<Case, 'kind' | 'service' | 'from' | 'to' | 'sender' | 'receiver' | 'destination'>;

function isAlike(a: ProvedPod, b: ProvedPod): boolean {
  return a.deviceMtu === b.deviceMtu && a.routeMtu === b.routeMtu;
}

/** Pods with the same MTUs. */
function groupPods(pods: readonly ProvedPod[]): ProvedPod[][] {
  const groups = new Map<string, ProvedPod[]>();
  for (const pod of pods) {
    const key = `${pod.deviceMtu} ${pod.routeMtu}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [pod]);
    else group.push(pod);
  }
  return [...groups.values()];
}

function judge(
  walker: Walker,
  sender: ProvedPod,
  path: Path,
  destination: number,
): Pick<Case, 'largest' | 'verdict' | 'ranges' | 'tcp' | 'fails'> {
  if (path.broken !== null) return { largest: 0, verdict: 'unreachable', ranges: [], tcp: null, fails: null };
  const most = sender.routeMtu;
  const limits = [...new Set(limitsOf(path))].filter(limit => limit < most).sort((a, b) => a - b);
  const largest = limits[0] ?? most;
  const ranges = [true, false].flatMap(df =>
    limits.map((limit, i) => {
      const [from, to] = [limit + 1, limits[i + 1] ?? most];
      const [ending, atMost] = [from, to].map(len => walker.walk(path, sender, len, df));
      return { from, to, df, ending, atMost };
    }),
  );
  const worst = Math.max(0, ...ranges.map(({ ending }) => VERDICTS.indexOf(verdictOf(ending))));
  const failing = ranges.find(({ ending }) => VERDICTS.indexOf(verdictOf(ending)) === worst);
  const verdict = VERDICTS[worst];
  return {
    largest,
    verdict,
    ranges: joinAlike(ranges),
    tcp: path.pod === null ? null : forecastTcp(walker, sender, path.pod, path, largest),
    fails: failing !== undefined && worst >= VERDICTS.indexOf('signalled') ? failingPacket(failing, destination) : null,
  };
}

function verdictOf(ending: Ending): Verdict {
  switch (ending.kind) {
    case 'lost':
      return 'black hole';
    case 'signalled':
      return 'signalled';
    case 'delivered':
      return ending.cuts.length > 0 ? 'fragments' : 'ok';
  }
}

/** Neighbouring ranges in which the same happens, but for the number of pieces. */
function joinAlike(ranges: readonly Range[]): Range[] {
  const joined: Range[] = [];
  for (const range of ranges) {
    const last = joined.at(-1);
    const alike =
      last !== undefined && last.df === range.df && JSON.stringify(last.ending) === JSON.stringify(range.ending);
    if (alike) Object.assign(last, { to: range.to, atMost: range.atMost });
    else joined.push({ ...range });
  }
  return joined;
}

const ICMP_AND_IPV4_HEADER = 28;

function failingPacket({ from, df }: Range, destination: number): FailingPacket {
  const size = from - ICMP_AND_IPV4_HEADER;
  const command = `ping -M ${df ? 'do' : 'dont'} -c 1 -s ${size} ${formatAddress(destination)}`;
  return { bytes: from, df, protocol: 'ICMP', command };
}

/** A connection that `sender` opens: both ends offer what their route's MTU leaves, and nodes may lower it on the way. */
function forecastTcp(walker: Walker, sender: ProvedPod, receiver: ProvedPod, path: Path, largest: number): TcpForecast {
  let segment = Math.min(sender.routeMtu, receiver.routeMtu);
  for (const leg of path.legs) {
    const back = leg.node.routes.lookup(sender.address);
    if (leg.hop.clampMss === 0 && back?.clampMss !== 1) continue;
    segment = Math.min(segment, uncutBy(leg), back === undefined ? segment : uncutBy({ ...leg, hop: back }));
  }
  if (segment < IPV4_HEADER + TCP_HEADER) segment = IPV4_HEADER + TCP_HEADER;
  if (segment <= largest) return { segment, result: 'passes' };
  const ending = walker.walk(path, sender, segment, true);
  if (ending.kind === 'lost') return { segment, result: 'hangs' };
  return { segment, result: ending.kind === 'signalled' || ending.lessons.length > 0 ? 'learns' : 'fragments' };
}

/**
 * What `host check` concludes from what it has tried, peer by peer: a row for each question, with what was seen and what to
 * do. Pure; probe-pair.ts tries.
 */
import type { Judgement } from './firewall.ts';
import type { IcmpError } from './icmp-listener.ts';

export type Result = 'ok' | 'fail' | 'unknown';

export interface Row {
  check: string;
  /** "-" for what concerns this node alone. */
  peer: string;
  result: Result;
  seen: string;
  /** What to do about it; empty if nothing. */
  todo: string;
}

/** One run of ping. */
export interface Ping {
  sent: number;
  received: number;
  /** Of the fastest answer, ms. */
  rttMs?: number;
  /** The MTU that a packet was said to be too long for, here or on the way. */
  tooLongFor?: number;
  /** What an ICMP error said, "Destination Host Unreachable", and who; without `from` it is this host's kernel that says it. */
  error?: string;
  from?: string;
}

/** What was found out about one peer. What was not tried is absent. */
export interface PairFacts {
  peer: string;
  /** Where the node's tunnels have names. */
  tunnelName?: string;
  /** Of this node. */
  node: { address: string; kind: string; underlayMtu: number; tunnelMtu: number };
  /** "UDP port 8472", "IP protocol 4". */
  traffic: string;
  /** Next hop of the underlay towards the peer, and whether it has answered ARP; unknown where nobody has asked it. */
  neighbor?: { address: string; answers: boolean };
  /** To the peer's underlay address: small, and as long as the underlay's MTU with DF. */
  underlay: Ping;
  underlayFull?: Ping;
  /** What the underlay has told the node of the path to the peer, and what that leaves for packets in this tunnel. */
  pathMtu?: { mtu: number; inner: number; from: string; expiresSeconds: number };
  /** The ICMP error that came about a packet to the tunnel's port; only where the tunnel was silent. */
  refusal?: IcmpError;
  /** The host's rules on what the peer sends; absent where they cannot be asked. */
  firewall?: Judgement;
  /** Address behind the tunnel that was tried; or why there is none. */
  target: { address: string; source: string } | { missing: string };
  tunnel?: Ping;
  /** Counters that rose while the tunnel was tried. */
  counted: Record<string, number>;
  /** Payload sizes with DF, smallest first, the last one filling the tunnel's MTU. */
  sizes?: { size: number; ping: Ping }[];
  /** One byte more, with DF. */
  above?: Ping;
  /** One byte more, and much more, without DF. */
  fragments?: Ping[];
}

const IPV4_ICMP = 28;

const got = (ping: Ping | undefined): boolean => ping !== undefined && ping.received > 0;
const rtt = ({ rttMs }: Ping): string => (rttMs === undefined ? '' : `, ${rttMs} ms`);

/** All rows about one peer. */
export function judgePair(facts: PairFacts): Row[] {
  const row = (check: string, [result, seen, todo = '']: Finding): Row => ({
    check,
    peer: facts.tunnelName === undefined ? facts.peer : `${facts.peer} (${facts.tunnelName})`,
    result,
    seen,
    todo,
  });
  return [
    row('underlay', judgeUnderlay(facts)),
    row('underlay-mtu', judgeUnderlayMtu(facts)),
    ...(facts.pathMtu === undefined ? [] : [row('path-mtu', judgePathMtu(facts.pathMtu, facts))]),
    row('firewall', judgeFirewall(facts)),
    row('tunnel', judgeTunnel(facts)),
    row('tunnel-sizes', judgeSizes(facts)),
    row('above-mtu', judgeAbove(facts)),
    row('fragments', judgeFragments(facts)),
  ];
}

type Finding = [result: Result, seen: string, todo?: string];

function judgeUnderlay({ underlay, neighbor, tunnel, peer }: PairFacts): Finding {
  if (got(underlay)) return ['ok', `${peer} answers ping${rtt(underlay)}`];
  if (got(tunnel)) return ['ok', `${peer} answers by the tunnel, and ping on the underlay not: something filters that`];
  if (neighbor?.answers === false) {
    const who = neighbor.address === peer ? peer : `the next hop ${neighbor.address}`;
    return ['fail', `${who} does not answer ARP`, `is ${peer} up, its address right, and on the same segment or VLAN?`];
  }
  if (underlay.error !== undefined) return judgePingError(peer, underlay.error, underlay.from);
  const arp = neighbor === undefined ? '' : `, although ${neighbor.address} answers ARP`;
  return ['unknown', `no answer to ping${arp}`, `something filters ICMP echo, or ${peer} is not there`];
}

function judgeUnderlayMtu({ underlay, underlayFull, node, peer }: PairFacts): Finding {
  if (!got(underlay) || underlayFull === undefined) return ['unknown', 'not tried: no ping on the underlay'];
  if (got(underlayFull)) return ['ok', `${node.underlayMtu} bytes with DF`];
  const { tooLongFor } = underlayFull;
  if (tooLongFor !== undefined) {
    return [
      'fail',
      `the way to ${peer} takes ${tooLongFor} bytes, the uplink is set to ${node.underlayMtu}`,
      `give the uplink an MTU of ${tooLongFor}, or the network between ${node.underlayMtu}`,
    ];
  }
  return [
    'fail',
    `${node.underlayMtu} bytes with DF get lost without a word, small packets do not`,
    'a narrower link on the way, and its "fragmentation needed" is filtered: allow ICMP type 3 code 4, or lower the MTU',
  ];
}

/** Learnt from "fragmentation needed": it may be right, and the node keeps to it either way. */
function judgePathMtu(learnt: NonNullable<PairFacts['pathMtu']>, { node, peer }: PairFacts): Finding {
  const { mtu, inner, from, expiresSeconds } = learnt;
  return [
    'unknown',
    `${from} has said that ${mtu} bytes get through to ${peer}: the tunnel takes ${inner} for ${expiresSeconds} s more`,
    `give the uplinks an MTU of ${mtu}, or the network between ${node.underlayMtu}; if ${from} is no router on the way, it is forged`,
  ];
}

function judgeFirewall({ firewall, traffic, peer }: PairFacts): Finding {
  if (firewall === undefined) return ['unknown', 'neither nft nor iptables could be asked'];
  switch (firewall.outcome) {
    case 'accept':
      return ['ok', `the rules here let ${traffic} from ${peer} in`];
    case 'drop':
      return ['fail', `${firewall.chain} drops ${traffic} from ${peer}`, `add a rule there that accepts it`];
    case 'unknown':
      return ['unknown', `${firewall.chain}: its rules do not tell about ${traffic} from ${peer}`];
  }
}

function judgeTunnel(facts: PairFacts): Finding {
  const { target, tunnel, traffic, peer, counted, refusal, node, underlay } = facts;
  if ('missing' in target) return ['unknown', `not tried: ${target.missing}`, 'see tunpath host check --help'];
  if (tunnel === undefined) return ['unknown', 'not tried'];
  if (got(tunnel)) {
    const lost = tunnel.sent - tunnel.received;
    const seen = `${target.address} answers ${target.source}${rtt(tunnel)}`;
    return lost === 0 ? ['ok', seen] : ['fail', `${seen}; ${lost} of ${tunnel.sent} lost`, 'see the drops below'];
  }
  if ((counted.encapsulated ?? 0) === 0) {
    const reasons = dropsIn(counted);
    return [
      'fail',
      `nothing went into the tunnel${reasons === '' ? '' : `: ${reasons}`}`,
      `ip route get ${target.address} must lead to the host port, and a route with encap to ${peer}`,
    ];
  }
  if ((counted.decapsulated ?? 0) > 0) {
    return [
      'fail',
      `packets come out of the tunnel, and no answer of ${target.address}${withDrops(counted)}`,
      `is ${target.address} the host port of ${peer}, and does its firewall let ICMP echo in?`,
    ];
  }
  const mismatch = findMismatch(facts);
  if (mismatch !== undefined) return mismatch;
  if (refusal !== undefined) return judgeRefusal(facts, refusal);
  if ((counted['drop-tunnel-error'] ?? 0) > 0) {
    return [
      'fail',
      `an ICMP error comes back for ${traffic} to ${peer}`,
      `does the node on ${peer} run, with the same protocol and port? What it says: tcpdump -ni any icmp`,
    ];
  }
  const dropped = withDrops(counted);
  const alive = got(underlay) ? ', although ping works' : '';
  return [
    'fail',
    `sent, and nothing comes back by ${traffic}${alive}${dropped}`,
    `does ${peer} run, with ${node.address} among its peers, and the VNI and VTEP MAC that this node has for it? If so, let ${traffic} pass between the two, in every firewall and security group`,
  ];
}

/** Packets of the peer come, and are not for this node as it is set up. */
function findMismatch({ counted, peer, traffic }: PairFacts): Finding | undefined {
  const vni = counted['drop-tunnel-unknown-vni'] ?? 0;
  const mac = (counted['drop-tunnel-inner-mac'] ?? 0) + (counted['drop-tunnel-own-mac'] ?? 0);
  if (vni > 0) {
    return [
      'fail',
      `${vni} packets came by ${traffic} with a VNI that this node has not`,
      `give both nodes the same VNI`,
    ];
  }
  if (mac > 0) {
    return [
      'fail',
      `${mac} packets came by ${traffic} for another VTEP MAC than this node's`,
      `${peer} has an old MAC for this node: its peers[].mac (in a kernel: bridge fdb, ip neigh) is to be this node's tunnel.mac (tunpath status)`,
    ];
  }
  return undefined;
}

const UNREACHABLE = 3;
/** RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1: a router that does not know the way, */
const NO_WAY = new Set([0, 6, 8, 11]);
/** one that does and finds nobody, */
const NOBODY = new Set([1, 7, 12]);
/** and who does not want the packet. */
const PROHIBITED = new Set([9, 10, 13, 14, 15]);
const NO_PROTOCOL = 2;
const NO_PORT = 3;

function judgeRefusal({ peer, traffic }: PairFacts, { type, code, from }: IcmpError): Finding {
  const who = from === peer ? peer : `${from}, on the way to ${peer},`;
  const said = `(ICMP ${type}/${code})`;
  if (type === UNREACHABLE && (code === NO_PORT || code === NO_PROTOCOL)) {
    const other = from === peer ? '' : `; ${from} answers for it, a NAT or a balancer`;
    return [
      'fail',
      `${who} refuses ${traffic}: nobody listens ${said}${other}`,
      `start the node on ${peer}, with the same protocol and port`,
    ];
  }
  if (type === UNREACHABLE && NO_WAY.has(code))
    return ['fail', `${who} has no route for ${traffic} ${said}`, `a route to ${peer} is missing on ${from}`];
  if (type === UNREACHABLE && NOBODY.has(code))
    return ['fail', `${who} finds nobody at ${peer} ${said}`, `is ${peer} up, and its address right?`];
  if (type === UNREACHABLE && PROHIBITED.has(code)) {
    const rule = `a firewall there forbids it ${said}`;
    return ['fail', `${who} refuses ${traffic}: ${rule}`, `let ${traffic} pass on ${from}, both ways`];
  }
  return ['fail', `${who} answers ${traffic} with an ICMP error ${said}`, `look at ${from}: tcpdump -ni any icmp`];
}

function judgePingError(peer: string, error: string, from: string | undefined): Finding {
  if (from === undefined)
    return ['fail', `this host cannot send to ${peer}: ${error}`, `add a route: ip route get ${peer}`];
  const who = from === peer ? peer : `${from}, on the way to ${peer}`;
  const seen = `${who}: ${error}`;
  if (/Prohibited|filtered|Precedence/.test(error)) return ['fail', seen, `a firewall on ${from} forbids ICMP echo`];
  if (/Host/.test(error)) return ['fail', seen, `is ${peer} up, its address right, and on that segment?`];
  if (/Net/.test(error)) return ['fail', seen, `a route to ${peer} is missing on ${from}`];
  if (/live/.test(error)) return ['fail', seen, `routers send it in a circle: tracepath -n ${peer}`];
  return ['fail', seen, `is ${peer} up, and is there a route to it?`];
}

function judgeSizes({ sizes, tunnel, node }: PairFacts): Finding {
  if (!got(tunnel) || sizes === undefined) return ['unknown', 'not tried: no answer by the tunnel'];
  const failed = sizes.find(({ ping }) => !got(ping));
  if (failed === undefined) {
    return ['ok', `${sizes.length} sizes up to ${node.tunnelMtu} bytes with DF`];
  }
  const passed = sizes.filter(({ ping }) => got(ping)).at(-1);
  const most = passed === undefined ? 'none' : `up to ${passed.size + IPV4_ICMP} bytes`;
  const { tooLongFor } = failed.ping;
  return [
    'fail',
    `answers ${most}, none to ${failed.size + IPV4_ICMP}${tooLongFor === undefined ? '' : ` (too long for ${tooLongFor})`}`,
    `the underlay carries less than ${node.underlayMtu} bytes, one way or the other: lower the uplinks' MTU on both nodes`,
  ];
}

function judgeAbove({ above, tunnel, node, pathMtu }: PairFacts): Finding {
  if (!got(tunnel) || above === undefined) return ['unknown', 'not tried: no answer by the tunnel'];
  if (above.tooLongFor === node.tunnelMtu)
    return ['ok', `${node.tunnelMtu + 1} bytes with DF refused, too long for ${node.tunnelMtu}`];
  if (got(above)) {
    return [
      'fail',
      `${node.tunnelMtu + 1} bytes with DF are answered`,
      'the host reaches the peer by another way: ip route get',
    ];
  }
  if (above.tooLongFor !== undefined) {
    if (above.tooLongFor === pathMtu?.inner)
      return ['ok', `refused, too long for ${above.tooLongFor}: the path is narrower, as said above`];
    return [
      'fail',
      `refused, too long for ${above.tooLongFor}, expected ${node.tunnelMtu}`,
      'a route here has another MTU: ip route get',
    ];
  }
  return [
    'fail',
    `${node.tunnelMtu + 1} bytes with DF get lost without a word`,
    'something here filters ICMP "fragmentation needed"',
  ];
}

function judgeFragments({ fragments, tunnel }: PairFacts): Finding {
  if (!got(tunnel) || fragments === undefined) return ['unknown', 'not tried: no answer by the tunnel'];
  if (fragments.every(got)) return ['ok', 'packets longer than the MTU pass in fragments'];
  return [
    'fail',
    'packets longer than the MTU get lost',
    'something on the way, or a firewall of the peer, drops fragments',
  ];
}

/** Kernels send IPv6 from every device by themselves: that it is not carried says nothing about a pair. */
const NOISE = 'drop-not-ipv4';

/** "drop-no-route 3, drop-ipv4-checksum 1" */
function dropsIn(counted: Record<string, number>): string {
  const drops = Object.entries(counted).filter(([name]) => name.startsWith('drop-') && name !== NOISE);
  return drops.map(([name, packets]) => `${name} ${packets}`).join(', ');
}

function withDrops(counted: Record<string, number>): string {
  const drops = dropsIn(counted);
  return drops === '' ? '' : ` (${drops})`;
}

/** Counters of ours and of the kernel that mean a wrong checksum. */
const CHECKSUMS = /checksum|InCsumErrors$/;

/** A wrong checksum while the tunnels were tried. */
export function judgeChecksums(counted: Record<string, number>): Row {
  const found = Object.entries(counted).filter(([name]) => CHECKSUMS.test(name));
  const base = { check: 'checksums', peer: '-' };
  if (found.length === 0) return { ...base, result: 'ok', seen: 'none was wrong', todo: '' };
  return {
    ...base,
    result: 'fail',
    seen: found.map(([name, packets]) => `${name} ${packets}`).join(', '),
    todo: 'a NIC or a driver that completes checksums wrongly: try offload: none, or ethtool -K IFACE tx off',
  };
}

const UNKNOWN_PEER = 'drop-encap-unknown-peer';
const UNREADABLE = /^drop-(vxlan|geneve|tunnel-(malformed|unknown-vni|inner))/;

/** What was dropped meanwhile. It may be anybody's, so it is said and not judged; some of it says who is set up wrongly. */
/** A port, as `get ports` has it. */
export interface PortFacts {
  name: string;
  kind: string;
  state: string;
  since: string;
  why: string | null;
}

/** Ports that are not up, before everything else: what they cannot carry fails below for no other reason. */
export function judgePorts(ports: readonly PortFacts[]): Row[] {
  return ports
    .filter(({ state }) => state !== 'up')
    .map(({ name, kind, state, since, why }) => ({
      check: `port ${name}`,
      peer: '-',
      result: 'fail',
      seen: `${kind} port ${state} since ${since}${why === null ? '' : `: ${why}`}`,
      todo: state === 'gone' ? 'make it again: the node attaches what comes back' : 'switch it on',
    }));
}

/** A conflict, as `status` has it. */
export interface ConflictFacts {
  address: string;
  mac: string;
  ownMac: string;
  lastSecondsAgo: number;
}

/** Who else has the node's address or MAC (RFC 5227). */
export function judgeConflicts(conflicts: readonly ConflictFacts[]): Row[] {
  return conflicts.map(({ address, mac, ownMac, lastSecondsAgo }) => ({
    check: 'address',
    peer: '-',
    result: 'fail',
    seen:
      mac === ownMac
        ? `${address} says that it has ${mac}, the MAC of this node (${lastSecondsAgo} s ago)`
        : `${mac} says that it has ${address}, which is this node's with ${ownMac} (${lastSecondsAgo} s ago)`,
    todo:
      mac === ownMac
        ? 'give one of the two another MAC; if there is no second one, look for a loop in the network'
        : 'find the station with that MAC and give it, or this node, another address',
  }));
}

export function judgeDrops(counted: Record<string, number>): Row {
  const base = { check: 'drops', peer: '-' };
  const seen = dropsIn(counted);
  if (seen === '') return { ...base, result: 'ok', seen: 'none', todo: '' };
  let todo = '';
  if (UNKNOWN_PEER in counted) {
    todo = 'somebody sends tunnel packets who is no peer of this node: add it to spec.tunnel.peers if it should be one';
  } else if (Object.keys(counted).some(name => UNREADABLE.test(name))) {
    todo = 'tunnel packets that this node cannot read: have both nodes the same protocol, port and VNI?';
  }
  return { ...base, result: 'unknown', seen, todo };
}

/** What the checks of a NAT have in common. Of a mapping one sees only what comes out: its outside address and port. */
import { icmpEcho, icmpError, tcp4, udp4 } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import { type CheckNode, GATEWAY, NODE, POD, POD2, SERVER, type Sent, type Side, type Testbed } from './node.ts';
import { at, only, readIcmp, readIp, readPorts } from './read.ts';

export const SYN = tcp.SYN;
export const ACK = tcp.ACK_FLAG;
export const RST = tcp.RST;

export const natNode = (bed: Testbed) => bed.node({ nat: true });

/** An inside endpoint. */
export interface Inside {
  side: Side;
  src: string;
  sport: number;
}

export const A: Inside = { side: 'p1', src: POD, sport: 40_000 };
export const B: Inside = { side: 'p2', src: POD2, sport: 40_000 };

export type Protocol = 'udp' | 'tcp';

/** A first packet: a datagram, or a SYN. */
export function first(protocol: Protocol, o: Parameters<typeof tcp4>[0]): Uint8Array {
  return protocol === 'udp' ? udp4(o) : tcp4({ flags: SYN, seq: 1000, ...o });
}

/** The outside port under which an inside endpoint is seen at a host. */
export function mappedPort(node: CheckNode, from: Inside, protocol: Protocol, dst = SERVER, dport = 53): number {
  const sent = node.exchange(from.side, first(protocol, { src: from.src, sport: from.sport, dst, dport }));
  return readPorts(only(node, sent, 'wire')).sport;
}

/** The outside identifier of a ping. */
export function mappedId(node: CheckNode, from: Inside, icmpId: number, dst = SERVER): number {
  const sent = node.exchange(from.side, icmpEcho({ src: from.src, dst, icmpId }));
  return readIcmp(only(node, sent, 'wire')).id;
}

/** Sends a datagram from outside to an outside port. */
export function reply(node: CheckNode, port: number, src = SERVER, sport = 53): Sent[] {
  return node.exchange('wire', udp4({ src, sport, dst: NODE, dport: port }));
}

/** Whether what comes from outside to the port reaches the inside endpoint. */
export function reaches(node: CheckNode, to: Inside, port: number, src = SERVER, sport = 53): boolean {
  return at(reply(node, port, src, sport), to.side).length > 0;
}

/** A connection from inside, established. @returns its outside port */
export function connect(node: CheckNode, from: Inside, dst = SERVER, dport = 80): number {
  const ends = { src: from.src, sport: from.sport, dst, dport };
  const syn = only(node, node.exchange(from.side, tcp4({ ...ends, flags: SYN, seq: 1000 })), 'wire');
  const port = readPorts(syn).sport;
  const back = { src: dst, sport: dport, dst: NODE, dport: port };
  only(node, node.exchange('wire', tcp4({ ...back, flags: SYN | ACK, seq: 5000, ack: 1001 })), from.side);
  only(node, node.exchange(from.side, tcp4({ ...ends, flags: ACK, seq: 1001, ack: 5001 })), 'wire');
  return port;
}

/** Whether data from the far end of a connection still reaches the inside endpoint. */
export function dataReaches(node: CheckNode, to: Inside, port: number, dst = SERVER, dport = 80): boolean {
  const data = tcp4({ src: dst, sport: dport, dst: NODE, dport: port, flags: ACK, seq: 5001, ack: 1001 });
  return at(node.exchange('wire', data), to.side).length > 0;
}

/**
 * How long a mapping lives without packets: the first of `seconds` after which a packet from outside does not reach it
 * any more, each time with a new mapping.
 */
export function livesFor(make: () => { node: CheckNode; isAlive: () => boolean }, seconds: readonly number[]): string {
  const alive = seconds.filter(wait => {
    const { node, isAlive } = make();
    node.wait(wait);
    return isAlive();
  });
  const gone = seconds.filter(wait => !alive.includes(wait));
  const from = alive.length === 0 ? 'not after ' : `after ${Math.max(...alive)} s`;
  if (alive.length === 0) return `${from}${Math.min(...gone)} s`;
  return gone.length === 0 ? from : `${from}, not after ${Math.min(...gone)} s`;
}

/** 'ADDRESS:PORT' of the source. */
export function sourceOf(packet: Uint8Array): string {
  return `${readIp(packet).src}:${readPorts(packet).sport}`;
}

export const DF = ipv4.FLAG_DF;

/** What a NAT that filters by address or not at all is seen to do, and what else there is (RFC 4787 REQ-8, RFC 5382 REQ-3). */
export const FILTERING = {
  expect: [
    'another port of the server passes, another host does not',
    'another port of the server passes, another host passes',
  ],
  deviations: [
    {
      sees: 'another port of the server does not, another host does not',
      by: 'nf_conntrack_in (net/netfilter/nf_conntrack_core.c): only the answer of the flow is the flow; Cilium is like it',
    },
  ],
};

const ICMP_ERRORS: readonly [type: number, code: number][] = [
  [3, 0],
  [3, 1],
  [3, 2],
  [3, 3],
  [3, 4],
  [3, 13],
  [4, 0],
  [5, 1],
  [11, 0],
  [12, 0],
];

/** The router sends every sort of ICMP error about `packet` to the node. @returns how many */
export function sendEveryIcmpError(node: CheckNode, packet: Uint8Array): number {
  for (const [type, code] of ICMP_ERRORS) {
    node.exchange('wire', icmpError(type, code, packet, { src: GATEWAY, dst: NODE }));
  }
  return ICMP_ERRORS.length;
}

/**
 * What becomes of one packet, and why: a trip through nodes in memory (world.ts), what it comes to, and what its receiver
 * would answer.
 */

import { NEIGHBOR_MAC } from '../drive/entry.ts';
import { dotted, ethernet, icmpEcho, tcp4, udp4 } from '../packet/build.ts';
import * as wire from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import type { Arrival, Trip, World } from './world.ts';

/**
 * delivered: to a pod or the host of a node; left: by an uplink, to somebody who is no node here; answered: by the node
 * itself; consumed: it was for the node; held: fragments wait for others; refused: by a node; lost: on a wire.
 */
export type Outcome = 'delivered' | 'left' | 'answered' | 'consumed' | 'held' | 'refused' | 'lost';

/** Outcomes that are no answer "no". */
export const GOOD: readonly Outcome[] = ['delivered', 'left', 'answered', 'consumed'];

export interface Explained extends Trip {
  outcome: Outcome;
  /** Names of the drops; empty where there is none. */
  reasons: string[];
  /** Node and port where it ends. */
  at: { node: string; port: string } | null;
}

/** A packet, and where it enters. */
export interface Entry {
  node: string;
  /** A pod, the host's device, or `uplink`. */
  port: string;
  /** As the port's device has it. */
  bytes: Uint8Array;
}

export function explain(world: World, { node, port, bytes }: Entry): Explained {
  const trip = world.send(node, port, bytes);
  const { visits, arrivals, lost } = trip;
  const dropped = visits.flatMap(visit =>
    visit.isOwn ? [] : visit.dropped.filter(({ isOwn }) => !isOwn).map(({ reason }) => ({ reason, visit })),
  );
  if (dropped.length > 0) {
    const { visit } = dropped[0];
    const reasons = [...new Set(dropped.map(({ reason }) => reason))];
    return { ...trip, outcome: 'refused', reasons, at: { node: visit.node, port: visit.port } };
  }
  if (lost.length > 0) return { ...trip, outcome: 'lost', reasons: lost, at: null };
  const answer = arrivals.find(one => isEchoAnswer(one, node, port));
  if (answer !== undefined) return { ...trip, outcome: 'answered', reasons: [], at: { node, port } };
  const arrival = arrivals.find(({ isOwn }) => !isOwn);
  if (arrival !== undefined) {
    const outcome = arrival.port === 'uplink' ? 'left' : 'delivered';
    return { ...trip, outcome, reasons: [], at: { node: arrival.node, port: arrival.port } };
  }
  const last = visits.findLast(({ isOwn }) => !isOwn);
  const at = last === undefined ? null : { node: last.node, port: last.port };
  return { ...trip, outcome: trip.held > 0 ? 'held' : 'consumed', reasons: [], at };
}

/** It came back where it had come from, as the answer to a ping. */
function isEchoAnswer(arrival: Arrival, node: string, port: string): boolean {
  if (arrival.node !== node || arrival.port !== port) return false;
  const packet = arrival.layer === 2 ? arrival.bytes.subarray(wire.HEADER_LEN) : arrival.bytes;
  return packet[ipv4.PROTOCOL] === ipv4.PROTO_ICMP && packet[(packet[0] & 15) * 4] === icmp.ECHO_REPLY;
}

/**
 * What the receiver answers: SYN with SYN and ACK, data with an ACK, a datagram with one as long, an echo request with its
 * reply. @returns null where there is nothing to answer, and for a later fragment
 */
export function answerTo({ node, port, bytes, layer }: Arrival): Entry | null {
  const packet = layer === 2 ? bytes.subarray(wire.HEADER_LEN) : bytes;
  const answer = answerPacket(packet);
  if (answer === null) return null;
  if (layer === 3) return { node, port, bytes: answer };
  const dst = Array.from(bytes.subarray(wire.SRC, wire.SRC + 6), byte => byte.toString(16).padStart(2, '0')).join(':');
  return { node, port, bytes: ethernet(answer, { src: NEIGHBOR_MAC, dst }) };
}

function answerPacket(packet: Uint8Array): Uint8Array | null {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const l4 = (packet[0] & 15) * 4;
  if ((view.getUint16(ipv4.FLAGS_FRAGMENT) & ipv4.OFFSET_MASK) !== 0) return null;
  const src = dotted(view.getInt32(ipv4.DST));
  const dst = dotted(view.getInt32(ipv4.SRC));
  const fragment = view.getUint16(ipv4.FLAGS_FRAGMENT) & ipv4.FLAG_DF;
  switch (packet[ipv4.PROTOCOL]) {
    case ipv4.PROTO_TCP: {
      const flags = packet[l4 + tcp.FLAGS];
      if ((flags & tcp.RST) !== 0) return null;
      const isSyn = (flags & tcp.SYN) !== 0;
      const data = packet.length - l4 - (packet[l4 + tcp.DATA_OFFSET] >> 4) * 4;
      const counted = data + (isSyn ? 1 : 0) + ((flags & tcp.FIN) === 0 ? 0 : 1);
      return tcp4({
        src,
        dst,
        fragment,
        sport: view.getUint16(l4 + tcp.DST_PORT),
        dport: view.getUint16(l4 + tcp.SRC_PORT),
        seq: isSyn ? 1 : view.getUint32(l4 + tcp.ACK),
        ack: (view.getUint32(l4 + tcp.SEQ) + counted) >>> 0,
        flags: isSyn ? tcp.SYN | tcp.ACK_FLAG : tcp.ACK_FLAG,
      });
    }
    case ipv4.PROTO_UDP: {
      const payload = new Uint8Array(Math.max(0, packet.length - l4 - udp.HEADER_LEN));
      const [sport, dport] = [view.getUint16(l4 + udp.DST_PORT), view.getUint16(l4 + udp.SRC_PORT)];
      return udp4({ src, dst, fragment, sport, dport, payload });
    }
    case ipv4.PROTO_ICMP: {
      if (packet[l4] !== icmp.ECHO) return null;
      return icmpEcho({
        src,
        dst,
        fragment,
        type: icmp.ECHO_REPLY,
        icmpId: view.getUint16(l4 + icmp.ID),
        sequence: view.getUint16(l4 + icmp.SEQUENCE),
        payload: packet.slice(l4 + icmp.HEADER_LEN),
      });
    }
    default:
      return null;
  }
}

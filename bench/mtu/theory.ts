/** How many packets one datagram should become, from lengths alone. */
import type { TOO_BIG_NAMES } from '../../datapath/route/nexthop.ts';
import { HEADER_BYTES, type Mode } from '../overhead/theory.ts';

export type Way = (typeof TOO_BIG_NAMES)[number];

const IP_HEADER = 20;
/** Of the underlay, where it is not larger by arrangement; and what pods then have all the same. */
export const UNDERLAY_MTU = 1500;

/** MTU of the uplinks: RFC 4459 section 3.3 asks for room for the tunnel's headers. */
export function uplinkMtu(mode: Mode, way: Way): number {
  return way === 'larger-underlay' ? UNDERLAY_MTU + HEADER_BYTES[mode] : UNDERLAY_MTU;
}

/** MTU of the pods' devices. */
export function podMtu(mode: Mode, way: Way): number {
  return way === 'signal' ? UNDERLAY_MTU - HEADER_BYTES[mode] : UNDERLAY_MTU;
}

/** Packets on the underlay for a datagram of `length` bytes, its IP header included, that may be cut anywhere. */
export function wirePackets(mode: Mode, way: Way, length: number): number {
  const header = HEADER_BYTES[mode];
  let packets = 0;
  for (const sent of cut(length, podMtu(mode, way))) {
    if (way === 'fragment-outer') packets += cut(sent + header, UNDERLAY_MTU).length;
    else if (way === 'fragment-inner') packets += cut(sent, UNDERLAY_MTU - header).length;
    else packets++;
  }
  return packets;
}

/** Lengths of the fragments of a packet of `length` bytes; those but the last hold a multiple of 8 (RFC 791). */
function cut(length: number, mtu: number): number[] {
  const pieces: number[] = [];
  let left = length - IP_HEADER;
  while (left > mtu - IP_HEADER) {
    const payload = (mtu - IP_HEADER) & ~7;
    pieces.push(payload + IP_HEADER);
    left -= payload;
  }
  pieces.push(left + IP_HEADER);
  return pieces;
}

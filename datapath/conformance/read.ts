/** What came out, read field by field, and put into words. For checks; the loop reads in place. */
import { dotted } from '../packet/build.ts';
import { slowHeaderOk, slowSum, slowTransportOk } from '../packet/slow-checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { CheckNode, Sent, Side } from './node.ts';

export interface Ip {
  src: string;
  dst: string;
  dscp: number;
  ecn: number;
  id: number;
  df: boolean;
  more: boolean;
  /** Bytes. */
  offset: number;
  ttl: number;
  protocol: number;
  header: Uint8Array;
  payload: Uint8Array;
}

export function readIp(bytes: Uint8Array): Ip {
  const view = viewOf(bytes);
  const headerLen = (bytes[0] & 15) * 4;
  const flags = view.getUint16(ipv4.FLAGS_FRAGMENT);
  return {
    src: dotted(view.getInt32(ipv4.SRC)),
    dst: dotted(view.getInt32(ipv4.DST)),
    dscp: bytes[ipv4.TOS] >> 2,
    ecn: bytes[ipv4.TOS] & 3,
    id: view.getUint16(ipv4.ID),
    df: (flags & ipv4.FLAG_DF) !== 0,
    more: (flags & ipv4.FLAG_MF) !== 0,
    offset: (flags & ipv4.OFFSET_MASK) * 8,
    ttl: bytes[ipv4.TTL],
    protocol: bytes[ipv4.PROTOCOL],
    header: bytes.subarray(0, headerLen),
    payload: bytes.subarray(headerLen),
  };
}

export interface Transport {
  sport: number;
  dport: number;
  /** Of UDP; of TCP it lies elsewhere. */
  checksum: number;
  /** Behind a UDP header. */
  payload: Uint8Array;
}

export function readPorts(bytes: Uint8Array): Transport {
  const { payload } = readIp(bytes);
  const view = viewOf(payload);
  return {
    sport: view.getUint16(0),
    dport: view.getUint16(2),
    checksum: view.getUint16(6),
    payload: payload.subarray(8),
  };
}

export interface Icmp {
  type: number;
  code: number;
  id: number;
  /** Next-hop MTU of 3/4; sequence number of an echo. */
  mtu: number;
  quote: Uint8Array;
}

export function readIcmp(bytes: Uint8Array): Icmp {
  const { payload } = readIp(bytes);
  const view = viewOf(payload);
  return {
    type: payload[0],
    code: payload[1],
    id: view.getUint16(4),
    mtu: view.getUint16(6),
    quote: payload.subarray(8),
  };
}

/** The inner packet behind VXLAN or GENEVE (50 bytes) or IPIP (20 bytes). */
export function innerOf(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(bytes[ipv4.PROTOCOL] === ipv4.PROTO_IPIP ? 20 : 50);
}

/** The packets that came out at a side. */
export function at(sent: readonly Sent[], side: Side): Uint8Array[] {
  return sent.filter(one => one.side === side).map(one => one.bytes);
}

/** The one packet that came out at a side. @throws where it is not one */
export function only(node: CheckNode, sent: readonly Sent[], side: Side): Uint8Array {
  const packets = at(sent, side);
  if (packets.length === 1) return packets[0];
  throw new Error(`${packets.length} packets at ${side} instead of 1${why(node)}`);
}

/** 'delivered' if something came out at the side; else what became of it. */
export function fate(node: CheckNode, sent: readonly Sent[], side: Side): string {
  if (at(sent, side).length > 0) return 'delivered';
  if (sent.length > 0) return `${sent.map(describeSent).join(', ')}`;
  return node.dropped.length === 0 ? 'nothing came out' : `dropped: ${node.dropped.join(', ')}`;
}

/** 'ICMP 3/4, MTU 1400 to p1', or where the packet went. */
export function describeSent({ side, bytes }: Sent): string {
  if (bytes[ipv4.PROTOCOL] !== ipv4.PROTO_ICMP) return `sent to ${side}`;
  const { type, code, mtu } = readIcmp(bytes);
  if (type === 3 && code === 4) return `ICMP 3/4, MTU ${mtu}, to ${side}`;
  return `ICMP ${type}/${code} to ${side}`;
}

/** True if every checksum of a whole packet is right, those of ICMP and of what a tunnel carries included. */
export function checksumsOk(bytes: Uint8Array): boolean {
  if (!slowHeaderOk(bytes)) return false;
  const { protocol, payload, more, offset } = readIp(bytes);
  if (more || offset > 0) return true;
  if (protocol === ipv4.PROTO_ICMP) return slowSum(payload) === 0xffff;
  if (protocol === ipv4.PROTO_TCP || protocol === ipv4.PROTO_UDP) return slowTransportOk(bytes);
  return true;
}

export function yesNo(condition: boolean, yes: string, no: string): string {
  return condition ? yes : no;
}

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function why(node: CheckNode): string {
  return node.dropped.length === 0 ? '' : ` (dropped: ${node.dropped.join(', ')})`;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

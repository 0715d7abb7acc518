/**
 * Record Route and Timestamp, the IPv4 options that a router writes into (RFC 791 section 3.1; RFC 1812 sections 5.3.13.4
 * and 5.3.13.5) and a host sends back (RFC 1122 section 3.2.2.6; Linux does in errors, too), as Linux does in
 * __ip_options_compile, ip_forward_options and __ip_options_echo. Where the entries lie parseIpv4 has checked. ICMP errors
 * quote a packet as it came.
 */
import type { Packet } from '../packet/packet.ts';
import { PORT_UPLINK } from '../port.ts';
import type { NextHop } from '../route/nexthop.ts';
import * as hops from '../route/nexthop.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Path } from './path.ts';

/** Writes this node's address, towards the next hop, and the time into the options of a packet that it forwards. */
export function fillOptions(path: Path, p: Packet, hop: NextHop): void {
  const { view } = path;
  const end = p.off + ipv4.headerLen(view, p.off);
  const inside = hop.kind === hops.HOP_POD || hop.kind === hops.HOP_TUNNEL;
  const own = inside ? path.hostAddress : path.underlay.address;
  for (let at = p.off + ipv4.HEADER_LEN; at < end; ) {
    const type = view.getUint8(at);
    if (type === ipv4.OPT_END) {
      // What stands behind the end of the list says nothing to anybody.
      for (; at < end; at++) view.setUint8(at, ipv4.OPT_END);
      break;
    }
    if (type === ipv4.OPT_NOP) {
      at++;
      continue;
    }
    if (type === ipv4.OPT_RECORD_ROUTE) recordRoute(view, at, own);
    else if (type === ipv4.OPT_TIMESTAMP) stampTime(path, view, at, addressTowardsSender(path, p));
    at += view.getUint8(at + 1);
  }
  ipv4.setHeaderChecksum(view, p.off);
}

/** The options of an answer that is being made. */
export const answerOptions = new DataView(new ArrayBuffer(ipv4.MAX_HEADER_LEN - ipv4.HEADER_LEN));

/**
 * Makes `answerOptions` of those of a packet: Record Route, then Timestamp, each with an entry of its arrival and one of the
 * answer's departure; no others.
 * @param fault offset of what is wrong among the packet's options: those before it count; 0: all are right
 * @param arrived address that it came to (int32)
 * @param leaves source of the answer
 * @returns their length, padded; -1: only half an entry fits, and there is no answer
 */
export function takeOptions(path: Path, p: Packet, fault: number, arrived: number, leaves: number): number {
  const { view } = path;
  const end = p.off + (fault !== 0 ? fault : ipv4.headerLen(view, p.off));
  const route = findOption(view, p, ipv4.OPT_RECORD_ROUTE, end);
  const times = findOption(view, p, ipv4.OPT_TIMESTAMP, end);
  let length = 0;
  if (route !== 0) {
    length = keep(view, route, 0);
    if (recordRoute(answerOptions, 0, arrived) && !recordRoute(answerOptions, 0, leaves)) {
      if (answerOptions.getUint8(ipv4.OPT_POINTER) <= answerOptions.getUint8(1)) return -1;
    }
  }
  if (times !== 0) {
    const at = length;
    length = keep(view, times, at);
    if (stampTime(path, answerOptions, at, arrived) && !stampDeparture(path, answerOptions, at, leaves)) return -1;
  }
  for (; (length & 3) !== 0; length++) answerOptions.setUint8(length, ipv4.OPT_END);
  return length;
}

/**
 * Gives an echo request for the node the options of its answer. Its header may become shorter.
 * @returns false: it is not answered
 */
export function echoOptions(path: Path, p: Packet): boolean {
  const { view } = path;
  const length = takeOptions(path, p, 0, p.dst, p.dst);
  if (length < 0) return false;
  const headerLen = ipv4.HEADER_LEN + length;
  const from = p.off;
  p.pull(p.l4 - headerLen - from);
  path.pool.bytes.copyWithin(p.off, from, from + ipv4.HEADER_LEN);
  for (let i = 0; i < length; i++) view.setUint8(p.off + ipv4.HEADER_LEN + i, answerOptions.getUint8(i));
  view.setUint8(p.off + ipv4.VERSION_IHL, 0x40 | (headerLen >> 2));
  view.setUint16(p.off + ipv4.TOTAL_LEN, p.len);
  return true;
}

/** Where the option lies, whole and before `end`; or 0. */
function findOption(view: DataView, p: Packet, type: number, end: number): number {
  for (let at = p.off + ipv4.HEADER_LEN; at < end; ) {
    const found = view.getUint8(at);
    if (found === ipv4.OPT_END) break;
    const next = at + (found === ipv4.OPT_NOP ? 1 : view.getUint8(at + 1));
    if (found === type && next <= end) return at;
    // Of what is wrong the length may be, too.
    if (next === at) break;
    at = next;
  }
  return 0;
}

/** Copies the option at `at` behind what is kept. @returns bytes kept */
function keep(view: DataView, at: number, length: number): number {
  const bytes = view.getUint8(at + 1);
  for (let i = 0; i < bytes; i++) answerOptions.setUint8(length + i, view.getUint8(at + i));
  return length + bytes;
}

/** As Linux's fib_compute_spec_dst; Record Route has the address on the other side. */
export function addressTowardsSender(path: Path, p: Packet): number {
  const outside = path.ports[p.inPort].kind === PORT_UPLINK && p.tunnelSource === 0;
  return outside ? path.underlay.address : path.hostAddress;
}

/** @returns whether there was room */
function recordRoute(view: DataView, at: number, own: number): boolean {
  const pointer = view.getUint8(at + ipv4.OPT_POINTER);
  if (pointer + 3 > view.getUint8(at + 1)) return false;
  view.setInt32(at + pointer - 1, own);
  view.setUint8(at + ipv4.OPT_POINTER, pointer + 4);
  return true;
}

/** @returns whether an entry was written; without room for one, it is counted that a node found none */
function stampTime(path: Path, view: DataView, at: number, own: number): boolean {
  const pointer = view.getUint8(at + ipv4.OPT_POINTER);
  const flags = view.getUint8(at + ipv4.OPT_TS_FLAGS);
  const kind = flags & 15;
  if (pointer > view.getUint8(at + 1)) {
    if (kind !== ipv4.TS_PRESPECIFIED) view.setUint8(at + ipv4.OPT_TS_FLAGS, flags + 0x10);
    return false;
  }
  const slot = at + pointer - 1;
  if (kind === ipv4.TS_ONLY) {
    view.setInt32(slot, path.timeOfDay());
    view.setUint8(at + ipv4.OPT_POINTER, pointer + 4);
    return true;
  }
  const named = kind === ipv4.TS_PRESPECIFIED && isNotAnothers(path, view.getInt32(slot));
  if (kind !== ipv4.TS_AND_ADDRESS && !named) return false;
  if (!named) view.setInt32(slot, own);
  view.setInt32(slot + 4, path.timeOfDay());
  view.setUint8(at + ipv4.OPT_POINTER, pointer + 8);
  return true;
}

/** The answer leaves. @returns false: only half an entry fits */
function stampDeparture(path: Path, view: DataView, at: number, own: number): boolean {
  const left = view.getUint8(at + 1) - view.getUint8(at + ipv4.OPT_POINTER) + 1;
  if (left <= 0) return true;
  const kind = view.getUint8(at + ipv4.OPT_TS_FLAGS) & 15;
  if (left < (kind === ipv4.TS_AND_ADDRESS ? 8 : 4)) return false;
  if (kind !== ipv4.TS_PRESPECIFIED || left >= 8) stampTime(path, view, at, own);
  return true;
}

/** An address of our own, or one that no single host has: everything but RTN_UNICAST. */
function isNotAnothers(path: Path, address: number): boolean {
  return path.isOwnAddress(address) || address >>> 24 === 0 || address >>> 28 === 14 || address === -1;
}

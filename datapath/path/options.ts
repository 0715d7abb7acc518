/**
 * Record Route and Timestamp, the IPv4 options that a router writes into (RFC 791 section 3.1; RFC 1812 sections 5.3.13.4
 * and 5.3.13.5), as Linux does in __ip_options_compile and ip_forward_options.
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
  let changed = false;
  // parseIpv4 has seen that lengths and pointers are right.
  for (let at = p.off + ipv4.HEADER_LEN; at < end; ) {
    const type = view.getUint8(at);
    if (type === ipv4.OPT_END) break;
    if (type === ipv4.OPT_NOP) {
      at++;
      continue;
    }
    if (type === ipv4.OPT_RECORD_ROUTE) changed = recordRoute(view, at, own) || changed;
    else if (type === ipv4.OPT_TIMESTAMP) changed = stampTime(path, at, addressTowardsSender(path, p)) || changed;
    at += view.getUint8(at + 1);
  }
  if (changed) ipv4.setHeaderChecksum(view, p.off);
}

/** As Linux's fib_compute_spec_dst; Record Route has the address on the other side. */
function addressTowardsSender(path: Path, p: Packet): number {
  const outside = path.ports[p.inPort].kind === PORT_UPLINK && p.tunnelSource === 0;
  return outside ? path.underlay.address : path.hostAddress;
}

function recordRoute(view: DataView, at: number, own: number): boolean {
  const pointer = view.getUint8(at + ipv4.OPT_POINTER);
  if (pointer > view.getUint8(at + 1)) return false;
  view.setInt32(at + pointer - 1, own);
  view.setUint8(at + ipv4.OPT_POINTER, pointer + 4);
  return true;
}

function stampTime(path: Path, at: number, own: number): boolean {
  const { view } = path;
  const pointer = view.getUint8(at + ipv4.OPT_POINTER);
  const flags = view.getUint8(at + ipv4.OPT_TS_FLAGS);
  const kind = flags & 15;
  if (pointer > view.getUint8(at + 1)) {
    // No room: the nodes that found none are counted.
    if (kind === ipv4.TS_PRESPECIFIED) return false;
    view.setUint8(at + ipv4.OPT_TS_FLAGS, flags + 0x10);
    return true;
  }
  const slot = at + pointer - 1;
  if (kind === ipv4.TS_ONLY) {
    view.setInt32(slot, path.timeOfDay());
    view.setUint8(at + ipv4.OPT_POINTER, pointer + 4);
    return true;
  }
  const named = kind === ipv4.TS_PRESPECIFIED && path.isOwnAddress(view.getInt32(slot));
  if (kind !== ipv4.TS_AND_ADDRESS && !named) return false;
  if (!named) view.setInt32(slot, own);
  view.setInt32(slot + 4, path.timeOfDay());
  view.setUint8(at + ipv4.OPT_POINTER, pointer + 8);
  return true;
}

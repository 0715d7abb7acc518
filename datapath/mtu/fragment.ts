/** IPv4 fragmentation (RFC 791 section 3.2, the procedure under "An Example Fragmentation Procedure"). */
import { copyBytes, copyContext, takeFor } from '../packet/copy.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { completeChecksum } from '../packet/segment.ts';
import * as ipv4 from '../wire/ipv4.ts';

/**
 * Cuts the parsed packet whose IP header is at `p.off` into fragments of at most `mtu` bytes, in order. They are new
 * packets of the pool with full headroom; `p` stays the caller's to release. A checksum still owed (NEEDS_CSUM) is
 * completed in `p` first: no fragment could do that later. A superpacket is segmented, not fragmented.
 *
 * DF is not looked at: whether to fragment is the caller's decision. The fragments have it clear, as in Linux
 * (ip_do_fragment), or the next router could not go on.
 *
 * All or nothing: nothing is taken from the pool unless all can be.
 *
 * @param out filled from the front; at least (65535 - 60) / 8 long if mtu may be that small
 * @returns how many fragments; 0 when the pool has too few packets, or `mtu` leaves no 8 bytes behind the header (RFC 791
 *   promises 68, which always does)
 */
export function fragment(pool: Pool, p: Packet, mtu: number, out: Packet[]): number {
  const view = pool.view;
  completeChecksum(view, p);

  const headerLen = ipv4.headerLen(view, p.off);
  const laterHeaderLen = ipv4.HEADER_LEN + copiedOptions(view, p.off, headerLen, -1);
  if (mtu - headerLen < 8) return 0;
  const payloadEnd = p.off + p.len;
  const field = view.getUint16(p.off + ipv4.FLAGS_FRAGMENT);
  const lastMore = field & ipv4.FLAG_MF; // the last piece of a fragment is no last fragment
  let offset8 = field & ipv4.OFFSET_MASK;

  const count = countFragments(payloadEnd - p.off - headerLen, mtu - headerLen, mtu - laterHeaderLen);
  if (count > pool.available) return 0;

  let from = p.off + headerLen;
  for (let i = 0; i < count; i++) {
    const len = i === 0 ? headerLen : laterHeaderLen;
    const room = mtu - len;
    const payload = i === count - 1 ? payloadEnd - from : room & ~7;
    const q = takeFor(pool, len, from)!; // counted above
    copyContext(q, p);
    q.len = len + payload;
    q.l4 = q.off + len;
    q.fragment = offset8 | (i === count - 1 ? lastMore : ipv4.FLAG_MF);

    copyBytes(pool, q.off, p.off, i === 0 ? headerLen : ipv4.HEADER_LEN);
    if (i > 0 && laterHeaderLen > ipv4.HEADER_LEN) copiedOptions(view, p.off, headerLen, q.off + ipv4.HEADER_LEN);
    copyBytes(pool, q.l4, from, payload);
    view.setUint8(q.off + ipv4.VERSION_IHL, 0x40 | (len >> 2));
    view.setUint16(q.off + ipv4.TOTAL_LEN, q.len);
    view.setUint16(q.off + ipv4.FLAGS_FRAGMENT, q.fragment);
    ipv4.setHeaderChecksum(view, q.off);

    from += payload;
    offset8 += payload >> 3;
    out[i] = q;
  }
  return count;
}

/** Lengths of the fragments that a packet of `len` bytes without options makes at `mtu`. */
export function fragmentLengths(len: number, mtu: number): number[] {
  const room = mtu - ipv4.HEADER_LEN;
  const payload = len - ipv4.HEADER_LEN;
  const count = countFragments(payload, room, room);
  const step = room & ~7;
  return Array.from({ length: count }, (_, i) => {
    return ipv4.HEADER_LEN + (i < count - 1 ? step : payload - (count - 1) * step);
  });
}

/** Pieces that `payload` bytes make; all but the last hold a multiple of 8, the last may fill its room. */
function countFragments(payload: number, firstRoom: number, laterRoom: number): number {
  if (payload <= firstRoom) return 1;
  const behindFirst = payload - (firstRoom & ~7);
  if (behindFirst <= laterRoom) return 2;
  return 2 + Math.ceil((behindFirst - laterRoom) / (laterRoom & ~7));
}

/**
 * Writes the options of the header at `off` that go into every fragment, those with the copied flag, to `to` (nowhere
 * if -1) and pads them with End of Option List.
 * @returns bytes with padding, a multiple of 4
 */
function copiedOptions(view: DataView, off: number, headerLen: number, to: number): number {
  const end = off + headerLen;
  let written = 0;
  let at = off + ipv4.HEADER_LEN;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === ipv4.OPT_END) break;
    if (type === ipv4.OPT_NOP) {
      at++;
      continue;
    }
    const length = view.getUint8(at + 1); // parseIpv4 has seen that it is 2 or more and fits
    if ((type & ipv4.OPT_COPIED) !== 0) {
      if (to >= 0) for (let i = 0; i < length; i++) view.setUint8(to + written + i, view.getUint8(at + i));
      written += length;
    }
    at += length;
  }
  for (; (written & 3) !== 0; written++) {
    if (to >= 0) view.setUint8(to + written, ipv4.OPT_END);
  }
  return written;
}

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
  if (mtu - headerLen < 8) return 0;
  const payloadEnd = p.off + p.len;
  const field = view.getUint16(p.off + ipv4.FLAGS_FRAGMENT);
  const lastMore = field & ipv4.FLAG_MF; // the last piece of a fragment is no last fragment
  let offset8 = field & ipv4.OFFSET_MASK;

  const count = countFragments(payloadEnd - p.off - headerLen, mtu - headerLen);
  if (count > pool.available) return 0;

  let from = p.off + headerLen;
  for (let i = 0; i < count; i++) {
    const payload = i === count - 1 ? payloadEnd - from : (mtu - headerLen) & ~7;
    const q = takeFor(pool, headerLen, from)!; // counted above
    copyContext(q, p);
    q.len = headerLen + payload;
    q.l4 = q.off + headerLen;
    q.fragment = offset8 | (i === count - 1 ? lastMore : ipv4.FLAG_MF);

    copyBytes(pool, q.off, p.off, headerLen);
    if (i > 0 && headerLen > ipv4.HEADER_LEN) keepCopiedOptions(view, q.off, headerLen);
    copyBytes(pool, q.l4, from, payload);
    view.setUint16(q.off + ipv4.TOTAL_LEN, q.len);
    view.setUint16(q.off + ipv4.FLAGS_FRAGMENT, q.fragment);
    ipv4.setHeaderChecksum(view, q.off);

    from += payload;
    offset8 += payload >> 3;
    out[i] = q;
  }
  return count;
}

/** Pieces that `payload` bytes make; all but the last hold a multiple of 8, the last may fill its room. */
function countFragments(payload: number, room: number): number {
  return payload <= room ? 1 : 1 + Math.ceil((payload - room) / (room & ~7));
}

/**
 * Leaves of the options of the header at `off` those that go into every fragment, with the copied flag. The others become No
 * Operation, as in Linux's ip_options_fragment: so all fragments have headers of one length.
 */
function keepCopiedOptions(view: DataView, off: number, headerLen: number): void {
  const end = off + headerLen;
  let at = off + ipv4.HEADER_LEN;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === ipv4.OPT_END) break;
    const length = type === ipv4.OPT_NOP ? 1 : view.getUint8(at + 1); // parseIpv4 has seen that it is 2 or more and fits
    if ((type & ipv4.OPT_COPIED) === 0) for (let i = 0; i < length; i++) view.setUint8(at + i, ipv4.OPT_NOP);
    at += length;
  }
}

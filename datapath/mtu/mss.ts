/** The TCP maximum segment size, clamped to what the path takes. */
import type { Packet } from '../packet/packet.ts';
import { update16 } from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as virtio from '../wire/virtio-net.ts';

const OPTION_LEN = 4;

/**
 * Lowers the MSS option of a SYN or SYN-ACK to `mtu` less 40 bytes, headers without options (RFC 6691 section 2), as
 * Linux's TCPMSS --clamp-mss-to-pmtu does. Never raises it, and adds none: without the option the MSS is 536 (RFC 9293
 * section 3.7.1), which nearly every path takes. The checksum is updated; one still owed (NEEDS_CSUM) does not cover
 * the option yet.
 *
 * @param p parsed; anything else than a TCP SYN is left alone
 * @param mtu of the path in both directions: the smaller of the two
 * @returns true if the packet was changed
 */
export function clampMss(view: DataView, p: Packet, mtu: number): boolean {
  if (p.protocol !== ipv4.PROTO_TCP || (p.fragment & ipv4.OFFSET_MASK) !== 0) return false;
  // A first fragment may hold less than the header.
  const available = p.off + p.len - p.l4;
  if (available < tcp.HEADER_LEN || available < tcp.headerLen(view, p.l4)) return false;
  if ((view.getUint8(p.l4 + tcp.FLAGS) & tcp.SYN) === 0) return false;
  const limit = mtu - ipv4.HEADER_LEN - tcp.HEADER_LEN;
  if (limit <= 0) return false;

  // parseIpv4 has seen that the header lies within the packet.
  const end = p.l4 + tcp.headerLen(view, p.l4);
  let changed = false;
  for (let at = tcp.nextOption(view, p.l4 + tcp.HEADER_LEN, end); at < end; ) {
    const kind = view.getUint8(at);
    const length = view.getUint8(at + 1);
    if (kind === tcp.OPT_MSS && length === OPTION_LEN && view.getUint16(at + 2) > limit) {
      setMss(view, p, at + 2, limit);
      changed = true;
    }
    at = tcp.nextOption(view, at + length, end);
  }
  return changed;
}

function setMss(view: DataView, p: Packet, at: number, mss: number): void {
  const old = view.getUint16(at);
  view.setUint16(at, mss);
  if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) !== 0 && p.csumStart === p.l4) return;
  // At an odd place its bytes belong to two words of the sum, where they weigh as if they were swapped (RFC 1071 section
  // 2B). Nothing aligns options; Linux's TCPMSS gets this wrong.
  const odd = ((at - p.l4) & 1) !== 0;
  const checksum = p.l4 + tcp.CHECKSUM;
  view.setUint16(
    checksum,
    odd
      ? update16(view.getUint16(checksum), swapBytes(old), swapBytes(mss))
      : update16(view.getUint16(checksum), old, mss),
  );
}

function swapBytes(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}

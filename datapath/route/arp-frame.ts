/** Writing ARP frames (RFC 826). */
import type { Packet } from '../packet/packet.ts';
import * as arp from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';

/** Length of an ARP frame as Linux sends it: not padded, the medium does that. */
export const ARP_FRAME = ethernet.HEADER_LEN + arp.PACKET_LEN;

/** Makes `p` an ARP frame at its `off`, from the station `own` to the MAC `toHi`, `toLo`; it is the node's own then. */
export function writeArp(
  view: DataView,
  p: Packet,
  own: ethernet.Mac,
  operation: number,
  toHi: number,
  toLo: number,
  targetHi: number,
  targetLo: number,
  sender: number,
  target: number,
): void {
  const { off } = p;
  ethernet.setMac(view, off + ethernet.DST, toHi, toLo);
  ethernet.setMac(view, off + ethernet.SRC, own.hi, own.lo);
  view.setUint16(off + ethernet.TYPE, ethernet.TYPE_ARP);
  const packet = off + ethernet.HEADER_LEN;
  view.setInt32(packet + arp.HTYPE, 0x00010800);
  view.setUint16(packet + arp.HLEN, 0x0604);
  view.setUint16(packet + arp.OPER, operation);
  ethernet.setMac(view, packet + arp.SHA, own.hi, own.lo);
  view.setInt32(packet + arp.SPA, sender);
  ethernet.setMac(view, packet + arp.THA, targetHi, targetLo);
  view.setInt32(packet + arp.TPA, target);
  p.len = ARP_FRAME;
  p.local = 1;
}

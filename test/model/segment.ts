/** What segmentation does to a TCP or UDP packet, as plain functions over byte arrays. */
import { fix } from '../fixtures/packets.ts';

/** The packets of at most `gsoSize` payload bytes that a superpacket stands for, checksums complete. */
export function slowSegment(packet: Uint8Array, gsoSize: number): Uint8Array[] {
  const l4 = (packet[0] & 15) * 4;
  const tcp = packet[9] === 6;
  const headerLen = l4 + (tcp ? (packet[l4 + 12] >> 4) * 4 : 8);
  const payload = packet.slice(headerLen);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at === 0 || at < payload.length; at += gsoSize) {
    const data = payload.slice(at, at + gsoSize);
    const piece = Uint8Array.from([...packet.slice(0, headerLen), ...data]);
    const view = new DataView(piece.buffer);
    view.setUint16(4, (view.getUint16(4) + pieces.length) % 65536);
    if (tcp) {
      view.setUint32(l4 + 4, (view.getUint32(l4 + 4) + at) % 4294967296);
      const first = at === 0;
      const last = at + gsoSize >= payload.length;
      if (!first) piece[l4 + 13] &= 0x7f; // CWR
      if (!last) piece[l4 + 13] &= 0xf6; // PSH, FIN
    } else {
      view.setUint16(l4 + 4, 8 + data.length);
    }
    pieces.push(fix(piece));
  }
  return pieces;
}

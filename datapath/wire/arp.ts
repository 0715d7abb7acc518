/** ARP for IPv4 over Ethernet (RFC 826): offsets from the first byte behind the Ethernet header. */

export const HTYPE = 0;
export const PTYPE = 2;
export const HLEN = 4;
export const PLEN = 5;
export const OPER = 6;
export const SHA = 8;
export const SPA = 14;
export const THA = 18;
export const TPA = 24;
export const PACKET_LEN = TPA + 4;

export const REQUEST = 1;
export const REPLY = 2;

/** True if `len` bytes at `off` are an ARP packet for IPv4 over Ethernet. Check once, then read without fear. */
export function check(view: DataView, off: number, len: number): boolean {
  return len >= PACKET_LEN && view.getInt32(off + HTYPE) === 0x00010800 && view.getUint16(off + HLEN) === 0x0604;
}

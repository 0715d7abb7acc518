/**
 * Ethernet II (IEEE 802.3, clause 3): byte offsets from the first byte of the frame.
 *
 *   0           6           12     14
 *  +-----------+-----------+------+---------
 *  | dst MAC   | src MAC   | type | payload
 *  +-----------+-----------+------+---------
 */

export const DST = 0;
export const SRC = 6;
export const TYPE = 12;
export const HEADER_LEN = 14;
/** The longest payload of a frame (IEEE 802.3), where nobody has agreed on more. */
export const MTU = 1500;

export const TYPE_IPV4 = 0x0800;
export const TYPE_ARP = 0x0806;
export const TYPE_VLAN = 0x8100;
export const TYPE_TEB = 0x6558; // transparent Ethernet bridging: what GENEVE carries
export const TYPE_IPV6 = 0x86dd;

/**
 * A MAC address as two numbers, because one JavaScript integer in the hot loop has 31 bits: `hi` is the first two
 * bytes (u16), `lo` the last four (int32).
 */
export interface Mac {
  hi: number;
  lo: number;
}

/** Writes a MAC at `off` (6 bytes). */
export function setMac(view: DataView, off: number, hi: number, lo: number): void {
  view.setUint16(off, hi);
  view.setInt32(off + 2, lo);
}

/** First two bytes of the MAC at `off`. */
export function macHi(view: DataView, off: number): number {
  return view.getUint16(off);
}

/** Last four bytes of the MAC at `off`, as int32. */
export function macLo(view: DataView, off: number): number {
  return view.getInt32(off + 2);
}

/** The group bit: set in multicast and broadcast addresses. */
export function isGroup(hi: number): boolean {
  return (hi & 0x0100) !== 0;
}

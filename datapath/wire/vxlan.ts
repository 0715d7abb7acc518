/**
 * VXLAN (RFC 7348 section 5): offsets from the first byte behind the UDP header.
 *
 *   0        1              4           7
 *  +--------+--------------+-----------+--------+
 *  |RRRRIRRR| reserved     | VNI       |reserved|
 *  +--------+--------------+-----------+--------+
 */

export const FLAGS = 0; // as a 32-bit word with the reserved bits behind it
export const VNI = 4; // 24 bits; the byte behind is reserved
export const HEADER_LEN = 8;

export const PORT = 4789;
export const FLAG_VNI = 0x08000000; // the I flag in the 32-bit word at FLAGS

/** The 24-bit network identifier. */
export function vni(view: DataView, off: number): number {
  return view.getUint32(off + VNI) >>> 8;
}

/**
 * GENEVE (RFC 8926 section 3.4): offsets from the first byte behind the UDP header.
 *
 *   0           1          2              4           7        8
 *  +--+--------+--+-------+--------------+-----------+--------+---------
 *  |V | OptLen |OC| Rsvd  | EtherType    | VNI       | Rsvd   | options
 *  +--+--------+--+-------+--------------+-----------+--------+---------
 */

export const VERSION_OPT_LEN = 0; // 2 bits version, 6 bits length of the options in 4-byte words
export const FLAGS = 1; // O: control packet, C: critical options present
export const PROTOCOL = 2;
export const VNI = 4; // 24 bits; the byte behind is reserved
export const HEADER_LEN = 8; // without options
export const MAX_OPTIONS_LEN = 252; // 63 words: what the length field can say

export const PORT = 6081;
export const FLAG_CONTROL = 0x80;
export const FLAG_CRITICAL = 0x40;

export const OPT_CLASS = 0;
export const OPT_TYPE = 2; // high bit: critical
export const OPT_LEN = 3; // low 5 bits, in 4-byte words, without this header
export const OPT_HEADER_LEN = 4;
export const OPT_TYPE_CRITICAL = 0x80;
export const OPT_MAX_DATA_LEN = 124; // 31 words

/** Length of the options in bytes (at most 252). */
export function optionsLen(view: DataView, off: number): number {
  return (view.getUint8(off + VERSION_OPT_LEN) & 0x3f) << 2;
}

/** The 24-bit network identifier. */
export function vni(view: DataView, off: number): number {
  return view.getUint32(off + VNI) >>> 8;
}

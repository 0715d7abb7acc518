/** TCP (RFC 9293 section 3.1): offsets from the first byte of the header. */

export const SRC_PORT = 0;
export const DST_PORT = 2;
export const SEQ = 4;
export const ACK = 8;
export const DATA_OFFSET = 12; // high nibble, in 32-bit words
export const FLAGS = 13;
export const WINDOW = 14;
export const CHECKSUM = 16;
export const URGENT = 18;
export const HEADER_LEN = 20;

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK_FLAG = 0x10;
export const URG = 0x20;
export const ECE = 0x40;
export const CWR = 0x80;

export const OPT_END = 0;
export const OPT_NOP = 1;
export const OPT_MSS = 2;
export const OPT_WINDOW_SCALE = 3;
export const OPT_SACK_PERMITTED = 4;
export const OPT_SACK = 5;
export const OPT_TIMESTAMP = 8;

/** Header length in bytes. */
export function headerLen(view: DataView, off: number): number {
  return (view.getUint8(off + DATA_OFFSET) >> 4) << 2;
}

/**
 * The first option from `at` on that is no padding: its kind is the byte there, its length (at least 2, inside the header)
 * the byte behind. `end` where there is none; an unfinished option ends the list.
 *
 * @param end of the header
 */
export function nextOption(view: DataView, at: number, end: number): number {
  while (at < end && view.getUint8(at) === OPT_NOP) at++;
  if (at + 1 >= end || view.getUint8(at) === OPT_END) return end;
  const length = view.getUint8(at + 1);
  return length < 2 || at + length > end ? end : at;
}

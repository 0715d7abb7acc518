/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
 *
 * A "sum" here is an accumulator of big-endian 16-bit words with its carries still in it; `foldSum` brings it to 16 bits.
 * The checksum field holds the complement of the folded sum; a NEEDS_CSUM packet holds the folded sum of the pseudo
 * header, not complemented.
 */

/** From here on the loop over doubles wins (measured: 20 bytes 12 ns and 31 ns, 1460 bytes 230 ns and 177 ns). */
const LONG = 512;

/** Folds an accumulator, at most 2^53, to 16 bits with end-around carry. */
export function foldSum(sum: number): number {
  if (sum > 0x7fffffff) {
    sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
    sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  }
  const s = (sum & 0xffff) + (sum >>> 16);
  return (s & 0xffff) + (s >>> 16);
}

/**
 * Adds `len` bytes at `off` to `sum`; an odd last byte counts as the high byte of a word (RFC 1071 section 1). At most
 * 64 KiB. Reads nothing outside [off, off + len).
 * @returns the new sum; what the bytes add is below 2^19, so that a small sum stays a small integer, off the heap
 */
export function sumWords(view: DataView, off: number, len: number, sum: number): number {
  if (len >= LONG) {
    const head = len & ~31;
    sum += sumLong(view, off, head);
    off += head;
    len -= head;
  }
  // Two accumulators of 16-bit halves fit int32, where one of 32-bit words would need a double.
  let high = 0;
  let low = 0;
  let end = off + (len & ~15);
  for (; off < end; off += 16) {
    const a = view.getInt32(off);
    const b = view.getInt32(off + 4);
    const c = view.getInt32(off + 8);
    const d = view.getInt32(off + 12);
    high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
    low = (low + (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff)) | 0;
  }
  end = off + (len & 12);
  for (; off < end; off += 4) {
    const word = view.getInt32(off);
    high = (high + (word >>> 16)) | 0;
    low = (low + (word & 0xffff)) | 0;
  }
  if (len & 2) {
    low = (low + view.getUint16(off)) | 0;
    off += 2;
  }
  if (len & 1) low = (low + (view.getUint8(off) << 8)) | 0;
  return sum + (high & 0xffff) + (high >>> 16) + (low & 0xffff) + (low >>> 16);
}

/** Folded sum of `len` bytes, a multiple of 32. */
function sumLong(view: DataView, off: number, len: number): number {
  // 2^16 = 1 mod 2^16-1, so 32-bit words may be added as they are; and in the byte order of the machine, since swapping
  // the bytes of all words swaps those of the sum (RFC 1071 section 2B). Doubles hold 2^21 such words exactly.
  let first = 0;
  let second = 0;
  for (const end = off + len; off < end; off += 32) {
    first +=
      view.getUint32(off, true) +
      view.getUint32(off + 4, true) +
      view.getUint32(off + 8, true) +
      view.getUint32(off + 12, true);
    second +=
      view.getUint32(off + 16, true) +
      view.getUint32(off + 20, true) +
      view.getUint32(off + 24, true) +
      view.getUint32(off + 28, true);
  }
  const folded = foldSum(first + second);
  return ((folded & 0xff) << 8) | (folded >>> 8);
}

/** Sum of the TCP/UDP pseudo header (RFC 9293 section 3.1); addresses as int32, `l4Len` in bytes. */
export function pseudoSum(src: number, dst: number, protocol: number, l4Len: number): number {
  return (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + l4Len;
}

/**
 * New checksum after a 16-bit word changed from `from` to `to`: HC' = ~(~HC + ~m + m'), RFC 1624 equation 3.
 * All values u16.
 */
export function update16(checksum: number, from: number, to: number): number {
  let s = (~checksum & 0xffff) + (~from & 0xffff) + to;
  s = (s & 0xffff) + (s >>> 16);
  s = (s & 0xffff) + (s >>> 16);
  return ~s & 0xffff;
}

/** As update16 for a 32-bit field (an address); `from` and `to` int32 or u32. */
export function update32(checksum: number, from: number, to: number): number {
  let s = (~checksum & 0xffff) + (~from >>> 16) + (~from & 0xffff) + (to >>> 16) + (to & 0xffff);
  s = (s & 0xffff) + (s >>> 16);
  s = (s & 0xffff) + (s >>> 16);
  return ~s & 0xffff;
}

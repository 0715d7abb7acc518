/** CRC32c bit by bit (RFC 9260 appendix A), over an SCTP packet whose checksum field is taken as 0. int32. */
export function slowCrc32c(packet: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < packet.length; i++) {
    crc ^= i >= 8 && i < 12 ? 0 : packet[i];
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc | 0;
}

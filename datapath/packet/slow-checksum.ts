/** The slow twin of wire/checksum.ts: the Internet checksum as RFC 1071 section 1 words it, 16 bits at a time. For tests and build.ts. */

/** One's complement sum of the 16-bit words of `bytes`, an odd last byte padded with a zero. Folded, not complemented. */
export function slowSum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i] * 256 + (i + 1 < bytes.length ? bytes[i + 1] : 0);
    if (sum > 0xffff) sum = sum - 0x10000 + 1;
  }
  return sum;
}

/** What goes into the checksum field. */
export function slowChecksum(bytes: Uint8Array, start = 0): number {
  return 0xffff - slowSum(bytes, start);
}

/** Folded sum of the TCP/UDP pseudo header of an IPv4 packet: its addresses, its protocol, and the length of what follows. */
export function slowPseudoSum(packet: Uint8Array): number {
  const headerLen = (packet[0] & 15) * 4;
  const l4Len = packet.length - headerLen;
  return slowSum(Uint8Array.from([...packet.slice(12, 20), 0, packet[9], l4Len >> 8, l4Len & 255]));
}

/** True if the transport checksum of a whole IPv4 packet with a TCP or UDP payload is right. UDP may have none (0). */
export function slowTransportOk(packet: Uint8Array): boolean {
  const l4 = packet.slice((packet[0] & 15) * 4);
  if (packet[9] === 17 && l4[6] === 0 && l4[7] === 0) return true;
  return slowSum(l4, slowPseudoSum(packet)) === 0xffff;
}

/** True if the IPv4 header checksum is right. */
export function slowHeaderOk(packet: Uint8Array): boolean {
  return slowSum(packet.slice(0, (packet[0] & 15) * 4)) === 0xffff;
}

/**
 * The outer UDP source port carries the inner flow's entropy, so that routers spread flows over equal paths and keep
 * each flow on one (RFC 7348 section 5, RFC 8926 section 3.3).
 */
import type { Packet } from '../packet/packet.ts';
import { isFragment } from '../wire/ipv4.ts';

/**
 * The source port for the flow of the parsed packet: the same for all its packets, in [from, from + range).
 *
 * All fragments of a datagram take one port, made from the addresses alone, since later ones have no ports; Linux does so,
 * too (skb_flow_dissect without PARSE_1ST_FRAG). About 2 ns.
 *
 * @param seed keeps outsiders from foreseeing which port a flow gets
 */
export function sourcePort(p: Packet, seed: number, from: number, range: number): number {
  const ports = isFragment(p.fragment) ? 0 : (p.srcPort << 16) | p.dstPort;
  // The 32-bit steps and the finish of MurmurHash3 (Appleby): every input bit reaches the upper 16 bits used below.
  let h = seed;
  h = Math.imul(h ^ p.src, 0xcc9e2d51);
  h = Math.imul(((h << 15) | (h >>> 17)) ^ p.dst, 0x1b873593);
  h = Math.imul(((h << 13) | (h >>> 19)) ^ ports, 0xe6546b64);
  h = Math.imul(h ^ (h >>> 16) ^ p.protocol, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  // Scaling by multiplication instead of a remainder, as udp_flow_src_port does.
  return from + (Math.imul(h >>> 16, range) >>> 16);
}

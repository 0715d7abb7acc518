/**
 * The slow twin of packet/coalesce.ts. It knows almost no rules: packets may become one superpacket if cutting that
 * superpacket (slowSegment) gives the same packets back, byte for byte. What else GRO demands is said below.
 */
import { fix } from '../fixtures/packets.ts';
import { slowHeaderOk, slowTransportOk } from './checksum.ts';
import { slowSegment } from './segment.ts';

/** A packet, or with a gsoSize a superpacket, its checksum as if it were one packet. */
export interface SlowPacket {
  bytes: Uint8Array;
  gsoSize: number;
}

interface Entry extends SlowPacket {
  /** The packets that it stands for. */
  parts: Uint8Array[];
  flow: string;
  growing: boolean;
}

const SYN_RST_URG = 0x26;
const ACK = 0x10;

function headerLen(packet: Uint8Array): number {
  const l4 = (packet[0] & 15) * 4;
  return l4 + (packet[9] === 6 ? (packet[l4 + 12] >> 4) * 4 : 8);
}

function flowOf(packet: Uint8Array): string {
  return [...packet.slice(12, 20), packet[9], ...packet.slice(20, 24)].join(' ');
}

/** Rules that reversibility alone does not give. */
function mayMerge(packet: Uint8Array): boolean {
  const plainHeader = packet[0] === 0x45 && (packet[6] & 0xbf) === 0 && packet[7] === 0;
  if (!plainHeader || packet.length <= headerLen(packet) || !slowHeaderOk(packet) || !slowTransportOk(packet))
    return false;
  if (packet[9] === 6) return (packet[33] & SYN_RST_URG) === 0 && (packet[33] & ACK) !== 0;
  return packet[9] === 17 && (packet[26] | packet[27]) !== 0;
}

function id(packet: Uint8Array): number {
  return packet[4] * 256 + packet[5];
}

function withId(packet: Uint8Array, value: number): Uint8Array {
  const copy = packet.slice();
  copy[4] = value >> 8;
  copy[5] = value & 255;
  return fix(copy);
}

/** One packet with the payload of all, or null if cutting it would not give them back. */
function join(parts: Uint8Array[], gsoSize: number): Uint8Array | null {
  const first = parts[0];
  const payload = parts.flatMap(part => [...part.slice(headerLen(part))]);
  const joined = Uint8Array.from([...first.slice(0, headerLen(first)), ...payload]);
  if (joined.length > 65535) return null;
  if (first[9] === 6) joined[33] |= parts[parts.length - 1][33] & 9; // PSH, FIN
  if (first[9] === 17) {
    if (parts.length > 64) return null;
    joined[24] = (joined.length - 20) >> 8;
    joined[25] = (joined.length - 20) & 255;
  }
  const fixed = fix(joined);
  let cut = slowSegment(fixed, gsoSize);
  // With DF the id is free to stand still.
  const still = (first[6] & 0x40) !== 0 && parts.every(part => id(part) === id(first));
  if (still) cut = cut.map(piece => withId(piece, id(first)));
  const same = cut.length === parts.length && cut.every((piece, i) => Buffer.compare(piece, parts[i]) === 0);
  return same ? fixed : null;
}

export function slowCoalesce(packets: SlowPacket[]): SlowPacket[] {
  const out: Entry[] = [];
  for (const { bytes, gsoSize } of packets) {
    const parts = gsoSize > 0 ? slowSegment(bytes, gsoSize) : [bytes];
    const flow = flowOf(bytes);
    const ok = parts.every(mayMerge);
    const open = out.find(entry => entry.flow === flow && entry.growing);
    if (open !== undefined) {
      // A superpacket's ids count, so it never joins packets whose ids stand still.
      const still = open.parts.length > 1 && id(open.parts[0]) === id(open.parts[1]);
      const size = open.gsoSize || open.bytes.length - headerLen(open.bytes);
      const joined = ok && !(still && parts.length > 1) ? join([...open.parts, ...parts], size) : null;
      if (joined !== null) {
        open.bytes = joined;
        open.gsoSize = size;
        open.parts.push(...parts);
        continue;
      }
      open.growing = false;
    }
    out.push({ bytes, gsoSize, parts, flow, growing: ok });
    // The ports of a fragment are not known: nothing between its addresses may overtake it.
    if (bytes[0] !== 0x45 || (bytes[6] & 0xbf) !== 0 || bytes[7] !== 0) {
      for (const entry of out) {
        const between = Buffer.compare(entry.bytes.slice(12, 20), bytes.slice(12, 20)) === 0;
        if (between && entry.bytes[9] === bytes[9]) entry.growing = false;
      }
    }
  }
  return out.map(({ bytes, gsoSize }) => ({ bytes, gsoSize }));
}

/**
 * Packets in plain bytes, for checks, tests and tools; never for the loop. Each builder returns one packet, every length and
 * checksum right (computed by the slow twin of wire/checksum.ts, not by the code under test); what shall be wrong is broken
 * afterwards with `patch` and `fix`.
 */
import * as ethernetWire from '../wire/ethernet.ts';
import * as ipv4Wire from '../wire/ipv4.ts';
import * as tcpWire from '../wire/tcp.ts';
import * as udpWire from '../wire/udp.ts';
import { slowChecksum, slowPseudoSum } from './slow-checksum.ts';

export const CLIENT = '10.244.1.10';
export const SERVER = '10.244.2.20';

/** Dotted address as int32, the datapath's form. */
export function ip(text: string): number {
  const [a, b, c, d] = text.split('.').map(Number);
  return (a << 24) | (b << 16) | (c << 8) | d;
}

/** int32 address as dotted text. */
export function dotted(address: number): string {
  return [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join('.');
}

/** Bytes from hex text; blanks are ignored. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(text.replace(/\s+/g, '').match(/[0-9a-f]{2}/gi) ?? [], digits => Number.parseInt(digits, 16));
}

/** Two digits a byte. */
export function hexText(bytes: Uint8Array): string {
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');
}

/** `n` bytes that differ from each other and between seeds. */
export function pattern(n: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(n);
  let x = (Math.imul(seed, 2654435761) | 1) >>> 0;
  for (let i = 0; i < n; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

export interface Ipv4Options {
  src?: string;
  dst?: string;
  tos?: number;
  id?: number;
  /** The 16-bit field: FLAG_DF, FLAG_MF, offset in units of 8 bytes. */
  fragment?: number;
  ttl?: number;
  /** Header options, a multiple of 4 bytes. */
  options?: Uint8Array;
}

/** An IPv4 packet of any protocol. */
export function ipv4(protocol: number, payload: Uint8Array, o: Ipv4Options = {}): Uint8Array {
  const options = o.options ?? new Uint8Array(0);
  if (options.length % 4 !== 0 || options.length > 40) throw new Error(`IPv4 options of ${options.length} bytes`);
  const headerLen = ipv4Wire.HEADER_LEN + options.length;
  const packet = new Uint8Array(headerLen + payload.length);
  const view = new DataView(packet.buffer);
  view.setUint8(ipv4Wire.VERSION_IHL, 0x40 | (headerLen / 4));
  view.setUint8(ipv4Wire.TOS, o.tos ?? 0);
  view.setUint16(ipv4Wire.TOTAL_LEN, packet.length);
  view.setUint16(ipv4Wire.ID, o.id ?? 0x1234);
  view.setUint16(ipv4Wire.FLAGS_FRAGMENT, o.fragment ?? 0);
  view.setUint8(ipv4Wire.TTL, o.ttl ?? 64);
  view.setUint8(ipv4Wire.PROTOCOL, protocol);
  view.setInt32(ipv4Wire.SRC, ip(o.src ?? CLIENT));
  view.setInt32(ipv4Wire.DST, ip(o.dst ?? SERVER));
  packet.set(options, ipv4Wire.HEADER_LEN);
  packet.set(payload, headerLen);
  view.setUint16(ipv4Wire.CHECKSUM, slowChecksum(packet.subarray(0, headerLen)));
  return packet;
}

export interface TcpOptions extends Ipv4Options {
  sport?: number;
  dport?: number;
  seq?: number;
  ack?: number;
  flags?: number;
  window?: number;
  urgent?: number;
  /** TCP options, a multiple of 4 bytes. */
  tcpOptions?: Uint8Array;
  payload?: Uint8Array;
}

/** A TCP segment; an ACK without payload unless told otherwise. */
export function tcp4(o: TcpOptions = {}): Uint8Array {
  const options = o.tcpOptions ?? new Uint8Array(0);
  if (options.length % 4 !== 0 || options.length > 40) throw new Error(`TCP options of ${options.length} bytes`);
  const payload = o.payload ?? new Uint8Array(0);
  const headerLen = tcpWire.HEADER_LEN + options.length;
  const segment = new Uint8Array(headerLen + payload.length);
  const view = new DataView(segment.buffer);
  view.setUint16(tcpWire.SRC_PORT, o.sport ?? 40000);
  view.setUint16(tcpWire.DST_PORT, o.dport ?? 80);
  view.setUint32(tcpWire.SEQ, (o.seq ?? 1) >>> 0);
  view.setUint32(tcpWire.ACK, (o.ack ?? 1) >>> 0);
  view.setUint8(tcpWire.DATA_OFFSET, (headerLen / 4) << 4);
  view.setUint8(tcpWire.FLAGS, o.flags ?? tcpWire.ACK_FLAG);
  view.setUint16(tcpWire.WINDOW, o.window ?? 64240);
  view.setUint16(tcpWire.URGENT, o.urgent ?? 0);
  segment.set(options, tcpWire.HEADER_LEN);
  segment.set(payload, headerLen);
  return fix(ipv4(ipv4Wire.PROTO_TCP, segment, o));
}

/** The timestamp option as Linux lays it out: NOP, NOP, kind 8, length 10, value, echo. */
export function timestampOption(value: number, echo: number): Uint8Array {
  const option = new Uint8Array(12);
  const view = new DataView(option.buffer);
  view.setUint32(0, 0x0101080a);
  view.setUint32(4, value >>> 0);
  view.setUint32(8, echo >>> 0);
  return option;
}

export interface UdpOptions extends Ipv4Options {
  sport?: number;
  dport?: number;
  payload?: Uint8Array;
  /** Leaves the checksum field 0: none computed. */
  noChecksum?: boolean;
}

/** A UDP datagram. */
export function udp4(o: UdpOptions = {}): Uint8Array {
  const payload = o.payload ?? new Uint8Array(0);
  const datagram = new Uint8Array(udpWire.HEADER_LEN + payload.length);
  const view = new DataView(datagram.buffer);
  view.setUint16(udpWire.SRC_PORT, o.sport ?? 40000);
  view.setUint16(udpWire.DST_PORT, o.dport ?? 53);
  view.setUint16(udpWire.LENGTH, datagram.length);
  datagram.set(payload, udpWire.HEADER_LEN);
  const packet = ipv4(ipv4Wire.PROTO_UDP, datagram, o);
  return o.noChecksum ? packet : fix(packet);
}

export interface IcmpOptions extends Ipv4Options {
  type?: number;
  code?: number;
  icmpId?: number;
  sequence?: number;
  payload?: Uint8Array;
}

/** An echo request, or with `type` any other message of the same shape. */
export function icmpEcho(o: IcmpOptions = {}): Uint8Array {
  const payload = o.payload ?? pattern(56);
  const message = new Uint8Array(8 + payload.length);
  const view = new DataView(message.buffer);
  view.setUint8(0, o.type ?? 8);
  view.setUint8(1, o.code ?? 0);
  view.setUint16(4, o.icmpId ?? 0x4242);
  view.setUint16(6, o.sequence ?? 1);
  message.set(payload, 8);
  return fix(ipv4(ipv4Wire.PROTO_ICMP, message, o));
}

/** An ICMP error that quotes `quoted` (header and as much as given); `mtu` for code 4. */
export function icmpError(type: number, code: number, quoted: Uint8Array, o: Ipv4Options & { mtu?: number } = {}) {
  return icmpEcho({ ...o, type, code, icmpId: 0, sequence: o.mtu ?? 0, payload: quoted });
}

/** SCTP with one chunk; the CRC32c is left 0. */
export function sctp4(o: UdpOptions = {}): Uint8Array {
  const payload = o.payload ?? pattern(16);
  const message = new Uint8Array(12 + payload.length);
  const view = new DataView(message.buffer);
  view.setUint16(0, o.sport ?? 40000);
  view.setUint16(2, o.dport ?? 3868);
  message.set(payload, 12);
  return ipv4(ipv4Wire.PROTO_SCTP, message, o);
}

/** One packet in another, protocol 4. */
export function ipip(inner: Uint8Array, o: Ipv4Options = {}): Uint8Array {
  return ipv4(ipv4Wire.PROTO_IPIP, inner, o);
}

/** MAC text to 6 bytes. */
export function mac(text: string): Uint8Array {
  return Uint8Array.from(text.split(':').map(part => Number.parseInt(part, 16)));
}

/** An Ethernet frame. */
export function ethernet(payload: Uint8Array, o: { src?: string; dst?: string; type?: number } = {}): Uint8Array {
  const frame = new Uint8Array(ethernetWire.HEADER_LEN + payload.length);
  frame.set(mac(o.dst ?? '02:00:00:00:00:02'), ethernetWire.DST);
  frame.set(mac(o.src ?? '02:00:00:00:00:01'), ethernetWire.SRC);
  new DataView(frame.buffer).setUint16(ethernetWire.TYPE, o.type ?? ethernetWire.TYPE_IPV4);
  frame.set(payload, ethernetWire.HEADER_LEN);
  return frame;
}

/** An ARP packet without its Ethernet header; a request unless told otherwise. */
export function arp(o: { oper?: number; sha?: string; spa?: string; tha?: string; tpa?: string } = {}): Uint8Array {
  const packet = new Uint8Array(28);
  const view = new DataView(packet.buffer);
  view.setInt32(0, 0x00010800);
  view.setUint16(4, 0x0604);
  view.setUint16(6, o.oper ?? 1);
  packet.set(mac(o.sha ?? '02:00:00:00:00:01'), 8);
  view.setInt32(14, ip(o.spa ?? '192.168.10.1'));
  packet.set(mac(o.tha ?? '00:00:00:00:00:00'), 18);
  view.setInt32(24, ip(o.tpa ?? '192.168.10.2'));
  return packet;
}

/** An ARP packet in its frame: a request to all, a reply to `tha`. */
export function arpFrame(o: Parameters<typeof arp>[0] = {}): Uint8Array {
  const dst = (o.oper ?? 1) === 1 ? 'ff:ff:ff:ff:ff:ff' : o.tha;
  return ethernet(arp(o), { src: o.sha ?? '02:00:00:00:00:01', dst, type: ethernetWire.TYPE_ARP });
}

/** A fragment of `packet`: `len` payload bytes from byte `offset` (a multiple of 8). The header is copied as it is. */
export function fragment(packet: Uint8Array, offset: number, len: number): Uint8Array {
  const headerLen = (packet[0] & 15) * 4;
  const from = headerLen + offset;
  const piece = new Uint8Array(headerLen + Math.min(len, packet.length - from));
  piece.set(packet.subarray(0, headerLen));
  piece.set(packet.subarray(from, from + len), headerLen);
  const more = from + len < packet.length ? ipv4Wire.FLAG_MF : 0;
  new DataView(piece.buffer).setUint16(ipv4Wire.FLAGS_FRAGMENT, more | (offset / 8));
  return fixHeader(piece);
}

/** What a router cuts `packet` into for a link with this MTU (RFC 791 section 3.2). A fragment may be cut again. */
export function fragmentAll(packet: Uint8Array, mtu: number): Uint8Array[] {
  const headerLen = (packet[0] & 15) * 4;
  const payload = packet.length - headerLen;
  const field = new DataView(packet.buffer, packet.byteOffset).getUint16(ipv4Wire.FLAGS_FRAGMENT);
  const pieces: Uint8Array[] = [];
  for (let offset = 0; offset < payload; ) {
    const rest = payload - offset;
    const length = rest <= mtu - headerLen ? rest : (mtu - headerLen) & ~7;
    const piece = fragment(packet, offset, length);
    const more = offset + length < payload ? ipv4Wire.FLAG_MF : field & ipv4Wire.FLAG_MF;
    const place = (field & ipv4Wire.OFFSET_MASK) + offset / 8;
    new DataView(piece.buffer).setUint16(ipv4Wire.FLAGS_FRAGMENT, more | place);
    pieces.push(fixHeader(piece));
    offset += length;
  }
  return pieces;
}

/** A copy with `bytes` written at `at`. */
export function patch(packet: Uint8Array, at: number, ...bytes: number[]): Uint8Array {
  const copy = packet.slice();
  copy.set(bytes, at);
  return copy;
}

/** A copy whose IPv4 total length and header checksum fit its bytes again. */
export function fixHeader(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  const view = new DataView(copy.buffer);
  view.setUint16(ipv4Wire.TOTAL_LEN, copy.length);
  view.setUint16(ipv4Wire.CHECKSUM, 0);
  view.setUint16(ipv4Wire.CHECKSUM, slowChecksum(copy.subarray(0, (copy[0] & 15) * 4)));
  return copy;
}

/** A copy whose IPv4 length, header checksum and TCP, UDP or ICMP checksum are right again. */
export function fix(packet: Uint8Array): Uint8Array {
  const copy = fixHeader(packet);
  const view = new DataView(copy.buffer);
  const l4 = (copy[0] & 15) * 4;
  const protocol = copy[ipv4Wire.PROTOCOL];
  const field = checksumOffset(protocol);
  if (field < 0) return copy;
  view.setUint16(l4 + field, 0);
  const start = protocol === ipv4Wire.PROTO_ICMP ? 0 : slowPseudoSum(copy);
  const checksum = slowChecksum(copy.subarray(l4), start);
  view.setUint16(l4 + field, checksum === 0 && protocol === ipv4Wire.PROTO_UDP ? 0xffff : checksum);
  return copy;
}

/** Where the transport checksum lies in its header, or -1. */
export function checksumOffset(protocol: number): number {
  if (protocol === ipv4Wire.PROTO_TCP) return tcpWire.CHECKSUM;
  if (protocol === ipv4Wire.PROTO_UDP) return udpWire.CHECKSUM;
  if (protocol === ipv4Wire.PROTO_ICMP) return 2;
  return -1;
}

/** For tests of the path: packets in one line of text, what comes out of a node, and what a peer sends. */
import { strict as assert } from 'node:assert';
import { VERDICT_NAMES } from '../datapath/verdict.ts';
import { dotted, ethernet, icmpEcho, pattern, udp4 } from './fixtures/packets.ts';
import {
  NODE,
  NODE_MAC,
  type NodeOptions,
  PEER,
  PEER_MAC,
  POD,
  REMOTE,
  type TestNode,
  VTEP_MACS,
} from './forward-rig.ts';
import { slowHeaderOk, slowTransportOk } from './model/checksum.ts';

export const DF = 0x4000;
export const OUTSIDE = '198.51.100.7';

// ---- what packets look like, in one line

/** "SRC > DST PROTOCOL ttl=N len=N", with what matters of each protocol, tunnels unwrapped. */
function describePacket(packet: Uint8Array): string {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const headerLen = (packet[0] & 15) * 4;
  const fragmentField = view.getUint16(6);
  const l4 = packet.subarray(headerLen);
  let text = `${dotted(view.getInt32(12))} > ${dotted(view.getInt32(16))}`;
  if (!slowHeaderOk(packet) || view.getUint16(2) !== packet.length) text += ' BAD HEADER';
  if ((fragmentField & 0x3fff) !== 0) {
    text += ` frag ${(fragmentField & 0x1fff) * 8}${(fragmentField & 0x2000) !== 0 ? '+' : ''}`;
  } else if (packet[9] === 1) {
    text += ` icmp ${l4[0]}/${l4[1]}`;
    if (l4[0] === 3 && l4[1] === 4) text += ` mtu=${view.getUint16(headerLen + 6)}`;
  } else if (packet[9] === 4) {
    return `${text} ttl=${packet[8]} ipip [${describePacket(l4)}]`;
  } else if (packet[9] === 17) {
    const port = view.getUint16(headerLen + 2);
    const tunnel = { 8472: 'vxlan', 6081: 'geneve' }[port];
    if (tunnel !== undefined && l4.length >= 8 + 8 + 14 + 20) {
      const vni = view.getUint32(headerLen + 8 + 4) >>> 8;
      return `${text} ttl=${packet[8]} ${tunnel} ${vni} [${describePacket(l4.subarray(8 + 8 + 14))}]`;
    }
    text += ` udp ${port}`;
  } else if (packet[9] === 6) {
    text += ` tcp ${view.getUint16(headerLen + 2)}`;
  }
  const whole = (fragmentField & 0x3fff) === 0 && (packet[9] === 6 || packet[9] === 17);
  if (whole && !slowTransportOk(packet)) text += ' BAD CHECKSUM';
  return `${text} ttl=${packet[8]} len=${packet.length}`;
}

function describeFrame(frame: Uint8Array): string {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (view.getUint16(12) === 0x0806) {
    return `arp ${view.getUint16(20) === 1 ? 'who-has' : 'reply'} ${dotted(view.getInt32(view.getUint16(20) === 1 ? 38 : 28))}`;
  }
  const to = Buffer.from(frame.subarray(0, 6))
    .toString('hex')
    .replace(/(..)(?=.)/g, '$1:');
  const from = Buffer.from(frame.subarray(6, 12))
    .toString('hex')
    .replace(/(..)(?=.)/g, '$1:');
  assert.equal(from, NODE_MAC);
  return `${to === PEER_MAC ? '' : `${to} `}${describePacket(frame.subarray(14))}`;
}

/** "PORT: PACKET" for all that came out. */
export function outputOf(node: TestNode): string[] {
  return Object.entries(node.collectAll()).flatMap(([port, packets]) =>
    packets.map(bytes => `${port}: ${port === 'ul0' ? describeFrame(bytes) : describePacket(bytes)}`),
  );
}

/** Names of the drops counted since `since`. */
export function dropsSince(node: TestNode, since: Float64Array): string[] {
  return VERDICT_NAMES.flatMap((name, i) => (node.counters.values[i] > since[i] ? [name] : []));
}

// ---- the tunnel packets of the peer

export function vxlan(
  inner: Uint8Array,
  o: { src?: string; vni?: number; flags?: number; innerType?: number } = {},
): Uint8Array {
  return udpTunnel(inner, 8472, [(o.flags ?? 8) << 24, (o.vni ?? 7) << 8], o);
}

export function geneve(inner: Uint8Array, o: { src?: string; vni?: number; innerType?: number } = {}): Uint8Array {
  return udpTunnel(inner, 6081, [0x00006558, (o.vni ?? 7) << 8], o);
}

function udpTunnel(
  inner: Uint8Array,
  dport: number,
  words: number[],
  o: { src?: string; innerType?: number },
): Uint8Array {
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  words.forEach((word, i) => {
    view.setInt32(4 * i, word);
  });
  const frame = ethernet(inner, { src: VTEP_MACS[1], dst: VTEP_MACS[0], type: o.innerType });
  return udp4({ src: o.src ?? PEER, dst: NODE, sport: 50000, dport, payload: Uint8Array.from([...header, ...frame]) });
}

// ---- the rows

export interface Row {
  what: string;
  node?: NodeOptions;
  /** Port that it comes in by: a packet, on ul0 an IP packet from the peer unless `frame` is set. */
  into: string;
  packet: Uint8Array;
  frame?: boolean;
  /** All that comes out, in order of ports. */
  out?: string[];
  /** All drop counters that rise. */
  drops?: string[];
}

export const podEcho = (o: Parameters<typeof icmpEcho>[0] = {}) => icmpEcho({ src: POD, dst: REMOTE, ...o });
export const back = (o: Parameters<typeof icmpEcho>[0] = {}) => icmpEcho({ type: 0, src: REMOTE, dst: POD, ...o });
/** A packet of exactly `len` bytes from the pod. */
export const ofLength = (len: number, o: Parameters<typeof udp4>[0] = {}) =>
  udp4({ src: POD, dst: REMOTE, payload: pattern(len - 28), ...o });
export const onWire = (inner: string, ttl = 64) => `ul0: ${NODE} > ${PEER} ttl=${ttl} vxlan 7 [${inner}]`;

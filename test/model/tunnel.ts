/**
 * The slow twin of datapath/tunnel: headers built and taken apart byte by byte, one field after the other, as the RFCs
 * draw them. It shares no code with the datapath but the numbers of the verdicts.
 */
import * as verdict from '../../datapath/verdict.ts';
import { slowChecksum, slowPseudoSum, slowSum } from './checksum.ts';

export interface SlowRules {
  protocol: 'ipip' | 'vxlan' | 'geneve';
  port: number;
  /** -1: the identity. */
  vni: number;
  /** Dotted-free: 4 bytes each. */
  local: number[];
  localMac: number[];
  ttl: number | 'inherit';
  dscp: number | 'inherit' | 'uniform';
  df: 0 | 1 | 'inherit';
  udpChecksum: boolean;
  copyCe: boolean;
  /** GENEVE options as they lie: class, type, length, data, one after the other. */
  options?: readonly number[];
}

const u16 = (n: number) => [(n >> 8) & 255, n & 255];
const u24 = (n: number) => [(n >> 16) & 255, ...u16(n)];

/** The whole outer packet. `id` and `source` are what the sender chose. */
export function slowEncap(
  r: SlowRules,
  inner: Uint8Array,
  to: { address: number[]; mac: number[]; identity: number; id: number; source: number },
): Uint8Array {
  let payload = [...inner];
  if (r.protocol !== 'ipip') {
    const vni = r.vni < 0 ? to.identity : r.vni;
    const options = r.options ?? [];
    const critical = findOptions(options).some(option => option[2] >= 128);
    const first = r.protocol === 'vxlan' ? [0x08, 0, 0, 0] : [options.length / 4, critical ? 0x40 : 0, 0x65, 0x58];
    const header = [...first, ...u24(vni), 0, ...options];
    const body = [...header, ...to.mac, ...r.localMac, 0x08, 0x00, ...payload];
    payload = [...u16(to.source), ...u16(r.port), ...u16(8 + body.length), 0, 0, ...body];
  }
  const innerEcn = inner[1] & 3;
  const ecn = innerEcn === 3 && !r.copyCe ? 2 : innerEcn;
  const dscp = typeof r.dscp === 'number' ? r.dscp : inner[1] >> 2;
  const df = r.df === 'inherit' ? (inner[6] >> 6) & 1 : r.df;
  const packet = Uint8Array.from([
    0x45,
    dscp * 4 + ecn,
    ...u16(20 + payload.length),
    ...u16(to.id),
    df ? 0x40 : 0,
    0,
    r.ttl === 'inherit' ? inner[8] : r.ttl,
    r.protocol === 'ipip' ? 4 : 17,
    0,
    0,
    ...r.local,
    ...to.address,
    ...payload,
  ]);
  packet.set(u16(slowChecksum(packet.slice(0, 20))), 10);
  if (r.protocol !== 'ipip' && r.udpChecksum) {
    packet.set(u16(slowChecksum(packet.slice(20), slowPseudoSum(packet)) || 0xffff), 26);
  }
  return packet;
}

/** Options one by one. */
function findOptions(bytes: readonly number[]): number[][] {
  if (bytes.length === 0) return [];
  const length = 4 + (bytes[3] & 31) * 4;
  return [bytes.slice(0, length), ...findOptions(bytes.slice(length))];
}

export interface SlowReceiver {
  protocol: 'ipip' | 'vxlan' | 'geneve';
  vni: number;
  localMac: number[];
  peers: number[][];
  dropReserved: boolean;
  dropCriticalBit: boolean;
  acceptIpPayload: boolean;
  checkInnerMac: boolean;
  /** Class and type of the options it knows, 3 bytes each. */
  known?: readonly (readonly number[])[];
  /** The inner packet gets the outer DSCP. */
  uniform?: boolean;
}

export interface SlowResult {
  verdict: number;
  inner?: Uint8Array;
  /** The inner header checksum was right as it came; if not, what it is afterwards is left open, but it stays wrong. */
  headerRight?: boolean;
  vni?: number;
}

/** What decapsulation of a plain packet with a valid outer IPv4 header must come to. */
export function slowDecap(r: SlowReceiver, packet: Uint8Array): SlowResult {
  const drop = (reason: number) => ({ verdict: reason });
  const same = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).join() === Array.from(b).join();
  const source = packet.slice(12, 16);
  if (!r.peers.some(peer => same(peer, source))) return drop(verdict.DROP_TUNNEL_UNKNOWN_PEER);
  if ((packet[6] & 0x3f) !== 0 || packet[7] !== 0) return drop(verdict.DROP_TUNNEL_FRAGMENT);
  let rest = packet.slice((packet[0] & 15) * 4);
  if (r.protocol === 'ipip') {
    if (rest.length < 20) return drop(verdict.DROP_TUNNEL_MALFORMED);
    if (rest[0] >> 4 !== 4) return drop(verdict.DROP_TUNNEL_INNER_TYPE);
    return carryTos(rest, packet[1], r.uniform === true);
  }

  const datagramLen = rest[4] * 256 + rest[5];
  if (datagramLen > rest.length || datagramLen < 16) return drop(verdict.DROP_TUNNEL_MALFORMED);
  rest = rest.slice(0, datagramLen);
  if (rest[6] !== 0 || rest[7] !== 0) {
    const pseudo = Uint8Array.from([...packet.slice(12, 20), 0, 17, ...u16(datagramLen)]);
    if (slowSum(rest, slowSum(pseudo)) !== 0xffff) return drop(verdict.DROP_TUNNEL_CHECKSUM);
  }
  const header = rest.slice(8, 16);
  rest = rest.slice(16);
  let ethernet = true;
  if (r.protocol === 'vxlan') {
    if ((header[0] & 0x08) === 0) return drop(verdict.DROP_VXLAN_FLAGS);
    const reserved = (header[0] & 0xf7) | header[1] | header[2] | header[3] | header[7];
    if (r.dropReserved && reserved !== 0) return drop(verdict.DROP_VXLAN_FLAGS);
  } else {
    if (header[0] >> 6 !== 0) return drop(verdict.DROP_GENEVE_VERSION);
    if (header[1] >> 7 === 1) return drop(verdict.DROP_TUNNEL_CONTROL);
    if (r.dropCriticalBit && ((header[1] >> 6) & 1) === 1) return drop(verdict.DROP_GENEVE_CRITICAL_OPTION);
    const optionsLen = (header[0] & 0x3f) * 4;
    if (optionsLen > rest.length) return drop(verdict.DROP_GENEVE_OPTION_LENGTH);
    let options = rest.slice(0, optionsLen);
    rest = rest.slice(optionsLen);
    while (options.length > 0) {
      const optionLen = 4 + (options[3] & 31) * 4;
      if (optionLen > options.length) return drop(verdict.DROP_GENEVE_OPTION_LENGTH);
      const known = (r.known ?? []).some(key => same(key, options.slice(0, 3)));
      if (options[2] >> 7 === 1 && !known) return drop(verdict.DROP_GENEVE_CRITICAL_OPTION);
      options = options.slice(optionLen);
    }
    const type = header[2] * 256 + header[3];
    if (type === 0x0800 && r.acceptIpPayload) ethernet = false;
    else if (type !== 0x6558) return drop(verdict.DROP_TUNNEL_INNER_TYPE);
  }
  const vni = header[4] * 65536 + header[5] * 256 + header[6];
  if (r.vni < 0 ? vni === 0 : vni !== r.vni) return drop(verdict.DROP_TUNNEL_UNKNOWN_VNI);
  if (ethernet) {
    if (rest.length < 14) return drop(verdict.DROP_TUNNEL_MALFORMED);
    const [to, from] = [rest.slice(0, 6), rest.slice(6, 12)];
    if (rest[12] !== 0x08 || rest[13] !== 0x00) return drop(verdict.DROP_TUNNEL_INNER_TYPE);
    if (same(from, r.localMac)) return drop(verdict.DROP_TUNNEL_OWN_MAC);
    if (r.checkInnerMac && (to[0] & 1) === 0 && !same(to, r.localMac)) return drop(verdict.DROP_TUNNEL_INNER_MAC);
    rest = rest.slice(14);
  }
  if (rest.length < 20) return drop(verdict.DROP_TUNNEL_MALFORMED);
  return { ...carryTos(rest, packet[1], r.uniform === true), vni };
}

// RFC 6040 figure 4, row by row. Columns: outer Not-ECT (0), ECT(1) (1), ECT(0) (2), CE (3).
const FIGURE_4 = [
  [0, 0, 0, 'drop'],
  [1, 1, 1, 3],
  [2, 1, 2, 3],
  [3, 3, 3, 3],
] as const;

function carryTos(inner: Uint8Array, outerTos: number, uniform: boolean): SlowResult {
  const ecn = FIGURE_4[inner[1] & 3][outerTos & 3];
  if (ecn === 'drop') return { verdict: verdict.DROP_TUNNEL_ECN };
  const tos = ((uniform ? outerTos : inner[1]) & 0xfc) | ecn;
  const headerLen = (inner[0] & 15) * 4;
  const headerRight = slowSum(inner.slice(0, headerLen)) === 0xffff;
  const changed = inner.slice();
  if (tos !== inner[1]) {
    changed[1] = tos;
    changed.set([0, 0], 10);
    changed.set(u16(slowChecksum(changed.slice(0, headerLen))), 10);
  }
  return { verdict: verdict.CONTINUE, inner: changed, headerRight };
}

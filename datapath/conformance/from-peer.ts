/** Tunnel packets as the peer sends them, right unless told otherwise. */
import { ethernet, ipip, udp4 } from '../packet/build.ts';
import { type CheckNode, NODE, PEER, PEER_VTEP_MAC, VNI, VTEP_MAC } from './node.ts';

export interface TunnelOptions {
  /** Outer header. */
  src?: string;
  tos?: number;
  ttl?: number;
  id?: number;
  fragment?: number;
  sport?: number;
  /** Absent: none (0). */
  checksum?: 'right';
  /** The VXLAN or GENEVE header: its first and its last word. */
  first?: number;
  last?: number;
  /** GENEVE options. */
  options?: Uint8Array;
  /** The frame inside. */
  type?: number;
  innerSource?: string;
}

const VXLAN_FIRST = 0x08000000;
const GENEVE_FIRST = 0x00006558;

/** A VXLAN packet around the inner IP packet. */
export function vxlanFromPeer(node: CheckNode, inner: Uint8Array, o: TunnelOptions = {}): Uint8Array {
  return udpTunnel(node, inner, o, VXLAN_FIRST);
}

/** A GENEVE packet around the inner IP packet; Opt Len follows from `options`. */
export function geneveFromPeer(node: CheckNode, inner: Uint8Array, o: TunnelOptions = {}): Uint8Array {
  const optionWords = (o.options?.length ?? 0) / 4;
  return udpTunnel(node, inner, o, GENEVE_FIRST | (optionWords << 24));
}

export function ipipFromPeer(inner: Uint8Array, o: TunnelOptions = {}): Uint8Array {
  return ipip(inner, { src: PEER, dst: NODE, ...o });
}

function udpTunnel(node: CheckNode, inner: Uint8Array, o: TunnelOptions, first: number): Uint8Array {
  const options = o.options ?? new Uint8Array(0);
  const frame = ethernet(inner, { src: o.innerSource ?? PEER_VTEP_MAC, dst: VTEP_MAC, type: o.type });
  const payload = new Uint8Array(8 + options.length + frame.length);
  const view = new DataView(payload.buffer);
  view.setUint32(0, (o.first ?? first) >>> 0);
  view.setUint32(4, (o.last ?? VNI << 8) >>> 0);
  payload.set(options, 8);
  payload.set(frame, 8 + options.length);
  return udp4({
    src: o.src ?? PEER,
    dst: NODE,
    tos: o.tos,
    ttl: o.ttl,
    id: o.id,
    fragment: o.fragment,
    sport: o.sport ?? 55555,
    dport: node.tunnelPort,
    payload,
    noChecksum: o.checksum !== 'right',
  });
}

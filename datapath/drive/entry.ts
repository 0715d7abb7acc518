/**
 * Where a packet of a capture enters a node that has no devices, and who answers the node's ARP there. Shared by what runs
 * nodes by packets from files (replay) or by single packets (observe/world.ts).
 */
import type { Datapath } from '../forward.ts';
import type { CapturedPacket } from '../io/capture-file.ts';
import { DIRECTION_OUT } from '../io/pcapng.ts';
import { arpFrame, dotted, ethernet } from '../packet/build.ts';
import { PORT_UPLINK, type Port } from '../port.ts';
import * as arp from '../wire/arp.ts';
import * as wire from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';

/** Of every neighbour that nothing is known of. */
export const NEIGHBOR_MAC = '02:00:00:00:00:fe';

/** There is one uplink: it is called that, whatever its device is. */
export function roleOf({ kind, name }: Pick<Port, 'kind' | 'name'>): string {
  return kind === PORT_UPLINK ? 'uplink' : name;
}

/** The port of that name; `uplink` is the uplink's. */
export function portNamed({ ports }: Datapath, name: string): Port | null {
  return ports.find(port => port.name === name || roleOf(port) === name) ?? null;
}

/**
 * The port that its interface is named after; without such a name the uplink for Ethernet, and for an IP packet the port
 * that its source belongs to. @returns why it enters at none: the node itself had sent it
 */
export function entryOf(
  datapath: Datapath,
  packet: Pick<CapturedPacket, 'interface' | 'direction' | 'layer' | 'bytes'>,
): Port | string {
  const { ports } = datapath;
  const named = packet.interface === '' ? null : portNamed(datapath, packet.interface);
  if (named !== null) return packet.direction === DIRECTION_OUT ? 'sent by the node' : named;
  const uplink = ports.find(port => port.kind === PORT_UPLINK) as Port;
  const { bytes } = packet;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (packet.layer === 2) {
    if (bytes.length < wire.HEADER_LEN) return uplink;
    const { macHi, macLo } = datapath.underlay;
    const isOwn = wire.macHi(view, wire.SRC) === macHi && wire.macLo(view, wire.SRC) === macLo;
    return isOwn ? 'sent by the node' : uplink;
  }
  if (bytes.length < ipv4.HEADER_LEN) return uplink;
  const source = view.getInt32(ipv4.SRC);
  return ports.find(port => port.kind !== PORT_UPLINK && port.owns(source)) ?? uplink;
}

/**
 * The packet with the link header that the port has; null for a frame that a port without one cannot have.
 * @param uplinkMac of the node, which a frame that is made here is for
 */
export function asSeenAt(
  port: Port,
  { bytes, layer }: Pick<CapturedPacket, 'bytes' | 'layer'>,
  uplinkMac: string,
): Uint8Array | null {
  if (layer === port.device.layer) return bytes;
  if (layer === 2) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const isIpv4 = bytes.length >= wire.HEADER_LEN && view.getUint16(wire.TYPE) === wire.TYPE_IPV4;
    return isIpv4 ? bytes.subarray(wire.HEADER_LEN) : null;
  }
  return ethernet(bytes, { src: NEIGHBOR_MAC, dst: uplinkMac });
}

/**
 * What whoever an ARP request is about says to it: that it is there.
 * @param macOf the MAC of an address (int32)
 * @returns null for what is no request; a gratuitous one asks nobody
 */
export function answerOf(
  frame: Uint8Array,
  uplinkMac: string,
  macOf: (address: number) => string = () => NEIGHBOR_MAC,
): Uint8Array | null {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const at = wire.HEADER_LEN;
  if (view.getUint16(wire.TYPE) !== wire.TYPE_ARP || view.getUint16(at + arp.OPER) !== arp.REQUEST) return null;
  const asker = dotted(view.getInt32(at + arp.SPA));
  const target = view.getInt32(at + arp.TPA);
  if (asker === dotted(target)) return null;
  return arpFrame({ oper: arp.REPLY, sha: macOf(target), spa: dotted(target), tha: uplinkMac, tpa: asker });
}

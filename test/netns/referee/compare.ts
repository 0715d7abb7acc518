/** Are two outputs the same packet, apart from what a node is free to choose? */
import { dotted } from '../../fixtures/packets.ts';
import { slowHeaderOk, slowSum, slowTransportOk } from '../../model/checksum.ts';

/** One line for a packet, and its bytes. */
export function describePacket(packet: Uint8Array): string {
  if (packet.length < 28) return Buffer.from(packet).toString('hex');
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const l4 = (packet[0] & 15) * 4;
  const ends = `${dotted(view.getInt32(12))} > ${dotted(view.getInt32(16))}`;
  const at = `id=${view.getUint16(4)} ttl=${packet[8]} frag=${view.getUint16(6).toString(16)} len=${packet.length}`;
  const what =
    packet[9] === 1
      ? `icmp ${packet[l4]}/${packet[l4 + 1]} ${view.getUint16(l4 + 4)} ${view.getUint16(l4 + 6)}`
      : `proto ${packet[9]} ${view.getUint16(l4)} > ${view.getUint16(l4 + 2)}`;
  return `${ends} ${what} ${at}\n      ${Buffer.from(packet.subarray(0, 96)).toString('hex')}`;
}

/** The ports that both nodes chose for one sequence: they may differ, but must correspond one to one. */
export class PortMap {
  private readonly toOurs = new Map<number, number>();
  private readonly toKernel = new Map<number, number>();

  /** Every port that either has chosen. */
  get chosen(): number[] {
    return [...this.toOurs.keys(), ...this.toKernel.keys()];
  }

  /**
   * @param own ports of the packet that was sent: a node that keeps one of them where the other does not has not chosen
   * @returns whether our `ours` may stand where the kernel has `kernel`
   */
  match(kernel: number, ours: number, own: readonly number[]): boolean {
    const known = this.toOurs.get(kernel);
    const knownBack = this.toKernel.get(ours);
    if (known === undefined && knownBack === undefined) {
      if (own.includes(kernel) || own.includes(ours)) return false;
      this.toOurs.set(kernel, ours);
      this.toKernel.set(ours, kernel);
      return true;
    }
    return known === ours && knownBack === kernel;
  }
}

/**
 * @param input the packet that this came of
 * @returns '' or what is different; 'hop count' if it is only that of the packet which an error of the node quotes
 */
export function difference(kernel: Uint8Array, ours: Uint8Array, input: Uint8Array, ports: PortMap): string {
  if (kernel.length !== ours.length) return 'length';
  const a = kernel.slice();
  const b = ours.slice();
  const va = new DataView(a.buffer);
  const vb = new DataView(b.buffer);
  // What has another id than the packet that was sent was made by the node, with an id of its own.
  const made = va.getUint16(4) !== new DataView(input.buffer).getUint16(4);
  if (made) {
    if (!slowHeaderOk(b)) return 'our header checksum';
    for (const view of [va, vb]) {
      view.setUint16(4, 0);
      view.setUint16(10, 0);
    }
  }
  const own = portsOf(input);
  let chosen = false;
  for (const at of portPlaces(b)) {
    const k = va.getUint16(at);
    const o = vb.getUint16(at);
    if (k === o) continue;
    if (!ports.match(k, o, own)) return `port ${o} instead of ${k}`;
    va.setUint16(at, 0);
    vb.setUint16(at, 0);
    chosen = true;
  }
  const quotedTtl = made && isIcmpError(b) ? (b[0] & 15) * 4 + 16 : 0;
  const hops = quotedTtl > 0 && a[quotedTtl] !== b[quotedTtl] && Math.abs(a[quotedTtl] - b[quotedTtl]) === 1;
  if (chosen || hops) {
    if (!slowHeaderOk(ours)) return 'our header checksum';
    if (transportOk(kernel) !== transportOk(ours)) return 'our transport checksum';
    for (const packet of [a, b]) forgetTransportChecksums(packet);
  }
  if (hops) for (const packet of [a, b]) packet.fill(0, quotedTtl, quotedTtl + 4);
  const at = a.findIndex((byte, i) => byte !== b[i]);
  return at >= 0 ? `byte ${at}` : hops ? 'hop count' : '';
}

/** True if the transport checksum is right. */
export function transportOk(packet: Uint8Array): boolean {
  return packet[9] === 1 ? slowSum(packet.slice((packet[0] & 15) * 4)) === 0xffff : slowTransportOk(packet);
}

export function isIcmpError(packet: Uint8Array): boolean {
  const type = packet[(packet[0] & 15) * 4];
  return packet[9] === 1 && [3, 4, 5, 11, 12].includes(type);
}

/** Ports or identifier of a packet, of an error those of the packet that it quotes. */
export function portsOf(packet: Uint8Array): number[] {
  return portPlaces(packet).map(at => new DataView(packet.buffer).getUint16(at));
}

/** Where ports or identifiers stand, in an error those of the packet that it quotes. */
function portPlaces(packet: Uint8Array, base = 0): number[] {
  const view = new DataView(packet.buffer);
  const l4 = base + (packet[base] & 15) * 4;
  if (base === 0 && isIcmpError(packet)) return packet.length >= l4 + 36 ? portPlaces(packet, l4 + 8) : [];
  if ((view.getUint16(base + 6) & 0x1fff) !== 0) return [];
  const protocol = packet[base + 9];
  if (protocol === 1) return packet.length >= l4 + 6 ? [l4 + 4] : [];
  return (protocol === 6 || protocol === 17) && packet.length >= l4 + 4 ? [l4, l4 + 2] : [];
}

function forgetTransportChecksums(packet: Uint8Array, base = 0): void {
  const l4 = base + (packet[base] & 15) * 4;
  const at = { 1: 2, 6: 16, 17: 6 }[packet[base + 9]];
  if (at !== undefined && l4 + at + 2 <= packet.length) packet.fill(0, l4 + at, l4 + at + 2);
  if (base === 0 && isIcmpError(packet)) forgetTransportChecksums(packet, l4 + 8);
}

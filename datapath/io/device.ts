/**
 * What a port reads from and writes to. Implemented by TUN and TAP (tuntap.ts), memory (memory.ts) and pcap files
 * (pcap.ts); the datapath never knows which.
 *
 * Layer: a TUN carries IP packets, a TAP Ethernet frames. `Packet.off` is the first byte of whichever it is.
 * Checksums and superpackets: the virtio-net fields of Packet (flags, gso, csum) are part of every read and write, also
 * where the medium has no such header; `offloads` says what the device takes on write and may give on read.
 */
import { clone } from '../packet/copy.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import type { Mac } from '../wire/ethernet.ts';
import { PROTO_IPIP, PROTO_UDP } from '../wire/ipv4.ts';
import * as virtio from '../wire/virtio-net.ts';
import { ENOBUFS } from './errors.ts';

/** The device completes and verifies checksums (NEEDS_CSUM may be set on write, NEEDS_CSUM or DATA_VALID on read). */
export const OFFLOAD_CSUM = 1;
/** TCPv4 superpackets. */
export const OFFLOAD_TSO = 2;
/** TCPv4 superpackets with CWR (TSO_ECN). */
export const OFFLOAD_TSO_ECN = 4;
/** UDP datagram trains (USO). */
export const OFFLOAD_USO = 8;
/** Superpackets inside VXLAN or GENEVE. */
export const OFFLOAD_TUNNEL = 16;
/** The same with an outer UDP checksum. */
export const OFFLOAD_TUNNEL_CSUM = 32;

/** Superpackets inside IPIP: virtio-net has none, a segment in the process has. */
export const OFFLOAD_IPIP = 64;

/** By the names that configuration and status use; each builds on those before it. */
export const OFFLOADS = [
  { name: 'csum', bits: OFFLOAD_CSUM },
  { name: 'tso', bits: OFFLOAD_TSO | OFFLOAD_TSO_ECN },
  { name: 'uso', bits: OFFLOAD_USO },
  { name: 'tunnel', bits: OFFLOAD_TUNNEL | OFFLOAD_TUNNEL_CSUM },
] as const;
export type Offload = (typeof OFFLOADS)[number]['name'];

export interface Device {
  readonly name: string;
  /** 2: frames begin with an Ethernet header; 3: with an IP header. */
  readonly layer: 2 | 3;
  /** Longest IP packet, in bytes, that the medium carries in one piece. */
  readonly mtu: number;
  /** OFFLOAD_* bits in use. */
  readonly offloads: number;
  /** File descriptor to wait on, or -1: then `pending` tells whether there is something to read. */
  readonly fd: number;
  /** With a link layer and one station at the other side: its MAC, as far as it was known when the device was opened. */
  readonly peerMac?: Mac | undefined;
  /** Packets that wait to be read; only where there is no descriptor. */
  readonly pending?: number;

  /**
   * Reads up to `max` packets into `slots[0..max)`, each empty and at the headroom of its owner's choice (reset()).
   * Sets off, len and the virtio-net fields. Never blocks. A device whose packets lie in the slab already (segment/) puts
   * them into the array, and gives those that stood there back to the pool.
   * @returns how many slots were filled, from the front; 0 when nothing waits; a negative errno when the device is gone.
   */
  readBurst(slots: Packet[], max: number): number;

  /**
   * Writes one packet; the slot stays the caller's. Never blocks.
   * @returns 0, or a positive errno: EAGAIN (queue full), EIO (interface down), EINVAL (refused)...
   */
  write(p: Packet): number;

  /**
   * Writes `n` packets in order, as write() would one after the other. A device whose calls are dear takes them together.
   * @param errors what write() would have returned for each
   */
  writeBurst?(packets: Packet[], n: number, errors: Int32Array): void;

  /**
   * Instead of write(), where the device shares the pool: takes the packet itself, and gives it back to the pool when it is
   * done with. What is not taken (an errno is returned) stays the caller's.
   */
  handOver?(p: Packet): number;

  /**
   * Does its interface take packets now? Only where that can be asked of the descriptor; the control plane hears of it some
   * time later. One system call.
   */
  isUp?(): boolean;

  close(): void;
}

/**
 * write() of a device that takes packets themselves: it gets a copy.
 * @returns as handOver(), or ENOBUFS without a free slot
 */
export function writeCopy(device: Required<Pick<Device, 'handOver'>>, pool: Pool, p: Packet): number {
  const copy = clone(pool, p);
  if (copy === null) return ENOBUFS;
  const error = device.handOver(copy);
  if (error !== 0) pool.release(copy);
  return error;
}

/**
 * Does a device with these offloads take the packet as it is, partial checksum and superpacket included?
 * @param protocol of the outermost IP header: of a superpacket in a tunnel it says in which
 */
export function takesWhole(offloads: number, p: Packet, protocol: number): boolean {
  if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) === 0 && p.gsoType === 0) return true;
  if ((offloads & OFFLOAD_CSUM) === 0) return false;
  if (p.gsoType === 0) return true;
  if ((p.gsoType & virtio.GSO_UDP_TUNNEL_IPV4) !== 0) {
    return takesTunnel(offloads, protocol, (p.vnetFlags & virtio.FLAG_UDP_TUNNEL_CSUM) !== 0);
  }
  return (offloads & ((p.gsoType & 7) === virtio.GSO_UDP_L4 ? OFFLOAD_USO : OFFLOAD_TSO)) !== 0;
}

/** Does it take superpackets in a tunnel of this IP protocol? @param isChecked with an outer UDP checksum */
export function takesTunnel(offloads: number, protocol: number, isChecked: boolean): boolean {
  if (protocol === PROTO_IPIP) return (offloads & OFFLOAD_IPIP) !== 0;
  const needed = isChecked ? OFFLOAD_TUNNEL | OFFLOAD_TUNNEL_CSUM : OFFLOAD_TUNNEL;
  return protocol === PROTO_UDP && (offloads & needed) === needed;
}

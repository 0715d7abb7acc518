/**
 * What a port reads from and writes to. Implemented by TUN and TAP (tuntap.ts), memory (memory.ts) and pcap files
 * (pcap.ts); the datapath never knows which.
 *
 * Layer: a TUN carries IP packets, a TAP Ethernet frames. `Packet.off` is the first byte of whichever it is.
 * Checksums and superpackets: the virtio-net fields of Packet (flags, gso, csum) are part of every read and write, also
 * where the medium has no such header; `offloads` says what the device takes on write and may give on read.
 */
import type { Packet } from '../packet/packet.ts';

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
  /** File descriptor to wait on, or -1: then the device is driven by hand. */
  readonly fd: number;

  /**
   * Reads up to `max` packets into `slots[0..max)`, each empty and at the headroom of its owner's choice (reset()).
   * Sets off, len and the virtio-net fields. Never blocks.
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

  close(): void;
}

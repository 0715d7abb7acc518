/** What the encapsulations (ipip.ts, udp-encap.ts, vxlan.ts, geneve.ts) know of the tunnel that they work for. */
import type { Packet } from '../packet/packet.ts';

export interface TunnelHeaders {
  readonly protocol: number;
  /** Bytes in front of the inner IP header, without the outer Ethernet header: overheadOf the specification. */
  readonly overhead: number;
  readonly port: number;

  readonly view: DataView;
  readonly localAddress: number;
  readonly localMacHi: number;
  readonly localMacLo: number;
  /** The VNI is the sender's identity; else it is the one in `vniWord`, as it lies in the header's second word. */
  readonly vniIsIdentity: boolean;
  readonly vniWord: number;
  /** Outer TOS by inner TOS. */
  readonly tos: Uint8Array;
  /** Outer TTL; 0: the inner one. */
  readonly ttl: number;
  /** The outer flags are `(inner & dfMask) | dfSet`. */
  readonly dfMask: number;
  readonly dfSet: number;
  readonly udpChecksum: boolean;
  readonly portFrom: number;
  readonly portRange: number;
  readonly portSeed: number;
  /** First word of the VXLAN or GENEVE header. */
  readonly headerWord: number;
  /** GENEVE options that every packet carries, and class and type of those that we know. */
  readonly optionWords: Int32Array;
  readonly knownOptions: Int32Array;
  /** An ICMP error about a packet of ours is believed although its quote ends before the VNI. */
  readonly believeShortQuotes: boolean;
  readonly dropReserved: boolean;
  readonly dropCriticalBit: boolean;
  readonly acceptIpPayload: boolean;
  readonly checkInnerMac: boolean;
  /** TEMPLATE_WORDS for each peer. */
  readonly templates: Int32Array;

  /** Tunnel.open and Tunnel.takeIds. */
  open(p: Packet, inner: number, end: number): number;
  takeIds(n: number): number;
}

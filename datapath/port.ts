/** A port: a device with what the datapath knows about who is behind it, and the packets waiting to be written to it. */
import {
  type Counters,
  EVENT_COALESCED,
  PORT_TX_BYTES,
  PORT_TX_DROPPED,
  PORT_TX_PACKETS,
  PORT_WRITES,
} from './counters.ts';
import { type Device, OFFLOAD_TSO, OFFLOAD_TSO_ECN, OFFLOAD_USO, takesTunnel, takesWhole } from './io/device.ts';
import * as libcErrors from './io/errors.ts';
import { Coalescer } from './packet/coalesce.ts';
import type { Packet } from './packet/packet.ts';
import type { Pool } from './packet/pool.ts';
import { segmentsOf, wireBytes } from './packet/segment.ts';
import { TUNNEL_IPIP, type Tunnel } from './tunnel/tunnel.ts';
import { MAX_UDP_OVERHEAD } from './tunnel/udp-encap.ts';
import * as verdict from './verdict.ts';
import type { Mac } from './wire/ethernet.ts';
import * as ipv4 from './wire/ipv4.ts';
import * as vnet from './wire/virtio-net.ts';

export const PORT_POD = 1;
export const PORT_HOST = 2;
export const PORT_UPLINK = 3;

export const PORT_KINDS: readonly string[] = ['', 'pod', 'host', 'uplink'];

// Cilium's reserved identities (pkg/identity): they travel as the VNI where that is the sender's identity, never as 0.
/** What comes from outside by no tunnel. */
export const IDENTITY_WORLD = 2;
/** Another node, as its peers see it: its processes and what it sends itself. */
export const IDENTITY_REMOTE_NODE = 6;

/** Packets that may wait for one flush; more than a burst can produce, fragments included, is written out early. */
const TX_LIMIT = 128;

/**
 * Average length from which on a burst is left as it is: it consists of superpackets already, and copying those together
 * costs more (13 us for 64 KiB) than the crossings it saves (1 us each).
 */
const COALESCE_BELOW = 4096;

/** Who is behind a port. */
export interface PortOwner {
  /** int32 */
  addresses: readonly number[];
  /** Behind a pod that is a router: it may send from them, too. */
  networks?: readonly { address: number; length: number }[];
  /** Security identity; 0 for none. */
  identity: number;
  /** Of every packet that comes in by it (32 bits); none without it. */
  mark?: number;
}

/** Who looks at what leaves by a port. */
export interface PortWatcher {
  sent(p: Packet, port: Port): void;
  dropped(p: Packet, reason: number): void;
}

/** Calico's, for the host's end of every pod's veth. */
export const POD_GATEWAY_MAC: Mac = { hi: 0xeeee, lo: 0xeeeeeeee | 0 };

/** The Ethernet between a port and its pod. MACs as in wire/ethernet.ts. */
export interface PodLink {
  /** The port's own. */
  readonly macHi: number;
  readonly macLo: number;
  /** The pod's, as it last said. */
  peerHi: number;
  peerLo: number;
}

/** What a port's device does with packets. */
export const CONDITION_UP = 0;
/** Its own interface is down. */
export const CONDITION_DOWN = 1;
export const CONDITION_GONE = 2;
/** It is up, but what it stands on carries nothing: a NIC under a macvtap. */
export const CONDITION_CUT_OFF = 3;

/** IPv4 has no longer packets. */
const UNLIMITED_MTU = 65535;

export class Port {
  readonly index: number;
  readonly kind: number;
  readonly name: string;
  readonly device: Device;
  /** Addresses that its user has (int32): a pod may send from no other. */
  addresses = new Int32Array(0);
  /** (masked address, mask) pairs of the networks behind it. */
  private networks = new Int32Array(0);
  /** Security identity of what is behind it; 0 for none. */
  identity = 0;
  /** What rules may ask for, of every packet from it (int32). */
  mark = 0;
  /** Null where the device carries IP packets, and for the uplink, whose neighbours are many. */
  readonly link: PodLink | null;
  /** CONDITION_*, as the control plane says; that it is up again, a device knows first (isUp()). */
  condition = CONDITION_UP;
  /** Of a device whose MTU somebody else sets, a pod's veth. Others have that of the routes to them. */
  mtu = UNLIMITED_MTU;
  /**
   * Merges small segments on the way in from a pod, so that the whole path is walked once for all of them, and on the way
   * out to a pod, where its kernel then handles one packet instead of 45. Null where the device takes no superpackets.
   */
  private readonly coalescer: Coalescer | null;
  watcher: PortWatcher | null = null;
  private readonly tx: Packet[] = [];
  private readonly errors = new Int32Array(TX_LIMIT);
  private txCount = 0;
  private readonly pool: Pool;
  private readonly counters: Counters;

  constructor(
    options: PortOwner & {
      /** Of the port itself, where it has a link layer; default: POD_GATEWAY_MAC. */
      mac?: Mac | undefined;
      index: number;
      kind: number;
      name: string;
      device: Device;
      pool: Pool;
      counters: Counters;
    },
  ) {
    this.index = options.index;
    this.kind = options.kind;
    this.name = options.name;
    this.device = options.device;
    this.link = makeLink(options.kind, options.device, options.mac);
    this.setOwner(options);
    this.pool = options.pool;
    this.counters = options.counters;
    this.coalescer = makeCoalescer(options.kind, options.device, options.pool);
  }

  /** Says who is behind the port. */
  setOwner({ addresses, networks = [], identity, mark = 0 }: PortOwner): void {
    this.addresses = Int32Array.from(addresses);
    this.networks = Int32Array.from(
      networks.flatMap(({ address, length }) => {
        const mask = length === 0 ? 0 : -1 << (32 - length);
        return [address & mask, mask];
      }),
    );
    this.identity = identity;
    this.mark = mark | 0;
  }

  /** Merges what can be merged of a burst that was read from this port. @returns packets left, at the front */
  coalesceInput(burst: Packet[], n: number): number {
    return this.coalescer === null || n < 2 ? n : this.coalesce(burst, n, this.coalescer);
  }

  private coalesce(burst: Packet[], n: number, coalescer: Coalescer): number {
    let bytes = 0;
    for (let i = 0; i < n; i++) bytes += burst[i].len;
    if (bytes > n * COALESCE_BELOW) return n;
    const kept = coalescer.coalesce(burst, n);
    if (kept < n) this.counters.event(EVENT_COALESCED, n - kept);
    return kept;
  }

  /** Is `address` one that the user of this port has, or that is behind it? */
  owns(address: number): boolean {
    const { addresses, networks } = this;
    for (let i = 0; i < addresses.length; i++) if (addresses[i] === address) return true;
    for (let i = 0; i < networks.length; i += 2) if ((address & networks[i + 1]) === networks[i]) return true;
    return false;
  }

  /** Does it lead anywhere? Of a device that was down this asks the device, so that the first packet after it gets through. */
  isUp(): boolean {
    if (this.condition === CONDITION_DOWN && this.device.isUp?.()) this.condition = CONDITION_UP;
    return this.condition === CONDITION_UP;
  }

  /** Does the device take the packet as it is, partial checksum and superpacket included? */
  takes(p: Packet): boolean {
    return takesWhole(this.device.offloads, p, p.protocol);
  }

  /** The same for a packet that will be encapsulated before it gets there. */
  takesInside(tunnel: Tunnel, p: Packet): boolean {
    if ((p.vnetFlags & vnet.FLAG_NEEDS_CSUM) === 0 && p.gsoType === 0) return true;
    if (!this.takes(p)) return false;
    if (p.gsoType === 0) return true;
    // There is no tunnel superpacket in another tunnel.
    if ((p.gsoType & vnet.GSO_UDP_TUNNEL_IPV4) !== 0) return false;
    // A datagram train may fill 65535 bytes by itself.
    if (p.len + tunnel.overhead > ipv4.MAX_TOTAL_LEN) return false;
    const protocol = tunnel.protocol === TUNNEL_IPIP ? ipv4.PROTO_IPIP : ipv4.PROTO_UDP;
    return takesTunnel(this.device.offloads, protocol, tunnel.udpChecksum);
  }

  /** Queues a packet that is complete for this device; it is written at the next flush. Takes ownership. */
  queue(p: Packet): void {
    if (this.watcher !== null) this.watcher.sent(p, this);
    this.tx[this.txCount++] = p;
    if (this.txCount >= TX_LIMIT) this.flush();
  }

  /** Writes what waits, in order, and gives the slots back. */
  flush(): void {
    const { tx, errors, pool, counters, device, coalescer } = this;
    if (this.txCount === 0) return;
    const n = coalescer === null || this.txCount < 2 ? this.txCount : this.coalesce(tx, this.txCount, coalescer);
    let packets = 0;
    let bytes = 0;
    if (device.handOver !== undefined) {
      this.handOver(n);
      return;
    }
    if (device.writeBurst !== undefined) device.writeBurst(tx, n, errors);
    else for (let i = 0; i < n; i++) errors[i] = device.write(tx[i]);
    for (let i = 0; i < n; i++) {
      const p = tx[i];
      const error = errors[i];
      if (error === 0) {
        packets += segmentsOf(pool.view, p);
        bytes += wireBytes(pool.view, p);
      } else {
        counters.port(this.index, PORT_TX_DROPPED, segmentsOf(pool.view, p));
        counters.drop(dropReason(error), p.len);
        if (this.watcher !== null) this.watcher.dropped(p, dropReason(error));
      }
      pool.release(p);
    }
    counters.port(this.index, PORT_TX_PACKETS, packets);
    counters.port(this.index, PORT_TX_BYTES, bytes);
    counters.port(this.index, PORT_WRITES, n);
    this.txCount = 0;
  }

  /** The same for a device that takes the packets themselves: by then what they are has to be counted. */
  private handOver(n: number): void {
    const { tx, pool, counters, device } = this;
    let packets = 0;
    let bytes = 0;
    for (let i = 0; i < n; i++) {
      const p = tx[i];
      const segments = segmentsOf(pool.view, p);
      const onWire = wireBytes(pool.view, p);
      const error = device.handOver!(p);
      if (error === 0) {
        packets += segments;
        bytes += onWire;
        continue;
      }
      counters.port(this.index, PORT_TX_DROPPED, segments);
      counters.drop(dropReason(error), p.len);
      if (this.watcher !== null) this.watcher.dropped(p, dropReason(error));
      pool.release(p);
    }
    counters.port(this.index, PORT_TX_PACKETS, packets);
    counters.port(this.index, PORT_TX_BYTES, bytes);
    counters.port(this.index, PORT_WRITES, n);
    this.txCount = 0;
  }
}

function makeLink(kind: number, { layer, peerMac }: Device, mac = POD_GATEWAY_MAC): PodLink | null {
  if (kind !== PORT_POD || layer !== 2) return null;
  // Until it has said a word, a pod whose MAC nobody knows takes what is sent to everybody.
  const { hi, lo } = peerMac ?? { hi: 0xffff, lo: -1 };
  return { macHi: mac.hi, macLo: mac.lo | 0, peerHi: hi, peerLo: lo | 0 };
}

function makeCoalescer(kind: number, device: Device, pool: Pool): Coalescer | null {
  // On the uplink packets wear tunnel headers; their inner flows are merged before or after.
  if (kind === PORT_UPLINK || (device.offloads & (OFFLOAD_TSO | OFFLOAD_USO)) === 0) return null;
  return new Coalescer(pool, {
    layer: device.layer,
    tcp: (device.offloads & OFFLOAD_TSO) !== 0,
    ecn: (device.offloads & OFFLOAD_TSO_ECN) !== 0,
    udp: (device.offloads & OFFLOAD_USO) !== 0,
    maxLen: ipv4.MAX_TOTAL_LEN - MAX_UDP_OVERHEAD,
  });
}

function dropReason(error: number): number {
  switch (error) {
    case libcErrors.EAGAIN:
    case libcErrors.ENOBUFS:
      return verdict.DROP_DEVICE_QUEUE_FULL;
    case libcErrors.EXFULL:
      return verdict.DROP_WIRE_RING_FULL;
    case libcErrors.EIO:
    case libcErrors.EBADFD:
      return verdict.DROP_DEVICE_DOWN;
    default:
      return verdict.DROP_DEVICE_REFUSED;
  }
}

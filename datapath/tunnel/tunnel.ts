/**
 * One tunnel of the node: its peers, its header templates, and the way in and out.
 *
 *   IPIP      outer IPv4 | inner IPv4 ...                                                  20 bytes
 *   VXLAN     outer IPv4 | UDP | VXLAN  | inner Ethernet | inner IPv4 ...                  50 bytes
 *   GENEVE    outer IPv4 | UDP | GENEVE | (options) | inner Ethernet | inner IPv4 ...      50 bytes and the options
 *
 * The inner packet never moves: its headers are written into, or skipped out of, the headroom in front of it. What is the
 * same for all packets to a peer is prebuilt; what the system profile decides (profile.ts) is compiled into a few numbers
 * and two small tables when the tunnel is made.
 *
 * The outer Ethernet header is not the tunnel's business, and neither is the MTU.
 */

import type { Counters } from '../counters.ts';
import { EVENT_ECN_ODD } from '../counters.ts';
import type { Packet } from '../packet/packet.ts';
import type { OuterHeader, Profile } from '../profile.ts';
import type { Random } from '../random.ts';
import {
  CONTINUE,
  DROP_MALFORMED_VNET_HEADER,
  DROP_TUNNEL_COALESCED,
  DROP_TUNNEL_ECN,
  DROP_TUNNEL_FRAGMENT,
  DROP_TUNNEL_MALFORMED,
  DROP_TUNNEL_UNKNOWN_PEER,
} from '../verdict.ts';
import { update16 } from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';
import * as vxlan from '../wire/vxlan.ts';
import { ECN_DROP, ECN_ODD, innerEcnTable, outerTosTable } from './ecn.ts';
import { geneveWord, optionKeys, optionWords } from './geneve.ts';
import type { TunnelHeaders } from './headers.ts';
import { decapIpip, encapIpip, templateIpip } from './ipip.ts';
import { overheadOf } from './overhead.ts';
import type { TunnelPeer, TunnelSpec } from './spec.ts';
import { TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN } from './spec.ts';
import { decapUdp, encapUdp, templateUdp } from './udp-encap.ts';

export type { TunnelPeer, TunnelSpec } from './spec.ts';
export { TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN } from './spec.ts';

/** The six bits of the TOS byte that are no ECN. */
const DSCP_MASK = 0xfc;

/** Words of a peer's template: half a cache line. The encapsulations give them their meaning. */
export const TEMPLATE_WORDS = 8;

export class Tunnel implements TunnelHeaders {
  readonly protocol: number;
  /** Bytes in front of the inner IP header, without the outer Ethernet header: overheadOf the specification. */
  readonly overhead: number;
  readonly port: number;

  // For the encapsulations only: headers.ts says what each is.
  readonly view: DataView;
  readonly localAddress: number;
  readonly localMacHi: number;
  readonly localMacLo: number;
  readonly vniIsIdentity: boolean;
  readonly vniWord: number;
  readonly tos: Uint8Array;
  readonly ttl: number;
  readonly dfMask: number;
  readonly dfSet: number;
  readonly udpChecksum: boolean;
  readonly portFrom: number;
  readonly portRange: number;
  readonly portSeed: number;
  readonly headerWord: number;
  readonly optionWords: Int32Array;
  readonly knownOptions: Int32Array;
  readonly believeShortQuotes: boolean;
  readonly dropReserved: boolean;
  readonly dropCriticalBit: boolean;
  readonly acceptIpPayload: boolean;
  readonly checkInnerMac: boolean;
  templates = new Int32Array(0);
  /** No other tunnel of the node has its protocol and port: the VNI need not tell them apart (tunnels.ts). */
  isAlone = true;

  private readonly counters: Counters;
  private readonly acceptAny: boolean;
  private readonly innerEcn: Uint8Array;
  /** Bits of the outer TOS that the inner one gets at the exit: its DSCP in the uniform model. */
  private readonly dscpReturns: number;
  private outerId: number;

  /** Addresses of the peers by number; null: nobody has it. */
  private peers: (number | null)[] = [];
  /** Peer number by address: open addressing, at most half full. A slot without a peer holds -1. */
  private slotPeers = new Int32Array(0);
  private slotAddresses = new Int32Array(0);
  private slotMask = 0;

  /**
   * @param view the slab that all packets lie in
   * @param random start of the outer IP ids and seed of the source ports
   * @param before the tunnel that this one takes the place of: both go on with its, so that no flow changes its port
   * @throws RangeError for an unknown protocol
   */
  constructor(
    spec: TunnelSpec,
    profile: Profile,
    view: DataView,
    counters: Counters,
    random: Random,
    before: Tunnel | null = null,
  ) {
    const outer = { ...outerHeader(spec.protocol, profile), ...spec.outer };
    this.protocol = spec.protocol;
    const options = spec.options ?? [];
    this.overhead = overheadOf(spec);
    this.port = spec.port;
    this.view = view;
    this.localAddress = spec.localAddress | 0;
    this.localMacHi = spec.localMacHi;
    this.localMacLo = spec.localMacLo | 0;
    this.vniIsIdentity = spec.vni < 0;
    this.vniWord = spec.vni < 0 ? 0 : spec.vni << 8;
    this.tos = outerTosTable(outer.dscp, spec.ecnEncap ?? profile.ecnEncap);
    this.ttl = outer.ttl === 'inherit' ? 0 : outer.ttl;
    this.dfMask = outer.df === 'inherit' ? ipv4.FLAG_DF : 0;
    this.dfSet = outer.df === 1 ? ipv4.FLAG_DF : 0;
    this.udpChecksum = outer.udpChecksum;
    this.portFrom = outer.sourcePorts[0];
    this.portRange = outer.sourcePorts[1] - outer.sourcePorts[0];
    this.portSeed = before === null ? random.next() : before.portSeed;
    this.headerWord = spec.protocol === TUNNEL_GENEVE ? geneveWord(options) : vxlan.FLAG_VNI;
    this.optionWords = optionWords(options);
    this.knownOptions = optionKeys(options);
    this.believeShortQuotes = profile.shortTunnelQuotes === 'believe';
    this.dropReserved = profile.vxlanReserved === 'drop';
    this.dropCriticalBit = profile.geneveCriticalBit === 'drop';
    this.acceptIpPayload = profile.genevePayload === 'ethernet-or-ipv4';
    this.checkInnerMac = profile.innerDestinationMac === 'own-or-group';
    this.counters = counters;
    this.acceptAny = spec.acceptAny;
    this.innerEcn = innerEcnTable(spec.ecnDecap ?? profile.ecnDecap);
    this.dscpReturns = outer.dscp === 'uniform' ? DSCP_MASK : 0;
    this.outerId = before === null ? random.next() & 0xffff : before.outerId;

    this.setPeers(spec.peers);
  }

  /** Changes the peers. One that stays keeps its number; that of one that goes is another's at once. */
  setPeers(peers: readonly TunnelPeer[]): void {
    const wanted = new Map<number, TunnelPeer>();
    // The first of two with one address stays.
    for (const peer of peers) if (!wanted.has(peer.address | 0)) wanted.set(peer.address | 0, peer);
    const numbers: (number | null)[] = this.peers.map(address =>
      address !== null && wanted.has(address) ? address : null,
    );
    const kept = new Set(numbers);
    let free = 0;
    for (const address of wanted.keys()) {
      if (kept.has(address)) continue;
      while (free < numbers.length && numbers[free] !== null) free++;
      numbers[free] = address;
    }
    const templates = new Int32Array(numbers.length * TEMPLATE_WORDS);
    const slots = slotCount(wanted.size);
    this.peers = numbers;
    this.slotMask = slots - 1;
    this.slotPeers = new Int32Array(slots).fill(-1);
    this.slotAddresses = new Int32Array(slots);
    for (let i = 0; i < numbers.length; i++) {
      const address = numbers[i];
      if (address === null) continue;
      const words = templates.subarray(i * TEMPLATE_WORDS, (i + 1) * TEMPLATE_WORDS);
      if (this.protocol === TUNNEL_IPIP) templateIpip(this, wanted.get(address)!, words);
      else templateUdp(this, wanted.get(address)!, words);
      this.addPeer(address, i);
    }
    this.templates = templates;
  }

  /** The peer with this underlay address, or -1. About 2 ns. */
  findPeer(address: number): number {
    let slot = hashAddress(address) & this.slotMask;
    while (true) {
      const peer = this.slotPeers[slot];
      if (peer < 0 || this.slotAddresses[slot] === address) return peer;
      slot = (slot + 1) & this.slotMask;
    }
  }

  /** True if the parsed packet, addressed to us, is one of this tunnel's. A later fragment of a UDP one shows no port. */
  matches(p: Packet): boolean {
    if (this.protocol === TUNNEL_IPIP) return p.protocol === ipv4.PROTO_IPIP;
    return p.protocol === ipv4.PROTO_UDP && p.dstPort === this.port;
  }

  /** Has a packet that matches() the VNI of this tunnel? */
  hasVni(p: Packet): boolean {
    if (this.vniIsIdentity) return true;
    const header = p.l4 + udp.HEADER_LEN;
    return header + vxlan.HEADER_LEN <= p.off + p.len && vxlan.vni(this.view, header) === this.vniWord >>> 8;
  }

  /** Have both the same protocol and port? */
  isBeside(other: Tunnel): boolean {
    return this.protocol === other.protocol && this.port === other.port;
  }

  /** Could this fragment, addressed to us, be a piece of one of the tunnel's packets? Only the first shows a port. */
  mayCarry(p: Packet): boolean {
    const protocol = this.protocol === TUNNEL_IPIP ? ipv4.PROTO_IPIP : ipv4.PROTO_UDP;
    return p.protocol === protocol && (this.acceptAny || this.findPeer(p.src) >= 0);
  }

  /**
   * Puts the tunnel headers in front of the parsed inner packet at `p.off`. Afterwards `p.off` is at the outer header,
   * which is complete, and the parsed fields (src, dst, l4...) are still those of the inner packet: if the next hop never
   * answers, it is the inner sender who must hear of it.
   *
   * A superpacket stays one and asks for tunnel segmentation in the virtio-net fields, in IPIP as well: no device of the
   * kernel's takes those, a segment in the process does. A partial checksum stays partial.
   *
   * The caller knows that `p.len + overhead` is at most 65535 and that `p` is not already a tunnel superpacket.
   *
   * @param peer from findPeer, not -1
   */
  encap(p: Packet, peer: number): void {
    if (this.protocol === TUNNEL_IPIP) encapIpip(this, p, peer * TEMPLATE_WORDS);
    else encapUdp(this, p, peer * TEMPLATE_WORDS);
  }

  /**
   * Takes the tunnel headers off the parsed packet at `p.off` that `matches`. Then `p.off` and `p.len` are the inner IPv4
   * packet, with its ECN as it shall go on but otherwise not validated; the parsed fields still describe the outer header.
   * `p.tunnelSource` is the outer source, and `p.identity` the VNI where VNIs are identities.
   *
   * A tunnel superpacket becomes a plain one.
   *
   * @returns CONTINUE or a DROP_*; a packet that is dropped has not been changed
   */
  decap(p: Packet): number {
    if (!this.acceptAny && this.findPeer(p.src) < 0) return DROP_TUNNEL_UNKNOWN_PEER;
    if (ipv4.isFragment(p.fragment)) return DROP_TUNNEL_FRAGMENT;
    // A train of tunnel datagrams (UDP GRO on the way): each has its own tunnel header, so it must be cut first.
    if (p.gsoType !== virtio.GSO_NONE && (p.gsoType & virtio.GSO_UDP_TUNNEL_IPV4) === 0) return DROP_TUNNEL_COALESCED;
    return this.protocol === TUNNEL_IPIP ? decapIpip(this, p) : decapUdp(this, p);
  }

  /**
   * The common end of decapsulation: checks and carries over ECN, makes a plain packet of a tunnel superpacket, and moves
   * the window of `p` to the inner packet.
   * @param inner first byte of the inner IPv4 header, absolute
   * @param end the byte behind the inner packet
   */
  open(p: Packet, inner: number, end: number): number {
    if (end - inner < ipv4.HEADER_LEN) return DROP_TUNNEL_MALFORMED;
    const tunnelGso = p.gsoType & virtio.GSO_UDP_TUNNEL_IPV4;
    if (tunnelGso !== 0 && p.innerNetwork !== inner) return DROP_MALFORMED_VNET_HEADER;
    const verdict = this.carryTos(p.off, inner);
    if (verdict !== CONTINUE) return verdict;

    if (p.vnetFlags !== 0) p.vnetFlags = innerVnetFlags(p);
    if (tunnelGso !== 0) {
      p.gsoType &= ~virtio.GSO_UDP_TUNNEL_IPV4;
      p.outerTransport = 0;
      p.innerNetwork = 0;
    }
    p.off = inner;
    p.len = end - inner;
    p.tunnelSource = p.src;
    return CONTINUE;
  }

  /** Takes `n` outer IP ids and returns the first: fresh ones, since without DF anyone may fragment (RFC 6864 section 4.3). */
  takeIds(n: number): number {
    const id = this.outerId;
    this.outerId = (id + n) & 0xffff;
    return id;
  }

  /** Sets the inner ECN, and in the uniform model the DSCP, to what the outer ones make of it, the header checksum updated. */
  private carryTos(outer: number, inner: number): number {
    const { view, dscpReturns } = this;
    const word = view.getUint16(inner + ipv4.VERSION_IHL);
    const outerTos = view.getUint8(outer + ipv4.TOS);
    let ecn = this.innerEcn[((word & ipv4.ECN_MASK) << 2) | (outerTos & ipv4.ECN_MASK)];
    if (ecn === ECN_DROP) return DROP_TUNNEL_ECN;
    if ((ecn & ECN_ODD) !== 0) {
      this.counters.event(EVENT_ECN_ODD);
      ecn &= ipv4.ECN_MASK;
    }
    const result = (word & ~ipv4.ECN_MASK & ~dscpReturns) | (outerTos & dscpReturns) | ecn;
    if (result === word) return CONTINUE;
    const checksum = inner + ipv4.CHECKSUM;
    view.setUint8(inner + ipv4.TOS, result & 0xff);
    view.setUint16(checksum, update16(view.getUint16(checksum), word, result));
    return CONTINUE;
  }

  private addPeer(address: number, peer: number): void {
    let slot = hashAddress(address) & this.slotMask;
    while (this.slotPeers[slot] >= 0) slot = (slot + 1) & this.slotMask;
    this.slotPeers[slot] = peer;
    this.slotAddresses[slot] = address;
  }
}

/**
 * What the virtio-net flags say of the inner packet. A device that vouches for the outer checksum says nothing of the inner
 * one, unless UDP_TUNNEL_CSUM says it looked at both; a checksum that was to be completed in the outer UDP header is gone
 * with it.
 */
function innerVnetFlags(p: Packet): number {
  const both = virtio.FLAG_DATA_VALID | virtio.FLAG_UDP_TUNNEL_CSUM;
  const valid = (p.vnetFlags & both) === both ? virtio.FLAG_DATA_VALID : 0;
  const needed = (p.vnetFlags & virtio.FLAG_NEEDS_CSUM) !== 0 && p.csumStart !== p.l4 ? virtio.FLAG_NEEDS_CSUM : 0;
  return valid | needed;
}

function outerHeader(protocol: number, profile: Profile): OuterHeader {
  if (protocol === TUNNEL_IPIP) return profile.ipip;
  if (protocol === TUNNEL_VXLAN) return profile.vxlan;
  if (protocol === TUNNEL_GENEVE) return profile.geneve;
  throw new RangeError(`unknown tunnel protocol ${protocol}`);
}

/** A power of two that `n` entries fill to at most a half. */
function slotCount(n: number): number {
  let slots = 8;
  while (slots < 2 * n) slots *= 2;
  return slots;
}

/** Node addresses differ in their low bits; the multiplication (Knuth) brings all of them to the bits that are used. */
function hashAddress(address: number): number {
  return Math.imul(address, 0x9e3779b1) >>> 12;
}

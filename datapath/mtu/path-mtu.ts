/**
 * Path MTU discovery for the tunnel's own packets (RFC 1191): what the underlay's routers say in ICMP "fragmentation
 * needed", by destination. An error is believed only after TunnelQuote has seen that it quotes a packet of ours.
 */
import { CountTable } from '../conntrack/count-table.ts';
import { type Counters, EVENT_PATH_MTU_LOWERED } from '../counters.ts';
import { Packet } from '../packet/packet.ts';
import { verifyChecksum } from '../packet/segment.ts';
import type { Random } from '../random.ts';
import { sourcePort } from '../tunnel/entropy.ts';
import { TUNNEL_IPIP, type Tunnel } from '../tunnel/tunnel.ts';
import { CONTINUE, DROP_TUNNEL_ERROR_CHECKSUM, DROP_TUNNEL_ERROR_QUOTE } from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as vxlan from '../wire/vxlan.ts';

/** Every IPv4 link takes this (RFC 791 section 3.2): no path is believed to be narrower (RFC 1191 section 3). */
export const MIN_MTU = 68;
/** Linux net.ipv4.route.min_pmtu: 512 bytes of data and two headers. */
export const LINUX_MIN_PMTU = 552;
/** RFC 1191 section 6.3; Linux net.ipv4.route.mtu_expires. */
export const MTU_EXPIRES_MS = 600_000;
/** MTUs of the links there are, RFC 1191 section 7.1. */
export const PLATEAUS: readonly number[] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/** Slots that one tick() looks at. */
const TICK_WORK = 64;

/** The greatest plateau below `len`; MIN_MTU if there is none. */
export function plateauBelow(len: number): number {
  for (let i = 0; i < PLATEAUS.length; i++) if (PLATEAUS[i] < len) return PLATEAUS[i];
  return MIN_MTU;
}

export interface PathMtuOptions {
  counters: Counters;
  random: Random;
  /** MTU of the uplink: that of every path that nothing is known about. */
  linkMtu: number;
  /** No message lowers a path below this; MIN_MTU by default. */
  floor?: number;
  /** A message without an MTU means the next plateau, or `floor`. */
  ofOldRouters?: 'plateau' | 'minimum';
  expiresMs?: number;
  /** Destinations at most; a new one displaces the one that was learnt first. */
  capacity?: number;
}

export class PathMtu {
  private readonly counters: Counters;
  private readonly linkMtu: number;
  private readonly floor: number;
  private readonly usePlateaus: boolean;
  private readonly expires: number;
  private readonly capacity: number;
  /** Address to MTU, and the time it was learnt: milliseconds modulo 2^32. */
  private readonly table: CountTable;
  private sweepAt = 0;

  constructor(options: PathMtuOptions) {
    this.counters = options.counters;
    this.linkMtu = options.linkMtu;
    this.floor = options.floor ?? MIN_MTU;
    this.usePlateaus = options.ofOldRouters !== 'minimum';
    this.expires = options.expiresMs ?? MTU_EXPIRES_MS;
    this.capacity = options.capacity ?? 1024;
    this.table = new CountTable(this.capacity, options.random, this.capacity);
  }

  /** Destinations with an MTU of their own. */
  get size(): number {
    return this.table.size;
  }

  /** MTU of the path to an underlay address (int32), outer header included. */
  lookup(address: number, now: number): number {
    if (this.table.size === 0) return this.linkMtu;
    const at = this.table.find(address, 0, 0);
    return at < 0 || this.isOver(at, now) ? this.linkMtu : this.table.value(at);
  }

  /**
   * Takes in what a "fragmentation needed" said about a packet to `address`. It lowers the path's MTU, or confirms it for
   * another ten minutes; it never raises it.
   *
   * @param mtu the message's next-hop MTU; 0 from a router older than RFC 1191
   * @param totalLen total length in the quoted header, and its header length in bytes
   * @returns the path's MTU if the message was believed, else 0
   */
  update(address: number, mtu: number, totalLen: number, headerLen: number, now: number): number {
    const current = this.lookup(address, now);
    if (mtu === 0) {
      // Routers derived from 4.2BSD add the header length once more (RFC 1191 section 5).
      mtu = this.usePlateaus ? plateauBelow(totalLen >= current ? totalLen - headerLen : totalLen) : this.floor;
    } else if (mtu >= totalLen) {
      return 0; // the packet would have fitted
    }
    if (mtu < this.floor) mtu = this.floor;
    if (mtu > current || mtu >= this.linkMtu) return 0;
    if (mtu < current) this.counters.event(EVENT_PATH_MTU_LOWERED);
    this.store(address, mtu, now);
    return mtu;
  }

  /** Forgets old entries, a bounded number of slots at a time. There is no hurry: lookup() minds their age. */
  tick(now: number): void {
    const { table } = this;
    if (table.size === 0) return;
    for (let work = TICK_WORK; work > 0; work--) {
      const at = table.slotAt(this.sweepAt);
      // What follows a removed entry may move into its slot: look at it again.
      if (at >= 0 && this.isOver(at, now)) table.removeAt(at);
      else this.sweepAt = (this.sweepAt + 1) % table.slotCount;
    }
  }

  private isOver(at: number, now: number): boolean {
    const age = ((now | 0) - this.table.extra(at)) | 0;
    return age >= this.expires || age < 0;
  }

  private store(address: number, mtu: number, now: number): void {
    const { table } = this;
    if (table.size >= this.capacity && table.find(address, 0, 0) < 0) this.removeOldest(now);
    table.set(address, 0, 0, mtu, now | 0);
  }

  private removeOldest(now: number): void {
    const { table } = this;
    let oldest = -1;
    let oldestAge = -1;
    for (let i = 0; i < table.slotCount; i++) {
      const at = table.slotAt(i);
      if (at < 0) continue;
      const age = ((now | 0) - table.extra(at)) >>> 0;
      if (age > oldestAge) {
        oldest = at;
        oldestAge = age;
      }
    }
    if (oldest >= 0) table.removeAt(oldest);
  }
}

/** Least that an ICMP error quotes behind the IP header (RFC 792). */
const QUOTED_PAYLOAD = 8;

/**
 * Reads an ICMP error that came from the underlay about a packet of the tunnel. One object for all, filled in place.
 *
 *   | ICMP header | outer IPv4 | UDP | VXLAN, GENEVE | Ethernet | inner IPv4 | 8 bytes or more |
 *                 '------------ quoted, as far as the router quotes -------------------------'
 */
export class TunnelQuote {
  /** Where the quoted packet was sent (int32). */
  destination = 0;
  /** Next-hop MTU of "fragmentation needed"; 0 in others. */
  mtu = 0;
  /** Total length and header length of the quoted outer packet. */
  totalLen = 0;
  headerLen = 0;
  /** 1 if the quote proves by the source port, made with a secret, that we sent it. Short quotes and IPIP cannot. */
  proven = 0;
  /**
   * The quoted inner packet, parsed as far as it is quoted: for buildIcmpError, to tell its sender. Its slot is not of the
   * pool. len is 0 if less than its header and 8 bytes are quoted.
   */
  readonly inner = new Packet(0, -1);

  /** True if the parsed packet is an ICMP error that says it is about a packet of this tunnel from us. */
  matches(view: DataView, p: Packet, tunnel: Tunnel): boolean {
    if (p.protocol !== ipv4.PROTO_ICMP || ipv4.isFragment(p.fragment)) return false;
    if (!icmp.isError(view.getUint8(p.l4 + icmp.TYPE))) return false;
    const quote = p.l4 + icmp.HEADER_LEN;
    const end = p.off + p.len;
    if (end - quote < ipv4.HEADER_LEN || view.getUint8(quote) >>> 4 !== 4) return false;
    if (view.getInt32(quote + ipv4.SRC) !== tunnel.localAddress) return false;
    const protocol = view.getUint8(quote + ipv4.PROTOCOL);
    if (tunnel.protocol === TUNNEL_IPIP) return protocol === ipv4.PROTO_IPIP;
    const l4 = quote + ipv4.headerLen(view, quote);
    return (
      protocol === ipv4.PROTO_UDP && end - l4 >= udp.HEADER_LEN && view.getUint16(l4 + udp.DST_PORT) === tunnel.port
    );
  }

  /**
   * Reads the error that `matches`, and checks that what it quotes is a packet as we send them, to a peer that we have. An
   * attacker off the path who does not see our packets cannot know all that, if the quote is long enough (RFC 5927
   * asks the like of TCP).
   *
   * @returns CONTINUE, and the fields are filled; or DROP_TUNNEL_ERROR_*
   */
  read(view: DataView, p: Packet, tunnel: Tunnel): number {
    this.proven = 0;
    this.mtu = 0;
    this.inner.len = 0;
    const quote = p.l4 + icmp.HEADER_LEN;
    const end = p.off + p.len;
    const headerLen = ipv4.headerLen(view, quote);
    const l4 = quote + headerLen;
    if (headerLen < ipv4.HEADER_LEN || end - l4 < QUOTED_PAYLOAD) return DROP_TUNNEL_ERROR_QUOTE;
    if (!verifyChecksum(view, p)) return DROP_TUNNEL_ERROR_CHECKSUM;

    this.destination = view.getInt32(quote + ipv4.DST);
    this.totalLen = view.getUint16(quote + ipv4.TOTAL_LEN);
    this.headerLen = headerLen;
    if (tunnel.findPeer(this.destination) < 0) return DROP_TUNNEL_ERROR_QUOTE;
    const field = view.getUint16(quote + ipv4.FLAGS_FRAGMENT);
    // Of a packet that was fragmented on its way, routers answer for the first fragment only.
    if ((field & ipv4.OFFSET_MASK) !== 0) return DROP_TUNNEL_ERROR_QUOTE;
    if (
      view.getUint8(p.l4 + icmp.TYPE) === icmp.UNREACHABLE &&
      view.getUint8(p.l4 + icmp.CODE) === icmp.CODE_FRAG_NEEDED
    ) {
      // Without DF it would have been fragmented.
      if ((field & ipv4.FLAG_DF) === 0) return DROP_TUNNEL_ERROR_QUOTE;
      this.mtu = view.getUint16(p.l4 + icmp.NEXT_HOP_MTU);
    }

    if (tunnel.protocol === TUNNEL_IPIP) {
      this.readInner(view, l4, end);
      return CONTINUE;
    }
    return this.readUdp(view, l4, end, tunnel);
  }

  private readUdp(view: DataView, l4: number, end: number, tunnel: Tunnel): number {
    const port = view.getUint16(l4 + udp.SRC_PORT);
    if (port < tunnel.portFrom || port >= tunnel.portFrom + tunnel.portRange) return DROP_TUNNEL_ERROR_QUOTE;
    const header = l4 + udp.HEADER_LEN;
    const frame = header + vxlan.HEADER_LEN + 4 * tunnel.optionWords.length;
    if (end - header >= vxlan.HEADER_LEN) {
      if (view.getInt32(header) !== tunnel.headerWord) return DROP_TUNNEL_ERROR_QUOTE;
      if (!tunnel.vniIsIdentity && view.getInt32(header + vxlan.VNI) !== tunnel.vniWord) return DROP_TUNNEL_ERROR_QUOTE;
    }
    if (end - frame < ethernet.HEADER_LEN) return CONTINUE;
    const own =
      ethernet.macHi(view, frame + ethernet.SRC) === tunnel.localMacHi &&
      ethernet.macLo(view, frame + ethernet.SRC) === tunnel.localMacLo;
    if (!own || view.getUint16(frame + ethernet.TYPE) !== ethernet.TYPE_IPV4) return DROP_TUNNEL_ERROR_QUOTE;

    const { inner } = this;
    this.readInner(view, frame + ethernet.HEADER_LEN, end);
    if (inner.len === 0) return CONTINUE;
    if (sourcePort(inner, tunnel.portSeed, tunnel.portFrom, tunnel.portRange) !== port) return DROP_TUNNEL_ERROR_QUOTE;
    this.proven = 1;
    return CONTINUE;
  }

  /** Fills `inner` from the IPv4 header at `off`, which is ours, so that only its end is in question. */
  private readInner(view: DataView, off: number, end: number): void {
    const { inner } = this;
    if (end - off < ipv4.HEADER_LEN || view.getUint8(off) >>> 4 !== 4) return;
    const headerLen = ipv4.headerLen(view, off);
    const totalLen = view.getUint16(off + ipv4.TOTAL_LEN);
    const len = Math.min(end - off, totalLen);
    if (headerLen < ipv4.HEADER_LEN || len < headerLen + QUOTED_PAYLOAD) return;
    inner.off = off;
    inner.len = len;
    inner.l4 = off + headerLen;
    inner.src = view.getInt32(off + ipv4.SRC);
    inner.dst = view.getInt32(off + ipv4.DST);
    inner.protocol = view.getUint8(off + ipv4.PROTOCOL);
    inner.fragment = view.getUint16(off + ipv4.FLAGS_FRAGMENT);
    inner.srcPort = 0;
    inner.dstPort = 0;
    if ((inner.fragment & ipv4.OFFSET_MASK) !== 0) return;
    if (inner.protocol === ipv4.PROTO_ICMP) {
      if (icmp.isQuery(view.getUint8(inner.l4 + icmp.TYPE))) {
        inner.srcPort = inner.dstPort = view.getUint16(inner.l4 + icmp.ID);
      }
    } else if (
      inner.protocol === ipv4.PROTO_TCP ||
      inner.protocol === ipv4.PROTO_UDP ||
      inner.protocol === ipv4.PROTO_SCTP
    ) {
      inner.srcPort = view.getUint16(inner.l4 + tcp.SRC_PORT);
      inner.dstPort = view.getUint16(inner.l4 + tcp.DST_PORT);
    }
  }
}

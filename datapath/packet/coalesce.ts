/**
 * Receive coalescing (GRO) in the datapath: segments of one flow become one superpacket, so that a port which takes
 * superpackets is crossed once instead of 45 times.
 *
 * The rule behind all rules below: segment() must give back what was merged, bit for bit. They are those of Linux
 * (net/ipv4/tcp_offload.c tcp_gro_receive, net/ipv4/udp_offload.c udp_gro_receive_segment, net/core/gro.c). One
 * exception, as there: packets with DF and all the same IP id are merged, and their ids count up when cut again; the id of
 * a packet that is never fragmented means nothing (RFC 6864 section 4.1).
 *
 * Packets of one flow never change their order. Those of different flows may: a segment moves up to its superpacket.
 */
import * as checksum from '../wire/checksum.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';
import { copyBytes } from './copy.ts';
import { Packet, SLOT_BYTES } from './packet.ts';
import type { Pool } from './pool.ts';
import { transportChecksumOk } from './segment.ts';

/** Flows that may be growing at once in a burst; one more displaces another. */
const MAX_FLOWS = 8;
/** Datagrams in one train: UDP_GRO_CNT_MAX. */
const MAX_DATAGRAMS = 64;

const ID_UNKNOWN = -1;
const ID_FIXED = 0;
const ID_COUNTING = 1;

/** Flags that may differ inside a superpacket, as they stand in the word with data offset, flags and window. */
const MAY_DIFFER = (tcp.FIN | tcp.PSH | tcp.CWR) << 16;
const NEVER_MERGED = tcp.SYN | tcp.RST | tcp.URG;
const ENDS = tcp.FIN | tcp.PSH;

/** A superpacket that may grow, or the packet in hand that may be appended to one. */
class Train {
  packet: Packet;
  // The flow. portsKnown 0: a fragment, or behind IP options.
  src = 0;
  dst = 0;
  protocol = 0;
  ports = 0;
  portsKnown = 0;
  /** IP header position, and transport header length. */
  ip = 0;
  headerLen = 0;
  /** TOS, TTL and DF in one number. */
  shape = 0;
  id = 0;
  idStep = ID_UNKNOWN;
  payload = 0;
  gsoSize = 0;
  segments = 0;
  /** 1: nothing may follow. */
  ended = 0;
  /** 1: the checksum is known to be right, or owed. */
  verified = 0;
  /** 1: packets were appended, so the headers are to be rewritten. */
  grown = 0;
  // TCP only.
  seq = 0;
  ack = 0;
  /** Data offset, flags (bar MAY_DIFFER) and window. */
  control = 0;
  flags = 0;

  constructor(packet: Packet) {
    this.packet = packet;
  }
}

export interface CoalesceOptions {
  /** 2 if packets begin with an Ethernet header, 3 with an IP header. */
  layer: 2 | 3;
  /** What the port takes: TCP superpackets, those with CWR, UDP trains. */
  tcp: boolean;
  ecn: boolean;
  udp: boolean;
  /** Longest IP packet to make; 65535 by default, less where a tunnel header will follow. */
  maxLen?: number;
}

export class Coalescer {
  private readonly pool: Pool;
  private readonly view: DataView;
  private readonly linkLen: number;
  private readonly tcp: boolean;
  private readonly ecn: boolean;
  private readonly udp: boolean;
  private readonly maxLen: number;
  /** Open trains are [0, open); the rest are spare objects. */
  private readonly trains: Train[] = [];
  private open = 0;
  private displaced = 0;
  /** The packet in hand. */
  private hand: Train;

  constructor(pool: Pool, options: CoalesceOptions) {
    this.pool = pool;
    this.view = pool.view;
    this.linkLen = options.layer === 2 ? ethernet.HEADER_LEN : 0;
    this.tcp = options.tcp;
    this.ecn = options.ecn;
    this.udp = options.udp;
    this.maxLen = options.maxLen ?? ipv4.MAX_TOTAL_LEN;
    const nothing = new Packet(0, -1);
    for (let i = 0; i < MAX_FLOWS; i++) this.trains.push(new Train(nothing));
    this.hand = new Train(nothing);
  }

  /**
   * Merges what can be merged among burst[0..n), packets on their way out of one port. What was merged into another
   * packet goes back to the pool; the rest moves together at the front of the array.
   * @returns how many packets remain
   */
  coalesce(burst: Packet[], n: number): number {
    if (n < 2) return n;
    let kept = 0;
    for (let i = 0; i < n; i++) {
      const p = burst[i];
      const mergeable = this.examine(p);
      const at = this.open === 0 ? -1 : this.find();
      if (at >= 0) {
        if (mergeable && this.follows(this.trains[at])) {
          this.append(this.trains[at]);
          this.pool.release(p);
          if (this.trains[at].ended !== 0) this.close(at);
          continue;
        }
        // Whatever follows in this flow must stay behind this packet.
        this.close(at);
      }
      if (this.hand.portsKnown === 0) this.closeBetween();
      burst[kept++] = p;
      if (mergeable && this.hand.ended === 0) this.begin();
    }
    while (this.open > 0) this.close(this.open - 1);
    return kept;
  }

  /** Reads the headers of `p` into `hand`. @returns true if it can begin or continue a superpacket */
  private examine(p: Packet): boolean {
    const { view, hand } = this;
    const ip = p.off + this.linkLen;
    const len = p.len - this.linkLen;
    hand.packet = p;
    hand.portsKnown = 0;
    hand.protocol = 0;
    if (len < ipv4.HEADER_LEN + udp.HEADER_LEN) return false;
    if (this.linkLen !== 0 && view.getUint16(p.off + ethernet.TYPE) !== ethernet.TYPE_IPV4) return false;

    const word0 = view.getInt32(ip + ipv4.VERSION_IHL);
    const word1 = view.getInt32(ip + ipv4.ID);
    const word2 = view.getInt32(ip + ipv4.TTL);
    const field = word1 & 0xffff;
    hand.src = view.getInt32(ip + ipv4.SRC);
    hand.dst = view.getInt32(ip + ipv4.DST);
    hand.protocol = (word2 >>> 16) & 0xff;
    if (word0 >>> 24 !== 0x45 || (field & ~ipv4.FLAG_DF) !== 0 || (word0 & 0xffff) !== len) return false;

    const l4 = ip + ipv4.HEADER_LEN;
    hand.ports = view.getInt32(l4);
    hand.portsKnown = 1;
    hand.ip = ip;
    hand.id = word1 >>> 16;
    hand.shape = (word0 & 0xff0000) | ((word2 >>> 16) & 0xff00) | (field >>> 14);
    hand.grown = 0;

    const flags = p.vnetFlags;
    if ((flags & virtio.FLAG_NEEDS_CSUM) !== 0 && p.csumStart !== l4) return false;
    hand.verified = (flags & (virtio.FLAG_NEEDS_CSUM | virtio.FLAG_DATA_VALID)) !== 0 ? 1 : 0;

    if (hand.protocol === ipv4.PROTO_TCP) return this.tcp && this.examineTcp(p, l4, len - ipv4.HEADER_LEN);
    if (hand.protocol === ipv4.PROTO_UDP) return this.udp && this.examineUdp(p, l4, len - ipv4.HEADER_LEN);
    return false;
  }

  private examineTcp(p: Packet, l4: number, len: number): boolean {
    const { view, hand } = this;
    if (len <= tcp.HEADER_LEN) return false;
    const control = view.getInt32(l4 + tcp.DATA_OFFSET);
    const flags = (control >>> 16) & 0xff;
    hand.headerLen = (control >>> 28) << 2;
    hand.payload = len - hand.headerLen;
    if (hand.payload <= 0 || hand.headerLen < tcp.HEADER_LEN) return false;
    if ((flags & (tcp.ACK_FLAG | NEVER_MERGED)) !== tcp.ACK_FLAG) return false;
    if ((flags & tcp.CWR) !== 0 && !this.ecn) return false;
    hand.flags = flags;
    hand.control = control & ~MAY_DIFFER;
    hand.seq = view.getInt32(l4 + tcp.SEQ);
    hand.ack = view.getInt32(l4 + tcp.ACK);
    hand.ended = (flags & ENDS) !== 0 ? 1 : 0;
    return this.examineSize(p, (p.gsoType & ~virtio.GSO_ECN) === virtio.GSO_TCPV4);
  }

  private examineUdp(p: Packet, l4: number, len: number): boolean {
    const { view, hand } = this;
    // A train has a checksum, so a datagram without one cannot be in it.
    if (view.getUint16(l4 + udp.LENGTH) !== len || view.getUint16(l4 + udp.CHECKSUM) === 0) return false;
    hand.headerLen = udp.HEADER_LEN;
    hand.payload = len - udp.HEADER_LEN;
    hand.ended = 0;
    return hand.payload > 0 && this.examineSize(p, p.gsoType === virtio.GSO_UDP_L4);
  }

  private examineSize(p: Packet, isSuper: boolean): boolean {
    const { hand } = this;
    if (isSuper) {
      hand.gsoSize = p.gsoSize;
      hand.segments = Math.ceil(hand.payload / p.gsoSize);
      hand.idStep = ID_COUNTING;
      if (hand.payload < hand.segments * p.gsoSize) hand.ended = 1;
      return true;
    }
    hand.gsoSize = hand.payload;
    hand.segments = 1;
    hand.idStep = ID_UNKNOWN;
    return p.gsoType === virtio.GSO_NONE;
  }

  /** The open train of the flow of `hand`, or -1. */
  private find(): number {
    const { hand, trains } = this;
    if (hand.portsKnown === 0) return -1;
    for (let i = 0; i < this.open; i++) {
      const train = trains[i];
      if (
        train.ports === hand.ports &&
        train.src === hand.src &&
        train.dst === hand.dst &&
        train.protocol === hand.protocol
      ) {
        return i;
      }
    }
    return -1;
  }

  /** True if the packet in hand is what comes next in `train`. Cheap reasons against it first. */
  private follows(train: Train): boolean {
    const { view, hand } = this;
    const p = train.packet;
    if (hand.shape !== train.shape || hand.headerLen !== train.headerLen) return false;
    if (hand.packet.identity !== p.identity) return false;
    if (hand.segments === 1 ? hand.payload > train.gsoSize : hand.gsoSize !== train.gsoSize) return false;

    const grownLen = p.len + hand.payload;
    if (grownLen - this.linkLen > this.maxLen || p.off + grownLen > p.start + SLOT_BYTES) return false;

    if (hand.protocol === ipv4.PROTO_TCP) {
      if (hand.seq !== train.seq || hand.ack !== train.ack || hand.control !== train.control) return false;
      if ((hand.flags & tcp.CWR) !== 0) return false;
      if (!this.sameBytes(train, tcp.URGENT, hand.headerLen)) return false;
    } else if (train.segments + hand.segments > MAX_DATAGRAMS) {
      return false;
    }

    const step = this.idStep(train);
    if (step === ID_UNKNOWN) return false;
    if (this.linkLen !== 0 && !this.sameBytes(train, -ipv4.HEADER_LEN - ethernet.HEADER_LEN, -ipv4.HEADER_LEN)) {
      return false;
    }
    // Only now, because it reads the payload; and the train's first packet once, not before there is a second.
    if (train.verified === 0) {
      if (!checksumOk(view, train)) return false;
      train.verified = 1;
    }
    if (hand.verified === 0 && !checksumOk(view, hand)) return false;
    train.idStep = step;
    return true;
  }

  /** How the IP id goes on from `train` to `hand`; ID_UNKNOWN if it does not. */
  private idStep(train: Train): number {
    const { hand } = this;
    const counting = hand.id === ((train.id + train.segments) & 0xffff);
    if (counting && train.idStep !== ID_FIXED) return ID_COUNTING;
    const dontFragment = (train.shape & 1) !== 0;
    const plain = hand.idStep === ID_UNKNOWN && train.idStep !== ID_COUNTING;
    return dontFragment && plain && hand.id === train.id ? ID_FIXED : ID_UNKNOWN;
  }

  /** Compares the bytes [from, to) of both packets, counted from their transport headers. Even positions. */
  private sameBytes(train: Train, from: number, to: number): boolean {
    const { view, hand } = this;
    const a = train.ip + ipv4.HEADER_LEN;
    const b = hand.ip + ipv4.HEADER_LEN;
    for (let i = from; i < to; i += 2) {
      if (view.getUint16(a + i) !== view.getUint16(b + i)) return false;
    }
    return true;
  }

  /** Copies the payload in hand behind `train`. The headers follow in finish, once for all. */
  private append(train: Train): void {
    const { view, hand } = this;
    const p = train.packet;
    copyBytes(this.pool, p.off + p.len, hand.ip + ipv4.HEADER_LEN + hand.headerLen, hand.payload);
    p.len += hand.payload;
    train.segments += hand.segments;
    train.grown = 1;
    if (hand.payload < hand.segments * train.gsoSize) train.ended = 1;
    if (hand.protocol === ipv4.PROTO_TCP) {
      train.seq = (train.seq + hand.payload) | 0;
      if (hand.ended !== 0) {
        const at = train.ip + ipv4.HEADER_LEN + tcp.FLAGS;
        view.setUint8(at, view.getUint8(at) | (hand.flags & ENDS));
        train.ended = 1;
      }
    } else if (train.segments === MAX_DATAGRAMS) {
      train.ended = 1;
    }
  }

  /** Makes the packet in hand an open train. */
  private begin(): void {
    const { hand, trains } = this;
    if (this.open === MAX_FLOWS) {
      this.displaced = (this.displaced + 1) % MAX_FLOWS;
      this.close(this.displaced);
    }
    hand.seq = (hand.seq + hand.payload) | 0;
    this.hand = trains[this.open];
    trains[this.open++] = hand;
  }

  private close(at: number): void {
    const { trains } = this;
    const train = trains[at];
    if (train.grown !== 0) this.finish(train);
    trains[at] = trains[--this.open];
    trains[this.open] = train;
  }

  /** Closes every flow that a packet without visible ports may belong to. */
  private closeBetween(): void {
    const { hand, trains } = this;
    for (let i = this.open - 1; i >= 0; i--) {
      const train = trains[i];
      if (train.src === hand.src && train.dst === hand.dst && train.protocol === hand.protocol) this.close(i);
    }
  }

  /** Makes the headers of a grown train those of a superpacket. */
  private finish(train: Train): void {
    const { view } = this;
    const p = train.packet;
    const l4 = train.ip + ipv4.HEADER_LEN;
    const l4Len = p.off + p.len - l4;
    const isTcp = train.protocol === ipv4.PROTO_TCP;
    view.setUint16(train.ip + ipv4.TOTAL_LEN, ipv4.HEADER_LEN + l4Len);
    ipv4.setHeaderChecksum(view, train.ip);
    if (!isTcp) view.setUint16(l4 + udp.LENGTH, l4Len);

    p.vnetFlags = virtio.FLAG_NEEDS_CSUM;
    p.csumStart = l4;
    p.csumOffset = isTcp ? tcp.CHECKSUM : udp.CHECKSUM;
    p.gsoSize = train.gsoSize;
    p.gsoType = isTcp ? virtio.GSO_TCPV4 : virtio.GSO_UDP_L4;
    if (isTcp && (train.flags & tcp.CWR) !== 0) p.gsoType |= virtio.GSO_ECN;
    const sum = checksum.pseudoSum(train.src, train.dst, train.protocol, l4Len);
    view.setUint16(l4 + p.csumOffset, checksum.foldSum(sum));
  }
}

function checksumOk(view: DataView, t: Train): boolean {
  return transportChecksumOk(view, t.src, t.dst, t.protocol, t.ip + ipv4.HEADER_LEN, t.headerLen + t.payload);
}

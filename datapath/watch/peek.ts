/** The addresses, ports and flags of a packet from its bytes alone, wherever in the path it is looked at. */
import type { Packet } from '../packet/packet.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import type { Filtered } from './filter.ts';

/** What was seen last; used again for the next packet, so that looking allocates nothing. */
export class Peek implements Filtered {
  /** False for what is no IPv4: then the other fields are 0. */
  isIpv4 = false;
  /** Where the IPv4 header begins, absolute; where the bytes begin with Ethernet, behind that. */
  network = 0;
  src = 0;
  dst = 0;
  srcPort = 0;
  dstPort = 0;
  protocol = 0;
  len = 0;
  /** TCP flags, or ICMP type << 8 | code. */
  l4Bits = 0;

  /** Looks at `p` as it lies: an IPv4 packet at `p.off`, or a frame with one. */
  look(view: DataView, p: Packet): void {
    const { off, len } = p;
    if (this.lookAt(view, off, len)) return;
    const isFrame = len >= ethernet.HEADER_LEN && view.getUint16(off + ethernet.TYPE) === ethernet.TYPE_IPV4;
    if (isFrame) this.lookAt(view, off + ethernet.HEADER_LEN, len - ethernet.HEADER_LEN);
  }

  /** Looks at an IPv4 packet at `at`, of `len` bytes. @returns false if there is none */
  lookAt(view: DataView, at: number, len: number): boolean {
    this.isIpv4 = false;
    this.network = at;
    this.len = len;
    this.src = 0;
    this.dst = 0;
    this.srcPort = 0;
    this.dstPort = 0;
    this.protocol = 0;
    this.l4Bits = 0;
    if (len < ipv4.HEADER_LEN || view.getUint8(at) >> 4 !== 4) return false;
    const headerLen = ipv4.headerLen(view, at);
    if (headerLen < ipv4.HEADER_LEN || headerLen > len || view.getUint16(at + ipv4.TOTAL_LEN) > len) return false;
    this.isIpv4 = true;
    this.src = view.getInt32(at + ipv4.SRC);
    this.dst = view.getInt32(at + ipv4.DST);
    this.protocol = view.getUint8(at + ipv4.PROTOCOL);
    const l4 = at + headerLen;
    const left = len - headerLen;
    const isLater = (view.getUint16(at + ipv4.FLAGS_FRAGMENT) & ipv4.OFFSET_MASK) !== 0;
    if (isLater || left < 4) return true;
    if (this.protocol === ipv4.PROTO_ICMP) {
      this.l4Bits = (view.getUint8(l4 + icmp.TYPE) << 8) | view.getUint8(l4 + icmp.CODE);
    } else if (
      this.protocol === ipv4.PROTO_TCP ||
      this.protocol === ipv4.PROTO_UDP ||
      this.protocol === ipv4.PROTO_SCTP
    ) {
      this.srcPort = view.getUint16(l4);
      this.dstPort = view.getUint16(l4 + 2);
      if (this.protocol === ipv4.PROTO_TCP && left > tcp.FLAGS) this.l4Bits = view.getUint8(l4 + tcp.FLAGS);
    }
    return true;
  }
}

/** The addresses, ports and flags of a packet from its bytes alone, wherever in the path it is looked at. */
import type { Packet } from '../packet/packet.ts';
import * as arp from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import type { Filtered } from './filter.ts';

/** What was seen last; used again for the next packet, so that looking allocates nothing. */
export class Peek implements Filtered {
  /** False for what is no IPv4, or none that is well formed. */
  isIpv4 = false;
  etherType = 0;
  view: DataView = new DataView(new ArrayBuffer(0));
  network = 0;
  transport = -1;
  end = 0;
  hasPorts = false;
  isCut = false;
  src = 0;
  dst = 0;
  srcPort = 0;
  dstPort = 0;
  protocol = 0;
  len = 0;
  /** TCP flags, or ICMP type << 8 | code. */
  l4Bits = 0;

  /** Looks at `p` as it lies: an IP packet at `p.off`, or a frame. @param layer 2 or 3; 0: it is found out */
  look(view: DataView, p: Packet, layer = 0): void {
    const { off, len } = p;
    if (layer !== 2) {
      this.lookAt(view, off, len);
      if (layer === 3 || this.isIpv4) return;
    }
    if (len < ethernet.HEADER_LEN) {
      this.clear(view, off, len);
      return;
    }
    const type = view.getUint16(off + ethernet.TYPE);
    if (layer === 0 && type !== ethernet.TYPE_IPV4 && type !== ethernet.TYPE_ARP) return;
    const network = off + ethernet.HEADER_LEN;
    const left = len - ethernet.HEADER_LEN;
    if (type === ethernet.TYPE_IPV4) this.lookAt(view, network, left);
    else {
      this.clear(view, network, left);
      if (type === ethernet.TYPE_ARP && arp.check(view, network, left)) {
        this.src = view.getInt32(network + arp.SPA);
        this.dst = view.getInt32(network + arp.TPA);
      }
    }
    this.etherType = type;
    this.len = len;
  }

  private clear(view: DataView, at: number, len: number): void {
    this.isIpv4 = false;
    this.etherType = 0;
    this.view = view;
    this.network = at;
    this.transport = -1;
    this.end = at + len;
    this.len = len;
    this.src = 0;
    this.dst = 0;
    this.hasPorts = false;
    this.srcPort = 0;
    this.dstPort = 0;
    this.protocol = 0;
    this.l4Bits = 0;
  }

  /** Looks at an IP packet at `at`, of `len` bytes. */
  lookAt(view: DataView, at: number, len: number): void {
    this.clear(view, at, len);
    const version = len === 0 ? 0 : view.getUint8(at) >> 4;
    if (version === 6) this.etherType = ethernet.TYPE_IPV6;
    if (version !== 4) return;
    this.etherType = ethernet.TYPE_IPV4;
    if (len < ipv4.HEADER_LEN) return;
    this.src = view.getInt32(at + ipv4.SRC);
    this.dst = view.getInt32(at + ipv4.DST);
    this.protocol = view.getUint8(at + ipv4.PROTOCOL);
    const headerLen = ipv4.headerLen(view, at);
    if (headerLen < ipv4.HEADER_LEN || headerLen > len || view.getUint16(at + ipv4.TOTAL_LEN) > len) return;
    this.isIpv4 = true;
    const l4 = at + headerLen;
    const left = len - headerLen;
    const isLater = (view.getUint16(at + ipv4.FLAGS_FRAGMENT) & ipv4.OFFSET_MASK) !== 0;
    if (isLater) return;
    this.transport = l4;
    if (left < 4) return;
    if (this.protocol === ipv4.PROTO_ICMP) {
      this.l4Bits = (view.getUint8(l4 + icmp.TYPE) << 8) | view.getUint8(l4 + icmp.CODE);
    } else if (
      this.protocol === ipv4.PROTO_TCP ||
      this.protocol === ipv4.PROTO_UDP ||
      this.protocol === ipv4.PROTO_SCTP
    ) {
      this.hasPorts = true;
      this.srcPort = view.getUint16(l4);
      this.dstPort = view.getUint16(l4 + 2);
      if (this.protocol === ipv4.PROTO_TCP && left > tcp.FLAGS) this.l4Bits = view.getUint8(l4 + tcp.FLAGS);
    }
  }
}

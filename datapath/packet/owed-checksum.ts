/**
 * A sender whose packets never left this machine, or its hypervisor, leaves checksums and segmentation to a device that is
 * not there: its TCP segment may have 64 KiB and the mere sum of the pseudo header in its checksum field. GRO on a NIC makes
 * the same of the segments in IPIP packets. A TUN or a packet socket says so (virtio-net header, auxiliary data); a UDP or
 * raw socket hands out the bytes and says nothing.
 *
 * The field itself tells. An intact packet that has the pseudo header's sum there by chance (1 of 65535) gets back the
 * checksum it had; a damaged one that passes does so as often as a 16-bit checksum lets it.
 */
import { foldSum, pseudoSum } from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';
import type { Packet } from './packet.ts';

/**
 * Sets the virtio-net fields of a tunnel packet to what its inner packet owes. Anything that is not a whole IPv4 packet with
 * TCP or UDP is left alone: whoever unwraps it judges that.
 *
 * @param inner first byte of what may be the inner IPv4 header, absolute
 * @param end the byte behind it
 * @param transport outer transport header: the UDP header, or for IPIP the inner header itself
 * @param mtu of the inner packet: one that is longer has not been on a wire, so its segments still have to be cut
 * @param segment payload of a segment if known, else 0. Without it TCP is cut to fill `mtu`; of UDP nobody knows the
 *   boundaries, so its train is left with a gsoSize of 0, which parseIpv4 refuses
 */
export function markOwedChecksum(
  view: DataView,
  p: Packet,
  inner: number,
  end: number,
  transport: number,
  mtu: number,
  segment: number,
): void {
  if (end - inner < ipv4.HEADER_LEN) return;
  const word = view.getInt32(inner + ipv4.VERSION_IHL);
  const headerLen = (word >>> 22) & 60;
  const totalLen = word & 0xffff;
  if (word >>> 28 !== 4 || headerLen < ipv4.HEADER_LEN || totalLen > end - inner) return;
  if (ipv4.isFragment(view.getUint16(inner + ipv4.FLAGS_FRAGMENT))) return;

  const protocol = view.getUint8(inner + ipv4.PROTOCOL);
  const l4 = inner + headerLen;
  const l4Len = totalLen - headerLen;
  const isTcp = protocol === ipv4.PROTO_TCP;
  if (!isTcp && protocol !== ipv4.PROTO_UDP) return;
  if (l4Len < (isTcp ? tcp.HEADER_LEN : udp.HEADER_LEN)) return;
  const offset = isTcp ? tcp.CHECKSUM : udp.CHECKSUM;
  const pseudo = pseudoSum(view.getInt32(inner + ipv4.SRC), view.getInt32(inner + ipv4.DST), protocol, l4Len);
  if (view.getUint16(l4 + offset) !== foldSum(pseudo)) return;

  p.vnetFlags |= virtio.FLAG_NEEDS_CSUM;
  p.csumStart = l4;
  p.csumOffset = offset;
  if (totalLen <= mtu) return;

  p.outerTransport = transport;
  p.innerNetwork = inner;
  if (isTcp) {
    const ecn = (view.getUint8(l4 + tcp.FLAGS) & tcp.CWR) !== 0 ? virtio.GSO_ECN : 0;
    p.gsoType = virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4 | ecn;
    p.gsoSize = segment > 0 ? segment : Math.max(0, mtu - headerLen - tcp.headerLen(view, l4));
  } else {
    p.gsoType = virtio.GSO_UDP_L4 | virtio.GSO_UDP_TUNNEL_IPV4;
    p.gsoSize = segment;
  }
}

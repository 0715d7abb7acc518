/** The packet that fails, as a file: as its pod sends it, and as it is when it fails. */
import { formatAddress } from '../control/address.ts';
import { LINK_RAW, PcapWriter } from '../io/pcap.ts';
import { icmpEcho, pattern } from '../packet/build.ts';
import * as hops from '../route/nexthop.ts';
import * as icmp from '../wire/icmp.ts';
import { FLAG_DF, HEADER_LEN } from '../wire/ipv4.ts';
import type { Network } from './network.ts';
import type { Case } from './prove.ts';

/** Writes an echo request of the size that fails and, behind it, the tunnel packet that the first node makes of it. */
export function writeFailingPacket(
  path: string,
  network: Network,
  { sender, destination, fails, path: way }: Case,
): void {
  if (fails === null) throw new RangeError('nothing fails');
  const inner = icmpEcho({
    src: formatAddress(sender.address),
    dst: formatAddress(destination),
    fragment: fails.df ? FLAG_DF : 0,
    payload: pattern(fails.bytes - HEADER_LEN - icmp.HEADER_LEN),
  });
  const writer = new PcapWriter(path, LINK_RAW);
  writer.write(0, inner);
  const tunnel = way.legs.find(({ hop }) => hop.kind === hops.HOP_TUNNEL);
  if (tunnel !== undefined) writer.write(0, network.encapsulated(tunnel.node, tunnel.hop, inner));
  writer.close();
}

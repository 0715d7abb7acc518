/**
 * Sends datagrams as one train (UDP_SEGMENT); its own process inside a namespace:
 *
 *   ADDRESS PORT COUNT                 datagrams of 1000 bytes, each of another content
 *   NODE PEER POD COUNT                VXLAN packets from PEER, which we are, to the node NODE, as a NIC's GRO would join
 *                                      them; in them datagrams for POD, port 9
 */
import { strict as assert } from 'node:assert';
import koffi from 'koffi';
import * as libc from '../../datapath/io/libc.ts';
import { ethernet, hex, ip, pattern, udp4 } from '../fixtures/packets.ts';
import { vtepMac } from './hosts.ts';

const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const VXLAN_PORT = 8472;
const HEADER = hex('0800 0000 0000 0100');

const args = process.argv.slice(2);
const count = Number(args.at(-1));
const isTunnel = args.length === 4;

function tunnelPacket(i: number): Uint8Array {
  const [node, peer, pod] = args;
  const inner = udp4({ src: '10.244.2.10', dst: pod, sport: 1000 + i, dport: 9, payload: pattern(500, i + 1) });
  const frame = ethernet(inner, { src: vtepMac(peer), dst: vtepMac(node) });
  return Uint8Array.of(...HEADER, ...frame);
}

const packets = Array.from({ length: count }, (_, i) => (isTunnel ? tunnelPacket(i) : pattern(1000, i + 1)));
const train = Buffer.concat(packets);
const fd = libc.socket(libc.AF_INET, libc.SOCK_DGRAM, 0);
const segment = Int32Array.of(packets[0].length);
assert.equal(libc.setsockopt(fd, SOL_UDP, UDP_SEGMENT, libc.addressOf(segment), 4), 0);
const to = new DataView(new ArrayBuffer(16));
to.setUint16(0, libc.AF_INET, true);
to.setUint16(2, isTunnel ? VXLAN_PORT : Number(args[1]));
to.setInt32(4, ip(args[0]));
const sent = libc.sendto(fd, libc.addressOf(train), train.length, 0, libc.addressOf(new Uint8Array(to.buffer)), 16);
assert.equal(sent, train.length, `errno ${koffi.errno()}`);
libc.close(fd);

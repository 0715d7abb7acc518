/**
 * Sends VXLAN packets as one train (UDP_SEGMENT), as a NIC's GRO would make it of them; its own process inside a namespace:
 *
 *   NODE PEER POD COUNT   from PEER, which we are, to the node NODE: datagrams for POD, port 9, each of another content
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

const [node, peer, pod, count] = process.argv.slice(2);

function tunnelPacket(i: number): Uint8Array {
  const inner = udp4({ src: '10.244.2.10', dst: pod, sport: 1000 + i, dport: 9, payload: pattern(500, i + 1) });
  const frame = ethernet(inner, { src: vtepMac(peer), dst: vtepMac(node) });
  return Uint8Array.of(...HEADER, ...frame);
}

const packets = Array.from({ length: Number(count) }, (_, i) => tunnelPacket(i));
const train = Buffer.concat(packets);
const fd = libc.socket(libc.AF_INET, libc.SOCK_DGRAM, 0);
const segment = Int32Array.of(packets[0].length);
assert.equal(libc.setsockopt(fd, SOL_UDP, UDP_SEGMENT, libc.addressOf(segment), 4), 0);
const to = new DataView(new ArrayBuffer(16));
to.setUint16(0, libc.AF_INET, true);
to.setUint16(2, VXLAN_PORT);
to.setInt32(4, ip(node));
const sent = libc.sendto(fd, libc.addressOf(train), train.length, 0, libc.addressOf(new Uint8Array(to.buffer)), 16);
assert.equal(sent, train.length, `errno ${koffi.errno()}`);
libc.close(fd);

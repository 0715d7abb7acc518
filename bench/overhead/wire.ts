/** The same figures from packets: a node over memory, and what it puts on its uplink. */
import { loadConfig } from '../../datapath/control/load-config.ts';
import { resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import { Sim } from '../../datapath/drive/sim.ts';
import type { Frame } from '../../datapath/io/memory.ts';
import { mtusOf } from '../../datapath/program/mtus.ts';
import { foldSum, pseudoSum } from '../../datapath/wire/checksum.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import * as tcp from '../../datapath/wire/tcp.ts';
import * as udp from '../../datapath/wire/udp.ts';
import * as vnet from '../../datapath/wire/virtio-net.ts';
import { ETHERNET_HEADER, ETHERNET_REST, MAX_IP_LEN, type Mode, TCP_HEADERS, type Theory } from './theory.ts';

const POD = 0x0af4010a; // 10.244.1.10
const REMOTE = 0x0af40214; // 10.244.2.20
const PEER = 0xc0a80a02 | 0; // 192.168.10.2
const SMALL = 100;

/** @throws Error when the node does not put out what it was given */
export function measureWire(mode: Mode, underlayMtu: number): Theory {
  const { mtuInside, send } = createNode(mode, underlayMtu);
  const [small] = send(packet(ipv4.PROTO_UDP, SMALL));
  const headerBytes = small.length - ETHERNET_HEADER - SMALL;

  const payload = mtuInside - TCP_HEADERS;
  const l4Len = MAX_IP_LEN - ipv4.HEADER_LEN;
  const superpacket = packet(ipv4.PROTO_TCP, MAX_IP_LEN);
  const view = new DataView(superpacket.buffer);
  view.setUint16(ipv4.HEADER_LEN + tcp.CHECKSUM, foldSum(pseudoSum(POD, REMOTE, ipv4.PROTO_TCP, l4Len)));
  const segments = send(superpacket, {
    vnetFlags: vnet.FLAG_NEEDS_CSUM,
    gsoType: vnet.GSO_TCPV4,
    gsoSize: payload,
    csumStart: ipv4.HEADER_LEN,
    csumOffset: tcp.CHECKSUM,
  });
  const fragments = send(packet(ipv4.PROTO_UDP, underlayMtu));
  const wire = fragments.reduce((sum, frame) => sum + frame.length + ETHERNET_REST, 0);
  return {
    headerBytes,
    mtuInside,
    goodputShare: payload / (segments[0].length + ETHERNET_REST),
    segments: segments.length,
    fragments: fragments.length,
    fragmentedShare: (underlayMtu - ipv4.HEADER_LEN - udp.HEADER_LEN) / wire,
  };
}

function createNode(mode: Mode, mtu: number) {
  const encap = mode !== 'native';
  const tunnel = {
    protocol: encap ? mode : 'none',
    ...(encap ? { peers: [{ address: '192.168.10.2' }] } : {}),
    ...(mode === 'vxlan' || mode === 'geneve' ? { vni: 1 } : {}),
  };
  const spec = {
    uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24', mtu },
    pods: [{ name: 'p', netns: 'p', device: 'eth0', address: '10.244.1.10' }],
    tunnel,
    routes: [{ to: '10.244.2.0/24', via: '192.168.10.2', encap }],
  };
  const text = JSON.stringify({ apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name: 'a' }, spec });
  const loaded = loadConfig(text, 'bench overhead');
  if (loaded.config === undefined) throw new Error(JSON.stringify(loaded.problems));
  const { uplink: tap } = loaded.config.spec;
  if (tap.kind !== 'tap') throw new Error(`an uplink of kind ${tap.kind}`);
  const config = withUplink(loaded.config, resolveTap(tap));
  const node = new Sim({ slots: 512 }).addNode(config);
  node.datapath.neighbors.addPermanent(PEER, 0x0200, 2);
  const send = (bytes: Uint8Array, fields: Partial<Frame> = {}): Uint8Array[] => {
    node.inject('p', bytes, fields);
    node.work();
    const frames = node.collect('ul0').map(frame => frame.bytes);
    if (frames.length === 0) throw new Error(`${mode}: nothing came out: ${JSON.stringify(node.counters.snapshot())}`);
    return frames;
  };
  return { mtuInside: mtusOf(config).tunnel, send };
}

/** From the pod to the one behind the peer; without DF. */
function packet(protocol: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, 0x45000000 | length);
  view.setInt32(ipv4.TTL, (64 << 24) | (protocol << 16));
  view.setInt32(ipv4.SRC, POD);
  view.setInt32(ipv4.DST, REMOTE);
  ipv4.setHeaderChecksum(view, 0);
  view.setInt32(ipv4.HEADER_LEN, (40_000 << 16) | 5201);
  // Data offset 8: timestamps. Zeros are end-of-options, which nobody here reads.
  if (protocol === ipv4.PROTO_TCP) view.setInt32(ipv4.HEADER_LEN + tcp.DATA_OFFSET, 0x80100200);
  else view.setUint16(ipv4.HEADER_LEN + udp.LENGTH, length - ipv4.HEADER_LEN);
  return bytes;
}

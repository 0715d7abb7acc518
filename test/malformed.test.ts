/** Malformed packets of every protocol into every kind of port, over memory; test/netns has fewer, on real devices. */
import { strict as assert } from 'node:assert';
import { OFFLOAD_CSUM, OFFLOAD_TSO, OFFLOAD_TUNNEL, OFFLOAD_USO } from '../datapath/io/device.ts';
import type { Frame } from '../datapath/io/memory.ts';
import { FRAGMENT_TIMEOUT_MS } from '../datapath/mtu/virtual-reassembly.ts';
import { Random } from '../datapath/random.ts';
import { frameTemplates, ipTemplates, malform, type Template } from './fixtures/malformed.ts';
import { icmpEcho, udp4 } from './fixtures/packets.ts';
import { fromWire, NODE, NODE_MAC, PEER, PEER_MAC, POD, POD2, REMOTE, TestNode, VTEP_MACS } from './forward-rig.ts';
import { slowHeaderOk } from './model/checksum.ts';

const SEED = Number(process.env.SEED ?? 20261121);
const PACKETS = 10_000;
const BATCH = 50;
const ALL_OFFLOADS = OFFLOAD_CSUM | OFFLOAD_TSO | OFFLOAD_USO | OFFLOAD_TUNNEL;

const OUTWARDS = {
  src: POD,
  dst: REMOTE,
  outerSrc: POD,
  outerDst: PEER,
  innerSrcMac: VTEP_MACS[0],
  innerDstMac: VTEP_MACS[1],
  vni: 7,
};
const INWARDS = {
  src: REMOTE,
  dst: POD,
  outerSrc: PEER,
  outerDst: NODE,
  innerSrcMac: VTEP_MACS[1],
  innerDstMac: VTEP_MACS[0],
  vni: 7,
};

const PORTS: { port: string; kind: string; templates: Template[] }[] = [
  { port: 'p1', kind: 'pod', templates: ipTemplates(OUTWARDS) },
  { port: 'tp0', kind: 'host', templates: ipTemplates({ ...OUTWARDS, src: '10.244.1.1', outerSrc: '10.244.1.1' }) },
  { port: 'ul0', kind: 'uplink', templates: frameTemplates(INWARDS, PEER_MAC, NODE_MAC) },
];

/** What a kernel never says, but a port must survive. */
function malformVnet(random: Random): Partial<Frame> {
  return {
    vnetFlags: random.below(16),
    gsoType: [0, 1, 3, 4, 5, 0x20, 0x21, 0x25, 0x81, 0xff][random.below(10)],
    gsoSize: [0, 1, 8, 100, 1410, 65535][random.below(6)],
    csumStart: random.below(3) === 0 ? random.below(65536) : random.below(120),
    csumOffset: [0, 6, 16, 2, 65535][random.below(5)],
    outerTransport: random.below(100),
    innerNetwork: random.below(100),
  };
}

/** Every packet that is delivered can be trusted as far as its header goes. */
function checkDelivered(node: TestNode): void {
  for (const [port, packets] of Object.entries(node.collectAll())) {
    for (const bytes of packets) {
      const packet = port === 'ul0' ? bytes.subarray(14) : bytes;
      if (port === 'ul0' && bytes[12] === 8 && bytes[13] === 6) continue;
      const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
      assert.ok(
        packet[0] >> 4 === 4 && view.getUint16(2) === packet.length,
        `${port}: ${Buffer.from(packet).toString('hex')}`,
      );
      assert.ok(slowHeaderOk(packet), `${port}: ${Buffer.from(packet).toString('hex')}`);
    }
  }
}

/** After whatever came before, good packets pass, inside and from outside. */
function checkGoodPasses(node: TestNode): void {
  node.collectAll();
  node.send('p1', udp4({ src: POD, dst: POD2 }));
  assert.equal(node.collect('p2').length, 1, 'from pod to pod');
  node.send('ul0', fromWire(icmpEcho({ type: 0, src: REMOTE, dst: POD })));
  assert.equal(node.collect('p1').length, 1, 'from the uplink to a pod');
  node.send('tp0', udp4({ src: '10.244.1.1', dst: POD2 }));
  assert.equal(node.collect('p2').length, 1, 'from the host to a pod');
}

describe(`${PACKETS} malformed packets of each protocol (SEED=${SEED})`, function () {
  this.timeout(30_000);
  for (const protocol of ['ipip', 'vxlan', 'geneve'] as const) {
    for (const { port, kind, templates } of PORTS) {
      // What the tunnel is matters to its own packets only; the others once is enough.
      const own = templates.filter(t => t.name.toLowerCase() === protocol || protocol === 'vxlan');
      for (const template of own) {
        it(`${template.name} into a ${kind} port of a node with ${protocol}`, () => {
          const random = new Random(SEED);
          const node = new TestNode({ protocol, offloads: 0 });
          node.meetNeighbors();
          for (let sent = 0; sent < PACKETS; sent += BATCH) {
            for (let i = 0; i < BATCH; i++) node.device(port).inject(malform(template, random));
            node.work(port);
            checkDelivered(node);
            node.advance(10, 10);
          }
          assert.equal(node.balance, 0, 'every packet is counted');
          node.advance(FRAGMENT_TIMEOUT_MS, 1000);
          assert.equal(node.leaked, 0, 'every packet is given back');
          checkGoodPasses(node);
        });
      }
    }
  }

  for (const { port, kind, templates } of PORTS) {
    for (const offloads of [0, ALL_OFFLOADS]) {
      it(`virtio-net headers that lie into a ${kind} port ${offloads === 0 ? 'without offloads' : 'with all'}`, () => {
        const random = new Random(SEED);
        const node = new TestNode({ offloads });
        node.meetNeighbors();
        for (let sent = 0; sent < PACKETS; sent++) {
          const template = templates[sent % templates.length];
          const bytes = random.below(2) === 0 ? template.bytes : malform(template, random);
          node.device(port).inject(bytes, malformVnet(random));
          if (sent % BATCH === 0) {
            node.work(port);
            node.collectAll();
            node.advance(10, 10);
          }
        }
        node.work(port);
        assert.equal(node.balance, 0, 'every packet is counted');
        node.advance(FRAGMENT_TIMEOUT_MS, 1000);
        assert.equal(node.leaked, 0, 'every packet is given back');
        checkGoodPasses(node);
      });
    }
  }
});

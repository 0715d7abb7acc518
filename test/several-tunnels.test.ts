/** Several tunnels at once: what is sent into which, what is accepted of which, and what changes while packets flow. */
import { strict as assert } from 'node:assert';
import * as verdict from '../datapath/verdict.ts';
import { ethernet, ipip, pattern, udp4 } from './fixtures/packets.ts';
import { fromWire, NODE, PEER, POD, TestNode } from './forward-rig.ts';

const OTHER = '192.168.10.3';
const TUNNELS = [
  { name: 'ip', protocol: 'ipip', peers: [{ address: PEER }] },
  { name: 'one', protocol: 'vxlan', vni: 1, peers: [{ address: PEER }] },
  { name: 'two', protocol: 'vxlan', vni: 2, peers: [{ address: PEER }, { address: OTHER }] },
  { name: 'far', protocol: 'vxlan', port: 4789, vni: 1, peers: [{ address: PEER }] },
  { name: 'gn', protocol: 'geneve', vni: 9, peers: [{ address: PEER }] },
];
const NAMES = [...TUNNELS.map(({ name }) => name), 'native'];
const remote = (name: string) => `10.244.${10 + NAMES.indexOf(name)}.20`;
const ROUTES = NAMES.map(name => ({
  to: `10.244.${10 + NAMES.indexOf(name)}.0/24`,
  via: PEER,
  encap: name === 'native' ? false : name,
}));
const MACS = { node: '02:42:c0:a8:0a:01', peer: '02:42:c0:a8:0a:02' };

function make(routes = ROUTES, tunnels: object[] = TUNNELS): TestNode {
  const node = new TestNode({ tunnels, routes });
  node.meetNeighbors();
  return node;
}

/** Outer protocol, UDP destination port and VNI of a frame on the wire; -1 for what it has not. */
function kindOf(frame: Uint8Array): [protocol: number, port: number, vni: number] {
  const view = new DataView(frame.buffer, frame.byteOffset);
  const protocol = frame[14 + 9];
  const port = protocol === 17 ? view.getUint16(14 + 20 + 2) : -1;
  const vni = [8472, 4789, 6081].includes(port) ? view.getUint32(14 + 28 + 4) >>> 8 : -1;
  return [protocol, port, vni];
}

/** A tunnel packet as a peer sends it. */
function encapsulated(
  o: { src?: string; port?: number; vni: number; geneve?: boolean },
  inner: Uint8Array,
): Uint8Array {
  const header = o.geneve ? [0, 0, 0x65, 0x58] : [8, 0, 0, 0];
  const frame = ethernet(inner, { src: MACS.peer, dst: MACS.node });
  const payload = Uint8Array.from([...header, 0, 0, o.vni, 0, ...frame]);
  return udp4({ src: o.src ?? PEER, dst: NODE, sport: 50000, dport: o.port ?? (o.geneve ? 6081 : 8472), payload });
}

describe('several tunnels', () => {
  it('each route sends into the one that it names', () => {
    const node = make();
    const kinds = NAMES.map(name => {
      node.send('p1', udp4({ src: POD, dst: remote(name), sport: 1, dport: 2, payload: pattern(50) }));
      const [frame] = node.collect('ul0');
      return [name, ...kindOf(frame)];
    });
    assert.deepEqual(kinds, [
      ['ip', 4, -1, -1],
      ['one', 17, 8472, 1],
      ['two', 17, 8472, 2],
      ['far', 17, 4789, 1],
      ['gn', 17, 6081, 9],
      ['native', 17, 2, -1],
    ]);
    assert.equal(node.balance, 0);
  });

  it('all are accepted, told apart by protocol, port and VNI, whatever is sent', () => {
    const node = make([]);
    const inner = udp4({ src: '10.9.9.9', dst: POD, sport: 1, dport: 2, payload: pattern(20) });
    const fit = [
      ipip(inner, { src: PEER, dst: NODE }),
      encapsulated({ vni: 1 }, inner),
      encapsulated({ vni: 2 }, inner),
      encapsulated({ vni: 2, src: OTHER }, inner),
      encapsulated({ vni: 1, port: 4789 }, inner),
      encapsulated({ vni: 9, geneve: true }, inner),
    ];
    for (const packet of fit) {
      node.send('ul0', fromWire(packet));
      assert.equal(node.collect('p1').length, 1);
    }
    const unfit: [Uint8Array, number][] = [
      [encapsulated({ vni: 3 }, inner), verdict.DROP_TUNNEL_UNKNOWN_VNI],
      [encapsulated({ vni: 2, port: 4789 }, inner), verdict.DROP_TUNNEL_UNKNOWN_VNI],
      // A peer of another tunnel only.
      [encapsulated({ vni: 1, src: OTHER }, inner), verdict.DROP_TUNNEL_UNKNOWN_PEER],
      [ipip(inner, { src: OTHER, dst: NODE }), verdict.DROP_TUNNEL_UNKNOWN_PEER],
    ];
    for (const [packet, reason] of unfit) {
      const before = node.counters.dropped(reason);
      node.send('ul0', fromWire(packet));
      assert.deepEqual([node.collect('p1').length, node.counters.dropped(reason) - before], [0, 1]);
    }
    assert.equal(node.balance, 0);
  });

  it('the MTU is that of the route, and pods have room in every tunnel', () => {
    const node = make();
    const limits = NAMES.map(name => {
      node.send('p1', udp4({ src: POD, dst: remote(name), fragment: 0x4000, payload: pattern(1490) }));
      node.collect('ul0');
      const [error] = node.collect('p1');
      return error === undefined ? 'fits' : new DataView(error.buffer, error.byteOffset).getUint16(20 + 6);
    });
    assert.deepEqual(limits, [1480, 1450, 1450, 1450, 1450, 1500]);
  });

  it('a pod may imitate none of them', () => {
    const node = make();
    const inner = udp4({ src: '10.9.9.9', dst: POD });
    for (const packet of [ipip(inner, { src: POD, dst: PEER }), udp4({ src: POD, dst: OTHER, dport: 8472 })]) {
      const before = node.counters.dropped(verdict.DROP_ENCAP_FROM_WORKLOAD);
      node.send('p1', packet);
      assert.equal(node.counters.dropped(verdict.DROP_ENCAP_FROM_WORKLOAD) - before, 1);
    }
  });

  it('a flow keeps its source port when peers come and go, and when headers change', () => {
    const tunnel = { name: 't', protocol: 'vxlan', vni: 1, peers: [{ address: PEER }] };
    const routes = [{ to: '10.244.2.0/24', via: PEER, encap: 't' }];
    const node = make(routes, [tunnel]);
    const seen = () => {
      node.send('p1', udp4({ src: POD, dst: '10.244.2.20', sport: 7, dport: 8, payload: pattern(9) }));
      const [frame] = node.collect('ul0');
      return [new DataView(frame.buffer, frame.byteOffset).getUint16(14 + 20), kindOf(frame)[2]];
    };
    const [port] = seen();
    node.reconfigure({ routes, tunnels: [{ ...tunnel, peers: [{ address: OTHER }, { address: PEER }] }] });
    assert.deepEqual(seen(), [port, 1]);
    node.reconfigure({ routes, tunnels: [tunnel] });
    assert.deepEqual(seen(), [port, 1]);
    node.reconfigure({ routes, tunnels: [{ ...tunnel, vni: 5 }] });
    assert.deepEqual(seen(), [port, 5]);
  });
});

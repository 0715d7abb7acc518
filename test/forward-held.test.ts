/** The path of packets that do not go through it at once or as they are: held, cut, put together, or told of. */
import { strict as assert } from 'node:assert';
import { OFFLOAD_CSUM } from '../datapath/io/device.ts';
import { VERDICT_NAMES } from '../datapath/verdict.ts';
import * as virtio from '../datapath/wire/virtio-net.ts';
import {
  arpFrame,
  fix,
  fragment,
  icmpEcho,
  icmpError,
  ipv4,
  patch,
  pattern,
  sctp4,
  tcp4,
  udp4,
} from './fixtures/packets.ts';
import { fromWire, GATEWAY, HOST, NODE, NODE_MAC, PEER, PEER_MAC, POD, POD2, REMOTE, TestNode } from './forward-rig.ts';
import { back, DF, OUTSIDE, ofLength, onWire, outputOf, podEcho, vxlan } from './forward-text.ts';

describe('a neighbour that is not known yet', () => {
  const reply = arpFrame({ oper: 2, sha: PEER_MAC, spa: PEER, tha: NODE_MAC, tpa: NODE });

  it('is asked for, packets wait, and leave in their order', () => {
    const node = new TestNode();
    node.send('p1', ...[1, 2, 3].map(i => ofLength(100 + i)));
    assert.deepEqual(outputOf(node), [`ul0: arp who-has ${PEER}`]);
    assert.equal(node.datapath.neighbors.held, 3);
    node.send('ul0', reply);
    assert.deepEqual(
      outputOf(node),
      [1, 2, 3].map(i => onWire(`${POD} > ${REMOTE} udp 53 ttl=63 len=${100 + i}`)),
    );
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('is asked for three times, a second apart; then the senders hear of it, of packets in a tunnel, too', () => {
    const node = new TestNode();
    node.send('p1', podEcho());
    node.send('p2', icmpEcho({ src: POD2, dst: '192.168.10.77' }));
    node.send('tp0', udp4({ src: HOST, dst: REMOTE }));
    node.collectAll();
    node.advance(2900);
    assert.deepEqual(outputOf(node).length, 4, 'two more requests for each of two');
    node.advance(200);
    assert.deepEqual(outputOf(node), [
      `p1: ${HOST} > ${POD} icmp 3/1 ttl=64 len=112`,
      `p2: ${HOST} > ${POD2} icmp 3/1 ttl=64 len=112`,
      `tp0: ${REMOTE} > ${HOST} icmp 3/1 ttl=64 len=56`,
    ]);
    assert.equal(node.counters.dropped(55), 3);
    assert.equal(VERDICT_NAMES[55], 'drop-neighbor-unreachable');
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('quotes the inner packet as it was sent into each tunnel', () => {
    for (const protocol of ['none', 'ipip', 'vxlan', 'geneve'] as const) {
      const node = new TestNode({ protocol });
      const sent = podEcho();
      node.send('p1', sent);
      node.advance(3200);
      const [error] = node.collect('p1');
      const quoted = error.slice(28);
      // The TTL has gone down, and with it the header checksum has changed.
      assert.deepEqual([...quoted], [...fix(patch(sent, 8, 63))], protocol);
    }
  });

  it('the datapath answers for its own addresses only', () => {
    const node = new TestNode();
    for (const tpa of [NODE, PEER, POD, HOST])
      node.send('ul0', arpFrame({ sha: '02:00:00:00:00:09', spa: '192.168.10.9', tpa }));
    assert.deepEqual(outputOf(node), [`ul0: arp reply ${NODE}`]);
    assert.equal(node.balance, 0);
  });
});

describe('fragments', () => {
  const cut = (packet: Uint8Array, at: number) => [
    fragment(packet, 0, at),
    fragment(packet, at, packet.length - 20 - at),
  ];

  it('of a tunnel packet are put together at the exit, in any order', () => {
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const node = new TestNode();
      node.meetNeighbors();
      const pieces = cut(vxlan(back()), 64);
      for (const i of order) node.send('ul0', fromWire(pieces[i]));
      assert.deepEqual(outputOf(node), [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`]);
      assert.equal(node.balance, 0);
      assert.equal(node.leaked, 0);
    }
  });

  it('that stay alone end in time, and their sender hears of it', () => {
    const node = new TestNode();
    node.meetNeighbors();
    node.send('ul0', fromWire(cut(vxlan(back()), 64)[0]));
    assert.deepEqual(outputOf(node), []);
    node.advance(31_000, 1000);
    assert.ok(outputOf(node).some(line => line.includes(`${NODE} > ${PEER} icmp 11/1`)));
    assert.equal(node.counters.dropped(VERDICT_NAMES.indexOf('drop-fragment-timeout')), 1);
    assert.equal(node.balance, 0);
  });

  it('go through a masquerade as one datagram, in any order, and back', () => {
    const masquerade = [{ from: ['10.244.0.0/16'], action: 'MASQUERADE' }];
    const request = udp4({ src: POD, dst: OUTSIDE, sport: 4000, dport: 53, payload: pattern(100) });
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const node = new TestNode({ masquerade });
      node.meetNeighbors();
      for (const i of order) node.send('p1', cut(request, 64)[i]);
      const out = outputOf(node);
      assert.deepEqual(out, [
        `ul0: ${NODE} > ${OUTSIDE} frag 0+ ttl=63 len=84`,
        `ul0: ${NODE} > ${OUTSIDE} frag 64 ttl=63 len=64`,
      ]);
      const reply = udp4({ src: OUTSIDE, dst: NODE, sport: 53, dport: 4000, payload: pattern(100) });
      for (const i of order) node.send('ul0', fromWire(cut(reply, 64)[i]));
      assert.deepEqual(outputOf(node), [
        `p1: ${OUTSIDE} > ${POD} frag 0+ ttl=63 len=84`,
        `p1: ${OUTSIDE} > ${POD} frag 64 ttl=63 len=64`,
      ]);
      assert.equal(node.balance, 0);
      assert.equal(node.leaked, 0);
    }
  });

  it('of a datagram whose first is refused are refused, too', () => {
    const services = [{ name: 'default/none', addresses: ['10.96.0.1'], ports: [{ port: 53, protocol: 'UDP' }] }];
    const node = new TestNode({ services });
    const request = udp4({ src: POD, dst: '10.96.0.1', dport: 53, payload: pattern(100) });
    for (const piece of cut(request, 64).reverse()) node.send('p1', piece);
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/3 ttl=64 len=112`]);
    assert.equal(node.counters.dropped(VERDICT_NAMES.indexOf('drop-no-service-endpoint')), 2);
    assert.equal(node.balance, 0);
  });
});

describe('the path MTU to a tunnel peer', () => {
  /** What a router says about a tunnel packet of ours that it could not forward. */
  const tooBig = (quoted: Uint8Array, mtu: number) =>
    fromWire(icmpError(3, 4, quoted, { src: GATEWAY, dst: NODE, mtu }));

  it('goes down when the underlay says so, and the pods hear of it', () => {
    const node = new TestNode({ profile: 'rfc' });
    node.meetNeighbors();
    const big = ofLength(1450, { fragment: DF });
    node.send('p1', big);
    const sent = node.collect('ul0');
    assert.equal(sent.length, 1);
    node.send('ul0', tooBig(sent[0].subarray(14), 1400));
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1350 ttl=64 len=576`]);
    node.send('p1', big);
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1350 ttl=64 len=576`]);
    node.send('p1', ofLength(1350, { fragment: DF }));
    assert.equal(node.collect('ul0').length, 1);
    node.advance(601_000, 1000);
    node.meetNeighbors();
    node.send('p1', big);
    assert.equal(node.collect('ul0').length, 1, 'forgotten after ten minutes');
  });

  it('does not go down for what we never sent', () => {
    const node = new TestNode({ profile: 'rfc' });
    node.meetNeighbors();
    const forged = udp4({
      src: NODE,
      dst: '203.0.113.1',
      sport: 50000,
      dport: 8472,
      payload: pattern(80),
      fragment: DF,
    });
    node.send('ul0', tooBig(forged, 1400));
    node.collectAll();
    node.send('p1', ofLength(1450, { fragment: DF }));
    assert.equal(node.collect('ul0').length, 1);
  });
});

describe('checksums and superpackets', () => {
  const GSO = {
    vnetFlags: virtio.FLAG_NEEDS_CSUM,
    gsoType: virtio.GSO_TCPV4,
    gsoSize: 1410,
    csumStart: 20,
    csumOffset: 16,
  };

  function partial(packet: Uint8Array): Uint8Array {
    const copy = packet.slice();
    const view = new DataView(copy.buffer);
    let sum = 0;
    for (let at = 12; at < 20; at += 2) sum += view.getUint16(at);
    sum += copy[9] + copy.length - 20;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    view.setUint16(20 + (copy[9] === 6 ? 16 : 6), sum);
    return copy;
  }

  it('completes what the next device does not take', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const packet = partial(udp4({ src: POD, dst: REMOTE, payload: pattern(99) }));
    node.sendFrame('p1', packet, { vnetFlags: virtio.FLAG_NEEDS_CSUM, csumStart: 20, csumOffset: 6 });
    node.sendFrame('p1', partial(udp4({ src: POD, dst: POD2, payload: pattern(99) })), {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      csumStart: 20,
      csumOffset: 6,
    });
    assert.deepEqual(outputOf(node), [
      `p2: ${POD} > ${POD2} udp 53 ttl=63 len=127`,
      onWire(`${POD} > ${REMOTE} udp 53 ttl=63 len=127`),
    ]);
  });

  it('leaves to the device what it does take', () => {
    const node = new TestNode({ offloads: OFFLOAD_CSUM });
    node.sendFrame('p1', partial(udp4({ src: POD, dst: POD2, payload: pattern(99) })), {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      csumStart: 20,
      csumOffset: 6,
    });
    const [frame] = node.device('p2').collectFrames();
    assert.deepEqual([frame.vnetFlags, frame.csumStart, frame.csumOffset], [virtio.FLAG_NEEDS_CSUM, 20, 6]);
  });

  it('cuts a superpacket for a device and for a tunnel that takes none, each piece whole', () => {
    const node = new TestNode();
    node.meetNeighbors();
    for (const dst of [POD2, REMOTE]) {
      node.sendFrame('p1', partial(tcp4({ src: POD, dst, payload: pattern(10_000), fragment: DF })), GSO);
    }
    const pieces = [...Array(7).fill(1450), 10_000 - 7 * 1410 + 40];
    assert.deepEqual(outputOf(node), [
      ...pieces.map(len => `p2: ${POD} > ${POD2} tcp 80 ttl=63 len=${len}`),
      ...pieces.map(len => onWire(`${POD} > ${REMOTE} tcp 80 ttl=63 len=${len}`)),
    ]);
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('takes a train of tunnel datagrams that GRO has joined apart again', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const datagrams = [1, 2, 3].map(seq => vxlan(back({ sequence: seq })));
    const bodies = datagrams.map(datagram => datagram.subarray(28));
    const train = udp4({
      src: PEER,
      dst: NODE,
      sport: 50000,
      dport: 8472,
      payload: Uint8Array.from(bodies.flatMap(b => [...b])),
    });
    node.sendFrame('ul0', fromWire(partial(train)), {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      gsoType: virtio.GSO_UDP_L4,
      gsoSize: bodies[0].length,
      csumStart: 34,
      csumOffset: 6,
    });
    assert.deepEqual(outputOf(node), Array(3).fill(`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`));
    assert.equal(node.leaked, 0);
  });

  it('tells the sender of a superpacket whose segments are too long', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const packet = partial(tcp4({ src: POD, dst: REMOTE, payload: pattern(10_000), fragment: DF }));
    node.sendFrame('p1', packet, { ...GSO, gsoSize: 1411 });
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1450 ttl=64 len=576`]);
    assert.equal(node.balance, 0);
  });
});

describe('limits', () => {
  it('counts what no flow control holds back: datagrams, each of a train, and not TCP', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const { datapath } = node;
    const count = () => {
      const n = datapath.uncontrolled;
      datapath.uncontrolled = 0;
      return n;
    };
    count();
    node.send('p1', tcp4({ src: POD, dst: POD2 }), tcp4({ src: POD, dst: REMOTE }));
    assert.equal(count(), 0);
    node.send('p1', udp4({ src: POD, dst: POD2 }), udp4({ src: POD, dst: REMOTE }), podEcho());
    assert.equal(count(), 3);
    node.send('p1', udp4({ src: POD2, dst: POD }));
    assert.equal(count(), 0, 'dropped');
    const train = udp4({ src: POD, dst: POD2, payload: pattern(1000) });
    const options = { vnetFlags: virtio.FLAG_NEEDS_CSUM, gsoType: virtio.GSO_UDP_L4, csumStart: 20, csumOffset: 6 };
    node.sendFrame('p1', train, { ...options, gsoSize: 300 });
    assert.equal(count(), 4);
  });

  it('sends no more ICMP errors than the rate allows, and counts those it does not', () => {
    const node = new TestNode();
    // How many is the limiter's own business (mtu/icmp-error.ts).
    const suppressed = () => node.counters.dropped(VERDICT_NAMES.indexOf('drop-icmp-rate-limit'));
    for (let round = 1; round <= 2; round++) {
      const before = suppressed();
      node.send('p1', ...Array.from({ length: 80 }, () => podEcho({ ttl: 1 })));
      const sent = node.collect('p1').length;
      assert.ok(sent >= 1 && sent <= 50, `${sent} in round ${round}`);
      assert.equal(sent + suppressed() - before, 80);
      node.advance(5000);
    }
    assert.equal(node.balance, 0);
  });

  it('a device that is down or full costs the packet and nothing else', () => {
    const node = new TestNode();
    for (const [errno, reason] of [
      [5, 'drop-device-down'],
      [11, 'drop-device-queue-full'],
      [22, 'drop-device-refused'],
    ] as const) {
      node.device('p2').failWrites = errno;
      node.send('p1', udp4({ src: POD, dst: POD2 }));
      assert.equal(node.counters.dropped(VERDICT_NAMES.indexOf(reason)), 1, reason);
    }
    node.device('p2').failWrites = 0;
    node.send('p1', udp4({ src: POD, dst: POD2 }));
    assert.equal(node.collect('p2').length, 1);
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('a flood for unknown neighbours leaves room for a known one', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const flood = Array.from({ length: 3000 }, (_, i) =>
      udp4({ src: POD, dst: `192.168.10.${3 + (i % 250)}`, sport: i + 1 }),
    );
    node.send('p1', ...flood);
    node.collectAll();
    node.send('p1', podEcho());
    assert.deepEqual(outputOf(node), [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84`)]);
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('every packet of a long burst comes out, in its order', () => {
    const node = new TestNode();
    node.send('p1', ...Array.from({ length: 1000 }, (_, i) => udp4({ src: POD, dst: POD2, sport: i + 1 })));
    const ports = node.collect('p2').map(packet => packet[20] * 256 + packet[21]);
    assert.deepEqual(
      ports,
      Array.from({ length: 1000 }, (_, i) => i + 1),
    );
  });

  it('forwards protocols without ports', () => {
    const node = new TestNode();
    node.meetNeighbors();
    node.send('p1', sctp4({ src: POD, dst: POD2 }), ipv4(47, pattern(20), { src: POD, dst: POD2 }));
    assert.equal(node.collect('p2').length, 2);
  });
});

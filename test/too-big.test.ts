/** A packet that is too long for its tunnel: the four ways of RFC 4459, over memory. */
import { strict as assert } from 'node:assert';
import { describe, it } from 'mocha';
import { loadConfig } from '../datapath/control/load-config.ts';
import { EVENT_MSS_CLAMPED } from '../datapath/counters.ts';
import { OFFLOAD_CSUM, OFFLOAD_TSO, OFFLOAD_TUNNEL, OFFLOAD_TUNNEL_CSUM } from '../datapath/io/device.ts';
import { TOO_BIG_NAMES } from '../datapath/route/nexthop.ts';
import { VERDICT_NAMES } from '../datapath/verdict.ts';
import * as virtio from '../datapath/wire/virtio-net.ts';
import { fixHeader, icmpError, pattern, tcp4, udp4 } from './fixtures/packets.ts';
import {
  fromWire,
  GATEWAY,
  HOST,
  NODE,
  type NodeOptions,
  PEER,
  POD,
  REMOTE,
  TestNode,
  VTEP_MACS,
} from './forward-rig.ts';
import { slowHeaderOk, slowTransportOk } from './model/checksum.ts';
import { slowReassemble } from './model/fragment.ts';

const DF = 0x4000;
const OVERHEADS = { ipip: 20, vxlan: 50, geneve: 50 };
type Protocol = keyof typeof OVERHEADS;
const PROTOCOLS = Object.keys(OVERHEADS) as Protocol[];

/** What leaves by the uplink, without Ethernet. */
const onWire = (node: TestNode) => node.collect('ul0').map(frame => frame.subarray(14));
const word = (packet: Uint8Array, at: number) => packet[at] * 256 + packet[at + 1];
const offsetOf = (packet: Uint8Array) => (word(packet, 6) & 0x1fff) * 8;
const isFragment = (packet: Uint8Array) => (word(packet, 6) & 0x3fff) !== 0;

/** Outer datagrams, whole again, from packets of one or several. */
function wholes(packets: Uint8Array[]): Uint8Array[] {
  const groups = new Map<number, Uint8Array[]>();
  for (const packet of packets) groups.set(word(packet, 4), [...(groups.get(word(packet, 4)) ?? []), packet]);
  return [...groups.values()].map(group => {
    const whole = group.length === 1 && !isFragment(group[0]) ? group[0] : slowReassemble(group);
    assert.ok(whole !== null, 'all fragments of a datagram were sent');
    return whole;
  });
}

/** The packet as it is one hop later. */
function oneHopOn(packet: Uint8Array): Uint8Array {
  const next = packet.slice();
  next[8]--;
  return fixHeader(next);
}

function nodeOf(protocol: Protocol, o: NodeOptions): TestNode {
  const node = new TestNode({ protocol, ...o });
  node.meetNeighbors();
  return node;
}

function dropsOf(node: TestNode): string[] {
  return VERDICT_NAMES.filter((name, i) => name.startsWith('drop') && node.counters.values[i] > 0);
}

const bigUdp = (len: number, fragment = 0) =>
  udp4({ src: POD, dst: REMOTE, payload: pattern(len - 28), fragment, id: fragment === DF ? 0 : 77 });

/** What the peer sends by VXLAN, in its frame. */
function tunnelled(packet: Uint8Array, tos = 0): Uint8Array {
  const header = Uint8Array.of(8, 0, 0, 0, 0, 0, 7, 0);
  const macs = [VTEP_MACS[0], VTEP_MACS[1]].flatMap(text => text.split(':').map(byte => Number.parseInt(byte, 16)));
  const payload = Uint8Array.from([...header, ...macs, 8, 0, ...packet]);
  return fromWire(udp4({ src: PEER, dst: NODE, sport: 50000, dport: 8472, tos, payload }));
}

describe('too big for the tunnel', () => {
  for (const protocol of PROTOCOLS) {
    const overhead = OVERHEADS[protocol];
    const limit = 1500 - overhead;

    describe(protocol, () => {
      it('signal: with DF the sender hears the MTU, and sees its packet as it was sent', () => {
        const node = nodeOf(protocol, { mtu: { tooBig: 'signal' } });
        node.send('p1', bigUdp(limit, DF));
        assert.equal(onWire(node).length, 1, 'what fits goes');
        const packet = bigUdp(limit + 1, DF);
        node.send('p1', packet);
        assert.equal(onWire(node).length, 0);
        const [error] = node.collect('p1');
        assert.deepEqual([error[20], error[21], word(error, 26)], [3, 4, limit]);
        // TTL and checksum, too: the next hop it never had is not taken off (Linux's ip_forward).
        assert.deepEqual(error.subarray(28), packet.subarray(0, 576 - 28));
        assert.equal(node.balance, 0);
      });

      it('signal: without DF it is cut inside the tunnel', () => {
        const node = nodeOf(protocol, { mtu: { tooBig: 'signal' } });
        const packet = bigUdp(limit + 1);
        node.send('p1', packet);
        const sent = onWire(node);
        assert.equal(sent.length, 2);
        for (const outer of sent) assert.ok(!isFragment(outer) && outer.length <= 1500);
        assert.deepEqual(slowReassemble(sent.map(outer => outer.subarray(overhead))), oneHopOn(packet));
      });

      for (const fragment of [0, DF]) {
        it(`fragment-outer: the tunnel's packet is cut, the inner one is whole (${fragment === 0 ? 'without' : 'with'} DF)`, () => {
          const node = nodeOf(protocol, { mtu: { tooBig: 'fragment-outer' } });
          for (const len of [limit, limit + 1, 1500, 4000]) {
            const packet = bigUdp(len, fragment);
            node.send('p1', packet);
            const sent = onWire(node);
            assert.ok(sent.every(outer => outer.length <= 1500 && slowHeaderOk(outer)));
            assert.ok(sent.every(outer => (word(outer, 6) & DF) === 0, 'a router on the way may cut further'));
            assert.equal(sent.length, Math.ceil((len + overhead - 20) / 1480), `${len} bytes`);
            const [whole, ...others] = wholes(sent);
            assert.equal(others.length, 0);
            if (protocol !== 'ipip') assert.ok(slowTransportOk(whole), 'the outer checksum is that of the whole');
            assert.deepEqual(whole.subarray(overhead), oneHopOn(packet));
          }
          assert.deepEqual(dropsOf(node), []);
          assert.equal(node.balance, 0);
        });
      }

      it('fragment-outer: a superpacket becomes segments, each cut outside', () => {
        const offloads = OFFLOAD_CSUM | OFFLOAD_TSO | OFFLOAD_TUNNEL | OFFLOAD_TUNNEL_CSUM;
        const node = nodeOf(protocol, { mtu: { tooBig: 'fragment-outer' }, offloads });
        const payload = pattern(14_600);
        const packet = tcp4({ src: POD, dst: REMOTE, payload, fragment: DF });
        node.sendFrame('p1', packet, {
          vnetFlags: virtio.FLAG_NEEDS_CSUM,
          gsoType: virtio.GSO_TCPV4,
          gsoSize: 1460,
          csumStart: 20,
          csumOffset: 16,
        });
        const sent = onWire(node);
        assert.equal(sent.length, 20, 'ten segments of 1500 bytes, two pieces each');
        const inner = wholes(sent).map(outer => outer.subarray(overhead));
        assert.ok(inner.every(segment => segment.length === 1500 && slowHeaderOk(segment)));
        assert.deepEqual(Buffer.concat(inner.map(segment => segment.subarray(40))), Buffer.from(payload));
        assert.equal(node.balance, 0);
      });

      it('fragment-inner: it is cut before the tunnel, with an id of its own if it said DF', () => {
        const node = nodeOf(protocol, { mtu: { tooBig: 'fragment-inner' } });
        const ids = new Set<number>();
        for (let i = 0; i < 3; i++) {
          const packet = bigUdp(1500, DF);
          node.send('p1', packet);
          const sent = onWire(node);
          assert.equal(sent.length, 2);
          const inner = sent.map(outer => outer.subarray(overhead));
          assert.ok(inner.every(piece => piece.length <= limit && (word(piece, 6) & DF) === 0 && slowHeaderOk(piece)));
          ids.add(word(inner[0], 4));
          assert.deepEqual(slowReassemble(inner)?.subarray(20), packet.subarray(20));
        }
        assert.equal(ids.size, 3, 'two datagrams with one id would be mixed up by their receiver (RFC 6864)');
        const packet = bigUdp(1500);
        node.send('p1', packet);
        assert.deepEqual(slowReassemble(onWire(node).map(outer => outer.subarray(overhead))), oneHopOn(packet));
        assert.equal(node.balance, 0);
      });

      it('larger-underlay: what pods send fits; nothing is cut or signalled', () => {
        const node = nodeOf(protocol, { mtu: { tooBig: 'larger-underlay' }, uplink: { mtu: 1500 + overhead } });
        node.send('p1', bigUdp(1500, DF));
        const sent = onWire(node);
        assert.deepEqual([sent.length, sent[0].length], [1, 1500 + overhead]);
        node.send('p1', bigUdp(1501), bigUdp(1501, DF));
        assert.deepEqual(node.collectAll(), {});
        assert.deepEqual(dropsOf(node), ['drop-underlay-too-small']);
        assert.equal(node.balance, 0);
      });
    });
  }

  it('the way of a route goes before that of the node', () => {
    const routes = [{ to: '10.244.3.0/24', via: PEER, encap: true, tooBig: 'fragment-outer' }];
    const node = nodeOf('vxlan', { mtu: { tooBig: 'signal' }, routes });
    node.send('p1', udp4({ src: POD, dst: '10.244.3.5', payload: pattern(1472), fragment: DF }));
    assert.equal(onWire(node).length, 2);
    node.send('p1', bigUdp(1500, DF));
    assert.equal(onWire(node).length, 0);
  });

  it('an inner fragment that is longer than the underlay takes is cut once more outside', () => {
    const routes = [{ to: '10.244.3.0/24', via: PEER, encap: true, tooBig: 'fragment-outer', mtu: 3000 }];
    const node = nodeOf('vxlan', { routes });
    const packet = udp4({ src: POD, dst: '10.244.3.5', payload: pattern(7972), id: 5 });
    node.send('p1', packet);
    const inner = wholes(onWire(node)).map(outer => outer.subarray(50));
    assert.deepEqual(inner.map(offsetOf), [0, 2976, 5952]);
    assert.deepEqual(slowReassemble(inner), oneHopOn(packet));
    assert.equal(node.balance, 0);
  });

  describe('where the underlay turns out narrower', () => {
    /** A router says of the last tunnel packet that it takes 1400. */
    const narrow = (node: TestNode) => {
      node.send('p1', udp4({ src: POD, dst: REMOTE, payload: pattern(1380), fragment: DF }));
      const [sent] = onWire(node);
      node.send('ul0', fromWire(icmpError(3, 4, sent, { src: GATEWAY, dst: NODE, mtu: 1400 })));
    };

    it('signal: the sender hears of it', () => {
      const node = nodeOf('vxlan', { tunnel: { df: 'set' } });
      narrow(node);
      assert.equal(word(node.collect('p1')[0], 26), 1350);
    });

    for (const tooBig of ['fragment-outer', 'fragment-inner']) {
      it(`${tooBig}: the next are cut to it, and nobody hears of it`, () => {
        const node = nodeOf('vxlan', { mtu: { tooBig }, tunnel: { df: 'set' } });
        narrow(node);
        node.send('p1', bigUdp(1408, DF));
        const sent = onWire(node);
        assert.equal(sent.length, 2);
        assert.ok(sent.every(outer => outer.length <= 1400));
        assert.deepEqual(node.collect('p1'), []);
      });
    }

    it('larger-underlay: nothing is done about it', () => {
      const node = nodeOf('vxlan', {
        mtu: { tooBig: 'larger-underlay' },
        uplink: { mtu: 1550 },
        tunnel: { df: 'set' },
      });
      narrow(node);
      node.send('p1', bigUdp(1500, DF));
      assert.equal(onWire(node)[0].length, 1550);
    });
  });

  it('a gateway never answers: the sender of a tunnel packet that was cut hears of it, once', () => {
    const node = new TestNode({ mtu: { tooBig: 'fragment-outer' } });
    node.send('p1', bigUdp(1500));
    node.advance(4000);
    const errors = node.collect('p1');
    assert.deepEqual(
      errors.map(error => [error[20], error[21], word(error, 30), error.length]),
      [[3, 1, 1500, 576]],
    );
    assert.equal(node.balance, 0);
  });
});

describe('the outer header, by configuration', () => {
  const sentWith = (tunnel: object, inner: Uint8Array) => {
    const node = nodeOf('vxlan', { tunnel });
    node.send('p1', inner);
    return onWire(node)[0];
  };
  const inner = (fragment: number, tos = 0) => udp4({ src: POD, dst: REMOTE, fragment, tos, ttl: 9 });

  it('DF set, cleared, inherited', () => {
    const df = (way: string, fragment: number) => word(sentWith({ df: way }, inner(fragment)), 6) & DF;
    assert.deepEqual([df('set', 0), df('set', DF)], [DF, DF]);
    assert.deepEqual([df('clear', 0), df('clear', DF)], [0, 0]);
    assert.deepEqual([df('inherit', 0), df('inherit', DF)], [0, DF]);
  });

  it('TTL and UDP checksum', () => {
    assert.equal(sentWith({ ttl: 17 }, inner(0))[8], 17);
    assert.equal(sentWith({ ttl: 'inherit' }, inner(0))[8], 8);
    assert.equal(word(sentWith({ udpChecksum: false }, inner(0)), 26), 0);
    assert.notEqual(word(sentWith({ udpChecksum: true }, inner(0)), 26), 0);
  });

  it('DSCP by number, copied, and uniform; ECN of either kind', () => {
    const tos = 0xb8 | 3; // EF, CE
    assert.equal(sentWith({ dscp: 10, ecn: 'linux' }, inner(0, tos))[1], (10 << 2) | 2);
    assert.equal(sentWith({ dscp: 'inherit', ecn: 'rfc6040' }, inner(0, tos))[1], tos);
    assert.equal(sentWith({ dscp: 'uniform', ecn: 'rfc6040' }, inner(0, tos))[1], tos);
  });
});

describe('a DSCP that was changed on the way', () => {
  for (const [dscp, arrives] of [
    ['uniform', 0xb8],
    ['inherit', 0x28],
    [0, 0x28],
  ] as const) {
    it(`${arrives === 0x28 ? 'ends with the tunnel' : 'goes on to the pod'}: ${dscp}`, () => {
      const node = nodeOf('vxlan', { tunnel: { dscp } });
      node.send('ul0', tunnelled(udp4({ src: REMOTE, dst: POD, tos: 0x28 }), 0xb8));
      const [packet] = node.collect('p1');
      assert.equal(packet[1], arrives);
      assert.ok(slowHeaderOk(packet));
    });
  }
});

describe('MSS clamp', () => {
  const SYN = 2;
  const mssOf = (packet: Uint8Array) => word(packet, 42);
  const syn = (o: Parameters<typeof tcp4>[0]) =>
    tcp4({ flags: SYN, tcpOptions: Uint8Array.of(2, 4, 1460 >> 8, 1460 & 255), ...o });
  it('to what the tunnel takes, on the way in and on the way out; the checksum stays right', () => {
    const node = nodeOf('vxlan', { mtu: { clampMss: true } });
    node.send('p1', syn({ src: POD, dst: REMOTE }));
    const out = onWire(node)[0].subarray(50);
    assert.equal(mssOf(out.subarray(0)), 1410);
    assert.ok(slowTransportOk(out));
    node.send('ul0', tunnelled(syn({ src: REMOTE, dst: POD })));
    const [packet] = node.collect('p1');
    assert.equal(mssOf(packet), 1410);
    assert.ok(slowTransportOk(packet));
    assert.equal(node.counters.events(EVENT_MSS_CLAMPED), 2);
  });

  it('of connections to the host itself, too', () => {
    const node = nodeOf('vxlan', { mtu: { clampMss: true } });
    node.send('ul0', tunnelled(syn({ src: REMOTE, dst: HOST })));
    const [packet] = node.collect('tp0');
    assert.equal(mssOf(packet), 1410);
    assert.ok(slowTransportOk(packet));
    node.send('p1', syn({ src: POD, dst: HOST }));
    assert.equal(mssOf(node.collect('tp0')[0]), 1410, "the pod's own MTU");
  });

  it('to the MTU of the route that is used', () => {
    const routes = [{ to: '10.244.3.0/24', via: PEER, encap: true, mtu: 1300 }];
    const node = nodeOf('vxlan', { mtu: { clampMss: true }, routes });
    node.send('p1', syn({ src: POD, dst: '10.244.3.5' }));
    assert.equal(mssOf(onWire(node)[0].subarray(50)), 1260);
  });

  it('to what passes uncut where the tunnel cuts', () => {
    const node = nodeOf('vxlan', { mtu: { clampMss: true, tooBig: 'fragment-outer' } });
    node.send('p1', syn({ src: POD, dst: REMOTE }));
    assert.equal(mssOf(onWire(node)[0].subarray(50)), 1410);
  });

  it('is off unless asked for', () => {
    const node = nodeOf('vxlan', {});
    node.send('p1', syn({ src: POD, dst: REMOTE }));
    assert.equal(mssOf(onWire(node)[0].subarray(50)), 1460);
  });
});

describe('configurations of the four ways', () => {
  const problemsOf = (spec: object) => {
    const base = {
      uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
      tunnel: { protocol: 'vxlan', peers: [{ address: '192.168.10.2' }] },
    };
    const text = JSON.stringify({
      apiVersion: 'tunpath.dev/v1',
      kind: 'NodeConfig',
      metadata: { name: 'a' },
      spec: { ...base, ...spec },
    });
    return (loadConfig(text, 'x.yaml').problems ?? []).map(({ path, message }) => `${path}: ${message}`);
  };

  it('are refused where they cannot be', () => {
    assert.deepEqual(problemsOf({ mtu: { tooBig: 'larger-underlay' } }), [
      'spec.uplink.mtu: got nothing, expected at least 1550: mtu.tooBig is larger-underlay, pods send 1500 bytes, vxlan adds 50',
    ]);
    const routes = [{ to: '10.9.0.0/16', via: '192.168.10.9', tooBig: 'fragment-outer' }];
    assert.deepEqual(problemsOf({ routes }), [
      'spec.routes[0].tooBig: got "fragment-outer", expected signal or fragment-inner: fragment-outer is about a tunnel, and encap is false',
    ]);
    assert.match(
      problemsOf({ mtu: { tooBig: 'fragment' } })[0],
      /^spec\.mtu\.tooBig: got "fragment", expected one of signal, fragment-outer/,
    );
    assert.match(
      problemsOf({ tunnel: { protocol: 'vxlan', dscp: 64 } })[0],
      /^spec\.tunnel\.dscp: got 64, expected inherit, uniform, or/,
    );
  });

  it('are taken where they can', () => {
    for (const tooBig of TOO_BIG_NAMES.slice(0, 3)) assert.deepEqual(problemsOf({ mtu: { tooBig } }), []);
  });
});

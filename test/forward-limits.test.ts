/** Rare meetings: what has been held meets a change, a cut packet a dead neighbour, a narrow path a wide header. */
import { strict as assert } from 'node:assert';
import { describe, it } from 'mocha';
import { EVENT_SEGMENTED, EVENT_SEGMENTS_SENT } from '../datapath/counters.ts';
import { OFFLOAD_CSUM, OFFLOAD_TSO, OFFLOAD_USO } from '../datapath/io/device.ts';
import { DROP_MALFORMED_VNET_HEADER, DROP_NO_BUFFER } from '../datapath/verdict.ts';
import * as virtio from '../datapath/wire/virtio-net.ts';
import { fixHeader, fragment, icmpError, mac, pattern, tcp4, udp4 } from './fixtures/packets.ts';
import { fromWire, GATEWAY, NODE, PEER, POD, POD2, REMOTE, TestNode, VTEP_MACS } from './forward-rig.ts';
import { slowPseudoSum } from './model/checksum.ts';
import { type SlowRules, slowEncap } from './model/tunnel.ts';

const DF = 0x4000;
const word = (packet: Uint8Array, at: number) => packet[at] * 256 + packet[at + 1];
/** Long enough for ARP to give up. */
const ARP_GIVES_UP_MS = 4000;

describe('at the limits', () => {
  it('the inner sender hears of a dead peer also when the tunnel has changed meanwhile', () => {
    for (const tunnel of [null, 'other'] as const) {
      const node = new TestNode({ protocol: 'vxlan' });
      const packet = udp4({ src: POD, dst: REMOTE, payload: pattern(100) });
      node.send('p1', packet);
      const other = new TestNode({ protocol: 'ipip' });
      node.datapath.tunnels.put(1, tunnel === null ? null : other.datapath.tunnels.list[0]);
      node.advance(ARP_GIVES_UP_MS);
      const [error] = node.collect('p1');
      assert.deepEqual([error[20], error[21]], [3, 1]);
      // One hop on, so all but TTL and header checksum.
      assert.deepEqual(error.subarray(28, 36), packet.subarray(0, 8));
      assert.deepEqual(error.subarray(40), packet.subarray(12));
      assert.equal(node.balance, 0);
    }
  });

  it('nobody hears of a later fragment whose tunnel packet was cut, too, when the peer is dead', () => {
    const node = new TestNode({ protocol: 'vxlan', mtu: { tooBig: 'fragment-outer' } });
    const whole = udp4({ src: POD, dst: REMOTE, payload: pattern(6000) });
    node.send('p1', fragment(whole, 2960, 2960));
    node.advance(ARP_GIVES_UP_MS);
    assert.deepEqual(node.collect('p1'), [], 'RFC 1812 section 4.3.2.7');
    node.send('p1', fragment(whole, 0, 2960));
    node.advance(ARP_GIVES_UP_MS);
    const [error] = node.collect('p1');
    assert.deepEqual([error[20], error[21]], [3, 1]);
    assert.deepEqual(error.subarray(40, 576), whole.subarray(12, 548).with(0, whole[12]));
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('a path too narrow for the headers is told of as 68 bytes, not as less than nothing', () => {
    const data = 'ab'.repeat(124);
    const node = new TestNode({
      protocol: 'geneve',
      profile: 'rfc',
      mtu: { clampMss: true },
      tunnel: { options: [{ class: 0x0102, type: 1, data }] },
    });
    node.meetNeighbors();
    node.send('p1', udp4({ src: POD, dst: REMOTE, fragment: DF, payload: pattern(1000) }));
    const quoted = node.collect('ul0')[0].slice(14);
    node.send('ul0', fromWire(icmpError(3, 4, quoted, { src: GATEWAY, dst: NODE, mtu: 68 })));
    const [relayed] = node.collect('p1');
    assert.deepEqual([...relayed.subarray(20, 22), ...relayed.subarray(24, 28)], [3, 4, 0, 0, 0, 68]);
    node.send('p1', udp4({ src: POD, dst: REMOTE, fragment: DF, payload: pattern(1000) }));
    const [error] = node.collect('p1');
    assert.deepEqual([...error.subarray(20, 22), ...error.subarray(24, 28)], [3, 4, 0, 0, 0, 68]);
    node.send('p1', udp4({ src: POD, dst: REMOTE, payload: pattern(100) }));
    assert.equal(node.collect('ul0').length, 3, 'cut to what every link takes');
    node.send('p1', tcp4({ src: POD, dst: REMOTE, flags: 2, tcpOptions: Uint8Array.of(2, 4, 5, 0xb4) }));
    const [syn] = node.collect('ul0');
    assert.equal(word(syn, syn.length - 2), 28);
    assert.equal(node.counters.dropped(DROP_NO_BUFFER), 0);
    assert.equal(node.balance, 0);
  });

  it('a train of tunnel packets is cut in software, and that is counted', () => {
    const node = new TestNode({ offloads: OFFLOAD_CSUM | OFFLOAD_USO });
    node.meetNeighbors();
    const one = udp4({ src: REMOTE, dst: POD, payload: pattern(100) });
    const header = [8, 0, 0, 0, 0, 0, 7, 0, ...mac(VTEP_MACS[0]), ...mac(VTEP_MACS[1]), 8, 0];
    const payload = Uint8Array.from([1, 2, 3].flatMap(() => [...header, ...one]));
    const train = udp4({ src: PEER, dst: NODE, sport: 50_000, dport: 8472, payload });
    new DataView(train.buffer).setUint16(26, slowPseudoSum(train));
    node.sendFrame('ul0', fromWire(train), {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      gsoType: virtio.GSO_UDP_L4,
      gsoSize: payload.length / 3,
      csumStart: 34,
      csumOffset: 6,
    });
    assert.deepEqual([node.counters.events(EVENT_SEGMENTED), node.counters.events(EVENT_SEGMENTS_SENT)], [1, 3]);
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it("a superpacket in somebody else's tunnel is cut for a device that does not take it, tunnel headers on each segment", () => {
    const offloads = OFFLOAD_CSUM | OFFLOAD_TSO;
    const rules: SlowRules = {
      protocol: 'vxlan',
      port: 4999,
      vni: 9,
      local: GATEWAY.split('.').map(Number),
      localMac: [...mac(VTEP_MACS[1])],
      ttl: 64,
      dscp: 0,
      df: 0,
      udpChecksum: true,
      copyCe: true,
    };
    const to = {
      address: NODE.split('.').map(Number),
      mac: [...mac(VTEP_MACS[0])],
      identity: 0,
      id: 5,
      source: 50_000,
    };
    const payload = pattern(2500);
    const segmentOf = (at: number, end: number, id: number) =>
      tcp4({ id, seq: 1 + at, flags: end === 2500 ? 0x18 : 0x10, payload: payload.slice(at, end) });
    for (const isChecked of [false, true]) {
      const node = new TestNode({ offloads });
      const inner = tcp4({ id: 7, flags: 0x18, payload });
      new DataView(inner.buffer).setUint16(36, slowPseudoSum(inner));
      const outer = slowEncap({ ...rules, udpChecksum: false }, inner, to);
      if (isChecked) new DataView(outer.buffer).setUint16(26, slowPseudoSum(outer));
      const fields = {
        vnetFlags: virtio.FLAG_NEEDS_CSUM | (isChecked ? virtio.FLAG_UDP_TUNNEL_CSUM : 0),
        gsoType: virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4,
        gsoSize: 1000,
        csumStart: 14 + 50 + 20,
        csumOffset: 16,
        outerTransport: 34,
        innerNetwork: 64,
      };
      const toPod = outer.slice();
      toPod.set(POD.split('.').map(Number), 16);
      if (isChecked) new DataView(toPod.buffer).setUint16(26, slowPseudoSum(toPod));
      node.sendFrame('ul0', fromWire(fixHeader(toPod)), fields);
      const want = [segmentOf(0, 1000, 7), segmentOf(1000, 2000, 8), segmentOf(2000, 2500, 9)].map((one, i) => {
        const podBound = { ...to, address: POD.split('.').map(Number), id: 5 + i };
        return slowEncap({ ...rules, udpChecksum: isChecked, ttl: 63 }, one, podBound);
      });
      assert.deepEqual(node.collect('p1'), want);
      assert.equal(node.balance, 0);

      node.sendFrame('ul0', fromWire(fixHeader(toPod)), { ...fields, csumStart: 14 + 2500 });
      assert.equal(node.counters.dropped(DROP_MALFORMED_VNET_HEADER), 1, 'headers that are not where they should be');
      assert.equal(node.balance, 0);
    }
  });

  it('a burst is refilled although all that is free waits to be written', () => {
    // 64 of the 96 are the burst's: what two ports have queued is all the rest.
    const node = new TestNode({ protocol: 'none', slots: 96, offloads: 0 });
    node.meetNeighbors();
    const free = node.pool.available;
    for (let round = 0; round < 3; round++) {
      const cut = Array.from({ length: 64 }, (_, i) => {
        return udp4({
          src: POD,
          dst: i % 2 === 0 ? POD2 : '203.0.113.9',
          id: i,
          payload: pattern(i === 0 ? 1400 * (free - 2) : 9),
        });
      });
      node.send('p1', ...cut);
      assert.equal(node.balance, 0);
      assert.equal(node.leaked, 0);
      node.collectAll();
    }
    node.send('p1', udp4({ src: POD, dst: POD2 }));
    assert.equal(node.collect('p2').length, 1);
  });
});

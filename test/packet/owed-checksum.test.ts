import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Counters } from '../../datapath/counters.ts';
import { markOwedChecksum } from '../../datapath/packet/owed-checksum.ts';
import { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { completeChecksum, segment } from '../../datapath/packet/segment.ts';
import { slowPseudoSum } from '../../datapath/packet/slow-checksum.ts';
import { PROFILES } from '../../datapath/profile.ts';
import { Random } from '../../datapath/random.ts';
import { TUNNEL_IPIP } from '../../datapath/tunnel/spec.ts';
import { Tunnel } from '../../datapath/tunnel/tunnel.ts';
import { CONTINUE, DROP_MALFORMED_VNET_HEADER } from '../../datapath/verdict.ts';
import * as tcp from '../../datapath/wire/tcp.ts';
import * as virtio from '../../datapath/wire/virtio-net.ts';
import { bytesOf, fragment, icmpEcho, ip, ipip, load, patch, pattern, sctp4, tcp4, udp4 } from '../fixtures/packets.ts';

const MTU = 1480;

/** The packet with the pseudo header's sum in its checksum field, as a kernel hands it to a device. */
function owing(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  const offset = (copy[0] & 15) * 4 + (copy[9] === 6 ? 16 : 6);
  new DataView(copy.buffer).setUint16(offset, slowPseudoSum(copy));
  return copy;
}

/** Marks `bytes` where they are all there is: reading elsewhere throws. */
function mark(bytes: Uint8Array, segmentLen = 0): Packet {
  const p = new Packet(0, 0);
  p.len = bytes.length;
  const view = new DataView(Uint8Array.from(bytes).buffer);
  markOwedChecksum(view, p, 0, bytes.length, 0, MTU, segmentLen);
  return p;
}

describe('a checksum that its sender owes', () => {
  const rows: [string, Uint8Array, number[]][] = [
    ['TCP', owing(tcp4({ payload: pattern(100) })), [virtio.FLAG_NEEDS_CSUM, 20, 16, 0, 0]],
    ['UDP', owing(udp4({ payload: pattern(100) })), [virtio.FLAG_NEEDS_CSUM, 20, 6, 0, 0]],
    ['TCP that is complete', tcp4({ payload: pattern(100) }), [0, 0, 0, 0, 0]],
    ['UDP that is complete', udp4({ payload: pattern(100) }), [0, 0, 0, 0, 0]],
    ['UDP without one', udp4({ payload: pattern(100), noChecksum: true }), [0, 0, 0, 0, 0]],
    ['ICMP', icmpEcho(), [0, 0, 0, 0, 0]],
    ['SCTP', sctp4(), [0, 0, 0, 0, 0]],
    ['a first fragment', fragment(owing(tcp4({ payload: pattern(1000) })), 0, 800), [0, 0, 0, 0, 0]],
    [
      'TCP longer than the MTU',
      owing(tcp4({ payload: pattern(9000) })),
      [virtio.FLAG_NEEDS_CSUM, 20, 16, virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4, MTU - 40],
    ],
    [
      'the same with CWR',
      owing(tcp4({ payload: pattern(9000), flags: tcp.ACK_FLAG | tcp.CWR })),
      [virtio.FLAG_NEEDS_CSUM, 20, 16, virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4 | virtio.GSO_ECN, MTU - 40],
    ],
    [
      'UDP longer than the MTU',
      owing(udp4({ payload: pattern(9000) })),
      [virtio.FLAG_NEEDS_CSUM, 20, 6, virtio.GSO_UDP_L4 | virtio.GSO_UDP_TUNNEL_IPV4, 0],
    ],
    ['a datagram longer than the MTU that is complete', udp4({ payload: pattern(9000) }), [0, 0, 0, 0, 0]],
  ];
  for (const [what, bytes, expected] of rows) {
    it(what, () => {
      const p = mark(bytes);
      assert.deepEqual([p.vnetFlags, p.csumStart, p.csumOffset, p.gsoType, p.gsoSize], expected);
    });
  }

  it('takes the length of a segment where it is known', () => {
    assert.equal(mark(owing(udp4({ payload: pattern(9000) })), 1200).gsoSize, 1200);
  });

  it('leaves alone what is too short, of another version, or longer than it says', () => {
    const whole = owing(tcp4({ payload: pattern(40) }));
    for (let len = 0; len < whole.length; len++) assert.equal(mark(whole.subarray(0, len)).vnetFlags, 0, `${len}`);
    assert.equal(mark(patch(whole, 0, 0x65)).vnetFlags, 0);
    assert.equal(mark(patch(whole, 0, 0x44)).vnetFlags, 0);
    assert.equal(mark(patch(whole, 2, 0xff, 0xff)).vnetFlags, 0);
  });

  it('reads nothing outside, and marks nothing outside, whatever it gets', () => {
    const sample = owing(tcp4({ payload: pattern(60) }));
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc
            .tuple(fc.nat(sample.length - 1), fc.nat(255), fc.nat(sample.length))
            .map(([at, byte, len]) => patch(sample, at, byte).subarray(0, len)),
        ),
        bytes => {
          const p = mark(bytes);
          if ((p.vnetFlags & virtio.FLAG_NEEDS_CSUM) === 0) return;
          assert.ok(p.csumStart >= 20 && p.csumStart + p.csumOffset + 2 <= bytes.length);
        },
      ),
    );
  });

  it('the chance hit gets back the checksum that it had', () => {
    // Two bytes of payload choose the sum: one of the values makes the checksum equal to the pseudo header's sum.
    let hits = 0;
    for (let value = 0; value < 0x10000; value++) {
      const bytes = udp4({ payload: Uint8Array.of(value >> 8, value & 0xff) });
      const p = new Packet(0, 0);
      p.len = bytes.length;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      markOwedChecksum(view, p, 0, bytes.length, 0, MTU, 0);
      if (p.vnetFlags === 0) continue;
      hits++;
      const before = view.getUint16(26);
      completeChecksum(view, p);
      assert.equal(view.getUint16(26), before);
    }
    assert.ok(hits > 0);
  });
});

describe('a superpacket from a raw socket', () => {
  const NODE = '192.168.10.1';
  const PEER = '192.168.10.2';
  const tunnel = (pool: Pool) =>
    new Tunnel(
      {
        protocol: TUNNEL_IPIP,
        port: 0,
        vni: 0,
        localAddress: ip(NODE),
        localMacHi: 0,
        localMacLo: 0,
        peers: [{ address: ip(PEER), macHi: 0, macLo: 0 }],
        acceptAny: false,
      },
      PROFILES.linux,
      pool.view,
      new Counters(),
      new Random(1),
    );
  const received = (pool: Pool, inner: Uint8Array) => {
    const p = load(pool, ipip(owing(inner), { src: PEER, dst: NODE }));
    markOwedChecksum(pool.view, p, p.off + 20, p.off + p.len, p.off + 20, MTU, 0);
    return p;
  };

  it('comes out of IPIP as a TCP superpacket, and its segments are whole and right', () => {
    const pool = new Pool(16);
    const sent = tcp4({ payload: pattern(10_000) });
    const p = received(pool, sent);
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    assert.equal(tunnel(pool).decap(p), CONTINUE);
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    assert.deepEqual([p.gsoType, p.gsoSize, p.vnetFlags], [virtio.GSO_TCPV4, MTU - 40, virtio.FLAG_NEEDS_CSUM]);
    const pieces = Array.from({ length: 16 }, () => pool.packets[0]);
    const n = segment(pool, p, pieces, 16);
    assert.equal(n, Math.ceil(10_000 / (MTU - 40)));
    const payload = pieces.slice(0, n).flatMap(piece => [...bytesOf(pool, piece).subarray(40)]);
    assert.deepEqual(Uint8Array.from(payload), pattern(10_000));
  });

  it('of UDP is refused by name: nobody knows where its datagrams end', () => {
    const pool = new Pool(16);
    assert.equal(parseIpv4(pool.view, received(pool, udp4({ payload: pattern(9000) }))), DROP_MALFORMED_VNET_HEADER);
  });
});

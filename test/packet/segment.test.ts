import assert from 'node:assert/strict';
import fc from 'fast-check';
import { HEADROOM, type Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { completeChecksum, segment, segmentsOf, verifyChecksum, wireBytes } from '../../datapath/packet/segment.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import * as tcpWire from '../../datapath/wire/tcp.ts';
import * as virtio from '../../datapath/wire/virtio-net.ts';
import {
  bytesOf,
  fixHeader,
  fragment,
  icmpEcho,
  ip,
  ipv4,
  load,
  loadPartial,
  patch,
  pattern,
  sctp4,
  tcp4,
  timestampOption,
  udp4,
} from '../fixtures/packets.ts';
import { slowHeaderOk, slowTransportOk } from '../model/checksum.ts';
import { slowSegment } from '../model/segment.ts';

const { ACK_FLAG, CWR, ECE, FIN, PSH } = tcpWire;
const pool = new Pool(256);
const out: Packet[] = [];

function cut(bytes: Uint8Array, gsoSize: number): Uint8Array[] {
  const p = loadPartial(pool, bytes, gsoSize);
  assert.equal(parseIpv4(pool.view, p), CONTINUE);
  const before = bytesOf(pool, p);
  const count = segmentsOf(pool.view, p);
  const bytesOnWire = wireBytes(pool.view, p);
  const n = segment(pool, p, out, 200);
  assert.equal(n, count);
  assert.equal(
    out.slice(0, n).reduce((sum, q) => sum + q.len, 0),
    bytesOnWire,
  );
  const pieces = out.slice(0, n).map(q => {
    assert.deepEqual([q.vnetFlags, q.gsoType, q.gsoSize], [0, 0, 0]);
    assert.ok(q.off >= q.start + HEADROOM);
    const bytes = bytesOf(pool, q);
    const l4 = q.l4;
    assert.equal(parseIpv4(pool.view, q), CONTINUE);
    assert.equal(q.l4, l4);
    pool.release(q);
    return bytes;
  });
  assert.deepEqual(bytesOf(pool, p), before, 'the superpacket itself is untouched');
  pool.release(p);
  return pieces;
}

describe('segment', () => {
  it('cuts TCP as the model does, every checksum right', () => {
    const arbitrary = fc.record({
      size: fc.nat(9000),
      gsoSize: fc.integer({ min: 50, max: 3000 }),
      flags: fc.constantFrom(0, PSH, FIN, PSH | FIN, CWR, CWR | PSH | ECE, ECE).map(f => f | ACK_FLAG),
      seq: fc.oneof(fc.nat(0xffffffff), fc.integer({ min: 0xfffff000, max: 0xffffffff })),
      id: fc.oneof(fc.nat(65535), fc.integer({ min: 65500, max: 65535 })),
      options: fc.constantFrom(new Uint8Array(0), timestampOption(1, 2), new Uint8Array(40).fill(1)),
      ipOptions: fc.constantFrom(new Uint8Array(0), Uint8Array.from([148, 4, 0, 0])),
    });
    fc.assert(
      fc.property(arbitrary, ({ size, gsoSize, flags, seq, id, options, ipOptions }) => {
        const bytes = tcp4({ payload: pattern(size, seq), flags, seq, id, tcpOptions: options, options: ipOptions });
        const pieces = cut(bytes, gsoSize);
        assert.deepEqual(pieces, slowSegment(bytes, gsoSize));
        for (const piece of pieces) assert.ok(slowHeaderOk(piece) && slowTransportOk(piece));
      }),
      { numRuns: 300 },
    );
  });

  it('cuts UDP as the model does, every datagram with its own length and checksum', () => {
    fc.assert(
      fc.property(fc.nat(9000), fc.integer({ min: 50, max: 3000 }), fc.nat(65535), (size, gsoSize, id) => {
        const bytes = udp4({ payload: pattern(size, id), id });
        const pieces = cut(bytes, gsoSize);
        assert.deepEqual(pieces, slowSegment(bytes, gsoSize));
        for (const piece of pieces) assert.ok(slowHeaderOk(piece) && slowTransportOk(piece));
      }),
      { numRuns: 300 },
    );
  });

  it('cuts payloads of 1 to 64 bytes at every segment size, of UDP and TCP', () => {
    for (let size = 1; size <= 64; size++) {
      const datagram = udp4({ payload: pattern(size), id: 65530 });
      const short = tcp4({ payload: pattern(size), id: 65530, flags: ACK_FLAG | PSH });
      const long = tcp4({ payload: pattern(size), tcpOptions: timestampOption(5, 6) });
      for (let gsoSize = 1; gsoSize <= 64; gsoSize++) {
        for (const bytes of [datagram, short, long]) assert.deepEqual(cut(bytes, gsoSize), slowSegment(bytes, gsoSize));
      }
    }
  });

  it('counts what a small superpacket is on the wire behind an Ethernet header, too, before it is parsed', () => {
    const link = 14;
    for (let size = 1; size <= 64; size++) {
      for (const bytes of [udp4({ payload: pattern(size) }), tcp4({ payload: pattern(size) })]) {
        for (let gsoSize = 1; gsoSize <= 64; gsoSize++) {
          const p = loadPartial(pool, bytes, gsoSize);
          p.push(link);
          const pieces = slowSegment(bytes, gsoSize);
          assert.equal(segmentsOf(pool.view, p), pieces.length);
          assert.equal(
            wireBytes(pool.view, p),
            pieces.reduce((sum, piece) => sum + link + piece.length, 0),
          );
          pool.release(p);
        }
      }
    }
  });

  it('cuts small superpackets in a tunnel as without it', () => {
    const outer = udp4({ dport: 8472, payload: new Uint8Array(8 + 14), noChecksum: true });
    for (let size = 1; size <= 64; size++) {
      for (const bytes of [udp4({ payload: pattern(size) }), tcp4({ payload: pattern(size) })]) {
        for (let gsoSize = 1; gsoSize <= 64; gsoSize++) {
          const p = loadPartial(pool, bytes, gsoSize);
          p.innerNetwork = p.off;
          p.outerTransport = p.off - outer.length + 20;
          p.push(outer.length);
          pool.bytes.set(outer, p.off);
          pool.view.setUint16(p.off + 2, p.len);
          pool.view.setUint16(p.off + 24, p.len - 20);
          pool.bytes.set(fixHeader(bytesOf(pool, p)), p.off);
          p.gsoType |= virtio.GSO_UDP_TUNNEL_IPV4;
          assert.equal(parseIpv4(pool.view, p), CONTINUE);
          const pieces = slowSegment(bytes, gsoSize);
          const n = segment(pool, p, out, 200);
          assert.deepEqual(
            out.slice(0, n).map(q => bytesOf(pool, q).slice(outer.length)),
            pieces,
          );
          for (const q of [p, ...out.slice(0, n)]) pool.release(q);
        }
      }
    }
  });

  it('puts PSH and FIN on the last, CWR on the first', () => {
    const pieces = cut(tcp4({ payload: pattern(2500), flags: ACK_FLAG | PSH | FIN | CWR | ECE }), 1000);
    const flags = pieces.map(piece => piece[33]);
    assert.deepEqual(flags, [ACK_FLAG | ECE | CWR, ACK_FLAG | ECE, ACK_FLAG | ECE | PSH | FIN]);
  });

  it('cuts the largest superpacket', () => {
    const bytes = tcp4({ payload: pattern(65535 - 20 - 32), tcpOptions: timestampOption(3, 4) });
    assert.deepEqual(cut(bytes, 1448), slowSegment(bytes, 1448));
  });

  it('gives its segments what is known about the superpacket', () => {
    const p = loadPartial(pool, tcp4({ payload: pattern(3000), src: '200.0.0.1' }), 1000);
    parseIpv4(pool.view, p);
    p.identity = 7;
    p.inPort = 2;
    p.tunnelSource = ip('192.168.10.2');
    const n = segment(pool, p, out, 200);
    assert.equal(n, 3);
    for (const q of [p, ...out.slice(0, n)]) {
      assert.deepEqual([q.src, q.srcPort, q.identity, q.inPort], [ip('200.0.0.1'), 40000, 7, 2]);
      assert.equal(q.tunnelSource, ip('192.168.10.2'));
      pool.release(q);
    }
  });

  it('takes nothing when the pool or the array is too small', () => {
    const small = new Pool(3);
    const p = loadPartial(small, tcp4({ payload: pattern(3000) }), 1000);
    parseIpv4(small.view, p);
    assert.equal(segment(small, p, out, 200), 0);
    assert.equal(small.available, 2);
    p.gsoSize = 1500;
    assert.equal(segment(small, p, out, 1), 0);
    assert.equal(small.available, 2);
    assert.equal(segment(small, p, out, 2), 2);
  });

  it('segmentsOf counts a tunnel superpacket by its inner header', () => {
    const inner = tcp4({ payload: pattern(3001) });
    const p = load(pool, udp4({ dport: 8472, payload: new Uint8Array([...pattern(8 + 14), ...inner]) }));
    p.vnetFlags = virtio.FLAG_NEEDS_CSUM;
    p.gsoType = virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4;
    p.gsoSize = 1000;
    p.csumStart = p.off + 28 + 22 + 20;
    p.csumOffset = tcpWire.CHECKSUM;
    assert.equal(segmentsOf(pool.view, p), 4);
    pool.release(p);
  });
});

describe('completeChecksum', () => {
  it('makes what the sender would have sent, for every length to 200', () => {
    for (let size = 0; size <= 200; size++) {
      for (const bytes of [tcp4({ payload: pattern(size) }), udp4({ payload: pattern(size) })]) {
        const p = loadPartial(pool, bytes);
        completeChecksum(pool.view, p);
        assert.deepEqual(bytesOf(pool, p), bytes);
        assert.equal(p.vnetFlags, 0);
        pool.release(p);
      }
    }
  });

  it('sends a UDP checksum of 0 as 0xffff', () => {
    // The last word is chosen so that the sum comes out as 0xffff.
    const base = udp4({ payload: Uint8Array.from([0, 0]) });
    const bytes = udp4({ payload: base.slice(26, 28) });
    const p = loadPartial(pool, bytes);
    completeChecksum(pool.view, p);
    assert.equal(pool.view.getUint16(p.off + 26), 0xffff);
    assert.ok(slowTransportOk(bytesOf(pool, p)));
    pool.release(p);
  });

  it('leaves a packet alone that owes nothing', () => {
    const bytes = patch(tcp4(), 36, 1, 2);
    const p = load(pool, bytes);
    p.vnetFlags = virtio.FLAG_DATA_VALID;
    completeChecksum(pool.view, p);
    assert.deepEqual([bytesOf(pool, p), p.vnetFlags], [bytes, virtio.FLAG_DATA_VALID]);
    pool.release(p);
  });
});

describe('verifyChecksum', () => {
  const big = udp4({ payload: pattern(3000) });
  const rows: [string, Uint8Array, boolean, number?][] = [
    ['TCP', tcp4({ payload: pattern(33) }), true],
    ['TCP, one bit off', patch(tcp4({ payload: pattern(33) }), 50, 0xff), false],
    ['TCP, one bit off, the device says it is right', patch(tcp4({ payload: pattern(33) }), 50, 0xff), true, 2],
    ['UDP', udp4({ payload: pattern(33) }), true],
    ['UDP, one bit off', patch(udp4({ payload: pattern(33) }), 40, 0xff), false],
    ['UDP without checksum', udp4({ payload: pattern(33), noChecksum: true }), true],
    ['UDP with bytes behind', ipv4(17, new Uint8Array([...udp4({ payload: pattern(6) }).slice(20), 9, 9])), true],
    ['ICMP', icmpEcho(), true],
    ['ICMP, one bit off', patch(icmpEcho(), 30, 0xff), false],
    ['a fragment', fragment(big, 0, 1480), true],
    ['another protocol', sctp4(), true],
  ];
  for (const [what, bytes, expected, flags] of rows) {
    it(`${expected ? 'accepts' : 'refuses'} ${what}`, () => {
      const p = load(pool, bytes);
      assert.equal(parseIpv4(pool.view, p), CONTINUE);
      p.vnetFlags = flags ?? 0;
      assert.equal(verifyChecksum(pool.view, p), expected);
      pool.release(p);
    });
  }

  it('trusts the sum of the pseudo header only where the checksum is owed for this header', () => {
    const p = loadPartial(pool, tcp4({ payload: pattern(60) }));
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    assert.equal(verifyChecksum(pool.view, p), true);
    p.csumStart += 20;
    assert.equal(verifyChecksum(pool.view, p), false);
    pool.release(p);
  });
});

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { delta32, packDeltas, rewriteIcmpError, rewritePacket } from '../../datapath/nat/rewrite.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import {
  bytesOf,
  fix,
  fragment,
  icmpEcho,
  icmpError,
  ip,
  load,
  loadPartial,
  patch,
  pattern,
  sctp4,
  tcp4,
  udp4,
} from '../fixtures/packets.ts';
import { slowChecksum, slowHeaderOk, slowPseudoSum, slowTransportOk } from '../model/checksum.ts';
import { slowCrc32c } from '../model/crc32c.ts';

const pool = new Pool(4);

function parsed(bytes: Uint8Array): Packet {
  const p = load(pool, bytes);
  assert.equal(parseIpv4(pool.view, p), CONTINUE);
  return p;
}

function rewrite(p: Packet, src: string, dst: string, sport: number, dport: number): boolean {
  const isIcmp = p.protocol === ipv4.PROTO_ICMP;
  const ports = isIcmp ? (sport << 16) | sport : (sport << 16) | dport;
  const old = isIcmp ? p.srcPort : (p.srcPort << 16) | p.dstPort;
  const deltas = packDeltas(p.src, p.dst, old, ip(src), ip(dst), isIcmp ? sport : ports);
  return rewritePacket(pool.view, p, ip(src), ip(dst), ports, deltas);
}

/** Rewrites and returns the bytes. */
function rewritten(bytes: Uint8Array, src: string, dst: string, sport: number, dport: number): Uint8Array {
  const p = parsed(bytes);
  assert.equal(rewrite(p, src, dst, sport, dport), true);
  const out = bytesOf(pool, p);
  pool.release(p);
  return out;
}

const A = { src: '10.244.1.10', dst: '10.96.0.10' };
const B = { src: '192.168.10.1', dst: '10.244.2.20' };

describe('rewritePacket', () => {
  it('gives TCP new addresses and ports as if it had been built with them', () => {
    const data = { seq: 5, ack: 9, payload: pattern(33) };
    assert.deepEqual(
      rewritten(tcp4({ ...A, sport: 40000, dport: 80, ...data }), B.src, B.dst, 1024, 8080),
      tcp4({ ...B, sport: 1024, dport: 8080, ...data }),
    );
  });

  it('gives UDP new addresses and ports', () => {
    const data = { payload: pattern(7) };
    assert.deepEqual(
      rewritten(udp4({ ...A, sport: 5353, dport: 53, ...data }), B.src, B.dst, 1, 65535),
      udp4({ ...B, sport: 1, dport: 65535, ...data }),
    );
  });

  it('leaves a UDP checksum of 0 at 0', () => {
    const out = rewritten(udp4({ ...A, noChecksum: true, payload: pattern(5) }), B.src, B.dst, 40000, 53);
    assert.deepEqual(out, udp4({ ...B, noChecksum: true, payload: pattern(5) }));
  });

  it('writes 0xffff where a UDP checksum comes out as 0', () => {
    // Choose the payload so that the new packet's checksum is 0xffff, the other zero.
    const wanted = udp4({ ...B, sport: 1, dport: 2, payload: new Uint8Array(2) });
    const checksum = new DataView(wanted.buffer).getUint16(26);
    const payload = Uint8Array.from([checksum >> 8, checksum & 255]);
    const after = udp4({ ...B, sport: 1, dport: 2, payload });
    assert.equal(new DataView(after.buffer).getUint16(26), 0xffff);
    assert.deepEqual(rewritten(udp4({ ...A, payload }), B.src, B.dst, 1, 2), after);
  });

  it('changes the identifier of an ICMP query and its checksum, not those of others', () => {
    assert.deepEqual(
      rewritten(icmpEcho({ ...A, icmpId: 7 }), B.src, B.dst, 0xfffe, 0),
      icmpEcho({ ...B, icmpId: 0xfffe }),
    );
    assert.deepEqual(
      rewritten(icmpEcho({ ...A, type: 0, icmpId: 7 }), B.src, B.dst, 9, 0),
      icmpEcho({ ...B, type: 0, icmpId: 9 }),
    );
  });

  it('keeps IPv4 options out of the way', () => {
    const options = Uint8Array.from([1, 1, 1, 0]);
    assert.deepEqual(
      rewritten(tcp4({ ...A, options, sport: 1, dport: 2 }), B.src, B.dst, 3, 4),
      tcp4({ ...B, options, sport: 3, dport: 4 }),
    );
  });

  it('changes only the addresses of a later fragment', () => {
    const whole = (o: object) => udp4({ ...o, payload: pattern(64) });
    const out = rewritten(fragment(whole(A), 16, 24), B.src, B.dst, 1, 2);
    const wanted = fragment(whole(B), 16, 24);
    assert.deepEqual(out, wanted);
  });

  it('changes the ports in a first fragment; the datagram checksum is right when all is put together', () => {
    const whole = udp4({ ...A, sport: 9, dport: 9, payload: pattern(64) });
    const first = rewritten(fragment(whole, 0, 24), B.src, B.dst, 3, 4);
    const second = rewritten(fragment(whole, 24, 48), B.src, B.dst, 3, 4);
    const joined = fix(Uint8Array.from([...first, ...second.slice(20)])).fill(0, 6, 8);
    assert.deepEqual(joined.slice(20), udp4({ ...B, sport: 3, dport: 4, payload: pattern(64) }).slice(20));
  });

  it('keeps a wrong checksum wrong', () => {
    const bad = patch(tcp4({ ...A, payload: pattern(10) }), 45, 0x77);
    assert.equal(slowTransportOk(bad), false);
    const out = rewritten(bad, B.src, B.dst, 1, 2);
    assert.equal(slowTransportOk(out), false);
    assert.equal(slowHeaderOk(out), true);
  });

  for (const [name, make, gso] of [
    ['TCP packet', tcp4, 0],
    ['UDP packet', udp4, 0],
    ['TCP superpacket', tcp4, 1400],
    ['UDP superpacket', udp4, 1400],
  ] as const) {
    it(`updates a partial sum in a ${name}: addresses only, not complemented`, () => {
      const payload = pattern(gso === 0 ? 100 : 40_000);
      const p = loadPartial(pool, make({ ...A, sport: 1000, dport: 80, payload }), gso);
      assert.equal(parseIpv4(pool.view, p), CONTINUE);
      assert.equal(rewrite(p, B.src, B.dst, 2000, 8080), true);
      const out = bytesOf(pool, p);
      const field = p.csumStart - p.off + p.csumOffset;
      assert.equal(new DataView(out.buffer).getUint16(field), slowPseudoSum(out));
      assert.deepEqual(fix(out), make({ ...B, sport: 2000, dport: 8080, payload }));
      pool.release(p);
    });
  }

  it('takes the checksum of a packet with an inner partial checksum for whole', () => {
    // A pod runs its own VXLAN: csumStart is inside, the outer UDP checksum is complete.
    const p = load(pool, udp4({ ...A, sport: 1, dport: 4789, payload: pattern(100) }));
    p.vnetFlags = 1;
    p.csumStart = p.off + 60;
    p.csumOffset = 16;
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    rewrite(p, B.src, B.dst, 1, 4789);
    assert.deepEqual(bytesOf(pool, p), udp4({ ...B, sport: 1, dport: 4789, payload: pattern(100) }));
    pool.release(p);
  });

  it('updates SCTP ports with the CRC32c, and addresses without it', () => {
    const make = (o: object) => {
      const packet = sctp4({ payload: pattern(201), ...o });
      new DataView(packet.buffer).setInt32(28, slowCrc32c(packet.subarray(20)), true);
      return packet;
    };
    assert.deepEqual(
      rewritten(make({ ...A, sport: 1, dport: 2 }), B.src, B.dst, 0xabcd, 0x1234),
      make({ ...B, sport: 0xabcd, dport: 0x1234 }),
    );
    const p = parsed(fragment(make({ ...A, sport: 1, dport: 2 }), 0, 64));
    const before = bytesOf(pool, p);
    assert.equal(rewrite(p, B.src, B.dst, 5, 6), false, 'a first fragment: the rest of the CRC is elsewhere');
    assert.deepEqual(bytesOf(pool, p), before);
    assert.equal(rewrite(p, B.src, B.dst, 1, 2), true, 'addresses alone are no problem');
    pool.release(p);
  });

  it('agrees with building the packet anew, for any addresses, ports and payload, there and back', () => {
    const address = fc.integer({ min: 0, max: 255 }).map(n => `10.${n}.${255 - n}.${n ^ 85}`);
    const port = fc.integer({ min: 0, max: 65535 });
    fc.assert(
      fc.property(
        fc.constantFrom(tcp4, udp4),
        fc.tuple(address, address, port, port),
        fc.tuple(address, address, port, port),
        fc.uint8Array({ maxLength: 40 }),
        (make, a, b, payload) => {
          const build = ([src, dst, sport, dport]: [string, string, number, number]) =>
            make({ src, dst, sport, dport, payload });
          const there = rewritten(build(a), b[0], b[1], b[2], b[3]);
          assert.deepEqual(there, build(b));
          assert.deepEqual(rewritten(there, a[0], a[1], a[2], a[3]), build(a));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('has deltas whose complement undoes them', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer(), (from, to) => {
        const sum = delta32(from, to) + (~delta32(from, to) & 0xffff);
        assert.equal(sum, 0xffff);
        const back = delta32(from, to) + delta32(to, from);
        assert.equal(back % 0xffff, 0);
      }),
    );
  });
});

describe('rewriteIcmpError', () => {
  // A router on the way to the backend complains about a packet that was translated from C -> VIP:80 to N:5000 -> B:8080.
  const C = '10.244.1.10';
  const VIP = '10.96.0.10';
  const N = '192.168.10.1';
  const BACKEND = '10.244.2.20';
  const ROUTER = '192.168.10.254';

  const quotes: [string, (o: { src: string; dst: string; sport: number; dport: number }) => Uint8Array][] = [
    ['a whole TCP header', o => tcp4({ ...o, payload: pattern(20) })],
    ['8 bytes of TCP', o => tcp4({ ...o, payload: pattern(20) }).slice(0, 28)],
    ['17 bytes of TCP, the checksum cut in half', o => tcp4({ ...o, payload: pattern(20) }).slice(0, 37)],
    ['UDP', o => udp4({ ...o, payload: pattern(5) })],
    ['8 bytes of UDP', o => udp4({ ...o, payload: pattern(20) }).slice(0, 28)],
    ['UDP without checksum', o => udp4({ ...o, noChecksum: true, payload: pattern(5) })],
    ['UDP behind IPv4 options', o => udp4({ ...o, options: Uint8Array.from([1, 1, 1, 0]), payload: pattern(3) })],
    ['an odd number of bytes', o => udp4({ ...o, payload: pattern(200) }).slice(0, 61)],
  ];
  for (const [what, quote] of quotes) {
    it(`rewrites ${what}, and every checksum that is there`, () => {
      const seen = quote({ src: N, dst: BACKEND, sport: 5000, dport: 8080 });
      const meant = quote({ src: C, dst: VIP, sport: 40000, dport: 80 });
      const p = parsed(icmpError(3, 4, seen, { src: ROUTER, dst: N, mtu: 1400 }));
      const ports = (40000 << 16) | 80;
      rewriteIcmpError(pool.view, p, ip(VIP), ip(C), ip(C), ip(VIP), ports);
      const out = bytesOf(pool, p);
      const wanted = icmpError(3, 4, meant, { src: VIP, dst: C, mtu: 1400 });
      if (what.includes('cut in half')) {
        // The half that is quoted cannot be updated; everything else must agree.
        assert.deepEqual(out.slice(0, 22), wanted.slice(0, 22));
        assert.deepEqual(out.slice(28, 28 + 36), wanted.slice(28, 28 + 36));
        assert.equal(slowChecksum(out.slice(20)), 0);
      } else assert.deepEqual(out, wanted);
      assert.equal(p.src, ip(VIP));
      assert.equal(p.dst, ip(C));
      pool.release(p);
    });
  }

  it('rewrites the identifier of a quoted ping', () => {
    const p = parsed(icmpError(11, 0, icmpEcho({ src: N, dst: BACKEND, icmpId: 77 }), { src: ROUTER, dst: N }));
    rewriteIcmpError(pool.view, p, ip(ROUTER), ip(C), ip(C), ip(BACKEND), (5 << 16) | 8);
    const wanted = icmpError(11, 0, icmpEcho({ src: C, dst: BACKEND, icmpId: 5 }), { src: ROUTER, dst: C });
    assert.deepEqual(bytesOf(pool, p), wanted);
    pool.release(p);
  });
});

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { fragment } from '../../datapath/mtu/fragment.ts';
import { HEADROOM, type Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import * as ipv4Wire from '../../datapath/wire/ipv4.ts';
import { bytesOf, fixHeader, ipv4, load, loadPartial, patch, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { slowTransportOk } from '../model/checksum.ts';
import { slowFragment, slowReassemble } from '../model/fragment.ts';

const pool = new Pool(2048);
const out: Packet[] = [];

/** Fragments `bytes` and gives everything back to the pool. */
function cut(bytes: Uint8Array, mtu: number): Uint8Array[] {
  const p = load(pool, bytes);
  assert.equal(parseIpv4(pool.view, p), CONTINUE);
  const n = fragment(pool, p, mtu, out);
  const pieces = out.slice(0, n).map(q => bytesOf(pool, q));
  for (let i = 0; i < n; i++) pool.release(out[i]);
  assert.deepEqual(bytesOf(pool, p), bytes, 'the packet itself is untouched');
  pool.release(p);
  return pieces;
}

/** Record route (not copied), security (copied, 5 bytes), NOP, router alert (copied), end, garbage behind it. */
const OPTIONS = Uint8Array.from([7, 7, 4, 0, 0, 0, 0, 130, 5, 9, 9, 9, 1, 148, 4, 0, 0, 0, 77, 77]);

describe('fragment', () => {
  it('equals the model for every size to 300 and every MTU from 28 to 120', () => {
    for (let size = 0; size <= 300; size++) {
      const bytes = ipv4(99, pattern(size, size + 1));
      for (let mtu = 28; mtu <= 120; mtu += size % 7 === 0 ? 1 : 9) {
        assert.deepEqual(cut(bytes, mtu), slowFragment(bytes, mtu), `${size} bytes, MTU ${mtu}`);
      }
    }
  });

  it('equals the model with options, for every size to 200 and every MTU from 68 to 110', () => {
    for (let size = 0; size <= 200; size++) {
      const bytes = ipv4(99, pattern(size, size + 1), { options: OPTIONS });
      for (let mtu = 68; mtu <= 110; mtu += size % 5 === 0 ? 1 : 7) {
        assert.deepEqual(cut(bytes, mtu), slowFragment(bytes, mtu), `${size} bytes, MTU ${mtu}`);
      }
    }
  });

  it('copies the options that say so, and no others', () => {
    const [first, second, third] = cut(ipv4(99, pattern(200), { options: OPTIONS }), 120);
    assert.deepEqual(first.slice(20, 40), OPTIONS);
    const later = [1, 1, 1, 1, 1, 1, 1, 130, 5, 9, 9, 9, 1, 148, 4, 0, 0, 0, 77, 77];
    assert.deepEqual([...second.slice(20, 40)], later);
    assert.deepEqual([...third.slice(20, 40)], later);
  });

  it('fragments of fragments put together make the original', () => {
    const protocols = fc.constantFrom(17, 99);
    fc.assert(
      fc.property(
        fc.nat(3000),
        fc.integer({ min: 68, max: 1500 }),
        fc.integer({ min: 68, max: 600 }),
        protocols,
        (size, mtu, smaller, protocol) => {
          const bytes =
            protocol === 17 ? udp4({ payload: pattern(size), id: size }) : ipv4(99, pattern(size), { id: size });
          const pieces = cut(bytes, mtu);
          const twice = pieces.flatMap(piece => cut(piece, smaller));
          for (const piece of twice) assert.ok(piece.length <= smaller);
          assert.deepEqual(slowReassemble(twice.reverse()), fixHeader(patch(bytes, 6, 0, 0)));
        },
      ),
      { numRuns: 300 },
    );
  });

  it('every piece is a right packet of its own', () => {
    const p = load(pool, udp4({ payload: pattern(4000), sport: 77 }));
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    p.identity = 21500;
    p.inPort = 3;
    const n = fragment(pool, p, 1500, out);
    assert.equal(n, 3);
    for (let i = 0; i < n; i++) {
      const q = out[i];
      assert.ok(q.off >= q.start + HEADROOM, 'room for a tunnel header');
      assert.deepEqual([q.src, q.dst, q.protocol, q.identity, q.inPort], [p.src, p.dst, 17, 21500, 3]);
      assert.equal(q.srcPort, 77, 'known for the tunnel source port');
      const { l4, fragment: field } = q;
      assert.equal(parseIpv4(pool.view, q), CONTINUE);
      assert.deepEqual([q.l4, q.fragment], [l4, field], 'fields as parseIpv4 finds them');
      pool.release(q);
    }
    pool.release(p);
  });

  it('the longest packet at the smallest MTU comes whole', () => {
    const bytes = ipv4(99, pattern(65515));
    const pieces = cut(bytes, 68);
    assert.equal(pieces.length, Math.ceil(65515 / 48));
    assert.deepEqual(slowReassemble(pieces), bytes);
  });

  it('clears DF and keeps the id', () => {
    for (const piece of cut(ipv4(99, pattern(100), { fragment: ipv4Wire.FLAG_DF, id: 0xfffe }), 68)) {
      assert.equal(piece[6] & 0x40, 0);
      assert.deepEqual([piece[4], piece[5]], [0xff, 0xfe]);
    }
  });

  it('completes a checksum that is owed before it cuts', () => {
    for (const bytes of [tcp4({ payload: pattern(2001) }), udp4({ payload: pattern(1999) })]) {
      const p = loadPartial(pool, bytes);
      assert.equal(parseIpv4(pool.view, p), CONTINUE);
      const n = fragment(pool, p, 576, out);
      const whole = slowReassemble(out.slice(0, n).map(q => bytesOf(pool, q)))!;
      for (let i = 0; i < n; i++) {
        assert.equal(out[i].vnetFlags, 0);
        pool.release(out[i]);
      }
      pool.release(p);
      assert.ok(slowTransportOk(whole));
      assert.deepEqual(whole, bytes);
    }
  });

  it('takes nothing from the pool when it has too few packets', () => {
    const small = new Pool(3);
    const p = load(small, udp4({ payload: pattern(3000) }));
    parseIpv4(small.view, p);
    assert.equal(fragment(small, p, 1500, out), 0);
    assert.equal(small.available, 2);
    assert.equal(fragment(small, p, 2000, out), 2);
    assert.equal(small.available, 0);
  });

  it('refuses an MTU that leaves no 8 bytes behind the header', () => {
    assert.deepEqual(cut(ipv4(99, pattern(100)), 27), []);
    assert.deepEqual(cut(ipv4(99, pattern(100), { options: new Uint8Array(40).fill(1) }), 67), []);
    assert.equal(cut(ipv4(99, pattern(100), { options: new Uint8Array(40).fill(1) }), 68).length > 1, true);
  });
});

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { foldSum, pseudoSum, sumWords, update16, update32 } from '../../datapath/wire/checksum.ts';
import { ip, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { slowChecksum, slowPseudoSum, slowSum } from '../model/checksum.ts';

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** 0x0000 and 0xffff are the same sum; a fold may end at either. */
const normal = (sum: number) => (sum === 0xffff ? 0 : sum);

describe('checksum', () => {
  it('the model gives the sum of the example in RFC 1071 section 3', () => {
    assert.equal(slowSum(Uint8Array.from([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
  });

  it('sumWords equals the model for every length to 2000, from offsets 0 to 3', () => {
    const memory = pattern(2100, 7);
    const view = viewOf(memory);
    for (let len = 0; len <= 2000; len++) {
      const off = len & 3;
      assert.equal(foldSum(sumWords(view, off, len, 0)), slowSum(memory.subarray(off, off + len)), `${len} at ${off}`);
    }
  });

  it('sumWords equals the model at every offset of a cache line', () => {
    const memory = pattern(300, 8);
    for (let off = 0; off < 64; off++) {
      for (const len of [0, 1, 15, 16, 17, 33, 64, 200]) {
        assert.equal(foldSum(sumWords(viewOf(memory), off, len, 0)), slowSum(memory.subarray(off, off + len)));
      }
    }
  });

  it('sumWords reads nothing outside', () => {
    for (let len = 0; len < 70; len++) {
      const exact = pattern(len, 3);
      assert.equal(foldSum(sumWords(viewOf(exact), 0, len, 0)), slowSum(exact));
    }
  });

  it('loses no carry in the largest packet of the largest words', () => {
    const memory = new Uint8Array(65535).fill(255);
    assert.equal(normal(foldSum(sumWords(viewOf(memory), 0, 65534, 0))), 0);
    assert.equal(foldSum(sumWords(viewOf(memory), 0, 65535, 0)), slowSum(memory));
    assert.equal(foldSum(sumWords(viewOf(memory), 0, 65535, 0x1234)), slowSum(memory, 0x1234));
  });

  it('foldSum is the value modulo 65535, for accumulators to 2^53', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), sum => {
        const folded = foldSum(sum);
        assert.ok(folded >= 0 && folded <= 0xffff);
        assert.equal(normal(folded), sum % 0xffff);
        assert.equal(folded === 0, sum === 0, 'a sum of something is never 0');
      }),
    );
  });

  it('pseudoSum equals the model', () => {
    for (const packet of [tcp4({ payload: pattern(77), src: '255.255.255.254' }), udp4({ dst: '224.0.0.1' })]) {
      const view = viewOf(packet);
      const sum = pseudoSum(view.getInt32(12), view.getInt32(16), packet[9], packet.length - 20);
      assert.equal(foldSum(sum), slowPseudoSum(packet));
    }
    assert.equal(pseudoSum(ip('0.0.0.1'), ip('255.255.255.255'), 17, 8), 1 + 0xffff + 0xffff + 17 + 8);
  });

  it('update16 and update32 equal a full recompute', () => {
    const bytes = fc.uint8Array({ minLength: 20, maxLength: 60 }).filter(b => b.length % 2 === 0);
    fc.assert(
      fc.property(bytes, fc.nat(), fc.nat(0xffffffff), (original, where, value) => {
        const before = slowChecksum(original);
        const changed = original.slice();
        const at = (where % (original.length / 2 - 1)) * 2;
        viewOf(changed).setUint16(at, value & 0xffff);
        // All-zero data has two right checksums, and equation 3 gives the other one: never what a header is.
        fc.pre(slowSum(original) !== 0 && slowSum(changed) !== 0);
        assert.equal(update16(before, viewOf(original).getUint16(at), value & 0xffff), slowChecksum(changed));
        changed.set(original);
        viewOf(changed).setUint32(at, value);
        fc.pre(slowSum(changed) !== 0);
        assert.equal(update32(before, viewOf(original).getInt32(at), value | 0), slowChecksum(changed));
        assert.equal(update32(before, viewOf(original).getUint32(at), value >>> 0), slowChecksum(changed));
      }),
      { numRuns: 2000 },
    );
  });

  it('update16 and update32 hold at the corners', () => {
    const corners = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];
    for (const constant of [1, 0x7fff, 0xfffe, 0xffff]) {
      for (const from of corners) {
        for (const to of corners) {
          const words = (v: number) => Uint8Array.from([constant >> 8, constant & 255, v >> 8, v & 255]);
          assert.equal(
            update16(slowChecksum(words(from)), from, to),
            slowChecksum(words(to)),
            `${constant} ${from} ${to}`,
          );
        }
      }
    }
  });
});

import assert from 'node:assert/strict';
import { hash3, powerOfTwo } from '../../datapath/memory/hash.ts';

/** The final mix of lookup3.c (Bob Jenkins, May 2006), in BigInt, word by word as it stands there. */
function slowHash3(words: number[], secrets: number[]): number {
  const mask = 0xffffffffn;
  let [a, b, c] = words.map((word, i) => (BigInt(word >>> 0) + BigInt(secrets[i] >>> 0)) & mask);
  const rot = (x: bigint, k: bigint) => ((x << k) | (x >> (32n - k))) & mask;
  const minus = (x: bigint, y: bigint) => (x - y) & mask;
  c = minus(c ^ b, rot(b, 14n));
  a = minus(a ^ c, rot(c, 11n));
  b = minus(b ^ a, rot(a, 25n));
  c = minus(c ^ b, rot(b, 16n));
  a = minus(a ^ c, rot(c, 4n));
  b = minus(b ^ a, rot(a, 14n));
  c = minus(c ^ b, rot(b, 24n));
  return Number(c) | 0;
}

describe('hash3', () => {
  it('is the final mix of lookup3', () => {
    let x = 1;
    const next = () => {
      x = (Math.imul(x, 1664525) + 1013904223) | 0;
      return x;
    };
    for (let n = 0; n < 2000; n++) {
      const words = [next(), next(), next()];
      const secrets = [next(), next(), next()];
      const [a, b, c] = words;
      const [k0, k1, k2] = secrets;
      assert.equal(hash3(a, b, c, k0, k1, k2), slowHash3(words, secrets));
    }
  });

  it('spreads addresses that count up over its first and its last bits alike', () => {
    const first = new Int32Array(256);
    const last = new Int32Array(256);
    const keys = 256 * 400;
    for (let i = 0; i < keys; i++) {
      const h = hash3(0x0af40000 + i, 0x0a600001, (1024 << 16) | 80, 12345, -678910, 1112131);
      first[h >>> 24]++;
      last[h & 255]++;
    }
    // 400 each, with a standard deviation of 20: six of them.
    for (const counts of [first, last]) for (const n of counts) assert.ok(Math.abs(n - 400) < 120, `${n}`);
  });
});

describe('powerOfTwo', () => {
  it('is the next one, or the number itself', () => {
    assert.deepEqual([0, 1, 2, 3, 4, 5, 1000, 65536, 65537].map(powerOfTwo), [1, 1, 2, 4, 4, 8, 1024, 65536, 131072]);
  });
});

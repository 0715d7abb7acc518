import assert from 'node:assert/strict';
import fc from 'fast-check';
import { buildIcmpError, IcmpLimiter, mayAnswer } from '../../datapath/mtu/icmp-error.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import * as icmp from '../../datapath/wire/icmp.ts';
import {
  bytesOf,
  CLIENT,
  fragment,
  type IcmpOptions,
  icmpEcho,
  ip,
  load,
  pattern,
  SERVER,
  tcp4,
  udp4,
} from '../fixtures/packets.ts';
import { slowHeaderOk, slowSum } from '../model/checksum.ts';

const pool = new Pool(8);

function answerable(bytes: Uint8Array, local = 0): boolean {
  const p = load(pool, bytes);
  assert.equal(parseIpv4(pool.view, p), CONTINUE);
  p.local = local;
  const result = mayAnswer(pool.view, p);
  pool.release(p);
  return result;
}

describe('mayAnswer', () => {
  const rows: [string, Uint8Array, boolean][] = [
    ['TCP', tcp4(), true],
    ['UDP', udp4(), true],
    ['an echo request', icmpEcho(), true],
    ['an echo reply', icmpEcho({ type: icmp.ECHO_REPLY }), true],
    ...([3, 4, 5, 11, 12] as const).map((type): [string, Uint8Array, boolean] => [
      `ICMP type ${type}`,
      icmpEcho({ type } satisfies IcmpOptions),
      false,
    ]),
    ['a first fragment', fragment(udp4({ payload: pattern(100) }), 0, 64), true],
    ['a later fragment', fragment(udp4({ payload: pattern(100) }), 64, 40), false],
    ['to a group', udp4({ dst: '224.0.0.5' }), false],
    ['to everybody', udp4({ dst: '255.255.255.255' }), false],
    ['from a group', udp4({ src: '239.1.1.1' }), false],
    ['from nobody', udp4({ src: '0.0.0.0' }), false],
    ['from the loopback', udp4({ src: '127.0.0.1' }), false],
  ];
  for (const [what, bytes, expected] of rows) {
    it(`${what}: ${expected ? 'yes' : 'no'}`, () => assert.equal(answerable(bytes), expected));
  }

  it('what the node sent itself: no', () => assert.equal(answerable(udp4(), 1), false));
});

describe('buildIcmpError', () => {
  it('quotes as much as fits 576 bytes, and its checksums are right', () => {
    for (const size of [0, 8, 19, 520, 521, 548, 549, 1472]) {
      const bytes = udp4({ payload: pattern(size) });
      const p = load(pool, bytes);
      parseIpv4(pool.view, p);
      const e = buildIcmpError(pool, p, icmp.UNREACHABLE, icmp.CODE_FRAG_NEEDED, 1400, ip('10.244.1.1'))!;
      const error = bytesOf(pool, e);
      assert.equal(error.length, Math.min(576, 28 + bytes.length));
      assert.deepEqual(error.slice(28), bytes.slice(0, 548));
      assert.ok(slowHeaderOk(error));
      assert.equal(slowSum(error.slice(20)), 0xffff);
      assert.deepEqual([...error.slice(20, 22), ...error.slice(24, 28)], [3, 4, 0, 0, 1400 >> 8, 1400 & 255]);
      assert.deepEqual([e.src, e.dst, e.local], [ip('10.244.1.1'), ip(CLIENT), 1]);
      pool.release(e);
      pool.release(p);
    }
  });

  it('is null without a free slot', () => {
    const one = new Pool(1);
    const p = load(one, udp4());
    parseIpv4(one.view, p);
    assert.equal(buildIcmpError(one, p, icmp.UNREACHABLE, 1, 0, ip(SERVER)), null);
  });
});

/** How many of `n` errors to `destination` are allowed. */
function allowed(
  limiter: IcmpLimiter,
  n: number,
  destination: number,
  now: number,
  type = icmp.TIME_EXCEEDED,
  code = 0,
) {
  let count = 0;
  for (let i = 0; i < n; i++) if (limiter.allow(type, code, destination, now)) count++;
  return count;
}

describe('IcmpLimiter', () => {
  it('lets one destination have six in a row, then one a second', () => {
    const limiter = new IcmpLimiter();
    assert.equal(allowed(limiter, 20, 1, 0), 6);
    assert.equal(allowed(limiter, 20, 1, 999), 0);
    assert.equal(allowed(limiter, 20, 1, 1000), 1);
    assert.equal(allowed(limiter, 20, 1, 3500), 2);
    assert.equal(allowed(limiter, 20, 1, 4000), 1, 'the half second was kept');
    assert.equal(allowed(limiter, 20, 1, 1e6), 6, 'never more than six are saved up');
  });

  it('lets all destinations together have 50 in a row, then 1000 a second', () => {
    const limiter = new IcmpLimiter();
    let count = 0;
    for (let i = 1; i <= 200; i++) count += allowed(limiter, 1, i, 0);
    assert.equal(count, 50);
    count = 0;
    for (let i = 1; i <= 200; i++) count += allowed(limiter, 1, i, 10);
    assert.equal(count, 10);
  });

  it('does not take from the common bucket what a destination is refused, nor the other way round', () => {
    const limiter = new IcmpLimiter();
    allowed(limiter, 1000, 1, 0);
    let count = 0;
    for (let i = 2; i <= 100; i++) count += allowed(limiter, 1, i, 0);
    assert.equal(count, 50 - 6);
    assert.equal(allowed(limiter, 10, 99, 0), 0, 'the common bucket is empty');
    assert.equal(allowed(limiter, 10, 99, 50), 6, 'and its own is still full');
  });

  it('limits unreachable, source quench, time exceeded and parameter problem; never fragmentation needed', () => {
    for (let type = 0; type < 20; type++) {
      const limited = [3, 4, 11, 12].includes(type);
      assert.equal(allowed(new IcmpLimiter(), 100, 7, 0, type, 1), limited ? 6 : 100, `type ${type}`);
    }
    const limiter = new IcmpLimiter();
    assert.equal(allowed(limiter, 1000, 7, 0, icmp.UNREACHABLE, icmp.CODE_FRAG_NEEDED), 1000);
    assert.equal(allowed(limiter, 100, 7, 0), 6, 'and it costs nothing');
  });

  it('takes other numbers', () => {
    const limiter = new IcmpLimiter({ perSecond: 10, burst: 3, perDestinationMs: 0 });
    assert.equal(allowed(limiter, 100, 7, 0), 3);
    assert.equal(allowed(limiter, 100, 7, 200), 2);
  });

  it('equals a model with a bucket for each of any number of destinations', () => {
    const steps = fc.array(fc.tuple(fc.nat(40), fc.nat(300)), { minLength: 1, maxLength: 400 });
    fc.assert(
      fc.property(steps, list => {
        const limiter = new IcmpLimiter();
        const buckets = new Map<number, { saved: number; seen: number }>();
        let tokens = 50;
        let now = 0;
        for (const [destination, wait] of list) {
          const address = Math.imul(destination + 1, 0x01000193);
          now += wait;
          tokens = Math.min(50, tokens + wait);
          const bucket = buckets.get(address) ?? { saved: 6000, seen: now };
          let expected = false;
          if (tokens >= 1) {
            bucket.saved = Math.min(6000, bucket.saved + now - bucket.seen);
            bucket.seen = now;
            buckets.set(address, bucket);
            if (bucket.saved >= 1000) {
              bucket.saved -= 1000;
              tokens -= 1;
              expected = true;
            }
          }
          assert.equal(limiter.allow(icmp.TIME_EXCEEDED, 0, address, now), expected);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('keeps to the common limit when a flood of sources comes by', () => {
    const limiter = new IcmpLimiter();
    let count = 0;
    for (let ms = 1; ms <= 1000; ms++) {
      for (let i = 0; i < 100; i++) count += allowed(limiter, 1, (ms * 100 + i) * 0x10001, ms);
    }
    assert.equal(count, 50 + 999, 'the burst, and one a millisecond');
  });
});

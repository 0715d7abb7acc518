import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Counters, EVENT_PATH_MTU_LOWERED } from '../../datapath/counters.ts';
import { LINUX_MIN_PMTU, PathMtu, type PathMtuOptions, plateauBelow } from '../../datapath/mtu/path-mtu.ts';
import { Random } from '../../datapath/random.ts';
import { ip } from '../fixtures/packets.ts';
import { NODE_B } from '../tunnel/rig.ts';

const PEER = ip(NODE_B);

function table(o: Partial<PathMtuOptions> = {}): { mtus: PathMtu; counters: Counters } {
  const counters = new Counters();
  return { mtus: new PathMtu({ counters, random: new Random(1), linkMtu: 1500, ...o }), counters };
}

describe('PathMtu', () => {
  it("is the link's where nothing is known", () => assert.equal(table().mtus.lookup(PEER, 0), 1500));

  it('says what is known, from whom, and until when', () => {
    const { mtus } = table({ capacity: 2 });
    const [other, third] = [ip('10.0.0.9'), ip('200.0.0.1')];
    const [router, nearer] = [ip('192.168.10.254'), ip('192.168.10.253')];
    mtus.update(PEER, 1400, 1500, 20, 1000, router);
    mtus.update(other, 1450, 1500, 20, 2000, router);
    assert.deepEqual(mtus.rows(2000), [
      { peer: other, mtu: 1450, from: router, expiresMs: 600_000 },
      { peer: PEER, mtu: 1400, from: router, expiresMs: 599_000 },
    ]);
    // Confirmed by another; and one more, for which the oldest goes.
    mtus.update(other, 1450, 1500, 20, 3000, nearer);
    mtus.update(third, 1300, 1500, 20, 4000, nearer);
    assert.deepEqual(
      mtus.rows(4000).map(({ peer, from }) => [peer, from]),
      [
        [other, nearer],
        [third, nearer],
      ],
    );
    assert.deepEqual(mtus.rows(604_000), []);
  });

  const rows: [string, number, number, number, number][] = [
    // description, MTU field, quoted total length, expected result, expected lookup
    ['what the router says', 1400, 1500, 1400, 1400],
    ['one byte less', 1499, 1500, 1499, 1499],
    ['not as much as before', 1500, 1501, 0, 1500],
    ['not more than before', 1600, 65000, 0, 1500],
    ['not an MTU that the packet would have fitted', 1400, 1400, 0, 1500],
    ['never below 68', 40, 1500, 68, 68],
    ['never below 68, 1', 1, 1500, 68, 68],
    // RFC 1191 section 5: a quoted length not below the estimate is taken for one with the header counted twice.
    ['a plateau below a full packet of unknown MTU', 0, 1500, 1006, 1006],
    ['a plateau below a packet of 1493', 0, 1493, 1492, 1492],
    ['a plateau below a packet of 1492', 0, 1492, 1006, 1006],
    ['a plateau below a packet longer than the path', 0, 2002, 1492, 1492],
    ['a plateau below a packet of 1520, doubly counted', 0, 1520, 1492, 1492],
    ['a plateau below 69', 0, 69, 68, 68],
    ['a plateau below 68', 0, 68, 68, 68],
    ['a plateau below 0', 0, 0, 68, 68],
  ];
  for (const [what, mtu, totalLen, result, expected] of rows) {
    it(`believes ${what}: ${mtu} about ${totalLen} bytes`, () => {
      const { mtus, counters } = table();
      assert.equal(mtus.update(PEER, mtu, totalLen, 20, 0), result);
      assert.equal(mtus.lookup(PEER, 1), expected);
      assert.equal(counters.events(EVENT_PATH_MTU_LOWERED), result === 0 ? 0 : 1);
      assert.equal(mtus.lookup(ip('192.168.10.254'), 1), 1500, 'another destination');
    });
  }

  it('comes down the plateaus one after the other, and no further than 68', () => {
    const { mtus } = table({ linkMtu: 65535 });
    const seen: number[] = [];
    for (let mtu = 65535; mtu > 68; mtu = mtus.lookup(PEER, 0)) {
      // An honest router's, just below the estimate.
      mtus.update(PEER, 0, mtu - 1, 20, 0);
      seen.push(mtus.lookup(PEER, 0));
    }
    assert.deepEqual(seen, [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68]);
    assert.equal(mtus.update(PEER, 0, 68, 20, 0), 68, 'confirmed');
  });

  it('plateauBelow is the greatest below, for every length', () => {
    const plateaus = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    for (let len = 0; len <= 65535; len++) {
      assert.equal(plateauBelow(len), Math.max(68, ...plateaus.filter(plateau => plateau < len)));
    }
  });

  it('never below its floor: Linux has 552', () => {
    const { mtus } = table({ floor: LINUX_MIN_PMTU });
    assert.equal(mtus.update(PEER, 68, 1500, 20, 0), 552);
    assert.equal(mtus.update(PEER, 0, 552, 20, 0), 552);
    const small = table({ floor: LINUX_MIN_PMTU, linkMtu: 500 }).mtus;
    assert.equal(small.update(PEER, 68, 500, 20, 0), 0);
    assert.equal(small.lookup(PEER, 0), 500);
  });

  it('is never raised, and ages ten minutes after it was lowered or confirmed', () => {
    const { mtus, counters } = table();
    mtus.update(PEER, 1400, 1500, 20, 0);
    assert.equal(mtus.update(PEER, 1450, 1500, 20, 1000), 0);
    assert.equal(mtus.update(PEER, 1300, 1400, 20, 100_000), 1300);
    assert.equal(mtus.update(PEER, 1300, 1400, 20, 200_000), 1300, 'confirmed');
    assert.equal(counters.events(EVENT_PATH_MTU_LOWERED), 2);
    assert.equal(mtus.lookup(PEER, 799_999), 1300);
    assert.equal(mtus.lookup(PEER, 800_000), 1500);
    assert.equal(mtus.update(PEER, 1450, 1500, 20, 800_000), 1450, 'what has aged counts no more');
  });

  it('forgets what has aged, a bounded part of the table at a time', () => {
    const { mtus } = table({ capacity: 1000 });
    for (let i = 0; i < 1000; i++) mtus.update(i, 1400, 1500, 20, i);
    assert.equal(mtus.size, 1000);
    let ticks = 0;
    for (; mtus.size > 0; ticks++) mtus.tick(700_000);
    assert.ok(ticks > 10 && ticks < 100, `${ticks}`);
  });

  it('a new destination displaces the one learnt first', () => {
    const { mtus } = table({ capacity: 3 });
    for (let i = 0; i < 4; i++) mtus.update(100 + i, 1400, 1500, 20, i * 10);
    assert.deepEqual(
      [0, 1, 2, 3].map(i => mtus.lookup(100 + i, 50)),
      [1500, 1400, 1400, 1400],
    );
    mtus.update(102, 1300, 1400, 20, 60);
    assert.equal(mtus.lookup(101, 60), 1400, 'room is made for new ones only');
    mtus.update(101, 1300, 1400, 20, 70);
    mtus.update(104, 1400, 1500, 20, 80);
    assert.deepEqual(
      [101, 102, 103, 104].map(peer => mtus.lookup(peer, 90)),
      [1300, 1300, 1500, 1400],
    );
  });

  it('equals a model, at any time of a clock that has run for months', () => {
    const step = fc.record({
      peer: fc.nat(5),
      mtu: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 2000 })),
      totalLen: fc.integer({ min: 28, max: 2000 }),
      wait: fc.constantFrom(0, 1000, 299_999, 600_000, 2_500_000_000),
    });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e11 }), fc.array(step, { maxLength: 50 }), (start, steps) => {
        const { mtus } = table();
        const model = new Map<number, { mtu: number; at: number }>();
        let now = start;
        for (const s of steps) {
          now += s.wait;
          mtus.tick(now);
          const known = model.get(s.peer);
          const current = known !== undefined && now - known.at < 600_000 ? known.mtu : 1500;
          let mtu = s.mtu === 0 ? plateauBelow(s.totalLen >= current ? s.totalLen - 20 : s.totalLen) : s.mtu;
          mtu = Math.max(68, mtu);
          const believed = (s.mtu === 0 || s.mtu < s.totalLen) && mtu <= current && mtu < 1500;
          if (believed) model.set(s.peer, { mtu, at: now });
          assert.equal(mtus.update(s.peer, s.mtu, s.totalLen, 20, now), believed ? mtu : 0);
          assert.equal(mtus.lookup(s.peer, now), believed ? mtu : current);
        }
      }),
      { numRuns: 300 },
    );
  });
});

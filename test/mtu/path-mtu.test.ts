import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Counters, EVENT_PATH_MTU_LOWERED } from '../../datapath/counters.ts';
import { buildIcmpError, mayAnswer } from '../../datapath/mtu/icmp-error.ts';
import {
  LINUX_MIN_PMTU,
  PathMtu,
  type PathMtuOptions,
  plateauBelow,
  TunnelQuote,
} from '../../datapath/mtu/path-mtu.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { PROFILES, type Profile } from '../../datapath/profile.ts';
import { Random } from '../../datapath/random.ts';
import { CONTINUE, DROP_TUNNEL_ERROR_CHECKSUM, DROP_TUNNEL_ERROR_QUOTE } from '../../datapath/verdict.ts';
import * as icmp from '../../datapath/wire/icmp.ts';
import {
  bytesOf,
  CLIENT,
  fix,
  fragment,
  icmpEcho,
  ip,
  ipv4,
  load,
  patch,
  pattern,
  SERVER,
  tcp4,
  udp4,
} from '../fixtures/packets.ts';
import { NAMES, NODE_A, NODE_B, Rig, type TunnelName } from '../tunnel/rig.ts';

const PEER = ip(NODE_B);
const ROUTER = '192.168.10.254';

function table(o: Partial<PathMtuOptions> = {}): { mtus: PathMtu; counters: Counters } {
  const counters = new Counters();
  return { mtus: new PathMtu({ counters, random: new Random(1), linkMtu: 1500, ...o }), counters };
}

describe('PathMtu', () => {
  it("is the link's where nothing is known", () => assert.equal(table().mtus.lookup(PEER, 0), 1500));

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
      assert.equal(mtus.lookup(ip(ROUTER), 1), 1500, 'another destination');
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

const PROFILE: Profile = PROFILES.rfc; // sets DF

/** What a router sends to A about `outer`: its first `quoted` bytes. */
function error(
  outer: Uint8Array,
  o: { quoted?: number; mtu?: number; type?: number; code?: number; dst?: string } = {},
) {
  const head = new Uint8Array(8);
  head[0] = o.type ?? icmp.UNREACHABLE;
  head[1] = o.code ?? icmp.CODE_FRAG_NEEDED;
  new DataView(head.buffer).setUint16(6, o.mtu ?? 1400);
  const quote = outer.slice(0, o.quoted ?? 548);
  return fix(ipv4(1, Uint8Array.from([...head, ...quote]), { src: ROUTER, dst: o.dst ?? NODE_A }));
}

const OVERHEAD: Record<TunnelName, number> = { ipip: 20, vxlan: 50, geneve: 50 };

/** One for all, as in the path. */
const quote = new TunnelQuote();

/** Reads `bytes` as A. null: it is not about the tunnel. */
function read(rig: Rig, bytes: Uint8Array): { verdict: number; quote: TunnelQuote } | null {
  const p = rig.parsed(bytes);
  const verdict = quote.matches(rig.pool.view, p, rig.a) ? quote.read(rig.pool.view, p, rig.a) : -1;
  rig.pool.release(p);
  return verdict < 0 ? null : { verdict, quote };
}

describe('TunnelQuote', () => {
  for (const name of NAMES) {
    describe(name, () => {
      const inner = tcp4({ payload: pattern(1300), ttl: 61 });
      const rig = () => new Rig(name, { profile: PROFILE });

      it('reads what was sent: destination, MTU, length and the inner packet', () => {
        const r = rig();
        const outer = r.encap(inner);
        const { verdict, quote } = read(r, error(outer, { mtu: 1300 }))!;
        assert.equal(verdict, CONTINUE);
        assert.deepEqual(
          [quote.destination, quote.mtu, quote.totalLen, quote.headerLen, quote.proven],
          [PEER, 1300, outer.length, 20, name === 'ipip' ? 0 : 1],
        );
        const q = quote.inner;
        assert.deepEqual([q.src, q.dst, q.protocol, q.srcPort, q.dstPort], [ip(CLIENT), ip(SERVER), 6, 40000, 80]);
        assert.equal(q.len, 548 - OVERHEAD[name]);
        assert.deepEqual(bytesOf(r.pool, q), inner.slice(0, q.len));
      });

      it('every length of quote: from 28 bytes on it is read, from the inner header and 8 bytes on it has an inner packet', () => {
        const r = rig();
        const outer = r.encap(inner);
        for (let quoted = 0; quoted <= 160; quoted++) {
          const result = read(r, error(outer, { quoted }));
          const least = name === 'ipip' ? 20 : 28;
          if (quoted < least) {
            assert.equal(result, null, `${quoted}`);
            continue;
          }
          assert.equal(result!.verdict, quoted < 28 ? DROP_TUNNEL_ERROR_QUOTE : CONTINUE, `${quoted}`);
          const innerQuoted = quoted - OVERHEAD[name];
          assert.equal(result!.quote.inner.len, innerQuoted < 28 ? 0 : innerQuoted, `${quoted}`);
        }
      });

      it('its inner packet can be answered: an error to the inner sender with the MTU less the overhead', () => {
        const r = rig();
        const outer = r.encap(inner);
        const p = r.parsed(error(outer, { mtu: 1300 }));
        assert.ok(quote.matches(r.pool.view, p, r.a));
        assert.equal(quote.read(r.pool.view, p, r.a), CONTINUE);
        assert.ok(mayAnswer(r.pool.view, quote.inner));
        const mtu = quote.mtu - r.a.overhead;
        const e = buildIcmpError(r.pool, quote.inner, icmp.UNREACHABLE, icmp.CODE_FRAG_NEEDED, mtu, ip('10.244.1.1'))!;
        assert.equal(parseIpv4(r.pool.view, e), CONTINUE);
        const bytes = bytesOf(r.pool, e);
        assert.equal(e.dst, ip(CLIENT));
        assert.deepEqual([...bytes.slice(26, 28)], [mtu >> 8, mtu & 255]);
        assert.deepEqual(bytes.slice(28), inner.slice(0, bytes.length - 28));
        r.pool.release(e);
        r.pool.release(p);
      });

      it('reads the whole of a short packet, and not what stands behind it', () => {
        const r = rig();
        const echo = icmpEcho({ icmpId: 99, payload: pattern(3) });
        const padded = Uint8Array.from([...error(r.encap(echo)), 1, 2, 3, 4, 5]);
        const { verdict, quote } = read(r, padded)!;
        assert.equal(verdict, CONTINUE);
        assert.equal(quote.inner.len, echo.length);
        assert.equal(quote.inner.srcPort, 99);
        const longer = r.encap(echo);
        const trailing = read(r, error(Uint8Array.from([...longer, 7, 7, 7, 7])))!;
        assert.equal(trailing.quote.inner.len, echo.length);
      });

      it('reads other errors, which have no MTU', () => {
        const r = rig();
        const outer = r.encap(inner);
        for (const [type, code] of [
          [icmp.TIME_EXCEEDED, 0],
          [icmp.UNREACHABLE, 1],
          [icmp.PARAMETER_PROBLEM, 0],
        ]) {
          const { verdict, quote } = read(r, error(outer, { type, code }))!;
          assert.equal(verdict, CONTINUE);
          assert.equal(quote.mtu, 0);
        }
      });

      const foreign: [string, (outer: Uint8Array) => Uint8Array][] = [
        ['another source', o => patch(o, 12, 10, 0, 0, 1)],
        ['another protocol', o => patch(o, 9, 6)],
        ['IPv6', o => patch(o, 0, 0x65)],
      ];
      if (name !== 'ipip') foreign.push(['another destination port', o => patch(o, 22, 0, 53)]);
      for (const [what, change] of foreign) {
        it(`is not about the tunnel: ${what}`, () => {
          const r = rig();
          assert.equal(read(r, error(change(r.encap(inner)))), null);
        });
      }
      it('is not about the tunnel: no error, or a fragment of one', () => {
        const r = rig();
        const outer = r.encap(inner);
        assert.equal(read(r, error(outer, { type: icmp.ECHO })), null);
        assert.equal(read(r, fragment(error(outer), 0, 200)), null);
        assert.equal(read(r, udp4()), null);
      });

      const forged: [string, (outer: Uint8Array) => Uint8Array][] = [
        ['a destination that is no peer', o => patch(o, 16, 192, 168, 10, 77)],
        ['a later fragment', o => patch(o, 6, 0x40, 1)],
        ['a packet without DF', o => patch(o, 6, 0)],
        ['a header length that leaves nothing', o => patch(o, 0, 0x4f).slice(0, 64)],
        ['a header length below 20', o => patch(o, 0, 0x44)],
      ];
      if (name !== 'ipip') {
        forged.push(
          ['another source port in the range', o => patch(o, 21, o[21] ^ 1)],
          ['a source port outside the range', o => patch(o, 20, 0, 80)],
          ['another tunnel header', o => patch(o, 28, o[28] ^ 0x10)],
          ['another inner source MAC', o => patch(o, 42 + 5, o[47] ^ 1)],
          ['another inner type', o => patch(o, 48, 0x86, 0xdd)],
          ['another inner address', o => patch(o, 50 + 15, o[65] ^ 1)],
          ['another inner port', o => patch(o, 50 + 21, o[71] ^ 1)],
        );
      }
      for (const [what, change] of forged) {
        it(`refuses a quote with ${what}`, () => {
          const r = rig();
          const result = read(r, error(change(r.encap(inner))));
          // A header length that hides the ports makes it no packet of the tunnel.
          if (result === null) assert.match(what, /header length/);
          else assert.equal(result.verdict, DROP_TUNNEL_ERROR_QUOTE);
        });
      }

      it('refuses an error with a wrong checksum', () => {
        const r = rig();
        const bytes = error(r.encap(inner));
        bytes[100] ^= 1;
        assert.equal(read(r, bytes)!.verdict, DROP_TUNNEL_ERROR_CHECKSUM);
      });

      it('cannot ask for the port of a fragment: its sender knew none', () => {
        const r = rig();
        const piece = fragment(udp4({ payload: pattern(1300) }), 0, 1200);
        const { verdict, quote } = read(r, error(r.encap(piece)))!;
        assert.equal(verdict, CONTINUE);
        assert.equal(quote.proven, name === 'ipip' ? 0 : 1, 'made from the addresses alone');
        const later = read(r, error(r.encap(fragment(udp4({ payload: pattern(1300) }), 1200, 108))))!;
        assert.equal(later.verdict, CONTINUE);
        assert.equal(mayAnswer(r.pool.view, later.quote.inner), false);
      });

      it('survives any damage, and reads nothing outside', () => {
        const r = rig();
        const good = error(r.encap(inner), { quoted: 120 });
        fc.assert(
          fc.property(
            fc.array(fc.tuple(fc.integer({ min: 20, max: good.length - 1 }), fc.nat(255)), { maxLength: 6 }),
            fc.integer({ min: 28, max: good.length }),
            (damage, len) => {
              let bytes: Uint8Array = good.slice(0, len);
              for (const [at, value] of damage) if (at < len) bytes = patch(bytes, at, value);
              bytes = fix(bytes);
              const p = load(r.pool, bytes);
              assert.equal(parseIpv4(r.pool.view, p), CONTINUE);
              if (quote.matches(r.pool.view, p, r.a) && quote.read(r.pool.view, p, r.a) === CONTINUE) {
                assert.equal(quote.destination, PEER);
                const q = quote.inner;
                if (q.len > 0) assert.ok(q.off > p.l4 && q.l4 + 8 <= q.off + q.len && q.off + q.len <= p.off + p.len);
              }
              r.pool.release(p);
            },
          ),
          { numRuns: 2000 },
        );
      });
    });
  }

  it('refuses another VNI, where it is fixed', () => {
    for (const name of ['vxlan', 'geneve'] as const) {
      const r = new Rig(name, { profile: PROFILE, a: { vni: 4096 } });
      const outer = r.encap(tcp4());
      assert.equal(read(r, error(outer))!.verdict, CONTINUE);
      assert.equal(read(r, error(patch(outer, 34, outer[34] ^ 1)))!.verdict, DROP_TUNNEL_ERROR_QUOTE);
    }
  });
});

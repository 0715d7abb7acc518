import assert from 'node:assert/strict';
import fc from 'fast-check';
import { buildIcmpError, mayAnswer } from '../../datapath/mtu/icmp-error.ts';
import { quotedHeader, quotedMtu, quotesTunnel, readQuote } from '../../datapath/mtu/tunnel-quote.ts';
import { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { PROFILES, type Profile } from '../../datapath/profile.ts';
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
const inside = new Packet(0, -1);

/** Reads `bytes` as A: the verdict, the inner packet, and what the outer header says. null: it is not about the tunnel. */
function read(rig: Rig, bytes: Uint8Array) {
  const { view } = rig.pool;
  const p = rig.parsed(bytes);
  rig.pool.release(p);
  if (!quotesTunnel(view, p, rig.a)) return null;
  const verdict = readQuote(view, p, rig.a, inside);
  return { verdict, inside, mtu: quotedMtu(view, p), totalLen: view.getUint16(quotedHeader(p) + 2) };
}

describe('the quote in an ICMP error of the underlay', () => {
  for (const name of NAMES) {
    describe(name, () => {
      const inner = tcp4({ payload: pattern(1300), ttl: 61 });
      const rig = () => new Rig(name, { profile: PROFILE });

      it('reads what was sent: destination, MTU, length and the inner packet', () => {
        const r = rig();
        const outer = r.encap(inner);
        const { verdict, inside: q, mtu, totalLen } = read(r, error(outer, { mtu: 1300 }))!;
        assert.equal(verdict, CONTINUE);
        assert.deepEqual([q.tunnelSource, mtu, totalLen], [PEER, 1300, outer.length]);
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
          assert.equal(result!.inside.len, innerQuoted < 28 ? 0 : innerQuoted, `${quoted}`);
        }
      });

      it('its inner packet can be answered: an error to the inner sender with the MTU less the overhead', () => {
        const r = rig();
        const outer = r.encap(inner);
        const p = r.parsed(error(outer, { mtu: 1300 }));
        assert.ok(quotesTunnel(r.pool.view, p, r.a));
        assert.equal(readQuote(r.pool.view, p, r.a, inside), CONTINUE);
        assert.ok(mayAnswer(r.pool.view, inside));
        const mtu = quotedMtu(r.pool.view, p) - r.a.overhead;
        const e = buildIcmpError(r.pool, inside, icmp.UNREACHABLE, icmp.CODE_FRAG_NEEDED, mtu, ip('10.244.1.1'))!;
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
        assert.equal(read(r, padded)!.verdict, CONTINUE);
        assert.equal(inside.len, echo.length);
        assert.equal(inside.srcPort, 99);
        const longer = r.encap(echo);
        const trailing = read(r, error(Uint8Array.from([...longer, 7, 7, 7, 7])))!;
        assert.equal(trailing.inside.len, echo.length);
      });

      it('reads other errors, which have no MTU', () => {
        const r = rig();
        const outer = r.encap(inner);
        for (const [type, code] of [
          [icmp.TIME_EXCEEDED, 0],
          [icmp.UNREACHABLE, 1],
          [icmp.PARAMETER_PROBLEM, 0],
        ]) {
          const { verdict, mtu } = read(r, error(outer, { type, code }))!;
          assert.deepEqual([verdict, mtu], [CONTINUE, 0]);
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
        assert.equal(read(r, error(r.encap(piece)))!.verdict, CONTINUE, 'made from the addresses alone');
        const later = read(r, error(r.encap(fragment(udp4({ payload: pattern(1300) }), 1200, 108))))!;
        assert.equal(later.verdict, CONTINUE);
        assert.equal(mayAnswer(r.pool.view, later.inside), false);
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
              if (quotesTunnel(r.pool.view, p, r.a) && readQuote(r.pool.view, p, r.a, inside) === CONTINUE) {
                assert.equal(inside.tunnelSource, PEER);
                const q = inside;
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

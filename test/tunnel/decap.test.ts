import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { EVENT_ECN_ODD } from '../../datapath/counters.ts';
import type { ProfileName } from '../../datapath/profile.ts';
import { PROFILES } from '../../datapath/profile.ts';
import { checkGeneve } from '../../datapath/tunnel/geneve.ts';
import type { TunnelSpec } from '../../datapath/tunnel/tunnel.ts';
import * as v from '../../datapath/verdict.ts';
import * as virtio from '../../datapath/wire/virtio-net.ts';
import {
  bytesOf,
  ethernet,
  fix,
  fixHeader,
  fragment,
  icmpEcho,
  ip,
  ipip,
  loadPartial,
  patch,
  pattern,
  tcp4,
  udp4,
} from '../fixtures/packets.ts';
import { slowHeaderOk, slowTransportOk } from '../model/checksum.ts';
import { NAMES, NODE_A, NODE_B, Rig, type TunnelName } from './rig.ts';

const MAC_A = '02:42:0a:f4:01:00';
const MAC_B = '02:42:0a:f4:02:00';

/** A tunnel packet from A to B made by hand, everything right unless told otherwise. */
function sent(
  name: TunnelName,
  o: {
    inner?: Uint8Array;
    header?: number[];
    options?: number[];
    frame?: Uint8Array;
    tos?: number;
    src?: string;
    dport?: number;
    noChecksum?: boolean;
  } = {},
): Uint8Array {
  const inner = o.inner ?? icmpEcho();
  const src = o.src ?? NODE_A;
  if (name === 'ipip') return ipip(inner, { src, dst: NODE_B, tos: o.tos });
  const options = o.options ?? [];
  const standard = name === 'vxlan' ? [8, 0, 0, 0] : [options.length / 4, 0, 0x65, 0x58];
  const header = o.header ?? [...standard, 0x00, 0x53, 0xfc, 0x00];
  const frame = o.frame ?? ethernet(inner, { src: MAC_A, dst: MAC_B });
  return udp4({
    src,
    dst: NODE_B,
    tos: o.tos,
    sport: 40000,
    dport: o.dport ?? (name === 'geneve' ? 6081 : 8472),
    payload: Uint8Array.from([...header, ...options, ...frame]),
    noChecksum: o.noChecksum,
  });
}

describe('tunnel decapsulation', () => {
  for (const name of NAMES) {
    it(`${name}: gives back the inner packet, the sender and the identity`, () => {
      const rig = new Rig(name);
      const inner = tcp4({ payload: pattern(100) });
      for (const outer of [sent(name, { inner }), sent(name, { inner, noChecksum: true }), rig.encap(inner)]) {
        const got = rig.decap(outer);
        assert.equal(got.verdict, v.CONTINUE);
        assert.deepEqual(got.inner, inner);
        assert.equal(got.tunnelSource, ip(NODE_A));
        assert.equal(got.identity, name === 'ipip' ? 0 : 21500);
      }
    });
  }

  describe('refuses', () => {
    interface Row {
      what: string;
      name: TunnelName;
      outer: Uint8Array;
      want: number;
      profile?: ProfileName;
      spec?: Partial<TunnelSpec>;
    }
    const vxlan = (...header: number[]) => sent('vxlan', { header });
    const geneve = (...header: number[]) => sent('geneve', { header });
    const framed = (name: TunnelName, o: Parameters<typeof ethernet>[1]) =>
      sent(name, { frame: ethernet(icmpEcho(), { src: MAC_A, dst: MAC_B, ...o }) });
    const rows: Row[] = [
      ...NAMES.flatMap((name): Row[] => [
        { what: 'an unknown peer', name, outer: sent(name, { src: '192.168.10.9' }), want: v.DROP_TUNNEL_UNKNOWN_PEER },
        {
          what: 'an unknown peer unless any may send',
          name,
          outer: sent(name, { src: '192.168.10.9' }),
          want: v.CONTINUE,
          spec: { acceptAny: true },
        },
        { what: 'a first fragment', name, outer: fragment(sent(name), 0, 64), want: v.DROP_TUNNEL_FRAGMENT },
        { what: 'Not-ECT marked CE', name, outer: sent(name, { tos: 3 }), want: v.DROP_TUNNEL_ECN },
        {
          what: 'no inner header',
          name,
          outer: sent(name, { inner: new Uint8Array(19) }),
          want: v.DROP_TUNNEL_MALFORMED,
        },
        {
          what: 'the smallest inner header (parse decides)',
          name,
          outer: sent(name, { inner: icmpEcho().slice(0, 20) }),
          want: v.CONTINUE,
        },
      ]),
      {
        what: 'IPv6 inside',
        name: 'ipip',
        outer: sent('ipip', { inner: patch(icmpEcho(), 0, 0x60) }),
        want: v.DROP_TUNNEL_INNER_TYPE,
      },
      ...(['vxlan', 'geneve'] as const).flatMap((name): Row[] => [
        {
          what: 'a wrong UDP checksum',
          name,
          outer: fixHeader(patch(sent(name), 26, 1, 2)),
          want: v.DROP_TUNNEL_CHECKSUM,
        },
        {
          what: 'a payload that does not fit the checksum',
          name,
          outer: patch(sent(name), 90, 0),
          want: v.DROP_TUNNEL_CHECKSUM,
        },
        {
          what: 'no tunnel header',
          name,
          outer: udp4({ src: NODE_A, dport: 8472, payload: pattern(7) }),
          want: v.DROP_TUNNEL_MALFORMED,
        },
        {
          what: 'no inner Ethernet header',
          name,
          outer: sent(name, { frame: new Uint8Array(13) }),
          want: v.DROP_TUNNEL_MALFORMED,
        },
        { what: 'inner ARP', name, outer: framed(name, { type: 0x0806 }), want: v.DROP_TUNNEL_INNER_TYPE },
        { what: 'inner IPv6', name, outer: framed(name, { type: 0x86dd }), want: v.DROP_TUNNEL_INNER_TYPE },
        { what: 'an inner VLAN tag', name, outer: framed(name, { type: 0x8100 }), want: v.DROP_TUNNEL_INNER_TYPE },
        { what: 'our own MAC as inner source', name, outer: framed(name, { src: MAC_B }), want: v.DROP_TUNNEL_OWN_MAC },
        {
          what: 'another inner destination MAC',
          name,
          outer: framed(name, { dst: '02:00:00:00:00:09' }),
          want: v.DROP_TUNNEL_INNER_MAC,
        },
        {
          what: 'a group inner destination MAC not',
          name,
          outer: framed(name, { dst: 'ff:ff:ff:ff:ff:ff' }),
          want: v.CONTINUE,
        },
        {
          what: 'another inner destination MAC not, as cilium',
          name,
          outer: framed(name, { dst: '02:00:00:00:00:09' }),
          want: v.CONTINUE,
          profile: 'cilium',
        },
        {
          what: 'another inner destination MAC, as rfc',
          name,
          outer: framed(name, { dst: '02:00:00:00:00:09' }),
          want: v.DROP_TUNNEL_INNER_MAC,
          profile: 'rfc',
        },
        { what: 'another VNI', name, outer: sent(name), want: v.DROP_TUNNEL_UNKNOWN_VNI, spec: { vni: 1 } },
        { what: 'the fixed VNI not', name, outer: sent(name), want: v.CONTINUE, spec: { vni: 21500 } },
      ]),
      {
        what: 'VNI 0 as identity',
        name: 'vxlan',
        outer: vxlan(8, 0, 0, 0, 0, 0, 0, 0),
        want: v.DROP_TUNNEL_UNKNOWN_VNI,
      },
      {
        what: 'VNI 0 as identity',
        name: 'geneve',
        outer: geneve(0, 0, 0x65, 0x58, 0, 0, 0, 0),
        want: v.DROP_TUNNEL_UNKNOWN_VNI,
      },
      {
        what: 'the greatest VNI not',
        name: 'vxlan',
        outer: vxlan(8, 0, 0, 0, 255, 255, 255, 0),
        want: v.CONTINUE,
        spec: { vni: 0xffffff },
      },
      {
        what: 'VNI 0 not, where it is the fixed one',
        name: 'vxlan',
        outer: vxlan(8, 0, 0, 0, 0, 0, 0, 0),
        want: v.CONTINUE,
        spec: { vni: 0 },
      },
      { what: 'a missing I flag', name: 'vxlan', outer: vxlan(0, 0, 0, 0, 0, 0x53, 0xfc, 0), want: v.DROP_VXLAN_FLAGS },
      {
        what: 'a missing I flag',
        name: 'vxlan',
        outer: vxlan(0xf7, 0, 0, 0, 0, 0x53, 0xfc, 0),
        want: v.DROP_VXLAN_FLAGS,
        profile: 'rfc',
      },
      ...[
        [0x88, 0, 0, 0, 0],
        [9, 0, 0, 0, 0],
        [8, 0x80, 0, 0, 0],
        [8, 0, 1, 0, 0],
        [8, 0, 0, 1, 0],
        [8, 0, 0, 0, 1],
      ].flatMap(([a, b, c, d, e]): Row[] =>
        (['linux', 'cilium', 'calico', 'flannel', 'rfc'] as const).map(profile => ({
          what: `reserved bits ${[a, b, c, d, e]}`,
          name: 'vxlan',
          outer: vxlan(a, b, c, d, 0, 0x53, 0xfc, e),
          want: profile === 'rfc' ? v.CONTINUE : v.DROP_VXLAN_FLAGS,
          profile,
        })),
      ),
      {
        what: 'version 1',
        name: 'geneve',
        outer: geneve(0x40, 0, 0x65, 0x58, 0, 0x53, 0xfc, 0),
        want: v.DROP_GENEVE_VERSION,
      },
      {
        what: 'a control packet',
        name: 'geneve',
        outer: geneve(0, 0x80, 0x65, 0x58, 0, 0x53, 0xfc, 0),
        want: v.DROP_TUNNEL_CONTROL,
      },
      {
        what: 'reserved bits not',
        name: 'geneve',
        outer: geneve(0, 0x3f, 0x65, 0x58, 0, 0x53, 0xfc, 0xff),
        want: v.CONTINUE,
      },
      ...(['linux', 'cilium', 'calico', 'flannel', 'rfc'] as const).flatMap((profile): Row[] => [
        {
          what: 'the C bit without a critical option',
          name: 'geneve',
          outer: geneve(0, 0x40, 0x65, 0x58, 0, 0x53, 0xfc, 0),
          want: profile === 'cilium' || profile === 'rfc' ? v.CONTINUE : v.DROP_GENEVE_CRITICAL_OPTION,
          profile,
        },
        {
          what: 'a bare IPv4 payload',
          name: 'geneve',
          outer: sent('geneve', { header: [0, 0, 8, 0, 0, 0x53, 0xfc, 0], frame: icmpEcho() }),
          want: profile === 'rfc' ? v.CONTINUE : v.DROP_TUNNEL_INNER_TYPE,
          profile,
        },
        {
          what: 'a critical option',
          name: 'geneve',
          outer: sent('geneve', { options: [1, 0x4b, 0x81, 0] }),
          want: v.DROP_GENEVE_CRITICAL_OPTION,
          profile,
        },
      ]),
      {
        what: 'a bare IPv6 payload',
        name: 'geneve',
        outer: geneve(0, 0, 0x86, 0xdd, 0, 0x53, 0xfc, 0),
        want: v.DROP_TUNNEL_INNER_TYPE,
        profile: 'rfc',
      },
      {
        what: 'an option of no importance not',
        name: 'geneve',
        outer: sent('geneve', { options: [1, 0x4b, 0x01, 2, 1, 2, 3, 4, 5, 6, 7, 8] }),
        want: v.CONTINUE,
      },
      {
        what: 'a critical option behind another',
        name: 'geneve',
        outer: sent('geneve', { options: [1, 2, 3, 1, 0, 0, 0, 0, 1, 2, 0x80, 0] }),
        want: v.DROP_GENEVE_CRITICAL_OPTION,
      },
      {
        what: 'the greatest options not',
        name: 'geneve',
        outer: sent('geneve', { options: new Array(63).fill([1, 2, 3, 0]).flat() }),
        want: v.CONTINUE,
      },
      {
        what: 'an option longer than all',
        name: 'geneve',
        outer: sent('geneve', { options: [1, 2, 3, 2, 0, 0, 0, 0] }),
        want: v.DROP_GENEVE_OPTION_LENGTH,
      },
      {
        what: 'options one word longer than the packet',
        name: 'geneve',
        outer: sent('geneve', { header: [2, 0, 0x65, 0x58, 0, 0x53, 0xfc, 0], frame: Uint8Array.of(1, 2, 3, 0) }),
        want: v.DROP_GENEVE_OPTION_LENGTH,
      },
      {
        what: 'options longer than the packet',
        name: 'geneve',
        outer: sent('geneve', { header: [0x3f, 0, 0x65, 0x58, 0, 0x53, 0xfc, 0] }),
        want: v.DROP_GENEVE_OPTION_LENGTH,
      },
    ];
    for (const row of rows) {
      it(`${row.profile ?? 'linux'} ${row.name}: ${row.what}`, () => {
        const rig = new Rig(row.name, { profile: PROFILES[row.profile ?? 'linux'], b: row.spec });
        const p = rig.parsed(row.outer);
        const before = [p.off, p.len, p.identity, p.tunnelSource];
        const verdict = rig.b.decap(p);
        assert.equal(v.VERDICT_NAMES[verdict], v.VERDICT_NAMES[row.want]);
        if (verdict !== v.CONTINUE) {
          assert.deepEqual([p.off, p.len, p.identity, p.tunnelSource], before);
          assert.deepEqual(bytesOf(rig.pool, p), row.outer);
        }
      });
    }
  });

  it('GENEVE options that end behind the packet are not read', () => {
    const header = new DataView(Uint8Array.of(1, 0, 0x65, 0x58, 0, 0x53, 0xfc, 0).buffer);
    assert.equal(checkGeneve(header, 0, header.byteLength, true, new Int32Array(0)), v.DROP_GENEVE_OPTION_LENGTH);
  });

  it('matches its own packets only', () => {
    for (const name of NAMES) {
      const rig = new Rig(name);
      for (const [other, dport] of [
        ['ipip', 0],
        ['vxlan', 8472],
        ['geneve', 6081],
        ['vxlan', 4789],
      ] as const) {
        const p = rig.parsed(sent(other, { dport }));
        assert.equal(rig.b.matches(p), other === name && dport !== 4789, `${name} ${other} ${dport}`);
        rig.pool.release(p);
      }
      const udp = rig.parsed(udp4({ sport: 8472, dport: 53 }));
      assert.equal(rig.b.matches(udp), false);
    }
  });

  it('cuts off what lies behind the UDP length', () => {
    const rig = new Rig('vxlan');
    const outer = sent('vxlan', { noChecksum: true });
    const got = rig.decap(fixHeader(Uint8Array.from([...outer, 1, 2, 3, 4, 5])));
    assert.equal(got.verdict, v.CONTINUE);
    assert.deepEqual(got.inner, icmpEcho());
  });

  it('finds every one of 3000 peers and no other', () => {
    const peers = Array.from({ length: 3000 }, (_, i) => ({ address: ip('10.0.0.0') + i * 3, macHi: 0, macLo: i }));
    const rig = new Rig('vxlan', { a: { peers } });
    for (let i = 0; i < 9000; i++) {
      assert.equal(rig.a.findPeer(ip('10.0.0.0') + i), i % 3 === 0 ? i / 3 : -1);
    }
    assert.equal(rig.a.findPeer(0), -1);
    const none = new Rig('vxlan', { a: { peers: [] } });
    assert.equal(none.a.findPeer(0), -1);
    assert.equal(none.a.findPeer(ip(NODE_B)), -1);
  });

  describe('ECN, inner by outer', () => {
    // RFC 6040 figure 4; rows and columns by value: Not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3. D: drop, !: counted as odd.
    const tables = {
      linux: ['0 0! 0! D', '1 1 1 3', '2 1 2 3', '3 3 3 3'],
      rfc: ['0 0! 0! D', '1 1 1! 3', '2 1 2 3', '3 3! 3 3'],
    };
    for (const [profile, table] of [
      ['linux', tables.linux],
      ['cilium', tables.linux],
      ['calico', tables.linux],
      ['flannel', tables.linux],
      ['rfc', tables.rfc],
    ] as const) {
      for (const name of NAMES) {
        it(`${profile} ${name}`, () => {
          for (let inner = 0; inner < 4; inner++) {
            for (let outer = 0; outer < 4; outer++) {
              const rig = new Rig(name, { profile: PROFILES[profile] });
              const packet = icmpEcho({ tos: 0xb8 | inner });
              const want = table[inner].split(' ')[outer];
              const got = rig.decap(sent(name, { inner: packet, tos: 0x40 | outer }));
              const where = `inner ${inner} outer ${outer}`;
              assert.equal(got.verdict, want === 'D' ? v.DROP_TUNNEL_ECN : v.CONTINUE, where);
              assert.equal(rig.counters.events(EVENT_ECN_ODD), want.endsWith('!') ? 1 : 0, where);
              if (want === 'D') continue;
              assert.deepEqual(got.inner, fix(patch(packet, 1, 0xb8 | Number(want[0]))), where);
              assert.ok(slowHeaderOk(got.inner), where);
            }
          }
        });
      }
    }
  });

  describe('what the device says', () => {
    it('a checksum that the device vouches for, or shall complete, is not verified', () => {
      for (const flags of [virtio.FLAG_DATA_VALID, virtio.FLAG_NEEDS_CSUM]) {
        const rig = new Rig('vxlan');
        const p = rig.parsed(fixHeader(patch(sent('vxlan'), 26, 1, 2)));
        p.vnetFlags = flags;
        p.csumStart = p.l4;
        p.csumOffset = 6;
        assert.equal(rig.b.decap(p), v.CONTINUE);
        // Neither says anything of the inner packet.
        assert.equal(p.vnetFlags, 0);
      }
    });

    it('a device that has looked at both checksums vouches for the inner one still', () => {
      const rig = new Rig('vxlan');
      const p = rig.parsed(sent('vxlan'));
      p.vnetFlags = virtio.FLAG_DATA_VALID | virtio.FLAG_UDP_TUNNEL_CSUM;
      assert.equal(rig.b.decap(p), v.CONTINUE);
      assert.equal(p.vnetFlags, virtio.FLAG_DATA_VALID);
    });

    it('a partial inner checksum stays partial', () => {
      for (const name of NAMES) {
        const rig = new Rig(name);
        const p = loadPartial(rig.pool, tcp4({ payload: pattern(500) }));
        rig.parse(p);
        const before = bytesOf(rig.pool, p);
        p.identity = 21500;
        rig.a.encap(p, 0);
        rig.parse(p);
        assert.equal(rig.b.decap(p), v.CONTINUE);
        assert.equal(p.vnetFlags, virtio.FLAG_NEEDS_CSUM);
        rig.parse(p);
        assert.equal(p.csumStart, p.l4);
        assert.deepEqual(bytesOf(rig.pool, p), before);
      }
    });

    it('a superpacket comes out as the plain superpacket that went in', () => {
      for (const name of ['vxlan', 'geneve'] as const) {
        for (const profile of ['linux', 'rfc'] as const) {
          for (const [inner, gsoSize] of [
            [tcp4({ payload: pattern(60000) }), 1410],
            [udp4({ payload: pattern(9000) }), 1000],
          ] as const) {
            const rig = new Rig(name, { profile: PROFILES[profile] });
            const p = loadPartial(rig.pool, inner, gsoSize);
            rig.parse(p);
            const before = [bytesOf(rig.pool, p), p.gsoType, p.gsoSize, p.vnetFlags, p.csumStart, p.csumOffset];
            p.identity = 21500;
            rig.a.encap(p, 0);
            rig.parse(p);
            assert.equal(rig.b.decap(p), v.CONTINUE);
            const after = [bytesOf(rig.pool, p), p.gsoType, p.gsoSize, p.vnetFlags, p.csumStart, p.csumOffset];
            assert.deepEqual(after, before);
            assert.deepEqual([p.outerTransport, p.innerNetwork], [0, 0]);
            rig.parse(p);
          }
        }
      }
    });

    it('CE on the outer header of a superpacket reaches the inner one', () => {
      const rig = new Rig('vxlan');
      const p = loadPartial(rig.pool, tcp4({ tos: 2, payload: pattern(20000) }), 1410);
      rig.parse(p);
      p.identity = 21500;
      rig.a.encap(p, 0);
      rig.pool.bytes.set(fixHeader(patch(bytesOf(rig.pool, p), 1, 3)), p.off);
      rig.parse(p);
      assert.equal(rig.b.decap(p), v.CONTINUE);
      rig.parse(p);
      assert.equal(bytesOf(rig.pool, p)[1], 3);
    });

    it('a superpacket whose inner header is not where the device says is refused', () => {
      const rig = new Rig('vxlan');
      const p = loadPartial(rig.pool, tcp4({ payload: pattern(20000) }), 1410);
      rig.parse(p);
      p.identity = 21500;
      rig.a.encap(p, 0);
      p.innerNetwork -= 4;
      rig.parse(p);
      assert.equal(rig.b.decap(p), v.DROP_MALFORMED_VNET_HEADER);
    });

    it('a train of tunnel datagrams is refused: each has a tunnel header of its own', () => {
      const rig = new Rig('vxlan');
      const p = loadPartial(rig.pool, sent('vxlan', { inner: udp4({ payload: pattern(3000) }) }), 1000);
      rig.parse(p);
      assert.equal(rig.b.decap(p), v.DROP_TUNNEL_COALESCED);
    });
  });

  it('the sizes of a 1500-byte underlay fit exactly', () => {
    for (const name of NAMES) {
      const rig = new Rig(name);
      const inner = udp4({ payload: pattern(1500 - rig.a.overhead - 28) });
      const outer = rig.encap(inner);
      assert.equal(outer.length, 1500);
      if (name !== 'ipip') assert.ok(slowTransportOk(outer));
      assert.deepEqual(rig.decap(outer).inner, inner);
    }
  });
});

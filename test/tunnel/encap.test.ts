import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import type { ProfileName } from '../../datapath/profile.ts';
import { PROFILES } from '../../datapath/profile.ts';
import * as virtio from '../../datapath/wire/virtio-net.ts';
import {
  bytesOf,
  FILLER,
  fragment,
  hex,
  icmpEcho,
  ip,
  loadPartial,
  patch,
  pattern,
  tcp4,
  udp4,
} from '../fixtures/packets.ts';
import { slowHeaderOk, slowPseudoSum, slowTransportOk } from '../model/checksum.ts';
import { NAMES, NODE_B, Rig } from './rig.ts';

const u16 = (bytes: Uint8Array, at: number) => bytes[at] * 256 + bytes[at + 1];
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('tunnel encapsulation', () => {
  describe('golden headers', () => {
    const rows = [
      { what: 'cilium VXLAN, identity 21500', name: 'vxlan', vni: -1, port: 8472, header: '08000000 0053fc00' },
      { what: 'cilium GENEVE, identity 21500', name: 'geneve', vni: -1, port: 6081, header: '00006558 0053fc00' },
      { what: 'flannel VNI 1', name: 'vxlan', vni: 1, port: 8472, header: '08000000 00000100' },
      { what: 'Calico VNI 4096', name: 'vxlan', vni: 4096, port: 4789, header: '08000000 00100000' },
      { what: 'the greatest VNI', name: 'vxlan', vni: 0xffffff, port: 4789, header: '08000000 ffffff00' },
    ] as const;
    for (const row of rows) {
      it(row.what, () => {
        const rig = new Rig(row.name, { a: { vni: row.vni, port: row.port } });
        const inner = icmpEcho();
        const outer = rig.encap(inner, 21500);
        assert.equal(outer.length, inner.length + 50);
        assert.equal(u16(outer, 22), row.port);
        assert.equal(u16(outer, 24), outer.length - 20);
        assert.equal(text(outer.slice(28, 36)), text(hex(row.header)));
        assert.equal(text(outer.slice(36, 50)), '02420af40200' + '02420af40100' + '0800');
        assert.deepEqual(outer.slice(50), inner);
      });
    }

    it('IPIP: protocol 4 and the inner header next', () => {
      const inner = icmpEcho();
      const outer = new Rig('ipip').encap(inner);
      assert.equal(outer.length, inner.length + 20);
      assert.equal(outer[9], 4);
      assert.equal(outer[20], 0x45);
      assert.deepEqual(outer.slice(20), inner);
    });
  });

  describe('profile rows', () => {
    // As seen on the wire for an inner packet with TTL 17, DSCP 46 and DF or not. 'in': inherited.
    type Row = [ProfileName, (typeof NAMES)[number], number | 'in', number | 'in', 0 | 1 | 'in', boolean, number[]];
    const rows: Row[] = [
      ['linux', 'ipip', 'in', 0, 'in', false, []],
      ['linux', 'vxlan', 64, 0, 0, true, [32768, 60998]],
      ['linux', 'geneve', 64, 0, 0, false, [1, 65534]],
      ['cilium', 'ipip', 64, 0, 0, false, []],
      ['cilium', 'vxlan', 64, 0, 0, false, [32768, 60998]],
      ['cilium', 'geneve', 64, 0, 0, false, [1, 65534]],
      ['calico', 'ipip', 'in', 0, 'in', false, []],
      ['calico', 'vxlan', 64, 0, 0, true, [32768, 60998]],
      ['calico', 'geneve', 64, 0, 0, false, [1, 65534]],
      ['flannel', 'ipip', 'in', 0, 'in', false, []],
      ['flannel', 'vxlan', 64, 0, 0, true, [32768, 60998]],
      ['flannel', 'geneve', 64, 0, 0, false, [1, 65534]],
      ['rfc', 'ipip', 64, 'in', 1, false, []],
      ['rfc', 'vxlan', 64, 'in', 1, false, [49152, 65535]],
      ['rfc', 'geneve', 64, 'in', 1, true, [49152, 65535]],
    ];
    for (const [profile, name, ttl, dscp, df, udpChecksum, ports] of rows) {
      it(`${profile} ${name}`, () => {
        const rig = new Rig(name, { profile: PROFILES[profile] });
        for (const innerDf of [0, 1]) {
          const outer = rig.encap(udp4({ tos: 46 << 2, ttl: 17, fragment: innerDf << 14, payload: pattern(40) }));
          assert.equal(outer[8], ttl === 'in' ? 17 : ttl, 'ttl');
          assert.equal(outer[1] >> 2, dscp === 'in' ? 46 : dscp, 'dscp');
          assert.equal(u16(outer, 6), (df === 'in' ? innerDf : df) << 14, 'df');
          assert.ok(slowHeaderOk(outer));
          if (name === 'ipip') continue;
          assert.equal(u16(outer, 26) !== 0, udpChecksum, 'udp checksum');
          assert.ok(slowTransportOk(outer));
        }
        if (name === 'ipip') return;
        let [least, greatest] = [65536, -1];
        for (let sport = 1; sport <= 20000; sport++) {
          const port = u16(rig.encap(udp4({ sport, payload: pattern(8) })), 20);
          least = Math.min(least, port);
          greatest = Math.max(greatest, port);
        }
        assert.ok(least >= ports[0] && greatest <= ports[1], `ports ${least}-${greatest}`);
        // 20000 draws reach within 1 % of both ends.
        const slack = (ports[1] - ports[0]) / 100;
        assert.ok(least < ports[0] + slack && greatest > ports[1] - slack, `ports ${least}-${greatest}`);
      });
    }

    it('cilium delivers with 63 of 64, the others with 62; only cilium has the MTU on the route', () => {
      for (const profile of Object.values(PROFILES)) {
        const cilium = profile.name === 'cilium';
        assert.equal(profile.ttlDecrement, cilium ? 'delivery' : 'every-node', profile.name);
        assert.equal(profile.mtuAt, cilium ? 'route' : 'device', profile.name);
      }
    });
  });

  it('ECN: Linux sends an inner CE as ECT(0), RFC 6040 copies all four', () => {
    for (const [profile, want] of [
      ['linux', [0, 1, 2, 2]],
      ['cilium', [0, 1, 2, 2]],
      ['calico', [0, 1, 2, 2]],
      ['flannel', [0, 1, 2, 2]],
      ['rfc', [0, 1, 2, 3]],
    ] as const) {
      for (const name of NAMES) {
        const rig = new Rig(name, { profile: PROFILES[profile] });
        const seen = [0, 1, 2, 3].map(ecn => rig.encap(udp4({ tos: ecn }))[1] & 3);
        assert.deepEqual(seen, want, `${profile} ${name}`);
      }
    }
  });

  it('outer IP ids count up by one, and by the number of segments behind a superpacket', () => {
    const rig = new Rig('vxlan');
    const ids = [0, 1, 2].map(() => u16(rig.encap(udp4()), 4));
    assert.equal((ids[0] + 1) & 0xffff, ids[1]);
    assert.equal((ids[1] + 1) & 0xffff, ids[2]);
    const p = loadPartial(rig.pool, tcp4({ payload: pattern(30000) }), 1400);
    rig.parse(p);
    rig.a.encap(p, 0);
    rig.take(p);
    const next = u16(rig.encap(udp4()), 4);
    assert.ok(((next - ids[2] - 1) & 0xffff) >= Math.ceil(30000 / 1400));
  });

  it('the header checksum is right for every id: all carries of the sum are taken', () => {
    for (const name of NAMES) {
      const rig = new Rig(name, { profile: PROFILES.rfc });
      const p = rig.parsed(udp4({ tos: 255 }));
      const ids = new Set<number>();
      for (let i = 0; i < 65536; i++) {
        rig.a.encap(p, 0);
        const header = new Uint8Array(rig.pool.bytes.subarray(p.off, p.off + 20));
        assert.ok(slowHeaderOk(header));
        ids.add(u16(header, 4));
        p.pull(rig.a.overhead);
      }
      assert.equal(ids.size, 65536);
    }
  });

  describe('source port', () => {
    it('is the same for all packets of a flow and differs between flows', () => {
      const rig = new Rig('vxlan');
      const ports = new Set<number>();
      for (let flow = 0; flow < 500; flow++) {
        const a = u16(rig.encap(tcp4({ sport: 1024 + flow, seq: 1, payload: pattern(10) })), 20);
        const b = u16(rig.encap(tcp4({ sport: 1024 + flow, seq: 9, ttl: 3, tos: 9, payload: pattern(900) })), 20);
        assert.equal(a, b);
        ports.add(a);
      }
      assert.ok(ports.size > 480, `${ports.size} ports for 500 flows`);
    });

    it('is one for all fragments of a datagram', () => {
      const rig = new Rig('geneve');
      const whole = udp4({ payload: pattern(3000) });
      const ports = [0, 1400, 2800].map(at => u16(rig.encap(fragment(whole, at, Math.min(1400, 3008 - at))), 20));
      assert.deepEqual(ports, [ports[0], ports[0], ports[0]]);
    });

    it('spreads evenly over the range', () => {
      const rig = new Rig('vxlan');
      const bins = new Array(16).fill(0);
      for (let i = 0; i < 16000; i++) {
        const port = u16(rig.encap(udp4({ sport: 1024 + (i % 4000), dport: 53 + Math.floor(i / 4000) })), 20);
        bins[Math.floor(((port - 32768) * 16) / (60999 - 32768))]++;
      }
      const chi = bins.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
      assert.ok(chi < 37.7, `chi squared ${chi} (15 degrees of freedom, p 0.001)`);
    });
  });

  it('writes nothing but its headers, and leaves the inner packet alone', () => {
    for (const name of NAMES) {
      const rig = new Rig(name);
      const inner = tcp4({ payload: pattern(333) });
      const p = rig.parsed(inner);
      const [off, end] = [p.off, p.off + p.len];
      rig.a.encap(p, 0);
      const bytes = rig.pool.bytes;
      for (let i = p.start; i < off - rig.a.overhead; i++) assert.equal(bytes[i], FILLER, `${name} byte ${i - off}`);
      assert.deepEqual(new Uint8Array(bytes.subarray(off, end)), inner);
      for (let i = end; i < end + 64; i++) assert.equal(bytes[i], FILLER, `${name} behind the end`);
    }
  });

  it('leaves the parsed fields those of the inner packet', () => {
    for (const name of NAMES) {
      const rig = new Rig(name);
      const p = rig.parsed(udp4());
      const fields = () => [p.src, p.dst, p.protocol, p.l4, p.srcPort, p.dstPort, p.fragment];
      const before = fields();
      rig.a.encap(p, 0);
      assert.deepEqual(fields(), before);
      rig.parse(p);
      assert.equal(p.dst, ip(NODE_B));
      assert.ok(rig.b.matches(p));
    }
  });

  it('an outer UDP checksum that comes to 0 is sent as ffff', () => {
    const rig = new Rig('vxlan', { a: { vni: 1 } });
    // The two payload bytes are chosen so that the outer sum is ffff: whatever it is without them, add the complement.
    const plain = rig.encap(udp4({ noChecksum: true, payload: Uint8Array.of(0, 0) }));
    const checksum = u16(plain, 26);
    const outer = rig.encap(udp4({ noChecksum: true, payload: Uint8Array.of(checksum >> 8, checksum & 255) }));
    assert.equal(u16(outer, 26), 0xffff);
    assert.ok(slowTransportOk(outer));
  });

  describe('partial checksums and superpackets', () => {
    /** The bytes once the device has completed the inner checksum. */
    const completed = (outer: Uint8Array, l4: number, field: number, original: Uint8Array) =>
      patch(outer, l4 + field, original[20 + field], original[21 + field]);

    it('with NEEDS_CSUM the outer checksum is right once the inner one is complete', () => {
      const rig = new Rig('vxlan');
      for (const [inner, field] of [
        [tcp4({ payload: pattern(1001) }), 16],
        [udp4({ payload: pattern(77) }), 6],
      ] as const) {
        const p = loadPartial(rig.pool, inner);
        const csumStart = p.csumStart;
        rig.parse(p);
        rig.a.encap(p, 0);
        assert.equal(p.vnetFlags, virtio.FLAG_NEEDS_CSUM);
        assert.equal(p.gsoType, 0);
        assert.equal(p.csumStart, csumStart);
        assert.ok(slowTransportOk(completed(rig.take(p), 70, field, inner)));
      }
    });

    it('DATA_VALID does not survive: it spoke of another header', () => {
      for (const name of NAMES) {
        const rig = new Rig(name);
        const p = rig.parsed(tcp4());
        p.vnetFlags = virtio.FLAG_DATA_VALID;
        rig.a.encap(p, 0);
        assert.equal(p.vnetFlags, 0, name);
      }
    });

    for (const [name, profile, withChecksum] of [
      ['vxlan', 'linux', true],
      ['vxlan', 'cilium', false],
      ['geneve', 'linux', false],
      ['geneve', 'rfc', true],
    ] as const) {
      it(`${profile} ${name}: a superpacket stays whole`, () => {
        for (const ecn of [0, virtio.GSO_ECN]) {
          const rig = new Rig(name, { profile: PROFILES[profile] });
          const p = loadPartial(rig.pool, tcp4({ payload: pattern(50000) }), 1410);
          p.gsoType |= ecn;
          rig.parse(p);
          const inner = p.off;
          const csumStart = p.csumStart;
          rig.a.encap(p, 0);
          assert.equal(p.gsoType, virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4 | ecn);
          assert.equal(p.gsoSize, 1410);
          assert.equal(p.outerTransport, inner - 30);
          assert.equal(p.innerNetwork, inner);
          assert.equal(p.csumStart, csumStart);
          const flags = virtio.FLAG_NEEDS_CSUM | (withChecksum ? virtio.FLAG_UDP_TUNNEL_CSUM : 0);
          assert.equal(p.vnetFlags, flags);
          const outer = bytesOf(rig.pool, p);
          assert.equal(u16(outer, 2), 50040 + 50);
          assert.equal(u16(outer, 24), 50040 + 30);
          // The field holds the pseudo header's sum, not complemented, as udp_set_csum leaves it for GSO.
          assert.equal(u16(outer, 26), withChecksum ? slowPseudoSum(outer) : 0);
          rig.parse(p);
        }
      });
    }

    it('a datagram train stays whole', () => {
      const rig = new Rig('vxlan');
      const p = loadPartial(rig.pool, udp4({ payload: pattern(12000) }), 1200);
      rig.parse(p);
      rig.a.encap(p, 0);
      assert.equal(p.gsoType, virtio.GSO_UDP_L4 | virtio.GSO_UDP_TUNNEL_IPV4);
      rig.parse(p);
    });

    it('in IPIP a superpacket stays whole as well', () => {
      const rig = new Rig('ipip');
      const p = loadPartial(rig.pool, tcp4({ payload: pattern(50000) }), 1440);
      rig.parse(p);
      const inner = p.off;
      rig.a.encap(p, 0);
      assert.equal(p.gsoType, virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4);
      assert.equal(p.vnetFlags, virtio.FLAG_NEEDS_CSUM);
      assert.equal(p.outerTransport, inner);
      assert.equal(p.innerNetwork, inner);
      rig.parse(p);
    });
  });
});

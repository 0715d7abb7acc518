/** Options that every packet of a GENEVE tunnel carries: on the wire, on receipt, and in all that follows from their length. */
import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import { quotesTunnel, readQuote } from '../../datapath/mtu/tunnel-quote.ts';
import { Packet } from '../../datapath/packet/packet.ts';
import { PROFILES, type ProfileName } from '../../datapath/profile.ts';
import { compile } from '../../datapath/program/compile.ts';
import { mtusOf } from '../../datapath/program/mtus.ts';
import { overheadOf } from '../../datapath/tunnel/overhead.ts';
import { type GeneveOption, TUNNEL_GENEVE } from '../../datapath/tunnel/spec.ts';
import * as v from '../../datapath/verdict.ts';
import { icmpError, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { slowTransportOk } from '../model/checksum.ts';
import { slowDecap, slowEncap } from '../model/tunnel.ts';
import { MAC_A_BYTES, MAC_B_BYTES, NODE_A, NODE_B, Rig } from './rig.ts';

/** As Cilium's DSR sends them: class 0x014b, type 1, 8 bytes with port and address of the service. */
const DSR: GeneveOption = { optionClass: 0x014b, type: 1, data: [0x00, 0x50, 0, 0, 10, 96, 0, 10] };
const CRITICAL: GeneveOption = { optionClass: 0x0101, type: 0x81, data: [1, 2, 3, 4] };
const EMPTY: GeneveOption = { optionClass: 0xffff, type: 0x7f, data: [] };
const LONGEST: GeneveOption = { optionClass: 2, type: 2, data: [...pattern(124)] };

const bytes4 = (text: string) => text.split('.').map(Number);
const bytesOf = (options: readonly GeneveOption[]) =>
  options.flatMap(({ optionClass, type, data }) => [
    optionClass >> 8,
    optionClass & 255,
    type,
    data.length / 4,
    ...data,
  ]);

const SETS: { what: string; options: GeneveOption[]; bytes: number }[] = [
  { what: 'the size of DSR', options: [DSR], bytes: 12 },
  { what: 'one without data', options: [EMPTY], bytes: 4 },
  { what: 'several, one of them critical', options: [DSR, CRITICAL, EMPTY], bytes: 24 },
  { what: 'as many as there is room for', options: [LONGEST, { ...LONGEST, data: [...pattern(120)] }], bytes: 252 },
];

describe('GENEVE options', () => {
  for (const { what, options, bytes } of SETS) {
    for (const profile of Object.values(PROFILES)) {
      it(`${what}, profile ${profile.name}: every byte as the slow model has it, there and back`, () => {
        assert.equal(overheadOf({ protocol: TUNNEL_GENEVE, options }), 50 + bytes);
        const rig = new Rig('geneve', { profile, a: { options }, b: { options } });
        assert.equal(rig.a.overhead, 50 + bytes);
        for (const inner of [udp4({ payload: pattern(1) }), tcp4({ payload: pattern(1300) })]) {
          const outer = rig.encap(inner, 21500);
          const { ttl, dscp, df, udpChecksum } = profile.geneve;
          const rules = { ttl, dscp, df, udpChecksum, copyCe: profile.ecnEncap === 'rfc6040' };
          const want = slowEncap(
            {
              protocol: 'geneve',
              port: 6081,
              vni: -1,
              local: bytes4(NODE_A),
              localMac: MAC_A_BYTES,
              ...rules,
              options: bytesOf(options),
            },
            inner,
            {
              address: bytes4(NODE_B),
              mac: MAC_B_BYTES,
              identity: 21500,
              id: outer[4] * 256 + outer[5],
              source: outer[20] * 256 + outer[21],
            },
          );
          assert.deepEqual(outer, want);
          assert.ok(slowTransportOk(outer));
          const model = slowDecap(
            {
              protocol: 'geneve',
              vni: -1,
              localMac: MAC_B_BYTES,
              peers: [bytes4(NODE_A)],
              dropReserved: false,
              dropCriticalBit: profile.geneveCriticalBit === 'drop',
              acceptIpPayload: false,
              checkInnerMac: true,
              known: options.map(option => bytesOf([option]).slice(0, 3)),
            },
            outer,
          );
          const got = rig.decap(outer);
          assert.equal(v.VERDICT_NAMES[got.verdict], v.VERDICT_NAMES[model.verdict]);
          if (got.verdict === v.CONTINUE) assert.deepEqual(got.inner, model.inner);
        }
      });
    }
  }

  /** What becomes of a packet with a critical option, by what the receiver knows. */
  const critical: [ProfileName, string, GeneveOption[], number][] = [
    ['rfc', 'the same option', [CRITICAL], v.CONTINUE],
    ['rfc', 'no option', [], v.DROP_GENEVE_CRITICAL_OPTION],
    ['rfc', 'another type of the class', [{ ...CRITICAL, type: 0x82 }], v.DROP_GENEVE_CRITICAL_OPTION],
    ['rfc', 'the type in another class', [{ ...CRITICAL, optionClass: 0x0102 }], v.DROP_GENEVE_CRITICAL_OPTION],
    ['cilium', 'the same option', [CRITICAL], v.CONTINUE],
    ['linux', 'the same option, but the kernel goes by the C bit', [CRITICAL], v.DROP_GENEVE_CRITICAL_OPTION],
  ];
  for (const [profile, what, options, want] of critical) {
    it(`a critical option at a receiver of profile ${profile} that knows ${what}: ${v.VERDICT_NAMES[want]}`, () => {
      const rig = new Rig('geneve', { profile: PROFILES[profile], a: { options: [DSR, CRITICAL] }, b: { options } });
      assert.equal(v.VERDICT_NAMES[rig.decap(rig.encap(udp4())).verdict], v.VERDICT_NAMES[want]);
    });
  }

  it('a critical option that we know does not hide one that we do not', () => {
    const sent = [CRITICAL, { ...CRITICAL, type: 0x90 }];
    const rig = new Rig('geneve', { profile: PROFILES.rfc, a: { options: sent }, b: { options: [CRITICAL] } });
    assert.equal(rig.decap(rig.encap(udp4())).verdict, v.DROP_GENEVE_CRITICAL_OPTION);
  });

  it('an ICMP error that quotes such a packet is believed, and its inner packet found behind the options', () => {
    const rig = new Rig('geneve', { profile: PROFILES.rfc, a: { options: [DSR] } });
    const inner = tcp4({ payload: pattern(1300) });
    const outer = rig.encap(inner);
    const p = rig.parsed(icmpError(3, 4, outer.slice(0, 548), { src: '192.168.10.254', dst: NODE_A, mtu: 1300 }));
    const quoted = new Packet(0, -1);
    assert.ok(quotesTunnel(rig.pool.view, p, rig.a));
    assert.equal(v.VERDICT_NAMES[readQuote(rig.pool.view, p, rig.a, quoted)], 'continue');
    assert.equal(quoted.len, 548 - 62);
    assert.deepEqual(rig.pool.bytes.slice(quoted.off, quoted.off + 20), inner.slice(0, 20));
    rig.pool.release(p);
  });

  it('take from the MTU of the pods what they add, from the configuration on', () => {
    const text = (options: string) => `
apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: a }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24 }
  tunnel: { protocol: geneve, peers: [{ address: 192.168.10.2 }]${options} }
  routes: [{ to: 10.244.2.0/24, via: 192.168.10.2, encap: true }]`;
    const load = (options: string) => {
      const { config, problems } = loadConfig(text(options), 'FILE');
      assert.ok(config !== undefined, formatProblems(problems ?? []));
      const { uplink } = config.spec;
      assert.ok(uplink.kind === 'tap');
      return withUplink(config, resolveTap(uplink));
    };
    assert.deepEqual(mtusOf(load('')), { tunnel: 1450, device: 1450, route: 0 });
    const config = load(', options: [{ class: 0x014B, type: 1, data: "005000000a60000A" }]');
    assert.deepEqual(mtusOf(config), { tunnel: 1438, device: 1438, route: 0 });
    assert.deepEqual(compile(config).tunnels[0].options, [DSR]);
  });
});

import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { Counters } from '../../datapath/counters.ts';
import { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import type { Profile } from '../../datapath/profile.ts';
import { PROFILES } from '../../datapath/profile.ts';
import { Random } from '../../datapath/random.ts';
import { Tunnel } from '../../datapath/tunnel/tunnel.ts';
import { CONTINUE, VERDICT_NAMES } from '../../datapath/verdict.ts';
import { FILLER, fixHeader, fragment, icmpEcho, ip, pattern, sctp4, tcp4, udp4 } from '../fixtures/packets.ts';
import { slowChecksum, slowHeaderOk, slowPseudoSum } from '../model/checksum.ts';
import { type SlowReceiver, slowDecap, slowEncap } from '../model/tunnel.ts';
import { MAC_A_BYTES, MAC_B_BYTES, NAMES, NODE_A, NODE_B, Rig, specB, type TunnelName } from './rig.ts';

const bytes4 = (text: string) => text.split('.').map(Number);
const SEED = Number(process.env.SEED ?? 20260101);

/** Every field of the inner packet at random. */
function randomInner(random: Random): Uint8Array {
  const o = {
    tos: random.below(256),
    ttl: 1 + random.below(255),
    id: random.below(65536),
    fragment: random.below(2) << 14,
    sport: random.below(65536),
    dport: random.below(65536),
    options: random.below(8) === 0 ? Uint8Array.of(1, 1, 1, 0) : undefined,
    payload: pattern(random.below(4) === 0 ? random.below(1400) : random.below(64), random.next()),
  };
  const kind = random.below(5);
  if (kind === 0) return udp4(o);
  if (kind === 1) return icmpEcho(o);
  if (kind === 2) return sctp4(o);
  if (kind === 3)
    return fragment(udp4({ ...o, options: undefined, payload: pattern(2000) }), 8 * random.below(100), 600);
  return tcp4(o);
}

function receiver(name: TunnelName, profile: Profile, vni: number): SlowReceiver {
  return {
    protocol: name,
    vni,
    localMac: MAC_B_BYTES,
    peers: [bytes4(NODE_A)],
    dropReserved: profile.vxlanReserved === 'drop',
    dropCriticalBit: profile.geneveCriticalBit === 'drop',
    acceptIpPayload: profile.genevePayload === 'ethernet-or-ipv4',
    checkInnerMac: profile.innerDestinationMac === 'own-or-group',
  };
}

describe(`tunnels against the slow model (SEED=${SEED})`, () => {
  for (const name of NAMES) {
    for (const profile of Object.values(PROFILES)) {
      it(`${profile.name} ${name}: every byte, there and back`, () => {
        const random = new Random(SEED);
        const rules = profile[name];
        for (const [vni, dscp] of [
          [-1, rules.dscp],
          [1, rules.dscp],
          [0x9053fc, rules.dscp],
          [1, 'uniform'],
        ] as const) {
          const outerRules = { vni, outer: { dscp } };
          const rig = new Rig(name, { profile, a: outerRules, b: outerRules });
          for (let round = 0; round < 100; round++) {
            const inner = randomInner(random);
            const identity = 1 + random.below(0xffffff);
            const outer = rig.encap(inner, identity);
            const want = slowEncap(
              {
                protocol: name,
                port: name === 'geneve' ? 6081 : 8472,
                vni,
                local: bytes4(NODE_A),
                localMac: MAC_A_BYTES,
                ttl: rules.ttl,
                dscp,
                df: rules.df,
                udpChecksum: rules.udpChecksum,
                copyCe: profile.ecnEncap === 'rfc6040',
              },
              inner,
              {
                address: bytes4(NODE_B),
                mac: MAC_B_BYTES,
                identity,
                id: outer[4] * 256 + outer[5],
                source: outer[20] * 256 + outer[21],
              },
            );
            assert.deepEqual(outer, want);
            const expected = slowDecap({ ...receiver(name, profile, vni), uniform: dscp === 'uniform' }, outer);
            const got = rig.decap(outer);
            assert.equal(got.verdict, expected.verdict);
            assert.equal(got.verdict, CONTINUE);
            assert.deepEqual(got.inner, expected.inner);
            if (vni < 0 && name !== 'ipip') assert.equal(got.identity, identity);
          }
        }
      });
    }
  }

  /** Damages the packet behind its outer IPv4 header, its length included, and mends the checksums half of the time. */
  function damaged(random: Random, outer: Uint8Array): Uint8Array {
    let packet: Uint8Array = outer.slice();
    const how = random.below(4);
    if (how === 0) packet = packet.slice(0, 28 + random.below(packet.length - 28));
    for (let flips = random.below(4); flips > 0; flips--) {
      // Most of the damage goes to the headers.
      const at = 20 + random.below(random.below(4) === 0 ? packet.length - 20 : Math.min(packet.length - 20, 64));
      packet[at] ^= 1 << random.below(8);
    }
    if (random.below(4) === 0) packet[1] = random.below(256);
    if (random.below(16) === 0) packet[15] ^= 1;
    packet = fixHeader(packet);
    if (packet[9] === 17 && random.below(4) > 0) {
      const udpLen = packet.length - 20;
      if (random.below(8) > 0) packet.set([udpLen >> 8, udpLen & 255], 24);
      packet.set([0, 0], 26);
      const checksum = random.below(2) === 0 ? 0 : slowChecksum(packet.slice(20), slowPseudoSum(packet));
      packet.set([checksum >> 8, checksum & 255], 26);
    }
    return packet;
  }

  for (const name of NAMES) {
    it(`${name}: damaged packets come to the same end, and nothing outside them is read or written`, () => {
      const random = new Random(SEED + 1);
      const SIZE = 4096;
      const memory = new Uint8Array(SIZE);
      const reasons = new Set<number>();
      for (const profile of Object.values(PROFILES)) {
        for (const vni of [-1, 1]) {
          const rig = new Rig(name, { profile, a: { vni } });
          const model = receiver(name, profile, vni);
          const tunnelAtEnd = tunnelOver(new DataView(memory.buffer));
          for (let round = 0; round < 1500; round++) {
            const packet = damaged(random, rig.encap(randomInner(random), random.below(3)));
            const want = slowDecap(model, packet);

            // At the very end of memory: a read behind the packet throws.
            memory.fill(FILLER);
            const at = SIZE - packet.length;
            memory.set(packet, at);
            const p = place(at, packet.length);
            if (parseIpv4(tunnelAtEnd.view, p) !== CONTINUE) continue;
            const verdict = tunnelAtEnd.decap(p);
            assert.equal(VERDICT_NAMES[verdict], VERDICT_NAMES[want.verdict], Buffer.from(packet).toString('hex'));
            reasons.add(verdict);
            for (let i = 0; i < at; i++) assert.equal(memory[i], FILLER);
            if (verdict === CONTINUE) {
              const seen = memory.slice(p.off, p.off + p.len);
              const expected = want.inner as Uint8Array;
              if (!want.headerRight) {
                assert.ok(!slowHeaderOk(seen));
                seen.fill(0, 10, 12);
                expected.fill(0, 10, 12);
              }
              assert.deepEqual(seen, expected);
            }

            // At the very start: a read in front of the packet throws.
            const exact = packet.slice();
            const front = place(0, exact.length);
            const tunnelAtStart = tunnelOver(new DataView(exact.buffer));
            parseIpv4(tunnelAtStart.view, front);
            assert.equal(tunnelAtStart.decap(front), verdict);
          }

          function tunnelOver(view: DataView): Tunnel {
            return new Tunnel(specB(name, { vni }), profile, view, new Counters(), new Random(1));
          }
        }
      }
      // The damage is not so great, nor so small, that only one thing ever happens.
      assert.ok(reasons.has(CONTINUE));
      assert.ok(reasons.size >= (name === 'ipip' ? 4 : 8), [...reasons].map(r => VERDICT_NAMES[r]).join(' '));
    });
  }

  function place(off: number, len: number): Packet {
    const p = new Packet(0, 0);
    p.off = off;
    p.len = len;
    return p;
  }

  it('an unknown protocol is refused at construction', () => {
    const spec = { ...specB('ipip'), protocol: 9, localAddress: ip(NODE_B) };
    const view = new DataView(new ArrayBuffer(64));
    assert.throws(() => new Tunnel(spec, PROFILES.linux, view, new Counters(), new Random(1)), RangeError);
  });
});

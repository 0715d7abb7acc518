import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Service } from '../../datapath/nat/service.ts';
import { Random } from '../../datapath/random.ts';
import { dotted, icmpError, ip, udp4 } from '../fixtures/packets.ts';
import { slowHeaderOk, slowTransportOk } from '../model/checksum.ts';
import { inverse, SlowNat, same, type Tuple } from '../model/nat.ts';
import { Box, CLUSTER, OUTSIDE, service } from './box.ts';

// A small world, so that everything meets everything: 3 pods, 2 services with up to 3 backends among the pods and others,
// 2 hosts outside, few ports.
const PODS = ['10.1.0.1', '10.1.0.2', '10.1.0.3'];
const VIPS = ['10.96.0.1', '10.96.0.2'];
const HOSTS = ['203.0.113.1', '203.0.113.2'];
const BACKENDS = ['10.1.0.1:53', '10.1.0.2:53', '10.1.0.9:53'];

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      src: fc.constantFrom(...PODS, ...HOSTS),
      dst: fc.constantFrom(...PODS, ...VIPS, ...HOSTS, OUTSIDE),
      sport: fc.constantFrom(53, 5000, 5001),
      dport: fc.constantFrom(53, 5000),
    }),
  },
  // The answer to the packet that left as number `n` from the end.
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('answer' as const), n: fc.nat(8) }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('error' as const), n: fc.nat(8), quoted: fc.constantFrom(28, 33) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(10, 1500, 20_000, 31_000) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('backends' as const),
      vip: fc.nat(1),
      list: fc.subarray(BACKENDS),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('sweep' as const), n: fc.nat(50) }) },
);

function tupleOf(packet: Uint8Array): Tuple {
  const view = new DataView(packet.buffer, packet.byteOffset);
  return {
    protocol: packet[9],
    src: view.getInt32(12),
    dst: view.getInt32(16),
    sport: view.getUint16(20),
    dport: view.getUint16(22),
  };
}

function packetOf(t: Tuple): Uint8Array {
  return udp4({
    src: dotted(t.src),
    dst: dotted(t.dst),
    sport: t.sport,
    dport: t.dport,
    payload: Uint8Array.of(1, 2, 3, 4, 5),
  });
}

const key = (t: Tuple) => `${t.protocol} ${t.src}:${t.sport} ${t.dst}:${t.dport}`;

/** Service `vip`, port 53, with the given backends. */
function web(vip: number, list: string[]): Service {
  const ports = service({}, list, 17).ports.map(port => ({ ...port, port: 53 }));
  return service({ name: `s${vip}`, clusterAddresses: [ip(VIPS[vip])], ports });
}

const isPod = (address: number) => (address & 0xff000000) === CLUSTER.address;

describe('conntrack and NAT against the slow model', () => {
  for (const [name, options] of [
    ['ports kept', {}],
    ['few ports', { ports: { range: [5000, 5002] as const } }],
    ['a small table', { capacity: 16 }],
    ['a quota', { perPayer: 4 }],
  ] as const) {
    it(`any sequence of packets, time and backend changes: ${name}`, () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 150, size: 'max' }), fc.integer({ min: 1 }), (steps, seed) => {
          const backends = [[...BACKENDS], [BACKENDS[2]]];
          const box = new Box({ ...options, random: new Random(seed) }, [web(0, backends[0]), web(1, backends[1])]);
          const model = new SlowNat();
          const left: Uint8Array[] = [];

          /** What the full table threw out, the model cannot know. @returns flows that the box has */
          const forgetEvicted = (): number => {
            const rows = box.rows();
            const alive = new Set(rows.map(row => key({ protocol: 17, ...row.original })));
            model.expire(box.now);
            if ('capacity' in options) {
              model.flows = model.flows.filter(flow => alive.has(key(flow.original)));
            }
            return rows.length;
          };
          const send = (packet: Uint8Array) => {
            const t = tupleOf(packet);
            const vip = VIPS.indexOf(dotted(t.dst));
            model.forgetLost(t);
            const wanted = model.pass(t, box.now);
            const result = box.send(packet);
            if (wanted !== null) {
              assert.equal(result.verdict, 'continue');
              assert.deepEqual(tupleOf(result.out), wanted);
            } else if (result.verdict === 'continue') {
              const out = tupleOf(result.out);
              assert.equal(result.isNew, true);
              // The flow that made room may be the very one whose tuple the new one has now.
              forgetEvicted();
              assert.equal(model.begin(t, out, box.now), '');
              // Nothing leaves un-rewritten.
              assert.ok(!VIPS.includes(dotted(out.dst)), 'a service address left the box');
              if (isPod(out.src)) assert.ok(isPod(out.dst), 'a pod address left the cluster');
              if (vip >= 0) assert.ok(backends[vip].includes(`${dotted(out.dst)}:${out.dport}`));
            }
            if (result.verdict === 'continue') {
              assert.ok(slowHeaderOk(result.out) && slowTransportOk(result.out));
              assert.deepEqual(result.out.slice(28), packet.slice(28));
              left.push(result.out);
            }
            assert.equal(forgetEvicted(), model.flows.length, "flows that the box still has are the model's");
          };

          for (const s of steps) {
            if (s.kind === 'send') {
              send(packetOf({ protocol: 17, src: ip(s.src), dst: ip(s.dst), sport: s.sport, dport: s.dport }));
            } else if (s.kind === 'answer' && left.length > s.n) {
              send(packetOf(inverse(tupleOf(left[left.length - 1 - s.n]))));
            } else if (s.kind === 'error' && left.length > s.n) {
              const quoted = left[left.length - 1 - s.n];
              const t = tupleOf(quoted);
              model.expire(box.now);
              const flow = model.flows.find(f => same(f.original, inverse(t)) || same(f.reply, inverse(t)));
              const result = box.send(
                icmpError(3, 3, quoted.slice(0, s.quoted), { src: '198.51.100.5', dst: dotted(t.src) }),
              );
              if (flow === undefined) assert.equal(result.verdict, 'drop-ct-icmp-no-flow');
              else {
                const toOriginal = same(flow.reply, inverse(t));
                const meant = toOriginal ? flow.original : flow.reply;
                const view = new DataView(result.out.buffer);
                assert.equal(view.getInt32(16), meant.src, 'the error reaches who sent the packet');
                assert.deepEqual(tupleOf(result.out.slice(28)), meant);
                assert.ok(slowHeaderOk(result.out) && slowHeaderOk(result.out.slice(28)));
              }
            } else if (s.kind === 'pass') box.now += s.ms;
            else if (s.kind === 'backends') {
              backends[s.vip] = s.list;
              box.services.set(web(s.vip, s.list));
              model.expire(box.now);
              model.loseBackends(ip(VIPS[s.vip]), address => s.list.includes(`${dotted(address)}:53`));
            } else if (s.kind === 'sweep') box.flows.table.sweep(box.now, s.n);

            const { table } = box.flows;
            const stats = table.stats;
            assert.equal(stats.created, table.used + stats.expired + stats.evicted + stats.deleted);
          }

          // When all has expired nothing is counted anywhere.
          box.now += 1_000_000;
          box.flows.table.sweep(box.now, 10_000);
          assert.equal(box.flows.table.used, 0);
          assert.deepEqual(box.translation.ports.usage(), []);
          for (const { backends: rows } of box.services.rows()) for (const row of rows) assert.equal(row.flows, 0);
        }),
        { numRuns: 150 },
      );
    }).timeout(60_000);
  }
});

/** Nodes on segments in memory, in virtual time: the datapath across hand-overs by reference. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { type ResolvedConfig, resolveSegment, withUplink } from '../../datapath/control/resolved.ts';
import { EVENT_NAMES } from '../../datapath/counters.ts';
import { Sim, type SimNode, type SimOptions } from '../../datapath/drive/sim.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import type { Impairments } from '../../datapath/segment/impairments.ts';
import { UNIMPAIRED } from '../../datapath/segment/impairments.ts';
import { fragment, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

/** Every offload that there is. */
const ALL = 127;

type Protocol = 'none' | 'ipip' | 'vxlan' | 'geneve';

/** Node n of `count`, all on the segment lan: one pod 10.244.n.10, routes to all others. */
function config(n: number, count: number, protocol: Protocol, nat = false): ResolvedConfig {
  const others = Array.from({ length: count }, (_, i) => i + 1).filter(other => other !== n);
  const document = {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: `n${n}` },
    spec: {
      uplink: {
        kind: 'segment',
        segment: 'lan',
        mac: `02:00:00:00:00:${n.toString(16).padStart(2, '0')}`,
        address: `192.168.10.${n}/24`,
      },
      host: { device: 'tp0', address: `10.244.${n}.1/32` },
      pods: [{ name: 'p', netns: 'p', device: 'eth0', address: `10.244.${n}.10` }],
      tunnel: { protocol, peers: protocol === 'none' ? [] : others.map(other => ({ address: `192.168.10.${other}` })) },
      routes: others.map(other => ({
        to: `10.244.${other}.0/24`,
        via: `192.168.10.${other}`,
        ...(protocol === 'none' ? {} : { encap: true }),
      })),
      conntrack: { size: 1024 },
      ...(nat
        ? {
            services: [
              {
                name: 'default/s',
                addresses: ['10.96.0.10'],
                ports: [{ port: 80, targetPort: 80, protocol: 'UDP' }],
                endpoints: Array.from({ length: count }, (_, i) => ({ address: `10.244.${i + 1}.10` })),
              },
            ],
          }
        : {}),
    },
  };
  const { config, problems } = loadConfig(JSON.stringify(document), 'test');
  assert.ok(config !== undefined, JSON.stringify(problems));
  assert.ok(config.spec.uplink.kind === 'segment');
  return withUplink(config, resolveSegment(config.spec.uplink));
}

function cluster(
  count: number,
  protocol: Protocol,
  o: { offloads?: number; impairments?: Partial<Impairments>; nat?: boolean; sim?: SimOptions } = {},
): { sim: Sim; nodes: SimNode[] } {
  const sim = new Sim(o.sim);
  sim.addSegment('lan', { impairments: o.impairments });
  const nodes = Array.from({ length: count }, (_, i) =>
    sim.addNode(config(i + 1, count, protocol, o.nat), { offloads: o.offloads }),
  );
  return { sim, nodes };
}

const pod = (n: number) => `10.244.${n}.10`;

function event(node: SimNode, name: string): number {
  return node.counters.events(EVENT_NAMES.indexOf(name));
}

/** Everything is closed: each slot is back in the pool, once. */
function assertWhole({ pool }: Sim): void {
  assert.equal(pool.available, pool.packets.length, 'slots lost or doubled');
  const all = new Set<Packet>();
  for (let p = pool.take(); p !== null; p = pool.take()) all.add(p);
  assert.equal(all.size, pool.packets.length, 'a slot is in the pool twice');
}

describe('sim', () => {
  for (const protocol of ['none', 'ipip', 'vxlan', 'geneve'] as const) {
    it(`${protocol}: every pod reaches every other, and finds what was sent`, () => {
      const { sim, nodes } = cluster(4, protocol);
      for (let from = 1; from <= 4; from++) {
        for (let to = 1; to <= 4; to++) {
          if (from === to) continue;
          const sent = udp4({ src: pod(from), dst: pod(to), payload: pattern(700, 10 * from + to) });
          nodes[from - 1].inject('p', sent);
          sim.run(10);
          const [got, ...more] = nodes[to - 1].collect('p');
          assert.deepEqual(more, []);
          // Two nodes forward it.
          assert.deepEqual(got.bytes.slice(20), sent.slice(20));
          assert.equal(got.bytes[8], sent[8] - 2);
        }
      }
      sim.close();
      assertWhole(sim);
    });

    it(`${protocol}: a superpacket is one packet from pod to pod, its checksum owed all along`, () => {
      const { sim, nodes } = cluster(2, protocol, { offloads: ALL });
      nodes[0].inject('p', udp4({ src: pod(1), dst: pod(2), payload: pattern(10) }));
      sim.run(10);
      nodes[1].collect('p');
      const sent = tcp4({ src: pod(1), dst: pod(2), payload: pattern(50_000) });
      nodes[0].inject('p', sent, { vnetFlags: 1, gsoType: 1, gsoSize: 1400, csumStart: 20, csumOffset: 16 });
      sim.run(10);
      const [got, ...more] = nodes[1].collect('p');
      assert.deepEqual(more, []);
      assert.deepEqual([got.gsoType, got.gsoSize, got.vnetFlags, got.csumStart], [1, 1400, 1, 20]);
      assert.deepEqual(got.bytes.slice(20), sent.slice(20));
      assert.equal(event(nodes[0], 'segmented') + event(nodes[1], 'segmented'), 0);
      // On a wire it would have been 36.
      const wire = sim.segments.get('lan')!.row();
      assert.equal(wire.ports[0].rxPackets >= 36, true);
      sim.close();
      assertWhole(sim);
    });

    it(`${protocol}: a wire that loses cuts it, and every segment is right`, () => {
      const { sim, nodes } = cluster(2, protocol, { offloads: ALL, impairments: { duplicate: 1e-9 } });
      nodes[0].inject('p', udp4({ src: pod(1), dst: pod(2), payload: pattern(10) }));
      sim.run(10);
      nodes[1].collect('p');
      const payload = pattern(20_000);
      const sent = tcp4({ src: pod(1), dst: pod(2), payload });
      nodes[0].inject('p', sent, { vnetFlags: 1, gsoType: 1, gsoSize: 1400, csumStart: 20, csumOffset: 16 });
      sim.run(10);
      const got = nodes[1].collect('p');
      // The port towards the pod joins them again, as far as a superpacket goes.
      assert.deepEqual(Buffer.concat(got.map(({ bytes }) => bytes.slice(40))), Buffer.from(payload));
      sim.close();
      assertWhole(sim);
    });
  }

  it('time is virtual: a packet takes as long as its wires say, and not a microsecond more', () => {
    const { sim, nodes } = cluster(2, 'vxlan', { impairments: { delay: 20 } });
    const send = () => nodes[0].inject('p', udp4({ src: pod(1), dst: pod(2) }));
    send();
    let at = 0;
    const look = () => {
      if (nodes[1].collect('p').length > 0) at = sim.now;
    };
    // The first waits for ARP.
    sim.run(1000, look);
    assert.equal(at, 60);
    send();
    sim.run(1000, look);
    assert.equal(at, 1020);
    sim.close();
  });

  it('random traffic, impairments, and nodes that end and come back leave the pool full', function () {
    this.timeout(120_000);
    const step = fc.oneof(
      {
        weight: 10,
        arbitrary: fc.record({ kind: fc.constant('send'), n: fc.nat(3), to: fc.nat(3), size: fc.nat(3000) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constant('restart'), n: fc.nat(3), to: fc.nat(3), size: fc.nat(1) }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('spoil'), n: fc.nat(4), to: fc.nat(3), size: fc.nat(1) }) },
      {
        weight: 3,
        arbitrary: fc.record({ kind: fc.constant('wait'), n: fc.nat(3), to: fc.nat(3), size: fc.nat(60_000) }),
      },
    );
    const spoils: Partial<Impairments>[] = [
      {},
      { delay: 30, jitter: 10, loss: 0.1 },
      { rate: 1e6, limit: { packets: 20 } },
      { duplicate: 0.5, corrupt: 0.2 },
      { loss: 1 },
    ];
    fc.assert(
      fc.property(
        fc.constantFrom<Protocol>('none', 'ipip', 'vxlan', 'geneve'),
        fc.boolean(),
        fc.array(step, { minLength: 20, maxLength: 60 }),
        (protocol, nat, steps) => {
          const { sim } = cluster(4, protocol, { nat, offloads: ALL, sim: { slots: 1024 } });
          for (const [i, { kind, n, to, size }] of steps.entries()) {
            const name = `n${n + 1}`;
            if (kind === 'spoil') sim.segments.get('lan')!.impair({ ...UNIMPAIRED, ...spoils[n] });
            else if (kind === 'wait') sim.run(size);
            else if (kind === 'restart') {
              sim.removeNode(name);
              sim.run(100);
              sim.addNode(config(n + 1, 4, protocol, nat), { offloads: ALL });
            } else {
              const node = sim.nodes.get(name)!;
              const dst = to === n ? '10.96.0.10' : pod(to + 1);
              const packet = udp4({ src: pod(n + 1), dst, dport: 80, payload: pattern(size, i) });
              // Whole, in fragments, and the first fragment alone.
              const pieces: Uint8Array[] = [];
              for (let at = 0; at < packet.length - 20; at += 1376) {
                pieces.push(fragment(packet, at, Math.min(1376, packet.length - 20 - at)));
              }
              for (const piece of i % 3 === 0 ? pieces.slice(0, 1) : pieces) node.inject('p', piece);
              sim.run(i % 4);
            }
          }
          sim.close();
          assertWhole(sim);
        },
      ),
      { numRuns: 10 },
    );
  });

  it('two runs with one seed are the same to the byte; another seed is another run', () => {
    const once = (seed: number) => {
      const how: Partial<Impairments> = { delay: 5, jitter: 2, loss: 0.2, corrupt: 0.1, duplicate: 0.1 };
      const { sim, nodes } = cluster(3, 'geneve', { impairments: how, nat: true, sim: { seed } });
      const seen: string[] = [];
      for (let i = 0; i < 60; i++) {
        nodes[i % 3].inject(
          'p',
          udp4({ src: pod((i % 3) + 1), dst: '10.96.0.10', dport: 80, sport: 1000 + i, payload: pattern(50, i) }),
        );
        sim.run(7, () => {
          for (const node of nodes)
            for (const { bytes } of node.collect('p')) seen.push(`${sim.now} ${Buffer.from(bytes).toString('hex')}`);
        });
      }
      sim.close();
      return seen;
    };
    const first = once(1);
    assert.ok(first.length > 20);
    assert.deepEqual(once(1), first);
    assert.notDeepEqual(once(2), first);
  });

  it('refuses what is not there', () => {
    const sim = new Sim();
    assert.throws(() => sim.addNode(config(1, 2, 'none')), /no segment lan/);
    sim.addSegment('lan');
    const node = sim.addNode(config(1, 2, 'none'));
    assert.throws(() => node.inject('nobody', new Uint8Array(20)), /node n1 has no port nobody/);
    assert.throws(() => node.collect('lan'), /is on a segment/);
    sim.close();
    assertWhole(sim);
  });
});

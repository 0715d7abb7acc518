import assert from 'node:assert/strict';
import fc from 'fast-check';
import { RecordRing } from '../../datapath/memory/record-ring.ts';
import { dotted } from '../../datapath/packet/build.ts';
import { STEP_FLOW, STEP_INGRESS_POLICY, STEP_NAMES } from '../../datapath/path/watcher.ts';
import {
  CONTINUE,
  DROP_INVALID_SOURCE,
  DROP_POLICY_DENIED_INGRESS,
  DROP_ROUTE_REFUSED,
  VERDICT_NAMES,
} from '../../datapath/verdict.ts';
import {
  KIND_DROPPED,
  KIND_RECEIVED,
  KIND_SENT,
  KIND_STEP,
  readRecord,
  STATE_NEW,
  STATE_REPLY,
  STATE_TRACKED,
  TO_OVERLAY,
  type WatchRecord,
} from '../../datapath/watch/record.ts';
import { POINT_IN, POINT_OUT, Watch, type WatchSpec } from '../../datapath/watch/watch.ts';
import { LoopWatches } from '../../datapath/watch/watches.ts';
import * as tcp from '../../datapath/wire/tcp.ts';
import { pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { fromWire, POD, POD2, REMOTE, TestNode } from '../forward-rig.ts';

const NOTHING: Omit<WatchSpec, 'ring'> = {
  filter: '',
  flows: false,
  drops: false,
  points: [],
  steps: false,
  policies: false,
  snapLen: 0,
};

interface Watched {
  node: TestNode;
  watch: Watch;
  /** Records since the last call. */
  take(): WatchRecord[];
}

function watched(
  spec: Partial<WatchSpec>,
  options: ConstructorParameters<typeof TestNode>[0] = {},
  bytes = 1 << 16,
): Watched {
  const node = new TestNode(options);
  const watch = new Watch(
    node.datapath,
    { ...NOTHING, ring: RecordRing.allocate(bytes), ...spec },
    () => 1_790_000_000_123.5,
  );
  node.datapath.watch(watch);
  return {
    node,
    watch,
    take: () => {
      const records: WatchRecord[] = [];
      watch.ring.drain(at => records.push(readRecord(watch.ring, at)), 1000);
      return records;
    },
  };
}

const SERVICE = {
  name: 'default/web',
  addresses: ['10.96.0.10'],
  ports: [{ port: 80, targetPort: 8080 }],
  endpoints: [{ address: POD2 }],
};

describe('watch', () => {
  it('flows: the first packet of a direction, SYN, FIN and RST, and one every 5 s of the rest', () => {
    const { node, take } = watched({ flows: true }, { services: [SERVICE] });
    const request = { src: POD, dst: '10.96.0.10', sport: 40_000, dport: 80 };
    const answer = { src: POD2, dst: POD, sport: 8080, dport: 40_000 };
    const seen = () =>
      take().map(r => [dotted(r.src), r.dstPort, r.l4Bits, r.state & (STATE_NEW | STATE_REPLY | STATE_TRACKED)]);
    node.send('p1', tcp4({ ...request, flags: tcp.SYN, seq: 1 }));
    assert.deepEqual(seen(), [[POD, 8080, tcp.SYN, STATE_TRACKED | STATE_NEW]]);
    node.send('p2', tcp4({ ...answer, flags: tcp.SYN | tcp.ACK_FLAG, seq: 9, ack: 2 }));
    assert.deepEqual(seen(), [['10.96.0.10', 40_000, tcp.SYN | tcp.ACK_FLAG, STATE_TRACKED | STATE_REPLY]]);
    for (let i = 0; i < 5; i++) node.send('p1', tcp4({ ...request, seq: 2, ack: 10 }));
    assert.deepEqual(seen(), [], 'the direction is known');
    node.clock.advance(5001);
    node.send('p1', tcp4({ ...request, seq: 2, ack: 10 }), tcp4({ ...request, seq: 2, ack: 10 }));
    assert.equal(seen().length, 1);
    node.send('p1', tcp4({ ...request, flags: tcp.FIN | tcp.ACK_FLAG, seq: 2, ack: 10 }));
    assert.deepEqual(seen(), [[POD, 8080, tcp.FIN | tcp.ACK_FLAG, STATE_TRACKED]]);
  });

  it('flows into a tunnel are those of the inner packet', () => {
    const { node, take } = watched({ flows: true }, { protocol: 'vxlan' });
    node.meetNeighbors();
    take();
    node.send('p1', udp4({ src: POD, dst: REMOTE, dport: 53 }));
    const [record, ...rest] = take();
    assert.deepEqual(rest, []);
    assert.deepEqual(
      [record.kind, record.verdict, dotted(record.dst), record.dstPort, record.timeMs],
      [KIND_SENT, TO_OVERLAY, REMOTE, 53, 1_790_000_000_123.5],
    );
  });

  it('drops: each with its reason and the bytes as they were', () => {
    const { node, take } = watched({ drops: true, snapLen: 65_535 });
    const spoofed = udp4({ src: '1.2.3.4', dst: POD2, payload: pattern(100) });
    const lost = udp4({ src: POD, dst: '0.1.2.3' });
    node.send('p1', spoofed, udp4({ src: POD, dst: POD2 }), lost);
    const records = take();
    assert.deepEqual(
      records.map(r => [r.kind, VERDICT_NAMES[r.detail], dotted(r.src), r.length]),
      [
        [KIND_DROPPED, VERDICT_NAMES[DROP_INVALID_SOURCE], '1.2.3.4', spoofed.length],
        [KIND_DROPPED, VERDICT_NAMES[DROP_ROUTE_REFUSED], POD, lost.length],
      ],
    );
    assert.deepEqual(records[0].bytes, spoofed);
  });

  it('points: every packet once where it comes in and once where it leaves, cut to the snap length', () => {
    const points = [
      { port: 'p1', bits: POINT_IN },
      { port: 'ul0', bits: POINT_OUT },
    ];
    const { node, take } = watched({ points, snapLen: 64, filter: 'udp' }, { protocol: 'vxlan' });
    node.meetNeighbors();
    take();
    node.send('p1', udp4({ src: POD, dst: REMOTE, payload: pattern(200) }), tcp4({ src: POD, dst: POD2 }));
    node.send('p2', udp4({ src: POD2, dst: POD }));
    const records = take();
    assert.deepEqual(
      records.map(r => [r.kind, r.detail, r.layer, r.length, r.bytes.length]),
      [
        [KIND_RECEIVED, 0, 3, 228, 64],
        [KIND_SENT, node.port('ul0').index, 2, 14 + 50 + 228, 64],
      ],
    );
    assert.equal(records[0].number, records[1].number, 'one packet, one number');
  });

  it('steps: a packet through the path, to its end', () => {
    const { node, take } = watched(
      { steps: true, filter: 'dst port 80', snapLen: 100 },
      { protocol: 'vxlan', services: [SERVICE] },
    );
    node.send('p2', udp4({ src: POD2, dst: POD, dport: 53 }));
    node.send('p1', tcp4({ src: POD, dst: '10.96.0.10', dport: 80, flags: tcp.SYN }));
    const words = take().map(r => {
      if (r.kind === KIND_RECEIVED) return `in ${r.detail}`;
      if (r.kind === KIND_SENT) return `out ${r.detail}`;
      assert.equal(r.kind, KIND_STEP);
      assert.equal(r.verdict, CONTINUE);
      const port = r.backendPort === 0 ? '' : `:${r.backendPort}`;
      return `${STEP_NAMES[r.detail]} ${dotted(r.detail < STEP_FLOW ? r.dst : r.newDst)}${port}`;
    });
    assert.deepEqual(words, [
      'in 0',
      'source check 10.96.0.10',
      'parse 10.96.0.10',
      'flow 10.96.0.10',
      `service ${POD2}:8080`,
      `route ${POD2}:8080`,
      `masquerade ${POD2}:8080`,
      `rewrite ${POD2}:8080`,
      `TTL and MTU ${POD2}:8080`,
      'out 1',
    ]);
    node.send('p1', udp4({ src: POD, dst: '0.1.2.3', dport: 80 }));
    const last = take().filter(r => r.kind === KIND_DROPPED || r.kind === KIND_STEP);
    assert.ok(last.some(r => r.kind === KIND_DROPPED && r.detail === DROP_ROUTE_REFUSED));
    assert.ok(
      last.some(r => r.kind === KIND_STEP && STEP_NAMES[r.detail] === 'route' && r.verdict === DROP_ROUTE_REFUSED),
    );
  });

  it('policies: what they say of flows that begin, and of no other packet', () => {
    const policies = [{ name: 'web', podSelector: {}, ingress: [{ ports: [{ port: 80 }] }] }];
    const { node, take } = watched({ policies: true, filter: 'tcp' }, { policies });
    const request = { src: POD, dst: POD2, sport: 40_000, dport: 80 };
    node.send('p1', tcp4({ ...request, flags: tcp.SYN, seq: 1 }));
    node.send('p2', tcp4({ src: POD2, dst: POD, sport: 80, dport: 40_000, flags: 0x12, seq: 9, ack: 2 }));
    node.send('p1', tcp4({ ...request, flags: tcp.ACK_FLAG, seq: 2, ack: 10 }));
    node.send('p1', tcp4({ ...request, dport: 81, flags: tcp.SYN }));
    node.send('p1', udp4({ ...request, dport: 81 }));
    assert.deepEqual(
      take().map(r => [r.kind, r.detail, r.verdict, r.dstPort, r.policy > 0]),
      [
        [KIND_STEP, STEP_INGRESS_POLICY, CONTINUE, 80, true],
        [KIND_STEP, STEP_INGRESS_POLICY, DROP_POLICY_DENIED_INGRESS, 81, false],
      ],
    );
  });

  it('a ring that is full loses records, counts them, and nothing else changes', () => {
    const all = { points: [{ port: '', bits: POINT_IN | POINT_OUT }], snapLen: 100 };
    const { node, watch, take } = watched(all, {}, 1024);
    for (let i = 0; i < 100; i++) node.send('p1', udp4({ src: POD, dst: POD2, payload: pattern(50) }));
    assert.equal(node.device('p2').collect().length, 100);
    assert.equal(take().length + watch.ring.lost, 200);
    assert.ok(watch.ring.lost > 150);
  });

  it('several watch side by side, and who has left sees no more', () => {
    const node = new TestNode();
    const watches = new LoopWatches(node.datapath, () => 0);
    const start = (id: number, filter: string): (() => number) => {
      const ring = RecordRing.allocate(1 << 14);
      watches.start({ id, spec: { ...NOTHING, ring, filter, drops: true } });
      return () => new RecordRing(ring).drain(() => {}, 100);
    };
    assert.throws(() => start(9, 'no filter'), /filter: character 1/);
    const [countTcp, countUdp] = [start(1, 'tcp'), start(2, 'udp')];
    const lost = () => node.send('p1', udp4({ src: POD, dst: '0.1.2.3' }), tcp4({ src: POD, dst: '0.1.2.3' }));
    lost();
    assert.deepEqual([countTcp(), countUdp()], [1, 1]);
    watches.end(2);
    watches.end(2);
    lost();
    assert.deepEqual([countTcp(), countUdp()], [1, 0]);
    watches.end(1);
    assert.equal(node.datapath.watcher, null);
    assert.equal(node.port('p1').watcher, null);
  });

  it('changes nothing: with and without a watcher the same packets come out', function () {
    this.timeout(60_000);
    const packet = fc.record({
      port: fc.constantFrom('p1', 'p2', 'ul0'),
      src: fc.constantFrom(POD, POD2, REMOTE, '9.9.9.9'),
      dst: fc.constantFrom(POD, POD2, REMOTE, '10.96.0.10', '9.9.9.9', '192.168.10.1'),
      dport: fc.constantFrom(80, 8080, 53),
      len: fc.nat(1600),
      isTcp: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(packet, { maxLength: 20 }), packets => {
        const options = { protocol: 'vxlan' as const, services: [SERVICE] };
        const all = { flows: true, drops: true, steps: true, snapLen: 65_535, points: [{ port: '', bits: 3 }] };
        const runs = [new TestNode(options), watched(all, options).node].map(node => {
          for (const { port, isTcp, len, ...rest } of packets) {
            const bytes = isTcp
              ? tcp4({ ...rest, flags: tcp.SYN, payload: pattern(len) })
              : udp4({ ...rest, payload: pattern(len) });
            node.send(port, port === 'ul0' ? fromWire(bytes) : bytes);
          }
          const out = ['p1', 'p2', 'ul0'].map(name =>
            node
              .device(name)
              .collect()
              .map(b => Buffer.from(b).toString('hex')),
          );
          return { out, counters: node.counters.snapshot() };
        });
        assert.deepEqual(runs[1], runs[0]);
      }),
      { numRuns: 15 },
    );
  });
});

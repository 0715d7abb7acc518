import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Server, ServerCredentials } from '@grpc/grpc-js';
import { parseTime } from '../../datapath/cli/observe.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import { CILIUM_DROP_REASONS } from '../../datapath/observe/flow.ts';
import { getFlowsResponse } from '../../datapath/observe/hubble-proto.ts';
import { type HubbleSource, hubbleServer } from '../../datapath/observe/hubble-service.ts';
import type { WatchedEvent } from '../../datapath/observe/watched.ts';
import { DROP_NO_ROUTE, DROP_ROUTE_LOOP } from '../../datapath/verdict.ts';
import { KIND_DROPPED, STATE_NEW, STATE_REPLY, STATE_TRACKED, type WatchRecord } from '../../datapath/watch/record.ts';
import { HubbleClient } from '../fixtures/hubble-client.ts';
import { ip } from '../fixtures/packets.ts';
import { Decoded, encode } from '../fixtures/protobuf.ts';
import { synRecord } from '../fixtures/watch-record.ts';

const TEXT = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: a }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24 }
  pods:
    - { name: default/p1, netns: p1, device: eth0, address: 10.244.1.10, identity: 1001, labels: { app: web } }
    - { name: shop/p2, netns: p2, device: eth0, address: 10.244.1.11, identity: 1002 }
  services: [{ name: default/web, clusterIP: 10.96.0.10, ports: [{ port: 80 }], endpoints: [{ address: 10.244.1.11 }] }]
`;

const SYN = synRecord({ timeMs: 1_790_000_000_250, state: STATE_TRACKED | STATE_NEW });

// Field numbers of Cilium's protos, and of nothing else.
const FLOW = 1;
const F = { time: 1, verdict: 2, ip: 5, l4: 6, source: 8, destination: 9, type: 10, node: 11, reply: 16, event: 19 };
const G = {
  sourceService: 20,
  destinationService: 21,
  direction: 22,
  point: 24,
  reason: 25,
  isReply: 26,
  summary: 100_000,
};
const Q = { number: 1, follow: 3, blacklist: 5, whitelist: 6, since: 7, until: 8, first: 9 };

describe('Hubble’s Observer, by field numbers', () => {
  const { config } = loadConfig(TEXT, 'a.yaml');
  assert.ok(config?.spec.uplink.kind === 'tap');
  const context: WatchedEvent = {
    context: {
      node: 'a',
      ports: ['default/p1', 'shop/p2'].map((name, number) => ({ number, name, kind: 'pod', device: 'eth0', layer: 3 })),
      config: withUplink(config, resolveTap(config.spec.uplink)),
    },
  };
  const event = (fields: Partial<WatchRecord>): WatchedEvent => ({ node: 'a', record: { ...SYN, ...fields } });
  const PAST = [
    event({}),
    event({
      timeMs: SYN.timeMs + 1000,
      src: SYN.dst,
      dst: SYN.src,
      srcPort: 80,
      dstPort: 40_000,
      l4Bits: 0x12,
      inPort: 1,
      detail: 0,
      state: STATE_TRACKED | STATE_REPLY,
    }),
    event({ timeMs: SYN.timeMs + 2000, kind: KIND_DROPPED, detail: DROP_NO_ROUTE, dst: ip('9.9.9.9'), protocol: 17 }),
    event({ timeMs: SYN.timeMs + 3000, kind: KIND_DROPPED, detail: DROP_ROUTE_LOOP, protocol: 1, l4Bits: 0x0800 }),
  ];
  /** What is followed comes from here, a piece a time. */
  const live: WatchedEvent[][] = [];
  let wake = () => {};
  let followers = 0;
  const source: HubbleSource = {
    version: '1.2.3',
    past: async () => [context, ...PAST],
    async *follow(signal) {
      followers++;
      signal.addEventListener('abort', () => wake());
      try {
        yield [context];
        while (!signal.aborted) {
          while (live.length > 0) yield live.shift()!;
          await new Promise<void>(resolve => {
            wake = resolve;
          });
        }
      } finally {
        followers--;
      }
    },
    nodes: async () => [
      { name: 'a', isThere: true, address: '192.168.10.1', uptimeSeconds: 2, remembered: 4, most: 100, seen: 7 },
      { name: 'b', isThere: true, address: '192.168.10.2', uptimeSeconds: 5, remembered: 1, most: 100, seen: 1 },
      { name: 'c', isThere: false, address: '', uptimeSeconds: 0, remembered: 0, most: 0, seen: 0 },
    ],
  };

  let dir = '';
  let server: Server;
  let client: HubbleClient;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-hubble-'));
    const target = `unix:${join(dir, 'a.sock')}`;
    server = hubbleServer(source);
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(target, ServerCredentials.createInsecure(), error =>
        error === null ? resolve() : reject(error),
      );
    });
    client = new HubbleClient(target);
  });
  after(() => {
    client.close();
    server.forceShutdown();
    rmSync(dir, { recursive: true });
  });

  it('GetFlows gives a flow with everything that is known of it', async () => {
    const [first, answer, drop, loop] = await client.allFlows();
    const flow = first.message(FLOW);
    assert.equal(first.text(1000), 'a');
    assert.deepEqual([first.message(1001).number(1), first.message(1001).number(2)], [1_790_000_000, 250_000_000]);
    assert.deepEqual([flow.message(F.time).number(1), flow.message(F.time).number(2)], [1_790_000_000, 250_000_000]);
    assert.deepEqual([flow.number(F.verdict), flow.number(F.type), flow.text(F.node)], [1, 1, 'a']);
    const addresses = flow.message(F.ip);
    assert.deepEqual([addresses.text(1), addresses.text(2), addresses.number(3)], ['10.244.1.10', '10.244.1.11', 1]);
    const segment = flow.message(F.l4, 1);
    assert.deepEqual([segment.number(1), segment.number(2), segment.message(3).numbers], [40_000, 80, [2]]);
    const [from, to] = [flow.message(F.source), flow.message(F.destination)];
    assert.deepEqual(
      [from.number(2), from.text(3), from.texts(4), from.text(5)],
      [1001, 'default', ['k8s:app=web'], 'p1'],
    );
    assert.deepEqual([to.number(2), to.text(3), to.text(5)], [1002, 'shop', 'p2']);
    assert.deepEqual([flow.message(F.event).number(1), flow.message(F.event).number(2)], [4, 0]);
    assert.deepEqual([flow.number(G.direction), flow.number(G.point)], [2, 101]);
    assert.ok(flow.numbers.includes(G.isReply), 'it is known not to be an answer');
    assert.equal(flow.message(G.isReply).number(1), 0);
    assert.equal(flow.text(G.summary), 'TCP Flags: SYN');

    const reply = answer.message(FLOW);
    assert.deepEqual([reply.message(G.isReply).number(1), reply.number(F.reply)], [1, 1]);
    assert.deepEqual(reply.message(F.l4, 1, 3).numbers.sort(), [2, 5]);

    const refused = drop.message(FLOW);
    assert.deepEqual([refused.number(F.verdict), refused.number(3), refused.number(G.reason)], [2, 151, 151]);
    assert.deepEqual([refused.message(F.l4, 2).number(1), refused.message(F.l4, 2).number(2)], [40_000, 80]);
    assert.equal(refused.message(F.destination).texts(4)[0], 'reserved:world');
    assert.match(refused.text(G.summary), /drop-no-route/);
    const ping = loop.message(FLOW);
    assert.deepEqual([ping.number(G.reason), ping.message(F.l4, 3).number(1)], [0, 8]);
    assert.match(ping.text(G.summary), /drop-route-loop/);
  });

  it('GetFlows gives the last or the first of them, of a time, and what filters take', async () => {
    const seconds = async (fields: Parameters<HubbleClient['allFlows']>[0]) =>
      (await client.allFlows(fields)).map(response => response.message(1001).number(1) - 1_790_000_000);
    assert.deepEqual(await seconds({ [Q.number]: 2 }), [2, 3]);
    assert.deepEqual(await seconds({ [Q.number]: 2, [Q.first]: true }), [0, 1]);
    assert.deepEqual(await seconds({ [Q.since]: encode({ 1: 1_790_000_001 }) }), [1, 2, 3]);
    assert.deepEqual(await seconds({ [Q.until]: encode({ 1: 1_790_000_001 }) }), [0]);
    const filters: [what: Parameters<typeof encode>[0], flows: number[]][] = [
      [{ 5: 2 }, [2, 3]], // verdict
      [{ 1: '10.244.1.10' }, [0, 2, 3]], // source_ip
      [{ 3: ['9.9.0.0/16', '10.244.1.10/32'] }, [1, 2]], // destination_ip
      [{ 2: 'default/p1', 4: 'shop/' }, [0, 3]], // source_pod, destination_pod
      [{ 10: 'app=web', 12: 'tcp' }, [0]], // source_label, protocol
      [{ 14: '40000' }, [1]], // destination_port
      [{ 15: true }, [1]], // reply
      [{ 19: 1002 }, [1]], // source_identity
      [{ 23: encode({ 2: true, 5: true }) }, [1]], // tcp_flags
      [{ 6: encode({ 1: 1, 2: true, 3: 151 }) }, [2]], // event_type
      [{ 33: [151] }, [2]], // drop_reason_desc
      [{ 24: 'b' }, []], // node_name
    ];
    for (const [filter, flows] of filters) {
      assert.deepEqual(await seconds({ [Q.whitelist]: encode(filter) }), flows, JSON.stringify(filter));
      const others = [0, 1, 2, 3].filter(one => !flows.includes(one));
      assert.deepEqual(await seconds({ [Q.blacklist]: encode(filter) }), others, JSON.stringify(filter));
    }
    assert.deepEqual(await seconds({ [Q.whitelist]: [encode({ 14: '40000' }), encode({ 12: 'icmp' })] }), [1, 3]);
    await assert.rejects(client.allFlows({ [Q.whitelist]: encode({ 18: 'example.com' }) }), {
      code: 3,
      details: 'filter by dns_query: flows of this node have none',
    });
  });

  it('GetFlows follows, tells what was lost, and ends when the client goes', async () => {
    const stream = client.getFlows({ [Q.follow]: true, [Q.number]: 1 });
    const seen: string[] = [];
    const ended = new Promise(resolve => stream.on('error', resolve));
    const two = new Promise<void>(resolve => {
      stream.on('data', (response: Decoded) => {
        const lost = response.message(3);
        seen.push(
          lost.numbers.length > 0 ? `lost ${lost.number(1)} ${lost.number(2)}` : response.message(FLOW).text(G.summary),
        );
        if (seen.length === 1) {
          // What was remembered already is not told again.
          live.push([event({ timeMs: SYN.timeMs + 3000 })]);
          live.push([event({ timeMs: SYN.timeMs + 5000, l4Bits: 0x11 }), { node: 'a', lost: 9 }]);
          wake();
        }
        if (seen.length === 3) resolve();
      });
    });
    await two;
    assert.deepEqual(seen, ['ICMPv4 EchoRequest; drop-route-loop', 'lost 3 9', 'TCP Flags: ACK, FIN']);
    assert.equal(followers, 1);
    stream.cancel();
    await ended;
    while (followers > 0) await new Promise(resolve => setImmediate(resolve));
  });

  it('ServerStatus and GetNodes', async () => {
    const status = await client.unary('ServerStatus');
    assert.deepEqual(
      [1, 2, 3, 4].map(field => status.number(field)),
      [5, 200, 8, 5e9],
    );
    assert.deepEqual(
      [5, 6].map(field => status.message(field).number(1)),
      [2, 1],
    );
    assert.deepEqual([status.text(7), status.text(8)], ['c', '1.2.3']);
    const nodes = (await client.unary('GetNodes')).messages(1);
    assert.deepEqual(
      nodes.map(node => [node.text(1), node.text(2), node.text(3), node.number(4), node.number(6), node.number(7)]),
      [
        ['a', '1.2.3', '192.168.10.1', 1, 2e9, 4],
        ['b', '1.2.3', '192.168.10.2', 1, 5e9, 1],
        ['c', '1.2.3', '', 2, 0, 0],
      ],
    );
  });

  it('knows Cilium’s number of every reason that has one', () => {
    for (const { name, number } of Object.values(CILIUM_DROP_REASONS)) {
      const bytes = getFlowsResponse.encode({ flow: { drop_reason_desc: name } });
      assert.equal(new Decoded(bytes).message(FLOW).number(G.reason), number, name);
    }
  });
});

describe('observe --since', () => {
  it('takes durations and times', () => {
    const now = Date.parse('2026-11-28T10:00:00Z');
    for (const [text, at] of [
      ['5m', '2026-11-28T09:55:00Z'],
      ['1h30m', '2026-11-28T08:30:00Z'],
      ['1.5s', '2026-11-28T09:59:58.500Z'],
      ['2026-11-28T09:00:00+01:00', '2026-11-28T08:00:00Z'],
    ]) {
      assert.equal(parseTime('--since', text, now), Date.parse(at), text);
    }
    for (const text of ['x', '5', '-5m', '2026', ''])
      assert.throws(() => parseTime('--since', text, now), /--since .*: expected 5m/);
  });
});

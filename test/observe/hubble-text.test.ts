import assert from 'node:assert/strict';
import { type Directory, type Endpoint, flowOf } from '../../datapath/observe/flow.ts';
import { compactLine, dictLines, jsonpbLine } from '../../datapath/observe/hubble-text.ts';
import { DROP_NO_ROUTE } from '../../datapath/verdict.ts';
import {
  KIND_DROPPED,
  KIND_RECEIVED,
  KIND_STEP,
  STATE_REPLY,
  STATE_TRACKED,
  TO_OVERLAY,
  type WatchRecord,
} from '../../datapath/watch/record.ts';
import { ip } from '../fixtures/packets.ts';
import { synRecord } from '../fixtures/watch-record.ts';

const P1: Endpoint = { identity: 1001, namespace: 'default', podName: 'p1', labels: ['k8s:app=web'] };
const P2: Endpoint = { identity: 1002, namespace: 'shop', podName: 'p2', labels: [] };

const directory: Directory = {
  node: 'a',
  portKind: index => (['pod', 'pod', 'host', 'uplink'] as const)[index] ?? 'none',
  endpointOf: address =>
    new Map([
      [ip('10.244.1.10'), P1],
      [ip('10.244.1.11'), P2],
    ]).get(address),
  serviceOf: (address, port) => (address === ip('10.96.0.10') && port === 80 ? 'default/web' : ''),
};

const SYN = synRecord({ timeMs: new Date(2026, 10, 8, 9, 5, 3, 7).getTime() });

const compact = (fields: Partial<WatchRecord>, withNode = false) =>
  compactLine(flowOf({ ...SYN, ...fields }, directory)!, withNode);

describe('flows as hubble prints them', () => {
  it('compact', () => {
    assert.equal(
      compact({}),
      'Nov  8 09:05:03.007: default/p1:40000 (ID:1001) -> shop/p2:80 (ID:1002) to-endpoint FORWARDED (TCP Flags: SYN)',
    );
    assert.match(compact({}, true), /^Nov {2}8 09:05:03\.007 \[a\]: default/);
    const answer = { src: SYN.dst, dst: SYN.src, srcPort: 80, dstPort: 40_000, l4Bits: 0x12, inPort: 1, detail: 0 };
    assert.equal(
      compact({ ...answer, state: STATE_TRACKED | STATE_REPLY }).slice(21),
      'default/p1:40000 (ID:1001) <- shop/p2:80 (ID:1002) to-endpoint FORWARDED (TCP Flags: SYN, ACK)',
    );
    assert.equal(
      compact({ state: 0, dst: ip('9.9.9.9'), detail: 3, l4Bits: 0x11 }).slice(21),
      'default/p1:40000 (ID:1001) <> 9.9.9.9:80 (world) to-network FORWARDED (TCP Flags: ACK, FIN)',
    );
    assert.equal(
      compact({ dst: ip('10.96.0.10'), kind: KIND_DROPPED, detail: DROP_NO_ROUTE }).slice(21),
      'default/p1:40000 (ID:1001) -> default/web:80 (world) no-route DROPPED (TCP Flags: SYN)',
    );
  });

  it('observation points by port and tunnel', () => {
    const types: [Partial<WatchRecord>, string][] = [
      [{ kind: KIND_RECEIVED, detail: 0 }, 'from-endpoint'],
      [{ kind: KIND_RECEIVED, detail: 2 }, 'from-host'],
      [{ kind: KIND_RECEIVED, detail: 3 }, 'from-network'],
      [{ kind: KIND_RECEIVED, detail: 3, tunnelSource: ip('192.168.10.2') }, 'from-overlay'],
      [{ detail: 2 }, 'to-stack'],
      [{ detail: 3, verdict: TO_OVERLAY }, 'to-overlay'],
      [{ detail: 3 }, 'to-network'],
    ];
    for (const [fields, type] of types) assert.match(compact(fields), new RegExp(` ${type} FORWARDED`));
    assert.equal(flowOf({ ...SYN, kind: KIND_STEP }, directory), null);
  });

  it('dict', () => {
    const flow = flowOf(SYN, directory)!;
    assert.equal(
      [dictLines(flow, true), dictLines(flow, false, true)].join('\n'),
      [
        '   TIMESTAMP: Nov  8 09:05:03.007',
        '      SOURCE: default/p1:40000',
        ' DESTINATION: shop/p2:80',
        '        TYPE: to-endpoint',
        '     VERDICT: FORWARDED',
        '     SUMMARY: TCP Flags: SYN',
        '------------',
        '   TIMESTAMP: Nov  8 09:05:03.007',
        '        NODE: a',
        '      SOURCE: default/p1:40000',
        ' DESTINATION: shop/p2:80',
        '        TYPE: to-endpoint',
        '     VERDICT: FORWARDED',
        '     SUMMARY: TCP Flags: SYN',
      ].join('\n'),
    );
  });

  it('jsonpb, with the names of flow.proto', () => {
    const time = new Date(SYN.timeMs).toISOString();
    assert.deepEqual(JSON.parse(jsonpbLine(flowOf(SYN, directory)!)), {
      flow: {
        time,
        verdict: 'FORWARDED',
        IP: { source: '10.244.1.10', destination: '10.244.1.11', ipVersion: 'IPv4' },
        l4: { TCP: { source_port: 40_000, destination_port: 80, flags: { SYN: true } } },
        source: { identity: 1001, namespace: 'default', labels: ['k8s:app=web'], pod_name: 'p1' },
        destination: { identity: 1002, namespace: 'shop', pod_name: 'p2' },
        Type: 'L3_L4',
        node_name: 'a',
        event_type: { type: 4 },
        traffic_direction: 'EGRESS',
        trace_observation_point: 'TO_ENDPOINT',
        is_reply: false,
        Summary: 'TCP Flags: SYN',
      },
      node_name: 'a',
      time,
    });
    const drop = {
      kind: KIND_DROPPED,
      detail: DROP_NO_ROUTE,
      protocol: 1,
      l4Bits: 0x800,
      dst: ip('10.96.0.10'),
      dstPort: 80,
    };
    const { flow } = JSON.parse(jsonpbLine(flowOf({ ...SYN, ...drop }, directory)!)) as {
      flow: Record<string, unknown>;
    };
    assert.deepEqual(
      [flow.verdict, flow.drop_reason, flow.drop_reason_desc, flow.l4, flow.event_type, flow.Summary],
      [
        'DROPPED',
        151,
        'UNROUTABLE',
        { ICMPv4: { type: 8 } },
        { type: 1, sub_type: 151 },
        'ICMPv4 EchoRequest; drop-no-route',
      ],
    );
    assert.deepEqual(flow.destination_service, { name: 'web', namespace: 'default' });
  });
});

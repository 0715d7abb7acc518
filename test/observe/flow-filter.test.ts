/** The filters of `tunpath observe`. */
import assert from 'node:assert/strict';
import { type Directory, flowOf } from '../../datapath/observe/flow.ts';
import { type FlowFilterOptions, flowFilter } from '../../datapath/observe/flow-filter.ts';
import { DROP_NO_ROUTE, DROP_TTL_EXCEEDED } from '../../datapath/verdict.ts';
import { KIND_DROPPED, type WatchRecord } from '../../datapath/watch/record.ts';
import { ip } from '../fixtures/packets.ts';
import { synRecord } from '../fixtures/watch-record.ts';

const ENDPOINTS = new Map([
  [ip('10.244.1.10'), { identity: 1001, namespace: 'default', podName: 'p1', labels: ['k8s:app=web'] }],
  [ip('10.244.1.11'), { identity: 1002, namespace: 'shop', podName: 'p2', labels: ['k8s:app=db'] }],
]);
const directory: Directory = {
  node: 'tp-lab-k8s-w1',
  portKind: index => (['pod', 'pod', 'host', 'uplink'] as const)[index] ?? 'none',
  endpointOf: address => ENDPOINTS.get(address),
  serviceOf: (address, port) => (address === ip('10.96.0.10') && port === 80 ? 'default/web' : ''),
};
const flow = (fields: Partial<WatchRecord>) => flowOf(synRecord(fields), directory)!;

const FLOWS = {
  syn: flow({}),
  answer: flow({
    src: ip('10.244.1.11'),
    dst: ip('10.244.1.10'),
    srcPort: 80,
    dstPort: 40_000,
    l4Bits: 0x12,
    inPort: 1,
  }),
  service: flow({ dst: ip('10.96.0.10') }),
  world: flow({ dst: ip('203.0.113.9'), protocol: 17, detail: 3, dstPort: 53 }),
  noRoute: flow({ kind: KIND_DROPPED, detail: DROP_NO_ROUTE, dst: ip('203.0.113.9'), protocol: 1, l4Bits: 0x800 }),
  expired: flow({ kind: KIND_DROPPED, detail: DROP_TTL_EXCEEDED, inPort: 3 }),
};
const passing = (options: FlowFilterOptions, excluded?: FlowFilterOptions) => {
  const passes = flowFilter(options, excluded);
  return Object.entries(FLOWS).flatMap(([name, one]) => (passes(one) ? [name] : []));
};

describe('filters of flows', () => {
  const rows: [options: FlowFilterOptions, expected: (keyof typeof FLOWS)[]][] = [
    [{}, ['syn', 'answer', 'service', 'world', 'noRoute', 'expired']],
    [{ verdict: ['dropped'] }, ['noRoute', 'expired']],
    [{ reason: ['no-route'] }, ['noRoute']],
    [{ dropReasonDesc: ['ttl_exceeded', 'UNROUTABLE'] }, ['noRoute', 'expired']],
    [{ type: ['drop'] }, ['noRoute', 'expired']],
    [{ type: ['trace:to-network'] }, ['world']],
    [{ type: ['trace:to-endpoint'], fromPort: ['80'] }, ['answer']],
    [{ pod: ['shop/'] }, ['syn', 'answer', 'expired']],
    [{ fromPod: ['shop/p2'] }, ['answer']],
    [{ namespace: ['shop'], tcpFlags: ['ACK'] }, ['answer']],
    [{ fromNamespace: ['shop'] }, ['answer']],
    [{ toLabel: ['app=web'] }, ['answer']],
    [{ ip: ['203.0.113.0/24'] }, ['world', 'noRoute']],
    [{ toIp: ['203.0.113.8/31', '10.96.0.10'] }, ['service', 'world', 'noRoute']],
    [{ fromIp: ['10.244.0.0/16'], toService: ['web'] }, ['service']],
    [{ fromService: ['web'] }, []],
    [{ toIdentity: ['world'], protocol: ['udp'] }, ['world']],
    [{ fromIdentity: ['1002'] }, ['answer']],
    [{ toPort: ['53'] }, ['world']],
    [{ pod: ['shop/p2'], port: ['80'] }, ['syn', 'answer', 'expired']],
    [{ pod: ['p1'], port: ['80'] }, []],
    [{ pod: ['p1'], port: ['40000'], ip: ['10.244.1.10'], toPort: ['80'] }, ['syn', 'service', 'expired']],
    [{ trafficDirection: ['ingress'] }, ['expired']],
    [{ nodeName: ['*w1'], reason: ['ttl-exceeded'] }, ['expired']],
    [{ nodeName: ['k8s-w1', 'tp.lab*'] }, []],
  ];
  for (const [options, expected] of rows) {
    it(JSON.stringify(options), () => assert.deepEqual(passing(options), expected));
  }

  it('leave out what all options take that are excluded', () => {
    const all = Object.keys(FLOWS);
    assert.deepEqual(passing({}, { verdict: ['DROPPED'] }), ['syn', 'answer', 'service', 'world']);
    assert.deepEqual(passing({}, { verdict: ['DROPPED'], fromPod: ['shop/p2'] }), all);
    assert.deepEqual(passing({}, { verdict: ['DROPPED'], protocol: ['icmp', 'udp'] }), [
      ...['syn', 'answer', 'service', 'world', 'expired'],
    ]);
    assert.deepEqual(passing({}, { pod: ['shop/p2'], port: ['80'] }), ['service', 'world', 'noRoute']);
    assert.deepEqual(passing({}, { pod: ['p1'], port: ['80'] }), all);
    assert.deepEqual(passing({ verdict: ['DROPPED'] }, { protocol: ['icmp'] }), ['expired']);
  });

  it('name the option and what was expected', () => {
    for (const [options, message] of [
      [{ ip: ['web'] }, /^--ip web: expected an address or a network/],
      [{ toIp: ['10.0.0.0/33'] }, /^--to-ip 10.0.0.0\/33: expected/],
      [{ fromPort: ['http'] }, /^--from-port http: expected a port/],
      [{ reason: ['no-rout'] }, /^--reason no-rout: expected a reason of docs\/drops.md \(did you mean no-route\?\)/],
      [{ dropReasonDesc: ['x'] }, /^--drop-reason-desc x: expected INVALID_SOURCE_IP, /],
      [{ type: ['trace:to-lxc'] }, /^--type trace:to-lxc: expected trace: and one of to-host, /],
      [{ identity: ['web'] }, /^--identity web: expected a number, or a name such as world/],
      [{ protocol: ['constructor'] }, /^--protocol constructor: expected tcp, udp, icmp or sctp/],
      [{ verdict: ['AUDIT'] }, /^--verdict AUDIT: expected FORWARDED or DROPPED/],
      [{ trafficDirection: ['up'] }, /^--traffic-direction up: expected ingress or egress/],
    ] as [FlowFilterOptions, RegExp][]) {
      assert.throws(() => flowFilter(options), { name: 'FlowFilterError', message });
      assert.throws(() => flowFilter({}, options), { name: 'FlowFilterError', message });
    }
  });
});

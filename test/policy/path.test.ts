/** Policies in the path: what passes, what answers it, what ICMP says about it, and what a change cuts. */
import assert from 'node:assert/strict';
import type { FlowRow } from '../../datapath/flow/flows.ts';
import { VERDICT_NAMES } from '../../datapath/verdict.ts';
import { ethernet, icmpError, tcp4, udp4 } from '../fixtures/packets.ts';
import {
  fromWire,
  HOST,
  NODE,
  type NodeOptions,
  PEER,
  POD,
  POD2,
  REMOTE,
  TestNode,
  VTEP_MACS,
} from '../forward-rig.ts';

const VIP = '10.96.0.10';
const OTHER_REMOTE = '10.244.2.99';
const remotePods = [
  { name: 'default/web', address: REMOTE, labels: { app: 'web' } },
  { name: 'default/other', address: OTHER_REMOTE, labels: { app: 'other' } },
];
/** Only web may reach p3, which is db, and only by TCP 5432. */
const DB = '10.244.1.30';
const pods = [{ name: 'p3', netns: 'n3', device: 'eth0', address: DB, identity: 103, labels: { app: 'db' } }];
const onlyWeb = {
  name: 'db',
  podSelector: { matchLabels: { app: 'db' } },
  ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 5432 }] }],
};

const dropped = (node: TestNode, name: string) => node.counters.dropped(VERDICT_NAMES.indexOf(name));
const denied = (node: TestNode) => [
  dropped(node, 'drop-policy-denied-egress'),
  dropped(node, 'drop-policy-denied-ingress'),
];

function flows(node: TestNode): FlowRow[] {
  const rows: FlowRow[] = [];
  const { flows } = node.datapath;
  flows!.list(1, 1000, node.clock.now(), flow => rows.push(flows!.row(flow, node.clock.now())));
  return rows;
}

function start(options: NodeOptions): TestNode {
  const node = new TestNode({ pods, remotePods, ...options });
  node.meetNeighbors();
  return node;
}

/** From a pod behind the peer, as it comes. */
function fromPeer(inner: Uint8Array): Uint8Array {
  const frame = ethernet(inner, { src: VTEP_MACS[1], dst: VTEP_MACS[0] });
  const payload = Uint8Array.from([8, 0, 0, 0, 0, 0, 7, 0, ...frame]);
  return fromWire(udp4({ src: PEER, dst: NODE, sport: 50000, dport: 8472, payload }));
}

function assertWhole(node: TestNode): void {
  assert.equal(node.balance, 0);
  assert.equal(node.leaked, 0);
}

describe('policy in the path', () => {
  it('lets in whom a rule allows, by the tunnel too, and counts the others; answers pass', () => {
    const node = start({ policies: [onlyWeb] });
    const fromRemote = (src: string, dport: number) => fromPeer(tcp4({ src, dst: DB, sport: 999, dport, flags: 2 }));
    node.send('ul0', fromRemote(REMOTE, 5432));
    assert.equal(node.collect('p3').length, 1);
    node.send('p3', tcp4({ src: DB, dst: REMOTE, sport: 5432, dport: 999, flags: 0x12 }));
    assert.equal(node.collect('ul0').length, 1);
    const [flow] = flows(node);
    assert.deepEqual(
      [flow.egressRule, node.datapath.policies!.program.rules[flow.ingressRule]],
      [0, { policy: 'default/db', direction: 'ingress', rule: 0 }],
    );
    node.send('ul0', fromRemote(REMOTE, 80), fromRemote(OTHER_REMOTE, 5432));
    node.send('p1', tcp4({ src: POD, dst: DB, dport: 5432, flags: 2 }));
    assert.deepEqual(node.collect('p3'), []);
    assert.deepEqual(denied(node), [0, 3]);
    assert.equal(flows(node).length, 1, 'what is denied has no flow');
    node.send('tp0', tcp4({ src: HOST, dst: DB, dport: 80, flags: 2 }));
    assert.equal(node.collect('p3').length, 1, 'the node is never kept from its pods');
    node.send('p1', tcp4({ src: POD, dst: POD2, dport: 80, flags: 2 }));
    assert.equal(node.collect('p2').length, 1, 'nothing selects p2');
    assertWhole(node);
  });

  it('judges egress on the backend that a service has chosen', () => {
    const services = [
      { name: 'to-web', clusterIP: VIP, ports: [{ port: 80, targetPort: 8080 }], endpoints: [{ address: REMOTE }] },
      { name: 'to-other', clusterIP: '10.96.0.11', ports: [{ port: 80 }], endpoints: [{ address: OTHER_REMOTE }] },
    ];
    const toWeb = {
      name: 'db',
      podSelector: { matchLabels: { app: 'db' } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 8080 }] }],
    };
    const node = start({ services, policies: [toWeb] });
    node.send('p3', tcp4({ src: DB, dst: VIP, dport: 80, flags: 2 }));
    assert.equal(node.collect('ul0').length, 1);
    node.send(
      'p3',
      tcp4({ src: DB, dst: '10.96.0.11', dport: 80, flags: 2 }),
      udp4({ src: DB, dst: REMOTE, dport: 8080 }),
    );
    assert.deepEqual(node.collect('ul0'), []);
    assert.deepEqual(denied(node), [2, 0]);
    node.send('p1', tcp4({ src: POD, dst: DB, dport: 80, flags: 2 }));
    assert.equal(node.collect('p3').length, 1, 'it is isolated for egress alone');
    assertWhole(node);
  });

  it('ICMP errors go with the flow that they are about, and ICMP itself needs a rule without ports', () => {
    const node = start({ policies: [onlyWeb] });
    const request = tcp4({ src: REMOTE, dst: DB, sport: 999, dport: 5432, flags: 2 });
    node.send('ul0', fromPeer(request));
    node.send('p3', tcp4({ src: DB, dst: REMOTE, sport: 5432, dport: 999, flags: 0x12 }));
    node.collectAll();
    const answer = tcp4({ src: DB, dst: REMOTE, sport: 5432, dport: 999 });
    node.send('ul0', fromPeer(icmpError(3, 4, answer, { src: OTHER_REMOTE, dst: DB, mtu: 1400 })));
    assert.equal(node.collect('p3').length, 1);
    assert.deepEqual(denied(node), [0, 0]);
    assertWhole(node);
  });

  it('a change cuts what it forbids, in both directions, and lets it go on if it is taken back', () => {
    const node = start({ policies: [onlyWeb] });
    const forth = () => fromPeer(tcp4({ src: REMOTE, dst: DB, sport: 999, dport: 5432, seq: 101, ack: 501 }));
    const back = () => tcp4({ src: DB, dst: REMOTE, sport: 5432, dport: 999, seq: 501, ack: 101 });
    node.send('ul0', fromPeer(tcp4({ src: REMOTE, dst: DB, sport: 999, dport: 5432, seq: 100, flags: 2 })));
    node.send('p3', tcp4({ src: DB, dst: REMOTE, sport: 5432, dport: 999, seq: 500, ack: 101, flags: 0x12 }));
    node.send('ul0', forth());
    node.collectAll();
    const none = { ...onlyWeb, ingress: [] };
    node.reconfigure({ pods, remotePods, policies: [none] });
    node.send('p3', back());
    node.send('ul0', forth());
    node.send('p3', back());
    assert.deepEqual(node.collectAll(), {});
    assert.deepEqual(denied(node), [0, 3]);
    assert.equal(flows(node)[0].ingressRule, -1);
    assert.ok(flows(node)[0].expires <= 120, 'remembered for two minutes after its last packet');
    node.reconfigure({ pods, remotePods, policies: [onlyWeb] });
    node.send('ul0', forth());
    node.send('p3', back());
    assert.deepEqual(Object.keys(node.collectAll()).sort(), ['p3', 'ul0']);
    node.reconfigure({ pods, remotePods, policies: [] });
    node.send('ul0', forth());
    assert.equal(node.collect('p3').length, 1);
    assertWhole(node);
  });
});

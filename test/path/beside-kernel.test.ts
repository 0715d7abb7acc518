/** An uplink whose address an interface of the node's kernel has as well: what the kernel gets, and how its answers come back. */
import assert from 'node:assert/strict';
import * as verdict from '../../datapath/verdict.ts';
import { arpFrame, dotted, icmpEcho, tcp4 } from '../fixtures/packets.ts';
import { fromWire, HOST, NODE, type NodeOptions, PEER_MAC, POD, REMOTE, TestNode } from '../forward-rig.ts';

const OUTSIDE = '192.168.10.9';
const NODE_PORT = 30080;
/** As which a node sees itself, or somebody whose packets must come back by here. */
const LOOPBACK = '169.254.42.1';
const SYN = 2;
const SYN_ACK = 18;

const service = (endpoint: string, more: object = {}) => ({
  name: 'api',
  type: 'NodePort',
  clusterIP: '10.96.0.1',
  ports: [{ port: 443, targetPort: 6443, nodePort: NODE_PORT }],
  endpoints: [{ address: endpoint }],
  ...more,
});

function start(endpoint: string, more: object = {}, options: NodeOptions = {}): TestNode {
  const node = new TestNode({ besideKernel: true, services: [service(endpoint, more)], ...options });
  node.meetNeighbors();
  node.send('ul0', arpFrame({ sha: PEER_MAC, spa: OUTSIDE, tpa: NODE }));
  node.collect('ul0');
  return node;
}

/** "PORT SRC:PORT > DST:PORT" of the only packet that has left. */
function left(node: TestNode): string {
  const all = Object.entries(node.collectAll()).flatMap(([port, list]) => list.map(bytes => ({ port, bytes })));
  assert.equal(all.length, 1, `${all.length} packets`);
  const [{ port, bytes }] = all;
  const packet = port === 'ul0' ? bytes.subarray(14) : bytes;
  const view = new DataView(packet.buffer, packet.byteOffset);
  return `${port} ${dotted(view.getInt32(12))}:${view.getUint16(20)} > ${dotted(view.getInt32(16))}:${view.getUint16(22)}`;
}

describe('an uplink beside the kernel', () => {
  for (const [whose, endpoint] of Object.entries({ underlay: NODE, 'host port': HOST })) {
    for (const policy of ['Cluster', 'Local']) {
      it(`from outside to the node's own address (${whose}, ${policy}): it answers by way of the datapath`, () => {
        const node = start(endpoint, { externalTrafficPolicy: policy });
        node.send('ul0', fromWire(tcp4({ src: OUTSIDE, dst: NODE, sport: 5000, dport: NODE_PORT, flags: SYN })));
        const seen = new RegExp(`^tp0 ${LOOPBACK}:(\\d+) > ${endpoint}:6443$`).exec(left(node));
        assert.ok(seen !== null);
        const dport = Number(seen[1]);
        node.send('tp0', tcp4({ src: endpoint, dst: LOOPBACK, sport: 6443, dport, flags: SYN_ACK }));
        assert.equal(left(node), `ul0 ${NODE}:${NODE_PORT} > ${OUTSIDE}:5000`);
        assert.equal(node.balance, 0);
      });
    }
  }

  it('a pod reaches the node’s own address, itself and through a service', () => {
    const node = start(NODE);
    node.send('p1', tcp4({ src: POD, dst: NODE, sport: 5000, dport: 22, flags: SYN }));
    assert.equal(left(node), `tp0 ${POD}:5000 > ${NODE}:22`);
    node.send('p1', tcp4({ src: POD, dst: '10.96.0.1', sport: 5001, dport: 443, flags: SYN }));
    assert.equal(left(node), `tp0 ${POD}:5001 > ${NODE}:6443`);
    node.send('tp0', tcp4({ src: NODE, dst: POD, sport: 6443, dport: 5001, flags: SYN_ACK }));
    assert.equal(left(node), `p1 10.96.0.1:443 > ${POD}:5001`);
  });

  it('a process that is bound to the node’s address reaches pods, here and behind the tunnel', () => {
    const node = start(NODE);
    for (const [to, port] of [
      [POD, 'p1'],
      [REMOTE, 'ul0'],
    ] as const) {
      node.send('tp0', tcp4({ src: NODE, dst: to, sport: 5000, dport: 80, flags: SYN }));
      assert.equal(node.collect(port).length, 1, to);
    }
    node.send('p1', tcp4({ src: POD, dst: NODE, sport: 80, dport: 5000, flags: SYN_ACK }));
    assert.equal(left(node), `tp0 ${POD}:80 > ${NODE}:5000`);
  });

  it('what the link sends to the node’s address has reached the kernel there, and goes there no second time', () => {
    const node = start(NODE);
    node.send('ul0', fromWire(tcp4({ src: OUTSIDE, dst: NODE, sport: 5000, dport: 22, flags: SYN })));
    assert.deepEqual(node.collectAll(), {});
    assert.equal(node.counters.dropped(verdict.DROP_NO_HOST_PORT), 1);
    node.send('ul0', fromWire(icmpEcho({ src: OUTSIDE, dst: NODE })));
    assert.deepEqual(Object.keys(node.collectAll()), ['ul0']);
  });

  it('where the address is at the host port, the client’s own stays', () => {
    const node = start(NODE, {}, { besideKernel: false });
    node.send('ul0', fromWire(tcp4({ src: OUTSIDE, dst: NODE, sport: 5000, dport: NODE_PORT, flags: SYN })));
    assert.equal(left(node), `tp0 ${OUTSIDE}:5000 > ${NODE}:6443`);
  });
});

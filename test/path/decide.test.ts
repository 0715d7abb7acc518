/** A decision that is only asked for: the packet knows what would become of it, and the node has forgotten the question. */
import assert from 'node:assert/strict';
import { rowOf } from '../../datapath/nat/translation.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Random } from '../../datapath/random.ts';
import { VERDICT_NAMES } from '../../datapath/verdict.ts';
import { SYN } from '../../datapath/wire/tcp.ts';
import { dotted, fragment, icmpEcho, load, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { POD, POD2, REMOTE, TestNode } from '../forward-rig.ts';

const VIP = '10.96.0.10';
const OUTSIDE = '203.0.113.9';
const NODE_OPTIONS = {
  services: [
    {
      name: 'default/web',
      addresses: [VIP],
      sessionAffinity: 'ClientIP',
      ports: [{ name: 't', protocol: 'TCP', port: 80, targetPort: 8080 }],
      endpoints: [{ address: POD2 }, { address: REMOTE }],
    },
  ],
  masquerade: [{ from: '10.244.0.0/16', notTo: '10.244.0.0/16', action: 'MASQUERADE' }],
};

function decide(node: TestNode, bytes: Uint8Array, port = 'p1') {
  const { pool, datapath } = node;
  const p = load(pool, bytes);
  p.inPort = node.port(port).index;
  assert.equal(parseIpv4(pool.view, p), 0);
  const verdict = VERDICT_NAMES[datapath.decide(p)];
  assert.deepEqual(pool.bytes.slice(p.off, p.off + p.len), bytes, 'the packet is as it was');
  pool.release(p);
  return { verdict, p };
}

/** All flows that have not run out; which entry each has does not matter. */
function flowsOf(node: TestNode) {
  const flows = node.datapath.flows!;
  const rows: string[] = [];
  const now = node.clock.now();
  flows.list(1, 1 << 20, now, entry => {
    const { flow, ...row } = rowOf(flows, entry, now);
    rows.push(JSON.stringify(row));
  });
  return rows.sort();
}

describe('a decision alone', () => {
  it('names backend, next hop and new source', () => {
    const node = new TestNode(NODE_OPTIONS);
    const asked = decide(node, tcp4({ src: POD, dst: VIP, sport: 40000, dport: 80, flags: SYN }));
    assert.equal(asked.verdict, 'continue');
    assert.ok([POD2, REMOTE].includes(dotted(asked.p.newDst)));
    assert.deepEqual([asked.p.newDst, 8080], [asked.p.backendAddress, asked.p.backendPort]);
    const out = decide(node, udp4({ src: POD, dst: OUTSIDE }));
    assert.equal(out.verdict, 'continue');
    assert.equal(dotted(out.p.newSrc), '192.168.10.1');
    assert.equal(out.p.rule, 1);
    assert.equal(decide(node, udp4({ src: POD, dst: '240.0.0.1' })).verdict, 'drop-multicast');
    assert.deepEqual(node.collectAll(), {});
  });

  it('leaves no trace: with a question before every packet, random traffic goes out bit by bit as without', () => {
    const nodes = [new TestNode(NODE_OPTIONS), new TestNode(NODE_OPTIONS)];
    for (const node of nodes) node.meetNeighbors();
    const random = new Random(20261128);
    const pick = <T>(list: readonly T[]): T => list[random.below(list.length)];
    for (let i = 0; i < 3000; i++) {
      const port = pick(['p1', 'p2']);
      const ends = {
        src: port === 'p1' ? POD : POD2,
        dst: pick([VIP, OUTSIDE, REMOTE, POD, POD2, '198.51.100.7']),
        sport: 40000 + random.below(8),
        dport: pick([80, 80, 53, 8080]),
        ttl: pick([64, 64, 64, 1]),
      };
      const payload = pattern(random.below(40));
      const bytes = pick([
        () =>
          tcp4({ ...ends, payload, flags: pick([SYN, 16, 24, 17, 4]), seq: random.below(100), ack: random.below(100) }),
        () => udp4({ ...ends, payload }),
        () => icmpEcho({ src: ends.src, dst: ends.dst, icmpId: ends.sport }),
        () => fragment(udp4({ ...ends, payload: pattern(64) }), random.below(2) * 32, 32),
      ])();
      const question = udp4({ ...ends, dst: pick([VIP, OUTSIDE, REMOTE]), sport: 40000 + random.below(8) });
      const other = tcp4({ ...ends, flags: pick([SYN, 16, 17, 4]), seq: random.below(100) });
      // Of a fragment nobody can ask.
      const isWhole = (bytes[6] & 0x3f) === 0 && bytes[7] === 0;
      decide(nodes[1], pick([isWhole ? bytes : question, question, other]), port);
      for (const node of nodes) {
        node.send(port, bytes);
        if (i % 10 === 0) node.advance(pick([100]), 100);
      }
      assert.deepEqual(nodes[1].collectAll(), nodes[0].collectAll(), `packet ${i}`);
    }
    assert.deepEqual(flowsOf(nodes[1]), flowsOf(nodes[0]));
    assert.deepEqual(nodes[1].counters.values, nodes[0].counters.values);
    assert.deepEqual(nodes[1].datapath.nat!.rules.hits, nodes[0].datapath.nat!.rules.hits);
    assert.ok(nodes[0].datapath.flows!.table.used > 50);
  });
});

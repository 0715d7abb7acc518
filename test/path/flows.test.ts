/** Connection tracking without translation: there while somebody wants it, and switched on and off under traffic. */
import assert from 'node:assert/strict';
import { SYN } from '../../datapath/wire/tcp.ts';
import { fragment, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { POD, POD2, TestNode } from '../forward-rig.ts';

const PROGRAM = { capacity: 1024, timeouts: { profile: 'linux' as const, seconds: {} } };

describe('flows of a node that translates nothing', () => {
  it('are tracked from one packet to the next on, and no longer, and nothing is lost', () => {
    const node = new TestNode();
    const { datapath, installation } = node;
    const send = (sport: number) => {
      const bytes = udp4({ src: POD, dst: POD2, sport, dport: 53 });
      node.send('p1', bytes);
      assert.equal(node.collect('p2').length, 1);
    };
    assert.equal(datapath.flows, null);
    send(1);
    installation.trackFlows('observer', PROGRAM);
    send(1);
    send(2);
    assert.equal(datapath.flows!.table.used, 2);
    installation.trackFlows('policy', PROGRAM);
    installation.trackFlows('observer', null);
    send(3);
    assert.equal(datapath.flows!.table.used, 3, 'somebody else still wants them');
    installation.trackFlows('policy', null);
    assert.equal(datapath.flows, null);
    send(4);
    assert.deepEqual([node.balance, node.leaked], [0, 0]);
  });

  it('judge packets: what cannot begin a connection is refused while they are', () => {
    const node = new TestNode();
    const answer = tcp4({ src: POD, dst: POD2, flags: SYN | 16 });
    node.send('p1', answer);
    assert.equal(node.collect('p2').length, 1);
    node.installation.trackFlows('policy', PROGRAM);
    node.send('p1', answer);
    assert.deepEqual(node.collectAll(), {});
    node.installation.trackFlows('policy', null);
    node.send('p1', answer);
    assert.equal(node.collect('p2').length, 1);
  });

  it('hold the fragments of a datagram together, and let go of them when they end', () => {
    const node = new TestNode();
    const whole = udp4({ src: POD, dst: POD2, sport: 9, dport: 53, payload: pattern(64) });
    const [first, later] = [fragment(whole, 0, 32), fragment(whole, 32, 40)];
    node.installation.trackFlows('observer', PROGRAM);
    node.send('p1', later);
    assert.deepEqual(node.collectAll(), {}, 'it waits for the first');
    node.send('p1', first);
    assert.equal(node.collect('p2').length, 2);
    node.send('p1', fragment(udp4({ src: POD, dst: POD2, payload: pattern(64), id: 77 }), 32, 40));
    node.installation.trackFlows('observer', null);
    node.send('p1', first, later);
    assert.equal(node.collect('p2').length, 2);
    node.advance(40_000, 1000);
    assert.deepEqual([node.balance, node.leaked], [0, 0]);
  });
});

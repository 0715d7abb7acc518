/** Pods behind a link layer: what goes in and out as frames, whose ARP is answered, and what is refused and counted. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { EVENT_ARP_REPLY_SENT } from '../../datapath/counters.ts';
import { CONDITION_DOWN, CONDITION_GONE, CONDITION_UP } from '../../datapath/port.ts';
import * as verdict from '../../datapath/verdict.ts';
import { arpFrame, ethernet, icmpEcho, mac, patch, tcp4, udp4 } from '../fixtures/packets.ts';
import { fromWire, HOST, POD, REMOTE, TestNode } from '../forward-rig.ts';

const ADDRESS = '10.244.1.20';
const GATEWAY = '169.254.1.1';
const PORT_MAC = 'ee:ee:ee:ee:ee:ee';
const POD_MAC = '02:aa:00:00:00:01';
const OTHER_MAC = '02:aa:00:00:00:02';
const EVERYBODY = 'ff:ff:ff:ff:ff:ff';

const podOf = (more: object = {}) => ({
  name: 'p3',
  netns: 'n3',
  kind: 'tap',
  device: 'eth0',
  address: ADDRESS,
  ...more,
});

function node(more: object = {}): TestNode {
  return new TestNode({ pods: [podOf(more)] });
}

const asks = (o: Parameters<typeof arpFrame>[0] = {}) => arpFrame({ sha: POD_MAC, spa: ADDRESS, tpa: GATEWAY, ...o });
const frame = (packet: Uint8Array, o: Parameters<typeof ethernet>[1] = {}) =>
  ethernet(packet, { src: POD_MAC, dst: PORT_MAC, ...o });
const dropped = (n: TestNode) =>
  n.counters
    .snapshot()
    .filter(({ name }) => name.startsWith('drop-'))
    .map(({ name, packets }) => `${packets} ${name}`);

describe('a pod behind a link layer', () => {
  it('is answered for its gateway, and for whatever else it asks, with the port’s MAC', () => {
    const n = node();
    for (const tpa of [GATEWAY, '8.8.8.8', REMOTE, POD, '10.244.1.99']) {
      n.send('p3', asks({ tpa }));
      const [reply, ...more] = n.collect('p3');
      assert.equal(more.length, 0);
      assert.deepEqual(
        reply,
        arpFrame({ oper: 2, sha: PORT_MAC, spa: tpa, tha: POD_MAC, tpa: ADDRESS }).map((byte, i) =>
          i < 6 ? mac(POD_MAC)[i] : byte,
        ),
      );
    }
    assert.equal(n.counters.events(EVENT_ARP_REPLY_SENT), 5);
    assert.deepEqual(dropped(n), []);
    assert.equal(n.leaked, 0);
  });

  it('is not answered for its own address: it would take that for a conflict (RFC 5227)', () => {
    const n = node();
    n.send(
      'p3',
      asks({ spa: '0.0.0.0', tpa: ADDRESS }),
      asks({ tpa: ADDRESS }),
      asks({ oper: 2, tha: PORT_MAC, tpa: ADDRESS }),
    );
    assert.deepEqual(n.collectAll(), {});
    assert.deepEqual(dropped(n), []);
    assert.equal(n.leaked, 0);
  });

  it('has a MAC of its own for the port where the configuration says so', () => {
    const n = node({ mac: '02:00:00:00:00:77' });
    n.send('p3', asks());
    assert.deepEqual(n.collect('p3')[0].slice(6, 12), mac('02:00:00:00:00:77'));
  });

  it('sends and gets IPv4 in frames, by the MAC that its frames have', () => {
    const n = node();
    n.send('p3', frame(icmpEcho({ src: ADDRESS, dst: POD })));
    assert.equal(n.collect('p1').length, 1);
    n.send('p1', icmpEcho({ src: POD, dst: ADDRESS }));
    const [got] = n.collect('p3');
    assert.deepEqual(got.slice(0, 14), Uint8Array.from([...mac(POD_MAC), ...mac(PORT_MAC), 8, 0]));
    assert.equal(got.length, 14 + icmpEcho().length);

    n.send('p3', frame(icmpEcho({ src: ADDRESS, dst: POD }), { src: OTHER_MAC }));
    n.send('p1', icmpEcho({ src: POD, dst: ADDRESS }));
    assert.deepEqual(n.collect('p3')[0].slice(0, 6), mac(OTHER_MAC), 'its MAC has changed');
    assert.equal(n.leaked, 0);
  });

  it('learns no MAC from a frame whose sender it is not', () => {
    const n = node();
    n.send('p3', asks());
    n.collectAll();
    n.send('p3', frame(udp4({ src: '10.9.9.9', dst: POD }), { src: OTHER_MAC }));
    assert.deepEqual(dropped(n), ['1 drop-invalid-source']);
    n.send('p1', icmpEcho({ src: POD, dst: ADDRESS }));
    assert.deepEqual(n.collect('p3')[0].slice(0, 6), mac(POD_MAC));
  });

  it('is sent to everybody until it has said a word', () => {
    const n = node();
    n.send('p1', icmpEcho({ src: POD, dst: ADDRESS }));
    assert.deepEqual(n.collect('p3')[0].slice(0, 6), mac(EVERYBODY));
  });

  it('reaches a pod behind the tunnel and hears from it', () => {
    const n = node();
    n.meetNeighbors();
    n.send('p3', frame(tcp4({ src: ADDRESS, dst: REMOTE })));
    const [outer] = n.collect('ul0');
    assert.equal(outer.length, 14 + 50 + tcp4().length);
  });

  it('gets ICMP errors in frames, about the packet without its frame', () => {
    const n = node();
    n.send('p3', frame(udp4({ src: ADDRESS, dst: '10.77.0.1', ttl: 1 })));
    const [error] = n.collect('p3');
    assert.deepEqual(error.slice(0, 12), Uint8Array.from([...mac(POD_MAC), ...mac(PORT_MAC)]));
    assert.equal(error[14 + 9], 1);
    const quoted = error.slice(14 + 20 + 8, 14 + 20 + 8 + 20);
    assert.deepEqual(quoted.slice(12, 16), Uint8Array.from([10, 244, 1, 20]));
  });

  const REFUSED: [what: string, frame: Uint8Array, reason: string][] = [
    ['13 bytes', frame(udp4()).slice(0, 13), 'drop-malformed-ethernet'],
    ['a frame from a group', frame(udp4({ src: ADDRESS }), { src: '03:00:00:00:00:01' }), 'drop-malformed-ethernet'],
    ['a frame from nobody', frame(udp4({ src: ADDRESS }), { src: '00:00:00:00:00:00' }), 'drop-malformed-ethernet'],
    ['a frame for another MAC', frame(udp4({ src: ADDRESS }), { dst: '02:00:00:00:00:99' }), 'drop-other-mac'],
    ['IPv4 to everybody', frame(udp4({ src: ADDRESS }), { dst: EVERYBODY }), 'drop-multicast'],
    ['IPv6', frame(udp4({ src: ADDRESS }), { type: 0x86dd }), 'drop-not-ipv4'],
    ['a VLAN', frame(udp4({ src: ADDRESS }), { type: 0x8100 }), 'drop-not-ipv4'],
    ['a foreign source', frame(udp4({ src: POD, dst: HOST })), 'drop-invalid-source'],
    ['half an IP header', frame(udp4({ src: ADDRESS })).slice(0, 14 + 12), 'drop-malformed-ipv4'],
    ['ARP in the name of another pod', asks({ spa: POD }), 'drop-invalid-source'],
    ['ARP whose sender is not the frame’s', patch(asks(), 11, 0x66), 'drop-malformed-arp'],
    ['RARP', patch(asks(), 21, 3), 'drop-malformed-arp'],
    ['half an ARP packet', asks().slice(0, 30), 'drop-malformed-arp'],
  ];
  for (const [what, bytes, reason] of REFUSED) {
    it(`refuses ${what}: ${reason}`, () => {
      const n = node();
      n.send('p3', bytes);
      assert.deepEqual(dropped(n), [`1 ${reason}`]);
      assert.deepEqual(n.collect('p1'), []);
      assert.equal(n.leaked, 0);
    });
  }

  it('takes any frame without an exception, and loses no buffer', () => {
    const n = node();
    const head = fc.constantFrom([...mac(PORT_MAC)], [...mac(EVERYBODY)], [2, 0, 0, 0, 0, 9]);
    const type = fc.constantFrom([8, 0], [8, 6], [0x86, 0xdd]);
    const any = fc.tuple(head, type, fc.uint8Array({ maxLength: 80 }), fc.nat(100));
    fc.assert(
      fc.property(any, ([to, kind, rest, length]) => {
        n.send('p3', Uint8Array.from([...to, ...mac(POD_MAC), ...kind, ...rest]).slice(0, length));
        n.collectAll();
        assert.equal(n.leaked, 0);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('a port that is not up', () => {
  const CASES = [
    [CONDITION_DOWN, verdict.DROP_DEVICE_DOWN],
    [CONDITION_GONE, verdict.DROP_PORT_GONE],
  ] as const;
  for (const [condition, reason] of CASES) {
    it(`refuses with ${verdict.VERDICT_NAMES[reason]}, and tells the sender "host unreachable"`, () => {
      const n = node();
      n.meetNeighbors();
      n.port('p3').condition = condition;
      n.send('p1', icmpEcho({ src: POD, dst: ADDRESS }));
      assert.equal(n.counters.dropped(reason), 1);
      const [error, ...more] = n.collect('p1');
      assert.equal(more.length, 0);
      assert.deepEqual([error[20], error[21]], [3, 1]);
      assert.deepEqual(n.collect('p3'), []);

      n.port('p3').condition = CONDITION_UP;
      n.send('p1', icmpEcho({ src: POD, dst: ADDRESS }));
      assert.equal(n.collect('p3').length, 1);

      n.port('ul0').condition = condition;
      n.send('p1', icmpEcho({ src: POD, dst: REMOTE }));
      assert.equal(n.counters.dropped(reason), 2);
      assert.deepEqual(n.collect('ul0'), []);
      assert.equal(n.leaked, 0);
    });
  }

  it('asks the device of one that was down, and only then', () => {
    const n = node();
    n.meetNeighbors();
    let asked = 0;
    let isUp = false;
    Object.assign(n.port('p3').device, {
      isUp: () => {
        asked++;
        return isUp;
      },
    });
    const send = () => {
      n.send('p1', icmpEcho({ src: POD, dst: ADDRESS }));
      return n.collect('p3').length;
    };
    assert.equal(send(), 1);
    assert.equal(asked, 0);
    n.port('p3').condition = CONDITION_DOWN;
    assert.equal(send(), 0);
    isUp = true;
    assert.equal(send(), 1);
    assert.equal(send(), 1);
    assert.equal(asked, 2);
    n.port('p3').condition = CONDITION_GONE;
    assert.equal(send(), 0);
  });

  it('tells whoever is behind the tunnel, too', () => {
    const n = node();
    n.meetNeighbors();
    n.port('p3').condition = CONDITION_GONE;
    n.send('ul0', fromWire(udp4({ src: '192.168.10.7', dst: ADDRESS })));
    assert.equal(n.counters.dropped(verdict.DROP_PORT_GONE), 1);
  });
});

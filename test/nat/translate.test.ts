import assert from 'node:assert/strict';
import { rowOf } from '../../datapath/nat/translation.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Random } from '../../datapath/random.ts';
import { ACK_FLAG, FIN, SYN } from '../../datapath/wire/tcp.ts';
import { bytesOf, dotted, fragment, icmpEcho, icmpError, ip, load, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { slowHeaderOk, slowTransportOk } from '../model/checksum.ts';
import { Box, CLUSTER, OUTSIDE, service } from './box.ts';

const POD = '10.244.1.10';
const BACKEND = '10.244.2.20';
const VIP = '10.96.0.10';
const REMOTE = '203.0.113.9';

interface Ends {
  src: string;
  dst: string;
  sport: number;
  dport: number;
}

function ends(packet: Uint8Array): Ends {
  const view = new DataView(packet.buffer, packet.byteOffset);
  const l4 = (packet[0] & 15) * 4;
  const ports = packet[9] !== 1;
  return {
    src: dotted(view.getInt32(12)),
    dst: dotted(view.getInt32(16)),
    sport: ports ? view.getUint16(l4) : view.getUint16(l4 + 4),
    dport: ports ? view.getUint16(l4 + 2) : view.getUint16(l4 + 4),
  };
}

function reversed(e: Ends): Ends {
  return { src: e.dst, dst: e.src, sport: e.dport, dport: e.sport };
}

/** Sends, expects it to leave, checks its checksums, and tells its ends. */
function passes(box: Box, packet: Uint8Array): Ends {
  const result = box.send(packet);
  assert.equal(result.verdict, 'continue');
  assert.ok(slowHeaderOk(result.out));
  if (packet[9] !== 1) assert.ok(slowTransportOk(result.out));
  return ends(result.out);
}

const syn = (o: Ends, seq = 100) => tcp4({ ...o, flags: SYN, seq, ack: 0 });

describe('translation of flows', () => {
  it('leads a service flow to its backend and the answer back under the service address', () => {
    const box = new Box({}, [service()]);
    const there = { src: POD, dst: VIP, sport: 40000, dport: 80 };
    assert.deepEqual(passes(box, syn(there)), { src: POD, dst: BACKEND, sport: 40000, dport: 8080 });
    const back = { src: BACKEND, dst: POD, sport: 8080, dport: 40000 };
    assert.deepEqual(passes(box, tcp4({ ...back, flags: SYN | ACK_FLAG, seq: 7, ack: 101 })), reversed(there));
    assert.deepEqual(passes(box, tcp4({ ...there, seq: 101, ack: 8 })).dst, BACKEND);
    assert.equal(box.flows.table.used, 1);
  });

  it('masquerades what leaves the cluster, keeps the port if it is free, and brings the answer back', () => {
    const box = new Box();
    const one = { src: POD, dst: REMOTE, sport: 40000, dport: 53 };
    const two = { ...one, src: '10.244.1.11' };
    assert.deepEqual(passes(box, udp4(one)), { ...one, src: OUTSIDE });
    const other = passes(box, udp4(two));
    assert.equal(other.src, OUTSIDE);
    assert.notEqual(other.sport, 40000, 'the port is taken towards this destination');
    for (let host = 10; host < 18; host++) {
      const next = passes(box, udp4({ ...two, dst: `203.0.113.${host}` }));
      assert.equal(next.sport, other.sport, 'what it was given, it has towards others, too');
    }
    assert.deepEqual(passes(box, udp4(reversed({ ...one, src: OUTSIDE }))), reversed(one));
    assert.deepEqual(passes(box, udp4(reversed(other))), reversed(two));
    assert.deepEqual(
      passes(box, udp4({ src: POD, dst: BACKEND, sport: 1, dport: 2 })).src,
      POD,
      'not inside the cluster',
    );
  });

  it('keeps the class of a port that it changes', () => {
    const box = new Box();
    for (const [sport, low, high] of [
      [53, 1, 511],
      [700, 600, 1023],
      [5000, 1024, 65535],
    ]) {
      passes(box, udp4({ src: POD, dst: REMOTE, sport, dport: 53 }));
      const changed = passes(box, udp4({ src: '10.244.1.11', dst: REMOTE, sport, dport: 53 })).sport;
      assert.ok(changed >= low && changed <= high && changed !== sport, `${sport} became ${changed}`);
    }
  });

  it('translates the identifier of pings', () => {
    const box = new Box();
    const ping = (src: string) => icmpEcho({ src, dst: REMOTE, icmpId: 7 });
    assert.equal(passes(box, ping(POD)).sport, 7);
    const id = passes(box, ping('10.244.1.11')).sport;
    assert.notEqual(id, 7);
    const answer = passes(box, icmpEcho({ type: 0, src: REMOTE, dst: OUTSIDE, icmpId: id }));
    assert.deepEqual(answer, { src: REMOTE, dst: '10.244.1.11', sport: 7, dport: 7 });
    assert.equal(
      box.send(icmpEcho({ type: 0, src: REMOTE, dst: OUTSIDE, icmpId: 99 })).verdict,
      'drop-ct-invalid-icmp-reply',
    );
  });

  it('tells pings in both directions with the same identifier apart', () => {
    const box = new Box();
    passes(box, icmpEcho({ src: POD, dst: BACKEND, icmpId: 7 }));
    const result = box.send(icmpEcho({ src: BACKEND, dst: POD, icmpId: 7 }));
    assert.equal(result.isNew, true);
    assert.equal(box.flows.table.used, 2);
  });

  it('masquerades a pod that reaches itself through its service', () => {
    const box = new Box({}, [service({}, [`${POD}:8080`])]);
    const there = passes(box, syn({ src: POD, dst: VIP, sport: 40000, dport: 80 }));
    assert.deepEqual(there, { src: OUTSIDE, dst: POD, sport: 40000, dport: 8080 });
    const back = passes(box, tcp4({ ...reversed(there), flags: SYN | ACK_FLAG, seq: 7, ack: 101 }));
    assert.deepEqual(back, { src: VIP, dst: POD, sport: 80, dport: 40000 });
  });

  it('gives a second flow another port where two services meet at one backend', () => {
    const second = service({ name: 'default/web2', clusterAddresses: [ip('10.96.0.11')] });
    const box = new Box({}, [service(), second]);
    passes(box, syn({ src: POD, dst: VIP, sport: 40000, dport: 80 }));
    const there = { src: POD, dst: '10.96.0.11', sport: 40000, dport: 80 };
    const other = passes(box, syn(there));
    assert.equal(other.src, POD);
    assert.notEqual(other.sport, 40000);
    assert.deepEqual(
      passes(box, tcp4({ ...reversed(other), flags: SYN | ACK_FLAG, seq: 1, ack: 101 })),
      reversed(there),
    );
  });

  it('never lets the middle of a connection pass that comes from a backend', () => {
    const box = new Box({}, [service()]);
    const late = tcp4({ src: BACKEND, dst: POD, sport: 8080, dport: 40000 });
    assert.equal(box.send(late).verdict, 'drop-ct-backend-pickup');
    assert.equal(box.flows.table.used, 0);
  });

  it('leaves nothing behind of a flow that is dropped before it is confirmed', () => {
    const box = new Box({ mappings: { capacity: 16 } });
    const p = load(box.pool, udp4({ src: POD, dst: REMOTE, sport: 5, dport: 6 }));
    p.src = ip(POD);
    p.dst = ip(REMOTE);
    p.protocol = 17;
    p.l4 = p.off + 20;
    p.srcPort = 5;
    p.dstPort = 6;
    box.flows.track(p, 0);
    box.translation.translateSource(p, ip(OUTSIDE), 1, true, 0);
    box.pool.release(p);
    assert.equal(box.translation.mappings?.size, 1);
    passes(box, udp4({ src: POD, dst: BACKEND, sport: 7, dport: 8 }));
    assert.equal(box.translation.mappings?.size, 0);
    assert.equal(box.flows.table.used, 1);
  });

  it('treats every fragment like the first', () => {
    const box = new Box();
    const whole = udp4({ src: POD, dst: REMOTE, sport: 9, dport: 53, payload: pattern(64) });
    const first = box.send(fragment(whole, 0, 32));
    assert.equal(ends(first.out).src, OUTSIDE);
    const { flow, direction } = first;
    const generation = box.flows.generation(flow);
    const later = () => {
      const p = load(box.pool, fragment(whole, 32, 40));
      p.src = ip(POD);
      p.dst = ip(REMOTE);
      p.protocol = 17;
      p.fragment = 4;
      p.l4 = p.off + 20;
      p.flow = flow;
      p.direction = direction;
      p.generation = generation;
      return p;
    };
    const p = later();
    assert.equal(box.flows.trackLaterFragment(p), 0);
    assert.equal(box.translation.follow(p), 0);
    assert.equal(p.newSrc, ip(OUTSIDE));
    assert.equal(box.translation.translate(p), 0);
    assert.equal(ends(bytesOf(box.pool, p)).src, OUTSIDE);
    box.pool.release(p);
    box.flows.table.remove(flow);
    passes(box, udp4({ src: POD, dst: BACKEND, sport: 1, dport: 2 })); // takes the same entry
    const q = later();
    assert.notEqual(box.flows.trackLaterFragment(q), 0);
  });
});

describe('ICMP errors', () => {
  const ROUTER = '10.9.9.9';

  it('reach the client of a service as if the service had been asked', () => {
    const box = new Box({}, [service()]);
    const asked = syn({ src: POD, dst: VIP, sport: 40000, dport: 80 });
    const sent = box.send(asked).out;
    const result = box.send(icmpError(3, 4, sent, { src: ROUTER, dst: POD, mtu: 1400 }));
    assert.equal(result.related, true);
    assert.deepEqual(result.out, icmpError(3, 4, asked, { src: VIP, dst: POD, mtu: 1400 }));
  });

  it('reach a masqueraded pod, whole or quoting 8 bytes', () => {
    const box = new Box();
    const asked = udp4({ src: POD, dst: REMOTE, sport: 40000, dport: 53, payload: pattern(90) });
    const sent = box.send(asked).out;
    for (const n of [28, 40, 118]) {
      const result = box.send(icmpError(3, 3, sent.slice(0, n), { src: REMOTE, dst: OUTSIDE }));
      assert.deepEqual(result.out, icmpError(3, 3, asked.slice(0, n), { src: REMOTE, dst: POD }));
    }
  });

  it('from inside reach the outside under the outside address', () => {
    const box = new Box();
    const asked = udp4({ src: POD, dst: REMOTE, sport: 40000, dport: 53 });
    box.send(asked);
    const answer = udp4({ src: REMOTE, dst: OUTSIDE, sport: 53, dport: 40000, payload: pattern(9) });
    const delivered = box.send(answer).out;
    const result = box.send(icmpError(3, 3, delivered, { src: POD, dst: REMOTE }));
    assert.deepEqual(result.out, icmpError(3, 3, answer, { src: OUTSIDE, dst: REMOTE }));
  });

  it('about pings come through', () => {
    const box = new Box();
    passes(box, icmpEcho({ src: '10.244.1.11', dst: REMOTE, icmpId: 7 }));
    const asked = icmpEcho({ src: POD, dst: REMOTE, icmpId: 7 });
    const sent = box.send(asked).out;
    const result = box.send(icmpError(11, 0, sent, { src: '198.51.100.1', dst: OUTSIDE }));
    assert.deepEqual(result.out, icmpError(11, 0, asked, { src: '198.51.100.1', dst: POD }));
  });

  it('do not keep a flow alive', () => {
    const box = new Box();
    const asked = udp4({ src: POD, dst: REMOTE, sport: 40000, dport: 53 });
    const sent = box.send(asked).out;
    for (let i = 0; i < 3; i++) {
      box.now += 9_000;
      assert.equal(box.send(icmpError(3, 1, sent, { src: REMOTE, dst: OUTSIDE })).verdict, 'continue');
    }
    box.now += 9_000;
    assert.equal(box.send(icmpError(3, 1, sent, { src: REMOTE, dst: OUTSIDE })).verdict, 'drop-ct-icmp-no-flow');
  });

  it('are refused where they are not to be believed', () => {
    const box = new Box();
    const sent = box.send(udp4({ src: POD, dst: REMOTE, sport: 40000, dport: 53 })).out;
    const o = { src: REMOTE, dst: OUTSIDE };
    const verdict = (packet: Uint8Array) => box.send(packet).verdict;
    const stranger = udp4({ src: OUTSIDE, dst: REMOTE, sport: 1, dport: 53 });
    assert.equal(verdict(icmpError(3, 3, stranger, o)), 'drop-ct-icmp-no-flow');
    assert.equal(
      verdict(icmpError(3, 3, sent, { src: REMOTE, dst: POD })),
      'drop-ct-invalid-icmp-quote',
      'wrong addressee',
    );
    assert.equal(verdict(icmpError(3, 3, sent.slice(0, 27), o)), 'drop-ct-invalid-icmp-quote', 'too short');
    assert.equal(
      verdict(icmpError(3, 3, icmpError(3, 3, sent, o), o)),
      'drop-ct-invalid-icmp-quote',
      'error about an error',
    );
    const sixOptions = sent.slice();
    sixOptions[0] = 0x4f;
    assert.equal(verdict(icmpError(3, 3, sixOptions, o)), 'drop-ct-invalid-icmp-quote', 'header longer than the quote');
    const broken = icmpError(3, 3, sent, o);
    broken[22] ^= 1;
    assert.equal(verdict(broken), 'drop-ct-icmp-checksum');
    assert.equal(verdict(icmpEcho({ type: 9, ...o })), 'drop-ct-invalid-icmp-type');
  });
});

describe('source ports', () => {
  it('are all used before the first flow is refused, and come back one by one', () => {
    const box = new Box({ capacity: 70_000 });
    const packet = (i: number) =>
      udp4({ src: dotted(ip('10.0.0.1') + (i >> 4)), dst: REMOTE, sport: 2000 + (i & 15), dport: 53 });
    const ports = new Set<number>();
    for (let i = 0; i < 64512; i++) ports.add(passes(box, packet(i)).sport);
    assert.equal(ports.size, 64512);
    assert.equal(box.send(packet(64512)).verdict, 'drop-nat-ports-exhausted');
    assert.equal(box.translation.ports.exhausted, 1);
    assert.deepEqual(box.translation.ports.usage(), [
      { address: ip(OUTSIDE), dst: ip(REMOTE), dstPort: 53, protocol: 17, used: 64512, of: 64512 },
    ]);
    box.flows.table.remove(1234);
    passes(box, packet(64512));
    assert.equal(box.send(packet(64513)).verdict, 'drop-nat-ports-exhausted');
    // Every port is known to exactly one flow; after all are gone nothing is counted.
    for (let entry = 1; entry <= 64512; entry++) box.flows.table.remove(entry);
    assert.deepEqual(box.translation.ports.usage(), []);
  }).timeout(30_000);

  it('of closed connections are taken again early by a SYN with a higher sequence number', () => {
    const rules = [{ from: [CLUSTER], action: 'MASQUERADE' as const, ports: [5000, 5003] as const }];
    const box = new Box({}, [], rules);
    const flow = (i: number) => ({ src: `10.1.0.${i}`, dst: REMOTE, sport: 40000, dport: 80 });
    for (let i = 0; i < 4; i++) passes(box, syn(flow(i), 1000));
    assert.equal(box.send(syn(flow(9), 2000)).verdict, 'drop-nat-ports-exhausted');
    // The first connection runs its course.
    const sport = box.rows()[0].reply.dport;
    const back = { src: REMOTE, dst: OUTSIDE, sport: 80, dport: sport };
    passes(box, tcp4({ ...back, flags: SYN | ACK_FLAG, seq: 1, ack: 1001 }));
    passes(box, tcp4({ ...flow(0), seq: 1001, ack: 2 }));
    passes(box, tcp4({ ...flow(0), flags: FIN | ACK_FLAG, seq: 1001, ack: 2 }));
    passes(box, tcp4({ ...back, flags: FIN | ACK_FLAG, seq: 2, ack: 1002 }));
    passes(box, tcp4({ ...flow(0), seq: 1002, ack: 3 }));
    assert.equal(box.rows()[0].state, 'TIME_WAIT');
    assert.equal(box.send(syn(flow(9), 900)).verdict, 'drop-nat-ports-exhausted', 'an older sequence number');
    assert.equal(passes(box, syn(flow(9), 2000)).sport, sport);
    assert.equal(box.translation.ports.reused, 1);
  });

  it('that an endpoint was given in place of its own it keeps towards other destinations, unless fully random', () => {
    const used = (randomFully: boolean) => {
      const box = new Box({}, [], [{ from: [CLUSTER], action: 'MASQUERADE', randomFully }]);
      const to = (src: string, n: number) =>
        passes(box, udp4({ src, dst: `198.51.100.${n}`, sport: 5000, dport: 53 })).sport;
      to('10.1.0.1', 1);
      const given = Array.from({ length: 8 }, (_, i) => to('10.1.0.2', i + 1));
      return { given, ofNeighbour: to('10.1.0.3', 1) };
    };
    const { given, ofNeighbour } = used(false);
    assert.notEqual(given[0], 5000, 'its own is taken there');
    assert.equal(new Set(given).size, 1);
    assert.notEqual(ofNeighbour, given[0]);
    assert.ok(new Set(used(true).given).size > 4);
  });

  it('come from the range of the profile', () => {
    const box = new Box({ ports: { profile: 'cilium' } });
    for (let i = 0; i < 50; i++) {
      const { sport } = passes(box, udp4({ src: POD, dst: REMOTE, sport: 1000 + i, dport: 53 }));
      assert.ok(sport >= 32768);
    }
    const kept = new Box({ ports: { profile: 'cilium' } });
    assert.equal(passes(kept, udp4({ src: POD, dst: REMOTE, sport: 40000, dport: 53 })).sport, 40000);
  });

  it('are random with --random-fully, from a seed', () => {
    const rules = [{ from: [CLUSTER], action: 'MASQUERADE' as const, randomFully: true }];
    const run = (seed: number) => {
      const box = new Box({ random: new Random(seed) }, [], rules);
      return Array.from(
        { length: 20 },
        (_, i) => passes(box, udp4({ src: POD, dst: REMOTE, sport: 2000 + i, dport: 53 })).sport,
      );
    };
    assert.deepEqual(run(3), run(3));
    assert.notDeepEqual(run(3), run(4));
    assert.ok(run(3).filter((port, i) => port === 2000 + i).length < 2);
  });

  it('leave the host alone with a range', () => {
    const box = new Box({ ports: { range: [61000, 61003] } });
    for (let i = 0; i < 4; i++) {
      const { sport } = passes(box, udp4({ src: POD, dst: REMOTE, sport: 2000 + i, dport: 53 }));
      assert.ok(sport >= 61000 && sport <= 61003);
    }
    assert.equal(box.send(udp4({ src: POD, dst: REMOTE, sport: 1, dport: 53 })).verdict, 'drop-nat-ports-exhausted');
  });
});

describe('endpoint-independent mapping', () => {
  const from = (o: Partial<Ends>) => udp4({ src: POD, dst: REMOTE, sport: 40000, dport: 53, ...o });

  it('gives one inside endpoint one outside endpoint, and no two the same', () => {
    const box = new Box({ mappings: { capacity: 100 } });
    const first = passes(box, from({}));
    assert.equal(passes(box, from({ dst: '203.0.113.77', dport: 99 })).sport, first.sport);
    const other = passes(box, from({ src: '10.244.1.11', dst: '198.51.100.1' }));
    assert.notEqual(other.sport, first.sport, 'no overloading, not even towards another destination');
    assert.equal(box.translation.mappings?.size, 2);
  });

  it('ends with its last flow', () => {
    const box = new Box({ mappings: { capacity: 100 } });
    passes(box, from({}));
    passes(box, from({ dst: '203.0.113.77' }));
    box.flows.table.remove(1);
    assert.equal(box.translation.mappings?.size, 1);
    box.flows.table.remove(2);
    assert.equal(box.translation.mappings?.size, 0);
  });

  for (const [filtering, stranger, neighbour] of [
    ['endpoint-independent', 'continue', 'continue'],
    ['address-dependent', 'drop-nat-filtered', 'continue'],
    ['address-and-port-dependent', 'drop-nat-filtered', 'drop-nat-filtered'],
  ] as const) {
    it(`filters: ${filtering}`, () => {
      const box = new Box({ mappings: { capacity: 100, filtering } });
      const { sport } = passes(box, from({}));
      const inbound = (src: string) => box.send(udp4({ src, dst: OUTSIDE, sport: 9999, dport: sport }));
      const result = inbound('198.51.100.66');
      assert.equal(result.verdict, stranger);
      if (stranger === 'continue') {
        assert.deepEqual(ends(result.out), { src: '198.51.100.66', dst: POD, sport: 9999, dport: 40000 });
        const answer = passes(box, udp4({ src: POD, dst: '198.51.100.66', sport: 40000, dport: 9999 }));
        assert.deepEqual(answer, { src: OUTSIDE, dst: '198.51.100.66', sport, dport: 9999 });
      }
      assert.equal(inbound(REMOTE).verdict, neighbour);
    });
  }
});

describe('a backend that is gone', () => {
  const two = [`${BACKEND}:8080`, '10.244.2.21:8080'];
  const other = (e: Ends) => (e.dst === BACKEND ? '10.244.2.21' : BACKEND);

  it('loses its UDP flows with their next packet', () => {
    const box = new Box({}, [service({}, two, 17)]);
    const packet = udp4({ src: POD, dst: VIP, sport: 40000, dport: 80 });
    const first = passes(box, packet);
    box.services.set(service({}, [`${other(first)}:8080`], 17));
    assert.equal(passes(box, packet).dst, other(first));
    assert.equal(box.flows.table.used, 1);
  });

  it('loses half-open TCP connections and keeps established ones to the end', () => {
    const box = new Box({}, [service({}, two)]);
    const open = (sport: number) => passes(box, syn({ src: POD, dst: VIP, sport, dport: 80 }));
    const half = open(40000);
    const whole = open(40001);
    passes(box, tcp4({ ...reversed(whole), flags: SYN | ACK_FLAG, seq: 7, ack: 101 }));
    passes(box, tcp4({ src: POD, dst: VIP, sport: 40001, dport: 80, seq: 101, ack: 8 }));
    box.services.set(service({}, ['10.244.2.22:8080']));
    assert.equal(open(40000).dst, '10.244.2.22', `moved from ${half.dst}`);
    assert.equal(passes(box, tcp4({ src: POD, dst: VIP, sport: 40001, dport: 80, seq: 101, ack: 8 })).dst, whole.dst);
    assert.equal(passes(box, tcp4({ ...reversed(whole), seq: 8, ack: 101 })).src, VIP);
  });

  it('moves UDP flows also when it is listed but no longer serves', () => {
    const box = new Box({}, [service({}, two, 17)]);
    const packet = udp4({ src: POD, dst: VIP, sport: 40000, dport: 80 });
    const first = passes(box, packet);
    box.services.set(service({}, [`${first.dst}:8080!~`, `${other(first)}:8080`], 17));
    assert.equal(passes(box, packet).dst, other(first));
    box.services.set(service({}, [`${first.dst}:8080`, `${other(first)}:8080`], 17));
    assert.equal(passes(box, packet).dst, other(first), 'and stays there');
  });

  it('rejects what it had when nobody is left', () => {
    const box = new Box({}, [service({}, two, 17)]);
    const packet = udp4({ src: POD, dst: VIP, sport: 40000, dport: 80 });
    passes(box, packet);
    box.services.set(service({}, [], 17));
    assert.equal(box.send(packet).verdict, 'drop-no-service-endpoint');
    box.services.remove('default/web');
    assert.equal(passes(box, packet).dst, VIP);
  });

  it('has its number used again only when its last flow has ended', () => {
    const box = new Box({}, [service({}, two, 17)]);
    const first = passes(box, udp4({ src: POD, dst: VIP, sport: 1, dport: 80 }));
    const number = box.translation.backend(1);
    box.services.set(service({}, ['10.244.2.30:1', '10.244.2.31:1', '10.244.2.32:1'], 17));
    const numbers = () => [...box.services.rows()].flatMap(row => row.backends.map(b => b.backend));
    assert.ok(!numbers().includes(number));
    assert.equal(box.services.backendRow(number).flows, 1);
    assert.equal(dotted(box.services.backendRow(number).address), first.dst);
    box.flows.table.remove(1);
    box.services.set(service({}, ['10.244.2.30:1', '10.244.2.33:1', '10.244.2.34:1', '10.244.2.35:1'], 17));
    assert.ok(numbers().includes(number));
  });
});

describe('a flow under construction', () => {
  it('is not touched by a packet of our own that begins another, as an answer in the middle of judging does', () => {
    const box = new Box();
    const { flows, translation, pool } = box;
    const p = load(pool, tcp4({ src: POD, dst: REMOTE, sport: 40000, dport: 80 }));
    parseIpv4(pool.view, p);
    assert.equal(flows.track(p, 0), 0);
    assert.equal(translation.translateSource(p, ip(OUTSIDE), 3, true, 0), 0);
    const reset = load(pool, tcp4({ src: REMOTE, dst: '10.244.1.77', sport: 443, dport: 50000 }));
    parseIpv4(pool.view, reset);
    reset.local = 1;
    assert.equal(flows.track(reset, 0), 0);
    assert.equal(reset.isNew, 1);
    assert.equal(translation.translateSource(reset, ip('192.0.2.7'), 4, true, 0), 0);
    assert.equal(translation.confirm(p, 0), 0);
    assert.equal(translation.confirm(reset, 0), 0);
    const [first, second] = [p, reset].map(packet => rowOf(flows, packet.flow, 0));
    assert.deepEqual(first.original, { src: ip(POD), dst: ip(REMOTE), sport: 40000, dport: 80 });
    assert.deepEqual([first.reply.dst, first.rule, first.snat], [ip(OUTSIDE), 3, true]);
    assert.deepEqual(second.original, { src: ip(REMOTE), dst: ip('10.244.1.77'), sport: 443, dport: 50000 });
    assert.deepEqual([second.reply.dst, second.rule], [ip('192.0.2.7'), 4]);
    pool.release(p);
    pool.release(reset);
  });
});

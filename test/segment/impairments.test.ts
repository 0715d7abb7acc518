/** Impairments against their own definition, in virtual time. */
import { strict as assert } from 'node:assert';
import type { Impairments } from '../../datapath/segment/impairments.ts';
import { UNIMPAIRED } from '../../datapath/segment/impairments.ts';
import * as verdict from '../../datapath/verdict.ts';
import { ethernet, icmpEcho, pattern, udp4 } from '../fixtures/packets.ts';
import { slowHeaderOk, slowTransportOk } from '../model/checksum.ts';
import { type End, Rig } from './rig.ts';

const ENDS = { src: '02:00:00:00:00:01', dst: '02:00:00:00:00:02' };
const ID = 14 + 28;

const templates = new Map<number, Uint8Array>();

/** One of many: without a UDP checksum, so that only the id has to be written. */
function frame(id: number, size = 64): Uint8Array {
  let template = templates.get(size);
  if (template === undefined) {
    template = ethernet(udp4({ payload: new Uint8Array(size) }), ENDS);
    new DataView(template.buffer).setUint16(14 + 26, 0);
    templates.set(size, template);
  }
  const bytes = template.slice();
  new DataView(bytes.buffer).setUint32(ID, id);
  return bytes;
}

const idOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(ID);

interface Arrival {
  id: number;
  at: number;
  bytes: Uint8Array;
}

/** Sends `n` frames `every` so many ms over an impaired segment. @returns what arrived, in order, with its time */
function run(
  impairments: Partial<Impairments>,
  n: number,
  o: { every?: number; size?: number; seed?: number; make?: (id: number) => Uint8Array } = {},
): { arrived: Arrival[]; rig: Rig } {
  const rig = new Rig({ seed: o.seed ?? 1, impairments, slots: 4096 });
  const [a, b] = [rig.end('a'), rig.end('b')];
  const arrived: Arrival[] = [];
  const collect = () => {
    for (const bytes of b.receive()) arrived.push({ id: idOf(bytes), at: rig.time[0], bytes });
  };
  for (let id = 0; id < n; id++) {
    assert.ok(a.send(o.make?.(id) ?? frame(id, o.size)));
    collect();
    rig.until(rig.time[0] + (o.every ?? 0), collect);
  }
  rig.until(rig.time[0] + 60_000, collect);
  close(rig, a, b);
  return { arrived, rig };
}

function close(rig: Rig, ...ends: End[]): void {
  for (const end of ends) end.close();
  rig.segment.close();
  rig.assertWhole();
}

/** `seen` of `n` lies where a binomial with `p` lies in all but one of 15,000 cases (4 deviations). */
function assertRate(seen: number, n: number, p: number): void {
  const deviation = Math.sqrt(n * p * (1 - p));
  assert.ok(Math.abs(seen - n * p) <= 4 * deviation, `${seen} of ${n}, expected ${n * p} with deviation ${deviation}`);
}

/** Kolmogorov and Smirnov: the largest distance of the samples' distribution from `cdf`, accepted at 1 of 1000. */
function assertDistributed(samples: number[], cdf: (x: number) => number): void {
  const sorted = [...samples].sort((x, y) => x - y);
  const n = sorted.length;
  let distance = 0;
  for (let i = 0; i < n; i++) {
    const expected = cdf(sorted[i]);
    distance = Math.max(distance, Math.abs((i + 1) / n - expected), Math.abs(i / n - expected));
  }
  assert.ok(distance < 1.95 / Math.sqrt(n), `distance ${distance} of ${n} samples`);
}

function normalCdf(x: number): number {
  // Abramowitz and Stegun 26.2.17, exact to 7.5e-8.
  const t = 1 / (1 + 0.2316419 * Math.abs(x));
  const poly = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  const upper = (Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)) * poly;
  return x >= 0 ? 1 - upper : upper;
}

describe('impairments', () => {
  it('a clear wire takes no time and loses nothing', () => {
    const { arrived } = run({}, 2000);
    assert.deepEqual(
      arrived.map(({ id, at }) => [id, at]),
      Array.from({ length: 2000 }, (_, id) => [id, 0]),
    );
  });

  it('delay: every frame, exactly, in order', () => {
    const { arrived } = run({ delay: 20 }, 500, { every: 1.5 });
    assert.equal(arrived.length, 500);
    for (const [i, { id, at }] of arrived.entries()) {
      assert.equal(id, i);
      assert.ok(Math.abs(at - (1.5 * i + 20)) < 1e-6);
    }
  });

  for (const [distribution, cdf] of [
    ['uniform', (x: number) => Math.max(0, Math.min(1, (x + 1) / 2))],
    ['normal', normalCdf],
    // (u^(-1/3) - 1.5) * 4/3 = x, cut at 4: iproute2's netem/pareto.c.
    ['pareto', (x: number) => (x >= 4 ? 1 : x <= -2 / 3 ? 0 : 1 - (0.75 * x + 1.5) ** -3)],
  ] as const) {
    it(`jitter: delays around the mean are distributed ${distribution}`, () => {
      const { arrived } = run({ delay: 100, jitter: 10, distribution }, 5000, { every: 1 });
      assert.equal(arrived.length, 5000);
      assertDistributed(
        arrived.map(({ id, at }) => (at - id - 100) / 10),
        cdf,
      );
      const reordered = arrived.filter(({ id }, i) => i > 0 && id < arrived[i - 1].id).length;
      assert.ok(reordered > 500, 'as with netem, frames overtake each other');
    });
  }

  it('a delay is never less than none', () => {
    const { arrived } = run({ delay: 1, jitter: 10 }, 1000, { every: 1 });
    for (const { id, at } of arrived) assert.ok(at >= id);
  });

  for (const loss of [0.001, 0.01, 0.25]) {
    it(`loss: ${loss * 100} % of frames, independent of each other`, () => {
      const n = 40_000;
      const { arrived, rig } = run({ loss }, n);
      const lost = n - arrived.length;
      assertRate(lost, n, loss);
      assert.equal(rig.counters.dropped(verdict.DROP_WIRE_LOSS), lost);
      // Losses that follow a loss are as rare as any.
      const gone = gaps(arrived, n);
      assertRate(gone.filter((id, i) => i > 0 && gone[i - 1] === id - 1).length, n, loss * loss);
    });
  }

  it('loss in bursts: rate, length and spread of bursts are those of Gilbert and Elliott', () => {
    const n = 200_000;
    const [p, r] = [0.01, 0.2];
    const { arrived } = run({ loss: { p, r, badLoss: 1, goodLoss: 0 } }, n);
    const gone = gaps(arrived, n);
    const bursts: number[] = [];
    for (const [i, id] of gone.entries()) {
      if (i > 0 && gone[i - 1] === id - 1) bursts[bursts.length - 1]++;
      else bursts.push(1);
    }
    // While bad everything is lost: a burst ends at each packet with probability r, and lasts 1/r packets.
    const mean = gone.length / bursts.length;
    const deviation = Math.sqrt((1 - r) / r ** 2 / bursts.length);
    assert.ok(Math.abs(mean - 1 / r) < 4 * deviation, `bursts of ${mean}`);
    const singles = bursts.filter(length => length === 1).length;
    assertRate(singles, bursts.length, r);
    assert.ok(Math.abs(gone.length / n - p / (p + r)) < 0.1 * (p / (p + r)), `${gone.length} lost`);
  });

  it('loss in bursts: some pass while bad, some are lost while good', () => {
    const n = 100_000;
    const [p, r] = [0.3, 0.3];
    const { arrived } = run({ loss: { p, r, badLoss: 0.6, goodLoss: 0.1 } }, n);
    assert.ok(Math.abs((n - arrived.length) / n - 0.35) < 0.01);
  });

  it('duplicate: so many arrive twice', () => {
    const n = 20_000;
    const { arrived } = run({ duplicate: 0.05 }, n);
    assertRate(arrived.length - n, n, 0.05);
    const counts = new Map<number, number>();
    for (const { id } of arrived) counts.set(id, (counts.get(id) ?? 0) + 1);
    assert.equal(counts.size, n);
    assert.ok([...counts.values()].every(count => count <= 2));
  });

  it('reorder: so many are not delayed, and overtake', () => {
    const n = 10_000;
    const { arrived } = run({ delay: 10, reorder: 0.25 }, n, { every: 1 });
    assert.equal(arrived.length, n);
    const early = arrived.filter(({ id, at }) => Math.abs(at - id) < 1e-6).length;
    assertRate(early, n, 0.25);
    assert.equal(arrived.filter(({ id, at }) => Math.abs(at - id - 10) < 1e-6).length, n - early);
  });

  it('corrupt: so many have one bit turned over, anywhere in the frame', () => {
    const n = 20_000;
    const original = frame(5);
    const { arrived } = run({ corrupt: 0.1 }, n, { make: () => original });
    const wrong = arrived.map(({ bytes }) => bits(bytes, original)).filter(list => list.length > 0);
    assertRate(wrong.length, n, 0.1);
    assert.ok(wrong.every(list => list.length === 1));
    assert.ok(new Set(wrong.flat()).size > 0.8 * 8 * original.length, 'every bit has its turn');
  });

  it('corrupt: a checksum that was still owed is completed before', () => {
    const rig = new Rig({ impairments: { corrupt: 1 } });
    const [a, b] = [rig.end('a'), rig.end('b')];
    const p = rig.pool.take()!;
    rig.pool.release(p);
    const bytes = ethernet(udp4({ payload: pattern(64) }), ENDS);
    const owed = bytes.slice();
    new DataView(owed.buffer).setUint16(14 + 26, pseudo(bytes));
    a.send(owed, { vnetFlags: 1, csumStart: p.off + 34, csumOffset: 6 });
    const [got] = b.read();
    assert.equal(got.vnetFlags, 0);
    assert.equal(bits(b.bytes(got), bytes).length, 1);
  });

  /** Sum of the pseudo header of a UDP packet in a frame. */
  function pseudo(bytes: Uint8Array): number {
    const view = new DataView(bytes.buffer);
    let sum = 17 + view.getUint16(14 + 24);
    for (let at = 14 + 12; at < 14 + 20; at += 2) sum += view.getUint16(at);
    return (sum & 0xffff) + (sum >>> 16);
  }

  for (const rate of [1e6, 10e6, 1e9]) {
    it(`rate: ${rate / 1e6} Mbit/s, within 1 %`, () => {
      const [n, size] = [900, 1000];
      const { arrived } = run({ rate }, n, { size });
      assert.equal(arrived.length, n);
      const bitsSent = 8 * (n - 1) * (size + 42);
      const seen = bitsSent / ((arrived[n - 1].at - arrived[0].at) / 1000);
      assert.ok(Math.abs(seen / rate - 1) < 0.01, `${seen} bit/s`);
      // No piece of it is faster.
      for (let i = 10; i < n; i++) {
        const inTen = (8 * 10 * (size + 42)) / ((arrived[i].at - arrived[i - 10].at) / 1000);
        assert.ok(inTen < 1.01 * rate);
      }
    });
  }

  it('rate with burst: so many bytes at once after a pause, then the rate', () => {
    const { arrived } = run({ rate: 1e6, burst: 10_420 }, 100, { size: 1000 });
    const atOnce = arrived.filter(({ at }) => at === 0).length;
    assert.equal(atOnce, 10);
    assert.ok(Math.abs(arrived[99].at - (90 * 1042 * 8) / 1000) < 0.01);
  });

  it('limit: packets that wait, or bytes that the rate holds back', () => {
    const packets = run({ rate: 1e6, limit: { packets: 30 } }, 100, { size: 1000 });
    assert.equal(packets.arrived.length, 30);
    assert.equal(packets.rig.counters.dropped(verdict.DROP_WIRE_QUEUE_FULL), 70);
    const bytes = run({ rate: 1e6, limit: { bytes: 10 * 1042 } }, 100, { size: 1000 });
    assert.equal(bytes.arrived.length, 10);
    const delayed = run({ delay: 50, limit: { packets: 30 } }, 100, { every: 1 });
    assert.equal(delayed.arrived.length, 60, 'netem counts what is delayed, too');
  });

  it('ECN: from the threshold on those that understand it are marked, and nothing else changes', () => {
    for (const [tos, marked] of [
      [0, false],
      [1, true],
      [2, true],
    ] as const) {
      const { arrived } = run({ rate: 1e6, ceThreshold: 10 * 1042 }, 50, {
        make: () => ethernet(udp4({ payload: pattern(1000), tos }), ENDS),
      });
      assert.equal(arrived.length, 50);
      for (const [i, { bytes }] of arrived.entries()) {
        assert.equal(bytes[15] & 3, marked && i > 10 ? 3 : tos, `frame ${i}`);
        assert.ok(slowHeaderOk(bytes.slice(14)) && slowTransportOk(bytes.slice(14)));
      }
    }
  });

  it('MTU and filtered ICMP, of one direction of one port', () => {
    const rig = new Rig();
    rig.segment.impairPort('b', 'to', { ...UNIMPAIRED, mtu: 1000, icmp: 'filtered' });
    const [a, b] = [rig.end('a'), rig.end('b')];
    a.send(frame(1, 972));
    a.send(frame(2, 973));
    a.send(ethernet(icmpEcho({}), ENDS));
    assert.deepEqual(b.receive().map(idOf), [1]);
    assert.equal(rig.counters.dropped(verdict.DROP_WIRE_MTU), 1);
    assert.equal(rig.counters.dropped(verdict.DROP_WIRE_ICMP_FILTERED), 1);
    b.send(ethernet(udp4({ payload: pattern(1400) }), { src: ENDS.dst, dst: ENDS.src }));
    assert.equal(a.receive().length, 1, 'the other direction is as it was');
  });

  it('source/destination check: a port sends with its own addresses, and gets what is for them', () => {
    const rig = new Rig();
    const [here, there, other] = ['10.0.0.1', '10.0.0.2', '10.0.0.9'];
    const numbers = [0x0a000009, 0x0a000001];
    const [a, b] = [rig.end('a'), rig.end('b')];
    const send = (src: string, dst: string, ends: typeof ENDS) => ethernet(udp4({ src, dst }), ends);
    const seen = (from: string, to: string): [there: number, back: number] => {
      a.send(send(from, to, ENDS));
      b.send(send(to, from, { src: ENDS.dst, dst: ENDS.src }));
      return [b.receive().length, a.receive().length];
    };
    rig.segment.impairPort('a', 'from', { ...UNIMPAIRED, sourceDestCheck: numbers });
    assert.deepEqual(
      [seen(here, there), seen('10.0.0.5', there)],
      [
        [1, 1],
        [0, 1],
      ],
    );
    rig.segment.impairPort('a', 'to', { ...UNIMPAIRED, sourceDestCheck: [0x0a000001] });
    assert.deepEqual(
      [seen(here, there), seen(other, there)],
      [
        [1, 1],
        [1, 0],
      ],
    );
    assert.equal(rig.counters.dropped(verdict.DROP_WIRE_SOURCE_DEST_CHECK), 2);
    b.send(ethernet(udp4({ src: there, dst: '10.0.0.5' }), { src: ENDS.dst, dst: 'ff:ff:ff:ff:ff:ff' }));
    assert.equal(a.receive().length, 1, 'what is for all is for nobody alone');
  });

  it('both directions of a port and the wire add up', () => {
    const rig = new Rig({ impairments: { delay: 10 } });
    rig.segment.impairPort('a', 'from', { ...UNIMPAIRED, delay: 3 });
    rig.segment.impairPort('b', 'to', { ...UNIMPAIRED, delay: 4 });
    const [a, b] = [rig.end('a'), rig.end('b')];
    a.send(frame(1));
    let at = 0;
    rig.until(100, () => {
      if (b.receive().length > 0) at = rig.time[0];
    });
    assert.equal(at, 17);
  });

  it('two runs with one seed lose, copy, spoil and delay alike; another seed does not', () => {
    const how: Partial<Impairments> = {
      loss: 0.05,
      duplicate: 0.05,
      corrupt: 0.05,
      delay: 10,
      jitter: 5,
      reorder: 0.1,
    };
    const once = (seed: number) =>
      run(how, 3000, { every: 1, seed }).arrived.map(({ id, at, bytes }) => [
        id,
        at,
        Buffer.from(bytes).toString('hex'),
      ]);
    const first = once(1);
    assert.deepEqual(once(1), first);
    assert.notDeepEqual(once(2), first);
  });

  it('what is lost does not depend on what else happens', () => {
    const lost = (how: Partial<Impairments>) => gaps(run({ loss: 0.1, ...how }, 2000, { every: 1 }).arrived, 2000);
    const plain = lost({});
    assert.deepEqual(lost({ delay: 5, jitter: 2, rate: 1e9 }), plain);
    assert.deepEqual(lost({ duplicate: 0.2 }).length <= plain.length, true);
  });

  it('a change while it runs: what is on its way arrives when it would have', () => {
    const rig = new Rig({ impairments: { delay: 50 } });
    const [a, b] = [rig.end('a'), rig.end('b')];
    a.send(frame(1));
    rig.until(10);
    rig.segment.impair(UNIMPAIRED);
    a.send(frame(2));
    assert.deepEqual(b.receive().map(idOf), [2]);
    rig.until(49.9);
    assert.deepEqual(b.receive().map(idOf), []);
    rig.until(50);
    assert.deepEqual(b.receive().map(idOf), [1]);
  });

  /** Ids that did not arrive, in order. */
  function gaps(arrived: Arrival[], n: number): number[] {
    const here = new Set(arrived.map(({ id }) => id));
    return Array.from({ length: n }, (_, id) => id).filter(id => !here.has(id));
  }

  /** Positions of the bits in which two frames differ. */
  function bits(a: Uint8Array, b: Uint8Array): number[] {
    const found: number[] = [];
    for (let i = 0; i < a.length; i++) {
      for (let bit = 0; bit < 8; bit++) if (((a[i] ^ b[i]) >> bit) & 1) found.push(8 * i + bit);
    }
    return found;
  }
});

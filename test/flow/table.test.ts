import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  DEADLINE,
  ENTRY_SHIFT,
  FLAG_ASSURED,
  FlowTable,
  type FullPolicy,
  LAST_SEEN,
  META,
  O_DST,
  O_PORTS,
  O_SRC,
  ORIGINAL,
  PAYER_SHIFT,
  R_DST,
  R_PORTS,
  R_SRC,
  REFUSED_CLASH,
  REFUSED_FULL,
  REFUSED_QUOTA,
  REPLY,
} from '../../datapath/flow/table.ts';
import { Random } from '../../datapath/random.ts';

const UDP = 17;

interface Flow {
  src: number;
  dst: number;
  ports: number;
  reply: { src: number; dst: number; ports: number };
}

function plain(src: number, dst: number, sport: number, dport: number): Flow {
  const ports = (sport << 16) | dport;
  return { src, dst, ports, reply: { src: dst, dst: src, ports: (dport << 16) | sport } };
}

function insert(table: FlowTable, flow: Flow, deadline: number, now: number, flags = 0): number {
  const { words } = table;
  words.fill(0, 0, 32);
  words[O_SRC] = flow.src;
  words[O_DST] = flow.dst;
  words[O_PORTS] = flow.ports;
  words[R_SRC] = flow.reply.src;
  words[R_DST] = flow.reply.dst;
  words[R_PORTS] = flow.reply.ports;
  words[META] = UDP | flags;
  words[DEADLINE] = deadline;
  return table.insert(now);
}

function find(table: FlowTable, flow: Flow, now: number): [number, number] {
  return [
    table.find(flow.src, flow.dst, flow.ports, UDP, now),
    table.find(flow.reply.src, flow.reply.dst, flow.reply.ports, UDP, now),
  ];
}

function statsAddUp(table: FlowTable): void {
  const s = table.stats;
  assert.equal(s.created, table.used + s.expired + s.evicted + s.deleted);
}

describe('FlowTable', () => {
  it('finds a flow by either tuple and says which', () => {
    const table = new FlowTable({ capacity: 16, random: new Random(1) });
    const flow = plain(-1, 5, 1000, 53);
    const entry = insert(table, flow, 1000, 0);
    assert.deepEqual(find(table, flow, 1), [(entry << 1) | ORIGINAL, (entry << 1) | REPLY]);
    assert.equal(table.find(flow.src, flow.dst, flow.ports, 6, 1), -1, 'another protocol');
    assert.equal(table.find(flow.src, flow.dst, flow.ports ^ 1, UDP, 1), -1);
    table.remove(entry);
    assert.deepEqual(find(table, flow, 1), [-1, -1]);
    assert.equal(table.used, 0);
    statsAddUp(table);
  });

  it('refuses a flow whose tuple is taken in either direction, and keeps nothing of it', () => {
    const table = new FlowTable({ capacity: 16, random: new Random(1) });
    const first = plain(1, 2, 3, 4);
    insert(table, first, 1000, 0);
    const sameReply = { ...plain(9, 9, 9, 9), reply: first.reply };
    assert.equal(insert(table, sameReply, 1000, 0), REFUSED_CLASH);
    assert.equal(find(table, sameReply, 1)[0], -1);
    assert.equal(insert(table, first, 1000, 0), REFUSED_CLASH);
    const itself = { ...plain(7, 7, 7, 7), reply: { src: 7, dst: 7, ports: (7 << 16) | 7 } };
    assert.equal(insert(table, itself, 1000, 0), REFUSED_CLASH, 'a flow whose reply is its own original');
    assert.equal(find(table, itself, 1)[0], -1);
    assert.equal(table.used, 1);
    assert.equal(table.stats.clash, 3);
    statsAddUp(table);
  });

  it('forgets an expired flow at the deadline, before any sweep, also where the clock wraps', () => {
    for (const start of [0, 0x7fffff00, -100]) {
      const table = new FlowTable({ capacity: 16, random: new Random(1) });
      const flow = plain(1, 2, 3, 4);
      insert(table, flow, (start + 500) | 0, start);
      assert.notEqual(find(table, flow, (start + 499) | 0)[0], -1);
      assert.equal(find(table, flow, (start + 500) | 0)[0], -1);
      assert.equal(table.used, 0);
      assert.equal(table.stats.expired, 1);
      assert.ok(insert(table, flow, (start + 900) | 0, (start + 500) | 0) > 0, 'its tuple is free');
    }
  });

  it('takes the place of an expired flow with the same tuple', () => {
    const table = new FlowTable({ capacity: 16, random: new Random(1) });
    const flow = plain(1, 2, 3, 4);
    insert(table, flow, 10, 0);
    assert.ok(insert(table, flow, 100, 20) > 0);
    statsAddUp(table);
  });

  it('sweeps a bounded stretch per call and the whole table in 5 s', () => {
    const table = new FlowTable({ capacity: 1000, random: new Random(1) });
    for (let i = 0; i < 1000; i++) insert(table, plain(i, 2, 3, 4), 100, 0);
    assert.equal(table.sweep(200, 10), 10);
    assert.equal(table.used, 990);
    table.tick(0);
    let ticks = 0;
    for (let now = 250; now <= 5000; now += 250) {
      const before = table.used;
      table.tick(now);
      assert.ok(before - table.used <= 100);
      ticks++;
    }
    assert.equal(ticks, 20);
    assert.equal(table.used, 0);
    statsAddUp(table);
  });

  it('frees flows that expire all at once a few at a time, and says that there are more', () => {
    const flows = 10_000;
    const table = new FlowTable({ capacity: flows, random: new Random(1) });
    table.tick(0);
    for (let i = 0; i < flows; i++) insert(table, plain(i, 2, 3, 4), 100, 0);
    let calls = 0;
    for (let left = table.tick(5000); left > 0; left = table.tick(5000)) {
      assert.equal(left, table.used);
      calls++;
      assert.equal(table.used, flows - calls * 64);
    }
    assert.equal(calls, Math.floor(flows / 64));
    assert.equal(table.used, 0);
    statsAddUp(table);
  });

  it('touches without changing anything', () => {
    const table = new FlowTable({ capacity: 16, random: new Random(1) });
    const flow = plain(1, 2, 3, 4);
    const entry = insert(table, flow, 1000, 0);
    const before = table.words.slice();
    const other = insert(table, plain(5, 6, 7, 8), 1000, 0);
    before.set(table.words);
    const meta = (e: number) => table.words[(e << ENTRY_SHIFT) + META];
    const tuples = Int32Array.of(flow.src, flow.dst, flow.ports, UDP, 5, 6, plain(5, 6, 7, 8).ports, UDP);
    assert.equal(table.touchAll(tuples, 2), (meta(entry) + meta(other)) | 0);
    // A miss reads scratch space, whatever lies there.
    table.touchAll(Int32Array.of(9, 9, 9, UDP), 1);
    assert.deepEqual(table.words, before);
  });

  it('walks in pieces, also while flows are removed', () => {
    const table = new FlowTable({ capacity: 100, random: new Random(1) });
    for (let i = 0; i < 50; i++) insert(table, plain(i, 2, 3, 4), 100, 0);
    const seen: number[] = [];
    let at = 1;
    while (at !== 0) {
      at = table.walk(at, 7, 0, entry => {
        seen.push(table.words[(entry << ENTRY_SHIFT) + O_SRC]);
        if (seen.length % 3 === 0) table.remove(entry);
      });
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 50 }, (_, i) => i),
    );
    assert.equal(table.used, 34);
  });

  describe('when full', () => {
    const fill = (whenFull: FullPolicy, flags: (i: number) => number) => {
      const table = new FlowTable({ capacity: 64, random: new Random(5), whenFull });
      for (let i = 0; i < 64; i++) {
        const entry = insert(table, plain(i, 2, 3, 4), 100_000, 0, flags(i));
        table.words[(entry << ENTRY_SHIFT) + LAST_SEEN] = i;
      }
      return table;
    };
    const more = plain(1000, 2, 3, 4);

    it('drop-new refuses, and counts', () => {
      const table = fill('drop-new', () => 0);
      assert.equal(insert(table, more, 100_000, 1), REFUSED_FULL);
      assert.equal(table.stats.full, 1);
      assert.equal(table.used, 64);
    });

    it('drop-new still uses the places of expired flows', () => {
      const table = fill('drop-new', () => 0);
      table.words[(30 << ENTRY_SHIFT) + DEADLINE] = 50;
      assert.ok(insert(table, more, 100_000, 60) > 0);
      assert.equal(table.stats.full, 0);
    });

    it('evict-unassured-first evicts what has seen no answer, never an assured flow', () => {
      const table = fill('evict-unassured-first', i => (i === 17 ? 0 : FLAG_ASSURED));
      assert.ok(insert(table, more, 100_000, 1, FLAG_ASSURED) > 0);
      assert.equal(find(table, plain(17, 2, 3, 4), 1)[0], -1);
      assert.equal(table.stats.evicted, 1);
      assert.equal(insert(table, plain(1001, 2, 3, 4), 100_000, 1), REFUSED_FULL);
      statsAddUp(table);
    });

    it('lru evicts an old one, assured or not', () => {
      const table = fill('lru', () => FLAG_ASSURED);
      for (let i = 0; i < 32; i++) assert.ok(insert(table, plain(2000 + i, 2, 3, 4), 100_000, 100) > 0);
      const survivors = Array.from({ length: 64 }, (_, i) => i).filter(i => find(table, plain(i, 2, 3, 4), 1)[0] >= 0);
      assert.equal(survivors.length, 32);
      const meanAge = survivors.reduce((a, b) => a + b, 0) / 32;
      assert.ok(meanAge > 36, `the younger half survives more often: ${meanAge}`);
      statsAddUp(table);
    });
  });

  it('keeps established flows through a flood of 200,000', () => {
    const table = new FlowTable({ capacity: 2000, random: new Random(5) });
    for (let i = 0; i < 1000; i++) insert(table, plain(i, 2, 3, 4), 1e9, 0, FLAG_ASSURED);
    const random = new Random(9);
    for (let i = 0; i < 200_000; i++) insert(table, plain(random.next(), 7, i & 0xffff, 80), 60_000, 1);
    for (let i = 0; i < 1000; i++) assert.ok(find(table, plain(i, 2, 3, 4), 2)[0] >= 0);
    assert.equal(table.used, 2000);
    statsAddUp(table);
  });

  it('limits flows per payer, and gives the place back; without one there is no limit', () => {
    const table = new FlowTable({ capacity: 64, random: new Random(5), perPayer: 3 });
    const on = (payer: number) => payer << PAYER_SHIFT;
    const entries = [1, 2, 3].map(port => insert(table, plain(port, 2, port, 4), 100, 0, on(7)));
    assert.equal(insert(table, plain(8, 2, 9, 4), 100, 0, on(7)), REFUSED_QUOTA);
    assert.ok(insert(table, plain(9, 2, 9, 4), 100, 0, on(511)) > 0, 'another payer');
    for (let port = 20; port < 30; port++) assert.ok(insert(table, plain(10, 2, port, 4), 100, 0) > 0);
    table.remove(entries[1]);
    assert.ok(insert(table, plain(8, 2, 9, 4), 100, 0, on(7)) > 0);
    assert.equal(insert(table, plain(8, 2, 10, 4), 100, 0, on(7)), REFUSED_QUOTA);
    assert.equal(table.stats.quota, 2);
    statsAddUp(table);
  });

  it('is refused outside its sizes', () => {
    for (const capacity of [15, 0, -1, Number.NaN, (1 << 22) + 1]) {
      assert.throws(() => new FlowTable({ capacity, random: new Random(1) }), RangeError);
    }
  });

  it('agrees with a Map after any sequence of insertions, removals and time', () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('insert' as const),
        a: fc.nat(7),
        b: fc.nat(3),
        c: fc.nat(7),
        life: fc.integer({ min: 1, max: 50 }),
      }),
      fc.record({ kind: fc.constant('remove' as const), a: fc.nat(7), b: fc.nat(3) }),
      fc.record({ kind: fc.constant('pass' as const), ms: fc.nat(20) }),
      fc.record({ kind: fc.constant('sweep' as const), n: fc.nat(20) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), fc.integer(), (steps, seed) => {
        const table = new FlowTable({ capacity: 16, random: new Random(seed), whenFull: 'drop-new' });
        const model = new Map<string, { flow: Flow; deadline: number }>();
        const key = (t: { src: number; dst: number; ports: number }) => `${t.src},${t.dst},${t.ports}`;
        let now = 0;
        const forget = () => {
          for (const [k, v] of model) if (v.deadline <= now) model.delete(k);
        };
        for (const s of steps) {
          if (s.kind === 'pass') now += s.ms;
          forget();
          if (s.kind === 'insert') {
            // Reply tuples from a small space, so that they meet each other and original tuples.
            const flow: Flow = { ...plain(s.a, s.b, 1, 1), reply: { src: s.b, dst: s.c, ports: 0x10001 } };
            const taken = [...model.values()].some(({ flow: f }) =>
              [key(f), key(f.reply)].some(k => k === key(flow) || k === key(flow.reply)),
            );
            const result = insert(table, flow, now + s.life, now);
            const self = key(flow) === key(flow.reply);
            if (taken || self) assert.ok(result === REFUSED_CLASH || result === REFUSED_FULL);
            else if (model.size === 16) assert.equal(result, REFUSED_FULL);
            else assert.ok(result > 0);
            if (result > 0) model.set(key(flow), { flow, deadline: now + s.life });
          } else if (s.kind === 'remove') {
            const ref = table.find(s.a, s.b, 0x10001, UDP, now);
            if (ref >= 0) {
              const words = table.words;
              const base = (ref >>> 1) << ENTRY_SHIFT;
              model.delete(key({ src: words[base], dst: words[base + 1], ports: words[base + 2] }));
              table.remove(ref >>> 1);
            }
          } else if (s.kind === 'sweep') table.sweep(now, s.n);
          for (const { flow } of model.values()) {
            const [a, b] = find(table, flow, now);
            assert.ok(a >= 0 && b === (a | 1));
          }
          statsAddUp(table);
        }
        table.sweep(now, 100);
        assert.equal(table.used, model.size);
      }),
      { numRuns: 300 },
    );
  });
});

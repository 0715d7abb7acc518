import assert from 'node:assert/strict';
import fc from 'fast-check';
import { CountTable } from '../../datapath/memory/count-table.ts';
import { hash3 } from '../../datapath/memory/hash.ts';
import { Random } from '../../datapath/random.ts';

/** The slow twin: keys as text. */
type Model = Map<string, { value: number; extra: number }>;

const nameOf = (a: number, b: number, c: number) => `${a} ${b} ${c}`;

/** Every key of the table by its walk, each once. */
function contents(table: CountTable): Model {
  const found: Model = new Map();
  for (let i = 0; i < table.slotCount; i++) {
    const at = table.slotAt(i);
    if (at < 0) continue;
    const name = nameOf(table.key(at, 0), table.key(at, 1), table.key(at, 2));
    assert.ok(!found.has(name), `${name} twice`);
    assert.equal(table.find(table.key(at, 0), table.key(at, 1), table.key(at, 2)), at);
    found.set(name, { value: table.value(at), extra: table.extra(at) });
  }
  return found;
}

const sorted = (model: Model) => [...model].sort(([a], [b]) => (a < b ? -1 : 1));

/** Makes and removes `steps` random keys out of `keys`, some of them again and again. */
function churn(table: CountTable, model: Model, random: Random, keys: number, steps: number): void {
  for (let n = 0; n < steps; n++) {
    const k = random.below(keys);
    const key = [k, Math.imul(k, 0x9e3779b1), k & 3] as const;
    const name = nameOf(...key);
    switch (random.below(4)) {
      case 0:
        assert.equal(table.remove(...key), model.delete(name));
        break;
      case 1: {
        const value = (model.get(name)?.value ?? 0) + 1;
        assert.equal(table.add(...key, 1), value);
        model.set(name, { value, extra: model.get(name)?.extra ?? 0 });
        break;
      }
      case 2: {
        const at = table.make(...key);
        assert.ok(at >= 0);
        table.setExtra(at, n);
        model.set(name, { value: model.get(name)?.value ?? 0, extra: n });
        break;
      }
      default:
        assert.equal(table.get(...key), model.get(name)?.value ?? 0);
        assert.equal(table.find(...key) >= 0, model.has(name));
    }
  }
}

describe('CountTable', () => {
  it('agrees with a Map, growing and shrinking', () => {
    const step = fc.tuple(fc.nat(40), fc.integer({ min: -2, max: 3 }));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), fc.integer(), (steps, seed) => {
        const table = new CountTable(4, new Random(seed));
        const model = new Map<number, number>();
        for (const [key, change] of steps) {
          if (change === 0) {
            assert.equal(table.remove(key, -key, 7), model.delete(key));
            continue;
          }
          const value = (model.get(key) ?? 0) + change;
          if (value === 0) model.delete(key);
          else model.set(key, value);
          assert.equal(table.add(key, -key, 7, change), value);
        }
        assert.equal(table.size, model.size);
        for (let key = 0; key <= 40; key++) assert.equal(table.get(key, -key, 7), model.get(key) ?? 0);
      }),
      { numRuns: 200 },
    );
  });

  for (const expected of [1, 100, 20_000]) {
    it(`agrees with a Map through hundreds of splits, made for ${expected} keys`, () => {
      const table = new CountTable(expected, new Random(expected));
      const model: Model = new Map();
      const random = new Random(11);
      for (let round = 0; round < 5; round++) {
        churn(table, model, random, 20_000, 40_000);
        assert.equal(table.size, model.size);
        assert.deepEqual(sorted(contents(table)), sorted(model));
      }
    });
  }

  it('a walk that removes what it meets leaves nothing', () => {
    const table = new CountTable(10_000, new Random(3));
    for (let i = 0; i < 10_000; i++) table.set(i, i, i, 1);
    let removed = 0;
    for (let i = 0; i < table.slotCount; ) {
      const at = table.slotAt(i);
      if (at < 0) i++;
      else {
        table.removeAt(at);
        removed++;
      }
    }
    assert.deepEqual([removed, table.size], [10_000, 0]);
    for (let i = 0; i < 10_000; i++) assert.equal(table.find(i, i, i), -1);
  });

  it('takes all the keys that it was made for without a copy, and little more memory than they need', () => {
    for (const keys of [200, 5000, 300_000]) {
      const table = new CountTable(keys, new Random(keys + 1), keys);
      const room = table as unknown as { slots: Int32Array };
      const before = room.slots;
      for (let i = 0; i < keys; i++) assert.ok(table.set(i, 0, 0, i), `${i} of ${keys}`);
      assert.equal(room.slots, before);
      assert.ok(table.bytes < Math.max(keys, 200) * 80, `${table.bytes / keys} bytes a key`);
      assert.equal(table.set(keys, 0, 0, 1), false, 'the limit');
    }
  });

  it('refuses keys beyond its limit', () => {
    const table = new CountTable(4, new Random(1), 2);
    assert.ok(table.set(1, 0, 0, 5));
    assert.ok(table.set(2, 0, 0, 5));
    assert.equal(table.set(3, 0, 0, 5), false);
    assert.equal(table.add(3, 0, 0, 1), -1);
    assert.equal(table.get(3, 0, 0), 0);
    assert.ok(table.set(2, 0, 0, 6), 'a key that is there');
    table.remove(1, 0, 0);
    assert.ok(table.set(3, 0, 0, 5));
  });

  it('refuses a key, and never searches for long, where somebody has found many keys of like hashes', () => {
    const secrets = new Random(5);
    const [k0, k1, k2] = [secrets.next(), secrets.next(), secrets.next()];
    const table = new CountTable(1000, new Random(5), 1000);
    let taken = 0;
    let refused = 0;
    for (let i = 0; refused < 10; i++) {
      if (hash3(i, 0, 0, k0, k1, k2) >>> 25 !== 0x55) continue;
      if (table.set(i, 0, 0, 1)) taken++;
      else refused++;
    }
    assert.equal(taken, 240);
    assert.equal(table.size, 240);
    // Others are as welcome as before.
    for (let i = 0, more = 0; more < 500; i++) {
      if (hash3(i, 1, 0, k0, k1, k2) >>> 25 === 0x55) continue;
      assert.ok(table.set(i, 1, 0, 1));
      more++;
    }
  });
});

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { internetTable, maskOf, randomLength, type Table } from '../../bench/prefixes.ts';
import { Random } from '../../datapath/random.ts';
import { Lpm, MAX_VALUE, type Route } from '../../datapath/route/lpm.ts';
import { SlowLpm } from '../model/lpm.ts';

/** An address or the prefix part of one, as int32. */
function ip(text: string): number {
  return text.split('.').reduce((address, byte) => (address << 8) | Number(byte), 0);
}

/** 'address/length value' lines as routes. */
function routes(...lines: string[]): Route[] {
  return lines.map(line => {
    const [prefix, length, value] = line.split(/[/ ]/);
    return { prefix: ip(prefix), length: Number(length), value: Number(value) };
  });
}

function tableOf(list: Route[]): Table {
  return {
    prefixes: Int32Array.from(list, route => route.prefix),
    lengths: Uint8Array.from(list, route => route.length),
    values: Int32Array.from(list, route => route.value),
  };
}

function filled(list: Route[]): Lpm {
  const lpm = new Lpm();
  for (const { prefix, length, value } of list) lpm.insert(prefix, length, value);
  return lpm;
}

/** The first and last address of a prefix, and the ones just outside. */
function edges(prefix: number, length: number): number[] {
  const last = prefix | ~maskOf(length);
  return [prefix, last, (prefix - 1) | 0, (last + 1) | 0];
}

function assertSame(lpm: Lpm, twin: SlowLpm, addresses: Iterable<number>): void {
  for (const address of addresses) {
    const expected = twin.match(address);
    assert.equal(lpm.lookup(address), expected?.value ?? 0, `lookup of 0x${(address >>> 0).toString(16)}`);
    assert.deepEqual(lpm.match(address), expected);
  }
}

describe('Lpm', () => {
  const NESTED = routes(
    '0.0.0.0/0 1',
    '10.0.0.0/8 2',
    '10.1.0.0/16 3',
    '10.1.2.0/23 4',
    '10.1.2.0/24 5',
    '10.1.2.128/25 6',
    '10.1.2.200/32 7',
  );

  describe('longest match', () => {
    const rows: [address: string, value: number][] = [
      ['10.1.2.200', 7],
      ['10.1.2.199', 6],
      ['10.1.2.201', 6],
      ['10.1.2.127', 5],
      ['10.1.3.0', 4],
      ['10.1.4.0', 3],
      ['10.1.1.255', 3],
      ['10.2.0.0', 2],
      ['10.0.255.255', 2],
      ['9.255.255.255', 1],
      ['11.0.0.0', 1],
      ['0.0.0.0', 1],
      ['255.255.255.255', 1],
    ];
    for (const [address, value] of rows) {
      it(`${address} has ${value}, in whatever order the routes came`, () => {
        assert.equal(filled(NESTED).lookup(ip(address)), value);
        assert.equal(filled([...NESTED].reverse()).lookup(ip(address)), value);
      });
    }
  });

  it('takes hardly any memory for a few routes', () => {
    assert.ok(filled(NESTED).memoryBytes < 3e6);
  });

  it('has no route in an empty table', () => {
    const lpm = new Lpm();
    for (const address of [0, 1, -1, 0x7fffffff, -0x80000000]) {
      assert.equal(lpm.lookup(address), 0);
      assert.equal(lpm.match(address), null);
    }
    assert.deepEqual(lpm.entries(), []);
    assert.equal(lpm.delete(0, 0), false);
    assert.equal(lpm.size, 0);
  });

  it('tells both ends of the address space and of int32 apart', () => {
    const lpm = filled(
      routes(
        '0.0.0.0/32 1',
        '255.255.255.255/32 2',
        '127.255.255.255/32 3',
        '128.0.0.0/32 4',
        '0.0.0.0/1 5',
        '128.0.0.0/1 6',
      ),
    );
    const found = ['0.0.0.0', '0.0.0.1', '127.255.255.254', '127.255.255.255', '128.0.0.0', '128.0.0.1'];
    assert.deepEqual(
      [...found, '255.255.255.254', '255.255.255.255'].map(address => lpm.lookup(ip(address))),
      [1, 5, 5, 3, 4, 6, 6, 2],
    );
  });

  it('gives a deleted prefix to the one that covers it, from the inside out and from the outside in', () => {
    for (const order of [NESTED, [...NESTED].reverse()]) {
      const lpm = filled(NESTED);
      const twin = new SlowLpm();
      for (const { prefix, length, value } of NESTED) twin.insert(prefix, length, value);
      for (const { prefix, length } of order) {
        assert.equal(lpm.delete(prefix, length), true);
        assert.equal(lpm.delete(prefix, length), false);
        twin.delete(prefix, length);
        for (const route of NESTED) assertSame(lpm, twin, edges(route.prefix, route.length));
      }
      assert.equal(lpm.size, 0);
    }
  });

  it('replaces the value of a prefix it has', () => {
    const lpm = filled(NESTED);
    for (const { prefix, length } of NESTED) lpm.insert(prefix, length, 100 + length);
    assert.equal(lpm.size, NESTED.length);
    for (const { prefix, length } of NESTED) assert.equal(lpm.get(prefix, length), 100 + length);
    assert.equal(lpm.lookup(ip('10.1.2.200')), 132);
    assert.equal(lpm.lookup(ip('10.1.3.1')), 123);
  });

  it('holds every length alone, with the largest value', () => {
    const lpm = new Lpm();
    for (let length = 0; length <= 32; length++) {
      for (const address of [0, -1, ip('127.255.255.255'), ip('128.0.0.1'), ip('10.20.30.40')]) {
        const prefix = address & maskOf(length);
        const twin = new SlowLpm();
        lpm.insert(prefix, length, MAX_VALUE);
        twin.insert(prefix, length, MAX_VALUE);
        assertSame(lpm, twin, edges(prefix, length));
        assert.equal(lpm.get(prefix, length), MAX_VALUE);
        assert.equal(lpm.delete(prefix, length), true);
        for (const edge of edges(prefix, length)) assert.equal(lpm.lookup(edge), 0);
      }
    }
  });

  it('holds a /16 full of host routes and gives all of their memory back for reuse', () => {
    const lpm = new Lpm();
    const fill = () => {
      for (let i = 0; i < 65536; i += 3) lpm.insert(ip('10.9.0.0') | i, 32, 1 + i);
    };
    fill();
    const bytes = lpm.memoryBytes;
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 65536; i++) assert.equal(lpm.lookup(ip('10.9.0.0') | i), i % 3 === 0 ? 1 + i : 0);
      for (let i = 0; i < 65536; i += 3) assert.equal(lpm.delete(ip('10.9.0.0') | i, 32), true);
      assert.equal(lpm.size, 0);
      fill();
    }
    assert.equal(lpm.memoryBytes, bytes);
  });

  describe('bad input', () => {
    const rows: [what: string, prefix: number, length: number, value: number, message: RegExp][] = [
      ['host bits', ip('10.0.0.1'), 8, 1, /^10\.0\.0\.1\/8: host bits/],
      ['host bits of a /0', -0x80000000, 0, 1, /^128\.0\.0\.0\/0: host bits/],
      ['the last host bit', ip('10.0.0.1'), 31, 1, /^10\.0\.0\.1\/31: host bits/],
      ['a length over 32', ip('10.0.0.0'), 33, 1, /^10\.0\.0\.0\/33: length/],
      ['a length below 0', ip('10.0.0.0'), -1, 1, /length/],
      ['a broken length', ip('10.0.0.0'), 8.5, 1, /length/],
      ['a prefix that is no int32', 0xc0000000, 8, 1, /3221225472\/8/],
      ['value 0', ip('192.0.2.0'), 24, 0, /^192\.0\.2\.0\/24: value 0/],
      ['a value that is too large', ip('192.0.2.0'), 24, MAX_VALUE + 1, /^192\.0\.2\.0\/24: value 16777216/],
      ['a broken value', ip('192.0.2.0'), 24, 1.5, /value/],
      ['a value that is no number', ip('192.0.2.0'), 24, Number.NaN, /value/],
    ];
    for (const [what, prefix, length, value, message] of rows) {
      it(`refuses ${what} and changes nothing`, () => {
        const lpm = filled(NESTED);
        assert.throws(() => lpm.insert(prefix, length, value), { name: 'RangeError', message });
        assert.deepEqual(lpm.entries(), NESTED);
        if (/value/.test(message.source)) return;
        assert.throws(() => lpm.delete(prefix, length), { name: 'RangeError', message });
        assert.throws(() => lpm.get(prefix, length), { name: 'RangeError', message });
      });
    }

    it('in the middle of replaceAll leaves the old table whole', () => {
      const lpm = filled(NESTED);
      const bad = internetTable(new Random(5), 1000, 9);
      bad.prefixes[500] |= 1;
      bad.lengths[500] = 24;
      assert.throws(() => lpm.replaceAll(bad.prefixes, bad.lengths, bad.values), /^RangeError: [\d.]+\/24: host bits/);
      assert.throws(() => lpm.replaceAll(bad.prefixes, new Uint8Array(999), bad.values), RangeError);
      assert.throws(() => lpm.replaceAll(bad.prefixes, bad.lengths, new Int32Array(1001)), RangeError);
      assert.deepEqual(lpm.entries(), NESTED);
      assert.equal(lpm.lookup(ip('10.1.2.200')), 7);
      assert.equal(lpm.lookup(bad.prefixes[0]), filled(NESTED).lookup(bad.prefixes[0]));
    });
  });

  it('agrees with its twin on random tables of the shape of the Internet', () => {
    for (let seed = 1; seed <= 4; seed++) {
      const random = new Random(seed);
      const table = internetTable(random, 1500, 4);
      const lpm = new Lpm();
      const twin = new SlowLpm();
      for (let i = 0; i < table.prefixes.length; i++) {
        lpm.insert(table.prefixes[i], table.lengths[i], table.values[i]);
        twin.insert(table.prefixes[i], table.lengths[i], table.values[i]);
      }
      assert.equal(lpm.size, 1500);
      assert.deepEqual(lpm.entries(), twin.entries());
      for (let i = 0; i < 1500; i++) assertSame(lpm, twin, edges(table.prefixes[i], table.lengths[i]));
      for (let i = 0; i < 2000; i++) assertSame(lpm, twin, [random.next()]);
    }
  });

  it('agrees with its twin through 24,000 edits of overlapping prefixes', () => {
    const random = new Random(0x5eed);
    const lpm = new Lpm();
    const twin = new SlowLpm();
    // Few places, all lengths: most prefixes nest, and many edits hit one that is there.
    const places = Array.from({ length: 12 }, () => random.next());
    const touched: Route[] = [];
    for (let n = 0; n < 24_000; n++) {
      const growing = n % 6000 < 3000;
      const place = places[random.below(places.length)] ^ (random.next() & random.next() & random.next() & 0x1ffff);
      const length = random.below(4) === 0 ? random.below(33) : randomLength(random) + random.below(9) - (n & 1);
      let route = { prefix: place & maskOf(Math.min(length, 32)), length: Math.min(length, 32), value: 0 };
      if (!growing && random.below(8) > 0 && touched.length > 0) {
        route = touched.splice(random.below(touched.length), 1)[0];
      }
      if (growing ? random.below(5) > 0 : random.below(16) === 0) {
        route.value = 1 + random.below(5);
        lpm.insert(route.prefix, route.length, route.value);
        twin.insert(route.prefix, route.length, route.value);
        touched.push(route);
      } else {
        assert.equal(lpm.delete(route.prefix, route.length), twin.delete(route.prefix, route.length));
      }
      assert.equal(lpm.get(route.prefix, route.length), twin.get(route.prefix, route.length));
      for (const address of edges(route.prefix, route.length)) {
        assert.equal(lpm.lookup(address), twin.lookup(address), `edit ${n}`);
      }
      if (n % 1000 === 999) {
        assert.deepEqual(lpm.entries(), twin.entries());
        assert.equal(lpm.size, twin.routes.length);
        for (const other of twin.routes) assertSame(lpm, twin, edges(other.prefix, other.length).slice(0, 2));
      }
    }
  });

  describe('replaceAll', () => {
    it('makes what inserting one by one makes, and can be edited afterwards', () => {
      const random = new Random(77);
      const table = internetTable(random, 20_000, 50);
      const bulk = filled(NESTED);
      bulk.replaceAll(table.prefixes, table.lengths, table.values);
      const single = new Lpm();
      for (let i = 0; i < 20_000; i++) single.insert(table.prefixes[i], table.lengths[i], table.values[i]);
      const assertEqual = () => {
        assert.equal(bulk.size, single.size);
        assert.deepEqual(bulk.entries(), single.entries());
        for (let i = 0; i < 20_000; i++) {
          for (const address of edges(table.prefixes[i], table.lengths[i])) {
            assert.equal(bulk.lookup(address), single.lookup(address));
          }
        }
      };
      assertEqual();
      for (let i = 0; i < 20_000; i += 2) {
        assert.equal(bulk.delete(table.prefixes[i], table.lengths[i]), true);
        single.delete(table.prefixes[i], table.lengths[i]);
      }
      assertEqual();
    });

    it('leaves nothing of what the old table had in use or had given back', () => {
      const lpm = new Lpm();
      const hosts = (first: string, count: number) =>
        Array.from({ length: count }, (_, i) => ({ prefix: ip(first) + i * 256, length: 32, value: 1 + i }));
      for (const { prefix, length, value } of hosts('10.0.0.1', 200)) lpm.insert(prefix, length, value);
      for (const { prefix, length } of hosts('10.0.0.1', 150)) lpm.delete(prefix, length);
      const { prefixes, lengths, values } = tableOf(hosts('10.1.0.1', 250));
      lpm.replaceAll(prefixes, lengths, values);
      for (const { prefix, length, value } of hosts('10.2.0.1', 100)) lpm.insert(prefix, length, value);
      const expected = [...hosts('10.1.0.1', 250), ...hosts('10.2.0.1', 100)];
      assert.deepEqual(lpm.entries(), expected);
      for (const { prefix, value } of expected) assert.equal(lpm.lookup(prefix), value);
      assert.equal(lpm.lookup(ip('10.0.199.1')), 0);
    });

    it('lets the last of equal prefixes count, at every stride', () => {
      const list = routes(
        '0.0.0.0/0 1',
        '10.0.0.0/8 2',
        '10.1.2.0/24 3',
        '10.1.2.3/32 4',
        '0.0.0.0/0 5',
        '10.0.0.0/8 6',
        '10.1.2.0/24 7',
        '10.1.2.3/32 8',
      );
      const lpm = new Lpm();
      const { prefixes, lengths, values } = tableOf(list);
      lpm.replaceAll(prefixes, lengths, values);
      assert.deepEqual(lpm.entries(), list.slice(4));
      assert.equal(lpm.size, 4);
      assert.deepEqual(
        ['10.1.2.3', '10.1.2.4', '10.2.0.0', '11.0.0.0'].map(address => lpm.lookup(ip(address))),
        [8, 7, 6, 5],
      );
    });

    it('empties the table', () => {
      const lpm = filled(NESTED);
      lpm.replaceAll(new Int32Array(0), new Uint8Array(0), new Int32Array(0));
      assert.equal(lpm.size, 0);
      assert.deepEqual(lpm.entries(), []);
      assert.equal(lpm.lookup(ip('10.1.2.200')), 0);
    });
  });

  it('agrees with its twin on whatever fast-check thinks of', () => {
    // Two bytes of few values, so that prefixes meet.
    const byte = fc.constantFrom(0, 1, 2, 127, 128, 129, 254, 255);
    const address = fc.tuple(byte, byte, byte, byte).map(([a, b, c, d]) => (a << 24) | (b << 16) | (c << 8) | d);
    const edit = fc.record({
      address,
      // Few short ones: each writes to megabytes.
      length: fc.oneof(
        { weight: 1, arbitrary: fc.integer({ min: 0, max: 7 }) },
        { weight: 60, arbitrary: fc.integer({ min: 8, max: 32 }) },
      ),
      value: fc.constantFrom(0, 1, 2, 3, MAX_VALUE),
    });
    fc.assert(
      fc.property(fc.array(edit, { maxLength: 60 }), fc.array(address, { maxLength: 20 }), (edits, addresses) => {
        const lpm = new Lpm();
        const twin = new SlowLpm();
        for (const { address, length, value } of edits) {
          const prefix = address & maskOf(length);
          if (value === 0) {
            assert.equal(lpm.delete(prefix, length), twin.delete(prefix, length));
          } else {
            lpm.insert(prefix, length, value);
            twin.insert(prefix, length, value);
          }
        }
        const probes = edits.flatMap(({ address, length }) => edges(address & maskOf(length), length));
        assertSame(lpm, twin, [...probes, ...addresses]);
        assert.deepEqual(lpm.entries(), twin.entries());
        const bulk = new Lpm();
        const { prefixes, lengths, values } = tableOf(twin.routes);
        bulk.replaceAll(prefixes, lengths, values);
        assertSame(bulk, twin, [...probes, ...addresses]);
      }),
      { numRuns: 40, seed: 42 },
    );
  });
});

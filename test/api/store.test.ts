import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import type { KubeObject } from '../../datapath/api/object.ts';
import type { IndexOf } from '../../datapath/api/store/index.ts';
import { Journal } from '../../datapath/api/store/journal.ts';
import { Store, type StoreEvent, WriteConflict } from '../../datapath/api/store/store.ts';

const WRITER = fileURLToPath(new URL('./journal-writer.js', import.meta.url));

function configMap(name: string, value: string): KubeObject {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: 'default' }, data: { value } };
}

describe('the store', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-store-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const open = (limits = {}) => Store.open(new Journal(directory), limits);

  it('writes only over what the writer has seen', async () => {
    const store = await open();
    const made = await store.put('configmaps', 'default/a', configMap('a', '1'), 0);
    assert.equal(made.metadata.resourceVersion, '1');
    await assert.rejects(store.put('configmaps', 'default/a', configMap('a', '2'), 0), WriteConflict);
    const changed = await store.put('configmaps', 'default/a', configMap('a', '2'), 1);
    assert.equal(changed.metadata.resourceVersion, '2');
    await assert.rejects(store.put('configmaps', 'default/a', configMap('a', '3'), 1), WriteConflict);
    await assert.rejects(store.remove('configmaps', 'default/a', 1), WriteConflict);
    await assert.rejects(store.remove('configmaps', 'default/b', 0), WriteConflict);
    assert.equal((await store.remove('configmaps', 'default/a', 2)).metadata.resourceVersion, '3');
    assert.deepEqual(store.list('configmaps'), []);
    await store.close();
  });

  it('is what it was when it is opened again, history as well', async () => {
    const first = await open();
    for (let n = 0; n < 20; n++) await first.put('configmaps', `default/${n}`, configMap(`${n}`, 'x'), 0);
    await first.remove('configmaps', 'default/3', 4);
    const listed = first.list('configmaps');
    await first.close();
    assert.equal(statSync(join(directory, 'journal')).mode & 0o777, 0o600);
    const second = await open();
    assert.deepEqual(second.list('configmaps'), listed);
    assert.equal(second.revision, 21);
    assert.deepEqual(
      second.since(19).map(({ type, revision }) => [type, revision]),
      [
        ['ADDED', 20],
        ['DELETED', 21],
      ],
    );
    await second.close();
  });

  it('forgets old changes, and says so', async () => {
    const store = await open({ history: 8 });
    for (let n = 0; n < 100; n++) await store.put('configmaps', `default/${n}`, configMap(`${n}`, 'x'), 0);
    assert.equal(store.since(92).length, 8);
    assert.throws(() => store.since(50), { message: /^too old resource version: 50/ });
    await store.close();
  });

  it('refuses what is too large, and changes nothing', async () => {
    const store = await open({ objectBytes: 1000, objects: 2 });
    await assert.rejects(
      store.put('configmaps', 'default/a', configMap('a', 'x'.repeat(1000)), 0),
      /1000 are the most/,
    );
    await store.put('configmaps', 'default/a', configMap('a', 'x'), 0);
    await store.put('configmaps', 'default/b', configMap('b', 'x'), 0);
    await assert.rejects(store.put('configmaps', 'default/c', configMap('c', 'x'), 0), /no more may be/);
    assert.equal(store.revision, 2);
    await store.close();
  });

  it('the journal becomes shorter, and says the same', async () => {
    const store = await open();
    const text = 'x'.repeat(100_000);
    let revision = 0;
    for (let n = 0; n < 200; n++) {
      revision = Number(
        (await store.put('configmaps', 'default/a', configMap('a', `${n}${text}`), revision)).metadata.resourceVersion,
      );
    }
    await store.put('configmaps', 'default/b', configMap('b', 'x'), 0);
    assert.ok(statSync(join(directory, 'journal')).size < 6 << 20);
    const listed = store.list('configmaps');
    await store.close();
    const again = await open();
    assert.deepEqual(again.list('configmaps'), listed);
    assert.equal(again.revision, 201);
    assert.throws(() => again.since(1), /too old/);
    await again.close();
  });

  it('cut anywhere, the journal is what it was at an earlier moment, and goes on from there', async () => {
    const store = await open();
    for (let n = 0; n < 30; n++) await store.put('configmaps', `default/${n}`, configMap(`${n}`, 'ä'.repeat(n)), 0);
    await store.close();
    const path = join(directory, 'journal');
    const whole = readFileSync(path);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: whole.length }), async length => {
        writeFileSync(path, whole);
        truncateSync(path, length);
        const lines = whole.subarray(0, length).toString('latin1').split('\n').length - 1;
        const cut = await open();
        assert.equal(cut.size, lines);
        await cut.put('configmaps', 'default/new', configMap('new', 'x'), 0);
        await cut.close();
        const again = await open();
        assert.equal(again.size, lines + 1);
        await again.close();
      }),
      { numRuns: 60 },
    );
  });

  it('a journal damaged in its middle is refused with its line', async () => {
    const store = await open();
    for (let n = 0; n < 5; n++) await store.put('configmaps', `default/${n}`, configMap(`${n}`, 'x'), 0);
    await store.close();
    const path = join(directory, 'journal');
    const lines = readFileSync(path, 'utf8').split('\n');
    lines[2] = lines[2]!.replace('"x"', '"y"');
    writeFileSync(path, lines.join('\n'));
    await assert.rejects(open(), { message: `${path}:3: damaged: remove the file to begin anew` });
    appendFileSync(path, '');
  });

  it('a writer killed at any moment loses nothing that was answered', async function () {
    this.timeout(60_000);
    for (let round = 0; round < 12; round++) {
      const child = spawn(process.execPath, [WRITER, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
      let answered = 0;
      const lines = createInterface({ input: child.stdout });
      const started = once(lines, 'line');
      lines.on('line', line => {
        answered = Number(line);
      });
      await started;
      await new Promise(next => setTimeout(next, 5 + 13 * round));
      child.kill('SIGKILL');
      await Promise.all([once(child, 'close'), once(lines, 'close')]);
      const store = await open();
      assert.ok(store.revision >= answered, `revision ${store.revision}, answered ${answered}`);
      const events: StoreEvent[] = store.since(Math.max(0, store.revision - 5));
      assert.equal(events.at(-1)?.revision, store.revision);
      await store.close();
    }
  });
});

describe('an index of the store', () => {
  const BY_VALUE: IndexOf = { storage: 'configmaps', keysOf: ({ data }) => (data.value === '' ? [] : [data.value]) };
  const EVERYTHING: IndexOf = { keysOf: ({ metadata }) => [metadata.name] };

  it('finds what a look at every object finds, after any writes', async () => {
    const write = fc.record({
      storage: fc.constantFrom('configmaps', 'secrets'),
      name: fc.constantFrom('a', 'b', 'c'),
      value: fc.constantFrom('', 'x', 'y', null),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(write), fc.nat(20), async (writes, asked) => {
        const store = await Store.open(new Journal(null));
        for (const [n, { storage, name, value }] of writes.entries()) {
          // From then on it is kept up.
          if (n === asked) store.by(BY_VALUE, 'x');
          const place = `default/${name}`;
          const expected = Number(store.get(storage, place)?.metadata.resourceVersion ?? 0);
          if (value !== null) await store.put(storage, place, configMap(name, value), expected);
          else if (expected > 0) await store.remove(storage, place, expected);
        }
        const sorted = (objects: Iterable<KubeObject>) => [...objects].map(object => JSON.stringify(object)).sort();
        for (const value of ['', 'x', 'y']) {
          const wanted = value === '' ? [] : store.list('configmaps').filter(({ data }) => data.value === value);
          assert.deepEqual(sorted(store.by(BY_VALUE, value)), sorted(wanted));
        }
        for (const name of ['a', 'b', 'c']) {
          const wanted = ['configmaps', 'secrets'].flatMap(storage => store.get(storage, `default/${name}`) ?? []);
          assert.deepEqual(sorted(store.by(EVERYTHING, name)), sorted(wanted));
        }
        await store.close();
      }),
      { numRuns: 60 },
    );
  });
});

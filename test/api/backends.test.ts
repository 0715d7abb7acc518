/** What holds for a store whatever it is kept in: the same on memory with a journal and on a real etcd. No devices. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { type Api, openApi } from '../../datapath/api/api.ts';
import { ApiClient } from '../../datapath/api/client/client.ts';
import type { KubeObject } from '../../datapath/api/object.ts';
import { Etcd } from '../../datapath/api/store/etcd.ts';
import { EtcdClient } from '../../datapath/api/store/etcd-client.ts';
import { Journal } from '../../datapath/api/store/journal.ts';
import { type Backend, Store, WriteConflict } from '../../datapath/api/store/store.ts';
import { EtcdServer, Wire } from './etcd.ts';

const map = (name: string, value: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: 'default' },
  data: { value },
});
const revisionOf = ({ metadata }: KubeObject): number => Number(metadata.resourceVersion);
const MAPS = '/api/v1/namespaces/default/configmaps';

let etcd: EtcdServer;
let clusters = 0;

/** @param backends makes a place for objects, and returns what opens it */
function holdsFor(backends: () => () => Backend): void {
  it('writes only over what the writer has seen', async () => {
    const store = await Store.open(backends()());
    const made = await store.put('configmaps', 'default/a', map('a', '1'), 0);
    await assert.rejects(store.put('configmaps', 'default/a', map('a', '2'), 0), WriteConflict);
    const changed = await store.put('configmaps', 'default/a', map('a', '2'), revisionOf(made));
    assert.ok(revisionOf(changed) > revisionOf(made));
    await assert.rejects(store.put('configmaps', 'default/a', map('a', '3'), revisionOf(made)), WriteConflict);
    await assert.rejects(store.remove('configmaps', 'default/a', revisionOf(made)), WriteConflict);
    await assert.rejects(store.remove('configmaps', 'default/b', 0), WriteConflict);
    assert.equal(store.get('configmaps', 'default/a')?.data.value, '2');
    assert.ok(revisionOf(await store.remove('configmaps', 'default/a', revisionOf(changed))) > revisionOf(changed));
    assert.deepEqual(store.list('configmaps'), []);
    assert.deepEqual(
      store.since(revisionOf(made) - 1).map(({ type }) => type),
      ['ADDED', 'MODIFIED', 'DELETED'],
    );
    await store.close();
  });

  it('is what it was when it is opened again', async () => {
    const open = backends();
    const first = await Store.open(open());
    let last = 0;
    for (let n = 0; n < 30; n++) last = revisionOf(await first.put('configmaps', `default/${n}`, map(`${n}`, 'ä'), 0));
    await first.put('services', 'default/x', map('x', '1'), 0);
    await first.remove('configmaps', 'default/29', last);
    const listed = first.list('configmaps');
    const { revision } = first;
    await first.close();
    const second = await Store.open(open());
    assert.deepEqual(second.list('configmaps'), listed);
    assert.deepEqual(second.storages().sort(), ['configmaps', 'services']);
    assert.equal(second.revision, revision);
    await second.put('configmaps', 'default/29', map('29', '2'), 0);
    await second.close();
  });

  it('forgets old changes, and says so; refuses what is too large', async () => {
    const store = await Store.open(backends()(), { history: 8, objectBytes: 1000 });
    const first = revisionOf(await store.put('configmaps', 'default/a', map('a', 'x'), 0));
    for (let n = 0; n < 30; n++) await store.put('configmaps', `default/${n}`, map(`${n}`, 'x'), 0);
    assert.throws(() => store.since(first), { message: /^too old resource version/ });
    await assert.rejects(store.put('configmaps', 'default/b', map('b', 'x'.repeat(1000)), 0), /1000 are the most/);
    assert.equal(store.size, 31);
    await store.close();
  });

  it('any writes make what they would make of a map', async () => {
    const write = fc.record({ name: fc.integer({ min: 0, max: 5 }), remove: fc.boolean(), stale: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(write, { maxLength: 25 }), async writes => {
        const open = backends();
        const store = await Store.open(open());
        const model = new Map<string, { value: string; revision: number }>();
        for (const [n, { name, remove, stale }] of writes.entries()) {
          const place = `default/${name}`;
          const expected = (model.get(place)?.revision ?? 0) + (stale ? 1 : 0);
          const wanted = !stale && !(remove && expected === 0);
          const done = remove
            ? store.remove('configmaps', place, expected)
            : store.put('configmaps', place, map(`${name}`, `${n}`), expected);
          if (!wanted) {
            await assert.rejects(done, WriteConflict);
          } else {
            const object = await done;
            if (remove) model.delete(place);
            else model.set(place, { value: `${n}`, revision: revisionOf(object) });
          }
        }
        const content = (of: Store) => of.list('configmaps').map(object => [object.data.value, revisionOf(object)]);
        const expected = [...model]
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([, { value, revision }]) => [value, revision]);
        assert.deepEqual(content(store), expected);
        await store.close();
        const again = await Store.open(open());
        assert.deepEqual(content(again), expected);
        await again.close();
      }),
      { numRuns: 15 },
    );
  });
}

describe('a store with a journal', function () {
  this.timeout(60_000);
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-backend-'));
  });
  after(() => rmSync(directory, { recursive: true }));
  holdsFor(() => {
    const own = join(directory, `${clusters++}`);
    return () => new Journal(own);
  });
});

describe('a store in etcd', function () {
  this.timeout(120_000);
  before(async () => {
    etcd = await EtcdServer.start();
  });
  after(() => etcd.stop());
  const backends = (): (() => Etcd) => {
    const prefix = `/tunpath/${clusters++}`;
    return () => new Etcd({ address: etcd.address, prefix });
  };
  holdsFor(backends);

  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await sleep(10);
  };

  it('two APIs on one etcd agree at once, and no write of either is lost', async () => {
    const open = backends();
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-two-'));
    const apis: Api[] = [];
    const clients: ApiClient[] = [];
    for (const name of ['a', 'b']) {
      const api = await openApi({ backend: open() });
      const path = join(directory, name);
      await api.server.listenUnix(path);
      apis.push(api);
      clients.push(new ApiClient({ server: `unix://${path}`, name, namespace: 'default', insecure: false }));
    }
    const [a, b] = clients as [ApiClient, ApiClient];
    const watching = new AbortController();
    const seen: string[] = [];
    const watch = (async () => {
      const query = { watch: 'true', resourceVersion: `${apis[1]!.store.revision}` };
      for await (const line of b.lines(MAPS, { query, signal: watching.signal })) {
        const { type, object } = JSON.parse(line);
        seen.push(`${type} ${object.metadata.name} ${object.data.n}`);
      }
    })().catch(() => {});
    const body = { metadata: { name: 'count' }, data: { n: '0' } };
    assert.equal((await a.request(MAPS, { method: 'POST', body })).status, 201);
    // What one has answered, the other knows.
    assert.equal((await b.get(`${MAPS}/count`)).data.n, '0');
    assert.equal((await b.request(MAPS, { method: 'POST', body })).status, 409);
    const add = async (client: ApiClient): Promise<void> => {
      for (;;) {
        const object = await client.get(`${MAPS}/count`);
        object.data.n = `${Number(object.data.n) + 1}`;
        const { status } = await client.request(`${MAPS}/count`, { method: 'PUT', body: object });
        if (status === 200) return;
        assert.equal(status, 409);
      }
    };
    await Promise.all([a, b, a, b, a, b].map(add));
    assert.equal((await a.get(`${MAPS}/count`)).data.n, '6');
    const lists = await Promise.all(clients.map(client => client.get('/api/v1/services')));
    assert.deepEqual(lists[0], lists[1]);
    await until(() => seen.length === 7);
    assert.deepEqual(seen, ['ADDED count 0', ...[1, 2, 3, 4, 5, 6].map(n => `MODIFIED count ${n}`)]);
    watching.abort();
    await watch;
    for (const client of clients) client.close();
    for (const api of apis) await api.close();
    rmSync(directory, { recursive: true });
  });

  it('a store that was cut off has everything again, also what etcd has forgotten', async () => {
    const open = backends();
    const wire = await Wire.to(etcd.address);
    const far = await Store.open(new Etcd({ address: wire.address, prefix: `/tunpath/${clusters - 1}` }));
    const near = await Store.open(open());
    const one = await near.put('configmaps', 'default/gone', map('gone', '1'), 0);
    const two = await near.put('configmaps', 'default/kept', map('kept', '1'), 0);
    await far.catchUp();
    wire.cut();
    await assert.rejects(far.catchUp(), { code: 503 });
    await near.remove('configmaps', 'default/gone', revisionOf(one));
    await near.put('configmaps', 'default/kept', map('kept', '2'), revisionOf(two));
    const { revision } = await near.put('configmaps', 'default/new', map('new', '1'), 0).then(() => near);
    await etcd.compact(revision);
    wire.mend();
    const same = () => JSON.stringify(far.list('configmaps')) === JSON.stringify(near.list('configmaps'));
    await until(same);
    assert.deepEqual(
      far.list('configmaps').map(({ metadata, data }) => [metadata.name, data.value]),
      [
        ['kept', '2'],
        ['new', '1'],
      ],
    );
    // It hears of what comes, too.
    await near.put('configmaps', 'default/later', map('later', '1'), 0);
    await until(same);
    await far.close();
    await near.close();
    wire.close();
  });

  it('a watch goes on where etcd has forgotten more than what was written last', async () => {
    const open = backends();
    const wire = await Wire.to(etcd.address);
    const far = await Store.open(new Etcd({ address: wire.address, prefix: `/tunpath/${clusters - 1}` }));
    const near = await Store.open(open());
    const others = await Store.open(backends()());
    await near.put('configmaps', 'default/a', map('a', '1'), 0);
    await far.catchUp();
    wire.cut();
    for (let n = 0; n < 3; n++) await others.put('configmaps', `default/${n}`, map(`${n}`, '1'), 0);
    await etcd.compact(others.revision);
    const { pages } = EtcdClient.prototype;
    let lists = 0;
    EtcdClient.prototype.pages = function (prefix, revision) {
      lists++;
      return pages.call(this, prefix, revision);
    };
    try {
      wire.mend();
      for (let n = 0; n < 4; n++) {
        await until(() => lists > 0);
        await near.put('configmaps', `default/later-${n}`, map(`later-${n}`, '1'), 0);
        await until(() => far.size === near.size);
      }
      assert.equal(lists, 1, 'after one list it hears of each change');
    } finally {
      EtcdClient.prototype.pages = pages;
    }
    for (const store of [far, near, others]) await store.close();
    wire.close();
  });

  it('an etcd that is killed and comes back has every write that was answered, and watches go on', async () => {
    const store = await Store.open(backends()());
    const answered: string[] = [];
    let stop = false;
    const writer = (async () => {
      for (let n = 0; !stop; n++) {
        const name = `n${n}`;
        try {
          await store.put('configmaps', `default/${name}`, map(name, 'x'), 0);
          answered.push(name);
        } catch {
          await sleep(5);
        }
      }
    })();
    await until(() => answered.length > 20);
    await etcd.kill();
    await etcd.run();
    const before = answered.length;
    await until(() => answered.length > before + 20);
    stop = true;
    await writer;
    const names = new Set(store.list('configmaps').map(({ metadata }) => metadata.name));
    assert.deepEqual(
      answered.filter(name => !names.has(name)),
      [],
    );
    await store.close();
  });
});

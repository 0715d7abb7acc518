/** What clients may do to the API without harm to it or to others: nonsense, too much, too slowly; and its own sudden end. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { type Api, openApi } from '../../datapath/api/api.ts';
import { ApiClient } from '../../datapath/api/client/client.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { resourceOf } from '../../datapath/api/resources.ts';
import { DEFAULT_WATCH_LIMITS, Watches, type WatchQuery } from '../../datapath/api/server/watch.ts';
import { Random } from '../../datapath/random.ts';

const PROCESS = fileURLToPath(new URL('./served-process.js', import.meta.url));
const MAPS = '/api/v1/namespaces/default/configmaps';
const TARGET = { resource: resourceOf('v1', 'ConfigMap'), version: 'v1', namespace: 'default' };

const clientOf = (path: string): ApiClient =>
  new ApiClient({ server: `unix://${path}`, name: 'test', namespace: 'default', insecure: false });
const map = (name: string, data: Record<string, string> = {}): Partial<KubeObject> => ({ metadata: { name }, data });

describe('the API, whatever clients do', function () {
  this.timeout(60_000);
  let directory: string;
  let api: Api;
  let socketPath: string;
  let client: ApiClient;
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-hard-'));
    socketPath = join(directory, 'api.sock');
    api = await openApi({ watch: { watches: 600 } });
    await api.server.listenUnix(socketPath);
    client = clientOf(socketPath);
  });
  after(async () => {
    client.close();
    await api.close();
    rmSync(directory, { recursive: true });
  });

  /** Sends what no client of ours would. */
  const raw = (
    method: string,
    path: string,
    type: string,
    body: string | Buffer,
  ): Promise<{ code: number; text: string }> =>
    new Promise((resolve, reject) => {
      const headers = { 'content-type': type, 'content-length': Buffer.byteLength(body) };
      const request = httpRequest({ socketPath, method, path, headers }, response => {
        let text = '';
        response.on('data', chunk => {
          text += chunk;
        });
        response.on('close', () => resolve({ code: response.statusCode!, text }));
        response.on('error', () => {});
      });
      request.on('error', reject);
      request.end(body);
    });

  it('answers any request with what it asks for, or with a Status that blames it', async () => {
    const piece = fc.constantFrom(
      'api',
      'apis',
      'v1',
      'v2',
      'apps',
      'namespaces',
      'default',
      'pods',
      'services',
      'x',
      'status',
      'scale',
      'binding',
      '%41',
      '..',
      'configmaps',
      'deployments',
      'networking.k8s.io',
      'networkpolicies',
      'cilium.io',
      'ciliumnodes',
      '__proto__',
      'constructor',
    );
    const query = fc.constantFrom(
      '',
      '?watch=1&resourceVersion=x',
      '?limit=x',
      '?limit=-1',
      '?labelSelector=a%3D%3D%3D',
      '?fieldSelector=a',
      '?resourceVersion=x',
      '?resourceVersion=9999999',
      '?continue=!',
      '?dryRun=no',
      '?fieldValidation=no',
      '?fieldManager=m&force=true',
      '?gracePeriodSeconds=x',
      '?propagationPolicy=No',
    );
    const type = fc.constantFrom(
      'application/json',
      'application/apply-patch+yaml',
      'application/merge-patch+json',
      'application/json-patch+json',
      'application/strategic-merge-patch+json',
      'application/vnd.kubernetes.protobuf',
      'text/plain',
      '',
    );
    const value: fc.Arbitrary<unknown> = fc.letrec(tie => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(null, 0, -1, 1e99, true, '', 'x', '80'),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(
          fc.constantFrom(
            'metadata',
            'name',
            'namespace',
            'labels',
            'annotations',
            'spec',
            'ports',
            'port',
            'selector',
            'matchLabels',
            'template',
            'containers',
            'data',
            'op',
            'path',
            'value',
            'kind',
            'apiVersion',
            '$patch',
            '$setElementOrder/ports',
            'finalizers',
            'ownerReferences',
            'managedFields',
            'status',
            'podSelector',
            'ingress',
            'from',
            'ipBlock',
            'subsets',
          ),
          tie('value'),
          { maxKeys: 6 },
        ),
      ),
    })).value;
    const body = fc.oneof(
      value.map(v => Buffer.from(JSON.stringify(v) ?? '')),
      fc.uint8Array({ maxLength: 60 }).map(bytes => Buffer.from(bytes)),
      fc.constantFrom('{', '---\n- &a [*a]', 'a: &a [*a, *a]', '{"a":{"a":', '\u0000').map(text => Buffer.from(text)),
    );
    const known = fc.constantFrom(
      MAPS,
      '/api/v1/namespaces/default/services',
      '/apis/apps/v1/namespaces/default/deployments',
      '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies',
      '/api/v1/namespaces/default/endpoints',
      '/api/v1/namespaces',
      '/api/v1/nodes',
      '/apis/cilium.io/v2/ciliumloadbalancerippools',
      '/api/v1/namespaces/default/pods',
    );
    const path = fc.oneof(
      fc.array(piece, { maxLength: 7 }).map(pieces => `/${pieces.join('/')}`),
      fc
        .tuple(known, fc.constantFrom('', '/x', '/x/status', '/x/scale', '/kubernetes', '/default'))
        .map(([a, b]) => a + b),
    );
    const method = fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS');
    await fc.assert(
      fc.asyncProperty(method, path, query, type, body, async (verb, where, asked, contentType, sent) => {
        const { code, text } = await raw(verb, `${where}${asked}`, contentType, sent);
        assert.notEqual(code, 500, text);
        if (code >= 400 && text !== '') assert.equal(JSON.parse(text).kind, 'Status', text);
      }),
      { numRuns: 500, seed: 15 },
    );
    // What it has taken, it can give back.
    for (const collection of [
      '/api/v1/services',
      '/apis/apps/v1/deployments',
      '/api/v1/configmaps',
      '/api/v1/namespaces',
      '/api/v1/nodes',
      '/api/v1/pods',
    ]) {
      for (const accept of ['application/json', 'application/json;as=Table;v=v1;g=meta.k8s.io']) {
        await client.get(collection, { headers: { accept } });
      }
    }
  });

  it('refuses what is too large or too deep before it holds it', async () => {
    assert.equal((await raw('POST', MAPS, 'application/json', Buffer.alloc(4 << 20, 0x20))).code, 413);
    const large = { ...map('large'), data: { a: 'x'.repeat(2 << 20) } };
    const { code, text } = await raw('POST', MAPS, 'application/json', JSON.stringify(large));
    assert.equal(code, 413, text);
    const deep = `{"metadata":{"name":"deep"},"data":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}`;
    assert.equal((await raw('POST', MAPS, 'application/json', deep)).code, 400);
    // Aliases that would become a gigabyte.
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
      .split('')
      .map((name, i) => `${name}: &${name} [${Array(9).fill(`*${'abcdefgh'[i]}`).join()}]\n`)
      .join('')}`;
    const answer = await raw('PATCH', `${MAPS}/x?fieldManager=m`, 'application/apply-patch+yaml', bomb);
    assert.ok(answer.code >= 400 && answer.code < 500, answer.text);
  });

  it('tells 500 watches of a change, and refuses more than it has said', async () => {
    const heard: Promise<unknown>[] = [];
    const responses: IncomingMessage[] = [];
    const { revision } = api.store;
    await Promise.all(
      Array.from({ length: 500 }, async () => {
        const request = httpRequest({ socketPath, path: `${MAPS}?watch=1&resourceVersion=${revision}` });
        request.on('error', () => {});
        request.end();
        const [response] = (await once(request, 'response')) as [IncomingMessage];
        responses.push(response);
        heard.push(once(response, 'data'));
      }),
    );
    await client.request(MAPS, { method: 'POST', body: map('seen') });
    for (const [chunk] of (await Promise.all(heard)) as [Buffer][]) {
      assert.equal(JSON.parse(`${chunk}`).object.metadata.name, 'seen');
    }
    const more = await Promise.all(
      Array.from({ length: 101 }, () =>
        raw('GET', `${MAPS}?resourceVersion=${api.store.revision}&watch=1&timeoutSeconds=1`, '', ''),
      ),
    );
    assert.ok(
      more.some(({ code }) => code === 429),
      more.map(({ code }) => code).join(),
    );
    for (const response of responses) response.destroy();
  });

  it('writers that have not seen the newest are told so, and no write is lost', async () => {
    await client.request(MAPS, { method: 'POST', body: map('count', { n: '0' }) });
    let conflicts = 0;
    const add = async (): Promise<void> => {
      for (;;) {
        const object = await client.get(`${MAPS}/count`);
        object.data.n = `${Number(object.data.n) + 1}`;
        const { status } = await client.request(`${MAPS}/count`, { method: 'PUT', body: object });
        if (status === 200) return;
        assert.equal(status, 409);
        conflicts++;
      }
    };
    await Promise.all(Array.from({ length: 20 }, add));
    assert.equal((await client.get(`${MAPS}/count`)).data.n, '20');
    assert.ok(conflicts > 0);
  });

  it('a watch from before its history is refused', async () => {
    const small = await openApi({ limits: { history: 10 } });
    const path = join(directory, 'small.sock');
    await small.server.listenUnix(path);
    const other = clientOf(path);
    for (let n = 0; n < 40; n++) await small.registry.create(TARGET, map(`n${n}`));
    const answer = await other.request(MAPS, { query: { watch: 'true', resourceVersion: '3' } });
    assert.deepEqual([answer.status, answer.json.reason], [410, 'Expired']);
    other.close();
    await small.close();
  });
});

/** A client that reads only when it is told to. */
class SlowClient extends Writable {
  readonly lines: string[] = [];
  private waiting: (() => void) | undefined;
  private reads = 0;

  constructor() {
    super({ highWaterMark: 1024, decodeStrings: false });
  }

  override _write(chunk: string, _: string, done: () => void): void {
    this.lines.push(...chunk.split('\n').filter(line => line !== ''));
    if (this.reads > 0) {
      this.reads--;
      done();
    } else this.waiting = done;
  }

  read(count: number): void {
    this.reads = count;
    const { waiting } = this;
    this.waiting = undefined;
    waiting?.();
  }

  writeHead(): void {}
  flushHeaders(): void {}
}

describe('a watch whose client does not read', () => {
  const QUERY: WatchQuery = {
    form: 'object',
    include: 'Metadata',
    matches: () => true,
    resourceVersion: '',
    sendInitialEvents: true,
    bookmarks: false,
    timeoutMs: 60_000,
  };
  const LIMIT = 20_000;
  const text = 'x'.repeat(1000);

  const watched = async (history: number): Promise<{ api: Api; slow: SlowClient }> => {
    const api = await openApi({ limits: { history } });
    for (let n = 0; n < 100; n++) await api.registry.create(TARGET, map(`a${n}`, { text }));
    const slow = new SlowClient();
    const watches = new Watches(api.registry, { ...DEFAULT_WATCH_LIMITS, bufferedBytes: LIMIT });
    await watches.start(slow as unknown as ServerResponse, TARGET, QUERY);
    return { api, slow };
  };

  it('holds no more than the limit, and gets everything in its order once it reads', async () => {
    const { api, slow } = await watched(10_000);
    for (let n = 0; n < 300; n++) {
      await api.registry.create(TARGET, map(`b${n}`, { text }));
      assert.ok(slow.writableLength < LIMIT + 3000, `${slow.writableLength}`);
    }
    const lines = () => slow.lines.map(line => JSON.parse(line) as { type: string; object: Json });
    while (lines().length < 401) {
      slow.read(7);
      await new Promise(resolve => setImmediate(resolve));
      assert.ok(slow.writableLength < LIMIT + 3000, `${slow.writableLength}`);
    }
    assert.deepEqual(
      lines().map(({ type, object }) => (type === 'ADDED' ? object.metadata.name : type)),
      [
        ...Array.from({ length: 100 }, (_, n) => `a${n}`).sort(),
        'BOOKMARK',
        ...Array.from({ length: 300 }, (_, n) => `b${n}`),
      ],
    );
    slow.destroy();
    await api.close();
  });

  it('is told to list again where the history does not reach back', async () => {
    const { api, slow } = await watched(50);
    for (let n = 0; n < 300; n++) await api.registry.create(TARGET, map(`b${n}`, { text }));
    while (!slow.writableEnded) {
      slow.read(50);
      await new Promise(resolve => setImmediate(resolve));
    }
    slow.read(1000);
    if (!slow.writableFinished) await once(slow, 'finish');
    const { type, object } = JSON.parse(slow.lines.at(-1)!);
    assert.deepEqual([type, object.code, object.reason], ['ERROR', 410, 'Expired']);
    await api.close();
  });
});

describe('an API that is killed', function () {
  this.timeout(120_000);

  it('has lost no write that it answered, and no object is half', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-killed-'));
    const socketPath = join(directory, 'api.sock');
    const random = new Random(20_261_128);
    /** By name: the number that was answered last, and the one that was sent last. */
    const written = new Map<string, { answered: number; sent: number }>();
    let revision = '';
    try {
      for (let round = 0; round < 4; round++) {
        const child: ChildProcess = spawn(process.execPath, [PROCESS, directory], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        await once(child.stdout!, 'data');
        const client = clientOf(socketPath);
        const list = await client.get(MAPS);
        const found = new Map<string, number>(
          list.items.map(({ metadata, data }: Json) => [metadata.name, Number(data.n)]),
        );
        for (const { data } of list.items) assert.equal(data.text?.length, Number(data.n) % 900, 'half an object');
        for (const [name, { answered, sent }] of written) {
          const n = found.get(name)!;
          assert.ok(n >= answered && n <= sent, `${name} has ${n}, answered ${answered}, sent ${sent}`);
        }
        if (revision !== '') {
          const watch = client.lines(MAPS, {
            query: { watch: 'true', resourceVersion: revision, timeoutSeconds: '1' },
          });
          // It goes on where it was: nothing is older than what was seen before.
          for await (const line of watch)
            assert.ok(Number(JSON.parse(line).object.metadata.resourceVersion) > Number(revision));
        }
        revision = list.metadata.resourceVersion;
        const kill = (random.next() >>> 0) % 25;
        const writers = Array.from({ length: 4 }, async (_, writer) => {
          for (let n = 0; ; n++) {
            const name = `w${writer}-${n % 5}`;
            const number = (written.get(name)?.sent ?? found.get(name) ?? 0) + 1;
            const entry = { answered: written.get(name)?.answered ?? 0, sent: number };
            written.set(name, entry);
            const body = {
              apiVersion: 'v1',
              kind: 'ConfigMap',
              ...map(name, { n: `${number}`, text: 'x'.repeat(number % 900) }),
            };
            const headers = { 'content-type': 'application/apply-patch+yaml' };
            const query = { fieldManager: 'test', force: 'true' };
            const { status } = await client.request(`${MAPS}/${name}`, { method: 'PATCH', headers, query, body });
            assert.ok(status < 300, `${status}`);
            entry.answered = number;
            if (writer === 0 && n === 5 + kill) child.kill('SIGKILL');
          }
        });
        const ends = await Promise.allSettled(writers);
        for (const end of ends) assert.match(`${(end as PromiseRejectedResult).reason}`, /Unreachable/);
        client.close();
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

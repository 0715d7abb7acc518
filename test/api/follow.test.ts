/** A client that lists and watches: any API may end its watches, forget its history, or go away. No devices. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Api, openApi } from '../../datapath/api/api.ts';
import { ApiClient } from '../../datapath/api/client/client.ts';
import { Follower, type Hearing } from '../../datapath/api/client/follow.ts';
import { type Access, readKubeconfig } from '../../datapath/api/client/kubeconfig.ts';
import { Cluster } from '../../datapath/api/controllers/cluster.ts';
import { temporaryDirectory } from '../fixtures/directory.ts';

const until = async (what: string, holds: () => boolean): Promise<void> => {
  for (const deadline = Date.now() + 30_000; !holds(); ) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 2));
  }
};

class Heard implements Hearing {
  readonly all: string[] = [];
  synced = (): void => void this.all.push('synced');
  changed = (): void => void this.all.push('changed');
  away = (why: string): void => void this.all.push(`away: ${why}`);
  back = (): void => void this.all.push('back');
  has(text: string): boolean {
    return this.all.some(one => one.startsWith(text));
  }
}

/** No time passes, but others get their turn. */
const NOW = { sleep: () => new Promise<void>(resolve => setTimeout(resolve, 1)), random: () => 0 };

describe('following an API', () => {
  const access = (server: string): Access => ({ server, name: 'test', namespace: 'default', insecure: false });

  describe('of our own', () => {
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-follow-'));
    const socket = join(directory, 'api.sock');
    const client = new ApiClient(access(`unix://${socket}`));
    const heard = new Heard();
    const follower = new Follower(client, '/api/v1/configmaps', heard, NOW);
    let api: Api;
    const open = async (): Promise<Cluster> => {
      api = await openApi({ directory: join(directory, 'store') });
      await api.server.listenUnix(socket);
      return new Cluster(api.registry, 'test');
    };
    const map = (name: string) => ({ metadata: { name, namespace: 'default' }, data: { a: '1' } });
    after(async () => {
      follower.stop();
      client.close();
      await api.close();
      rmSync(directory, { recursive: true });
    });

    it('lists, watches, and goes on where it was when the API has been away', async () => {
      let cluster = await open();
      await cluster.create('ConfigMap', map('first'));
      void follower.run();
      await until('the list', () => follower.objects.has('default/first'));
      await cluster.create('ConfigMap', map('second'));
      await until('a change', () => follower.objects.has('default/second'));
      await cluster.delete(cluster.find('ConfigMap', 'default', 'first')!);
      await until('a removal', () => !follower.objects.has('default/first'));
      await api.close();
      await until('it is away', () => heard.has('away'));
      assert.ok(follower.objects.has('default/second'), 'what is known stays known');
      cluster = await open();
      await cluster.create('ConfigMap', map('third'));
      await until('it is back', () => heard.has('back') && follower.objects.has('default/third'));
      assert.equal(heard.all.filter(one => one === 'synced').length, 1, 'it did not have to list again');
    });

    it('says what the API refuses', async () => {
      await assert.rejects(client.get('/api/v1/namespaces/default/configmaps/none'), /configmaps "none" not found/);
    });
  });

  describe('of others', () => {
    let answer: (request: IncomingMessage, response: ServerResponse, url: URL) => void = () => {};
    const server = createServer((request, response) => answer(request, response, new URL(request.url!, 'http://x')));
    let client: ApiClient;
    let follower: Follower;
    let heard: Heard;
    before(async () => {
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
      client = new ApiClient(access(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
    });
    after(() => {
      client.close();
      server.closeAllConnections();
      server.close();
    });
    beforeEach(() => {
      heard = new Heard();
      follower = new Follower(client, '/api/v1/pods', heard, NOW);
    });
    afterEach(() => follower.stop());
    const pod = (name: string, resourceVersion: string) => ({ metadata: { name, namespace: 'n', resourceVersion } });
    const json = (response: ServerResponse, code: number, body: object): void => {
      response.writeHead(code, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    };
    const line = (type: string, object: object): string => `${JSON.stringify({ type, object })}\n`;

    it('a list comes in pages', async () => {
      answer = (_request, response, url) => {
        if (url.searchParams.has('watch')) return void response.writeHead(200).flushHeaders();
        const second = url.searchParams.get('continue') === 'more';
        json(response, 200, {
          items: [pod(second ? 'b' : 'a', '1')],
          metadata: second ? { resourceVersion: '5' } : { resourceVersion: '5', continue: 'more' },
        });
      };
      void follower.run();
      await until('both pages', () => follower.objects.size === 2);
    });

    it('a watch that ends goes on from its last bookmark, also after a torn line', async () => {
      const asked: string[] = [];
      answer = (_request, response, url) => {
        if (!url.searchParams.has('watch'))
          return json(response, 200, { items: [], metadata: { resourceVersion: '5' } });
        asked.push(url.searchParams.get('resourceVersion')!);
        response.writeHead(200);
        if (asked.length === 1) response.end(line('BOOKMARK', { metadata: { resourceVersion: '9' } }));
        else if (asked.length === 2) response.end(`${line('ADDED', pod('a', '11'))}{"type":"ADD`);
        else response.flushHeaders();
      };
      void follower.run();
      await until('three watches', () => asked.length >= 3);
      assert.deepEqual(asked.slice(0, 3), ['5', '9', '11']);
      assert.ok(follower.objects.has('n/a'));
    });

    it('a revision that is too old lists again, and what is gone is gone', async () => {
      let lists = 0;
      const watches: string[] = [];
      answer = (_request, response, url) => {
        if (!url.searchParams.has('watch')) {
          lists++;
          return json(response, 200, {
            items: lists === 1 ? [pod('a', '1'), pod('b', '1')] : [pod('b', '1')],
            metadata: { resourceVersion: `${lists}0` },
          });
        }
        watches.push(url.searchParams.get('resourceVersion')!);
        const expired = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' };
        if (watches.length === 1) return void response.writeHead(200).end(line('ERROR', expired));
        if (watches.length === 2) return json(response, 410, expired);
        response.writeHead(200).flushHeaders();
      };
      void follower.run();
      await until('three watches', () => watches.length === 3);
      assert.deepEqual(watches, ['10', '20', '30']);
      assert.deepEqual([...follower.objects.keys()], ['n/b']);
      assert.ok(!heard.has('away'), heard.all.join());
    });

    it('a kind that it has not is empty, and one that may not be read is said once', async () => {
      answer = (_request, response) => json(response, 404, { kind: 'Status', code: 404, message: 'none' });
      void follower.run();
      await until('it is empty', () => heard.has('synced'));
      follower.stop();
      const other = new Heard();
      let tries = 0;
      answer = (_request, response) => {
        tries++;
        json(response, 403, { kind: 'Status', code: 403, message: 'pods is forbidden' });
      };
      const forbidden = new Follower(client, '/api/v1/pods', other, NOW);
      void forbidden.run();
      await until('it tries again', () => tries > 2);
      forbidden.stop();
      assert.deepEqual(other.all, ['away: pods is forbidden']);
    });
  });
});

describe('a client of an API', () => {
  it('asks again where a connection that was kept is closed; what may have been done is not done twice', async () => {
    const seen: string[] = [];
    const used = new WeakSet<object>();
    const server = createServer((request, response) => {
      seen.push(request.method!);
      if (used.has(request.socket)) return request.socket.resetAndDestroy();
      used.add(request.socket);
      request.resume();
      response.setHeader('content-type', 'application/json');
      response.end('{"fine":true}');
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const client = new ApiClient({
      server: `http://127.0.0.1:${port}`,
      name: 'test',
      namespace: 'default',
      insecure: false,
    });
    for (let n = 0; n < 3; n++) {
      assert.deepEqual(await client.get('/api'), { fine: true });
      // The connection is back in the pool.
      await new Promise(resolve => setImmediate(resolve));
    }
    assert.deepEqual(seen, ['GET', 'GET', 'GET', 'GET', 'GET']);
    await assert.rejects(client.request('/api', { method: 'POST', body: {} }), { name: 'UnreachableError' });
    client.close();
    server.close();
  });
});

describe('a kubeconfig', () => {
  const directory = temporaryDirectory('kubeconfig');
  const read = (text: string): Access => {
    const path = join(directory, 'config');
    writeFileSync(path, text);
    return readKubeconfig(path);
  };
  const config = (user: string, cluster = '{ server: "https://10.0.0.1:6443/" }', current = 'c') => `
current-context: ${current}
contexts: [{ name: c, context: { cluster: k, user: u } }]
clusters: [{ name: k, cluster: ${cluster} }]
users: [{ name: u, user: ${user} }]
`;

  it('leads to an API, by token, certificate or password', () => {
    writeFileSync(join(directory, 'token'), 'abc\n');
    const found = read(
      config('{ tokenFile: token }', '{ server: "https://10.0.0.1:6443/", certificate-authority-data: YWJj }'),
    );
    assert.equal(found.server, 'https://10.0.0.1:6443');
    assert.equal(found.ca, 'abc');
    assert.equal(found.authorization!(), 'Bearer abc');
    assert.equal(read(config('{ username: a, password: b }')).authorization!(), 'Basic YTpi');
    assert.equal(read(config('{ client-certificate-data: YQ==, client-key-data: Yg== }')).key, 'b');
  });

  it('what is wrong with it is named with its place', () => {
    assert.throws(
      () => read(config('{}', undefined, 'x')),
      /contexts: got none called "x", expected one \(there are c\)/,
    );
    assert.throws(() => read(config('{}', '{ server: 1 }')), /clusters\[k\]\.cluster\.server: got 1/);
    assert.throws(() => read(config('{ exec: { command: aws } }')), /users\[u\]\.user\.exec: expected a token/);
    assert.throws(() => read('a: ['), /config:1:5: got a YAML error/);
    assert.throws(() => readKubeconfig(join(directory, 'none')), /none: no such file/);
  });
});

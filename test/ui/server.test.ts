/** Who gets the page, and who does not. */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { serveUi, type UiServer } from '../../datapath/ui/server.ts';
import { FakeNetwork } from './fake.ts';

const tokenOf = ({ url }: UiServer) => new URL(url).searchParams.get('token')!;

describe('ui/server', function () {
  this.timeout(60_000);
  let server: UiServer;
  let origin = '';
  let token = '';
  before(async () => {
    server = await serveUi(new FakeNetwork(), { host: '127.0.0.1', port: 0 });
    const url = new URL(server.url);
    origin = url.origin;
    token = tokenOf(server);
  });
  after(() => server.close());

  const ask = (path: string, init: RequestInit = {}) =>
    fetch(origin + path, {
      redirect: 'manual',
      ...init,
      headers: { Authorization: `Bearer ${token}`, ...init.headers },
    });

  it('asks for the token, whatever is asked for', async () => {
    for (const path of ['/', '/page.js', '/page.css', '/api/events', '/api/prove', '/nothing']) {
      assert.equal((await fetch(origin + path)).status, 401, path);
      assert.equal((await fetch(origin + path, { headers: { Authorization: 'Bearer x' } })).status, 401, path);
    }
    assert.equal((await fetch(`${origin}/?token=${token.slice(1)}x`)).status, 401);
    assert.equal((await fetch(`${origin}/api/change`, { method: 'POST', body: '{}' })).status, 401);
  });

  it('takes the token once, as a cookie from then on', async () => {
    const first = await fetch(server.url, { redirect: 'manual' });
    assert.equal(first.status, 303);
    const cookie = first.headers.get('set-cookie')!;
    assert.match(cookie, /^tunpath-\d+=[\w-]{32}; HttpOnly; SameSite=Strict; Path=\/$/);
    const page = await fetch(origin, { headers: { Cookie: cookie.split(';')[0] } });
    assert.equal(page.status, 200);
    const policy = page.headers.get('content-security-policy')!;
    assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self'/);
    assert.doesNotMatch(policy, /unsafe/);
    assert.doesNotMatch(await page.text(), /<script>|style=|onload=/);
  });

  it('answers by its own name alone, and to its own page', async () => {
    const { port } = new URL(origin);
    const statusFor = (headers: Record<string, string>) =>
      new Promise<number | undefined>((resolve, reject) => {
        const options = { port, headers: { Authorization: `Bearer ${token}`, ...headers } };
        request(options, response => resolve(response.resume().statusCode))
          .on('error', reject)
          .end();
      });
    assert.equal(await statusFor({ Host: `evil.example:${port}` }), 403);
    assert.equal(await statusFor({ Host: '127.0.0.1' }), 403);
    assert.equal(await statusFor({ Host: `localhost:${port}` }), 200);
    assert.equal(await statusFor({ Origin: 'http://evil.example' }), 403);
    assert.equal(await statusFor({ Origin: `http://127.0.0.1:${port}` }), 200);
  });

  it('on port 80 has the name that browsers call it by', async () => {
    const well = await serveUi(new FakeNetwork(), { host: '127.0.0.1', port: 80 }).catch(
      (error: NodeJS.ErrnoException) => error,
    );
    if (well instanceof Error) {
      // Another server has it, or this user may not: then that is what is said.
      assert.match(well.message, /EADDRINUSE|EACCES/);
      return;
    }
    try {
      const answer = await fetch('http://127.0.0.1/', { headers: { Authorization: `Bearer ${tokenOf(well)}` } });
      assert.equal(answer.status, 200);
    } finally {
      await well.close();
    }
  });

  it('answers questions, and says what was wrong with one', async () => {
    const headers = { 'Content-Type': 'application/json' };
    const explain = (body: unknown) => ask('/api/explain', { method: 'POST', headers, body: JSON.stringify(body) });
    const found = await explain({ from: 'p1-0', to: '10.244.2.10:80' });
    assert.equal(((await found.json()) as { outcome: string }).outcome, 'delivered');
    const wrong = await explain({ from: 'nobody', to: '10.244.2.10:80' });
    assert.equal(wrong.status, 400);
    assert.match(await wrong.text(), /^--from nobody: expected a pod/);
    assert.equal((await ask('/api/explain', { method: 'POST', body: '{}' })).status, 415);
    assert.equal((await ask('/api/explain', { method: 'POST', headers, body: 'x' })).status, 400);
    assert.equal((await ask('/api/explain', { method: 'POST', headers, body: ' '.repeat(2 << 20) })).status, 413);
    assert.equal((await ask('/api/nothing')).status, 404);
  });
});

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { TOPOLOGIES } from '../../datapath/lab/topology-file.ts';
import { createWhoami, noiseDigest } from '../../datapath/lab/whoami.ts';

const LINK_LOCAL = TOPOLOGIES.cilium!.pods.find(pod => pod.name === 'webpod-w0')!.linkLocal!;

const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

describe('whoami', () => {
  let server: Server;
  let port: number;

  before(async () => {
    server = createWhoami({
      hostname: 'webpod-697b545f57-24ck5',
      addresses: ['127.0.0.1', '::1', '172.20.2.73', LINK_LOCAL],
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    port = (server.address() as AddressInfo).port;
  });

  after(() => {
    server.closeAllConnections();
    server.close();
  });

  /** The whole answer to one request, and the port it was asked from. */
  async function exchange(request: string): Promise<{ answer: string; from: number }> {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    const from = socket.localPort!;
    let answer = '';
    socket.setEncoding('latin1').on('data', chunk => {
      answer += chunk;
    });
    // No "Connection: close": the answer must come as it does to curl, which keeps the connection and closes itself.
    socket.write(request);
    while (!complete(answer)) await once(socket, 'data');
    socket.destroy();
    return { answer, from };
  }

  function complete(answer: string): boolean {
    const end = answer.indexOf('\r\n\r\n');
    return end >= 0 && answer.length - end - 4 >= Number(/Content-Length: (\d+)/.exec(answer)![1]);
  }

  it('answers curl with as many bytes as the webpod of article 001: 441 in the frame, 319 in TCP', async () => {
    const request = 'GET / HTTP/1.1\r\nHost: webpod\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n';
    assert.equal(request.length, 70);
    const { answer, from } = await exchange(request);
    const [head, body] = [answer.slice(0, answer.indexOf('\r\n\r\n')), answer.slice(answer.indexOf('\r\n\r\n') + 4)];
    const lines = [
      'Hostname: webpod-697b545f57-24ck5\n',
      'IP: 127.0.0.1\n',
      'IP: ::1\n',
      'IP: 172.20.2.73\n',
      `IP: ${LINK_LOCAL}\n`,
      `RemoteAddr: 127.0.0.1:${from}\n`,
      request,
    ];
    assert.equal(body, lines.join(''));
    assert.deepEqual(
      head
        .split('\r\n')
        .slice(1)
        .map(line => line.split(':')[0])
        .sort(),
      ['Content-Length', 'Content-Type', 'Date'],
    );
    // The article's client is 172.20.0.89, two characters more than 127.0.0.1, with a port of five digits.
    const inArticle = answer.length + '172.20.0.89'.length - '127.0.0.1'.length + (5 - String(from).length);
    assert.equal(inArticle, 319);
  });

  it('lists the other headers by name', async () => {
    const { answer } = await exchange('GET /a?b HTTP/1.1\r\nx-b: 2\r\nHost: h\r\naccept: x\r\n\r\n');
    assert.ok(answer.endsWith('GET /a?b HTTP/1.1\r\nHost: h\r\nAccept: x\r\nX-B: 2\r\n\r\n'), answer);
  });

  for (const length of [0, 1, 1_048_573, 3_000_000]) {
    it(`sends ${length} bytes with their hash, the same every time`, async () => {
      const first = await fetch(`http://127.0.0.1:${port}/bytes/${length}`);
      const body = new Uint8Array(await first.arrayBuffer());
      assert.equal(body.length, length);
      assert.equal(sha256(body), first.headers.get('x-sha256'));
      assert.equal(sha256(body), noiseDigest(length));
    });
  }

  it('sends noise, not a pattern', async () => {
    const body = new Uint8Array(await (await fetch(`http://127.0.0.1:${port}/bytes/100000`)).arrayBuffer());
    const seen = new Set<number>(body);
    assert.equal(seen.size, 256);
  });

  it('hashes what it is given', async () => {
    const upload = Buffer.alloc(2_000_000, 'tunpath');
    for (const method of ['POST', 'PUT']) {
      const response = await fetch(`http://127.0.0.1:${port}/`, { method, body: upload });
      assert.equal(await response.text(), `sha256: ${sha256(upload)}\nbytes: 2000000\n`);
    }
  });

  it('refuses a download without end', async () => {
    assert.equal((await fetch(`http://127.0.0.1:${port}/bytes/99999999999`)).status, 400);
  });
});

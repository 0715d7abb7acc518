/** The control socket against clients of every kind: whatever they do, the next one is answered. */
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { existsSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { callNode, streamFromNode } from '../../datapath/control/client.ts';
import { keepListening, serve } from '../../datapath/control/server.ts';
import { Random } from '../../datapath/random.ts';
import { temporaryDirectory } from '../fixtures/directory.ts';

const MIB = 1024 * 1024;
const ROWS_PER_PIECE = 1000;
/** Longer than the socket's buffer takes. */
const ROW = { text: 'x'.repeat(200) };

describe('control socket', function () {
  this.timeout(60_000);
  const directory = temporaryDirectory('server');
  const path = join(directory, 'a.sock');
  const errors: Error[] = [];
  /** Pieces that the endless table has made, and tables that were left early. */
  let made = 0;
  let left = 0;
  let server: { close(): Promise<void> };

  async function* table(pieces: number): AsyncGenerator<unknown[]> {
    try {
      for (let i = 0; i < pieces; i++) {
        made++;
        yield new Array(ROWS_PER_PIECE).fill(ROW);
      }
    } finally {
      left++;
    }
  }

  before(async () => {
    const handler = async (method: string, params: Record<string, unknown>) => {
      if (method === 'echo') return params;
      if (method === 'fail') throw new Error('as asked');
      if (method === 'table') return table(Number(params.pieces));
      throw new Error(`unknown method "${method}"`);
    };
    server = await serve(path, handler, { onError: error => errors.push(error), maxLineBytes: 4 * MIB });
  });
  beforeEach(() => {
    made = 0;
    left = 0;
  });
  afterEach(async () => {
    assert.deepEqual(await callNode(path, 'echo', { alive: true }), { alive: true });
    assert.deepEqual(errors, []);
  });
  after(async () => {
    await server.close();
  });

  async function open(): Promise<Socket> {
    const socket = connect(path);
    socket.on('error', () => {});
    await once(socket, 'connect');
    return socket;
  }

  /** What a client that sends `text` and has nothing more to say reads. */
  async function converse(text: string): Promise<unknown[]> {
    const socket = await open();
    socket.end(text);
    let received = '';
    for await (const chunk of socket.setEncoding('utf8')) received += chunk;
    return received
      .split('\n')
      .slice(0, -1)
      .map(line => JSON.parse(line));
  }

  it('answers requests in their order, each with its id, also when they come in one piece', async () => {
    const lines = ['{"id":1,"method":"echo","params":{"a":1}}', '', '{"id":"b","method":"fail"}', '{"method":"echo"}'];
    assert.deepEqual(await converse(`${lines.join('\n')}\n`), [
      { id: 1, result: { a: 1 } },
      { id: 'b', error: 'as asked' },
      { id: null, result: {} },
    ]);
  });

  const refused: [what: string, line: string, error: RegExp][] = [
    ['no JSON', '{"id":1', /^a request is a JSON object in one line: /],
    ['null', 'null', /^a request is an object with a method/],
    ['a number', '7', /^a request is an object with a method/],
    ['no method', '{"id":3}', /^a request is an object with a method/],
    ['params that are none', '{"method":"echo","params":[1]}', /^params of a request are an object$/],
    ['brackets without end', '['.repeat(MIB), /^a request is a JSON object in one line/],
  ];
  for (const [what, line, error] of refused) {
    it(`refuses ${what}`, async () => {
      const [answer] = (await converse(`${line}\n`)) as { error: string }[];
      assert.match(answer.error, error);
    });
  }

  it('sends a table in pieces, an empty one as well', async () => {
    assert.equal(((await callNode(path, 'table', { pieces: 3 })) as unknown[]).length, 3 * ROWS_PER_PIECE);
    assert.deepEqual(await callNode(path, 'table', { pieces: 0 }), []);
  });

  it('refuses a line without end as soon as it is too long, and holds no more of it', async () => {
    const before = process.memoryUsage().rss;
    const socket = await open();
    const chunk = Buffer.alloc(MIB, 'x');
    let received = '';
    socket.setEncoding('utf8').on('data', text => {
      received += text;
    });
    let sent = 0;
    for (; sent < 512 && !socket.destroyed; sent++) {
      if (!socket.write(chunk)) await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => {});
    }
    assert.ok(sent < 20, `${sent} MiB were taken`);
    assert.match(received, /a request is too long: at most 4194304 bytes/);
    assert.ok(process.memoryUsage().rss - before < 100 * MIB);
  });

  it('lets many lines without end have no more together than a few alone', async () => {
    const sockets = await Promise.all(Array.from({ length: 40 }, open));
    const piece = Buffer.alloc(3 * MIB, 'x');
    for (const socket of sockets) socket.write(piece);
    const deadline = Date.now() + 10_000;
    // 64 MiB is 21 of them: the others are refused.
    while (sockets.filter(socket => socket.readableEnded || socket.destroyed).length < 10 && Date.now() < deadline) {
      for (const socket of sockets) socket.resume();
      await sleep(10);
    }
    assert.ok(sockets.filter(socket => socket.readableEnded || socket.destroyed).length >= 10);
    for (const socket of sockets) socket.destroy();
    await sleep(50);
  });

  it('makes of a table what its reader takes, and stops when the reader hangs up', async () => {
    const socket = await open();
    socket.write('{"id":1,"method":"table","params":{"pieces":100000}}\n');
    await sleep(300);
    const early = made;
    assert.ok(early > 0 && early < 20, `${early} pieces were made for a reader that does not read`);
    await sleep(100);
    assert.equal(made, early);
    socket.destroy();
    const deadline = Date.now() + 5000;
    while (left === 0 && Date.now() < deadline) await sleep(5);
    assert.equal(left, 1);
  });

  it('reads no further than it answers: requests of a client that does not read wait in its socket', async () => {
    const socket = await open();
    const request = `${JSON.stringify({ method: 'table', params: { pieces: 100 } })}\n`;
    socket.write(request.repeat(50_000));
    await sleep(300);
    assert.ok(made < 20, `${made} pieces`);
    socket.destroy();
  });

  it('gives its client the time that the client takes', async () => {
    let count = 0;
    for await (const rows of streamFromNode(path, 'table', { pieces: 30 }, 2000)) {
      if (count === 0) await sleep(2500);
      count += rows.length;
    }
    assert.equal(count, 30 * ROWS_PER_PIECE);
  });

  it('outlives a client that goes after every byte of its request and of its answer', async () => {
    const request = '{"id":1,"method":"table","params":{"pieces":2}}\n';
    for (let length = 0; length <= request.length; length++) {
      const socket = await open();
      socket.write(request.slice(0, length));
      if (length % 2 === 0) await sleep(1);
      socket.destroy();
    }
    for (let length = 1; length < 40; length++) {
      const socket = await open();
      socket.write(request);
      while (socket.read(length) === null) await Promise.race([once(socket, 'readable'), sleep(1000)]);
      socket.destroy();
    }
  });

  it('outlives 500 connections at once that do whatever comes to them, and answers another meanwhile', async () => {
    const random = new Random(20261127);
    const below = (n: number) => random.below(n);
    const whole = '{"id":1,"method":"echo","params":{"a":"ä€𝄞"}}\n{"id":2,"method":"table","params":{"pieces":5}}\n';
    const client = async () => {
      const socket = await open();
      const bytes = Buffer.from(whole.repeat(1 + below(3)));
      if (below(4) === 0) for (let i = 0; i < 5; i++) bytes[below(bytes.length)] = below(256);
      if (below(2) === 0) socket.resume();
      for (let at = 0; at < bytes.length && !socket.destroyed; ) {
        const end = at + 1 + below(60);
        socket.write(bytes.subarray(at, end));
        at = end;
        if (below(10) === 0) break;
        if (below(3) === 0) await sleep(below(4));
      }
      if (below(3) === 0) socket.end();
      else if (below(2) === 0) socket.destroy();
      return socket;
    };
    const sockets = await Promise.all(Array.from({ length: 500 }, client));
    // They and the server are one process here, which may have little of a busy machine.
    assert.deepEqual(await callNode(path, 'echo', { still: 1 }, 60_000), { still: 1 });
    for (const socket of sockets) socket.destroy();
  });

  it('is there again when its socket has been removed, or the whole directory; a conversation goes on meanwhile', async () => {
    const socket = await open();
    const answers = socket.setEncoding('utf8')[Symbol.asyncIterator]();
    for (const what of [path, directory]) {
      rmSync(what, { recursive: true });
      const request = { id: 1, method: 'echo', params: { what } };
      socket.write(`${JSON.stringify(request)}\n`);
      assert.deepEqual(JSON.parse((await answers.next()).value), { id: 1, result: { what } });
      while (!existsSync(path)) await sleep(20);
      assert.equal(statSync(path).mode & 0o777, 0o600);
      while (
        !(await callNode(path, 'echo', {}).then(
          () => true,
          () => false,
        ))
      )
        await sleep(20);
    }
    socket.destroy();
  });

  it('closed the moment its socket is made again, it leaves none behind', async () => {
    const other = join(directory, 'other.sock');
    const listener = await keepListening(
      other,
      socket => socket.destroy(),
      error => assert.fail(error),
    );
    rmSync(other);
    while (!existsSync(other)) await new Promise(setImmediate);
    await listener.close();
    assert.equal(existsSync(other), false);
  });
});

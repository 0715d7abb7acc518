/**
 * A TCP connection that is held open, as its own process inside a namespace:
 *
 *   serve PORT             sends back what comes
 *   hold ADDRESS PORT      one connection; a numbered line every 50 ms, each expected back
 *   file PORT BYTES        an HTTP server whose every answer is pattern(BYTES)
 *
 * `hold` runs until SIGTERM, and then prints {sent, answered, maxGapMs, error}.
 */
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { pattern } from '../fixtures/packets.ts';

const INTERVAL_MS = 50;
/** For the last answer. */
const PATIENCE_MS = 1500;
const PIECE = 1 << 20;

async function serve(port: number): Promise<void> {
  const server = createServer(connection => {
    connection.on('error', () => {});
    connection.pipe(connection);
  });
  server.listen(port);
  await once(server, 'listening');
  process.stdout.write('listening\n');
}

async function hold(address: string, port: number): Promise<void> {
  const connection = connect({ host: address, port, noDelay: true });
  let sent = 0;
  let answered = 0;
  let last = 0;
  let maxGapMs = 0;
  let error: string | null = null;
  connection.on('error', failure => {
    error = failure.message;
  });
  connection.on('close', () => {
    error ??= 'closed by the other side';
  });
  await once(connection, 'connect');
  createInterface({ input: connection }).on('line', line => {
    if (Number(line) !== answered) error ??= `got ${line}, expected ${answered}`;
    answered++;
    const now = performance.now();
    if (last !== 0) maxGapMs = Math.max(maxGapMs, now - last);
    last = now;
  });
  const timer = setInterval(() => connection.write(`${sent++}\n`), INTERVAL_MS);
  process.stdout.write('connected\n');
  await once(process, 'SIGTERM');
  clearInterval(timer);
  const deadline = performance.now() + PATIENCE_MS;
  while (answered < sent && error === null && performance.now() < deadline) await sleep(10);
  process.stdout.write(`${JSON.stringify({ sent, answered, maxGapMs: Math.round(maxGapMs), error })}\n`);
  process.exit(0);
}

async function serveFile(port: number, bytes: number): Promise<void> {
  const piece = pattern(PIECE);
  const server = createHttpServer(async (_request, response) => {
    response.setHeader('content-length', bytes);
    for (let at = 0; at < bytes; at += PIECE) {
      if (!response.write(piece.subarray(0, Math.min(PIECE, bytes - at)))) await once(response, 'drain');
    }
    response.end();
  });
  server.listen(port);
  await once(server, 'listening');
  process.stdout.write('listening\n');
}

const [role, ...args] = process.argv.slice(2);
if (role === 'serve') await serve(Number(args[0]));
else if (role === 'hold') await hold(args[0], Number(args[1]));
else if (role === 'file') await serveFile(Number(args[0]), Number(args[1]));
else throw new Error(`unknown role ${role}`);

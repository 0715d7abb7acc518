/**
 * The control socket: a Unix stream socket with one JSON object per line. A request is `{id, method, params}`. Its answer
 * is `{id, result}` or `{id, error}`; a table comes before that as any number of `{id, rows: [...]}`, each made when the
 * one before it has been taken. Only root may connect (mode 0600).
 *
 * Requests of one connection are answered one after the other. What a client sends waits in its socket until then, and
 * what it does not read is not made, so that neither is held here.
 */
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';

/** For clients to read their last answer. */
const CLOSE_GRACE_MS = 200;
/** How often it is looked whether the socket is still there. */
const LOOK_MS = 1000;
/** Of a request. A configuration with ten thousand services has 5 MB. */
const MAX_LINE_BYTES = 32 * 1024 * 1024;
/** Of requests that have not ended yet, of all connections together. */
const MAX_PENDING_BYTES = 2 * MAX_LINE_BYTES;
const NEWLINE = 10;

/** The answer to a request; an iterable of arrays is sent as a table, an array at a time. */
export type Handler = (method: string, params: Record<string, unknown>) => Promise<unknown | AsyncIterable<unknown[]>>;

export interface ServeOptions {
  /** Told what went wrong that no client could be told. */
  onError?: (error: Error) => void;
  maxLineBytes?: number;
}

/** Where a node of this name listens. */
export function socketPath(node: string): string {
  return `/run/tunpath/${node}.sock`;
}

/** Where it serves Hubble's API. */
export function hubbleSocketPath(node: string): string {
  return `/run/tunpath/${node}.hubble.sock`;
}

/**
 * Listens on the control socket. One that a killed node left behind is replaced; that no other is
 * alive, the lock has shown (lock.ts).
 */
export async function serve(
  path: string,
  handler: Handler,
  { onError = () => {}, maxLineBytes = MAX_LINE_BYTES }: ServeOptions = {},
): Promise<{ close(): Promise<void> }> {
  const connections = new Set<Socket>();
  const pending: Pending = { bytes: 0, maxLineBytes };
  const accept = (socket: Socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
    // A client that hangs up is no event. Without a listener it would end the process.
    socket.on('error', () => socket.destroy());
    converse(socket, pending, handler)
      .catch(error => {
        if (!socket.destroyed) onError(error as Error);
      })
      .finally(() => socket.destroy());
  };
  const listener = await keepListening(path, accept, onError, true);
  return {
    close: async () => {
      for (const socket of connections) socket.end();
      // A client that does not hang up must not keep the node from ending.
      const late = setTimeout(() => {
        for (const socket of connections) socket.destroy();
      }, CLOSE_GRACE_MS);
      await listener.close();
      // Some may have come before the socket was made again, which the listener does not wait for.
      if (connections.size === 0) clearTimeout(late);
    },
  };
}

/**
 * As listenPrivately(), and again where the socket has been removed: who tidies up /run would leave a node that nobody can
 * ask anything. Conversations go on meanwhile.
 * @returns close() waits for those of the last socket
 */
export async function keepListening(
  path: string,
  accept: (socket: Socket) => void,
  onError: (error: Error) => void,
  allowHalfOpen = false,
): Promise<{ close(): Promise<void> }> {
  let server = await listenPrivately(path, accept, onError, allowHalfOpen);
  let again: Promise<void> | null = null;
  const watch = setInterval(() => {
    if (again !== null || existsSync(path)) return;
    // Its closing unlinks the path, so first.
    server.close();
    again = listenPrivately(path, accept, onError, allowHalfOpen)
      .then(another => {
        server = another;
      })
      .catch(onError)
      .finally(() => {
        again = null;
      });
  }, LOOK_MS).unref();
  return {
    close: async () => {
      clearInterval(watch);
      await again;
      const closed = new Promise(resolve => server.close(resolve));
      rmSync(path, { force: true });
      await closed;
    },
  };
}

/**
 * Listens on a unix socket that only its owner may use; what stood in its place is removed.
 * @param onError what goes wrong once it listens; accept() fails where descriptors have run out
 * @param allowHalfOpen a client that has nothing more to ask still reads
 * @throws Error when it cannot
 */
async function listenPrivately(
  path: string,
  accept: (socket: Socket) => void,
  onError: (error: Error) => void,
  allowHalfOpen = false,
): Promise<Server> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  rmSync(path, { force: true });
  const server = createServer({ allowHalfOpen }, accept);
  const umask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  } finally {
    process.umask(umask);
  }
  server.on('error', onError);
  chmodSync(path, 0o600);
  return server;
}

interface Pending {
  bytes: number;
  readonly maxLineBytes: number;
}

/** Answers the requests of one client until it has no more of them. */
async function converse(socket: Socket, pending: Pending, handler: Handler): Promise<void> {
  try {
    for await (const line of linesOf(socket, pending)) {
      if (line === null) {
        await send(socket, { id: null, error: `a request is too long: at most ${pending.maxLineBytes} bytes` });
        break;
      }
      await answer(socket, line, handler);
    }
  } catch (error) {
    // What reading and writing throw when the other end is gone. Anything else is ours.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return;
  }
  if (!socket.destroyed) await new Promise<void>(resolve => socket.end(resolve));
}

/** Lines as they end, and null where one does not. Reads no further than the line that is asked for. */
async function* linesOf(socket: Socket, pending: Pending): AsyncGenerator<string | null> {
  let parts: Buffer[] = [];
  let length = 0;
  const release = (): void => {
    pending.bytes -= length;
    parts = [];
    length = 0;
  };
  try {
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      let from = 0;
      for (;;) {
        const end = chunk.indexOf(NEWLINE, from);
        const part = chunk.subarray(from, end < 0 ? chunk.length : end);
        length += part.length;
        pending.bytes += part.length;
        if (length > pending.maxLineBytes || pending.bytes > MAX_PENDING_BYTES) {
          release();
          yield null;
          return;
        }
        if (part.length > 0) parts.push(part);
        if (end < 0) break;
        const line = Buffer.concat(parts, length).toString('utf8');
        release();
        if (line.trim() !== '') yield line;
        from = end + 1;
      }
    }
  } finally {
    release();
  }
}

async function answer(socket: Socket, line: string, handler: Handler): Promise<void> {
  let id: unknown = null;
  let text: string;
  try {
    const request = readRequest(line);
    id = request.id;
    let result = await handler(request.method, request.params);
    if (isTable(result)) {
      let pieces = 0;
      // Ends early, and tells the table's maker, when the client is gone.
      for await (const rows of result) {
        await send(socket, { id, rows });
        pieces++;
      }
      if (pieces === 0) await send(socket, { id, rows: [] });
      result = null;
    }
    text = JSON.stringify({ id, result: result ?? null });
  } catch (error) {
    if (socket.destroyed) return;
    text = JSON.stringify({ id, error: error instanceof Error ? error.message : String(error) });
  }
  await write(socket, text);
}

/** @throws Error that says what is expected */
function readRequest(line: string): { id: unknown; method: string; params: Record<string, unknown> } {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch (error) {
    throw new Error(`a request is a JSON object in one line: ${(error as Error).message}`);
  }
  const { id = null, method, params } = (request ?? {}) as { id?: unknown; method?: unknown; params?: unknown };
  if (typeof method !== 'string') throw new Error('a request is an object with a method: {"id":1,"method":"status"}');
  if (params !== undefined && (typeof params !== 'object' || params === null || Array.isArray(params)))
    throw new Error('params of a request are an object');
  return { id, method, params: (params ?? {}) as Record<string, unknown> };
}

function isTable(result: unknown): result is AsyncIterable<unknown[]> {
  return typeof result === 'object' && result !== null && Symbol.asyncIterator in result;
}

function send(socket: Socket, message: object): Promise<void> {
  return write(socket, JSON.stringify(message));
}

/** Resolves when the client has taken so much that there is room for more. @throws Error when it is gone */
async function write(socket: Socket, text: string): Promise<void> {
  if (socket.destroyed || socket.writableEnded) throw gone();
  if (socket.write(`${text}\n`)) return;
  const stop = new AbortController();
  try {
    await Promise.race([
      once(socket, 'drain', { signal: stop.signal }),
      once(socket, 'close', { signal: stop.signal }).then(() => Promise.reject(gone())),
    ]);
  } finally {
    stop.abort();
  }
}

function gone(): Error {
  return Object.assign(new Error('the client is gone'), { code: 'EPIPE' });
}

/**
 * The control socket: a Unix stream socket with one JSON object per line. A request is {id, method, params}, its answer
 * {id, result} or {id, error}. Only root may connect (mode 0600).
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';

/** For clients to read their last answer. */
const CLOSE_GRACE_MS = 200;

export type Handler = (method: string, params: Record<string, unknown>) => Promise<unknown>;

/** Where a node of this name listens. */
export function socketPath(node: string): string {
  return `/run/tunpath/${node}.sock`;
}

/** Listens. A socket that a killed node left behind is replaced; that no other is alive, the lock has shown (lock.ts). */
export async function serve(path: string, handler: Handler): Promise<{ close(): Promise<void> }> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  rmSync(path, { force: true });
  const connections = new Set<Socket>();
  const server: Server = createServer(socket => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
    socket.on('error', () => socket.destroy());
    createInterface({ input: socket }).on('line', line => {
      void answer(line, handler).then(text => {
        if (!socket.destroyed) socket.write(`${text}\n`);
      });
    });
  });
  const umask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  } finally {
    process.umask(umask);
  }
  chmodSync(path, 0o600);
  return {
    close: () =>
      new Promise(resolve => {
        for (const socket of connections) socket.end();
        // A client that does not hang up must not keep the node from ending.
        const late = setTimeout(() => {
          for (const socket of connections) socket.destroy();
        }, CLOSE_GRACE_MS);
        server.close(() => {
          clearTimeout(late);
          resolve();
        });
        rmSync(path, { force: true });
      }),
  };
}

async function answer(line: string, handler: Handler): Promise<string> {
  let id: unknown = null;
  try {
    const request = JSON.parse(line) as { id?: unknown; method?: unknown; params?: Record<string, unknown> };
    id = request.id ?? null;
    if (typeof request.method !== 'string') throw new Error('a request needs a method');
    return JSON.stringify({ id, result: (await handler(request.method, request.params ?? {})) ?? null });
  } catch (error) {
    return JSON.stringify({ id, error: error instanceof Error ? error.message : String(error) });
  }
}

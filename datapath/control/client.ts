/**
 * The client's end of a node's control socket: a stream of JSON documents, one per line. A request is
 * `{id, method, params}`, its answer `{id, result}` or `{id, error}`; a table comes before that as `{id, rows: [...]}`,
 * any number of them.
 */

import { connect, type Socket } from 'node:net';

/** Sockets of running nodes are here, as NAME.sock, mode 0600. */
export const RUN_DIR = '/run/tunpath';

/** How long a node may say nothing. The time that the caller takes for what has come does not count. */
const SILENCE_MS = 15_000;

/** The node could not be asked, or refused. */
export class ControlError extends Error {
  override name = 'ControlError';
  readonly exitCode = 1;
}

/** It does not run, has ended, or says nothing. */
export class GoneError extends ControlError {
  override name = 'GoneError';
}

interface Answer {
  rows?: unknown[];
  result?: unknown;
  error?: { message?: string } | string;
}

/**
 * Sends one request and waits for its answer: the result, or all rows of a table.
 * @throws ControlError when nothing listens, when the node answers with an error, or says nothing for `silenceMs`
 */
export async function callNode(
  socketPath: string,
  method: string,
  params: Record<string, unknown> = {},
  silenceMs = SILENCE_MS,
): Promise<unknown> {
  const pieces: unknown[][] = [];
  const answers = answersOf(socketPath, method, params, silenceMs);
  for (;;) {
    const { value, done } = await answers.next();
    if (done !== true) pieces.push(value);
    else return pieces.length > 0 ? pieces.flat() : value;
  }
}

/**
 * Rows of a table as they come, in pieces. The node makes no more of them than are taken.
 * @throws ControlError as callNode
 */
export async function* streamFromNode<Row>(
  socketPath: string,
  method: string,
  params: Record<string, unknown> = {},
  silenceMs = SILENCE_MS,
): AsyncGenerator<Row[]> {
  const answers = answersOf(socketPath, method, params, silenceMs);
  try {
    for (;;) {
      const { value, done } = await answers.next();
      if (done !== true) yield value as Row[];
      else {
        if (Array.isArray(value)) yield value as Row[];
        return;
      }
    }
  } finally {
    await answers.return(null);
  }
}

/** Yields the pieces of a table. @returns the result */
async function* answersOf(
  socketPath: string,
  method: string,
  params: Record<string, unknown>,
  silenceMs: number,
): AsyncGenerator<unknown[], unknown> {
  const socket = connect(socketPath);
  socket.setEncoding('utf8');
  socket.write(`${JSON.stringify({ id: 1, method, params })}\n`);
  try {
    for await (const line of linesOf(socket, method, silenceMs)) {
      const { rows, result, error } = JSON.parse(line) as Answer;
      if (error !== undefined) {
        const message = typeof error === 'string' ? error : error.message;
        throw new ControlError(message ?? 'the node refused without a reason');
      }
      if (rows === undefined) return result;
      yield rows;
    }
    throw new GoneError(`${socketPath}: closed before it answered '${method}'`);
  } catch (error) {
    throw asControlError(socketPath, error);
  } finally {
    socket.destroy();
  }
}

async function* linesOf(socket: Socket, method: string, silenceMs: number): AsyncGenerator<string> {
  const chunks = (socket as AsyncIterable<string>)[Symbol.asyncIterator]();
  let parts: string[] = [];
  for (;;) {
    const chunk = await within(silenceMs, chunks.next(), () => {
      socket.destroy(new GoneError(`no answer to '${method}' within ${silenceMs} ms`));
    });
    if (chunk.done) return;
    const ends = chunk.value.split('\n');
    for (const [i, part] of ends.entries()) {
      parts.push(part);
      if (i === ends.length - 1) break;
      yield parts.join('');
      parts = [];
    }
  }
}

async function within<T>(ms: number, result: Promise<T>, late: () => void): Promise<T> {
  const timer = setTimeout(late, ms);
  try {
    return await result;
  } finally {
    clearTimeout(timer);
  }
}

function asControlError(socketPath: string, error: unknown): ControlError {
  if (error instanceof ControlError) return error;
  if (error instanceof SyntaxError) return new ControlError(`${socketPath}: the answer is not JSON`);
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'EACCES':
    case 'EPERM':
      return new ControlError(`${socketPath}: only root may ask a node: run this as root`);
    case 'ENOENT':
      return new GoneError(`${socketPath}: no node of this name runs here`);
    case 'ECONNREFUSED':
      return new GoneError(
        `${socketPath}: the node is gone: its process has ended and left its socket; start it again`,
      );
    case 'ECONNRESET':
    case 'EPIPE':
      return new GoneError(`${socketPath}: the node ended before it answered`);
    default:
      return new ControlError(`${socketPath}: ${message}`);
  }
}

/**
 * The client's end of a node's control socket: a stream of JSON documents, one per line. A request is
 * `{id, method, params}`, its answer `{id, result}` or `{id, error: {message}}`.
 */

import { connect } from 'node:net';

/** Sockets of running nodes are here, as NAME.sock, mode 0600. */
export const RUN_DIR = '/run/tunpath';

/** The node could not be asked, or refused. */
export class ControlError extends Error {
  override name = 'ControlError';
  readonly exitCode = 1;
}

/**
 * Sends one request and waits for its answer.
 * @throws ControlError when nothing listens, when the node answers with an error, or after `timeoutMs`
 */
export function callNode(
  socketPath: string,
  method: string,
  params: Record<string, unknown> = {},
  timeoutMs = 5000,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let received = '';
    const fail = (reason: string): void => {
      socket.destroy();
      reject(new ControlError(`${socketPath}: ${reason}`));
    };
    socket.setEncoding('utf8');
    socket.setTimeout(timeoutMs, () => fail(`no answer to '${method}' within ${timeoutMs} ms`));
    socket.on('error', error =>
      fail((error as NodeJS.ErrnoException).code === 'EACCES' ? 'only root may ask a node' : error.message),
    );
    socket.on('close', () => fail(`closed before it answered '${method}'`));
    socket.on('connect', () => socket.write(`${JSON.stringify({ id: 1, method, params })}\n`));
    socket.on('data', (chunk: string) => {
      received += chunk;
      const end = received.indexOf('\n');
      if (end < 0) return;
      socket.destroy();
      try {
        const answer = JSON.parse(received.slice(0, end)) as {
          result?: unknown;
          error?: { message?: string } | string;
        };
        if (answer.error === undefined) return resolve(answer.result);
        const message = typeof answer.error === 'string' ? answer.error : answer.error.message;
        reject(new ControlError(message ?? 'the node refused without a reason'));
      } catch {
        reject(new ControlError(`${socketPath}: the answer is not JSON`));
      }
    });
  });
}

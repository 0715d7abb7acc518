/** exec, attach, logs and port-forward of pods, as kubectl asks for them. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Duplex, pipeline } from 'node:stream';
import { createWebSocketStream } from 'ws';
import { ApiError, badRequest } from '../errors.ts';
import type { Json, KubeObject } from '../object.ts';
import { targetOf } from '../server/handlers.ts';
import type { Registry } from '../server/registry.ts';
import type { ResourcePath } from '../server/request.ts';
import type { PodStreams } from '../server/server.ts';
import { acceptSpdy, acceptTerminal, acceptWebSocket, join } from './channels.ts';
import type { PodRuntime } from './runtime.ts';
import { SpdyConnection, type SpdyStream } from './spdy.ts';

const PORT_FORWARD = 'portforward.k8s.io';
/** SPDY inside of a WebSocket: kubectl from 1.31 on. */
const TUNNELED = `SPDY/3.1+${PORT_FORWARD}`;

/** @param runtime whoever runs the pods */
export function podStreams(registry: Registry, runtime: PodRuntime): PodStreams {
  const find = (path: ResourcePath): KubeObject => registry.get(targetOf(path), path.name!);
  return {
    async handle(request, response, path, query) {
      if (path.plural !== 'pods' || path.name === undefined) return false;
      if (path.subresource === 'log' && request.method === 'GET') {
        await sendLogs(find(path), runtime, query, response);
        return true;
      }
      if (['exec', 'attach', 'portforward'].includes(path.subresource ?? '')) {
        throw badRequest('Upgrade request required');
      }
      return false;
    },
    async upgrade(request, socket, head, path, query) {
      const { plural, name, subresource } = path;
      if (plural !== 'pods' || name === undefined) return false;
      if (subresource === 'exec' || subresource === 'attach') {
        await runInPod(find(path), subresource, runtime, query, request, socket, head);
        return true;
      }
      if (subresource !== 'portforward') return false;
      await forward(find(path), runtime, request, socket, head);
      return true;
    },
  };
}

/** @throws ApiError (400) where a pod has several and none, or an unknown one, is named */
function containerOf({ spec, metadata }: KubeObject, wanted: string | null): string {
  const names: string[] = [...spec.containers, ...(spec.ephemeralContainers ?? []), ...(spec.initContainers ?? [])].map(
    ({ name }: Json) => name,
  );
  if (wanted === null || wanted === '') {
    if (spec.containers.length === 1) return spec.containers[0].name;
    throw badRequest(
      `a container name must be specified for pod ${metadata.name}, choose one of: [${names.join(' ')}]`,
    );
  }
  if (!names.includes(wanted)) throw badRequest(`container ${wanted} is not valid for pod ${metadata.name}`);
  return wanted;
}

function isTrue(query: URLSearchParams, name: string): boolean {
  return query.get(name) === 'true' || query.get(name) === '1';
}

async function runInPod(
  pod: KubeObject,
  subresource: 'exec' | 'attach',
  runtime: PodRuntime,
  query: URLSearchParams,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const container = containerOf(pod, query.get('container'));
  const command = query.getAll('command');
  const wanted = {
    stdin: isTrue(query, 'stdin'),
    stdout: isTrue(query, 'stdout'),
    stderr: isTrue(query, 'stderr'),
    tty: isTrue(query, 'tty'),
  };
  if (subresource === 'exec' && command.length === 0)
    throw badRequest('you must specify at least one command for the container');
  // Before the upgrade, so that what cannot be done is an answer that clients show.
  const process =
    subresource === 'exec'
      ? await runtime.exec(pod, container, command, wanted)
      : await runtime.attach(pod, container, wanted);
  try {
    await join(await acceptTerminal(request, socket, head, wanted), process);
  } catch (error) {
    process.kill();
    throw error;
  }
}

async function sendLogs(
  pod: KubeObject,
  runtime: PodRuntime,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<void> {
  const container = containerOf(pod, query.get('container'));
  if (isTrue(query, 'timestamps') || query.has('sinceSeconds') || query.has('sinceTime')) {
    throw badRequest('the logs of pods here have no times: leave out --timestamps, --since and --since-time');
  }
  const number = (name: string): number | undefined => {
    const text = query.get(name);
    if (text === null) return undefined;
    if (!/^\d+$/.test(text)) throw badRequest(`${name} ${text}: expected a number`);
    return Number(text);
  };
  const log = await runtime.logs(pod, container, {
    follow: isTrue(query, 'follow'),
    previous: isTrue(query, 'previous'),
    tailLines: number('tailLines'),
    limitBytes: number('limitBytes'),
  });
  response.writeHead(200, { 'content-type': 'text/plain' });
  response.flushHeaders();
  pipeline(log, response, () => log.destroy());
}

async function forward(
  pod: KubeObject,
  runtime: PodRuntime,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  if (pod.status?.phase !== 'Running') {
    throw new ApiError(
      400,
      'BadRequest',
      `unable to forward port because pod is not running. Current status=${pod.status?.phase}`,
    );
  }
  const upgrade = (request.headers.upgrade ?? '').toLowerCase();
  let connection: Duplex = socket;
  let first = head;
  if (upgrade === 'websocket') {
    connection = createWebSocketStream(await acceptWebSocket(request, socket, head, [TUNNELED]));
    connection.on('error', () => connection.destroy());
    first = Buffer.alloc(0);
  } else if (upgrade === 'spdy/3.1') acceptSpdy(request, socket, [PORT_FORWARD]);
  else throw badRequest(`upgrade ${upgrade}: expected websocket or SPDY/3.1`);

  // Two streams for each connection, in either order: one for data, one for what went wrong.
  const waiting = new Map<string, SpdyStream>();
  new SpdyConnection(connection, first, stream => {
    const id = stream.headers.get('requestid') ?? '';
    const other = waiting.get(id);
    if (other === undefined) {
      waiting.set(id, stream);
      return;
    }
    waiting.delete(id);
    const [data, error] = stream.headers.get('streamtype') === 'data' ? [stream, other] : [other, stream];
    void forwardOne(pod, runtime, Number(stream.headers.get('port')), data, error);
  });
}

async function forwardOne(
  pod: KubeObject,
  runtime: PodRuntime,
  port: number,
  data: SpdyStream,
  error: SpdyStream,
): Promise<void> {
  try {
    const connection = await runtime.connect(pod, port);
    connection.on('error', () => data.destroy());
    data.on('close', () => connection.destroy());
    data.pipe(connection);
    connection.pipe(data);
    connection.once('close', () => error.end());
  } catch (cause) {
    error.end(`an error occurred forwarding ${port} -> ${port}: ${(cause as Error).message}`);
    data.end();
  }
}

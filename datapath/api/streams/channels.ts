/**
 * How a client's terminal is joined to a process, by either protocol: with WebSockets every message begins with the number of
 * its channel; with SPDY each is a stream of its own.
 */
import type { IncomingMessage } from 'node:http';
import { type Duplex, PassThrough, type Readable, type Writable } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { badRequest, type Status } from '../errors.ts';
import type { ContainerProcess } from './runtime.ts';
import { SpdyConnection, type SpdyStream } from './spdy.ts';

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;
/** v5: `255, n` says that channel n has no more. */
const CLOSE = 255;

const WS_PROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'];
const SPDY_PROTOCOLS = ['v4.channel.k8s.io', 'v3.channel.k8s.io'];
const BUFFERED_BYTES = 4 << 20;
const STREAM_TIMEOUT_MS = 30_000;

export interface Wanted {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
}

/** The client's end. */
export interface Terminal {
  stdin?: Readable;
  stdout?: Writable;
  stderr?: Writable;
  /** Hears of each size of the client's window. */
  onResize(listener: (columns: number, rows: number) => void): void;
  /** Tells how it ended, and ends the connection when that is sent. */
  finish(status: Partial<Status>): void;
  /** The client is gone. */
  closed: Promise<void>;
}

/** @throws ApiError where the client speaks neither protocol */
export async function acceptTerminal(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  wanted: Wanted,
): Promise<Terminal> {
  const upgrade = (request.headers.upgrade ?? '').toLowerCase();
  if (upgrade === 'websocket')
    return websocketTerminal(await acceptWebSocket(request, socket, head, WS_PROTOCOLS), wanted);
  if (upgrade === 'spdy/3.1') {
    acceptSpdy(request, socket, SPDY_PROTOCOLS);
    return spdyTerminal(socket, head, wanted);
  }
  throw badRequest(`upgrade ${upgrade}: expected websocket or SPDY/3.1`);
}

/** Answers the upgrade; the first of the protocols that both know is spoken. @throws ApiError (400) if there is none */
export function acceptWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  protocols: readonly string[],
): Promise<WebSocket> {
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map(text => text.trim());
  const chosen = protocols.find(protocol => offered.includes(protocol));
  if (chosen === undefined) throw badRequest(`unable to upgrade: none of ${protocols.join(', ')} was offered`);
  const server = new WebSocketServer({ noServer: true, handleProtocols: () => chosen, maxPayload: 1 << 24 });
  return new Promise(resolve => server.handleUpgrade(request, socket, head, resolve));
}

/** Answers the upgrade. @throws ApiError (400) where the client offers none of the protocols */
export function acceptSpdy(request: IncomingMessage, socket: Duplex, protocols: readonly string[]): void {
  const offered = [request.headers['x-stream-protocol-version'] ?? []]
    .flat()
    .flatMap(text => text.split(','))
    .map(text => text.trim());
  const chosen = protocols.find(protocol => offered.includes(protocol));
  if (chosen === undefined) throw badRequest(`unable to upgrade: none of ${protocols.join(', ')} was offered`);
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${chosen}\r\n\r\n`,
  );
}

function websocketTerminal(websocket: WebSocket, { stdin, stdout, stderr, tty }: Wanted): Terminal {
  const input = new PassThrough();
  let listener: (columns: number, rows: number) => void = () => {};
  let size: [number, number] | undefined;
  const output = (channel: number): Writable => {
    const stream = new PassThrough();
    stream.on('data', (chunk: Buffer) => {
      websocket.send(Buffer.concat([Buffer.from([channel]), chunk]), () => {
        if (websocket.bufferedAmount < BUFFERED_BYTES) stream.resume();
      });
      if (websocket.bufferedAmount > BUFFERED_BYTES) stream.pause();
    });
    return stream;
  };
  websocket.on('message', (data: Buffer) => {
    const [channel, ...rest] = data.subarray(0, 2);
    if (channel === STDIN) {
      if (!input.writableEnded) input.write(data.subarray(1));
    } else if (channel === RESIZE) {
      size = readSize(data.subarray(1).toString());
      if (size !== undefined) listener(...size);
    } else if (channel === CLOSE && rest[0] === STDIN) input.end();
  });
  const closed = new Promise<void>(resolve => websocket.once('close', () => resolve()));
  websocket.on('error', () => websocket.terminate());
  void closed.then(() => input.end());
  return {
    ...(stdin ? { stdin: input } : {}),
    ...(stdout ? { stdout: output(STDOUT) } : {}),
    ...(stderr && !tty ? { stderr: output(STDERR) } : {}),
    onResize: hear => {
      listener = hear;
      if (size !== undefined) hear(...size);
    },
    finish: status => {
      websocket.send(Buffer.concat([Buffer.from([ERROR]), Buffer.from(JSON.stringify(status))]));
      websocket.close(1000);
    },
    closed,
  };
}

function readSize(text: string): [number, number] | undefined {
  try {
    const { Width, Height } = JSON.parse(text) as { Width?: number; Height?: number };
    return Number(Width) > 0 && Number(Height) > 0 ? [Number(Width), Number(Height)] : undefined;
  } catch {
    return undefined;
  }
}

async function spdyTerminal(socket: Duplex, head: Buffer, { stdin, stdout, stderr, tty }: Wanted): Promise<Terminal> {
  const types = [
    'error',
    ...(stdin ? ['stdin'] : []),
    ...(stdout ? ['stdout'] : []),
    ...(stderr && !tty ? ['stderr'] : []),
    ...(tty ? ['resize'] : []),
  ];
  const streams = new Map<string, SpdyStream>();
  const closed = new Promise<void>(resolve => socket.once('close', () => resolve()));
  let connection: SpdyConnection | undefined;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy();
      reject(badRequest(`the client did not open the streams ${types.join(', ')}`));
    }, STREAM_TIMEOUT_MS);
    const settle = (): void => {
      clearTimeout(timer);
      resolve();
    };
    connection = new SpdyConnection(socket, head, stream => {
      streams.set(stream.headers.get('streamtype') ?? '', stream);
      if (types.every(type => streams.has(type))) settle();
    });
    void closed.then(settle);
  });
  const input = streams.get('stdin');
  return {
    ...(input === undefined ? {} : { stdin: input }),
    ...(streams.has('stdout') ? { stdout: streams.get('stdout')! } : {}),
    ...(streams.has('stderr') ? { stderr: streams.get('stderr')! } : {}),
    onResize: hear => {
      streams.get('resize')?.on('data', (chunk: Buffer) => {
        const size = readSize(chunk.toString());
        if (size !== undefined) hear(...size);
      });
    },
    finish: status => {
      const error = streams.get('error');
      if (error === undefined) {
        socket.destroy();
        return;
      }
      error.end(JSON.stringify(status));
      for (const [type, stream] of streams) if (type !== 'error') stream.end();
      // kubectl hangs up when it has read how it ended; one that does not is hung up on.
      error.once('finish', () => setTimeout(() => connection?.end(), 1000).unref());
    },
    closed,
  };
}

/** Joins a process to a terminal until either is gone. */
export async function join(terminal: Terminal, process: ContainerProcess): Promise<void> {
  if (terminal.stdin !== undefined && process.stdin !== undefined) {
    process.stdin.on('error', () => {});
    terminal.stdin.pipe(process.stdin);
  }
  const printed = [pour(process.stdout, terminal.stdout), pour(process.stderr, terminal.stderr)];
  terminal.onResize((columns, rows) => process.resize?.(columns, rows));
  let gone = false;
  void terminal.closed.then(() => {
    gone = true;
    process.kill();
  });
  const code = await process.exit;
  await Promise.all(printed);
  if (!gone) terminal.finish(statusOf(code));
}

/** Until the source ends; what nobody wants is thrown away. */
function pour(from: Readable | undefined, to: Writable | undefined): Promise<void> {
  if (from === undefined) return Promise.resolve();
  from.on('error', () => {});
  if (to === undefined) from.resume();
  else {
    to.on('error', () => from.resume());
    from.pipe(to, { end: false });
  }
  return new Promise(resolve => {
    from.once('close', () => resolve());
    from.once('end', () => resolve());
  });
}

function statusOf(code: number): Partial<Status> {
  if (code === 0) return { metadata: {}, status: 'Success' };
  return {
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: exit status ${code}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: `${code}` }] },
  };
}

/**
 * The page over HTTP, for one person on this machine. It listens on a loopback address; who has no token gets 401, and a
 * request by another name of the host than that address or localhost 403, so that no page elsewhere can be made to lead
 * here (DNS rebinding). The token comes with the first request, and is a cookie afterwards.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Asset, liveAssets } from './assets.ts';
import type { ChangeRequest, ExplainRequest, Sink, Source } from './protocol.ts';

const HEADERS = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-store',
};
const TOKEN_BYTES = 24;
const MAX_BODY = 1 << 20;
/** What waits for a page that does not read; more is not sent but counted. */
const MAX_WAITING = 4 << 20;

/** Whom the page is about. */
export interface Shown extends Pick<Source, 'explain' | 'change' | 'prove' | 'conformance'> {
  /** Tells a page what happens. @returns what ends it */
  join(sink: Sink): () => void;
  /** Packets at all ports, until `signal` says so. @throws Error for a filter that is none */
  packets(filter: string, drops: boolean, signal: AbortSignal, sink: Sink): Promise<void>;
  close(): void;
}

export interface UiServer {
  /** With the token. */
  url: string;
  close(): Promise<void>;
}

/** @throws the error of listen(2) */
export async function serveUi(shown: Shown, { host, port }: { host: string; port: number }): Promise<UiServer> {
  const token = randomBytes(TOKEN_BYTES).toString('base64url');
  const site = new Site(shown, token);
  const server = createServer((request, response) => void site.answer(request, response));
  await listen(server, host, port);
  site.port = (server.address() as AddressInfo).port;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${site.port}/?token=${token}`,
    close: () => {
      shown.close();
      server.closeAllConnections();
      return new Promise(resolve => server.close(() => resolve()));
    },
  };
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
}

/** An answer that is no success. */
class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

class Site {
  port = 0;
  private readonly shown: Shown;
  private readonly token: Buffer;
  private readonly assets: ReadonlyMap<string, Asset>;

  constructor(shown: Shown, token: string) {
    this.shown = shown;
    this.token = Buffer.from(token);
    this.assets = liveAssets();
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    try {
      this.checkHost(request);
      await this.route(request, response);
    } catch (error) {
      if (response.headersSent) {
        response.destroy();
        return;
      }
      const status = error instanceof Refusal ? error.status : 400;
      response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' });
      response.end(`${(error as Error).message}\n`);
    }
  }

  private checkHost({ headers }: IncomingMessage): void {
    // Browsers leave a port of 80 out.
    const end = this.port === 80 ? ['', ':80'] : [`:${this.port}`];
    const own = ['127.0.0.1', 'localhost', '[::1]'].flatMap(name => end.map(port => `${name}${port}`));
    if (!own.includes(headers.host ?? '')) throw new Refusal(403, `host ${headers.host}: expected ${own.join(', ')}`);
    const { origin } = headers;
    if (origin !== undefined && !own.some(name => origin === `http://${name}`)) {
      throw new Refusal(403, `origin ${origin}: expected this page's own`);
    }
  }

  private async route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const given = url.searchParams.get('token');
    if (given !== null && request.method === 'GET' && url.pathname === '/') {
      if (!this.isToken(given)) throw new Refusal(401, 'this is not the token that tunpath ui has printed');
      const cookie = `${this.cookie}=${given}; HttpOnly; SameSite=Strict; Path=/`;
      response.writeHead(303, { Location: '/', 'Set-Cookie': cookie }).end();
      return;
    }
    if (!this.isAllowed(request))
      throw new Refusal(401, 'expected the address with the token that tunpath ui has printed');
    const asset = request.method === 'GET' ? this.assets.get(url.pathname) : undefined;
    if (asset !== undefined) {
      response.writeHead(200, { 'Content-Type': asset.type }).end(asset.text);
      return;
    }
    await this.call(`${request.method} ${url.pathname}`, url, request, response);
  }

  /** Cookies know no ports: each server has its own. */
  private get cookie(): string {
    return `tunpath-${this.port}`;
  }

  private isAllowed({ headers }: IncomingMessage): boolean {
    const cookies = (headers.cookie ?? '').split(/; */).map(one => one.split('='));
    const bearer = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1];
    return [bearer, cookies.find(([name]) => name === this.cookie)?.[1]].some(
      one => one !== undefined && this.isToken(one),
    );
  }

  private isToken(text: string): boolean {
    const given = Buffer.from(text);
    return given.length === this.token.length && timingSafeEqual(given, this.token);
  }

  private async call(what: string, url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { shown } = this;
    switch (what) {
      case 'GET /api/events': {
        const leave = shown.join(sinkOf(response));
        response.on('close', leave);
        return;
      }
      case 'GET /api/packets': {
        const ended = new AbortController();
        response.on('close', () => ended.abort());
        const sink = sinkOf(response);
        const filter = url.searchParams.get('filter') ?? '';
        await shown
          .packets(filter, url.searchParams.get('drops') === 'true', ended.signal, sink)
          .catch((error: Error) => {
            sink.trouble(error.message);
          });
        return;
      }
      case 'POST /api/explain':
        return sendJson(response, await shown.explain((await bodyOf(request)) as ExplainRequest));
      case 'POST /api/change':
        return sendJson(response, await shown.change((await bodyOf(request)) as ChangeRequest));
      case 'GET /api/prove':
        return sendJson(response, await shown.prove());
      case 'GET /api/conformance':
        return sendJson(
          response,
          await shown.conformance(url.searchParams.get('profile') ?? 'rfc', Number(url.searchParams.get('rfc') ?? 0)),
        );
      default:
        throw new Refusal(404, `${what}: there is nothing`);
    }
  }
}

/** Server-sent events; what finds no room is counted, and said when there is room again. */
function sinkOf(response: ServerResponse): Sink {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.flushHeaders();
  const lost = { flows: 0, packets: 0 };
  const send = (event: keyof Sink, data: unknown) => {
    response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  };
  const sendMany = (kind: 'flows' | 'packets', rows: readonly unknown[]) => {
    if (response.writableLength > MAX_WAITING) {
      lost[kind] += rows.length;
      return;
    }
    if (lost[kind] > 0) send('lost', { [kind]: lost[kind] });
    lost[kind] = 0;
    send(kind, rows);
  };
  return {
    picture: picture => send('picture', picture),
    flows: flows => sendMany('flows', flows),
    packets: packets => sendMany('packets', packets),
    counters: counters => {
      if (response.writableLength <= MAX_WAITING) send('counters', counters);
    },
    lost: counts => send('lost', counts),
    trouble: text => send('trouble', text),
  };
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  if (request.headers['content-type'] !== 'application/json') throw new Refusal(415, 'expected application/json');
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY) throw new Refusal(413, `expected at most ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
  if (typeof body !== 'object' || body === null) throw new Refusal(400, 'expected a JSON object');
  return body;
}

/**
 * The API over HTTP, as kubectl and other Kubernetes clients speak it: on a Unix socket that root alone may open, and on
 * loopback with TLS and a token.
 */
import { timingSafeEqual } from 'node:crypto';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import { ApiError, badRequest, internalError, unauthorized } from '../errors.ts';
import type { Json } from '../object.ts';
import { aggregatedDiscovery, apiGroup, coreVersions, groupList, resourceList } from './discovery.ts';
import { Handlers, send } from './handlers.ts';
import { openApiDocument, openApiIndex, V2_PROTOBUF } from './openapi.ts';
import type { Registry } from './registry.ts';
import {
  acceptedDiscovery,
  contentTypeOf,
  decodeBody,
  parseResourcePath,
  type ResourcePath,
  readBody,
} from './request.ts';
import { DEFAULT_WATCH_LIMITS, Watches, type WatchLimits } from './watch.ts';

/** What pods do for clients: exec, attach, logs, port-forward. */
export interface PodStreams {
  /** @returns whether the request was one of these, and is being answered. @throws ApiError */
  handle(
    request: IncomingMessage,
    response: ServerResponse,
    path: ResourcePath,
    query: URLSearchParams,
  ): Promise<boolean>;
  /** @returns whether the upgrade was one of these. @throws ApiError */
  upgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    path: ResourcePath,
    query: URLSearchParams,
  ): Promise<boolean>;
}

export interface ApiServerOptions {
  streams?: PodStreams;
  /** What clients on loopback have to show. */
  token?: string;
  /** Bytes of a request's body. */
  bodyBytes?: number;
  watch?: Partial<WatchLimits>;
  /** Groups that it does not tell of: a cluster has the kinds of one system, and short names that two have mean the one's. */
  untold?: readonly string[];
}

export interface Credentials {
  /** PEM. */
  key: string;
  cert: string;
}

export const VERSION = {
  major: '1',
  minor: '35',
  gitVersion: 'v1.35.0+tunpath',
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: '',
  compiler: 'node',
  platform: 'linux/amd64',
};

const BODY_BYTES = 3 << 20; // kube-apiserver's limit of a request

export class ApiServer {
  private readonly options: ApiServerOptions;
  private readonly watches: Watches;
  private readonly handlers: Handlers;
  private readonly servers = new Set<Server>();
  private readonly sockets = new Set<string>();

  constructor(registry: Registry, options: ApiServerOptions = {}) {
    this.options = options;
    this.watches = new Watches(registry, { ...DEFAULT_WATCH_LIMITS, ...options.watch });
    this.handlers = new Handlers(registry, this.watches, { bodyBytes: options.bodyBytes ?? BODY_BYTES });
  }

  /** Listens on a Unix socket of mode 0600; one that a killed process left is replaced. */
  async listenUnix(path: string): Promise<void> {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    rmSync(path, { force: true });
    const umask = process.umask(0o177);
    try {
      await this.listen(createHttpServer(), { path }, false);
    } finally {
      process.umask(umask);
    }
    chmodSync(path, 0o600);
    this.sockets.add(path);
  }

  /** Listens on 127.0.0.1 with TLS; clients have to show the token. @returns the port */
  async listenTls(port: number, credentials: Credentials): Promise<number> {
    const server = createHttpsServer({ ...credentials, ALPNProtocols: ['http/1.1'] });
    await this.listen(server, { host: '127.0.0.1', port }, true);
    return (server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.watches.close();
    const closed = [...this.servers].map(server => new Promise(resolve => server.close(resolve)));
    for (const server of this.servers) server.closeAllConnections();
    await Promise.all(closed);
    for (const path of this.sockets) rmSync(path, { force: true });
  }

  private listen(
    server: Server,
    where: { path: string } | { host: string; port: number },
    secret: boolean,
  ): Promise<void> {
    server.on('request', (request, response) => void this.answer(request, response, secret));
    server.on('upgrade', (request, socket, head) => void this.upgrade(request, socket, head, secret));
    this.servers.add(server);
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, resolve);
    });
  }

  private async answer(request: IncomingMessage, response: ServerResponse, secret: boolean): Promise<void> {
    try {
      if (secret) this.authenticate(request);
      const url = urlOf(request);
      const path = parseResourcePath(url.pathname);
      if (path === undefined) return await this.nonResource(request, response, url);
      const { streams } = this.options;
      if (streams !== undefined && (await streams.handle(request, response, path, url.searchParams))) return;
      if (await this.review(request, response, path)) return;
      await this.handlers.handle(request, response, path, url.searchParams);
    } catch (error) {
      const { status } = apiErrorOf(error);
      if (response.headersSent) {
        response.destroy();
        return;
      }
      if (status.details?.retryAfterSeconds !== undefined) {
        response.setHeader('retry-after', status.details.retryAfterSeconds);
      }
      // What of the body is still to come, nobody reads.
      if (!request.complete) response.setHeader('connection', 'close');
      send(response, status.code, JSON.stringify(status));
    }
  }

  private async upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, secret: boolean): Promise<void> {
    socket.on('error', () => socket.destroy());
    try {
      if (secret) this.authenticate(request);
      const url = urlOf(request);
      const path = parseResourcePath(url.pathname);
      const { streams } = this.options;
      const taken = path !== undefined && (await streams?.upgrade(request, socket, head, path, url.searchParams));
      if (!taken) throw badRequest('there is nothing here to upgrade to');
    } catch (error) {
      const { status } = apiErrorOf(error);
      const text = JSON.stringify(status);
      socket.end(
        `HTTP/1.1 ${status.code} ${status.reason}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
      );
    }
  }

  private authenticate(request: IncomingMessage): void {
    const { token } = this.options;
    const shown = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    if (token === undefined || shown === undefined) throw unauthorized();
    const expected = Buffer.from(token);
    const given = Buffer.from(shown);
    if (expected.length !== given.length || !timingSafeEqual(expected, given)) throw unauthorized();
  }

  private async nonResource(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      throw new ApiError(404, 'NotFound', 'the server could not find the requested resource');
    }
    const { pathname } = url;
    const { accept } = request.headers;
    const parts = pathname.split('/').filter(part => part !== '');
    if (/^\/(healthz|livez|readyz)(\/|$)/.test(pathname)) return send(response, 200, 'ok', 'text/plain');
    if (pathname === '/version') return sendJson(response, VERSION);
    if (pathname === '/openapi/v2') {
      response.writeHead(200, { 'content-type': V2_PROTOBUF, 'content-length': 0 });
      response.end();
      return;
    }
    if (pathname === '/openapi/v3') return sendJson(response, openApiIndex());
    if (parts[0] === 'openapi' && parts[1] === 'v3') {
      const document = openApiDocument(parts[2] === 'api' ? '' : (parts[3] ?? ''), parts.at(-1)!);
      if (document !== undefined) return send(response, 200, document);
    }
    if (parts.length === 1 && (parts[0] === 'api' || parts[0] === 'apis')) {
      const core = parts[0] === 'api';
      const { untold } = this.options;
      const version = acceptedDiscovery(accept);
      if (version === undefined) return sendJson(response, core ? coreVersions() : groupList(untold));
      const type = `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`;
      return send(response, 200, JSON.stringify(aggregatedDiscovery(core, version, untold)), type);
    }
    const found =
      parts[0] === 'api' && parts.length === 2
        ? resourceList('', parts[1]!)
        : parts[0] === 'apis' && parts.length === 2
          ? apiGroup(parts[1]!)
          : parts[0] === 'apis' && parts.length === 3
            ? resourceList(parts[1]!, parts[2]!)
            : undefined;
    if (found !== undefined) return sendJson(response, found);
    if (parts.length === 0) return sendJson(response, { paths: ['/api', '/apis', '/openapi/v3', '/version'] });
    throw new ApiError(404, 'NotFound', 'the server could not find the requested resource');
  }

  /** Whoever gets here may do everything: `kubectl auth can-i`, `kubectl auth whoami`. */
  private async review(request: IncomingMessage, response: ServerResponse, path: ResourcePath): Promise<boolean> {
    const { group, plural } = path;
    const status: Json = {
      selfsubjectaccessreviews: { allowed: true },
      selfsubjectreviews: { userInfo: { username: 'tunpath:admin', groups: ['system:masters'] } },
    }[plural];
    if (request.method !== 'POST' || status === undefined || !/^auth(oriz|entic)ation\.k8s\.io$/.test(group))
      return false;
    const body = decodeBody(await readBody(request, this.options.bodyBytes ?? BODY_BYTES), contentTypeOf(request));
    send(response, 201, JSON.stringify({ ...body, status }));
    return true;
  }
}

function urlOf(request: IncomingMessage): URL {
  try {
    return new URL(request.url ?? '/', 'http://api');
  } catch {
    throw badRequest('the path is not well-formed');
  }
}

function sendJson(response: ServerResponse, value: Json): void {
  send(response, 200, JSON.stringify(value));
}

function apiErrorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof RangeError) return badRequest('the body is nested too deeply');
  return internalError(error instanceof Error ? error.message : String(error));
}

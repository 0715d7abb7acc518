/** A client of any Kubernetes API: requests with JSON, and bodies that come line by line. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { createInterface } from 'node:readline';
import type { Json } from '../object.ts';
import type { Access } from './kubeconfig.ts';

export interface RequestOptions {
  method?: string;
  query?: Record<string, string>;
  headers?: Record<string, string>;
  /** As text, or as something that becomes JSON. */
  body?: string | object;
  signal?: AbortSignal;
}

export interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  /** Undefined where the body is no JSON. */
  json: Json;
  text: string;
}

/** The API said no. */
export class StatusError extends Error {
  override name = 'StatusError';
  readonly exitCode = 1;
  readonly code: number;
  readonly reason: string;

  constructor(code: number, reason: string, message: string) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

/** Nobody answers there. */
export class UnreachableError extends Error {
  override name = 'UnreachableError';
  readonly exitCode = 1;
}

/** A connection that says nothing for so long is dead. */
const CONNECT_TIMEOUT_MS = 15_000;

export class ApiClient {
  readonly access: Access;
  private readonly agent: HttpAgent | HttpsAgent;
  private readonly base: URL | undefined;
  private readonly socketPath: string | undefined;

  constructor(access: Access) {
    this.access = access;
    if (access.server.startsWith('unix://')) {
      this.socketPath = access.server.slice('unix://'.length);
      this.agent = new HttpAgent({ keepAlive: true });
      return;
    }
    this.base = new URL(access.server);
    const { ca, cert, key, insecure, serverName: servername } = access;
    this.agent =
      this.base.protocol === 'http:'
        ? new HttpAgent({ keepAlive: true })
        : new HttpsAgent({ keepAlive: true, ca, cert, key, servername, rejectUnauthorized: !insecure });
  }

  close(): void {
    this.agent.destroy();
  }

  /** @throws UnreachableError; an answer that says no is an answer */
  async request(path: string, options: RequestOptions = {}): Promise<Answer> {
    const response = await this.send(path, options);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of response) chunks.push(chunk as Buffer);
    } catch (error) {
      throw new UnreachableError(`${this.access.server}: ${(error as Error).message}`);
    }
    const text = Buffer.concat(chunks).toString();
    return { status: response.statusCode ?? 0, headers: response.headers, text, json: parsed(text) };
  }

  /** The answer, where it is one of success. @throws StatusError, UnreachableError */
  async get(path: string, options: RequestOptions = {}): Promise<Json> {
    const answer = await this.request(path, options);
    if (answer.status >= 300) throw statusError(answer);
    return answer.json;
  }

  /** Lines of a body that goes on. @param opened called when it begins @throws StatusError, UnreachableError; ends where the API ends it */
  async *lines(path: string, options: RequestOptions = {}, opened: () => void = () => {}): AsyncGenerator<string> {
    const response = await this.send(path, options);
    if (response.statusCode !== 200) {
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      const text = Buffer.concat(chunks).toString();
      throw statusError({ status: response.statusCode ?? 0, headers: response.headers, text, json: parsed(text) });
    }
    opened();
    const torn: { error?: Error } = {};
    response.once('error', error => {
      torn.error = error;
    });
    try {
      for await (const line of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY })) yield line;
      if (torn.error !== undefined) throw new UnreachableError(`${this.access.server}: ${torn.error.message}`);
    } finally {
      response.destroy();
    }
  }

  private send(path: string, options: RequestOptions): Promise<IncomingMessage> {
    const { method = 'GET', query = {}, headers = {}, body, signal } = options;
    const text = typeof body === 'object' ? JSON.stringify(body) : body;
    const search = new URLSearchParams(query).toString();
    const sent: Record<string, string> = { accept: 'application/json', 'user-agent': 'tunpath', ...headers };
    if (text !== undefined) {
      sent['content-type'] ??= 'application/json';
      sent['content-length'] = `${Buffer.byteLength(text)}`;
    }
    const { authorization } = this.access;
    return new Promise((resolve, reject) => {
      const fail = (error: NodeJS.ErrnoException): void =>
        reject(new UnreachableError(`${this.access.server}: ${error.code ?? error.message}`));
      try {
        if (authorization !== undefined) sent.authorization = authorization();
      } catch (error) {
        fail(error as NodeJS.ErrnoException);
        return;
      }
      const common = {
        method,
        headers: sent,
        agent: this.agent,
        path: `${this.base === undefined ? '' : this.base.pathname.replace(/\/$/, '')}${path}${search === '' ? '' : `?${search}`}`,
        ...(signal === undefined ? {} : { signal }),
      };
      const { base, socketPath } = this;
      const where =
        base === undefined
          ? { socketPath }
          : { host: base.hostname.replace(/^\[|\]$/g, ''), port: base.port || undefined };
      const request = (base?.protocol === 'https:' ? httpsRequest : httpRequest)({ ...common, ...where }, resolve);
      request.setTimeout(CONNECT_TIMEOUT_MS, () => {
        if (request.socket?.connecting) request.destroy(new Error('timeout'));
      });
      request.on('error', (error: NodeJS.ErrnoException) => {
        // A connection that was kept is closed by the other end as this goes out: nobody has seen it.
        if (request.reusedSocket && error.code === 'ECONNRESET' && method === 'GET') {
          this.send(path, options).then(resolve, reject);
        } else fail(error);
      });
      request.end(text);
    });
  }
}

export function statusError({ status, json, text }: Answer): StatusError {
  const isStatus = json?.kind === 'Status';
  const message = isStatus ? json.message : text.trim().slice(0, 200) || `status ${status}`;
  return new StatusError(isStatus ? (json.code ?? status) : status, isStatus ? (json.reason ?? '') : '', message);
}

function parsed(text: string): Json {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

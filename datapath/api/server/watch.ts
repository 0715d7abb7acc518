/**
 * Watches: changes as a client hears of them, one JSON document a line, for as long as it listens. A watch that begins at a
 * revision gets every change after it, or an error that says that it has to list again. One that does not read fast enough is
 * closed; its client begins anew where it was.
 */
import type { ServerResponse } from 'node:http';
import { ApiError, tooManyRequests } from '../errors.ts';
import type { Json, KubeObject } from '../object.ts';
import { apiVersionOf } from '../resources.ts';
import type { StoreEvent } from '../store/store.ts';
import { encodeObject } from './encode.ts';
import type { Registry, Target } from './registry.ts';
import type { Form } from './request.ts';
import { type IncludeObject, partialMetadata, tableOf } from './table.ts';

export interface WatchQuery {
  form: Form;
  include: IncludeObject;
  /** Which objects: those of the target's namespace for which this holds. */
  matches: (object: KubeObject) => boolean;
  /** '' and '0': what there is, then changes. */
  resourceVersion: string;
  /** What there is first, then a bookmark that says so, then changes. */
  sendInitialEvents: boolean;
  bookmarks: boolean;
  timeoutMs: number;
}

export interface WatchLimits {
  watches: number;
  /** Bytes that a watch may be behind. */
  bufferedBytes: number;
  bookmarkIntervalMs: number;
}

export const DEFAULT_WATCH_LIMITS: WatchLimits = {
  watches: 2000,
  bufferedBytes: 16 << 20,
  bookmarkIntervalMs: 60_000,
};

export class Watches {
  private readonly registry: Registry;
  private readonly limits: WatchLimits;
  private readonly open = new Set<Watch>();

  constructor(registry: Registry, limits: WatchLimits) {
    this.registry = registry;
    this.limits = limits;
    registry.store.listen(event => {
      for (const watch of this.open) watch.event(event);
    });
  }

  get count(): number {
    return this.open.size;
  }

  /** @throws ApiError (410, 429, 504) before anything is sent */
  async start(response: ServerResponse, target: Target, query: WatchQuery): Promise<void> {
    if (this.open.size >= this.limits.watches) {
      throw tooManyRequests(`${this.open.size} watches are open, and no more may be`);
    }
    const { store } = this.registry;
    await store.catchUp();
    const fromNow = query.resourceVersion === '' || query.resourceVersion === '0';
    const revision = fromNow ? 0 : Number(query.resourceVersion);
    if (revision > store.revision) throw tooLarge(revision, store.revision);
    const initial = fromNow || query.sendInitialEvents;
    const missed = initial ? [] : store.since(revision);

    const watch = new Watch(this.registry, response, target, query, this.limits);
    if (initial) watch.initial(this.registry.list(target), store.revision);
    for (const event of missed) watch.event(event);
    this.open.add(watch);
    response.once('close', () => {
      this.open.delete(watch);
      watch.close();
    });
  }

  /** Ends all of them, as at the end of the server. */
  close(): void {
    for (const watch of this.open) watch.end();
  }
}

function tooLarge(revision: number, current: number): ApiError {
  return new ApiError(504, 'Timeout', `Too large resource version: ${revision}, current: ${current}`, {
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
    retryAfterSeconds: 1,
  });
}

class Watch {
  private readonly registry: Registry;
  private readonly response: ServerResponse;
  private readonly target: Target;
  private readonly query: WatchQuery;
  private readonly limits: WatchLimits;
  private readonly apiVersion: string;
  private readonly prefix: string;
  private readonly timers: NodeJS.Timeout[] = [];
  private sentColumns = false;

  constructor(registry: Registry, response: ServerResponse, target: Target, query: WatchQuery, limits: WatchLimits) {
    this.registry = registry;
    this.response = response;
    this.target = target;
    this.query = query;
    this.limits = limits;
    this.apiVersion = apiVersionOf(target.resource, target.version);
    this.prefix = target.namespace === undefined ? '' : `${target.namespace}/`;
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-cache, private' });
    response.flushHeaders();
    this.timers.push(setTimeout(() => this.end(), query.timeoutMs));
    if (query.bookmarks) {
      this.timers.push(setInterval(() => this.bookmark(registry.store.revision), limits.bookmarkIntervalMs));
    }
    for (const timer of this.timers) timer.unref();
  }

  initial(objects: readonly KubeObject[], revision: number): void {
    for (const object of objects) if (this.query.matches(object)) this.send('ADDED', object);
    if (this.query.sendInitialEvents) this.bookmark(revision, { 'k8s.io/initial-events-end': 'true' });
  }

  event({ type, storage, place, object, previous }: StoreEvent): void {
    if (storage !== this.target.resource.storage || !place.startsWith(this.prefix)) return;
    const is = type !== 'DELETED' && this.query.matches(object);
    const was = previous !== undefined && this.query.matches(previous);
    if (is) this.send(was ? 'MODIFIED' : 'ADDED', object);
    // Also one that the selection does not hold any more: to this client it is gone.
    else if (was) this.send('DELETED', object);
  }

  end(): void {
    if (this.query.bookmarks) this.bookmark(this.registry.store.revision);
    this.response.end();
  }

  close(): void {
    for (const timer of this.timers) clearTimeout(timer);
  }

  private bookmark(revision: number, annotations?: Record<string, string>): void {
    const metadata: Json = { resourceVersion: `${revision}` };
    if (annotations !== undefined) metadata.annotations = annotations;
    const { form } = this.query;
    const object =
      form === 'table'
        ? { ...this.table([], metadata) }
        : {
            kind: form === 'partial' ? 'PartialObjectMetadata' : this.target.resource.kind,
            apiVersion: form === 'partial' ? 'meta.k8s.io/v1' : this.apiVersion,
            metadata,
          };
    this.write(`{"type":"BOOKMARK","object":${JSON.stringify(object)}}\n`);
  }

  private send(type: string, object: KubeObject): void {
    this.write(`{"type":"${type}","object":${this.encode(object)}}\n`);
  }

  private encode(object: KubeObject): string {
    const shown = object.apiVersion === this.apiVersion ? object : { ...object, apiVersion: this.apiVersion };
    if (this.query.form === 'partial') return JSON.stringify(partialMetadata(shown));
    if (this.query.form === 'object') return encodeObject(shown);
    return JSON.stringify(this.table([shown], { resourceVersion: object.metadata.resourceVersion }));
  }

  private table(objects: readonly KubeObject[], metadata: Json): Json {
    const withColumns = !this.sentColumns;
    this.sentColumns = true;
    const { kind } = this.target.resource;
    return tableOf(objects, kind, metadata, this.query.include, this.registry.nowMs, withColumns);
  }

  private write(line: string): void {
    if (this.response.writableEnded || this.response.destroyed) return;
    this.response.write(line);
    if (this.response.writableLength > this.limits.bufferedBytes) this.response.destroy();
  }
}

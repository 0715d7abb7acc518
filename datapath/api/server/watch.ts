/**
 * Watches: changes as a client hears of them, one JSON document a line, for as long as it listens. A watch that begins at a
 * revision gets every change after it, or an error that says that it has to list again.
 *
 * One that does not read fast enough holds no more than a limit: what comes meanwhile is not kept for it, but read from the
 * store's history once it has read what was sent. Where the history does not reach back so far, it is told to list again.
 */
import type { ServerResponse } from 'node:http';
import { ApiError, internalError, tooManyRequests } from '../errors.ts';
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
  /** Bytes that are held for a watch that does not read; and a single change more. */
  bufferedBytes: number;
  bookmarkIntervalMs: number;
}

export const DEFAULT_WATCH_LIMITS: WatchLimits = {
  watches: 2000,
  bufferedBytes: 256 << 10,
  bookmarkIntervalMs: 60_000,
};

/** After the end of a watch. */
const LAST_WORDS_MS = 10_000;

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
    // Its client has gone meanwhile: nobody would close it.
    if (response.destroyed) return;
    const fromNow = query.resourceVersion === '' || query.resourceVersion === '0';
    const revision = fromNow ? 0 : Number(query.resourceVersion);
    if (revision > store.revision) throw tooLarge(revision, store.revision);
    const initial = fromNow || query.sendInitialEvents;
    // Throws before anything is sent.
    if (!initial) store.since(revision);

    const watch = new Watch(this.registry, response, target, query, this.limits, initial ? store.revision : revision);
    this.open.add(watch);
    response.once('close', () => {
      this.open.delete(watch);
      watch.close();
    });
    watch.begin(initial ? this.registry.list(target) : []);
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
  /** Everything up to this revision has been sent. */
  private position: number;
  /** What there was when it began, from the next to be sent on. */
  private initial: readonly KubeObject[] = [];
  private next = 0;
  private began = false;
  /** Waits until the client has read. */
  private behind = false;

  constructor(
    registry: Registry,
    response: ServerResponse,
    target: Target,
    query: WatchQuery,
    limits: WatchLimits,
    position: number,
  ) {
    this.registry = registry;
    this.response = response;
    this.target = target;
    this.query = query;
    this.limits = limits;
    this.position = position;
    this.apiVersion = apiVersionOf(target.resource, target.version);
    this.prefix = target.namespace === undefined ? '' : `${target.namespace}/`;
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-cache, private' });
    response.flushHeaders();
    response.on('drain', () => {
      this.behind = false;
      this.goOn();
    });
    this.timers.push(setTimeout(() => this.end(), query.timeoutMs));
    if (query.bookmarks) {
      this.timers.push(setInterval(() => this.regularBookmark(), limits.bookmarkIntervalMs));
    }
    for (const timer of this.timers) timer.unref();
  }

  /** @param objects what there is at the position */
  begin(objects: readonly KubeObject[]): void {
    this.initial = objects;
    this.goOn();
  }

  /** A change that follows what has been sent. */
  event(event: StoreEvent): void {
    if (this.behind || !this.began) return;
    this.position = event.revision;
    this.sendEvent(event);
  }

  /** Sends what is due, as far as the client reads. */
  private goOn(): void {
    for (; this.next < this.initial.length && !this.behind; this.next++) {
      const object = this.initial[this.next]!;
      if (this.query.matches(object)) this.send('ADDED', object);
    }
    if (this.behind) return;
    if (!this.began) {
      this.began = true;
      this.initial = [];
      if (this.query.sendInitialEvents) this.bookmark(this.position, { 'k8s.io/initial-events-end': 'true' });
    }
    try {
      for (const event of this.registry.store.since(this.position)) {
        if (this.behind) return;
        this.event(event);
      }
    } catch (error) {
      const { status } = error instanceof ApiError ? error : internalError((error as Error).message);
      this.write(`{"type":"ERROR","object":${JSON.stringify(status)}}\n`);
      this.finish();
    }
  }

  private sendEvent({ type, storage, place, object, previous }: StoreEvent): void {
    if (storage !== this.target.resource.storage || !place.startsWith(this.prefix)) return;
    const is = type !== 'DELETED' && this.query.matches(object);
    const was = previous !== undefined && this.query.matches(previous);
    if (is) this.send(was ? 'MODIFIED' : 'ADDED', object);
    // Also one that the selection does not hold any more: to this client it is gone.
    else if (was) this.send('DELETED', object);
  }

  end(): void {
    if (this.query.bookmarks) this.regularBookmark();
    this.finish();
  }

  /** Who has not read what was sent last until then never will. */
  private finish(): void {
    this.response.end();
    setTimeout(() => this.response.destroy(), LAST_WORDS_MS).unref();
  }

  close(): void {
    for (const timer of this.timers) clearTimeout(timer);
  }

  /** How far the client has come; one that is behind has come no further than it knows. */
  private regularBookmark(): void {
    if (this.began && !this.behind) this.bookmark(this.registry.store.revision);
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
    if (this.response.writableLength > this.limits.bufferedBytes) this.behind = true;
  }
}

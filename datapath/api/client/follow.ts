/**
 * Follows the objects of one kind in any Kubernetes API, by list and watch: a list in pages, then changes from its revision
 * on; a watch that ends goes on where it was, one whose revision is too old lists again. (client-go: tools/cache/reflector.go)
 */
import type { Json, KubeObject } from '../object.ts';
import { placeOf } from '../object.ts';
import { type ApiClient, StatusError } from './client.ts';

export interface Hearing {
  /** What there is has been read, once or again. */
  synced(): void;
  /** One object is new, different or gone. */
  changed(): void;
  /** It does not answer, or not as it should, since now. */
  away(why: string): void;
  /** It answers again. */
  back(): void;
}

export interface FollowOptions {
  /** Default: real time. */
  sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
  /** From 0 to 1. */
  random?: () => number;
  /** How long one watch is asked for. */
  watchSeconds?: number;
}

const PAGE = 500;
const FIRST_BACK_OFF_MS = 500;
const MAX_BACK_OFF_MS = 30_000;
/** A kind that an API has not may come to it later. */
const ABSENT_MS = 30_000;
const WATCH_SECONDS = 300;

export class Follower {
  readonly objects = new Map<string, KubeObject>();
  private readonly client: ApiClient;
  private readonly path: string;
  private readonly hearing: Hearing;
  private readonly options: Required<FollowOptions>;
  private readonly ended = new AbortController();
  private revision = '';
  private isAway = false;
  private failures = 0;

  /** @param path of the collection: `/api/v1/pods` */
  constructor(client: ApiClient, path: string, hearing: Hearing, options: FollowOptions = {}) {
    this.client = client;
    this.path = path;
    this.hearing = hearing;
    this.options = { sleep: pause, random: Math.random, watchSeconds: WATCH_SECONDS, ...options };
  }

  stop(): void {
    this.ended.abort();
  }

  /** Follows until it is stopped. Never throws: what goes wrong is heard, and tried again. */
  async run(): Promise<void> {
    const { signal } = this.ended;
    const { sleep, random } = this.options;
    while (!signal.aborted) {
      try {
        if (this.revision === '') await this.list();
        await this.watch();
      } catch (error) {
        if (signal.aborted) return;
        const code = error instanceof StatusError ? error.code : 0;
        if (code === 410) {
          // Its history does not reach back so far.
          this.revision = '';
          await sleep(FIRST_BACK_OFF_MS * random(), signal);
          continue;
        }
        if (code === 404) {
          this.absent();
          await sleep(ABSENT_MS, signal);
          continue;
        }
        if (!this.isAway) {
          this.isAway = true;
          this.hearing.away((error as Error).message);
        }
        const most = Math.min(MAX_BACK_OFF_MS, FIRST_BACK_OFF_MS * 2 ** this.failures++);
        await sleep(most * (0.5 + random() / 2), signal);
      }
    }
  }

  private answered(): void {
    this.failures = 0;
    if (!this.isAway) return;
    this.isAway = false;
    this.hearing.back();
  }

  private absent(): void {
    this.answered();
    this.revision = '';
    this.objects.clear();
    this.hearing.synced();
  }

  private async list(): Promise<void> {
    const { signal } = this.ended;
    const found = new Map<string, KubeObject>();
    let query: Record<string, string> = { limit: `${PAGE}` };
    for (;;) {
      const page: Json = await this.client.get(this.path, { query, signal });
      if (!Array.isArray(page?.items)) throw new Error(`${this.path}: got no list`);
      for (const item of page.items) found.set(placeOf(item), item);
      const next = page.metadata?.continue;
      if (next === undefined || next === '') {
        this.revision = page.metadata?.resourceVersion ?? '0';
        break;
      }
      query = { limit: `${PAGE}`, continue: next };
    }
    this.objects.clear();
    for (const [place, object] of found) this.objects.set(place, object);
    this.hearing.synced();
  }

  private async watch(): Promise<void> {
    const query = {
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: this.revision,
      timeoutSeconds: `${this.options.watchSeconds}`,
    };
    const opened = (): void => this.answered();
    for await (const line of this.client.lines(this.path, { query, signal: this.ended.signal }, opened)) {
      this.event(line);
    }
  }

  /** @throws StatusError that the API sends as an event */
  private event(line: string): void {
    // A line that is torn is one of a connection that is: what it would have said comes again.
    const { type, object } = JSON.parse(line) as { type: string; object: Json };
    if (type === 'ERROR')
      throw new StatusError(object?.code ?? 500, object?.reason ?? '', object?.message ?? 'watch failed');
    const { resourceVersion } = object.metadata;
    if (type === 'ADDED' || type === 'MODIFIED') this.objects.set(placeOf(object), object);
    else if (type === 'DELETED') this.objects.delete(placeOf(object));
    this.revision = resourceVersion;
    if (type !== 'BOOKMARK') this.hearing.changed();
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

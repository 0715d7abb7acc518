/**
 * What the API knows: every object, by kind and place, with the history of changes that watches follow. One revision counts
 * all writes; an object's resourceVersion is the revision of its last write.
 *
 * Reads are from memory and take no time. A write goes to a backend first (a journal on disk, or etcd), which says whether
 * it was accepted and feeds it back, with those of other processes, in the order of revisions.
 *
 * Objects in here are shared by everybody who reads them: nobody changes one, a change is a new object.
 */
import { entityTooLarge, expired, serviceUnavailable } from '../errors.ts';
import type { KubeObject } from '../object.ts';
import { Index, type IndexOf } from './index.ts';

/** One accepted write. */
export interface Entry {
  revision: number;
  /** Which kind's objects: `pods`, `deployments.apps`. */
  storage: string;
  /** `NAMESPACE/NAME`, or `NAME` */
  place: string;
  /** null: removed */
  object: KubeObject | null;
}

export type NewEntry = Omit<Entry, 'revision'>;

/** The object is not at the revision that the writer has read. */
export class WriteConflict extends Error {}

export interface Backend {
  /**
   * Reads what is there. `feed` gets each entry once, in the order of revisions, from now until `close`: first what is
   * stored, then every write.
   * @returns the revision reached, and that from which on every change has been fed
   */
  open(feed: (entry: Entry) => void): Promise<{ revision: number; completeFrom: number }>;
  /**
   * @param expected the revision at which the object must be; 0: it must not be there
   * @returns the new revision
   * @throws WriteConflict; any other error means that nothing was written
   */
  write(entry: NewEntry, expected: number): Promise<number>;
  /** The newest revision that any process has written. */
  newest(): Promise<number>;
  close(): Promise<void>;
}

export type EventType = 'ADDED' | 'MODIFIED' | 'DELETED';

export interface StoreEvent {
  type: EventType;
  storage: string;
  place: string;
  revision: number;
  /** For DELETED what it was last, with the revision of the removal. */
  object: KubeObject;
  /** What it was before, for watches that a change brings into or out of their selection. */
  previous: KubeObject | undefined;
}

export interface StoreLimits {
  /** Bytes of one object as JSON. */
  objectBytes: number;
  /** Objects of all kinds. */
  objects: number;
  /** Changes kept for watches that come back. */
  history: number;
}

export const DEFAULT_LIMITS: StoreLimits = { objectBytes: 1_500_000, objects: 200_000, history: 20_000 };

export class Store {
  private readonly backend: Backend;
  private readonly limits: StoreLimits;
  private readonly kinds = new Map<string, Map<string, KubeObject>>();
  private readonly indexes = new Map<IndexOf, Index>();
  private readonly listeners = new Set<(event: StoreEvent) => void>();
  private readonly waiting: { revision: number; done: () => void }[] = [];
  private events: StoreEvent[] = [];
  private count = 0;
  private reached = 0;
  /** Every change after this revision is in `events`. */
  private completeFrom = 0;

  private constructor(backend: Backend, limits: StoreLimits) {
    this.backend = backend;
    this.limits = limits;
  }

  static async open(backend: Backend, limits: Partial<StoreLimits> = {}): Promise<Store> {
    const store = new Store(backend, { ...DEFAULT_LIMITS, ...limits });
    const { revision, completeFrom } = await backend.open(entry => store.accept(entry));
    store.reached = Math.max(store.reached, revision);
    store.completeFrom = Math.max(store.completeFrom, completeFrom);
    return store;
  }

  /** Revision of the newest change that reads see. */
  get revision(): number {
    return this.reached;
  }

  /** Objects of all kinds. */
  get size(): number {
    return this.count;
  }

  get(storage: string, place: string): KubeObject | undefined {
    return this.kinds.get(storage)?.get(place);
  }

  /** All of a kind, or those of one namespace, by place. */
  list(storage: string, namespace?: string): KubeObject[] {
    const objects = this.kinds.get(storage);
    if (objects === undefined) return [];
    const places = [...objects.keys()];
    const wanted = namespace === undefined ? places : places.filter(place => place.startsWith(`${namespace}/`));
    return wanted.sort().map(place => objects.get(place)!);
  }

  /** All of a kind in no order, for those who look at every one. */
  values(storage: string): Iterable<KubeObject> {
    return this.kinds.get(storage)?.values() ?? [];
  }

  /** Objects by what an index finds them by, in no order; the index is made when it is first asked. */
  by(of: IndexOf, key: string): Iterable<KubeObject> {
    let index = this.indexes.get(of);
    if (index === undefined) {
      index = new Index(of);
      for (const [storage, objects] of this.kinds) {
        for (const [place, object] of objects) index.change(storage, place, undefined, object);
      }
      this.indexes.set(of, index);
    }
    return index.get(key);
  }

  /** How many objects of a kind there are. */
  countOf(storage: string): number {
    return this.kinds.get(storage)?.size ?? 0;
  }

  /** Names of kinds that have objects. */
  storages(): string[] {
    return [...this.kinds.keys()];
  }

  /** Returns when reads see whatever any process wrote before the call. @throws ApiError (503) where the backend is away */
  async catchUp(): Promise<void> {
    let newest: number;
    try {
      newest = await this.backend.newest();
    } catch (error) {
      throw serviceUnavailable(`the store cannot be read: ${(error as Error).message}`);
    }
    await this.until(newest);
  }

  /**
   * @param expected revision of the object that the writer has read, 0 for a new one
   * @returns the object with its resourceVersion; reads see it
   * @throws WriteConflict, ApiError where it is too large
   */
  async put(storage: string, place: string, object: KubeObject, expected: number): Promise<KubeObject> {
    const bytes = JSON.stringify(object).length;
    if (bytes > this.limits.objectBytes) {
      throw entityTooLarge(`the object has ${bytes} bytes, and ${this.limits.objectBytes} are the most there may be`);
    }
    if (expected === 0 && this.count >= this.limits.objects) {
      throw entityTooLarge(`there are ${this.count} objects, and no more may be`);
    }
    const revision = await this.backend.write({ storage, place, object }, expected);
    await this.until(revision);
    return withRevision(object, revision);
  }

  /** @returns the object as it was, with the revision of its removal. @throws WriteConflict */
  async remove(storage: string, place: string, expected: number): Promise<KubeObject> {
    const object = this.get(storage, place);
    const revision = await this.backend.write({ storage, place, object: null }, expected);
    await this.until(revision);
    if (object === undefined) throw new WriteConflict(place);
    return withRevision(object, revision);
  }

  /** Calls for every change from now on, until the result is called. */
  listen(listener: (event: StoreEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Changes after a revision. @throws ApiError (410) when they are not all known any more */
  since(revision: number): StoreEvent[] {
    if (revision < this.completeFrom) {
      throw expired(`too old resource version: ${revision} (${this.completeFrom})`);
    }
    return this.events.slice(firstAfter(this.events, revision));
  }

  close(): Promise<void> {
    return this.backend.close();
  }

  private accept({ revision, storage, place, object }: Entry): void {
    let objects = this.kinds.get(storage);
    if (objects === undefined) {
      objects = new Map();
      this.kinds.set(storage, objects);
    }
    const previous = objects.get(place);
    this.reached = revision;
    let event: StoreEvent | undefined;
    if (object !== null) {
      const stored = withRevision(object, revision);
      objects.set(place, stored);
      if (previous === undefined) this.count++;
      const type = previous === undefined ? 'ADDED' : 'MODIFIED';
      event = { type, storage, place, revision, object: stored, previous };
    } else if (previous !== undefined) {
      objects.delete(place);
      this.count--;
      event = { type: 'DELETED', storage, place, revision, object: withRevision(previous, revision), previous };
    }
    if (event !== undefined) {
      const after = event.type === 'DELETED' ? undefined : event.object;
      for (const index of this.indexes.values()) index.change(storage, place, previous, after);
      this.remember(event);
      for (const listener of this.listeners) listener(event);
    }
    while (this.waiting.length > 0 && this.waiting[0]!.revision <= revision) this.waiting.shift()!.done();
  }

  private remember(event: StoreEvent): void {
    this.events.push(event);
    // A quarter at once, so that each event is moved a few times at most.
    if (this.events.length > this.limits.history * 1.25) {
      const dropped = this.events.length - this.limits.history;
      this.completeFrom = Math.max(this.completeFrom, this.events[dropped - 1]!.revision);
      this.events = this.events.slice(dropped);
    }
  }

  private until(revision: number): Promise<void> {
    if (this.reached >= revision) return Promise.resolve();
    return new Promise(done => {
      const behind = this.waiting.findIndex(other => other.revision > revision);
      this.waiting.splice(behind < 0 ? this.waiting.length : behind, 0, { revision, done });
    });
  }
}

function withRevision(object: KubeObject, revision: number): KubeObject {
  return { ...object, metadata: { ...object.metadata, resourceVersion: `${revision}` } };
}

/** Index of the first event after a revision, by halving. */
function firstAfter(events: readonly StoreEvent[], revision: number): number {
  let low = 0;
  let high = events.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (events[middle]!.revision <= revision) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * A backend in etcd, for any number of processes: each reads what there is, hears of every write by a watch, and writes an
 * object only over what it has seen. Objects are JSON under PREFIX/objects/KIND/PLACE; the revision of PREFIX/newest is that of
 * the last write, by which a reader knows when it has heard of everything.
 *
 * While etcd is away, nothing is written, and reads fail that want the newest. A write whose answer is lost is looked up; where
 * that fails as well, its writer is told that it failed, and may find it done.
 */
import type { KubeObject } from '../object.ts';
import { EtcdClient } from './etcd-client.ts';
import { type Backend, type Entry, type NewEntry, WriteConflict } from './store.ts';

const FIRST_BACK_OFF_MS = 50;
const MAX_BACK_OFF_MS = 2000;

export interface EtcdOptions {
  /** HOST:PORT */
  address: string;
  /** Before every key; one for each cluster. */
  prefix: string;
}

export class Etcd implements Backend {
  private readonly client: EtcdClient;
  private readonly objects: string;
  private readonly newestKey: string;
  /** Revision of each object that has been fed, by key: what is missing in a list that is read anew has been removed. */
  private readonly known = new Map<string, number>();
  private feed: (entry: Entry) => void = () => {};
  private reached = 0;
  /** Revision of etcd that what has been fed is complete to; others write there, too, so that it is larger than `reached`. */
  private completeTo = 0;
  private isOpen = true;
  private stopWatch: () => void = () => {};
  private timer: NodeJS.Timeout | undefined;
  private failures = 0;

  constructor({ address, prefix }: EtcdOptions) {
    this.client = new EtcdClient(address);
    this.objects = `${prefix}/objects/`;
    this.newestKey = `${prefix}/newest`;
  }

  /** Removes everything under the prefix, before it is opened. @throws Error where etcd does not answer */
  async clear(): Promise<void> {
    await this.client.removeAll(this.objects);
  }

  /** @throws Error where etcd does not answer */
  async open(feed: (entry: Entry) => void): Promise<{ revision: number; completeFrom: number }> {
    this.feed = feed;
    await this.readAll();
    this.watch();
    return { revision: this.reached, completeFrom: this.reached };
  }

  async write({ storage, place, object }: NewEntry, expected: number): Promise<number> {
    if (object === null && expected === 0) throw new WriteConflict(`${storage} ${place}`);
    const key = `${this.objects}${storage}/${place}`;
    const value = object === null ? null : JSON.stringify(object);
    let revision: number | undefined;
    try {
      revision = await this.client.write(key, value, expected, this.newestKey);
    } catch (error) {
      const row = await this.client.get(key).catch(() => {
        throw error;
      });
      const isDone = value === null ? row === undefined : row?.value === value && row.revision > expected;
      if (!isDone) throw error;
      revision = row?.revision ?? (await this.newest());
    }
    if (revision === undefined) throw new WriteConflict(`${storage} ${place}`);
    return revision;
  }

  async newest(): Promise<number> {
    return (await this.client.get(this.newestKey))?.revision ?? 0;
  }

  async close(): Promise<void> {
    this.isOpen = false;
    clearTimeout(this.timer);
    this.stopWatch();
    this.client.close();
  }

  /** Feeds what is new or gone since what has been fed. */
  private async readAll(): Promise<void> {
    const revision = await this.client.revision();
    const found: { key: string; revision: number; value: string }[] = [];
    for await (const page of this.client.pages(this.objects, revision)) found.push(...page);
    const present = new Set(found.map(({ key }) => key));
    const news = found.filter(row => (this.known.get(row.key) ?? 0) < row.revision);
    for (const row of news.sort((a, b) => a.revision - b.revision)) this.heard(row.key, row.revision, row.value);
    const newest = Math.max(this.reached, (await this.client.get(this.newestKey))?.revision ?? 0);
    const last = Math.min(newest, revision);
    for (const key of this.known.keys()) if (!present.has(key)) this.heard(key, last, null);
    this.reached = Math.max(this.reached, last);
    this.completeTo = Math.max(this.completeTo, revision);
  }

  private heard(key: string, revision: number, value: string | null): void {
    const name = key.slice(this.objects.length);
    const slash = name.indexOf('/');
    if (value === null) this.known.delete(key);
    else this.known.set(key, revision);
    this.reached = Math.max(this.reached, revision);
    this.feed({
      revision,
      storage: name.slice(0, slash),
      place: name.slice(slash + 1),
      object: value === null ? null : (JSON.parse(value) as KubeObject),
    });
  }

  private watch(): void {
    this.stopWatch = this.client.watch(
      this.objects,
      // Not from the last write of ours: etcd may have forgotten all up to a later one of somebody else.
      Math.max(this.reached, this.completeTo) + 1,
      changes => {
        this.failures = 0;
        for (const { key, revision, value } of changes) this.heard(key, revision, value);
      },
      ({ compacted }) => this.again(compacted),
    );
  }

  /** The watch has ended: it goes on where it was, or where etcd has forgotten that, by a list. */
  private again(compacted: boolean): void {
    if (!this.isOpen) return;
    const most = Math.min(MAX_BACK_OFF_MS, FIRST_BACK_OFF_MS * 2 ** this.failures++);
    this.timer = setTimeout(() => {
      if (!compacted) return this.watch();
      this.readAll().then(
        () => this.isOpen && this.watch(),
        () => this.again(true),
      );
    }, most);
  }
}

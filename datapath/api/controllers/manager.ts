/**
 * Runs controllers. Each says which of its keys a change concerns, and brings one key into order at a time: it reads what is,
 * works out what should be, and writes the difference. So it does not matter what it missed, and doing it twice changes
 * nothing.
 */
import { placeOf } from '../object.ts';
import type { Store, StoreEvent } from '../store/store.ts';
import type { Cluster } from './cluster.ts';

export interface Controller {
  name: string;
  /** What has to be looked at when the controller begins. */
  keys(cluster: Cluster): Iterable<string>;
  /** What has to be looked at after a change. */
  affected(event: StoreEvent, cluster: Cluster): Iterable<string>;
  /** Brings a key into order. @returns milliseconds after which to look again, or undefined */
  reconcile(key: string, cluster: Cluster): Promise<number | undefined>;
}

/** For a controller whose keys are the places of pods. */
export const EACH_POD: Pick<Controller, 'keys' | 'affected'> = {
  *keys(cluster) {
    for (const pod of cluster.values('Pod')) yield placeOf(pod);
  },
  *affected({ storage, place }) {
    if (storage === 'pods') yield place;
  },
};

const FIRST_RETRY_MS = 50;
const MAX_RETRY_MS = 10_000;

export class Manager {
  private readonly cluster: Cluster;
  private readonly queues: Queue[];
  private readonly stopListening: () => void;

  /** @param onError what a controller could not do; it tries again */
  constructor(store: Store, cluster: Cluster, controllers: readonly Controller[], onError: (text: string) => void) {
    this.cluster = cluster;
    this.queues = controllers.map(controller => new Queue(controller, cluster, onError));
    this.stopListening = store.listen(event => {
      for (const queue of this.queues) queue.addAll(queue.controller.affected(event, cluster));
    });
    for (const queue of this.queues) queue.addAll(queue.controller.keys(cluster));
  }

  /** Returns when nothing is left to do but what has to wait for time. For tests. */
  async settle(): Promise<void> {
    while (this.queues.some(queue => queue.isBusy)) await new Promise(resolve => setImmediate(resolve));
  }

  /** Looks at everything again, as after time has passed. For tests. */
  touch(): void {
    for (const queue of this.queues) queue.addAll(queue.controller.keys(this.cluster));
  }

  stop(): void {
    this.stopListening();
    for (const queue of this.queues) queue.stop();
  }
}

class Queue {
  readonly controller: Controller;
  private readonly cluster: Cluster;
  private readonly onError: (text: string) => void;
  private readonly waiting = new Set<string>();
  private readonly failures = new Map<string, number>();
  private readonly timers = new Map<string, NodeJS.Timeout>();
  private running = false;
  private stopped = false;

  constructor(controller: Controller, cluster: Cluster, onError: (text: string) => void) {
    this.controller = controller;
    this.cluster = cluster;
    this.onError = onError;
  }

  get isBusy(): boolean {
    return this.running || this.waiting.size > 0;
  }

  addAll(keys: Iterable<string>): void {
    for (const key of keys) this.waiting.add(key);
    if (this.waiting.size > 0 && !this.running && !this.stopped) void this.run();
  }

  stop(): void {
    this.stopped = true;
    this.waiting.clear();
    for (const timer of this.timers.values()) clearTimeout(timer);
  }

  private async run(): Promise<void> {
    this.running = true;
    // Changes of one moment are looked at together.
    await Promise.resolve();
    for (const key of this.waiting) {
      this.waiting.delete(key);
      await this.reconcile(key);
      if (this.stopped) break;
    }
    this.running = false;
    if (this.waiting.size > 0 && !this.stopped) void this.run();
  }

  private async reconcile(key: string): Promise<void> {
    try {
      const again = await this.controller.reconcile(key, this.cluster);
      this.failures.delete(key);
      if (again !== undefined) this.later(key, again);
    } catch (error) {
      const failures = (this.failures.get(key) ?? 0) + 1;
      this.failures.set(key, failures);
      this.onError(`${this.controller.name} ${key}: ${(error as Error).message}`);
      this.later(key, Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** failures));
    }
  }

  private later(key: string, ms: number): void {
    clearTimeout(this.timers.get(key));
    const timer = setTimeout(() => {
      this.timers.delete(key);
      this.addAll([key]);
    }, ms);
    timer.unref();
    this.timers.set(key, timer);
  }
}

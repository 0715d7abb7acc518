/** A loop's thread, seen from the control plane, and a node of it. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type {
  LoopData,
  LoopEvent,
  LoopMethod,
  LoopRequest,
  LoopResponse,
  NodeData,
  NodeMethod,
} from '../drive/requests.ts';
import { flattened } from '../flattened.ts';
import { openEventFd, raiseEventFd } from '../io/event-fd.ts';
import * as libc from '../io/libc.ts';
import { type Change, inPieces } from '../program/diff.ts';

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
  took(ms: number): void;
}

export class LoopThread {
  /** Resolves when the thread has ended; rejects when it died of an error. */
  readonly ended: Promise<void>;
  private readonly worker: Worker;
  private readonly port: MessagePort;
  private readonly wakeFd: number;
  private readonly waiting = new Map<number, Waiting>();
  private readonly nodes = new Map<string, LoopClient>();
  private nextId = 1;
  private over = false;

  constructor(data: Omit<LoopData, 'control' | 'wakeFd'>) {
    const channel = new MessageChannel();
    this.port = channel.port1;
    this.wakeFd = openEventFd();
    const workerData: LoopData = { ...data, control: channel.port2, wakeFd: this.wakeFd };
    this.worker = new Worker(flattened(new URL('../loop.js', import.meta.url)), {
      workerData,
      transferList: [channel.port2],
    });
    this.port.on('message', (message: LoopResponse | LoopEvent) => {
      if ('event' in message) this.nodes.get(message.node)?.onEvent(message.event);
      else this.take(message);
    });
    this.ended = new Promise((resolve, reject) => {
      this.worker.once('error', reject);
      this.worker.once('exit', () => resolve());
    });
    this.ended
      .catch(() => {})
      .then(() => {
        this.over = true;
        for (const request of this.waiting.values()) request.reject(new Error('the loop has ended'));
        this.waiting.clear();
        this.port.close();
        libc.close(this.wakeFd);
      });
  }

  /** Has the loop run a node over `devices`, which it closes from then on, also when this fails. */
  async start(node: NodeData): Promise<LoopClient> {
    const client = new LoopClient(this, node.name);
    this.nodes.set(node.name, client);
    try {
      await this.request('start', node);
      return client;
    } catch (error) {
      this.nodes.delete(node.name);
      throw error;
    }
  }

  /** Ends a node; resolves when its devices are gone. */
  async stop(node: string): Promise<void> {
    await this.request('stop', node).catch(() => {});
    this.nodes.get(node)?.end();
    this.nodes.delete(node);
  }

  /** Ends the thread. */
  async end(): Promise<void> {
    await this.request('end').catch(() => {});
    await this.ended.catch(() => {});
  }

  /** Asks the loop, or one node of it. @param took called with how long packets had to wait for it, ms */
  request(
    method: LoopMethod | NodeMethod,
    params?: unknown,
    node?: string,
    took: (ms: number) => void = () => {},
  ): Promise<unknown> {
    if (this.over) return Promise.reject(new Error('the loop has ended'));
    const id = this.nextId++;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject, took }));
    this.port.postMessage({ id, node, method, params } satisfies LoopRequest);
    raiseEventFd(this.wakeFd);
    return answer;
  }

  private take({ id, node, tookMs, error, result }: LoopResponse): void {
    if (id < 0) {
      this.nodes.get(node!)?.end(new Error(error));
      this.nodes.delete(node!);
      return;
    }
    const request = this.waiting.get(id);
    this.waiting.delete(id);
    request?.took(tookMs ?? 0);
    if (error !== undefined) request?.reject(new Error(error));
    else request?.resolve(result);
  }
}

/** A node of a loop. */
export class LoopClient {
  /** Resolves when the node has ended; rejects when it, or its thread, died of an error. */
  readonly ended: Promise<void>;
  /** The longest that packets have waited for one request since it was last set to 0, ms. */
  longestMs = 0;
  /** Called with what the loop says by itself. */
  onEvent: (event: LoopEvent['event']) => void = () => {};
  /** Ends it: with an error if it has failed. */
  end!: (error?: Error) => void;
  private readonly thread: LoopThread;
  private readonly name: string;

  constructor(thread: LoopThread, name: string) {
    this.thread = thread;
    this.name = name;
    const own = new Promise<void>((resolve, reject) => {
      this.end = error => (error === undefined ? resolve() : reject(error));
    });
    this.ended = Promise.race([own, thread.ended]);
    this.ended.catch(() => {});
  }

  request(method: NodeMethod, params?: unknown): Promise<unknown> {
    return this.thread.request(method, params, this.name, ms => {
      this.longestMs = Math.max(this.longestMs, ms);
    });
  }

  /** Has changes applied, in pieces between which packets flow. */
  async change(changes: readonly Change[]): Promise<void> {
    for (const piece of inPieces(changes)) await this.request('change', piece);
  }

  /** The number of every port, by portKey(). */
  async portNumbers(): Promise<Map<string, number>> {
    return new Map((await this.request('ports')) as [string, number][]);
  }

  /** Ends the node; resolves when its devices are gone. */
  stop(): Promise<void> {
    return this.thread.stop(this.name);
  }
}

/** The loop's thread, seen from the control plane. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { flattened } from '../flattened.ts';
import * as libc from '../io/libc.ts';
import type { LoopData, LoopRequest, LoopResponse } from '../loop.ts';
import { type Change, inPieces } from '../program/diff.ts';

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

export class LoopThread {
  /** Resolves when the thread has ended; rejects when it died of an error. */
  readonly ended: Promise<void>;
  private readonly worker: Worker;
  private readonly port: MessagePort;
  private readonly wakeFd: number;
  private readonly one = new Int32Array([1, 0]);
  private readonly waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  private nextId = 1;
  private over = false;
  /** The longest that packets have waited for one request since it was last set to 0, ms. */
  longestMs = 0;

  constructor(data: Omit<LoopData, 'control' | 'wakeFd'>) {
    const channel = new MessageChannel();
    this.port = channel.port1;
    this.wakeFd = libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (this.wakeFd < 0) throw new Error(`eventfd: ${libc.errnoName(libc.errno())}`);
    const workerData: LoopData = { ...data, control: channel.port2, wakeFd: this.wakeFd };
    this.worker = new Worker(flattened(new URL('../loop.js', import.meta.url)), {
      workerData,
      transferList: [channel.port2],
    });
    this.port.on('message', (response: LoopResponse) => {
      const request = this.waiting.get(response.id);
      this.longestMs = Math.max(this.longestMs, response.tookMs ?? 0);
      this.waiting.delete(response.id);
      if (response.error !== undefined) request?.reject(new Error(response.error));
      else request?.resolve(response.result);
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
      });
  }

  /** Resolves when packets flow. */
  ready(): Promise<unknown> {
    return this.expect(0);
  }

  request(method: LoopRequest['method'], params?: unknown): Promise<unknown> {
    const id = this.nextId++;
    const answer = this.expect(id);
    this.port.postMessage({ id, method, params } satisfies LoopRequest);
    libc.write(this.wakeFd, libc.addressOf(this.one), 8);
    return answer;
  }

  /** Has changes applied, in pieces between which packets flow. */
  async change(changes: readonly Change[]): Promise<void> {
    for (const piece of inPieces(changes)) await this.request('change', piece);
  }

  /** The number of every port, by portKey(). */
  async portNumbers(): Promise<Map<string, number>> {
    return new Map((await this.request('ports')) as [string, number][]);
  }

  private expect(id: number): Promise<unknown> {
    if (this.over) return Promise.reject(new Error('the loop has ended'));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
}

/** The rings between threads that are threads, each with a processor of its own if there is one. */
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { hugeMemory } from '../../datapath/io/huge-memory.ts';
import { makeSharedSlab } from '../../datapath/packet/shared-pool.ts';
import { makeMeshMemory } from '../../datapath/segment/mesh.ts';
import * as worker from './mesh-worker-words.ts';

const THREADS = 3;
const SHARE = 200;
const SEED = 14;

describe('frames between real threads', function () {
  this.timeout(60_000);
  let running: Worker[] = [];

  afterEach(async () => {
    await Promise.all(running.map(thread => thread.terminate()));
  });

  function start(count: number) {
    const memory = makeMeshMemory(makeSharedSlab(THREADS, SHARE, bytes => hugeMemory(bytes, true)));
    const buffer = new SharedArrayBuffer(4 * worker.WORDS);
    const words = new Int32Array(buffer);
    const threads = Array.from(
      { length: THREADS },
      (_, thread) =>
        new Worker(new URL('./mesh-worker.js', import.meta.url), {
          workerData: { memory, thread, seed: SEED + thread, count, words: buffer } satisfies worker.MeshWorkerData,
        }),
    );
    running = threads;
    const errors: unknown[] = [];
    for (const thread of threads) thread.on('error', error => errors.push(error));
    return { words, threads, errors };
  }

  async function until(errors: unknown[], holds: () => boolean): Promise<void> {
    while (!holds()) {
      assert.deepEqual(errors, []);
      await sleep(2);
    }
    assert.deepEqual(errors, []);
  }

  function wakeAll(words: Int32Array): void {
    for (let i = 0; i < THREADS; i++) {
      Atomics.add(words, worker.WORD_WAKE + i, 1);
      Atomics.notify(words, worker.WORD_WAKE + i);
    }
  }

  /** They end once each has all of its slots again. */
  async function end(words: Int32Array, threads: Worker[]): Promise<void> {
    const results = threads.map(thread => once(thread, 'message'));
    Atomics.store(words, worker.WORD_STOP, 1);
    wakeAll(words);
    for (const [result] of await Promise.all(results)) assert.equal(result.available, SHARE);
  }

  it('arrive in order and unspoiled, and every slot is at home in the end', async () => {
    const { words, threads, errors } = start(5000);
    await until(errors, () => Atomics.load(words, worker.WORD_SENT) === THREADS);
    await end(words, threads);
    assert.deepEqual(errors, []);
    for (let i = 0; i < THREADS; i++) assert.ok(Atomics.load(words, worker.WORD_RECEIVED + i) > 2000);
  });

  for (const dead of [0, 2]) {
    it(`go on where thread ${dead} is killed amid them: the others have all of their slots again`, async () => {
      const { words, threads, errors } = start(Number.MAX_SAFE_INTEGER);
      const received = (thread: number) => Atomics.load(words, worker.WORD_RECEIVED + thread);
      await until(errors, () => threads.every((_, i) => received(i) > 1000));
      await threads[dead]!.terminate();
      const others = threads.filter((_, i) => i !== dead);
      Atomics.store(words, worker.WORD_DEAD, dead + 1);
      wakeAll(words);
      await until(errors, () => Atomics.load(words, worker.WORD_RECLAIMED) === THREADS - 1);
      const before = threads.map((_, i) => received(i));
      await until(errors, () => threads.every((_, i) => i === dead || received(i) > before[i]! + 1000));
      await end(words, others);
      assert.deepEqual(errors, []);
    });
  }
});

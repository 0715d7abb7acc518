/** A thread of test/segment/mesh-threads.test.ts: it sends what it has and passes on what it gets, at random. */
import { parentPort, workerData } from 'node:worker_threads';
import { HEADROOM, type Packet } from '../../datapath/packet/packet.ts';
import { Random } from '../../datapath/random.ts';
import { Mesh } from '../../datapath/segment/mesh.ts';
import {
  type MeshWorkerData,
  WORD_DEAD,
  WORD_FORGOTTEN,
  WORD_QUIET,
  WORD_RECEIVED,
  WORD_RECLAIMED,
  WORD_SENT,
  WORD_STOP,
  WORD_WAKE,
} from './mesh-worker-words.ts';

const { memory, thread, seed, count, words: buffer } = workerData as MeshWorkerData;
const words = new Int32Array(buffer);
const random = new Random(seed);
const mesh = new Mesh(memory, thread, other => {
  Atomics.add(words, WORD_WAKE + other, 1);
  Atomics.notify(words, WORD_WAKE + other);
});
const { pool } = mesh;
const held: Packet[] = [];
/** By sender: the number that was last seen of those that come straight from it. */
const last = new Int32Array(memory.threads);
const numbers = new Int32Array(memory.threads);
let sent = 0;
let isSent = false;

const SENDER = 0;
const NUMBER = 4;
const STRAIGHT = 8;
const FILL = 12;

function fail(text: string): never {
  throw new Error(`thread ${thread}: ${text}`);
}

/** Fills the whole of a frame with what follows from its first words: who writes into it as well is found out. */
function write(p: Packet, to: number, isStraight: boolean): void {
  const { view } = pool;
  p.len = 16 + 4 * random.below(64);
  view.setInt32(p.off + SENDER, thread, true);
  view.setInt32(p.off + NUMBER, isStraight ? ++numbers[to]! : 0, true);
  view.setInt32(p.off + STRAIGHT, isStraight ? 1 : 0, true);
  const value = (p.slot << 8) ^ thread ^ random.next();
  for (let at = FILL; at < p.len; at += 4) view.setInt32(p.off + at, value, true);
}

function check(p: Packet): void {
  const { view } = pool;
  const value = view.getInt32(p.off + FILL, true);
  for (let at = FILL; at < p.len; at += 4) {
    if (view.getInt32(p.off + at, true) !== value) fail(`slot ${p.slot} is spoiled at ${at} of ${p.len}`);
  }
}

for (let crossing = 0; crossing < memory.threads; crossing++) {
  mesh.setEnd(crossing, {
    hasSpace: true,
    arrive: p => {
      check(p);
      const { view } = pool;
      const from = view.getInt32(p.off + SENDER, true);
      if (from !== crossing) fail(`slot ${p.slot} of ${from} came from ${crossing}`);
      if (view.getInt32(p.off + STRAIGHT, true) === 1) {
        const number = view.getInt32(p.off + NUMBER, true);
        if (number !== last[from]! + 1) fail(`${number} came from ${from} behind ${last[from]}`);
        last[from] = number;
      }
      Atomics.add(words, WORD_RECEIVED + thread, 1);
      held.push(p);
    },
  });
}

/** To a thread at random; what does not fit is kept. */
function send(p: Packet): boolean {
  const to = random.below(memory.threads);
  if (to === thread || !mesh.hasRoom(to)) return false;
  write(p, to, true);
  return mesh.send(p, to, thread);
}

/** @returns whether there was anything to do */
function turn(): boolean {
  const stop = Atomics.load(words, WORD_STOP) === 1;
  const any = mesh.receive();
  for (let i = random.below(16); i > 0 && sent < count && !stop; i--) {
    const p = pool.take();
    if (p === null) break;
    p.off = p.start + HEADROOM;
    if (send(p)) sent++;
    else pool.release(p);
  }
  for (let i = random.below(16); i > 0 && held.length > 0; i--) {
    const p = held.shift()!;
    check(p);
    if (stop || random.below(3) > 0 || !send(p)) {
      // Spoiled for whoever still believes to have it.
      pool.view.setInt32(p.off + FILL, ~pool.view.getInt32(p.off + FILL, true), true);
      pool.release(p);
    }
  }
  mesh.flush();
  if (sent === count && !isSent) {
    isSent = true;
    Atomics.add(words, WORD_SENT, 1);
  }
  return any || held.length > 0 || (sent < count && !stop);
}

/** As the control plane has a loop do. */
function buryTheDead(): void {
  const dead = Atomics.load(words, WORD_DEAD);
  if (dead === 0 || dead - 1 === thread) return;
  mesh.forget(dead - 1);
  Atomics.add(words, WORD_FORGOTTEN, 1);
  for (;;) {
    const forgotten = Atomics.load(words, WORD_FORGOTTEN);
    if (forgotten >= memory.threads - 1) break;
    Atomics.wait(words, WORD_FORGOTTEN, forgotten, 1);
  }
  mesh.reclaim(dead - 1);
  Atomics.add(words, WORD_RECLAIMED, 1);
}

let isBuried = false;
let isQuiet = false;
for (;;) {
  const isStopped = Atomics.load(words, WORD_STOP) === 1;
  const living = memory.threads - (Atomics.load(words, WORD_DEAD) > 0 ? 1 : 0);
  const areAllQuiet = Atomics.load(words, WORD_QUIET) === living;
  const wake = Atomics.load(words, WORD_WAKE + thread);
  if (!isBuried && Atomics.load(words, WORD_DEAD) > 0) {
    buryTheDead();
    isBuried = true;
  }
  const isBusy = turn();
  if (isStopped && !isQuiet) {
    isQuiet = true;
    Atomics.add(words, WORD_QUIET, 1);
  }
  if (isBusy) continue;
  pool.collect();
  // Not before: one that has not seen it yet may still send slots of its own here.
  if (areAllQuiet && pool.available === pool.size) break;
  if (!mesh.lieDown()) continue;
  // Slots that come back wake nobody: at the end they are looked for.
  Atomics.wait(words, WORD_WAKE + thread, wake, Atomics.load(words, WORD_STOP) === 1 ? 1 : 1000);
  mesh.getUp();
}
parentPort!.postMessage({ thread, available: pool.available, sent });

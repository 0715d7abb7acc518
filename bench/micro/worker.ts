/** A thread of its own for one operation: V8 compiles it for nothing else, and its tables go with it. */
import '../../datapath/inlining.ts';
import v8 from 'node:v8';
import { parentPort, workerData } from 'node:worker_threads';
import Benchmark from 'benchmark';
import { referenceTime, warmReference } from '../reference.ts';
import { median } from '../stats.ts';
import { PLANS } from './cases.ts';

export interface Task {
  /** Index in PLANS. */
  plan: number;
  /** Seconds that the measurement may take after warming up. */
  seconds: number;
  withHeap: boolean;
}

export interface Outcome {
  name: string;
  params: Record<string, unknown>;
  unit: string;
  /** CPU time, median of the cycles. */
  ns: number;
  reference: number;
  /** Bytes allocated per packet, if asked for. */
  heap?: number;
}

const WARM_UP_MS = 200;
const HEAP_MS = 40;

const task = workerData as Task;
const c = PLANS[task.plan].make();

function repeat(milliseconds: number): number {
  const end = performance.now() + milliseconds;
  let steps = 0;
  do {
    c.step();
    steps++;
  } while (performance.now() < end);
  return steps;
}

/**
 * Benchmark decides how many steps a cycle has and how many cycles there are; a cycle's time is taken as CPU time, since
 * the wall time that it measures itself is also that of the neighbours.
 */
function time(): { ns: number; reference: number } {
  const cycles: { steps: number; ns: number }[] = [];
  const references: number[] = [];
  let start = process.cpuUsage();
  const bench = new Benchmark(c.step, { maxTime: task.seconds, minSamples: 5 });
  bench.on('cycle', () => {
    const used = process.cpuUsage(start);
    cycles.push({ steps: bench.count, ns: (used.user + used.system) * 1000 });
    references.push(referenceTime());
    start = process.cpuUsage();
  });
  bench.run();
  if (bench.error) throw bench.error;
  // The first cycles are short: they find out how many steps make a measurable time.
  const most = Math.max(...cycles.map(cycle => cycle.steps));
  const full = cycles.filter(cycle => cycle.steps >= most / 2);
  return { ns: median(full.map(({ steps, ns }) => ns / steps / c.packets)), reference: median(references) };
}

/** Asking allocates, too, which is taken off. */
function heapPerPacket(steps: number): number {
  const grown = heapGrowth(steps) - heapGrowth(0);
  return Math.max(0, Math.round((10 * grown) / steps / c.packets) / 10);
}

/** The smallest of some: compiling in between would count as the operation's, which allocates every time or never. */
function heapGrowth(steps: number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const before = v8.getHeapStatistics().used_heap_size;
    for (let step = 0; step < steps; step++) c.step();
    least = Math.min(least, v8.getHeapStatistics().used_heap_size - before);
  }
  return least;
}

const steps = repeat(WARM_UP_MS);
warmReference();
const { name, params, unit = 'ns/packet' } = c;
const outcome: Outcome = { name, params, unit, ...time() };
if (task.withHeap) outcome.heap = heapPerPacket(Math.ceil((steps * HEAP_MS) / WARM_UP_MS));
parentPort!.postMessage(outcome);

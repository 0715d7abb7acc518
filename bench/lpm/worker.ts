/**
 * A thread of its own for one table, so that the main thread may be interrupted and V8 compiles lookups for nothing else.
 * It does one thing at a time, as it is asked, so that somebody else's lookups can take turns with it.
 */
import '../../datapath/inlining.ts';
import { parentPort, workerData } from 'node:worker_threads';
import { Random } from '../../datapath/random.ts';
import { Lpm } from '../../datapath/route/lpm.ts';
import { internetTable } from '../prefixes.ts';
import { referenceTime, warmReference } from '../reference.ts';
import { ADDRESSES, addressesOf, type Kind, lookupAll, lookupChained } from './lookup.ts';

export type Request = Kind | 'load' | 'edits' | 'memory';

export interface Answer {
  /** Lookups: per second of CPU time. load: ms. edits: us each. memory: bytes. */
  values: number[];
  reference: number;
  /** Sum of the looked up values, to be held against another implementation's. */
  sum: number;
}

const NEXT_HOPS = 256;
const EDITS = 5_000;

const { prefixes, seed } = workerData as { prefixes: number; seed: number };
const random = new Random(seed);
const routes = internetTable(random, prefixes, NEXT_HOPS);
const addresses = { random: addressesOf('random', seed), hot: addressesOf('hot', seed) };
const lpm = new Lpm();
load();
const expected = {
  random: lookupAll(lpm, addresses.random),
  hot: lookupAll(lpm, addresses.hot),
  latency: lookupChained(lpm, addresses.random),
};
warmReference();

/** Milliseconds that a load of the whole table takes. */
function load(): number {
  const start = performance.now();
  lpm.replaceAll(routes.prefixes, routes.lengths, routes.values);
  if (lpm.size !== routes.prefixes.length) throw new Error(`${lpm.size} prefixes loaded`);
  return performance.now() - start;
}

/** By CPU time, not wall time: on a shared machine the neighbours weigh less (they still take cache and memory bandwidth). */
function lookups(kind: Kind): Answer {
  const start = process.cpuUsage();
  const sum = kind === 'latency' ? lookupChained(lpm, addresses.random) : lookupAll(lpm, addresses[kind]);
  const used = process.cpuUsage(start);
  if (sum !== expected[kind]) throw new Error(`two rounds disagree: ${sum}, ${expected[kind]}`);
  return { values: [(ADDRESSES * 1e6) / (used.user + used.system)], reference: referenceTime(), sum };
}

/** Microseconds per delete and insert of a route that is there, each drawn at random. */
function edits(): number[] {
  const samples: number[] = [];
  for (let n = 0; n < EDITS; n++) {
    const i = random.below(routes.prefixes.length);
    const start = performance.now();
    const deleted = lpm.delete(routes.prefixes[i], routes.lengths[i]);
    lpm.insert(routes.prefixes[i], routes.lengths[i], routes.values[i]);
    samples.push((performance.now() - start) * 1000);
    if (!deleted) throw new Error(`route ${i} was not there`);
  }
  return samples;
}

function answer(request: Request): Answer {
  switch (request) {
    case 'load':
      return { values: [load()], reference: 0, sum: 0 };
    case 'edits':
      return { values: edits(), reference: 0, sum: 0 };
    case 'memory':
      return { values: [lpm.memoryBytes], reference: 0, sum: 0 };
    default:
      return lookups(request);
  }
}

parentPort!.on('message', (request: Request) => parentPort!.postMessage(answer(request)));
parentPort!.postMessage({ values: [], reference: 0, sum: 0 } satisfies Answer);

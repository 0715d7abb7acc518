/**
 * What does a route cost? Lookups per second in tables of 10 to 1 M prefixes, memory, and the time of loads and edits.
 *
 *   node dist/bench/lpm.js [-o json]
 *
 * Tables are new random prefixes with the lengths of the Internet's table. Addresses are drawn before the clock starts:
 * `random` ones from the whole address space, so that hardly two lookups share a cache line, and `hot` ones from 1024
 * destinations, as traffic has them. `latency` makes each address depend on the result before it, so that the processor
 * cannot work on several at once: what a lookup adds to the path of a single packet. The results are summed and the sum
 * is checked in every round.
 */
import Table from 'cli-table3';
import { Random } from '../datapath/random.ts';
import { Lpm } from '../datapath/route/lpm.ts';
import { environment } from './environment.ts';
import { isMainModule } from './main-module.ts';
import { internetTable, type Table as Routes } from './prefixes.ts';
import { referenceTime, warmReference } from './reference.ts';
import type { Report, Row } from './result.ts';
import { type Summary, summarize } from './stats.ts';

export const SIZES = [10, 1_000, 100_000, 1 << 20];
const NEXT_HOPS = 256;
const ADDRESSES = 1 << 21;
const HOT = 1024;
const ROUNDS = 11;
const EDITS = 5_000;

/** Sum of the results, so that no lookup can be left out. */
export function lookupAll(lpm: Lpm, addresses: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < addresses.length; i++) sum = (sum + lpm.lookup(addresses[i])) | 0;
  return sum;
}

/** The same, one after the other: a value is below 2^24, so the next address waits for it and is not changed by it. */
function lookupChained(lpm: Lpm, addresses: Int32Array): number {
  let sum = 0;
  let value = 0;
  for (let i = 0; i < addresses.length; i++) {
    value = lpm.lookup(addresses[i] ^ (value >>> 24));
    sum = (sum + value) | 0;
  }
  return sum;
}

type Rates = Pick<Row, 'ours' | 'reference'>;

/**
 * Lookups per second of each round after the first, which compiles. By CPU time, not wall time: on a shared machine the
 * neighbours weigh less (they still take cache and memory bandwidth).
 */
function rates(run: (lpm: Lpm, addresses: Int32Array) => number, lpm: Lpm, addresses: Int32Array): Rates {
  const expected = run(lpm, addresses);
  warmReference();
  const references: number[] = [];
  const samples: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = process.cpuUsage();
    const sum = run(lpm, addresses);
    const used = process.cpuUsage(start);
    samples.push((addresses.length * 1e6) / (used.user + used.system));
    references.push(referenceTime());
    if (sum !== expected) throw new Error(`two rounds disagree: ${sum}, ${expected}`);
  }
  return { ours: summarize(samples), reference: summarize(references) };
}

/** Milliseconds that a load of the whole table takes. */
function loadTimes(lpm: Lpm, routes: Routes): Summary {
  const samples: number[] = [];
  for (let round = 0; round < 7; round++) {
    const start = performance.now();
    lpm.replaceAll(routes.prefixes, routes.lengths, routes.values);
    samples.push(performance.now() - start);
  }
  if (lpm.size !== routes.prefixes.length) throw new Error(`${lpm.size} prefixes loaded`);
  return summarize(samples);
}

/** Microseconds per delete and insert of a route that is there, each drawn at random. */
function editTimes(lpm: Lpm, routes: Routes, random: Random): Summary {
  const samples: number[] = [];
  for (let n = 0; n < EDITS; n++) {
    const i = random.below(routes.prefixes.length);
    const start = performance.now();
    const deleted = lpm.delete(routes.prefixes[i], routes.lengths[i]);
    lpm.insert(routes.prefixes[i], routes.lengths[i], routes.values[i]);
    samples.push((performance.now() - start) * 1000);
    if (!deleted) throw new Error(`route ${i} was not there`);
  }
  return summarize(samples);
}

/** The share of edits, 0 to 1, that took no longer. */
function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

export interface LpmOptions {
  /** Table sizes. */
  sizes?: readonly number[];
  now?: Date;
  /** Told what is being measured. */
  print?: (line: string) => void;
}

/** The whole report. */
export function benchLpm({ sizes = SIZES, now = new Date(), print: log = () => {} }: LpmOptions = {}): Report {
  const env = environment(now);
  const random = new Random(0x1234567);
  const addresses = new Int32Array(ADDRESSES).map(() => random.next());
  const destinations = new Int32Array(HOT).map(() => random.next());
  const hot = new Int32Array(ADDRESSES).map(() => destinations[random.below(HOT)]);
  const results: Row[] = [];
  for (const prefixes of sizes) {
    log(`lpm: ${prefixes} prefixes`);
    const routes = internetTable(random, prefixes, NEXT_HOPS);
    const lpm = new Lpm();
    const add = (name: string, unit: string, ours: Summary) =>
      results.push({ suite: 'lpm', name, unit, params: { prefixes }, ours });
    const addRates = (name: string, measured: Rates) =>
      results.push({ suite: 'lpm', name, unit: 'lookups/s', params: { prefixes }, ...measured });
    add('load', 'ms', loadTimes(lpm, routes));
    addRates('lookup, random', rates(lookupAll, lpm, addresses));
    addRates('lookup, hot', rates(lookupAll, lpm, hot));
    addRates('lookup, latency', rates(lookupChained, lpm, addresses));
    const edits = editTimes(lpm, routes, random);
    // Thousands of samples would drown the rest of the report.
    const p99 = quantile(edits.samples, 0.99);
    add('delete and insert', 'us', { ...edits, samples: [] });
    add('delete and insert, p99', 'us', { median: p99, ci95: [p99, p99], samples: [] });
    add('memory', 'bytes', summarize([lpm.memoryBytes]));
  }
  return { environment: env, results };
}

function print(report: Report): void {
  const table = new Table({ head: ['prefixes', 'what', 'median', '95 % interval', 'ns each'], style: { head: [] } });
  for (const { name, unit, params, ours } of report.results) {
    const perSecond = unit === 'lookups/s';
    const scale = perSecond || unit === 'bytes' ? 1e6 : 1;
    const text = (value: number) => (value / scale).toFixed(2);
    table.push([
      String(params.prefixes),
      name,
      `${text(ours.median)} ${perSecond ? 'M/s' : unit === 'bytes' ? 'MB' : unit}`,
      ours.ci95.map(text).join(' - '),
      perSecond ? (1e9 / ours.median).toFixed(1) : '',
    ]);
  }
  const { cpu, cores, node, kernel, loadAverage } = report.environment;
  console.log(`${cpu}, ${cores} cores, Node ${node}, ${kernel}, load ${loadAverage.toFixed(2)}`);
  console.log(table.toString());
}

function main(): void {
  const json = process.argv.indexOf('-o');
  const report = benchLpm({ print: line => process.stderr.write(`${line}\n`) });
  if (json > 0 && process.argv[json + 1] === 'json') console.log(JSON.stringify(report));
  else print(report);
}

if (isMainModule(import.meta.url)) main();

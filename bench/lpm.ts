/**
 * What does a route cost? Lookups per second in tables of 10 to 1 M prefixes, memory, and the time of loads and edits.
 *
 * Tables are new random prefixes with the lengths of the Internet's table. `random` addresses are drawn from the whole
 * address space, so that hardly two lookups share a cache line, `hot` ones from 1024 destinations, as traffic has them.
 * `latency` makes each address depend on the result before it, so that the processor cannot work on several at once: what
 * a lookup adds to the path of a single packet. The results are summed and the sum is checked in every round.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { flattened } from '../datapath/flattened.ts';
import { Random } from '../datapath/random.ts';
import { Progress } from './e2e/progress.ts';
import { type Environment, environment } from './environment.ts';
import { ADDRESSES, addressesOf, KINDS, type Kind } from './lpm/lookup.ts';
import { Rte, type RteWay } from './lpm/rte.ts';
import type { Answer, Request } from './lpm/worker.ts';
import { internetTable } from './prefixes.ts';
import type { Report, Row, RunOptions } from './result.ts';
import { judge, type Summary, summarize, summarizeRatios } from './stats.ts';

export const SIZES = [10, 1_000, 100_000, 1 << 20];
const QUICK_SIZES = [1_000, 1 << 20];
const ROUNDS = 11;
const QUICK_ROUNDS = 5;
const LOADS = 5;
const SEED = 0x1234567;
const NEXT_HOPS = 256;

export interface LpmOptions extends RunOptions {
  /** Table sizes. */
  sizes?: readonly number[];
  /** Two sizes, fewer rounds. */
  quick?: boolean;
  /** DPDK's rte_lpm in turn with ours, on the same table and addresses. */
  rte?: boolean;
}

export interface LpmReport extends Report {
  /** `rtePages`: what memory rte_lpm's table had. */
  environment: Environment & { complete: boolean; rtePages?: string };
}

/** Needs no privileges. @throws RteError when rte_lpm is asked for and cannot be had */
export async function runLpm(options: LpmOptions = {}): Promise<LpmReport> {
  const { quick = false, rte = false, now = new Date(), print = () => {} } = options;
  const sizes = options.sizes ?? (quick ? QUICK_SIZES : SIZES);
  const signal = options.signal ?? new AbortController().signal;
  const report: LpmReport = { environment: { ...environment(now), complete: true }, results: [] };
  const progress = new Progress(sizes.length, () => performance.now(), print);
  try {
    for (const prefixes of sizes) {
      progress.say(`${prefixes} prefixes`);
      await measureTable(prefixes, quick ? QUICK_ROUNDS : ROUNDS, rte, report, signal);
      progress.advance(1);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    report.environment.complete = false;
  }
  return report;
}

/** Of the rivals' ways to look up, which are held against ours. */
const RIVALS: { kind: Kind; way: RteWay; file: number; name: string; rival: string }[] = [
  { kind: 'random', way: 'one', file: 0, name: 'lookup, random', rival: 'rte_lpm_lookup' },
  { kind: 'random', way: 'bulk', file: 0, name: 'lookup, random, beside 32 at once', rival: 'rte_lpm_lookup_bulk' },
  { kind: 'random', way: 'x4', file: 0, name: 'lookup, random, beside 4 at once', rival: 'rte_lpm_lookupx4' },
  { kind: 'hot', way: 'one', file: 1, name: 'lookup, hot', rival: 'rte_lpm_lookup' },
  { kind: 'latency', way: 'chain', file: 0, name: 'lookup, latency', rival: 'rte_lpm_lookup' },
];

async function measureTable(
  prefixes: number,
  rounds: number,
  withRte: boolean,
  report: LpmReport,
  signal: AbortSignal,
): Promise<void> {
  const thread = new Worker(flattened(new URL('./lpm/worker.js', import.meta.url)), {
    workerData: { prefixes, seed: SEED },
  });
  const ask = async (request?: Request): Promise<Answer> => {
    if (request !== undefined) thread.postMessage(request);
    const [answer] = (await once(thread, 'message', { signal })) as [Answer];
    return answer;
  };
  let rte: Rte | undefined;
  const add = (name: string, unit: string, ours: Summary, more: Partial<Row> = {}) =>
    report.results.push({ suite: 'lpm', name, unit, params: { prefixes }, ours, ...more });
  try {
    await ask();
    if (withRte) {
      const routes = internetTable(new Random(SEED), prefixes, NEXT_HOPS);
      rte = await Rte.start(routes, [addressesOf('random', SEED), addressesOf('hot', SEED)], signal);
      report.environment.rtePages = rte.pages;
    }
    const loads: number[] = [];
    for (let i = 0; i < LOADS; i++) loads.push(...(await ask('load')).values);
    add('load', 'ms', summarize(loads));
    for (const kind of KINDS) await measureLookups(kind, rounds, ask, rte, add);
    const edits = (await ask('edits')).values;
    // Thousands of samples would drown the rest of the report.
    add('delete and insert', 'us', { ...summarize(edits), samples: [] });
    const p99 = quantile(edits, 0.99);
    add('delete and insert, p99', 'us', { median: p99, ci95: [p99, p99], samples: [] });
    add('memory', 'bytes', summarize((await ask('memory')).values));
  } finally {
    await thread.terminate();
    await rte?.stop();
  }
}

/** Ours and every rival once a round. */
async function measureLookups(
  kind: Kind,
  rounds: number,
  ask: (request: Request) => Promise<Answer>,
  rte: Rte | undefined,
  add: (name: string, unit: string, ours: Summary, more?: Partial<Row>) => void,
): Promise<void> {
  const rivals = rte === undefined ? [] : RIVALS.filter(rival => rival.kind === kind);
  const ours: number[] = [];
  const references: number[] = [];
  const theirs: number[][] = rivals.map(() => []);
  for (let round = 0; round < rounds; round++) {
    const answer = await ask(kind);
    ours.push(answer.values[0]);
    references.push(answer.reference);
    for (let i = 0; i < rivals.length; i++) {
      const { ns, sum } = await rte!.lookup(rivals[i].way, rivals[i].file);
      if (sum !== answer.sum) throw new Error(`${rivals[i].rival} finds other routes than ours: ${sum}, ${answer.sum}`);
      theirs[i].push((1e9 * ADDRESSES) / ns);
    }
  }
  const reference = summarize(references);
  if (rivals.length === 0) add(`lookup, ${kind}`, 'lookups/s', summarize(ours), { reference });
  rivals.forEach(({ name, rival }, i) => {
    const ratio = summarizeRatios(ours, theirs[i]);
    const compared = { rival, theirs: summarize(theirs[i]), ratio, verdict: judge(ratio, 'higher') };
    add(name, 'lookups/s', summarize(ours), { reference, better: 'higher', ...compared });
  });
}

/** The share of samples, 0 to 1, that took no longer. */
function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

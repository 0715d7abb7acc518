/**
 * What does each operation of the path cost by itself? Nanoseconds and bytes of heap, with tables from empty to a million
 * entries. Every visit to an operation is a fresh thread; a sample is the median of a visit, by CPU time.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { flattened } from '../datapath/flattened.ts';
import { Progress } from './e2e/progress.ts';
import { type Environment, environment } from './environment.ts';
import { type Group, PLANS } from './micro/cases.ts';
import type { Outcome, Task } from './micro/worker.ts';
import type { Report, Row, RunOptions } from './result.ts';
import { summarize } from './stats.ts';

export { GROUPS, type Group } from './micro/cases.ts';

export interface MicroOptions extends RunOptions {
  /** Default all. */
  groups?: readonly Group[];
  /** Fresh threads for each operation; at least 5 for a figure to quote. */
  visits?: number;
  /** Fewer cases, 2 short visits. */
  quick?: boolean;
}

export interface MicroReport extends Report {
  /** `complete` is false when the run was ended early. */
  environment: Environment & { complete: boolean };
}

const VISITS = 5;
const SECONDS = 0.5;
const QUICK_VISITS = 2;
const QUICK_SECONDS = 0.1;

/** Needs no privileges. */
export async function runMicro(options: MicroOptions = {}): Promise<MicroReport> {
  const { groups, quick = false, now = new Date(), print = () => {} } = options;
  const visits = options.visits ?? (quick ? QUICK_VISITS : VISITS);
  const signal = options.signal ?? new AbortController().signal;
  const env = { ...environment(now), complete: true };
  const plans = PLANS.map((plan, i) => ({ i, ...plan })).filter(
    plan => (groups?.includes(plan.group) ?? true) && (plan.quick || !quick),
  );
  const outcomes: Outcome[][] = plans.map(() => []);
  const progress = new Progress(visits * plans.length, () => performance.now(), print);
  try {
    for (let visit = 0; visit < visits; visit++) {
      for (let n = 0; n < plans.length; n++) {
        const seconds = quick ? QUICK_SECONDS : SECONDS;
        const outcome = await measure({ plan: plans[n].i, seconds, withHeap: visit === 0 }, signal);
        outcomes[n].push(outcome);
        progress.advance(1);
        const { name, params, ns, unit } = outcome;
        progress.say(`${visit + 1}/${visits} ${name} ${Object.values(params).join(' ')}: ${ns.toPrecision(3)} ${unit}`);
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    env.complete = false;
  }
  return { environment: env, results: outcomes.flatMap(rowsOf) };
}

async function measure(task: Task, signal: AbortSignal): Promise<Outcome> {
  const thread = new Worker(flattened(new URL('./micro/worker.js', import.meta.url)), { workerData: task });
  try {
    const [outcome] = (await once(thread, 'message', { signal })) as [Outcome];
    return outcome;
  } finally {
    await thread.terminate();
  }
}

function rowsOf(outcomes: Outcome[]): Row[] {
  if (outcomes.length === 0) return [];
  const { name, params, unit, heap = 0 } = outcomes[0];
  const ours = summarize(outcomes.map(o => o.ns));
  const reference = summarize(outcomes.map(o => o.reference));
  return [
    { suite: 'micro', name, unit, params, ours, reference },
    { suite: 'micro', name: `${name}, heap`, unit: unit.replace('ns/', 'bytes/'), params, ours: summarize([heap]) },
  ];
}

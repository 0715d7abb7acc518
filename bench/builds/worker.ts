/**
 * One case of `bench compare --build`, in a thread of its own: the part of a build that is run beside another build's.
 * What it is told and what it answers must stay as it is, or builds before and after cannot be compared.
 */
import '../../datapath/inlining.ts';
import { parentPort, workerData } from 'node:worker_threads';
import { PLANS } from '../micro/cases.ts';
import { type Case, Rig } from '../pipeline/rig.ts';

export type Contest = { suite: 'pipeline'; case: Case } | { suite: 'micro'; plan: number };

/** First answer: what it is. */
export interface Entry {
  name: string;
  params: Record<string, unknown>;
}

/** Of CPU time. */
const ROUND_MS = 4;
const WARM_UP_MS = 250;
const PIPELINE_BATCH = 2048;
const PIPELINE_WARM_UP = 1_000_000;

/** One step, and how many packets it is for. */
function enter(contest: Contest): Entry & { packets: number; step: () => void } {
  if (contest.suite === 'micro') return PLANS[contest.plan].make();
  const rig = new Rig(contest.case);
  rig.run(Math.max(PIPELINE_WARM_UP, 2 * contest.case.flows));
  rig.check();
  const { direction, mode, size, flows, nat } = contest.case;
  const name = direction === 'out' ? 'pod to uplink' : 'uplink to pod';
  return { name, params: { mode, size, flows, nat }, packets: PIPELINE_BATCH, step: () => rig.run(PIPELINE_BATCH) };
}

/** ns of CPU time for so many steps. */
function time(count: number): number {
  const start = process.cpuUsage();
  for (let i = 0; i < count; i++) c.step();
  const used = process.cpuUsage(start);
  return (used.user + used.system) * 1000;
}

const c = enter(workerData as Contest);
const end = performance.now() + WARM_UP_MS;
let count = 1;
let spent = 0;
do {
  spent = time(count);
  if (spent < ROUND_MS * 1e6) count *= 2;
} while (performance.now() < end || spent < ROUND_MS * 1e6);

/** Each question is a round: the answer is ns per packet. */
parentPort!.on('message', () => parentPort!.postMessage(time(count) / count / c.packets));
parentPort!.postMessage({ name: c.name, params: c.params } satisfies Entry);

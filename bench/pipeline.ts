/**
 * What does the path itself cost, without the kernel? Packets per second and core from a port in memory through everything
 * that a node does with them to another port in memory; the cost of each step; bursts of different length.
 *
 * Every case runs in a thread of its own, several times: a visit is a fresh thread, so that the luck of one compilation is
 * not taken for a property of the code. Visits to all cases alternate. A sample is the median of a visit, by CPU time.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { flattened } from '../datapath/flattened.ts';
import type { ProfileName } from '../datapath/profile.ts';
import { Progress } from './e2e/progress.ts';
import { type Environment, environment } from './environment.ts';
import { type Case, MODES, type Mode, NATS, type NatKind, SIZES, type Size } from './pipeline/rig.ts';
import type { Answer, Request } from './pipeline/worker.ts';
import type { Report, Row, RunOptions } from './result.ts';
import { median, type Summary, summarize } from './stats.ts';

export { MODES, type Mode, NATS, type NatKind, SIZES, type Size } from './pipeline/rig.ts';

export interface PipelineOptions extends RunOptions {
  /** With any of these four: every combination of what is given (the rest from DEFAULT) instead of the usual selection. */
  modes?: readonly Mode[];
  sizes?: readonly Size[];
  flows?: readonly number[];
  nats?: readonly NatKind[];
  /** Fresh threads for each case; at least 5 for a figure to quote. */
  visits?: number;
  /** Part of the usual selection, 2 visits. */
  quick?: boolean;
  /** Of the usual selection only these. */
  parts?: readonly Part[];
}

export const PARTS = ['cases', 'steps', 'bursts'] as const;
export type Part = (typeof PARTS)[number];

export interface PipelineEnvironment extends Environment {
  /** False: the modules as tsc makes them were measured, which are slower than what a node runs (datapath/flattened.ts). */
  flattened: boolean;
  /** False when the run was ended early. */
  complete: boolean;
}

export interface PipelineReport extends Report {
  environment: PipelineEnvironment;
}

/** What one measurement varies is changed in this; with the linux profile no step is left out. */
export const DEFAULT: Case = {
  direction: 'out',
  mode: 'vxlan',
  size: 64,
  flows: 10_000,
  nat: 'tracked',
  profile: 'linux',
  offload: 'none',
  burst: 64,
};
export const FLOWS = [1, 1000, 10_000, 100_000, 1_000_000];
const BURSTS = [1, 2, 4, 8, 16, 32, 64];
const QUICK_BURSTS = [1, 8, 64];
const QUICK_SIZES: Record<Case['direction'], readonly Size[]> = {
  out: [64, 'IMIX', 1500],
  in: [64],
};
const QUICK_FLOWS = { out: [1, 10_000, 1_000_000], in: [10_000] };

const DIRECTIONS = { out: 'pod to uplink', in: 'uplink to pod' };
const ROUNDS = 7;
const ROUND_PACKETS = 200_000;
const VISITS = 5;
const QUICK_VISITS = 2;

/** A case of the plan with the samples of its visits so far. */
interface Measured {
  c: Case;
  /** ns per packet. */
  ns: number[];
  reference: number[];
  heap: number[];
}

/** Ends with what is measured when told to; needs no privileges. */
export async function runPipeline(options: PipelineOptions = {}): Promise<PipelineReport> {
  const { quick = false, visits = quick ? QUICK_VISITS : VISITS, now = new Date(), print = () => {} } = options;
  const signal = options.signal ?? new AbortController().signal;
  const env = { ...environment(now), flattened: workerUrl().href.endsWith('.flat.js'), complete: true };
  if (!env.flattened) print('warning: not flattened (npm run build): a node is faster than this');
  const chosen = isChosen(options);
  const asked = (part: Part): boolean => options.parts?.includes(part) ?? true;
  const cases = chosen ? combinations(options) : asked('cases') ? selection(quick) : [];
  const plain = cases.map(start);
  const steps = chosen || !asked('steps') ? [] : STEP_CASES.map(start);
  const bursts =
    chosen || !asked('bursts') ? [] : (quick ? QUICK_BURSTS : BURSTS).map(burst => start({ ...DEFAULT, burst }));
  const progress = new Progress(visits * (cases.length + steps.length + bursts.length), () => performance.now(), print);
  try {
    for (let visit = 0; visit < visits; visit++) {
      for (const m of plain) {
        await visitTogether([m], signal, visit === 0);
        progress.advance(1);
        progress.say(
          `${visit + 1}/${visits} ${describeCase(m.c)}: ${(1000 / m.ns[m.ns.length - 1]).toFixed(2)} M packets/s`,
        );
      }
      for (const [group, what] of [
        [steps, 'cost by step'],
        [bursts, 'burst sizes'],
      ] as const) {
        if (group.length === 0) continue;
        await visitTogether(group, signal, false);
        progress.advance(group.length);
        progress.say(`${visit + 1}/${visits} ${what}`);
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    env.complete = false;
  }
  const results = [
    ...plain.flatMap(rowsOf),
    ...stepRows(steps),
    ...bursts.flatMap(m => rowOf(m, { burst: m.c.burst })),
  ];
  return { environment: env, results };
}

function isChosen({ modes, sizes, flows, nats }: PipelineOptions): boolean {
  return [modes, sizes, flows, nats].some(list => list !== undefined);
}

function combinations(o: PipelineOptions): Case[] {
  const cases: Case[] = [];
  for (const mode of o.modes ?? [DEFAULT.mode]) {
    for (const nat of o.nats ?? [DEFAULT.nat]) {
      for (const flows of o.flows ?? [DEFAULT.flows]) {
        for (const size of o.sizes ?? [DEFAULT.size]) {
          for (const direction of ['out', 'in'] as const) cases.push({ ...DEFAULT, mode, nat, flows, size, direction });
        }
      }
    }
  }
  return cases;
}

/** Each thing varied by itself, every combination of mode and size, of mode and translation. No case twice. */
function selection(quick: boolean): Case[] {
  const cases: Case[] = [];
  for (const direction of ['out', 'in'] as const) {
    for (const mode of quick && direction === 'in' ? [DEFAULT.mode] : MODES) {
      for (const size of quick ? QUICK_SIZES[direction] : SIZES) cases.push({ ...DEFAULT, direction, mode, size });
      if (!quick) for (const nat of NATS) cases.push({ ...DEFAULT, direction, mode, nat });
    }
    for (const flows of quick ? QUICK_FLOWS[direction] : FLOWS) cases.push({ ...DEFAULT, direction, flows });
  }
  if (quick) for (const nat of NATS) cases.push({ ...DEFAULT, nat });
  else {
    for (const flows of FLOWS) {
      for (const nat of ['none', 'service', 'masquerade'] as const) cases.push({ ...DEFAULT, flows, nat });
    }
  }
  for (const flows of quick ? [10_000] : [10_000, 1_000_000]) cases.push({ ...DEFAULT, flows, profile: 'cilium' });
  cases.push({ ...DEFAULT, offload: 'auto' });
  const seen = new Set<string>();
  return cases.filter(c => {
    const key = JSON.stringify(c);
    return !seen.has(key) && seen.add(key);
  });
}

/** For what a part of the path costs: a step is what one of these takes longer than another. */
const STEP_CASES: Case[] = [];

/** @returns its index in STEP_CASES */
function stepCase(more: Partial<Case>): number {
  return STEP_CASES.push({ ...DEFAULT, mode: 'native', nat: 'none', ...more }) - 1;
}

const S = {
  devices: stepCase({ until: 'devices' }),
  source: stepCase({ until: 'source' }),
  parse: stepCase({ until: 'parse' }),
  native: stepCase({}),
  tracked: stepCase({ nat: 'tracked' }),
  service: stepCase({ nat: 'service' }),
  masquerade: stepCase({ nat: 'masquerade' }),
  ipip: stepCase({ mode: 'ipip' }),
  // GENEVE is VXLAN without the outer checksum, in the linux profile.
  geneve: stepCase({ mode: 'geneve' }),
  vxlan: stepCase({ mode: 'vxlan' }),
  nativeIn: stepCase({ direction: 'in' }),
  ipipIn: stepCase({ direction: 'in', mode: 'ipip' }),
  geneveIn: stepCase({ direction: 'in', mode: 'geneve' }),
  vxlanIn: stepCase({ direction: 'in', mode: 'vxlan' }),
};

/** In the order of the path. `mode`: a step that only this one has. */
const STEPS: { step: string; mode?: Mode; with: number; without?: number }[] = [
  { step: 'read and write (the bench itself)', with: S.devices },
  { step: 'source check, drop', with: S.source, without: S.devices },
  { step: 'parse', with: S.parse, without: S.source },
  { step: 'route, TTL, neighbour, queue (less a drop)', with: S.native, without: S.parse },
  { step: 'conntrack hit', with: S.tracked, without: S.native },
  { step: 'rewrite to a service backend', with: S.service, without: S.tracked },
  { step: 'rewrite to a masquerade address', with: S.masquerade, without: S.tracked },
  { step: 'encapsulate', mode: 'ipip', with: S.ipip, without: S.native },
  { step: 'encapsulate', mode: 'geneve', with: S.geneve, without: S.native },
  { step: 'encapsulate', mode: 'vxlan', with: S.vxlan, without: S.native },
  { step: 'of it the outer UDP checksum', mode: 'vxlan', with: S.vxlan, without: S.geneve },
  { step: 'uplink to pod, without a tunnel', with: S.nativeIn },
  { step: 'decapsulate', mode: 'ipip', with: S.ipipIn, without: S.nativeIn },
  { step: 'decapsulate', mode: 'geneve', with: S.geneveIn, without: S.nativeIn },
  { step: 'decapsulate', mode: 'vxlan', with: S.vxlanIn, without: S.nativeIn },
];

/** What a step costs is the difference of two paths that took turns, one with it and one without. */
function stepRows(measured: Measured[]): Row[] {
  if (measured.length === 0) return [];
  const { mode: _mode, nat: _nat, ...common } = paramsOf(DEFAULT);
  return STEPS.flatMap(({ step, mode, with: a, without: b }) => {
    const samples = measured[a].ns.slice(0, measured[measured.length - 1].ns.length);
    const ns = samples.map((value, i) => value - (b === undefined ? 0 : measured[b].ns[i]));
    if (ns.length === 0) return [];
    const params = { ...common, step, ...(mode === undefined ? {} : { mode }) };
    return [{ suite: 'pipeline', name: 'step', unit: 'ns/packet', params, ours: summarize(ns) }];
  });
}

function start(c: Case): Measured {
  return { c, ns: [], reference: [], heap: [] };
}

function workerUrl(): URL {
  return flattened(new URL('./pipeline/worker.js', import.meta.url));
}

/** One visit: a thread for each, whose rounds alternate. */
async function visitTogether(group: Measured[], signal: AbortSignal, withHeap: boolean): Promise<void> {
  const threads: Worker[] = [];
  const ask = async (thread: Worker, request?: Request): Promise<Answer> => {
    if (request !== undefined) thread.postMessage(request);
    const [answer] = (await once(thread, 'message', { signal })) as [Answer];
    return answer;
  };
  try {
    for (const { c } of group) {
      const thread = new Worker(workerUrl(), { workerData: c });
      threads.push(thread);
      await ask(thread);
    }
    const answers: Answer[][] = group.map(() => []);
    for (let round = 0; round < ROUNDS; round++) {
      for (let i = 0; i < group.length; i++) {
        answers[i].push(await ask(threads[i], { kind: 'time', packets: ROUND_PACKETS }));
      }
    }
    for (let i = 0; i < group.length; i++) {
      if (withHeap) group[i].heap.push((await ask(threads[i], { kind: 'heap', packets: 0 })).value);
      group[i].reference.push(median(answers[i].map(answer => answer.reference)));
      group[i].ns.push(median(answers[i].map(answer => answer.value)));
    }
  } finally {
    await Promise.all(threads.map(thread => thread.terminate()));
  }
}

function paramsOf(c: Case): Record<string, unknown> {
  const params: Record<string, unknown> = { mode: c.mode, size: c.size, flows: c.flows, nat: c.nat };
  if (c.profile !== DEFAULT.profile) params.profile = c.profile satisfies ProfileName;
  if (c.offload !== DEFAULT.offload) params.offload = c.offload;
  return params;
}

function rowOf(m: Measured, more: Record<string, unknown> = {}): Row[] {
  if (m.ns.length === 0) return [];
  const ours = summarize(m.ns.map(ns => 1e9 / ns));
  const reference: Summary = summarize(m.reference);
  const params = { ...paramsOf(m.c), ...more };
  return [{ suite: 'pipeline', name: DIRECTIONS[m.c.direction], unit: 'packets/s', params, ours, reference }];
}

function rowsOf(m: Measured): Row[] {
  const name = `${DIRECTIONS[m.c.direction]}, heap`;
  const heap: Row = { suite: 'pipeline', name, unit: 'bytes/packet', params: paramsOf(m.c), ours: summarize(m.heap) };
  return [...rowOf(m), ...(m.heap.length === 0 ? [] : [heap])];
}

function describeCase(c: Case): string {
  const params = Object.values(paramsOf(c)).join(' ');
  return `${DIRECTIONS[c.direction]}, ${params}`;
}

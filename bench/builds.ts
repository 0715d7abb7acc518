/**
 * Two builds beside one another: `bench compare --build DIR_A DIR_B`. For people who change the code: a difference of a few
 * percent is less than what two runs of one build differ by, so the builds run at the same time.
 *
 * A visit starts a thread of each build on one processor and lets them take turns, 4 ms each: what slows the machine for a
 * while slows both.
 * The visit's ratio is the median of its rounds'. Other visits are other threads, for V8 compiles the same code differently
 * each time and puts it elsewhere. The verdict is about the visits' ratios: a trimmed mean (one odd compilation in ten
 * shall not decide), with an interval wide enough for all rows and for every look at them, and a difference of less than
 * SMALLEST is none.
 */
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { Contest, Entry } from './builds/worker.ts';
import type { CompareReport, Comparison } from './compare.ts';
import { type PrintProgress, Progress } from './e2e/progress.ts';
import { type Group, PLANS } from './micro/cases.ts';
import { MODES } from './pipeline/rig.ts';
import { DEFAULT } from './pipeline.ts';
import { onProcessor, processors } from './processors.ts';
import { median, trimmedInterval } from './stats.ts';

export type Contestants = 'pipeline' | Group;

export interface BuildsOptions {
  /** Default the pipeline, and encapsulation and decapsulation alone. */
  only?: readonly Contestants[];
  /** More than those of a quick run of `bench micro`. */
  thorough?: boolean;
  /** Only these of micro's PLANS, and nothing else. */
  plans?: readonly number[];
  print?: PrintProgress;
  /** Ends the run early: what is not decided by then is no difference. */
  signal?: AbortSignal;
}

/** It holds nothing that could be run. */
export class BuildError extends Error {
  override name = 'BuildError';
  readonly exitCode = 2;
}

/** Probability that two equal builds get a difference named anywhere in the table. */
const ALPHA = 0.01;
/** Rows that are still open after so many visits get more. */
const LOOKS = [8, 12, 18, 27];
const ROUNDS = 24;
/** Smaller differences come and go with where things lie in memory. */
const SMALLEST = 0.01;
/** A row is decided when its interval is so narrow on each side, whatever it says. */
const NARROW = 0.012;

interface Lane {
  contest: Contest;
  entry: Entry;
  /** ns per packet, by visit. */
  before: number[];
  after: number[];
  /** Logarithms, by visit. */
  ratios: number[];
  /** The last look at it. */
  interval: { estimate: number; low: number; high: number };
  open: boolean;
}

/** @param before, after  checkouts that are built, or their dist directories. @throws BuildError */
export async function compareBuilds(
  before: string,
  after: string,
  options: BuildsOptions = {},
): Promise<CompareReport> {
  const { print = () => {} } = options;
  const signal = options.signal ?? new AbortController().signal;
  const builds = [before, after].map(workerOf) as [URL, URL];
  const contests = contestsOf(options);
  const lanes: Lane[] = contests.map(contest => ({
    contest,
    entry: { name: '', params: {} },
    before: [],
    after: [],
    ratios: [],
    interval: { estimate: 0, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY },
    open: true,
  }));
  const alpha = ALPHA / lanes.length / LOOKS.length;
  const progress = new Progress(LOOKS[LOOKS.length - 1] * lanes.length, () => performance.now(), print);
  try {
    for (let visit = 0; visit < LOOKS[LOOKS.length - 1]; visit++) {
      for (const lane of lanes.filter(one => one.open)) {
        await visitBoth(lane, builds, visit, signal);
        progress.advance(1);
      }
      if (!LOOKS.includes(visit + 1)) continue;
      for (const lane of lanes.filter(one => one.open)) {
        look(lane, alpha);
        if (!lane.open) progress.advance(LOOKS[LOOKS.length - 1] - visit - 1);
      }
      progress.say(`${visit + 1} visits, ${lanes.filter(one => !one.open).length} of ${lanes.length} decided`);
      if (lanes.every(one => !one.open)) break;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  const rows = lanes.filter(lane => lane.ratios.length > 0).map(rowOf);
  return { rows, unmatched: 0, warnings: signal.aborted ? ['ended early'] : [] };
}

function contestsOf({ only = ['pipeline', 'encap'], thorough = false, plans }: BuildsOptions): Contest[] {
  if (plans !== undefined) return plans.map(plan => ({ suite: 'micro', plan }));
  const out: Contest[] = MODES.map(mode => ({ suite: 'pipeline', case: { ...DEFAULT, mode } }));
  const back: Contest = { suite: 'pipeline', case: { ...DEFAULT, direction: 'in' } };
  const micro = PLANS.flatMap(({ group, quick }, plan): Contest[] =>
    only.includes(group) && (quick || thorough) ? [{ suite: 'micro', plan }] : [],
  );
  return [...(only.includes('pipeline') ? [...out, back] : []), ...micro];
}

/** The flattened worker of a build, where it is younger than the modules that it was made of. */
function workerOf(directory: string): URL {
  const candidates = [path.join(directory, 'dist'), directory];
  const dist = candidates.find(candidate => existsSync(path.join(candidate, 'bench/builds/worker.js')));
  if (dist === undefined) {
    throw new BuildError(
      `${directory}: expected a checkout that is built (npm run build), or its dist directory; one from before this command cannot take part`,
    );
  }
  const plain = path.join(dist, 'bench/builds/worker.js');
  const flat = path.join(dist, 'bench/builds/worker.flat.js');
  const fresh = existsSync(flat) && statSync(flat).mtimeMs >= statSync(plain).mtimeMs;
  return pathToFileURL(fresh ? flat : plain);
}

/** A thread of each; who starts, who is asked first, and on which processor changes from visit to visit. */
async function visitBoth(lane: Lane, builds: readonly [URL, URL], visit: number, signal: AbortSignal): Promise<void> {
  const swapped = visit % 2 === 1;
  const ours = processors();
  const processor = ours[(visit >> 1) % ours.length];
  const threads: Worker[] = [];
  const ask = async <T>(thread: Worker): Promise<T> => ((await once(thread, 'message', { signal })) as [T])[0];
  const round = async (thread: Worker): Promise<number> => {
    thread.postMessage(0);
    return ask<number>(thread);
  };
  try {
    const entries: Entry[] = [];
    for (const url of swapped ? [builds[1], builds[0]] : builds) {
      const thread = onProcessor(processor, () => new Worker(url, { workerData: lane.contest }));
      threads.push(thread);
      entries.push(await ask<Entry>(thread));
    }
    if (JSON.stringify(entries[0]) !== JSON.stringify(entries[1])) {
      throw new BuildError(
        `the builds measure different things: ${entries.map(entry => JSON.stringify(entry)).join(', ')}`,
      );
    }
    lane.entry = entries[0];
    const times: [number[], number[]] = [[], []];
    for (let i = 0; i < ROUNDS; i++) {
      for (const which of i % 2 === 0 ? [0, 1] : [1, 0]) times[which].push(await round(threads[which]));
    }
    const [a, b] = swapped ? [times[1], times[0]] : times;
    lane.before.push(median(a));
    lane.after.push(median(b));
    lane.ratios.push(median(a.map((value, i) => Math.log(b[i] / value))));
  } finally {
    await Promise.all(threads.map(thread => thread.terminate()));
  }
}

function look(lane: Lane, alpha: number): void {
  lane.interval = trimmedInterval(lane.ratios, alpha);
  const { estimate, low, high } = lane.interval;
  lane.open = changeOf(lane) === 'no difference' && Math.max(high - estimate, estimate - low) > NARROW;
}

function changeOf({ interval: { low, high } }: Lane): Comparison['change'] {
  if (low > Math.log1p(SMALLEST)) return 'slower';
  return high < -Math.log1p(SMALLEST) ? 'faster' : 'no difference';
}

function rowOf(lane: Lane): Comparison {
  const { estimate, low, high } = lane.interval;
  const decided = Number.isFinite(low);
  return {
    suite: lane.contest.suite,
    name: lane.entry.name,
    unit: 'ns/packet',
    params: lane.entry.params,
    before: median(lane.before),
    after: median(lane.after),
    ratio: decided ? { estimate: Math.exp(estimate), low: Math.exp(low), high: Math.exp(high) } : null,
    relativeTo: 'other build',
    change: decided ? changeOf(lane) : 'too few samples',
  };
}

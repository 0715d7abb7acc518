/**
 * What does the tunnel cost from pod to pod, beside the kernel's own? Ours and its counterpart stand side by side, and
 * their trials alternate, so that whatever else the machine does falls on both. README.md says how to read the result.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from '../datapath/lab/lab-error.ts';
import { METRICS, runTrial, SUITES, type Suite, startServers, type Trial } from './e2e/measure.ts';
import { TrialError } from './e2e/parse.ts';
import { Progress } from './e2e/progress.ts';
import { removeLeftovers, Sandbox } from './e2e/sandbox.ts';
import {
  buildKernel,
  buildOurs,
  buildVeth,
  counterpartOf,
  MODES,
  type Mode,
  type Offloads,
  offloadsOfOurs,
  type Setup,
} from './e2e/topologies.ts';
import { type Environment, environment } from './environment.ts';
import { machineTime } from './machine.ts';
import { inspectBackground, inspectSteal, type Noise } from './noise.ts';
import type { ComparedRow, Report } from './result.ts';
import { judge, type Summary, summarize, summarizeRatios } from './stats.ts';

export { SUITES, type Suite } from './e2e/measure.ts';
export { MODES, type Mode } from './e2e/topologies.ts';

export interface E2eOptions {
  modes?: readonly Mode[];
  suites?: readonly Suite[];
  /** Trials of each side per suite; at least 5 for a figure to quote. */
  pairs?: number;
  /** Whole seconds per trial. */
  seconds?: number;
  /** Measure plain veth in turn with the first mode. Default true. */
  ceiling?: boolean;
  now?: Date;
  /** One line of progress at a time. */
  print?: (line: string) => void;
  /** Ends the run early: what is measured by then is reported. */
  signal?: AbortSignal;
}

export interface E2eEnvironment extends Environment, Noise {
  /** False when the run was ended early, or something could not be measured; the warnings then say what. */
  complete: boolean;
}

export interface E2eReport extends Report<ComparedRow> {
  environment: E2eEnvironment;
}

/** A short look, not a figure to quote. */
export const QUICK = { modes: ['vxlan', 'local'], pairs: 3, seconds: 1 } as const;

/** Between trials: queues and closing connections of the last one are gone. */
const SETTLE_MS = 150;
const WARM_UP_SECONDS = 1;
/** What a trial takes besides its seconds, and a mode besides its trials; for the remaining time only. */
const TRIAL_EXTRA = 0.5;
const MODE_EXTRA = 3;

const ARMS = ['ours', 'kernel', 'veth'] as const;
type Arm = (typeof ARMS)[number];

type Setups = Partial<Record<Arm, Setup>>;

/** Needs root. What cannot be built or measured is left out of the report, which then says so. */
export async function runE2e(options: E2eOptions = {}): Promise<E2eReport> {
  const {
    modes = MODES,
    suites = SUITES,
    pairs = 5,
    seconds = 3,
    ceiling = true,
    now = new Date(),
    print = () => {},
    signal = new AbortController().signal,
  } = options;
  const report: E2eReport = {
    environment: { ...environment(now), backgroundShare: 0, stealShare: 0, warnings: [], complete: true },
    results: [],
  };
  const { warnings } = report.environment;
  const warn = (text: string): void => {
    warnings.push(text);
    print(`warning: ${text}`);
  };
  const fail = (text: string): void => {
    report.environment.complete = false;
    warn(text);
  };

  removeLeftovers();
  await inspectBackground(report.environment, warn);
  const work = workOf({ modes, suites, pairs, seconds, ceiling });
  const progress = new Progress(work, () => performance.now(), print);
  const before = machineTime();
  for (const mode of modes) {
    if (signal.aborted) break;
    const sandbox = new Sandbox();
    try {
      progress.say(`${mode}: setting up`);
      const setups = await buildSetups(sandbox, mode, ceiling && mode === modes[0]);
      const offloads = await offloadsOfOurs(sandbox);
      progress.advance(MODE_EXTRA);
      for (const suite of suites) {
        if (signal.aborted) break;
        const trials = await runPairs({ sandbox, setups, mode, suite, pairs, seconds, progress, fail, signal });
        report.results.push(...rowsOf(trials, { mode, suite, seconds, offloads }));
      }
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      fail(`${mode}: ${error.message}`);
    } finally {
      await sandbox.remove();
    }
  }
  if (signal.aborted) fail('ended early');
  inspectSteal(report.environment, before, warn);
  return report;
}

/** In trial seconds. */
function workOf(plan: Required<Pick<E2eOptions, 'modes' | 'suites' | 'pairs' | 'seconds' | 'ceiling'>>): number {
  const { modes, suites, pairs, seconds, ceiling } = plan;
  const perArm = suites.length * (workOfTrial(WARM_UP_SECONDS) + pairs * workOfTrial(seconds));
  const arms = 2 * modes.length + (ceiling ? 1 : 0);
  return modes.length * MODE_EXTRA + arms * perArm;
}

function workOfTrial(seconds: number): number {
  return seconds + TRIAL_EXTRA;
}

async function buildSetups(sandbox: Sandbox, mode: Mode, ceiling: boolean): Promise<Setups> {
  const setups: Setups = { ours: await buildOurs(sandbox, mode), kernel: await buildKernel(sandbox, mode) };
  if (ceiling) setups.veth = await buildVeth(sandbox);
  await Promise.all(Object.values(setups).map(setup => startServers(sandbox, setup)));
  return setups;
}

interface PairsPlan {
  sandbox: Sandbox;
  setups: Setups;
  mode: Mode;
  suite: Suite;
  pairs: number;
  seconds: number;
  progress: Progress;
  fail: (text: string) => void;
  signal: AbortSignal;
}

/**
 * A warm-up of each arm, then the pairs. The order within a pair changes from pair to pair, so that a machine that gets
 * steadily slower favours nobody.
 * @returns complete pairs only; fewer than asked when the run was ended or a trial failed
 */
async function runPairs(plan: PairsPlan): Promise<Partial<Record<Arm, Trial>>[]> {
  const { sandbox, setups, mode, suite, pairs, seconds, progress, fail, signal } = plan;
  const arms = ARMS.filter(arm => setups[arm] !== undefined);
  const trial = async (arm: Arm, length: number): Promise<Trial> => {
    const result = await runTrial(sandbox, setups[arm]!, suite, length, signal);
    progress.advance(workOfTrial(length));
    await sleep(SETTLE_MS);
    return result;
  };
  const complete: Partial<Record<Arm, Trial>>[] = [];
  try {
    for (const arm of arms) await trial(arm, WARM_UP_SECONDS);
    for (let pair = 0; pair < pairs; pair++) {
      const round: Partial<Record<Arm, Trial>> = {};
      for (const arm of pair % 2 === 0 ? arms : [...arms].reverse()) round[arm] = await trial(arm, seconds);
      complete.push(round);
      progress.say(`${mode} ${suite} ${pair + 1}/${pairs}: ${describe(suite, round)}`);
    }
  } catch (error) {
    if (signal.aborted) return complete;
    if (!(error instanceof TrialError)) throw error;
    fail(`${mode} ${suite}: pair ${complete.length + 1} gave no figure: ${error.message}`);
  }
  return complete;
}

function describe(suite: Suite, round: Partial<Record<Arm, Trial>>): string {
  const { name, unit } = METRICS[suite][0];
  return ARMS.filter(arm => round[arm] !== undefined)
    .map(arm => `${arm} ${formatFigure(round[arm]![name])}`)
    .join(', ')
    .concat(` ${unit}`);
}

function rowsOf(
  rounds: readonly Partial<Record<Arm, Trial>>[],
  { mode, suite, seconds, offloads }: { mode: Mode; suite: Suite; seconds: number; offloads: Offloads },
): ComparedRow[] {
  if (rounds.length === 0) return [];
  const samples = (arm: Arm, name: string): number[] => rounds.map(round => round[arm]![name]);
  return METRICS[suite].map(({ name, unit, better, details }) => {
    const ours = samples('ours', name);
    const kernel = samples('kernel', name);
    const ratio = summarizeRatios(ours, kernel);
    const both = (detail: string): [string, { ours: Summary; kernel: Summary }] => [
      detail,
      { ours: summarize(samples('ours', detail)), kernel: summarize(samples('kernel', detail)) },
    ];
    return {
      suite: 'e2e',
      name,
      unit,
      params: { mode, kernel: counterpartOf(mode), pairs: rounds.length, seconds, offloads },
      better,
      ours: summarize(ours),
      kernel: summarize(kernel),
      ratio,
      verdict: judge(ratio, better),
      ...(rounds[0].veth === undefined ? {} : { ceiling: summarize(samples('veth', name)) }),
      details: Object.fromEntries(details.map(both)),
    };
  });
}

/** Three significant digits, four from a million on; thousands as k, from ten million on millions as M. */
export function formatFigure(value: number): string {
  if (value >= 1e7) return `${(value / 1e6).toPrecision(4)}M`;
  if (value >= 1000) return `${(value / 1000).toPrecision(value >= 1e6 ? 4 : 3)}k`;
  return value.toPrecision(3);
}

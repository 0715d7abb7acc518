/**
 * What does the tunnel cost from pod to pod, beside the kernel's own? Ours and its counterpart stand side by side, and
 * their trials alternate, so that whatever else the machine does falls on both. README.md says how to read the result.
 *
 * The run goes in rounds. Each builds every scene anew and measures one pair of each suite in it: so the pairs of a row are
 * spread over the whole run, and with new processes each time, for the same code is compiled differently and lies in other
 * memory each time it is started. What differs between two runs differs between two pairs of one run, too, and is in the interval.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { packageObstacle } from '../datapath/control/uplink/raw.ts';
import { loadRawSocket } from '../datapath/io/raw-socket.ts';
import { LabError } from '../datapath/lab/lab-error.ts';
import { mergeHistograms, percentileCurve } from './e2e/histogram.ts';
import { runTrial, startServers, warmUp } from './e2e/measure.ts';
import { METRICS, type Metric, type Suite, type Trial } from './e2e/metrics.ts';
import { TrialError } from './e2e/parse.ts';
import {
  planScenes,
  type ScenePlan,
  type Selection,
  secondsOfScene,
  secondsOfSetup,
  secondsOfTrial,
} from './e2e/plan.ts';
import { Progress } from './e2e/progress.ts';
import { removeLeftovers, Sandbox } from './e2e/sandbox.ts';
import {
  buildKernel,
  buildOurs,
  buildVeth,
  counterpartOf,
  type Offloads,
  offloadsOfOurs,
  type Setup,
} from './e2e/topologies.ts';
import { type Environment, environment } from './environment.ts';
import { machineTime } from './machine.ts';
import { inspectBackground, inspectSteal, type Noise } from './noise.ts';
import type { ComparedRow, Report, RunOptions } from './result.ts';
import { judge, type Summary, summarize, summarizeRatios } from './stats.ts';

export { SUITES, type Suite } from './e2e/metrics.ts';
export { NAT_SUITES, planScenes, SUITE_GROUPS } from './e2e/plan.ts';
export { MODES, type Mode, NATS, type Nat, UPLINKS, type Uplink } from './e2e/topologies.ts';

export interface E2eOptions extends Partial<Selection>, RunOptions {
  /** Rounds, and so trials of each side per row. Default 8, 3 if quick. */
  pairs?: number;
  /** Whole seconds per trial. Default 1. */
  seconds?: number;
}

export interface E2eEnvironment extends Environment, Noise {
  /** False when the run was ended early, or something could not be measured; the warnings then say what. */
  complete: boolean;
}

export interface E2eReport extends Report<ComparedRow> {
  environment: E2eEnvironment;
}

/**
 * With 8 the interval is the range of all, which covers the median with 99 %; two runs of the same thing then have intervals
 * without overlap once in 6400 rows. (9 would allow an interval that leaves out the outermost, with 96 %.)
 */
const PAIRS = 8;
const QUICK_PAIRS = 3;

/** Between trials: queues and closing connections of the last one are gone. */
const SETTLE_MS = 150;

const ARMS = ['ours', 'kernel', 'veth'] as const;
type Arm = (typeof ARMS)[number];

type Setups = Partial<Record<Arm, Setup>>;
/** A trial of every arm that the scene has. */
type Pair = Partial<Record<Arm, Trial>>;

/** What is measured of one suite in one scene, over all rounds. */
interface Series {
  scene: ScenePlan;
  suite: Suite;
  pairs: Pair[];
  offloads: Offloads | null;
}

/** Needs root. What cannot be built or measured is left out of the report, which then says so. */
export async function runE2e(options: E2eOptions = {}): Promise<E2eReport> {
  const {
    quick = false,
    ceiling = true,
    pairs = quick ? QUICK_PAIRS : PAIRS,
    seconds = 1,
    now = new Date(),
    print = () => {},
    signal = new AbortController().signal,
  } = options;
  const env: E2eEnvironment = {
    ...environment(now),
    backgroundShare: 0,
    stealShare: 0,
    warnings: [],
    complete: true,
  };
  const warn = (text: string): void => {
    if (env.warnings.includes(text)) return;
    env.warnings.push(text);
    print(`warning: ${text}`);
  };
  const fail = (text: string): void => {
    env.complete = false;
    warn(text);
  };

  removeLeftovers();
  await inspectBackground(env, warn);
  const scenes = planScenes({ ...options, ceiling, quick }).filter(({ uplink }) => {
    // It takes a package that is optional: without it, only who asks for it by name hears of a failure.
    const [obstacle] = uplink === 'raw' && options.uplinks === undefined ? packageObstacle(loadRawSocket) : [];
    if (obstacle !== undefined) warn(`left out: ${obstacle}`);
    return obstacle === undefined;
  });
  const series = scenes.flatMap(scene =>
    scene.suites.map((suite): Series => ({ scene, suite, pairs: [], offloads: null })),
  );
  const work = pairs * scenes.reduce((sum, scene) => sum + secondsOfScene(scene, seconds), 0);
  const progress = new Progress(work, () => performance.now(), print);
  const before = machineTime();
  for (let round = 0; round < pairs; round++) {
    for (const scene of scenes) {
      if (signal.aborted) break;
      const ofScene = series.filter(one => one.scene === scene);
      await runScene({ scene, series: ofScene, round, pairs, seconds, progress, warn, fail, signal });
    }
  }
  if (signal.aborted) fail('ended early');
  inspectSteal(env, before, warn);
  return { environment: env, results: series.flatMap(one => rowsOf(one, seconds)) };
}

// ---- one round of one scene

interface ScenePass {
  scene: ScenePlan;
  series: readonly Series[];
  /** From 0. */
  round: number;
  pairs: number;
  seconds: number;
  progress: Progress;
  warn: (text: string) => void;
  /** Warns, and the report is then not complete. */
  fail: (text: string) => void;
  signal: AbortSignal;
}

async function runScene(pass: ScenePass): Promise<void> {
  const { scene, series, round, progress, fail, signal } = pass;
  const sandbox = new Sandbox();
  try {
    if (round === 0) progress.say(`${nameOf(scene)}: setting up`);
    const setups = await buildSetups(sandbox, scene);
    const offloads = await offloadsOfOurs(sandbox);
    const arms = ARMS.filter(arm => setups[arm] !== undefined);
    const capacity: Partial<Record<Arm, number>> = {};
    for (const arm of arms) capacity[arm] = await warmUp({ sandbox, setup: setups[arm]!, signal });
    progress.advance(secondsOfSetup(scene));
    // The order within a pair changes from round to round, so that a machine that gets steadily slower favours nobody.
    const built = { sandbox, setups, capacity, arms: round % 2 === 0 ? arms : [...arms].reverse() };
    for (const one of series) {
      if (signal.aborted) return;
      one.offloads = offloads;
      await measurePair(one, pass, built);
    }
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof LabError || error instanceof TrialError)) throw error;
    fail(`${nameOf(scene)}: ${error.message}`);
  } finally {
    await sandbox.remove();
  }
}

function nameOf({ mode, nat, uplink }: ScenePlan): string {
  return [mode, ...(nat === 'none' ? [] : [nat]), ...(uplink === 'tap' ? [] : [uplink])].join(' ');
}

async function buildSetups(sandbox: Sandbox, scene: ScenePlan): Promise<Setups> {
  const setups: Setups = { ours: await buildOurs(sandbox, scene), kernel: await buildKernel(sandbox, scene) };
  if (scene.ceiling) setups.veth = await buildVeth(sandbox);
  await Promise.all(Object.values(setups).map(setup => startServers(sandbox, setup, scene.suites)));
  return setups;
}

interface Built {
  sandbox: Sandbox;
  setups: Setups;
  capacity: Partial<Record<Arm, number>>;
  arms: readonly Arm[];
}

/** A pair that gives no figure is made once more. */
async function measurePair(series: Series, pass: ScenePass, built: Built): Promise<void> {
  const { suite } = series;
  const { round, pairs, seconds, progress, fail, warn, signal } = pass;
  const work = built.arms.length * secondsOfTrial(suite, seconds);
  for (const report of [warn, fail]) {
    try {
      const pair = await runPair(suite, pass, built);
      series.pairs.push(pair);
      progress.advance(work);
      progress.say(`${nameOf(pass.scene)} ${suite} ${round + 1}/${pairs}: ${describe(suite, pair)}`);
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof TrialError)) throw error;
      report(`${nameOf(pass.scene)} ${suite}: pair ${round + 1} gave no figure: ${error.message}`);
    }
  }
  progress.advance(work);
}

/** @throws TrialError also when it was ended */
async function runPair(suite: Suite, { seconds, signal }: ScenePass, built: Built): Promise<Pair> {
  const { sandbox, setups, capacity, arms } = built;
  const pair: Pair = {};
  for (const arm of arms) {
    if (signal.aborted) throw new TrialError('ended early');
    pair[arm] = await runTrial(suite, { sandbox, setup: setups[arm]!, seconds, capacity: capacity[arm]!, signal });
    await sleep(SETTLE_MS);
  }
  return pair;
}

function describe(suite: Suite, pair: Pair): string {
  const { name, unit } = METRICS[suite][0];
  return ARMS.filter(arm => pair[arm] !== undefined)
    .map(arm => `${arm} ${formatFigure(pair[arm]!.figures[name])}`)
    .join(', ')
    .concat(` ${unit}`);
}

// ---- rows

function rowsOf(series: Series, seconds: number): ComparedRow[] {
  return series.pairs.length === 0 ? [] : METRICS[series.suite].map(metric => rowOf(metric, series, seconds));
}

function rowOf(metric: Metric, { scene, pairs, offloads }: Series, seconds: number): ComparedRow {
  const { name, unit, better, params, details, curve } = metric;
  const { mode, nat, uplink } = scene;
  const samples = (arm: Arm, figure: string): number[] => pairs.map(pair => pair[arm]!.figures[figure]);
  const ours = samples('ours', name);
  const kernel = samples('kernel', name);
  const ratio = summarizeRatios(ours, kernel);
  const both = (detail: string): [string, { ours: Summary; kernel: Summary }] => [
    detail,
    { ours: summarize(samples('ours', detail)), kernel: summarize(samples('kernel', detail)) },
  ];
  const curveOf = (arm: Arm) => percentileCurve(mergeHistograms(pairs.map(pair => pair[arm]!.histogram!)));
  const hasCeiling = pairs[0].veth !== undefined;
  return {
    suite: 'e2e',
    name,
    unit,
    params: { mode, nat, uplink, kernel: counterpartOf(mode, nat), ...params, pairs: pairs.length, seconds, offloads },
    better,
    ours: summarize(ours),
    kernel: summarize(kernel),
    ratio,
    verdict: judge(ratio, better),
    ...(hasCeiling ? { ceiling: summarize(samples('veth', name)) } : {}),
    details: Object.fromEntries(details.map(both)),
    ...(curve
      ? {
          curves: {
            ours: curveOf('ours'),
            kernel: curveOf('kernel'),
            ...(hasCeiling ? { veth: curveOf('veth') } : {}),
          },
        }
      : {}),
  };
}

/** Three significant digits, four from a million on; thousands as k, from ten million on millions as M. */
export function formatFigure(value: number): string {
  if (value >= 1e7) return `${(value / 1e6).toPrecision(4)}M`;
  if (value >= 1000) return `${(value / 1000).toPrecision(value >= 1e6 ? 4 : 3)}k`;
  return value.toPrecision(3);
}

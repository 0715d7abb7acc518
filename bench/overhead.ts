/**
 * What should a tunnel cost, what does it, and where does the difference come from? Three answers side by side: header
 * lengths (theory.ts), a node over memory that is given real packets (wire.ts), TCP through two nodes (live.ts); and the
 * cost of the path's steps from `bench pipeline`, for what the nodes' own time was spent on.
 */

import { LabError } from '../datapath/lab/lab-error.ts';
import { TrialError } from './e2e/parse.ts';
import { Progress } from './e2e/progress.ts';
import { LiveRun } from './live-run.ts';
import { type LiveTrial, measureLive, type Round } from './overhead/live.ts';
import { callsPerGigabyte, MODES, type Mode, theoryOf, UNDERLAY_MTUS } from './overhead/theory.ts';
import { measureWire } from './overhead/wire.ts';
import { runPipeline } from './pipeline.ts';
import type { LiveReport, Row, RunOptions } from './result.ts';
import { summarize, summarizeRatios } from './stats.ts';

export interface OverheadOptions extends RunOptions {
  /** Rows of the same run: the pipeline's steps are taken from there. Without them they are measured. */
  earlier?: readonly Row[];
}

/** Of the underlay, in what is measured alive. */
const LIVE_MTU = 1500;
const PAIRS = 7;
const SECONDS = 3;
const QUICK_PAIRS = 3;
const QUICK_SECONDS = 1;
const STEP_VISITS = 5;
const QUICK_STEP_VISITS = 1;
/** A step visit takes about as long as so many trials. */
const STEP_WORK = 4;

/** Needs root for what is measured alive. */
export async function runOverhead(options: OverheadOptions = {}): Promise<LiveReport> {
  const { quick = false, earlier = [] } = options;
  const run = await LiveRun.begin(options);
  const { signal, print } = run;
  const [pairs, seconds, visits] = quick
    ? [QUICK_PAIRS, QUICK_SECONDS, QUICK_STEP_VISITS]
    : [PAIRS, SECONDS, STEP_VISITS];
  let steps = earlier.filter(isStep);
  const stepWork = steps.length > 0 ? 0 : visits * STEP_WORK;
  const progress = new Progress(MODES.length * (pairs + 2) + stepWork, () => performance.now(), print);

  const results: Row[] = MODES.flatMap(wireRows);
  try {
    if (steps.length === 0) {
      progress.say('cost by step');
      steps = (await runPipeline({ parts: ['steps'], visits, signal })).results.filter(isStep);
      progress.advance(stepWork);
    }
    const advance = (text: string): void => {
      progress.advance(1);
      progress.say(text);
    };
    const rounds = await measureLive({ pairs, seconds, advance, signal });
    results.push(...liveRows(rounds, seconds, steps));
  } catch (error) {
    if (!(error instanceof LabError || error instanceof TrialError)) throw error;
    run.lacks(error.message);
  }
  return run.end(results);
}

function isStep(row: Row): boolean {
  return row.suite === 'pipeline' && row.name === 'step';
}

/** Theory and packets, at every MTU. */
function wireRows(mode: Mode): Row[] {
  return UNDERLAY_MTUS.flatMap(mtu => {
    const theory = theoryOf(mode, mtu);
    const measured = measureWire(mode, mtu);
    const row = (name: string, unit: string, of: keyof typeof theory, scale = 1): Row => ({
      suite: 'overhead',
      name,
      unit,
      params: { mode, mtu },
      ours: summarize([scale * measured[of]]),
      predicted: scale * theory[of],
    });
    return [
      row('header', 'bytes', 'headerBytes'),
      row('MTU inside', 'bytes', 'mtuInside'),
      row('goodput share', '%', 'goodputShare', 100),
      row('segments of 64 KiB', 'packets', 'segments'),
      row('packets for one of the full underlay MTU', 'packets', 'fragments'),
      row('goodput share, fragmented', '%', 'fragmentedShare', 100),
    ];
  });
}

function liveRows(rounds: readonly Round[], seconds: number, steps: readonly Row[]): Row[] {
  if (rounds.length === 0) return [];
  const of = (mode: Mode, what: (trial: LiveTrial) => number): number[] =>
    rounds.map(round => what(round[mode] as LiveTrial));
  const speed = (trial: LiveTrial) => trial.gigabitsPerSecond;
  const native = summarize(of('native', speed));
  return MODES.flatMap(mode => {
    const row = (name: string, unit: string, samples: number[], more: Partial<Row> = {}, part?: string): Row => ({
      suite: 'overhead',
      name,
      unit,
      params: { mode, mtu: LIVE_MTU, seconds, ...(part === undefined ? {} : { part }) },
      ours: summarize(samples),
      ...more,
    });
    const share = theoryOf(mode, LIVE_MTU).goodputShare / theoryOf('native', LIVE_MTU).goodputShare;
    const user = of(mode, trial => trial.user);
    const byStep = of(mode, trial => pathSeconds(mode, trial, steps));
    const calls = of(mode, trial => trial.reads + trial.writes);
    return [
      row('tcp1', 'Gb/s', of(mode, speed), { predicted: native.median * share }),
      {
        ...row('tcp1 over native', 'ratio', [], { predicted: share }),
        ours: summarizeRatios(of(mode, speed), of('native', speed)),
      },
      row('calls of the nodes', 'calls/GB', calls, { predicted: callsPerGigabyte(mode, LIVE_MTU) }),
      row(
        'cpu',
        's/GB',
        of(mode, trial => trial.user + trial.system + trial.rest),
        {},
        'all',
      ),
      row('cpu', 's/GB', byStep, {}, 'nodes: path, by the pipeline'),
      row(
        'cpu',
        's/GB',
        user.map((value, i) => Math.max(0, value - byStep[i])),
        {},
        'nodes: rest of user space',
      ),
      row(
        'cpu',
        's/GB',
        of(mode, trial => trial.system),
        {},
        'nodes: reads, writes and waits',
      ),
      row(
        'cpu',
        's/GB',
        of(mode, trial => trial.rest),
        {},
        'pods, switch and iperf3',
      ),
    ];
  });
}

/** What the path's steps should have cost both nodes: each read brings a packet of whatever size. */
function pathSeconds(mode: Mode, trial: LiveTrial, steps: readonly Row[]): number {
  const median = (step: string, of?: Mode): number =>
    steps.find(row => row.params.step === step && row.params.mode === of)?.ours.median ?? 0;
  const out =
    median('source check, drop') +
    median('parse') +
    median('route, TTL, neighbour, queue (less a drop)') +
    // With offloads the outer checksum is left to the device.
    median('encapsulate', mode === 'vxlan' ? 'geneve' : mode);
  const back = median('uplink to pod, without a tunnel') + median('decapsulate', mode === 'vxlan' ? 'geneve' : mode);
  return (trial.reads * Math.max(0, out + back)) / 2 / 1e9;
}

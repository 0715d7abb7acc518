/** Two nodes for each mode, all at once, and TCP through one after the other: throughput, and who spent the processor's time. */
import { setTimeout as sleep } from 'node:timers/promises';
import { runTrial, startServers, warmUp } from '../e2e/measure.ts';
import { TrialError } from '../e2e/parse.ts';
import { Sandbox } from '../e2e/sandbox.ts';
import { buildOurs, type Setup } from '../e2e/topologies.ts';
import { machineTime, timeBetween } from '../machine.ts';
import { type ProcessWork, processWork } from '../process-work.ts';
import { MODES, type Mode } from './theory.ts';

/** Times in CPU seconds per 10^9 bytes of payload. */
export interface LiveTrial {
  gigabitsPerSecond: number;
  /** Of both nodes together. */
  user: number;
  system: number;
  /** Everything else on the machine: iperf3, the pods' kernel side, the switch. */
  rest: number;
  /** Reads and writes of both nodes, by payload as the times. */
  reads: number;
  writes: number;
}

export type Round = Partial<Record<Mode, LiveTrial>>;

export interface LivePlan {
  pairs: number;
  seconds: number;
  /** Told once everything stands, and after every trial. */
  advance: (text: string) => void;
  signal: AbortSignal;
}

const SETTLE_MS = 150;
const NODES = ['o-a', 'o-b'];

/**
 * Every mode once in each round, in an order that changes from round to round.
 * @returns complete rounds only; fewer than asked when it was ended early
 * @throws TrialError, LabError
 */
export async function measureLive({ pairs, seconds, advance, signal }: LivePlan): Promise<Round[]> {
  const lanes: { mode: Mode; sandbox: Sandbox; setup: Setup }[] = [];
  const sandboxes: Sandbox[] = [];
  const rounds: Round[] = [];
  try {
    for (const mode of MODES) {
      if (signal.aborted) return rounds;
      const sandbox = new Sandbox(`${mode}-`);
      sandboxes.push(sandbox);
      const setup = await buildOurs(sandbox, { mode, nat: 'none', uplink: 'tap' });
      await startServers(sandbox, setup, ['tcp1']);
      lanes.push({ mode, sandbox, setup });
      advance(`${mode}: two nodes are up`);
    }
    for (const { mode, sandbox, setup } of lanes) {
      await warmUp({ sandbox, setup, signal });
      advance(`${mode}: warm`);
    }
    for (let pair = 0; pair < pairs; pair++) {
      const round: Round = {};
      for (const { mode, sandbox, setup } of pair % 2 === 0 ? lanes : [...lanes].reverse()) {
        await sleep(SETTLE_MS);
        const trial = await measure(sandbox, setup, seconds, signal);
        round[mode] = trial;
        advance(`${pair + 1}/${pairs} ${mode}: ${trial.gigabitsPerSecond.toFixed(2)} Gb/s`);
      }
      rounds.push(round);
    }
  } catch (error) {
    if (!signal.aborted || !(error instanceof TrialError)) throw error;
  } finally {
    await Promise.all(sandboxes.map(sandbox => sandbox.remove()));
  }
  return rounds;
}

async function measure(sandbox: Sandbox, setup: Setup, seconds: number, signal: AbortSignal): Promise<LiveTrial> {
  const pids = NODES.map(name => sandbox.pidOf(name));
  const machine = machineTime();
  const before = pids.map(processWork);
  const { figures } = await runTrial('tcp1', { sandbox, setup, seconds, capacity: 0, signal });
  const after = pids.map(processWork);
  const { busy } = timeBetween(machine, machineTime());
  const gigabytes = (figures.tcp1 / 8) * seconds;
  const spent = (what: keyof ProcessWork) => after.reduce((sum, work, i) => sum + work[what] - before[i][what], 0);
  return {
    gigabitsPerSecond: figures.tcp1,
    user: spent('user') / gigabytes,
    system: spent('system') / gigabytes,
    rest: Math.max(0, busy - spent('user') - spent('system')) / gigabytes,
    reads: spent('reads') / gigabytes,
    writes: spent('writes') / gigabytes,
  };
}

/** What every suite of `tunpath bench` gives with `-o json` (contract). */
import type { PrintProgress } from './e2e/progress.ts';
import type { Environment } from './environment.ts';
import type { Noise } from './noise.ts';
import type { Summary, Verdict } from './stats.ts';

export interface Row {
  suite: string;
  /** What was measured; under which conditions is in `params`. */
  name: string;
  unit: string;
  params: Record<string, unknown>;
  ours: Summary;
  /** Time of a fixed piece of work (reference.ts) beside each sample of `ours`: what to compare two runs by. */
  reference?: Summary;
  /** What it should be by theory. */
  predicted?: number;
  /** Another implementation of the same, measured in turn with ours: then the four below are there, too. */
  rival?: string;
  theirs?: Summary;
  better?: 'higher' | 'lower';
  /** Ours over theirs, pair by pair. */
  ratio?: Summary;
  verdict?: Verdict;
}

/** A row measured in turn with the kernel's counterpart. */
export interface ComparedRow extends Row {
  better: 'higher' | 'lower';
  kernel: Summary;
  /** Ours over the kernel's, pair by pair. */
  ratio: Summary;
  verdict: Verdict;
  /** The same with nothing but a veth pair between the pods, where that took its turn too. */
  ceiling?: Summary;
  /** What belongs to the same trials and has no ratio of its own, such as losses. */
  details: Record<string, { ours: Summary; kernel: Summary }>;
  /** Of latencies, all trials together: which share, in percent, took at most how many microseconds. */
  curves?: Partial<Record<'ours' | 'kernel' | 'veth', [percentile: number, us: number][]>>;
}

export interface Report<R extends Row = Row> {
  environment: Environment;
  results: R[];
}

/** Of a run on live nodes. `complete`: false when it was ended early, or something could not be measured. */
export interface LiveReport extends Report {
  environment: Environment & Noise & { complete: boolean };
}

/** What every suite takes. */
export interface RunOptions {
  /** A first look: fewer cases, less of each. */
  quick?: boolean;
  now?: Date;
  /** One line of progress at a time. */
  print?: PrintProgress;
  /** Ends the run early: what is measured by then is reported. */
  signal?: AbortSignal;
}

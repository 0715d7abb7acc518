/** Every suite in one run and one report. */
import { formatProgress, type PrintProgress } from './e2e/progress.ts';
import { type Environment, environment } from './environment.ts';
import { machineTime } from './machine.ts';
import { inspectBackground, inspectSteal, type Noise } from './noise.ts';
import type { Report } from './result.ts';
import { SUITES, type Suite } from './suites.ts';

export interface AllOptions {
  /** Under 5 minutes instead of 45. */
  quick?: boolean;
  /** Default every one. */
  suites?: readonly Suite[];
  now?: Date;
  print?: (line: string) => void;
  /** Ends the run early: what is measured by then is reported. */
  signal?: AbortSignal;
}

export interface SuiteRecord {
  name: string;
  description: string;
  seconds: number;
  /** False when it was ended early, or could not measure everything; undefined when it did not run. */
  complete: boolean;
  results: number;
}

export interface AllEnvironment extends Environment, Noise {
  quick: boolean;
  complete: boolean;
  suites: SuiteRecord[];
}

export interface AllReport extends Report {
  environment: AllEnvironment;
}

/** A suite that fails is left out, and the report says why; the others still run. */
export async function runAll(options: AllOptions = {}): Promise<AllReport> {
  const { quick = false, suites = SUITES, now = new Date(), print = () => {} } = options;
  const signal = options.signal ?? new AbortController().signal;
  const noise: Noise = { backgroundShare: 0, stealShare: 0, warnings: [] };
  const env: AllEnvironment = { ...environment(now), ...noise, quick, complete: true, suites: [] };
  const report: AllReport = { environment: env, results: [] };
  const warn = (text: string): void => {
    env.warnings.push(text);
    print(`warning: ${text}`);
  };
  await inspectBackground(env, warn);
  const clock = new Clock(suites, quick, print);
  const before = machineTime();
  for (const suite of suites) {
    if (signal.aborted) break;
    clock.start(suite);
    const record: SuiteRecord = {
      name: suite.name,
      description: suite.description,
      seconds: 0,
      complete: false,
      results: 0,
    };
    env.suites.push(record);
    try {
      const found = await suite.run({ quick, earlier: report.results }, clock.print, signal);
      report.results.push(...found.results);
      record.results = found.results.length;
      const said = found.environment as Environment & Partial<Noise> & { complete?: boolean };
      record.complete = said.complete !== false;
      // The suites that look at the machine themselves find this very run in its load.
      for (const text of said.warnings ?? [])
        if (!text.startsWith('noisy')) env.warnings.push(`${suite.name}: ${text}`);
    } catch (error) {
      warn(`${suite.name}: ${(error as Error).message}`);
    }
    record.seconds = Math.round(clock.end());
  }
  if (signal.aborted) warn('ended early');
  env.complete = !signal.aborted && env.suites.every(suite => suite.complete);
  inspectSteal(env, before, warn);
  return report;
}

/** How far all suites together are, from what each says of itself and from how long the others usually take. */
class Clock {
  private readonly started = performance.now();
  private readonly seconds: { suite: Suite; expected: number }[];
  private readonly out: (line: string) => void;
  private suite: Suite | undefined;
  private suiteStarted = 0;

  constructor(suites: readonly Suite[], quick: boolean, out: (line: string) => void) {
    this.out = out;
    this.seconds = suites.map(suite => ({ suite, expected: quick ? suite.seconds.quick : suite.seconds.full }));
  }

  start(suite: Suite): void {
    this.suite = suite;
    this.suiteStarted = performance.now();
    this.print(suite.description, { text: suite.description, share: 0 });
  }

  /** @returns seconds that the suite took */
  end(): number {
    return (performance.now() - this.suiteStarted) / 1000;
  }

  readonly print: PrintProgress = (line, at) => {
    if (at === undefined || this.suite === undefined) {
      this.out(line);
      return;
    }
    const index = this.seconds.findIndex(({ suite }) => suite === this.suite);
    const inSuite = this.end();
    const left = at.share > 0.1 ? (inSuite / at.share) * (1 - at.share) : this.seconds[index].expected - inSuite;
    const after = this.seconds.slice(index + 1).reduce((sum, { expected }) => sum + expected, 0);
    const elapsed = (performance.now() - this.started) / 1000;
    this.out(formatProgress(elapsed, `${this.suite.name}: ${at.text}`, Math.max(0, left) + after));
  };
}

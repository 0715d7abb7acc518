/** A run on live nodes: the environment of its report, and what casts doubt on its figures. */
import { removeLeftovers } from './e2e/sandbox.ts';
import { environment } from './environment.ts';
import { type MachineTime, machineTime } from './machine.ts';
import { inspectBackground, inspectSteal } from './noise.ts';
import type { LiveReport, Row, RunOptions } from './result.ts';

export class LiveRun {
  readonly env: LiveReport['environment'];
  readonly signal: AbortSignal;
  readonly print: NonNullable<RunOptions['print']>;
  private before: MachineTime = machineTime();

  private constructor({ now = new Date(), print = () => {}, signal = new AbortController().signal }: RunOptions) {
    this.env = { ...environment(now), backgroundShare: 0, stealShare: 0, warnings: [], complete: true };
    this.signal = signal;
    this.print = print;
  }

  /** Clears away what a killed run left, and looks at the machine before anything of this one runs. */
  static async begin(options: RunOptions): Promise<LiveRun> {
    const run = new LiveRun(options);
    removeLeftovers();
    await inspectBackground(run.env, text => run.warn(text));
    run.before = machineTime();
    return run;
  }

  warn(text: string): void {
    this.env.warnings.push(text);
    this.print(`warning: ${text}`);
  }

  /** Something is missing from the report. */
  lacks(text: string): void {
    this.env.complete = false;
    this.warn(text);
  }

  end(results: Row[]): LiveReport {
    if (this.signal.aborted) this.lacks('ended early');
    inspectSteal(this.env, this.before, text => this.warn(text));
    return { environment: this.env, results };
  }
}

/** Takes a line of progress, and what it was made of, for who puts several runs together. */
export type PrintProgress = (line: string, at?: ProgressAt) => void;

export interface ProgressAt {
  text: string;
  /** Of the run, behind it: 0 to 1. */
  share: number;
}

/** How far a run is and how long it still takes, judged by what the part behind it took. */
export class Progress {
  private readonly started: number;
  private done = 0;
  private readonly total: number;
  private readonly clock: () => number;
  private readonly print: PrintProgress;

  /**
   * @param total  planned work, in any unit that grows with the time it takes
   * @param clock  milliseconds
   */
  constructor(total: number, clock: () => number, print: PrintProgress) {
    this.total = total;
    this.clock = clock;
    this.print = print;
    this.started = clock();
  }

  /** Work that was planned and is now behind, done or skipped. */
  advance(work: number): void {
    this.done += work;
  }

  say(text: string): void {
    const elapsed = (this.clock() - this.started) / 1000;
    const left = this.done > 0 ? (elapsed / this.done) * Math.max(0, this.total - this.done) : undefined;
    this.print(formatProgress(elapsed, text, left), { text, share: Math.min(1, this.done / this.total) });
  }
}

/** @param elapsed, left  seconds; `left` undefined where nothing is known yet */
export function formatProgress(elapsed: number, text: string, left: number | undefined): string {
  return `[${elapsed.toFixed(0).padStart(4)} s] ${text}${left === undefined ? '' : `  (${formatLeft(left)} left)`}`;
}

function formatLeft(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return `${Math.ceil(seconds / 60)} min`;
}

/**
 * The last flows and drops of a node, for whoever comes later: `observe --last`, and Hubble's GetFlows. Kept by a watch like
 * any client's, so that a node that is to remember nothing pays for nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { WatchClients, WatchContext, WatchRow } from './watch.ts';

type RecordRow = Extract<WatchRow, { record: object }>['record'];

/** Longer than a record waits in the ring of a watch. */
const SETTLE_MS = 60;
const ROWS_PER_PIECE = 256;

export class FlowHistory {
  /** Records so far; not all of them are kept. */
  seen = 0;
  /** Records that came faster than they were kept. */
  lost = 0;
  private readonly clients: WatchClients;
  private readonly onError: (error: Error) => void;
  private most = 0;
  private rows: RecordRow[] = [];
  /** Ends the watch; null while there is none. */
  private stop: AbortController | null = null;

  constructor(clients: WatchClients, onError: (error: Error) => void) {
    this.clients = clients;
    this.onError = onError;
  }

  /** How many are kept, and how many would be. */
  get size(): { remembered: number; most: number } {
    return { remembered: Math.min(this.rows.length, this.most), most: this.most };
  }

  /** Keeps so many from now on; 0 ends the watch. */
  keep(most: number): void {
    this.most = most;
    this.trim();
    if (most === 0) {
      this.stop?.abort();
      this.stop = null;
    } else if (this.stop === null) {
      const stop = new AbortController();
      this.stop = stop;
      this.watch(stop.signal).catch(error => {
        if (!stop.signal.aborted) this.onError(error as Error);
      });
    }
  }

  /** What the records refer to, then what is kept, oldest first, with what happened until now. */
  async *past(context: WatchContext): AsyncGenerator<WatchRow[]> {
    if (this.most > 0) await sleep(SETTLE_MS);
    this.trim();
    yield [{ context }];
    const rows = this.rows.slice();
    for (let at = 0; at < rows.length; at += ROWS_PER_PIECE) {
      yield rows.slice(at, at + ROWS_PER_PIECE).map(record => ({ record }));
    }
  }

  private async watch(signal: AbortSignal): Promise<void> {
    for await (const piece of await this.clients.watch({ flows: true, drops: true }, true)) {
      if (signal.aborted) return;
      for (const row of piece) {
        if ('lost' in row) this.lost += row.lost;
        if (!('record' in row)) continue;
        this.rows.push(row.record);
        this.seen++;
      }
      // Not for each: an array is moved as a whole.
      if (this.rows.length > 2 * this.most) this.trim();
    }
  }

  private trim(): void {
    if (this.rows.length > this.most) this.rows = this.rows.slice(this.rows.length - this.most);
  }
}

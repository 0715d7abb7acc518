import type { WatchContext } from '../control/watch.ts';
import type { WatchRecord } from '../watch/record.ts';

/** What nodes that are watched report. */
export type WatchedEvent =
  | { context: WatchContext }
  | { node: string; record: WatchRecord }
  | { node: string; lost: number };

/** Packets of one or several running nodes, in one stream. */
import { setTimeout as sleep } from 'node:timers/promises';
import { GoneError, streamFromNode } from '../control/client.ts';
import { socketPath } from '../control/server.ts';
import type { WatchContext, WatchParams, WatchRow } from '../control/watch.ts';
import type { WatchedEvent } from './watched.ts';

/** How long a node may take to hand over what it has seen. */
const DRAIN_MS = 2000;

/** Who hears of nodes while they are watched. */
export interface Heard {
  /** Every node that is there watches now. */
  ready?: () => void;
  /** This one is not there, or no longer; the others go on. */
  gone?: (node: string, error: GoneError) => void;
}

/**
 * What the nodes report, as it comes, until all of them have ended or `signal` says so; then still what they have seen
 * up to that moment: an empty piece says that there is no more of it.
 * @throws GoneError of the last node that is gone; ControlError of one that refuses
 */
export async function* watchNodes(
  nodes: readonly string[],
  params: Partial<WatchParams>,
  signal: AbortSignal,
  { ready, gone }: Heard = {},
): AsyncGenerator<WatchedEvent[]> {
  const names = new Map(nodes.map(node => [eventsOf(node, params), node]));
  const streams = [...names.keys()];
  const next = new Map(streams.map(stream => [stream, nextOf(stream)]));
  let isOver = false;
  let end = () => {};
  const stop = () =>
    void sleep(DRAIN_MS, undefined, { ref: false }).then(() => {
      isOver = true;
      end();
    });
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });
  const silent = new Set(streams);
  const speaks = (stream: AsyncGenerator<WatchedEvent[]>) => {
    if (silent.delete(stream) && silent.size === 0) ready?.();
  };
  try {
    while (next.size > 0) {
      // Another each time: a promise that stays open holds the results of all races that it has been in.
      const over = new Promise<null>(resolve => {
        end = () => resolve(null);
        if (isOver) end();
      });
      const piece = await Promise.race([over, ...next.values()]);
      if (piece === null) return;
      const { stream, result } = piece;
      if (result instanceof GoneError) {
        next.delete(stream);
        if (next.size === 0) throw result;
        gone?.(names.get(stream)!, result);
        speaks(stream);
        continue;
      }
      if (result.done === true) {
        next.delete(stream);
        continue;
      }
      if (signal.aborted && result.value.length === 0) {
        next.delete(stream);
        void stream.return(undefined).catch(() => {});
        continue;
      }
      next.set(stream, nextOf(stream));
      speaks(stream);
      yield result.value;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    // Not waited for: a generator that waits for its node ends when the process does.
    for (const stream of next.keys()) void stream.return(undefined).catch(() => {});
  }
}

function nextOf(stream: AsyncGenerator<WatchedEvent[]>) {
  const piece = stream
    .next()
    .catch(ofGone)
    .then(result => ({ stream, result }));
  // Who leaves meanwhile does not hear what went wrong.
  piece.catch(() => {});
  return piece;
}

async function* eventsOf(name: string, params: Partial<WatchParams>): AsyncGenerator<WatchedEvent[]> {
  let node = name;
  for await (const rows of streamFromNode<WatchRow>(socketPath(name), 'watch', params)) {
    for (const row of rows) if ('context' in row) node = row.context.node;
    yield rows.map(row => eventOf(row, node));
  }
}

function eventOf(row: WatchRow, node: string): WatchedEvent {
  if ('context' in row) return row;
  if ('lost' in row) return { node, lost: row.lost };
  return { node, record: { ...row.record, bytes: new Uint8Array(Buffer.from(row.record.bytes, 'base64')) } };
}

/** What the nodes remember, in the order of time. @throws GoneError if all are gone; ControlError */
export async function pastOf(nodes: readonly string[], gone: Heard['gone'] = () => {}): Promise<WatchedEvent[]> {
  const pieces = await Promise.all(nodes.map(node => pastOfNode(node).catch(ofGone)));
  const there = pieces.flatMap(piece => (piece instanceof GoneError ? [] : [piece]));
  for (const [i, piece] of pieces.entries()) {
    if (!(piece instanceof GoneError)) continue;
    if (there.length === 0) throw piece;
    gone(nodes[i], piece);
  }
  const records = there.flatMap(({ records }) => records).sort((a, b) => a.record.timeMs - b.record.timeMs);
  return [...there.flatMap(({ contexts }) => contexts), ...records];
}

/** @throws what is no GoneError */
function ofGone(error: unknown): GoneError {
  if (error instanceof GoneError) return error;
  throw error;
}

async function pastOfNode(name: string) {
  const contexts: WatchedEvent[] = [];
  const records: Extract<WatchedEvent, { record: object }>[] = [];
  let node = name;
  for await (const rows of streamFromNode<WatchRow>(socketPath(name), 'history', {})) {
    for (const row of rows) {
      if ('context' in row) node = (row as { context: WatchContext }).context.node;
      const event = eventOf(row, node);
      if ('record' in event) records.push(event);
      else contexts.push(event);
    }
  }
  return { contexts, records };
}

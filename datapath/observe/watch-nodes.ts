/** Packets of one or several running nodes, in one stream. */
import { setTimeout as sleep } from 'node:timers/promises';
import { streamFromNode } from '../control/client.ts';
import { socketPath } from '../control/server.ts';
import type { WatchContext, WatchParams, WatchRow } from '../control/watch.ts';
import type { WatchedEvent } from './watched.ts';

/** How long a node may take to hand over what it has seen. */
const DRAIN_MS = 2000;

/**
 * What the nodes report, as it comes, until all of them have ended or `signal` says so; then still what they have seen
 * up to that moment: an empty piece says that there is no more of it.
 * @param ready called once every node watches
 */
export async function* watchNodes(
  nodes: readonly string[],
  params: Partial<WatchParams>,
  signal: AbortSignal,
  ready: () => void = () => {},
): AsyncGenerator<WatchedEvent[]> {
  const streams = nodes.map(node => eventsOf(node, params));
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
  let silent = streams.length;
  const heard = new Set<AsyncGenerator<WatchedEvent[]>>();
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
      if (!heard.has(stream)) {
        heard.add(stream);
        if (--silent === 0) ready();
      }
      yield result.value;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    // Not waited for: a generator that waits for its node ends when the process does.
    for (const stream of next.keys()) void stream.return(undefined).catch(() => {});
  }
}

function nextOf(stream: AsyncGenerator<WatchedEvent[]>) {
  const piece = stream.next().then(result => ({ stream, result }));
  // Who leaves meanwhile does not hear that its node has ended.
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

/** What the nodes remember, in the order of time. */
export async function pastOf(nodes: readonly string[]): Promise<WatchedEvent[]> {
  const contexts: WatchedEvent[] = [];
  const records: Extract<WatchedEvent, { record: object }>[] = [];
  for (const name of nodes) {
    const socket = socketPath(name);
    let node = name;
    for await (const rows of streamFromNode<WatchRow>(socket, 'history', {})) {
      for (const row of rows) {
        if ('context' in row) node = (row as { context: WatchContext }).context.node;
        const event = eventOf(row, node);
        if ('record' in event) records.push(event);
        else contexts.push(event);
      }
    }
  }
  return [...contexts, ...records.sort((a, b) => a.record.timeMs - b.record.timeMs)];
}

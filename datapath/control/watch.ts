/**
 * Packets of a running node for a client of its control socket: the loop writes records into a ring of this client's, which
 * is emptied as fast as the client reads. A client that stalls loses records, and is told how many.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { z } from 'zod';
import { RecordRing } from '../memory/record-ring.ts';
import { PORT_KINDS } from '../port.ts';
import { readRecord, type WatchRecord } from '../watch/record.ts';
import { POINT_IN, POINT_OUT, type WatchSpec } from '../watch/watch.ts';
import type { ResolvedConfig } from './resolved.ts';
import type { PortStates } from './status.ts';

/** Of one client: 40,000 flow records, or 2 ms of full packets at 16 Gb/s. */
const RING_BYTES = 4 << 20;
const MAX_WATCHES = 16;
const ROWS_PER_PIECE = 256;
/** How long a record may wait to be sent. */
const POLL_MS = 20;
/** An empty piece so often: it finds out whether the client is still there. */
const HEARTBEAT_POLLS = 25;

export interface WatchParams {
  filter: string;
  flows: boolean;
  drops: boolean;
  steps: boolean;
  policies: boolean;
  points: { port: string; in: boolean; out: boolean }[];
  snapLen: number;
}

const watchParams = z.strictObject({
  filter: z.string().default(''),
  flows: z.boolean().default(false),
  drops: z.boolean().default(false),
  steps: z.boolean().default(false),
  policies: z.boolean().default(false),
  points: z
    .array(z.strictObject({ port: z.string(), in: z.boolean(), out: z.boolean() }))
    .max(256)
    .default([]),
  snapLen: z.int().min(0).max(262_144).default(0),
});

/** What records refer to. Sent first, and again whenever it has changed. */
export interface WatchContext {
  node: string;
  ports: { number: number; name: string; kind: string; device: string; layer: 2 | 3 }[];
  /** Of the whole node; the client looks names up in it. */
  config: ResolvedConfig;
}

/** A row of the stream: one of these. Bytes are base64. */
export type WatchRow =
  | { context: WatchContext }
  | { record: Omit<WatchRecord, 'bytes'> & { bytes: string } }
  /** Records that found no room since the row before that said so. */
  | { lost: number };

export interface Watched {
  /** To the loop. */
  request(method: 'watch' | 'unwatch', params: unknown): Promise<unknown>;
  /** A new object whenever something in it has changed. */
  context(): WatchContext;
}

/** The clients that watch one node. */
export class WatchClients {
  /** How many there are now. */
  count = 0;
  private nextId = 1;
  private readonly node: Watched;
  /** Rings of clients that have gone, for those that come: the loop makes no garbage, so its thread collects none. */
  private readonly rings: SharedArrayBuffer[] = [];

  constructor(node: Watched) {
    this.node = node;
  }

  /**
   * Rows for a client, until it goes.
   * @param isOwn for the node itself: it counts as no client
   * @throws Error for parameters or a filter that are not valid
   */
  async watch(params: Record<string, unknown>, isOwn = false): Promise<AsyncIterable<WatchRow[]>> {
    const parsed = watchParams.safeParse(params);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new Error(`watch: ${issue.path.join('.') || 'params'}: ${issue.message}`);
    }
    if (!isOwn && this.count >= MAX_WATCHES)
      throw new Error(`watch: ${this.count} clients watch already, the most that may`);
    const { points, ...rest } = parsed.data;
    const ring = this.rings.pop() ?? RecordRing.allocate(RING_BYTES);
    const id = this.nextId++;
    const bits = points.map(point => ({
      port: point.port,
      bits: (point.in ? POINT_IN : 0) | (point.out ? POINT_OUT : 0),
    }));
    await this.node.request('watch', { id, spec: { ...rest, ring, points: bits } satisfies WatchSpec });
    const counts = isOwn ? 0 : 1;
    this.count += counts;
    return this.rowsOf(ring, id, counts);
  }

  private async *rowsOf(memory: SharedArrayBuffer, id: number, counts: number): AsyncGenerator<WatchRow[]> {
    const ring = new RecordRing(memory);
    let sent: WatchContext | null = null;
    let lost = 0;
    let quiet = 0;
    try {
      while (true) {
        const rows: WatchRow[] = [];
        const context = this.node.context();
        if (context !== sent) rows.push({ context });
        sent = context;
        const taken = ring.drain(at => {
          const { bytes, ...fields } = readRecord(ring, at);
          rows.push({ record: { ...fields, bytes: Buffer.from(bytes).toString('base64') } });
        }, ROWS_PER_PIECE);
        if (ring.lost !== lost) {
          rows.push({ lost: (ring.lost - lost) >>> 0 });
          lost = ring.lost;
        }
        if (rows.length > 0 || ++quiet >= HEARTBEAT_POLLS) {
          quiet = 0;
          yield rows;
        }
        // A socket that takes all at once never waits: without this, nobody else would have a turn while much happens.
        await (taken < ROWS_PER_PIECE ? sleep(POLL_MS) : turn());
      }
    } finally {
      this.count -= counts;
      // Of a loop that does not answer nobody knows whether it still writes.
      await this.node.request('unwatch', id).then(
        () => this.rings.push(RecordRing.emptied(memory)),
        () => {},
      );
    }
  }
}

/** The context of a node as it is now. */
export function watchContext(config: ResolvedConfig, ports: PortStates): WatchContext {
  return {
    node: config.metadata.name,
    ports: Array.from(ports.values(), ({ port, handle, number }) => ({
      number,
      name: port.name,
      kind: PORT_KINDS[port.kind],
      device: handle.name,
      layer: PORT_KINDS[port.kind] === 'uplink' ? 2 : 3,
    })),
    config,
  };
}

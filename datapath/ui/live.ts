/**
 * What running nodes say to pages that look: flows, packets and counters, from their control sockets. Nothing is asked while
 * no page is open, and a page that does not read is told how much it has missed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { callNode, GoneError } from '../control/client.ts';
import type { ApplyResult } from '../control/node.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { socketPath } from '../control/server.ts';
import type { WatchContext, WatchParams } from '../control/watch.ts';
import { writtenText } from '../control/written-text.ts';
import { readRunning } from '../observe/ask.ts';
import { Directories } from '../observe/directory.ts';
import { flowOf } from '../observe/flow.ts';
import { watchNodes } from '../observe/watch-nodes.ts';
import { compileFilter } from '../watch/filter.ts';
import { answerConformance, answerExplain, answerProve, withChange } from './answers.ts';
import { pageFlow, pagePacket } from './page-flow.ts';
import { pictureOf } from './picture.ts';
import type {
  ChangeAnswer,
  ChangeRequest,
  ExplainAnswer,
  ExplainRequest,
  PageCounters,
  PageFlow,
  PagePacket,
  Sink,
} from './protocol.ts';
import type { Shown } from './server.ts';

/** How often counters are read, and nodes looked for. */
const LOOK_MS = 1000;
/** Of a flow's packet: most that is dropped is shorter. */
const FLOW_SNAP = 2048;
const PACKET_SNAP = 16_384;
/** Applying ten thousand services is a second's work. */
const APPLY_MS = 60_000;

export class Live implements Shown {
  private readonly sinks = new Set<Sink>();
  /** By name, those that are watched. */
  private readonly watched = new Map<string, AbortController>();
  private readonly contexts = new Map<string, WatchContext>();
  private readonly directories = new Directories();
  /** Gone nodes that pages have heard of: their sockets may lie there for long. */
  private readonly told = new Set<string>();
  private isLooking = false;
  private readonly nodes: () => string[];

  /** @param nodes names of those that run now */
  constructor(nodes: () => string[]) {
    this.nodes = nodes;
  }

  /** @returns what ends it */
  join(sink: Sink): () => void {
    this.sinks.add(sink);
    if (this.contexts.size > 0 || this.nodes().length === 0) sink.picture(this.picture());
    if (!this.isLooking) void this.look();
    return () => {
      this.sinks.delete(sink);
    };
  }

  private picture() {
    return pictureOf(Array.from(this.contexts.values(), ({ config }) => config));
  }

  private tell(say: (sink: Sink) => void): void {
    for (const sink of this.sinks) say(sink);
  }

  /** As long as somebody is there. */
  private async look(): Promise<void> {
    this.isLooking = true;
    while (this.sinks.size > 0) {
      const names = this.nodes();
      for (const name of names) if (!this.watched.has(name)) void this.watch(name);
      const counters = await this.counters(names);
      this.tell(sink => sink.counters(counters));
      await sleep(LOOK_MS);
    }
    this.isLooking = false;
    for (const controller of this.watched.values()) controller.abort();
  }

  private async watch(name: string): Promise<void> {
    const controller = new AbortController();
    this.watched.set(name, controller);
    let trouble = '';
    let node = name;
    try {
      const params: Partial<WatchParams> = { flows: true, drops: true, snapLen: FLOW_SNAP };
      for await (const events of watchNodes([name], params, controller.signal)) {
        if (controller.signal.aborted) break;
        const flows: PageFlow[] = [];
        for (const event of events) {
          if ('context' in event) {
            this.told.delete(name);
            node = event.context.node;
            this.contexts.set(node, event.context);
            this.directories.update(event.context);
            this.tell(sink => sink.picture(this.picture()));
          } else if ('lost' in event) this.tell(sink => sink.lost({ flows: event.lost }));
          else {
            const flow = flowOf(event.record, this.directories.of(event.node));
            if (flow !== null) flows.push(pageFlow(flow, event.record, this.contexts.get(event.node)!));
          }
        }
        if (flows.length > 0) this.tell(sink => sink.flows(flows));
      }
    } catch (error) {
      trouble = `${name}: ${(error as Error).message}`;
    }
    this.watched.delete(name);
    this.contexts.delete(node);
    if (this.sinks.size === 0) return;
    this.tell(sink => sink.picture(this.picture()));
    if (controller.signal.aborted || this.told.has(name)) return;
    this.told.add(name);
    this.tell(sink => sink.trouble(trouble === '' ? `${name} has ended` : trouble));
  }

  private async counters(names: readonly string[]): Promise<PageCounters> {
    const rows = await Promise.all(
      names.map(async name => {
        const socket = socketPath(name);
        const get = (kind: string) => callNode(socket, 'get', { kind });
        try {
          const [status, counters, ports] = await Promise.all([
            callNode(socket, 'status'),
            get('counters'),
            get('ports'),
          ]);
          const { node, tables } = status as { node: string; tables: PageCounters['nodes'][number]['tables'] };
          return [{ node, tables, counters, ports } as PageCounters['nodes'][number]];
        } catch {
          // It may have ended since it was listed; that it is gone, its watch says.
          return [];
        }
      }),
    );
    return { timeMs: Date.now(), nodes: rows.flat() };
  }

  /** Packets at all ports of all nodes, until `signal` says so. @throws Error for a filter that is none */
  async packets(filter: string, drops: boolean, signal: AbortSignal, sink: Sink): Promise<void> {
    const points = drops ? [] : [{ port: '', in: true, out: true }];
    const contexts = new Map<string, WatchContext>();
    const params: Partial<WatchParams> = { filter, drops: true, points, snapLen: PACKET_SNAP };
    compileFilter(filter);
    const gone = (_node: string, { message }: Error) => sink.trouble(message);
    for await (const events of watchNodes(this.nodes(), params, signal, { gone })) {
      if (signal.aborted) return;
      const packets: PagePacket[] = [];
      for (const event of events) {
        if ('context' in event) contexts.set(event.context.node, event.context);
        else if ('lost' in event) sink.lost({ packets: event.lost });
        else packets.push(pagePacket(event.node, event.record, contexts.get(event.node)!));
      }
      if (packets.length > 0) sink.packets(packets);
    }
  }

  async explain(request: ExplainRequest): Promise<ExplainAnswer> {
    return answerExplain(await readRunning(this.nodes()), request);
  }

  async prove() {
    const configs = this.nodes().map(async name => {
      try {
        return [(await callNode(socketPath(name), 'config')) as ResolvedConfig];
      } catch (error) {
        if (error instanceof GoneError) return [];
        throw error;
      }
    });
    return answerProve((await Promise.all(configs)).flat(), []);
  }

  conformance(profile: string, rfc: number) {
    return answerConformance(profile, rfc);
  }

  /** Applies a change to all nodes: those that refuse it stay as they are. */
  async change(request: ChangeRequest): Promise<ChangeAnswer[]> {
    const answers: ChangeAnswer[] = [];
    for (const name of this.nodes()) {
      try {
        answers.push(await this.changeNode(name, request));
      } catch (error) {
        // What others have done by then is to be told, too.
        answers.push({ node: name, problems: [(error as Error).message], effects: [], longestStopMs: 0 });
      }
    }
    return answers;
  }

  private async changeNode(name: string, request: ChangeRequest): Promise<ChangeAnswer> {
    const socket = socketPath(name);
    const config = (await callNode(socket, 'config')) as ResolvedConfig;
    const text = writtenText(withChange(config, request));
    const params = { text, file: `${request.change} of ${name}`, dryRun: request.dryRun };
    const { problems = [], refused = [], applied } = (await callNode(socket, 'apply', params, APPLY_MS)) as ApplyResult;
    return {
      node: name,
      problems: [
        ...problems.map(({ path, message }) => `${path}: ${message}`),
        ...refused.map(({ path, message }) => `${path.join('.')}: ${message}`),
      ],
      effects: applied?.changes ?? [],
      longestStopMs: applied?.longestStopMs ?? 0,
    };
  }

  /** Watches end. */
  close(): void {
    this.sinks.clear();
    for (const controller of this.watched.values()) controller.abort();
  }
}

/** `tunpath observe`: flows of running nodes as hubble prints them. */

import { callNode } from '../control/client.ts';
import { Directories } from '../observe/directory.ts';
import { type Flow, flowOf } from '../observe/flow.ts';
import { type FlowFilterOptions, flowFilter } from '../observe/flow-filter.ts';
import { compactLine, dictLines, jsonpbLine, OBSERVE_FORMATS, type ObserveFormat } from '../observe/hubble-text.ts';
import { pastOf, watchNodes } from '../observe/watch-nodes.ts';
import type { WatchedEvent } from '../observe/watched.ts';
import { pickNode, socketPathOf } from './client.ts';
import { DONE, UsageError } from './exit.ts';
import { parseListen } from './listen.ts';
import { print } from './output.ts';
import { nodesOfLab, sayGone, untilSignal, watchedNodes } from './watched.ts';

/** That a timer takes: 24 days. */
const LONGEST_MS = 2 ** 31 - 1;

export interface ObserveFlags extends FlowFilterOptions {
  node?: string;
  lab?: string;
  first?: string;
  follow?: boolean;
  last?: string;
  since?: string;
  until?: string;
  /** Whether --not stands last, with nothing to leave out. */
  not?: boolean;
  /** What --not stands before. */
  excluded?: FlowFilterOptions;
  listen?: string;
  printNodeName?: boolean;
  output: string;
}

export async function observe(flags: ObserveFlags): Promise<number> {
  if (flags.listen !== undefined) {
    const { host, port } = parseListen(flags.listen, '127.0.0.1:4245');
    const { serveHubble } = await import('./hubble.ts');
    return serveHubble(host, port, () => {
      const nodes = nodesOfLab(flags.lab);
      return nodes.filter(name => flags.node === undefined || name === pickNode(flags.node, nodes));
    });
  }
  const format = parseObserveFormat(flags.output);
  const most = numberOf('--first', flags.first) ?? Number.POSITIVE_INFINITY;
  const last = numberOf('--last', flags.last);
  const [since, until] = (['since', 'until'] as const).map(name => {
    const text = flags[name];
    return text === undefined ? undefined : parseTime(`--${name}`, text, Date.now());
  });
  if (flags.not === true) throw new UsageError('--not: expected another filter behind it');
  const isWanted = flowFilter(flags, flags.excluded);
  const wanted = (flow: Flow) => flow.timeMs <= (until ?? Number.POSITIVE_INFINITY) && isWanted(flow);
  const nodes = watchedNodes(flags.node, flags.lab);
  const printer = new Printer(format, flags.printNodeName === true || nodes.length > 1, most);
  const directories = new Directories();
  if (last !== undefined || since !== undefined || until !== undefined) {
    const past = flowsOf(await pastOf(nodes, sayGone), directories, wanted).filter(
      ({ timeMs }) => timeMs >= (since ?? 0),
    );
    await printer.print(last === undefined ? past : past.slice(-last));
    if (flags.follow !== true || printer.isFull) return past.length === 0 ? await sayForgetful(nodes) : DONE;
  }
  const stop = untilSignal();
  if (until !== undefined) {
    setTimeout(() => stop.abort(), Math.min(LONGEST_MS, Math.max(0, until - Date.now()))).unref();
  }
  let lost = 0;
  const ready = () => process.stderr.write(`observing ${nodes.join(', ')}; SIGINT ends it\n`);
  const params = { flows: !isOnlyDrops(flags), drops: true };
  for await (const events of watchNodes(nodes, params, stop.signal, { ready, gone: sayGone })) {
    for (const event of events) if ('lost' in event) lost += event.lost;
    await printer.print(flowsOf(events, directories, wanted));
    if (printer.isFull) break;
  }
  if (lost > 0) process.stderr.write(`${lost} flows were not shown: they came faster than they could be read\n`);
  return DONE;
}

/** Prints flows until there are as many as wanted. */
class Printer {
  private shown = 0;
  private readonly format: ObserveFormat;
  private readonly withNode: boolean;
  private readonly most: number;

  constructor(format: ObserveFormat, withNode: boolean, most: number) {
    this.format = format;
    this.withNode = withNode;
    this.most = most;
  }

  get isFull(): boolean {
    return this.shown >= this.most;
  }

  async print(flows: readonly Flow[]): Promise<void> {
    const lines = flows.slice(0, this.most - this.shown).map((flow, i) => {
      if (this.format === 'compact') return compactLine(flow, this.withNode);
      return this.format === 'dict' ? dictLines(flow, this.shown + i === 0, this.withNode) : jsonpbLine(flow);
    });
    this.shown += lines.length;
    if (lines.length > 0) await print(`${lines.join('\n')}\n`);
  }
}

function flowsOf(events: readonly WatchedEvent[], directories: Directories, wanted: (flow: Flow) => boolean): Flow[] {
  const flows: Flow[] = [];
  for (const event of events) {
    if ('context' in event) directories.update(event.context);
    if (!('record' in event)) continue;
    const flow = flowOf(event.record, directories.of(event.node));
    if (flow !== null && wanted(flow)) flows.push(flow);
  }
  return flows;
}

/** An empty answer is no silence: a node may have been told to remember nothing. */
async function sayForgetful(nodes: readonly string[]): Promise<number> {
  for (const node of nodes) {
    const status = await callNode(socketPathOf(node), 'status').catch(() => null);
    if ((status as { flowHistory: { most: number } } | null)?.flowHistory.most === 0)
      process.stderr.write(`${node} remembers no flows: spec.flowHistory is 0\n`);
  }
  return DONE;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A duration before now (`5m`, `1h30m`), or a time (RFC 3339). @returns milliseconds since 1970 */
export function parseTime(option: string, text: string, now: number): number {
  if (/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) {
    const parts = text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g);
    return Array.from(parts).reduce((at, [, count, unit]) => at - Number(count) * UNITS[unit], now);
  }
  const at = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) throw new UsageError(`${option} ${text}: expected 5m, 1h30m, or 2026-11-28T09:00:00Z`);
  return at;
}

function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`${option} ${text}: expected a number from 1`);
  return Number(text);
}

function isOnlyDrops({ verdict, reason, dropReasonDesc, type }: FlowFilterOptions): boolean {
  const all = (values: string[] | undefined, value: string) =>
    values !== undefined && values.length > 0 && values.every(one => one.toLowerCase() === value);
  const isReason = (reason?.length ?? 0) > 0 || (dropReasonDesc?.length ?? 0) > 0;
  return all(verdict, 'dropped') || all(type, 'drop') || isReason;
}

function parseObserveFormat(text: string): ObserveFormat {
  const format = OBSERVE_FORMATS.find(known => known === (text === 'json' ? 'jsonpb' : text));
  if (format === undefined) throw new UsageError(`-o ${text}: expected one of ${OBSERVE_FORMATS.join(', ')}`);
  return format;
}

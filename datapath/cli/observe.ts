/** `tunpath observe`: flows of running nodes as hubble prints them. */
import { Directories } from '../observe/directory.ts';
import { flowOf } from '../observe/flow.ts';
import { type FlowFilterOptions, flowFilter } from '../observe/flow-filter.ts';
import { compactLine, dictLines, jsonpbLine, OBSERVE_FORMATS, type ObserveFormat } from '../observe/hubble-text.ts';
import { DONE, UsageError } from './exit.ts';
import { print } from './output.ts';
import { untilSignal, watchedNodes, watchNodes } from './watched.ts';

export interface ObserveFlags extends FlowFilterOptions {
  node?: string;
  first?: string;
  printNodeName?: boolean;
  output: string;
}

export async function observe(flags: ObserveFlags): Promise<number> {
  const format = parseObserveFormat(flags.output);
  const most = flags.first === undefined ? Number.POSITIVE_INFINITY : Number(flags.first);
  if (!(most >= 1)) throw new UsageError(`--first ${flags.first}: expected a number from 1`);
  const wanted = flowFilter(flags);
  const nodes = watchedNodes(flags.node);
  const withNode = flags.printNodeName === true || nodes.length > 1;
  const onlyDrops = isOnlyDrops(flags);
  const stop = untilSignal();
  const directories = new Directories();
  let shown = 0;
  let lost = 0;
  const ready = () => process.stderr.write(`observing ${nodes.join(', ')}; SIGINT ends it\n`);
  for await (const events of watchNodes(nodes, { flows: !onlyDrops, drops: true }, stop.signal, ready)) {
    const lines: string[] = [];
    for (const event of events) {
      if ('context' in event) directories.update(event.context);
      else if ('lost' in event) lost += event.lost;
      else if (shown < most) {
        const flow = flowOf(event.record, directories.of(event.node));
        if (flow === null || !wanted(flow)) continue;
        if (format === 'compact') lines.push(compactLine(flow, withNode));
        else lines.push(format === 'dict' ? dictLines(flow, shown === 0, withNode) : jsonpbLine(flow));
        shown++;
      }
    }
    if (lines.length > 0) await print(`${lines.join('\n')}\n`);
    if (shown >= most) break;
  }
  if (lost > 0) process.stderr.write(`${lost} flows were not shown: they came faster than they could be read\n`);
  return DONE;
}

function isOnlyDrops({ verdict, reason, type }: FlowFilterOptions): boolean {
  const all = (values: string[] | undefined, value: string) =>
    values !== undefined && values.length > 0 && values.every(one => one.toLowerCase() === value);
  return all(verdict, 'dropped') || all(type, 'drop') || (reason?.length ?? 0) > 0;
}

function parseObserveFormat(text: string): ObserveFormat {
  const format = OBSERVE_FORMATS.find(known => known === (text === 'json' ? 'jsonpb' : text));
  if (format === undefined) throw new UsageError(`-o ${text}: expected one of ${OBSERVE_FORMATS.join(', ')}`);
  return format;
}

/** `tunpath monitor`: drops, traces and policy verdicts of running nodes as cilium-dbg monitor prints them. */

import type { WatchContext } from '../control/watch.ts';
import { Directories } from '../observe/directory.ts';
import { MONITOR_TYPES, Monitor, type MonitorEvent, type MonitorType, verboseText } from '../observe/monitor-text.ts';
import { watchNodes } from '../observe/watch-nodes.ts';
import { DONE, UsageError } from './exit.ts';
import { print } from './output.ts';
import { sayGone, untilSignal, watchedNodes } from './watched.ts';

export interface MonitorFlags {
  node?: string;
  type?: string[];
  verbose?: boolean;
  hex?: boolean;
  relatedTo?: string[];
  from?: string[];
  to?: string[];
}

/** Of a packet, where it is printed. */
const SNAP = 256;

export async function monitor(flags: MonitorFlags): Promise<number> {
  const types = (flags.type ?? [...MONITOR_TYPES]).map(parseType);
  const isVerbose = flags.verbose === true || flags.hex === true;
  const [relatedTo, from, to] = [flags.relatedTo, flags.from, flags.to].map(idsOf);
  const isWanted = (event: MonitorEvent) =>
    types.includes(event.type) &&
    (relatedTo === null || relatedTo.has(event.from) || relatedTo.has(event.to)) &&
    (from?.has(event.from) ?? true) &&
    (to?.has(event.to) ?? true);
  const nodes = watchedNodes(flags.node);
  const stop = untilSignal();
  const directories = new Directories();
  const contexts = new Map<string, WatchContext>();
  const monitors = new Map<string, Monitor>();
  let lost = 0;
  const params = {
    flows: types.includes('trace'),
    drops: types.includes('drop'),
    policies: types.includes('policy-verdict'),
    snapLen: isVerbose ? SNAP : 0,
  };
  const ready = () => process.stderr.write(`monitoring ${nodes.join(', ')}; SIGINT ends it\n`);
  for await (const events of watchNodes(nodes, params, stop.signal, { ready, gone: sayGone })) {
    let text = '';
    for (const event of events) {
      if ('context' in event) {
        contexts.set(event.context.node, event.context);
        directories.update(event.context);
        monitors.clear();
      } else if ('lost' in event) {
        lost += event.lost;
      } else {
        let monitor = monitors.get(event.node);
        if (monitor === undefined) {
          monitor = new Monitor(contexts.get(event.node)!, directories.of(event.node));
          monitors.set(event.node, monitor);
        }
        const shown = monitor.eventOf(event.record);
        if (shown === null || !isWanted(shown)) continue;
        const prefix = nodes.length > 1 ? `[${event.node}] ` : '';
        text += isVerbose ? verboseText(shown, flags.hex === true) : `${prefix}${shown.text}\n`;
      }
    }
    if (text !== '') await print(text);
  }
  if (lost > 0) process.stderr.write(`${lost} events were not shown: they came faster than they could be read\n`);
  return DONE;
}

function parseType(text: string): MonitorType {
  const type = MONITOR_TYPES.find(known => known === text);
  if (type === undefined) throw new UsageError(`--type ${text}: expected one of ${MONITOR_TYPES.join(', ')}`);
  return type;
}

/** Null where the option is not given. */
function idsOf(texts: string[] | undefined): Set<number> | null {
  if (texts === undefined) return null;
  return new Set(
    texts.map(text => {
      if (!/^\d{1,9}$/.test(text)) throw new UsageError(`got ${text}, expected the number of an endpoint`);
      return Number(text);
    }),
  );
}

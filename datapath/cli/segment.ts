/** `tunpath segment list` and `set`: the Ethernets in the processes of running nodes, and what spoils them. */
import { callNode } from '../control/client.ts';
import type { SegmentState } from '../control/loops.ts';
import { IMPAIRMENT_FIELDS, readImpairments } from '../control/netem.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE, UsageError } from './exit.ts';
import type { Format } from './format.ts';
import { printRows } from './table.ts';

interface Found {
  /** A node whose process has it. */
  node: string;
  segment: SegmentState;
}

export interface SetFlags extends Record<string, string | boolean | undefined> {
  node?: string;
  from?: string;
  to?: string;
  clear?: boolean;
}

/** Segments of the processes of all running nodes, each once. */
async function findSegments(only: string | undefined): Promise<Found[]> {
  const nodes = only === undefined ? listNodes() : [pickNode(only, listNodes())];
  const answers = await Promise.all(
    nodes.map(async node => {
      // A node that ends meanwhile has none.
      const segments = await callNode(socketPathOf(node), 'segments').catch(() => []);
      return (segments as SegmentState[]).map(segment => ({ node, segment }));
    }),
  );
  const found = new Map<string, Found>();
  for (const one of answers.flat()) {
    const key = `${one.segment.pid} ${one.segment.name}`;
    if (!found.has(key)) found.set(key, one);
  }
  return [...found.values()];
}

export async function list({ node, output }: { node?: string; output: Format }): Promise<number> {
  const segments = (await findSegments(node)).map(({ segment }) => segment);
  if (output === 'json' || output === 'jsonl') {
    printRows(output, segments, []);
    return DONE;
  }
  if (segments.length === 0) process.stderr.write('no segments\n');
  const rows = segments.flatMap(({ name, mtu, impairments, waiting, drops, ports }) => {
    const dropped = drops.reduce((sum, { packets, bytes }) => (bytes === undefined ? sum : sum + packets), 0);
    const wire = { segment: name, port: '', kind: `wire, mtu ${mtu}`, from: impairments, to: impairments };
    return [
      { ...wire, rxPackets: null, txPackets: null, waiting, dropped },
      ...ports.map(port => ({ segment: name, port: port.name, ...port, dropped: null })),
    ];
  });
  printRows(output, rows, [
    { title: 'SEGMENT', value: row => row.segment },
    { title: 'PORT', value: row => row.port },
    { title: 'KIND', value: row => row.kind },
    { title: 'SENDS', value: row => row.from },
    { title: 'GETS', value: row => row.to },
    { title: 'RX-PACKETS', value: row => row.rxPackets, align: 'right' },
    { title: 'TX-PACKETS', value: row => row.txPackets, align: 'right' },
    { title: 'WAITING', value: row => row.waiting, align: 'right' },
    { title: 'DROPPED', value: row => row.dropped, align: 'right' },
  ]);
  return DONE;
}

/** Prints what then holds. */
export async function set(name: string, flags: SetFlags): Promise<number> {
  const { from, to, clear } = flags;
  if (from !== undefined && to !== undefined) throw new UsageError('got --from and --to, expected one of them');
  const impairments: Record<string, unknown> = {};
  for (const field of IMPAIRMENT_FIELDS) {
    const value = flags[field];
    if (value !== undefined)
      impairments[field] = field === 'mtu' && /^\d+$/.test(String(value)) ? Number(value) : value;
  }
  if (Object.keys(impairments).length === 0 && clear !== true) {
    throw new UsageError('expected what to set, such as --delay 20ms, or --clear');
  }
  try {
    readImpairments(impairments);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const all = await findSegments(flags.node);
  const found = all.filter(({ segment }) => segment.name === name);
  if (found.length !== 1) {
    const names = [...new Set(all.map(({ segment }) => segment.name))].join(', ');
    if (found.length === 0)
      throw new UsageError(`no segment ${name}${names === '' ? '' : `: expected one of ${names}`}`);
    const nodes = found.map(({ node }) => node).join(', ');
    throw new UsageError(`several processes have a segment ${name}: expected --node with one of ${nodes}`);
  }
  const port = from !== undefined ? { name: from, direction: 'from' } : { name: to, direction: 'to' };
  const spot = { segment: name, ...(port.name === undefined ? {} : { port }) };
  const now = await callNode(socketPathOf(found[0].node), 'impair', { spot, impairments, clear: clear === true });
  process.stdout.write(`${now === '' ? 'no impairments' : now}\n`);
  return DONE;
}

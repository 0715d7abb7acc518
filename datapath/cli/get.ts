/** `tunpath get KIND [NAME]`, `tunpath describe` and `tunpath status`: what a running node says about itself. */
import { setTimeout as sleep } from 'node:timers/promises';
import { callNode, streamFromNode } from '../control/client.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE, NO, UsageError } from './exit.ts';
import type { FlowFlags } from './flow-flags.ts';
import { type Format, isForPeople } from './format.ts';
import { findKind, type Kind } from './kinds.ts';
import { formatConntrack, formatRoute } from './lines.ts';
import { print } from './output.ts';
import { namedRows, type Row, sortRows } from './select.ts';
import { columnsOf, type Layout, layOut, noRoomFor, printDocument, printRows, terminal, titleOf } from './table.ts';

/** Kinds that are lines of a known tool rather than a table; `-o wide` has the table. */
const LINES: Record<string, (row: never) => string> = { routes: formatRoute, conntrack: formatConntrack };

/** How often a watched table is looked at. */
const WATCH_MS = 500;

export interface GetFlags extends FlowFlags {
  node?: string;
  watch?: boolean;
  sortBy?: string;
  output: Format;
}

/** Answers no where NAME is none. */
export async function get(kindText: string, name: string | undefined, flags: GetFlags): Promise<number> {
  const { output, sortBy, watch } = flags;
  const kind = findKind(kindText);
  if (name !== undefined) checkNamed(kind, name);
  const filters = await filterOf(kind, flags);
  const node = pickNode(flags.node, listNodes());
  const socket = socketPathOf(node);
  if (watch === true) return watchRows(socket, kind, name, flags);
  const line = lineOf(kind, output);
  if (line !== undefined && name === undefined && sortBy === undefined) {
    // A line needs no other line: it is printed when it comes, and a million flows are not held here.
    let count = 0;
    for await (const piece of streamFromNode<Row>(socket, 'get', { kind: kind.name })) {
      const rows = piece.filter(filters);
      count += rows.length;
      await print(rows.map(row => `${line(row as never)}\n`).join(''));
    }
    return sayNothing(kind, count, output);
  }
  const rows = await readRows(socket, kind, name, flags);
  if (name !== undefined && rows.length === 0) {
    process.stderr.write(`tunpath: no ${kind.aliases[0] ?? kind.name} '${name}' on node ${node}\n`);
    return NO;
  }
  if (line !== undefined) await print(rows.map(row => `${line(row as never)}\n`).join(''));
  else await printRows(output, rows, columnsOf(rows, new Set(kind.wide), kind.spared));
  return sayNothing(kind, rows.length, output);
}

/** As kubectl: an empty answer is no silence, and standard output stays what scripts expect. */
function sayNothing(kind: Kind, count: number, output: Format): number {
  if (count === 0 && isForPeople(output)) process.stderr.write(`no ${kind.name}\n`);
  return DONE;
}

function lineOf(kind: Kind, output: Format): ((row: never) => string) | undefined {
  return output === 'jsonl' ? JSON.stringify : output === 'table' ? LINES[kind.name] : undefined;
}

/** @throws UsageError for a table whose rows have no names */
function checkNamed(kind: Kind, name: string): void {
  if (kind.keys.length > 0) return;
  throw new UsageError(
    `${kind.name} ${name}: flows have no names, filter them: --src, --dst, --proto, --dport, --state`,
  );
}

const FLOW_FLAGS: readonly (keyof FlowFlags)[] = [
  'src',
  'dst',
  'replySrc',
  'replyDst',
  'proto',
  'sport',
  'dport',
  'replyPortSrc',
  'replyPortDst',
  'state',
  'status',
  'srcNat',
  'dstNat',
];

/** @throws UsageError where flags of conntrack stand beside another kind */
async function filterOf(kind: Kind, flags: GetFlags): Promise<(row: Row) => boolean> {
  const used = FLOW_FLAGS.find(flag => flags[flag] !== undefined);
  if (used === undefined) return () => true;
  if (kind.name === 'conntrack') return (await import('./flow-flags.ts')).flowFilter(flags);
  throw new UsageError(`--${used.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)} goes with get conntrack`);
}

async function readRows(socket: string, kind: Kind, name: string | undefined, flags: GetFlags): Promise<Row[]> {
  const filter = await filterOf(kind, flags);
  const all: Row[] = [];
  for await (const piece of streamFromNode<Row>(socket, 'get', { kind: kind.name })) {
    for (const row of piece) if (filter(row)) all.push(row);
  }
  const rows = name === undefined ? all : namedRows(all, name, kind.keys);
  return flags.sortBy === undefined ? rows : sortRows(rows, flags.sortBy);
}

/** The rows, and then each that is new or different, until the command is ended. */
async function watchRows(socket: string, kind: Kind, name: string | undefined, flags: GetFlags): Promise<number> {
  const { output } = flags;
  const line = lineOf(kind, output);
  const before = new Map<string, string>();
  for (let first = true; ; first = false) {
    const rows = await readRows(socket, kind, name, flags);
    const changed = rows.filter((row, i) => {
      const key = kind.keys.length > 0 ? kind.keys.map(field => String(row[field])).join(' ') : flowKey(row, i);
      const text = JSON.stringify(row, (field, value) => (PASSING.has(field) ? undefined : value));
      if (before.get(key) === text) return false;
      before.set(key, text);
      return true;
    });
    if (changed.length > 0 || first) {
      if (line !== undefined) await print(changed.map(row => `${line(row as never)}\n`).join(''));
      else if (!isForPeople(output)) for (const row of changed) await printDocument(output, row);
      else await print(withoutTitles(tableOf(kind, rows, changed, output === 'wide'), first));
    }
    await sleep(WATCH_MS);
  }
}

/** Fields that change by themselves, as time goes by. */
const PASSING = new Set(['timeout', 'age', 'expires']);

function flowKey(row: Row, i: number): string {
  return 'original' in row ? JSON.stringify([row.protocol, row.original]) : String(i);
}

function tableOf(kind: Kind, all: readonly Row[], rows: readonly Row[], wide: boolean): string {
  return layOut(rows, columnsOf(all, new Set(kind.wide), kind.spared), { wide, ...terminal(wide) }).text;
}

function withoutTitles(text: string, withTitles: boolean): string {
  return withTitles ? text : text.slice(text.indexOf('\n') + 1);
}

/** Everything about the rows of a name, and about what belongs to them. Answers no where there is none. */
export async function describe(kindText: string, name: string | undefined, flags: GetFlags): Promise<number> {
  const kind = findKind(kindText);
  if (name !== undefined) checkNamed(kind, name);
  const node = pickNode(flags.node, listNodes());
  const socket = socketPathOf(node);
  const rows = await readRows(socket, kind, name, flags);
  // What a drop means is asked before there is one.
  if (rows.length === 0 && kind.name === 'counters' && name !== undefined) {
    const { REASONS } = await import('../observe/reasons.ts');
    if (Object.hasOwn(REASONS, name)) rows.push({ name, packets: 0, bytes: 0 });
  }
  if (rows.length === 0) {
    process.stderr.write(
      `tunpath: no ${kind.aliases[0] ?? kind.name}${name === undefined ? '' : ` '${name}'`} on node ${node}\n`,
    );
    return NO;
  }
  const documents: Row[] = [];
  for (const row of rows) documents.push({ ...row, ...(await relatedTo(socket, kind, row)) });
  if (!isForPeople(flags.output)) {
    await printRows(flags.output, documents, []);
    return DONE;
  }
  await print(documents.map(document => describeText(document)).join('\n'));
  return DONE;
}

/** What a reader of this row asks next. */
async function relatedTo(socket: string, kind: Kind, row: Row): Promise<Row> {
  const rowsOf = async (other: string) => (await callNode(socket, 'get', { kind: other })) as Row[];
  switch (kind.name) {
    case 'services':
      return { endpoints: (await rowsOf('endpoints')).filter(endpoint => endpoint.service === row.name) };
    case 'ports':
      return {
        routes: (await rowsOf('routes')).filter(({ pod, device }) => pod === row.name || device === row.device),
      };
    case 'counters':
      return { ...(await import('../observe/reasons.ts')).REASONS[String(row.name)] };
    default:
      return {};
  }
}

/** `Name:  value` lines, lists of rows as tables below their names. */
function describeText(document: Row): string {
  const entries = Object.entries(document);
  const width = Math.max(...entries.map(([name]) => titleText(name).length)) + 2;
  return entries
    .map(([name, value]) => {
      if (Array.isArray(value) && value.some(item => typeof item === 'object')) {
        const table = layOut(value as Row[], columnsOf(value as Row[]), terminal(false)).text;
        return `${titleText(name)}:\n${table.replace(/^(?=.)/gm, '  ')}`;
      }
      const isList = Array.isArray(value);
      const text = isList
        ? value.length === 0
          ? '-'
          : value.join(`\n${' '.repeat(width)}`)
        : typeof value === 'object' && value !== null
          ? Object.entries(value)
              .map(([key, inner]) => `${key}=${inner}`)
              .join(' ')
          : String(value ?? '-');
      return `${`${titleText(name)}:`.padEnd(width)}${text}\n`;
    })
    .join('');
}

/** `rxPackets` -> `Rx packets` */
function titleText(key: string): string {
  const words = titleOf(key).toLowerCase().replaceAll('-', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Tables of the status one below the other, each under its name; what is not a table as `name: value` lines before. */
export async function status(options: { node?: string; output: Format }): Promise<number> {
  const socket = socketPathOf(pickNode(options.node, listNodes()));
  const document = (await callNode(socket, 'status')) as Row;
  if (isForPeople(options.output)) printStatus(document, options.output === 'wide');
  else await printDocument(options.output, document);
  return DONE;
}

function printStatus(document: Row, wide: boolean): void {
  const { text, hidden } = formatStatus(document, { wide, ...terminal(wide) });
  process.stdout.write(text);
  if (hidden.length > 0) process.stderr.write(noRoomFor(hidden));
}
export function formatStatus(document: Row, options: Parameters<typeof layOut>[2]): Layout {
  const scalars: { name: string; value: unknown }[] = [];
  const sections: string[] = [];
  const hidden: string[] = [];
  const addSection = (name: string, rows: Row[]): void => {
    const table = layOut(rows, columnsOf(rows), options);
    sections.push(`\n${name}:\n${table.text}`);
    hidden.push(...table.hidden.map(title => `${name} ${title}`));
  };
  for (const [name, value] of Object.entries(document)) {
    if (Array.isArray(value) && value.some(item => typeof item === 'object')) {
      addSection(name, value as Row[]);
    } else if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      addSection(name, [value as Row]);
    } else {
      scalars.push({ name, value });
    }
  }
  const width = Math.max(0, ...scalars.map(scalar => scalar.name.length));
  const text = scalars.map(({ name, value }) => `${`${name}:`.padEnd(width + 2)}${String(value)}\n`).join('');
  return { text: text + sections.join(''), hidden };
}

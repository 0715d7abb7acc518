/** `tunpath get KIND` and `tunpath status`: what a running node says about itself. */

import { callNode } from '../control/client.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE } from './exit.ts';
import type { Format } from './format.ts';
import { formatConntrack, formatRoute } from './lines.ts';
import { columnsOf, formatTable, printJson, printRows } from './table.ts';

type Row = Record<string, unknown>;

/** Kinds that are lines of a known tool rather than a table; `-o wide` has the table. */
const LINES: Record<string, (row: never) => string> = { routes: formatRoute, conntrack: formatConntrack };

/** Shown only with `-o wide`: they say what few change, and the rest then fits a terminal. */
const WIDE = new Set(['affinitySeconds', 'internalTrafficPolicy', 'externalTrafficPolicy']);

export async function get(kind: string, options: { node?: string; output: Format }): Promise<number> {
  const socket = socketPathOf(pickNode(options.node, listNodes()));
  const rows = (await callNode(socket, 'get', { kind })) as Row[];
  const line = LINES[kind];
  // As kubectl: an empty answer is no silence, and standard output stays what scripts expect.
  if (rows.length === 0 && (options.output === 'table' || options.output === 'wide'))
    process.stderr.write(`no ${kind}\n`);
  if (line !== undefined && options.output === 'table')
    process.stdout.write(rows.map(row => `${line(row as never)}\n`).join(''));
  else printRows(options.output, rows, columnsOf(rows, WIDE));
  return DONE;
}

/** Tables of the status one below the other, each under its name; what is not a table as `name: value` lines before. */
export async function status(options: { node?: string; output: Format }): Promise<number> {
  const socket = socketPathOf(pickNode(options.node, listNodes()));
  const document = (await callNode(socket, 'status')) as Row;
  if (options.output === 'json') {
    printJson(document);
  } else if (options.output === 'jsonl') {
    process.stdout.write(`${JSON.stringify(document)}\n`);
  } else {
    process.stdout.write(formatStatus(document, options.output === 'wide'));
  }
  return DONE;
}

export function formatStatus(document: Row, wide: boolean): string {
  const scalars: { name: string; value: unknown }[] = [];
  const sections: string[] = [];
  for (const [name, value] of Object.entries(document)) {
    if (Array.isArray(value) && value.some(item => typeof item === 'object')) {
      sections.push(`\n${name}:\n${formatTable(value as Row[], columnsOf(value as Row[]), wide)}`);
    } else if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      sections.push(`\n${name}:\n${formatTable([value as Row], columnsOf([value as Row]), wide)}`);
    } else {
      scalars.push({ name, value });
    }
  }
  const width = Math.max(0, ...scalars.map(scalar => scalar.name.length));
  return (
    scalars.map(({ name, value }) => `${`${name}:`.padEnd(width + 2)}${String(value)}\n`).join('') + sections.join('')
  );
}

/** `tunpath get KIND` and `tunpath status`: what a running node says about itself. */

import { callNode, streamFromNode } from '../control/client.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { formatConntrack, formatRoute } from './lines.ts';
import { print } from './output.ts';
import { columnsOf, type Layout, layOut, noRoomFor, printDocument, printRows, terminal } from './table.ts';

type Row = Record<string, unknown>;

/** Kinds that are lines of a known tool rather than a table; `-o wide` has the table. */
const LINES: Record<string, (row: never) => string> = { routes: formatRoute, conntrack: formatConntrack };

/** Shown only with `-o wide`: they say what few change, and the rest then fits a terminal. */
const WIDE = new Set(['affinitySeconds', 'internalTrafficPolicy', 'externalTrafficPolicy']);

export async function get(kind: string, { node, output }: { node?: string; output: Format }): Promise<number> {
  const socket = socketPathOf(pickNode(node, listNodes()));
  const pieces = streamFromNode<Row>(socket, 'get', { kind });
  const line = output === 'jsonl' ? JSON.stringify : output === 'table' ? LINES[kind] : undefined;
  let count = 0;
  if (line !== undefined) {
    // A line needs no other line: it is printed when it comes, and a million flows are not held here.
    for await (const rows of pieces) {
      count += rows.length;
      await print(rows.map(row => `${line(row as never)}\n`).join(''));
    }
  } else {
    const rows: Row[] = [];
    for await (const piece of pieces) for (const row of piece) rows.push(row);
    count = rows.length;
    await printRows(output, rows, columnsOf(rows, WIDE));
  }
  // As kubectl: an empty answer is no silence, and standard output stays what scripts expect.
  if (count === 0 && isForPeople(output)) process.stderr.write(`no ${kind}\n`);
  return DONE;
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

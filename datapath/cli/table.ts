/** Rows on stdout: aligned columns for people, JSON for programs. */

import Table from 'cli-table3';
import type { Format } from './format.ts';

export interface Column<Row> {
  title: string;
  value: (row: Row) => unknown;
  /** Shown only with `-o wide`. */
  wide?: boolean;
  align?: 'right';
}

/** A terminal shows this much of a text in one cell. */
const WRAP = 60;

const NO_BORDERS = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '   ',
};

/** Columns in the manner of kubectl. Ends with a newline; empty when there are no rows and no columns. */
export function formatTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[], wide = false): string {
  const shown = columns.filter(column => wide || column.wide !== true);
  if (shown.length === 0) return '';
  const table = new Table({
    head: shown.map(column => column.title),
    colAligns: shown.map(column => column.align ?? 'left'),
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) table.push(shown.map(column => formatCell(column.value(row))));
  const lines = table.toString().split('\n');
  return lines.map(line => `${line.trimEnd()}\n`).join('');
}

/** Columns for rows whose shape only the sender knows: one per field, in the order of the first row; `wide` names some. */
export function columnsOf(
  rows: readonly Record<string, unknown>[],
  wide: ReadonlySet<string> = new Set(),
): Column<Record<string, unknown>>[] {
  const keys = new Set(rows.flatMap(row => Object.keys(row)));
  return [...keys].map(key => {
    const numeric = rows.every(row => row[key] === undefined || row[key] === null || typeof row[key] === 'number');
    return {
      title: titleOf(key),
      value: row => row[key],
      wide: wide.has(key),
      ...(numeric ? { align: 'right' as const } : {}),
    };
  });
}

/** Prints rows in the chosen format: `json` one array, `jsonl` one row per line. */
export function printRows<Row>(format: Format, rows: readonly Row[], columns: readonly Column<Row>[]): void {
  switch (format) {
    case 'json':
      printJson(rows);
      return;
    case 'jsonl':
      process.stdout.write(rows.map(row => `${JSON.stringify(row)}\n`).join(''));
      return;
    default:
      process.stdout.write(formatTable(rows, columns, format === 'wide'));
  }
}

export function printJson(document: unknown): void {
  process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
}

/** `rxPackets` -> `RX-PACKETS` */
function titleOf(key: string): string {
  return key
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .replaceAll('_', '-')
    .toUpperCase();
}

/** Breaks a long text into the lines of one cell. */
export function wrap(text: string): string {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.length - 1;
    if (lines[last] !== '' && lines[last].length + word.length >= WRAP) lines.push(word);
    else lines[last] += lines[last] === '' ? word : ` ${word}`;
  }
  return lines.join('\n');
}

function formatCell(value: unknown): string {
  if (value === undefined || value === null || value === '') return '-';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(formatCell).join(',');
  if (typeof value === 'object') return JSON.stringify(value);
  return String(value);
}

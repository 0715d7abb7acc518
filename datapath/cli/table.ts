/** Rows on stdout: aligned columns for people, JSON and YAML for programs. */

import { paintState, wantsColor } from './color.ts';
import type { Format } from './format.ts';

export interface Column<Row> {
  title: string;
  value: (row: Row) => unknown;
  /** Shown only with `-o wide`. */
  wide?: boolean;
  align?: 'right';
  /** Where a terminal is too narrow, columns with the highest go first, and among equals the last ones. */
  spare?: number;
}

export interface Layout {
  /** Lines, each with its newline. */
  text: string;
  /** Titles of columns for which there was no room. */
  hidden: string[];
}

const GAP = 3;
/** A column of text is not made narrower than this, as long as another can go, */
const NARROW = 12;
/** and a word that is longer than this is cut. */
const LONG_WORD = 24;

/** Columns in the manner of kubectl. Ends with a newline; empty when there are no columns. */
export function formatTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[], wide = false): string {
  return layOut(rows, columns, { wide }).text;
}

/** Rows without a shape of their own, each as long as `titles`. */
export function formatGrid(titles: readonly string[], rows: readonly (readonly unknown[])[]): string {
  return formatTable(
    rows,
    titles.map((title, i) => ({ title, value: row => row[i] })),
  );
}

/**
 * Lays a table out in `width` columns of a terminal: texts are broken between words, then columns are left out.
 * @param options.width without one every line is as long as it is
 */
export function layOut<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  { wide = false, width = Number.POSITIVE_INFINITY, color = false } = {},
): Layout {
  const shown = columns.filter(column => wide || column.wide !== true).map(column => new Cells(column, rows));
  const hidden: string[] = [];
  let widths = narrow(shown, width);
  while (widths === null) {
    const least = leastImportant(shown);
    hidden.unshift(least.title);
    shown.splice(shown.indexOf(least), 1);
    widths = narrow(shown, width);
  }
  if (shown.length === 0) return { text: '', hidden };
  let text = '';
  for (let row = -1; row < rows.length; row++) {
    const cells = shown.map((column, i) => breakText(row < 0 ? column.title : column.texts[row], widths[i]));
    const height = Math.max(...cells.map(lines => lines.length));
    for (let line = 0; line < height; line++) {
      const padded = cells.map((lines, i) => {
        const part = lines[line] ?? '';
        const fill = ' '.repeat(widths[i] - lengthOf(part));
        const painted = color && row >= 0 ? paintState(part) : part;
        return shown[i].right ? fill + painted : painted + fill;
      });
      text += `${padded.join(' '.repeat(GAP)).trimEnd()}\n`;
    }
  }
  return { text, hidden };
}

/** One column as texts, and how wide it can be. */
class Cells {
  readonly title: string;
  readonly texts: string[];
  readonly right: boolean;
  readonly spare: number;
  /** With every text in one line. */
  readonly natural: number;
  /** With every text broken wherever it can be. */
  readonly least: number;

  constructor(column: Column<never>, rows: readonly unknown[]) {
    this.title = column.title;
    this.texts = rows.map(row => formatCell(column.value(row as never)));
    this.right = column.align === 'right';
    this.spare = column.spare ?? 0;
    let natural = lengthOf(column.title);
    let least = natural;
    for (const text of this.texts) {
      const length = lengthOf(text);
      if (length > natural) natural = length;
      if (length > least)
        for (const word of wordsOf(text)) least = Math.max(least, Math.min(lengthOf(word), LONG_WORD));
    }
    this.natural = natural;
    this.least = Math.min(natural, Math.max(least, NARROW));
  }
}

/** @returns a width for each column, the widest ones narrowed first; null if one must go */
function narrow(columns: readonly Cells[], width: number): number[] | null {
  const widths = columns.map(column => column.natural);
  let over = widths.reduce((sum, w) => sum + w, 0) + GAP * (columns.length - 1) - width;
  while (over > 0) {
    let widest = -1;
    for (const [i, { least }] of columns.entries()) {
      if (widths[i] > least && (widest < 0 || widths[i] > widths[widest])) widest = i;
    }
    if (widest < 0) break;
    widths[widest]--;
    over--;
  }
  if (over <= 0) return widths;
  if (columns.length > 1) return null;
  // The last one is cut as it comes.
  return [Math.max(1, Math.min(widths[0], width))];
}

/** Never the first: it names the row. */
function leastImportant(columns: readonly Cells[]): Cells {
  return columns.slice(1).reduce((least, column) => (column.spare >= least.spare ? column : least));
}

/** Text goes into the next line after a blank or a comma. */
function wordsOf(text: string): string[] {
  return text.split(/(?<=[ ,])/).map(word => word.trimEnd());
}

/** A text in lines that fit the terminal, each behind `margin`; in a pipe it stays one line. */
export function wrapText(text: string, margin: string, width = terminal(false).width): string {
  return breakText(text, Math.max(NARROW, width - margin.length))
    .map(line => `${margin}${line}`)
    .join('\n');
}

/** The lines of one cell. A word that is longer than a line is cut. */
function breakText(text: string, width: number): string[] {
  if (lengthOf(text) <= width) return [text];
  const lines: string[] = [];
  let line = '';
  for (let word of text.split(/(?<=[ ,])/)) {
    if (line !== '' && lengthOf(line) + lengthOf(word.trimEnd()) > width) {
      lines.push(line.trimEnd());
      line = '';
    }
    while (lengthOf(word.trimEnd()) > width) {
      lines.push([...word].slice(0, width).join(''));
      word = [...word].slice(width).join('');
    }
    line += word;
  }
  if (line !== '') lines.push(line.trimEnd());
  return lines;
}

const ASCII = /^[\x20-\x7e]*$/;

/** Places on the terminal. Names and addresses are ASCII, and what is not takes one place a character. */
function lengthOf(text: string): number {
  return ASCII.test(text) ? text.length : [...text].length;
}

/**
 * Columns for rows whose shape only the sender knows: one per field, in the order of the first row.
 * @param wide    fields for `-o wide` alone
 * @param spared  fields that a narrow terminal does without, the first of them first
 */
export function columnsOf(
  rows: readonly Record<string, unknown>[],
  wide: ReadonlySet<string> = new Set(),
  spared: readonly string[] = [],
): Column<Record<string, unknown>>[] {
  const keys = new Set(rows.flatMap(row => Object.keys(row)));
  return [...keys].map(key => {
    const numeric = rows.every(row => row[key] === undefined || row[key] === null || typeof row[key] === 'number');
    const place = spared.indexOf(key);
    return {
      title: titleOf(key),
      value: row => row[key],
      wide: wide.has(key),
      spare: place < 0 ? 0 : spared.length - place,
      ...(numeric ? { align: 'right' as const } : {}),
    };
  });
}

/** Prints rows in the chosen format: `json` one array, `jsonl` one row per line, `yaml` one sequence. */
export async function printRows<Row>(
  format: Format,
  rows: readonly Row[],
  columns: readonly Column<Row>[],
): Promise<void> {
  if (format === 'table' || format === 'wide') printTable(rows, columns, format === 'wide');
  else if (format === 'jsonl') process.stdout.write(rows.map(row => `${JSON.stringify(row)}\n`).join(''));
  else await printDocument(format, rows);
}

/** Prints a document in a format that is no table. */
export async function printDocument(format: 'json' | 'jsonl' | 'yaml', document: unknown): Promise<void> {
  if (format === 'yaml') {
    const { stringify } = await import('yaml');
    process.stdout.write(stringify(document, { lineWidth: 0, aliasDuplicateObjects: false }));
  } else process.stdout.write(`${JSON.stringify(document, null, format === 'json' ? 2 : 0)}\n`);
}

/** Prints a table as wide as the terminal, and says on standard error what it has no room for; in a pipe there is room. */
export function printTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[], wide: boolean): void {
  const { text, hidden } = layOut(rows, columns, { wide, ...terminal(wide) });
  process.stdout.write(text);
  if (hidden.length > 0) process.stderr.write(noRoomFor(hidden));
}

/** What layOut needs to know of the terminal. With `-o wide` lines are as long as they are. */
export function terminal(wide: boolean): { width: number; color: boolean } {
  const { isTTY, columns } = process.stdout;
  return { width: isTTY && !wide ? columns : Number.POSITIVE_INFINITY, color: wantsColor() };
}

export function noRoomFor(hidden: readonly string[]): string {
  return `no room here for ${hidden.join(', ')}: -o wide shows all\n`;
}

/** `rxPackets` -> `RX-PACKETS` */
export function titleOf(key: string): string {
  return key
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .replaceAll('_', '-')
    .toUpperCase();
}

function formatCell(value: unknown): string {
  if (value === undefined || value === null || value === '') return '-';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(formatCell).join(',');
  if (typeof value === 'object') return JSON.stringify(value);
  return String(value);
}

/** Which rows of `tunpath get` are shown, and in which order. */

import { nearest } from '../control/nearest.ts';
import { UsageError } from './exit.ts';

export type Row = Record<string, unknown>;

/** The rows that `name` means by one of `keys`; without a namespace it means that in any. */
export function namedRows(rows: readonly Row[], name: string, keys: readonly string[]): Row[] {
  const matches = (value: unknown) => {
    const text = String(value);
    return text === name || text.split('/').slice(1).join('/') === name;
  };
  for (const key of keys) {
    const found = rows.filter(row => matches(row[key]));
    if (found.length > 0) return found;
  }
  return [];
}

/**
 * Rows in the order of a field, which `-o json` shows its name of; `.a.b` leads into it, as kubectl's {.a.b} does.
 * Numbers by their size, addresses too, what is absent last.
 * @throws UsageError naming the fields
 */
export function sortRows(rows: readonly Row[], field: string): Row[] {
  const path = field
    .replace(/^\{?\.?|\}$/g, '')
    .split('.')
    .map(step => step.toLowerCase().replace(/[-_]/g, ''));
  if (rows.length > 0 && rows.every(row => valueAt(row, path) === undefined)) {
    const known = [...new Set(rows.flatMap(row => Object.keys(row)))];
    const meant = nearest(field, known);
    const hint = meant === undefined ? '' : ` (did you mean ${meant}?)`;
    throw new UsageError(`--sort-by ${field}${hint}: expected one of ${known.join(', ')}`);
  }
  return rows
    .map(row => ({ row, value: valueAt(row, path) }))
    .sort((a, b) => compareValues(a.value, b.value))
    .map(({ row }) => row);
}

function valueAt(row: unknown, path: readonly string[]): unknown {
  let value: unknown = row;
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    const key = Object.keys(value).find(name => name.toLowerCase() === step);
    value = key === undefined ? undefined : (value as Row)[key];
  }
  return value;
}

function compareValues(a: unknown, b: unknown): number {
  if (a === b) return 0;
  if (a === undefined || a === null) return 1;
  if (b === undefined || b === null) return -1;
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), 'en', { numeric: true });
}

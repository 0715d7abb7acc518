/** What `-o` takes. Apart from table.ts, so that parsing the command line does not load what draws tables. */

import { UsageError } from './exit.ts';

export const FORMATS = ['table', 'wide', 'json', 'jsonl', 'yaml'] as const;
export type Format = (typeof FORMATS)[number];

/** Whether a person reads it, to whom more may be said than to a program. */
export function isForPeople(format: Format): format is 'table' | 'wide' {
  return format === 'table' || format === 'wide';
}

/** @throws UsageError for a format that is none. */
export function parseFormat(text: string): Format {
  const format = FORMATS.find(known => known === text);
  if (format === undefined) throw new UsageError(`-o ${text}: expected one of ${FORMATS.join(', ')}`);
  return format;
}

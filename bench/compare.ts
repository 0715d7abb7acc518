/**
 * Two reports of the same suite: what became faster or slower, and what this cannot tell.
 *
 * A difference is named only where the interval of the ratio leaves 1 out, and the interval is wide enough that a whole
 * table of rows without any difference shows one by chance in one of twenty comparisons (Bonferroni).
 *
 * What the machine did in the meantime is taken out as far as it can be: rows that were measured in turn with the kernel
 * are compared by their ratio to it, rows with reference work beside them by the ratio to that.
 */
import { z } from 'zod';
import { describeFileError, readText } from '../datapath/control/read-text.ts';
import type { Environment } from './environment.ts';
import type { Report, Row } from './result.ts';
import { compareMeans, type Summary } from './stats.ts';

export type Change = 'faster' | 'slower' | 'no difference' | 'too few samples';

export interface Comparison {
  suite: string;
  name: string;
  unit: string;
  params: Record<string, unknown>;
  /** Medians, as they were measured. */
  before: number;
  after: number;
  /** After over before, what the machine did taken out; null where it cannot be had. */
  ratio: { estimate: number; low: number; high: number } | null;
  /** What it is relative to. */
  relativeTo: 'kernel' | 'rival' | 'reference' | 'other build' | 'nothing';
  change: Change;
}

export interface CompareReport {
  rows: Comparison[];
  /** Rows of only one of the two. */
  unmatched: number;
  /** Why the two may not be comparable. */
  warnings: string[];
}

/** Probability that a table without any difference shows one. */
const ALPHA = 0.05;
const FEWEST = 3;

const summary = z.looseObject({ median: z.number().nullable(), samples: z.array(z.number().nullable()) });
const report = z.looseObject({
  environment: z.looseObject({ cpu: z.string(), node: z.string() }),
  results: z.array(
    z.looseObject({
      suite: z.string(),
      name: z.string(),
      unit: z.string(),
      params: z.record(z.string(), z.unknown()),
      ours: summary,
    }),
  ),
});

/** @throws Error naming the file, when it holds no report */
export function readReport(file: string): Report {
  let text: string;
  try {
    text = readText(file);
  } catch (error) {
    throw new Error(`${file}: ${describeFileError(error)}`);
  }
  const expected = 'expected a report of `tunpath bench ... -o json`';
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    const position = /at position (\d+)/.exec((error as Error).message)?.[1];
    const line = position === undefined ? '' : `line ${text.slice(0, Number(position)).split('\n').length}: `;
    throw new Error(`${file}: ${line}got ${text.trim() === '' ? 'nothing' : 'no valid JSON'}, ${expected}`);
  }
  const result = report.safeParse(parsed);
  if (!result.success) {
    const [issue] = result.error.issues;
    const place = issue.path.length === 0 ? '' : `${issue.path.join('.')}: `;
    throw new Error(`${file}: ${place}got ${describeValue(parsed, issue.path)}, ${expected}`);
  }
  return result.data as unknown as Report;
}

/** What stands there, for a message; in short, as it may be all of another file. */
function describeValue(document: unknown, path: readonly PropertyKey[]): string {
  let value = document;
  for (const key of path) value = (value as Record<PropertyKey, unknown> | null)?.[key];
  if (value === undefined) return 'none';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' && value !== null ? 'a map' : JSON.stringify(value).slice(0, 40);
}

export function compareReports(before: Report, after: Report): CompareReport {
  const rowsBefore = new Map(before.results.map(row => [keyOf(row), row]));
  const pairs = after.results.flatMap(row => {
    const old = rowsBefore.get(keyOf(row));
    return old === undefined ? [] : [{ old, row }];
  });
  const alpha = ALPHA / Math.max(1, pairs.filter(({ old, row }) => enough(old) && enough(row)).length);
  return {
    rows: pairs.map(({ old, row }) => compareRows(old, row, alpha)),
    unmatched: before.results.length + after.results.length - 2 * pairs.length,
    warnings: warningsOf(before.environment, after.environment),
  };
}

/** True if something became slower, beyond doubt. */
export function hasRegression({ rows }: CompareReport): boolean {
  return rows.some(row => row.change === 'slower');
}

/** The same measurement has the same suite, name, unit and parameters; what the run found out is left out. */
function keyOf({ suite, name, unit, params }: Row): string {
  const { offloads: _offloads, pairs: _pairs, seconds: _seconds, ...rest } = params;
  return JSON.stringify([suite, name, unit, Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1))]);
}

function compareRows(old: Row, row: Row, alpha: number): Comparison {
  const { suite, name, unit, params } = row;
  const relativeTo = relationOf(old, row);
  const common = { suite, name, unit, params, before: old.ours.median, after: row.ours.median, relativeTo } as const;
  if (isBytes(row))
    return { ...common, ratio: null, change: changeOf(row, compareBytes(old.ours.median, row.ours.median)) };
  if (!enough(old) || !enough(row)) return { ...common, ratio: null, change: 'too few samples' };
  const a = samplesOf(old, relativeTo);
  const b = samplesOf(row, relativeTo);
  // What is a difference itself, as the cost of a step, may be below 0 and then has no ratio.
  const hasRatio = a.every(isPositive) && b.every(isPositive);
  const { difference, low, high } = hasRatio
    ? compareMeans(a.map(Math.log), b.map(Math.log), alpha)
    : compareMeans(a, b, alpha);
  const ratio = hasRatio ? { estimate: Math.exp(difference), low: Math.exp(low), high: Math.exp(high) } : null;
  return { ...common, ratio, change: changeOf(row, low > 0 ? 1 : high < 0 ? -1 : 0) };
}

function relationOf(old: Row, row: Row): Comparison['relativeTo'] {
  if (row.ratio !== undefined && old.ratio !== undefined) return row.rival === undefined ? 'kernel' : 'rival';
  return old.reference !== undefined && row.reference !== undefined ? 'reference' : 'nothing';
}

/** Memory does not depend on the machine's mood, so one sample will do; but asking for it costs some. */
function compareBytes(before: number, after: number): number {
  const tolerance = Math.max(1, 0.01 * before);
  return Math.abs(after - before) < tolerance ? 0 : Math.sign(after - before);
}

/** @param sign of what became of the figure */
function changeOf(row: Row, sign: number): Change {
  if (sign === 0) return 'no difference';
  return sign > 0 === higherIsBetter(row) ? 'faster' : 'slower';
}

function higherIsBetter(row: Row): boolean {
  if (row.better !== undefined) return row.better === 'higher';
  return row.unit.endsWith('/s') || row.unit === 'ratio' || row.unit === '%';
}

function samplesOf(row: Row, relativeTo: Comparison['relativeTo']): number[] {
  if (relativeTo === 'kernel' || relativeTo === 'rival') return (row.ratio as Summary).samples;
  if (relativeTo === 'nothing') return row.ours.samples;
  // In both cases the reference work's speed falls out: a rate is multiplied by its time, a time divided by it.
  const perSecond = row.unit.endsWith('/s');
  return row.ours.samples.map((value, i) => {
    const reference = row.reference!.samples[i];
    return perSecond ? value * reference : value / reference;
  });
}

function enough(row: Row): boolean {
  return !isBytes(row) && row.ours.samples.length >= FEWEST;
}

function isBytes(row: Row): boolean {
  return row.unit.startsWith('bytes');
}

function isPositive(value: number): boolean {
  return value > 0;
}

function warningsOf(before: Environment, after: Environment): string[] {
  const differs = (what: string, a: unknown, b: unknown) => (a === b ? [] : [`${what} differs: ${a}, ${b}`]);
  const flattened = (env: Environment) => (env as { flattened?: boolean }).flattened;
  return [
    ...differs('the processor', before.cpu, after.cpu),
    ...differs('the number of cores', before.cores, after.cores),
    ...differs('the kernel', before.kernel, after.kernel),
    ...differs('Node', before.node, after.node),
    ...differs('whether it was flattened', flattened(before), flattened(after)),
  ];
}

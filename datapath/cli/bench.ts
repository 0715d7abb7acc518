/** `tunpath bench ...`: figures on stdout, progress and warnings on stderr. */

import { runAll } from '../../bench/all.ts';
import { compareBuilds } from '../../bench/builds.ts';
import { type Comparison, compareReports, hasRegression, readReport } from '../../bench/compare.ts';
import {
  type E2eEnvironment,
  formatFigure,
  MODES,
  NAT_SUITES,
  NATS,
  type Nat,
  planScenes,
  runE2e,
  SUITE_GROUPS,
  SUITES,
  type Suite,
  UPLINKS,
} from '../../bench/e2e.ts';
import type { Environment } from '../../bench/environment.ts';
import { runLpm } from '../../bench/lpm.ts';
import { GROUPS, runMicro } from '../../bench/micro.ts';
import { MODES as MTU_MODES, runMtu } from '../../bench/mtu.ts';
import { runOverhead } from '../../bench/overhead.ts';
import { MODES as PIPELINE_MODES, NATS as PIPELINE_NATS, runPipeline, SIZES, type Size } from '../../bench/pipeline.ts';
import type { ComparedRow, Report, Row } from '../../bench/result.ts';
import { outliersOf, type Summary } from '../../bench/stats.ts';
import { SUITES as SUITES_OF_ALL } from '../../bench/suites.ts';
import { LabError, requireRoot } from '../lab/lab-error.ts';
import { checkHtml, writeHtml } from './bench-html.ts';
import { DONE, NO, UsageError } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { type Column, printDocument, printRows, printTable } from './table.ts';

export interface E2eFlags {
  modes?: string;
  /** --suites, or --only. */
  only?: string;
  nat?: string;
  uplink?: string;
  pairs?: string;
  seconds?: string;
  quick?: boolean;
  ceiling: boolean;
  html?: string;
  output: Format;
}

const COLUMNS: Column<ComparedRow>[] = [
  { title: 'MODE', value: row => row.params.mode },
  { title: 'NAT', value: row => row.params.nat },
  { title: 'UPLINK', value: row => row.params.uplink },
  { title: 'WHAT', value: row => row.name },
  { title: 'UNIT', value: row => row.unit },
  { title: 'OURS', value: row => formatFigure(row.ours.median), align: 'right' },
  { title: 'KERNEL', value: row => formatFigure(row.kernel.median), align: 'right' },
  { title: 'VETH', value: row => row.ceiling && formatFigure(row.ceiling.median), align: 'right' },
  { title: 'RATIO', value: row => row.ratio.median.toFixed(2), align: 'right' },
  { title: '95 % CI', value: row => (row.verdict === 'too few pairs' ? '-' : interval(row.ratio)) },
  { title: 'VERDICT', value: row => row.verdict },
  { title: 'NOTE', value: row => notesOn(row) },
  { title: 'AGAINST', value: row => row.params.kernel, wide: true },
  { title: 'UPLINK-OFFLOADS', value: row => (row.params.offloads as { uplink: string[] }).uplink, wide: true },
];

/** Answers no when something asked for was not measured. */
export async function e2e(flags: E2eFlags): Promise<number> {
  checkHtml(flags.html);
  const options = {
    ...(flags.modes === undefined ? {} : { modes: parseList('--modes', flags.modes, MODES) }),
    ...(flags.only === undefined ? {} : parseSuites(flags.only)),
    ...(flags.nat === undefined ? {} : { nats: parseList('--nat', flags.nat, NATS) }),
    ...(flags.uplink === undefined ? {} : { uplinks: parseList('--uplink', flags.uplink, UPLINKS) }),
    ...(flags.pairs === undefined ? {} : { pairs: parseCount('--pairs', flags.pairs) }),
    ...(flags.seconds === undefined ? {} : { seconds: parseCount('--seconds', flags.seconds) }),
    quick: flags.quick ?? false,
    ceiling: flags.ceiling,
  };
  if (planScenes(options).length === 0) {
    throw new UsageError(`--modes ${flags.modes}: expected a mode with two nodes for NAT and other uplinks`);
  }
  requireRoot('bench e2e');
  const { environment, results } = await runE2e({
    ...options,
    print: printProgress,
    signal: endOnSignal(),
  });
  await printResults(flags.output, { environment, results }, results, () => {
    process.stdout.write(`${describe(environment)}\n\n`);
    printTable(results, COLUMNS, flags.output === 'wide');
  });
  await writeHtml(flags.html, { environment, results });
  return environment.complete ? DONE : NO;
}

export interface PipelineFlags {
  modes?: string;
  sizes?: string;
  flows?: string;
  nat?: string;
  visits?: string;
  quick?: boolean;
  html?: string;
  output: Format;
}

export interface MicroFlags {
  only?: string;
  visits?: string;
  quick?: boolean;
  html?: string;
  output: Format;
}

export interface LpmFlags {
  prefixes?: string;
  rte?: boolean;
  quick?: boolean;
  html?: string;
  output: Format;
}

export interface OverheadFlags {
  quick?: boolean;
  html?: string;
  output: Format;
}

export interface MtuFlags extends OverheadFlags {
  modes?: string;
}

export interface AllFlags {
  only?: string;
  quick?: boolean;
  html?: string;
  output: Format;
}

export interface CompareFlags {
  build?: boolean;
  only?: string;
  thorough?: boolean;
  check?: boolean;
  output: Format;
}

/** A rate in millions with the time it means beside it, anything else as it is. */
const ROW_COLUMNS: Column<Row>[] = [
  { title: 'WHAT', value: row => row.name },
  { title: 'WITH', value: row => describeParams(row.params) },
  { title: 'MEDIAN', value: row => formatFigure(row.ours.median), align: 'right' },
  { title: 'UNIT', value: row => row.unit },
  { title: '95 % CI', value: row => rowInterval(row) },
  {
    title: 'PREDICTED',
    value: row => (row.predicted === undefined ? undefined : formatFigure(row.predicted)),
    align: 'right',
  },
  { title: 'NS', value: row => (isRate(row) ? (1e9 / row.ours.median).toFixed(1) : undefined), align: 'right' },
  { title: 'SAMPLES', value: row => row.ours.samples.length, align: 'right', wide: true },
];

const COMPARE_COLUMNS: Column<Comparison>[] = [
  { title: 'SUITE', value: row => row.suite, wide: true },
  { title: 'WHAT', value: row => row.name },
  { title: 'WITH', value: row => describeParams(row.params) },
  { title: 'UNIT', value: row => row.unit },
  { title: 'BEFORE', value: row => formatFigure(row.before), align: 'right' },
  { title: 'AFTER', value: row => formatFigure(row.after), align: 'right' },
  { title: 'RATIO', value: row => row.ratio?.estimate.toFixed(3), align: 'right' },
  { title: 'INTERVAL', value: row => row.ratio && `[${row.ratio.low.toFixed(3)}, ${row.ratio.high.toFixed(3)}]` },
  { title: 'CHANGE', value: row => row.change },
  { title: 'RELATIVE-TO', value: row => row.relativeTo, wide: true },
];

/** Answers no when it was ended early. */
export async function pipeline(flags: PipelineFlags): Promise<number> {
  checkHtml(flags.html);
  const report = await runPipeline({
    ...(flags.modes === undefined ? {} : { modes: parseList('--modes', flags.modes, PIPELINE_MODES) }),
    ...(flags.sizes === undefined ? {} : { sizes: parseSizes(flags.sizes) }),
    ...(flags.flows === undefined ? {} : { flows: parseNumbers('--flows', flags.flows, 1, 4_000_000) }),
    ...(flags.nat === undefined ? {} : { nats: parseList('--nat', flags.nat, PIPELINE_NATS) }),
    ...(flags.visits === undefined ? {} : { visits: parseCount('--visits', flags.visits) }),
    quick: flags.quick,
    print: printProgress,
    signal: endOnSignal(),
  });
  await printReport(report, flags.output);
  await writeHtml(flags.html, report);
  return report.environment.complete ? DONE : NO;
}

/** Answers no when it was ended early. */
export async function micro(flags: MicroFlags): Promise<number> {
  checkHtml(flags.html);
  const report = await runMicro({
    ...(flags.only === undefined ? {} : { groups: parseList('--only', flags.only, GROUPS) }),
    ...(flags.visits === undefined ? {} : { visits: parseCount('--visits', flags.visits) }),
    quick: flags.quick,
    print: printProgress,
    signal: endOnSignal(),
  });
  await printReport(report, flags.output);
  await writeHtml(flags.html, report);
  return report.environment.complete ? DONE : NO;
}

export async function lpm(flags: LpmFlags): Promise<number> {
  checkHtml(flags.html);
  const sizes = flags.prefixes === undefined ? undefined : parseNumbers('--prefixes', flags.prefixes, 1, 1 << 22);
  const { rte, quick } = flags;
  const report = await runLpm({ sizes, rte, quick, print: printProgress, signal: endOnSignal() });
  await printReport(report, flags.output);
  await writeHtml(flags.html, report);
  return report.environment.complete ? DONE : NO;
}

/** Answers no when something was not measured. Needs root. */
export async function overhead(flags: OverheadFlags): Promise<number> {
  checkHtml(flags.html);
  requireRoot('bench overhead');
  const report = await runOverhead({ quick: flags.quick, print: printProgress, signal: endOnSignal() });
  await printReport(report, flags.output);
  await writeHtml(flags.html, report);
  return report.environment.complete ? DONE : NO;
}

/** Answers no when something was not measured. Needs root. */
export async function mtu(flags: MtuFlags): Promise<number> {
  checkHtml(flags.html);
  const modes = flags.modes === undefined ? undefined : parseList('--modes', flags.modes, MTU_MODES);
  requireRoot('bench mtu');
  const report = await runMtu({ modes, quick: flags.quick, print: printProgress, signal: endOnSignal() });
  await printReport(report, flags.output);
  await writeHtml(flags.html, report);
  return report.environment.complete ? DONE : NO;
}

/** Answers no when something was not measured. */
export async function all(flags: AllFlags): Promise<number> {
  checkHtml(flags.html);
  const names = SUITES_OF_ALL.map(suite => suite.name);
  const chosen = flags.only === undefined ? names : parseList('--only', flags.only, names);
  const suites = SUITES_OF_ALL.filter(suite => chosen.includes(suite.name));
  const privileged = suites.filter(suite => suite.needsRoot).map(suite => suite.name);
  if (privileged.length > 0 && process.getuid?.() !== 0) {
    const rest = names.filter(name => !privileged.includes(name));
    throw new LabError(
      `${privileged.join(', ')}: make network namespaces, run it as root; or --only ${rest.join(',')}`,
    );
  }
  const report = await runAll({ quick: flags.quick, suites, print: printProgress, signal: endOnSignal() });
  await printReport(report, flags.output);
  await writeHtml(flags.html, report);
  return report.environment.complete ? DONE : NO;
}

export interface ReportFlags {
  html: string;
}

/** A page of a report that is there already. */
export async function report(file: string, flags: ReportFlags): Promise<number> {
  checkHtml(flags.html);
  await writeHtml(flags.html, readUsersReport(file));
  return DONE;
}

/** With --check answers no when something became slower beyond doubt. */
export async function compare(before: string, after: string, flags: CompareFlags): Promise<number> {
  for (const name of ['only', 'thorough'] as const) {
    if (flags[name] !== undefined && !flags.build) throw new UsageError(`--${name} goes with --build`);
  }
  const report = flags.build
    ? await compareBuilds(before, after, {
        ...(flags.only === undefined ? {} : { only: parseList('--only', flags.only, ['pipeline', ...GROUPS]) }),
        thorough: flags.thorough,
        print: printProgress,
        signal: endOnSignal(),
      })
    : compareReports(readUsersReport(before), readUsersReport(after));
  await printResults(flags.output, report, report.rows, () => {
    for (const warning of report.warnings) process.stdout.write(`warning: ${warning}\n`);
    printTable(report.rows, COMPARE_COLUMNS, flags.output === 'wide');
    const count = (change: Comparison['change']) => report.rows.filter(row => row.change === change).length;
    process.stdout.write(
      `\n${count('faster')} faster, ${count('slower')} slower, ${count('no difference')} without a difference that this could show, ` +
        `${count('too few samples')} with too few samples; ${report.unmatched} rows of one report only\n`,
    );
  });
  return flags.check && hasRegression(report) ? NO : DONE;
}

/** @throws UsageError naming the file, when it holds no report */
function readUsersReport(file: string): Report {
  try {
    return readReport(file);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function printProgress(line: string): void {
  process.stderr.write(`${line}\n`);
}

function printReport({ environment, results }: Report, format: Format): Promise<void> {
  return printResults(format, { environment, results }, results, () => {
    process.stdout.write(`${describeMachine(environment)}\n`);
    process.stdout.write(`load ${environment.loadAverage.toFixed(2)} before the run; times are CPU times\n\n`);
    printTable(results, ROW_COLUMNS, format === 'wide');
  });
}

/** A report as one document or, as lines, its rows; people get what `table` prints. */
async function printResults(
  format: Format,
  document: object,
  rows: readonly object[],
  table: () => void,
): Promise<void> {
  if (isForPeople(format)) table();
  else if (format === 'jsonl') await printRows(format, rows, []);
  else await printDocument(format, document);
}

function isRate(row: Row): boolean {
  return row.unit === 'packets/s' || row.unit === 'lookups/s';
}

function rowInterval({ ours: { ci95, samples } }: Row): string | undefined {
  return samples.length < 2 ? undefined : `[${ci95.map(formatFigure).join(', ')}]`;
}

function describeParams(params: Record<string, unknown>): string {
  return Object.entries(params)
    .filter(([, value]) => typeof value !== 'object')
    .map(([key, value]) => (typeof value === 'string' ? value : `${key} ${value}`))
    .join(', ');
}

/** The first signal asks the run to end with what it has, the second ends it at once. */
function endOnSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(NO);
    process.stderr.write(`${signal}: ending with what is measured\n`);
    controller.abort();
  };
  process.on('SIGINT', stop).on('SIGTERM', stop).on('SIGHUP', stop);
  return controller.signal;
}

function describe(env: E2eEnvironment): string {
  const share = (value: number) => `${(100 * value).toFixed(1)} %`;
  return [
    describeMachine(env),
    `before the run: load ${env.loadAverage.toFixed(2)}, ${share(env.backgroundShare)} busy; stolen during it: ${share(env.stealShare)}`,
    ...env.warnings.map(warning => `warning: ${warning}`),
  ].join('\n');
}

function describeMachine(env: Environment): string {
  return [
    `${env.cpu}, ${env.cores} cores${env.governor === null ? '' : `, governor ${env.governor}`}`,
    `${env.kernel}, Node ${env.node}, tunpath ${env.tunpath}, TCP ${env.tcpCongestionControl ?? 'unknown'}, ${env.date}`,
  ].join('\n');
}

function interval({ ci95: [low, high] }: Summary): string {
  return `[${low.toFixed(2)}, ${high.toFixed(2)}]`;
}

/** What one should know before quoting the row: losses, a sender at its limit, failures, pairs that stand out. */
function notesOn(row: ComparedRow): string | undefined {
  const { details, ratio } = row;
  const of = (name: string) => details[name] && ([details[name].ours.median, details[name].kernel.median] as const);
  const notes: string[] = [];
  const lost = of('lostPercent');
  if (lost) notes.push(`lost ${lost.map(share => share.toFixed(1)).join('/')} %`);
  const limited = of(`${row.name}-limited`);
  const sides = ['ours', 'kernel'].filter((_, i) => limited !== undefined && limited[i] >= 0.5);
  if (sides.length > 0) notes.push(`sender's limit: ${sides.join(', ')}`);
  const background = of('backgroundGbps');
  if (background?.some(rate => rate > 0)) notes.push(`beside ${background.map(formatFigure).join('/')} Gb/s`);
  for (const what of ['lost', 'failed']) {
    const counts = of(what);
    if (counts?.some(count => count > 0)) notes.push(`${what} ${counts.join('/')}`);
  }
  const outliers = outliersOf(ratio.samples);
  if (outliers.length > 0) notes.push(`outliers: ${outliers.map(value => value.toFixed(2)).join(' ')}`);
  return notes.length === 0 ? undefined : notes.join('; ');
}

function parseList<const T extends readonly string[]>(flag: string, text: string, known: T): T[number][] {
  const words = text.split(',');
  for (const word of words) {
    if (!known.includes(word)) throw new UsageError(`${flag} ${word}: expected one or more of ${known.join(', ')}`);
  }
  return known.filter(word => words.includes(word));
}

/** Suites, names of several, and `service` for what has to do with NAT. */
function parseSuites(text: string): { suites: readonly Suite[]; nats?: Nat[] } {
  const names = new Set([...SUITES, ...Object.keys(SUITE_GROUPS), 'service']);
  const words: string[] = parseList('--only, --suites', text, [...names]);
  const suites = SUITES.filter(suite => words.some(word => word === suite || SUITE_GROUPS[word]?.includes(suite)));
  if (!words.includes('service')) return { suites };
  return suites.length === 0 ? { suites: NAT_SUITES, nats: ['service', 'masquerade'] } : { suites, nats: [...NATS] };
}

function parseSizes(text: string): Size[] {
  return text.split(',').map(word => {
    const size = SIZES.find(known => String(known) === word) ?? Number(word);
    if (size === 'IMIX' || (Number.isInteger(size) && size >= 28 && size <= 1500)) return size;
    throw new UsageError(`--sizes ${word}: expected 28 to 1500, or IMIX`);
  });
}

function parseNumbers(flag: string, text: string, least: number, most: number): number[] {
  return text.split(',').map(word => {
    const value = Number(word);
    if (/^\d+$/.test(word) && value >= least && value <= most) return value;
    throw new UsageError(`${flag} ${word}: expected whole numbers from ${least} to ${most}`);
  });
}

function parseCount(flag: string, text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new UsageError(`${flag} ${text}: expected a whole number from 1`);
  return Number(text);
}

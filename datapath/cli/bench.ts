/** `tunpath bench ...`: figures on stdout, progress and warnings on stderr. */

import { type E2eEnvironment, formatFigure, MODES, QUICK, runE2e, SUITES } from '../../bench/e2e.ts';
import type { ComparedRow } from '../../bench/result.ts';
import type { Summary } from '../../bench/stats.ts';
import { DONE, NO, UsageError } from './exit.ts';
import type { Format } from './format.ts';
import { type Column, formatTable, printJson } from './table.ts';

export interface E2eFlags {
  modes?: string;
  suites?: string;
  pairs?: string;
  seconds?: string;
  quick?: boolean;
  ceiling: boolean;
  output: Format;
}

const COLUMNS: Column<ComparedRow>[] = [
  { title: 'MODE', value: row => row.params.mode },
  { title: 'WHAT', value: row => row.name },
  { title: 'UNIT', value: row => row.unit },
  { title: 'OURS', value: row => formatFigure(row.ours.median), align: 'right' },
  { title: 'KERNEL', value: row => formatFigure(row.kernel.median), align: 'right' },
  { title: 'VETH', value: row => row.ceiling && formatFigure(row.ceiling.median), align: 'right' },
  { title: 'RATIO', value: row => row.ratio.median.toFixed(2), align: 'right' },
  { title: '95 % CI', value: row => (row.verdict === 'too few pairs' ? '-' : interval(row.ratio)) },
  { title: 'VERDICT', value: row => row.verdict },
  { title: 'LOST', value: row => losses(row) },
  { title: 'AGAINST', value: row => row.params.kernel, wide: true },
  { title: 'UPLINK-OFFLOADS', value: row => (row.params.offloads as { uplink: string[] }).uplink, wide: true },
];

/** Answers no when something asked for was not measured. */
export async function e2e(flags: E2eFlags): Promise<number> {
  const preset = flags.quick ? QUICK : {};
  const options = {
    ...preset,
    ...(flags.modes === undefined ? {} : { modes: parseList('--modes', flags.modes, MODES) }),
    ...(flags.suites === undefined ? {} : { suites: parseList('--suites', flags.suites, SUITES) }),
    ...(flags.pairs === undefined ? {} : { pairs: parseCount('--pairs', flags.pairs) }),
    ...(flags.seconds === undefined ? {} : { seconds: parseCount('--seconds', flags.seconds) }),
    ceiling: flags.ceiling,
  };
  const { environment, results } = await runE2e({
    ...options,
    print: line => void process.stderr.write(`${line}\n`),
    signal: endOnSignal(),
  });
  switch (flags.output) {
    case 'json':
      printJson({ environment, results });
      break;
    case 'jsonl':
      process.stdout.write(results.map(row => `${JSON.stringify(row)}\n`).join(''));
      break;
    default:
      process.stdout.write(`${describe(environment)}\n\n${formatTable(results, COLUMNS, flags.output === 'wide')}`);
  }
  return environment.complete ? DONE : NO;
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
    `${env.cpu}, ${env.cores} cores${env.governor === null ? '' : `, governor ${env.governor}`}`,
    `${env.kernel}, Node ${env.node}, tunpath ${env.tunpath}, TCP ${env.tcpCongestionControl ?? 'unknown'}, ${env.date}`,
    `before the run: load ${env.loadAverage.toFixed(2)}, ${share(env.backgroundShare)} busy; stolen during it: ${share(env.stealShare)}`,
    ...env.warnings.map(warning => `warning: ${warning}`),
  ].join('\n');
}

function interval({ ci95: [low, high] }: Summary): string {
  return `[${low.toFixed(2)}, ${high.toFixed(2)}]`;
}

/** `ours/kernel` in percent. */
function losses(row: ComparedRow): string | undefined {
  const lost = row.details.lostPercent;
  return lost && `${lost.ours.median.toFixed(1)}/${lost.kernel.median.toFixed(1)} %`;
}

function parseList<const T extends readonly string[]>(flag: string, text: string, known: T): T[number][] {
  const words = text.split(',');
  for (const word of words) {
    if (!known.includes(word)) throw new UsageError(`${flag} ${word}: expected one or more of ${known.join(',')}`);
  }
  return known.filter(word => words.includes(word));
}

function parseCount(flag: string, text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new UsageError(`${flag} ${text}: expected a whole number from 1`);
  return Number(text);
}

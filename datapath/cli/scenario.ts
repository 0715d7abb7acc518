/** `tunpath lab scenario ...` */

import { runScenario, type Scenario, type ScenarioResult } from '../lab/scenario.ts';
import { SCENARIOS } from '../lab/scenarios/index.ts';
import { DONE, NO, UsageError } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { claimLab } from './lab.ts';
import { type Column, printRows } from './table.ts';

const LIST_COLUMNS: Column<Pick<Scenario, 'name' | 'article' | 'shows'>>[] = [
  { title: 'NAME', value: row => row.name },
  { title: 'ARTICLE', value: row => row.article },
  { title: 'SHOWS', value: row => row.shows },
];

export async function list(flags: { output: Format }): Promise<number> {
  const rows = SCENARIOS.map(({ name, article, shows }) => ({ name, article, shows }));
  await printRows(flags.output, rows, LIST_COLUMNS);
  return DONE;
}

/**
 * Runs scenarios one after the other. People get all that was done and seen; programs get the results, and meanwhile one
 * line per scenario on stderr. Answers no when a check failed.
 */
export async function run(
  names: readonly string[],
  flags: { all?: boolean; name: string; output: Format },
): Promise<number> {
  const scenarios = choose(names, flags.all === true);
  await claimLab(flags.name);

  const forPeople = isForPeople(flags.output);
  const tell = (line: string): void => {
    process.stdout.write(`${line}\n`);
  };
  const results: ScenarioResult[] = [];
  for (const scenario of scenarios) {
    const started = performance.now();
    const result = await runScenario(scenario, { labName: flags.name, ...(forPeople ? { tell } : {}) });
    results.push(result);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const failed = result.checks.filter(check => !check.pass).length;
    const verdict = result.pass ? 'pass' : `FAIL, ${failed} of ${result.checks.length} checks`;
    process.stderr.write(`${result.name}: ${verdict}, ${seconds} s\n`);
  }
  await printRows(flags.output, results, [
    { title: 'SCENARIO', value: row => row.name },
    { title: 'ARTICLE', value: row => row.article },
    { title: 'CHECKS', value: row => row.checks.length, align: 'right' },
    { title: 'FAILED', value: row => row.checks.filter(check => !check.pass).length, align: 'right' },
    { title: 'RESULT', value: row => (row.pass ? 'pass' : 'FAIL') },
  ]);
  return results.every(result => result.pass) ? DONE : NO;
}

function choose(names: readonly string[], all: boolean): readonly Scenario[] {
  if (all === names.length > 0) throw new UsageError('expected names of scenarios, or --all');
  if (all) return SCENARIOS;
  const unknown = names.filter(name => !SCENARIOS.some(scenario => scenario.name === name));
  if (unknown.length > 0) {
    const known = SCENARIOS.map(scenario => scenario.name).join(', ');
    throw new UsageError(`no scenario ${unknown.map(name => `'${name}'`).join(', ')}: expected one of ${known}`);
  }
  return names.map(name => SCENARIOS.find(scenario => scenario.name === name)!);
}

/** `tunpath conformance`: which clauses of the RFCs the datapath keeps, profile by profile. */

import type { Clause, Row } from '../conformance/check.ts';
import { CLAUSES } from '../conformance/registry.ts';
import { nameOf, runClause } from '../conformance/run.ts';
import { mapLargeMemory } from '../io/huge-memory.ts';
import { PROFILES, type ProfileName } from '../profile.ts';
import { DONE, NO, UsageError } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { type Column, printRows, printTable } from './table.ts';

const PROFILE_NAMES = Object.keys(PROFILES) as ProfileName[];

export interface ConformanceFlags {
  profile: string;
  clause?: string[];
  verbose?: boolean;
  output: Format;
}

const COLUMNS: Column<Row>[] = [
  { title: 'CLAUSE', value: row => row.clause },
  { title: 'LEVEL', value: row => row.level, spare: 2 },
  { title: 'REQUIREMENT', value: row => row.requirement },
  { title: 'RESULT', value: row => row.result },
  { title: 'SEEN', value: row => row.seen, spare: 1 },
  { title: 'WHY', value: row => row.note },
  { title: 'THE RFC SAYS', value: row => row.quote, wide: true },
];

/** One clause, all profiles. */
interface ComparedRow {
  clause: string;
  requirement: string;
  results: Row[];
}

/** Answers no when a clause fails. */
export async function conformance(flags: ConformanceFlags): Promise<number> {
  const profiles = parseProfile(flags.profile);
  const clauses = chooseClauses(flags.clause ?? []);
  mapLargeMemory();
  const rows = profiles.flatMap(profile => clauses.map(clause => runClause(clause, profile)));
  const forPeople = isForPeople(flags.output);
  if (!forPeople) {
    const shown = flags.verbose === true ? rows : rows.map(({ packets, ...row }) => row);
    await printRows(flags.output, shown, []);
  } else if (flags.verbose === true) {
    for (const row of rows) process.stdout.write(describe(row));
  } else if (profiles.length > 1) {
    printCompared(clauses, rows, flags.output);
  } else {
    await printRows(flags.output, rows, COLUMNS);
  }
  if (forPeople) process.stdout.write(`\n${profiles.map(profile => summary(profile, rows)).join('\n')}\n`);
  return rows.some(row => row.result === 'fail') ? NO : DONE;
}

function printCompared(clauses: readonly Clause[], rows: readonly Row[], format: Format): void {
  const compared = clauses.map((clause, i): ComparedRow => {
    const results = rows.filter((_, j) => j % clauses.length === i);
    return { clause: nameOf(clause), requirement: clause.requirement, results };
  });
  const columns: Column<ComparedRow>[] = [
    { title: 'CLAUSE', value: row => row.clause },
    { title: 'REQUIREMENT', value: row => row.requirement },
    ...PROFILE_NAMES.map((profile, i) => ({
      title: profile.toUpperCase(),
      value: (row: ComparedRow) => row.results[i].result,
    })),
  ];
  printTable(compared, columns, format === 'wide');
}

function summary(profile: ProfileName, rows: readonly Row[]): string {
  const own = rows.filter(row => row.profile === profile);
  const count = (result: Row['result']) => own.filter(row => row.result === result).length;
  return (
    `${profile}: ${count('pass')} pass, ${count('as Linux')} as Linux, ${count('fail')} fail, ` +
    `${count('not applicable')} not applicable`
  );
}

/** One check at length: what the RFC says, and every packet. */
function describe(row: Row): string {
  const lines = [
    `${row.clause} ${row.level}, profile ${row.profile}: ${row.result}`,
    `  ${row.requirement}`,
    `  "${row.quote}"`,
    ...(row.seen === '' ? [] : [`  seen: ${row.seen}`]),
    ...(row.note === '' ? [] : [`  ${row.note}`]),
    ...row.packets.map(line => `    ${line}`),
  ];
  return `${lines.join('\n')}\n\n`;
}

function parseProfile(text: string): ProfileName[] {
  if (text === 'all') return PROFILE_NAMES;
  const profile = PROFILE_NAMES.find(name => name === text);
  if (profile === undefined) throw new UsageError(`--profile ${text}: expected ${PROFILE_NAMES.join(', ')} or all`);
  return [profile];
}

/** '7348' means all of an RFC, '7348/§5', '7348/5' and '4787/REQ-1' one clause. */
function chooseClauses(texts: readonly string[]): readonly Clause[] {
  if (texts.length === 0) return CLAUSES;
  const wanted = texts.flatMap(text => text.split(','));
  const chosen = new Set(wanted.flatMap(text => findClauses(text)));
  return CLAUSES.filter(clause => chosen.has(clause));
}

function findClauses(text: string): Clause[] {
  const [rfc, clause] = text.replace(/^RFC ?/i, '').split(/[/ ]/, 2);
  const plain = (name: string) => name.replace('§', '').toUpperCase();
  const ofRfc = CLAUSES.filter(one => String(one.rfc) === rfc);
  const found = clause === undefined ? ofRfc : ofRfc.filter(one => plain(one.clause) === plain(clause));
  if (found.length > 0) return found;
  const known = ofRfc.length === 0 ? [...new Set(CLAUSES.map(one => String(one.rfc)))] : ofRfc.map(nameOf);
  throw new UsageError(`--clause ${text}: expected RFC or RFC/CLAUSE, one of ${[...new Set(known)].join(', ')}`);
}

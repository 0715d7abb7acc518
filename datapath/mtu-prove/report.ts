/** Cases as rows: for tables, merged where there are too many of them, and as plain data. */
import { formatAddress } from '../control/address.ts';
import type { Case, Range, TcpForecast, Verdict } from './prove.ts';
import { viaOf, whyOf } from './words.ts';

/** More rows than that are not read. */
const ROWS = 16;
/** Names listed before it says how many more there are. */
const NAMES = 3;

export interface TableRow {
  from: string;
  to: string;
  via: string;
  pairs: number;
  largest: number;
  verdict: Verdict;
  why: string;
}

/** What `-o json` prints of a case. */
export interface ProofRow extends TableRow {
  kind: Case['kind'];
  service: string | null;
  sender: string;
  receiver: string;
  senderMtu: { device: number; route: number };
  ranges: Range[];
  tcp: TcpForecast | null;
  fails: Case['fails'];
}

export function proofRow(c: Case): ProofRow {
  const { sender, receiver, destination } = c;
  return {
    ...tableRow(c),
    kind: c.kind,
    service: c.service,
    sender: sender.name,
    receiver: receiver?.name ?? formatAddress(destination),
    senderMtu: { device: sender.deviceMtu, route: sender.routeMtu },
    ranges: c.ranges,
    tcp: c.tcp,
    fails: c.fails,
  };
}

function tableRow(c: Case): TableRow {
  const to = c.to?.name ?? formatAddress(c.destination);
  return {
    from: c.from.name,
    to: c.kind === 'pods' ? to : c.kind === 'service' ? `${to} (${c.service})` : `${to} (reply of ${c.service})`,
    via: viaOf(c),
    pairs: c.pairs,
    largest: c.largest,
    verdict: c.verdict,
    why: whyOf(c),
  };
}

/** One row for each case; where these are too many, one for all that end in the same words. */
export function tableRows(cases: readonly Case[], expand: boolean): TableRow[] {
  if (expand) {
    return cases.map(c => ({ ...tableRow(c), from: c.sender.name, to: podText(c) }));
  }
  if (cases.length <= ROWS) return cases.map(tableRow);
  const merged = new Map<string, { row: TableRow; from: Set<string>; to: Set<string> }>();
  for (const c of cases) {
    const row = tableRow(c);
    const why = withRoles(row.why, c);
    const key = [row.via, row.largest, row.verdict, why].join('\n');
    const known = merged.get(key) ?? { row: { ...row, why, pairs: 0 }, from: new Set<string>(), to: new Set<string>() };
    known.row.pairs += c.pairs;
    known.from.add(row.from);
    known.to.add(row.to);
    merged.set(key, known);
  }
  return [...merged.values()].map(({ row, from, to }) => ({ ...row, from: listNames(from), to: listNames(to) }));
}

function podText({ receiver, destination, kind, service }: Case): string {
  const name = receiver?.name ?? formatAddress(destination);
  return kind === 'pods' ? name : `${name} (${kind === 'reply' ? 'reply of ' : ''}${service})`;
}

/** The nodes at the ends by what they are, so that the same words mean the same. */
function withRoles(why: string, { from, to }: Case): string {
  const named = replaceName(why, from.name, 'FROM');
  return to === null ? named : replaceName(named, to.name, 'TO');
}

/** Names of nodes are DNS labels: nothing in them means anything to a RegExp. */
function replaceName(text: string, name: string, role: string): string {
  return text.replaceAll(new RegExp(`(?<![\\w.])${name}(?![\\w.])`, 'g'), role);
}

function listNames(names: ReadonlySet<string>): string {
  const all = [...names];
  return all.length <= NAMES
    ? all.join(', ')
    : `${all.slice(0, NAMES - 1).join(', ')} and ${all.length - NAMES + 1} more`;
}

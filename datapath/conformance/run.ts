/** Runs checks and judges what they saw. */
import type { ProfileName } from '../profile.ts';
import type { Check, Clause, Deviation, Row } from './check.ts';
import { Testbed } from './node.ts';

/** '7348 §5' */
export function nameOf({ rfc, clause }: Clause): string {
  return `${rfc} ${clause}`;
}

/** Holds one clause against one profile. */
export function runClause(clause: Clause, profile: ProfileName): Row {
  const { level, requirement, quote } = clause;
  const row = { clause: nameOf(clause), level, requirement, quote, profile };
  if (!('run' in clause)) return { ...row, result: 'not applicable', seen: '', note: clause.reason, packets: [] };
  const exempt = clause.exempt?.[profile];
  if (exempt !== undefined) return { ...row, result: 'not applicable', seen: '', note: exempt, packets: [] };
  const bed = new Testbed(profile);
  const seen = see(clause, bed);
  return { ...row, ...judge(clause, profile, seen), packets: bed.packets };
}

function see(check: Check, bed: Testbed): string {
  try {
    return check.run(bed);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function judge(check: Check, profile: ProfileName, seen: string): Pick<Row, 'result' | 'seen' | 'note'> {
  const expected = typeof check.expect === 'string' ? [check.expect] : check.expect;
  if (expected.includes(seen)) return { result: 'pass', seen, note: '' };
  const deviation = check.deviations?.find(one => one.sees === seen && isOf(one, profile));
  if (deviation !== undefined) return { result: 'as Linux', seen, note: deviation.by };
  return { result: 'fail', seen, note: `expected: ${expected.join(', or ')}` };
}

/** The profile of the RFCs has no excuse. */
function isOf(deviation: Deviation, profile: ProfileName): boolean {
  return profile !== 'rfc' && (deviation.profiles === undefined || deviation.profiles.includes(profile));
}

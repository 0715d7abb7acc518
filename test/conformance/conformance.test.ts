import assert from 'node:assert/strict';
import type { Check, Row } from '../../datapath/conformance/check.ts';
import { CLAUSES } from '../../datapath/conformance/registry.ts';
import { runClause } from '../../datapath/conformance/run.ts';
import { PROFILES, type ProfileName } from '../../datapath/profile.ts';

const PROFILE_NAMES = Object.keys(PROFILES) as ProfileName[];

describe('conformance', function () {
  this.timeout(240_000);
  const rows = new Map<ProfileName, Row[]>();

  for (const profile of PROFILE_NAMES) {
    it(`no clause fails in profile ${profile}`, () => {
      const own = CLAUSES.map(clause => runClause(clause, profile));
      rows.set(profile, own);
      const failed = own.filter(row => row.result === 'fail');
      assert.deepEqual(
        failed.map(row => `${row.clause} ${row.requirement}: ${row.seen}, ${row.note}`),
        [],
      );
    });
  }

  it('what differs from the RFC in profile linux names the place in the kernel, and in rfc nothing does', () => {
    for (const row of rows.get('linux')!.filter(({ result }) => result === 'as Linux')) {
      assert.match(row.note, /\((net|drivers|include)\/[\w/.-]+\.[ch]\)|\w+_flow_src_port/, row.requirement);
    }
    assert.deepEqual(
      rows.get('rfc')!.filter(({ result }) => result === 'as Linux'),
      [],
    );
  });

  it('the known list of what Linux breaks is in the table', () => {
    const deviates = new Set(
      rows
        .get('linux')!
        .filter(r => r.result === 'as Linux')
        .map(r => r.clause),
    );
    for (const clause of [
      '7348 §5',
      '6040 §4.1',
      '4787 REQ-1',
      '5382 REQ-1',
      '4787 REQ-5',
      '5508 REQ-2',
      '8926 §4.4.1',
    ]) {
      assert.ok(deviates.has(clause), clause);
    }
  });

  it('what is not applicable says why, and every other check shows its packets', () => {
    for (const row of [...rows.values()].flat()) {
      if (row.result === 'not applicable') assert.ok(row.note.length > 10, row.clause);
      else assert.ok(row.packets.length > 0, `${row.clause} ${row.requirement}`);
    }
  });

  it('a check that sees something else fails, also where Linux would do it', () => {
    const check: Check = {
      rfc: 1,
      clause: '§1',
      level: 'MUST',
      requirement: 'it is so',
      quote: 'it MUST be so',
      expect: 'so',
      deviations: [{ sees: 'otherwise', by: 'somewhere (net/ipv4/ip.c)' }],
      run: () => 'otherwise',
    };
    assert.equal(runClause(check, 'linux').result, 'as Linux');
    assert.equal(runClause(check, 'rfc').result, 'fail');
    assert.equal(runClause({ ...check, run: () => 'so' }, 'linux').result, 'pass');
    assert.equal(runClause({ ...check, expect: ['thus', 'so'], run: () => 'so' }, 'rfc').result, 'pass');
    assert.equal(runClause({ ...check, run: () => 'else' }, 'linux').result, 'fail');
    const broken = runClause({ ...check, run: () => assert.fail('no packet') }, 'linux');
    assert.deepEqual([broken.result, broken.seen], ['fail', 'no packet']);
  });
});

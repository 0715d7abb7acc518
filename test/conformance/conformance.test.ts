import assert from 'node:assert/strict';
import type { Check } from '../../datapath/conformance/check.ts';
import { CLAUSES } from '../../datapath/conformance/registry.ts';
import { nameOf, runClause } from '../../datapath/conformance/run.ts';
import { PROFILES, type ProfileName } from '../../datapath/profile.ts';

const PROFILE_NAMES = Object.keys(PROFILES) as ProfileName[];

describe('conformance', function () {
  this.timeout(120_000);

  for (const profile of PROFILE_NAMES) {
    it(`no clause fails in profile ${profile}`, () => {
      const failed = CLAUSES.map(clause => runClause(clause, profile)).filter(row => row.result === 'fail');
      assert.deepEqual(
        failed.map(row => `${row.clause} ${row.requirement}: ${row.seen}, ${row.note}`),
        [],
      );
    });
  }

  it('what differs from the RFC in profile linux names the file of the kernel, and in rfc nothing does', () => {
    for (const clause of CLAUSES) {
      const row = runClause(clause, 'linux');
      if (row.result === 'as Linux')
        assert.match(row.note, /\((net|drivers|include)\/[\w/.-]+\.[ch]\)|cilium#/, row.note);
      assert.notEqual(runClause(clause, 'rfc').result, 'as Linux');
    }
  });

  it('what is not applicable says why', () => {
    for (const clause of CLAUSES) {
      const row = runClause(clause, 'calico');
      if (row.result === 'not applicable') assert.ok(row.note.length > 10, nameOf(clause));
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
    assert.equal(runClause({ ...check, run: () => 'else' }, 'linux').result, 'fail');
    const broken = runClause({ ...check, run: () => assert.fail('no packet') }, 'linux');
    assert.deepEqual([broken.result, broken.seen], ['fail', 'no packet']);
  });
});

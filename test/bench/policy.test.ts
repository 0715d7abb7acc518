/** What bench/policy.ts measures, smaller: that all of it passes, and that what no policy allows does not. */
import { strict as assert } from 'node:assert';
import { manyPolicies, Sender } from '../../bench/policy.ts';

describe('many policies', () => {
  it('let through what one of them allows', () => {
    const program = manyPolicies(1000);
    assert.equal(program.rules.length, 1001);
    const sender = new Sender(program);
    sender.send(64 * 200, true);
    assert.deepEqual([sender.sent, sender.written], [12_800, 12_800]);
    assert.deepEqual([...sender.drops()], []);
  });

  it('are the same packets that are denied without the last ones', () => {
    const program = manyPolicies(1000);
    const others = { ...program, rows: program.rows.map(rule => (rule > 1000 - 64 ? 0 : rule)) };
    const sender = new Sender(others);
    sender.send(64 * 200, true);
    assert.deepEqual([...sender.drops()], [['drop-policy-denied-egress', 12_800]]);
  });
});

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { dropsPage, pageOf, REASONS } from '../../datapath/observe/reasons.ts';
import { isDrop, VERDICT_NAMES } from '../../datapath/verdict.ts';

describe('drop reasons', () => {
  const names = VERDICT_NAMES.filter((name, number) => name !== '' && isDrop(number));

  it('are all explained, and nothing else is', () => {
    assert.deepEqual(Object.keys(REASONS).sort(), [...names].sort());
  });

  it('have a page in docs that is made from the table: scripts/docs', () => {
    const path = fileURLToPath(new URL('../../../docs/drops.md', import.meta.url));
    const page = readFileSync(path, 'utf8');
    assert.equal(page, dropsPage());
    for (const name of names) assert.ok(page.includes(`\n## ${pageOf(name).split('#')[1]}\n`), name);
  });
});

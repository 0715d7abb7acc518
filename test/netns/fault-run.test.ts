/** Seconds of the fault run (fault-run.ts), which by itself runs for half an hour. */
import assert from 'node:assert/strict';
import { faultRun } from './fault-run.ts';

const SECONDS = 15;

describe('random faults under traffic', function () {
  this.timeout(240_000);

  it('no node dies, streams come back, and what is lost between faults has a counter', async () => {
    const lines: string[] = [];
    const faults = await faultRun({ seconds: SECONDS, seed: 13, say: line => lines.push(line) }).catch(error => {
      error.message = `${lines.join('\n')}\n${error.message}`;
      throw error;
    });
    assert.ok(faults > 0);
  });
});

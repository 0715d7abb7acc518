import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compareBuilds } from '../../bench/builds.ts';
import { slowDown } from '../../bench/guard.ts';
import { PLANS } from '../../bench/micro/cases.ts';
import { trimmedInterval } from '../../bench/stats.ts';
import { Random } from '../../datapath/random.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

describe('bench/builds', function () {
  this.timeout(240_000);
  let directory = '';
  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tunpath-builds-'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  it('runs two builds in turn and finds the one whose encapsulation takes several times as long', async () => {
    cpSync(path.join(ROOT, 'dist/bench'), path.join(directory, 'dist/bench'), {
      recursive: true,
      preserveTimestamps: true,
    });
    cpSync(path.join(ROOT, 'package.json'), path.join(directory, 'package.json'));
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(directory, 'node_modules'));
    const worker = path.join(directory, 'dist/bench/builds/worker.flat.js');
    writeFileSync(worker, slowDown(readFileSync(worker, 'utf8'), 400));
    const plan = PLANS.findIndex(({ group }) => group === 'encap');
    const { rows } = await compareBuilds(ROOT, directory, { plans: [plan] });
    assert.equal(rows.length, 1);
    assert.equal(rows[0].name, 'encap');
    assert.equal(rows[0].change, 'slower', JSON.stringify(rows[0]));
    assert.ok((rows[0].ratio?.estimate ?? 0) > 2, JSON.stringify(rows[0]));
  });

  it('says what it cannot run', async () => {
    await assert.rejects(compareBuilds('/nowhere', ROOT), /\/nowhere: expected a checkout that is built/);
  });
});

describe('bench/stats, trimmed', function () {
  this.timeout(60_000);

  it('one value far off moves neither the estimate nor the interval much', () => {
    const calm = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    const wild = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1000];
    assert.deepEqual(trimmedInterval(wild, 0.05), trimmedInterval(calm, 0.05));
    assert.equal(trimmedInterval(calm, 0.05).estimate, 5.5);
  });

  it('worked by hand: 10 values, 2 cut on each side', () => {
    // Drawn in: 3 3 3 4 5 6 7 8 8 8: variance 42.5 / 9; standard error sqrt(42.5 / 90) / 0.6 = 1.1453; t(5) = 2.571.
    const { low, high } = trimmedInterval([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.05);
    assert.ok(Math.abs(high - (5.5 + 2.944)) < 0.01 && Math.abs(low - (5.5 - 2.944)) < 0.01, `${low} ${high}`);
  });

  it('misses no more often than it says, with one visit in ten far off', () => {
    const random = new Random(11);
    const uniform = () => random.below(1 << 24) / (1 << 24);
    const visit = () => {
      let sum = 0;
      for (let i = 0; i < 12; i++) sum += uniform();
      return (sum - 6) * (uniform() < 0.1 ? 10 : 1);
    };
    let missed = 0;
    for (let run = 0; run < 300; run++) {
      const { low, high } = trimmedInterval(Array.from({ length: 18 }, visit), 0.01);
      if (low > 0 || high < 0) missed++;
    }
    assert.ok(missed <= 9, `${missed} of 300`);
  });
});

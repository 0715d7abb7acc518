import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compareReports, hasRegression, readReport } from '../../bench/compare.ts';
import { environment } from '../../bench/environment.ts';
import type { ComparedRow, Report, Row } from '../../bench/result.ts';
import { summarize } from '../../bench/stats.ts';
import { Random } from '../../datapath/random.ts';

const ENVIRONMENT = environment(new Date(0));

function row(samples: number[], more: Partial<Row> = {}): Row {
  return { suite: 'micro', name: 'encap', unit: 'ns/packet', params: { size: 64 }, ours: summarize(samples), ...more };
}

function compared(ours: number[], kernel: number[]): ComparedRow {
  const ratio = summarize(ours.map((value, i) => value / kernel[i]));
  const common = { kernel: summarize(kernel), ratio, verdict: 'no difference', details: {} } as const;
  return { ...row(ours, { suite: 'e2e', name: 'tcp1', unit: 'Gb/s' }), ...common, better: 'higher' };
}

function reportOf(...results: Row[]): Report {
  return { environment: ENVIRONMENT, results };
}

/** The change of one row from `before` to `after`. */
function change(before: Row, after: Row): string {
  return compareReports(reportOf(before), reportOf(after)).rows[0].change;
}

/** `n` values around 1, with `spread` as their standard deviation, about. */
function noise(random: Random, n: number, spread: number): number[] {
  return Array.from({ length: n }, () => {
    let sum = 0;
    for (let i = 0; i < 12; i++) sum += random.below(1 << 20) / (1 << 20);
    return 1 + spread * (sum - 6);
  });
}

describe('bench/compare', () => {
  const steady = [100, 101, 99, 100, 100.5];

  it('names what lies outside the noise, by the sense of the unit', () => {
    const twice = steady.map(value => 2 * value);
    assert.equal(change(row(steady), row(twice)), 'slower');
    assert.equal(change(row(twice), row(steady)), 'faster');
    assert.equal(change(row(steady, { unit: 'packets/s' }), row(twice, { unit: 'packets/s' })), 'faster');
  });

  it('names nobody inside it, and nobody at all below 3 samples', () => {
    assert.equal(change(row([100, 130, 80, 120, 95]), row([105, 140, 85, 125, 99])), 'no difference');
    assert.equal(change(row(steady), row([200, 201])), 'too few samples');
  });

  it('estimates the ratio with an interval around it', () => {
    const [{ ratio }] = compareReports(reportOf(row(steady)), reportOf(row(steady.map(value => 1.05 * value)))).rows;
    assert.ok(ratio !== null && Math.abs(ratio.estimate - 1.05) < 1e-9);
    assert.ok(ratio.low < 1.05 && ratio.low > 1.03 && ratio.high > 1.05 && ratio.high < 1.07);
  });

  it('takes out what the reference work says of the machine', () => {
    const reference = [10, 11, 9, 10, 10.5];
    const before = row(steady, { reference: summarize(reference) });
    const slowMachine = (factor: number, unit: string, value: (v: number) => number) =>
      row(steady.map(value), { unit, reference: summarize(reference.map(v => v * factor)) });
    assert.equal(
      change(
        before,
        slowMachine(2, 'ns/packet', v => v * 2),
      ),
      'no difference',
    );
    const rate = { ...before, unit: 'packets/s' };
    assert.equal(
      change(
        rate,
        slowMachine(2, 'packets/s', v => v / 2),
      ),
      'no difference',
    );
    assert.equal(
      change(
        rate,
        slowMachine(2, 'packets/s', v => v / 4),
      ),
      'slower',
    );
  });

  it('compares rows that ran beside the kernel by their ratio to it', () => {
    const kernel = [10, 12, 9, 11, 10];
    const before = compared([5, 6, 4.5, 5.5, 5], kernel);
    const loaded = compared(
      [2.5, 3, 2.25, 2.75, 2.5],
      kernel.map(value => value / 2),
    );
    assert.equal(change(before, loaded), 'no difference');
    assert.equal(change(before, compared([2.5, 3, 2.25, 2.75, 2.5], kernel)), 'slower');
  });

  it('takes bytes by one sample, and one that is newly allocated per packet for slower', () => {
    const bytes = (value: number) => row([value], { unit: 'bytes/packet' });
    assert.equal(change(bytes(0), bytes(0.4)), 'no difference');
    assert.equal(change(bytes(0), bytes(16)), 'slower');
    assert.equal(change(row([5e6], { unit: 'bytes' }), row([5.01e6], { unit: 'bytes' })), 'no difference');
    assert.equal(change(row([5e6], { unit: 'bytes' }), row([4e6], { unit: 'bytes' })), 'faster');
  });

  it('compares differences that may be negative, which have no ratio', () => {
    const small = [0.5, -0.5, 0.2, -0.2, 0];
    const [first] = compareReports(reportOf(row(small)), reportOf(row(small.map(v => v + 50)))).rows;
    assert.deepEqual([first.change, first.ratio], ['slower', null]);
    assert.equal(change(row(small), row(small.map(v => v + 0.1))), 'no difference');
  });

  it('finds rows again whatever the order of their parameters, and counts those that have no partner', () => {
    const before = reportOf(row(steady, { params: { size: 64, mode: 'vxlan' } }), row(steady, { name: 'gone' }));
    const after = reportOf(row(steady, { params: { mode: 'vxlan', size: 64 } }), row(steady, { name: 'new' }));
    const { rows, unmatched } = compareReports(before, after);
    assert.deepEqual([rows.length, unmatched], [1, 2]);
  });

  it('says why two reports may not be comparable', () => {
    const other = { environment: { ...ENVIRONMENT, cpu: 'another', node: 'v99' }, results: [] };
    assert.deepEqual(compareReports(reportOf(), other).warnings, [
      `the processor differs: ${ENVIRONMENT.cpu}, another`,
      `Node differs: ${ENVIRONMENT.node}, v99`,
    ]);
  });

  // The whole table may be wrong once in twenty times; at 95 % per row seven of eight tables would show something.
  it('claims nothing between a build and itself: 100 tables of 40 rows', () => {
    const random = new Random(20261121);
    let wrong = 0;
    for (let table = 0; table < 100; table++) {
      const make = () =>
        reportOf(...Array.from({ length: 40 }, (_, i) => row(noise(random, 5, 0.05), { params: { row: i } })));
      if (compareReports(make(), make()).rows.some(r => r.change !== 'no difference')) wrong++;
    }
    assert.ok(wrong <= 12, `${wrong} of 100`);
  });

  it('finds 5 % in one of 40 rows with 10 samples and a noise of 2 %, in nine of ten tables', () => {
    const random = new Random(4);
    let found = 0;
    for (let table = 0; table < 100; table++) {
      const make = (factor: number) =>
        reportOf(
          ...Array.from({ length: 40 }, (_, i) =>
            row(
              noise(random, 10, 0.02).map(value => (i === 7 ? value * factor : value)),
              { params: { row: i } },
            ),
          ),
        );
      if (compareReports(make(1), make(1.05)).rows[7].change === 'slower') found++;
    }
    assert.ok(found >= 90, `${found} of 100`);
  });

  it('--check asks whether anything became slower', () => {
    const slower = compareReports(reportOf(row(steady)), reportOf(row(steady.map(v => 2 * v))));
    const faster = compareReports(reportOf(row(steady)), reportOf(row(steady.map(v => v / 2))));
    assert.deepEqual([hasRegression(slower), hasRegression(faster)], [true, false]);
  });

  describe('reading a report', () => {
    let dir = '';
    before(() => {
      dir = mkdtempSync(path.join(os.tmpdir(), 'tunpath-compare-'));
    });
    after(() => rmSync(dir, { recursive: true }));
    const read = (text: string) => {
      const file = path.join(dir, 'report.json');
      writeFileSync(file, text);
      return readReport(file);
    };

    it('takes what -o json prints', () => {
      assert.deepEqual(read(JSON.stringify(reportOf(row(steady)))).results[0].ours.samples, steady);
    });

    it('names the file and what is wrong with it', () => {
      assert.throws(() => read('{'), /report\.json: line 1: got no valid JSON/);
      assert.throws(() => read('{"results": []}'), /report\.json: environment: got none, expected a report/);
      assert.throws(() => readReport(path.join(dir, 'none.json')), /none\.json: no such file or directory/);
    });
  });
});

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { E2eReport } from '../../bench/e2e.ts';
import { packageObstacle } from '../../datapath/control/uplink/raw.ts';
import { loadRawSocket } from '../../datapath/io/raw-socket.ts';
import { MAIN } from '../fixtures/program.ts';

interface Result {
  pid: number;
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs `tunpath bench e2e` and sends it SIGINT once stderr holds `interruptAt`. */
function bench(args: string[], interruptAt?: string): Promise<Result> {
  const child = spawn(process.execPath, [MAIN, 'bench', 'e2e', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const result: Result = { pid: child.pid!, code: null, stdout: '', stderr: '' };
  let waiting = interruptAt !== undefined;
  child.stdout.setEncoding('utf8').on('data', chunk => {
    result.stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', chunk => {
    result.stderr += chunk;
    if (waiting && result.stderr.includes(interruptAt!)) {
      waiting = false;
      child.kill('SIGINT');
    }
  });
  return new Promise(resolve => {
    child.once('close', code => resolve({ ...result, code }));
  });
}

function leftBy(pid: number): string[] {
  const places = ['/run/netns', '/run/tunpath', tmpdir()].filter(existsSync);
  return places.flatMap(place => readdirSync(place)).filter(entry => entry.startsWith(`tb${pid}-`));
}

function processesNaming(text: string): string {
  return spawnSync('pgrep', ['-f', text], { encoding: 'utf8' }).stdout;
}

describe('tunpath bench e2e', function () {
  this.timeout(90_000);

  it('measures ours and the kernel in turn, and leaves nothing behind', async () => {
    const args = ['--modes', 'vxlan', '--suites', 'tcp1,udp64,rr', '--pairs', '1', '--seconds', '1', '-o', 'json'];
    const { pid, code, stdout, stderr } = await bench(args);
    assert.equal(code, 0, stderr);
    const report = JSON.parse(stdout) as E2eReport;

    assert.equal(report.environment.complete, true);
    assert.equal(report.environment.node, process.version);
    assert.match(report.environment.tunpath, /^\d+\.\d+\.\d+$/);
    assert.ok(report.environment.stealShare >= 0 && report.environment.stealShare < 1);

    const names = report.results.map(row => row.name);
    assert.deepEqual(names, ['tcp1', 'tcp1-cpu', 'udp64', 'rr-p50', 'rr-p99', 'rr-p99.9']);
    for (const row of report.results) {
      assert.equal(row.suite, 'e2e');
      assert.equal(row.params.mode, 'vxlan');
      assert.equal(row.params.kernel, 'vxlan');
      assert.deepEqual(Object.keys(row.params.offloads as object), ['uplink', 'pod']);
      for (const side of [row.ours, row.kernel, row.ceiling!]) {
        assert.equal(side.samples.length, 1);
        assert.ok(side.median > 0, `${row.name}: ${side.median}`);
        assert.deepEqual(side.ci95, [side.median, side.median]);
      }
      assert.equal(row.ratio.median, row.ours.median / row.kernel.median);
      assert.equal(row.verdict, 'too few pairs');
    }
    const [p50, p99, p999] = report.results.slice(3).map(row => row.ours.median);
    assert.ok(p50 <= p99 && p99 <= p999, `${p50} ${p99} ${p999}`);
    const { lostPercent } = report.results[2].details;
    assert.ok(lostPercent.ours.median >= 0 && lostPercent.ours.median < 100);

    assert.match(stderr, /vxlan tcp1 1\/1: ours .*, kernel .*, veth .* Gb\/s {2}\(\d+ (s|min) left\)/);
    assert.deepEqual(leftBy(pid), []);
    assert.equal(processesNaming(`tb${pid}-`), '');
  });

  it('packet rates, latency and connections through a service: plausible, not fast', async () => {
    const args = ['--modes', 'vxlan', '--nat', 'service', '--only', 'ndr,latency,connections', '--pairs', '1'];
    const { pid, code, stdout, stderr } = await bench([...args, '--no-ceiling', '-o', 'json']);
    assert.equal(code, 0, stderr);
    const { results } = JSON.parse(stdout) as E2eReport;
    const rows = new Map(results.map(row => [row.name, row]));
    const of = (name: string) => rows.get(name)!;
    for (const row of results) {
      assert.deepEqual([row.params.nat, row.params.kernel], ['service', 'vxlan, nftables DNAT']);
      for (const side of [row.ours, row.kernel]) assert.ok(side.median > 0, `${row.name}: ${side.median}`);
    }
    for (const size of [64, 1400]) {
      const [none, tenth, whole] = ['', '-0.1%', '-1%'].map(suffix => of(`ndr${size}${suffix}`));
      assert.deepEqual([none.params.size, none.params.loss, tenth.params.loss], [size, 0, 0.001]);
      for (const side of ['ours', 'kernel'] as const) {
        // Nothing sends a UDP packet through two nodes in less than 0.1 us, or takes more than 1 ms for one.
        assert.ok(none[side].median > 1000 && whole[side].median < 1e7, `${none[side].median} ${whole[side].median}`);
        assert.ok(none[side].median <= tenth[side].median && tenth[side].median <= whole[side].median);
        assert.ok(whole[side].median <= 1.1 * none.details.senderLimit[side].median);
        assert.ok(of(`ndr${size}-cpu`)[side].median < 1000);
      }
    }
    for (const name of ['latency', 'latency-loaded']) {
      const percentiles = ['p50', 'p90', 'p99', 'p99.9', 'max'].map(label => of(`${name}-${label}`));
      for (const side of ['ours', 'kernel'] as const) {
        const values = percentiles.map(row => row[side].median);
        assert.deepEqual(
          values,
          values.toSorted((a, b) => a - b),
        );
        // Within a microsecond no request goes there and back; beyond this one it would have been lost.
        assert.ok(values[0] > 1 && values[4] < 5e6, `${values}`);
        const curve = percentiles[0].curves![side]!;
        assert.equal(curve.at(-1)![1], values[4]);
        const background = percentiles[0].details.backgroundGbps[side].median;
        assert.equal(background > 0, name === 'latency-loaded');
      }
    }
    const { details, ours } = of('connections');
    assert.ok(ours.median > 100 && ours.median < 1e6, `${ours.median}`);
    assert.ok(details.p50Us.ours.median > 10, `${details.p50Us.ours.median}`);
    assert.deepEqual(leftBy(pid), []);
  });

  it('masquerade to a host outside, of both', async () => {
    const args = [
      '--modes',
      'native',
      '--nat',
      'masquerade',
      '--suites',
      'tcp1,connections',
      '--pairs',
      '1',
      '--no-ceiling',
    ];
    const { code, stdout, stderr } = await bench([...args, '-o', 'json']);
    assert.equal(code, 0, stderr);
    const { results } = JSON.parse(stdout) as E2eReport;
    assert.deepEqual(
      results.map(row => row.name),
      ['tcp1', 'tcp1-cpu', 'connections'],
    );
    for (const row of results) {
      assert.equal(row.params.kernel, 'routed veth and bridge, nftables masquerade');
      assert.ok(row.ours.median > 0 && row.kernel.median > 0);
    }
  });

  it('a row for each kind of uplink', async () => {
    const kinds = [...(packageObstacle(loadRawSocket).length === 0 ? ['raw'] : []), 'macvtap', 'routed'];
    const args = ['--modes', 'vxlan', '--uplink', kinds.join(','), '--suites', 'tcp1', '--pairs', '1', '--no-ceiling'];
    const { code, stdout, stderr } = await bench([...args, '-o', 'json']);
    assert.equal(code, 0, stderr);
    const rows = (JSON.parse(stdout) as E2eReport).results.filter(row => row.name === 'tcp1');
    assert.deepEqual(
      rows.map(row => row.params.uplink),
      kinds,
    );
    for (const row of rows) assert.ok(row.ours.median > 0, `${row.params.uplink}: ${row.ours.median}`);
  });

  it('gives what it has when it is interrupted, and leaves nothing behind', async () => {
    const args = [
      '--modes',
      'local',
      '--suites',
      'tcp1',
      '--pairs',
      '50',
      '--seconds',
      '1',
      '--no-ceiling',
      '-o',
      'json',
    ];
    const { pid, code, stdout, stderr } = await bench(args, 'tcp1 1/50');
    assert.equal(code, 1, stderr);
    const report = JSON.parse(stdout) as E2eReport;
    assert.equal(report.environment.complete, false);
    assert.ok(report.environment.warnings.includes('ended early'), stderr);
    assert.deepEqual(
      report.results.map(row => row.name),
      ['tcp1', 'tcp1-cpu'],
    );
    assert.equal(report.results[0].params.kernel, 'veth and bridge');
    assert.ok(report.results[0].ours.samples.length < 50);
    assert.deepEqual(leftBy(pid), []);
    assert.equal(processesNaming(`tb${pid}-`), '');
  });

  const refused: [what: string, args: string[], said: RegExp][] = [
    ['an unknown mode', ['--modes', 'vxlan,gre'], /--modes gre: expected one or more of vxlan, geneve/],
    ['an unknown suite', ['--suites', 'sctp'], /--suites sctp: expected one or more of tcp1/],
    ['an unknown NAT', ['--nat', 'snat'], /--nat snat: expected one or more of none, service, masquerade/],
    ['NAT on one node', ['--modes', 'local', '--nat', 'service'], /--modes local: expected a mode with two nodes/],
    ['no pairs', ['--pairs', '0'], /--pairs 0: expected a whole number from 1/],
    ['half a second', ['--seconds', '0.5'], /--seconds 0.5: expected a whole number from 1/],
  ];
  for (const [what, args, said] of refused) {
    it(`refuses ${what}`, async () => {
      const { code, stdout, stderr } = await bench(args);
      assert.equal(code, 2, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, said);
    });
  }
});

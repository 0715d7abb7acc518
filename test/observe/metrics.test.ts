import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { serve, socketPath } from '../../datapath/control/server.ts';
import { metricsText, type NodeSnapshot } from '../../datapath/observe/metrics.ts';
import { MAIN } from '../fixtures/program.ts';

const DASHBOARD = fileURLToPath(new URL('../../../docs/grafana-dashboard.json', import.meta.url));
const NODE = 'metrics-test';

const SNAPSHOT: NodeSnapshot = {
  status: {
    node: NODE,
    profile: 'linux',
    uptimeSeconds: 61,
    tables: [{ table: 'conntrack', used: 3, size: 1024 }],
    rounds: [
      { upToUs: 64, rounds: 5, seconds: 0.0002 },
      { upToUs: 128, rounds: 2, seconds: 0.0002 },
      { upToUs: null, rounds: 1, seconds: 0.3 },
    ],
  },
  counters: [
    { name: 'drop-no-route', packets: 7, bytes: 588 },
    { name: 'encapsulated', packets: 1000 },
  ],
  ports: [
    {
      name: 'default/"p1"',
      kind: 'pod',
      rxPackets: 10,
      rxBytes: 840,
      rxDropped: 7,
      txPackets: 3,
      txBytes: 252,
      txDropped: 0,
    },
  ],
  nat: [{ address: '192.168.10.1', protocol: 'tcp', destination: '203.0.113.5', port: 80, used: 5, free: 28_227 }],
};

/** Lines of the page that are samples. */
const samples = (page: string) => page.split('\n').filter(line => line !== '' && !line.startsWith('#'));

/** Until `probe` gives something, 20 s at most. */
async function until<T>(probe: () => Promise<T | undefined>, what: string): Promise<T> {
  for (let i = 0; i < 200; i++) {
    const got = await probe().catch(() => undefined);
    if (got !== undefined) return got;
    await sleep(100);
  }
  throw new Error(`${what} did not come`);
}

describe('metrics', function () {
  this.timeout(60_000);

  it('has a sample for everything that a node counts, and names the node that did not answer', async () => {
    const isOfRounds = (line: string) => line.startsWith('tunpath_loop_round_seconds');
    const all = samples(await metricsText([SNAPSHOT], ['gone']));
    const rounds = all.filter(isOfRounds);
    const bucket = (le: string) => `tunpath_loop_round_seconds_bucket{node="${NODE}",le="${le}"}`;
    assert.equal(rounds.length, 22);
    assert.deepEqual(rounds.slice(5, 8), [
      `${bucket('0.000032')} 0`,
      `${bucket('0.000064')} 5`,
      `${bucket('0.000128')} 7`,
    ]);
    assert.deepEqual(rounds.slice(-4), [
      `${bucket('0.262144')} 7`,
      `${bucket('+Inf')} 8`,
      `tunpath_loop_round_seconds_sum{node="${NODE}"} 0.3004`,
      `tunpath_loop_round_seconds_count{node="${NODE}"} 8`,
    ]);
    assert.deepEqual(
      all.filter(line => !isOfRounds(line)),
      [
        'tunpath_node_up{node="gone"} 0',
        `tunpath_node_up{node="${NODE}"} 1`,
        `tunpath_node_info{node="${NODE}",profile="linux"} 1`,
        `tunpath_node_uptime_seconds{node="${NODE}"} 61`,
        `tunpath_drops_total{node="${NODE}",reason="no-route"} 7`,
        `tunpath_dropped_bytes_total{node="${NODE}",reason="no-route"} 588`,
        `tunpath_events_total{node="${NODE}",event="encapsulated"} 1000`,
        `tunpath_table_entries{node="${NODE}",table="conntrack"} 3`,
        `tunpath_table_capacity{node="${NODE}",table="conntrack"} 1024`,
        `tunpath_nat_ports_used{node="${NODE}",address="192.168.10.1",protocol="tcp",destination="203.0.113.5",port="80"} 5`,
        `tunpath_nat_ports_free{node="${NODE}",address="192.168.10.1",protocol="tcp",destination="203.0.113.5",port="80"} 28227`,
        `tunpath_port_receive_packets_total{node="${NODE}",port="default/\\"p1\\"",kind="pod"} 10`,
        `tunpath_port_receive_bytes_total{node="${NODE}",port="default/\\"p1\\"",kind="pod"} 840`,
        `tunpath_port_receive_dropped_total{node="${NODE}",port="default/\\"p1\\"",kind="pod"} 7`,
        `tunpath_port_transmit_packets_total{node="${NODE}",port="default/\\"p1\\"",kind="pod"} 3`,
        `tunpath_port_transmit_bytes_total{node="${NODE}",port="default/\\"p1\\"",kind="pod"} 252`,
        `tunpath_port_transmit_dropped_total{node="${NODE}",port="default/\\"p1\\"",kind="pod"} 0`,
      ],
    );
  });

  it('is clean to promtool', async () => {
    const page = await metricsText([SNAPSHOT], ['gone']);
    const { status, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: page, encoding: 'utf8' });
    assert.deepEqual([status, stderr], [0, '']);
  });

  it('refuses to listen where it cannot', () => {
    for (const listen of ['9469', 'localhost', '127.0.0.1:70000', 'example:80']) {
      const { status, stderr } = spawnSync(process.execPath, [MAIN, 'metrics', '--listen', listen], {
        encoding: 'utf8',
      });
      assert.equal(status, 2);
      assert.match(stderr, /expected ADDRESS:PORT/);
    }
  });

  describe('over HTTP', () => {
    const children: ChildProcess[] = [];
    let node: { close(): Promise<void> } | null = null;
    let dir = '';
    let base = '';

    before(async () => {
      dir = mkdtempSync(join(tmpdir(), 'tunpath-metrics-'));
      const { status, ...kinds } = SNAPSHOT;
      node = await serve(socketPath(NODE), async (method, params) =>
        method === 'status' ? status : kinds[params.kind as keyof typeof kinds],
      );
      const child = spawn(process.execPath, [MAIN, 'metrics', '--node', NODE, '--listen', '127.0.0.1:0'], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      children.push(child);
      base = await new Promise<string>((resolve, reject) => {
        child.once('exit', () => reject(new Error('tunpath metrics ended')));
        child.stderr.setEncoding('utf8').on('data', (text: string) => {
          const url = /http:\S+/.exec(text)?.[0];
          if (url !== undefined) resolve(url.replace('/metrics', ''));
        });
      });
    });

    after(async () => {
      for (const child of children) child.kill('SIGTERM');
      await Promise.all(children.map(child => child.exitCode ?? new Promise(resolve => child.once('exit', resolve))));
      await node?.close();
      rmSync(dir, { recursive: true });
    });

    it('answers /metrics and nothing else', async () => {
      const response = await fetch(`${base}/metrics`);
      assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
      assert.deepEqual(samples(await response.text()), samples(await metricsText([SNAPSHOT])));
      assert.equal((await fetch(`${base}/`)).status, 404);
    });

    it('is scraped by a real Prometheus, which knows every query of the dashboard', async () => {
      const config = join(dir, 'prometheus.yml');
      writeFileSync(
        config,
        `global: { scrape_interval: 1s }\nscrape_configs: [{ job_name: tunpath, static_configs: [{ targets: ['${base.replace('http://', '')}'] }] }]\n`,
      );
      const port = 19_469;
      const arguments_ = [
        `--config.file=${config}`,
        `--storage.tsdb.path=${dir}/data`,
        `--web.listen-address=127.0.0.1:${port}`,
      ];
      children.push(spawn('prometheus', arguments_, { stdio: 'ignore' }));
      const query = async (expr: string) => {
        const url = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expr)}`;
        return (await (await fetch(url)).json()) as { status: string; error?: string; data: { result: unknown[] } };
      };
      await until(async () => {
        const { data } = await query('count_over_time(tunpath_drops_total[1m]) >= 3');
        return data.result.length > 0 ? true : undefined;
      }, 'the third scrape');

      const dashboard = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as {
        panels: { title: string; targets: { expr: string }[] }[];
      };
      for (const { title, targets } of dashboard.panels) {
        for (const { expr } of targets) {
          // A comparison would hide what stands still here.
          const { status, error, data } = await query(expr.replaceAll('$node', '.*').replace(/ > 0$/, ''));
          assert.equal(status, 'success', `${title}: ${error}`);
          assert.ok(data.result.length > 0, `${title}: nothing for ${expr}`);
        }
      }
      const targets = execFileSync('curl', ['-s', `http://127.0.0.1:${port}/api/v1/targets`], { encoding: 'utf8' });
      assert.match(targets, /"health":"up"/);
    });
  });
});

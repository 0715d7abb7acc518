/** A lab of a topology of one's own, on the command line: two routers with a link between them, three subnets, odd MTUs. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Lab } from '../../datapath/lab/lab.ts';
import { MAIN } from '../fixtures/program.ts';

const NAME = `w${process.pid}`;
const FILE = fileURLToPath(new URL('../../../test/fixtures/topology/two-routers.yaml', import.meta.url));

async function lab(...argv: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  try {
    const command = [MAIN, 'lab', ...argv, '--name', NAME];
    return { ...(await promisify(execFile)(process.execPath, command)), code: 0 };
  } catch (error) {
    return error as { stdout: string; stderr: string; code: number };
  }
}

describe('a lab of its own topology', function () {
  this.timeout(60_000);
  before(async () => {
    const { code, stderr } = await lab('up', '-f', FILE, '--no-api');
    assert.equal(code, 0, stderr);
  });
  after(() => Lab.down(NAME));

  it('reaches every pod from every other, over both routers and a slow wire', async () => {
    const { code, stdout, stderr } = await lab('pingall', '-o', 'json');
    assert.equal(code, 0, stdout + stderr);
    const rows = JSON.parse(stdout) as { from: string; to: string; rttMs: number }[];
    assert.deepEqual(
      rows.map(({ from, to }) => `${from} ${to}`),
      ['pa pb', 'pa pc', 'pb pa', 'pb pc'],
    );
    // The wire between takes 5 ms each time.
    for (const { from, to, rttMs } of rows) if (`${from}${to}`.includes('pb')) assert.ok(rttMs >= 5, `${rttMs} ms`);
  });

  it('has the MTU of each subnet and link', async () => {
    const up = Lab.open(NAME);
    const mtu = async (host: string, device: string): Promise<string> =>
      (await up.exec(host, ['cat', `/sys/class/net/${device}/mtu`])).stdout.trim();
    assert.deepEqual(
      await Promise.all([
        mtu('r1', 'eth1'),
        mtu('r1', 'eth2'),
        mtu('r1', 'eth9'),
        mtu('r2', 'eth9'),
        mtu('outside', 'eth0'),
      ]),
      ['1381', '1733', '1299', '1299', '1499'],
    );
    // 50 bytes of VXLAN less than each subnet's.
    assert.deepEqual(await Promise.all([mtu('pa', 'eth0'), mtu('pb', 'eth0')]), ['1331', '1683']);
  });

  it('leads pods to the service, and to the host outside under the address of their node', async () => {
    const up = Lab.open(NAME);
    const web = await up.exec('pa', ['curl', '-s', '-m', '5', 'http://10.96.0.10/']);
    assert.match(web.stdout, /^Hostname: pb\n/);
    const outside = await up.exec('pa', ['curl', '-s', '-m', '5', 'http://192.168.3.100/']);
    assert.match(outside.stdout, /^Hostname: outside\n[\s\S]*RemoteAddr: 192\.168\.1\.10:/);
  });

  it('names its namespaces to those who look', async () => {
    const { hosts } = JSON.parse((await lab('inspect', '-o', 'json')).stdout) as {
      hosts: { host: string; kind: string; enter: string | null; state: string }[];
    };
    assert.deepEqual(
      hosts.map(({ host, kind, state, enter }) => `${host} ${kind} ${state} ${enter ?? '-'}`),
      [
        ...['a', 'b', 'c'].map(node => `${node} node up ip netns exec tp-${NAME}-${node}`),
        `pa pod up ip netns exec tp-${NAME}-pa`,
        `pb pod up ip netns exec tp-${NAME}-pb`,
        'pc pod up -',
        `r1 router idle ip netns exec tp-${NAME}-r1`,
        `r2 router up ip netns exec tp-${NAME}-r2`,
        `outside host up ip netns exec tp-${NAME}-outside`,
      ],
    );
    assert.match((await lab('graph')).stdout, new RegExp(`tp-${NAME}-outside`));
  });

  it('is mended by `lab up`, of the same file or without one, and by no other topology', async () => {
    const { pid } = Lab.open(NAME).status()[0]!;
    process.kill(pid!, 'SIGKILL');
    for (;;) if (Lab.open(NAME).status()[0]!.state === 'down') break;
    const other = await lab('up', '-t', 'calico', '--no-api');
    assert.equal(other.code, 1);
    assert.match(other.stderr, /is there already/);
    const { code, stderr } = await lab('up', '-f', FILE, '--no-api');
    assert.equal(code, 0, stderr);
    assert.match(stderr, /is mended: a, b, c started again/);
    assert.equal((await lab('pingall')).code, 0);
  });
});

/** Several nodes in one process on a segment, with real pods, a TAP towards the kernel, and impairments while they run. */
import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { callNode } from '../../datapath/control/client.ts';
import type { SegmentState } from '../../datapath/control/loops.ts';
import { socketPath } from '../../datapath/control/server.ts';
import { MAIN } from '../fixtures/program.ts';

const PREFIX = `ts${process.pid}`;
const NODES = ['a', 'b', 'c'];
const ROUTER = `${PREFIX}-r`;

function nodeName(node: string): string {
  return `${PREFIX}-${node}`;
}

function podOf(node: string): string {
  return `${PREFIX}-p${node}`;
}

/** The number of a node: last byte of its address, and the third of its pods'. */
function numberOf(node: string): number {
  return NODES.indexOf(node) + 1;
}

function config(node: string, tunnel: string): string {
  const n = numberOf(node);
  const peers = NODES.filter(other => other !== node);
  return `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: ${nodeName(node)} }
spec:
  uplink: { kind: segment, segment: lan, mac: "02:00:00:00:00:0${n}", address: 192.168.77.${n}/24 }
  host: { device: tp0, address: 10.77.${n}.1/32, netns: ${nodeName(node)} }
  pods: [{ name: default/p, netns: ${podOf(node)}, device: eth0, address: 10.77.${n}.10 }]
  tunnel: { protocol: ${tunnel}, peers: [${peers.map(other => `{ address: 192.168.77.${numberOf(other)} }`).join(', ')}] }
  routes: [${peers
    .map(other => `{ to: 10.77.${numberOf(other)}.0/24, via: 192.168.77.${numberOf(other)}, encap: true }`)
    .join(', ')}]
`;
}

const SEGMENT = `apiVersion: tunpath.dev/v1
kind: Segment
metadata: { name: lan }
spec: { tap: { device: lan0, netns: ${ROUTER}, mirror: true } }
`;

async function inNetns(netns: string, ...argv: string[]): Promise<{ stdout: string; exitCode: number }> {
  const { stdout, exitCode } = await execa('ip', ['netns', 'exec', netns, ...argv], { reject: false });
  return { stdout: String(stdout), exitCode: exitCode ?? 1 };
}

function ping(from: string, to: string, ...options: string[]) {
  return inNetns(podOf(from), 'ping', '-c', '3', '-i', '0.05', '-W', '2', ...options, `10.77.${numberOf(to)}.10`);
}

/** When a node began. @throws while it is not there */
async function startOf(node: string): Promise<string> {
  return ((await callNode(socketPath(nodeName(node)), 'ledger')) as { since: string }).since;
}

/** Slots that a node's loop has given out. */
async function packetsOf(node: string): Promise<number> {
  const { tables } = (await callNode(socketPath(nodeName(node)), 'status')) as {
    tables: { table: string; used: number }[];
  };
  return tables.find(({ table }) => table === 'packets')!.used;
}

describe('nodes in one process', function () {
  this.timeout(120_000);
  let directory = '';
  let child: ChildProcess | null = null;
  let log = '';

  async function start(
    tunnel: string,
    change: (node: string, text: string) => string = (_, text) => text,
    ...flags: string[]
  ): Promise<void> {
    log = '';
    rmSync(directory, { recursive: true, force: true });
    directory = mkdtempSync(join(tmpdir(), 'tunpath-'));
    for (const node of NODES) {
      const text = node === 'a' ? `${SEGMENT}---\n${config(node, tunnel)}` : config(node, tunnel);
      writeFileSync(join(directory, `${node}.yaml`), change(node, text));
    }
    const argv = [MAIN, 'node', '--config', directory, ...flags];
    child = spawn(process.execPath, argv, { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    for (let i = 0; i < 1600 && !log.includes('ready\n'); i++) {
      assert.equal(child.exitCode, null, log);
      await sleep(50);
    }
    assert.ok(log.includes('ready\n'), log);
  }

  async function stop(): Promise<number | null> {
    if (child === null || child.exitCode !== null) return child?.exitCode ?? null;
    child.kill('SIGTERM');
    await once(child, 'exit');
    return child.exitCode;
  }

  before(async () => {
    for (const netns of [ROUTER, ...NODES.flatMap(node => [nodeName(node), podOf(node)])]) {
      await execa('ip', ['netns', 'add', netns]);
    }
  });

  afterEach(async () => {
    await stop();
  });

  after(async () => {
    rmSync(directory, { recursive: true, force: true });
    for (const netns of [ROUTER, ...NODES.flatMap(node => [nodeName(node), podOf(node)])]) {
      await execa('ip', ['netns', 'del', netns], { reject: false });
    }
  });

  async function segment(): Promise<SegmentState> {
    const [state] = (await callNode(socketPath(nodeName('a')), 'segments')) as SegmentState[];
    return state;
  }

  for (const tunnel of ['vxlan', 'ipip']) {
    it(`every pair of pods reaches each other through ${tunnel}, superpackets cross whole, the TAP shows what a wire carries`, async () => {
      await start(tunnel);
      for (const from of NODES) {
        for (const to of NODES) if (from !== to) assert.equal((await ping(from, to)).exitCode, 0, `${from} to ${to}`);
      }
      const capture = execa(
        'ip',
        ['netns', 'exec', ROUTER, 'timeout', '20', 'tcpdump', '-c', '3', '-nni', 'lan0', 'host 192.168.77.3 and ip'],
        { reject: false },
      );
      await sleep(1500);
      const server = execa('ip', ['netns', 'exec', podOf('b'), 'iperf3', '-s', '-1'], { reject: false });
      await sleep(500);
      const { stdout } = await inNetns(podOf('a'), 'iperf3', '-c', '10.77.2.10', '-n', '50M', '-J');
      await server;
      assert.ok(JSON.parse(stdout).end.sum_received.bytes >= 40e6, stdout);
      await ping('a', 'c');
      // By its port, 8472, tcpdump takes VXLAN for OTV.
      const seen = String((await capture).stdout);
      assert.match(seen, tunnel === 'vxlan' ? /VXLAN|OTV/ : /192\.168\.77\.1 > 192\.168\.77\.3/);
      assert.match(seen, /10\.77\.1\.10 > 10\.77\.3\.10/);
      const status = (await callNode(socketPath(nodeName('a')), 'get', { kind: 'counters' })) as {
        name: string;
        packets: number;
      }[];
      const segmented = status.find(({ name }) => name === 'segmented')?.packets ?? 0;
      const encapsulated = status.find(({ name }) => name === 'encapsulated')!.packets;
      assert.ok(segmented < encapsulated / 10, `${segmented} of ${encapsulated} were cut`);
      assert.equal(await stop(), 0);
    });
  }

  it('carries between loops: every pair, superpackets, the TAP; a node that restarts loses nothing of others', async () => {
    await start('ipip', undefined, '--loops', '3');
    for (const from of NODES) {
      for (const to of NODES) if (from !== to) assert.equal((await ping(from, to)).exitCode, 0, `${from} to ${to}`);
    }
    await inNetns(ROUTER, 'ip', 'addr', 'add', '192.168.77.254/24', 'dev', 'lan0');
    assert.equal((await inNetns(ROUTER, 'ping', '-c', '2', '-i', '0.1', '-W', '2', '192.168.77.2')).exitCode, 0);
    const server = execa('ip', ['netns', 'exec', podOf('c'), 'iperf3', '-s', '-1'], { reject: false });
    let sent = await inNetns(podOf('b'), 'iperf3', '-c', '10.77.3.10', '-n', '20M', '-J');
    for (let tries = 0; tries < 100 && sent.exitCode !== 0; tries++) {
      await sleep(50);
      sent = await inNetns(podOf('b'), 'iperf3', '-c', '10.77.3.10', '-n', '20M', '-J');
    }
    await server;
    assert.equal(sent.exitCode, 0, sent.stdout);
    const stream = inNetns(podOf('a'), 'ping', '-q', '-c', '100', '-i', '0.02', '-W', '5', '10.77.2.10');
    for (let i = 0; i < 2; i++) {
      // The answer comes before the end: for a moment the old node still sends.
      const before = await startOf('c');
      await callNode(socketPath(nodeName('c')), 'restart');
      while ((await startOf('c').catch(() => before)) === before) await sleep(50);
      for (let tries = 0; tries < 100 && (await ping('b', 'c')).exitCode !== 0; tries++) await sleep(100);
      assert.equal((await ping('b', 'c')).exitCode, 0, log);
    }
    assert.match((await stream).stdout, /100 packets transmitted, 100 received/);
    assert.equal((await segment()).ports.length, 4);
    for (const node of NODES) {
      // The bursts of the TAP: what crossed comes back.
      while ((await packetsOf(node)) > 3 * 64) await sleep(50);
    }
    assert.equal(await stop(), 0);
  });

  it('the kernel behind the TAP is on the segment', async () => {
    await start('vxlan');
    await inNetns(ROUTER, 'ip', 'addr', 'add', '192.168.77.254/24', 'dev', 'lan0');
    assert.equal((await inNetns(ROUTER, 'ping', '-c', '2', '-i', '0.1', '-W', '2', '192.168.77.2')).exitCode, 0);
    assert.equal((await inNetns(nodeName('a'), 'ping', '-c', '2', '-i', '0.1', '-W', '2', '192.168.77.3')).exitCode, 0);
  });

  it('impairments change while packets flow, also of one direction of one node', async () => {
    await start('vxlan');
    await ping('a', 'b');
    const set = (...argv: string[]) =>
      execa(process.execPath, [MAIN, 'segment', 'set', 'lan', '--node', nodeName('a'), ...argv], { reject: false });
    assert.equal((await set('--delay', '30ms')).stdout, 'delay 30ms');
    const rtt = Number(/min\/avg\/max\/mdev = ([\d.]+)/.exec((await ping('a', 'b')).stdout)![1]);
    assert.ok(rtt >= 60, `${rtt} ms`);
    assert.equal((await set('--clear')).stdout, 'no impairments');
    assert.equal((await set('--to', nodeName('b'), '--loss', '100%')).stdout, 'loss 100%');
    assert.equal((await ping('a', 'b', '-W', '0.3')).exitCode, 1);
    assert.equal((await ping('a', 'c')).exitCode, 0);
    assert.equal((await set('--to', nodeName('b'), '--clear')).exitCode, 0);
    assert.equal((await ping('a', 'b')).exitCode, 0);
    const bad = await set('--to', 'nobody', '--loss', '1%');
    assert.equal(bad.exitCode, 1);
    assert.match(bad.stderr, /segment lan has no port nobody: expected one of/);
    const wrong = await set('--delay', '5');
    assert.equal(wrong.exitCode, 2);
    assert.match(wrong.stderr, /delay: got "5", expected a time/);
  });

  it('SIGHUP makes the impairments those of the file; another MTU waits for a restart', async () => {
    await start('vxlan');
    const file = join(directory, 'a.yaml');
    const text = readFileSync(file, 'utf8');
    const reload = async (to: string, until: RegExp) => {
      writeFileSync(file, to);
      log = '';
      child!.kill('SIGHUP');
      for (let i = 0; i < 200 && !until.test(log); i++) await sleep(50);
      assert.match(log, until);
    };
    await reload(text.replace('mirror: true }', 'mirror: true }, impairments: { loss: 50% }'), /a\.yaml applied/);
    assert.equal((await segment()).impairments, 'loss 50%');
    await reload(
      text.replace('mirror: true }', 'mirror: true }, mtu: 9000'),
      /another MTU, TAP or seed of segment lan/,
    );
    await reload(text, /a\.yaml applied/);
    assert.equal((await segment()).impairments, '');
  });

  it('one node stops and starts again, and the others lose nothing', async () => {
    await start('vxlan');
    await ping('a', 'b');
    const stream = inNetns(podOf('a'), 'ping', '-q', '-c', '150', '-i', '0.02', '-W', '5', '10.77.2.10');
    for (let i = 0; i < 3; i++) {
      await callNode(socketPath(nodeName('c')), 'restart');
      for (let tries = 0; tries < 100 && (await ping('a', 'c')).exitCode !== 0; tries++) await sleep(100);
      assert.equal((await ping('a', 'c')).exitCode, 0, log);
    }
    assert.match((await stream).stdout, /150 packets transmitted, 150 received/);
    const tables = (await callNode(socketPath(nodeName('a')), 'status')) as {
      tables: { table: string; used: number }[];
    };
    // The bursts of two other nodes and of the TAP, and nothing else: what the node held has come back.
    assert.ok(tables.tables.find(({ table }) => table === 'packets')!.used <= 3 * 64 + 8);
    assert.equal((await segment()).ports.length, 4);
    await callNode(socketPath(nodeName('b')), 'stop');
    await sleep(300);
    assert.equal((await segment()).ports.length, 3);
    assert.equal((await ping('a', 'c')).exitCode, 0);
  });

  it('a node that starts again is what was applied to it, not what its file said at first', async () => {
    await start('vxlan');
    const path = socketPath(nodeName('c'));
    const text = `${config('c', 'vxlan')}  masquerade: [{ from: 10.77.3.0/24, notTo: [10.77.0.0/16] }]\n`;
    const { applied } = (await callNode(path, 'apply', { text, file: 'c.yaml' })) as { applied?: unknown };
    assert.notEqual(applied, undefined);
    const applies = async () =>
      ((await callNode(path, 'config')) as { spec: { masquerade: object[] } }).spec.masquerade;
    assert.equal((await applies()).length, 1);
    await callNode(path, 'restart');
    for (let i = 0; i < 200 && !log.includes('starts again'); i++) await sleep(50);
    for (let tries = 0; tries < 100 && (await ping('a', 'c')).exitCode !== 0; tries++) await sleep(100);
    assert.equal((await applies()).length, 1);
  });

  it('what is wrong with one configuration does not keep the others from running', async () => {
    await start('vxlan', (node, text) => (node === 'b' ? text.replace('segment: lan,', 'segment: lam,') : text));
    assert.match(log, /b\.yaml:5:\d+: spec\.uplink\.segment: got "lam", expected one of lan/);
    assert.equal((await ping('a', 'c')).exitCode, 0);
    assert.equal(await stop(), 2);
  });
});

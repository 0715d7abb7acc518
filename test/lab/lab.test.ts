/** Real namespaces, devices and node processes. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { IpError, ipBatch } from '../../datapath/control/ip.ts';
import { inNamespace } from '../../datapath/control/netns.ts';
import { decodeCapture } from '../../datapath/lab/capture.ts';
import { Lab } from '../../datapath/lab/lab.ts';
import { NETNS_DIR, namespacePrefix, stateDirOf } from '../../datapath/lab/names.ts';
import { identifyProcess, inodesOf, isAlive, processesOf } from '../../datapath/lab/processes.ts';
import { borrowDirectory, removeLab } from '../../datapath/lab/remains.ts';
import { MAIN } from '../fixtures/program.ts';

/** Unique per run of the tests, so that two at once do not meet. */
const NAME = `t${process.pid}`;

function namespacesOf(lab: string): string[] {
  return existsSync(NETNS_DIR) ? readdirSync(NETNS_DIR).filter(entry => entry.startsWith(namespacePrefix(lab))) : [];
}

/** Namespaces, sockets and state of a lab, and processes that read its files. */
function remains(lab: string): string[] {
  const files = ['/run/tunpath', '/etc/netns'].flatMap(path => (existsSync(path) ? readdirSync(path) : []));
  const processes = readdirSync('/proc').filter(entry => {
    try {
      return /^\d+$/.test(entry) && readFileSync(`/proc/${entry}/cmdline`, 'utf8').includes(`${stateDirOf(lab)}/`);
    } catch {
      return false;
    }
  });
  const own = (entry: string): boolean => entry.startsWith(namespacePrefix(lab)) || entry === `lab-${lab}`;
  return [...namespacesOf(lab), ...files.filter(own), ...processes.map(pid => `process ${pid}`)];
}

/** Names of the devices between the nodes of the lab. */
function devicesOfSwitch(): string[] {
  return inNamespace(`tp-${NAME}-net`, () => readFileSync('/proc/thread-self/net/dev', 'utf8'))
    .match(/^ *\S+(?=:)/gm)!
    .map(name => name.trim());
}

describe('a directory that labs borrow', () => {
  it('goes with the last lab that has it, and stays where somebody else has made it', async () => {
    const base = mkdtempSync(join(tmpdir(), 'tunpath-borrowed-'));
    const [path, own, used] = ['path', 'own', 'used'].map(name => join(base, name)) as [string, string, string];
    mkdirSync(own);
    const labs = [`${NAME}x`, `${NAME}y`];
    for (const lab of labs) {
      mkdirSync(stateDirOf(lab), { recursive: true });
      for (const one of [path, own, used, path]) borrowDirectory(lab, one);
    }
    assert.deepEqual(readdirSync(base).sort(), ['own', 'path', 'used']);
    // One that cannot be made is known, as is one whose maker is killed.
    const below = join(path, 'file', 'below');
    writeFileSync(join(path, 'file'), '');
    assert.throws(() => borrowDirectory(labs[0]!, below));
    assert.ok(readFileSync(`${stateDirOf(labs[0]!)}/borrowed`, 'utf8').endsWith(`${below}\n`));
    rmSync(join(path, 'file'));
    await removeLab(labs[0]!);
    assert.deepEqual(readdirSync(base).sort(), ['own', 'path', 'used']);
    writeFileSync(join(used, 'file'), '');
    await removeLab(labs[1]!);
    assert.deepEqual(readdirSync(base).sort(), ['own', 'used']);
    rmSync(base, { recursive: true });
  });
});

describe('ipBatch', () => {
  const netns = `tp-${NAME}b-x`;
  before(() => ipBatch([`netns add ${netns}`]));
  after(() => ipBatch([`netns del ${netns}`]));

  it('runs in the namespace, with its settings', async () => {
    await ipBatch(['link add v0 type veth peer name v1', 'link set v0 up'], {
      netns,
      sysctls: { 'net/ipv4/ip_forward': 1 },
    });
  });

  it('names the command that failed, where, and why', async () => {
    await assert.rejects(ipBatch(['link set lo up', 'link set nosuch up', 'link set lo down'], { netns }), error => {
      assert.ok(error instanceof IpError);
      assert.match(error.message, /'ip link set nosuch up' in tp-.*-x failed: Cannot find device "nosuch"/);
      return true;
    });
  });

  it('says so when the namespace is not there', async () => {
    await assert.rejects(ipBatch(['link set lo up'], { netns: 'tp-nosuch-x' }), /tp-nosuch-x/);
  });
});

describe('Lab', function () {
  this.timeout(60_000);
  let lab: Lab;
  before(async () => {
    lab = await Lab.up({ name: NAME, mode: 'vxlan' });
  });
  after(() => Lab.down(NAME));

  it('is up, and says so to other processes', () => {
    const rows = Lab.open(NAME).status();
    assert.deepEqual(
      rows.map(row => `${row.host} ${row.kind} ${row.state}`),
      [
        'k8s-ctr node up',
        'k8s-w1 node up',
        'k8s-w0 node up',
        'curl-pod pod idle',
        'webpod-ctr pod up',
        'webpod-w1 pod up',
        'webpod-w0 pod up',
        'router router up',
      ],
    );
    assert.ok(Lab.list().includes(NAME));
    assert.ok(Lab.ownerRuns(NAME));
  });

  it('runs commands, with input, output and exit code', async () => {
    const result = await lab.exec('curl-pod', ['sh', '-c', 'cat; echo err >&2; exit 7'], { input: 'in' });
    assert.deepEqual(result, { stdout: 'in', stderr: 'err\n', exitCode: 7 });
    assert.equal((await lab.exec('curl-pod', ['sleep', '10'], { timeoutMs: 50 })).exitCode, 143);
  });

  it('refuses hosts it does not have', () => {
    assert.throws(() => lab.namespace('k8s-w9'), /expected one of k8s-ctr/);
  });

  it('carries traffic between pods of both subnets, and captures it at the switch, the router and the pod', async () => {
    const captures = await Promise.all(
      ['k8s-ctr', 'router', 'webpod-w0'].map(point => lab.capture(point, { filter: 'ip' })),
    );
    const ping = await lab.exec('curl-pod', ['ping', '-c', '2', '-i', '0.1', '-W', '1', '172.20.2.73']);
    assert.equal(ping.exitCode, 0, ping.stdout);
    const [atNode, atRouter, atPod] = await Promise.all(captures.map(capture => capture.stop()));
    const echo = async (path: string): Promise<string[][][]> =>
      decodeCapture(path, ['ip.src', 'vxlan.vni'], 'icmp.type == 8');

    const outer = [['192.168.10.100', '172.20.0.89'], ['21500']];
    assert.deepEqual(await echo(atNode!.path), [outer, outer]);
    // In on one interface and out on the other.
    assert.deepEqual(await echo(atRouter!.path), [outer, outer, outer, outer]);
    assert.deepEqual(await echo(atPod!.path), [
      [['172.20.0.89'], []],
      [['172.20.0.89'], []],
    ]);
    assert.deepEqual([atNode!.dropped, atRouter!.dropped, atPod!.dropped], [0, 0, 0]);
  });

  it('serves pages from pods to pods and from the router to nodes', async () => {
    const fromPod = await lab.exec('curl-pod', ['curl', '-s', '-m', '3', 'http://172.20.1.217/']);
    assert.match(fromPod.stdout, /^Hostname: webpod-697b545f57-66grn\n/);
    assert.match(fromPod.stdout, /RemoteAddr: 172\.20\.0\.89:\d+\n/);
    const fromNode = await lab.exec('k8s-w0', ['curl', '-s', '-m', '3', 'http://10.10.1.200/']);
    assert.match(fromNode.stdout, /^Hostname: router\n/);
  });

  it('leads pods to services by name, and outside under the address of their node, but to nodes as themselves', async () => {
    const byName = await lab.exec('curl-pod', ['curl', '-s', '-m', '3', 'http://webpod.default.svc.cluster.local/']);
    assert.match(byName.stdout, /^Hostname: webpod-/);
    const outside = await lab.exec('curl-pod', ['curl', '-s', '-m', '3', 'http://10.10.1.200/']);
    assert.match(outside.stdout, /^Hostname: router\n[\s\S]*RemoteAddr: 192\.168\.10\.100:/);
    const capture = await lab.capture('k8s-w1:tp0', { filter: 'icmp' });
    const ping = await lab.exec('curl-pod', ['ping', '-c', '1', '-W', '1', '192.168.10.101']);
    const { path } = await capture.stop();
    assert.equal(ping.exitCode, 0, ping.stdout);
    assert.deepEqual(await decodeCapture(path, ['ip.src'], 'icmp.type == 8'), [[['172.20.0.89']]]);
  });

  it('asks the nodes', async () => {
    const rows = (await lab.control('k8s-w1', 'get', { kind: 'ports' })) as { name: string }[];
    assert.ok(rows.some(row => row.name === 'default/webpod-w1'));
    await assert.rejects(lab.control('k8s-w1', 'nosuch'), /unknown method/);
  });

  it('leaves the pods of another lab of the same shape alone', async () => {
    // With a process a node: what the nodes' wire is made of is no matter.
    const other = await Lab.up({ name: `${NAME}o`, mode: 'native', processes: true });
    try {
      const pids = other.status().flatMap(({ kind, pid }) => (kind === 'node' ? [pid] : []));
      assert.equal(new Set(pids).size, 3);
      const capture = await other.capture('k8s-w1', { filter: 'icmp' });
      const near = await other.exec('curl-pod', ['ping', '-c', '1', '-W', '1', '172.20.1.217']);
      const far = await other.exec('curl-pod', ['ping', '-c', '1', '-W', '0.5', '172.20.2.73']);
      assert.deepEqual([near.exitCode, far.exitCode], [0, 1], 'native reaches its own subnet only');
      const { path } = await capture.stop();
      assert.deepEqual(await decodeCapture(path, ['ip.dst'], 'icmp.type == 8'), [[['172.20.1.217']]]);
    } finally {
      await other.down();
    }
    assert.deepEqual(remains(`${NAME}o`), []);
    assert.equal((await lab.exec('curl-pod', ['ping', '-c', '1', '-W', '1', '172.20.2.73'])).exitCode, 0);
  });

  it('refuses a second lab of the same name', async () => {
    await assert.rejects(Lab.up({ name: NAME, mode: 'native' }), /is there already/);
    assert.equal(lab.status()[0]!.state, 'up');
  });

  it('shows a node on a device as long as somebody looks, two at a time', async () => {
    const isThere = () => devicesOfSwitch().includes('k8s-w1');
    assert.equal(isThere(), false);
    const [first, second] = await Promise.all(['icmp', 'arp'].map(filter => lab.capture('k8s-w1', { filter })));
    await first!.stop();
    assert.equal(isThere(), true);
    await second!.stop();
    assert.equal(isThere(), false);
  });

  it('restarts a node of the process, and the others go on', async () => {
    const pids = () => lab.status().flatMap(({ kind, pid }) => (kind === 'node' ? [pid] : []));
    const before = pids();
    assert.equal(new Set(before).size, 1);
    const ping = lab.spawn('curl-pod', ['ping', '-n', '-i', '0.02', '172.20.2.73'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const answered: number[] = [];
    ping.stdout!.setEncoding('utf8').on('data', text => {
      for (const [, seq] of String(text).matchAll(/icmp_seq=(\d+) /g)) answered.push(Number(seq));
    });
    const untilAnswered = async (count: number) => {
      for (let i = 0; i < 1000 && answered.length < count; i++) await sleep(10);
      assert.ok(answered.length >= count, `${answered.length} pings are answered`);
    };
    try {
      await untilAnswered(3);
      assert.deepEqual(await lab.restartNode('k8s-w1'), ['k8s-w1']);
      await untilAnswered(answered.length + 10);
    } finally {
      ping.kill('SIGKILL');
    }
    const inOrder = [...answered].sort((a, b) => a - b);
    assert.deepEqual(
      inOrder,
      inOrder.map((_, i) => i + 1),
      'a ping got lost',
    );
    assert.deepEqual(pids(), before);
    assert.equal((await lab.exec('curl-pod', ['ping', '-c', '1', '-W', '3', '172.20.1.217'])).exitCode, 0);
  });

  it('notices a node that died, and starts again what died with it', async () => {
    const stateOf = (host: string) => lab.status().find(row => row.host === host)!.state;
    const { pid } = lab.status().find(row => row.host === 'k8s-w0')!;
    process.kill(pid!, 'SIGKILL');
    for (let i = 0; i < 500 && identifyProcess(pid!) !== null; i++) await sleep(10);
    assert.equal(stateOf('k8s-w0'), 'down');
    assert.deepEqual(await lab.restartNode('k8s-w0'), ['k8s-ctr', 'k8s-w1', 'k8s-w0']);
    assert.equal(stateOf('k8s-ctr'), 'up');
    assert.equal((await lab.exec('curl-pod', ['ping', '-c', '1', '-W', '3', '172.20.2.73'])).exitCode, 0);
  });

  it('goes away whole: processes, namespaces, devices, files', async () => {
    const processes = processesOf(NAME, inodesOf(namespacesOf(NAME)));
    assert.ok(processes.length >= 5);
    assert.equal(await lab.down(), true);
    assert.deepEqual(processes.filter(isAlive), []);
    assert.deepEqual(remains(NAME), []);
    assert.equal(existsSync(stateDirOf(NAME)), false);
    assert.equal(await lab.down(), false);
  });
});

describe('a command that a signal ends', () => {
  const name = `${NAME}s`;
  // After each: what one leaves behind would be what the next waits for.
  afterEach(() => Lab.down(name));

  const commands: [what: string, argv: string[], delayMs: number][] = [
    ['lab up, at once', ['lab', 'up'], 0],
    ['lab up, later', ['lab', 'up'], 300],
    ['lab compare, while it makes a lab', ['lab', 'compare'], 100],
    ['lab compare, under traffic', ['lab', 'compare'], 2500],
  ];
  for (const [what, argv, delayMs] of commands) {
    it(`takes its lab down: ${what}`, async () => {
      const child = spawn(process.execPath, [MAIN, ...argv, '--name', name], { stdio: 'ignore' });
      const exit = once(child, 'exit');
      while (namespacesOf(name).length === 0 && child.exitCode === null) await sleep(5);
      await sleep(delayMs);
      child.kill('SIGTERM');
      assert.deepEqual(await exit, [1, null]);
      assert.deepEqual(remains(name), []);
    });
  }
});

describe('a lab whose maker was killed', () => {
  const name = `${NAME}k`;
  let maker: ChildProcess | null = null;
  after(async () => {
    maker?.kill('SIGKILL');
    await Lab.down(name);
  });

  /** Long enough into `lab up` that something is there, at several stages. */
  for (const delayMs of [0, 50, 150, 400]) {
    it(`is removed, killed ${delayMs} ms after its first namespace`, async () => {
      maker = spawn(process.execPath, [MAIN, 'lab', 'up', '--name', name], { stdio: 'ignore' });
      const exit = once(maker, 'exit');
      while (namespacesOf(name).length === 0 && maker.exitCode === null) await sleep(5);
      assert.equal(maker.exitCode, null, 'lab up ended before it was killed');
      await sleep(delayMs);
      maker.kill('SIGKILL');
      await exit;
      assert.equal(Lab.ownerRuns(name), false);
      await assert.rejects(Lab.up({ name, mode: 'native' }), /is there already/);
      await Lab.down(name);
      assert.deepEqual(remains(name), []);
    });
  }
});

/** What somebody types on the first day, who knows kubectl, ip, conntrack and containerlab: it does what they expect. */
import { strict as assert } from 'node:assert';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { temporaryDirectory } from '../fixtures/directory.ts';
import { MAIN } from '../fixtures/program.ts';

const LAB = `fd${process.pid}`.slice(0, 16);
const NODE = `${LAB}/k8s-w1`;

interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

function tunpath(...argv: string[]): Ran {
  return spawnSync(process.execPath, [MAIN, ...argv], { encoding: 'utf8' });
}

/** Runs what must succeed. */
function ok(...argv: string[]): string {
  const { status, stdout, stderr } = tunpath(...argv);
  assert.equal(status, 0, `${argv.join(' ')}: ${stderr}${stdout}`);
  return stdout;
}

describe('the first day', function () {
  this.timeout(180_000);
  const directory = temporaryDirectory('first-day');

  before(() => {
    ok('lab', 'up', '--name', LAB);
  });
  after(() => {
    tunpath('lab', 'down', '--name', LAB);
  });

  it('lab list, inspect and graph say what there is and how to get in', () => {
    assert.match(ok('lab', 'list'), new RegExp(`^${LAB} +cilium +vxlan +3 +\\d+ +up$`, 'm'));
    const inspected = JSON.parse(ok('lab', 'inspect', '--name', LAB, '-o', 'json'));
    const node = inspected.hosts.find(({ host }: { host: string }) => host === 'k8s-w1');
    assert.equal(execFileSync('sh', ['-c', `${node.enter} ip -br link show tp0 | wc -l`], { encoding: 'utf8' }), '1\n');
    assert.equal(node.socket, `/run/tunpath/tp-${LAB}-k8s-w1.sock`);
    assert.match(ok('lab', 'graph', '--name', LAB), /^graph TD\n[\s\S]*k8s-w1<br>/);
    assert.match(ok('lab', 'graph', '--format', 'svg', '--name', LAB), /^<svg [\s\S]*<\/svg>\n$/);
  });

  it('Tab offers what is up', () => {
    const offered = (...line: string[]) =>
      ok('__complete', '--', ...line)
        .split('\n')
        .slice(1, -1);
    assert.ok(offered('status', '--node', '').includes(NODE));
    assert.ok(offered('lab', 'status', '--name', '').includes(LAB));
    assert.deepEqual(offered('lab', 'exec', '--name', LAB, 'web').sort(), ['webpod-ctr', 'webpod-w0', 'webpod-w1']);
    assert.deepEqual(offered('get', 'svc', '--node', NODE, 'default/'), ['default/webpod']);
    assert.deepEqual(offered('observe', '--node', NODE, '--pod', ''), ['default/webpod-w1']);
    assert.deepEqual(offered('capture', '--node', NODE, '--at', 'default'), ['default/webpod-w1']);
    assert.deepEqual(offered('segment', 'set', '--node', NODE, 'br1'), ['br10']);
  });

  it('lab exec takes its options before and behind the host, and leaves those of the command alone', () => {
    for (const argv of [
      ['--name', LAB, 'curl-pod', '--', 'echo', '--name', 'x'],
      ['curl-pod', '--name', LAB, '--', 'echo', '--name', 'x'],
      ['curl-pod', `--name=${LAB}`, '--', 'echo', '--name', 'x'],
    ]) {
      assert.equal(ok('lab', 'exec', ...argv), '--name x\n', argv.join(' '));
    }
    const { status, stderr } = tunpath('lab', 'exec', 'curlpod', '--name', LAB, '--', 'true');
    assert.equal(status, 2);
    assert.match(stderr, /no host 'curlpod' \(did you mean curl-pod\?\): expected one of k8s-ctr/);
  });

  it('lab capture is tcpdump on a host', async () => {
    const argv = ['lab', 'capture', 'router', '--name', LAB, '-c', '1', 'udp', 'port', '8472'];
    const tcpdump = spawn(process.execPath, [MAIN, ...argv]);
    let said = '';
    const listening = new Promise<void>(resolve => {
      tcpdump.stderr.on('data', text => {
        said += text;
        if (said.includes('listening on')) resolve();
      });
    });
    tcpdump.stdout.on('data', text => {
      said += text;
    });
    const ended = new Promise(resolve => tcpdump.once('close', resolve));
    await listening;
    ok('lab', 'exec', 'curl-pod', '--name', LAB, '--', 'ping', '-c', '1', '-W', '20', '172.20.2.73');
    assert.equal(await ended, 0, said);
    assert.match(said, /192\.168\.10\.100\.\d+ > 192\.168\.20\.100\.8472/);
  });

  it('lab pingall answers, and a node that has died is told, restarted and repaired', () => {
    assert.match(ok('lab', 'pingall', '--name', LAB), /^curl-pod .* ok /m);
    const pid = () => {
      const hosts = JSON.parse(ok('lab', 'inspect', '--name', LAB, '-o', 'json')).hosts;
      return hosts.find(({ host }: { host: string }) => host === 'k8s-w1').pid as number;
    };
    const first = pid();
    ok('lab', 'restart', 'k8s-w1', '--name', LAB);
    // The others of its process go on.
    assert.equal(pid(), first);
    process.kill(pid(), 'SIGKILL');
    spawnSync('sleep', ['0.2']);
    assert.match(ok('lab', 'list'), new RegExp(`^${LAB} .*damaged$`, 'm'));
    assert.equal(tunpath('lab', 'status', '--name', LAB).status, 1);
    const { status, stderr } = tunpath('lab', 'up', '--name', LAB);
    assert.equal(status, 0, stderr);
    assert.match(stderr, /is mended: k8s-ctr, k8s-w1, k8s-w0 started again/);
    assert.match(ok('lab', 'pingall', '--name', LAB, '-o', 'jsonl'), /"result":"ok"/);
    assert.equal(tunpath('lab', 'up', '--name', LAB).status, 1);
  });

  it('get and describe take names, short names, filters and orders', () => {
    const [service] = JSON.parse(ok('get', 'svc', '--node', NODE, '-o', 'json')) as { name: string }[];
    const one = ok('get', 'service', service.name, '--node', NODE, '-o', 'yaml');
    assert.match(one, new RegExp(`^- name: ${service.name}$`, 'm'));
    assert.match(ok('describe', 'svc', service.name, '--node', NODE), /^Name: +\S+\n[\s\S]*^Endpoints:\n {2}SERVICE/m);
    assert.match(ok('describe', 'counter', 'bursts', '--node', NODE), /^Name: +bursts$/m);
    const missing = tunpath('get', 'svc', 'nosuch', '--node', NODE);
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /^tunpath: no service 'nosuch' on node /);
    const packets = (
      JSON.parse(ok('get', 'counters', '--node', NODE, '--sort-by', 'packets', '-o', 'json')) as { packets: number }[]
    ).map(row => row.packets);
    assert.deepEqual(
      packets,
      [...packets].sort((a, b) => a - b),
    );
    const control = `${LAB}/k8s-ctr`;
    // A closed connection is remembered for 10 s.
    ok('lab', 'exec', '--name', LAB, 'curl-pod', '--', 'curl', '-s', '-o', '/dev/null', '10.96.129.95');
    const some = ok('get', 'conntrack', '-p', 'tcp', '-d', '10.96.0.0/12', '--dport', '80', '--node', control);
    assert.ok(
      some
        .split('\n')
        .filter(Boolean)
        .every(line => / dst=10\.96\.129\.95 .*dport=80 /.test(line)) && some !== '',
      some,
    );
    assert.equal(ok('get', 'conntrack', '-s', '198.51.100.0/24', '--node', control), '');
  });

  it('get -w prints the table, and then what changes', async () => {
    const watching = spawn(process.execPath, [MAIN, 'get', 'neighbors', '-w', '--node', NODE]);
    let output = '';
    watching.stdout.setEncoding('utf8').on('data', text => {
      output += text;
    });
    const until = async (pattern: RegExp) => {
      for (let i = 0; i < 200 && !pattern.test(output); i++) await sleep(50);
      assert.match(output, pattern);
    };
    try {
      await until(/^ADDRESS/);
      ok('lab', 'exec', '--name', LAB, 'k8s-w1', '--', 'ping', '-c1', '-W1', '192.168.10.100');
      await until(/^192\.168\.10\.100 /m);
      assert.equal(output.match(/^ADDRESS/gm)?.length, 1);
    } finally {
      watching.kill();
    }
  });

  it('diff, apply --dry-run, apply -f - and delete -f do what kubectl leads to expect', () => {
    const file = `/run/tunpath/lab-${LAB}/k8s-w1.yaml`;
    assert.equal(tunpath('diff', '-f', file).status, 0);
    const changed = join(directory, 'changed.yaml');
    const text = readFileSync(file, 'utf8');
    const config = text.replace(/^( *)services:/m, '$1mtu: { clampMss: true }\n$1services:');
    assert.notEqual(config, text);
    writeFileSync(changed, config);
    const differs = tunpath('diff', '-f', changed);
    assert.equal(differs.status, 1, differs.stderr);
    assert.match(differs.stdout, /^\+spec\.mtu\.clampMss: true$/m);
    assert.equal(tunpath('apply', '--dry-run', '-f', changed).status, 0);
    assert.equal(tunpath('diff', '-f', changed).status, 1, 'a dry run changes nothing');
    const piped = spawnSync(process.execPath, [MAIN, 'apply', '-f', '-'], { encoding: 'utf8', input: config });
    assert.equal(piped.status, 0, piped.stderr);
    assert.equal(tunpath('diff', '-f', changed).status, 0);
    assert.match(tunpath('apply', '-f', changed).stderr, /nothing to change/);
    assert.equal(tunpath('delete', '-f', file).status, 0);
    assert.match(tunpath('lab', 'status', '--name', LAB).stdout, /^k8s-w1 .* down$/m);
  });
});

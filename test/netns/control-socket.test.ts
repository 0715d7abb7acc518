/** A running node against those who ask it: none of them ends it, and each gets the whole of a long table. */
import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { socketPath } from '../../datapath/control/server.ts';
import { MAIN } from '../fixtures/program.ts';
import { Rig, type RunningNode, until } from './rig.ts';

const FLOWS = 40_000;
const GATEWAY = '192.168.10.254';

/** Sends a datagram to each of FLOWS places, in pieces that the pod's TUN takes. */
const SPRAY = `
  const socket = require('node:dgram').createSocket('udp4');
  let n = 0;
  const more = () => {
    for (let i = 0; i < 100 && n < ${FLOWS}; i++, n++) socket.send('x', 1024 + (n % 20000), n < 20000 ? '${GATEWAY}' : '192.168.10.253');
    if (n < ${FLOWS}) setTimeout(more, 2);
    else setTimeout(() => socket.close(), 200);
  };
  socket.on('error', () => {}).bind(0, more);`;

describe('asking a node', function () {
  this.timeout(120_000);
  let rig: Rig;
  let node: RunningNode;
  let config: string;
  const spec = () => ({
    uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24', gateway: GATEWAY },
    pods: [{ name: 'p1', netns: rig.full('p1'), device: 'eth0', address: '10.244.1.10' }],
    masquerade: [{ from: '10.244.0.0/16' }],
  });

  before(async () => {
    rig = new Rig('cs');
    await rig.namespace('node', 'p1');
    await rig.bridge('sw', `${GATEWAY}/24`, '192.168.10.253/24');
    config = rig.writeConfig('node', spec());
    // A directory without room, for what is applied.
    await rig.run('node', 'mkdir', '-p', join(rig.directory, 'full'));
    const inner = [process.execPath, MAIN, 'node', '--config', config, '--state-dir', join(rig.directory, 'full')];
    const full = `mount -t tmpfs -o size=4k tmpfs ${join(rig.directory, 'full')} && head -c 4096 /dev/zero > ${join(rig.directory, 'full', 'full')}; exec ${inner.join(' ')}`;
    node = Object.assign(rig.spawn('node', 'sh', '-c', full), { name: rig.full('node') });
    await node.until('ready\n');
    await rig.plug('node', 'ul0', 'sw', 'up-n');
  });
  // An unanswered flow lasts half a minute.
  beforeEach(async () => {
    await rig.run('p1', process.execPath, '-e', SPRAY);
    await until('flows', async () => (await count()) > FLOWS * 0.7);
  });
  after(() => rig.close());
  afterEach(() => assert.equal(node.ended, false, node.output));

  const shell = (command: string) =>
    rig.exec('node', 'bash', '-c', command.replaceAll('tunpath', `${process.execPath} ${MAIN}`));
  const count = async () =>
    (await rig.status<{ tables: { table: string; used: number }[] }>('node')).tables.find(t => t.table === 'conntrack')!
      .used;

  it('gets every flow, as lines, as JSON and as a table', async () => {
    const used = await count();
    for (const format of ['table', 'jsonl', 'wide']) {
      const { code, stdout, stderr } = await shell(`tunpath get conntrack --node ${node.name} -o ${format} | wc -l`);
      assert.equal(code, 0, stderr);
      assert.ok(Math.abs(Number(stdout) - used) < used * 0.05, `${stdout} lines of ${used} flows`);
      assert.equal(stderr, '');
    }
    const { stdout } = await shell(`tunpath get conntrack --node ${node.name} -o json`);
    assert.ok(JSON.parse(stdout).length > used * 0.95);
  });

  it('ends quietly with 0 when a pipe is closed', async () => {
    for (const what of ['get conntrack', 'get conntrack -o json', 'get counters -o wide', 'status']) {
      const { code, stderr } = await shell(`set -o pipefail; tunpath ${what} --node ${node.name} | head -1 >/dev/null`);
      assert.equal(code, 0, what);
      assert.equal(stderr, '', what);
    }
  });

  it('says in one line that a disk is full', async () => {
    for (const what of ['get conntrack', 'get counters -o json', 'status']) {
      const { code, stderr } = await shell(`tunpath ${what} --node ${node.name} > /dev/full`);
      assert.equal(code, 1, what);
      assert.equal(stderr, 'tunpath: standard output: no space left on device', what);
    }
  });

  it('waits for who reads slowly', async () => {
    const { code, stdout, stderr } = await shell(`tunpath get conntrack --node ${node.name} | { sleep 8; wc -l; }`);
    assert.equal(code, 0, stderr);
    assert.ok(Number(stdout) > FLOWS * 0.7);
  });

  it('outlives clients that hang up early, and one that never reads', async () => {
    const before = residentMiB(node.pid);
    for (let i = 0; i < 200; i++) {
      const socket = connect(socketPath(node.name)).on('error', () => {});
      socket.write('{"id":1,"method":"status"}\n{"id":2,"method":"get","params":{"kind":"conntrack"}}\n{"id"');
      if (i % 4 > 0) await sleep(i % 4);
      if (i % 8 < 4) socket.destroy();
      else setTimeout(() => socket.destroy(), 3000);
    }
    await sleep(1000);
    assert.ok(residentMiB(node.pid) - before < 150, 'held for clients that do not read');
    assert.ok((await count()) > FLOWS * 0.7);
    await sleep(2500);
  });

  it('says what it could not keep, and exits with 1', async () => {
    const changed = { ...spec(), masquerade: [{ from: '10.244.0.0/16', notTo: ['10.9.0.0/16'] }] };
    writeFileSync(config, `${readFileSync(config, 'utf8')}\n`);
    const file = join(rig.directory, 'changed.json');
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(config, 'utf8')), spec: changed }));
    const { code, stderr, stdout } = await shell(`tunpath apply -f ${file}`);
    assert.equal(code, 1, stdout);
    assert.match(stderr, /^tunpath: applied, but it will be forgotten when the node ends: .*no space left on device$/m);
    assert.match(node.output, /no space left on device: this change will not outlive the node/);
  });
});

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
}

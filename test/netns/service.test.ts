/**
 * A node as a service: what the systemd unit leaves it of capabilities and system calls is enough, what it tells its manager
 * and its log, and what it still knows when it is started again.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { capabilitySets, maskOf, RUNNING } from '../../datapath/control/capabilities.ts';
import { NotifySocket } from '../fixtures/notify-socket.ts';
import { readUnit, UNIT } from '../fixtures/unit.ts';
import {
  exchangeUdp,
  fetchFile,
  Hosts,
  OTHER,
  OVERHEADS,
  type Path,
  PODS,
  type Protocol,
  pingEverySize,
  type Side,
} from './hosts.ts';
import { Rig, type Running, type RunningNode, until } from './rig.ts';

const MEGABYTES_20 = 20_000_000;
const WEB = { name: 'default/web', addresses: ['10.96.0.10'], ports: [{ port: 80, targetPort: 8080 }] };

/** What the kernel says of each thread of a process. */
function threads(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).map(task => readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8'));
}

function assertConfined({ pid, output }: Running): void {
  const all = threads(pid);
  assert.ok(all.length > 5, 'Node has more threads than its own');
  for (const status of all) {
    const { effective, permitted, inheritable, bounding } = capabilitySets(status);
    assert.equal(effective, maskOf(RUNNING), output);
    assert.equal(permitted, maskOf(RUNNING));
    assert.equal(inheritable, 0n);
    assert.equal(bounding & ~maskOf([...RUNNING, 'CAP_SYS_ADMIN']), 0n);
    assert.match(status, /^NoNewPrivs:\s*1$/m);
    assert.match(status, /^Seccomp:\s*2$/m, 'a filter');
  }
}

describe('the systemd unit', () => {
  it('is one that systemd understands', () => {
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-unit-'));
    try {
      const file = join(directory, basename(UNIT));
      // It also looks for the command, which need not be installed here.
      writeFileSync(file, readFileSync(UNIT, 'utf8').replace(/^(Exec\w+=)tunpath /gm, `$1${process.execPath} `));
      const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', file], {
        encoding: 'utf8',
      });
      assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('runs the command with the flags of these tests', () => {
    const unit = readUnit();
    assert.deepEqual(unit.get('ExecStart'), ['tunpath node --config /etc/tunpath/%i.yaml --drop-capabilities']);
    assert.deepEqual(unit.get('CapabilityBoundingSet'), ['CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN']);
  });
});

describe('a node under the unit', function () {
  this.timeout(60_000);
  let rig: Rig;
  let hosts: Hosts;

  before(async () => {
    rig = new Rig('sv');
    rig.asService = true;
    hosts = await Hosts.make(rig, { between: 'bridge' });
  });
  after(() => rig.close());

  const pathFor = (protocol: Protocol): Path => {
    return { from: 'pod-a', to: 'pod-b', address: PODS.b, mtu: 1500 - OVERHEADS[protocol] };
  };
  const own: Record<Side, string> = { a: '192.168.10.21', b: '192.168.10.22' };
  const tap = (side: Side): object => {
    return { kind: 'tap', device: 'ul0', mac: `02:00:00:00:00:2${side}`, address: `${own[side]}/24` };
  };
  /** No host port: the host's kernel would answer ARP for the address that it has there. */
  const spec = (side: Side, uplink: object, more: object = {}) =>
    hosts.spec(side, uplink, 'vxlan', own[OTHER[side]], { host: undefined, ...more });

  async function stop(...nodes: RunningNode[]): Promise<void> {
    for (const node of nodes) assert.equal(await node.stop(), 0, node.output);
  }

  describe('between two hosts', () => {
    const kinds: [string, (side: Side) => Promise<RunningNode>][] = [
      [
        'tap',
        async side => {
          const node = await rig.node(`host-${side}`, spec(side, tap(side)));
          await rig.plug(`host-${side}`, 'ul0', 'wire', `ul-${side}`);
          return node;
        },
      ],
      [
        'macvtap',
        async side => {
          await skipIndices(`host-${side}`);
          const uplink = { kind: 'macvtap', interface: 'eth0', address: `${own[side]}/24` };
          return rig.node(`host-${side}`, spec(side, uplink));
        },
      ],
      [
        'routed',
        side => {
          const uplink = { kind: 'routed', interface: 'eth0', device: 'ul0' };
          return rig.node(`host-${side}`, hosts.spec(side, uplink, 'vxlan', hosts.addresses[OTHER[side]]));
        },
      ],
      [
        'raw',
        side => {
          const uplink = { kind: 'raw', interface: 'eth0' };
          return rig.node(`host-${side}`, hosts.spec(side, uplink, 'vxlan', hosts.addresses[OTHER[side]]));
        },
      ],
    ];

    /** /dev has one tapN for the macvtaps N of all namespaces, and may not be written here: takes an N that is free. */
    async function skipIndices(host: string): Promise<void> {
      const count = 50 + randomInt(100);
      await rig.ip(host, [
        ...Array.from({ length: count }, (_, i) => `link add skip${i} group 77 type bridge`),
        'link del group 77',
      ]);
    }

    for (const [kind, start] of kinds) {
      describe(`with a ${kind}`, () => {
        let untouched: string;
        let nodes: RunningNode[] = [];
        const path = pathFor('vxlan');

        before(async () => {
          untouched = await hosts.snapshot('a');
          nodes = await Promise.all([start('a'), start('b')]);
        });
        after(async () => {
          await stop(...nodes);
          assert.equal(await hosts.snapshot('a'), untouched);
        });

        it('has the two capabilities and no more, in every thread, and the filter', () =>
          nodes.forEach(assertConfined));
        it('carries a ping of every size', () => pingEverySize(rig, path));
        it('carries HTTP with the same hash', () => fetchFile(rig, path, MEGABYTES_20));
        it('carries UDP of every size', () => exchangeUdp(rig, path));
      });
    }
  });

  describe('by itself', function () {
    // Each starts several nodes, one after the other.
    this.timeout(60_000);

    const services = [{ ...WEB, endpoints: [{ address: PODS.a }] }];
    const base = () => spec('a', tap('a'), { services, masquerade: [{ from: '10.244.0.0/16' }] });
    const state = () => join(rig.directory, 'state');
    const socket = () => join(rig.directory, 'notify');
    let manager: NotifySocket;
    let node: Running;
    let file: string;

    /** As the unit starts it: with a state directory, a log as JSON and a socket to say things to. */
    function start(...flags: string[]): Running {
      return rig.tunpath('host-a', 'node', '--config', file, '--state-dir', state(), ...flags);
    }

    async function told(): Promise<string> {
      let text: string | null = null;
      await until('a word to the service manager', () => {
        text = manager.receive();
        return text !== null;
      });
      return text!;
    }

    const records = () =>
      node.output
        .trim()
        .split('\n')
        .map(line => JSON.parse(line) as Record<string, unknown>);
    const names = async () => (await rig.get<{ name: string }>('host-a', 'services')).map(row => row.name);

    before(async () => {
      manager = new NotifySocket(socket());
      process.env.NOTIFY_SOCKET = socket();
      file = rig.writeConfig('host-a', base());
      node = start('--log-format', 'json', '--log-level', 'debug');
      delete process.env.NOTIFY_SOCKET;
    });
    after(async () => {
      await node.stop();
      manager.close();
    });

    it('tells its manager when packets flow, and not before', async () => {
      assert.equal(await told(), 'READY=1\nSTATUS=tap uplink 192.168.10.21/24, tunnel vxlan, 1 pods');
      assert.deepEqual(await names(), ['default/web']);
      assertConfined(node);
      const all = records();
      const at = all.findIndex(({ msg }) => msg === 'ready');
      const [half, ready, request] = [all[0], all[at], all[at + 1]];
      assert.deepEqual(
        [half.level, half.msg],
        ['debug', '1 pods are set up; goes on with CAP_NET_ADMIN and CAP_NET_RAW alone'],
      );
      assert.deepEqual([request.level, request.msg], ['debug', 'request get']);
      assert.match(String(ready.time), /^20\d\d-.*Z$/);
      assert.deepEqual({ ...ready, time: '' }, { time: '', level: 'info', node: rig.full('host-a'), msg: 'ready' });
    });

    it('SIGHUP applies the file', async () => {
      rig.writeConfig('host-a', { ...base(), services: [{ ...services[0], name: 'default/other' }] });
      process.kill(node.pid, 'SIGHUP');
      assert.match(await told(), /^RELOADING=1\nMONOTONIC_USEC=\d+\n/);
      assert.match(await told(), /^READY=1\n/);
      assert.deepEqual(await names(), ['default/other']);
      await node.until('"servicesRemoved"');
      const last = records().findLast(({ level }) => level !== 'debug')!;
      assert.deepEqual([last.level, last.file, last.servicesSet, last.servicesRemoved], ['info', file, 1, 1]);
    });

    it('SIGHUP with a bad file says every problem at its line, and changes nothing', async () => {
      const text = readFileSync(file, 'utf8');
      writeFileSync(
        file,
        text.replace('"profile"', '"profil"').replace('"default/other"', '"Other"').replace('"vxlan"', '"vxlam"'),
      );
      const seen = records().length;
      process.kill(node.pid, 'SIGHUP');
      await told();
      await told();
      // The log comes by another pipe than what the manager is told.
      await node.until('nothing has changed');
      const said = records().slice(seen);
      const problems = said.filter(record => record.line !== undefined);
      assert.deepEqual(
        problems.map(({ level, path }) => [level, path]),
        [
          ['error', 'spec.tunnel.protocol'],
          ['error', 'spec.services[0].name'],
        ],
      );
      for (const { line, column } of problems) {
        assert.match(
          readFileSync(file, 'utf8')
            .split('\n')
            [Number(line) - 1].slice(Number(column) - 1),
          /^"(vxlam|Other)"/,
        );
      }
      assert.match(String(said.findLast(({ level }) => level !== 'debug')!.msg), /nothing has changed/);
      assert.deepEqual(await names(), ['default/other']);
      writeFileSync(file, text);
    });

    it('a second node of its name does not start, and is told which process has it', async () => {
      const second = start();
      assert.equal(await second.exited, 1);
      assert.match(second.output, new RegExp(`running already, as process ${node.pid}\n`));
    });

    it('what is applied outlives it, until the file changes', async () => {
      const other = join(rig.directory, 'other.yaml');
      writeFileSync(other, readFileSync(file, 'utf8').replaceAll('default/other', 'default/applied'));
      assert.equal(await rig.tunpath('host-a', 'apply', '-f', other).exited, 0);
      assert.deepEqual(await names(), ['default/applied']);

      await node.stop('SIGKILL');
      node = start();
      await node.until('ready\n');
      assert.match(node.output, /starts with what was applied at 20/);
      assert.deepEqual(await names(), ['default/applied']);

      await node.stop();
      writeFileSync(file, `${readFileSync(file, 'utf8')}\n# touched\n`);
      node = start();
      await node.until('ready\n');
      assert.deepEqual(await names(), ['default/other']);
    });

    it('what is applied is forgotten when the file is', async () => {
      const other = join(rig.directory, 'other.yaml');
      const kept = join(state(), `${rig.full('host-a')}.applied.json`);
      assert.equal(await rig.tunpath('host-a', 'apply', '-f', other).exited, 0);
      assert.ok(existsSync(kept));
      process.kill(node.pid, 'SIGHUP');
      await until('the file to be applied', async () => (await names())[0] === 'default/other');
      await until('the state to go', () => !existsSync(kept));
    });

    it('ends on SIGTERM with nothing left', async () => {
      assert.equal(await node.stop(), 0, node.output);
      assert.deepEqual(
        readdirSync('/run/tunpath').filter(entry => entry.startsWith(rig.full('host-a'))),
        [],
      );
    });
  });
});

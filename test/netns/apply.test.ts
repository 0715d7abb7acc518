/** `tunpath apply` on a running node: what changes, what is refused, and that a stream through the node does not notice. */
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { callNode } from '../../datapath/control/client.ts';
import type { ApplyResult } from '../../datapath/control/node.ts';
import { socketPath } from '../../datapath/control/server.ts';
import { MAIN } from '../fixtures/program.ts';
import { Rig, until } from './rig.ts';

const NODE = '192.168.10.1';
const GATEWAY = '192.168.10.254';
const VIP = '10.96.0.10';
const PODS = ['10.244.1.10', '10.244.1.11', '10.244.1.12'] as const;
const PORT = 5353;
const PER_SECOND = 500;
const PHASE_MS = 1500;

/** Answers that a backend has not sent yet when it goes: a server that is not scheduled for 20 ms keeps so many. */
const IN_FLIGHT = 10;

interface Phase {
  sent: number;
  lost: number;
}

type Spec = Record<string, unknown>;

function pod(name: string, netns: string, address: string): Spec {
  return { name, netns, device: 'eth0', address };
}

/** A UDP service on port 53. */
function service(name: string, vip: string, endpoints: readonly string[]): Spec {
  return {
    name,
    addresses: [vip],
    ports: [{ protocol: 'UDP', port: 53, targetPort: PORT }],
    endpoints: endpoints.map(address => ({ address })),
  };
}

describe('tunpath apply', function () {
  this.timeout(60_000);
  let rig: Rig;
  let base: Spec;

  before(async () => {
    rig = new Rig('ap');
    await rig.namespace('node', 'p0', 'p1', 'p2', 'p3');
    await rig.bridge('sw', `${GATEWAY}/24`);
    base = {
      uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: `${NODE}/24`, gateway: GATEWAY },
      host: { device: 'tp0', address: '10.244.1.1/32' },
      pods: PODS.map((address, i) => pod(`p${i}`, rig.full(`p${i}`), address)),
      masquerade: [{ from: '10.244.0.0/16', notTo: ['10.244.0.0/16'] }],
      services: [service('default/dns', VIP, [PODS[1], PODS[2]])],
    };
    await rig.node('node', base);
    await rig.plug('node', 'ul0', 'sw', 'up-n');
    for (const host of ['p1', 'p2', 'sw']) rig.program(host, 'traffic', 'udp-serve', `${PORT}`);
    for (const [from, to] of [
      ['p0', PODS[1]],
      ['p0', GATEWAY],
    ]) {
      await until(`${to} to answer`, async () => (await rig.exec(from, 'ping', '-c1', '-W1', to)).code === 0);
    }
  });
  after(() => rig.close());
  afterEach(() => apply(base));

  /** Writes a configuration and applies it. */
  async function apply(spec: Spec): Promise<{ code: number; file: string; stderr: string; applied: Spec }> {
    const file = rig.writeConfig('node', spec);
    const { code, stdout, stderr } = await rig.exec('node', process.execPath, MAIN, 'apply', '-f', file, '-o', 'json');
    return { code, file, stderr, applied: code === 0 ? JSON.parse(stdout)[0] : {} };
  }

  /** Applies what must be accepted. */
  async function change(spec: Spec): Promise<Spec> {
    const { code, stderr, applied } = await apply(spec);
    assert.equal(code, 0, stderr);
    return applied;
  }

  /** As change, by the control socket: no process of ours that starts takes the processor from the stream. */
  async function changeAtOnce(spec: Spec): Promise<void> {
    const text = readFileSync(rig.writeConfig('node', spec), 'utf8');
    const result = (await callNode(socketPath(rig.full('node')), 'apply', { text, file: 'test' })) as ApplyResult;
    assert.ok(result.applied !== undefined, JSON.stringify(result));
  }

  const services = async () =>
    (await rig.get<{ name: string; address: string; backends: string[] }>('node', 'services')).map(
      row => `${row.name} ${row.address} ${row.backends}`,
    );
  const hostRoute = async (address: string) =>
    (await rig.run('node', 'ip', 'route', 'get', address)).includes('dev tp0');

  it('services come, change and go, and the routes of the host port with them', async () => {
    const other = service('default/other', '10.97.0.1', [PODS[1]]);
    assert.equal(await hostRoute(VIP), true);
    const applied = await change({ ...base, services: [service('default/dns', VIP, [PODS[2]]), other] });
    assert.deepEqual([applied.servicesSet, applied.servicesRemoved, applied.routes], [2, 0, 0]);
    assert.deepEqual(await services(), [
      `default/dns ${VIP} ${PODS[2]}:${PORT}`,
      `default/other 10.97.0.1 ${PODS[1]}:${PORT}`,
    ]);
    const routes = await rig.run('node', 'ip', 'route', 'show', '10.97.0.1');
    assert.match(routes, /dev tp0 .*src 10.244.1.1/);
    await rig.runProgram('node', 'traffic', 'udp', '10.97.0.1', '53', '10');

    const gone = await change({ ...base, services: [other] });
    assert.deepEqual([gone.servicesSet, gone.servicesRemoved], [0, 1]);
    assert.deepEqual(await services(), [`default/other 10.97.0.1 ${PODS[1]}:${PORT}`]);
    assert.equal(await rig.run('node', 'ip', 'route', 'show', VIP), '');
  });

  it('an address changes hands', async () => {
    const swapped = [service('default/a', '10.97.0.2', [PODS[1]]), service('default/b', '10.97.0.1', [PODS[2]])];
    await change({
      ...base,
      services: [service('default/a', '10.97.0.1', [PODS[1]]), service('default/b', '10.97.0.2', [PODS[2]])],
    });
    await change({ ...base, services: swapped });
    assert.deepEqual(await services(), [
      `default/a 10.97.0.2 ${PODS[1]}:${PORT}`,
      `default/b 10.97.0.1 ${PODS[2]}:${PORT}`,
    ]);
    for (const vip of ['10.97.0.1', '10.97.0.2']) await rig.runProgram('p0', 'traffic', 'udp', vip, '53', '3');
  });

  it('routes, tunnel and masquerade rules change', async () => {
    const applied = await change({
      ...base,
      uplink: { ...(base.uplink as Spec) },
      routes: [{ to: '198.51.100.0/24', via: '192.168.10.7' }],
      masquerade: [],
    });
    assert.deepEqual([applied.routes, applied.tunnel, applied.masquerade], [1, false, true]);
    const routes = await rig.get<{ to: string; via: string | null }>('node', 'routes');
    assert.equal(routes.find(route => route.to === '198.51.100.0/24')?.via, '192.168.10.7');
    assert.equal((await rig.get('node', 'masquerade')).length, 1, 'none matched');
    assert.match(await rig.run('node', 'ip', 'route', 'show', '198.51.100.0/24'), /dev tp0/);
    const back = await change(base);
    assert.deepEqual([back.routes, back.masquerade], [1, true]);
    assert.equal(await rig.run('node', 'ip', 'route', 'show', '198.51.100.0/24'), '');
  });

  it('pods come, are readdressed and go, with everything else as it was', async () => {
    const answers = async (address: string) => (await rig.exec('p0', 'ping', '-c1', '-W1', address)).code === 0;
    const with3 = (address: string): Spec => ({
      ...base,
      pods: [...(base.pods as Spec[]), pod('p3', rig.full('p3'), address)],
    });
    const ports = async () =>
      (await rig.get<{ name: string; rxPackets: number }>('node', 'ports')).map(({ name }) => name);
    const before = await ports();

    const added = await change(with3('10.244.1.13'));
    assert.deepEqual(
      (added.changes as Spec[]).map(({ what, change, names }) => [what, change, names]),
      [['pods', 'added', 'p3']],
    );
    assert.equal(await answers('10.244.1.13'), true);
    assert.match(await rig.run('node', 'ip', 'route', 'show', '10.244.1.13'), /dev tp0/);

    await change(with3('10.244.1.14'));
    assert.deepEqual([await answers('10.244.1.13'), await answers('10.244.1.14')], [false, true]);
    assert.equal(await rig.run('node', 'ip', 'route', 'show', '10.244.1.13'), '');

    await change(base);
    assert.equal(await answers('10.244.1.14'), false);
    assert.equal((await rig.exec('p3', 'ip', 'link', 'show', 'eth0')).code === 0, false, 'its device is gone');
    assert.deepEqual(await ports(), before);
  });

  it('the host port goes and comes', async () => {
    const { host: _host, ...without } = base;
    await change(without);
    assert.notEqual((await rig.exec('node', 'ip', 'link', 'show', 'tp0')).code, 0);
    await change(base);
    assert.equal(await hostRoute(VIP), true);
    assert.equal((await rig.exec('p0', 'ping', '-c1', '-W1', '10.244.1.1')).code, 0);
  });

  it('the profile changes, but for what a flow table is made for', async () => {
    const ttl = async () => {
      const { code, stdout } = await rig.exec('p0', 'ping', '-c1', '-W1', PODS[1]);
      assert.equal(code, 0, stdout);
      return Number(/ttl=(\d+)/.exec(stdout)?.[1]);
    };
    assert.equal(await ttl(), 63);
    await change({ ...base, profile: 'cilium', pods: (base.pods as Spec[]).map(pod => ({ ...pod, identity: 7 })) });
    assert.equal((await rig.status<{ profile: string }>('node')).profile, 'cilium');
    assert.equal(await ttl(), 63);
    await change({ ...base, conntrack: { timeouts: { icmp: 7 } } });
    assert.equal(await ttl(), 63);
    const flows = await rig.get<{ protocol: string; timeout: number }>('node', 'conntrack');
    assert.ok(flows.some(({ protocol, timeout }) => protocol === 'icmp' && timeout <= 7));
    await change(base);
  });

  it('the MTU of pods follows the tunnel', async () => {
    const mtu = async () => /mtu (\d+)/.exec(await rig.run('p0', 'ip', 'link', 'show', 'eth0'))?.[1];
    await change({ ...base, tunnel: { protocol: 'ipip', peers: [] } });
    assert.equal(await mtu(), '1480');
    await change(base);
    assert.equal(await mtu(), '1500');
  });

  it('what the kernel refuses leaves everything as it was', async () => {
    const before = [await services(), await rig.get('node', 'routes'), (await rig.get('node', 'ports')).length];
    await rig.run('p3', 'ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1');
    const more = [...(base.pods as Spec[]), pod('p3', rig.full('p3'), '10.244.1.13')];
    const { code, stderr } = await apply({
      ...base,
      pods: more,
      services: [],
      tunnel: { protocol: 'ipip', peers: [] },
    });
    await rig.run('p3', 'ip', 'link', 'del', 'eth0');
    assert.equal(code, 1);
    assert.match(stderr, /eth0/);
    assert.deepEqual(
      [await services(), await rig.get('node', 'routes'), (await rig.get('node', 'ports')).length],
      before,
    );
  });

  it('masquerade rules keep number and hits wherever they stand', async () => {
    const rule = { from: '10.244.0.0/16', notTo: ['10.244.0.0/16'] };
    const other = { from: '10.9.0.0/16', notTo: ['10.244.0.0/16'] };
    const rows = async () => {
      const all = await rig.get<{ rule: number | null; from: string; flows: number }>('node', 'masquerade');
      return all.map(({ rule, from, flows }) => [rule, from, flows] as const);
    };
    assert.equal((await rig.exec('p0', 'ping', '-c1', '-W1', GATEWAY)).code, 0);
    const [[number, , hits]] = await rows();
    assert.ok(hits > 0, 'the gateway has been asked');
    await change({ ...base, masquerade: [other, rule] });
    const [first, second] = await rows();
    assert.deepEqual(second, [number, '10.244.0.0/16', hits]);
    assert.ok(first[0]! > number!, 'a new rule has a new number');
  });

  it('the same again changes nothing', async () => {
    const applied = await change(base);
    assert.deepEqual(
      { ...applied, node: '' },
      {
        node: '',
        servicesSet: 0,
        servicesRemoved: 0,
        masquerade: false,
        routes: 0,
        tunnel: false,
        changes: [],
        longestStopMs: 0,
        missing: [],
      },
    );
  });

  describe('refuses, with its place, and changes nothing', () => {
    const refused: [string, (spec: Spec) => Spec, RegExp][] = [
      [
        'another MAC',
        s => ({ ...s, uplink: { ...(s.uplink as Spec), mac: '02:00:00:00:00:09' } }),
        /spec\.uplink\.mac: cannot change/,
      ],
      [
        'a pod whose namespace is not there',
        s => ({ ...s, pods: [...(s.pods as Spec[]), pod('p9', 'nowhere', '10.244.1.99')] }),
        /spec\.pods\[3\]\.netns: network namespace .*nowhere.* does not exist/,
      ],
      ['a profile that maps flows otherwise', s => ({ ...s, profile: 'rfc' }), /spec\.profile: cannot change/],
      ['another table size', s => ({ ...s, conntrack: { size: 1000 } }), /spec\.conntrack\.size: cannot change/],
    ];
    for (const [name, edit, message] of refused) {
      it(name, async () => {
        const before = [await services(), await rig.get('node', 'routes')];
        const spec = { ...edit(base), services: [service('default/new', '10.97.0.9', [PODS[1]])] };
        const { code, file, stderr } = await apply(spec);
        assert.equal(code, 1);
        assert.match(stderr, message);
        const [, line] = new RegExp(`^${file}:(\\d+):\\d+: `).exec(stderr) ?? [];
        assert.ok(Number(line) > 0, stderr);
        assert.deepEqual([await services(), await rig.get('node', 'routes')], before);
      });
    }

    it('what is not valid, with every problem', async () => {
      const { code, stderr } = await apply({ ...base, profile: 'none', services: [{ name: 'X', ports: [] }] });
      assert.equal(code, 2);
      assert.ok(stderr.trim().split('\n').length >= 3, stderr);
    });

    it('a configuration of another node', async () => {
      const file = rig.writeConfig('node', base);
      writeFileSync(file, readFileSync(file, 'utf8').replace(rig.full('node'), 'somebody'));
      const run = (...args: string[]) => rig.exec('node', process.execPath, MAIN, 'apply', '-f', file, ...args);
      assert.equal((await run()).code, 2);
      const { code, stderr } = await run('--node', rig.full('node'));
      assert.equal(code, 1);
      assert.match(stderr, /metadata\.name/);
    });
  });

  describe(`a stream of ${PER_SECOND} datagrams per second notices nothing`, () => {
    /** Runs a stream from p0 in which `changes` are made. */
    async function stream(address: string, port: number, changes: () => Promise<void>): Promise<Phase> {
      const program = fileURLToPath(new URL('stream.js', import.meta.url));
      const argv = ['netns', 'exec', rig.full('p0'), process.execPath, program, address, `${port}`, `${PER_SECOND}`];
      const child = spawn('ip', argv, { stdio: ['pipe', 'pipe', 'inherit'] });
      try {
        const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
        await lines.next();
        const phase = async (work: Promise<unknown>, end: string): Promise<Phase> => {
          await work;
          child.stdin.write(`${end}\n`);
          return JSON.parse((await lines.next()).value);
        };
        // The first one also makes the flow, and Node compile.
        await phase(sleep(PHASE_MS), 'next');
        const busy = await phase(Promise.all([changes(), sleep(PHASE_MS)]), 'end');
        child.stdin.end();
        await once(child, 'close');
        return busy;
      } finally {
        if (child.exitCode === null) child.kill('SIGKILL');
      }
    }

    // How long a piece stops the loop, bench/nat-scale and `apply` itself say: on a shared machine that is no test.
    async function unnoticed(address: string, port: number, changes: () => Promise<void>, mayLose = 0): Promise<void> {
      const busy = await stream(address, port, changes);
      assert.ok(busy.sent > (PER_SECOND * PHASE_MS) / 1000 / 3, `${busy.sent} sent`);
      assert.ok(busy.lost <= mayLose, `${busy.lost} of ${busy.sent} lost`);
    }

    it('of 300 services with 3,000 endpoints that come, and go', () =>
      unnoticed(VIP, 53, async () => {
        const many = Array.from({ length: 300 }, (_, i) =>
          service(
            `default/s${i}`,
            `10.98.${i >> 8}.${i & 255}`,
            Array.from({ length: 10 }, (_, j) => `10.1.${(i * 10 + j) >> 8}.${1 + ((i * 10 + j) & 127)}`),
          ),
        );
        await changeAtOnce({ ...base, services: [...(base.services as Spec[]), ...many] });
        await changeAtOnce(base);
      }));

    it('of endpoints of its own service that come and go', () =>
      unnoticed(VIP, 53, async () => {
        const flows = await rig.get<{ original: { dst: string }; reply: { src: string } }>('node', 'conntrack');
        const used = flows.findLast(flow => flow.original.dst === VIP)!.reply.src;
        for (const endpoints of [[used], PODS.slice(1)]) {
          await changeAtOnce({ ...base, services: [service('default/dns', VIP, endpoints)] });
        }
      }));

    it('of its own endpoint that goes, but the answers on their way', () =>
      unnoticed(
        VIP,
        53,
        async () => {
          for (const endpoints of [[PODS[1]], [PODS[2]], PODS.slice(1)]) {
            await changeAtOnce({ ...base, services: [service('default/dns', VIP, endpoints)] });
            await sleep(100);
          }
        },
        IN_FLIGHT,
      ));

    it('of routes and masquerade rules, with the flow masqueraded', () =>
      unnoticed(GATEWAY, PORT, async () => {
        for (let i = 0; i < 3; i++) {
          await changeAtOnce({
            ...base,
            routes: [{ to: `198.51.100.${i * 64}/26`, via: GATEWAY }],
            masquerade: [{ from: '10.244.0.0/16', notTo: ['10.244.0.0/16', '198.51.100.0/24'] }],
          });
        }
      }));
  });

  it('there is no delete', async () => {
    assert.equal((await rig.exec('node', process.execPath, MAIN, 'delete', '-f', 'x')).code, 2);
  });
});

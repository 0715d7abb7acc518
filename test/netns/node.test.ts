/** `tunpath node` as its user sees it: what it refuses, what it leaves behind, what it costs when nothing happens. */
import { strict as assert } from 'node:assert';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { socketPath } from '../../datapath/control/server.ts';
import { MAIN } from '../fixtures/program.ts';
import { cpuSeconds, Rig, type RunningNode } from './rig.ts';

/** Each line is one line of the file, so that the numbers below can be counted. */
const HEAD = ['apiVersion: tunpath.dev/v1', 'kind: NodeConfig', 'metadata: { name: refused }', 'spec:'];
const UPLINK = '  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24 }';
const POD = '    - { name: default/p1, netns: p1, device: eth0, address: 10.244.1.10 }';

/** A configuration that is wrong: its lines behind HEAD, and every problem as LINE: PATH. */
interface Wrong {
  what: string;
  lines: string[];
  problems: string[];
}

const WRONG: Wrong[] = [
  { what: 'no uplink', lines: ['  profile: linux'], problems: ['4: spec.uplink'] },
  {
    what: 'unknown fields',
    lines: [UPLINK, '  tunel: { protocol: vxlan }', '  pod: []'],
    problems: ['6: spec.tunel', '7: spec.pod'],
  },
  {
    what: 'a group MAC and an MTU under 68',
    lines: [
      '  uplink:',
      '    kind: tap',
      '    device: ul0',
      '    mac: 01:00:5e:00:00:01',
      '    address: 192.168.10.1/24',
      '    mtu: 67',
    ],
    problems: ['8: spec.uplink.mac', '10: spec.uplink.mtu'],
  },
  {
    what: 'an address out of range',
    lines: ['  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.256/24 }'],
    problems: ['5: spec.uplink.address'],
  },
  {
    what: "the network's own address",
    lines: ['  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.0/24 }'],
    problems: ['5: spec.uplink.address'],
  },
  {
    what: 'a gateway in another subnet',
    lines: [
      '  uplink:',
      '    kind: tap',
      '    device: ul0',
      '    mac: 02:00:00:00:00:01',
      '    address: 192.168.10.1/24',
      '    gateway: 192.168.11.254',
    ],
    problems: ['10: spec.uplink.gateway'],
  },
  {
    what: 'a device name too long',
    lines: [UPLINK, '  host: { device: tunpath-host-port0, address: 10.244.1.1/32 }'],
    problems: ['6: spec.host.device'],
  },
  {
    what: 'one device for host port and uplink',
    lines: [UPLINK, '  host: { device: ul0, address: 10.244.1.1/32 }'],
    problems: ['6: spec.host.device'],
  },
  {
    what: 'two pods with one address, name and device',
    lines: [UPLINK, '  pods:', POD, POD],
    problems: ['8: spec.pods[1].name', '8: spec.pods[1].device', '8: spec.pods[1].address'],
  },
  {
    what: "a pod with the node's address",
    lines: [UPLINK, '  pods:', '    - { name: p1, netns: p1, device: eth0, address: 192.168.10.1 }'],
    problems: ['7: spec.pods[0].address'],
  },
  {
    what: 'an unknown tunnel protocol',
    lines: [UPLINK, '  tunnel: { protocol: gre }'],
    problems: ['6: spec.tunnel.protocol'],
  },
  {
    what: 'a VNI of 25 bits and a peer that is this node',
    lines: [
      UPLINK,
      '  tunnel:',
      '    protocol: vxlan',
      '    vni: 16777216',
      '    peers:',
      '      - { address: 192.168.10.1 }',
    ],
    problems: ['8: spec.tunnel.vni', '10: spec.tunnel.peers[0].address'],
  },
  {
    what: 'a port and a VNI for IPIP',
    lines: [UPLINK, '  tunnel:', '    protocol: ipip', '    port: 4789', '    vni: 1'],
    problems: ['8: spec.tunnel.port', '9: spec.tunnel.vni'],
  },
  {
    what: 'encapsulation to nobody, and without a tunnel',
    lines: [
      UPLINK,
      '  tunnel: { protocol: none }',
      '  routes:',
      '    - { to: 10.244.2.0/24, via: 192.168.10.2, encap: true }',
    ],
    problems: ['8: spec.routes[0].encap'],
  },
  {
    what: 'a route through a stranger, one with host bits, and the same twice',
    lines: [
      UPLINK,
      '  tunnel: { protocol: ipip, peers: [{ address: 192.168.10.2 }] }',
      '  routes:',
      '    - { to: 10.244.2.0/24, via: 192.168.10.3, encap: true }',
      '    - { to: 10.244.3.1/24, via: 192.168.10.2, encap: true }',
      '    - { to: 10.244.2.0/24, via: 192.168.10.2, encap: true }',
    ],
    problems: ['8: spec.routes[0].via', '9: spec.routes[1].to', '10: spec.routes[2].to'],
  },
  {
    what: 'a next hop that nothing leads to',
    lines: [UPLINK, '  routes:', '    - { to: 10.244.2.0/24, via: 172.16.0.1 }'],
    problems: ['7: spec.routes[0].via'],
  },
  {
    what: 'an unknown profile and offload',
    lines: [UPLINK, '  profile: celium', '  offload: all'],
    problems: ['6: spec.profile', '7: spec.offload'],
  },
  {
    what: 'identities as VNIs, and a pod without one',
    lines: [UPLINK, '  pods:', POD, '  tunnel: { protocol: geneve, vni: identity }'],
    problems: ['7: spec.pods[0].identity'],
  },
  { what: 'no YAML', lines: [UPLINK, '  pods: [{'], problems: ['7: ', '7: '] },
];

function spec(rig: Rig, pods = ['pod']): object {
  return {
    uplink: {
      kind: 'tap',
      device: 'ul0',
      mac: '02:00:00:00:00:01',
      address: '192.168.10.1/24',
      gateway: '192.168.10.254',
    },
    host: { device: 'tp0', address: '10.244.1.1/32' },
    pods: pods.map((pod, i) => ({
      name: `default/${pod}`,
      netns: rig.full(pod),
      device: 'eth0',
      address: `10.244.1.1${i}`,
    })),
    tunnel: {
      protocol: 'vxlan',
      port: 8472,
      vni: 1,
      mac: '02:42:0a:f4:01:00',
      peers: [{ address: '192.168.10.2', mac: '02:42:0a:f4:02:00' }],
    },
    routes: [{ to: '10.244.2.0/24', via: '192.168.10.2', encap: true }],
  };
}

describe('tunpath node', function () {
  this.timeout(20_000);
  let rig: Rig;
  const socket = () => socketPath(rig.full('node'));
  const links = async (host: string) => (await rig.run(host, 'ip', '-o', 'link')).split('\n').length;
  /** Everything of ours in the kernel, by namespace: devices, addresses, routes. */
  const state = () =>
    Promise.all(
      ['node', 'pod'].map(host =>
        rig.run(host, 'sh', '-c', 'ip -o link; ip -o addr show up to 0.0.0.0/0; ip route show table all'),
      ),
    );

  before(async () => {
    rig = new Rig('no');
    await rig.namespace('node', 'pod');
  });
  after(() => rig.close());

  describe('refuses with every problem, file and line, exit code 2, and no device made', () => {
    /** Runs them two at a time: each is one process. */
    const said = new Map<Wrong, { file: string; code: number | null; output: string }>();
    let stateBefore: string[];
    let stateAfter: string[];

    async function refuse(wrong: Wrong, index: number): Promise<void> {
      const file = join(rig.directory, `wrong-${index}.yaml`);
      writeFileSync(file, `${[...HEAD, ...wrong.lines].join('\n')}\n`);
      const running = rig.tunpath('node', 'node', '--config', file);
      said.set(wrong, { file, code: await running.exited, output: running.output });
    }

    before(async () => {
      stateBefore = await state();
      for (let i = 0; i < WRONG.length; i += 2) {
        await Promise.all(WRONG.slice(i, i + 2).map((wrong, j) => refuse(wrong, i + j)));
      }
      stateAfter = await state();
    });

    for (const wrong of WRONG) {
      it(wrong.what, () => {
        const { file, code, output } = said.get(wrong)!;
        assert.equal(code, 2, output);
        const lines = output.trimEnd().split('\n');
        const seen = lines.map(line => {
          assert.ok(line.startsWith(`${file}:`), line);
          const [, at, path] = /^(\d+):\d+: (?:(spec[^ ]*): )?./.exec(line.slice(file.length + 1))!;
          assert.match(line, /expected|: /);
          return `${at}: ${path ?? ''}`;
        });
        assert.deepEqual(seen.sort(), [...wrong.problems].sort(), output);
      });
    }

    it('at least 15 of them', () => assert.ok(WRONG.length >= 15));

    it('and nothing has changed in the namespaces', () => assert.deepEqual(stateAfter, stateBefore));
  });

  it('refuses a namespace that does not exist, before it makes a device', async () => {
    const before = await state();
    const file = rig.writeConfig('node', spec(rig, ['pod', 'nobody', 'nothing']));
    const running = rig.tunpath('node', 'node', '--config', file);
    assert.equal(await running.exited, 2);
    for (const [index, pod] of [
      [1, 'nobody'],
      [2, 'nothing'],
    ]) {
      assert.ok(
        running.output.includes(`${file}: spec.pods[${index}].netns: network namespace "${rig.full(`${pod}`)}"`),
        running.output,
      );
    }
    assert.deepEqual(await state(), before);
  });

  it('refuses a file that is not there, and an unknown option', async () => {
    for (const args of [['--config', join(rig.directory, 'nowhere.yaml')], ['--confg', 'x'], []]) {
      assert.equal(await rig.tunpath('node', 'node', ...args).exited, 2, args.join(' '));
    }
  });

  it('a device that exists already is said, and what was made before is removed', async () => {
    await rig.ip('node', ['link add ul0 type bridge']);
    const before = await state();
    const running = rig.tunpath('node', 'node', '--config', rig.writeConfig('node', spec(rig)));
    assert.equal(await running.exited, 1, running.output);
    assert.match(running.output, /ul0/);
    assert.deepEqual(await state(), before);
    await rig.ip('node', ['link del ul0']);
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`${signal} removes devices, routes and the socket`, async () => {
      const before = await state();
      const node = await rig.node('node', spec(rig));
      assert.equal(await links('node'), 3);
      assert.equal(await links('pod'), 2);
      assert.equal(statSync(socket()).mode & 0o7777, 0o600);
      assert.equal(await node.stop(signal), 0, node.output);
      assert.deepEqual(await state(), before);
      assert.ok(!existsSync(socket()));
    });
  }

  it('ends although a client of the control socket does not hang up', async () => {
    const node = await rig.node('node', spec(rig));
    const client = connect({ path: socket(), allowHalfOpen: true });
    client.on('error', () => {});
    await new Promise(resolve => client.once('connect', resolve));
    const started = Date.now();
    assert.equal(await node.stop(), 0);
    assert.ok(Date.now() - started < 2000);
    client.destroy();
  });

  it('after kill -9 the next start just works', async () => {
    const before = await state();
    const killed = await rig.node('node', spec(rig));
    assert.equal(await killed.stop('SIGKILL'), null);
    assert.ok(existsSync(socket()), 'this leaves the socket behind');
    assert.deepEqual(await state(), before);
    const node = await rig.node('node', spec(rig));
    assert.equal((await rig.ports('node')).length, 3);
    assert.equal(await node.stop(), 0);
  });

  it('a second node of the same name does not start, and the first goes on', async () => {
    await rig.namespace('other', 'otherpod');
    const node = await rig.node('node', spec(rig));
    const second = rig.tunpath('other', 'node', '--config', rig.writeConfig('node', spec(rig, ['otherpod'])));
    assert.equal(await second.exited, 1);
    assert.match(second.output, /running already/);
    assert.equal(await links('other'), 1);
    assert.equal(await links('otherpod'), 1);
    await rig.run('pod', 'ping', '-n', '-c', '1', '-W', '2', '10.244.1.1');
    assert.equal(await node.stop(), 0);
  });

  describe('while it runs', () => {
    let node: RunningNode;

    before(async () => {
      node = await rig.node('node', spec(rig));
      await rig.run('pod', 'ping', '-n', '-c', '3', '-i', '0.02', '-W', '2', '10.244.1.1');
    });

    const ask = async (...args: string[]) => {
      const running = rig.tunpath('node', ...args, '--node', rig.full('node'));
      assert.equal(await running.exited, 0, running.output);
      return running.output;
    };

    it('uses less than 0.5 % of a core when nothing happens', async () => {
      await sleep(300);
      const before = cpuSeconds(node.pid);
      const SECONDS = 3;
      await sleep(SECONDS * 1000);
      const used = cpuSeconds(node.pid) - before;
      assert.ok(used <= 0.005 * SECONDS, `${used} s in ${SECONDS} s`);
    });

    it('status -o json', async () => {
      const status = JSON.parse(await ask('status', '-o', 'json'));
      assert.equal(status.node, rig.full('node'));
      assert.equal(status.tunnel.protocol, 'vxlan');
      assert.equal(status.tunnel.mtu, 1450);
      assert.deepEqual(
        status.ports.map((port: { kind: string; device: string; mtu: number }) => [port.kind, port.device, port.mtu]),
        [
          ['pod', 'eth0', 1450],
          ['host', 'tp0', 1500],
          ['uplink', 'ul0', 1500],
        ],
      );
      const used = status.tables.find((table: { table: string }) => table.table === 'packets').used;
      assert.equal(used, 0, 'packets that nobody gave back');
    });

    it('get ports -o json', async () => {
      const [pod] = JSON.parse(await ask('get', 'ports', '-o', 'json'));
      assert.deepEqual(
        [pod.name, pod.addresses, pod.rxPackets, pod.txPackets, pod.rxDropped],
        ['default/pod', ['10.244.1.10'], 3, 3, 0],
      );
    });

    it('get routes -o json', async () => {
      const routes: { to: string; kind: string; via: string }[] = JSON.parse(await ask('get', 'routes', '-o', 'json'));
      const kinds = Object.fromEntries(routes.map(route => [route.to, route.kind]));
      assert.equal(kinds['10.244.1.10'], 'pod');
      assert.equal(kinds['10.244.1.1'], 'host');
      assert.equal(kinds['10.244.2.0/24'], 'tunnel');
      assert.equal(kinds['192.168.10.0/24'], 'onlink');
      assert.equal(kinds.default, 'gateway');
      assert.equal(routes.find(route => route.to === '10.244.2.0/24')!.via, '192.168.10.2');
    });

    it('an empty answer says so beside standard output', async () => {
      const argv = [MAIN, 'get', 'conntrack', '--node', rig.full('node')];
      const { stdout, stderr } = await rig.exec('node', process.execPath, ...argv);
      assert.deepEqual([stdout, stderr], ['', 'no conntrack']);
      assert.equal((await rig.exec('node', process.execPath, ...argv, '-o', 'json')).stderr, '');
    });

    it('get counters and neighbors -o json', async () => {
      await rig.exec('pod', 'ping', '-n', '-c', '1', '-W', '0.2', '10.244.2.5');
      const counters: { name: string; packets: number }[] = JSON.parse(await ask('get', 'counters', '-o', 'json'));
      assert.equal(counters.find(row => row.name === 'delivered-host')!.packets, 3);
      const neighbors = JSON.parse(await ask('get', 'neighbors', '-o', 'json'));
      assert.deepEqual(
        neighbors.map((row: { address: string; mac: null; state: string }) => [row.address, row.mac, row.state]),
        [['192.168.10.2', null, 'INCOMPLETE']],
      );
    });
  });
});

/**
 * Ports that go and come back, on real devices: namespaces, NICs and devices are deleted and made again under a running
 * node. What is gone is named in the log, in `status` and in `get ports`; who sends there is told; what comes back carries
 * packets again without anybody's help.
 */
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { MAIN } from '../fixtures/program.ts';
import { HOST_PORTS, Hosts, OTHER, PODS, type Side, stopNodes } from './hosts.ts';
import { type PortRow, Rig, type RunningNode, until } from './rig.ts';

interface Row extends PortRow {
  state: string;
  since: string;
  why: string | null;
  mtu: number;
}
interface Status {
  underlay: { address: string; mtu: number; mac: string; atHostPort: boolean };
  mtu: { pods: number };
  conflicts: { address: string; mac: string; ownMac: string }[];
}

const tunpath = (...args: string[]) => [MAIN, ...args];
const portOf = async (rig: Rig, node: string, name: string) =>
  ((await rig.get<Row>(node, 'ports')) as Row[]).find(row => row.name === name)!;
const untilState = (rig: Rig, node: string, name: string, state: string) =>
  until(`port ${name} of ${node} to be ${state}`, async () => (await portOf(rig, node, name)).state === state, 10_000);
const answers = async (rig: Rig, from: string, address: string) =>
  (await rig.exec(from, 'ping', '-n', '-c1', '-W1', address)).code === 0;
const untilAnswers = (rig: Rig, from: string, address: string) =>
  until(`${address} to answer ${from}`, () => answers(rig, from, address), 15_000);

describe('ports that go and come back', function () {
  this.timeout(120_000);

  describe('pods, host port and TAP of one node', () => {
    let rig: Rig;
    let node: RunningNode;
    let config: string;
    const spec = () => ({
      uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
      host: { device: 'tp0', address: '10.244.1.1/32' },
      pods: ['p1', 'p2'].map((name, i) => ({
        name,
        netns: rig.full(name),
        device: 'eth0',
        address: `10.244.1.1${i}`,
        kind: i === 0 ? 'tun' : 'tap',
      })),
    });
    const drops = async (name: string) => (await rig.counters('a')).get(name) ?? 0;

    before(async () => {
      rig = new Rig('po');
      await rig.namespace('a', 'p1', 'p2');
      config = rig.writeConfig('a', spec());
      node = await rig.node('a', spec());
    });
    after(() => rig.close());

    it('a pod whose device is down: named, refused, and carried again when it is up', async () => {
      await rig.ip('p1', ['link set eth0 down']);
      await untilState(rig, 'a', 'p1', 'down');
      assert.match((await portOf(rig, 'a', 'p1')).why!, /eth0 .* is down/);
      const before = await drops('drop-device-down');
      const said = await rig.exec('p2', 'ping', '-n', '-c1', '-W1', '10.244.1.10');
      assert.match(said.stdout, /Destination Host Unreachable/);
      assert.equal(await drops('drop-device-down'), before + 1);
      await rig.ip('p1', ['link set eth0 up', 'route replace default dev eth0']);
      await untilState(rig, 'a', 'p1', 'up');
      await untilAnswers(rig, 'p2', '10.244.1.10');
    });

    it('the first packet after a device is up again gets through, not the first after we have heard of it', async () => {
      for (let i = 0; i < 10; i++) {
        await rig.ip('p1', ['link set eth0 down']);
        await untilState(rig, 'a', 'p1', 'down');
        await rig.ip('p1', ['link set eth0 up', 'route replace default dev eth0']);
        assert.equal(await answers(rig, 'p2', '10.244.1.10'), true, `round ${i}`);
      }
    });

    it('a TAP that is moved and renamed under our eyes stays what it was', async () => {
      await rig.namespace('sw');
      for (let i = 0; i < 20; i++) {
        await rig.ip('a', [`link set ul0 netns ${rig.full('sw')} name moved`]);
        await rig.ip('sw', ['link set moved up', 'addr replace 192.168.10.2/24 dev moved']);
        assert.equal(await answers(rig, 'sw', '192.168.10.1'), true, `round ${i}`);
        await rig.ip('sw', [`link set moved netns ${rig.full('a')} name ul0`]);
        await rig.ip('a', ['link set ul0 up']);
      }
      assert.doesNotMatch(node.output, /port uplink .* is gone/);
    });

    it('a pod whose device is deleted gets another one', async () => {
      for (const [pod, from, address] of [
        ['p1', 'p2', '10.244.1.10'],
        ['p2', 'p1', '10.244.1.11'],
      ]) {
        await rig.ip(pod, ['link del eth0']);
        await node.until(`port pod ${pod} is gone: eth0 in ${rig.full(pod)} is gone`);
        await untilState(rig, 'a', pod, 'up');
        await untilAnswers(rig, from, address);
      }
    });

    it('a pod whose device is moved into another namespace gets another one', async () => {
      for (const [pod, from, address] of [
        ['p1', 'p2', '10.244.1.10'],
        ['p2', 'p1', '10.244.1.11'],
      ]) {
        await rig.ip(pod, [`link set eth0 netns ${rig.full('a')} name stray`]);
        await node.until(`port pod ${pod} is gone: eth0 was moved out of ${rig.full(pod)}`);
        await untilState(rig, 'a', pod, 'up');
        await untilAnswers(rig, from, address);
      }
    });

    it('a pod whose namespace is deleted: its senders hear of it; one of that name is attached', async () => {
      const since = (await portOf(rig, 'a', 'p1')).since;
      await rig.run('a', 'ip', 'netns', 'del', rig.full('p1'));
      await untilState(rig, 'a', 'p1', 'gone');
      const row = await portOf(rig, 'a', 'p1');
      assert.equal(row.why, `network namespace ${rig.full('p1')} is gone`);
      assert.ok(row.since > since);
      const before = await drops('drop-port-gone');
      const said = await rig.exec('p2', 'ping', '-n', '-c1', '-W1', '10.244.1.10');
      assert.match(said.stdout, /From 10.244.1.1 .*Destination Host Unreachable/);
      assert.equal(await drops('drop-port-gone'), before + 1);

      await rig.namespace('p1');
      await untilState(rig, 'a', 'p1', 'up');
      await untilAnswers(rig, 'p2', '10.244.1.10');
      assert.ok((await portOf(rig, 'a', 'p1')).rxPackets > 0, 'its counters go on');
    });

    it('a namespace that is replaced while something lives in the old one', async () => {
      const inside = rig.spawn('p1', 'sleep', '60');
      await sleep(200);
      await rig.run('a', 'ip', 'netns', 'del', rig.full('p1'));
      await rig.namespace('p1');
      await until(
        'the device in the new one',
        async () => (await rig.exec('p1', 'ip', 'link', 'show', 'eth0')).code === 0,
      );
      await untilAnswers(rig, 'p2', '10.244.1.10');
      await inside.stop();
    });

    it('apply of the same file attaches what is missing, at once, and says what cannot be', async () => {
      await rig.run('a', 'ip', 'netns', 'del', rig.full('p1'));
      await untilState(rig, 'a', 'p1', 'gone');
      const missing = await rig.exec('a', process.execPath, ...tunpath('apply', '-f', config));
      assert.match(missing.stderr, /port pod p1 is gone: network namespace .* is gone/);
      await rig.namespace('p1');
      const whole = await rig.exec('a', process.execPath, ...tunpath('apply', '-f', config));
      assert.doesNotMatch(whole.stderr, /is gone/);
      assert.equal((await portOf(rig, 'a', 'p1')).state, 'up');
      await untilAnswers(rig, 'p2', '10.244.1.10');
    });

    it('host check names it first', async () => {
      await rig.run('a', 'ip', 'netns', 'del', rig.full('p1'));
      await untilState(rig, 'a', 'p1', 'gone');
      const { code, stdout } = await rig.exec('a', process.execPath, ...tunpath('host', 'check', '--node', node.name));
      assert.equal(code, 1);
      assert.match(stdout.split('\n')[1], /^port p1 .*fail .*pod port gone since/);
      await rig.namespace('p1');
      await untilState(rig, 'a', 'p1', 'up');
    });

    it('the host port has its addresses and routes again when it was switched off, or has lost them', async () => {
      for (const what of [
        ['link set tp0 down', 'link set tp0 up'],
        ['addr flush dev tp0'],
        ['route flush dev tp0'],
        ['route del 10.244.1.10 dev tp0'],
      ]) {
        await rig.ip('a', what);
        await untilAnswers(rig, 'a', '10.244.1.10');
        await untilAnswers(rig, 'p2', '10.244.1.1');
      }
      assert.match(node.output, /port host tp0: has its addresses and routes again/);
    });

    it('the host port and the TAP are made again', async () => {
      await rig.ip('a', ['link del tp0']);
      await node.until('port host tp0 is up again');
      await untilAnswers(rig, 'a', '10.244.1.10');
      await rig.ip('a', ['link del ul0']);
      await node.until('port uplink ul0 is up again');
      assert.equal((await rig.exec('a', 'ip', 'link', 'show', 'ul0')).code, 0);
    });

    it('goes and comes fifty times, and the other pod notices nothing', async () => {
      const ping = rig.spawn('a', 'ping', '-n', '-i0.05', '-W1', '10.244.1.11');
      for (let i = 0; i < 50; i++) {
        await rig.ip('p1', ['link del eth0']).catch(() => {});
        await sleep(20);
      }
      await untilAnswers(rig, 'p2', '10.244.1.10');
      await ping.stop('SIGINT');
      assert.match(ping.output, / 0% packet loss/);
      assert.equal(node.ended, false);
    });
  });

  it('a host port whose namespace is deleted, with rules for node ports in it, is made again in the next of that name', async () => {
    const rig = new Rig('ph');
    try {
      await rig.namespace('a', 'h', 'p1');
      const node = await rig.node('a', {
        uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
        host: { device: 'tp0', address: '10.244.1.1/32', netns: rig.full('h') },
        pods: [{ name: 'p1', netns: rig.full('p1'), device: 'eth0', address: '10.244.1.10' }],
        services: [
          {
            name: 'web',
            type: 'NodePort',
            clusterIP: '10.96.0.10',
            ports: [{ port: 80, nodePort: 30080 }],
            endpoints: [],
          },
        ],
      });
      const rules = () => rig.run('h', 'nft', 'list', 'tables');
      const name = /table ip tunpath_/;
      assert.match(await rules(), name);
      for (let round = 0; round < 2; round++) {
        await rig.run('a', 'ip', 'netns', 'del', rig.full('h'));
        await untilState(rig, 'a', 'tp0', 'gone');
        assert.match((await portOf(rig, 'a', 'tp0')).why!, /network namespace .* is gone/);
        await rig.namespace('h');
        await untilState(rig, 'a', 'tp0', 'up');
        await untilAnswers(rig, 'h', '10.244.1.10');
        assert.match(await rules(), name);
      }
      assert.equal(node.ended, false);
    } finally {
      await rig.close();
    }
  });

  describe('as a service, without CAP_SYS_ADMIN', () => {
    it('ends with an error when a pod could come back, for its manager to start it again', async () => {
      const rig = new Rig('ps');
      try {
        rig.asService = true;
        await rig.namespace('a', 'p1');
        const node = await rig.node('a', {
          uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
          pods: [{ name: 'p1', netns: rig.full('p1'), device: 'eth0', address: '10.244.1.10' }],
        });
        await rig.run('a', 'ip', 'netns', 'del', rig.full('p1'));
        await node.until('port pod p1 is gone');
        await rig.namespace('p1');
        assert.equal(await node.exited, 1, node.output);
        assert.match(node.output, /port pod p1 can come back, but without CAP_SYS_ADMIN only at the next start/);
      } finally {
        await rig.close();
      }
    });
  });

  for (const kind of ['macvtap', 'routed', 'raw'] as const) {
    describe(`the NIC under a ${kind} uplink`, () => {
      let rig: Rig;
      let hosts: Hosts;
      let nodes: RunningNode[];
      const nodeAddress = (side: Side) =>
        kind === 'macvtap' ? `192.168.10.2${side === 'a' ? 1 : 2}` : hosts.addresses[side];
      const uplink = (side: Side) => ({
        kind,
        interface: 'eth0',
        ...(kind === 'macvtap' ? { address: `${nodeAddress(side)}/24` } : {}),
        ...(kind === 'routed' ? { device: 'ul0' } : {}),
      });
      const spec = (side: Side, peer = nodeAddress(OTHER[side])) => hosts.spec(side, uplink(side), 'vxlan', peer);
      const name = kind === 'routed' ? 'ul0' : kind === 'raw' ? 'eth0' : 'tpv0';
      const status = () => rig.status<Status>('host-a');

      before(async () => {
        rig = new Rig(`p${kind[0]}${kind[1]}`);
        hosts = await Hosts.make(rig, { between: 'bridge' });
        nodes = await Promise.all((['a', 'b'] as const).map(side => rig.node(`host-${side}`, spec(side))));
        await untilAnswers(rig, 'pod-a', PODS.b);
      });
      after(async () => {
        await stopNodes(...nodes);
        await rig.close();
      });

      it('is switched off and on, or the node’s own device on it', async () => {
        for (const device of new Set(['eth0', name])) {
          await rig.ip('host-a', [`link set ${device} down`]);
          await untilState(rig, 'host-a', name, 'down');
          assert.match((await portOf(rig, 'host-a', name)).why!, new RegExp(`${device} is down`));
          const said = await rig.exec('pod-a', 'ping', '-n', '-c1', '-W1', PODS.b);
          assert.match(said.stdout, /Destination Host Unreachable/);
          await rig.ip('host-a', [`link set ${device} up`]);
          await untilState(rig, 'host-a', name, 'up');
          await untilAnswers(rig, 'pod-a', PODS.b);
        }
      });

      if (kind === 'macvtap') {
        it('the macvtap has its MAC again when somebody gives it another', async () => {
          await rig.ip('host-a', [`link set ${name} address 02:00:00:00:00:99`]);
          await untilAnswers(rig, 'pod-a', PODS.b);
        });
      }

      it('is deleted and made again', async () => {
        await rig.ip('host-a', ['link del eth0']);
        await untilState(rig, 'host-a', name, 'gone');
        const said = await rig.exec('pod-a', 'ping', '-n', '-c1', '-W1', PODS.b);
        assert.match(said.stdout, /Destination Host Unreachable/);
        assert.ok(((await rig.counters('host-a')).get('drop-port-gone') ?? 0) > 0);
        await rig.ip('wire', [
          `link add to-a type veth peer name eth0 netns ${rig.full('host-a')}`,
          'link set to-a master br0 up',
        ]);
        await rig.ip('host-a', [`addr add ${hosts.addresses.a}/24 dev eth0`, 'link set eth0 up']);
        await untilState(rig, 'host-a', name, 'up');
        await untilAnswers(rig, 'pod-a', PODS.b);
        await untilAnswers(rig, 'pod-b', PODS.a);
      });

      it('gets another MTU, and the node and its pods with it (K: macvlan follows its NIC down)', async () => {
        await rig.ip('host-a', ['link set eth0 mtu 1400']);
        if (kind === 'macvtap') {
          const [kernel] = JSON.parse(await rig.run('host-a', 'ip', '-json', 'link', 'show', 'tpv0'));
          assert.equal(kernel.mtu, 1400);
        }
        await until('the MTU', async () => (await status()).underlay.mtu === 1400);
        assert.equal((await status()).mtu.pods, 1350);
        await rig.run('pod-a', 'ping', '-n', '-c2', '-i0.2', '-W1', '-M', 'do', '-s', `${1350 - 28}`, PODS.b);
        const { stdout, stderr } = await rig.exec(
          'pod-a',
          'ping',
          '-n',
          '-c1',
          '-W1',
          '-M',
          'do',
          '-s',
          '1323',
          PODS.b,
        );
        assert.match(stdout + stderr, /mtu ?= ?1350/);
        await rig.ip('host-a', ['link set eth0 mtu 1500']);
        await until('the old MTU', async () => (await status()).underlay.mtu === 1500);
        await rig.run('pod-a', 'ping', '-n', '-c2', '-i0.2', '-W1', '-M', 'do', '-s', `${1450 - 28}`, PODS.b);
      });

      if (kind === 'macvtap') return;
      it('gets another address, as by DHCP', async () => {
        await rig.ip('host-a', [`addr del ${hosts.addresses.a}/24 dev eth0`, 'addr add 192.168.10.5/24 dev eth0']);
        await nodes[0].until('address 192.168.10.5');
        await until('the address', async () => (await status()).underlay.address.startsWith('192.168.10.5/'));
        // The other node's user changes its file.
        const file = rig.writeConfig('host-b', spec('b', '192.168.10.5'));
        await rig.run('host-b', process.execPath, ...tunpath('apply', '-f', file));
        await untilAnswers(rig, 'pod-a', PODS.b);
        await untilAnswers(rig, 'host-b', HOST_PORTS.a);
      });
    });
  }

  describe('a TAP on a bridge in the node’s own namespace', () => {
    let rig: Rig;
    const node = (side: string, i: number, other: number) =>
      rig.node(side, {
        uplink: {
          kind: 'tap',
          device: 'ul0',
          mac: `02:00:00:00:00:0${i}`,
          address: `192.168.10.${i}/24`,
          gateway: '192.168.10.254',
        },
        host: { device: 'tp0', address: `10.244.${i}.1/32` },
        tunnel: { protocol: 'vxlan', peers: [{ address: `192.168.10.${other}` }] },
        routes: [{ to: `10.244.${other}.0/24`, via: `192.168.10.${other}`, encap: true }],
        pods: [{ name: 'p', netns: rig.full(`pod-${side}`), device: 'eth0', address: `10.244.${i}.10` }],
      });
    let nodes: RunningNode[];

    before(async () => {
      rig = new Rig('pb');
      await rig.namespace('b', 'pod-a', 'pod-b');
      await rig.bridge('a', '192.168.10.254/24');
      nodes = await Promise.all([node('a', 1, 2), node('b', 2, 1)]);
      await rig.ip('a', [
        `link add vb type veth peer name vb netns ${rig.full('b')}`,
        'link set vb master br0 up',
        'link set ul0 master br0',
      ]);
      await rig.ip('b', [
        'link add br0 type bridge mcast_snooping 0',
        'link set br0 up',
        'link set vb master br0 up',
        'link set ul0 master br0',
      ]);
    });
    after(() => rig.close());

    it('loses none of 100 pings, neither at once nor later', async () => {
      for (let round = 0; round < 2; round++) {
        const said = await rig.run('pod-a', 'ping', '-n', '-c100', '-i0.02', '-W1', '10.244.2.10');
        assert.match(said, /100 received, 0% packet loss/);
      }
      for (const address of ['192.168.10.1', '192.168.10.2']) {
        await rig.run('a', 'ping', '-n', '-c3', '-i0.1', '-W1', address);
      }
    });

    it('answers ARP for its address with one MAC', async () => {
      const said = await rig.run('a', 'arping', '-c3', '-w4', '-I', 'br0', '192.168.10.2');
      const macs = new Set([...said.matchAll(/\[([0-9A-F:]{17})\]/gi)].map(([, mac]) => mac.toUpperCase()));
      assert.deepEqual([...macs], ['02:00:00:00:00:02']);
      for (const side of ['a', 'b']) assert.deepEqual((await rig.status<Status>(side)).conflicts, []);
      for (const { output } of nodes) assert.doesNotMatch(output, /is used by/);
    });

    it('names who else uses its address or its MAC: log, status and host check', async () => {
      await rig.namespace('thief');
      await rig.ip('a', [
        `link add vt type veth peer name eth0 netns ${rig.full('thief')}`,
        'link set vt master br0 up',
      ]);
      await rig.ip('thief', ['link set eth0 address 02:00:00:00:00:77 up', 'addr add 192.168.10.1/24 dev eth0']);
      await rig.exec('thief', 'arping', '-A', '-c2', '-w3', '-I', 'eth0', '192.168.10.1');
      await nodes[0].until('192.168.10.1 is used by 02:00:00:00:00:77 as well as by this node, 02:00:00:00:00:01');
      const { conflicts } = await rig.status<Status>('a');
      assert.deepEqual(
        conflicts.map(({ address, mac, ownMac }) => ({ address, mac, ownMac })),
        [{ address: '192.168.10.1', mac: '02:00:00:00:00:77', ownMac: '02:00:00:00:00:01' }],
      );
      const check = await rig.exec('a', process.execPath, ...tunpath('host', 'check', '--node', nodes[0].name));
      assert.match(check.stdout, /address .*fail .*02:00:00:00:00:77 says that it has 192.168.10.1/);

      await rig.ip('thief', [
        'addr flush dev eth0',
        'link set eth0 address 02:00:00:00:00:02',
        'addr add 192.168.10.9/24 dev eth0',
      ]);
      await rig.exec('thief', 'arping', '-U', '-c2', '-w3', '-I', 'eth0', '192.168.10.9');
      await nodes[1].until('192.168.10.9 has the MAC of this node, 02:00:00:00:00:02');
    });
  });
});

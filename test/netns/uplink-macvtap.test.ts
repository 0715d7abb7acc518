/** `uplink.kind: macvtap` between two hosts: every tunnel, the kernel as the other end, and a host that notices nothing. */
import { strict as assert } from 'node:assert';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { MAIN } from '../fixtures/program.ts';
import {
  exchangeUdp,
  fetchFile,
  HOST_PORTS,
  Hosts,
  OTHER,
  PODS,
  type Protocol,
  pathFrom,
  pingEverySize,
  type Side,
  stopNodes,
  vtepMac,
} from './hosts.ts';
import { type PortRow, Rig, type RunningNode, until } from './rig.ts';

const WHOAMI = fileURLToPath(new URL('../../datapath/lab/whoami.js', import.meta.url));
const NODES: Record<Side, string> = { a: '192.168.10.21', b: '192.168.10.22' };
const GATEWAY = '192.168.10.254';

function uplink(side: Side, more: object = {}): object {
  return { kind: 'macvtap', interface: 'eth0', address: `${NODES[side]}/24`, ...more };
}

describe('uplink macvtap', function () {
  this.timeout(120_000);
  let rig: Rig;
  let hosts: Hosts;
  let untouched: Record<Side, string>;

  const spec = (side: Side, protocol: Protocol, more: object = {}) =>
    hosts.spec(side, uplink(side), protocol, NODES[OTHER[side]], more);
  const start = (side: Side, protocol: Protocol) => rig.node(`host-${side}`, spec(side, protocol));
  const snapshots = async () => ({ a: await hosts.snapshot('a'), b: await hosts.snapshot('b') });
  const ping = (side: Side) =>
    rig.run(`pod-${side}`, 'ping', '-n', '-c3', '-i0.05', '-W2', PODS[OTHER[side]]).then(() => undefined);
  const macvtaps = async (host: string) =>
    JSON.parse((await rig.run(host, 'ip', '-json', 'link', 'show', 'type', 'macvtap')) || '[]');

  before(async () => {
    rig = new Rig('mv');
    hosts = await Hosts.make(rig, { between: 'bridge' });
    untouched = await snapshots();
  });
  after(() => rig.close());

  for (const protocol of ['ipip', 'vxlan', 'geneve'] as const) {
    describe(`with ${protocol}`, () => {
      let nodes: RunningNode[];
      before(async () => {
        nodes = await Promise.all([start('a', protocol), start('b', protocol)]);
      });
      after(async () => {
        await stopNodes(...nodes);
        assert.deepEqual(await snapshots(), untouched);
      });

      it('carries a ping of every size, both ways', async () => {
        for (const side of ['a', 'b'] as const) await pingEverySize(rig, pathFrom(side, protocol));
      });
      it('carries 100 MB of HTTP, both ways, with the same hash', async () => {
        for (const side of ['a', 'b'] as const) await fetchFile(rig, pathFrom(side, protocol));
      });
      it('carries UDP of every size', () => exchangeUdp(rig, pathFrom('a', protocol)));
      it('answers ping to its own address on the segment, from another host', () =>
        rig.run('host-a', 'ping', '-n', '-c3', '-i0.05', '-W2', NODES.b));
      it('connects the hosts themselves by their host ports', () =>
        rig.run('host-a', 'ping', '-n', '-c3', '-i0.05', '-W2', '-I', HOST_PORTS.a, HOST_PORTS.b));
    });
  }

  describe("with the kernel's VXLAN as the other end", () => {
    let others: Rig;
    let pair: Hosts;
    let node: RunningNode;

    before(async () => {
      others = new Rig('mk');
      pair = await Hosts.make(others, { between: 'bridge' });
      await pair.kernelVxlan('b', { address: NODES.a, mac: vtepMac(NODES.a) });
      node = await others.node('host-a', pair.spec('a', uplink('a'), 'vxlan', pair.addresses.b));
    });
    after(async () => {
      await stopNodes(node);
      await others.close();
    });

    it('carries a ping of every size, both ways', async () => {
      for (const side of ['a', 'b'] as const) await pingEverySize(others, pathFrom(side, 'vxlan'));
    });
    it('carries 100 MB of HTTP, both ways, with the same hash', async () => {
      for (const side of ['a', 'b'] as const) await fetchFile(others, pathFrom(side, 'vxlan'));
    });
    it('carries UDP of every size', () => exchangeUdp(others, pathFrom('a', 'vxlan')));
  });

  describe('across a router, on NICs with an MTU of 1400', () => {
    let others: Rig;
    let pair: Hosts;
    let nodes: RunningNode[];
    const address = { a: '192.168.10.21', b: '192.168.20.22' };

    before(async () => {
      others = new Rig('mr');
      pair = await Hosts.make(others, { between: 'router', mtu: 1400 });
      const specOf = (side: Side) => {
        const gateway = pair.gateways![side];
        const own = { kind: 'macvtap', interface: 'eth0', address: `${address[side]}/24`, gateway };
        return pair.spec(side, own, 'vxlan', address[OTHER[side]]);
      };
      nodes = [await others.node('host-a', specOf('a')), await others.node('host-b', specOf('b'))];
    });
    after(async () => {
      await stopNodes(...nodes);
      await others.close();
    });

    it('carries a ping of every size, its MTU the NIC’s', () => pingEverySize(others, pathFrom('a', 'vxlan', 1400)));
    it('carries 100 MB of HTTP with the same hash', () => fetchFile(others, pathFrom('a', 'vxlan', 1400)));
  });

  it("a TCP session of the host's own lives through start, stop, kill -9 and start", async () => {
    const session = await hosts.hold('a');
    const other = await start('b', 'vxlan');
    await stopNodes(await start('a', 'vxlan'));
    assert.equal(await hosts.snapshot('a'), untouched.a);

    const killed = await start('a', 'vxlan');
    assert.notEqual(await hosts.snapshot('a'), untouched.a, 'a running node shows');
    await ping('a');
    const [left] = await macvtaps('host-a');
    assert.equal(await killed.stop('SIGKILL'), null);
    assert.equal((await macvtaps('host-a')).length, 1, 'a killed node leaves its macvtap behind');

    const again = await start('a', 'vxlan');
    const [next, ...more] = await macvtaps('host-a');
    assert.deepEqual(more, []);
    assert.notEqual(next.ifindex, left.ifindex);
    assert.deepEqual([next.ifname, next.address], [left.ifname, left.address], 'neighbours need not learn it anew');
    await ping('a');
    await ping('b');
    await stopNodes(again, other);
    const { answered } = await session.close();
    assert.ok(answered > 20);
    assert.deepEqual(await snapshots(), untouched);
  });

  it('a start that fails leaves nothing behind', async () => {
    await rig.ip('host-a', ['link add tp0 type bridge']);
    const before = await hosts.snapshot('a');
    const config = rig.writeConfig('host-a', spec('a', 'vxlan'));
    const running = rig.tunpath('host-a', 'node', '--config', config);
    assert.equal(await running.exited, 1, running.output);
    assert.match(running.output, /tp0/);
    assert.equal(await hosts.snapshot('a'), before);
    await rig.ip('host-a', ['link del tp0']);
  });

  it('a signal while it starts ends it, with nothing left behind', async () => {
    const config = rig.writeConfig('host-a', spec('a', 'vxlan'));
    for (const patienceMs of [0, 5, 20, 80]) {
      const running = rig.tunpath('host-a', 'node', '--config', config);
      await until('the macvtap', async () => (await macvtaps('host-a')).length === 1, 20_000);
      await sleep(patienceMs);
      await running.stop();
      assert.equal(await hosts.snapshot('a'), untouched.a, `after ${patienceMs} ms: ${running.output}`);
    }
  });

  it('a second node of the same name takes nothing from the first', async () => {
    const nodes = [await start('a', 'vxlan'), await start('b', 'vxlan')];
    const second = rig.tunpath('host-a', 'node', '--config', rig.writeConfig('host-a', spec('a', 'vxlan')));
    assert.equal(await second.exited, 1, second.output);
    assert.match(second.output, /running already/);
    await ping('a');
    await stopNodes(...nodes);
  });

  describe('finds its character device', () => {
    let other: RunningNode;
    before(async () => {
      other = await start('b', 'vxlan');
    });
    after(() => stopNodes(other));

    /** Runs our node with its network namespace entered by `enter`, which the rest of its command line follows. */
    const works = async (...enter: string[]) => {
      const file = rig.writeConfig('host-a', spec('a', 'vxlan'));
      const node = rig.command(...enter, process.execPath, MAIN, 'node', '--config', file);
      await node.until('ready\n');
      await ping('a');
      assert.equal(await node.stop(), 0, node.output);
      assert.equal(await hosts.snapshot('a'), untouched.a);
    };
    const enter = () => ['nsenter', `--net=/run/netns/${rig.full('host-a')}`];

    it('where /sys is of another namespace', () => works(...enter()));
    it('where /dev does not have it, as in a container', () => {
      // What the kernel makes, it makes in the devtmpfs that is hidden then.
      const dev = join(rig.directory, 'dev');
      mkdirSync(dev);
      const script = [
        `mount -t tmpfs -o mode=755 dev ${dev}`,
        `cp -a /dev/net /dev/null /dev/urandom ${dev}`,
        `mount --move ${dev} /dev`,
        'exec "$@"',
      ];
      return works(...enter(), 'unshare', '--mount', 'sh', '-c', script.join(' && '), 'sh');
    });
  });

  it('works beside a firewall and policy routes that are not ours, and leaves them alone', async () => {
    const rules = [
      'add table inet site',
      'add chain inet site in { type filter hook input priority 0; policy drop; }',
      'add rule inet site in ct state established accept',
      'add rule inet site in tcp dport 22 accept',
      'add chain inet site forwarded { type filter hook forward priority 0; policy drop; }',
    ];
    await rig.run('host-a', 'nft', rules.join('; '));
    await rig.ip('host-a', [
      'rule add fwmark 7 lookup 77 priority 1000',
      'rule add from 192.168.10.0/24 lookup 78 priority 1001',
      'route add 10.77.0.0/16 dev eth0 table 77',
    ]);
    const before = await hosts.snapshot('a');
    const nodes = [await start('a', 'vxlan'), await start('b', 'vxlan')];
    await exchangeUdp(rig, pathFrom('a', 'vxlan'));
    await stopNodes(...nodes);
    assert.equal(await hosts.snapshot('a'), before);
    await rig.run('host-a', 'nft', 'delete table inet site');
    await rig.ip('host-a', ['rule del priority 1000', 'rule del priority 1001', 'route del 10.77.0.0/16 table 77']);
    assert.equal(await hosts.snapshot('a'), untouched.a);
  });

  it('needs no more than the unit of the service gives it', async () => {
    rig.asService = true;
    try {
      const nodes = [await start('a', 'vxlan'), await start('b', 'vxlan')];
      await exchangeUdp(rig, pathFrom('a', 'vxlan'));
      await stopNodes(...nodes);
    } finally {
      rig.asService = false;
    }
    assert.deepEqual(await snapshots(), untouched);
  });

  it('says what is in use, and accepts the same configuration again', async () => {
    const node = await start('a', 'vxlan');
    const status = await rig.status<{
      underlay: Record<string, unknown>;
      uplink: { what: string; how: string }[];
      ports: (PortRow & { offloads: string[]; refused: string[] })[];
    }>('host-a');
    assert.deepEqual(
      [status.underlay.kind, status.underlay.address, status.underlay.mtu],
      ['macvtap', `${NODES.a}/24`, 1500],
    );
    assert.match(
      status.uplink.map(({ how }) => how).join('\n'),
      /a macvtap in mode bridge on eth0\n.*nothing passes between/,
    );
    const port = status.ports.at(-1)!;
    assert.deepEqual(port.offloads, ['csum', 'tso', 'uso']);
    assert.deepEqual(port.refused, ['tunnel: not on a macvtap']);

    const apply = async (more: object) => {
      const changed = { ...spec('a', 'vxlan'), ...more };
      const running = rig.tunpath('host-a', 'apply', '-f', rig.writeConfig('host-a', changed));
      return { code: await running.exited, said: running.output };
    };
    const masquerade = [{ from: '10.244.0.0/16', notTo: ['10.244.0.0/16'] }];
    const ports = [{ port: 80, nodePort: 30080 }];
    const services = [
      { name: 'web', type: 'NodePort', clusterIP: '10.96.0.10', ports, endpoints: [{ address: PODS.a }] },
    ];
    assert.equal((await apply({})).code, 0);
    const tracked = await apply({ masquerade, services });
    assert.equal(tracked.code, 0, tracked.said);
    const server = rig.spawn('pod-a', process.execPath, WHOAMI, '80', 'pod-a');
    await server.until('listening');
    const said = await rig.run('host-a', 'curl', '-sS', '-m', '5', `http://${NODES.a}:30080/`);
    assert.match(said, /Hostname: pod-a/, 'the host reaches a node port of its macvtap');
    await server.stop();
    const moved = await apply({ uplink: uplink('a', { mtu: 1400 }) });
    assert.match(moved.said, /spec\.uplink.*cannot change while the node runs/);
    await stopNodes(node);
  });

  describe('refuses, with exit code 2 and what to do', () => {
    const cases: { what: string; more: object; host?: string; says: RegExp }[] = [
      { what: 'an interface that is not there', more: { interface: 'eth7' }, says: /uplink\.interface: .*eth7.*eth0/ },
      { what: 'an MTU above its interface’s', more: { mtu: 9000 }, says: /uplink\.mtu: .*at most 1500.*eth0/ },
      { what: 'a device that is there', more: { device: 'eth0' }, says: /device/ },
      { what: 'the host’s own address', more: { address: '192.168.10.1/24' }, says: /uplink\.address: .*host's own/ },
      { what: 'its address at the host port', more: {}, host: NODES.a, says: /host\.address: .*ARP/ },
      { what: 'a gateway elsewhere', more: { gateway: '10.0.0.1' }, says: /uplink\.gateway/ },
    ];
    for (const { what, more, host, says } of cases) {
      it(what, async () => {
        const own = hosts.spec('a', uplink('a', { gateway: GATEWAY, ...more }), 'vxlan', NODES.b);
        const config = host === undefined ? own : { ...own, host: { device: 'tp0', address: host } };
        const running = rig.tunpath('host-a', 'node', '--config', rig.writeConfig('host-a', config));
        assert.equal(await running.exited, 2, running.output);
        assert.match(running.output, says);
        assert.equal(await hosts.snapshot('a'), untouched.a);
      });
    }

    it('an interface that is down, and a port of a bridge', async () => {
      const refused = async (name: string, says: RegExp) => {
        const config = hosts.spec('a', uplink('a', { interface: name }), 'vxlan', NODES.b);
        const running = rig.tunpath('host-a', 'node', '--config', rig.writeConfig('host-a', config));
        assert.equal(await running.exited, 2, running.output);
        assert.match(running.output, says);
      };
      await rig.ip('host-a', ['link add d0 type veth peer name d1', 'link set d1 up']);
      await refused('d0', /d0 is down \(ip link set d0 up\)/);
      await rig.ip('host-a', ['link set d0 up', 'link add b0 type bridge', 'link set d0 master b0']);
      await refused('d0', /d0 belongs to b0/);
      await rig.ip('host-a', ['link del d0', 'link del b0']);
    });
  });

  it('has left both hosts as they were', async () => assert.deepEqual(await snapshots(), untouched));
});

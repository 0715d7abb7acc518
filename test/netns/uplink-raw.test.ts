/** `uplink.kind: raw` between two hosts: every tunnel, the kernel as the other end, and a host that notices nothing. */
import { strict as assert } from 'node:assert';
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
import { BAD } from './kernel-node.ts';
import { type PortRow, parseSnmp, Rig, type RunningNode, until } from './rig.ts';

const RAW = { kind: 'raw', interface: 'eth0' };
const SIDES = ['a', 'b'] as const;

/** Checksums that were wrong, and the like, in the kernel of a pod. */
async function bad(rig: Rig, name: string): Promise<number[]> {
  const counters = parseSnmp(await rig.run(name, 'cat', '/proc/net/snmp'));
  return BAD.map(counter => counters.get(counter) ?? 0);
}

describe('uplink raw', function () {
  this.timeout(120_000);
  let rig: Rig;
  let hosts: Hosts;
  let untouched: Record<Side, string>;

  const spec = (side: Side, protocol: Protocol, more: object = {}) =>
    hosts.spec(side, RAW, protocol, hosts.addresses[OTHER[side]], more);
  const start = (side: Side, protocol: Protocol, more: object = {}) =>
    rig.node(`host-${side}`, spec(side, protocol, more));
  const snapshots = async () => ({ a: await hosts.snapshot('a'), b: await hosts.snapshot('b') });
  const ping = (from: string, address: string) => rig.run(from, 'ping', '-n', '-c3', '-i0.05', '-W2', address);

  before(async () => {
    rig = new Rig('raw');
    hosts = await Hosts.make(rig, { between: 'bridge' });
    untouched = await snapshots();
  });
  after(() => rig.close());

  for (const protocol of ['ipip', 'vxlan', 'geneve'] as const) {
    describe(protocol, () => {
      let nodes: RunningNode[];
      before(async () => {
        nodes = await Promise.all(SIDES.map(side => start(side, protocol)));
      });
      after(async () => {
        await stopNodes(...nodes);
        assert.deepEqual(await snapshots(), untouched);
      });

      it('carries a ping of every size, both ways', async () => {
        for (const side of SIDES) await pingEverySize(rig, pathFrom(side, protocol));
      });
      it('carries 100 MB of HTTP, both ways, with the same hash', async () => {
        for (const side of SIDES) await fetchFile(rig, pathFrom(side, protocol));
      });
      it('carries UDP of every size', () => exchangeUdp(rig, pathFrom('a', protocol)));
      it('connects the hosts themselves by their host ports', () => ping('host-a', HOST_PORTS.b));
      it('has dropped nothing', async () => {
        for (const side of SIDES) {
          const dropped = [...(await rig.counters(`host-${side}`))].filter(([name]) => name.startsWith('drop'));
          // The pings that were one byte too long.
          assert.deepEqual(
            dropped.filter(([name]) => name !== 'drop-over-mtu-dont-fragment'),
            [],
          );
        }
      });
    });
  }

  describe("with the kernel's VXLAN as the other end", () => {
    let others: Rig;
    let pair: Hosts;
    let node: RunningNode;

    before(async () => {
      others = new Rig('rk');
      pair = await Hosts.make(others, { between: 'bridge' });
      await pair.kernelVxlan('b', { address: pair.addresses.a, mac: vtepMac(pair.addresses.a) });
      node = await others.node('host-a', pair.spec('a', RAW, 'vxlan', pair.addresses.b));
    });
    after(async () => {
      await stopNodes(node);
      await others.close();
    });

    it('carries a ping of every size, both ways', async () => {
      for (const side of SIDES) await pingEverySize(others, pathFrom(side, 'vxlan'));
    });
    // The kernel sends 64 KiB at once with the checksum still to be made: a UDP socket says nothing of either.
    it('carries 100 MB of HTTP, both ways, with the same hash', async () => {
      for (const side of SIDES) await fetchFile(others, pathFrom(side, 'vxlan'));
    });
    it('carries UDP of every size', () => exchangeUdp(others, pathFrom('a', 'vxlan')));
    it('carries a train of datagrams, each with its own end', async () => {
      const server = others.program('pod-a', 'traffic', 'udp-serve', '5353');
      await server.until('listening\n');
      const received = async () =>
        parseSnmp(await others.run('pod-a', 'cat', '/proc/net/snmp')).get('Udp.InDatagrams')!;
      const before = await received();
      await others.runProgram('pod-b', 'send-train', PODS.a, '5353', '40');
      await until('all to be received', async () => (await received()) - before === 40);
      await server.stop();
    });
    it('leaves no wrong checksum to anybody', async () => {
      for (const name of ['pod-a', 'pod-b', 'host-b']) assert.deepEqual(await bad(others, name), [0, 0, 0, 0, 0], name);
    });
  });

  describe('across a router with narrower routes', () => {
    const NARROW = 1400;
    let others: Rig;
    let pair: Hosts;

    before(async () => {
      others = new Rig('rr');
      pair = await Hosts.make(others, { between: 'router' });
      await others.ip(
        'wire',
        ['192.168.10.0/24 dev to-a', '192.168.20.0/24 dev to-b'].map(
          route => `route replace ${route} proto kernel scope link mtu lock ${NARROW}`,
        ),
      );
    });
    after(() => others.close());
    const both = (protocol: Protocol) =>
      Promise.all(
        SIDES.map(side => others.node(`host-${side}`, pair.spec(side, RAW, protocol, pair.addresses[OTHER[side]]))),
      );

    for (const protocol of ['vxlan', 'geneve'] as const) {
      it(`carries ${protocol} of every size in fragments, which the kernel puts together`, async () => {
        const reassembled = async () =>
          parseSnmp(await others.run('host-b', 'cat', '/proc/net/snmp')).get('Ip.ReasmOKs')!;
        const nodes = await both(protocol);
        const before = await reassembled();
        await pingEverySize(others, pathFrom('a', protocol));
        await exchangeUdp(others, pathFrom('a', protocol));
        await fetchFile(others, pathFrom('a', protocol), 10_000_000);
        assert.ok((await reassembled()) > before + 100);
        await stopNodes(...nodes);
      });
    }

    it("passes on the router's “fragmentation needed” to the pod that sends with DF", async () => {
      const nodes = await both('ipip');
      const size = `${1480 - 28}`;
      await until('the path MTU to be learnt', async () => {
        const { stdout } = await others.exec('pod-a', 'ping', '-n', '-c1', '-W1', '-M', 'do', '-s', size, PODS.b);
        return /mtu ?= ?1380/.test(stdout);
      });
      assert.equal((await others.counters('host-a')).get('path-mtu-lowered'), 1);
      const [learnt] = await others.get<{ peer: string; mtu: number; from: string }>('host-a', 'pmtu');
      assert.deepEqual([learnt.mtu, learnt.from], [1400, '192.168.10.254']);
      const { pathMtus } = await others.status<{ pathMtus: { peer: string; mtu: number }[] }>('host-a');
      assert.deepEqual(
        pathMtus.map(({ peer, mtu }) => [peer, mtu]),
        [[learnt.peer, 1400]],
      );
      const routes = await others.get<{ kind: string; pathMtu: number }>('host-a', 'routes');
      assert.equal(routes.find(({ kind }) => kind === 'tunnel')!.pathMtu, 1380);
      await fetchFile(others, pathFrom('a', 'ipip'), 10_000_000);
      await fetchFile(others, pathFrom('b', 'ipip'), 10_000_000);
      await stopNodes(...nodes);
    });
  });

  it("a TCP session of the host's own lives through start, stop, kill -9 and start", async () => {
    const session = await hosts.hold('a');
    const other = await start('b', 'vxlan');
    await stopNodes(await start('a', 'vxlan'));
    assert.equal(await hosts.snapshot('a'), untouched.a);

    const killed = await start('a', 'vxlan');
    assert.notEqual(await hosts.snapshot('a'), untouched.a, 'a running node shows');
    await ping('pod-a', PODS.b);
    assert.equal(await killed.stop('SIGKILL'), null);
    await until('the killed node to be gone', async () => (await hosts.snapshot('a')) === untouched.a);

    const again = await start('a', 'vxlan');
    await ping('pod-a', PODS.b);
    await ping('pod-b', PODS.a);
    await stopNodes(again, other);
    const { answered } = await session.close();
    assert.ok(answered > 20);
    assert.deepEqual(await snapshots(), untouched);
  });

  it("works behind a firewall and rules of the host's, and changes none", async () => {
    const rules = [
      'add table inet own',
      'add chain inet own in { type filter hook input priority 0; policy drop; }',
      'add rule inet own in iif lo accept',
      'add rule inet own in iifname tp0 accept',
      'add rule inet own in ct state established,related accept',
      `add rule inet own in ip saddr ${hosts.addresses.b} udp dport 8472 counter accept`,
      'add chain inet own out { type filter hook output priority 0; policy accept; }',
      'add rule inet own out tcp dport 25 counter drop',
    ];
    for (const rule of rules) await rig.run('host-a', 'nft', rule);
    await rig.ip('host-a', [
      'rule add fwmark 0x7 table 77 priority 1000',
      'route add 203.0.113.0/24 dev eth0 table 77',
    ]);
    const withoutCounters = async () => (await hosts.snapshot('a')).replace(/packets \d+ bytes \d+/g, '');
    const before = await withoutCounters();
    const nodes = await Promise.all(SIDES.map(side => start(side, 'vxlan')));
    await ping('pod-a', PODS.b);
    await ping('pod-b', HOST_PORTS.a);
    const rulesNow = await rig.run('host-a', 'nft', 'list', 'table', 'inet', 'own');
    assert.match(rulesNow, /udp dport 8472 counter packets [1-9]/, 'the tunnel went through the firewall');
    await stopNodes(...nodes);
    assert.equal(await withoutCounters(), before);
    await rig.run('host-a', 'nft', 'delete table inet own');
    await rig.ip('host-a', ['rule del priority 1000', 'route flush table 77']);
    assert.equal(await hosts.snapshot('a'), untouched.a);
  });

  it("leads pods outside by the host's kernel where a route says so", async () => {
    await rig.ip('host-a', [], { 'net/ipv4/ip_forward': 1 });
    await rig.run('host-a', 'nft', 'add table ip own');
    await rig.run('host-a', 'nft', 'add chain ip own post { type nat hook postrouting priority 100; }');
    await rig.run('host-a', 'nft', 'add rule ip own post ip saddr 10.244.0.0/16 oifname eth0 masquerade');
    const routes = [
      { to: '10.244.2.0/24', via: hosts.addresses.b, encap: true },
      { to: '0.0.0.0/0', via: HOST_PORTS.a },
    ];
    const nodes = [await start('a', 'geneve', { routes }), await start('b', 'geneve')];
    await ping('pod-a', hosts.addresses.b);
    await ping('pod-a', PODS.b);
    const said = rig.tunpath('host-a', 'get', 'routes', '--node', nodes[0].name);
    assert.equal(await said.exited, 0);
    assert.match(said.output, /^default via 10\.244\.1\.1 dev tp0$/m);
    await stopNodes(...nodes);
    await rig.run('host-a', 'nft', 'delete table ip own');
    await rig.ip('host-a', [], { 'net/ipv4/ip_forward': 0 });
  });

  it('survives what anybody may send to its sockets', async () => {
    const node = await start('a', 'geneve');
    await rig.runProgram('host-b', 'garbage', hosts.addresses.a, '6081', '2000');
    await rig.runProgram('host-b', 'garbage', hosts.addresses.a, 'ipip', '200');
    const other = await start('b', 'geneve');
    await ping('pod-a', PODS.b);
    const counters = await rig.counters('host-a');
    const dropped = [...counters].filter(([name]) => name.startsWith('drop')).reduce((sum, [, n]) => sum + n, 0);
    assert.ok(dropped > 1500, `${dropped} dropped`);
    await stopNodes(node, other);
  });

  it('cuts the trains that GRO has made of tunnel packets', async () => {
    const node = await start('a', 'vxlan');
    const before = parseSnmp(await rig.run('host-a', 'cat', '/proc/net/snmp')).get('Udp.InDatagrams')!;
    await rig.runProgram('host-b', 'send-train', hosts.addresses.a, hosts.addresses.b, PODS.a, '40');
    await until('all to be delivered', async () => (await rig.counters('host-a')).get('delivered-pod') === 40);
    const after = parseSnmp(await rig.run('host-a', 'cat', '/proc/net/snmp')).get('Udp.InDatagrams')!;
    assert.equal(after - before, 1, 'one datagram to the kernel');
    assert.equal((await rig.counters('host-a')).get('decapsulated'), 40);
    assert.equal((await bad(rig, 'pod-a'))[4], 0, 'checksums');
    await stopNodes(node);
  });

  it('says what is in use and what works differently', async () => {
    const masquerade = [{ from: '10.244.0.0/16', notTo: ['10.244.0.0/16'] }];
    const node = await start('a', 'vxlan', { masquerade });
    const status = await rig.status<{
      underlay: Record<string, unknown>;
      uplink: { what: string; how: string }[];
      ports: (PortRow & { offloads: string[]; refused: string[] })[];
    }>('host-a');
    assert.deepEqual([status.underlay.kind, status.underlay.device, status.underlay.mtu], ['raw', 'eth0', 1500]);
    const lines = new Map(status.uplink.map(({ what, how }) => [what, how]));
    assert.match(lines.get('sends')!, /a raw socket on eth0, IP header included, from 192\.168\.10\.1/);
    assert.match(lines.get('receives')!, /a UDP socket on 192\.168\.10\.1 for UDP port 8472; \d{8} bytes/);
    assert.deepEqual([...lines.keys()].slice(3), ['kernel', 'firewall', 'fragments', 'services', 'outside']);
    assert.deepEqual(status.ports.at(-1)!.offloads, []);
    assert.match(status.ports.at(-1)!.refused.join(), /takes finished packets/);

    const apply = async (more: object) => {
      const running = rig.tunpath(
        'host-a',
        'apply',
        '-f',
        rig.writeConfig('host-a', spec('a', 'vxlan', { masquerade, ...more })),
      );
      return { code: await running.exited, said: running.output };
    };
    const two = ['192.168.10.2', '192.168.10.3'];
    const peers = await apply({
      tunnel: { protocol: 'vxlan', peers: two.map(address => ({ address })) },
      routes: two.map((via, i) => ({ to: `10.244.${i + 2}.0/24`, via, encap: true })),
    });
    assert.equal(peers.code, 0, peers.said);
    const moved = await apply({ tunnel: { protocol: 'vxlan', port: 4789, peers: [{ address: two[0] }] } });
    assert.notEqual(moved.code, 0);
    assert.match(moved.said, /spec\.tunnel\.port.*restart/);
    const nodePort = [{ name: 'default/web', type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] }];
    assert.match((await apply({ services: nodePort })).said, /services\[0\]\.ports\[0\]\.nodePort/);
    await stopNodes(node);
  });

  it('a second node on the same port is refused by name', async () => {
    const first = await start('a', 'vxlan');
    const file = rig.writeConfig('second', { ...spec('a', 'vxlan'), host: undefined, pods: [], routes: [] });
    const second = rig.tunpath('host-a', 'node', '--config', file);
    assert.equal(await second.exited, 1, second.output);
    assert.match(second.output, /UDP socket for port 8472 on eth0: EADDRINUSE \(spec\.tunnel\.port/);
    await ping('host-a', PODS.a);
    await stopNodes(first);
  });

  describe('refuses, with exit code 2 and what to do', () => {
    const web = { name: 'default/web', addresses: ['10.96.0.1'] };
    const cases: { what: string; more: object; says: RegExp }[] = [
      {
        what: 'an interface that is not there',
        more: { uplink: { ...RAW, interface: 'eth7' } },
        says: /there is no interface eth7.*eth0/,
      },
      {
        what: 'no tunnel',
        more: { tunnel: { protocol: 'none' }, routes: [] },
        says: /spec\.tunnel\.protocol: expected ipip, vxlan or geneve/,
      },
      {
        what: 'a route without encap',
        more: { routes: [{ to: '0.0.0.0/0', via: '192.168.10.9' }] },
        says: /spec\.routes\[0\]: expected encap: true.*via: 10\.244\.1\.1/,
      },
      {
        what: 'a node port',
        more: { services: [{ ...web, type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] }] },
        says: /spec\.services\[0\]\.ports\[0\]\.nodePort: expected none/,
      },
      {
        what: "masquerade under the host's address",
        more: { masquerade: [{ from: '10.244.0.0/16', source: '192.168.10.1' }] },
        says: /spec\.masquerade\[0\]\.source/,
      },
      {
        what: "the host's address at the host port",
        more: { host: { device: 'tp0', address: '192.168.10.1' } },
        says: /spec\.host\.address: .*own/,
      },
      {
        what: 'itself as a peer',
        more: { tunnel: { protocol: 'vxlan', peers: [{ address: '192.168.10.1' }] }, routes: [] },
        says: /spec\.tunnel\.peers\[0\]\.address: expected another node/,
      },
    ];
    for (const { what, more, says } of cases) {
      it(what, async () => {
        const running = rig.tunpath('host-a', 'node', '--config', rig.writeConfig('host-a', spec('a', 'vxlan', more)));
        assert.equal(await running.exited, 2, running.output);
        assert.match(running.output, says);
        assert.equal(await hosts.snapshot('a'), untouched.a);
      });
    }

    it('an interface without an address', async () => {
      await rig.ip('host-a', ['link add d0 type veth peer name d1', 'link set d0 up', 'link set d1 up']);
      const config = spec('a', 'vxlan', { uplink: { ...RAW, interface: 'd0' } });
      const running = rig.tunpath('host-a', 'node', '--config', rig.writeConfig('host-a', config));
      assert.equal(await running.exited, 2, running.output);
      assert.match(running.output, /spec\.uplink\.interface: d0 has no IPv4 address/);
      await rig.ip('host-a', ['link del d0']);
    });
  });

  it('has left both hosts as they were', async () => assert.deepEqual(await snapshots(), untouched));
});

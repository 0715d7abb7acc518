/**
 * `uplink.kind: routed` between two hosts: every tunnel, the kernel as the other end, what the host and the datapath share
 * (ports, ICMP, fragments), and a host that notices nothing.
 */
import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import { ethernet, fragment, icmpEcho, udp4 } from '../fixtures/packets.ts';
import {
  exchangeUdp,
  fetchFile,
  HOST_PORTS,
  Hosts,
  OTHER,
  OVERHEADS,
  PODS,
  type Protocol,
  pathFrom,
  pingEverySize,
  type Side,
  stopNodes,
  vtepMac,
} from './hosts.ts';
import { Rig, type Running, type RunningNode, until } from './rig.ts';

const WHOAMI = fileURLToPath(new URL('../../datapath/lab/whoami.js', import.meta.url));
const UPLINK = { kind: 'routed', interface: 'eth0', device: 'ul0' };
/** A machine outside, on the same segment as both hosts. */
const OUTSIDE = '192.168.10.3';
const CLUSTER = '10.244.0.0/16';
const MASQUERADE = [{ from: CLUSTER, notTo: [CLUSTER] }];
const SIDES: readonly Side[] = ['a', 'b'];
const HTTP_PORT = 8080;
const NODE_PORT = 30080;
/** Of a server on host a itself. */
const API_PORT = 6443;

/** Two hosts, what they were like before, and nodes on them. */
class Pair {
  readonly rig: Rig;
  readonly hosts: Hosts;
  untouched: Record<Side, string> = { a: '', b: '' };

  private constructor(rig: Rig, hosts: Hosts) {
    this.rig = rig;
    this.hosts = hosts;
  }

  static async make(name: string, options: Parameters<typeof Hosts.make>[1]): Promise<Pair> {
    const rig = new Rig(name);
    const pair = new Pair(rig, await Hosts.make(rig, options));
    // The kernel takes up to a second to say that a carrier is there.
    await until('the NICs to be up', async () => {
      const links = await Promise.all(SIDES.map(side => rig.run(`host-${side}`, 'ip', 'link', 'show', 'eth0')));
      return links.every(link => link.includes('state UP'));
    });
    await pair.remember();
    return pair;
  }

  /** From now on this is how the hosts must be left. */
  async remember(): Promise<void> {
    this.untouched = { a: await this.hosts.snapshot('a'), b: await this.hosts.snapshot('b') };
  }

  async assertUntouched(...sides: Side[]): Promise<void> {
    for (const side of sides) {
      const [before, after] = [this.untouched[side], await this.hosts.snapshot(side)];
      if (before === after) continue;
      const gone = before.split('\n').filter(line => !after.split('\n').includes(line));
      const come = after.split('\n').filter(line => !before.split('\n').includes(line));
      assert.fail(`host-${side} is not as it was; gone:\n${gone.join('\n')}\ncome:\n${come.join('\n')}`);
    }
  }

  spec(side: Side, protocol: Protocol, more: object = {}): object {
    return this.hosts.spec(side, UPLINK, protocol, this.hosts.addresses[OTHER[side]], more);
  }

  start(side: Side, protocol: Protocol, more: object = {}): Promise<RunningNode> {
    return this.rig.node(`host-${side}`, this.spec(side, protocol, more));
  }

  both(protocol: Protocol, more: object = {}): Promise<RunningNode[]> {
    return Promise.all(SIDES.map(side => this.start(side, protocol, more)));
  }

  /** Nodes on both sides while `work` goes on; afterwards the hosts are as they were. */
  async withBoth(protocol: Protocol, more: object, work: () => Promise<void>): Promise<void> {
    const nodes = await this.both(protocol, more);
    try {
      await work();
    } finally {
      await stopNodes(...nodes);
    }
    await this.assertUntouched(...SIDES);
  }

  /** A namespace on the bridge, with a kernel address. */
  async outside(name: string, address: string): Promise<void> {
    const { rig } = this;
    await rig.namespace(name);
    await rig.ip('wire', [
      `link add to-${name} type veth peer name eth0 netns ${rig.full(name)}`,
      `link set to-${name} master br0 up`,
    ]);
    await rig.ip(name, [`addr add ${address}/24 dev eth0`, 'link set eth0 up']);
  }

  /** A web server that answers with what it sees of its client. */
  async serve(name: string, port: number): Promise<Running> {
    const server = this.rig.spawn(name, process.execPath, WHOAMI, `${port}`, name);
    await server.until('listening');
    return server;
  }

  ping(from: string, to: string, ...options: string[]): Promise<string> {
    return this.rig.run(from, 'ping', '-n', '-c3', '-i0.05', '-W2', ...options, to);
  }
}

describe('uplink routed', function () {
  this.timeout(120_000);
  let pair: Pair;

  before(async () => {
    pair = await Pair.make('ro', { between: 'bridge' });
    await pair.outside('outside', OUTSIDE);
  });
  after(() => pair.rig.close());

  for (const protocol of ['ipip', 'vxlan', 'geneve'] as const) {
    describe(`with ${protocol}`, () => {
      let nodes: RunningNode[];
      before(async () => {
        nodes = await pair.both(protocol);
      });
      after(async () => {
        await stopNodes(...nodes);
        await pair.assertUntouched(...SIDES);
      });

      it('carries a ping of every size, both ways', async () => {
        for (const side of SIDES) await pingEverySize(pair.rig, pathFrom(side, protocol));
      });
      it('carries 100 MB of HTTP, both ways, with the same hash', async () => {
        for (const side of SIDES) await fetchFile(pair.rig, pathFrom(side, protocol));
      });
      it('carries UDP of every size', () => exchangeUdp(pair.rig, pathFrom('a', protocol)));
      it('connects pods, hosts and host ports with each other', () => everybodyTalks(pair));
    });
  }

  it('without a tunnel, pods talk by the addresses that they have', () =>
    pair.withBoth('none', {}, async () => {
      await pingEverySize(pair.rig, pathFrom('a', 'none'));
      await fetchFile(pair.rig, pathFrom('a', 'none'), 10_000_000);
    }));

  it('takes packets that GRO has joined', async () => {
    const { rig } = pair;
    const gro = async (on: boolean) => {
      const state = on ? 'on' : 'off';
      for (const side of SIDES) {
        const host = `host-${side}`;
        await rig.run(host, 'ethtool', '-K', 'eth0', 'gro', state, 'rx-udp-gro-forwarding', state);
        // A veth joins only what a sender without offloads has sent, and only within one poll: here each write is one.
        await rig.run('wire', 'ethtool', '-K', `to-${side}`, 'tso', on ? 'off' : 'on');
        await rig.run(host, 'sh', '-c', `echo ${on ? 200_000 : 0} >/sys/class/net/eth0/gro_flush_timeout`);
      }
    };
    await gro(true);
    for (const protocol of ['ipip', 'vxlan'] as const) {
      // b sends what a NIC would put on the wire: no superpackets, no checksum left to do.
      const nodes = [await pair.start('a', protocol), await pair.start('b', protocol, { offload: 'none' })];
      await fetchFile(rig, pathFrom('a', protocol), 10_000_000);
      const rules = await rig.run('host-a', 'nft', 'list ruleset');
      const [, packets, bytes] = /chain take \{[^}]*counter packets (\d+) bytes (\d+)/.exec(rules)!;
      assert.ok(Number(bytes) > 2000 * Number(packets), `${protocol}: ${packets} packets, ${bytes} bytes`);
      // Without fragments: those overtake what GRO holds.
      await exchangeUdp(rig, { ...pathFrom('a', protocol), mtu: 1300 });
      await stopNodes(...nodes);
    }
    await gro(false);
  });

  describe("with the kernel's VXLAN as the other end", () => {
    let kernel: Pair;
    let node: RunningNode;

    before(async () => {
      kernel = await Pair.make('rk', { between: 'bridge' });
      const { a } = kernel.hosts.addresses;
      await kernel.hosts.kernelVxlan('b', { address: a, mac: vtepMac(a) });
      node = await kernel.start('a', 'vxlan');
    });
    after(async () => {
      await stopNodes(node);
      await kernel.assertUntouched('a');
      await kernel.rig.close();
    });

    it('carries a ping of every size, both ways', async () => {
      for (const side of SIDES) await pingEverySize(kernel.rig, pathFrom(side, 'vxlan'));
    });
    it('carries 100 MB of HTTP, both ways, with the same hash', async () => {
      for (const side of SIDES) await fetchFile(kernel.rig, pathFrom(side, 'vxlan'));
    });
    it('carries UDP of every size', () => exchangeUdp(kernel.rig, pathFrom('a', 'vxlan')));
  });

  describe('across a router', () => {
    const NARROW = 1000;
    let apart: Pair;
    before(async () => {
      apart = await Pair.make('rr', { between: 'router', mtu: 1400 });
    });
    after(() => apart.rig.close());
    /** While `work` goes on the router takes no more than NARROW bytes. */
    const narrowed = async (work: () => Promise<void>) => {
      const networks = ['192.168.10.0/24 dev to-a', '192.168.20.0/24 dev to-b'];
      const mtu = (option: string) =>
        apart.rig.ip(
          'wire',
          networks.map(network => `route replace ${network} ${option}`),
        );
      await mtu(`mtu ${NARROW}`);
      await work().finally(() => mtu(''));
      for (const side of SIDES) {
        for (const name of [`host-${side}`, `pod-${side}`]) await apart.rig.ip(name, ['route flush cache']);
      }
    };

    it('takes MTU and gateway of the host', () =>
      apart.withBoth('vxlan', {}, async () => {
        const status = await apart.rig.status<{ underlay: { gateway: string; mtu: number } }>('host-a');
        assert.deepEqual([status.underlay.gateway, status.underlay.mtu], ['192.168.10.254', 1400]);
        await pingEverySize(apart.rig, pathFrom('a', 'vxlan', 1400));
        await fetchFile(apart.rig, pathFrom('a', 'vxlan', 1400), 10_000_000);
      }));

    for (const protocol of ['ipip', 'vxlan', 'geneve'] as const) {
      it(`${protocol} packets that the router cuts go to the datapath, the host's own fragments to the host`, () =>
        narrowed(async () => {
          const nodes = await Promise.all(
            SIDES.map(side => {
              const tunnel = { protocol, df: 'clear', peers: [{ address: apart.hosts.addresses[OTHER[side]] }] };
              return apart.start(side, protocol, { tunnel });
            }),
          );
          await apart.ping('pod-a', PODS.b, '-s', '1300');
          await apart.ping('pod-a', PODS.b, '-s', '5000');
          await apart.ping('host-a', apart.hosts.addresses.b, '-s', '1300');
          await apart.ping('host-a', apart.hosts.addresses.b, '-s', '20000');
          const counters = await apart.rig.counters('host-b');
          assert.ok(counters.get('datagrams-reassembled')! >= 6, `${counters.get('datagrams-reassembled')}`);
          await stopNodes(...nodes);
        }));
    }

    it('hears from the router that a tunnel packet is too big, and tells its pod', () =>
      narrowed(() =>
        apart.withBoth('ipip', {}, async () => {
          const refused = await apart.rig.exec('pod-a', 'ping', '-n', '-c3', '-i0.2', '-M', 'do', '-s', '1300', PODS.b);
          assert.match(refused.stdout + refused.stderr, new RegExp(`mtu ?= ?${NARROW - OVERHEADS.ipip}`));
          await apart.ping('pod-a', PODS.b, '-M', 'do', '-s', `${NARROW - OVERHEADS.ipip - 28}`);
        }),
      ));
  });

  it('a fragment that comes before its first finds the datapath, and one of the host the host', async () => {
    const { rig, hosts } = pair;
    const node = await pair.start('a', 'vxlan', { masquerade: MASQUERADE });
    const [src, dst] = [await macOf(rig, 'host-b'), await macOf(rig, 'host-a')];
    const backwards = (payload: Uint8Array, id: number, dport: number) => {
      const whole = udp4({ src: hosts.addresses.b, dst: hosts.addresses.a, id, payload, sport: 50000, dport });
      return [fragment(whole, 512, whole.length - 20 - 512), fragment(whole, 0, 512)].map(part =>
        Buffer.from(ethernet(part, { src, dst })).toString('hex'),
      );
    };
    const inner = ethernet(icmpEcho({ src: PODS.b, dst: PODS.a, payload: new Uint8Array(1000) }), {
      src: vtepMac(hosts.addresses.b),
      dst: vtepMac(hosts.addresses.a),
    });
    const vxlan = Uint8Array.of(8, 0, 0, 0, 0, 0, 1, 0, ...inner);
    await rig.runProgram('host-b', 'send-frames', 'eth0', ...backwards(vxlan, 1, 8472));
    await until('it to be put together', async () => (await rig.counters('host-a')).get('decapsulated') === 1);

    const server = rig.program('host-a', 'traffic', 'udp-serve', '5353');
    await server.until('listening\n');
    const received = async () => Number(/Udp: (\d+)/.exec(await rig.run('host-a', 'cat', '/proc/net/snmp'))?.[1]);
    const before = await received();
    await rig.runProgram('host-b', 'send-frames', 'eth0', ...backwards(vxlan, 2, 5353));
    await until("the host's socket to get it", async () => (await received()) === before + 1);
    assert.equal((await rig.counters('host-a')).get('decapsulated'), 1);
    assert.equal((await rig.ports('host-a')).find(port => port.kind === 'host')!.txPackets, 0, 'nothing comes twice');
    await server.stop();
    await stopNodes(node);
  });

  describe("shares the host's address", () => {
    const services = [
      {
        name: 'default/web',
        type: 'NodePort',
        addresses: ['10.96.0.10'],
        ports: [{ port: 80, targetPort: HTTP_PORT, nodePort: NODE_PORT }],
        endpoints: [{ address: PODS.a }, { address: PODS.b }],
      },
      {
        name: 'default/api',
        type: 'NodePort',
        addresses: ['10.96.0.11'],
        ports: [{ port: 80, targetPort: API_PORT, nodePort: NODE_PORT + 10 }],
        endpoints: [{ address: '192.168.10.1' }],
      },
    ];
    const more = { masquerade: MASQUERADE, services };
    let nodes: RunningNode[];
    let servers: Running[];
    const fetch = (from: string, url: string) => pair.rig.run(from, 'curl', '-sS', '-m', '5', url);

    before(async () => {
      nodes = await pair.both('vxlan', more);
      servers = [
        await pair.serve('pod-a', HTTP_PORT),
        await pair.serve('pod-b', HTTP_PORT),
        await pair.serve('outside', HTTP_PORT),
        await pair.serve('host-a', API_PORT),
      ];
    });
    after(async () => {
      for (const server of servers) await server.stop();
      await stopNodes(...nodes);
      await pair.assertUntouched(...SIDES);
    });

    it('a node port answers a third host, by whichever pod', async () => {
      const { a, b } = pair.hosts.addresses;
      const names = new Set<string>();
      for (let i = 0; i < 20; i++) {
        names.add(/Hostname: (.*)/.exec(await fetch('outside', `http://${i % 2 ? a : b}:${NODE_PORT}/`))![1]);
      }
      assert.equal(names.size, 2, [...names].join());
      await fetch('host-a', 'http://10.96.0.10/');
    });

    it('the host itself reaches its own node port, bound to whichever of its addresses', async () => {
      const { a } = pair.hosts.addresses;
      for (const bound of [[], ['--interface', a], ['--interface', HOST_PORTS.a]]) {
        const said = await pair.rig.run('host-a', 'curl', '-sS', '-m', '5', ...bound, `http://${a}:${NODE_PORT}/`);
        assert.match(said, /Hostname: pod-[ab]/, bound.join(' '));
      }
    });

    it('what listens on the host is reached by pods, and through a service by everybody', async () => {
      const { a } = pair.hosts.addresses;
      const seen = async (from: string, url: string) => /RemoteAddr: (.*):/.exec(await fetch(from, url))![1];
      assert.equal(await seen('pod-a', `http://${a}:${API_PORT}/`), PODS.a);
      assert.equal(await seen('pod-a', 'http://10.96.0.11/'), PODS.a);
      assert.equal(await seen('pod-b', 'http://10.96.0.11/'), pair.hosts.addresses.b);
      // Its kernel would answer others past the datapath.
      const itself = '169.254.42.1';
      assert.equal(await seen('outside', `http://${a}:${NODE_PORT + 10}/`), itself);
      assert.equal(await seen('host-a', 'http://10.96.0.11/'), itself);
      assert.equal(await seen('host-a', `http://${a}:${NODE_PORT + 10}/`), itself);
    });

    it('what a pod sends outside has the host\u2019s address and a reserved port, and the host\u2019s own connections go on', async () => {
      const { a } = pair.hosts.addresses;
      const { rig } = pair;
      const file = rig.program('outside', 'session', 'file', '9090', '20000000');
      await file.until('listening\n');
      const own = rig.spawn('host-a', 'bash', '-c', `curl -sS -m 30 --limit-rate 8M http://${OUTSIDE}:9090/ | wc -c`);
      for (let i = 0; i < 10; i++) {
        const seen = /RemoteAddr: (.*):(\d+)/.exec(await fetch('pod-a', `http://${OUTSIDE}:${HTTP_PORT}/`))!;
        assert.equal(seen[1], a);
        assert.ok(Number(seen[2]) >= 61000, seen[2]);
        const ours = /RemoteAddr: (.*):(\d+)/.exec(await fetch('host-a', `http://${OUTSIDE}:${HTTP_PORT}/`))!;
        assert.equal(ours[1], a);
        assert.ok(Number(ours[2]) < 61000, ours[2]);
      }
      assert.equal(await own.exited, 0);
      assert.equal(own.output.trim(), '20000000');
      await file.stop();
    });

    it('pings go both ways at once, small and in fragments', async () => {
      await Promise.all([
        pair.ping('pod-a', OUTSIDE),
        pair.ping('host-a', OUTSIDE),
        pair.ping('pod-a', OUTSIDE, '-s', '9000'),
        pair.ping('host-a', OUTSIDE, '-s', '9000'),
        pair.ping('outside', pair.hosts.addresses.a, '-s', '9000'),
      ]);
    });

    it('UDP of every size goes outside, in fragments too', async () => {
      // A pod behind a tunnel takes no more; else the first answer above that would only teach so.
      const mtu = 1500 - OVERHEADS.vxlan;
      const route = 'route replace 192.168.10.0/24 dev eth0 proto kernel scope link src 192.168.10.3';
      await pair.rig.ip('outside', [`${route} mtu ${mtu}`]);
      await exchangeUdp(pair.rig, { from: 'pod-a', to: 'outside', address: OUTSIDE, mtu });
      await pair.rig.ip('outside', [route]);
    });

    it('errors reach whom they are about: the pod its own, the host its own', async () => {
      const refused = await pair.rig.exec('pod-a', 'dig', '+time=2', '+tries=1', '-p', '5999', `@${OUTSIDE}`, 'x.');
      assert.match(refused.stdout + refused.stderr, /connection refused/);
      const own = await pair.rig.exec('host-a', 'dig', '+time=2', '+tries=1', '-p', '5999', `@${OUTSIDE}`, 'x.');
      assert.match(own.stdout + own.stderr, /connection refused/);
    });

    it('says so', async () => {
      const { uplink } = await pair.rig.status<{ uplink: { what: string; how: string }[] }>('host-a');
      const lines = (what: string) => uplink.filter(line => line.what === what).map(({ how }) => how);
      assert.match(lines('reserved').join(), /61000-65535 of 192\.168\.10\.1/);
      assert.match(
        lines('rule').join('\n'),
        new RegExp(`^table netdev tunpath_.*tcp dport .*\\b${NODE_PORT}\\b.* goto`, 's'),
      );
    });

    it('apply leads a new node port in, and an old one back to the host', async () => {
      const { rig, hosts } = pair;
      const apply = async (nodePort: number) => {
        const ports = [{ port: 80, targetPort: HTTP_PORT, nodePort }];
        const changed = pair.spec('a', 'vxlan', { masquerade: MASQUERADE, services: [{ ...services[0], ports }] });
        const running = rig.tunpath('host-a', 'apply', '-f', rig.writeConfig('host-a', changed));
        return { code: await running.exited, said: running.output };
      };
      assert.equal((await apply(30081)).code, 0);
      await fetch('outside', `http://${hosts.addresses.a}:30081/`);
      const own = await pair.serve('host-a', NODE_PORT);
      const seen = await fetch('outside', `http://${hosts.addresses.a}:${NODE_PORT}/`);
      assert.match(seen, new RegExp(`RemoteAddr: ${OUTSIDE}`), 'a process of the host has the port');
      const refused = await apply(NODE_PORT);
      assert.notEqual(refused.code, 0);
      assert.match(refused.said, /nodePort.*TCP port 30080 .*the host has a TCP socket/s);
      await fetch('outside', `http://${hosts.addresses.a}:30081/`);
      await own.stop();
      assert.equal((await apply(NODE_PORT)).code, 0);
      await fetch('outside', `http://${hosts.addresses.a}:${NODE_PORT}/`);
    });
  });

  describe('on a host with a firewall, policy rules and strict rp_filter', () => {
    let guarded: Pair;
    before(async () => {
      guarded = await Pair.make('rf', { between: 'bridge' });
      await guarded.outside('outside', OUTSIDE);
      const { rig } = guarded;
      for (const side of SIDES) {
        const host = `host-${side}`;
        await rig.ip(
          host,
          [
            'link add d0 type bridge',
            'addr add 10.99.0.1/24 dev d0',
            'link set d0 up',
            'route add 10.98.0.0/16 via 10.99.0.2 dev d0 table 77',
            'rule add fwmark 0x77 lookup 77 priority 100',
            'rule add from 10.99.0.0/24 lookup 77 priority 101',
          ],
          { 'net/ipv4/conf/all/rp_filter': 1, 'net/ipv4/conf/eth0/rp_filter': 1 },
        );
        await rig.run(host, 'nft', FIREWALL);
      }
      await guarded.remember();
    });
    after(() => guarded.rig.close());

    it('everything goes on, and they are as before', () =>
      guarded.withBoth('vxlan', { masquerade: MASQUERADE }, async () => {
        const { rig, hosts } = guarded;
        const session = await hosts.hold('a');
        await pingEverySize(rig, pathFrom('a', 'vxlan'));
        await fetchFile(rig, pathFrom('a', 'vxlan'), 10_000_000);
        await guarded.ping('pod-a', OUTSIDE);
        await everybodyTalks(guarded);
        const closed = await rig.exec('outside', 'curl', '-sS', '-m', '1', `http://${hosts.addresses.a}:${HTTP_PORT}/`);
        assert.notEqual(closed.code, 0, 'the firewall still drops what it dropped');
        await session.close();
      }));

    it("another's `nft flush ruleset` does not reach ours", async () => {
      const { rig } = guarded;
      await guarded.withBoth('vxlan', {}, async () => {
        await rig.run('host-a', 'nft', 'flush ruleset');
        await guarded.ping('pod-a', PODS.b);
        await rig.run('host-a', 'nft', FIREWALL);
        await guarded.ping('pod-a', PODS.b);
      });
    });
  });

  it("a TCP session of the host's own lives through start, stop, kill -9 and start", async () => {
    const session = await pair.hosts.hold('a');
    const other = await pair.start('b', 'vxlan');
    await stopNodes(await pair.start('a', 'vxlan'));
    await pair.assertUntouched('a');

    const killed = await pair.start('a', 'vxlan');
    await pair.ping('pod-a', PODS.b);
    assert.match(await pair.hosts.snapshot('a'), /table netdev tunpath_/);
    assert.equal(await killed.stop('SIGKILL'), null);
    await until('the kernel to clean up', async () => (await pair.hosts.snapshot('a')) === pair.untouched.a);

    const again = await pair.start('a', 'vxlan');
    await pair.ping('pod-a', PODS.b);
    await stopNodes(again, other);
    const { answered } = await session.close();
    assert.ok(answered > 20);
    await pair.assertUntouched(...SIDES);
  });

  describe('refuses, with exit code 2 and what to do', () => {
    const refuses = async (says: RegExp, more: object = {}) => {
      const config = { ...pair.spec('a', 'vxlan', { masquerade: MASQUERADE }), ...more };
      const running = pair.rig.tunpath('host-a', 'node', '--config', pair.rig.writeConfig('host-a', config));
      assert.equal(await running.exited, 2, running.output);
      assert.match(running.output, says);
    };

    it('an interface that is not there, or that has no address', async () => {
      await refuses(/uplink\.interface: .*eth7.*eth0/, { uplink: { ...UPLINK, interface: 'eth7' } });
      await pair.rig.ip('host-a', ['link add d0 type veth peer name d1', 'link set d0 up', 'link set d1 up']);
      await refuses(/d0 has no IPv4 address \(ip address add/, { uplink: { ...UPLINK, interface: 'd0' } });
      await pair.rig.ip('host-a', ['link del d0']);
    });

    it('an interface that another node has', async () => {
      const node = await pair.start('a', 'vxlan');
      const file = pair.rig.writeConfig('second', { ...pair.spec('a', 'geneve'), host: undefined, pods: [] });
      const second = pair.rig.tunpath('host-a', 'node', '--config', file);
      assert.equal(await second.exited, 2, second.output);
      assert.match(second.output, /uplink\.interface: node .*host-a steers on eth0 already/);
      await stopNodes(node);
    });

    it('a device that is there', () =>
      refuses(/uplink\.device: .*lo0|eth0/, { uplink: { ...UPLINK, device: 'eth0' } }));

    it('a tunnel port that the host uses, as for a VXLAN of the kernel', async () => {
      await pair.rig.ip('host-a', ['link add v0 type vxlan id 5 dstport 8472 dev eth0', 'link set v0 up']);
      await refuses(/spec\.tunnel\.port: UDP port 8472 of 192\.168\.10\.1 .*the host has a UDP socket on port 8472/);
      await pair.rig.ip('host-a', ['link del v0']);
    });

    it('ports that the host may take for its own connections', async () => {
      const range = async (value: string, reserved: string) => {
        await pair.rig.ip('host-a', ['link'], {
          'net/ipv4/ip_local_port_range': `'${value}'`,
          'net/ipv4/ip_local_reserved_ports': `'${reserved}'`,
        });
      };
      await range('32768 65535', '');
      await refuses(/spec\.masquerade\[0\]\.ports: TCP ports 61000-65535 .*ip_local_port_range is 32768-65535/);
      await range('32768 65535', '61000-65535');
      await stopNodes(await pair.start('a', 'vxlan', { masquerade: MASQUERADE }));
      await range('32768 60999', '');
    });

    it('has left the hosts as they were', () => pair.assertUntouched(...SIDES));
  });
});

const FIREWALL = `
  table inet guard {
    chain input {
      type filter hook input priority filter; policy drop;
      ct state established,related accept
      iif lo accept
      icmp type echo-request accept
      tcp dport 2222 accept
    }
    chain forward {
      type filter hook forward priority filter; policy drop;
    }
  }
  table netdev guard {
    chain first {
      type filter hook ingress device eth0 priority filter; policy accept;
      ip saddr 198.51.100.0/24 drop
    }
  }`;

async function everybodyTalks(pair: Pair): Promise<void> {
  const { addresses } = pair.hosts;
  await pair.ping('host-a', HOST_PORTS.b, '-I', HOST_PORTS.a);
  await pair.ping('host-a', PODS.b);
  await pair.ping('host-a', PODS.a);
  await pair.ping('pod-a', HOST_PORTS.b);
  await pair.ping('pod-a', addresses.a);
  await pair.ping('host-a', addresses.b, '-s', '20000');
}

async function macOf(rig: Rig, host: string): Promise<string> {
  return (await rig.run(host, 'cat', '/sys/class/net/eth0/address')).trim();
}

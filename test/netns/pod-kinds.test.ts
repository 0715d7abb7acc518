/**
 * Pods by TUN, TAP and veth at one node: what a pod sees of each, by the tools that it would use.
 *
 *     tun            tap            veth                      node
 *      eth0           eth0           eth0 ----- cali0 (ee:ee:ee:ee:ee:ee, as Calico has it)
 *   10.244.1.10    10.244.1.11    10.244.1.12
 */
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { pattern } from '../fixtures/packets.ts';
import { Rig, type RunningNode, until } from './rig.ts';

const PODS = { tun: '10.244.1.10', tap: '10.244.1.11', veth: '10.244.1.12' } as const;
type Kind = keyof typeof PODS;
const KINDS = Object.keys(PODS) as Kind[];
const PAIRS = KINDS.flatMap(from => KINDS.filter(to => to !== from).map(to => [from, to] as const));
const MEMORY_POD = '10.244.1.13';
const GATEWAY_MAC = 'EE:EE:EE:EE:EE:EE';
const HTTP_PORT = 8080;
const FILE_BYTES = 20_000_000;

describe('kinds of pods', function () {
  this.timeout(120_000);
  let rig: Rig;
  let node: RunningNode;

  const drops = async () =>
    [...(await rig.counters('node'))].filter(([name]) => name.startsWith('drop-')).map(([name, n]) => `${n} ${name}`);

  before(async () => {
    rig = new Rig('pk');
    await rig.namespace('node', ...KINDS);
    // What a CNI plugin leaves behind, its host a router: it would forward and answer if it could.
    await rig.ip(
      'node',
      [
        `link add cali0 address ${GATEWAY_MAC} type veth peer name eth0 netns ${rig.full('veth')}`,
        'link set cali0 up',
        `route add ${PODS.veth}/32 dev cali0`,
      ],
      { 'net/ipv4/ip_forward': 1, 'net/ipv4/conf/all/rp_filter': 0 },
    );
    await rig.ip('node', [], { 'net/ipv4/conf/cali0/proxy_arp': 1 });
    await rig.ip('veth', [
      `addr add ${PODS.veth}/32 dev eth0`,
      'link set eth0 mtu 1450 up',
      'route add 169.254.1.1 dev eth0 scope link',
      'route add default via 169.254.1.1 dev eth0',
    ]);
    node = await rig.node('node', {
      uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
      host: { device: 'tp0', address: '10.244.1.1/32' },
      tunnel: { protocol: 'vxlan', peers: [{ address: '192.168.10.2' }] },
      pods: [
        ...KINDS.map(kind => ({ name: kind, netns: rig.full(kind), kind, device: 'eth0', address: PODS[kind] })),
        { name: 'web', kind: 'memory', app: 'http', address: MEMORY_POD },
      ],
    });
  });
  after(() => rig.close());

  it('shows each by its kind and with its offloads', async () => {
    const { ports } = await rig.status<{ ports: { name: string; device: string; mtu: number; offloads: string[] }[] }>(
      'node',
    );
    const seen = ports
      .filter(({ name }) => name in PODS)
      .map(({ name, device, mtu, offloads }) => {
        return `${name} ${device} ${mtu} ${offloads.filter(offload => offload !== 'tunnel')}`;
      });
    assert.deepEqual(seen, [
      'tun eth0 1450 csum,tso,uso',
      'tap eth0 1450 csum,tso,uso',
      'veth cali0 1450 csum,tso,uso',
    ]);
  });

  it('a pod in memory answers pings and requests of all, beside them in the status', async () => {
    const { ports } = await rig.status<{ ports: { name: string; device: string; state: string }[] }>('node');
    assert.deepEqual(
      ports.filter(({ name }) => name === 'web').map(({ device, state }) => [device, state]),
      [['web', 'up']],
    );
    for (const from of KINDS) {
      const said = await rig.run(from, 'ping', '-n', '-c3', '-i0.02', '-W2', '-s', '1000', MEMORY_POD);
      assert.match(said, /3 packets transmitted, 3 received, 0% packet loss/);
      const requests = Array.from({ length: 5 }, () => `http://${MEMORY_POD}/`);
      assert.equal(await rig.run(from, 'curl', '-sS', '-m', '10', ...requests), requests.map(() => 'web').join('\n'));
    }
  });

  for (const [from, to] of PAIRS) {
    it(`${from} pings ${to}: every answer once, whole and in fragments`, async () => {
      for (const size of [0, 56, 1422, 4000]) {
        const said = await rig.run(from, 'ping', '-n', '-c5', '-i0.02', '-W2', '-s', `${size}`, PODS[to]);
        assert.match(said, /5 packets transmitted, 5 received, 0% packet loss/);
        assert.doesNotMatch(said, /DUP/);
      }
    });

    it(`${from} fetches 20 MB from ${to} with the same hash`, async () => {
      const server = rig.program(to, 'session', 'file', `${HTTP_PORT}`, `${FILE_BYTES}`);
      await server.until('listening\n');
      const url = `http://${PODS[to]}:${HTTP_PORT}/`;
      const sum = await rig.run(from, 'bash', '-c', `set -o pipefail; curl -sS -m 60 ${url} | sha256sum`);
      const hash = createHash('sha256');
      const piece = pattern(1 << 20);
      for (let at = 0; at < FILE_BYTES; at += piece.length) {
        hash.update(piece.subarray(0, Math.min(piece.length, FILE_BYTES - at)));
      }
      assert.equal(sum.split(' ')[0], hash.digest('hex'));
      await server.stop();
    });

    it(`${from} reaches ${to} by iperf3, in superpackets`, async () => {
      const server = rig.spawn(to, 'iperf3', '-s', '-1', '--forceflush');
      await server.until('Server listening');
      const before = await rig.ports('node');
      const { end } = JSON.parse(await rig.run(from, 'iperf3', '-J', '-t1', '-c', PODS[to]));
      assert.ok(end.sum_received.bytes > 10_000_000, `${end.sum_received.bytes} bytes`);
      await server.exited;
      const after = await rig.ports('node');
      const reads = (rows: typeof before) => rows.find(({ name }) => name === from)!;
      assert.ok(reads(after).rxPackets > reads(before).rxPackets);
    });
  }

  it('the node itself reaches all of them, and they reach it', async () => {
    for (const kind of KINDS) {
      await rig.run('node', 'ping', '-n', '-c3', '-i0.02', '-W2', '-I', '10.244.1.1', PODS[kind]);
      await rig.run(kind, 'ping', '-n', '-c3', '-i0.02', '-W2', '10.244.1.1');
    }
  });

  for (const kind of ['tap', 'veth'] as const) {
    it(`${kind}: ARP is answered by the port alone, for whatever is asked`, async () => {
      for (const address of ['169.254.1.1', '8.8.8.8', PODS.tun]) {
        const said = await rig.run(kind, 'arping', '-c3', '-w4', '-I', 'eth0', address);
        assert.match(said, /Received 3 response\(s\)/);
        const macs = [...said.matchAll(/\[([0-9A-F:]{17})\]/gi)].map(([, mac]) => mac.toUpperCase());
        assert.deepEqual([...new Set(macs)], [GATEWAY_MAC]);
      }
    });

    it(`${kind}: nobody has its own address (arping -D)`, async () => {
      const { code, stdout } = await rig.exec(kind, 'arping', '-D', '-c2', '-w3', '-I', 'eth0', PODS[kind]);
      assert.equal(code, 0, stdout);
      assert.match(stdout, /Received 0 response/);
    });

    it(`${kind}: its frames come from the port's MAC, their checksums right`, async () => {
      const dump = rig.spawn(kind, 'tcpdump', '-lennvv', '-i', 'eth0', '-c2', 'icmp');
      await dump.until('listening on');
      await rig.run(kind, 'ping', '-n', '-c1', '-W2', PODS.tun);
      await dump.exited;
      const replies = dump.output.split('\n').filter(line => /ethertype IPv4/.test(line));
      assert.equal(replies.length, 2, dump.output);
      assert.match(replies[1].toUpperCase(), new RegExp(`${GATEWAY_MAC} > `));
      assert.doesNotMatch(dump.output, /wrong|bad cksum/);
    });

    it(`${kind}: goes on when the pod changes its MAC`, async () => {
      await rig.ip(kind, ['link set eth0 address 02:aa:00:00:00:05']);
      await rig.ip(kind, [
        'link set eth0 up',
        'route replace 169.254.1.1 dev eth0 scope link',
        'route replace default via 169.254.1.1 dev eth0',
      ]);
      await rig.run(kind, 'ping', '-n', '-c3', '-i0.02', '-W2', PODS.tun);
      await rig.run('tun', 'ping', '-n', '-c3', '-i0.02', '-W2', PODS[kind]);
    });

    it(`${kind}: foreign and malformed frames are counted by reason`, async () => {
      const before = await rig.counters('node');
      const risen = async (name: string) => ((await rig.counters('node')).get(name) ?? 0) - (before.get(name) ?? 0);
      await rig.ip(kind, [`addr add 10.99.0.1/32 dev eth0`]);
      await rig.exec(kind, 'ping', '-n', '-c1', '-W1', '-I', '10.99.0.1', PODS.tun);
      await until('the foreign source', async () => (await risen('drop-invalid-source')) >= 1);
      await rig.ip(kind, [`addr del 10.99.0.1/32 dev eth0`]);
    });
  }

  it('veth: its MTU is followed, at either end, and who sends more with DF hears of it', async () => {
    const ends: [namespace: string, device: string][] = [
      ['veth', 'eth0'],
      ['node', 'cali0'],
    ];
    for (const [namespace, device] of ends) {
      await rig.ip(namespace, [`link set ${device} mtu 1300`]);
      await node.until('port pod veth: mtu 1300 (was 1450)');
      const said = await rig.exec('tun', 'ping', '-n', '-c1', '-W2', '-M', 'do', '-s', '1400', PODS.veth);
      assert.match(said.stdout, /Frag needed and DF set \(mtu = 1300\)/);
      await rig.run('tun', 'ip', 'route', 'flush', 'cache');
      await rig.run('tun', 'ping', '-n', '-c2', '-i0.02', '-W2', '-M', 'do', '-s', `${1300 - 28}`, PODS.veth);
      await rig.ip(namespace, [`link set ${device} mtu 1450`]);
      await node.until('port pod veth: mtu 1450 (was 1300)');
      await rig.run('tun', 'ip', 'route', 'flush', 'cache');
      await rig.run('tun', 'ping', '-n', '-c2', '-i0.02', '-W2', '-M', 'do', '-s', `${1450 - 28}`, PODS.veth);
      node.output = '';
    }
  });

  it('nothing else has been dropped', async () => {
    // other-mac: by its route at cali0 the host's kernel asks the pod for its MAC, and the pod answers the kernel.
    const rest = (await drops()).filter(
      line => !/drop-(invalid-source|not-ipv4|multicast|no-route|other-mac|over-mtu-dont-fragment)/.test(line),
    );
    assert.deepEqual(rest, []);
  });

  it('a node that ends leaves the veth as it was', async () => {
    const look = async () => ({
      link: JSON.parse(await rig.run('node', 'ip', '-json', 'link', 'show', 'cali0'))[0].address,
      arp: (await rig.run('node', 'cat', '/proc/sys/net/ipv4/conf/cali0/arp_ignore')).trim(),
      proxy: (await rig.run('node', 'cat', '/proc/sys/net/ipv4/conf/cali0/proxy_arp')).trim(),
    });
    assert.deepEqual([(await look()).arp, (await look()).proxy], ['8', '0']);
    assert.notEqual((await look()).link, GATEWAY_MAC.toLowerCase());
    assert.equal(await node.stop(), 0, node.output);
    assert.deepEqual(await look(), { link: GATEWAY_MAC.toLowerCase(), arp: '0', proxy: '1' });
  });
});

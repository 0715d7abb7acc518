/**
 * Two tunpath nodes on a switch: every tunnel in every profile, checked on the wire by tshark, and what a node answers or
 * refuses. Offloads are off, so that what the switch sees is final.
 */
import { strict as assert } from 'node:assert';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { decodeCapture } from '../../datapath/lab/capture.ts';
import { PROFILES, type ProfileName } from '../../datapath/profile.ts';
import { Rig, type Running, until } from './rig.ts';

const WHOAMI = fileURLToPath(new URL('../../datapath/lab/whoami.js', import.meta.url));
const HTTP_PORT = 8080;

type Protocol = 'none' | 'ipip' | 'vxlan' | 'geneve';
const PORTS = { vxlan: 8472, geneve: 6081 };
const VNI = 0x42b9;
const OVERHEAD = { none: 0, ipip: 20, vxlan: 50, geneve: 50 };

/** Pairs that run at the same time, each in namespaces of its own. What a node costs is its start, most of it waiting. */
const LANES = 2;

/** Each combination has pods of its own, so that one capture serves all. */
interface Combination {
  protocol: Protocol;
  profile: ProfileName;
  /** Second byte of its pods' addresses: 10.N.1.10 and 10.N.2.10. */
  network: number;
  /** Its nodes are LANE1 and LANE2, its pods podLANE1 and podLANE2. */
  lane: number;
}

const COMBINATIONS: Combination[] = (['none', 'ipip', 'vxlan', 'geneve'] as const).flatMap((protocol, i) =>
  (Object.keys(PROFILES) as ProfileName[]).map((profile, j) => {
    return { protocol, profile, network: 100 + 10 * i + j, lane: (i + j) % LANES };
  }),
);

const name = ({ protocol, profile }: Combination) => `${protocol}, profile ${profile}`;
const nodeName = ({ lane }: Combination, side: number) => `node${lane}${side}`;
const podName = ({ lane }: Combination, side: number) => `pod${lane}${side}`;
const underlay = ({ lane }: Combination, side: number) => `192.168.10.${10 * lane + side}`;
const vtepMac = (side: number) => `02:42:0a:f4:0${side}:00`;
const podAddress = (network: number, side: number) => `10.${network}.${side}.10`;

/** Node `side` (1 or 2) of a pair; `change` is laid over its specification. */
function spec(rig: Rig, combination: Combination, side: number, change: object): object {
  const { protocol, profile, network, lane } = combination;
  const peer = 3 - side;
  const withMac = protocol === 'vxlan' || protocol === 'geneve';
  return {
    uplink: {
      kind: 'tap',
      device: 'ul0',
      mac: `02:00:00:00:0${lane}:0${side}`,
      address: `${underlay(combination, side)}/24`,
    },
    host: { device: 'tp0', address: `10.${network}.${side}.1/32` },
    pods: [
      {
        name: 'default/p',
        netns: rig.full(podName(combination, side)),
        device: 'eth0',
        address: podAddress(network, side),
      },
    ],
    tunnel: {
      protocol,
      ...(withMac ? { port: PORTS[protocol], vni: VNI, mac: vtepMac(side) } : {}),
      peers:
        protocol === 'none'
          ? []
          : [{ address: underlay(combination, peer), ...(withMac ? { mac: vtepMac(peer) } : {}) }],
    },
    routes: [{ to: `10.${network}.${peer}.0/24`, via: underlay(combination, peer), encap: protocol !== 'none' }],
    profile,
    offload: 'none',
    ...change,
  };
}

/** Starts both nodes of a pair and puts their uplinks on the switch. */
async function startPair(rig: Rig, combination: Combination, changes: [object, object] = [{}, {}]): Promise<Running[]> {
  return Promise.all(
    [1, 2].map(async side => {
      const host = nodeName(combination, side);
      const node = await rig.node(host, spec(rig, combination, side, changes[side - 1]));
      await rig.plug(host, 'ul0', 'sw', `up-${host}`);
      return node;
    }),
  );
}

const stopAll = (nodes: Running[]) => Promise.all(nodes.map(node => node.stop()));

// ---- reading a capture

/** Values from outside to inside, as a tunnel packet has some fields twice. */
type Fields = Record<string, string[]>;

const FIELDS = [
  'eth.type',
  'ip.src',
  'ip.dst',
  'ip.proto',
  'ip.ttl',
  'ip.id',
  'ip.len',
  'ip.flags.df',
  'ip.checksum.status',
  'udp.srcport',
  'udp.dstport',
  'udp.checksum',
  'udp.checksum.status',
  'tcp.srcport',
  'tcp.dstport',
  'tcp.checksum.status',
  'tcp.options.mss_val',
  'icmp.type',
  'icmp.checksum.status',
  'vxlan.flags',
  'vxlan.vni',
  'geneve.version',
  'geneve.flags',
  'geneve.proto_type',
  'geneve.vni',
] as const;

async function decode(file: string): Promise<Fields[]> {
  const rows = await decodeCapture(file, FIELDS);
  return rows.map(row => Object.fromEntries(FIELDS.map((field, i) => [field, row[i]])));
}

/** The packets of a combination, by the addresses of its pods. */
function packetsOf(all: Fields[], { network }: Combination): Fields[] {
  return all.filter(packet => packet['ip.src'].at(-1)?.startsWith(`10.${network}.`));
}

const distinct = (values: string[]) => [...new Set(values)].sort();

/** tshark's names for a checksum: 0 bad, 1 good, 2 unverified, 3 not present. */
const BAD_CHECKSUM = '0';
const GOOD_CHECKSUM = '1';

function checkSums(packets: Fields[]): void {
  for (const packet of packets) {
    for (const field of ['ip', 'udp', 'tcp', 'icmp']) {
      assert.ok(!packet[`${field}.checksum.status`].includes(BAD_CHECKSUM), JSON.stringify(packet));
    }
    assert.ok(
      packet['ip.checksum.status'].every(status => status === GOOD_CHECKSUM),
      'every IP header was verified',
    );
    assert.ok([...packet['tcp.checksum.status'], ...packet['icmp.checksum.status']].includes(GOOD_CHECKSUM));
  }
}

function checkOuter(packets: Fields[], { protocol, profile }: Combination): void {
  if (protocol === 'none') {
    for (const packet of packets) assert.equal(packet['ip.src'].length, 1, 'no outer header');
    return;
  }
  const want = PROFILES[profile][protocol];
  for (const packet of packets) {
    assert.equal(packet['ip.src'].length, 2, 'one outer header');
    assert.equal(packet['ip.len'][0], String(Number(packet['ip.len'][1]) + OVERHEAD[protocol]));
    const [outerTtl, innerTtl] = packet['ip.ttl'];
    assert.equal(outerTtl, want.ttl === 'inherit' ? innerTtl : String(want.ttl), 'outer TTL');
    const [outerDf, innerDf] = packet['ip.flags.df'];
    assert.equal(/1|True/.test(outerDf), want.df === 'inherit' ? /1|True/.test(innerDf) : want.df === 1, 'outer DF');
    assert.equal(packet['ip.proto'][0], protocol === 'ipip' ? '4' : '17');
    if (protocol === 'ipip') continue;

    assert.equal(packet['udp.dstport'][0], String(PORTS[protocol]));
    const port = Number(packet['udp.srcport'][0]);
    assert.ok(port >= want.sourcePorts[0] && port < want.sourcePorts[1], `source port ${port}`);
    assert.equal(
      Number(packet['udp.checksum'][0]) !== 0,
      want.udpChecksum,
      `outer checksum ${packet['udp.checksum'][0]}`,
    );
    if (want.udpChecksum) assert.equal(packet['udp.checksum.status'][0], GOOD_CHECKSUM);
    if (protocol === 'vxlan') {
      assert.equal(Number(packet['vxlan.flags'][0]), 0x0800, 'flags and reserved bits');
      assert.equal(Number(packet['vxlan.vni'][0]), VNI);
    } else {
      assert.equal(Number(packet['geneve.version'][0]), 0);
      assert.equal(Number(packet['geneve.flags'][0]), 0);
      assert.equal(Number(packet['geneve.proto_type'][0]), 0x6558);
      assert.equal(Number(packet['geneve.vni'][0]), VNI);
    }
  }
}

/** Each direction of each flow keeps one outer source port, and not all flows share one. */
function checkEntropy(packets: Fields[]): void {
  const ports = new Map<string, Set<string>>();
  for (const packet of packets) {
    const transport =
      packet['tcp.srcport'].length > 0 ? [packet['tcp.srcport'][0], packet['tcp.dstport'][0]] : ['icmp'];
    const flow = [packet['ip.src'][1], packet['ip.dst'][1], ...transport].join(' ');
    ports.set(flow, (ports.get(flow) ?? new Set()).add(packet['udp.srcport'][0]));
  }
  assert.ok(ports.size >= 6, `${ports.size} flows`);
  for (const [flow, used] of ports) assert.equal(used.size, 1, `${flow}: ${[...used]}`);
  assert.ok(
    new Set([...ports.values()].map(used => [...used][0])).size >= ports.size / 2,
    'flows differ in their ports',
  );
}

/** A pod's packet as the wire shows it: decremented by the node that sends, unless the profile does that at delivery. */
function checkInner(packets: Fields[], { protocol, profile, network }: Combination): void {
  const delivery = PROFILES[profile].ttlDecrement === 'delivery';
  assert.deepEqual(distinct(packets.map(packet => packet['ip.ttl'].at(-1)!)), [
    delivery && protocol !== 'none' ? '64' : '63',
  ]);
  assert.deepEqual(distinct(packets.flatMap(packet => packet['ip.src'].at(-1)!)), [
    podAddress(network, 1),
    podAddress(network, 2),
  ]);
  const mtu = PROFILES[profile].mtuAt === 'route' ? 1500 : 1500 - OVERHEAD[protocol];
  const perRoute = PROFILES[profile].mtuAt === 'route' ? 1500 - OVERHEAD[protocol] : mtu;
  assert.deepEqual(distinct(packets.flatMap(packet => packet['tcp.options.mss_val'])), [String(perRoute - 40)]);
}

/** What came of the traffic of one combination, seen from its ends. */
interface Said {
  ping: string;
  curls: string[];
  /** Names of all drop counters that are not 0. */
  drops: string[];
}

describe('tunnels on the wire', function () {
  this.timeout(240_000);
  let rig: Rig;
  let packets: Fields[];
  const said = new Map<Combination, Said>();

  before(async () => {
    rig = new Rig('tw');
    await rig.bridge('sw', '192.168.10.254/24');
    const file = join(rig.directory, 'switch.pcap');
    const tcpdump = ['tcpdump', '--immediate-mode', '-U', '-n', '-Z', 'root', '-B', '8192'];
    const capture = rig.spawn('sw', ...tcpdump, '-i', 'br0', '-w', file);
    await capture.until('listening on');
    const lanes = Array.from({ length: LANES }, (_, lane) => COMBINATIONS.filter(c => c.lane === lane));
    await Promise.all(lanes.map(runLane));
    await until('the last packets to be in the file', async () => {
      const { size } = statSync(file);
      await sleep(100);
      return statSync(file).size === size;
    });
    await capture.stop('SIGINT');
    assert.match(capture.output, /\b0 packets dropped by kernel/);
    packets = await decode(file);
  });
  after(() => rig.close());

  async function runLane(combinations: Combination[]): Promise<void> {
    const [first] = combinations;
    await rig.namespace(...[1, 2].flatMap(side => [nodeName(first, side), podName(first, side)]));
    await rig.spawn(podName(first, 2), process.execPath, WHOAMI, `${HTTP_PORT}`, 'pod').until('listening');
    for (const combination of combinations) {
      const nodes = await startPair(rig, combination);
      said.set(combination, await sendTraffic(combination));
      await stopAll(nodes);
    }
  }

  async function sendTraffic(combination: Combination): Promise<Said> {
    const to = podAddress(combination.network, 2);
    const payload = `${1472 - OVERHEAD[combination.protocol]}`;
    const run = (...argv: string[]) => rig.run(podName(combination, 1), ...argv);
    const curl = (...paths: string[]) =>
      run(
        ...['curl', '-sS', '-m', '5', '-w', '%{http_code} %{size_download}\\n'],
        ...paths.flatMap(path => ['-o', '/dev/null', `http://${to}:${HTTP_PORT}${path}`]),
      );
    const [ping, ...curls] = await Promise.all([
      // ping waits for the last answers as long as its interval, whatever -W says, once it has had one.
      run('ping', '-n', '-c', '4', '-i', '0.2', '-W', '2', '-M', 'do', '-s', payload, to),
      curl('/', '/bytes/9000'),
      curl('/bytes/1'),
    ]);
    const counters = await Promise.all([1, 2].map(side => rig.counters(nodeName(combination, side))));
    const drops = counters.flatMap(one => [...one.keys()].filter(counter => counter.startsWith('drop-')));
    return { ping, curls, drops };
  }

  for (const combination of COMBINATIONS) {
    it(name(combination), () => {
      const { ping, curls, drops } = said.get(combination)!;
      assert.match(ping, / 4 received, 0% packet loss/);
      const { ttlDecrement } = PROFILES[combination.profile];
      assert.match(ping, ttlDecrement === 'delivery' && combination.protocol !== 'none' ? / ttl=63 / : / ttl=62 /);
      assert.match(curls[0], /^200 \d+\n200 9000$/);
      assert.equal(curls[1], '200 1');
      assert.deepEqual(drops, []);

      const own = packetsOf(packets, combination);
      assert.ok(own.length > 30, `${own.length} packets captured`);
      checkSums(own);
      checkOuter(own, combination);
      checkInner(own, combination);
      if (combination.protocol === 'vxlan' || combination.protocol === 'geneve') checkEntropy(own);
    });
  }
});

describe('what a node answers and refuses', function () {
  this.timeout(30_000);
  const combination: Combination = { protocol: 'vxlan', profile: 'linux', network: 77, lane: 0 };
  const here = podAddress(77, 1);
  const there = podAddress(77, 2);
  let rig: Rig;

  before(async () => {
    rig = new Rig('ta');
    await rig.namespace('node01', 'node02', 'pod01', 'pod02');
    await rig.bridge('sw', '192.168.10.254/24');
    // The pod's device lets through what the tunnel does not carry, and on each node a route leads to nobody.
    const pod = { name: 'default/p', netns: rig.full('pod01'), device: 'eth0', address: here, mtu: 1500 };
    const routes = [
      { to: '10.77.2.0/24', via: underlay(combination, 2), encap: true },
      { to: '10.77.66.0/24', via: underlay(combination, 66), encap: true },
    ];
    const otherRoutes = [
      { to: '10.77.1.0/24', via: underlay(combination, 1), encap: true },
      { to: '10.77.67.0/24', via: underlay(combination, 67), encap: false },
    ];
    const peers = [
      { address: underlay(combination, 2), mac: vtepMac(2) },
      { address: underlay(combination, 66), mac: vtepMac(6) },
    ];
    const tunnel = { protocol: 'vxlan', port: PORTS.vxlan, vni: VNI, mac: vtepMac(1), peers };
    await startPair(rig, combination, [{ pods: [pod], routes, tunnel }, { routes: otherRoutes }]);
    await rig.run('pod01', 'ping', '-n', '-c', '1', '-W', '2', there);
  });
  after(() => rig.close());

  const ping = (...args: string[]) => rig.exec('pod01', 'ping', '-n', '-c', '1', '-W', '2', ...args);
  const rises = async (counter: string, by: number, work: () => Promise<unknown>) => {
    const before = (await rig.counters('node01')).get(counter) ?? 0;
    const result = await work();
    // Who sent it may be done before the node has read it.
    await until(counter, async () => ((await rig.counters('node01')).get(counter) ?? 0) > before);
    assert.equal((await rig.counters('node01')).get(counter), before + by, counter);
    return result;
  };

  it('tells of an expired TTL on either node', async () => {
    await rises('drop-ttl-exceeded', 1, async () => {
      assert.match((await ping('-t', '1', there)).stdout, /From 10\.77\.1\.1 icmp_seq=1 Time to live exceeded/);
    });
    assert.match((await ping('-t', '2', there)).stdout, /From 10\.77\.2\.1 icmp_seq=1 Time to live exceeded/);
    assert.equal((await ping('-t', '3', there)).code, 0);
  });

  it('tracepath sees two hops and the MTU of the tunnel', async () => {
    const path = await rig.run('pod01', 'tracepath', '-n', '-m', '5', there);
    assert.match(path, /1: {2}10\.77\.1\.1 /);
    assert.match(path, /2: {2}10\.77\.2\.1 /);
    assert.match(path, /pmtu 1450 hops 3 back 3/);
  });

  it('says that fragmentation is needed, and with which MTU', async () => {
    await rig.ip('pod01', ['route flush cache']);
    await rises('drop-over-mtu-dont-fragment', 1, async () => {
      const { stdout } = await ping('-M', 'do', '-s', '1423', there);
      assert.match(stdout, /From 10\.77\.1\.1 icmp_seq=1 Frag needed and DF set \(mtu = 1450\)/);
    });
    assert.equal((await ping('-M', 'do', '-s', '1422', there)).code, 0);
  });

  it('fragments what may be fragmented', async () => {
    await rig.ip('pod01', ['route flush cache']);
    const before = await rig.counters('node01');
    assert.equal((await ping('-M', 'dont', '-s', '1472', there)).code, 0);
    const after = await rig.counters('node01');
    assert.equal(after.get('fragmented')! - (before.get('fragmented') ?? 0), 1);
    assert.equal(after.get('fragments-sent')! - (before.get('fragments-sent') ?? 0), 2);
  });

  it('lets a pod send from its own address only', async () => {
    await rig.ip('pod01', ['addr add 10.77.1.11/32 dev eth0']);
    await rises('drop-invalid-source', 1, async () => {
      assert.equal((await ping('-W', '1', '-I', '10.77.1.11', there)).code, 1);
    });
    await rig.ip('pod01', ['addr del 10.77.1.11/32 dev eth0']);
  });

  it('does not let a pod speak the tunnel to a node', async () => {
    await rises('drop-encap-from-workload', 1, () =>
      rig.run('pod01', 'bash', '-c', `echo spoof > /dev/udp/${underlay(combination, 2)}/${PORTS.vxlan}`),
    );
  });

  it('refuses the tunnel of a stranger', async () => {
    await rig.ip('sw', [
      `link add vx0 address ${vtepMac(2)} type vxlan id ${VNI} local 192.168.10.254 dev br0 dstport 8472 nolearning`,
      'addr add 10.77.2.99/32 dev vx0',
      'link set vx0 up',
      `route add ${here}/32 dev vx0 src 10.77.2.99`,
      `neigh add ${here} lladdr ${vtepMac(1)} dev vx0 nud permanent`,
    ]);
    await rig.run('sw', 'bridge', 'fdb', 'add', vtepMac(1), 'dev', 'vx0', 'dst', underlay(combination, 1));
    await rises('drop-encap-unknown-peer', 3, async () => {
      const { stdout } = await rig.exec('sw', 'ping', '-n', '-c', '3', '-i', '0.05', '-W', '1', here);
      assert.match(stdout, / 0 received/);
    });
  });

  it('tells a pod that its next hop or tunnel peer does not answer', async () => {
    // From two pods: two pings of one host take each other's errors.
    const [tunnel, plain] = await Promise.all(
      [
        ['pod01', '10.77.66.5'],
        ['pod02', '10.77.67.5'],
      ].map(([pod, to]) => rig.exec(pod, 'ping', '-n', '-c', '1', '-W', '5', to)),
    );
    assert.match(tunnel.stdout, /From 10\.77\.1\.1 icmp_seq=1 Destination Host Unreachable/);
    assert.match(plain.stdout, /From 10\.77\.2\.1 icmp_seq=1 Destination Host Unreachable/);
    for (const node of ['node01', 'node02'])
      assert.equal((await rig.counters(node)).get('drop-neighbor-unreachable'), 1);
  });

  it('answers for addresses without a route', async () => {
    const { stdout } = await ping('10.99.0.1');
    assert.match(stdout, /From 10\.77\.1\.1 icmp_seq=1 Destination Net Unreachable/);
  });

  it("reaches the pods and the peer's host port from the node itself", async () => {
    for (const to of [here, there, '10.77.2.1', underlay(combination, 2)])
      await rig.run('node01', 'ping', '-n', '-c', '1', '-W', '2', to);
  });

  it('goes on when the device of a pod disappears, and makes it again', async () => {
    await rig.ip('pod02', ['link del eth0']);
    await rig.run('node01', 'ping', '-n', '-c', '1', '-W', '2', '10.77.2.1');
    await until('the pod to answer again', async () => (await ping('-W', '1', there)).code === 0);
  });
});

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { type FlowRow, flowRow } from '../../datapath/control/nat-rows.ts';
import { type ResolvedConfig, resolveSegment, resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import { Replay } from '../../datapath/drive/replay.ts';
import { Sim } from '../../datapath/drive/sim.ts';
import { LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { rowOf } from '../../datapath/nat/translation.ts';
import { copyFlows } from '../../datapath/observe/copy-flows.ts';
import { explain, type Outcome } from '../../datapath/observe/explain.ts';
import { REASONS } from '../../datapath/observe/reasons.ts';
import { World } from '../../datapath/observe/world.ts';
import { Random } from '../../datapath/random.ts';
import { TOO_BIG_NAMES } from '../../datapath/route/nexthop.ts';
import { fragment, icmpEcho, icmpError, ip, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { MAIN } from '../fixtures/program.ts';
import { slowTransportOk } from '../model/checksum.ts';

const SEED = Number(process.env.SEED ?? 20261128);
const CONFIGS = Number(process.env.CONFIGS ?? 10);
const PACKETS = Number(process.env.PACKETS ?? 200);

const DF = 0x4000;
const PODS = { a: ['10.244.1.10', '10.244.1.11'], b: ['10.244.2.20', '10.244.2.21'] } as const;
type Name = keyof typeof PODS;
const NODES = { a: '192.168.10.1', b: '192.168.10.2' } as const;
const OTHER = { a: 'b', b: 'a' } as const;
const GATEWAY = '192.168.10.254';
const OUTSIDE = '203.0.113.5';

class Dice {
  private readonly random: Random;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  below(n: number): number {
    return this.random.below(n);
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

/** A pair of nodes of any make. @param kind how their uplinks are written */
function makePair(dice: Dice): (kind: 'tap' | 'segment') => Record<Name, ResolvedConfig> {
  const protocol = dice.of(['none', 'ipip', 'vxlan', 'geneve'] as const);
  const profile = dice.of(['linux', 'cilium', 'calico', 'flannel', 'rfc']);
  const mtu = dice.of([1500, 1500, 1400, 900]);
  const tooBig = dice.of(TOO_BIG_NAMES.filter(name => name !== 'larger-underlay'));
  const clampMss = dice.chance(40);
  const hasHost = dice.chance(80);
  const hasServices = dice.chance(60);
  const masquerades = dice.chance(60);
  const hasPolicies = dice.chance(40);
  const endpoints = [PODS.a[0], PODS.b[0], PODS.b[1]].slice(dice.below(4)).map(address => ({ address }));
  const external = dice.of(['Cluster', 'Local']);
  const make = (name: Name, kind: 'tap' | 'segment') => {
    const peer = OTHER[name];
    const own = { mac: `02:00:00:00:00:0${name === 'a' ? 1 : 2}`, address: `${NODES[name]}/24`, gateway: GATEWAY, mtu };
    const spec = {
      uplink: kind === 'tap' ? { kind, device: 'ul0', ...own } : { kind, segment: 'lan', ...own },
      ...(hasHost ? { host: { device: 'tp0', address: name === 'a' ? '10.244.1.1' : '10.244.2.1' } } : {}),
      pods: PODS[name].map((address, i) => ({
        name: `default/${name}${i}`,
        netns: `${name}${i}`,
        device: 'eth0',
        address,
        labels: { app: i === 0 ? 'web' : 'db' },
      })),
      remotePods: PODS[peer].map((address, i) => ({
        name: `default/${peer}${i}`,
        address,
        labels: { app: i === 0 ? 'web' : 'db' },
      })),
      ...(protocol === 'none' ? {} : { tunnel: { protocol, peers: [{ address: NODES[peer] }] } }),
      routes: [{ to: peer === 'b' ? '10.244.2.0/24' : '10.244.1.0/24', via: NODES[peer], encap: protocol !== 'none' }],
      mtu: { ...(protocol === 'none' ? {} : { tooBig }), clampMss },
      profile,
      ...(masquerades ? { masquerade: [{ from: ['10.244.0.0/16'], notTo: ['10.244.0.0/16'] }] } : {}),
      ...(hasServices
        ? {
            services: [
              {
                name: 'default/web',
                type: 'NodePort',
                addresses: ['10.96.0.10'],
                externalTrafficPolicy: external,
                ports: [
                  { name: 't', protocol: 'TCP', port: 80, targetPort: 8080, nodePort: 30080 },
                  { name: 'u', protocol: 'UDP', port: 53, targetPort: 5353, nodePort: 30053 },
                ],
                endpoints,
              },
            ],
          }
        : {}),
      ...(hasPolicies
        ? {
            policies: [
              {
                name: 'db',
                podSelector: { matchLabels: { app: 'db' } },
                ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 80 }] }],
              },
              {
                name: 'web',
                podSelector: { matchLabels: { app: 'web' } },
                policyTypes: ['Egress'],
                egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.244.2.21/32'] } }] }],
              },
            ],
          }
        : {}),
    };
    return load(stringify({ apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name }, spec }));
  };
  return kind => ({ a: make('a', kind), b: make('b', kind) });
}

function load(text: string): ResolvedConfig {
  const { config, problems } = loadConfig(text, 'test.yaml');
  assert.ok(config !== undefined, `${text}\n${formatProblems(problems ?? [])}`);
  const { uplink } = config.spec;
  if (uplink.kind === 'segment') return withUplink(config, resolveSegment(uplink));
  assert.ok(uplink.kind === 'tap');
  return withUplink(config, resolveTap(uplink));
}

/** What anybody behind a port of the node may send, right or wrong. @returns the port, and an IP packet */
function makePacket(dice: Dice, { metadata, spec }: ResolvedConfig): { port: string; bytes: Uint8Array } {
  const name = metadata.name as Name;
  const ports = [...spec.pods.map(pod => pod.name), ...(spec.host === undefined ? [] : ['tp0']), 'uplink'];
  const port = dice.of(ports);
  const pod = spec.pods.find(one => one.name === port);
  const hosts = [...PODS.a, ...PODS.b, NODES.a, NODES.b, '10.244.1.1', OUTSIDE, '10.96.0.10'];
  const usual = pod?.address ?? (port === 'uplink' ? OUTSIDE : '10.244.1.1');
  const src = dice.chance(90) ? usual : dice.of(hosts);
  const dst = dice.chance(5) ? dice.of(['0.1.2.3', '224.0.0.1', '10.9.9.9', '192.168.10.255']) : dice.of(hosts);
  const options = {
    src,
    dst,
    sport: 40000 + dice.below(20),
    ttl: dice.chance(8) ? dice.below(3) : 64,
    fragment: dice.chance(60) ? DF : 0,
    id: dice.below(65536),
  };
  const payload = pattern(
    dice.chance(20) ? dice.of([850, 1300, 1372, 1422, 1450, 2900]) + dice.below(40) : dice.below(60),
  );
  const dport = dice.of([80, 53, 8080, 30080, 30053, 9]);
  let bytes: Uint8Array;
  const kind = dice.below(10);
  if (kind < 4) bytes = tcp4({ ...options, dport, flags: dice.of([2, 2, 2, 0x12, 0x10, 0x11, 4, 3]), payload });
  else if (kind < 7) bytes = udp4({ ...options, dport, payload });
  else if (kind < 9) bytes = icmpEcho({ ...options, type: dice.of([8, 8, 8, 0, 13]), icmpId: dice.below(4), payload });
  else bytes = icmpError(3, dice.of([1, 4]), udp4({ src: dst, dst: OUTSIDE, payload }).subarray(0, 28), options);
  if (dice.chance(6) && bytes.length > 60) {
    const plain = udp4({ ...options, fragment: 0, dport, payload: pattern(90) });
    bytes = dice.chance(50) ? fragment(plain, 0, 40) : fragment(plain, 40, 58);
  }
  if (dice.chance(3)) bytes = bytes.subarray(0, dice.below(bytes.length)).slice();
  return { port: port === 'tp0' || port === 'uplink' ? port : `default/${name}${spec.pods.indexOf(pod!)}`, bytes };
}

const framed = (config: ResolvedConfig, { port, bytes }: { port: string; bytes: Uint8Array }) => {
  if (port !== 'uplink') return bytes;
  const frame = new Uint8Array(14 + bytes.length);
  const macs = `${config.spec.uplink.mac.replaceAll(':', '')}0200000000fe0800`;
  frame.set(Buffer.from(macs, 'hex'));
  frame.set(bytes, 14);
  return frame;
};

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('explain', () => {
  it('says of one node what a replay of the same packets comes to: verdict, reason, ports and bytes', function () {
    this.timeout(300_000);
    const outcomes = new Map<Outcome, number>();
    const reasons = new Set<string>();
    let total = 0;
    for (let n = 0; n < CONFIGS; n++) {
      const dice = new Dice(SEED + n);
      const { a } = makePair(dice)('tap');
      const world = new World([a], { seed: n + 1 });
      const replay = new Replay(a, { seed: n + 1 });
      for (let i = 0; i < PACKETS; i++) {
        const made = makePacket(dice, a);
        const bytes = framed(a, made);
        const found = explain(world, { node: 'a', port: made.port, bytes });
        const seen = replay.feed({
          frame: i + 1,
          seconds: 1_790_000_000,
          nanoseconds: 0,
          interface: made.port,
          direction: 0,
          layer: made.port === 'uplink' ? 2 : 3,
          bytes,
          wireLen: bytes.length,
          comment: '',
        });
        const at = `config ${SEED + n} packet ${i}: ${made.port} ${hexOf(made.bytes)}`;
        const sent = found.arrivals.map(({ port, bytes }) => `${port} ${hexOf(bytes)}`);
        assert.deepEqual(sent.sort(), seen.outputs.map(({ port, bytes }) => `${port} ${hexOf(bytes)}`).sort(), at);
        const dropped = found.visits.flatMap(visit => visit.dropped);
        const counted = seen.reasons.filter(reason => reason !== 'drop-icmp-rate-limit');
        assert.deepEqual([...new Set(dropped.map(({ reason }) => reason))].sort(), counted.sort(), at);
        assert.equal(
          found.outcome === 'refused',
          dropped.some(({ isOwn }) => !isOwn),
          at,
        );
        if (found.outcome !== 'refused') {
          const verdicts: Partial<Record<Outcome, string>> = { held: 'held', consumed: 'consumed' };
          if (counted.length === 0 && seen.verdict !== 'dropped') {
            assert.equal(verdicts[found.outcome] ?? 'forwarded', seen.verdict, at);
          }
        }
        for (const reason of found.reasons) reasons.add(reason);
        outcomes.set(found.outcome, (outcomes.get(found.outcome) ?? 0) + 1);
        total++;
      }
      world.close();
    }
    assert.equal(total, CONFIGS * PACKETS);
    for (const outcome of ['delivered', 'left', 'answered', 'refused', 'held'] as const) {
      assert.ok((outcomes.get(outcome) ?? 0) > 0, `${outcome}: ${JSON.stringify([...outcomes])}`);
    }
    assert.ok(reasons.size >= 12, [...reasons].join());
  });

  it('brings a packet to the other node as a segment does', function () {
    this.timeout(120_000);
    let crossed = 0;
    for (let n = 0; n < CONFIGS / 2; n++) {
      const dice = new Dice(SEED + 1000 + n);
      const pair = makePair(dice)('segment');
      const world = new World([pair.a, pair.b], { seed: 7 });
      const sim = new Sim({ slots: 2048 });
      sim.addSegment('lan');
      sim.addNode(pair.a, { seed: 7 });
      sim.addNode(pair.b, { seed: 8 });
      sim.run(0);
      for (let i = 0; i < PACKETS / 4; i++) {
        const name = dice.of(['a', 'b'] as const);
        const made = makePacket(dice, pair[name]);
        if (made.port === 'uplink') continue;
        const found = explain(world, { node: name, ...made });
        sim.nodes.get(name)!.inject(made.port, made.bytes);
        sim.settle();
        const sent: string[] = [];
        for (const node of sim.nodes.values()) {
          for (const port of node.datapath.ports.filter(one => one.device.layer === 3)) {
            for (const { bytes } of node.collect(port.name)) sent.push(`${node.name} ${port.name} ${hexOf(bytes)}`);
          }
        }
        const arrived = found.arrivals.filter(({ port }) => port !== 'uplink');
        const at = `config ${SEED + 1000 + n} packet ${i}: ${name} ${made.port} ${hexOf(made.bytes)}`;
        assert.deepEqual(
          arrived.map(({ node, port, bytes }) => `${node} ${port} ${hexOf(bytes)}`).sort(),
          sent.sort(),
          at,
        );
        if (found.outcome === 'delivered' && found.at?.node !== name) crossed++;
      }
      world.close();
      sim.close();
    }
    assert.ok(crossed > 8, String(crossed));
  });
});

const A = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: a }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24 }
  host: { device: tp0, address: 10.244.1.1/32 }
  pods: [{ name: default/p1, netns: p1, device: eth0, address: 10.244.1.10, labels: { app: web } }]
  tunnel: { protocol: vxlan, port: 8472, vni: 7, peers: [{ address: 192.168.10.2 }] }
  routes: [{ to: 10.244.2.0/24, via: 192.168.10.2, encap: true }]
  services:
    - { name: default/db, clusterIP: 10.96.0.10, ports: [{ port: 80, targetPort: 8080 }], endpoints: [{ address: 10.244.2.20 }] }
`;
const B = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: b }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:02, address: 192.168.10.2/24 }
  pods: [{ name: default/db, netns: db, device: eth0, address: 10.244.2.20, labels: { app: db } }]
  tunnel: { protocol: vxlan, port: 8472, vni: 7, peers: [{ address: 192.168.10.1 }] }
  routes: [{ to: 10.244.1.0/24, via: 192.168.10.1, encap: true }]
`;
const DENY = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nobody }
spec: { podSelector: { matchLabels: { app: db } } }
`;

describe('flows copied from another node', () => {
  it('are met by what answers them, also behind NAT, and by no other', () => {
    const outside = A.replace('192.168.10.1/24', `192.168.10.1/24, gateway: ${GATEWAY}`);
    const config = load(`${outside}  masquerade: [{ from: [10.244.0.0/16], notTo: [10.244.0.0/16] }]\n`);
    const running = new World([config], { seed: 3 });
    const frame = (packet: Uint8Array) => framed(config, { port: 'uplink', bytes: packet });
    explain(running, {
      node: 'a',
      port: 'default/p1',
      bytes: tcp4({ src: PODS.a[0], dst: OUTSIDE, dport: 443, flags: 2 }),
    });
    explain(running, {
      node: 'a',
      port: 'default/p1',
      bytes: tcp4({ src: PODS.a[0], dst: '10.96.0.10', dport: 80, flags: 2 }),
    });
    const { flows, now } = running.nodes.get('a')!.datapath;
    const rows: FlowRow[] = [];
    flows!.list(1, 1000, now, flow => rows.push(flowRow(rowOf(flows!, flow, now))));
    assert.equal(rows.length, 2);

    const copy = new World([config], { seed: 4 });
    assert.equal(copyFlows(copy, 'a', rows), 2);
    assert.equal(copyFlows(copy, 'a', rows), 0, 'their addresses are taken');
    const answer = tcp4({ src: OUTSIDE, dst: NODES.a, sport: 443, dport: 40000, seq: 77, flags: 0x12 });
    for (const world of [running, copy]) {
      const found = explain(world, { node: 'a', port: 'uplink', bytes: frame(answer) });
      assert.deepEqual([found.outcome, found.at], ['delivered', { node: 'a', port: 'default/p1' }]);
      const [arrived] = found.arrivals;
      assert.equal(new DataView(arrived.bytes.buffer, arrived.bytes.byteOffset).getInt32(16), ip(PODS.a[0]));
      assert.ok(slowTransportOk(arrived.bytes));
    }
    const other = tcp4({ src: OUTSIDE, dst: NODES.a, sport: 444, dport: 40000, flags: 0x12 });
    assert.notEqual(explain(copy, { node: 'a', port: 'uplink', bytes: frame(other) }).at?.port, 'default/p1');
    running.close();
    copy.close();
  });
});

describe('tunpath explain', function () {
  this.timeout(60_000);
  let dir = '';
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-explain-'));
    writeFileSync(join(dir, 'a.yaml'), A);
    writeFileSync(join(dir, 'b.yaml'), B);
    writeFileSync(join(dir, 'deny.yaml'), DENY);
    writeFileSync(join(dir, 'wrong.yaml'), A.replace('vni: 7', 'vni: -7'));
    const writer = new PcapWriter(join(dir, 'in.pcap'), LINK_RAW);
    for (const one of [icmpEcho({ src: '10.244.1.10', dst: '0.1.2.3' }), packet]) writer.write(1000, one);
    writer.close();
  });
  after(() => rmSync(dir, { recursive: true }));
  const packet = udp4({ src: '10.244.1.10', dst: '10.244.2.20', dport: 9 });
  const run = (...argv: string[]) =>
    spawnSync(process.execPath, [MAIN, 'explain', ...argv], { encoding: 'utf8', cwd: dir });
  const BOTH = ['--config', 'a.yaml', 'b.yaml'];

  it('shows every step there and back, with rows, rules and changed bytes', () => {
    const { stdout, stderr, status } = run('--from', 'p1', '--to', 'db:80', '--both', ...BOTH);
    assert.equal(status, 0, stderr);
    const service = run('--from', 'p1', '--to', '10.96.0.10:80', '--both', ...BOTH).stdout;
    for (const line of [
      /^ {3}1 {2}source check {6}10\.244\.1\.10 is an address of default\/p1$/m,
      /^ {3}4 {2}service {11}default\/db, service address 10\.96\.0\.10:80: backend 10\.244\.2\.20:8080$/m,
      /^ {3}6 {2}route {13}10\.244\.2\.0\/24 by tunnel vxlan to 192\.168\.10\.2, MTU 1450$/m,
      /@16 destination 10\.96\.0\.10 -> 10\.244\.2\.20 \[0a60000a -> 0af40214\]/,
      /@8 ttl 64 -> 63 \[40 -> 3f\]/,
      /\+ ipv4 \(192\.168\.10\.1 > 192\.168\.10\.2, ttl 64, 94 bytes\), udp \(\d+ > 8472\), vxlan \(VNI 7\), ethernet/,
      /^node b, in by uplink$/m,
      /^delivered to default\/db of node b$/m,
      /^answer: 10\.244\.2\.20 > 10\.244\.1\.10, .*; tcp 8080 > 40000, SYN, ACK$/m,
      /flow {14}reply direction of tcp SYN_RECV 10\.244\.1\.10:40000 > 10\.96\.0\.10:80/,
      /@12 source 10\.244\.2\.20 -> 10\.96\.0\.10/,
      /^delivered to default\/p1 of node a$/m,
    ]) {
      assert.match(service, line);
    }
    assert.match(stdout, /delivered to default\/db of node b/);
  });

  it('names the rule that refuses, its reason and its page; exit 1', () => {
    const { stdout, status } = run('--from', 'p1', '--to', '9.9.9.9:80', ...BOTH, '-o', 'json');
    assert.equal(status, 1);
    const { outcome, reasons, at } = JSON.parse(stdout) as { outcome: string; reasons: object[]; at: object };
    assert.deepEqual([outcome, at], ['refused', { node: 'a', port: 'default/p1' }]);
    const docs = 'docs/drops.md#drop-no-route';
    assert.deepEqual(reasons, [{ reason: 'drop-no-route', docs, ...REASONS['drop-no-route'] }]);
    const text = run('--from', 'p1', '--to', '9.9.9.9:80', ...BOTH).stdout;
    assert.match(text, /6 {2}route {13}drop-no-route no route to 9\.9\.9\.9/);
    assert.match(text, /out by default\/p1, \d+ bytes: the node says .*icmp type 3 code 0/);
    assert.ok(text.endsWith(`  ${docs}\n`), text);
  });

  it('sets other modes, MTUs and policies side by side', () => {
    const argv = ['--from', 'p1', '--to', '10.244.2.20:9', '--proto', 'udp', '--length', '1450', ...BOTH];
    const changes = ['mode=ipip', 'mode=native', 'mtu=1400', 'policy=deny.yaml'].flatMap(one => ['--what-if', one]);
    const { stdout, stderr, status } = run(...argv, ...changes);
    assert.equal(status, 0, stderr);
    const rows = stdout.slice(stdout.indexOf('CONFIGURATION')).trimEnd().split('\n').slice(1);
    assert.deepEqual(
      rows.map(row =>
        row
          .trim()
          .split(/ {3,}/)
          .filter(cell => cell !== '-'),
      ),
      [
        ['as it is', 'delivered', 'a b default/db', '1500', 'ipv4 udp vxlan ethernet ipv4 udp'],
        ['mode=ipip', 'delivered', 'a b default/db', '1470', 'ipv4 ipv4 udp'],
        ['mode=native', 'delivered', 'a b default/db', '1450', 'ipv4 udp'],
        ['mtu=1400', 'refused', 'drop-over-mtu-dont-fragment', 'a default/p1'],
        [
          'policy=deny.yaml',
          'refused',
          'drop-policy-denied-ingress',
          'a b uplink',
          '1500',
          'ipv4 udp vxlan ethernet ipv4 udp',
        ],
      ],
    );
  });

  it('takes a frame of a capture, and bytes in hex', () => {
    const shown = run('--hex', hexOf(packet), ...BOTH);
    assert.equal(shown.status, 0, shown.stderr);
    assert.equal(run('--pcap', 'in.pcap', '--frame', '2', ...BOTH).stdout, shown.stdout);
    const first = run('--pcap', 'in.pcap', ...BOTH);
    assert.equal(first.status, 1);
    assert.match(first.stdout, /drop-route-refused/);
  });

  const wrong: [what: string, argv: string[], message: RegExp][] = [
    ['no packet', BOTH, /expected one of --from POD --to ADDRESS:PORT, --pcap FILE, --hex BYTES/],
    [
      'an unknown pod',
      ['--from', 'p9', '--to', '10.0.0.1:1', ...BOTH],
      /--from p9: expected a pod \(default\/p1, default\/db\)/,
    ],
    ['an unknown target', ['--from', 'p1', '--to', 'nobody:1', ...BOTH], /--to nobody:1: expected ADDRESS:PORT/],
    [
      'a wrong configuration',
      ['--from', 'p1', '--to', '10.0.0.1:1', '--config', 'wrong.yaml'],
      /^wrong\.yaml:\d+:\d+: spec/,
    ],
    ['a file that is not there', ['--from', 'p1', '--to', '10.0.0.1:1', '--config', 'x.yaml'], /x\.yaml: no such file/],
    [
      'a frame that is not there',
      ['--pcap', 'in.pcap', '--frame', '9', ...BOTH],
      /--frame 9: in\.pcap has packets up to 2/,
    ],
    ['hex that is none', ['--hex', 'xyz', ...BOTH], /--hex: expected bytes/],
    [
      'another what-if',
      ['--hex', '45', '--what-if', 'x=1', '--node', 'a', ...BOTH],
      /--what-if x=1: expected mode=native/,
    ],
    [
      'a mode',
      ['--hex', '45', '--what-if', 'mode=x', '--node', 'a', ...BOTH],
      /--what-if mode=x: expected one of native, ipip/,
    ],
    [
      'an MTU',
      ['--hex', '45', '--what-if', 'mtu=1', '--node', 'a', ...BOTH],
      /--what-if mtu=1: expected a whole number from 68/,
    ],
    [
      'no policy',
      ['--hex', '45', '--what-if', 'policy=a.yaml', '--node', 'a', ...BOTH],
      /a\.yaml: kind: got "NodeConfig"/,
    ],
  ];
  it('refuses what it does not understand, and says what it expected; exit 2', () => {
    for (const [what, argv, message] of wrong) {
      const { status, stdout, stderr } = run(...argv);
      assert.equal(status, 2, `${what}: ${stderr}`);
      assert.equal(stdout, '', what);
      assert.match(stderr, message, what);
    }
  });
});

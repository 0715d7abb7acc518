/**
 * Offloads against a kernel that has none, against captures of what software segmentation puts on the wire, and as
 * `tunpath status` shows them.
 */
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Capture, decodeCapture } from '../../datapath/lab/capture.ts';
import { pattern } from '../fixtures/packets.ts';
import { BAD, KERNEL_POD, setUpKernelNode, spec } from './kernel-node.ts';
import { parseSnmp, Rig, type Running, until } from './rig.ts';

const WHOAMI = fileURLToPath(new URL('../../datapath/lab/whoami.js', import.meta.url));
const HTTP_PORT = 8080;
const BULK_PORT = 9001;
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const dropsOf = async (rig: Rig, node: string) =>
  [...(await rig.counters(node))].filter(([name]) => name.startsWith('drop-'));

// ---- a peer without offloads

/** For 1 GB, as the figures of the issue have it: TUNPATH_TEST_BYTES=1000000000. */
const BYTES = Number(process.env.TUNPATH_TEST_BYTES ?? 100_000_000);

/** Everything that could be left to a device, by ethtool's short names and as `ethtool -k` prints it. */
const FEATURES = {
  tx: 'tx-checksumming',
  rx: 'rx-checksumming',
  sg: 'scatter-gather',
  tso: 'tcp-segmentation-offload',
  gso: 'generic-segmentation-offload',
  gro: 'generic-receive-offload',
};

/** The devices of the kernel's node, from the switch to its pod. */
const KERNEL_DEVICES = [
  ['sw', 'up-k'],
  ['kernel', 'eth0'],
  ['kernel', 'flannel.1'],
  ['kernel', 'cni0'],
  ['kernel', 'veth0'],
  ['kpod', 'eth0'],
];

/** Devices without receive checksums to switch off: what they hand on is judged by those below them. */
const NO_RX = ['cni0'];

describe('offloads, against a kernel node that has none', function () {
  this.timeout(60_000);
  let rig: Rig;

  before(async () => {
    rig = new Rig('ooff');
    await rig.namespace('ours', 'pod', 'kernel', 'kpod');
    await rig.bridge('sw');
    await setUpKernelNode(rig);
    for (const [host, device] of KERNEL_DEVICES) {
      const off = Object.keys(FEATURES).flatMap(feature => [feature, 'off']);
      // Says 1 where a device has no such feature; what holds is checked below.
      await rig.exec(host, 'ethtool', '-K', device, ...off);
    }
    await rig.node('ours', spec(rig, 'auto'));
    await rig.plug('ours', 'ul0', 'sw', 'up-o');
    await rig.spawn('kpod', process.execPath, WHOAMI, `${HTTP_PORT}`, 'kpod', KERNEL_POD).until('listening');
  });
  after(() => rig.close());

  it('the kernel node has no offload left', async () => {
    for (const [host, device] of KERNEL_DEVICES) {
      const features = await rig.run(host, 'ethtool', '-k', device);
      for (const feature of Object.values(FEATURES)) {
        if (feature === FEATURES.rx && NO_RX.includes(device)) continue;
        assert.match(features, new RegExp(`^${feature}: off`, 'm'), `${host} ${device}`);
      }
    }
  });

  it(`${BYTES / 1e6} MB in each direction`, async () => {
    const url = `http://${KERNEL_POD}:${HTTP_PORT}`;
    const hashed = `set -o pipefail; curl -sS -m 55 -D headers ${url}/bytes/${BYTES} | tee body | sha256sum`;
    const down = await rig.run('pod', 'bash', '-c', `cd ${rig.directory} && ${hashed}`);
    const digest = /^x-sha256: ([0-9a-f]{64})/im.exec(await rig.run('pod', 'cat', join(rig.directory, 'headers')))?.[1];
    assert.equal(down.split(' ')[0], digest);
    const body = join(rig.directory, 'body');
    const up = await rig.run('pod', 'curl', '-sS', '-m', '55', '-H', 'Expect:', '-T', body, url);
    assert.equal(up, `sha256: ${digest}\nbytes: ${BYTES}`);
  });

  it('has used superpackets, and no kernel has seen a bad header or checksum', async () => {
    const [uplink] = (await rig.get<{ kind: string; rxPackets: number; txPackets: number }>('ours', 'ports')).filter(
      port => port.kind === 'uplink',
    );
    assert.ok(uplink.txPackets > BYTES / 1450 && uplink.rxPackets > BYTES / 1450, JSON.stringify(uplink));
    const counters = await rig.counters('ours');
    assert.equal(counters.get('segmented') ?? 0, 0, 'nothing was cut in software');
    for (const host of ['ours', 'pod', 'kernel', 'kpod']) {
      const seen = parseSnmp(await rig.run(host, 'cat', '/proc/net/snmp'));
      const bad = BAD.map(name => [name, seen.get(name)]);
      assert.deepEqual(
        bad,
        BAD.map(name => [name, 0]),
        host,
      );
    }
  });

  it('our node has dropped nothing', async () => {
    assert.deepEqual(await dropsOf(rig, 'ours'), []);
  });
});

// ---- software segmentation on the wire

const SEGMENT_FIELDS = [
  'ip.src',
  'ip.id',
  'ip.len',
  'ip.hdr_len',
  'ip.checksum.status',
  'tcp.srcport',
  'tcp.seq',
  'tcp.ack',
  'tcp.hdr_len',
  'tcp.flags',
  'tcp.checksum.status',
  'udp.srcport',
  'udp.length',
  'udp.checksum.status',
] as const;

/** An IP packet of a pod, as tshark reads it; on the wire the inner one. */
interface Segment {
  tcp: boolean;
  port: number;
  id: number;
  len: number;
  /** IP and transport. */
  headers: number;
  seq: number;
  ack: number;
  flags: number;
}

const GOOD_CHECKSUM = '1';
const FIN = 0x01;
const FIN_PSH = 0x09;
const CWR = 0x80;

/** Packets that `source` has sent, in order. Where `final`, their checksums are verified. */
async function readSegments(file: string, source: string, final: boolean): Promise<Segment[]> {
  const rows = await decodeCapture(file, SEGMENT_FIELDS, `(tcp || udp) && ip.src == ${source} && !icmp`);
  return rows.map(row => {
    const cell = Object.fromEntries(SEGMENT_FIELDS.map((field, i) => [field, row[i]]));
    const last = (field: (typeof SEGMENT_FIELDS)[number]) => Number(cell[field].at(-1));
    const tcp = cell['tcp.srcport'].length > 0;
    if (final) {
      const where = JSON.stringify(cell);
      assert.ok(
        cell['ip.checksum.status'].every(status => status === GOOD_CHECKSUM),
        where,
      );
      assert.equal(cell[tcp ? 'tcp.checksum.status' : 'udp.checksum.status'].at(-1), GOOD_CHECKSUM, where);
      if (!tcp) assert.equal(last('udp.length'), last('ip.len') - last('ip.hdr_len'), where);
    }
    return {
      tcp,
      port: last(tcp ? 'tcp.srcport' : 'udp.srcport'),
      id: last('ip.id'),
      len: last('ip.len'),
      headers: last('ip.hdr_len') + (tcp ? last('tcp.hdr_len') : 8),
      seq: tcp ? last('tcp.seq') : 0,
      ack: tcp ? last('tcp.ack') : 0,
      flags: tcp ? last('tcp.flags') : 0,
    };
  });
}

/** What a device would cut a superpacket into. `size`: payload bytes of a segment. */
function cut(p: Segment, size: number): Segment[] {
  const payload = p.len - p.headers;
  const count = Math.max(1, Math.ceil(payload / size));
  return Array.from({ length: count }, (_, i) => ({
    ...p,
    id: (p.id + i) & 0xffff,
    len: p.headers + Math.min(size, payload - i * size),
    seq: (p.seq + (p.tcp ? i * size : 0)) >>> 0,
    flags: p.flags & ~(i < count - 1 ? FIN_PSH : 0) & ~(i > 0 ? CWR : 0),
  }));
}

interface Way {
  protocol: 'ipip' | 'vxlan';
  offload: 'auto' | string[];
  mtu: number;
  /** True where the pod's kernel cuts and the datapath has nothing left to do. */
  podCuts: boolean;
}

const WAYS: Way[] = [
  { protocol: 'ipip', offload: 'auto', mtu: 1480, podCuts: false },
  { protocol: 'vxlan', offload: ['csum', 'tso', 'uso'], mtu: 1450, podCuts: false },
  { protocol: 'vxlan', offload: ['csum'], mtu: 1450, podCuts: true },
];

const TCP_BYTES = 400_000;
const CONNECTIONS = 10;
const TRAIN_BYTES = 60_000;
const DATAGRAM = 1300;
const TRAINS = 5;
/** Segment size and bytes in all: shorter than a TCP header, and with a rest shorter than the others. */
const SMALL_TRAINS = [
  [4, 8],
  [1, 2],
  [3, 11],
  [12, 13],
  [40, 64],
];

function pairSpec(rig: Rig, way: Way, side: number): object {
  const peer = 3 - side;
  const mac = (n: number) => `02:42:0a:f4:0${n}:00`;
  const vxlan = way.protocol === 'vxlan';
  return {
    uplink: { kind: 'tap', device: 'ul0', mac: `02:00:00:00:00:0${side}`, address: `192.168.10.${side}/24` },
    host: { device: 'tp0', address: `10.244.${side}.1/32` },
    pods: [{ name: 'default/p', netns: rig.full(`pod${side}`), device: 'eth0', address: `10.244.${side}.10` }],
    tunnel: {
      protocol: way.protocol,
      ...(vxlan ? { port: 8472, vni: 1, mac: mac(side) } : {}),
      peers: [{ address: `192.168.10.${peer}`, ...(vxlan ? { mac: mac(peer) } : {}) }],
    },
    routes: [{ to: `10.244.${peer}.0/24`, via: `192.168.10.${peer}`, encap: true }],
    profile: 'linux',
    offload: way.offload,
  };
}

/**
 * Two switches and a wire without offloads between them. On the near switch is what a node writes, where the kernel may
 * still owe checksums; on the wire everything is final.
 */
async function setUpWire(rig: Rig): Promise<void> {
  await rig.bridge('sw1');
  await rig.bridge('sw2');
  await rig.ip('sw1', [
    'link add wire type veth peer name wire2',
    `link set wire2 netns ${rig.full('sw2')} name wire`,
    'link set wire master br0 up',
  ]);
  await rig.ip('sw2', ['link set wire master br0 up']);
  for (const sw of ['sw1', 'sw2']) {
    await rig.exec(sw, 'ethtool', '-K', 'wire', ...Object.keys(FEATURES).flatMap(feature => [feature, 'off']));
  }
}

/** The lines of JSON that a bulk server has printed. */
const linesOf = (server: Running) =>
  server.output
    .split('\n')
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line));

for (const way of WAYS) {
  describe(`software segmentation into ${way.protocol}, offload ${String(way.offload)}`, function () {
    this.timeout(30_000);
    let rig: Rig;
    let server: Running;
    const captures: Capture[] = [];
    let sent: Segment[] = [];
    let written: Segment[] = [];
    let wire: Segment[] = [];

    before(async () => {
      rig = new Rig(`seg${WAYS.indexOf(way)}`);
      await rig.namespace('node1', 'node2', 'pod1', 'pod2');
      await setUpWire(rig);
      await Promise.all(
        [1, 2].map(async side => {
          await rig.node(`node${side}`, pairSpec(rig, way, side));
          await rig.plug(`node${side}`, 'ul0', `sw${side}`, 'ul');
        }),
      );
      server = rig.program('pod2', 'bulk', 'serve', `${BULK_PORT}`);
      await server.until('listening');
      // The first packet asks for a neighbour and waits; the rest is a plain path.
      await rig.run('pod1', 'ping', '-c', '1', '-W', '2', '10.244.2.10');
      for (const [host, device, snaplen] of [
        ['pod1', 'eth0', 128],
        ['sw1', 'ul', 128],
        ['sw2', 'wire', 2000],
      ] as const) {
        const options = { filter: '', snaplen, env: process.env };
        captures.push(await Capture.start(rig.full(host), device, join(rig.directory, `${host}.pcap`), options));
      }
      await rig.runProgram('pod1', 'bulk', 'tcp', '10.244.2.10', `${BULK_PORT}`, `${TCP_BYTES}`, `${CONNECTIONS}`);
      await rig.runProgram(
        'pod1',
        'bulk',
        'train',
        '10.244.2.10',
        `${BULK_PORT}`,
        `${DATAGRAM}`,
        `${TRAIN_BYTES}`,
        `${TRAINS}`,
      );
      await until('the last datagram', () => linesOf(server).length > CONNECTIONS);
      for (const capture of captures) assert.equal((await capture.stop()).dropped, 0, 'the capture has everything');
      sent = await readSegments(captures[0].path, '10.244.1.10', false);
      written = await readSegments(captures[1].path, '10.244.1.10', false);
      wire = await readSegments(captures[2].path, '10.244.1.10', true);
    });
    after(() => rig.close());

    it('everything arrives', () => {
      const lines = linesOf(server);
      assert.equal(lines.length, CONNECTIONS + 1);
      const stream = { bytes: TCP_BYTES, sha256: sha256(pattern(TCP_BYTES)) };
      for (const line of lines.slice(0, CONNECTIONS)) assert.deepEqual(line, stream);
      const trains = createHash('sha256');
      for (let i = 0; i < TRAINS; i++) trains.update(pattern(TRAIN_BYTES));
      const perTrain = Math.ceil(TRAIN_BYTES / DATAGRAM);
      assert.deepEqual(lines.at(-1), {
        datagrams: TRAINS * perTrain,
        lengths: [DATAGRAM, TRAIN_BYTES - (perTrain - 1) * DATAGRAM],
        sha256: trains.digest('hex'),
      });
    });

    it('nothing on the wire is longer than the MTU, and every checksum is good', () => {
      // readSegments has verified the checksums of every row.
      assert.ok(wire.length > (CONNECTIONS * TCP_BYTES + TRAINS * TRAIN_BYTES) / way.mtu);
      for (const p of wire) assert.ok(p.len <= way.mtu, JSON.stringify(p));
    });

    it('the segments are those that a device would have made', () => {
      const want = sent.flatMap(p => cut(p, p.tcp ? way.mtu - p.headers : DATAGRAM));
      assert.deepEqual(written, want);
      assert.deepEqual(wire, want);
    });

    it('superpackets were among them, one that ends with a FIN too', async () => {
      const big = sent.filter(p => p.len > way.mtu);
      const counters = await rig.counters('node1');
      if (way.podCuts) {
        assert.deepEqual(big, []);
        assert.equal(counters.get('segmented') ?? 0, 0);
        return;
      }
      assert.ok(big.some(p => p.tcp && p.len > 30_000));
      assert.ok(big.some(p => p.tcp && (p.flags & FIN_PSH) === FIN_PSH));
      assert.equal(big.filter(p => !p.tcp).length, TRAINS);
      assert.ok((counters.get('segmented') ?? 0) >= 1);
    });

    it('in each stream sequence numbers are contiguous and IP ids count', () => {
      for (const port of new Set(wire.filter(p => p.tcp).map(p => p.port))) {
        const stream = wire.filter(p => p.tcp && p.port === port && p.len > p.headers);
        let next = stream[0].seq;
        let ended = false;
        for (const [i, p] of stream.entries()) {
          if (i > 0) assert.equal(p.id, (stream[i - 1].id + 1) & 0xffff);
          // A busy machine makes a sender repeat its last segment (a tail loss probe); nothing else may go back.
          if (((p.seq - next) | 0) < 0) continue;
          assert.equal(p.seq, next);
          assert.ok(!ended, 'data behind a FIN');
          next = (p.seq + p.len - p.headers) >>> 0;
          ended = (p.flags & FIN) !== 0;
        }
      }
    });

    it('trains of a few bytes arrive, too, every datagram of them', async () => {
      for (const [size, bytes] of SMALL_TRAINS) {
        const before = linesOf(server).length;
        await rig.runProgram('pod1', 'bulk', 'train', '10.244.2.10', `${BULK_PORT}`, `${size}`, `${bytes}`, '1');
        await until('the end of the train', () => linesOf(server).length > before);
        const datagrams = Math.ceil(bytes / size);
        const rest = bytes - (datagrams - 1) * size;
        const lengths = rest === size ? [size] : [size, rest];
        assert.deepEqual(linesOf(server).slice(before), [{ datagrams, lengths, sha256: sha256(pattern(bytes)) }]);
      }
    });

    it('no node has dropped anything', async () => {
      for (const node of ['node1', 'node2']) assert.deepEqual(await dropsOf(rig, node), [], node);
    });
  });
}

// ---- what status says

interface Status {
  ports: { kind: string; offloads: string[]; refused: string[] }[];
}

const NOT_ALLOWED = 'not allowed by the configuration';
const NOT_ON_TUN = 'tunnel: not on a tun';

const STATUS: { offload: string | string[]; tun: [string[], string[]]; tap: [string[], string[]] }[] = [
  {
    offload: 'auto',
    tun: [['csum', 'tso', 'uso'], [NOT_ON_TUN]],
    tap: [['csum', 'tso', 'uso', 'tunnel'], []],
  },
  {
    offload: 'none',
    tun: [[], ['csum', 'tso', 'uso', 'tunnel'].map(name => `${name}: ${NOT_ALLOWED}`)],
    tap: [[], ['csum', 'tso', 'uso', 'tunnel'].map(name => `${name}: ${NOT_ALLOWED}`)],
  },
  {
    offload: ['csum'],
    tun: [['csum'], ['tso', 'uso', 'tunnel'].map(name => `${name}: ${NOT_ALLOWED}`)],
    tap: [['csum'], ['tso', 'uso', 'tunnel'].map(name => `${name}: ${NOT_ALLOWED}`)],
  },
  {
    offload: ['csum', 'tso'],
    tun: [['csum', 'tso'], ['uso', 'tunnel'].map(name => `${name}: ${NOT_ALLOWED}`)],
    tap: [['csum', 'tso'], ['uso', 'tunnel'].map(name => `${name}: ${NOT_ALLOWED}`)],
  },
  {
    offload: ['tso'],
    tun: [
      [],
      [
        `csum: ${NOT_ALLOWED}`,
        `tso: needs csum, which is ${NOT_ALLOWED}`,
        `uso: ${NOT_ALLOWED}`,
        `tunnel: ${NOT_ALLOWED}`,
      ],
    ],
    tap: [
      [],
      [
        `csum: ${NOT_ALLOWED}`,
        `tso: needs csum, which is ${NOT_ALLOWED}`,
        `uso: ${NOT_ALLOWED}`,
        `tunnel: ${NOT_ALLOWED}`,
      ],
    ],
  },
];

describe('offloads in tunpath status', function () {
  this.timeout(20_000);
  let rig: Rig;
  before(async () => {
    rig = new Rig('ost');
    await rig.namespace('ours', 'pod');
  });
  after(() => rig.close());

  for (const { offload, tun, tap } of STATUS) {
    it(`offload ${JSON.stringify(offload)}`, async () => {
      const node = await rig.node('ours', spec(rig, offload));
      const { ports } = await rig.status<Status>('ours');
      for (const { kind, offloads, refused } of ports) {
        assert.deepEqual([offloads, refused], kind === 'uplink' ? tap : tun, kind);
      }
      assert.equal(await node.stop(), 0);
    });
  }
});

/** The operations of the path, each by itself. Where another bench of this folder has the means already, they are used. */
import { hugeMemory } from '../../datapath/io/huge-memory.ts';
import { fragment } from '../../datapath/mtu/fragment.ts';
import { packDeltas, rewritePacket } from '../../datapath/nat/rewrite.ts';
import type { SelectorKind } from '../../datapath/nat/select.ts';
import { Services } from '../../datapath/nat/service.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { Random } from '../../datapath/random.ts';
import { Lpm } from '../../datapath/route/lpm.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import { sumWords } from '../../datapath/wire/checksum.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import * as tcp from '../../datapath/wire/tcp.ts';
import * as udp from '../../datapath/wire/udp.ts';
import { PER_ROUND, type Translation, Workload } from '../conntrack.ts';
import * as encap from '../encap.ts';
import { lookupAll } from '../lpm/lookup.ts';
import { internetTable } from '../prefixes.ts';
import * as segment from '../segment.ts';

export const GROUPS = [
  'parse',
  'lpm',
  'conntrack',
  'service',
  'rewrite',
  'encap',
  'checksum',
  'fragment',
  'segment',
] as const;
export type Group = (typeof GROUPS)[number];

export interface MicroCase {
  name: string;
  params: Record<string, unknown>;
  /** Default ns/packet. */
  unit?: string;
  /** How often one step does what is measured. */
  packets: number;
  step: () => void;
}

/** Made in the thread that measures it, and only there: some have tables of a million entries. */
export interface MicroPlan {
  group: Group;
  /** Part of a quick run. */
  quick: boolean;
  make: () => MicroCase;
}

const BATCH = 64;
const FLOWS = [1, 1000, 10_000, 100_000, 1_000_000];
const PREFIXES = [0, 10, 1000, 100_000, 1 << 20];
const SERVICES = [0, 1, 1000, 100_000];
const SELECTORS: readonly SelectorKind[] = ['random', 'round-robin', 'weighted', 'maglev'];
const BACKENDS = 10;
const CLIENT = 0x0af4010a;
const SERVER = 0x0af4020a;
const SERVICE = 0x0a600001;

/** `count` parsed packets of different flows. */
function packetsOf(protocol: number, size: number, count = BATCH): { pool: Pool; packets: Packet[] } {
  const pool = new Pool(count + 64);
  const { view } = pool;
  const packets = Array.from({ length: count }, (_, i) => {
    const p = pool.take()!;
    p.len = size;
    view.setInt32(p.off, 0x45000000 | size);
    view.setInt32(p.off + ipv4.TTL, (64 << 24) | (protocol << 16));
    view.setInt32(p.off + ipv4.SRC, CLIENT);
    view.setInt32(p.off + ipv4.DST, SERVER);
    ipv4.setHeaderChecksum(view, p.off);
    const l4 = p.off + ipv4.HEADER_LEN;
    view.setInt32(l4, ((40000 + i) << 16) | 80);
    if (protocol === ipv4.PROTO_TCP) view.setUint8(l4 + tcp.DATA_OFFSET, 5 << 4);
    else view.setInt32(l4 + udp.LENGTH, ((size - ipv4.HEADER_LEN) << 16) | 0x1234);
    if (parseIpv4(view, p) !== CONTINUE) throw new Error('the packet does not parse');
    return p;
  });
  return { pool, packets };
}

function parseCase(protocol: number, label: string): MicroCase {
  const { pool, packets } = packetsOf(protocol, 64);
  const step = () => {
    for (let i = 0; i < BATCH; i++) if (parseIpv4(pool.view, packets[i]) !== CONTINUE) throw new Error('refused');
  };
  return { name: 'parse', params: { protocol: label, size: 64 }, packets: BATCH, step };
}

function checksumCase(size: number): MicroCase {
  const { pool, packets } = packetsOf(ipv4.PROTO_UDP, 1500, 8);
  let kept = 0;
  const step = () => {
    for (let i = 0; i < 8; i++) kept = (kept + sumWords(pool.view, packets[i].off, size, kept & 1)) | 0;
  };
  return { name: 'checksum', params: { size }, packets: 8, step };
}

/** Addresses are drawn from 2^18 random ones: hardly two lookups share a cache line of a big table. */
function lpmCase(prefixes: number): MicroCase {
  const random = new Random(0x1234567);
  const addresses = new Int32Array(1 << 18).map(() => random.next());
  const routes = internetTable(random, prefixes, 256);
  const lpm = new Lpm();
  lpm.replaceAll(routes.prefixes, routes.lengths, routes.values);
  const expected = lookupAll(lpm, addresses);
  const step = () => {
    if (lookupAll(lpm, addresses) !== expected) throw new Error('another answer');
  };
  return { name: 'lpm lookup', params: { prefixes }, packets: addresses.length, step };
}

function hitCase(flows: number, translation: Translation): MicroCase {
  const w = new Workload(flows, ipv4.PROTO_UDP, translation, hugeMemory);
  w.create();
  const name = translation === 'none' ? 'conntrack hit' : `conntrack hit and ${translation}`;
  return { name, params: { flows }, packets: PER_ROUND, step: () => w.hit() };
}

/** With one flow the table is as good as empty. */
function missCase(flows: number): MicroCase {
  const w = new Workload(flows, ipv4.PROTO_UDP, 'none', hugeMemory);
  w.create();
  return { name: 'conntrack miss', params: { flows }, packets: PER_ROUND, step: () => w.miss() };
}

/** With DNAT the new flow is rewritten besides, with SNAT a port is allocated for it. */
function createCase(flows: number, translation: Translation): MicroCase {
  const w = new Workload(flows, ipv4.PROTO_UDP, translation, hugeMemory);
  const step = () => {
    w.create();
    w.expire();
  };
  const name = translation === 'none' ? 'conntrack create and expire' : `conntrack create and expire, ${translation}`;
  return { name, params: { flows }, unit: 'ns/flow', packets: flows, step };
}

/** Without any service: what every new flow pays for there being such a table. */
function serviceCase(count: number, selector: SelectorKind): MicroCase {
  const services = new Services(new Random(5));
  for (let i = 0; i < count; i++) {
    services.set({
      name: `bench/${i}`,
      clusterAddresses: [SERVICE + i],
      selector,
      maglevSize: 1021,
      ports: [
        {
          protocol: ipv4.PROTO_UDP,
          port: 80,
          endpoints: Array.from({ length: BACKENDS }, (_, k) => ({
            address: SERVER + k,
            port: 8080,
            ready: true,
            serving: true,
            terminating: false,
            local: false,
          })),
        },
      ],
    });
  }
  const { packets } = packetsOf(ipv4.PROTO_UDP, 64);
  const random = new Random(9);
  for (const p of packets) p.dst = SERVICE + random.below(Math.max(1, count));
  const step = () => {
    for (let i = 0; i < BATCH; i++) {
      if (services.select(packets[i], 0, 1) !== CONTINUE) throw new Error('refused');
      if ((packets[i].backend === 0) !== (count === 0)) throw new Error('another backend than expected');
    }
  };
  return { name: 'service pick', params: { services: count, selector, backends: BACKENDS }, packets: BATCH, step };
}

/** There and back, so that the packet is the same again. */
function rewriteCase(protocol: number, label: string): MicroCase {
  const { pool, packets } = packetsOf(protocol, 64);
  const { view } = pool;
  const to = SERVER + 77;
  const step = () => {
    for (let i = 0; i < BATCH; i++) {
      const p = packets[i];
      const ports = (p.srcPort << 16) | 80;
      const newPorts = (p.srcPort << 16) | 8080;
      rewritePacket(view, p, CLIENT, to, newPorts, packDeltas(CLIENT, SERVER, ports, CLIENT, to, newPorts));
      rewritePacket(view, p, CLIENT, SERVER, ports, packDeltas(CLIENT, to, newPorts, CLIENT, SERVER, ports));
    }
  };
  return { name: 'rewrite', params: { protocol: label }, packets: 2 * BATCH, step };
}

function encapCase(c: encap.Case, size: number, way: 'encap' | 'decap'): MicroCase {
  const ways = encap.makeWays(c, size);
  ways.runEncap(BATCH);
  const step = () => (way === 'encap' ? ways.runEncap(BATCH) : ways.runDecap(BATCH));
  return { name: way, params: { tunnel: c.tunnel, size }, packets: BATCH, step };
}

function fragmentCase(size: number): MicroCase {
  const { pool, packets } = packetsOf(ipv4.PROTO_UDP, size, 1);
  const out: Packet[] = new Array(64).fill(packets[0]);
  const count = fragment(pool, packets[0], 1500, out);
  for (let i = 0; i < count; i++) pool.release(out[i]);
  const step = () => {
    const n = fragment(pool, packets[0], 1500, out);
    for (let i = n - 1; i >= 0; i--) pool.release(out[i]);
  };
  return { name: 'fragment', params: { size, mtu: 1500 }, unit: 'ns/fragment', packets: count, step };
}

function segmentCase(make: () => segment.Case): MicroCase {
  const { name, params, unit, packets, step } = make();
  return { name, params, unit, packets: unit === segment.PACKET ? packets : 1, step };
}

type Make = () => MicroCase;

/** @param quick those of them that a quick run has, too */
function plansOf(group: Group, makes: readonly Make[], quick: readonly Make[] = []): MicroPlan[] {
  const plan = (make: Make, inQuick: boolean): MicroPlan => ({ group, make, quick: inQuick });
  return [...quick.map(make => plan(make, true)), ...makes.map(make => plan(make, false))];
}

/** A case for each value; `quick`: the values that a quick run has. */
function sweep<T>(group: Group, make: (value: T) => MicroCase, values: readonly T[], quick: readonly T[]): MicroPlan[] {
  return values.map(value => ({ group, make: () => make(value), quick: quick.includes(value) }));
}

const { PROTO_TCP, PROTO_UDP } = ipv4;
const [IPIP, VXLAN, GENEVE, VXLAN_CHECKSUM] = encap.CASES;
const ENCAPS = encap.CASES.flatMap(c => encap.SIZES.map(size => ({ c, size })));
/** Small packets through each tunnel, and a checksum over a big one. */
const QUICK_ENCAPS = ENCAPS.filter(
  ({ c, size }) => (size === 64 && [IPIP, VXLAN, GENEVE].includes(c)) || (size !== 64 && c === VXLAN_CHECKSUM),
);
const QUICK_SEGMENTS = segment.CASES.filter((_, i) => [0, 4, 8].includes(i));

export const PLANS: readonly MicroPlan[] = [
  ...plansOf('parse', [() => parseCase(PROTO_TCP, 'tcp')], [() => parseCase(PROTO_UDP, 'udp')]),
  ...sweep('lpm', lpmCase, PREFIXES, [0, 1000, 1 << 20]),
  ...sweep('conntrack', n => hitCase(n, 'none'), FLOWS, [1, 10_000, 1_000_000]),
  ...sweep('conntrack', missCase, FLOWS, [10_000]),
  ...sweep('conntrack', n => createCase(n, 'none'), FLOWS, [1000, 100_000]),
  ...plansOf(
    'conntrack',
    [() => createCase(10_000, 'DNAT'), () => createCase(10_000, 'SNAT')],
    [() => hitCase(10_000, 'DNAT'), () => hitCase(10_000, 'SNAT')],
  ),
  ...sweep('service', n => serviceCase(n, 'random'), SERVICES, [0, 1000]),
  ...sweep('service', (kind: SelectorKind) => serviceCase(1000, kind), SELECTORS.slice(1), ['maglev']),
  ...plansOf('rewrite', [() => rewriteCase(PROTO_TCP, 'tcp')], [() => rewriteCase(PROTO_UDP, 'udp')]),
  ...sweep('encap', ({ c, size }) => encapCase(c, size, 'encap'), ENCAPS, QUICK_ENCAPS),
  ...sweep('encap', ({ c, size }) => encapCase(c, size, 'decap'), ENCAPS, QUICK_ENCAPS),
  ...sweep('checksum', checksumCase, [20, 64, 1460, 65_535], [20, 1460]),
  ...sweep('fragment', fragmentCase, [4000, 65_535], [4000]),
  ...sweep('segment', segmentCase, segment.CASES, QUICK_SEGMENTS),
];

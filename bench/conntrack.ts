/**
 * What does following flows cost? Nanoseconds per packet for a hit, a miss, a new flow, an expired one, and for a hit
 * with its destination or source rewritten, with few and with many flows; bytes per flow; heap bytes per packet (must
 * be 0).
 *
 *   node dist/bench/conntrack.js [-o json] [--flows 1000,10000,...]
 *
 * Flows are hit in random order: with many of them this measures memory, two cache lines per UDP hit. "huge pages"
 * rows have the table in memory with 2 MiB pages (mmap, madvise), which spares the page walks.
 * Packets are parsed once; their fields are set by hand for each flow, so the figures are those of the step alone.
 */
import { formatGrid } from '../datapath/cli/table.ts';
import { Flows } from '../datapath/flow/flows.ts';
import { ENTRY_BYTES } from '../datapath/flow/table.ts';
import { hugeMemory } from '../datapath/io/huge-memory.ts';
import { Translation as Nat } from '../datapath/nat/translation.ts';
import type { Packet } from '../datapath/packet/packet.ts';
import { parseIpv4 } from '../datapath/packet/parse.ts';
import { Pool } from '../datapath/packet/pool.ts';
import { Random } from '../datapath/random.ts';
import { CONTINUE } from '../datapath/verdict.ts';
import * as ipv4 from '../datapath/wire/ipv4.ts';
import * as tcp from '../datapath/wire/tcp.ts';
import * as udp from '../datapath/wire/udp.ts';
import { environment } from './environment.ts';
import { isMainModule } from './main-module.ts';
import type { Summary } from './stats.ts';
import { summarize } from './stats.ts';

const ROUNDS = 7;
export const PER_ROUND = 200_000;
const HEAP_PACKETS = 3_000_000;
const DST = 0x0af4020a;
const BACKEND = 0x0af40303;
const OUTSIDE = 0xc0a80a01 | 0;

export type Translation = 'none' | 'DNAT' | 'SNAT';

function fill(pool: Pool, protocol: number): Packet {
  const p = pool.take();
  if (p === null) throw new Error('pool too small');
  const { view } = pool;
  p.len = 64;
  view.setInt32(p.off, 0x45000000 | p.len);
  view.setInt32(p.off + ipv4.TTL, (64 << 24) | (protocol << 16));
  view.setInt32(p.off + ipv4.SRC, 0x0af40000);
  view.setInt32(p.off + ipv4.DST, DST);
  ipv4.setHeaderChecksum(view, p.off);
  const l4 = p.off + ipv4.HEADER_LEN;
  view.setInt32(l4, (1024 << 16) | 80);
  if (protocol === ipv4.PROTO_TCP) {
    view.setUint8(l4 + tcp.DATA_OFFSET, 5 << 4);
    view.setUint8(l4 + tcp.FLAGS, tcp.ACK_FLAG);
    view.setUint16(l4 + tcp.WINDOW, 512);
    view.setUint16(l4 + tcp.CHECKSUM, 1);
  } else {
    view.setUint16(l4 + udp.LENGTH, 44);
    view.setUint16(l4 + udp.CHECKSUM, 1);
  }
  if (parseIpv4(view, p) !== CONTINUE) throw new Error('the packet does not parse');
  return p;
}

/** CPU time, not wall time: on a shared machine the neighbours weigh less. */
function nsPer(n: number, run: () => void): number {
  const start = process.cpuUsage();
  run();
  const used = process.cpuUsage(start);
  return ((used.user + used.system) * 1000) / n;
}

export class Workload {
  readonly flows: Flows;
  private readonly nat: Nat;
  readonly p: Packet;
  private readonly n: number;
  private readonly order: Int32Array;
  private readonly translation: Translation;
  private now = 1;

  constructor(n: number, protocol: number, translation: Translation, memory?: (bytes: number) => Uint8Array) {
    const pool = new Pool(1);
    this.n = n;
    this.translation = translation;
    this.flows = new Flows(pool.view, { capacity: Math.max(16, n), random: new Random(7), memory });
    this.nat = new Nat(pool.view, this.flows, { random: new Random(8) });
    this.p = fill(pool, protocol);
    const random = new Random(3);
    this.order = Int32Array.from({ length: PER_ROUND }, () => random.below(n));
  }

  /** Makes the packet one of flow `i`: 1024 client ports per address. */
  private address(i: number): void {
    const { p } = this;
    p.src = 0x0af40000 + (i >>> 10);
    p.dst = DST;
    p.srcPort = 1024 + (i & 1023);
    p.dstPort = 80;
  }

  /** Makes all flows. @returns ns per flow */
  create(): number {
    const { flows, nat, p, n, translation } = this;
    return nsPer(n, () => {
      for (let i = 0; i < n; i++) {
        this.address(i);
        let verdict = flows.track(p, this.now);
        if (translation === 'DNAT') verdict |= nat.translateDestination(p, BACKEND, 8080, 0);
        // An outside address for every 1024 flows, so that each port can be kept.
        else if (translation === 'SNAT') verdict |= nat.translateSource(p, OUTSIDE + (i >>> 10), 1, true, this.now);
        verdict |= nat.confirm(p, this.now);
        if (verdict !== CONTINUE) throw new Error(`flow ${i}: verdict ${verdict}`);
      }
    });
  }

  hit(): void {
    const { flows, nat, p, order, now } = this;
    for (let i = 0; i < order.length; i++) {
      this.address(order[i]);
      if (flows.track(p, now) + nat.follow(p) + nat.translate(p) !== CONTINUE) throw new Error('refused');
    }
  }

  miss(): void {
    const { table } = this.flows;
    const { p, order, now } = this;
    for (let i = 0; i < order.length; i++) {
      this.address(order[i]);
      if (table.find(p.src, p.dst, (p.srcPort << 16) | 81, p.protocol, now) >= 0) throw new Error('found');
    }
  }

  /** Lets all flows expire and sweeps them up. @returns ns per flow */
  expire(): number {
    const { flows, n } = this;
    this.now = (this.now + 2_000_000_000) | 0;
    const ns = nsPer(n, () => {
      while (flows.table.used > 0) flows.table.sweep(this.now, 4096);
    });
    return ns;
  }

  heapPerPacket(): number {
    const growth = () => {
      this.hit();
      const before = process.memoryUsage().heapUsed;
      for (let i = 0; i < HEAP_PACKETS; i += PER_ROUND) this.hit();
      return process.memoryUsage().heapUsed - before;
    };
    return Math.max(0, Math.round((100 * Math.min(growth(), growth())) / HEAP_PACKETS) / 100);
  }
}

function rounds(run: () => void): Summary {
  run();
  return summarize(Array.from({ length: ROUNDS }, () => nsPer(PER_ROUND, run)));
}

interface Result {
  suite: 'conntrack';
  name: string;
  unit: string;
  params: { flows: number; protocol?: string; memory?: string };
  ours: Summary;
}

function main(): void {
  const json = process.argv.includes('json');
  const chosen = process.argv.indexOf('--flows');
  const counts = (chosen < 0 ? '1000,10000,100000,1000000' : process.argv[chosen + 1]).split(',').map(Number);
  const results: Result[] = [];
  const add = (name: string, unit: string, params: Result['params'], ours: Summary) =>
    results.push({ suite: 'conntrack', name, unit, params, ours });

  // Warm up on a small table, so that the first rows are not those of the interpreter.
  for (const translation of ['none', 'DNAT', 'SNAT'] as const) {
    for (const protocol of [ipv4.PROTO_UDP, ipv4.PROTO_TCP]) {
      const w = new Workload(20_000, protocol, translation);
      w.create();
      w.hit();
      w.miss();
      w.expire();
    }
  }
  for (const flows of counts) {
    for (const [label, protocol] of [
      ['udp', ipv4.PROTO_UDP],
      ['tcp', ipv4.PROTO_TCP],
    ] as const) {
      const w = new Workload(flows, protocol, 'none');
      const created = [w.create()];
      add(
        'hit',
        'ns/packet',
        { flows, protocol: label },
        rounds(() => w.hit()),
      );
      if (label === 'udp') {
        add(
          'miss',
          'ns/packet',
          { flows },
          rounds(() => w.miss()),
        );
        add('heap', 'bytes/packet', { flows }, summarize([w.heapPerPacket()]));
      }
      const expired: number[] = [];
      for (let round = 0; round < (flows > 200_000 ? 3 : ROUNDS); round++) {
        expired.push(w.expire());
        created.push(w.create());
      }
      add('miss and create', 'ns/flow', { flows, protocol: label }, summarize(created.slice(1)));
      add('expire', 'ns/flow', { flows, protocol: label }, summarize(expired));
    }
    for (const translation of ['DNAT', 'SNAT'] as const) {
      const w = new Workload(flows, ipv4.PROTO_UDP, translation);
      w.create();
      add(
        `hit and ${translation}`,
        'ns/packet',
        { flows, protocol: 'udp' },
        rounds(() => w.hit()),
      );
    }
    if (flows >= 100_000) {
      const w = new Workload(flows, ipv4.PROTO_UDP, 'none', hugeMemory);
      w.create();
      add(
        'hit',
        'ns/packet',
        { flows, protocol: 'udp', memory: 'huge pages' },
        rounds(() => w.hit()),
      );
    }
    const { bytesPerEntry } = new Flows(new Pool(1).view, { capacity: flows, random: new Random(1) }).table;
    add('memory', 'bytes/flow', { flows }, summarize([bytesPerEntry]));
  }

  const env = environment();
  if (json) {
    process.stdout.write(`${JSON.stringify({ environment: env, results }, null, 2)}\n`);
    return;
  }
  const table: unknown[][] = [];
  for (const { name, params, unit, ours } of results) {
    const what = [name, params.protocol, params.memory].filter(Boolean).join(', ');
    table.push([what, params.flows, ours.median.toFixed(1), ours.ci95.map(x => x.toFixed(1)).join('-'), unit]);
  }
  process.stdout.write(
    `${formatGrid(['WHAT', 'FLOWS', 'MEDIAN', 'CI95', 'UNIT'], table)}entry ${ENTRY_BYTES} bytes; ${env.cpu}, ${env.cores} cores, node ${env.node}\n`,
  );
}

if (isMainModule(import.meta.url)) main();

/**
 * What does the lack of an offload cost? Nanoseconds to cut a superpacket of 64 KiB into segments and to make one of
 * them, and what coalescing costs traffic that cannot be merged; bytes of heap allocated per packet (which must be 0).
 *
 *   node dist/bench/segment.js [-o json]      (with --expose-gc the heap figure starts from a clean heap)
 *
 * Segments of 1448 bytes (MTU 1500) lie alike in their words and are copied by words; those of 1398 (inside VXLAN) do not.
 * Coalescing includes taking the merged packets from the pool again and restoring the first header. "verified" means
 * that the device has vouched for the checksums; without, each is computed.
 */
import { formatGrid } from '../datapath/cli/table.ts';
import { Coalescer } from '../datapath/packet/coalesce.ts';
import type { Packet } from '../datapath/packet/packet.ts';
import { parseIpv4 } from '../datapath/packet/parse.ts';
import { Pool } from '../datapath/packet/pool.ts';
import { segment, segmentsOf } from '../datapath/packet/segment.ts';
import { CONTINUE } from '../datapath/verdict.ts';
import { foldSum, pseudoSum } from '../datapath/wire/checksum.ts';
import * as ipv4 from '../datapath/wire/ipv4.ts';
import * as tcp from '../datapath/wire/tcp.ts';
import * as udp from '../datapath/wire/udp.ts';
import * as virtio from '../datapath/wire/virtio-net.ts';
import { environment } from './environment.ts';
import { isMainModule } from './main-module.ts';
import { median, type Summary, summarize } from './stats.ts';

const ROUNDS = 11;
const ROUND_MS = 60;
const HEAP_STEPS = 20_000;
export const PACKET = 'ns/packet';
const SUPERPACKET = 'ns/superpacket';
const SRC = 0x0af4010a;
const DST = 0x0af4020a;
const HEADERS = ipv4.HEADER_LEN + tcp.HEADER_LEN + 12; // timestamps, as Linux sends them
const UDP_HEADERS = ipv4.HEADER_LEN + udp.HEADER_LEN;

const pool = new Pool(160);
const view = pool.view;

/** A parsed superpacket of `payload` bytes; `flow` varies its source port. */
function superpacket(protocol: number, payload: number, gsoSize: number, flow = 0): Packet {
  const p = pool.take();
  if (p === null) throw new Error('pool too small');
  const isTcp = protocol === ipv4.PROTO_TCP;
  p.len = payload + (isTcp ? HEADERS : UDP_HEADERS);
  for (let i = 0; i < p.len; i++) pool.bytes[p.off + i] = (i * 167 + flow) & 255;
  view.setInt32(p.off, 0x45000000 | p.len);
  view.setInt32(p.off + ipv4.ID, 0x12340000 | ipv4.FLAG_DF);
  view.setInt32(p.off + ipv4.TTL, (64 << 24) | (protocol << 16));
  view.setInt32(p.off + ipv4.SRC, SRC);
  view.setInt32(p.off + ipv4.DST, DST);
  ipv4.setHeaderChecksum(view, p.off);
  const l4 = p.off + ipv4.HEADER_LEN;
  const l4Len = p.len - ipv4.HEADER_LEN;
  view.setInt32(l4, ((40000 + flow) << 16) | 5201);
  if (isTcp) view.setInt32(l4 + tcp.DATA_OFFSET, 0x80100200);
  else view.setUint16(l4 + udp.LENGTH, l4Len);
  p.vnetFlags = virtio.FLAG_NEEDS_CSUM;
  p.csumStart = l4;
  p.csumOffset = isTcp ? tcp.CHECKSUM : udp.CHECKSUM;
  p.gsoType = isTcp ? virtio.GSO_TCPV4 : virtio.GSO_UDP_L4;
  p.gsoSize = gsoSize;
  view.setUint16(l4 + p.csumOffset, foldSum(pseudoSum(SRC, DST, protocol, l4Len)));
  if (parseIpv4(view, p) !== CONTINUE) throw new Error('the superpacket does not parse');
  return p;
}

const out: Packet[] = new Array(160).fill(pool.packets[0]);

function cut(p: Packet): Packet[] {
  const n = segment(pool, p, out, out.length);
  if (n === 0) throw new Error('pool too small');
  return out.slice(0, n);
}

export interface Case {
  name: string;
  unit: string;
  params: Record<string, unknown>;
  /** Packets on the wire that one step works on. */
  packets: number;
  step: () => void;
  end: () => void;
}

function segmentCase(protocol: number, payload: number, gsoSize: number): Case {
  const p = superpacket(protocol, payload, gsoSize);
  const step = () => {
    const n = segment(pool, p, out, out.length);
    for (let i = n - 1; i >= 0; i--) pool.release(out[i]);
  };
  const params = { protocol: protocol === ipv4.PROTO_TCP ? 'tcp' : 'udp', bytes: p.len, gsoSize };
  return { name: 'segment', unit: SUPERPACKET, params, packets: segmentsOf(view, p), step, end: () => pool.release(p) };
}

/** @param perPacket figures per segment, not per superpacket */
function coalesceCase(protocol: number, payload: number, gsoSize: number, verified: boolean, perPacket: boolean): Case {
  const p = superpacket(protocol, payload, gsoSize);
  const burst = cut(p);
  pool.release(p);
  const n = burst.length;
  const offs = burst.map(q => q.off);
  const lens = burst.map(q => q.len);
  const head = Uint8Array.from(pool.bytes.subarray(offs[0], offs[0] + HEADERS));
  const coalescer = new Coalescer(pool, { layer: 3, tcp: true, ecn: true, udp: true });
  const work = burst.slice();
  const step = () => {
    for (let i = 0; i < n; i++) {
      const q = burst[i];
      q.off = offs[i];
      q.len = lens[i];
      q.vnetFlags = verified ? virtio.FLAG_DATA_VALID : 0;
      q.gsoType = 0;
      work[i] = q;
    }
    pool.bytes.set(head, offs[0]);
    if (coalescer.coalesce(work, n) !== 1) throw new Error('not merged into one');
    for (let i = 1; i < n; i++) pool.take();
  };
  const bytes = payload + (protocol === ipv4.PROTO_TCP ? HEADERS : UDP_HEADERS);
  const params = { protocol: protocol === ipv4.PROTO_TCP ? 'tcp' : 'udp', bytes, gsoSize, verified };
  const end = () => {
    for (const q of burst) pool.release(q);
  };
  return { name: 'coalesce', unit: perPacket ? PACKET : SUPERPACKET, params, packets: n, step, end };
}

/** 64 packets of as many flows: nothing to merge. */
function unmergeableCase(): Case {
  const burst = Array.from({ length: 64 }, (_, flow) => {
    const p = superpacket(ipv4.PROTO_UDP, 36, 36, flow);
    const [q] = cut(p);
    pool.release(p);
    return q;
  });
  const coalescer = new Coalescer(pool, { layer: 3, tcp: true, ecn: true, udp: true });
  const step = () => {
    if (coalescer.coalesce(burst, 64) !== 64) throw new Error('something was merged');
  };
  const end = () => {
    for (const q of burst) pool.release(q);
  };
  return {
    name: 'coalesce nothing',
    unit: PACKET,
    params: { protocol: 'udp', bytes: 64, flows: 64 },
    packets: 64,
    step,
    end,
  };
}

function measure(c: Case): { ns: Summary; heapBytes: number } {
  const run = (milliseconds: number) => {
    const end = performance.now() + milliseconds;
    const start = process.cpuUsage();
    let steps = 0;
    for (; performance.now() < end; steps += 100) for (let i = 0; i < 100; i++) c.step();
    // CPU time, not wall time: on a shared machine the neighbours weigh less.
    const used = process.cpuUsage(start);
    return ((used.user + used.system) * 1000) / steps / (c.unit === PACKET ? c.packets : 1);
  };
  run(300);
  const samples = Array.from({ length: ROUNDS }, () => run(ROUND_MS));
  return { ns: summarize(samples), heapBytes: median([heapPerPacket(c), heapPerPacket(c), heapPerPacket(c)]) };
}

function heapPerPacket(c: Case): number {
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < HEAP_STEPS; i++) c.step();
  // Asking allocates a few kilobytes itself: rounded away.
  return Math.max(0, Math.round((10 * (process.memoryUsage().heapUsed - before)) / HEAP_STEPS / c.packets) / 10);
}

const { PROTO_TCP, PROTO_UDP } = ipv4;

export const CASES: readonly (() => Case)[] = [
  () => segmentCase(PROTO_TCP, 45 * 1448, 1448),
  () => segmentCase(PROTO_TCP, 46 * 1398, 1398),
  () => segmentCase(PROTO_UDP, 44 * 1472, 1472),
  () => segmentCase(PROTO_UDP, 64 * 36, 36),
  () => coalesceCase(PROTO_TCP, 45 * 1448, 1448, false, false),
  () => coalesceCase(PROTO_TCP, 45 * 1448, 1448, true, false),
  () => coalesceCase(PROTO_TCP, 46 * 1398, 1398, false, false),
  () => coalesceCase(PROTO_UDP, 64 * 36, 36, false, true),
  () => coalesceCase(PROTO_UDP, 64 * 36, 36, true, true),
  unmergeableCase,
];

function main(): void {
  const json = process.argv.includes('json');
  const results: { suite: string; name: string; unit: string; params: object; ours: Summary }[] = [];
  const table: unknown[][] = [];
  for (const make of CASES) {
    const c = make();
    const { ns, heapBytes } = measure(c);
    c.end();
    results.push({ suite: 'segment', name: c.name, unit: c.unit, params: c.params, ours: ns });
    const heap = { suite: 'segment', name: `${c.name}, heap`, unit: 'bytes/packet', params: c.params };
    results.push({ ...heap, ours: summarize([heapBytes]) });
    const params = Object.entries(c.params).map(([key, value]) => `${key} ${value}`);
    const range = `${ns.ci95[0].toFixed(1)}-${ns.ci95[1].toFixed(1)}`;
    table.push([c.name, params.join(', '), ns.median.toFixed(1), range, c.unit, heapBytes]);
  }
  const env = environment();
  if (json) process.stdout.write(`${JSON.stringify({ environment: env, results }, null, 2)}\n`);
  else
    process.stdout.write(
      `${formatGrid(['WHAT', 'CASE', 'MEDIAN', 'CI95', 'UNIT', 'HEAP B/PACKET'], table)}${env.cpu}, ${env.cores} cores, node ${env.node}\n`,
    );
}

if (isMainModule(import.meta.url)) main();

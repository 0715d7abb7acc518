/**
 * What does a tunnel header cost? Nanoseconds per packet for encapsulation and decapsulation of the three tunnels, and
 * bytes of heap allocated per packet (which must be 0).
 *
 *   node dist/bench/encap.js [-o json]      (with --expose-gc the heap figure starts from a clean heap)
 *
 * 32 packets in 32 slots take turns, so that they lie in the L2 cache as they do after a read. Encapsulation starts from a
 * parsed packet, decapsulation from a parsed outer header. VXLAN's outer UDP checksum, on in the linux profile, reads the
 * whole payload: it has rows of its own, as has local checksum offload, which spares that where the inner checksum is
 * partial.
 */
import { formatGrid } from '../datapath/cli/table.ts';
import { Counters } from '../datapath/counters.ts';
import type { Packet } from '../datapath/packet/packet.ts';
import { parseIpv4 } from '../datapath/packet/parse.ts';
import { Pool } from '../datapath/packet/pool.ts';
import type { Profile } from '../datapath/profile.ts';
import { PROFILES } from '../datapath/profile.ts';
import { Random } from '../datapath/random.ts';
import { TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN, Tunnel } from '../datapath/tunnel/tunnel.ts';
import { CONTINUE } from '../datapath/verdict.ts';
import { foldSum, pseudoSum, sumWords } from '../datapath/wire/checksum.ts';
import * as ipv4 from '../datapath/wire/ipv4.ts';
import * as udp from '../datapath/wire/udp.ts';
import * as virtio from '../datapath/wire/virtio-net.ts';
import { environment } from './environment.ts';
import { isMainModule } from './main-module.ts';
import type { Summary } from './stats.ts';
import { summarize } from './stats.ts';

const PACKETS = 32;
const ROUNDS = 11;
const PER_ROUND = 300_000;
const HEAP_PACKETS = 5_000_000;
export const SIZES = [64, 1500];

const A = 0xc0a80a01 | 0; // 192.168.10.1
const B = 0xc0a80a02 | 0;

export interface Case {
  tunnel: string;
  protocol: number;
  profile: Profile;
  /** The inner checksum is partial. */
  partial: boolean;
}

export const CASES: readonly Case[] = [
  { tunnel: 'ipip', protocol: TUNNEL_IPIP, profile: PROFILES.linux, partial: false },
  { tunnel: 'vxlan', protocol: TUNNEL_VXLAN, profile: PROFILES.cilium, partial: false },
  { tunnel: 'geneve', protocol: TUNNEL_GENEVE, profile: PROFILES.cilium, partial: false },
  { tunnel: 'vxlan + UDP checksum', protocol: TUNNEL_VXLAN, profile: PROFILES.linux, partial: false },
  { tunnel: 'vxlan + UDP checksum, partial inner', protocol: TUNNEL_VXLAN, profile: PROFILES.linux, partial: true },
];

/** One UDP packet with `size` bytes of IP, or what is left of it under a 1500-byte MTU, parsed. */
function fill(pool: Pool, size: number, flow: number): Packet {
  const p = pool.take();
  if (p === null) throw new Error('pool too small');
  const view = pool.view;
  p.len = size;
  view.setInt32(p.off, 0x45000000 | size);
  view.setInt32(p.off + ipv4.ID, 0x12340000);
  view.setInt32(p.off + ipv4.TTL, (64 << 24) | (ipv4.PROTO_UDP << 16));
  view.setInt32(p.off + ipv4.SRC, 0x0af4010a);
  view.setInt32(p.off + ipv4.DST, 0x0af4020a);
  ipv4.setHeaderChecksum(view, p.off);
  const l4 = p.off + ipv4.HEADER_LEN;
  const l4Len = size - ipv4.HEADER_LEN;
  view.setInt32(l4, ((40000 + flow) << 16) | 5201);
  view.setUint16(l4 + udp.LENGTH, l4Len);
  const sum = sumWords(view, l4, l4Len, pseudoSum(0x0af4010a, 0x0af4020a, ipv4.PROTO_UDP, l4Len));
  view.setUint16(l4 + udp.CHECKSUM, ~foldSum(sum) & 0xffff);
  if (parseIpv4(view, p) !== CONTINUE) throw new Error('the packet does not parse');
  p.identity = 21500;
  return p;
}

/** Both ways on the same packets: decapsulation wants them encapsulated. */
export interface Ways {
  runEncap(n: number): void;
  runDecap(n: number): void;
}

export function makeWays(c: Case, size: number): Ways {
  const pool = new Pool(PACKETS);
  const counters = new Counters();
  const mac = { macHi: 0x0242, macLo: 0x0af40200 };
  const spec = { protocol: c.protocol, port: 8472, vni: -1, localMacHi: 0x0242, acceptAny: false };
  const a = { ...spec, localAddress: A, localMacLo: 0x0af40100, peers: [{ address: B, ...mac }] };
  const b = {
    ...spec,
    localAddress: B,
    localMacLo: mac.macLo,
    peers: [{ address: A, macHi: 0x0242, macLo: 0x0af40100 }],
  };
  const sender = new Tunnel(a, c.profile, pool.view, counters, new Random(1));
  const receiver = new Tunnel(b, c.profile, pool.view, counters, new Random(2));
  // 1500 is the size on the wire, so that every tunnel carries what fits.
  const innerSize = size === 1500 ? size - sender.overhead : size;
  const packets: Packet[] = [];
  for (let i = 0; i < PACKETS; i++) packets.push(fill(pool, innerSize, i));
  const off = packets[0].off - packets[0].start;
  const l4 = packets[0].l4 - packets[0].off;

  /** Encapsulates `n` packets; the parsed fields are set back by hand, as cheaply as can be. */
  const runEncap = (n: number) => {
    for (let i = 0; i < n; i++) {
      const p = packets[i & (PACKETS - 1)];
      p.off = p.start + off;
      p.len = innerSize;
      p.src = 0x0af4010a;
      p.dst = 0x0af4020a;
      p.protocol = ipv4.PROTO_UDP;
      p.srcPort = 40000 + (i & (PACKETS - 1));
      p.dstPort = 5201;
      if (c.partial) {
        p.vnetFlags = virtio.FLAG_NEEDS_CSUM;
        p.csumStart = p.off + l4;
        p.csumOffset = udp.CHECKSUM;
      }
      sender.encap(p, sender.findPeer(B));
    }
  };
  /** Decapsulates `n` packets that have been encapsulated. */
  const runDecap = (n: number) => {
    const outerOff = off - sender.overhead;
    let bad = 0;
    for (let i = 0; i < n; i++) {
      const p = packets[i & (PACKETS - 1)];
      p.off = p.start + outerOff;
      p.len = innerSize + sender.overhead;
      p.src = A;
      p.dst = B;
      p.l4 = p.off + ipv4.HEADER_LEN;
      p.vnetFlags = c.partial ? virtio.FLAG_NEEDS_CSUM : 0;
      if (receiver.decap(p) !== CONTINUE) bad++;
    }
    if (bad > 0) throw new Error(`${bad} packets refused`);
  };
  return { runEncap, runDecap };
}

interface Measured {
  encap: Summary;
  decap: Summary;
  heapBytesPerPacket: number;
}

function measure(c: Case, size: number): Measured {
  const { runEncap, runDecap } = makeWays(c, size);
  runEncap(PER_ROUND);
  runDecap(PER_ROUND);
  const encap: number[] = [];
  const decap: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    encap.push(nsPer(runEncap));
    decap.push(nsPer(runDecap));
  }

  // The smaller of two passes: a recompilation in between would count as the packets', which allocate every time or never.
  const heap = Math.min(heapGrowth(runEncap, runDecap), heapGrowth(runEncap, runDecap));
  // Asking allocates a few kilobytes itself: rounded away.
  const heapBytesPerPacket = Math.max(0, Math.round((100 * heap) / HEAP_PACKETS) / 100);
  return { encap: summarize(encap), decap: summarize(decap), heapBytesPerPacket };
}

/** Heap growth over HEAP_PACKETS packets. */
function heapGrowth(runEncap: (n: number) => void, runDecap: (n: number) => void): number {
  globalThis.gc?.();
  // The collection may have thrown compiled code away, and interpreted arithmetic allocates: warm up again.
  runEncap(PER_ROUND);
  runDecap(PER_ROUND);
  const before = process.memoryUsage().heapUsed;
  runEncap(HEAP_PACKETS / 2);
  runDecap(HEAP_PACKETS / 2);
  return process.memoryUsage().heapUsed - before;
}

/** CPU time, not wall time: on a shared machine the neighbours weigh less. */
function nsPer(run: (n: number) => void): number {
  const start = process.cpuUsage();
  run(PER_ROUND);
  const used = process.cpuUsage(start);
  return ((used.user + used.system) * 1000) / PER_ROUND;
}

function main(): void {
  const json = process.argv.includes('json');
  const results: { suite: string; name: string; unit: string; params: object; ours: Summary | object }[] = [];
  const head = ['tunnel', 'size', 'encap ns', 'ci95', 'decap ns', 'ci95', 'heap B/packet'];
  const table: unknown[][] = [];
  for (const c of CASES) {
    for (const size of SIZES) {
      const m = measure(c, size);
      const params = { tunnel: c.tunnel, size };
      results.push({ suite: 'encap', name: 'encap', unit: 'ns/packet', params, ours: m.encap });
      results.push({ suite: 'encap', name: 'decap', unit: 'ns/packet', params, ours: m.decap });
      const heap = summarize([m.heapBytesPerPacket]);
      results.push({ suite: 'encap', name: 'heap', unit: 'bytes/packet', params, ours: heap });
      const range = (s: Summary) => `${s.ci95[0].toFixed(1)}-${s.ci95[1].toFixed(1)}`;
      const row = [m.encap.median.toFixed(1), range(m.encap), m.decap.median.toFixed(1), range(m.decap)];
      table.push([c.tunnel, size, ...row, m.heapBytesPerPacket]);
    }
  }
  const env = environment();
  if (json) process.stdout.write(`${JSON.stringify({ environment: env, results }, null, 2)}\n`);
  else process.stdout.write(`${formatGrid(head, table)}${env.cpu}, ${env.cores} cores, node ${env.node}\n`);
}

if (isMainModule(import.meta.url)) main();

/**
 * Would io_uring pay? 64 frames written to a TAP and read from another behind a bridge: by one call each, as the loop does it, and
 * by io_uring, one call for all 64 of a direction. In turn, in a network namespace of its own.
 *
 *   node dist/bench/batching.js [-o json]      (root)
 *
 * There is no readv or writev of several packets: the driver takes one packet for each call whatever the vector is like.
 * sendmmsg wants a socket, which only vhost has of a TUN.
 */

import { execFileSync } from 'node:child_process';
import koffi from 'koffi';
import { formatGrid } from '../datapath/cli/table.ts';
import * as libc from '../datapath/io/libc.ts';
import { openTunTap } from '../datapath/io/tuntap.ts';
import { OP_READ, OP_WRITE, RING_SIZE, Uring } from '../datapath/io/uring.ts';
import { environment } from './environment.ts';
import { summarize, summarizeRatios } from './stats.ts';

const BURST = RING_SIZE;
const SIZES = [64, 1514, 32_000];
const ROUNDS = 15;
const ROUND_MS = 80;
/** Room for each frame and its virtio-net header. */
const SLOT = 65_536;

const c = koffi.load('libc.so.6');
const unshare: (flags: number) => number = c.func('int unshare(int flags)');

const memory = new Uint8Array(new SharedArrayBuffer(BURST * SLOT));
const base = libc.addressOf(memory);
const slot = (i: number) => base + i * SLOT;

if (unshare(libc.CLONE_NEWNET) < 0) throw new Error(`a namespace of its own: ${libc.errnoName(libc.errno())} (root?)`);
const ip = (...argv: string[]) => execFileSync('ip', argv);
const [from, to] = ['in', 'out'].map(name => openTunTap({ kind: 'tap', name, mtu: 65_000, allowed: 0 }));
ip('link', 'add', 'br0', 'mtu', '65000', 'type', 'bridge', 'mcast_snooping', '0');
for (const device of ['br0', 'in', 'out']) ip('link', 'set', device, 'mtu', '65000', 'up');
for (const device of ['in', 'out']) ip('link', 'set', device, 'master', 'br0');
execFileSync('bridge', ['fdb', 'add', '02:00:00:00:00:02', 'dev', 'out', 'master', 'static']);

function writeFrames(): void {
  for (let i = 0; i < BURST; i++) {
    const at = i * SLOT + from.vnetBytes;
    memory.fill(0, i * SLOT, at + 14);
    memory.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5], at);
  }
}

let got = 0;
const readsByCall = (): number => {
  let n = 0;
  while (n < BURST && libc.read(to.fd, slot(n), SLOT) > 0) n++;
  return n;
};

function byCalls(bytes: number): void {
  for (let i = 0; i < BURST; i++) libc.write(from.fd, slot(i), bytes);
  got += readsByCall();
}

const ring = Uring.open();
if (typeof ring === 'string') throw new Error(ring);
const uring = ring;
function byRing(bytes: number): void {
  for (let i = 0; i < BURST; i++) uring.prepare(i, OP_WRITE, from.fd, slot(i), bytes);
  uring.run(BURST);
  for (let i = 0; i < BURST; i++) uring.prepare(i, OP_READ, to.fd, slot(i), SLOT);
  uring.run(BURST);
  for (let i = 0; i < BURST; i++) if (uring.results[i] > 0) got++;
}

/** ns for a frame there and back. @throws Error when frames were lost: then it is not the same work */
function measure(way: (bytes: number) => void, bytes: number): number {
  const started = process.hrtime.bigint();
  let bursts = 0;
  got = 0;
  while (Number(process.hrtime.bigint() - started) < ROUND_MS * 1e6) {
    way(bytes);
    bursts++;
  }
  const ns = Number(process.hrtime.bigint() - started);
  if (got < 0.99 * bursts * BURST) throw new Error(`${got} of ${bursts * BURST} frames came through`);
  return ns / (bursts * BURST);
}

// Until both devices forward.
for (let i = 0; i < 200 && readsByCall() === 0; i++) {
  writeFrames();
  libc.write(from.fd, slot(0), 64 + from.vnetBytes);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
}
while (readsByCall() > 0);

const rows = SIZES.map(size => {
  const bytes = size + from.vnetBytes;
  const [calls, together]: number[][] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    for (const which of round % 2 === 0 ? [calls, together] : [together, calls]) {
      writeFrames();
      which.push(measure(which === calls ? byCalls : byRing, bytes));
    }
  }
  return { size, calls: summarize(calls), uring: summarize(together), ratio: summarizeRatios(together, calls) };
});

if (process.argv.includes('json')) {
  process.stdout.write(`${JSON.stringify({ environment: environment(), results: rows }, null, 2)}\n`);
} else {
  const { cpu, cores, node, kernel } = environment();
  process.stdout.write(`${cpu}, ${cores} cores, ${kernel}, Node ${node}\n`);
  const table: unknown[][] = [];
  for (const { size, calls, uring, ratio } of rows) {
    table.push([
      size,
      calls.median.toFixed(0),
      uring.median.toFixed(0),
      ratio.median.toFixed(2),
      ratio.ci95.map(bound => bound.toFixed(2)).join(' - '),
    ]);
  }
  process.stdout.write(formatGrid(['FRAME', 'CALLS, NS', 'IO_URING, NS', 'RATIO', '95 % CI'], table));
}

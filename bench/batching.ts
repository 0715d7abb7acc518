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
import Table from 'cli-table3';
import koffi from 'koffi';
import * as libc from '../datapath/io/libc.ts';
import { openTunTap } from '../datapath/io/tuntap.ts';
import { environment } from './environment.ts';
import { summarize, summarizeRatios } from './stats.ts';

const BURST = 64;
const SIZES = [64, 1514, 32_000];
const ROUNDS = 15;
const ROUND_MS = 80;
/** Room for each frame and its virtio-net header. */
const SLOT = 65_536;

const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;
const IORING_OP_READ = 22;
const IORING_OP_WRITE = 23;
const IORING_OFF_SQES = 0x10000000;
const IORING_SETUP_COOP_TASKRUN = 1 << 8;
const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
const IORING_ENTER_GETEVENTS = 1;
const MAP_SHARED = 1;
const MAP_POPULATE = 0x8000;
const SQE_BYTES = 64;

const c = koffi.load('libc.so.6');
const syscall: (n: number, a: number, b: number, c: number, d: number, e: number, f: number) => number = c.func(
  'intptr_t syscall(intptr_t n, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e, intptr_t f)',
);
const unshare: (flags: number) => number = c.func('int unshare(int flags)');

function map(fd: number, bytes: number, offset: number): DataView {
  const at = libc.mmap(0, bytes, libc.PROT_READ | libc.PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
  if (at === -1) throw new Error(`mmap of the ring: ${libc.errnoName(libc.errno())}`);
  return new DataView(koffi.view(BigInt(at), bytes) as ArrayBuffer);
}

/** As much of io_uring as this needs: `BURST` operations submitted, and waited for, by one call. */
class Ring {
  private readonly fd: number;
  private readonly ring: DataView;
  private readonly entries: DataView;
  private readonly at: {
    tail: number;
    mask: number;
    array: number;
    head: number;
    cqTail: number;
    cqMask: number;
    cqes: number;
  };

  constructor() {
    const params = new Uint8Array(120);
    const view = new DataView(params.buffer);
    view.setUint32(8, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER, true);
    this.fd = syscall(SYS_IO_URING_SETUP, BURST, libc.addressOf(params), 0, 0, 0, 0);
    if (this.fd < 0) throw new Error(`io_uring_setup: ${libc.errnoName(libc.errno())}`);
    const word = (at: number) => view.getUint32(at, true);
    this.at = {
      tail: word(44),
      mask: word(48),
      array: word(64),
      head: word(80),
      cqTail: word(84),
      cqMask: word(88),
      cqes: word(100),
    };
    const bytes = Math.max(this.at.array + 4 * word(0), this.at.cqes + 16 * word(4));
    // IORING_FEAT_SINGLE_MMAP: both rings lie in one mapping.
    this.ring = map(this.fd, bytes, 0);
    this.entries = map(this.fd, word(0) * SQE_BYTES, IORING_OFF_SQES);
  }

  /** Puts an operation at place `i` of the next submission. */
  prepare(i: number, operation: number, fd: number, address: number, bytes: number): void {
    const { entries, ring, at } = this;
    const tail = ring.getUint32(at.tail, true) + i;
    const index = tail & ring.getUint32(at.mask, true);
    const sqe = index * SQE_BYTES;
    entries.setInt32(sqe, operation, true);
    entries.setInt32(sqe + 4, fd, true);
    entries.setInt32(sqe + 8, 0, true);
    entries.setInt32(sqe + 12, 0, true);
    entries.setUint32(sqe + 16, address % 2 ** 32, true);
    entries.setUint32(sqe + 20, Math.floor(address / 2 ** 32), true);
    entries.setInt32(sqe + 24, bytes, true);
    entries.setInt32(sqe + 28, 0, true);
    ring.setUint32(at.array + 4 * index, index, true);
  }

  /** Submits `n` prepared operations, waits for all. @returns how many did what they should */
  run(n: number): number {
    const { ring, at } = this;
    ring.setUint32(at.tail, ring.getUint32(at.tail, true) + n, true);
    const submitted = syscall(SYS_IO_URING_ENTER, this.fd, n, n, IORING_ENTER_GETEVENTS, 0, 0);
    if (submitted !== n) throw new Error(`io_uring_enter: ${submitted} of ${n}: ${libc.errnoName(libc.errno())}`);
    let done = 0;
    let head = ring.getUint32(at.head, true);
    const tail = ring.getUint32(at.cqTail, true);
    for (; head !== tail; head = (head + 1) >>> 0) {
      const cqe = at.cqes + 16 * (head & ring.getUint32(at.cqMask, true));
      if (ring.getInt32(cqe + 8, true) > 0) done++;
    }
    ring.setUint32(at.head, head, true);
    return done;
  }
}

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

const ring = new Ring();
function byRing(bytes: number): void {
  for (let i = 0; i < BURST; i++) ring.prepare(i, IORING_OP_WRITE, from.fd, slot(i), bytes);
  ring.run(BURST);
  for (let i = 0; i < BURST; i++) ring.prepare(i, IORING_OP_READ, to.fd, slot(i), SLOT);
  got += ring.run(BURST);
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
  const [calls, uring]: number[][] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    for (const which of round % 2 === 0 ? [calls, uring] : [uring, calls]) {
      writeFrames();
      which.push(measure(which === calls ? byCalls : byRing, bytes));
    }
  }
  return { size, calls: summarize(calls), uring: summarize(uring), ratio: summarizeRatios(uring, calls) };
});

if (process.argv.includes('json')) {
  process.stdout.write(`${JSON.stringify({ environment: environment(), results: rows }, null, 2)}\n`);
} else {
  const { cpu, cores, node, kernel } = environment();
  process.stdout.write(`${cpu}, ${cores} cores, ${kernel}, Node ${node}\n`);
  const table = new Table({
    head: ['frame', 'calls, ns', 'io_uring, ns', 'ratio', '95 % CI'],
    style: { head: [], border: [] },
  });
  for (const { size, calls, uring, ratio } of rows) {
    table.push([
      size,
      calls.median.toFixed(0),
      uring.median.toFixed(0),
      ratio.median.toFixed(2),
      ratio.ci95.map(bound => bound.toFixed(2)).join(' - '),
    ]);
  }
  process.stdout.write(`${table.toString()}\n`);
}

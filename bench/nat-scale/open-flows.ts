/**
 * A million flows through one masquerade address, each to a destination of its own: does any table stop the loop while it
 * fills, and when all flows expire at once?
 *
 * The same run is made several times. What stops the loop because of the tables does so at the same burst in each, while
 * the machine's other work comes at any time: of each burst its shortest time counts, and of these the longest. The thread's
 * own processor time is what is read, with what the kernel does for it (pages that are touched first).
 */
import { residentMemory } from '../../datapath/io/huge-memory.ts';
import * as libc from '../../datapath/io/libc.ts';
import type { ProfileName } from '../../datapath/profile.ts';
import { SYN } from '../../datapath/wire/tcp.ts';
import { PODS, World } from './world.ts';

const RUNS = 3;
const WARM_UP = 10_000;
/** SYN_SENT, Linux: 120 s. */
const EXPIRED_MS = 130_000;
/** A busy node looks for expired flows after each round, some microseconds to milliseconds apart. */
const ROUND_MS = 1;
const SERVERS = 0x14000000;

const CLOCK_THREAD_CPUTIME_ID = 3;
const time = new Int32Array(4);
const timeAddress = libc.addressOf(time);

/** Milliseconds of processor time that this thread has used. */
function busyMs(): number {
  libc.clockGettime(CLOCK_THREAD_CPUTIME_ID, timeAddress);
  return time[0] * 1000 + time[2] / 1e6;
}

export interface OpenFlowsResult {
  profile: string;
  flows: number;
  nsPerFlow: number;
  /** Of a burst of 64 new flows. */
  medianBurstMs: number;
  longestBurstMs: number;
  /** Of a tick while they expire, and how many ticks that took. */
  longestTickMs: number;
  ticks: number;
}

/** @param flows to open, at most 2^22 */
export function openFlows(flows: number, profile: ProfileName): OpenFlowsResult {
  run(2 * WARM_UP, profile);
  const runs = Array.from({ length: RUNS }, () => run(flows, profile));
  const bursts = shortest(runs.map(({ opened }) => opened));
  const ticks = shortest(runs.map(({ expired }) => expired));
  const sum = bursts.reduce((a, b) => a + b, 0);
  return {
    profile,
    flows,
    nsPerFlow: (sum * 1e6) / flows,
    medianBurstMs: Float64Array.from(bursts).sort()[bursts.length >> 1],
    longestBurstMs: bursts.reduce((a, b) => Math.max(a, b), 0),
    longestTickMs: ticks.reduce((a, b) => Math.max(a, b), 0),
    ticks: ticks.length,
  };
}

/** Times of each burst and of each tick, in ms. */
function run(flows: number, profile: ProfileName): { opened: Float64Array; expired: Float64Array } {
  const world = new World({
    capacity: flows,
    profile,
    memory: residentMemory,
    rules: [{ from: [{ address: 0x0af40000, length: 16 }], action: 'MASQUERADE' }],
  });
  return { opened: fill(world, flows), expired: expire(world) };
}

function fill(world: World, flows: number): Float64Array {
  const { inside, datapath } = world;
  const [port] = datapath.ports;
  let n = 0;
  let until = WARM_UP;
  inside.next = s => {
    if (n >= until) return false;
    s.src = PODS[n % PODS.length];
    s.dst = (SERVERS + n) | 0;
    s.sport = 1024 + ((n >>> 6) & 511);
    s.dport = 443;
    s.seq = n;
    s.ack = 0;
    s.flags = SYN;
    n++;
    return true;
  };
  // The first packets touch the pool's memory, and the first ever make the processor's code: those are other questions.
  while (datapath.receive(port) > 0);
  until = flows;
  const times: number[] = [];
  for (;;) {
    const started = busyMs();
    const read = datapath.receive(port);
    const took = busyMs() - started;
    if (read <= 0) break;
    times.push(took);
  }
  const { used } = datapath.flows!.table;
  if (used !== flows) throw new Error(`${used} of ${flows} flows: ${[...world.drops()].join(', ')}`);
  return Float64Array.from(times);
}

function expire(world: World): Float64Array {
  const { datapath, clock } = world;
  const { table } = datapath.flows!;
  const times: number[] = [];
  clock.advance(EXPIRED_MS);
  while (table.used > 0) {
    clock.advance(ROUND_MS);
    const started = busyMs();
    datapath.tick();
    times.push(busyMs() - started);
  }
  return Float64Array.from(times);
}

function shortest(runs: Float64Array[]): Float64Array {
  return runs[0].map((_, i) =>
    runs.reduce((least, run) => Math.min(least, run[i] ?? Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY),
  );
}

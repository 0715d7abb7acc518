/** One trial of one suite through one setup. */
import { fileURLToPath } from 'node:url';
import { machineTime, timeBetween } from '../machine.ts';
import { mergeHistograms, percentileOf } from './histogram.ts';
import { LATENCY_RATE, PERCENTILES, rateName, type Suite, type Trial } from './metrics.ts';
import * as parse from './parse.ts';
import { TrialError } from './parse.ts';
import type { Sandbox } from './sandbox.ts';
import { PORTS, type Setup } from './topologies.ts';

export interface TrialPlan {
  sandbox: Sandbox;
  setup: Setup;
  /** Whole: iperf3 takes no others. */
  seconds: number;
  /** Gb/s that this setup carried in its warm-up. */
  capacity: number;
  signal: AbortSignal;
}

/** Of the capacity. */
const BACKGROUND_SHARE = 0.5;
/** The requests start a little after the background load and end before it. */
const BACKGROUND_EXTRA_SECONDS = 1;
/** Of the seconds of a trial, for each of the dozen or two trials of a search. */
const RATE_TRIAL_SHARE = 0.1;

/** How much longer than its seconds a trial may take before it counts as stuck. */
const SPARE_MS = 15_000;
const SEARCH_SPARE_MS = 60_000;

const RR = program('rr');
const PACKETS = program('packets');
const LATENCY = program('latency');
const CONNECTIONS = program('connections');

function program(name: string): string {
  return fileURLToPath(new URL(`./${name}.js`, import.meta.url));
}

/** Starts what answers to the client in these suites. It sleeps in the kernel while its setup is not on trial. */
export async function startServers(
  sandbox: Sandbox,
  { client, server }: Setup,
  suites: readonly Suite[],
): Promise<void> {
  const start = (file: string, port: number) =>
    sandbox.start(server, [process.execPath, file, 'server', String(port)], 'ready');
  const need = (...any: Suite[]) => any.some(suite => suites.includes(suite));
  await Promise.all([
    sandbox.start(server, ['iperf3', '-s', '-p', String(PORTS.iperf), '--forceflush'], 'Server listening'),
    need('rr', 'latency', 'latency-loaded') && start(RR, PORTS.echo),
    need('ndr64', 'ndr1400') && start(PACKETS, PORTS.packets),
    need('connections') && start(CONNECTIONS, PORTS.connections),
    // Room for one second's connections, whose other ends wait in TIME-WAIT.
    sandbox.ip(client, [], { 'net/ipv4/ip_local_port_range': '"10000 65535"' }),
  ]);
}

/** Both nodes' code compiled, neighbours resolved. @returns Gb/s of TCP */
export async function warmUp(plan: Omit<TrialPlan, 'seconds' | 'capacity'>): Promise<number> {
  return parse.parseTcp(await iperf({ ...plan, seconds: 1, capacity: 0 })).gigabitsPerSecond;
}

/** @throws TrialError when it gave no figure */
export function runTrial(suite: Suite, plan: TrialPlan): Promise<Trial> {
  switch (suite) {
    case 'tcp1':
    case 'tcp4':
      return tcpTrial(suite, plan, suite === 'tcp4' ? 4 : 1);
    case 'udp64':
    case 'udp1400':
      return udpTrial(suite, plan, suite === 'udp64' ? 64 : 1400);
    case 'rr':
      return roundTripTrial(plan);
    case 'ndr64':
    case 'ndr1400':
      return rateTrial(suite, plan, suite === 'ndr64' ? 64 : 1400);
    case 'latency':
      return latencyTrial(suite, plan, 0);
    case 'latency-loaded':
      return latencyTrial(suite, plan, BACKGROUND_SHARE * plan.capacity);
    case 'connections':
      return connectionTrial(plan);
  }
}

async function tcpTrial(name: string, plan: TrialPlan, flows: number): Promise<Trial> {
  const before = machineTime();
  const text = await iperf(plan, '-P', String(flows));
  const { busy } = timeBetween(before, machineTime());
  const { gigabitsPerSecond, gigabytes, retransmits } = parse.parseTcp(text);
  return { figures: { [name]: gigabitsPerSecond, [`${name}-cpu`]: busy / gigabytes, retransmits } };
}

async function udpTrial(name: string, plan: TrialPlan, size: number): Promise<Trial> {
  const text = await iperf(plan, '-u', '-b', '0', '-l', String(size));
  const { delivered, offered, lostPercent } = parse.parseUdp(text, size);
  return { figures: { [name]: delivered, offered, lostPercent } };
}

async function roundTripTrial(plan: TrialPlan): Promise<Trial> {
  const trips = parse.parseRoundTrips(await client(plan, [RR, 'client'], PORTS.echo, [plan.seconds]));
  const { p50, p99, p999, lost, max } = trips;
  const transactionsPerSecond = trips.count / trips.seconds;
  return { figures: { 'rr-p50': p50, 'rr-p99': p99, 'rr-p99.9': p999, lost, transactionsPerSecond, maxUs: max } };
}

async function rateTrial(name: string, plan: TrialPlan, size: number): Promise<Trial> {
  const trialMs = Math.round(1000 * plan.seconds * RATE_TRIAL_SHARE);
  const text = await client(plan, [PACKETS, 'client'], PORTS.packets, [size, trialMs], SEARCH_SPARE_MS);
  const { found, senderLimit, delivered, cpuPerMillion, trials } = parse.parsePacketRates(text);
  const figures: Record<string, number> = { [`${name}-cpu`]: cpuPerMillion, senderLimit, delivered, trials };
  for (const { acceptable, rate, senderLimited } of found) {
    figures[rateName(name, acceptable)] = rate;
    figures[`${rateName(name, acceptable)}-limited`] = senderLimited ? 1 : 0;
  }
  return { figures };
}

/** @param backgroundGbps of TCP beside the requests, the same way */
async function latencyTrial(name: string, plan: TrialPlan, backgroundGbps: number): Promise<Trial> {
  const ask = client(plan, [LATENCY], PORTS.echo, [plan.seconds, LATENCY_RATE]);
  const load =
    backgroundGbps === 0
      ? null
      : iperf(
          { ...plan, seconds: plan.seconds + BACKGROUND_EXTRA_SECONDS },
          '-b',
          `${Math.round(backgroundGbps * 1e6)}K`,
        );
  // Both have ended, whatever became of them.
  const [asked, loaded] = await Promise.allSettled([ask, load]);
  if (asked.status === 'rejected') throw asked.reason;
  if (loaded.status === 'rejected') throw loaded.reason;
  const { lost, histogram } = parse.parseLatency(asked.value);
  const all = mergeHistograms([histogram]);
  const figures: Record<string, number> = {
    lost,
    backgroundGbps: loaded.value === null ? 0 : parse.parseTcp(loaded.value).gigabitsPerSecond,
  };
  for (const [label, percentile] of PERCENTILES) figures[`${name}-${label}`] = percentileOf(all, percentile);
  return { figures, histogram };
}

async function connectionTrial(plan: TrialPlan): Promise<Trial> {
  const text = await client(plan, [CONNECTIONS, 'client'], PORTS.connections, [plan.seconds]);
  const { completed, failed, seconds, p50, p99 } = parse.parseConnections(text);
  return { figures: { connections: completed / seconds, failed, p50Us: p50, p99Us: p99 } };
}

// ---- processes

function iperf(plan: TrialPlan, ...options: string[]): Promise<string> {
  const { setup, seconds } = plan;
  const argv = ['iperf3', '-c', setup.address, '-p', String(PORTS.iperf), '-t', String(seconds), '-J', ...options];
  return run(plan, argv, SPARE_MS);
}

function client(
  plan: TrialPlan,
  program: readonly string[],
  port: number,
  numbers: readonly number[],
  spareMs = SPARE_MS,
): Promise<string> {
  return run(plan, [process.execPath, ...program, plan.setup.address, ...[port, ...numbers].map(String)], spareMs);
}

async function run({ sandbox, setup, seconds, signal }: TrialPlan, argv: string[], spareMs: number): Promise<string> {
  const { stdout, stderr, code, late } = await sandbox.run(setup.client, argv, seconds * 1000 + spareMs, signal);
  if (late) throw new TrialError(`${argv[0]} did not end`);
  // iperf3 tells its errors in the JSON.
  if (stdout.trim() === '') throw new TrialError(`${argv[0]}: ${stderr.trim() || `exit ${code}, nothing printed`}`);
  return stdout;
}

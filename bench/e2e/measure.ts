/** One trial of one suite through one setup, and which figures it gives. */
import { fileURLToPath } from 'node:url';
import { machineTime, timeBetween } from '../machine.ts';
import { parseRoundTrips, parseTcp, parseUdp, TrialError } from './parse.ts';
import type { Sandbox } from './sandbox.ts';
import type { Setup } from './topologies.ts';

export const SUITES = ['tcp1', 'tcp4', 'udp64', 'udp1400', 'rr'] as const;
export type Suite = (typeof SUITES)[number];

export interface Metric {
  name: string;
  unit: string;
  better: 'higher' | 'lower';
  /** Figures of the same trials that are shown beside this one. */
  details: readonly string[];
}

/** What each suite gives; a trial has a value under every name here. */
export const METRICS: Record<Suite, readonly Metric[]> = {
  tcp1: tcpMetrics('tcp1'),
  tcp4: tcpMetrics('tcp4'),
  udp64: udpMetrics('udp64'),
  udp1400: udpMetrics('udp1400'),
  rr: [
    { name: 'rr-p50', unit: 'us', better: 'lower', details: ['lost', 'transactionsPerSecond'] },
    { name: 'rr-p99', unit: 'us', better: 'lower', details: [] },
    { name: 'rr-p99.9', unit: 'us', better: 'lower', details: ['maxUs'] },
  ],
};

function tcpMetrics(name: string): Metric[] {
  return [
    { name, unit: 'Gb/s', better: 'higher', details: ['retransmits'] },
    { name: `${name}-cpu`, unit: 's/GB', better: 'lower', details: [] },
  ];
}

function udpMetrics(name: string): Metric[] {
  return [{ name, unit: 'packets/s', better: 'higher', details: ['offered', 'lostPercent'] }];
}

/** Metrics and details by name. */
export type Trial = Record<string, number>;

const RR_PORT = 5202;
const RR = fileURLToPath(new URL('./rr.js', import.meta.url));
/** How much longer than its seconds a trial may take before it counts as stuck. */
const SPARE_MS = 15_000;

/** Starts what answers in the server's pod. It sleeps in the kernel while its setup is not on trial. */
export async function startServers(sandbox: Sandbox, setup: Setup): Promise<void> {
  await Promise.all([
    sandbox.start(setup.server, ['iperf3', '-s', '--forceflush'], 'Server listening'),
    sandbox.start(setup.server, [process.execPath, RR, 'server', String(RR_PORT)], 'ready'),
  ]);
}

/**
 * Runs one trial.
 * @param seconds  whole seconds: iperf3 takes no others
 * @throws TrialError when it gave no figure
 */
export async function runTrial(
  sandbox: Sandbox,
  setup: Setup,
  suite: Suite,
  seconds: number,
  signal: AbortSignal,
): Promise<Trial> {
  const run = async (argv: string[]): Promise<string> => {
    const { stdout, stderr, code, late } = await sandbox.run(setup.client, argv, seconds * 1000 + SPARE_MS, signal);
    if (late) throw new TrialError(`${argv[0]} did not end`);
    // iperf3 tells its errors in the JSON.
    if (stdout.trim() === '') throw new TrialError(`${argv[0]}: ${stderr.trim() || `exit ${code}, nothing printed`}`);
    return stdout;
  };
  const iperf = (...options: string[]) => run(['iperf3', '-c', setup.address, '-t', String(seconds), '-J', ...options]);

  switch (suite) {
    case 'tcp1':
    case 'tcp4': {
      const before = machineTime();
      const text = await iperf('-P', suite === 'tcp4' ? '4' : '1');
      const { busy } = timeBetween(before, machineTime());
      const tcp = parseTcp(text);
      return { [suite]: tcp.gigabitsPerSecond, [`${suite}-cpu`]: busy / tcp.gigabytes, retransmits: tcp.retransmits };
    }
    case 'udp64':
    case 'udp1400': {
      const payload = suite === 'udp64' ? 64 : 1400;
      const udp = parseUdp(await iperf('-u', '-b', '0', '-l', String(payload)), payload);
      return { [suite]: udp.delivered, offered: udp.offered, lostPercent: udp.lostPercent };
    }
    case 'rr': {
      const argv = [process.execPath, RR, 'client', setup.address, String(RR_PORT), String(seconds)];
      const rr = parseRoundTrips(await run(argv));
      return {
        'rr-p50': rr.p50,
        'rr-p99': rr.p99,
        'rr-p99.9': rr.p999,
        lost: rr.lost,
        transactionsPerSecond: rr.count / rr.seconds,
        maxUs: rr.max,
      };
    }
  }
}

/**
 * What happens around the MTU? Datagrams of lengths on both sides of each boundary, through every tunnel and each of the four
 * ways to meet a packet that does not fit (RFC 4459): whether it passes with DF, packets on the wire beside what they should be,
 * what arrives and the nodes' processor time; and TCP with segments of that length. Real nodes, one pair for each tunnel and way, in turn.
 */

import { LabError } from '../datapath/lab/lab-error.ts';
import { TOO_BIG_NAMES } from '../datapath/route/nexthop.ts';
import { TrialError } from './e2e/parse.ts';
import { Progress } from './e2e/progress.ts';
import { LiveRun } from './live-run.ts';
import { Lane, type TcpTrial, type UdpTrial } from './mtu/lane.ts';
import { podMtu, UNDERLAY_MTU, type Way, wirePackets } from './mtu/theory.ts';
import { HEADER_BYTES, type Mode } from './overhead/theory.ts';
import type { LiveReport, Row, RunOptions } from './result.ts';
import { summarize } from './stats.ts';

export const MODES = ['ipip', 'vxlan', 'geneve'] as const satisfies readonly Mode[];
export const WAYS: readonly Way[] = TOO_BIG_NAMES;

export interface MtuOptions extends RunOptions {
  modes?: readonly (typeof MODES)[number][];
  ways?: readonly Way[];
  /** Trials of each length; with 0 only what is exact is looked at. */
  rounds?: number;
}

const ROUNDS = 2;
const QUICK_ROUNDS = 1;
const SECONDS = 1;
const WARM_UPS = 2;
const QUICK_WARM_UPS = 1;

/** Lengths of IP packets: each boundary, and the byte behind it. */
function sizesOf(mode: Mode, quick: boolean): number[] {
  const inside = UNDERLAY_MTU - HEADER_BYTES[mode];
  const edges = [inside, inside + 1, UNDERLAY_MTU, UNDERLAY_MTU + 1];
  return quick ? edges.slice(0, 3) : [1000, ...edges, 3000];
}

/** Needs root. What cannot be measured is left out of the report, which then says so. */
export async function runMtu(options: MtuOptions = {}): Promise<LiveReport> {
  const { quick = false, ways = WAYS } = options;
  const { modes = quick ? (['vxlan'] as const) : MODES, rounds = quick ? QUICK_ROUNDS : ROUNDS } = options;
  const warmUps = quick ? QUICK_WARM_UPS : WARM_UPS;
  const run = await LiveRun.begin(options);
  const { signal, print } = run;
  const trials = modes.reduce((sum, mode) => sum + sizesOf(mode, quick).length * ways.length, 0);
  const progress = new Progress(trials * (rounds + 1) + modes.length * 2 * ways.length, () => performance.now(), print);
  const results: Row[] = [];
  for (const mode of modes) {
    if (signal.aborted) break;
    const lanes = ways.map(way => new Lane(mode, way, signal));
    try {
      for (const lane of lanes) {
        await lane.build();
        progress.advance(1);
        // Cutting and putting together, which no packet before has done: the first run of their code costs ten times the later.
        for (let i = 0; i < warmUps && rounds > 0; i++) await lane.udp(UNDERLAY_MTU + 1, SECONDS);
        progress.advance(1);
        progress.say(`${mode}, ${lane.way}: two nodes are up and warm`);
      }
      for (const size of sizesOf(mode, quick)) {
        const rows = await measureSize(lanes, size, rounds, signal, text => {
          progress.advance(1);
          progress.say(`${mode} ${size} bytes: ${text}`);
        });
        results.push(...rows);
      }
    } catch (error) {
      if (signal.aborted) break;
      if (!(error instanceof LabError || error instanceof TrialError)) throw error;
      run.lacks(`${mode}: ${error.message}`);
    } finally {
      await Promise.all(lanes.map(lane => lane.remove()));
    }
  }
  return run.end(results);
}

/** One length through all ways in turn, in an order that changes from round to round. */
async function measureSize(
  lanes: readonly Lane[],
  size: number,
  rounds: number,
  signal: AbortSignal,
  advance: (text: string) => void,
): Promise<Row[]> {
  const exact = new Map<Lane, { passes: boolean; packets: number }>();
  const trials = new Map(lanes.map(lane => [lane, { tcp: [] as TcpTrial[], udp: [] as UdpTrial[] }]));
  for (const lane of lanes) {
    exact.set(lane, { passes: await lane.passesWithDf(size), packets: await lane.packetsOnWire(size) });
    advance(`${lane.way}: looked at`);
  }
  for (let round = 0; round < rounds && !signal.aborted; round++) {
    for (const lane of round % 2 === 0 ? lanes : [...lanes].reverse()) {
      const { tcp, udp } = trials.get(lane)!;
      udp.push(await lane.udp(size, SECONDS));
      // A longer segment than the pod's device takes is never sent.
      const hasTcp = size <= podMtu(lane.mode, lane.way);
      if (hasTcp) tcp.push(await lane.tcp(size, SECONDS));
      advance(`${lane.way}${hasTcp ? `, TCP ${tcp.at(-1)!.gigabitsPerSecond.toFixed(2)} Gb/s` : ''}`);
    }
  }
  return lanes.flatMap(lane => rowsOf(lane, size, exact.get(lane)!, trials.get(lane)!));
}

function rowsOf(
  { mode, way }: Lane,
  size: number,
  { passes, packets }: { passes: boolean; packets: number },
  { tcp, udp }: { tcp: TcpTrial[]; udp: UdpTrial[] },
): Row[] {
  const row = (name: string, unit: string, samples: number[], more: Partial<Row> = {}): Row => ({
    suite: 'mtu',
    name,
    unit,
    params: { mode, way, size, mtu: UNDERLAY_MTU },
    ours: summarize(samples),
    ...more,
  });
  return [
    row('passes with DF', '1 or 0', [passes ? 1 : 0], { predicted: size <= podMtu(mode, way) ? 1 : 0 }),
    row('packets on the wire', 'packets', [packets], { predicted: wirePackets(mode, way, size) }),
    ...(udp.length === 0
      ? []
      : [
          row(
            'udp delivered',
            '%',
            udp.map(trial => trial.deliveredPercent),
          ),
          row(
            'udp cpu',
            's/GB',
            udp.map(trial => trial.cpu),
          ),
        ]),
    ...(tcp.length === 0
      ? []
      : [
          row(
            'tcp',
            'Gb/s',
            tcp.map(trial => trial.gigabitsPerSecond),
          ),
          row(
            'tcp cpu',
            's/GB',
            tcp.map(trial => trial.cpu),
          ),
        ]),
  ];
}

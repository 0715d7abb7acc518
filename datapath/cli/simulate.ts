/** `tunpath lab up --simulate`: a large cluster in memory, asked once who reaches whom. Nothing is left when it ends. */
import { parseMode } from '../lab/modes.ts';
import { type Probe, type Simulation, simulate, type Wrong } from '../lab/simulate.ts';
import { DONE, NO } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { type Column, printDocument, printTable } from './table.ts';

export interface SimulateFlags {
  mode?: string;
  nodes?: number;
  pods?: number;
  policies?: boolean;
  everyPod?: boolean;
  output: Format;
}

const PROBE_COLUMNS: Column<Probe>[] = [
  { title: 'ASKED', value: row => row.what },
  { title: 'TRIED', value: row => row.tried, align: 'right' },
  { title: 'ANSWERED', value: row => row.answered, align: 'right' },
  { title: 'AS-EXPECTED', value: row => row.right, align: 'right' },
];

const WRONG_COLUMNS: Column<Wrong>[] = [
  { title: 'FROM', value: row => row.from },
  { title: 'TO', value: row => row.to },
  { title: 'EXPECTED', value: row => row.expected },
  { title: 'ANSWERS', value: row => row.answers, align: 'right' },
];

/** Answers no where something is not as the configuration wants it. */
export async function simulated(flags: SimulateFlags): Promise<number> {
  const { mode = 'vxlan', nodes = 200, pods = 20, policies = false, everyPod = false, output } = flags;
  const result = simulate({ nodes, pods, mode: parseMode(mode), policies, everyPod, seed: 1 });
  if (!isForPeople(output)) await printDocument(output, result);
  else print(result);
  return result.probes.every(({ tried, right }) => tried === right) ? DONE : NO;
}

function print({ nodes, pods, mode, upMs, probeMs, probes, wrong, drops }: Simulation): void {
  process.stderr.write(
    `${nodes} nodes and ${pods} pods are up in memory: ${mode}, ${seconds(upMs)}; asked in ${seconds(probeMs)}\n`,
  );
  printTable(probes, PROBE_COLUMNS, false);
  if (drops.length > 0) {
    process.stdout.write('\n');
    printTable(
      drops,
      [
        { title: 'DROPPED', value: row => row.name },
        { title: 'PACKETS', value: row => row.packets, align: 'right' },
      ],
      false,
    );
  }
  if (wrong.length === 0) return;
  process.stdout.write('\n');
  printTable(wrong, WRONG_COLUMNS, false);
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

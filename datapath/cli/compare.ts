/** `tunpath lab compare`, which is what scripts/run does. */

import { type Comparison, compareModes, UDP_RATE } from '../lab/compare.ts';
import { MODES, parseMode } from '../lab/modes.ts';
import { DONE, NO } from './exit.ts';
import type { Format } from './format.ts';
import { claimLab } from './lab.ts';
import { readTopology, type TopologyFlags } from './lab-topology.ts';
import { type Column, printRows } from './table.ts';

const COLUMNS: Column<Comparison>[] = [
  { title: 'MODE', value: row => row.mode },
  { title: 'SUBNET', value: row => row.subnet },
  { title: 'HEADER', value: row => unit(row.headerBytes, 0, 'B'), align: 'right' },
  { title: 'MTU', value: row => row.mtu, align: 'right' },
  { title: 'MSS', value: row => row.mss, align: 'right' },
  { title: 'RTT-P50', value: row => unit(row.rttP50Ms, 3, 'ms'), align: 'right' },
  { title: 'RTT-P99', value: row => unit(row.rttP99Ms, 3, 'ms'), align: 'right' },
  { title: 'TCP', value: row => unit(row.tcpBitsPerSecond, 2, 'Gb/s', 1e9), align: 'right' },
  { title: 'RETRANS', value: row => row.tcpRetransmits, align: 'right' },
  { title: `UDP-LOSS@${UDP_RATE}`, value: row => unit(row.udpLossPercent, 2, '%'), align: 'right' },
  { title: 'SERVICE', value: row => row.service },
  { title: 'SEEN-OUTSIDE', value: row => row.outside },
  { title: 'RESULT', value: row => (row.failures.length === 0 ? 'ok' : 'failed') },
];

/** Answers no when any mode did not work. */
export async function compare(
  flags: TopologyFlags & { name: string; mode?: string[]; output: Format },
): Promise<number> {
  const { name } = flags;
  const topology = readTopology(flags);
  const modes = flags.mode === undefined ? MODES : flags.mode.map(parseMode);
  await claimLab(name);

  const started = performance.now();
  const progress = (line: string): void => {
    process.stderr.write(`[${((performance.now() - started) / 1000).toFixed(1).padStart(5)}] ${line}\n`);
  };
  const rows = await compareModes({ name, topology, modes, progress });
  await printRows(flags.output, rows, COLUMNS);
  for (const row of rows) {
    for (const failure of row.failures) process.stderr.write(`${row.mode} to ${row.server}: ${failure}\n`);
  }
  return rows.every(row => row.failures.length === 0) ? DONE : NO;
}

function unit(value: number | null, digits: number, name: string, divisor = 1): string | null {
  return value === null ? null : `${(value / divisor).toFixed(digits)} ${name}`;
}

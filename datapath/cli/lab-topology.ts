/** `tunpath lab topology`, and which topology `lab up` means. */
import { formatProblems } from '../control/load-config.ts';
import { DEFAULT_TOPOLOGY } from '../lab/lab.ts';
import { LabError } from '../lab/lab-error.ts';
import type { Topology } from '../lab/topology.ts';
import { loadTopology, topologyNamed, topologyNames, topologyText } from '../lab/topology-file.ts';
import { DONE, readText, UsageError } from './exit.ts';
import type { Format } from './format.ts';
import { didYouMean } from './manners.ts';
import { print } from './output.ts';
import { printRows } from './table.ts';

export interface TopologyFlags {
  topology?: string;
  file?: string;
}

/** The topology of the flags; without one the default. @throws UsageError, LabError with every problem of a file */
export function readTopology({ topology: name, file }: TopologyFlags): Topology {
  if (name !== undefined && file !== undefined) throw new UsageError('expected -t or -f, not both');
  const path = file ?? (name !== undefined && /[./]/.test(name) ? name : undefined);
  if (path === undefined) return topologyNamed(checkTopologyName(name ?? DEFAULT_TOPOLOGY));
  const { topology, problems } = loadTopology(readText(path), path === '-' ? 'standard input' : path);
  if (topology === undefined) throw new LabError(formatProblems(problems), { usage: true });
  return topology;
}

function checkTopologyName(name: string): string {
  const names = topologyNames();
  if (names.includes(name)) return name;
  throw new UsageError(
    `no topology '${name}'${didYouMean(name, names)}: expected one of ${names.join(', ')}, or a file such as ./lab.yaml`,
  );
}

/** Lists the built-in topologies, or prints the file of one. */
export async function topology(name: string | undefined, flags: { output: Format }): Promise<number> {
  if (name !== undefined) {
    await print(topologyText(checkTopologyName(name)));
    return DONE;
  }
  const rows = topologyNames().map(known => {
    const { nodes, pods, routers, mode, description } = topologyNamed(known);
    return { name: known, nodes: nodes.length, pods: pods.length, routers: routers.length, mode, description };
  });
  await printRows(flags.output, rows, [
    { title: 'NAME', value: row => row.name },
    { title: 'NODES', value: row => row.nodes, align: 'right' },
    { title: 'PODS', value: row => row.pods, align: 'right' },
    { title: 'ROUTERS', value: row => row.routers, align: 'right', wide: true },
    { title: 'MODE', value: row => row.mode, wide: true },
    { title: 'DESCRIPTION', value: row => row.description ?? '' },
  ]);
  return DONE;
}

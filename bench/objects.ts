/**
 * A large cluster as objects: how long until the API holds it, lists it, tells of a change, and nodes have their programs.
 *
 *   node --expose-gc dist/bench/objects.js [-o json] [--nodes N] [--pods N] [--services N] [--policies N] [--watches N]
 */
import { formatGrid } from '../datapath/cli/table.ts';
import { environment } from './environment.ts';
import { measureCluster } from './objects/cluster.ts';

function argument(name: string, otherwise: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}

const size = {
  nodes: argument('--nodes', 500),
  pods: argument('--pods', 10_000),
  services: argument('--services', 5000),
  policies: argument('--policies', 1000),
  watches: argument('--watches', 500),
};
const seen = await measureCluster(size);
if (process.argv.includes('json')) {
  process.stdout.write(`${JSON.stringify({ environment: environment(), size, seen }, null, 2)}\n`);
} else {
  const { cpu, cores, node } = environment();
  const ms = (value: number): string => `${value.toFixed(0)} ms`;
  process.stdout.write(`${cpu}, ${cores} cores, Node ${node}\n`);
  process.stdout.write(
    formatGrid(
      ['WHAT', 'SEEN'],
      [
        ['objects, with those of the controllers', seen.objects],
        ['created, into a journal', `${ms(seen.createMs)}, ${seen.journalMiB.toFixed(0)} MiB`],
        [`controllers settled, ${seen.slices} EndpointSlices`, ms(seen.settleMs)],
        ['what they could not do', seen.errors],
        ['all pods listed, in pages of 500', ms(seen.listMs)],
        [`a change heard by ${size.watches} watches`, ms(seen.watchMs)],
        ['the journal read again', ms(seen.openMs)],
        [`programs of ${size.nodes} nodes from it`, ms(seen.programsMs)],
        [`one Service changed, in ${size.nodes} programs`, ms(seen.changeMs)],
        ['services of a program that are new by that', seen.changedServices],
        ['memory: heap, resident', `${seen.heapMiB.toFixed(0)}, ${seen.rssMiB.toFixed(0)} MiB`],
      ],
    ),
  );
}

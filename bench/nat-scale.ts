/**
 * Does NAT hold at scale? A SYN flood beside established connections; every port of a masquerade address taken; ten
 * thousand services of which one changes; a million flows opened, and what stops the loop meanwhile.
 *
 *   node dist/bench/nat-scale.js [-o json] [--flood N] [--services N,N,...] [--flows N]
 */
import { formatGrid } from '../datapath/cli/table.ts';
import { environment } from './environment.ts';
import { openFlows } from './nat-scale/open-flows.ts';
import { takeAllPorts } from './nat-scale/ports.ts';
import { changeServices } from './nat-scale/services.ts';
import { floodWithSyns } from './nat-scale/syn-flood.ts';

function argument(name: string, otherwise: string): string {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : process.argv[at + 1];
}

const json = argument('-o', 'table') === 'json';
const flood = floodWithSyns(Number(argument('--flood', '10000000')), 1000);
const ports = takeAllPorts();
const counts = argument('--services', '10,100,1000,10000').split(',').map(Number);
const services = counts.map(count => changeServices(count));
const flows = Number(argument('--flows', '1000000'));
const opened = (['linux', 'rfc'] as const).map(profile => openFlows(flows, profile));

function print(title: string, rows: [string, unknown][]): void {
  process.stdout.write(`\n${title}\n${formatGrid(['WHAT', 'SEEN'], rows)}`);
}

if (json) {
  const results = { flood: { ...flood, drops: Object.fromEntries(flood.drops) }, ports, services, opened };
  process.stdout.write(`${JSON.stringify({ environment: environment(), results }, null, 2)}\n`);
} else {
  const { cpu, cores, node } = environment();
  process.stdout.write(`${cpu}, ${cores} cores, Node ${node}\n`);
  print(`SYN flood, ${flood.established} established connections beside it`, [
    ['packets read by the uplink', flood.flood],
    ['ns per SYN', flood.nsPerPacket.toFixed(0)],
    ['established: sent, delivered', `${flood.sent}, ${flood.delivered}`],
    ...[...flood.drops].map(([name, n]): [string, unknown] => [name, n]),
    ['packets that no counter explains', flood.unexplained],
    [
      'flows: made, evicted, expired, now',
      `${flood.flows.created}, ${flood.flows.evicted}, ${flood.flows.expired}, ${flood.flows.used}`,
    ],
    ['RSS MiB, first and last round', flood.rss.join(' -> ')],
    ['heap MiB, first and last round', flood.heap.join(' -> ')],
  ]);
  print('One masquerade address, one server', [
    ['flows that got a port', ports.allocated],
    ['different ports', ports.distinct],
    ['the next one: ICMP 3/13', ports.errorSent],
    ['closed by the server, found by new flows', `${ports.closed}, ${ports.comeBack}`],
    ...ports.nsByPercent.map(([percent, ns]): [string, unknown] => [
      `ns per new flow up to ${percent} % taken`,
      ns.toFixed(0),
    ]),
  ]);
  const table: unknown[][] = [];
  const titles = [
    'SERVICES',
    'ENDPOINTS',
    'BUILD MS',
    'CHANGE US',
    'P99 US',
    'LONGEST US',
    'GAP US',
    'GAP WITH CHANGES US',
    'LOST',
    'LOOKUP NS',
    'OF RANDOM ONES',
  ];
  const us = (ms: number) => (ms * 1000).toFixed(0);
  for (const s of services) {
    table.push([
      s.services,
      s.endpoints,
      s.buildMs.toFixed(0),
      us(s.changeMs),
      us(s.p99ChangeMs),
      us(s.longestChangeMs),
      us(s.quietGapMs),
      us(s.busyGapMs),
      s.lost,
      s.hotLookupNs.toFixed(0),
      s.lookupNs.toFixed(0),
    ]);
  }
  process.stdout.write(`\nA change to one service\n${formatGrid(titles, table)}`);
  for (const o of opened) {
    print(`${o.flows} flows through one masquerade address, each to another server, profile ${o.profile}`, [
      ['ns per new flow', o.nsPerFlow.toFixed(0)],
      ['burst of 64 new flows: median, longest', `${o.medianBurstMs.toFixed(3)} ms, ${o.longestBurstMs.toFixed(3)} ms`],
      ['while all expire: ticks, longest', `${o.ticks}, ${o.longestTickMs.toFixed(3)} ms`],
    ]);
  }
}

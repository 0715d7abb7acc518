/** `tunpath lab list, inspect, graph, pingall, restart`: looking at a lab, and mending it. */

import { drawMermaid, drawSvg } from '../lab/graph.ts';
import { Lab } from '../lab/lab.ts';
import { LabError, requireRoot } from '../lab/lab-error.ts';
import { checkLabName, socketOf } from '../lab/names.ts';
import { DONE, NO, UsageError } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { didYouMean } from './manners.ts';
import { type Column, printDocument, printRows, printTable } from './table.ts';

/** Of one ping, s: the first may have to wait for ARP. */
const PING_PATIENCE_S = 1;
/** Pings at once. */
const AT_ONCE = 8;

/**
 * A lab by its name; without one the only lab there is, or the one that is called `lab`.
 * @throws LabError when there is none, or several
 */
export function openLab(name: string | undefined): Lab {
  requireRoot('a lab');
  const names = Lab.list();
  if (name !== undefined) {
    checkLabName(name);
    const hint = names.includes(name) ? '' : didYouMean(name, names);
    if (hint !== '') throw new LabError(`no lab '${name}' is up${hint}`);
    return Lab.open(name);
  }
  if (names.length === 1) return Lab.open(names[0]);
  if (names.length === 0) throw new LabError("no lab is up: 'tunpath lab up' brings one up");
  if (names.includes('lab')) return Lab.open('lab');
  throw new LabError(`several labs are up: expected --name with one of ${names.join(', ')}`, { usage: true });
}

interface ListRow {
  name: string;
  topology: string | null;
  mode: string | null;
  nodes: number;
  pods: number;
  state: 'up' | 'damaged' | 'left behind';
}

export async function list(flags: { output: Format }): Promise<number> {
  requireRoot('a lab');
  const rows = Lab.list().map((name): ListRow => {
    try {
      const lab = Lab.open(name);
      const hosts = lab.status();
      const count = (kind: string) => hosts.filter(host => host.kind === kind).length;
      const whole = hosts.every(({ state }) => state !== 'down');
      return {
        name,
        topology: lab.topology.name,
        mode: lab.mode,
        nodes: count('node'),
        pods: count('pod'),
        state: whole ? 'up' : 'damaged',
      };
    } catch {
      return { name, topology: null, mode: null, nodes: 0, pods: 0, state: 'left behind' };
    }
  });
  if (rows.length === 0 && isForPeople(flags.output))
    process.stderr.write("no lab is up: 'tunpath lab up' brings one up\n");
  else {
    await printRows(flags.output, rows, [
      { title: 'NAME', value: row => row.name },
      { title: 'TOPOLOGY', value: row => row.topology },
      { title: 'MODE', value: row => row.mode },
      { title: 'NODES', value: row => row.nodes, align: 'right' },
      { title: 'PODS', value: row => row.pods, align: 'right' },
      { title: 'STATE', value: row => row.state },
    ]);
  }
  return DONE;
}

/** Everything that another tool needs to find a host of the lab: namespace, addresses, socket, process. */
export async function inspect(flags: { name?: string; output: Format }): Promise<number> {
  const lab = openLab(flags.name);
  const hosts = lab.status().map(row => ({
    ...row,
    socket: row.kind === 'node' ? socketOf(lab.name, row.host) : null,
    enter: row.namespace === '' ? null : `ip netns exec ${row.namespace}`,
  }));
  const { subnets, services, routers, links } = lab.topology;
  const document = {
    name: lab.name,
    topology: lab.topology.name,
    mode: lab.mode,
    profile: lab.options.profile ?? null,
    files: lab.stateDir,
    subnets,
    routers: routers.map(({ name, legs }) => ({ name, legs })),
    links,
    services: services.map(({ name, address, ports }) => ({
      name,
      address,
      ports: ports.map(({ port, nodePort }) => (nodePort === undefined ? `${port}` : `${port}:${nodePort}`)),
    })),
    hosts,
  };
  if (!isForPeople(flags.output)) {
    await printDocument(flags.output, document);
    return DONE;
  }
  const wide = flags.output === 'wide';
  process.stdout.write(
    `lab ${lab.name}: topology ${document.topology}, mode ${document.mode}, files in ${document.files}\n\n`,
  );
  printTable(hosts, HOST_COLUMNS, wide);
  process.stdout.write('\n');
  printTable(
    document.services,
    [
      { title: 'SERVICE', value: row => row.name },
      { title: 'ADDRESS', value: row => row.address },
      { title: 'PORTS', value: row => row.ports },
    ],
    wide,
  );
  return DONE;
}

const HOST_COLUMNS: Column<ReturnType<Lab['status']>[number] & { socket: string | null; enter: string | null }>[] = [
  { title: 'HOST', value: row => row.host },
  { title: 'KIND', value: row => row.kind },
  { title: 'ADDRESS', value: row => row.address },
  { title: 'STATE', value: row => row.state },
  { title: 'ENTER-WITH', value: row => row.enter },
  { title: 'PID', value: row => row.pid, align: 'right', wide: true },
  { title: 'CONTROL-SOCKET', value: row => row.socket, wide: true },
];

export const GRAPH_FORMATS = ['mermaid', 'svg'] as const;

export async function graph(flags: { name?: string; format: string }): Promise<number> {
  const lab = openLab(flags.name);
  const draw = flags.format === 'svg' ? drawSvg : drawMermaid;
  process.stdout.write(draw(lab.topology, lab.mode, lab.name));
  return DONE;
}

/** A ping from every pod to every other. Answers no where one is not answered. */
export async function pingall(flags: { name?: string; output: Format }): Promise<number> {
  const lab = openLab(flags.name);
  const { pods } = lab.topology;
  // One in memory answers, but sends nothing by itself.
  const senders = pods.filter(({ memory }) => memory === undefined);
  const pairs = senders.flatMap(from => pods.filter(to => to !== from).map(to => ({ from, to })));
  const rows: { from: string; to: string; address: string; result: 'ok' | 'fail'; rttMs: number | null }[] = [];
  for (let i = 0; i < pairs.length; i += AT_ONCE) {
    const some = pairs.slice(i, i + AT_ONCE).map(async ({ from, to }) => {
      const argv = ['ping', '-n', '-c', '1', '-W', `${PING_PATIENCE_S}`, to.address];
      const { exitCode, stdout } = await lab.exec(from.name, argv);
      const rtt = /time=([\d.]+) ms/.exec(stdout)?.[1];
      return {
        from: from.name,
        to: to.name,
        address: to.address,
        result: exitCode === 0 ? ('ok' as const) : ('fail' as const),
        rttMs: rtt === undefined ? null : Number(rtt),
      };
    });
    rows.push(...(await Promise.all(some)));
  }
  await printRows(flags.output, rows, [
    { title: 'FROM', value: row => row.from },
    { title: 'TO', value: row => row.to },
    { title: 'ADDRESS', value: row => row.address },
    { title: 'RESULT', value: row => row.result },
    { title: 'RTT', value: row => (row.rttMs === null ? null : `${row.rttMs} ms`), align: 'right' },
  ]);
  const failed = rows.filter(({ result }) => result === 'fail').length;
  if (isForPeople(flags.output)) process.stderr.write(`${rows.length - failed} of ${rows.length} answered\n`);
  return failed === 0 ? DONE : NO;
}

/** Ends a node, if it still runs, and starts it again as it was configured. */
export async function restart(host: string, flags: { name?: string }): Promise<number> {
  const lab = openLab(flags.name);
  const names = lab.topology.nodes.map(({ name }) => name);
  if (!names.includes(host)) {
    throw new UsageError(
      `lab '${lab.name}' has no node '${host}'${didYouMean(host, names)}: expected one of ${names.join(', ')}`,
    );
  }
  const started = performance.now();
  const again = await lab.restartNode(host);
  process.stderr.write(
    `${again.join(', ')} ${again.length === 1 ? 'is' : 'are'} up again: ${((performance.now() - started) / 1000).toFixed(1)} s\n`,
  );
  return DONE;
}

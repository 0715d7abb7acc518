/** `tunpath mtu prove` and `tunpath mtu probe`: what passes, and who refuses what does not. */

import { formatProblems } from '../control/load-config.ts';
import { describeFileError } from '../control/read-text.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { Lab } from '../lab/lab.ts';
import { LabError } from '../lab/lab-error.ts';
import { findLastSeen, type Sample } from '../lab/last-seen.ts';
import { memberEnvironment, namespacePrefix } from '../lab/names.ts';
import { type ProbeEnd, probeOneWay, sendLost } from '../lab/probe.ts';
import type { Outcome, Search } from '../lab/probe-agent.ts';
import { addressesOfRouter, type LabPod } from '../lab/topology.ts';
import { writeFailingPacket } from '../mtu-prove/failing-packet.ts';
import { type Inputs, loadInputs } from '../mtu-prove/load.ts';
import { Network } from '../mtu-prove/network.ts';
import { type Case, prove as proveAll, type Verdict } from '../mtu-prove/prove.ts';
import { proofRow, type TableRow, tableRows } from '../mtu-prove/report.ts';
import { DONE, NO, USAGE, UsageError } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { type Column, printRows } from './table.ts';

export interface ProveFlags {
  file?: string[];
  lab?: string;
  expand?: boolean;
  pcap?: string;
  output: Format;
}

const COLUMNS: Column<TableRow>[] = [
  { title: 'FROM', value: row => row.from },
  { title: 'TO', value: row => row.to },
  { title: 'VIA', value: row => row.via },
  { title: 'PAIRS', value: row => row.pairs, align: 'right', wide: true },
  { title: 'LARGEST', value: row => (row.verdict === 'unreachable' ? null : row.largest), align: 'right' },
  { title: 'VERDICT', value: row => row.verdict },
  { title: 'WHY', value: row => row.why },
];

const BROKEN: readonly Verdict[] = ['black hole', 'unreachable'];

/** Answers no where packets vanish. */
export async function prove(flags: ProveFlags): Promise<number> {
  if (flags.file === undefined && flags.lab === undefined)
    throw new UsageError('expected -f FILE_OR_DIR, or --lab NAME');
  const inputs = readInputs(flags.file ?? []);
  if (inputs.problems.length > 0) {
    process.stderr.write(`${formatProblems(inputs.problems)}\n`);
    return USAGE;
  }
  const configs = [...inputs.configs, ...(flags.lab === undefined ? [] : await configsOf(flags.lab))];
  if (configs.length === 0)
    throw new UsageError(`${(flags.file ?? []).join(', ')}: got none, expected at least one NodeConfig`);

  const network = new Network(configs, inputs.underlays, inputs.segments);
  const expand = flags.expand === true;
  const cases = proveAll(network, expand);
  if (isForPeople(flags.output)) await printRows(flags.output, tableRows(cases, expand), COLUMNS);
  else await printRows(flags.output, cases.map(proofRow), []);
  sayWhatFails(cases, network, flags.pcap);
  return cases.some(({ verdict }) => BROKEN.includes(verdict)) ? NO : DONE;
}

function readInputs(files: readonly string[]): Inputs {
  try {
    return loadInputs(files);
  } catch (error) {
    const { syscall, path } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new UsageError(`${path}: ${describeFileError(error)}`);
  }
}

/** What the nodes of a lab run with, under their names in the lab. */
async function configsOf(name: string): Promise<ResolvedConfig[]> {
  const lab = Lab.open(name);
  const prefix = namespacePrefix(name);
  return Promise.all(
    lab.topology.nodes.map(async node => {
      const config = (await lab.control(node.name, 'config')) as ResolvedConfig;
      return { ...config, metadata: { name: config.metadata.name.replace(prefix, '') } };
    }),
  );
}

/** The first packet that fails, of the worst kind there is, in words and as a file. */
function sayWhatFails(cases: readonly Case[], network: Network, pcap: string | undefined): void {
  const failing =
    cases.find(c => c.verdict === 'black hole' && c.fails !== null) ?? cases.find(({ fails }) => fails !== null);
  if (failing?.fails == null) {
    if (pcap !== undefined) process.stderr.write(`nothing fails: ${pcap} is not written\n`);
    return;
  }
  const { sender, fails, largest, verdict } = failing;
  const what = verdict === 'black hole' ? 'vanishes' : 'is refused';
  process.stderr.write(
    `${fails.protocol} of ${fails.bytes} bytes ${fails.df ? 'with' : 'without'} DF ${what}, ${largest} pass: in ${sender.name}, ${fails.command}\n`,
  );
  if (pcap === undefined) return;
  try {
    writeFailingPacket(pcap, network, failing);
  } catch (error) {
    throw new UsageError(`--pcap ${pcap}: ${describeFileError(error)}`);
  }
}

export interface ProbeFlags {
  lab: string;
  output: Format;
}

/** One direction, measured. */
interface ProbeRow {
  from: string;
  to: string;
  largest: number;
  next: number;
  outcome: Outcome['outcome'];
  /** Who refused it, or where it was seen last. */
  by: string;
  detail: Search;
}

const PROBE_COLUMNS: Column<ProbeRow>[] = [
  { title: 'FROM', value: row => row.from },
  { title: 'TO', value: row => row.to },
  { title: 'LARGEST', value: row => row.largest, align: 'right' },
  { title: 'NEXT', value: row => row.next, align: 'right' },
  { title: 'OUTCOME', value: row => row.outcome },
  { title: 'BY', value: row => row.by },
  { title: 'WITHOUT-DF', value: row => row.detail.withoutDf?.outcome },
  { title: 'DEVICE-MTU', value: row => row.detail.device, align: 'right', wide: true },
  { title: 'KNOWN-MTU', value: row => row.detail.known, align: 'right', wide: true },
  { title: 'PACKETS', value: row => row.detail.packets, align: 'right', wide: true },
];

/** Answers no where packets vanish. */
export async function probe(from: string, to: string, flags: ProbeFlags): Promise<number> {
  const lab = Lab.open(flags.lab);
  const [a, b] = [podOf(lab, from), podOf(lab, to)];
  if (a === b) throw new UsageError('expected two different pods');
  const rows = [await probePods(lab, a, b), await probePods(lab, b, a)];
  await printRows(flags.output, rows, PROBE_COLUMNS);
  return rows.some(({ outcome }) => outcome === 'lost') ? NO : DONE;
}

function podOf(lab: Lab, name: string): LabPod {
  const pod = lab.topology.pods.find(candidate => candidate.name === name);
  if (pod !== undefined) return pod;
  const pods = lab.topology.pods.map(candidate => candidate.name).join(', ');
  throw new LabError(`lab '${lab.name}' has no pod '${name}': expected one of ${pods}`, { usage: true });
}

async function probePods(lab: Lab, from: LabPod, to: LabPod): Promise<ProbeRow> {
  const env = memberEnvironment(lab.name);
  const [a, b] = [from, to].map((pod): ProbeEnd => ({ netns: lab.namespace(pod.name), address: pod.address }));
  const detail = await probeOneWay(a, b, env);
  const { largest, next, ended } = detail;
  const by = ended.outcome === 'lost' ? await findLost(lab, from, to, next) : refuserText(lab, from, detail);
  return { from: from.name, to: to.name, largest, next, outcome: ended.outcome, by, detail };
}

/** Sends more of what is lost, and looks how far it comes. */
async function findLost(lab: Lab, from: LabPod, to: LabPod, bytes: number): Promise<string> {
  const [a, b] = [from, to].map((pod): ProbeEnd => ({ netns: lab.namespace(pod.name), address: pod.address }));
  const before = await samplesOf(lab);
  const { sent, arrived } = await sendLost(a, b, bytes, memberEnvironment(lab.name));
  const after = await samplesOf(lab);
  if (arrived > 0) return `${arrived} of ${sent} arrived after all`;
  const [there, here] = [to, from].map(pod => ({ node: pod.node, pod: `default/${pod.name}` }));
  return findLastSeen(before, after, { from: here, to: there }, sent);
}

async function samplesOf(lab: Lab): Promise<Map<string, Sample>> {
  const samples = new Map<string, Sample>();
  for (const { name } of lab.topology.nodes) {
    const [ports, counters] = await Promise.all(['ports', 'counters'].map(kind => lab.control(name, 'get', { kind })));
    samples.set(name, { ports, counters } as Sample);
  }
  return samples;
}

function refuserText(lab: Lab, from: LabPod, { device, known, ended }: Search): string {
  switch (ended.outcome) {
    case 'local':
      return `the kernel of ${from.name}: ${ended.error}, MTU ${device}; nothing was sent, so nothing was lost`;
    case 'signalled': {
      const told = `${ownerOf(lab, ended.by)}: fragmentation needed, MTU ${ended.mtu}`;
      return known < device ? `${told}; ordinary programs hear it from their kernel (MTU ${known}, EMSGSIZE)` : told;
    }
    case 'refused':
      return `${ownerOf(lab, ended.by)}: ICMP type ${ended.type} code ${ended.code}`;
    default:
      return '';
  }
}

/** `k8s-ctr (172.20.0.201)` */
function ownerOf(lab: Lab, address: string): string {
  const { nodes, pods, routers } = lab.topology;
  const owner =
    nodes.find(node => node.hostAddress === address || node.address.startsWith(`${address}/`))?.name ??
    pods.find(pod => pod.address === address)?.name ??
    routers.find(({ name }) => addressesOfRouter(lab.topology, name).includes(address))?.name;
  return owner === undefined ? address : `${owner} (${address})`;
}

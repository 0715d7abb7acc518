/**
 * Values that options and arguments may have, where commander does not know them: constants of the program, and what runs
 * on this machine now. Only what is asked for is imported, and a node that does not answer has no values.
 */
import type { Argument, Option } from 'commander';
import { RESOURCES } from '../api/resources.ts';
import { callNode } from '../control/client.ts';
import { KINDS } from '../control/kinds.ts';
import type { SegmentState } from '../control/loops.ts';
import { listNodes, pickNode, shortName, socketPathOf } from './client.ts';
import { FORMATS } from './format.ts';
import { findKind } from './kinds.ts';

/** A word that may stand there, and what it means; no description where the word says it. */
export interface Completion {
  value: string;
  description?: string;
}

/** The line before the word that is being typed. */
export interface TypedLine {
  /** Names of the commands, without `tunpath`. */
  commands: readonly string[];
  /** What stands where arguments do. */
  args: readonly string[];
  /** By their long names, without dashes. */
  options: ReadonlyMap<string, readonly string[]>;
}

type Values = readonly (string | Completion)[];
type Source = (line: TypedLine) => Values | Promise<Values>;

/** A shell waits for this. */
const PATIENCE_MS = 1000;

const modes: Source = async () => (await import('../lab/modes.ts')).MODES;
const profiles: Source = async () => Object.keys((await import('../profile.ts')).PROFILES);
const formats: Source = () => FORMATS;
const nodes: Source = () => listNodes().map(shortName);
const labs: Source = async () => (await import('../lab/remains.ts')).labNames();
const verdicts: Source = () => ['FORWARDED', 'DROPPED'];
const protocols: Source = async () => (await import('../observe/flow-filter.ts')).PROTOCOL_NAMES;

/**
 * By the words of the command and its option's or argument's name; an option alone is that of all commands. Test
 * completion.test.ts holds that each is there.
 */
export const SOURCES: Readonly<Record<string, Source>> = {
  '--node': nodes,
  '--output': formats,
  '--lab': labs,
  '--name': labs,
  '--profile': profiles,
  'get kind': kinds,
  'get name': rowNames,
  'get --output': () => [...FORMATS, 'name', 'cilium'],
  'get --proto': async () => [...(await import('../control/nat-rows.ts')).PROTOCOL_NAMES.values()],
  'get --status': () => ['ASSURED', 'SEEN_REPLY', 'UNREPLIED', 'SRC_NAT', 'DST_NAT'],
  'describe kind': kinds,
  'describe name': rowNames,
  'observe --output': async () => (await import('../observe/hubble-text.ts')).OBSERVE_FORMATS,
  'observe --verdict': verdicts,
  'observe --reason': reasons,
  'observe --type': () => ['drop', 'trace'],
  'observe --pod': pods,
  'observe --from-pod': pods,
  'observe --to-pod': pods,
  'observe --protocol': protocols,
  'observe --service': services,
  'monitor --type': async () => (await import('../observe/monitor-text.ts')).MONITOR_TYPES,
  'capture --at': async line => ['any', ...(await ports(line))],
  'explain --from': pods,
  'explain --to': async line => [...(await pods(line)), ...(await services(line))],
  'explain --proto': () => ['tcp', 'udp', 'icmp'],
  'explain-config path': fields,
  'conformance --profile': async line => [...(await profiles(line)), 'all'],
  'conformance --clause': clauses,
  'segment set segment': async line => (await segments(line)).map(({ name }) => name),
  'segment set --from': segmentPorts,
  'segment set --to': segmentPorts,
  'segment set --distribution': async () => (await import('../segment/impairments.ts')).DISTRIBUTIONS,
  'segment set --icmp': () => ['passed', 'filtered'],
  'mtu probe from': labHosts,
  'mtu probe to': labHosts,
  'lab up --mode': modes,
  'lab up --topology': topologies,
  'lab topology name': topologies,
  'lab up --offload': () => ['auto', 'none'],
  'lab restart node': labHosts,
  'lab exec host': labHosts,
  'lab compare --mode': modes,
  'lab scenario run names': scenarios,
  'bench e2e --modes': async () => (await import('../../bench/e2e/topologies.ts')).MODES,
  'bench e2e --only': async () => (await import('../../bench/e2e/metrics.ts')).SUITES,
  'bench e2e --nat': async () => (await import('../../bench/e2e/topologies.ts')).NATS,
  'bench pipeline --modes': async () => (await import('../../bench/pipeline/rig.ts')).MODES,
  'bench pipeline --nat': async () => (await import('../../bench/pipeline/rig.ts')).NATS,
  'bench micro --only': async () => (await import('../../bench/micro/cases.ts')).GROUPS,
  'bench mtu --modes': async () => (await import('../../bench/mtu.ts')).MODES,
};

/** Where one word holds several, between commas. */
const LISTS = /^(bench |get --status$)/;

/** What may stand there: nothing where that cannot be found out, undefined where anything may. */
export async function valuesOf(
  line: TypedLine,
  of: Option | Argument,
  word: string,
): Promise<readonly Completion[] | undefined> {
  const name = 'flags' in of ? (of.long ?? of.short ?? '') : of.name();
  const key = [...line.commands, name].join(' ');
  const source = SOURCES[key] ?? SOURCES[name];
  if (source === undefined) return undefined;
  let values: Values;
  try {
    values = await source(line);
  } catch {
    return [];
  }
  const before = LISTS.test(key) ? /^.*,|^/.exec(word)?.[0] : '';
  return values.map(one => {
    const { value, description } = typeof one === 'string' ? ({ value: one } as Completion) : one;
    return { value: `${before}${value}`, description };
  });
}

type Rows = readonly Readonly<Record<string, unknown>>[];

/** Of the nodes that the line means, all at once. */
async function askNodes(line: TypedLine, method: string, params: Record<string, unknown> = {}): Promise<Rows> {
  const wanted = line.options.get('node')?.at(-1);
  const names = wanted === undefined ? listNodes() : [pickNode(wanted, listNodes())];
  const answers = await Promise.all(
    names.map(name => callNode(socketPathOf(name), method, params, PATIENCE_MS).catch(() => [])),
  );
  return answers.flat() as Rows;
}

function kinds(): Values {
  return [...new Set([...KINDS, ...RESOURCES.map(({ plural }) => plural)])];
}

async function rowNames(line: TypedLine): Promise<Values> {
  const { name: kind, keys } = findKind(line.args[0]);
  const [key] = keys;
  return key === undefined ? [] : textsOf(await askNodes(line, 'get', { kind }), key);
}

async function ports(line: TypedLine): Promise<string[]> {
  return textsOf(await askNodes(line, 'get', { kind: 'ports' }), 'name');
}

async function pods(line: TypedLine): Promise<string[]> {
  const rows = await askNodes(line, 'get', { kind: 'ports' });
  return textsOf(
    rows.filter(({ kind }) => kind !== 'host' && kind !== 'uplink'),
    'name',
  );
}

async function services(line: TypedLine): Promise<string[]> {
  return textsOf(await askNodes(line, 'get', { kind: 'services' }), 'name');
}

async function segments(line: TypedLine): Promise<readonly SegmentState[]> {
  return (await askNodes(line, 'segments')) as unknown as readonly SegmentState[];
}

async function segmentPorts(line: TypedLine): Promise<Values> {
  const own = (await segments(line)).filter(({ name }) => line.args[0] === name);
  return [...new Set(own.flatMap(({ ports }) => ports.map(port => port.name)))];
}

/** Each different one, in order. */
function textsOf(rows: Rows, field: string): string[] {
  return [...new Set(rows.map(row => String(row[field])))].sort();
}

async function topologies(): Promise<Values> {
  return (await import('../lab/topology-file.ts')).topologyNames();
}

async function fields(): Promise<Values> {
  const { CONFIG_KINDS, fieldsOf } = await import('../control/reference.ts');
  return fieldsOf(CONFIG_KINDS[0]!).map(({ path, text }) => ({
    value: path.replaceAll('[]', ''),
    description: text,
  }));
}

async function reasons(): Promise<Values> {
  const { REASONS } = await import('../observe/reasons.ts');
  return Object.entries(REASONS).map(([name, { meaning }]) => ({
    value: name.replace(/^drop-/, ''),
    description: meaning,
  }));
}

async function clauses(): Promise<Values> {
  const { CLAUSES } = await import('../conformance/registry.ts');
  return CLAUSES.map(({ rfc, clause, requirement }) => ({
    value: `${rfc}/${clause.replace('§', '')}`,
    description: requirement,
  }));
}

async function scenarios(): Promise<Values> {
  const { SCENARIOS } = await import('../lab/scenarios/index.ts');
  return SCENARIOS.map(({ name, shows }) => ({ value: name, description: shows }));
}

/** Hosts of the lab that the line means: by its namespaces, for which nothing need be opened. */
async function labHosts(line: TypedLine): Promise<Values> {
  const [{ labNames, namespacesOf }, { AWAY, namespacePrefix, SWITCH }] = await Promise.all([
    import('../lab/remains.ts'),
    import('../lab/names.ts'),
  ]);
  const [only, ...others] = labNames();
  const name = line.options.get('name')?.at(-1) ?? line.options.get('lab')?.at(-1);
  const lab = name ?? (others.length === 0 ? only : 'lab');
  if (lab === undefined) return [];
  const hosts = namespacesOf(lab).map(namespace => namespace.slice(namespacePrefix(lab).length));
  return hosts.filter(host => host !== SWITCH && host !== AWAY);
}

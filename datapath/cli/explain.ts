/** `tunpath explain`: one packet through every step, on configurations alone or on what running nodes have. */

import { callNode, streamFromNode } from '../control/client.ts';
import { formatProblems } from '../control/load-config.ts';
import type { FlowRow } from '../control/nat-rows.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { loadInputs } from '../mtu-prove/load.ts';
import { answerTo, type Entry, type Explained, explain as explainOne, GOOD } from '../observe/explain.ts';
import { differentLines, explainText, type Variant, variantOf } from '../observe/explain-text.ts';
import type { HeaderOptions } from '../observe/headers.ts';
import { pageOf, REASONS } from '../observe/reasons.ts';
import { whatIf } from '../observe/what-if.ts';
import { type Wire, World } from '../observe/world.ts';
import { STEP_NAMES } from '../path/watcher.ts';
import { socketPathOf } from './client.ts';
import { DONE, describeFileError, NO, USAGE, UsageError } from './exit.ts';
import { copyFlows } from './explain-flows.ts';
import { type PacketFlags, readEntry } from './explain-packet.ts';
import { readPolicies } from './explain-policies.ts';
import { type Format, isForPeople } from './format.ts';
import { print } from './output.ts';
import { type Column, formatTable, printDocument } from './table.ts';
import { watchedNodes } from './watched.ts';

export interface ExplainFlags extends PacketFlags {
  config?: string[];
  both?: boolean;
  whatIf?: string[];
  seed: string;
  output: Format;
}

/** What is explained: nodes, what is known of their wires, and flows that they have. */
interface Subject {
  configs: ResolvedConfig[];
  wires: Map<string, Wire>;
  flows: Map<string, FlowRow[]>;
  /** What of a running node is not here. */
  missing: string[];
}

interface Found {
  there: Explained;
  back: Explained | null;
}

const NOT_COPIED = [
  'TCP windows (no segment is out of them here)',
  'neighbours (all answer)',
  'path MTUs that were learnt',
  'fragments that wait',
  'which backend has which flow, and who sticks to one',
  'ICMP rate limits',
];

const COLUMNS: Column<Variant>[] = [
  { title: 'CONFIGURATION', value: row => row.name },
  { title: 'OUTCOME', value: row => row.outcome },
  { title: 'REASON', value: row => row.reasons },
  { title: 'ANSWER', value: row => row.answer },
  { title: 'PATH', value: row => row.path },
  { title: 'BYTES', value: row => row.bytes },
  { title: 'ON THE WIRE', value: row => row.wire },
];

/** Answers no where the packet, or with --both its answer, does not arrive. */
export async function explain(flags: ExplainFlags): Promise<number> {
  const seed = Number(flags.seed);
  if (!/^\d+$/.test(flags.seed)) throw new UsageError(`--seed ${flags.seed}: expected a whole number from 0`);
  const subject = flags.config === undefined ? await readRunning(flags.node) : readFiles(flags.config);
  if (subject === null) return USAGE;
  const entry = readEntry(subject.configs, flags);
  const variants = (flags.whatIf ?? []).map(text => ({ name: text, change: whatIf(text, readPolicies) }));
  const headers = headerOptions(subject.configs);

  const base = run(subject, entry, seed, flags.both === true);
  const others = variants.map(({ name, change }) => {
    const configs = subject.configs.map(change);
    return { name, ...run({ ...subject, configs }, entry, seed, flags.both === true), headers: headerOptions(configs) };
  });
  const rows = [
    variantOf('as it is', base.there, base.back, headers),
    ...others.map(other => variantOf(other.name, other.there, other.back, other.headers)),
  ];
  if (isForPeople(flags.output)) {
    const text = explainText(base.there, 'packet', headers);
    await print(text);
    if (base.back !== null) await print(`\n${explainText(base.back, 'answer', headers)}`);
    for (const { name, there, headers: options } of others) {
      const lines = differentLines(explainText(there, 'packet', options), text);
      await print(`\nwhat if ${name}: ${lines === '' ? 'the same, step by step\n' : `these lines instead\n${lines}`}`);
    }
    if (others.length > 0) await print(`\n${formatTable(rows, COLUMNS, flags.output === 'wide')}`);
  } else {
    await printDocument(flags.output, {
      ...documentOf(base),
      ...(others.length === 0 ? {} : { whatIf: others.map(other => ({ name: other.name, ...documentOf(other) })) }),
      notCopied: subject.missing,
    });
  }
  if (subject.missing.length > 0) process.stderr.write(`not copied: ${subject.missing.join('; ')}\n`);
  const isGood = GOOD.includes(base.there.outcome) && (base.back === null || GOOD.includes(base.back.outcome));
  return isGood ? DONE : NO;
}

function run({ configs, wires, flows }: Subject, entry: Entry, seed: number, both: boolean): Found {
  const world = new World(configs, { seed, wires });
  try {
    for (const [node, rows] of flows) copyFlows(world, node, rows);
    const there = explainOne(world, entry);
    const arrival = there.arrivals.find(({ isOwn }) => !isOwn);
    const isDelivered = there.outcome === 'delivered' || there.outcome === 'left';
    const answer = both && isDelivered && arrival !== undefined ? answerTo(arrival) : null;
    return { there, back: answer === null ? null : explainOne(world, answer) };
  } finally {
    world.close();
  }
}

/** Null where the problems of the files have been printed. */
function readFiles(files: readonly string[]): Subject | null {
  let inputs: ReturnType<typeof loadInputs>;
  try {
    inputs = loadInputs(files);
  } catch (error) {
    const { syscall, path } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new UsageError(`${path}: ${describeFileError(error)}`);
  }
  if (inputs.problems.length > 0) {
    process.stderr.write(`${formatProblems(inputs.problems)}\n`);
    return null;
  }
  if (inputs.configs.length === 0) throw new UsageError(`${files.join(', ')}: got none, expected a NodeConfig`);
  const wires = new Map(
    inputs.segments.map(({ metadata, spec }): [string, Wire] => {
      const mtus = [spec.mtu, spec.impairments.mtu].filter(mtu => mtu > 0);
      return [metadata.name, { mtu: Math.min(...mtus), icmpFiltered: spec.impairments.icmp === 'filtered' }];
    }),
  );
  return { configs: inputs.configs, wires, flows: new Map(), missing: [] };
}

/** What running nodes have: their configurations, and the flows of their tables. */
async function readRunning(wanted: string | undefined): Promise<Subject> {
  const configs: ResolvedConfig[] = [];
  const flows = new Map<string, FlowRow[]>();
  for (const name of watchedNodes(wanted)) {
    const socket = socketPathOf(name);
    const config = (await callNode(socket, 'config')) as ResolvedConfig;
    const rows: FlowRow[] = [];
    for await (const piece of streamFromNode<FlowRow>(socket, 'get', { kind: 'conntrack' })) rows.push(...piece);
    configs.push(config);
    flows.set(config.metadata.name, rows);
  }
  return { configs, wires: new Map(), flows, missing: NOT_COPIED };
}

function headerOptions(configs: readonly ResolvedConfig[]): HeaderOptions {
  const portsOf = (protocol: string) =>
    configs.flatMap(({ spec }) => spec.tunnels.flatMap(one => (one.protocol === protocol ? (one.port ?? []) : [])));
  return { vxlanPorts: portsOf('vxlan'), genevePorts: portsOf('geneve') };
}

/** Bytes as hex digits. */
function documentOf({ there, back }: Found): Record<string, unknown> {
  return { ...tripDocument(there), answer: back === null ? null : tripDocument(back) };
}

function tripDocument({ outcome, reasons, at, visits, arrivals, lost, held }: Explained): Record<string, unknown> {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  return {
    outcome,
    reasons: reasons.map(reason => ({ reason, docs: pageOf(reason), ...REASONS[reason] })),
    at,
    lost,
    held,
    visits: visits.map(({ came, steps, sent, ...visit }) => ({
      ...visit,
      packet: hex(came.bytes),
      steps: steps.map(({ number, ...step }) => ({ number, step: STEP_NAMES[number], ...step })),
      sent: sent.map(({ bytes, ...one }) => ({ ...one, packet: hex(bytes) })),
    })),
    arrivals: arrivals.map(({ bytes, ...arrival }) => ({ ...arrival, packet: hex(bytes) })),
  };
}

/** `explain` as a whole: what is asked about nodes, from files or running, and what is found out as plain data. */
import { callNode, GoneError, streamFromNode } from '../control/client.ts';
import type { FlowRow } from '../control/nat-rows.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import type { SegmentConfig } from '../control/segment-config.ts';
import { socketPath } from '../control/server.ts';
import { hexText } from '../packet/build.ts';
import { STEP_NAMES } from '../path/watcher.ts';
import { copyFlows } from './copy-flows.ts';
import { answerTo, type Entry, type Explained, explain } from './explain.ts';
import type { HeaderOptions } from './headers.ts';
import { pageOf, REASONS } from './reasons.ts';
import { type Wire, World } from './world.ts';

/** What is explained: nodes, what is known of their wires, and flows that they have. */
export interface Subject {
  configs: ResolvedConfig[];
  wires: Map<string, Wire>;
  flows: Map<string, FlowRow[]>;
  /** What of a running node is not here. */
  missing: string[];
}

export interface Found {
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

/** One packet there, and with `both` what its receiver answers back. */
export function ask({ configs, wires, flows }: Subject, entry: Entry, seed: number, both: boolean): Found {
  const world = new World(configs, { seed, wires });
  try {
    for (const [node, rows] of flows) copyFlows(world, node, rows);
    const there = explain(world, entry);
    const arrival = there.arrivals.find(({ isOwn }) => !isOwn);
    const isDelivered = there.outcome === 'delivered' || there.outcome === 'left';
    const answer = both && isDelivered && arrival !== undefined ? answerTo(arrival) : null;
    return { there, back: answer === null ? null : explain(world, answer) };
  } finally {
    world.close();
  }
}

/** Of configurations and the segments that they are on. */
export function subjectOf(inputs: { configs: ResolvedConfig[]; segments: readonly SegmentConfig[] }): Subject {
  const wires = new Map(
    inputs.segments.map(({ metadata, spec }): [string, Wire] => {
      const mtus = [spec.mtu, spec.impairments.mtu].filter(mtu => mtu > 0);
      return [metadata.name, { mtu: Math.min(...mtus), icmpFiltered: spec.impairments.icmp === 'filtered' }];
    }),
  );
  return { configs: inputs.configs, wires, flows: new Map(), missing: [] };
}

/**
 * What running nodes have: their configurations, and the flows of their tables; those that are gone are missing.
 * @throws GoneError if all are; ControlError
 */
export async function readRunning(names: readonly string[]): Promise<Subject> {
  const configs: ResolvedConfig[] = [];
  const flows = new Map<string, FlowRow[]>();
  const missing = [...NOT_COPIED];
  let gone: GoneError | null = null;
  for (const name of names) {
    try {
      const { config, rows } = await readNode(name);
      configs.push(config);
      flows.set(config.metadata.name, rows);
    } catch (error) {
      if (!(error instanceof GoneError)) throw error;
      gone = error;
      missing.unshift(`node ${name}, which is gone`);
    }
  }
  if (configs.length === 0 && gone !== null) throw gone;
  return { configs, wires: new Map(), flows, missing };
}

async function readNode(name: string): Promise<{ config: ResolvedConfig; rows: FlowRow[] }> {
  const socket = socketPath(name);
  const config = (await callNode(socket, 'config')) as ResolvedConfig;
  const rows: FlowRow[] = [];
  for await (const piece of streamFromNode<FlowRow>(socket, 'get', { kind: 'conntrack' })) rows.push(...piece);
  return { config, rows };
}

export function headerOptions(configs: readonly ResolvedConfig[]): HeaderOptions {
  const portsOf = (protocol: string) =>
    configs.flatMap(({ spec }) => spec.tunnels.flatMap(one => (one.protocol === protocol ? (one.port ?? []) : [])));
  return { vxlanPorts: portsOf('vxlan'), genevePorts: portsOf('geneve') };
}

/** As `explain -o json` prints it; bytes as hex digits. */
export function documentOf({ there, back }: Found) {
  return { ...tripDocument(there), answer: back === null ? null : tripDocument(back) };
}

function tripDocument({ outcome, reasons, at, visits, arrivals, lost, held }: Explained) {
  return {
    outcome,
    reasons: reasons.map(reason => ({ reason, docs: pageOf(reason), ...REASONS[reason] })),
    at,
    lost,
    held,
    visits: visits.map(({ came, steps, sent, ...visit }) => ({
      ...visit,
      layer: came.layer,
      packet: hexText(came.bytes),
      steps: steps.map(({ number, packet, ...step }) => ({
        number,
        step: STEP_NAMES[number],
        ...step,
        packet: hexText(packet.bytes),
      })),
      sent: sent.map(({ bytes, ...one }) => ({ ...one, packet: hexText(bytes) })),
    })),
    arrivals: arrivals.map(({ bytes, ...arrival }) => ({ ...arrival, packet: hexText(bytes) })),
  };
}

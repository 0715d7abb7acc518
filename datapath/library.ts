/**
 * What `import { ... } from 'tunpath'` gives: nodes over memory, captures, configurations (docs/library.md). It needs neither
 * root nor devices, prints nothing and ends nothing. Time passes where the caller lets it, and chance comes from a seed.
 */
import { formatProblems, type Problem } from './control/load-config.ts';
import type { ResolvedConfig } from './control/resolved.ts';
import type { SegmentConfig } from './control/segment-config.ts';
import { Sim, type SimOptions } from './drive/sim.ts';
import { type Inputs, inputsOf, loadInputs } from './mtu-prove/load.ts';

export { ManualClock } from './clock.ts';
export { describePacket } from './conformance/describe.ts';
export type { Problem } from './control/load-config.ts';
export type { ResolvedConfig } from './control/resolved.ts';
export type { SegmentConfig } from './control/segment-config.ts';
export { Counters } from './counters.ts';
export { Replay, type Replayed, type ReplayedOutput, type ReplayOptions } from './drive/replay.ts';
export { type NodeOptions, type PodDevices, Sim, SimNode, type SimOptions } from './drive/sim.ts';
export { Datapath } from './forward.ts';
export { type CapturedPacket, CaptureFile } from './io/capture-file.ts';
export type { Device } from './io/device.ts';
export { type Frame, MemoryDevice, type MemoryOptions } from './io/memory.ts';
export { LINK_ETHERNET, LINK_RAW, PcapWriter } from './io/pcap.ts';
export { type Entry, type Explained, explain } from './observe/explain.ts';
export { explainText } from './observe/explain-text.ts';
export { REASONS, type Reason } from './observe/reasons.ts';
export { World } from './observe/world.ts';
export { ethernet, icmpEcho, ipv4, sctp4, tcp4, udp4 } from './packet/build.ts';
export { Pool } from './packet/pool.ts';
export { compile } from './program/compile.ts';
export { createDatapath, type Environment } from './program/install.ts';
export type { Program } from './program/program.ts';
export { Random } from './random.ts';
export type { Impairments } from './segment/impairments.ts';
export { VERDICT_NAMES } from './verdict.ts';

/** What NodeConfig and Segment documents say. */
export interface Configuration {
  nodes: ResolvedConfig[];
  segments: SegmentConfig[];
}

/** A configuration that is not valid. The message has a line for each problem, with the place of it. */
export class ConfigError extends Error {
  override name = 'ConfigError';
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super(formatProblems(problems));
    this.problems = problems;
  }
}

/**
 * Documents of one text, divided by `---`.
 * @param text YAML, or JSON
 * @param file what problems call it
 * @throws ConfigError with all that is wrong
 */
export function parseConfiguration(text: string, file = 'configuration'): Configuration {
  return validOf(inputsOf([{ file, text }]));
}

/**
 * Files, and directories of which every *.yaml, *.yml and *.json is read.
 * @throws ConfigError with all that is wrong; the file system's error for what cannot be read
 */
export function readConfiguration(...names: string[]): Configuration {
  return validOf(loadInputs(names));
}

/**
 * The nodes and their segments, with nothing on its way and no time passed.
 * @throws RangeError for a node on a segment that no document describes
 */
export function simulate({ nodes, segments }: Configuration, options: SimOptions = {}): Sim {
  const sim = new Sim(options);
  for (const { metadata, spec } of segments) {
    const segment = sim.addSegment(metadata.name, spec);
    for (const { node, from, to } of spec.ports) {
      if (from !== undefined) segment.impairPort(node, 'from', from);
      if (to !== undefined) segment.impairPort(node, 'to', to);
    }
  }
  for (const node of nodes) sim.addNode(node);
  return sim;
}

function validOf({ configs, segments, problems }: Inputs): Configuration {
  if (problems.length > 0) throw new ConfigError(problems);
  return { nodes: configs, segments };
}

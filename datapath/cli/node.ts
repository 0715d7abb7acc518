/**
 * `tunpath node --config FILE...`: one node, or several in one process, in the foreground, until SIGTERM or SIGINT; SIGHUP
 * reads the files again.
 */

import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { type Capability, missingCapabilities, RUNNING } from '../control/capabilities.ts';
import type { NodeConfig } from '../control/config.ts';
import { findObstacles, openPods } from '../control/devices.ts';
import { type HandedOver, handOver, hasMoreThanNeeded, takeHandedOver } from '../control/hand-over.ts';
import { PortLostError } from '../control/keep-ports.ts';
import { loadConfig, loadDocuments, type Problem, problemAt } from '../control/load-config.ts';
import { type Lock, lockPath, releaseLock, takeLock } from '../control/lock.ts';
import { Log, type LogFormat, type LogLevel } from '../control/log.ts';
import { Loops, type Placed } from '../control/loops.ts';
import { type ApplyResult, Node } from '../control/node.ts';
import * as notify from '../control/notify.ts';
import { describeHealth, type HealthChange } from '../control/port-health.ts';
import { describeFileError, readText } from '../control/read-text.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { chooseSeed, expectedSeed } from '../control/seed.ts';
import type { SegmentConfig } from '../control/segment-config.ts';
import { socketPath } from '../control/server.ts';
import { AppliedState, sha256 } from '../control/state.ts';
import { resolveUplink } from '../control/uplink/index.ts';
import { mtusOf } from '../program/mtus.ts';
import { DONE, NO, USAGE } from './exit.ts';
import { listenHubble } from './hubble.ts';

/** Peers and pods that the first lines name. */
const FEW = 6;

export interface NodeFlags {
  /** Files, or directories of them. */
  config: string[];
  loops: number;
  logFormat: LogFormat;
  logLevel: LogLevel;
  stateDir?: string;
  dropCapabilities?: boolean;
}

/** A node that may be started. */
interface Prepared {
  name: string;
  file: string;
  text: string;
  config: ResolvedConfig;
  configSha256: string;
  segments: SegmentConfig[];
  state: AppliedState | null;
  log: Log;
}

/** A file with Segment documents and no NodeConfig. */
interface SegmentFile {
  file: string;
  segments: SegmentConfig[];
}

/**
 * One node, or several in one process: then what is wrong with one ends that one alone.
 * @returns the exit code: 0 stopped as asked, 1 it could not run, 2 bad input
 */
export async function node(flags: NodeFlags): Promise<number> {
  const nameless = new Log({ format: flags.logFormat, level: flags.logLevel });
  const handed = takeHandedOver();
  let files: string[];
  try {
    files = flags.config.flatMap(filesOf);
  } catch (error) {
    nameless.error(`${(error as NodeJS.ErrnoException).path}: ${describeFileError(error)}`);
    return USAGE;
  }
  if (files.length === 0) {
    nameless.error(`${flags.config.join(', ')}: got no file, expected a NodeConfig`);
    return USAGE;
  }
  if (flags.dropCapabilities && files.length !== 1) {
    nameless.error(`--drop-capabilities: got ${files.length} configurations, expected one`);
    return USAGE;
  }
  const seed = chooseSeed();
  if (seed === undefined) {
    nameless.error(expectedSeed);
    return USAGE;
  }
  const prepared: Prepared[] = [];
  const segmentFiles: SegmentFile[] = [];
  let worst = DONE;
  for (const file of files) {
    const one = await prepare(file, flags, nameless, handed);
    if (typeof one === 'number') worst = Math.max(worst, one);
    else if (!('config' in one)) segmentFiles.push(one);
    else prepared.push(one);
  }
  const [nodes, segments] = joinSegments(prepared, segmentFiles, nameless);
  if (nodes.length < prepared.length) worst = USAGE;
  if (nodes.length === 0) return worst;
  // With no capability to spare there is nothing to drop.
  if (flags.dropCapabilities && handed === null && hasMoreThanNeeded()) return goOnWithLess(nodes[0]);

  let loops: Loops;
  try {
    loops = await Loops.start(nodes.map(placeOf), segments, flags.loops);
  } catch (error) {
    nameless.error((error as Error).message);
    return NO;
  }
  try {
    return Math.max(worst, await run(nodes, loops, { seed, handed, nameless, segmentFiles }));
  } finally {
    await loops.end();
  }
}

function filesOf(name: string): string[] {
  if (!statSync(name, { throwIfNoEntry: false })?.isDirectory()) return [name];
  return readdirSync(name)
    .filter(entry => /\.(ya?ml|json)$/.test(entry))
    .sort()
    .map(entry => join(name, entry));
}

function placeOf({ name, config: { spec } }: Prepared): Placed {
  return spec.uplink.kind === 'segment' ? { name, segment: spec.uplink.device } : { name };
}

/** Reads a configuration and looks at what it needs; what stands in the way is logged. @returns an exit code then */
async function prepare(
  file: string,
  flags: NodeFlags,
  nameless: Log,
  handed: HandedOver | null,
): Promise<Prepared | SegmentFile | number> {
  let text: string;
  try {
    text = readText(file);
  } catch (error) {
    nameless.error(`${file}: ${describeFileError(error)}`);
    return USAGE;
  }
  const loaded = loadConfig(text, file);
  if (loaded.problems !== undefined) {
    const segments = segmentsAlone(text, file);
    return segments === null ? refuse(nameless, loaded.problems) : { file, segments };
  }
  const { name } = loaded.config.metadata;
  const log = nameless.of(name);
  if (handed === null) for (const warning of loaded.warnings) log.problem(warning, 'warn');
  const state = flags.stateDir === undefined ? null : new AppliedState(flags.stateDir, name);
  const wanted = (state && lastApplied(state, text, file, handed === null ? log : null)) ?? {
    config: loaded.config,
    segments: loaded.segments,
    text,
  };

  const missing = missingCapabilities(neededBy(wanted.config, wanted.segments, handed));
  if (missing.length > 0) {
    log.error(`needs ${missing.join(' and ')}: run it as root, or with these capabilities (capabilities(7))`);
    return NO;
  }
  const { config, obstacles: unresolved } = await resolveUplink(wanted.config);
  const obstacles = config === undefined ? unresolved : await findObstacles(config);
  if (config === undefined || obstacles.length > 0) {
    for (const obstacle of obstacles) nameless.error(`${file}: ${obstacle}`);
    return USAGE;
  }
  const configSha256 = sha256(wanted.text);
  if (handed !== null && handed.configSha256 !== configSha256) {
    log.error(`${file} has changed while the node started`);
    return NO;
  }
  return { name, file, text: wanted.text, config, configSha256, segments: wanted.segments, state, log };
}

/** The documents of a file that has Segments and nothing else, all of them valid; null: it is none. */
function segmentsAlone(text: string, file: string): SegmentConfig[] | null {
  const { configs, underlays, segments, problems } = loadDocuments(text, file);
  if (segments.length === 0 || configs.length + underlays.length + problems.length > 0) return null;
  return segments.map(({ segment }) => segment);
}

/** The segments of all files, and the nodes that fit onto them; what is wrong with the others is logged. */
function joinSegments(
  prepared: readonly Prepared[],
  segmentFiles: readonly SegmentFile[],
  log: Log,
): [Prepared[], SegmentConfig[]] {
  const segments = new Map<string, SegmentConfig>();
  const twice = new Set<Prepared | SegmentFile>();
  for (const one of [...segmentFiles, ...prepared]) {
    for (const segment of one.segments) {
      const { name } = segment.metadata;
      const known = segments.get(name);
      if (known === undefined) segments.set(name, segment);
      else if (!isDeepStrictEqual(known, segment)) {
        log.error(`${one.file}: got another segment ${name}, expected one of each name in a process`);
        twice.add(one);
      }
    }
  }
  const names = new Set<string>();
  const fitting = prepared.filter(one => {
    if (twice.has(one)) return false;
    const report = (path: string[], message: string) => {
      log.problem(problemAt(one.text, one.file, path, message));
      return false;
    };
    if (names.has(one.name))
      return report(['metadata', 'name'], `got "${one.name}" again, expected a name for each node`);
    names.add(one.name);
    const { kind, device, mtu } = one.config.spec.uplink;
    if (kind !== 'segment') return true;
    const segment = segments.get(device);
    if (segment === undefined) {
      const known =
        segments.size === 0 ? 'of a Segment document beside it' : `one of ${[...segments.keys()].join(', ')}`;
      return report(['spec', 'uplink', 'segment'], `got "${device}", expected ${known}`);
    }
    if (mtu <= segment.spec.mtu) return true;
    return report(
      ['spec', 'uplink', 'mtu'],
      `got ${mtu}, expected at most ${segment.spec.mtu}, which segment ${device} carries`,
    );
  });
  return [fitting, [...segments.values()]];
}

/** Sets up the pods, then executes itself with the capabilities that a running node needs. @returns the exit code if it cannot */
async function goOnWithLess({ name, config, configSha256, log }: Prepared): Promise<number> {
  let lock: Lock | null = null;
  try {
    lock = takeLock(lockPath(name));
    const pods = await openPods(config);
    log.debug(`${pods.length} pods are set up; goes on with ${RUNNING.join(' and ')} alone`);
    handOver({ configSha256, lock, pods });
  } catch (error) {
    log.error((error as Error).message);
    if (lock !== null) releaseLock(lock);
    return NO;
  }
}

/** Runs nodes to their end. @returns the exit code */
async function run(
  prepared: readonly Prepared[],
  loops: Loops,
  {
    seed,
    handed,
    nameless,
    segmentFiles,
  }: { seed: number; handed: HandedOver | null; nameless: Log; segmentFiles: readonly SegmentFile[] },
): Promise<number> {
  // From here on there is something to remove: a signal that comes while a node starts ends it once it has started.
  const running = new Map<Prepared, Node>();
  let asked = false;
  const stop = () => {
    asked = true;
    notify.stopping();
    for (const node of running.values()) void node.stop();
  };
  // Not `once`: while a command runs, execa listens as well, and ends us if it then finds itself alone.
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  // Loops have their own threads: what fails in this one costs an answer or a line of the log, and no packets.
  const survive = (error: unknown) =>
    nameless.error(`fault beside the path of packets, which flow on: ${error instanceof Error ? error.stack : error}`);

  /** @param from what has been opened before, for its first start @returns null if it cannot be had, which has been logged */
  const startOne = async (one: Prepared, from: HandedOver | null): Promise<Started | null> => {
    const { name, log } = one;
    let lock: Lock | null = from?.lock ?? null;
    try {
      lock ??= takeLock(lockPath(name));
      const restart = { isWanted: false };
      const node = await start(one, loops, seed, from?.pods, () => {
        restart.isWanted = true;
      });
      running.set(one, node);
      const noHubble = (error: Error) => log.warn(`no Hubble API: ${error.message}`);
      const hubble = await listenHubble(name, noHubble).catch(error => {
        noHubble(error as Error);
        return null;
      });
      if (asked) void node.stop();
      return { node, lock, restart, hubble };
    } catch (error) {
      log.error((error as Error).message);
      if (lock !== null) releaseLock(lock);
      return null;
    }
  };
  const runOne = async (one: Prepared, first: Promise<Started | null>): Promise<number> => {
    for (let started = await first; ; started = await startOne(one, null)) {
      if (started === null) return NO;
      const code = await untilEnd(started.node, one.log);
      await started.hubble?.close();
      running.delete(one);
      releaseLock(started.lock);
      // Whoever applied something since knows of no restart that took it back.
      one.config = started.node.current;
      if (asked || !started.restart.isWanted) return code;
      one.log.info('starts again');
    }
  };

  const firsts = prepared.map(one => startOne(one, handed));
  const ends = prepared.map((one, i) => runOne(one, firsts[i]));
  await Promise.all(firsts);
  process.on('uncaughtException', survive).on('unhandledRejection', survive);
  const summary = () => summaryOf([...running.values()].map(({ current }) => current));
  process.on('SIGHUP', () => {
    notify.reloading();
    const reloads = [...running].map(([{ file, log }, node]) => reload(node, file, log));
    for (const { file } of segmentFiles) reloads.push(reloadSegments(loops, file, nameless));
    void Promise.all(reloads).finally(() => notify.ready(summary()));
  });
  if (!asked && running.size > 0) {
    for (const { config, log } of running.keys()) {
      const { metadata, spec } = config;
      log.info(startLine(config), { uplink: spec.uplink.kind, controlSocket: socketPath(metadata.name) });
    }
    (prepared.length === 1 ? prepared[0].log : nameless).ready();
    notify.ready(summary());
  }
  return Math.max(...(await Promise.all(ends)));
}

interface Started {
  node: Node;
  lock: Lock;
  /** Whether it is to be started again when it has ended. */
  restart: { isWanted: boolean };
  /** Null where there was no place for its socket. */
  hubble: { close(): Promise<void> } | null;
}

/** @throws Error when it cannot start */
function start(
  { config, file, state, log }: Prepared,
  loops: Loops,
  seed: number,
  pods: HandedOver['pods'] | undefined,
  onRestart: () => void,
): Promise<Node> {
  return Node.start(config, {
    seed,
    loops,
    pods,
    onApply: (result, text, from) => {
      report(log, result, text, from);
      return result.applied === undefined || state === null ? null : keep(state, text, file, log);
    },
    onRequest: method => log.debug(`request ${method}`),
    onError: error => log.error(`${error.message}; packets flow on`),
    onPort: (change: HealthChange) => {
      const { port, health } = change;
      log[health.state === 'up' ? 'info' : 'warn'](describeHealth(change), { port, ...health });
    },
    onPortChange: what => log.warn(`port ${what}`),
    onUplink: what => log.warn(`uplink: ${what}`),
    onRestart,
  });
}

/** @returns the exit code that it ends with */
async function untilEnd(node: Node, log: Log): Promise<number> {
  try {
    await node.ended;
    await node.stop();
    return DONE;
  } catch (error) {
    log.error(error instanceof PortLostError ? error.message : `the loop died: ${(error as Error).stack}`);
    await node.stop();
    return NO;
  }
}

/** All of the file, or nothing: onApply says which. */
async function reload(running: Node, file: string, log: Log): Promise<void> {
  try {
    await running.apply(readText(file), file);
  } catch (error) {
    log.error(`${file}: ${(error as Error).message}; nothing has changed`);
  }
}

/** As reload(), for a file of Segments alone. */
async function reloadSegments(loops: Loops, file: string, log: Log): Promise<void> {
  try {
    const text = readText(file);
    const segments = segmentsAlone(text, file);
    if (segments === null) {
      for (const problem of loadDocuments(text, file).problems) log.problem(problem);
      throw new Error('expected Segment documents and nothing else');
    }
    const refusals = loops.findRefusals(segments);
    if (refusals.length > 0) throw new Error(refusals.join('; '));
    await loops.follow(segments);
    log.info(`${file} applied: impairments as it says`);
  } catch (error) {
    log.error(`${file}: ${(error as Error).message}; nothing has changed`);
  }
}

function neededBy({ spec }: NodeConfig, segments: readonly SegmentConfig[], handed: HandedOver | null): Capability[] {
  const needed: Capability[] = ['CAP_NET_ADMIN'];
  if (spec.uplink.kind === 'raw') needed.push('CAP_NET_RAW');
  const enters = spec.host?.netns !== undefined || segments.some(segment => segment.spec.tap?.netns !== undefined);
  if (enters || (spec.pods.some(({ kind }) => kind !== 'memory') && handed === null)) needed.push('CAP_SYS_ADMIN');
  return needed;
}

function refuse(log: Log, problems: readonly Problem[]): number {
  for (const problem of problems) log.problem(problem);
  return USAGE;
}

/** What was applied to the last node of this name, if that still holds. @param log null: it has been said */
function lastApplied(
  state: AppliedState,
  text: string,
  file: string,
  log: Log | null,
): { config: NodeConfig; segments: SegmentConfig[]; text: string } | null {
  const applied = state.load(text);
  if (applied === null) return null;
  const loaded = loadConfig(applied.text, state.path);
  if (loaded.problems !== undefined) {
    log?.warn(`${state.path}: what was applied at ${applied.at} is not valid any more; starts as ${file} says`);
    return null;
  }
  log?.info(`starts with what was applied at ${applied.at}; SIGHUP goes back to ${file}`);
  return { config: loaded.config, segments: loaded.segments, text: applied.text };
}

/** @returns why it is not kept; null if it is */
function keep(state: AppliedState, text: string, file: string, log: Log): string | null {
  try {
    state.save(readText(file), text, new Date());
    return null;
  } catch (error) {
    const why = describeFileError(error);
    log.warn(`${state.path}: ${why}: this change will not outlive the node`);
    return `${state.path}: ${why}`;
  }
}

function report(log: Log, { applied, problems, refused }: ApplyResult, text: string, file: string): void {
  if (applied === undefined) {
    const all = problems ?? refused?.map(({ path, message }) => problemAt(text, file, path, message)) ?? [];
    for (const problem of all) log.problem(problem);
    log.error(`${file} not applied: nothing has changed`);
    return;
  }
  for (const warning of loadConfig(text, file).warnings ?? []) log.problem(warning, 'warn');
  if (applied.changes.length === 0) {
    log.info(`${file} applied: nothing to change`, { file, ...applied });
    return;
  }
  const { servicesSet, servicesRemoved, routes, changes } = applied;
  const others = changes
    .filter(({ what }) => what !== 'services' && what !== 'routes')
    .map(({ what, change, count, names }) => `${count === 1 ? names : `${count} ${what}`} ${change}`);
  const parts = [`${servicesSet} services set`, `${servicesRemoved} removed`, `${routes} routes`, ...others];
  log.info(`${file} applied: ${parts.join(', ')}`, { file, ...applied });
}

function summaryOf(configs: readonly ResolvedConfig[]): string {
  if (configs.length !== 1) return `${configs.length} nodes`;
  const [{ spec }] = configs;
  const tunnels = spec.tunnels.map(({ name }) => name).join(', ') || 'none';
  return `${spec.uplink.kind} uplink ${spec.uplink.address}, tunnel ${tunnels}, ${spec.pods.length} pods`;
}

/** What is up: tunnels and peers, devices, MTU, and where the node can be asked. */
function startLine(config: ResolvedConfig): string {
  const { metadata, spec } = config;
  const { uplink, host, pods, tunnels } = spec;
  const { device: mtu } = mtusOf(config);
  const few = (names: readonly string[]) =>
    names.length <= FEW ? names.join(', ') : `${names.slice(0, FEW).join(', ')} and ${names.length - FEW} more`;
  return [
    `${uplink.kind} uplink ${uplink.device} ${uplink.address}`,
    tunnels.length === 0
      ? 'no tunnel'
      : tunnels
          .map(({ name, protocol, peers }) => {
            const what = name === protocol ? protocol : `${name} (${protocol})`;
            return `${what} to ${peers.length === 0 ? 'nobody yet' : few(peers.map(({ address }) => address))}`;
          })
          .join(', '),
    ...(host === undefined ? [] : [`host port ${host.device} ${host.address}`]),
    pods.length === 0
      ? 'no pods'
      : `pods ${few(pods.map(({ name, device, address }) => `${name} (${device} ${address})`))}`,
    `MTU ${mtu}`,
    `control socket ${socketPath(metadata.name)}`,
  ].join('; ');
}

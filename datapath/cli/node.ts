/** `tunpath node --config FILE`: one node in the foreground, until SIGTERM or SIGINT; SIGHUP reads the file again. */
import { readFileSync } from 'node:fs';
import { type Capability, missingCapabilities, RUNNING } from '../control/capabilities.ts';
import type { NodeConfig } from '../control/config.ts';
import { findObstacles, openPods } from '../control/devices.ts';
import { type HandedOver, handOver, hasMoreThanNeeded, takeHandedOver } from '../control/hand-over.ts';
import { loadConfig, type Problem, problemAt } from '../control/load-config.ts';
import { type Lock, lockPath, releaseLock, takeLock } from '../control/lock.ts';
import { Log, type LogFormat, type LogLevel } from '../control/log.ts';
import { type ApplyResult, Node } from '../control/node.ts';
import * as notify from '../control/notify.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { chooseSeed, expectedSeed } from '../control/seed.ts';
import { AppliedState, sha256 } from '../control/state.ts';
import { resolveUplink } from '../control/uplink/index.ts';
import { DONE, describeFileError, NO, USAGE } from './exit.ts';

export interface NodeFlags {
  config: string;
  logFormat: LogFormat;
  logLevel: LogLevel;
  stateDir?: string;
  dropCapabilities?: boolean;
}

/** @returns the exit code: 0 stopped as asked, 1 it could not run, 2 bad input */
export async function node(flags: NodeFlags): Promise<number> {
  const { config: file } = flags;
  const nameless = new Log({ format: flags.logFormat, level: flags.logLevel });
  const handed = takeHandedOver();
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    nameless.error(`${file}: ${describeFileError(error)}`);
    return USAGE;
  }
  const loaded = loadConfig(text, file);
  if (loaded.problems !== undefined) return refuse(nameless, loaded.problems);
  const { name } = loaded.config.metadata;
  const log = nameless.of(name);
  if (handed === null) for (const warning of loaded.warnings) log.problem(warning, 'warn');
  const state = flags.stateDir === undefined ? null : new AppliedState(flags.stateDir, name);
  const wanted = (state && lastApplied(state, text, file, handed === null ? log : null)) ?? {
    config: loaded.config,
    text,
  };

  const missing = missingCapabilities(neededBy(wanted.config, handed));
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
  const seed = chooseSeed();
  if (seed === undefined) {
    nameless.error(expectedSeed);
    return USAGE;
  }
  const configSha256 = sha256(wanted.text);
  if (handed !== null && handed.configSha256 !== configSha256) {
    log.error(`${file} has changed while the node started`);
    return NO;
  }

  let lock: Lock | null = handed?.lock ?? null;
  try {
    lock ??= takeLock(lockPath(name));
    // With no capability to spare there is nothing to drop.
    if (flags.dropCapabilities && handed === null && hasMoreThanNeeded()) {
      const pods = await openPods(config);
      log.debug(`${pods.length} pods are set up; goes on with ${RUNNING.join(' and ')} alone`);
      handOver({ configSha256, lock, pods });
    }
    return await run({ config, file, seed, pods: handed?.pods, state, log });
  } catch (error) {
    log.error((error as Error).message);
    return NO;
  } finally {
    if (lock !== null) releaseLock(lock);
  }
}

/** Runs the node to its end. @throws Error when it cannot start */
async function run(options: {
  config: ResolvedConfig;
  file: string;
  seed: number;
  pods: HandedOver['pods'] | undefined;
  state: AppliedState | null;
  log: Log;
}): Promise<number> {
  const { config, file, seed, pods, state, log } = options;
  // From here on there is something to remove: a signal that comes while the node starts ends it once it has started.
  let running: Node | null = null;
  let asked = false;
  const stop = () => {
    asked = true;
    notify.stopping();
    void running?.stop();
  };
  // Not `once`: while a command runs, execa listens as well, and ends us if it then finds itself alone.
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);

  const onApply = (result: ApplyResult, text: string, from: string) => {
    report(log, result, text, from);
    return result.applied === undefined || state === null ? null : keep(state, text, file, log);
  };
  const onRequest = (method: string) => log.debug(`request ${method}`);
  const onError = (error: Error) => log.error(`${error.message}; packets flow on`);
  running = await Node.start(config, { seed, pods, onApply, onRequest, onError });
  // The loop has its own thread: what fails in this one costs an answer or a line of the log, and no packets.
  const survive = (error: unknown) =>
    log.error(`fault beside the path of packets, which flow on: ${error instanceof Error ? error.stack : error}`);
  process.on('uncaughtException', survive).on('unhandledRejection', survive);
  process.on('SIGHUP', () => void reload(running!, file, log).finally(() => notify.ready(summary(config))));
  if (asked) stop();
  else {
    log.ready();
    notify.ready(summary(config));
  }
  try {
    await running.ended;
    await running.stop();
    return DONE;
  } catch (error) {
    log.error(`the loop died: ${(error as Error).stack}`);
    await running.stop();
    return NO;
  }
}

/** All of the file, or nothing: onApply says which. */
async function reload(running: Node, file: string, log: Log): Promise<void> {
  notify.reloading();
  try {
    await running.apply(readFileSync(file, 'utf8'), file);
  } catch (error) {
    log.error(`${file}: ${(error as Error).message}; nothing has changed`);
  }
}

function neededBy({ spec }: NodeConfig, handed: HandedOver | null): Capability[] {
  const needed: Capability[] = ['CAP_NET_ADMIN'];
  if (spec.uplink.kind === 'raw') needed.push('CAP_NET_RAW');
  if (spec.pods.length > 0 && handed === null) needed.push('CAP_SYS_ADMIN');
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
): { config: NodeConfig; text: string } | null {
  const applied = state.load(text);
  if (applied === null) return null;
  const loaded = loadConfig(applied.text, state.path);
  if (loaded.problems !== undefined) {
    log?.warn(`${state.path}: what was applied at ${applied.at} is not valid any more; starts as ${file} says`);
    return null;
  }
  log?.info(`starts with what was applied at ${applied.at}; SIGHUP goes back to ${file}`);
  return { config: loaded.config, text: applied.text };
}

/** @returns why it is not kept; null if it is */
function keep(state: AppliedState, text: string, file: string, log: Log): string | null {
  try {
    state.save(readFileSync(file, 'utf8'), text, new Date());
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
  const { servicesSet, servicesRemoved, routes, changes } = applied;
  const others = changes
    .filter(({ what }) => what !== 'services' && what !== 'routes')
    .map(({ what, change, count, names }) => `${count === 1 ? names : `${count} ${what}`} ${change}`);
  const parts = [`${servicesSet} services set`, `${servicesRemoved} removed`, `${routes} routes`, ...others];
  log.info(`${file} applied: ${parts.join(', ')}`, { file, ...applied });
}

function summary({ spec }: ResolvedConfig): string {
  return `${spec.uplink.kind} uplink ${spec.uplink.address}, tunnel ${spec.tunnel.protocol}, ${spec.pods.length} pods`;
}

/**
 * `tunpath apply -f FILE`, `diff -f FILE` and `delete -f FILE`: a running node is made what the file says, all of it or
 * nothing, or compared with it, or ended.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { callNode } from '../control/client.ts';
import type { NodeConfig } from '../control/config.ts';
import { formatProblems, loadConfig, type Problem, problemAt } from '../control/load-config.ts';
import type { ApplyResult } from '../control/node.ts';
import { type ResolvedConfig, withUplink } from '../control/resolved.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { type Difference, diffSpecs, formatDifference } from './diff.ts';
import { DONE, NO, readText, USAGE } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { columnsOf, printRows } from './table.ts';

/** Ten thousand services are a second's work. */
const TIMEOUT_MS = 60_000;
/** A node that is told to end has ended by then. */
const END_MS = 10_000;

export interface FileFlags {
  file: string;
  node?: string;
  output: Format;
  /** What the file says, where that has been read. */
  text?: string;
}

interface Loaded {
  text: string;
  /** For messages. */
  file: string;
  config: NodeConfig;
  /** Name and socket of the node that it is for. */
  node: string;
  socket: string;
}

/** The configuration, and the running node that it is for. @returns null where the file's problems have been printed */
function load(flags: FileFlags): Loaded | null {
  const file = flags.file === '-' ? 'standard input' : flags.file;
  const text = flags.text ?? readText(flags.file);
  const loaded = loadConfig(text, file);
  if (loaded.problems !== undefined) {
    printProblems(loaded.problems);
    return null;
  }
  printProblems(loaded.warnings);
  const node = pickNode(flags.node ?? loaded.config.metadata.name, listNodes());
  return { text, file, config: loaded.config, node, socket: socketPathOf(node) };
}

function printProblems(problems: readonly Problem[]): void {
  if (problems.length > 0) process.stderr.write(`${formatProblems(problems)}\n`);
}

/** @returns the exit code: 0 done, 1 the node refused and nothing has changed, or will not keep it; 2 bad input */
export async function apply(flags: FileFlags & { dryRun?: boolean }): Promise<number> {
  const loaded = load(flags);
  if (loaded === null) return USAGE;
  const { text, file, node, socket } = loaded;
  const dryRun = flags.dryRun === true;
  const result = (await callNode(socket, 'apply', { text, file, dryRun }, TIMEOUT_MS)) as ApplyResult;
  if (result.applied === undefined) {
    // A node of another version may find fault with what we find right.
    const problems =
      result.problems ?? result.refused?.map(({ path, message }) => problemAt(text, file, path, message));
    printProblems(problems ?? []);
    return result.refused === undefined ? USAGE : NO;
  }
  const { notKept, changes, missing, ...counts } = result.applied;
  if (isForPeople(flags.output)) {
    const rows = changes.map(change => ({ ...change }));
    await printRows(flags.output, rows, columnsOf(rows));
    const waited = dryRun ? 'nothing, this was a dry run' : `no packet waited longer than ${counts.longestStopMs} ms`;
    process.stderr.write(`${node}: applied: ${changes.length === 0 ? 'nothing to change' : waited}\n`);
  } else {
    const row = { node, ...counts, changes, missing };
    await printRows(flags.output, [row], columnsOf([row]));
  }
  for (const line of missing) process.stderr.write(`${node}: ${line}\n`);
  if (notKept === null) return DONE;
  process.stderr.write(`tunpath: applied, but it will be forgotten when the node ends: ${notKept}\n`);
  return NO;
}

/** @returns the exit code: 0 the node is what the file says, 1 it is not; 2 bad input */
export async function diff(flags: FileFlags): Promise<number> {
  const loaded = load(flags);
  if (loaded === null) return USAGE;
  const running = (await callNode(loaded.socket, 'config')) as ResolvedConfig;
  // Both with what the node has filled in, and as they come through JSON.
  const wanted = withUplink(loaded.config, running.spec.uplink);
  const differences = diffSpecs(
    plain({ ...running.spec, uplink: running.spec.uplink.written }),
    plain({ ...wanted.spec, uplink: loaded.config.spec.uplink }),
  );
  if (!isForPeople(flags.output)) await printRows<Difference>(flags.output, differences, []);
  else if (differences.length === 0) process.stderr.write(`${loaded.node}: no difference\n`);
  else {
    process.stdout.write(`--- ${loaded.node}, as it runs\n+++ ${loaded.file}\n`);
    process.stdout.write(differences.map(formatDifference).join(''));
  }
  return differences.length === 0 ? DONE : NO;
}

function plain(value: object): unknown {
  return JSON.parse(JSON.stringify(value));
}

/** Ends the node that the file names. @returns the exit code: 0 it has ended, 1 it has not; 2 bad input */
export async function deleteFile(flags: FileFlags): Promise<number> {
  const loaded = load(flags);
  if (loaded === null) return USAGE;
  await callNode(loaded.socket, 'stop');
  const deadline = Date.now() + END_MS;
  while (listNodes().includes(loaded.node)) {
    if (Date.now() > deadline) {
      process.stderr.write(`tunpath: node ${loaded.node} has been told to end, and is still there\n`);
      return NO;
    }
    await sleep(20);
  }
  process.stderr.write(`node ${loaded.node} has ended\n`);
  return DONE;
}

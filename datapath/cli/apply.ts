/** `tunpath apply -f FILE`: makes a running node what the file says, all of it or nothing. */
import { callNode } from '../control/client.ts';
import { formatProblems, loadConfig, problemAt } from '../control/load-config.ts';
import type { ApplyResult } from '../control/node.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE, NO, readText, USAGE } from './exit.ts';
import type { Format } from './format.ts';
import { columnsOf, printRows } from './table.ts';

/** Ten thousand services are a second's work. */
const TIMEOUT_MS = 60_000;

/** @returns the exit code: 0 done, 1 the node refused and nothing has changed, or will not keep it; 2 bad input */
export async function apply(flags: { file: string; node?: string; output: Format }): Promise<number> {
  const { file } = flags;
  const text = readText(file);
  const loaded = loadConfig(text, file);
  if (loaded.problems !== undefined) {
    process.stderr.write(`${formatProblems(loaded.problems)}\n`);
    return USAGE;
  }
  if (loaded.warnings.length > 0) process.stderr.write(`${formatProblems(loaded.warnings)}\n`);
  const node = pickNode(flags.node ?? loaded.config.metadata.name, listNodes());
  const result = (await callNode(socketPathOf(node), 'apply', { text, file }, TIMEOUT_MS)) as ApplyResult;
  if (result.applied === undefined) {
    // A node of another version may find fault with what we find right.
    const problems =
      result.problems ?? result.refused?.map(({ path, message }) => problemAt(text, file, path, message));
    process.stderr.write(`${formatProblems(problems ?? [])}\n`);
    return result.refused === undefined ? USAGE : NO;
  }
  const { notKept, changes, ...counts } = result.applied;
  if (flags.output === 'table' || flags.output === 'wide') {
    const rows = changes.map(change => ({ ...change }));
    await printRows(flags.output, rows, columnsOf(rows));
    const what = changes.length === 0 ? 'nothing to change' : `no packet waited longer than ${counts.longestStopMs} ms`;
    process.stderr.write(`${node}: applied: ${what}\n`);
  } else {
    const row = { node, ...counts, changes };
    await printRows(flags.output, [row], columnsOf([row]));
  }
  if (notKept === null) return DONE;
  process.stderr.write(`tunpath: applied, but it will be forgotten when the node ends: ${notKept}\n`);
  return NO;
}

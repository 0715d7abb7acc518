/** Which running node a command speaks to. */

import { readdirSync } from 'node:fs';
import { RUN_DIR } from '../control/client.ts';
import { nearest } from '../control/nearest.ts';
import { UsageError } from './exit.ts';

/** Names of the nodes whose control sockets are there. */
export function listNodes(): string[] {
  try {
    return (
      readdirSync(RUN_DIR)
        // A node's name has no dot: NAME.hubble.sock is another socket of it.
        .filter(entry => /^[^.]+\.sock$/.test(entry))
        .map(entry => entry.slice(0, -'.sock'.length))
        .sort()
    );
  } catch {
    return [];
  }
}

/**
 * Picks a node by `NAME`, or in a lab by `LAB/NODE` or by `NODE` where only one lab has it; without a name, the only
 * node there is.
 * @param nodes  names of running nodes; those of labs are tp-LAB-NODE
 * @throws UsageError naming the choices
 */
export function pickNode(wanted: string | undefined, nodes: readonly string[]): string {
  if (nodes.length === 0)
    throw new UsageError(
      `no node runs here: start one (tunpath node --config FILE, tunpath lab up); ${RUN_DIR} holds no control socket`,
    );
  const choices = `expected --node with one of ${nodes.map(shortName).join(', ')}`;
  if (wanted === undefined) {
    if (nodes.length === 1) return nodes[0]!;
    throw new UsageError(`several nodes run here: ${choices}`);
  }
  if (nodes.includes(wanted)) return wanted;
  const [first, second] = wanted.split('/');
  const matches = nodes.filter(node =>
    second === undefined ? /^tp-[a-z0-9]+-(.+)$/.exec(node)?.[1] === first : node === `tp-${first}-${second}`,
  );
  if (matches.length === 1) return matches[0]!;
  const meant = matches.length === 0 ? nearest(wanted, nodes.map(shortName)) : undefined;
  const hint = meant === undefined ? '' : ` (did you mean ${meant}?)`;
  throw new UsageError(`${matches.length === 0 ? 'no' : 'more than one'} node '${wanted}'${hint}: ${choices}`);
}

export function socketPathOf(node: string): string {
  return `${RUN_DIR}/${node}.sock`;
}

/** As people call a node: `tp-lab-k8s-w1` -> `lab/k8s-w1`. */
export function shortName(node: string): string {
  return node.replace(/^tp-([a-z0-9]+)-/, '$1/');
}

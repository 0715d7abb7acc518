/** Which nodes a command looks at, and until when. */
import { namespacePrefix } from '../lab/names.ts';
import { listNodes, pickNode } from './client.ts';

/**
 * The nodes that an option names: one of them, or without it all that run here.
 * @param lab only those of a lab
 * @throws UsageError
 */
export function watchedNodes(node: string | undefined, lab?: string): string[] {
  const nodes = nodesOfLab(lab);
  if (node !== undefined || nodes.length === 0) return [pickNode(node, nodes)];
  return nodes;
}

/** Those of a lab; without one all. @param nodes default: that run here */
export function nodesOfLab(lab: string | undefined, nodes = listNodes()): string[] {
  return lab === undefined ? nodes : nodes.filter(node => node.startsWith(namespacePrefix(lab)));
}

/** Ends with SIGINT or SIGTERM. */
export function untilSignal(): AbortController {
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => controller.abort());
  return controller;
}

/** Says that a node is not there: the command goes on with the others. */
export function sayGone(_node: string, error: Error): void {
  process.stderr.write(`${error.message}; the other nodes are shown\n`);
}

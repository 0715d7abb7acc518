/** Which nodes a command looks at, and until when. */
import { listNodes, pickNode } from './client.ts';

/** The nodes that an option names: one of them, or without it all that run here. @throws UsageError */
export function watchedNodes(node: string | undefined): string[] {
  const nodes = listNodes();
  if (node !== undefined || nodes.length === 0) return [pickNode(node, nodes)];
  return nodes;
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

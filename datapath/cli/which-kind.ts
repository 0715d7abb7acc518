/** Whether a kind of `get` and `describe` is one of a node's tables or of a cluster's objects; some names are both. */
import { RESOURCES } from '../api/resources.ts';
import { listNodes } from './client.ts';
import { UsageError } from './exit.ts';
import { isNodeKind } from './kinds.ts';

export interface KindFlags {
  node?: string;
  kubeconfig?: string;
  namespace?: string;
  allNamespaces?: boolean;
  selector?: string;
}

/** Names of the cluster's kinds that need no asking. */
const OBJECT_NAMES: ReadonlySet<string> = new Set(
  RESOURCES.flatMap(({ plural, singular, shortNames, categories }) => [plural, singular, ...shortNames, ...categories]),
);

/**
 * Options decide first: --node means a node, those of kubectl a cluster. Then the name, where only one has it. A name of both
 * is the node's where one node runs here, and otherwise the cluster's where there is one.
 * @throws UsageError for options that contradict each other
 */
export async function isOfCluster(kindText: string, flags: KindFlags): Promise<boolean> {
  const given = (['kubeconfig', 'namespace', 'allNamespaces', 'selector'] as const).find(
    flag => flags[flag] !== undefined,
  );
  if (flags.node !== undefined && given !== undefined) {
    const option = given === 'allNamespaces' ? 'all-namespaces' : given;
    throw new UsageError(`--${option} is for a cluster, --node for a node: expected one of them`);
  }
  if (flags.node !== undefined) return false;
  if (given !== undefined) return true;
  const words = kindText.toLowerCase().split(',');
  const ofNode = words.length === 1 && isNodeKind(words[0]!);
  // A list, a group and KIND/NAME are how kubectl is asked.
  if (!ofNode && words.some(word => /[./]/.test(word) || OBJECT_NAMES.has(word))) return true;
  if (ofNode && (!OBJECT_NAMES.has(words[0]!) || listNodes().length === 1)) return false;
  return (await import('./which-cluster.ts')).isClusterHere();
}

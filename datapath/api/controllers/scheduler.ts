/** The scheduler: which node a pod runs on. Filters as kube-scheduler's, then the node with the fewest pods. */
import { type Json, type KubeObject, placeOf } from '../object.ts';
import { matchesSelector } from '../selector.ts';
import { type Cluster, isActive, withCondition } from './cluster.ts';
import type { Controller } from './manager.ts';

export const scheduler: Controller = {
  name: 'scheduler',
  *keys(cluster) {
    for (const pod of cluster.values('Pod')) if (isWaiting(pod)) yield placeOf(pod);
  },
  *affected({ storage, place, object, type }, cluster) {
    if (storage === 'pods' && type !== 'DELETED' && isWaiting(object)) yield place;
    // What did not fit may fit now.
    else if (storage === 'nodes' || (storage === 'pods' && type === 'DELETED')) yield* scheduler.keys(cluster);
  },
  async reconcile(key, cluster) {
    const [namespace, name] = key.split('/') as [string, string];
    const pod = cluster.find('Pod', namespace, name);
    if (pod === undefined || !isWaiting(pod)) return undefined;
    const nodes = cluster.list('Node');
    const choice = chooseNode(pod, nodes, [...cluster.values('Pod')]);
    if (typeof choice === 'string') {
      await cluster.change(pod, object => ({ ...object, spec: { ...object.spec, nodeName: choice } }));
      await setScheduled(cluster, pod, { status: 'True' });
      await cluster.event(pod, 'Normal', 'Scheduled', `Successfully assigned ${key} to ${choice}`);
      return undefined;
    }
    const reasons = [...choice].map(([reason, count]) => `${count} ${reason}`).sort();
    const why = reasons.length === 0 ? 'no nodes are registered' : reasons.join(', ');
    const message = `0/${nodes.length} nodes are available: ${why}.`;
    const before = (pod.status?.conditions ?? []).find((condition: Json) => condition.type === 'PodScheduled');
    if (before?.message === message) return undefined;
    await setScheduled(cluster, pod, { status: 'False', reason: 'Unschedulable', message });
    await cluster.event(pod, 'Warning', 'FailedScheduling', message);
    return undefined;
  },
};

function setScheduled(cluster: Cluster, pod: KubeObject, condition: Json): Promise<void> {
  const conditions = withCondition(pod.status?.conditions, { type: 'PodScheduled', ...condition }, cluster.now);
  return cluster.setStatus(pod, { conditions });
}

function isWaiting(pod: KubeObject): boolean {
  return pod.spec.nodeName === undefined && isActive(pod) && pod.spec.schedulerName === 'default-scheduler';
}

/** The name of a node, or how many nodes there are for each reason why not. Pure. */
export function chooseNode(
  pod: KubeObject,
  nodes: readonly KubeObject[],
  pods: readonly KubeObject[],
): string | Map<string, number> {
  const reasons = new Map<string, number>();
  const placed = pods.filter(other => other.spec.nodeName !== undefined && isActive(other));
  const load = new Map<string, number>();
  for (const { spec } of placed) load.set(spec.nodeName, (load.get(spec.nodeName) ?? 0) + 1);
  const byName = new Map(nodes.map(node => [node.metadata.name, node]));
  let best: string | undefined;
  for (const node of nodes) {
    const { name } = node.metadata;
    const reason = nodeFault(pod.spec, node) ?? affinityFault(pod, node, placed, byName);
    if (reason !== undefined) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    else if (best === undefined || (load.get(name) ?? 0) < (load.get(best) ?? 0)) best = name;
  }
  return best ?? reasons;
}

/** Whether a template's pods may run on a node, as far as the node alone decides. A DaemonSet's run on cordoned ones, too. */
export function fitsNode({ spec }: Json, node: KubeObject): boolean {
  const tolerations = [
    ...(spec.tolerations ?? []),
    ...['unschedulable', 'not-ready', 'unreachable'].map(key => ({
      key: `node.kubernetes.io/${key}`,
      operator: 'Exists',
    })),
  ];
  const open = { ...node, spec: { ...node.spec, unschedulable: false } };
  return nodeFault({ ...spec, tolerations }, open, true) === undefined;
}

/** Why a pod cannot run on a node, in kube-scheduler's words. */
function nodeFault(spec: Json, node: KubeObject, readyOrNot = false): string | undefined {
  const labels = node.metadata.labels ?? {};
  if (node.spec?.unschedulable) return 'node(s) were unschedulable';
  const ready = (node.status?.conditions ?? []).find((condition: Json) => condition.type === 'Ready');
  if (!readyOrNot && ready !== undefined && ready.status !== 'True') return 'node(s) were not ready';
  for (const taint of node.spec?.taints ?? []) {
    if (taint.effect === 'PreferNoSchedule') continue;
    if (!(spec.tolerations ?? []).some((toleration: Json) => tolerates(toleration, taint))) {
      return `node(s) had untolerated taint {${taint.key}: ${taint.value ?? ''}}`;
    }
  }
  const required = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  const isSelected =
    Object.entries(spec.nodeSelector ?? {}).every(([key, value]) => labels[key] === value) &&
    (required === undefined || required.some((term: Json) => meetsTerm(term, node)));
  return isSelected ? undefined : "node(s) didn't match Pod's node affinity/selector";
}

function tolerates({ key, operator = 'Equal', value, effect }: Json, taint: Json): boolean {
  if (effect !== undefined && effect !== '' && effect !== taint.effect) return false;
  if (key !== undefined && key !== '' && key !== taint.key) return false;
  return operator === 'Exists' || (value ?? '') === (taint.value ?? '');
}

function meetsTerm({ matchExpressions = [], matchFields = [] }: Json, { metadata }: KubeObject): boolean {
  if (matchExpressions.length + matchFields.length === 0) return false;
  return (
    matchesSelector({ matchExpressions }, metadata.labels) &&
    matchesSelector({ matchExpressions: matchFields }, { 'metadata.name': metadata.name })
  );
}

function affinityFault(
  pod: KubeObject,
  node: KubeObject,
  placed: readonly KubeObject[],
  byName: ReadonlyMap<string, KubeObject>,
): string | undefined {
  const { affinity } = pod.spec;
  const isNear = (term: Json, owner: KubeObject, other: KubeObject, at: KubeObject): boolean => {
    const namespaces: string[] = term.namespaces ?? [owner.metadata.namespace];
    if (!namespaces.includes(other.metadata.namespace!)) return false;
    if (!matchesSelector(term.labelSelector, other.metadata.labels)) return false;
    const there = byName.get(at.metadata.name)?.metadata.labels?.[term.topologyKey];
    return there !== undefined && there === node.metadata.labels?.[term.topologyKey];
  };
  const nodeOf = (other: KubeObject): KubeObject | undefined => byName.get(other.spec.nodeName);
  const required = 'requiredDuringSchedulingIgnoredDuringExecution';
  for (const term of affinity?.podAntiAffinity?.[required] ?? []) {
    const found = placed.some(other => nodeOf(other) !== undefined && isNear(term, pod, other, nodeOf(other)!));
    if (found) return "node(s) didn't match pod anti-affinity rules";
  }
  for (const term of affinity?.podAffinity?.[required] ?? []) {
    const found = placed.some(other => nodeOf(other) !== undefined && isNear(term, pod, other, nodeOf(other)!));
    // The first of a group that wants to be together may be anywhere.
    const isFirst =
      matchesSelector(term.labelSelector, pod.metadata.labels) &&
      !placed.some(other => matchesSelector(term.labelSelector, other.metadata.labels));
    if (!found && !isFirst) return "node(s) didn't match pod affinity rules";
  }
  // Those that are there may not want it beside them, either.
  for (const other of placed) {
    const at = nodeOf(other);
    for (const term of other.spec.affinity?.podAntiAffinity?.[required] ?? []) {
      if (at !== undefined && isNear(term, other, pod, at))
        return "node(s) didn't satisfy existing pods anti-affinity rules";
    }
  }
  return undefined;
}

/** Deployment, ReplicaSet and DaemonSet: as many pods of the right template as there should be. */
import { isDeepStrictEqual } from 'node:util';
import { controllerOf, controllerReference, type Json, type KubeObject, placeOf } from '../object.ts';
import type { StoreEvent } from '../store/store.ts';
import { type Cluster, isActive, isAvailable, isReady, shortHash, withCondition } from './cluster.ts';
import type { Controller } from './manager.ts';

const HASH_LABEL = 'pod-template-hash';
const REVISION = 'deployment.kubernetes.io/revision';
const REVISION_HASH = 'controller-revision-hash';
/** Pods made or removed at once. */
const BURST = 500;

/** Keys of a kind: its objects, and the owners of what they own. */
function keysOf(kind: string, storage: string, ownedStorage: string): Pick<Controller, 'keys' | 'affected'> {
  return {
    *keys(cluster) {
      for (const object of cluster.values(kind)) yield placeOf(object);
    },
    *affected({ storage: changed, place, object }: StoreEvent) {
      if (changed === storage) yield place;
      if (changed !== ownedStorage) return;
      const owner = controllerOf(object);
      if (owner?.kind === kind) yield `${object.metadata.namespace}/${owner.name}`;
    },
  };
}

function find(cluster: Cluster, kind: string, key: string): KubeObject | undefined {
  const [namespace, name] = key.split('/') as [string, string];
  const object = cluster.find(kind, namespace, name);
  return object?.metadata.deletionTimestamp === undefined ? object : undefined;
}

// ---- ReplicaSet -----------------------------------------------------------------------------------------------------

export const replicaSets: Controller = {
  name: 'replicaset',
  ...keysOf('ReplicaSet', 'replicasets.apps', 'pods'),
  async reconcile(key, cluster) {
    const set = find(cluster, 'ReplicaSet', key);
    if (set === undefined) return undefined;
    const { spec, metadata } = set;
    const pods = cluster.ownedBy(set, 'Pod').filter(isActive);
    const missing = spec.replicas - pods.length;
    for (let n = 0; n < Math.min(missing, BURST); n++) await createPod(cluster, set, spec.template, {});
    const surplus = [...pods].sort(byWorth).slice(0, Math.max(0, -missing));
    for (const pod of surplus) {
      await cluster.delete(pod);
      await cluster.event(set, 'Normal', 'SuccessfulDelete', `Deleted pod: ${pod.metadata.name}`);
    }
    const minReady = spec.minReadySeconds ?? 0;
    const present = cluster.ownedBy(set, 'Pod').filter(isActive);
    await cluster.setStatus(set, {
      replicas: present.length,
      fullyLabeledReplicas: present.length || undefined,
      readyReplicas: present.filter(isReady).length || undefined,
      availableReplicas: present.filter(pod => isAvailable(pod, minReady, cluster.nowMs)).length || undefined,
      observedGeneration: metadata.generation,
    });
    return minReady > 0 ? minReady * 1000 : undefined;
  },
};

/** The pods that are missed least come first: not scheduled, not ready, youngest. */
function byWorth(a: KubeObject, b: KubeObject): number {
  const worth = (pod: KubeObject): number => (pod.spec.nodeName === undefined ? 0 : isReady(pod) ? 2 : 1);
  const age = (pod: KubeObject): number => Date.parse(pod.metadata.creationTimestamp!);
  return worth(a) - worth(b) || age(b) - age(a) || (a.metadata.name < b.metadata.name ? 1 : -1);
}

async function createPod(
  cluster: Cluster,
  owner: KubeObject,
  template: Json,
  { labels = {}, nodeName }: { labels?: Record<string, string>; nodeName?: string },
): Promise<void> {
  const { namespace, name } = owner.metadata;
  const metadata = template.metadata ?? {};
  try {
    const pod = await cluster.create('Pod', {
      metadata: {
        generateName: `${name}-`,
        namespace,
        labels: { ...metadata.labels, ...labels },
        ...(metadata.annotations === undefined ? {} : { annotations: metadata.annotations }),
        ownerReferences: [controllerReference(owner)],
      },
      spec: { ...template.spec, ...(nodeName === undefined ? {} : { nodeName }) },
    });
    if (pod !== undefined)
      await cluster.event(owner, 'Normal', 'SuccessfulCreate', `Created pod: ${pod.metadata.name}`);
  } catch (error) {
    // Its namespace is going away, and the owner with it.
    if (cluster.find('Namespace', undefined, namespace!)?.metadata.deletionTimestamp !== undefined) return;
    await cluster.event(owner, 'Warning', 'FailedCreate', `Error creating: ${(error as Error).message}`);
    throw error;
  }
}

// ---- Deployment -----------------------------------------------------------------------------------------------------

export const deployments: Controller = {
  name: 'deployment',
  ...keysOf('Deployment', 'deployments.apps', 'replicasets.apps'),
  async reconcile(key, cluster) {
    const deployment = find(cluster, 'Deployment', key);
    if (deployment === undefined) return undefined;
    const { spec } = deployment;
    const sets = cluster.ownedBy(deployment, 'ReplicaSet');
    const current = sets.find(set => isDeepStrictEqual(withoutHash(set.spec.template), withoutHash(spec.template)));
    if (current === undefined) {
      if (!spec.paused || sets.length === 0) await createReplicaSet(cluster, deployment, sets);
      return undefined;
    }
    await keepRevision(cluster, deployment, current, sets);
    const old = sets.filter(set => set !== current);
    if (!spec.paused) {
      for (const { set, replicas } of planRollout(deployment, current, old)) {
        await cluster.change(set, object => ({ ...object, spec: { ...object.spec, replicas } }));
        const direction = replicas > set.spec.replicas ? 'up' : 'down';
        const text = `Scaled ${direction} replica set ${set.metadata.name} from ${set.spec.replicas} to ${replicas}`;
        await cluster.event(deployment, 'Normal', 'ScalingReplicaSet', text);
      }
      await removeOldSets(cluster, deployment, old);
    }
    await cluster.setStatus(deployment, statusOf(deployment, current, sets, cluster.now));
    return undefined;
  },
};

function withoutHash(template: Json): Json {
  const { [HASH_LABEL]: hash, ...labels } = template.metadata?.labels ?? {};
  return { ...template, metadata: { ...template.metadata, labels } };
}

function revisionOf({ metadata }: KubeObject): number {
  return Number(metadata.annotations?.[REVISION] ?? 0);
}

async function createReplicaSet(cluster: Cluster, deployment: KubeObject, sets: readonly KubeObject[]): Promise<void> {
  const { metadata, spec } = deployment;
  const hash = shortHash(JSON.stringify(spec.template));
  const labels = { ...spec.template.metadata?.labels, [HASH_LABEL]: hash };
  const revision = `${Math.max(0, ...sets.map(revisionOf)) + 1}`;
  const name = `${metadata.name}-${hash}`;
  await cluster.create('ReplicaSet', {
    metadata: {
      name,
      namespace: metadata.namespace,
      labels,
      annotations: { ...copiedAnnotations(metadata.annotations), [REVISION]: revision },
      ownerReferences: [controllerReference(deployment)],
    },
    spec: {
      // The rollout decides how many there may be.
      replicas: 0,
      ...(spec.minReadySeconds === undefined ? {} : { minReadySeconds: spec.minReadySeconds }),
      selector: { ...spec.selector, matchLabels: { ...spec.selector.matchLabels, [HASH_LABEL]: hash } },
      template: { ...spec.template, metadata: { ...spec.template.metadata, labels } },
    },
  });
}

function copiedAnnotations(annotations: Record<string, string> = {}): Record<string, string> {
  const { 'kubectl.kubernetes.io/last-applied-configuration': applied, [REVISION]: revision, ...rest } = annotations;
  return rest;
}

/** The set that is current has the highest revision: also one that an undo has brought back. */
async function keepRevision(
  cluster: Cluster,
  deployment: KubeObject,
  current: KubeObject,
  sets: readonly KubeObject[],
): Promise<void> {
  const highest = Math.max(...sets.filter(set => set !== current).map(revisionOf), 0);
  const revision = revisionOf(current) > highest ? revisionOf(current) : highest + 1;
  for (const object of [current, deployment]) {
    if (revisionOf(object) === revision) continue;
    await cluster.change(object, ({ metadata, ...rest }) => ({
      ...rest,
      metadata: { ...metadata, annotations: { ...metadata.annotations, [REVISION]: `${revision}` } },
    }));
  }
}

/** A number, or a percentage of `total`. */
export function portion(value: Json, total: number, up: boolean): number {
  if (typeof value === 'number') return value;
  const share = (Number(/^(\d+)%$/.exec(String(value))?.[1] ?? 0) * total) / 100;
  return up ? Math.ceil(share) : Math.floor(share);
}

/**
 * How many replicas each set gets next: never more in all than the surge allows, never fewer available than may be missing.
 * Pure.
 */
export function planRollout(
  { spec }: KubeObject,
  current: KubeObject,
  old: readonly KubeObject[],
): { set: KubeObject; replicas: number }[] {
  const changes: { set: KubeObject; replicas: number }[] = [];
  const wanted: number = spec.replicas;
  const oldTotal = old.reduce((sum, set) => sum + set.spec.replicas, 0);
  const now: number = current.spec.replicas;
  const change = (set: KubeObject, replicas: number): void => {
    if (replicas !== set.spec.replicas) changes.push({ set, replicas });
  };
  if (spec.strategy?.type === 'Recreate') {
    for (const set of old) change(set, 0);
    const left = old.reduce((sum, set) => sum + (set.status?.replicas ?? 0), 0);
    if (oldTotal === 0 && left === 0) change(current, wanted);
    return changes;
  }
  let surge = portion(spec.strategy?.rollingUpdate?.maxSurge, wanted, true);
  let unavailable = portion(spec.strategy?.rollingUpdate?.maxUnavailable, wanted, false);
  // Both at zero would never get on.
  if (surge === 0 && unavailable === 0) unavailable = 1;
  if (oldTotal === 0) surge = 0;
  change(
    current,
    Math.max(Math.min(now, wanted), Math.min(wanted, now + Math.max(0, wanted + surge - now - oldTotal))),
  );
  // Those that are ready count; replicas that never came up may go at once.
  const availableOf = ({ spec: own, status }: KubeObject): number =>
    Math.min(own.replicas, status?.availableReplicas ?? 0);
  const available = [current, ...old].reduce((sum, set) => sum + availableOf(set), 0);
  let spare = available - (wanted - unavailable);
  for (const set of [...old].sort((a, b) => revisionOf(a) - revisionOf(b))) {
    const healthy = availableOf(set);
    const less = Math.min(healthy, Math.max(0, spare));
    spare -= less;
    change(set, healthy - less);
  }
  return changes;
}

async function removeOldSets(cluster: Cluster, { spec }: KubeObject, old: readonly KubeObject[]): Promise<void> {
  const idle = old.filter(set => set.spec.replicas === 0 && (set.status?.replicas ?? 0) === 0);
  const kept = spec.revisionHistoryLimit ?? 10;
  for (const set of idle.sort((a, b) => revisionOf(b) - revisionOf(a)).slice(kept)) await cluster.delete(set);
}

function statusOf(deployment: KubeObject, current: KubeObject, sets: readonly KubeObject[], now: string): Json {
  const { spec, metadata, status } = deployment;
  const sum = (field: string): number => sets.reduce((total, set) => total + (set.status?.[field] ?? 0), 0);
  const available = sum('availableReplicas');
  const updated = current.status?.replicas ?? 0;
  const minimum = spec.replicas - portion(spec.strategy?.rollingUpdate?.maxUnavailable ?? 0, spec.replicas, false);
  const isUp = available >= minimum;
  const isDone = updated === spec.replicas && available >= spec.replicas && sum('replicas') === updated;
  const { name } = current.metadata;
  let conditions = withCondition(
    status?.conditions,
    {
      type: 'Available',
      status: isUp ? 'True' : 'False',
      reason: isUp ? 'MinimumReplicasAvailable' : 'MinimumReplicasUnavailable',
      message: isUp ? 'Deployment has minimum availability.' : 'Deployment does not have minimum availability.',
    },
    now,
  );
  conditions = withCondition(
    conditions,
    {
      type: 'Progressing',
      status: 'True',
      reason: isDone ? 'NewReplicaSetAvailable' : 'ReplicaSetUpdated',
      message: isDone ? `ReplicaSet "${name}" has successfully progressed.` : `ReplicaSet "${name}" is progressing.`,
    },
    now,
  );
  return {
    observedGeneration: metadata.generation,
    replicas: sum('replicas') || undefined,
    updatedReplicas: updated || undefined,
    readyReplicas: sum('readyReplicas') || undefined,
    availableReplicas: available || undefined,
    unavailableReplicas: Math.max(0, spec.replicas - available) || undefined,
    conditions,
  };
}

// ---- DaemonSet ------------------------------------------------------------------------------------------------------

export function daemonSets(fits: (pod: Json, node: KubeObject) => boolean): Controller {
  const base = keysOf('DaemonSet', 'daemonsets.apps', 'pods');
  return {
    name: 'daemonset',
    keys: base.keys,
    *affected(event, cluster) {
      if (event.storage === 'nodes') yield* base.keys(cluster);
      else yield* base.affected(event, cluster);
    },
    async reconcile(key, cluster) {
      const set = find(cluster, 'DaemonSet', key);
      if (set === undefined) return undefined;
      const { spec, metadata } = set;
      const hash = shortHash(JSON.stringify(spec.template));
      const nodes = cluster.list('Node').filter(node => fits(spec.template, node));
      const names = new Set(nodes.map(node => node.metadata.name));
      const pods = cluster.ownedBy(set, 'Pod').filter(isActive);
      const onNode = new Map<string, KubeObject>();
      for (const pod of pods) {
        const node = pod.spec.nodeName;
        if (!names.has(node) || onNode.has(node)) await cluster.delete(pod);
        else onNode.set(node, pod);
      }
      for (const node of names) {
        if (!onNode.has(node))
          await createPod(cluster, set, spec.template, { labels: { [REVISION_HASH]: hash }, nodeName: node });
      }
      const isUpdated = (pod: KubeObject): boolean => pod.metadata.labels?.[REVISION_HASH] === hash;
      if (spec.updateStrategy?.type !== 'OnDelete') {
        let mayBeMissing = portion(spec.updateStrategy?.rollingUpdate?.maxUnavailable ?? 1, names.size, true) || 1;
        mayBeMissing -= names.size - [...onNode.values()].filter(isReady).length;
        for (const pod of onNode.values()) {
          if (isUpdated(pod)) continue;
          // One that is not ready is missing already.
          if (isReady(pod) && mayBeMissing-- <= 0) continue;
          await cluster.delete(pod);
        }
      }
      const present = cluster.ownedBy(set, 'Pod').filter(pod => isActive(pod) && names.has(pod.spec.nodeName));
      const ready = present.filter(isReady).length;
      await cluster.setStatus(set, {
        observedGeneration: metadata.generation,
        desiredNumberScheduled: names.size,
        currentNumberScheduled: present.length,
        numberMisscheduled: 0,
        updatedNumberScheduled: present.filter(isUpdated).length || undefined,
        numberReady: ready,
        numberAvailable: ready || undefined,
        numberUnavailable: names.size - ready || undefined,
      });
      return undefined;
    },
  };
}

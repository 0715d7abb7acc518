/** What has to go when something else goes: objects of an owner, and everything in a namespace. */
import type { KubeObject } from '../object.ts';
import { RESOURCES } from '../resources.ts';
import { BY_UID, type Cluster, DEPENDENTS } from './cluster.ts';
import type { Controller } from './manager.ts';

const FOREGROUND = 'foregroundDeletion';
const ORPHAN = 'orphan';

/** Kinds whose objects may have owners or may be in namespaces, each once. */
const KINDS = [...new Map(RESOURCES.map(({ storage, kind }) => [storage, kind])).values()].filter(
  (kind, index, all) => all.indexOf(kind) === index,
);
const NAMESPACED = KINDS.filter(kind => RESOURCES.some(resource => resource.kind === kind && resource.namespaced));

/** Keys are uids of owners: of one that is gone, or wants its dependents away first. */
export const garbage: Controller = {
  name: 'garbage',
  *keys(cluster) {
    const alive = new Set<string>();
    const owners = new Set<string>();
    for (const kind of KINDS) {
      for (const object of cluster.values(kind)) {
        alive.add(object.metadata.uid!);
        for (const { uid } of object.metadata.ownerReferences ?? []) owners.add(uid);
        if (isHeld(object)) yield object.metadata.uid!;
      }
    }
    for (const uid of owners) if (!alive.has(uid)) yield uid;
  },
  *affected({ type, object }) {
    const { uid, ownerReferences = [] } = object.metadata;
    if (type === 'DELETED' || isHeld(object)) yield uid!;
    // A dependent that is gone was perhaps the last; one that came late has perhaps no owner any more.
    for (const owner of ownerReferences) if (type !== 'MODIFIED') yield owner.uid;
  },
  async reconcile(uid, cluster) {
    const [owner] = cluster.by(BY_UID, uid);
    const dependents = [...cluster.by(DEPENDENTS, uid)];
    if (owner !== undefined && !isHeld(owner)) return undefined;
    const finalizers = owner?.metadata.finalizers ?? [];
    const leaves = finalizers.includes(ORPHAN);
    for (const object of dependents) {
      const others = object.metadata.ownerReferences!.filter(reference => reference.uid !== uid);
      if (leaves || others.some(reference => exists(cluster, reference.uid))) {
        await cluster.change(object, current => ({
          ...current,
          metadata: { ...current.metadata, ownerReferences: others.length > 0 ? others : undefined },
        }));
      } else if (object.metadata.deletionTimestamp === undefined) {
        await cluster.delete(object);
      }
    }
    if (owner === undefined) return undefined;
    if (
      !leaves &&
      dependents.some(({ metadata }) =>
        metadata.ownerReferences?.some(({ uid: of, blockOwnerDeletion }) => of === uid && blockOwnerDeletion),
      )
    ) {
      return undefined;
    }
    await cluster.change(owner, current => ({
      ...current,
      metadata: {
        ...current.metadata,
        finalizers: current.metadata.finalizers?.filter(name => name !== FOREGROUND && name !== ORPHAN),
      },
    }));
    return undefined;
  },
};

function isHeld({ metadata }: KubeObject): boolean {
  if (metadata.deletionTimestamp === undefined) return false;
  return metadata.finalizers?.some(name => name === FOREGROUND || name === ORPHAN) === true;
}

function exists(cluster: Cluster, uid: string): boolean {
  return [...cluster.by(BY_UID, uid)].length > 0;
}

/** A namespace that is to go takes everything in it along, and then goes. */
export const namespaces: Controller = {
  name: 'namespace',
  *keys(cluster) {
    for (const { metadata } of cluster.values('Namespace')) yield metadata.name;
  },
  *affected({ storage, place, type, object }, cluster) {
    if (storage === 'namespaces') yield place;
    const { namespace } = object.metadata;
    if (type !== 'DELETED' || namespace === undefined) return;
    if (cluster.find('Namespace', undefined, namespace)?.metadata.deletionTimestamp !== undefined) yield namespace;
  },
  async reconcile(name, cluster) {
    const namespace = cluster.find('Namespace', undefined, name);
    if (namespace === undefined) return undefined;
    if (namespace.metadata.deletionTimestamp === undefined) return makeDefaults(cluster, name);
    let left = 0;
    for (const kind of NAMESPACED) {
      for (const object of cluster.list(kind, name)) {
        left++;
        if (object.metadata.deletionTimestamp === undefined) await cluster.delete(object);
      }
    }
    if (left > 0) return 200;
    await cluster.change(namespace, current => ({ ...current, spec: { ...current.spec, finalizers: [] } }));
    const emptied = cluster.find('Namespace', undefined, name);
    if (emptied !== undefined) await cluster.delete(emptied);
    return undefined;
  },
};

/** What every namespace has from its beginning. */
async function makeDefaults(cluster: Cluster, namespace: string): Promise<undefined> {
  if (cluster.find('ServiceAccount', namespace, 'default') === undefined) {
    await cluster.create('ServiceAccount', { metadata: { name: 'default', namespace } });
  }
  return undefined;
}

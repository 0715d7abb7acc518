/** What controllers see of the API, and how they write: by kind, without HTTP, under a manager's name. */
import { createHash } from 'node:crypto';
import { ApiError } from '../errors.ts';
import { controllerOf, type Json, type KubeObject, timestamp } from '../object.ts';
import { RESOURCES, type Resource } from '../resources.ts';
import type { Registry, Target } from '../server/registry.ts';
import type { IndexOf } from '../store/index.ts';

/** Kinds by name; of kinds in several groups the first. */
const byKind = new Map<string, Resource>();
for (const resource of RESOURCES) if (!byKind.has(resource.kind)) byKind.set(resource.kind, resource);

/** By the uids of their owners. */
export const DEPENDENTS: IndexOf = {
  keysOf: ({ metadata }) => metadata.ownerReferences?.map(({ uid }) => uid) ?? [],
};
/** By their uids. */
export const BY_UID: IndexOf = { keysOf: ({ metadata }) => [metadata.uid!] };

export class Cluster {
  readonly registry: Registry;
  private readonly manager: string;

  constructor(registry: Registry, manager = 'tunpath-controller') {
    this.registry = registry;
    this.manager = manager;
  }

  get nowMs(): number {
    return this.registry.nowMs;
  }

  /** Now, as objects write it. */
  get now(): string {
    return timestamp(this.nowMs);
  }

  find(kind: string, namespace: string | undefined, name: string): KubeObject | undefined {
    return this.registry.find(targetOf(kind, namespace), name);
  }

  list(kind: string, namespace?: string): KubeObject[] {
    return this.registry.list(targetOf(kind, namespace));
  }

  /** In no order, without a list being made. */
  values(kind: string): Iterable<KubeObject> {
    return this.registry.store.values(byKind.get(kind)!.storage);
  }

  /** By something else than their names, in no order. */
  by(of: IndexOf, key: string): Iterable<KubeObject> {
    return this.registry.store.by(of, key);
  }

  /** Objects of a kind that an owner looks after, by name. */
  ownedBy(owner: KubeObject, kind: string): KubeObject[] {
    const { uid } = owner.metadata;
    return [...this.by(DEPENDENTS, uid!)]
      .filter(object => object.kind === kind && controllerOf(object)?.uid === uid)
      .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  }

  /** @returns undefined where an object of that name is there already */
  async create(kind: string, object: Json): Promise<KubeObject | undefined> {
    const { namespace } = object.metadata;
    try {
      return (await this.registry.create(targetOf(kind, namespace), object, this.options())).object;
    } catch (error) {
      if (error instanceof ApiError && error.reason === 'AlreadyExists') return undefined;
      throw error;
    }
  }

  /** Changes an object; one that is gone meanwhile is left alone. @param change returns what it should be */
  async change(object: KubeObject, change: (object: KubeObject) => Json): Promise<void> {
    await this.modify(object, change, undefined);
  }

  /** Sets fields of the status. What is as it should be is not written. */
  async setStatus(object: KubeObject, fields: Json): Promise<void> {
    await this.modify(
      object,
      ({ status, ...rest }) => ({ ...rest, status: withoutUnset({ ...status, ...fields }) }),
      'status',
    );
  }

  async delete(object: KubeObject, gracePeriodSeconds?: number): Promise<void> {
    const { kind, metadata } = object;
    const grace = gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds };
    try {
      const options = { ...grace, preconditions: { uid: metadata.uid } };
      await this.registry.delete(targetOf(kind, metadata.namespace), metadata.name, options);
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  /** Tells people what happened to an object; the same again is counted. */
  async event(object: KubeObject, type: 'Normal' | 'Warning', reason: string, message: string): Promise<void> {
    const { kind, apiVersion, metadata } = object;
    const namespace = metadata.namespace ?? 'default';
    const name = `${metadata.name}.${shortHash(`${metadata.uid} ${type} ${reason} ${message}`)}`;
    const before = this.find('Event', namespace, name);
    if (before !== undefined) {
      await this.change(before, event => ({ ...event, count: (event.count ?? 1) + 1, lastTimestamp: this.now }));
      return;
    }
    const { uid, resourceVersion } = metadata;
    const involvedObject = {
      kind,
      apiVersion,
      name: metadata.name,
      namespace: metadata.namespace,
      uid,
      resourceVersion,
    };
    await this.create('Event', {
      metadata: { name, namespace },
      involvedObject: withoutUnset(involvedObject),
      type,
      reason,
      message,
      count: 1,
      firstTimestamp: this.now,
      lastTimestamp: this.now,
      source: { component: this.manager },
      reportingComponent: this.manager,
      reportingInstance: '',
    }).catch(error => {
      // In a namespace that is going away nobody is told anything any more.
      if (!(error instanceof ApiError)) throw error;
    });
  }

  private async modify(object: KubeObject, change: (object: KubeObject) => Json, subresource?: string): Promise<void> {
    const { kind, metadata } = object;
    try {
      await this.registry.modify(
        targetOf(kind, metadata.namespace),
        metadata.name,
        current => {
          // Another of the same name is not the one meant.
          return current.metadata.uid === metadata.uid ? change(current) : current;
        },
        { ...this.options(), subresource },
      );
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  private options(): { manager: string; fieldValidation: 'Strict' } {
    return { manager: this.manager, fieldValidation: 'Strict' };
  }
}

function targetOf(kind: string, namespace: string | undefined): Target {
  const resource = byKind.get(kind)!;
  const version = resource.versions[0]!;
  return namespace === undefined ? { resource, version } : { resource, version, namespace };
}

function isGone(error: unknown): boolean {
  return error instanceof ApiError && (error.code === 404 || error.code === 409);
}

function withoutUnset(map: Record<string, Json>): Record<string, Json> {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined));
}

/** Ten characters that stand for a text. */
export function shortHash(text: string): string {
  const letters = 'bcdfghjklmnpqrstvwxz2456789';
  const bytes = createHash('sha256').update(text).digest();
  return Array.from(bytes.subarray(0, 10), byte => letters[byte % letters.length]).join('');
}

/** Whether a pod takes part in what its owner counts: it has neither ended nor been told to. */
export function isActive({ metadata, status }: KubeObject): boolean {
  return metadata.deletionTimestamp === undefined && status?.phase !== 'Succeeded' && status?.phase !== 'Failed';
}

export function isReady({ status }: KubeObject): boolean {
  return (status?.conditions ?? []).some(
    (condition: Json) => condition.type === 'Ready' && condition.status === 'True',
  );
}

/** Ready for so long. */
export function isAvailable(pod: KubeObject, minReadySeconds: number, nowMs: number): boolean {
  const ready = (pod.status?.conditions ?? []).find((condition: Json) => condition.type === 'Ready');
  if (ready?.status !== 'True') return false;
  return minReadySeconds === 0 || Date.parse(ready.lastTransitionTime) + minReadySeconds * 1000 <= nowMs;
}

/** Conditions with one set; its time is that of the last change of its status. */
export function withCondition(conditions: Json[] | undefined, condition: Json, now: string): Json[] {
  const others = (conditions ?? []).filter(({ type }) => type !== condition.type);
  const before = (conditions ?? []).find(({ type }) => type === condition.type);
  const lastTransitionTime = before?.status === condition.status ? before.lastTransitionTime : now;
  return [...others, { ...condition, lastTransitionTime }].sort((a, b) => (a.type < b.type ? -1 : 1));
}

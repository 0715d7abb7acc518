/**
 * What can be done with objects, without HTTP: every write goes through here, the controllers' as well. Defaults are filled
 * in, the schema and the rules are held, addresses given, managed fields kept, and nothing is written over what the writer
 * has not seen.
 */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import {
  ApiError,
  alreadyExists,
  badRequest,
  conflict,
  invalid,
  notFound,
  type Subject,
  serviceUnavailable,
} from '../errors.ts';
import { isMap, type Json, type KubeObject, placeOf, timestamp } from '../object.ts';
import { trackUpdate, type Writer } from '../patch/fields.ts';
import { apiVersionOf, type Resource } from '../resources.ts';
import { kindSchema } from '../schema/definitions.ts';
import { findFaults, prune } from '../schema/validate.ts';
import { type Store, WriteConflict } from '../store/store.ts';
import { withDefaults } from './defaults.ts';
import { checkChange, checkObject } from './rules.ts';
import { type Choose, ServiceAllocator } from './services.ts';

/** One kind in one of its versions, as a request names it. */
export interface Target {
  resource: Resource;
  version: string;
  /** Absent for kinds without namespaces, and for requests across all of them. */
  namespace?: string;
}

export interface WriteOptions {
  dryRun?: boolean;
  /** Who writes, for managed fields. */
  manager?: string;
  fieldValidation?: 'Strict' | 'Warn' | 'Ignore';
  /** `status`: nothing but the status is written. */
  subresource?: string;
  /** The managed fields are made already, by server-side apply. */
  applied?: boolean;
}

export interface DeleteOptions {
  dryRun?: boolean;
  gracePeriodSeconds?: number;
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
  preconditions?: { uid?: string; resourceVersion?: string };
}

export interface Written {
  object: KubeObject;
  /** What a client should tell its user. */
  warnings: string[];
}

export interface RegistryOptions {
  /** Where cluster addresses come from. */
  serviceCidr: string;
  nowMs: () => number;
  choose: Choose;
}

/** A patch is tried again when somebody else writes meanwhile. */
const PATCH_TRIES = 8;
/** As kube-apiserver's admission of namespaces has them. */
const IMMORTAL: ReadonlySet<string> = new Set(['default', 'kube-public', 'kube-system']);
const MAX_NAME = 63;
const SUFFIX_LETTERS = 'bcdfghjklmnpqrstvwxz2456789'; // apimachinery/pkg/util/rand: no vowels, so no words

export class Registry {
  readonly store: Store;
  private readonly options: RegistryOptions;
  private readonly allocator: ServiceAllocator;

  constructor(store: Store, options: RegistryOptions) {
    this.store = store;
    this.options = options;
    this.allocator = new ServiceAllocator(store, options.serviceCidr, options.choose);
  }

  get nowMs(): number {
    return this.options.nowMs();
  }

  /** @throws ApiError (404) */
  get(target: Target, name: string): KubeObject {
    const object = this.find(target, name);
    if (object === undefined) throw notFound(subjectOf(target), name);
    return object;
  }

  find({ resource, version, namespace }: Target, name: string): KubeObject | undefined {
    const object = this.store.get(resource.storage, placeOf({ metadata: { name, namespace } }));
    return object === undefined ? undefined : inVersion(object, resource, version);
  }

  list({ resource, version, namespace }: Target): KubeObject[] {
    return this.store.list(resource.storage, namespace).map(object => inVersion(object, resource, version));
  }

  /** @throws ApiError */
  async create(target: Target, given: Json, options: WriteOptions = {}): Promise<Written> {
    const { resource, version, namespace } = target;
    const { object, warnings } = this.admit(target, given, options);
    const { metadata } = object;
    if (metadata.resourceVersion !== undefined && metadata.resourceVersion !== '') {
      throw badRequest('resourceVersion should not be set on objects to be created');
    }
    if (!metadata.name && metadata.generateName) metadata.name = this.generateName(metadata.generateName);
    if (!metadata.name) {
      throw invalid(resource.group, resource.kind, '', [
        {
          reason: 'FieldValueRequired',
          field: 'metadata.name',
          message: 'Required value: name or generateName is required',
        },
      ]);
    }
    if (resource.namespaced) this.needNamespace(namespace!);
    const { managedFields, selfLink, ...meta } = metadata as KubeObject['metadata'] & { selfLink?: string };
    let complete: KubeObject = {
      ...object,
      metadata: { ...meta, uid: randomUUID(), creationTimestamp: timestamp(this.nowMs) },
    };
    if (hasGeneration(resource)) complete.metadata.generation = 1;
    delete complete.metadata.deletionTimestamp;
    // A status is what controllers find, not what a manifest says.
    if (resource.subresources.includes('status') && resource.kind !== 'Node') delete complete.status;
    complete = withDefaults(complete, resource);
    await this.validate(complete, resource, version);

    const place = placeOf(complete);
    if (this.store.get(resource.storage, place) !== undefined) throw alreadyExists(subjectOf(target), metadata.name);
    this.allocate(complete, resource, place);
    complete.metadata.managedFields = options.applied
      ? managedFields
      : trackUpdate(undefined, complete, kindSchema(resource, version), this.writer(target, options));
    const stored = inStorage(complete, resource);
    if (options.dryRun) return { object: inVersion(stored, resource, version), warnings };
    try {
      const result = await this.store.put(resource.storage, place, stored, 0);
      return { object: inVersion(result, resource, version), warnings };
    } catch (error) {
      if (error instanceof WriteConflict) throw alreadyExists(subjectOf(target), metadata.name);
      throw storeFailure(error);
    }
  }

  /**
   * Writes an object over the one of its name. Without a resourceVersion, over whatever is there.
   * @throws ApiError (404, 409 when somebody else has written since, 422)
   */
  async update(target: Target, name: string, given: Json, options: WriteOptions = {}): Promise<Written> {
    const before = this.get(target, name);
    const wanted = isMap(given) && isMap(given.metadata) ? given.metadata.resourceVersion : undefined;
    if (wanted !== undefined && wanted !== '' && wanted !== before.metadata.resourceVersion) {
      throw conflict(subjectOf(target), name);
    }
    try {
      return await this.replace(target, before, given, options);
    } catch (error) {
      if (error instanceof WriteConflict) throw conflict(subjectOf(target), name);
      throw error;
    }
  }

  /**
   * Changes an object by a function of what it is, again if somebody else writes meanwhile.
   * @param change gets the object as the target's version has it; what it returns may have a resourceVersion, which then holds
   */
  async modify(
    target: Target,
    name: string,
    change: (object: KubeObject) => Json,
    options: WriteOptions = {},
  ): Promise<Written> {
    for (let tries = 1; ; tries++) {
      const before = this.get(target, name);
      const given = change(before);
      const wanted = given?.metadata?.resourceVersion;
      if (wanted !== undefined && wanted !== before.metadata.resourceVersion) throw conflict(subjectOf(target), name);
      try {
        return await this.replace(target, before, given, options);
      } catch (error) {
        if (!(error instanceof WriteConflict)) throw error;
        if (tries === PATCH_TRIES) throw conflict(subjectOf(target), name);
      }
    }
  }

  /** @throws ApiError; WriteConflict when somebody else writes meanwhile */
  private async replace(target: Target, before: KubeObject, given: Json, options: WriteOptions): Promise<Written> {
    const { resource, version } = target;
    const { object: admitted, warnings } = this.admit(
      { ...target, namespace: before.metadata.namespace },
      given,
      options,
    );
    const { name } = before.metadata;
    if (admitted.metadata.name !== undefined && admitted.metadata.name !== name) {
      throw badRequest(
        `the name of the object (${admitted.metadata.name}) does not match the name on the URL (${name})`,
      );
    }
    if (admitted.metadata.uid !== undefined && admitted.metadata.uid !== before.metadata.uid) {
      throw conflict(
        subjectOf(target),
        name,
        `Precondition failed: UID in precondition: ${admitted.metadata.uid}, UID in object meta: ${before.metadata.uid}`,
      );
    }
    let after = withFixedMeta(before, admitted);
    if (options.subresource === 'status') {
      after = {
        ...before,
        metadata: { ...before.metadata, managedFields: after.metadata.managedFields },
        status: after.status,
      };
    } else if (resource.subresources.includes('status')) {
      after = 'status' in before ? { ...after, status: before.status } : after;
    }
    if (resource.kind === 'Service') keepAllocated(before, after);
    after = withDefaults(after, resource);
    await this.validate(after, resource, version);
    const changes = options.subresource === 'status' ? [] : checkChange(before, after, resource);
    if (changes.length > 0) throw invalid(resource.group, resource.kind, name, changes);
    const place = placeOf(before);
    this.allocate(after, resource, place);
    if (hasGeneration(resource) && !isDeepStrictEqual(withoutMeta(before), withoutMeta(after))) {
      after.metadata.generation = (before.metadata.generation ?? 1) + 1;
    }
    if (!options.applied) {
      after.metadata.managedFields = trackUpdate(
        before,
        after,
        kindSchema(resource, version),
        this.writer(target, options),
      );
    }
    // The last finalizer of an object that is to go was what kept it.
    const isLast = before.metadata.deletionTimestamp !== undefined && (after.metadata.finalizers ?? []).length === 0;
    const goes = isLast && (before.metadata.finalizers ?? []).length > 0 && resource.kind !== 'Pod';
    if (isDeepStrictEqual(before, after) && !goes) return { object: before, warnings };
    const stored = inStorage(after, resource);
    if (options.dryRun) return { object: inVersion(stored, resource, version), warnings };
    const revision = Number(before.metadata.resourceVersion);
    try {
      const result = goes
        ? await this.store.remove(resource.storage, place, revision)
        : await this.store.put(resource.storage, place, stored, revision);
      return { object: inVersion(goes ? stored : result, resource, version), warnings };
    } catch (error) {
      throw storeFailure(error);
    }
  }

  /**
   * Removes an object, or marks it as to be removed where somebody has to do something first.
   * @returns the object, and whether it is gone
   * @throws ApiError
   */
  async delete(
    target: Target,
    name: string,
    options: DeleteOptions = {},
  ): Promise<{ object: KubeObject; gone: boolean }> {
    const { resource, version } = target;
    if (resource.kind === 'Namespace' && IMMORTAL.has(name)) {
      throw new ApiError(403, 'Forbidden', `namespaces "${name}" is forbidden: this namespace may not be deleted`);
    }
    for (let tries = 1; ; tries++) {
      const before = this.get(target, name);
      const { uid, resourceVersion } = options.preconditions ?? {};
      if ((uid ?? before.metadata.uid) !== before.metadata.uid) {
        throw conflict(
          subjectOf(target),
          name,
          `the UID in the precondition (${uid}) does not match the UID in record (${before.metadata.uid}). The object might have been deleted and then recreated`,
        );
      }
      if ((resourceVersion ?? before.metadata.resourceVersion) !== before.metadata.resourceVersion) {
        throw conflict(subjectOf(target), name);
      }
      const place = placeOf(before);
      const revision = Number(before.metadata.resourceVersion);
      const marked = this.markedForDeletion(before, resource, options);
      try {
        if (marked === null) {
          if (options.dryRun) return { object: before, gone: true };
          const removed = await this.store.remove(resource.storage, place, revision);
          return { object: inVersion(removed, resource, version), gone: true };
        }
        if (options.dryRun || isDeepStrictEqual(marked, before)) return { object: marked, gone: false };
        const stored = await this.store.put(resource.storage, place, inStorage(marked, resource), revision);
        return { object: inVersion(stored, resource, version), gone: false };
      } catch (error) {
        if (!(error instanceof WriteConflict)) throw storeFailure(error);
        if (tries === PATCH_TRIES) throw conflict(subjectOf(target), name);
      }
    }
  }

  /** @returns null when nothing keeps the object */
  private markedForDeletion(before: KubeObject, resource: Resource, options: DeleteOptions): KubeObject | null {
    const { metadata } = before;
    const finalizers = new Set(metadata.finalizers);
    if (options.propagationPolicy === 'Foreground') finalizers.add('foregroundDeletion');
    if (options.propagationPolicy === 'Orphan') finalizers.add('orphan');
    let grace = 0;
    if (resource.kind === 'Pod' && before.spec.nodeName !== undefined && !isFinished(before)) {
      grace = options.gracePeriodSeconds ?? before.spec.terminationGracePeriodSeconds ?? 30;
      // A second request may only shorten it.
      if (metadata.deletionTimestamp !== undefined)
        grace = Math.min(grace, metadata.deletionGracePeriodSeconds ?? grace);
    }
    const isNamespace = resource.kind === 'Namespace' && (before.spec?.finalizers ?? []).length > 0;
    if (finalizers.size === 0 && grace === 0 && !isNamespace) return null;
    if (metadata.deletionTimestamp !== undefined && grace === (metadata.deletionGracePeriodSeconds ?? 0)) {
      return { ...before, metadata: { ...metadata, finalizers: listOrNone(finalizers) } };
    }
    const marked: KubeObject = {
      ...before,
      metadata: {
        ...metadata,
        deletionTimestamp: timestamp(this.nowMs + grace * 1000),
        deletionGracePeriodSeconds: grace,
        finalizers: listOrNone(finalizers),
      },
    };
    if (hasGeneration(resource)) marked.metadata.generation = (metadata.generation ?? 1) + 1;
    if (isNamespace) marked.status = { ...before.status, phase: 'Terminating' };
    return marked;
  }

  /** Checks what a client sent for what every object must have, and takes out what the schema does not know. */
  private admit(target: Target, given: Json, options: WriteOptions): Written {
    const { resource, version, namespace } = target;
    const apiVersion = apiVersionOf(resource, version);
    if (!isMap(given)) throw badRequest('the body is no object');
    const { kind = resource.kind, apiVersion: givenVersion = apiVersion } = given;
    if (kind !== resource.kind || givenVersion !== apiVersion) {
      throw badRequest(
        `the object provided is unrecognized: got ${givenVersion}, Kind=${kind}, expected ${apiVersion}, Kind=${resource.kind}`,
      );
    }
    const metadata = given.metadata ?? {};
    if (!isMap(metadata)) throw badRequest('metadata is no map');
    if (metadata.name !== undefined && typeof metadata.name !== 'string') throw badRequest('metadata.name is no text');
    if (namespace !== undefined && metadata.namespace !== undefined && metadata.namespace !== namespace) {
      throw badRequest(
        `the namespace of the provided object does not match the namespace sent on the request: got ${metadata.namespace}, expected ${namespace}`,
      );
    }
    const whole = { ...given, apiVersion, kind, metadata: { ...metadata } } as KubeObject;
    if (resource.namespaced) whole.metadata.namespace = namespace;
    else delete whole.metadata.namespace;
    const { object, unknown } = prune(whole, resource, version);
    const { fieldValidation = 'Warn' } = options;
    if (unknown.length > 0 && fieldValidation === 'Strict') {
      const faults = unknown.map(path => `unknown field "${path}"`).join(', ');
      throw badRequest(
        `${kind} in version "${version}" cannot be handled as a ${kind}: strict decoding error: ${faults}`,
      );
    }
    return { object, warnings: fieldValidation === 'Warn' ? unknown.map(path => `unknown field "${path}"`) : [] };
  }

  private async validate(object: KubeObject, resource: Resource, version: string): Promise<void> {
    const faults = await findFaults(object, resource, version);
    // The rules read what the schema has found right.
    const causes = faults.length > 0 ? faults : checkObject(object, resource);
    if (causes.length > 0) throw invalid(resource.group, resource.kind, object.metadata.name, causes);
  }

  private allocate(object: KubeObject, { kind, group }: Resource, place: string): void {
    if (kind !== 'Service') return;
    const causes = this.allocator.allocate(object, place);
    if (causes.length > 0) throw invalid(group, kind, object.metadata.name, causes);
  }

  private needNamespace(name: string): void {
    const namespace = this.store.get('namespaces', name);
    if (namespace === undefined) throw notFound({ group: '', plural: 'namespaces' }, name);
    if (namespace.status?.phase === 'Terminating') {
      throw new ApiError(
        403,
        'Forbidden',
        `unable to create new content in namespace ${name} because it is being terminated`,
        {
          causes: [
            {
              reason: 'NamespaceTerminating',
              message: `namespace ${name} is being terminated`,
              field: 'metadata.namespace',
            },
          ],
        },
      );
    }
  }

  private generateName(prefix: string): string {
    let suffix = '';
    for (let n = 0; n < 5; n++) suffix += SUFFIX_LETTERS[this.options.choose(SUFFIX_LETTERS.length)];
    return prefix.slice(0, MAX_NAME - suffix.length) + suffix;
  }

  /** Who a write is by, for managed fields. */
  writer({ resource, version }: Target, options: WriteOptions): Writer {
    return {
      manager: options.manager ?? 'unknown',
      apiVersion: apiVersionOf(resource, version),
      time: timestamp(this.nowMs),
      ...(options.subresource === undefined ? {} : { subresource: options.subresource }),
    };
  }
}

export function subjectOf({ resource: { group, plural } }: Target): Subject {
  return { group, plural };
}

function hasGeneration({ kind }: Resource): boolean {
  return ![
    'ConfigMap',
    'Secret',
    'Event',
    'Endpoints',
    'EndpointSlice',
    'Lease',
    'Namespace',
    'Node',
    'Service',
    'ServiceAccount',
  ].includes(kind);
}

/** Objects are stored in their kind's preferred version. */
function inStorage(object: KubeObject, resource: Resource): KubeObject {
  const apiVersion = storageVersion(resource);
  return object.apiVersion === apiVersion ? object : { ...object, apiVersion };
}

function inVersion(object: KubeObject, resource: Resource, version: string): KubeObject {
  const apiVersion = apiVersionOf(resource, version);
  return object.apiVersion === apiVersion ? object : { ...object, apiVersion };
}

function storageVersion(resource: Resource): string {
  return resource.storage === 'ippools.projectcalico.org' ? 'projectcalico.org/v3' : apiVersionOf(resource);
}

/** What only the API sets stays. */
function withFixedMeta(before: KubeObject, after: KubeObject): KubeObject {
  const { uid, creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds, generation, name, namespace } =
    before.metadata;
  const managedFields = after.metadata.managedFields ?? before.metadata.managedFields;
  const metadata = {
    ...after.metadata,
    name,
    namespace,
    uid,
    resourceVersion: before.metadata.resourceVersion,
    creationTimestamp,
    deletionTimestamp,
    deletionGracePeriodSeconds,
    generation,
    managedFields,
  };
  for (const key of Object.keys(metadata) as (keyof typeof metadata)[]) {
    if (metadata[key] === undefined) delete metadata[key];
  }
  return { ...after, metadata };
}

function withoutMeta({ metadata, status, ...rest }: KubeObject): Json {
  return rest;
}

/** A manifest that is written again does not say what was given to the service. */
function keepAllocated(before: KubeObject, after: KubeObject): void {
  if (!isMap(after.spec) || after.spec.type === 'ExternalName' || before.spec.type === 'ExternalName') return;
  after.spec = { ...after.spec };
  after.spec.clusterIP ||= before.spec.clusterIP;
  if (after.spec.type !== 'NodePort' && after.spec.type !== 'LoadBalancer') return;
  after.spec.ports = ((after.spec.ports ?? []) as Json[]).map(port => {
    if (port.nodePort !== undefined) return port;
    const old = ((before.spec.ports ?? []) as Json[]).find(
      other => other.port === port.port && other.protocol === (port.protocol ?? 'TCP'),
    );
    return old?.nodePort === undefined ? port : { ...port, nodePort: old.nodePort };
  });
}

function listOrNone(set: ReadonlySet<string>): string[] | undefined {
  return set.size === 0 ? undefined : [...set];
}

function isFinished({ status }: KubeObject): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed';
}

function storeFailure(error: unknown): unknown {
  if (error instanceof WriteConflict || error instanceof ApiError) return error;
  return serviceUnavailable(`the store cannot be written: ${(error as Error).message}`);
}

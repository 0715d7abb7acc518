/** The verbs over HTTP: what each request on a kind's path does, and how its answer looks. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ApiError, badRequest, expired, methodNotAllowed, success } from '../errors.ts';
import { isMap, type Json, type KubeObject, placeOf } from '../object.ts';
import { apiVersionOf, findResource } from '../resources.ts';
import { parseFieldSelector, parseLabelSelector } from '../selector.ts';
import { encodeList, encodeObject } from './encode.ts';
import { changeOf, patchObject } from './patches.ts';
import type { DeleteOptions, Registry, Target, WriteOptions, Written } from './registry.ts';
import { acceptedForm, contentTypeOf, decodeBody, type Form, type ResourcePath, readBody } from './request.ts';
import { type IncludeObject, partialMetadata, tableOf } from './table.ts';
import type { Watches } from './watch.ts';

/** How long a watch lives when its client does not say: as kube-apiserver's --min-request-timeout. */
const WATCH_TIMEOUT_S = 1800;

export interface HandlerOptions {
  /** Bytes of a request's body. */
  bodyBytes: number;
}

/** One request on a path of a kind. */
interface Call {
  request: IncomingMessage;
  response: ServerResponse;
  path: ResourcePath;
  query: URLSearchParams;
  target: Target;
  form: Form;
}

export class Handlers {
  private readonly registry: Registry;
  private readonly watches: Watches;
  private readonly options: HandlerOptions;

  constructor(registry: Registry, watches: Watches, options: HandlerOptions) {
    this.registry = registry;
    this.watches = watches;
    this.options = options;
  }

  /** @throws ApiError */
  async handle(
    request: IncomingMessage,
    response: ServerResponse,
    path: ResourcePath,
    query: URLSearchParams,
  ): Promise<void> {
    const target = targetOf(path);
    const form = acceptedForm(request.headers.accept);
    if (form === undefined) {
      throw new ApiError(406, 'NotAcceptable', 'only the following media types are accepted: application/json');
    }
    const call: Call = { request, response, path, query, target, form };
    const { name, subresource } = path;
    const { method } = request;
    if (name === undefined) {
      if (method === 'GET' || method === 'HEAD')
        return query.get('watch') === 'true' || query.get('watch') === '1' ? this.watch(call) : this.list(call);
      if (method === 'POST') return this.create(call);
      if (method === 'DELETE') return this.deleteCollection(call);
    } else if (subresource === undefined) {
      if (method === 'GET' || method === 'HEAD')
        return query.get('watch') === 'true' ? this.watch(call) : this.get(call, name);
      if (method === 'PUT') return this.update(call, name);
      if (method === 'PATCH') return this.patch(call, name);
      if (method === 'DELETE') return this.delete(call, name);
    } else {
      return this.subresource(call, name, subresource);
    }
    throw methodNotAllowed(method ?? '', request.url ?? '');
  }

  private async get(call: Call, name: string): Promise<void> {
    await this.registry.store.catchUp();
    this.sendObject(call, 200, this.registry.get(call.target, name));
  }

  private async list(call: Call): Promise<void> {
    const { query, target } = call;
    const { store } = this.registry;
    await store.catchUp();
    const { revision, after } = this.listPosition(query);
    const matches = matcher(query, target);
    const { resource, version } = target;
    let objects = this.registry.list(target).filter(matches);
    if (after !== '') objects = objects.filter(object => placeOf(object) > after);
    const limit = Number(query.get('limit') ?? 0);
    const metadata: Json = { resourceVersion: `${revision}` };
    if (limit > 0 && objects.length > limit) {
      metadata.remainingItemCount = objects.length - limit;
      objects = objects.slice(0, limit);
      metadata.continue = Buffer.from(JSON.stringify({ revision, after: placeOf(objects.at(-1)!) })).toString(
        'base64url',
      );
    }
    if (call.form === 'table') {
      const table = tableOf(objects, resource.kind, metadata, includeOf(query), this.registry.nowMs);
      send(call.response, 200, JSON.stringify(table));
    } else if (call.form === 'partial') {
      const items = objects.map(partialMetadata);
      send(
        call.response,
        200,
        JSON.stringify({ kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', metadata, items }),
      );
    } else {
      send(call.response, 200, encodeList(apiVersionOf(resource, version), resource.kind, metadata, objects));
    }
  }

  /** Where a list begins, and the revision that it is said to be of. */
  private listPosition(query: URLSearchParams): { revision: number; after: string } {
    const { store } = this.registry;
    const token = query.get('continue');
    if (token !== null && token !== '') {
      let position: Json;
      try {
        position = JSON.parse(Buffer.from(token, 'base64url').toString());
      } catch {
        position = undefined;
      }
      if (!isMap(position) || typeof position.revision !== 'number' || typeof position.after !== 'string') {
        throw badRequest('continue key is not valid');
      }
      // Checks that a watch from there is still told everything.
      try {
        store.since(position.revision);
      } catch {
        throw expired(
          'The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.',
        );
      }
      return { revision: position.revision, after: position.after };
    }
    const wanted = Number(query.get('resourceVersion') ?? 0);
    if (Number.isNaN(wanted)) throw badRequest(`resourceVersion ${query.get('resourceVersion')} is no number`);
    if (query.get('resourceVersionMatch') === 'Exact' && wanted !== store.revision) {
      throw expired(`The resourceVersion for the provided list is too old: ${wanted} (${store.revision})`);
    }
    if (wanted > store.revision) {
      throw new ApiError(504, 'Timeout', `Too large resource version: ${wanted}, current: ${store.revision}`, {
        causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
        retryAfterSeconds: 1,
      });
    }
    return { revision: store.revision, after: '' };
  }

  private watch({ response, query, target, form, path }: Call): Promise<void> {
    const seconds = Number(query.get('timeoutSeconds') ?? WATCH_TIMEOUT_S);
    const resourceVersion = query.get('resourceVersion') ?? '';
    if (!/^\d*$/.test(resourceVersion)) throw badRequest(`resourceVersion ${resourceVersion} is no number`);
    const selected = matcher(query, target);
    const { name } = path;
    return this.watches.start(response, target, {
      form,
      include: includeOf(query),
      matches: name === undefined ? selected : object => object.metadata.name === name && selected(object),
      resourceVersion,
      sendInitialEvents: query.get('sendInitialEvents') === 'true',
      bookmarks: query.get('allowWatchBookmarks') === 'true',
      timeoutMs: Math.max(1, seconds || WATCH_TIMEOUT_S) * 1000,
    });
  }

  private async create(call: Call): Promise<void> {
    if (call.target.resource.namespaced && call.target.namespace === undefined) {
      throw methodNotAllowed('POST', call.request.url ?? '');
    }
    const written = await this.registry.create(call.target, await this.body(call.request), writeOptions(call));
    this.sendWritten(call, 201, written);
  }

  private async update(call: Call, name: string): Promise<void> {
    this.sendWritten(
      call,
      200,
      await this.registry.update(call.target, name, await this.body(call.request), writeOptions(call)),
    );
  }

  private async patch(call: Call, name: string, subresource?: string): Promise<void> {
    const { request, target, query } = call;
    const patch = await this.body(request);
    const options = { ...writeOptions(call), subresource };
    const force = query.get('force') === 'true';
    const written = await patchObject(this.registry, target, name, patch, contentTypeOf(request), options, force);
    this.sendWritten(call, written.created ? 201 : 200, written);
  }

  private async delete(call: Call, name: string): Promise<void> {
    const options = await this.deleteOptions(call);
    const { object, gone } = await this.registry.delete(call.target, name, options);
    if (!gone) return this.sendObject(call, 200, object);
    const { group, plural, kind } = call.target.resource;
    // Pods are answered with themselves, as kubelets expect it.
    if (kind === 'Pod') return this.sendObject(call, 200, object);
    const details = { name, ...(group === '' ? {} : { group }), kind: plural, uid: object.metadata.uid! };
    send(call.response, 200, JSON.stringify(success(details)));
  }

  private async deleteCollection(call: Call): Promise<void> {
    const { target, query, response } = call;
    const options = await this.deleteOptions(call);
    const objects = this.registry.list(target).filter(matcher(query, target));
    for (const { metadata } of objects) {
      try {
        await this.registry.delete({ ...target, namespace: metadata.namespace }, metadata.name, options);
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== 404) throw error;
      }
    }
    const { resource, version } = target;
    const metadata = { resourceVersion: `${this.registry.store.revision}` };
    send(response, 200, encodeList(apiVersionOf(resource, version), resource.kind, metadata, objects));
  }

  private async subresource(call: Call, name: string, subresource: string): Promise<void> {
    const { request, target } = call;
    const { method } = request;
    const { subresources, kind } = target.resource;
    if (subresource === 'status' && subresources.includes('status')) {
      if (method === 'GET') return this.get(call, name);
      if (method === 'PATCH') return this.patch(call, name, 'status');
      if (method === 'PUT') {
        const options = { ...writeOptions(call), subresource: 'status' };
        return this.sendWritten(call, 200, await this.registry.update(target, name, await this.body(request), options));
      }
    } else if (subresource === 'scale' && subresources.includes('scale')) {
      return this.scale(call, name);
    } else if (kind === 'Pod' && subresource === 'binding' && method === 'POST') {
      const { target: node } = await this.body(request);
      await this.registry.modify(
        target,
        name,
        pod => ({ ...pod, spec: { ...pod.spec, nodeName: node?.name } }),
        writeOptions(call),
      );
      return send(call.response, 201, JSON.stringify(success()));
    } else if (kind === 'Pod' && subresource === 'eviction' && method === 'POST') {
      const { deleteOptions } = await this.body(request);
      await this.registry.delete(target, name, { ...deleteOptions, dryRun: call.query.get('dryRun') === 'All' });
      return send(call.response, 201, JSON.stringify(success()));
    } else if (kind === 'Namespace' && subresource === 'finalize' && method === 'PUT') {
      return this.sendWritten(
        call,
        200,
        await this.registry.update(target, name, await this.body(request), writeOptions(call)),
      );
    } else {
      throw new ApiError(404, 'NotFound', 'the server could not find the requested resource');
    }
    throw methodNotAllowed(method ?? '', request.url ?? '');
  }

  private async scale(call: Call, name: string): Promise<void> {
    const { request, target } = call;
    const { method } = request;
    if (method === 'GET') return this.sendScale(call, this.registry.get(target, name));
    if (method !== 'PUT' && method !== 'PATCH') throw methodNotAllowed(method ?? '', request.url ?? '');
    const body = await this.body(request);
    const change: (scale: Json) => Json =
      method === 'PUT' ? () => body : changeOf(target, name, body, contentTypeOf(request));
    const written = await this.registry.modify(
      target,
      name,
      object => {
        const scale = change(scaleOf(object));
        const replicas = scale?.spec?.replicas ?? 0;
        const resourceVersion = scale?.metadata?.resourceVersion || object.metadata.resourceVersion;
        return { ...object, metadata: { ...object.metadata, resourceVersion }, spec: { ...object.spec, replicas } };
      },
      writeOptions(call),
    );
    this.sendScale(call, written.object);
  }

  private sendScale({ response }: Call, object: KubeObject): void {
    send(response, 200, JSON.stringify(scaleOf(object)));
  }

  private async body(request: IncomingMessage): Promise<Json> {
    const bytes = await readBody(request, this.options.bodyBytes);
    return decodeBody(bytes, contentTypeOf(request));
  }

  private async deleteOptions({ request, query }: Call): Promise<DeleteOptions> {
    const bytes = await readBody(request, this.options.bodyBytes);
    const given = bytes.length === 0 ? {} : decodeBody(bytes, contentTypeOf(request));
    if (!isMap(given)) throw badRequest('the options of a deletion are a map');
    const grace = query.get('gracePeriodSeconds') ?? given.gracePeriodSeconds;
    const policy = query.get('propagationPolicy') ?? given.propagationPolicy;
    if (grace !== undefined && grace !== null && !(Number(grace) >= 0))
      throw badRequest(`gracePeriodSeconds ${grace} is no number from 0 up`);
    return {
      dryRun: query.get('dryRun') === 'All' || given.dryRun?.includes?.('All') === true,
      ...(grace === undefined || grace === null ? {} : { gracePeriodSeconds: Number(grace) }),
      ...(policy === undefined ? {} : { propagationPolicy: policy }),
      preconditions: isMap(given.preconditions) ? given.preconditions : {},
    };
  }

  private sendWritten(call: Call, code: number, { object, warnings }: Written): void {
    for (const warning of warnings) call.response.appendHeader('warning', `299 - ${JSON.stringify(warning)}`);
    this.sendObject(call, code, object);
  }

  private sendObject({ response, form, query, target }: Call, code: number, object: KubeObject): void {
    const { resourceVersion } = object.metadata;
    const table = () =>
      tableOf([object], target.resource.kind, { resourceVersion }, includeOf(query), this.registry.nowMs);
    const text =
      form === 'object' ? encodeObject(object) : JSON.stringify(form === 'partial' ? partialMetadata(object) : table());
    send(response, code, text);
  }
}

/** @throws ApiError (404) where the API has no such kind */
export function targetOf({ group, version, plural, namespace }: ResourcePath): Target {
  const resource = findResource(group, version, plural);
  if (resource === undefined || (namespace !== undefined && !resource.namespaced)) {
    throw new ApiError(404, 'NotFound', 'the server could not find the requested resource');
  }
  return namespace === undefined ? { resource, version } : { resource, version, namespace };
}

/** Answers with a JSON text. */
export function send(response: ServerResponse, code: number, text: string, type = 'application/json'): void {
  response.writeHead(code, {
    'content-type': type,
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-cache, private',
  });
  response.end(text);
}

function matcher(query: URLSearchParams, { resource }: Target): (object: KubeObject) => boolean {
  const labels = query.get('labelSelector');
  const fields = query.get('fieldSelector');
  const byLabel = labels === null || labels === '' ? undefined : parseLabelSelector(labels);
  const byField = fields === null || fields === '' ? undefined : parseFieldSelector(fields, resource.kind);
  return object => (byLabel?.(object.metadata.labels) ?? true) && (byField?.(object) ?? true);
}

function includeOf(query: URLSearchParams): IncludeObject {
  const include = query.get('includeObject') ?? 'Metadata';
  if (include === 'None' || include === 'Metadata' || include === 'Object') return include;
  throw badRequest(`includeObject ${include}: expected None, Metadata or Object`);
}

function writeOptions({ request, query }: Call): WriteOptions {
  const dryRun = query.get('dryRun');
  if (dryRun !== null && dryRun !== '' && dryRun !== 'All') throw badRequest(`dryRun ${dryRun}: expected All`);
  const validation = query.get('fieldValidation') ?? 'Warn';
  if (validation !== 'Strict' && validation !== 'Warn' && validation !== 'Ignore' && validation !== '') {
    throw badRequest(`fieldValidation ${validation}: expected Strict, Warn or Ignore`);
  }
  const given = query.get('fieldManager') ?? '';
  const isApply = contentTypeOf(request).startsWith('application/apply-patch');
  // Without a name, the program's: the user agent up to its version.
  const agent = (request.headers['user-agent'] ?? 'unknown').split('/')[0]!;
  return {
    dryRun: dryRun === 'All',
    manager: given !== '' || isApply ? given : agent,
    fieldValidation: validation === '' ? 'Warn' : validation,
  };
}

function scaleOf({ metadata, spec, status }: KubeObject): Json {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = metadata;
  const labels = Object.entries(spec.selector?.matchLabels ?? {});
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: { replicas: spec.replicas ?? 0 },
    status: { replicas: status?.replicas ?? 0, selector: labels.map(([key, value]) => `${key}=${value}`).join(',') },
  };
}

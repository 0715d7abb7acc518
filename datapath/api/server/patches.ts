/** The four kinds of PATCH. */
import { createRequire } from 'node:module';
import type { Operation } from 'fast-json-patch';
import { ApiError, badRequest, invalid, unsupportedMediaType } from '../errors.ts';
import { isMap, type Json, type KubeObject } from '../object.ts';
import { serverSideApply } from '../patch/apply.ts';
import { jsonMerge } from '../patch/merge.ts';
import { strategicMerge } from '../patch/strategic.ts';
import { apiVersionOf } from '../resources.ts';
import { kindSchema } from '../schema/definitions.ts';
import { prune } from '../schema/validate.ts';
import type { Registry, Target, WriteOptions, Written } from './registry.ts';

// Its ES module names no extensions, which Node does not load.
const { applyPatch } = createRequire(import.meta.url)('fast-json-patch') as typeof import('fast-json-patch');

const MAX_OPERATIONS = 10_000; // as kube-apiserver has it

export const JSON_PATCH = 'application/json-patch+json';
export const MERGE_PATCH = 'application/merge-patch+json';
export const STRATEGIC_PATCH = 'application/strategic-merge-patch+json';
export const APPLY_PATCH = 'application/apply-patch+yaml';

/**
 * Changes an object as a patch says.
 * @param force of server-side apply
 * @throws ApiError
 */
export async function patchObject(
  registry: Registry,
  target: Target,
  name: string,
  patch: Json,
  contentType: string,
  options: WriteOptions,
  force: boolean,
): Promise<Written & { created: boolean }> {
  if (contentType === APPLY_PATCH) return apply(registry, target, name, patch, options, force);
  const change = changeOf(target, name, patch, contentType);
  return { ...(await registry.modify(target, name, change, options)), created: false };
}

/** What a patch makes of an object. */
export function changeOf(target: Target, name: string, patch: Json, contentType: string): (object: Json) => Json {
  const { resource, version } = target;
  switch (contentType) {
    case MERGE_PATCH:
      if (!isMap(patch)) throw badRequest('a merge patch is a map');
      return object => jsonMerge(object, patch);
    case STRATEGIC_PATCH:
      if (resource.custom) {
        throw unsupportedMediaType(
          `the body of the request was in an unknown format - accepted media types include: ${JSON_PATCH}, ${MERGE_PATCH}, ${APPLY_PATCH}`,
        );
      }
      if (!isMap(patch)) throw badRequest('a strategic merge patch is a map');
      return object => strategicMerge(object, patch, kindSchema(resource, version));
    case JSON_PATCH:
      return object => jsonPatch(object, patch, target, name);
    default:
      throw unsupportedMediaType(
        `the body of the request was in an unknown format - accepted media types include: ${JSON_PATCH}, ${MERGE_PATCH}, ${STRATEGIC_PATCH}, ${APPLY_PATCH}`,
      );
  }
}

function jsonPatch(object: Json, patch: Json, { resource }: Target, name: string): Json {
  if (!Array.isArray(patch)) throw badRequest('a JSON patch is a list of operations');
  if (patch.length > MAX_OPERATIONS) {
    throw badRequest(`The allowed maximum operations in a JSON patch is ${MAX_OPERATIONS}, got ${patch.length}`);
  }
  try {
    return applyPatch(structuredClone(object), patch as Operation[], true).newDocument;
  } catch (error) {
    const { name: fault, message } = error as { name?: string; message: string };
    const said = `${fault ?? 'error'} in patch: ${message.split('\n')[0]}`;
    throw invalid(resource.group, resource.kind, name, [
      { reason: 'FieldValueInvalid', field: 'patch', message: said },
    ]);
  }
}

async function apply(
  registry: Registry,
  target: Target,
  name: string,
  given: Json,
  options: WriteOptions,
  force: boolean,
): Promise<Written & { created: boolean }> {
  const { resource, version, namespace } = target;
  if (options.manager === undefined || options.manager === '') {
    throw new ApiError(
      422,
      'Invalid',
      'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    );
  }
  if (!isMap(given)) throw badRequest('the applied configuration is no map');
  const apiVersion = apiVersionOf(resource, version);
  if (given.apiVersion !== apiVersion || given.kind !== resource.kind) {
    throw badRequest(`expected ${apiVersion}, Kind=${resource.kind}, got ${given.apiVersion}, Kind=${given.kind}`);
  }
  if (given.metadata?.managedFields?.length > 0) throw badRequest('metadata.managedFields must be nil');
  const metadata = { ...given.metadata, name: given.metadata?.name ?? name };
  if (namespace !== undefined) metadata.namespace ??= namespace;
  const { object: applied, unknown } = prune({ ...given, metadata } as KubeObject, resource, version);
  if (unknown.length > 0 && options.fieldValidation === 'Strict') {
    throw badRequest(
      `failed to create typed patch object: ${unknown.map(path => `.${path}: field not declared in schema`).join(', ')}`,
    );
  }
  const warnings = options.fieldValidation === 'Ignore' ? [] : unknown.map(path => `unknown field "${path}"`);
  const schema = kindSchema(resource, version);
  const writer = registry.writer(target, options);
  const how = { ...options, applied: true };
  const { uid, resourceVersion, ...plain } = applied.metadata;
  const configuration = { ...applied, metadata: plain };
  const isNew = registry.find(target, name) === undefined;
  const written = isNew
    ? await registry.create(target, serverSideApply(undefined, configuration, schema, writer, force), how)
    : await registry.modify(
        target,
        name,
        live => {
          const merged = serverSideApply(live, configuration, schema, writer, force);
          return resourceVersion === undefined
            ? merged
            : { ...merged, metadata: { ...merged.metadata, resourceVersion } };
        },
        how,
      );
  return { object: written.object, warnings: [...warnings, ...written.warnings], created: isNew };
}

/**
 * OpenAPI v3, one document for each group and version, made from the schemas. kubectl reads from it what `explain` prints,
 * whether a kind takes dryRun and fieldValidation, and how lists merge.
 */
import { createHash } from 'node:crypto';
import type { Json } from '../object.ts';
import { groups, RESOURCES, type Resource } from '../resources.ts';
import { definitionName, definitionsUnder, kindSchema } from '../schema/definitions.ts';

/** What clients of OpenAPI v2 get as protobuf: an empty document, with which they go on without schemas. */
export const V2_PROTOBUF = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';

const documents = new Map<string, string>();

/** /openapi/v3: where the documents are. */
export function openApiIndex(): Json {
  const paths: Record<string, Json> = {};
  for (const [group, versions] of groups()) {
    for (const version of versions) {
      const path = group === '' ? `api/${version}` : `apis/${group}/${version}`;
      // Documents change with the program alone, and making one to hash it is what clients should be spared.
      const hash = createHash('sha256').update(`${path} ${process.version}`).digest('hex').slice(0, 32).toUpperCase();
      paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=${hash}` };
    }
  }
  return { paths };
}

/** The document of one group and version as JSON, or undefined if there is no such. */
export function openApiDocument(group: string, version: string): string | undefined {
  const key = `${group}/${version}`;
  let text = documents.get(key);
  if (text === undefined) {
    const resources = RESOURCES.filter(resource => resource.group === group && resource.versions.includes(version));
    if (resources.length === 0) return undefined;
    text = JSON.stringify(makeDocument(resources, version));
    documents.set(key, text);
  }
  return text;
}

function makeDocument(resources: readonly Resource[], version: string): Json {
  const roots = resources.map(resource => kindSchema(resource, version));
  const schemas = Object.fromEntries(definitionsUnder(roots));
  const paths: Record<string, Json> = {};
  for (const [index, resource] of resources.entries()) {
    schemas[definitionName(resource, version)] = roots[index]!;
    Object.assign(paths, pathsOf(resource, version));
  }
  return { openapi: '3.0.0', info: { title: 'Kubernetes', version: 'v1.35.0' }, paths, components: { schemas } };
}

function pathsOf(resource: Resource, version: string): Record<string, Json> {
  const { group, kind, plural, namespaced } = resource;
  const prefix = group === '' ? `/api/${version}` : `/apis/${group}/${version}`;
  const collection = `${prefix}/${namespaced ? 'namespaces/{namespace}/' : ''}${plural}`;
  const schema = { $ref: `#/components/schemas/${definitionName(resource, version)}` };
  const operation = (action: string, parameters: readonly string[]): Json => ({
    parameters: parameters.map(name => ({ in: 'query', name, schema: { type: 'string' } })),
    responses: { 200: { description: 'OK', content: { 'application/json': { schema } } } },
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': { group, version, kind },
  });
  const write = ['dryRun', 'fieldManager', 'fieldValidation'];
  return {
    [collection]: {
      get: operation('list', ['fieldSelector', 'labelSelector', 'limit', 'continue', 'watch', 'resourceVersion']),
      post: operation('post', write),
      delete: operation('deletecollection', ['dryRun', 'fieldSelector', 'labelSelector']),
    },
    [`${collection}/{name}`]: {
      get: operation('get', []),
      put: operation('put', write),
      patch: operation('patch', [...write, 'force']),
      delete: operation('delete', ['dryRun', 'gracePeriodSeconds', 'propagationPolicy']),
    },
  };
}

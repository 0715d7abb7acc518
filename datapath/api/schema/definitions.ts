/**
 * The schemas of Kubernetes' own kinds, as `kubernetes-models` has them. Its validators are compiled and know nothing of
 * field names, so names, types and descriptions are read from its declarations, which are generated and all of one form:
 *
 *     export interface IServicePort {
 *         // the port that will be exposed by this service
 *         "port": number;
 *         "targetPort"?: IIoK8sApimachineryPkgUtilIntstrIntOrString;
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { apiVersionOf, type Resource } from '../resources.ts';
import { CUSTOM } from './custom.ts';
import { listKindOf, mapKindOf, patchKeyOf } from './merge-keys.ts';

/** A JSON schema, as far as kinds need one. */
export interface Schema {
  type?: string;
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: Schema | boolean;
  enum?: unknown[];
  /** `#/components/schemas/NAME` */
  $ref?: string;
  allOf?: Schema[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  format?: string;
  default?: unknown;
  'x-kubernetes-int-or-string'?: boolean;
  'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map';
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-map-type'?: 'atomic' | 'granular';
  'x-kubernetes-patch-merge-key'?: string;
  'x-kubernetes-patch-strategy'?: string;
  'x-kubernetes-group-version-kind'?: { group: string; version: string; kind: string }[];
  'x-kubernetes-preserve-unknown-fields'?: boolean;
}

const REF = '#/components/schemas/';
const OBJECT_META = 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta';

const MODELS = dirname(fileURLToPath(import.meta.resolve('kubernetes-models')));
const MACHINERY = dirname(fileURLToPath(import.meta.resolve('@kubernetes-models/apimachinery')));

const known = new Map<string, Schema>();
/** Names of validators in the packages, by name of the definition. */
const validators = new Map<string, string>();

/** Name of the definition of a kind: `io.k8s.api.core.v1.Service`. */
export function definitionName({ group, kind, custom }: Resource, version: string): string {
  if (custom) return `${group.split('.').reverse().join('.')}.${version}.${kind}`;
  return `io.k8s.api.${group === '' ? 'core' : group.replace(/\..*/, '')}.${version}.${kind}`;
}

/** The schema of a kind in one of its versions. */
export function kindSchema(resource: Resource, version: string): Schema {
  const name = definitionName(resource, version);
  const before = known.get(name);
  if (before !== undefined) return before;
  const { group, kind, custom } = resource;
  const schema = custom
    ? customSchema(kind)
    : readDeclaration(join(MODELS, group, version, `${kind}.d.ts`), name, `${apiVersionOf(resource, version)} ${kind}`);
  schema['x-kubernetes-group-version-kind'] = [{ group, version, kind }];
  known.set(name, schema);
  return schema;
}

/** What a `$ref` refers to. */
export function resolveRef(schema: Schema): Schema {
  const ref = schema.$ref ?? schema.allOf?.[0]?.$ref;
  return ref === undefined ? schema : definition(ref.slice(REF.length));
}

/** @throws Error where there is no such definition */
export function definition(name: string): Schema {
  const before = known.get(name);
  if (before !== undefined) return before;
  const schema = readDeclaration(fileOf(name), name);
  known.set(name, schema);
  return schema;
}

/** Every definition that some schemas refer to, themselves left out. */
export function definitionsUnder(roots: readonly Schema[]): Map<string, Schema> {
  const found = new Map<string, Schema>();
  const visit = (schema: Schema): void => {
    const ref = schema.$ref?.slice(REF.length);
    if (ref !== undefined && !found.has(ref)) {
      const target = definition(ref);
      found.set(ref, target);
      visit(target);
    }
    for (const part of [...Object.values(schema.properties ?? {}), ...(schema.allOf ?? [])]) visit(part);
    if (schema.items !== undefined) visit(schema.items);
    if (typeof schema.additionalProperties === 'object') visit(schema.additionalProperties);
  };
  for (const root of roots) visit(root);
  return found;
}

/** The module of the validator of a definition, for `import`. */
export function validatorModule(name: string): string | undefined {
  const validator = validators.get(name);
  return validator === undefined ? undefined : join(MODELS, '_schemas', `${validator}.js`);
}

function customSchema(kind: string): Schema {
  const schema = CUSTOM[kind]!;
  const properties: Record<string, Schema> = {
    apiVersion: { type: 'string' },
    kind: { type: 'string' },
    metadata: { $ref: REF + OBJECT_META },
    ...(schema.properties as Record<string, Schema>),
  };
  return { ...(schema as Schema), type: 'object', properties };
}

/** `io.k8s.api.discovery.v1.Endpoint` -> `.../kubernetes-models/discovery.k8s.io/v1/Endpoint.d.ts` */
function fileOf(name: string): string {
  const parts = name.split('.');
  const kind = `${parts.at(-1)}.d.ts`;
  if (name.startsWith('io.k8s.apimachinery.pkg.')) return join(MACHINERY, ...parts.slice(4, -1), kind);
  const [group, version] = parts.slice(3) as [string, string];
  const directories = [group === 'core' ? '' : group, `${group}.k8s.io`, `${group}.authorization.k8s.io`];
  const files = directories.map(directory => join(MODELS, directory, version, kind));
  return files.find(existsSync) ?? files[0]!;
}

/** The other direction. */
function nameOf(file: string): string {
  const path = file.replace(/(\.d\.ts|\.js)$/, '');
  if (path.startsWith(MACHINERY)) return `io.k8s.apimachinery.pkg${path.slice(MACHINERY.length).replaceAll('/', '.')}`;
  const parts = path.slice(MODELS.length + 1).split('/');
  if (parts.length === 2) parts.unshift('core');
  return `io.k8s.api.${parts[0]!.replace(/\..*/, '')}.${parts.slice(1).join('.')}`;
}

/** @param title what an error calls it */
function readDeclaration(file: string, name: string, title = name): Schema {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new Error(`kubernetes-models has no schema of ${title}`, { cause: error });
  }
  const refs = new Map<string, string>();
  for (const [, imported, from] of text.matchAll(/^import \{ (\w+) \} from "([^"]+)";$/gm)) {
    if (from!.startsWith('.')) refs.set(imported!, nameOf(join(dirname(file), from!)));
    else if (from!.startsWith('@kubernetes-models/apimachinery')) {
      refs.set(imported!, nameOf(join(MACHINERY, from!.slice('@kubernetes-models/apimachinery'.length))));
    }
  }
  const exported = /, \w+ as (Io\w+) \};\s*$/.exec(text)?.[1];
  if (exported !== undefined) validators.set(name, exported);

  const alias = /^export type I\w+ = (.*);$/m.exec(text);
  const own = name.slice(name.lastIndexOf('.') + 1);
  if (alias !== null) {
    const isUnion = alias[1]!.includes('|');
    return isUnion
      ? { 'x-kubernetes-int-or-string': true, oneOf: [{ type: 'integer' }, { type: 'string' }] }
      : { type: 'string' };
  }
  const start = /^export interface I\w+.*\{$/m.exec(text)!;
  const body = text.slice(start.index + start[0].length, text.indexOf('\n}', start.index));
  const schema: Schema = { type: 'object', properties: {} };
  const description = commentBefore(text, start.index);
  if (description !== undefined) schema.description = description;
  const field =
    /(?:\/\*\*\n((?: {5}\*.*\n)+?) {5}\*\/\n\s*)?"([^"]+)"(\?)?: (\{\n\s*\[key: string\]: ([^;]+);\n\s*\}|[^;]+);/g;
  for (const [, comment, key, optional, type, mapOf] of body.matchAll(field)) {
    const value: Schema =
      mapOf === undefined ? typeSchema(type!, refs) : { type: 'object', additionalProperties: typeSchema(mapOf, refs) };
    // A schema with $ref has nothing beside it.
    const target: Schema = value.$ref !== undefined ? { allOf: [value] } : value;
    if (comment !== undefined) target.description = plain(comment);
    annotate(target, own, key!);
    schema.properties![key!] = target;
    if (optional === undefined && key !== 'apiVersion' && key !== 'kind') {
      schema.required = [...(schema.required ?? []), key!];
    }
  }
  if (Object.keys(schema.properties!).length === 0) delete schema.properties;
  const mapKind = mapKindOf(own);
  if (mapKind !== undefined) schema['x-kubernetes-map-type'] = mapKind;
  return schema;
}

function typeSchema(type: string, refs: Map<string, string>): Schema {
  const array = /^Array<(.*)>$/s.exec(type);
  if (array !== null) return { type: 'array', items: typeSchema(array[1]!, refs) };
  if (type.startsWith('"')) return { type: 'string', enum: type.split(' | ').map(text => JSON.parse(text)) };
  if (type === 'string' || type === 'boolean') return { type };
  // Kubernetes' own kinds have no fractions but in quantities.
  if (type === 'number') return { type: 'integer' };
  const ref = refs.get(type);
  return ref === undefined ? { 'x-kubernetes-preserve-unknown-fields': true } : { $ref: REF + ref };
}

function annotate(schema: Schema, owner: string, field: string): void {
  const list = listKindOf(owner, field);
  if (list !== undefined) {
    schema['x-kubernetes-list-type'] = list.type;
    if (list.keys !== undefined) schema['x-kubernetes-list-map-keys'] = list.keys;
  }
  const key = patchKeyOf(owner, field);
  if (key !== undefined) {
    if (key !== '') schema['x-kubernetes-patch-merge-key'] = key;
    schema['x-kubernetes-patch-strategy'] = 'merge';
  }
  const mapKind = mapKindOf(`${owner}.${field}`);
  if (mapKind !== undefined) schema['x-kubernetes-map-type'] = mapKind;
}

function commentBefore(text: string, index: number): string | undefined {
  const comment = /\/\*\*\n((?: \*.*\n)+?) \*\/\n$/.exec(text.slice(0, index))?.[1];
  return comment === undefined ? undefined : plain(comment);
}

function plain(comment: string): string {
  const lines = comment.split('\n').map(line => line.replace(/^\s*\* ?/, ''));
  return lines.join('\n').replaceAll('\\*', '*').trim();
}

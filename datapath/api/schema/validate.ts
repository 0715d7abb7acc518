/** Whether an object is what its schema says: fields that it should not have, and values that are wrong. */
import type { Cause } from '../errors.ts';
import { isMap, type Json, type KubeObject } from '../object.ts';
import type { Resource } from '../resources.ts';
import { customFaults } from './custom.ts';
import { definitionName, kindSchema, resolveRef, type Schema, validatorModule } from './definitions.ts';

interface Validator {
  (data: unknown): boolean;
  errors?: { instancePath: string; keyword: string; params: Record<string, Json> }[] | null;
}

const validators = new Map<string, Validator>();

/**
 * Takes out what the schema does not know.
 * @returns the object without, and the places of what was taken out: `spec.containers[0].prots`
 */
export function prune(
  object: KubeObject,
  resource: Resource,
  version: string,
): { object: KubeObject; unknown: string[] } {
  const unknown: string[] = [];
  const pruned = pruneValue(object, kindSchema(resource, version), '', unknown) as KubeObject;
  return { object: pruned, unknown };
}

function pruneValue(value: Json, schema: Schema, path: string, unknown: string[]): Json {
  const target = resolveRef(schema);
  if (Array.isArray(value)) {
    const { items } = target;
    if (items === undefined) return value;
    return value.map((item, index) => pruneValue(item, items, `${path}[${index}]`, unknown));
  }
  if (!isMap(value)) return value;
  const { properties, additionalProperties } = target;
  if (properties === undefined) {
    if (typeof additionalProperties !== 'object') return value;
    return mapValues(value, (item, key) => pruneValue(item, additionalProperties, `${path}.${key}`, unknown));
  }
  // A kind that is open has no list of its fields.
  const open = additionalProperties !== undefined && additionalProperties !== false;
  const kept: Record<string, Json> = {};
  for (const [key, item] of Object.entries(value)) {
    // To a client, null is the same as nothing.
    if (item === null) continue;
    const property = Object.hasOwn(properties, key) ? properties[key] : undefined;
    // As is to an API in Go an empty text where it wants a word: charts without values have them.
    if (item === '' && property !== undefined && isWord(property)) continue;
    const at = path === '' ? key : `${path}.${key}`;
    if (property !== undefined) kept[key] = pruneValue(item, property, at, unknown);
    else if (open) kept[key] = item;
    else unknown.push(at);
  }
  return kept;
}

/** One of a few texts, of which none is empty. */
function isWord(schema: Schema): boolean {
  const words = resolveRef(schema).enum;
  return words !== undefined && !words.includes('');
}

function mapValues(map: Record<string, Json>, change: (value: Json, key: string) => Json): Record<string, Json> {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key, change(value, key)]));
}

/** What of an object's values is wrong; an empty list if nothing is. */
export async function findFaults(object: KubeObject, resource: Resource, version: string): Promise<Cause[]> {
  if (resource.custom) {
    return customFaults(resource.kind, object).map(({ path, message }) => {
      const field = path.reduce<string>(
        (text, part) =>
          typeof part === 'number' ? `${text}[${part}]` : text === '' ? `${String(part)}` : `${text}.${String(part)}`,
        '',
      );
      return { reason: 'FieldValueInvalid', message, field };
    });
  }
  const name = definitionName(resource, version);
  let validate = validators.get(name);
  if (validate === undefined) {
    kindSchema(resource, version);
    const loaded = (await import(validatorModule(name)!)) as { validate: Validator };
    validate = loaded.validate;
    validators.set(name, validate);
  }
  if (validate(object)) return [];
  const causes = (validate.errors ?? []).map(error => causeOf(error, object));
  // One value may fail both by type and by format.
  return causes.filter((cause, index) => causes.findIndex(({ field }) => field === cause.field) === index);
}

/** Kubernetes' own words: what a value was, and what it should have been. */
function causeOf(
  { instancePath, keyword, params }: NonNullable<Validator['errors']>[number],
  object: KubeObject,
): Cause {
  const parts = instancePath
    .split('/')
    .slice(1)
    .map(part => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const field = fieldPath(parts);
  if (keyword === 'required') {
    const missing = field === '' ? params.missingProperty : `${field}.${params.missingProperty}`;
    return { reason: 'FieldValueRequired', message: 'Required value', field: missing };
  }
  const value = parts.reduce<Json>((at, part) => at?.[part], object);
  const shown = JSON.stringify(value) ?? 'null';
  if (keyword === 'enum') {
    const allowed = (params.allowedValues as unknown[]).map(text => JSON.stringify(text)).join(', ');
    return {
      reason: 'FieldValueNotSupported',
      message: `Unsupported value: ${shown}: supported values: ${allowed}`,
      field,
    };
  }
  const expected = keyword === 'type' ? params.type : keyword === 'format' ? params.format : keyword;
  return { reason: 'FieldValueInvalid', message: `Invalid value: ${shown}: must be of type ${expected}`, field };
}

function fieldPath(parts: readonly string[]): string {
  return parts.reduce(
    (text, part) => (/^\d+$/.test(part) ? `${text}[${part}]` : text === '' ? part : `${text}.${part}`),
    '',
  );
}

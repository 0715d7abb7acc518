/**
 * Strategic merge patch: a JSON merge patch that merges lists, too, by the keys that the schema names for them. What it can
 * say besides stands in fields that begin with `$` (apimachinery/pkg/util/strategicpatch/patch.go).
 */
import { badRequest } from '../errors.ts';
import { isMap, type Json } from '../object.ts';
import { resolveRef, type Schema } from '../schema/definitions.ts';

const ORDER = '$setElementOrder/';
const DELETE_FROM = '$deleteFromPrimitiveList/';

/** @throws ApiError (400) for a patch that says what it cannot */
export function strategicMerge(original: Json, patch: Json, schema: Schema | undefined): Json {
  if (!isMap(patch)) return patch;
  const directive = patch.$patch;
  if (directive === 'replace') return withoutDirectives(patch);
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge') throw badRequest(`unknown patch type: ${directive}`);

  const target = schema === undefined ? undefined : resolveRef(schema);
  const merged: Record<string, Json> = isMap(original) ? { ...original } : {};
  if (Array.isArray(patch.$retainKeys)) {
    const retained = new Set(patch.$retainKeys);
    for (const key of Object.keys(merged)) if (!retained.has(key)) delete merged[key];
  }
  const propertyOf = (key: string): Schema | undefined =>
    target?.properties?.[key] ??
    (typeof target?.additionalProperties === 'object' ? target.additionalProperties : undefined);

  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith('$')) continue;
    if (value === null) delete merged[key];
    else if (Array.isArray(value)) merged[key] = mergeList(merged[key], value, propertyOf(key), patch[ORDER + key]);
    else merged[key] = strategicMerge(merged[key], value, propertyOf(key));
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith(DELETE_FROM)) {
      const field = key.slice(DELETE_FROM.length);
      const list = merged[field];
      if (Array.isArray(list) && Array.isArray(value)) merged[field] = list.filter(item => !value.includes(item));
    } else if (key.startsWith(ORDER)) {
      // An order alone: the list's elements are where they were, but in another order.
      const field = key.slice(ORDER.length);
      if (!(field in patch) && Array.isArray(merged[field])) {
        merged[field] = mergeList(merged[field], [], propertyOf(field), value);
      }
    }
  }
  return merged;
}

function mergeList(original: Json, patch: Json[], schema: Schema | undefined, order: Json): Json[] {
  const strategy = schema?.['x-kubernetes-patch-strategy'];
  if (strategy !== 'merge' || !Array.isArray(original)) {
    return patch.filter(item => item?.$patch !== 'delete' && item?.$patch !== 'replace').map(withoutDirectives);
  }
  const key = schema?.['x-kubernetes-patch-merge-key'];
  if (key === undefined) {
    const union = [...original, ...patch.filter(item => !original.includes(item))];
    return Array.isArray(order) ? inOrder(union, original, order, item => item) : union;
  }
  if (patch.some(item => item?.$patch === 'replace')) {
    return patch.filter(item => item?.$patch !== 'replace').map(withoutDirectives);
  }
  let merged = [...original];
  for (const item of patch) {
    if (!isMap(item) || item[key] === undefined) {
      throw badRequest(`map: ${JSON.stringify(item)} does not contain declared merge key: ${key}`);
    }
    const index = merged.findIndex(other => other?.[key] === item[key]);
    if (item.$patch === 'delete') merged = merged.filter(other => other?.[key] !== item[key]);
    else if (index < 0) merged.push(strategicMerge({}, item, schema?.items));
    else merged[index] = strategicMerge(merged[index], item, schema?.items);
  }
  return Array.isArray(order)
    ? inOrder(
        merged,
        original,
        order,
        item => item?.[key],
        item => item?.[key],
      )
    : merged;
}

/** Puts elements into the order that the client has; those that it does not know stay where they were among the others. */
function inOrder(
  list: Json[],
  original: Json[],
  order: Json[],
  keyOf: (item: Json) => Json,
  keyOfOrder: (item: Json) => Json = keyOf,
): Json[] {
  const wanted = order.map(keyOfOrder);
  const was = original.map(keyOf);
  const known = list
    .filter(item => wanted.includes(keyOf(item)))
    .sort((a, b) => wanted.indexOf(keyOf(a)) - wanted.indexOf(keyOf(b)));
  for (const item of list.filter(other => !wanted.includes(keyOf(other)))) {
    const place = was.indexOf(keyOf(item));
    const before = known.findIndex(other => was.indexOf(keyOf(other)) > place);
    known.splice(before < 0 ? known.length : before, 0, item);
  }
  return known;
}

function withoutDirectives(value: Json): Json {
  if (Array.isArray(value)) return value.map(withoutDirectives);
  if (!isMap(value)) return value;
  const plain: Record<string, Json> = {};
  for (const [key, item] of Object.entries(value)) {
    if (!key.startsWith('$') && item !== null) plain[key] = withoutDirectives(item);
  }
  return plain;
}

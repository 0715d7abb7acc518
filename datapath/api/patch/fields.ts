/**
 * Who manages which fields of an object (metadata.managedFields), as sets of places. A place is its elements joined by
 * newlines: `f:spec`, `f:ports`, `k:{"port":80,"protocol":"TCP"}`, `f:targetPort`.
 */
import { isDeepStrictEqual } from 'node:util';
import { isMap, type Json, type KubeObject, type ManagedFieldsEntry } from '../object.ts';
import { resolveRef, type Schema } from '../schema/definitions.ts';

const SEPARATOR = '\n';

/** Values by place. An element of a list with keys has a place of its own, with the value undefined. */
export type Leaves = Map<string, Json>;

/** Fields that nobody manages. */
const UNMANAGED = new Set(
  [
    'apiVersion',
    'kind',
    ...[
      'name',
      'namespace',
      'generateName',
      'uid',
      'selfLink',
      'generation',
      'resourceVersion',
      'creationTimestamp',
      'deletionTimestamp',
      'deletionGracePeriodSeconds',
      'managedFields',
    ].map(name => `metadata${SEPARATOR}f:${name}`),
  ].map(name => `f:${name}`),
);

/** Everything that an object says. */
export function leavesOf(object: KubeObject, schema: Schema): Leaves {
  const leaves: Leaves = new Map();
  collect(object, schema, '', leaves);
  for (const place of leaves.keys()) if (UNMANAGED.has(place)) leaves.delete(place);
  return leaves;
}

function collect(value: Json, schema: Schema | undefined, place: string, leaves: Leaves): void {
  const target = schema === undefined ? undefined : resolveRef(schema);
  if (Array.isArray(value) && value.length > 0) {
    const type = schema?.['x-kubernetes-list-type'];
    if (type === 'set') {
      for (const item of value) leaves.set(join(place, `v:${JSON.stringify(item)}`), item);
      return;
    }
    if (type === 'map') {
      for (const item of value) {
        const at = join(place, elementOf(item, schema!));
        leaves.set(at, undefined);
        collectMap(item, target?.items, at, leaves);
      }
      return;
    }
  } else if (isMap(value) && Object.keys(value).length > 0 && !isAtomic(schema, target)) {
    collectMap(value, target, place, leaves);
    return;
  }
  leaves.set(place, value);
}

function collectMap(value: Json, schema: Schema | undefined, place: string, leaves: Leaves): void {
  for (const [key, item] of Object.entries(value)) {
    collect(item, propertyOf(schema, key), join(place, `f:${key}`), leaves);
  }
}

function isAtomic(schema: Schema | undefined, target: Schema | undefined): boolean {
  return (schema?.['x-kubernetes-map-type'] ?? target?.['x-kubernetes-map-type']) === 'atomic';
}

function propertyOf(schema: Schema | undefined, key: string): Schema | undefined {
  const target = schema === undefined ? undefined : resolveRef(schema);
  return (
    target?.properties?.[key] ??
    (typeof target?.additionalProperties === 'object' ? target.additionalProperties : undefined)
  );
}

/** `k:{"containerPort":80,"protocol":"TCP"}`. A protocol that is not said is TCP. */
function elementOf(item: Json, schema: Schema): string {
  const keys: Record<string, Json> = {};
  for (const key of [...schema['x-kubernetes-list-map-keys']!].sort()) {
    const value = item?.[key] ?? (key === 'protocol' ? 'TCP' : undefined);
    if (value !== undefined) keys[key] = value;
  }
  return `k:${JSON.stringify(keys)}`;
}

function join(place: string, element: string): string {
  return place === '' ? element : place + SEPARATOR + element;
}

/** `.spec.ports[port=80,protocol="TCP"].targetPort`, as conflicts are told. */
export function formatPlace(place: string): string {
  return place
    .split(SEPARATOR)
    .map(element => {
      const rest = element.slice(2);
      if (element.startsWith('f:')) return `.${rest}`;
      if (element.startsWith('v:')) return `[=${rest}]`;
      const keys = JSON.parse(rest) as Record<string, Json>;
      return `[${Object.entries(keys)
        .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
        .join(',')}]`;
    })
    .join('');
}

/** A set of places as FieldsV1 has it: a tree, in which `.` is the element itself. */
export function toFieldsV1(places: ReadonlySet<string>): Json {
  const root: Record<string, Json> = {};
  for (const place of [...places].sort()) {
    let at = root;
    const elements = place.split(SEPARATOR);
    for (const element of elements) {
      at[element] ??= {};
      at = at[element];
    }
    if (elements.at(-1)!.startsWith('k:')) at['.'] = {};
  }
  return root;
}

export function fromFieldsV1(tree: Json): Set<string> {
  const places = new Set<string>();
  const visit = (node: Json, place: string): void => {
    const children = isMap(node) ? Object.keys(node) : [];
    if (children.length === 0 || children.includes('.')) places.add(place);
    for (const child of children) if (child !== '.') visit(node[child], join(place, child));
  };
  for (const [element, node] of Object.entries(isMap(tree) ? tree : {})) visit(node, element);
  return places;
}

/** One manager and what it manages. */
export interface Managed {
  entry: ManagedFieldsEntry;
  places: Set<string>;
}

export function managersOf(object: KubeObject | undefined): Managed[] {
  return (object?.metadata.managedFields ?? []).map(entry => ({ entry, places: fromFieldsV1(entry.fieldsV1) }));
}

/** The form in which an object carries them; managers of nothing are left out. */
export function managedFieldsOf(managers: readonly Managed[]): ManagedFieldsEntry[] {
  return managers
    .filter(({ places }) => places.size > 0)
    .map(({ entry, places }) => ({ ...entry, fieldsType: 'FieldsV1', fieldsV1: toFieldsV1(places) }));
}

export interface Writer {
  manager: string;
  apiVersion: string;
  /** RFC 3339. */
  time: string;
  subresource?: string;
}

/**
 * Notes an update: its writer manages what it has changed, and nobody else does any more.
 * @returns the new managedFields
 */
export function trackUpdate(
  before: KubeObject | undefined,
  after: KubeObject,
  schema: Schema,
  writer: Writer,
): ManagedFieldsEntry[] {
  const old: Leaves = before === undefined ? new Map() : leavesOf(before, schema);
  const now = leavesOf(after, schema);
  const managers = managersOf(after);
  const changed = [...now].filter(([place, value]) => !old.has(place) || !isDeepStrictEqual(old.get(place), value));
  const gone = [...old.keys()].filter(place => !now.has(place));
  const isOwn = ({ entry }: Managed): boolean =>
    entry.manager === writer.manager && entry.operation === 'Update' && entry.subresource === writer.subresource;
  if (changed.length === 0 && gone.length === 0) return after.metadata.managedFields ?? [];
  for (const managed of managers) {
    for (const place of gone) managed.places.delete(place);
    if (!isOwn(managed)) for (const [place] of changed) managed.places.delete(place);
  }
  if (changed.length > 0) {
    let own = managers.find(isOwn);
    if (own === undefined) {
      own = { entry: {}, places: new Set() };
      managers.push(own);
    }
    own.entry = {
      manager: writer.manager,
      operation: 'Update',
      apiVersion: writer.apiVersion,
      time: writer.time,
      ...(writer.subresource === undefined ? {} : { subresource: writer.subresource }),
    };
    for (const [place] of changed) own.places.add(place);
  }
  return managedFieldsOf(managers);
}

/** Takes places out of an object. Maps and lists that this leaves empty go, too. */
export function removePlaces(object: KubeObject, places: Iterable<string>, schema: Schema): KubeObject {
  const copy = structuredClone(object);
  // Elements of lists first, as long as their keys say which they are; then the longest, what is in maps before the maps.
  const isElement = (place: string): number => (/(^|\n)k:[^\n]*$/.test(place) ? 1 : 0);
  const ordered = [...places].sort((a, b) => isElement(b) - isElement(a) || b.length - a.length);
  for (const place of ordered) removePlace(copy, place.split(SEPARATOR), schema);
  return copy;
}

/** @returns whether `value` is empty now */
function removePlace(value: Json, elements: readonly string[], schema: Schema | undefined): boolean {
  const [element, ...rest] = elements as [string, ...string[]];
  if (Array.isArray(value)) {
    const index = element.startsWith('v:')
      ? value.findIndex(item => JSON.stringify(item) === element.slice(2))
      : value.findIndex(item => elementOf(item, schema!) === element);
    if (index < 0) return false;
    const items = schema === undefined ? undefined : resolveRef(schema).items;
    if (rest.length === 0) value.splice(index, 1);
    else removePlace(value[index], rest, items);
    return value.length === 0;
  }
  if (!isMap(value)) return false;
  const key = element.slice(2);
  if (!Object.hasOwn(value, key)) return false;
  if (rest.length === 0 || removePlace(value[key], rest, propertyOf(schema, key))) delete value[key];
  return Object.keys(value).length === 0;
}

/** What an applied configuration makes of an object: its values over what is there, lists with keys merged. */
export function mergeApplied(live: Json, applied: Json, schema: Schema | undefined): Json {
  const target = schema === undefined ? undefined : resolveRef(schema);
  if (isMap(applied) && isMap(live) && !isAtomic(schema, target)) {
    const merged: Record<string, Json> = { ...live };
    for (const [key, value] of Object.entries(applied)) {
      merged[key] = mergeApplied(live[key], value, propertyOf(schema, key));
    }
    return merged;
  }
  const type = schema?.['x-kubernetes-list-type'];
  if (!Array.isArray(applied) || !Array.isArray(live) || type === undefined || type === 'atomic') return applied;
  const keyOf = (item: Json): string => (type === 'set' ? JSON.stringify(item) : elementOf(item, schema!));
  const wanted = new Map(applied.map(item => [keyOf(item), item]));
  const present = new Set(live.map(keyOf));
  // What is there keeps its place.
  return [
    ...live.map(item => {
      const match = wanted.get(keyOf(item));
      return match === undefined ? item : type === 'set' ? item : mergeApplied(item, match, target?.items);
    }),
    ...applied.filter(item => !present.has(keyOf(item))),
  ];
}

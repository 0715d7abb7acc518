/** Server-side apply: an object becomes what a manager says of it, unless another manager says otherwise. */
import { isDeepStrictEqual } from 'node:util';
import { ApiError } from '../errors.ts';
import type { Json, KubeObject } from '../object.ts';
import type { Schema } from '../schema/definitions.ts';
import {
  formatPlace,
  leavesOf,
  type Managed,
  managedFieldsOf,
  managersOf,
  mergeApplied,
  removePlaces,
  type Writer,
} from './fields.ts';

/**
 * @param live the object as it is, or undefined where there is none yet
 * @param force takes over what other managers say otherwise
 * @returns the new object with its managedFields
 * @throws ApiError (409) with a cause for each field that another manager has set to something else
 */
export function serverSideApply(
  live: KubeObject | undefined,
  applied: KubeObject,
  schema: Schema,
  writer: Writer,
  force: boolean,
): KubeObject {
  const wanted = leavesOf(applied, schema);
  const present = live === undefined ? new Map<string, Json>() : leavesOf(live, schema);
  const managers = managersOf(live);
  const isOwn = ({ entry }: Managed): boolean =>
    entry.manager === writer.manager && entry.operation === 'Apply' && entry.subresource === writer.subresource;
  const own = managers.find(isOwn);
  const others = managers.filter(managed => managed !== own);

  const conflicts: { place: string; managed: Managed }[] = [];
  for (const managed of others) {
    for (const place of managed.places) {
      if (!wanted.has(place) || !present.has(place)) continue;
      if (!isDeepStrictEqual(wanted.get(place), present.get(place))) conflicts.push({ place, managed });
    }
  }
  if (conflicts.length > 0 && !force) throw conflictOf(conflicts);
  for (const { place, managed } of conflicts) managed.places.delete(place);

  let merged = live === undefined ? applied : (mergeApplied(live, applied, schema) as KubeObject);
  const given = [...(own?.places ?? [])].filter(
    place => !wanted.has(place) && !others.some(({ places }) => places.has(place)),
  );
  if (given.length > 0) merged = removePlaces(merged, given, schema);

  const entry = {
    manager: writer.manager,
    operation: 'Apply' as const,
    apiVersion: writer.apiVersion,
    time: writer.time,
    ...(writer.subresource === undefined ? {} : { subresource: writer.subresource }),
  };
  const places = new Set(wanted.keys());
  // The same said again is no change, and keeps its time.
  const unchanged = own !== undefined && isDeepStrictEqual(own.places, places) && conflicts.length === 0;
  const managed: Managed = { entry: unchanged ? own.entry : entry, places };
  const all = own === undefined ? [...managers, managed] : managers.map(other => (other === own ? managed : other));
  return { ...merged, metadata: { ...merged.metadata, managedFields: managedFieldsOf(all) } };
}

function conflictOf(conflicts: readonly { place: string; managed: Managed }[]): ApiError {
  const causes = conflicts.map(({ place, managed: { entry } }) => ({
    reason: 'FieldManagerConflict',
    message: `conflict with "${entry.manager}"${entry.operation === 'Update' ? ` using ${entry.apiVersion}` : ''}`,
    field: formatPlace(place),
  }));
  const count = causes.length === 1 ? '1 conflict' : `${causes.length} conflicts`;
  const text =
    causes.length === 1
      ? `${causes[0]!.message}: ${causes[0]!.field}`
      : causes.map(({ message, field }) => `${message}: ${field}`).join('\n');
  return new ApiError(409, 'Conflict', `Apply failed with ${count}: ${text}`, { causes });
}

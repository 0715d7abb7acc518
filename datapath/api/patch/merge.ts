/** JSON merge patch (RFC 7386). */
import { isMap, type Json } from '../object.ts';

export function jsonMerge(target: Json, patch: Json): Json {
  if (!isMap(patch)) return patch;
  const merged: Record<string, Json> = isMap(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = jsonMerge(merged[key], value);
  }
  return merged;
}

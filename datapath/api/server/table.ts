/** The form of answers that `kubectl get` asks for: kind Table of meta.k8s.io/v1, a row for each object. */
import type { Json, KubeObject } from '../object.ts';
import { columnsOf } from './columns.ts';

/** How much of each object comes with its row. */
export type IncludeObject = 'None' | 'Metadata' | 'Object';

const FORMATS: Record<string, string> = { Name: 'name' };

/** @param listMeta resourceVersion and the like of a list; an empty one for a single object */
export function tableOf(
  objects: readonly KubeObject[],
  kind: string,
  listMeta: Json,
  include: IncludeObject,
  nowMs: number,
  withColumns = true,
): Json {
  const columns = columnsOf(kind);
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: listMeta,
    columnDefinitions: withColumns
      ? columns.map(({ name, type, priority }) => ({
          name,
          type,
          format: FORMATS[name] ?? '',
          description: name,
          priority,
        }))
      : null,
    rows: objects.map(object => ({
      cells: columns.map(({ cell }) => cell(object, nowMs)),
      ...(include === 'None' ? {} : { object: include === 'Object' ? object : partialMetadata(object) }),
    })),
  };
}

/** An object without all but its metadata. */
export function partialMetadata({ metadata }: KubeObject): Json {
  return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata };
}

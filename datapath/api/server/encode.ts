/** Objects as JSON. Each is written once, however many lists and watches it goes into. */
import type { KubeObject } from '../object.ts';

const texts = new WeakMap<KubeObject, string>();

export function encodeObject(object: KubeObject): string {
  let text = texts.get(object);
  if (text === undefined) {
    text = JSON.stringify(object);
    texts.set(object, text);
  }
  return text;
}

/** A list of objects of one kind. @param metadata resourceVersion, continue, remainingItemCount */
export function encodeList(
  apiVersion: string,
  kind: string,
  metadata: unknown,
  objects: readonly KubeObject[],
): string {
  const head = JSON.stringify({ kind: `${kind}List`, apiVersion, metadata });
  return `${head.slice(0, -1)},"items":[${objects.map(encodeObject).join(',')}]}`;
}

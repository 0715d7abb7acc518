/** The variables of a container, and what they mean in its command. Pure. */
import { type Json, type KubeObject, placeOf } from '../object.ts';

export interface Sources {
  /** Data of a ConfigMap or Secret of the pod's namespace, as text; undefined where there is none. */
  data(kind: 'ConfigMap' | 'Secret', name: string): Record<string, string> | undefined;
  podIP: string;
  hostIP: string;
}

/** What a container cannot be made with, in kubelet's words. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

/** Name -> value, in the order in which later ones may use earlier ones. @throws ConfigError */
export function environmentOf(pod: KubeObject, container: Json, sources: Sources): Record<string, string> {
  const env: Record<string, string> = {};
  for (const { configMapRef, secretRef, prefix = '' } of (container.envFrom ?? []) as Json[]) {
    const [kind, ref] =
      configMapRef === undefined ? (['Secret', secretRef] as const) : (['ConfigMap', configMapRef] as const);
    const data = dataOf(kind, ref, sources);
    for (const [key, value] of Object.entries(data ?? {})) env[prefix + key] = value;
  }
  for (const { name, value, valueFrom } of (container.env ?? []) as Json[]) {
    const given = valueFrom === undefined ? expand(value ?? '', env) : referredValue(pod, valueFrom, sources);
    if (given !== undefined) env[name] = given;
  }
  return env;
}

function referredValue(pod: KubeObject, from: Json, sources: Sources): string | undefined {
  if (from.fieldRef !== undefined) return fieldOf(pod, from.fieldRef.fieldPath, sources);
  if (from.resourceFieldRef !== undefined) return '0';
  const [kind, ref] =
    from.configMapKeyRef === undefined
      ? (['Secret', from.secretKeyRef] as const)
      : (['ConfigMap', from.configMapKeyRef] as const);
  const data = dataOf(kind, ref, sources);
  if (data === undefined) return undefined;
  if (Object.hasOwn(data, ref.key)) return data[ref.key];
  if (ref.optional === true) return undefined;
  throw new ConfigError(`couldn't find key ${ref.key} in ${kind} ${pod.metadata.namespace}/${ref.name}`);
}

function dataOf(kind: 'ConfigMap' | 'Secret', ref: Json, sources: Sources): Record<string, string> | undefined {
  const data = sources.data(kind, ref.name);
  if (data !== undefined || ref.optional === true) return data;
  throw new ConfigError(`${kind.toLowerCase()} "${ref.name}" not found`);
}

function fieldOf({ metadata, spec }: KubeObject, path: string, { podIP, hostIP }: Sources): string {
  const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (keyed !== null) return metadata[keyed[1] as 'labels' | 'annotations']?.[keyed[2]!] ?? '';
  const fields: Record<string, string | undefined> = {
    'metadata.name': metadata.name,
    'metadata.namespace': metadata.namespace,
    'metadata.uid': metadata.uid,
    'spec.nodeName': spec.nodeName,
    'spec.serviceAccountName': spec.serviceAccountName ?? 'default',
    'status.podIP': podIP,
    'status.podIPs': podIP,
    'status.hostIP': hostIP,
    'status.hostIPs': hostIP,
  };
  if (!Object.hasOwn(fields, path)) throw new ConfigError(`${placeOf({ metadata })}: no field ${path} for a variable`);
  return fields[path] ?? '';
}

/** `$(NAME)` is the variable's value where there is one, `$$` a `$`. (k8s.io/kubernetes/third_party/forked/golang/expansion) */
export function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replace(/\$\$|\$\(([^)]*)\)/g, (whole, name: string | undefined) => {
    if (name === undefined) return '$';
    return Object.hasOwn(env, name) ? env[name]! : whole;
  });
}

/** What kinds an API has, by its own word: aggregated discovery (Kubernetes 1.27 and later), or list by list. */
import type { Json } from '../object.ts';
import { type ApiClient, StatusError } from './client.ts';

export interface ApiKind {
  /** '' is the core group. */
  group: string;
  version: string;
  kind: string;
  plural: string;
  singular: string;
  namespaced: boolean;
  shortNames: readonly string[];
  categories: readonly string[];
}

const AGGREGATED = ['v2', 'v2beta1'].map(v => `application/json;g=apidiscovery.k8s.io;v=${v};as=APIGroupDiscoveryList`);
const ACCEPT = [...AGGREGATED, 'application/json'].join(',');

/** Every kind in the version that its group prefers, in the order of the API. @throws StatusError, UnreachableError */
export async function discoverKinds(client: ApiClient): Promise<ApiKind[]> {
  const found: ApiKind[] = [];
  for (const path of ['/api', '/apis']) {
    const answer = await client.get(path, { headers: { accept: ACCEPT } });
    if (answer?.kind === 'APIGroupDiscoveryList') {
      for (const group of answer.items ?? []) found.push(...aggregatedKinds(group));
      continue;
    }
    const bases: string[] =
      path === '/api'
        ? (answer?.versions ?? []).map((version: string) => `/api/${version}`)
        : (answer?.groups ?? []).flatMap(({ versions }: Json) =>
            versions.map(({ groupVersion }: Json) => `/apis/${groupVersion}`),
          );
    for (const base of bases) found.push(...(await listedKinds(client, base)));
  }
  // Groups list the version that they prefer first.
  const known = new Set<string>();
  return found.filter(({ group, plural }) => {
    const key = `${plural}.${group}`;
    return !known.has(key) && known.add(key);
  });
}

function aggregatedKinds({ metadata, versions }: Json): ApiKind[] {
  return (versions ?? []).flatMap(({ version, resources }: Json) =>
    (resources ?? []).map((one: Json) => ({
      group: metadata?.name ?? '',
      version,
      kind: one.responseKind?.kind ?? '',
      plural: one.resource,
      singular: one.singularResource ?? '',
      namespaced: one.scope === 'Namespaced',
      shortNames: one.shortNames ?? [],
      categories: one.categories ?? [],
    })),
  );
}

async function listedKinds(client: ApiClient, base: string): Promise<ApiKind[]> {
  let list: Json;
  try {
    list = await client.get(base);
  } catch (error) {
    // A group whose own server is away is none of the others' matter.
    if (error instanceof StatusError) return [];
    throw error;
  }
  const parts = base.split('/').slice(2);
  const version = parts.pop()!;
  return (list?.resources ?? [])
    .filter(({ name }: Json) => !name.includes('/'))
    .map((one: Json) => ({
      group: parts[0] ?? '',
      version,
      kind: one.kind,
      plural: one.name,
      singular: one.singularName || one.kind.toLowerCase(),
      namespaced: one.namespaced,
      shortNames: one.shortNames ?? [],
      categories: one.categories ?? [],
    }));
}

/** The kind that a word means: plural, singular or short name, with or without `.GROUP` or `.VERSION.GROUP` behind it. */
export function findApiKind<Kind extends ApiKind>(kinds: readonly Kind[], text: string): Kind | undefined {
  const [word, ...rest] = text.toLowerCase().split('.') as [string, ...string[]];
  const behind = rest.join('.');
  const inGroup = kinds.filter(
    ({ group, version }) => behind === '' || group.startsWith(behind) || `${version}.${group}` === behind,
  );
  return (
    inGroup.find(({ plural, singular, kind }) => [plural, singular, kind.toLowerCase()].includes(word)) ??
    inGroup.find(({ shortNames }) => shortNames.includes(word))
  );
}

/** `/api/v1/namespaces/NS/pods`; across all namespaces without one. */
export function collectionPath({ group, version, ...resource }: ApiKind, namespace?: string): string {
  return resourcePath(group === '' ? version : `${group}/${version}`, resource, namespace);
}

/** The same for who knows an apiVersion; with a name that object's. */
export function resourcePath(
  apiVersion: string,
  { plural, namespaced }: { plural: string; namespaced: boolean },
  namespace?: string,
  name?: string,
): string {
  const inside = namespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  const collection = `${basePath(apiVersion)}${inside}/${plural}`;
  return name === undefined ? collection : `${collection}/${encodeURIComponent(name)}`;
}

/** `/api/v1`, `/apis/apps/v1` */
export function basePath(apiVersion: string): string {
  return apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
}

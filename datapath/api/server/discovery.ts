/** What the API tells of itself: groups, versions and kinds, in the aggregated form of kubectl 1.27 and later and the old one. */
import type { Json } from '../object.ts';
import { apiVersionOf, groups, RESOURCES, type Resource } from '../resources.ts';

const VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

interface Subresource {
  name: string;
  kind: string;
  /** `autoscaling/v1` for Scale; default: that of the resource. */
  group?: string;
  version?: string;
  verbs: string[];
}

function subresourcesOf({ kind, subresources }: Resource): Subresource[] {
  const found: Subresource[] = subresources.map(name =>
    name === 'scale'
      ? { name, kind: 'Scale', group: 'autoscaling', version: 'v1', verbs: ['get', 'patch', 'update'] }
      : { name, kind, verbs: ['get', 'patch', 'update'] },
  );
  if (kind !== 'Pod') return found;
  const stream = ['create', 'get'];
  return [
    ...found,
    { name: 'attach', kind: 'PodAttachOptions', verbs: stream },
    { name: 'binding', kind: 'Binding', verbs: ['create'] },
    { name: 'eviction', kind: 'Eviction', group: 'policy', version: 'v1', verbs: ['create'] },
    { name: 'exec', kind: 'PodExecOptions', verbs: stream },
    { name: 'log', kind: 'Pod', verbs: ['get'] },
    { name: 'portforward', kind: 'PodPortForwardOptions', verbs: stream },
  ];
}

/** The kinds of one group and version. */
function resourcesIn(group: string, version: string): Resource[] {
  return RESOURCES.filter(resource => resource.group === group && resource.versions.includes(version));
}

/**
 * apidiscovery.k8s.io: everything in one answer.
 * @param core only the core group, as /api has it; or all others
 * @param untold groups that are left out
 */
export function aggregatedDiscovery(core: boolean, apiVersion: 'v2' | 'v2beta1', untold: readonly string[] = []): Json {
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: `apidiscovery.k8s.io/${apiVersion}`,
    metadata: {},
    items: [...groups()]
      .filter(([group]) => (group === '') === core && !untold.includes(group))
      .map(([group, versions]) => ({
        metadata: group === '' ? { creationTimestamp: null } : { name: group, creationTimestamp: null },
        versions: versions.map(version => ({
          version,
          freshness: 'Current',
          resources: resourcesIn(group, version).map(resource => aggregatedResource(resource, version)),
        })),
      })),
  };
}

function aggregatedResource(resource: Resource, version: string): Json {
  const { group, kind, plural, singular, namespaced, shortNames, categories } = resource;
  return {
    resource: plural,
    responseKind: { group, version, kind },
    scope: namespaced ? 'Namespaced' : 'Cluster',
    singularResource: singular,
    verbs: VERBS,
    shortNames,
    categories,
    subresources: subresourcesOf(resource).map(sub => ({
      subresource: sub.name,
      responseKind: { group: sub.group ?? group, version: sub.version ?? version, kind: sub.kind },
      verbs: sub.verbs,
    })),
  };
}

/** /api */
export function coreVersions(): Json {
  return { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] };
}

/** /apis. @param untold groups that are left out */
export function groupList(untold: readonly string[] = []): Json {
  const named = [...groups().keys()].filter(group => group !== '' && !untold.includes(group));
  return { kind: 'APIGroupList', apiVersion: 'v1', groups: named.map(group => withoutKind(apiGroup(group)!)) };
}

/** /apis/GROUP */
export function apiGroup(group: string): Json | undefined {
  const versions = groups().get(group);
  if (versions === undefined || group === '') return undefined;
  const named = versions.map(version => ({ groupVersion: `${group}/${version}`, version }));
  return { kind: 'APIGroup', apiVersion: 'v1', name: group, versions: named, preferredVersion: named[0] };
}

function withoutKind({ kind, apiVersion, ...rest }: Json): Json {
  return rest;
}

/** /api/v1, /apis/GROUP/VERSION */
export function resourceList(group: string, version: string): Json | undefined {
  const resources = resourcesIn(group, version);
  if (resources.length === 0) return undefined;
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: apiVersionOf(resources[0]!, version),
    resources: resources.flatMap(resource => {
      const { kind, plural, singular, namespaced, shortNames, categories } = resource;
      return [
        {
          name: plural,
          singularName: singular,
          namespaced,
          kind,
          verbs: VERBS,
          ...(shortNames.length > 0 ? { shortNames } : {}),
          ...(categories.length > 0 ? { categories } : {}),
        },
        ...subresourcesOf(resource).map(sub => ({
          name: `${plural}/${sub.name}`,
          singularName: '',
          namespaced,
          ...(sub.group === undefined ? {} : { group: sub.group, version: sub.version }),
          kind: sub.kind,
          verbs: sub.verbs,
        })),
      ];
    }),
  };
}

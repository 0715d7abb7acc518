/** The kinds that the API has: DESIGN.md section 6, and what manifests around them bring along (kube-flannel.yml does). */

export interface Resource {
  /** '' is the core group. */
  group: string;
  /** All that it is served in; the first one is preferred, and what objects are stored as. */
  versions: readonly string[];
  kind: string;
  plural: string;
  singular: string;
  namespaced: boolean;
  shortNames: readonly string[];
  categories: readonly string[];
  /** Besides those of pods, which the server knows. */
  subresources: readonly ('status' | 'scale')[];
  /** What kinds of CRDs have no strategic merge patch. */
  custom: boolean;
  /** Where these objects are stored, if under another kind's name: the two API groups of Calico. */
  storage: string;
}

type Options = Partial<Pick<Resource, 'shortNames' | 'categories' | 'subresources' | 'storage' | 'plural'>>;

function resource(apiVersions: string, kind: string, namespaced: boolean, options: Options = {}): Resource {
  const [first, ...others] = apiVersions.split(',').map(text => text.trim());
  const slash = first!.indexOf('/');
  const group = slash < 0 ? '' : first!.slice(0, slash);
  const singular = kind.toLowerCase();
  const plural =
    options.plural ?? (/(s|x)$/.test(singular) ? `${singular}es` : singular.replace(/y$/, 'ie').concat('s'));
  return {
    group,
    versions: [first!.slice(slash + 1), ...others],
    kind,
    plural,
    singular,
    namespaced,
    shortNames: options.shortNames ?? [],
    categories: options.categories ?? [],
    subresources: options.subresources ?? [],
    custom: /cilium|calico|tunpath/.test(group),
    storage: options.storage ?? (group === '' ? plural : `${plural}.${group}`),
  };
}

const all = ['all'];
const status = ['status'] as const;
const workload = ['status', 'scale'] as const;
const rbac = 'rbac.authorization.k8s.io/v1';

export const RESOURCES: readonly Resource[] = [
  resource('v1', 'ConfigMap', true, { shortNames: ['cm'] }),
  resource('v1', 'Endpoints', true, { shortNames: ['ep'], plural: 'endpoints' }),
  resource('v1', 'Event', true, { shortNames: ['ev'] }),
  resource('v1', 'Namespace', false, { shortNames: ['ns'], subresources: status }),
  resource('v1', 'Node', false, { shortNames: ['no'], subresources: status }),
  resource('v1', 'Pod', true, { shortNames: ['po'], categories: all, subresources: status }),
  // `cluster-info dump` lists them; no controller makes pods of them.
  resource('v1', 'ReplicationController', true, { shortNames: ['rc'], categories: all, subresources: workload }),
  resource('v1', 'Secret', true),
  resource('v1', 'Service', true, { shortNames: ['svc'], categories: all, subresources: status }),
  resource('v1', 'ServiceAccount', true, { shortNames: ['sa'] }),
  resource('apps/v1', 'DaemonSet', true, { shortNames: ['ds'], categories: all, subresources: status }),
  resource('apps/v1', 'ControllerRevision', true),
  resource('apps/v1', 'Deployment', true, { shortNames: ['deploy'], categories: all, subresources: workload }),
  resource('apps/v1', 'ReplicaSet', true, { shortNames: ['rs'], categories: all, subresources: workload }),
  resource('coordination.k8s.io/v1', 'Lease', true),
  resource('discovery.k8s.io/v1', 'EndpointSlice', true),
  resource('networking.k8s.io/v1', 'NetworkPolicy', true, { shortNames: ['netpol'] }),
  resource(rbac, 'ClusterRole', false),
  resource(rbac, 'ClusterRoleBinding', false),
  resource(rbac, 'Role', true),
  resource(rbac, 'RoleBinding', true),
  resource('projectcalico.org/v3', 'IPPool', false),
  resource('crd.projectcalico.org/v1', 'IPPool', false, { storage: 'ippools.projectcalico.org' }),
  resource('cilium.io/v2, v2alpha1', 'CiliumLoadBalancerIPPool', false, {
    shortNames: ['ippools', 'ippool', 'lbippool', 'lbippools'],
    categories: ['cilium'],
    subresources: status,
  }),
  resource('cilium.io/v2, v2alpha1', 'CiliumL2AnnouncementPolicy', false, {
    shortNames: ['l2announcement'],
    categories: ['cilium', 'ciliuml2announcementpolicy'],
    subresources: status,
  }),
  resource('cilium.io/v2', 'CiliumEndpoint', true, {
    shortNames: ['cep', 'ciliumep'],
    categories: ['cilium'],
    subresources: status,
  }),
  resource('cilium.io/v2', 'CiliumIdentity', false, { shortNames: ['ciliumid'], categories: ['cilium'] }),
  resource('cilium.io/v2', 'CiliumNode', false, {
    shortNames: ['cn', 'ciliumn'],
    categories: ['cilium'],
    subresources: status,
  }),
  // Ours: how the nodes of a lab go over from one network to another.
  resource('tunpath.dev/v1', 'TunnelSwitch', false, {
    shortNames: ['tsw'],
    plural: 'tunnelswitches',
    subresources: status,
  }),
];

/** `v1`, or `apps/v1` */
export function apiVersionOf(resource: Resource, version = resource.versions[0]!): string {
  return resource.group === '' ? version : `${resource.group}/${version}`;
}

const byPath = new Map<string, Resource>();
const byKind = new Map<string, Resource>();
for (const entry of RESOURCES) {
  for (const version of entry.versions) {
    byPath.set(`${entry.group}/${version}/${entry.plural}`, entry);
    byKind.set(`${apiVersionOf(entry, version)} ${entry.kind}`, entry);
  }
}

/** The resource that a path names. */
export function findResource(group: string, version: string, plural: string): Resource | undefined {
  return byPath.get(`${group}/${version}/${plural}`);
}

/** The resource that an object's apiVersion and kind name. */
export function findKind(apiVersion: string, kind: string): Resource | undefined {
  return byKind.get(`${apiVersion} ${kind}`);
}

/** @throws Error: for kinds that the caller's code names. */
export function resourceOf(apiVersion: string, kind: string): Resource {
  const found = findKind(apiVersion, kind);
  if (found === undefined) throw new Error(`no kind ${kind} in ${apiVersion}`);
  return found;
}

/** Every group with its versions, the preferred one first. */
export function groups(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { group, versions } of RESOURCES) {
    const known = found.get(group) ?? [];
    found.set(group, [...known, ...versions.filter(version => !known.includes(version))]);
  }
  return found;
}

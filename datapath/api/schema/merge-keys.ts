/**
 * How lists and maps of Kubernetes' own kinds merge: x-kubernetes-patch-merge-key for strategic merge patch,
 * x-kubernetes-list-type, -list-map-keys and -map-type for server-side apply. `kubernetes-models` leaves these out of the
 * schemas, so that they are here, as `TYPE.FIELD`. What is not here is atomic: replaced as a whole.
 */

interface Merge {
  /** Strategic merge patch: the key, or '' for a list of scalars. */
  patch?: string;
  /** Server-side apply. */
  list?: { type: 'set' | 'map'; keys?: string[] };
}

const byKey = (...keys: string[]): Merge => ({ patch: keys[0]!, list: { type: 'map', keys } });

const LISTS: Record<string, Merge> = {
  'ObjectMeta.ownerReferences': byKey('uid'),
  'ObjectMeta.finalizers': { patch: '', list: { type: 'set' } },
  'PodSpec.containers': byKey('name'),
  'PodSpec.initContainers': byKey('name'),
  'PodSpec.ephemeralContainers': byKey('name'),
  'PodSpec.volumes': byKey('name'),
  'PodSpec.imagePullSecrets': byKey('name'),
  'PodSpec.hostAliases': byKey('ip'),
  'PodSpec.resourceClaims': byKey('name'),
  'PodSpec.schedulingGates': byKey('name'),
  'PodSpec.topologySpreadConstraints': byKey('topologyKey', 'whenUnsatisfiable'),
  'Container.env': byKey('name'),
  'Container.ports': byKey('containerPort', 'protocol'),
  'Container.volumeMounts': byKey('mountPath'),
  'Container.volumeDevices': byKey('devicePath'),
  'EphemeralContainer.env': byKey('name'),
  'EphemeralContainer.ports': byKey('containerPort', 'protocol'),
  'EphemeralContainer.volumeMounts': byKey('mountPath'),
  'PodStatus.conditions': byKey('type'),
  'PodStatus.podIPs': byKey('ip'),
  'ServiceSpec.ports': byKey('port', 'protocol'),
  'ServiceStatus.conditions': byKey('type'),
  'ServiceAccount.secrets': byKey('name'),
  'NamespaceStatus.conditions': byKey('type'),
  'NodeSpec.podCIDRs': { patch: '', list: { type: 'set' } },
  'NodeStatus.addresses': byKey('type'),
  'NodeStatus.conditions': byKey('type'),
  'DeploymentStatus.conditions': byKey('type'),
  'ReplicaSetStatus.conditions': byKey('type'),
  'DaemonSetStatus.conditions': byKey('type'),
};

const ATOMIC_MAPS = new Set([
  'LabelSelector',
  'NodeSelector',
  'NodeSelectorTerm',
  'LocalObjectReference',
  'ObjectReference',
  'ObjectFieldSelector',
  'ResourceFieldSelector',
  'SecretKeySelector',
  'ConfigMapKeySelector',
  'TypedLocalObjectReference',
  'RoleRef',
  'Subject',
  'EndpointAddress',
  'EndpointPort',
  'ServiceSpec.selector',
  'PodSpec.nodeSelector',
]);

export function listKindOf(type: string, field: string): { type: 'set' | 'map'; keys?: string[] } | undefined {
  return LISTS[`${type}.${field}`]?.list;
}

export function patchKeyOf(type: string, field: string): string | undefined {
  return LISTS[`${type}.${field}`]?.patch;
}

/** @param name a type, or `TYPE.FIELD` */
export function mapKindOf(name: string): 'atomic' | undefined {
  return ATOMIC_MAPS.has(name) ? 'atomic' : undefined;
}

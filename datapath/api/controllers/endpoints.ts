/** EndpointSlices and Endpoints of services: the pods that their selectors choose, ready, serving or terminating. */
import { isDeepStrictEqual } from 'node:util';
import { controllerReference, type Json, type KubeObject, placeOf } from '../object.ts';
import { matchesLabels } from '../selector.ts';
import type { IndexOf } from '../store/index.ts';
import { type Cluster, isReady, shortHash } from './cluster.ts';
import type { Controller } from './manager.ts';

/** Label of a slice: whose it is. */
export const SERVICE_NAME = 'kubernetes.io/service-name';
export const MANAGED_BY = 'endpointslice.kubernetes.io/managed-by';
const MANAGER = 'endpointslice-controller.k8s.io';
const HEADLESS = 'service.kubernetes.io/headless';
const ZONE = 'topology.kubernetes.io/zone';
const MAX_ENDPOINTS = 100; // --max-endpoints-per-slice of kube-controller-manager

const PODS_BY_LABEL: IndexOf = {
  storage: 'pods',
  keysOf: ({ metadata }) =>
    Object.entries(metadata.labels ?? {}).map(([key, value]) => `${metadata.namespace} ${key}=${value}`),
};
const SLICES_BY_SERVICE: IndexOf = {
  storage: 'endpointslices.discovery.k8s.io',
  keysOf: ({ metadata }) => {
    const name = metadata.labels?.[SERVICE_NAME];
    return name === undefined ? [] : [`${metadata.namespace}/${name}`];
  },
};

export const endpoints: Controller = {
  name: 'endpoints',
  *keys(cluster) {
    for (const service of cluster.values('Service')) yield placeOf(service);
  },
  *affected({ storage, place, object, previous }, cluster) {
    if (storage === 'services') yield place;
    if (storage === 'endpointslices.discovery.k8s.io') {
      const name = object.metadata.labels?.[SERVICE_NAME];
      if (name !== undefined) yield `${object.metadata.namespace}/${name}`;
    }
    if (storage !== 'pods' || (previous !== undefined && sameEndpoint(previous, object))) return;
    for (const service of cluster.values('Service')) {
      if (service.metadata.namespace !== object.metadata.namespace || !isMapped(service)) continue;
      const { selector } = service.spec;
      if (matchesLabels(selector, object.metadata.labels) || matchesLabels(selector, previous?.metadata.labels)) {
        yield placeOf(service);
      }
    }
  },
  async reconcile(key, cluster) {
    const [namespace, name] = key.split('/') as [string, string];
    const service = cluster.find('Service', namespace, name);
    // What a service leaves behind is collected by its owner's name.
    if (service === undefined || !isMapped(service)) return undefined;
    const { selector } = service.spec;
    const [[label, value]] = Object.entries(selector) as [[string, string]];
    const chosen = [...cluster.by(PODS_BY_LABEL, `${namespace} ${label}=${value}`)].filter(({ metadata }) =>
      matchesLabels(selector, metadata.labels),
    );
    const pods = chosen.filter(pod => isEndpoint(pod)).sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    const zoneOf = (node: string): string | undefined => cluster.find('Node', undefined, node)?.metadata.labels?.[ZONE];
    await writeSlices(cluster, service, MANAGER, desiredSlices(service, pods, zoneOf));
    await writeEndpoints(cluster, service, desiredSubsets(service, pods));
    return undefined;
  },
};

/** Without a selector, whoever made the service says what its endpoints are. */
export function isMapped({ spec }: KubeObject): boolean {
  return spec.selector !== undefined && Object.keys(spec.selector).length > 0 && spec.type !== 'ExternalName';
}

function isEndpoint({ status }: KubeObject): boolean {
  return status?.podIP !== undefined && status.phase !== 'Succeeded' && status.phase !== 'Failed';
}

function sameEndpoint(a: KubeObject, b: KubeObject): boolean {
  return (
    a.status?.podIP === b.status?.podIP &&
    a.status?.phase === b.status?.phase &&
    a.spec.nodeName === b.spec.nodeName &&
    a.metadata.deletionTimestamp === b.metadata.deletionTimestamp &&
    isReady(a) === isReady(b) &&
    isDeepStrictEqual(a.metadata.labels, b.metadata.labels)
  );
}

/** The number behind a service's port in one pod, or undefined where the pod has no port of that name. */
function targetPort({ targetPort, port, protocol }: Json, pod: KubeObject): number | undefined {
  if (typeof targetPort === 'number') return targetPort;
  if (targetPort === undefined) return port;
  for (const container of pod.spec.containers) {
    const found = (container.ports ?? []).find(
      (candidate: Json) => candidate.name === targetPort && candidate.protocol === protocol,
    );
    if (found !== undefined) return found.containerPort;
  }
  return undefined;
}

/** The ports of a service as one pod has them. */
function portsFor({ spec }: KubeObject, pod: KubeObject): Json[] {
  const ports: Json[] = [];
  for (const port of (spec.ports ?? []) as Json[]) {
    const number = targetPort(port, pod);
    if (number === undefined) continue;
    const appProtocol = port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol };
    ports.push({ name: port.name ?? '', protocol: port.protocol, port: number, ...appProtocol });
  }
  return ports;
}

export interface DesiredSlice {
  ports: Json[];
  endpoints: Json[];
}

/** Pods with the same ports share slices. Pure. @param pods in order of their names */
export function desiredSlices(
  service: KubeObject,
  pods: readonly KubeObject[],
  zoneOf: (node: string) => string | undefined = () => undefined,
): DesiredSlice[] {
  const byPorts = new Map<string, DesiredSlice>();
  const unready = service.spec.publishNotReadyAddresses === true;
  for (const pod of pods) {
    const ports = portsFor(service, pod);
    const key = JSON.stringify(ports);
    let slice = byPorts.get(key);
    if (slice === undefined) {
      slice = { ports, endpoints: [] };
      byPorts.set(key, slice);
    }
    const terminating = pod.metadata.deletionTimestamp !== undefined;
    const serving = isReady(pod);
    const { nodeName, hostname, subdomain } = pod.spec;
    const zone = nodeName === undefined ? undefined : zoneOf(nodeName);
    slice.endpoints.push({
      addresses: [pod.status.podIP],
      conditions: { ready: unready || (serving && !terminating), serving: unready || serving, terminating },
      ...(nodeName === undefined ? {} : { nodeName }),
      ...(zone === undefined ? {} : { zone }),
      ...(hostname !== undefined && subdomain === service.metadata.name ? { hostname } : {}),
      targetRef: referenceTo(pod),
    });
  }
  const slices = [...byPorts.values()].flatMap(({ ports, endpoints: all }) => {
    const pieces: DesiredSlice[] = [];
    for (let start = 0; start < all.length; start += MAX_ENDPOINTS) {
      pieces.push({ ports, endpoints: all.slice(start, start + MAX_ENDPOINTS) });
    }
    return pieces;
  });
  // Also a service that has nobody has a slice.
  return slices.length > 0
    ? slices
    : [{ ports: portsFor(service, { spec: { containers: [] } } as Json), endpoints: [] }];
}

function referenceTo({ metadata }: KubeObject): Json {
  return { kind: 'Pod', namespace: metadata.namespace, name: metadata.name, uid: metadata.uid };
}

/** What `kubectl get endpoints` shows. Pure. */
export function desiredSubsets(service: KubeObject, pods: readonly KubeObject[]): Json[] {
  const byPorts = new Map<string, Json>();
  for (const pod of pods) {
    if (pod.metadata.deletionTimestamp !== undefined) continue;
    const ports = portsFor(service, pod).map(({ name, port, protocol }) => ({
      ...(name === '' ? {} : { name }),
      port,
      protocol,
    }));
    const key = JSON.stringify(ports);
    const subset = byPorts.get(key) ?? { ports };
    byPorts.set(key, subset);
    const address = {
      ip: pod.status.podIP,
      ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
      targetRef: referenceTo(pod),
    };
    const list = isReady(pod) || service.spec.publishNotReadyAddresses === true ? 'addresses' : 'notReadyAddresses';
    subset[list] = [...(subset[list] ?? []), address];
  }
  return [...byPorts.values()];
}

/**
 * Makes the slices of a service what they should be; those of other managers are left alone.
 * @param owner whom they go with: the service, or the Endpoints of its name
 */
export async function writeSlices(
  cluster: Cluster,
  owner: KubeObject,
  manager: string,
  desired: readonly DesiredSlice[],
): Promise<void> {
  const { name, namespace } = owner.metadata;
  const labels: Record<string, string> = {
    ...owner.metadata.labels,
    [SERVICE_NAME]: name,
    [MANAGED_BY]: manager,
    ...(owner.spec?.clusterIP === 'None' ? { [HEADLESS]: '' } : {}),
  };
  const present = [...cluster.by(SLICES_BY_SERVICE, `${namespace}/${name}`)].filter(
    ({ metadata }) => metadata.labels?.[MANAGED_BY] === manager,
  );
  const names = desired.map((_, index) => `${name}-${shortHash(`${owner.metadata.uid} ${index}`).slice(0, 5)}`);
  for (const [index, { ports, endpoints: all }] of desired.entries()) {
    const slice = present.find(({ metadata }) => metadata.name === names[index]);
    if (slice === undefined) {
      await cluster.create('EndpointSlice', {
        metadata: { name: names[index], namespace, labels, ownerReferences: [controllerReference(owner)] },
        addressType: 'IPv4',
        ports,
        endpoints: all,
      });
    } else if (
      !isDeepStrictEqual([slice.ports ?? [], slice.endpoints ?? [], slice.metadata.labels], [ports, all, labels])
    ) {
      await cluster.change(slice, object => ({
        ...object,
        metadata: { ...object.metadata, labels },
        ports,
        endpoints: all,
      }));
    }
  }
  for (const slice of present) if (!names.includes(slice.metadata.name)) await cluster.delete(slice);
}

async function writeEndpoints(cluster: Cluster, service: KubeObject, subsets: Json[]): Promise<void> {
  const { name, namespace } = service.metadata;
  const present = cluster.find('Endpoints', namespace, name);
  const labels = { ...service.metadata.labels, [MANAGED_BY]: MANAGER };
  if (present === undefined) {
    await cluster.create('Endpoints', {
      metadata: { name, namespace, labels, ownerReferences: [controllerReference(service)] },
      subsets,
    });
  } else if (!isDeepStrictEqual(present.subsets ?? [], subsets)) {
    await cluster.change(present, object => ({ ...object, subsets }));
  }
}

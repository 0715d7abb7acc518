/**
 * EndpointSlices of Endpoints that people write by hand for a service without a selector: nodes read slices alone.
 * (kube-controller-manager: pkg/controller/endpointslicemirroring)
 */
import { parseAddress } from '../../control/address.ts';
import { type Json, type KubeObject, placeOf } from '../object.ts';
import type { Cluster } from './cluster.ts';
import { type DesiredSlice, isMapped, MANAGED_BY, SERVICE_NAME, writeSlices } from './endpoints.ts';
import type { Controller } from './manager.ts';

const MANAGER = 'endpointslicemirroring-controller.k8s.io';
const SKIP = 'endpointslice.kubernetes.io/skip-mirror';

export const mirroring: Controller = {
  name: 'endpoint-slice-mirroring',
  *keys(cluster) {
    for (const endpoints of cluster.values('Endpoints')) yield placeOf(endpoints);
  },
  *affected({ storage, place, object }) {
    if (storage === 'services' || storage === 'endpoints') yield place;
    if (storage !== 'endpointslices.discovery.k8s.io') return;
    const { labels, namespace } = object.metadata;
    if (labels?.[MANAGED_BY] === MANAGER) yield `${namespace}/${labels[SERVICE_NAME]}`;
  },
  async reconcile(key, cluster) {
    const [namespace, name] = key.split('/') as [string, string];
    const endpoints = cluster.find('Endpoints', namespace, name);
    // What deleted Endpoints leave behind is collected by their owner's name.
    if (endpoints === undefined || endpoints.metadata.deletionTimestamp !== undefined) return undefined;
    const service = cluster.find('Service', namespace, name);
    const wanted = service !== undefined && !isMapped(service) && endpoints.metadata.labels?.[SKIP] !== 'true';
    await writeSlices(cluster, endpoints, MANAGER, wanted ? mirrored(endpoints) : []);
    if (wanted) await sayWhatIsLeftOut(cluster, endpoints);
    return undefined;
  },
};

/** A slice for each list of ports. Pure. */
export function mirrored({ subsets }: KubeObject): DesiredSlice[] {
  const byPorts = new Map<string, DesiredSlice>();
  for (const { ports = [], addresses = [], notReadyAddresses = [] } of (subsets ?? []) as Json[]) {
    const named = ports.map(({ name = '', ...port }: Json) => ({ name, ...port }));
    const key = JSON.stringify(named);
    const slice: DesiredSlice = byPorts.get(key) ?? { ports: named, endpoints: [] };
    byPorts.set(key, slice);
    for (const [list, ready] of [
      [addresses, true],
      [notReadyAddresses, false],
    ]) {
      for (const { ip, nodeName, hostname, targetRef } of list as Json[]) {
        if (parseAddress(ip) === undefined) continue;
        slice.endpoints.push({
          addresses: [ip],
          conditions: { ready },
          ...(hostname === undefined ? {} : { hostname }),
          ...(nodeName === undefined ? {} : { nodeName }),
          ...(targetRef === undefined ? {} : { targetRef }),
        });
      }
    }
  }
  return [...byPorts.values()];
}

async function sayWhatIsLeftOut(cluster: Cluster, endpoints: KubeObject): Promise<void> {
  const addresses = ((endpoints.subsets ?? []) as Json[]).flatMap(subset => subset.addresses ?? []);
  const left = addresses.flatMap(({ ip }) => (parseAddress(ip) === undefined ? [ip] : []));
  if (left.length === 0) return;
  const message = `${left.join(', ')}: only IPv4 is forwarded`;
  if (cluster.list('Event', endpoints.metadata.namespace).some(event => event.message === message)) return;
  await cluster.event(endpoints, 'Warning', 'NotMirrored', message);
}

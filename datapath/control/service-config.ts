/** Services and their endpoints in a configuration: the schema, and the defaults that depend on other values. */
import { z } from 'zod';
import {
  address,
  choice,
  filled,
  flag,
  labelFault,
  list,
  network,
  objectName,
  port,
  portNameFault,
  record,
  text,
  whole,
} from './schema.ts';

/** A number, or the name of a port of the pods behind the service (IANA_SVC_NAME, as Kubernetes has it). */
const portOrName = z.custom<number | string>(
  value => port.safeParse(value).success || (typeof value === 'string' && portNameFault(value) === undefined),
  { abort: false, error: 'a whole number from 1 to 65535, or the name of a port of the pods such as http' },
);

const servicePort = record({
  name: text(labelFault).optional(),
  protocol: choice('TCP', 'UDP', 'SCTP').default('TCP'),
  port,
  targetPort: portOrName.optional(),
  nodePort: port.optional(), // within spec.nodePortRange: check-services.ts
});

const endpoint = record({
  address,
  port: port.optional(), // default: targetPort
  ports: z.record(z.string(), port, 'a map of ports by the name of the port of the service').optional(),
  ready: flag.default(true),
  serving: flag.optional(),
  terminating: flag.default(false),
  nodeName: filled('the name of a node').optional(),
  zone: filled('the name of a zone').optional(),
  weight: whole(0, 65535).default(1),
});

export const service = record({
  name: objectName,
  type: choice('ClusterIP', 'NodePort', 'LoadBalancer').optional(), // default: by what there is
  clusterIP: address.optional(),
  loadBalancerIPs: list(address).default([]),
  externalIPs: list(address).default([]),
  addresses: list(address).default([]), // short for clusterIP, and several of them
  ports: list(servicePort).min(1, 'at least one port'),
  endpoints: list(endpoint).default([]),
  sessionAffinity: choice('None', 'ClientIP').default('None'),
  sessionAffinityTimeoutSeconds: whole(1, 86400).default(10800), // limits and default of the Kubernetes API
  internalTrafficPolicy: choice('Cluster', 'Local').default('Cluster'),
  externalTrafficPolicy: choice('Cluster', 'Local').default('Cluster'),
  trafficDistribution: choice('PreferClose', 'PreferSameZone', 'PreferSameNode').optional(),
  loadBalancerSourceRanges: list(network).default([]),
  algorithm: choice('random', 'roundRobin', 'weighted', 'maglev').default('random'),
});

type WrittenService = z.output<typeof service>;

export type ServiceType = NonNullable<WrittenService['type']>;

/** What a service is that does not say so. */
export function typeOf(service: {
  type?: ServiceType;
  loadBalancerIPs?: readonly unknown[];
  ports?: readonly ({ nodePort?: number } | undefined)[];
}): ServiceType {
  if (service.type !== undefined) return service.type;
  if ((service.loadBalancerIPs?.length ?? 0) > 0) return 'LoadBalancer';
  return service.ports?.some(port => port?.nodePort !== undefined) ? 'NodePort' : 'ClusterIP';
}

/** Where a service answers, by kind. */
export interface ServiceAddresses<T> {
  cluster: T[];
  loadBalancer: T[];
  external: T[];
}

/**
 * The addresses of a service. Of several that a LoadBalancer has under `addresses` the first is its cluster address, the
 * balancer's stand behind it.
 */
export function addressesOf<T>(service: {
  type?: ServiceType;
  clusterIP?: T;
  addresses?: readonly T[];
  loadBalancerIPs?: readonly T[];
  externalIPs?: readonly T[];
}): ServiceAddresses<T> {
  const { type, clusterIP, addresses = [], loadBalancerIPs = [], externalIPs = [] } = service;
  const own = type === 'LoadBalancer' ? addresses.slice(0, 1) : addresses;
  return {
    cluster: [...(clusterIP === undefined ? [] : [clusterIP]), ...own],
    loadBalancer: [...loadBalancerIPs, ...addresses.slice(own.length)],
    external: [...externalIPs],
  };
}

/** All of them, each once. */
export function allAddressesOf(service: Parameters<typeof addressesOf<string>>[0]): string[] {
  const { cluster, loadBalancer, external } = addressesOf(service);
  return [...new Set([...cluster, ...loadBalancer, ...external])];
}

/** A pod as far as services need it: to find the port that a name means. */
interface NamedPorts {
  address: string;
  ports: readonly { name?: string; containerPort: number; protocol: string }[];
}

/**
 * The port that an endpoint has for a port of its service: the one that it gives by the service port's name, the only one
 * that it gives, or the service's targetPort, where a name means a port of the pod that has the endpoint's address.
 * @returns undefined where it has none: then it is no endpoint of this port
 */
export function endpointPort(
  endpoint: { address?: string; port?: number; ports?: Readonly<Record<string, number | undefined>> },
  servicePort: { name?: string; protocol?: string; port?: number; targetPort?: number | string },
  pods: readonly NamedPorts[],
): number | undefined {
  if (endpoint.ports !== undefined) return endpoint.ports[servicePort.name ?? ''];
  const target = endpoint.port ?? servicePort.targetPort ?? servicePort.port;
  if (typeof target !== 'string') return target;
  const pod = pods.find(({ address }) => address === endpoint.address);
  return pod?.ports.find(({ name, protocol }) => name === target && protocol === servicePort.protocol)?.containerPort;
}

/** @param pods of this node */
export function completeService(service: WrittenService, pods: readonly NamedPorts[]) {
  const ports = service.ports.map(port => ({ ...port, targetPort: port.targetPort ?? port.port }));
  return {
    ...service,
    type: typeOf(service),
    ports,
    endpoints: service.endpoints.map(endpoint => ({
      ...endpoint,
      serving: endpoint.serving ?? endpoint.ready,
      /** For each port of the service, in order. */
      targets: ports.map(port => endpointPort(endpoint, port, pods)),
    })),
  };
}

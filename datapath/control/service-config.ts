/** Services and their endpoints in a configuration: the schema, and the defaults that depend on other values. */
import type { z } from 'zod';
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
  record,
  text,
  whole,
} from './schema.ts';

const servicePort = record({
  name: text(labelFault).optional(),
  protocol: choice('TCP', 'UDP', 'SCTP').default('TCP'),
  port,
  targetPort: port.optional(),
  nodePort: whole(30000, 32767).optional(), // --service-node-port-range of kube-apiserver
});

const endpoint = record({
  address,
  ready: flag.default(true),
  serving: flag.optional(),
  terminating: flag.default(false),
  nodeName: filled('the name of a node').optional(),
  zone: filled('the name of a zone').optional(),
  weight: whole(0, 65535).default(1),
});

export const service = record({
  name: objectName,
  type: choice('ClusterIP', 'NodePort', 'LoadBalancer').default('ClusterIP'),
  addresses: list(address).default([]),
  externalIPs: list(address).default([]),
  ports: list(servicePort).min(1, 'at least one port'),
  endpoints: list(endpoint).default([]),
  sessionAffinity: choice('None', 'ClientIP').default('None'),
  sessionAffinityTimeoutSeconds: whole(1, 86400).default(10800), // limits and default of the Kubernetes API
  internalTrafficPolicy: choice('Cluster', 'Local').default('Cluster'),
  externalTrafficPolicy: choice('Cluster', 'Local').default('Cluster'),
  loadBalancerSourceRanges: list(network).default([]),
  algorithm: choice('random', 'roundRobin', 'weighted', 'maglev').default('random'),
});

type WrittenService = z.output<typeof service>;

export function completeService(service: WrittenService) {
  return {
    ...service,
    ports: service.ports.map(port => ({ ...port, targetPort: port.targetPort ?? port.port })),
    endpoints: service.endpoints.map(endpoint => ({ ...endpoint, serving: endpoint.serving ?? endpoint.ready })),
  };
}

/**
 * Network policies in a configuration: the specs of networking.k8s.io/v1 as they are, each with its name and namespace, and
 * what they are about: the labels of namespaces, and pods of other nodes.
 */
import { z } from 'zod';
import {
  choice,
  labelFault,
  list,
  network,
  objectName,
  podAddress,
  port,
  portNameFault,
  record,
  text,
} from './schema.ts';

const labels = z.record(z.string(), z.string('a text (in quotes)'), 'a map of texts');

const requirement = record({
  key: text(value => (value === '' ? 'the key of a label' : undefined)),
  operator: choice('In', 'NotIn', 'Exists', 'DoesNotExist'),
  values: list(z.string('a text (in quotes)')).default([]),
});

/** A LabelSelector; an empty one selects everything. */
const selector = record({ matchLabels: labels.default({}), matchExpressions: list(requirement).default([]) });

const peer = record({
  podSelector: selector.optional(),
  namespaceSelector: selector.optional(),
  ipBlock: record({ cidr: network, except: list(network).default([]) }).optional(),
});

const policyPort = record({
  protocol: choice('TCP', 'UDP', 'SCTP').default('TCP'),
  port: z
    .custom<number | string>(
      value => port.safeParse(value).success || (typeof value === 'string' && portNameFault(value) === undefined),
      { abort: false, error: 'a whole number from 1 to 65535, or the name of a port of the pods such as http' },
    )
    .optional(),
  endPort: port.optional(),
});

const ports = list(policyPort).default([]);

export const policy = record({
  name: objectName,
  namespace: text(labelFault).default('default'),
  podSelector: selector.default(() => ({ matchLabels: {}, matchExpressions: [] })),
  policyTypes: list(choice('Ingress', 'Egress')).default([]),
  ingress: list(record({ from: list(peer).default([]), ports })).default([]),
  egress: list(record({ to: list(peer).default([]), ports })).default([]),
});

export const namespace = record({ name: text(labelFault), labels: labels.default({}) });

/** As in the containers of a Kubernetes Pod: what named ports mean. */
export const podPort = record({
  name: text(portNameFault).optional(),
  containerPort: port,
  protocol: choice('TCP', 'UDP', 'SCTP').default('TCP'),
});

/** A pod of another node. */
export const remotePod = record({
  name: objectName,
  address: podAddress,
  labels: labels.default({}),
  ports: list(podPort).default([]),
});

export type PolicyConfig = z.output<typeof policy>;
export type SelectorConfig = z.output<typeof selector>;
export type PeerConfig = z.output<typeof peer>;
export type PolicyPortConfig = z.output<typeof policyPort>;
export type NamespaceConfig = z.output<typeof namespace>;
export type PodPortConfig = z.output<typeof podPort>;

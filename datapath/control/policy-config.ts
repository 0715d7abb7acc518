/**
 * Network policies in a configuration: the specs of networking.k8s.io/v1 as they are, each with its name and namespace, and
 * what they are about: the labels of namespaces, and pods of other nodes.
 */
import { z } from 'zod';
import { contains, parseCidr } from './address.ts';
import { type Check, entries, uniqueNames } from './check-draft.ts';
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

/** What the Kubernetes API refuses of policies (pkg/apis/networking/validation). */
export function checkPolicies({ spec, report }: Check): void {
  const unique = uniqueNames(report, 'a name no other policy of its namespace has');
  const namespaces = uniqueNames(report, 'a namespace that is not there yet');
  for (const [i, { name }] of entries(spec.namespaces)) namespaces(name, ['namespaces', i, 'name']);
  const addresses = uniqueNames(report, 'an address no other pod has');
  for (const [i, { address }] of entries(spec.pods)) addresses(address, ['pods', i, 'address']);
  for (const [i, { address }] of entries(spec.remotePods)) addresses(address, ['remotePods', i, 'address']);
  for (const [i, policy] of entries(spec.policies)) {
    const at = ['policies', i];
    unique(policy.name, [...at, 'name'], `${policy.namespace}/`);
    const directions = [
      ['ingress', 'from', entries(policy.ingress).map(([j, rule]) => ({ j, peers: rule.from, ports: rule.ports }))],
      ['egress', 'to', entries(policy.egress).map(([j, rule]) => ({ j, peers: rule.to, ports: rule.ports }))],
    ] as const;
    for (const [direction, list, rules] of directions) {
      for (const { j, peers, ports } of rules) {
        for (const [k, peer] of entries(peers)) {
          const path = [...at, direction, j, list, k];
          const { podSelector, namespaceSelector, ipBlock } = peer;
          if (ipBlock !== undefined && (podSelector !== undefined || namespaceSelector !== undefined)) {
            report(path, 'an ipBlock, or podSelector and namespaceSelector: not both');
          } else if (ipBlock === undefined && podSelector === undefined && namespaceSelector === undefined) {
            report(path, 'a podSelector, a namespaceSelector or an ipBlock');
          }
          const block = ipBlock?.cidr === undefined ? undefined : parseCidr(ipBlock.cidr);
          for (const [l, text] of entries(ipBlock?.except)) {
            const except = parseCidr(text);
            if (block === undefined || except === undefined) continue;
            if (contains(block, except.prefix) && except.length > block.length) continue;
            report([...path, 'ipBlock', 'except', l], `a smaller network within ${ipBlock?.cidr}`);
          }
        }
        for (const [k, { port, endPort }] of entries(ports)) {
          const path = [...at, direction, j, 'ports', k, 'endPort'];
          if (endPort === undefined) continue;
          if (typeof port !== 'number') report(path, 'no endPort without a port that is a number');
          else if (endPort < port) report(path, `a port from ${port} on`);
        }
      }
    }
    for (const [k, requirement] of entries(policy.podSelector?.matchExpressions)) {
      const { operator, values } = requirement;
      const wantsValues = operator === 'In' || operator === 'NotIn';
      if (operator === undefined || values === undefined || wantsValues === values.length > 0) continue;
      const path = [...at, 'podSelector', 'matchExpressions', k, 'values'];
      report(path, wantsValues ? `at least one value: operator is ${operator}` : `no values: operator is ${operator}`);
    }
  }
}

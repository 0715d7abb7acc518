/** Network policies as rows for `tunpath get policies`. */
import { matches, namespaceOf, typesOf } from '../program/compile-policy.ts';
import type { NodeSpec } from './config.ts';

/** One row for each policy: what it is about, and which pods of this node it selects. */
export function policyRows({ policies, pods }: Pick<NodeSpec, 'policies' | 'pods'>): unknown[] {
  return policies.map(policy => ({
    policy: `${policy.namespace}/${policy.name}`,
    types: [...typesOf(policy)].join(','),
    ingressRules: policy.ingress.length,
    egressRules: policy.egress.length,
    selects: pods
      .filter(({ name, labels }) => namespaceOf(name) === policy.namespace && matches(policy.podSelector, labels))
      .map(({ name }) => name),
  }));
}

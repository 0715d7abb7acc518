/** Random policies over three namespaces, for fast-check. */
import fc from 'fast-check';
import type { LabelSelector, NetworkPolicy, Peer } from '../model/policy.ts';

export const NAMESPACES = ['x', 'y', 'z'];
export const PORTS = [1, 79, 80, 81, 100, 443, 8080, 65535];

export const labelValue = fc.constantFrom('a', 'b', 'c');
export const labels = fc.dictionary(fc.constantFrom('app', 'tier'), labelValue, { maxKeys: 2 });
const requirement = fc.oneof(
  fc.record({
    key: fc.constantFrom('app', 'tier'),
    operator: fc.constantFrom('In' as const, 'NotIn' as const),
    values: fc.uniqueArray(labelValue, { minLength: 1, maxLength: 2 }),
  }),
  fc.record({
    key: fc.constantFrom('app', 'tier'),
    operator: fc.constantFrom('Exists' as const, 'DoesNotExist' as const),
  }),
);
const selector: fc.Arbitrary<LabelSelector> = fc.record(
  {
    matchLabels: fc.dictionary(fc.constantFrom('app', 'tier'), labelValue, { maxKeys: 1 }),
    matchExpressions: fc.array(requirement, { maxLength: 1 }),
  },
  { requiredKeys: [] },
);
const namespaceSelector: fc.Arbitrary<LabelSelector> = fc.oneof(
  fc.constant({}),
  fc.record({ matchLabels: fc.record({ team: labelValue }) }),
  fc.record({ matchLabels: fc.record({ 'kubernetes.io/metadata.name': fc.constantFrom(...NAMESPACES) }) }),
);
const protocol = fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const);
const port = fc.oneof(
  fc.record({ protocol }, { requiredKeys: [] }),
  fc.record({ protocol, port: fc.constantFrom(...PORTS) }, { requiredKeys: ['port'] }),
  fc.record({ protocol, port: fc.constantFrom('http', 'dns') }, { requiredKeys: ['port'] }),
  fc
    .tuple(protocol, fc.constantFrom(...PORTS), fc.constantFrom(...PORTS))
    .map(([one, a, b]) => ({ protocol: one, port: Math.min(a, b), endPort: Math.max(a, b) })),
);
const ports = fc.array(port, { maxLength: 2 });
const podPorts = fc.subarray([
  { name: 'http', containerPort: 80, protocol: 'TCP' },
  { name: 'http', containerPort: 81, protocol: 'UDP' },
  { name: 'dns', containerPort: 443, protocol: 'UDP' },
]);

/** A pod without its address. */
export const pod = fc.record({ namespace: fc.constantFrom(...NAMESPACES), labels, ports: podPorts });

/** Labels of some of the namespaces. */
export const namespaces = fc.dictionary(fc.constantFrom(...NAMESPACES), fc.record({ team: labelValue }));

/** A policy of one of the namespaces, without a name. @param blocks what its rules may say by address */
export function policy(blocks: readonly NonNullable<Peer['ipBlock']>[]): fc.Arbitrary<Omit<NetworkPolicy, 'name'>> {
  const peer = fc.oneof(
    fc.record({ podSelector: selector }),
    fc.record({ namespaceSelector }),
    fc.record({ podSelector: selector, namespaceSelector }),
    fc.record({ ipBlock: fc.constantFrom(...blocks) }),
  );
  const peers = fc.array(peer, { maxLength: 2 });
  return fc.record(
    {
      namespace: fc.constantFrom(...NAMESPACES),
      podSelector: selector,
      policyTypes: fc.subarray(['Ingress' as const, 'Egress' as const]),
      ingress: fc.array(fc.record({ from: peers, ports }, { requiredKeys: [] }), { maxLength: 2 }),
      egress: fc.array(fc.record({ to: peers, ports }, { requiredKeys: [] }), { maxLength: 2 }),
    },
    { requiredKeys: ['namespace', 'podSelector'] },
  );
}

/** Gives policies names. */
export function named(policies: readonly Omit<NetworkPolicy, 'name'>[]): NetworkPolicy[] {
  return policies.map((one, i) => ({ ...one, name: `p${i}` }));
}

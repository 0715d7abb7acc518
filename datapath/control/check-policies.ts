/** Network policies of a configuration: what no single value shows. */
import { contains, parseCidr } from './address.ts';
import { type Check, entries, uniqueNames } from './check-draft.ts';

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

/** networking.k8s.io/v1 by the words of its API, one object after the other: slow, and obvious. */

export interface LabelSelector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'; values?: string[] }[];
}

export interface Peer {
  podSelector?: LabelSelector;
  namespaceSelector?: LabelSelector;
  ipBlock?: { cidr: string; except?: string[] };
}

export interface PolicyPort {
  protocol?: 'TCP' | 'UDP' | 'SCTP';
  port?: number | string;
  endPort?: number;
}

export interface NetworkPolicy {
  name: string;
  namespace: string;
  podSelector: LabelSelector;
  policyTypes?: ('Ingress' | 'Egress')[];
  ingress?: { from?: Peer[]; ports?: PolicyPort[] }[];
  egress?: { to?: Peer[]; ports?: PolicyPort[] }[];
}

export interface ModelPod {
  namespace: string;
  address: string;
  labels: Record<string, string>;
  ports: { name: string; containerPort: number; protocol: string }[];
}

export interface Cluster {
  policies: NetworkPolicy[];
  namespaces: Record<string, Record<string, string>>;
  pods: ModelPod[];
  /** Addresses of the node. */
  own: string[];
}

/** A flow as it begins: protocol TCP, UDP, SCTP or another. */
export interface ModelFlow {
  src: string;
  dst: string;
  protocol: string;
  port: number;
}

/** May the flow leave its pod, or enter it? */
export function isAllowed(cluster: Cluster, direction: 'egress' | 'ingress', flow: ModelFlow): boolean {
  const { src, dst } = flow;
  const podAddress = direction === 'egress' ? src : dst;
  const peerAddress = direction === 'egress' ? dst : src;
  const pod = cluster.pods.find(({ address }) => address === podAddress);
  // Not a pod: nothing selects it. A pod and its node, and a pod and itself, are never kept apart.
  if (pod === undefined || src === dst || cluster.own.includes(peerAddress)) return true;
  const selecting = cluster.policies.filter(
    policy =>
      policy.namespace === pod.namespace && selects(policy.podSelector, pod.labels) && isAbout(policy, direction),
  );
  if (selecting.length === 0) return true;
  return selecting.some(policy => {
    const rules =
      direction === 'egress'
        ? (policy.egress ?? []).map(rule => ({ peers: rule.to, ports: rule.ports }))
        : (policy.ingress ?? []).map(rule => ({ peers: rule.from, ports: rule.ports }));
    return rules.some(({ peers, ports }) => {
      const target = cluster.pods.find(({ address }) => address === dst);
      return (
        (isEmpty(peers) || peers!.some(peer => isPeer(cluster, policy, peer, peerAddress))) &&
        (isEmpty(ports) || ports!.some(port => isPort(port, flow, target)))
      );
    });
  });
}

function isEmpty(list: unknown[] | undefined): boolean {
  return list === undefined || list.length === 0;
}

function isAbout(policy: NetworkPolicy, direction: 'egress' | 'ingress'): boolean {
  if (!isEmpty(policy.policyTypes)) return policy.policyTypes!.includes(direction === 'egress' ? 'Egress' : 'Ingress');
  return direction === 'ingress' || !isEmpty(policy.egress);
}

function selects(selector: LabelSelector, labels: Record<string, string>): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) if (labels[key] !== value) return false;
  for (const { key, operator, values } of selector.matchExpressions ?? []) {
    const has = key in labels;
    if (operator === 'Exists' && !has) return false;
    if (operator === 'DoesNotExist' && has) return false;
    if (operator === 'In' && !(has && values!.includes(labels[key]))) return false;
    if (operator === 'NotIn' && has && values!.includes(labels[key])) return false;
  }
  return true;
}

function isPeer(cluster: Cluster, policy: NetworkPolicy, peer: Peer, address: string): boolean {
  if (peer.ipBlock !== undefined) {
    return isIn(peer.ipBlock.cidr, address) && !(peer.ipBlock.except ?? []).some(cidr => isIn(cidr, address));
  }
  const pod = cluster.pods.find(one => one.address === address);
  if (pod === undefined) return false;
  const namespaceLabels = { 'kubernetes.io/metadata.name': pod.namespace, ...cluster.namespaces[pod.namespace] };
  if (peer.namespaceSelector === undefined) {
    if (pod.namespace !== policy.namespace) return false;
  } else if (!selects(peer.namespaceSelector, namespaceLabels)) return false;
  return peer.podSelector === undefined || selects(peer.podSelector, pod.labels);
}

function isPort(wanted: PolicyPort, flow: ModelFlow, target: ModelPod | undefined): boolean {
  const { protocol = 'TCP', port, endPort } = wanted;
  if (flow.protocol !== protocol) return false;
  if (port === undefined) return true;
  if (typeof port === 'number') return flow.port >= port && flow.port <= (endPort ?? port);
  return (target?.ports ?? []).some(
    one => one.name === port && one.protocol === protocol && one.containerPort === flow.port,
  );
}

function isIn(cidr: string, address: string): boolean {
  const [network, length] = cidr.split('/');
  const bits = (text: string) =>
    text
      .split('.')
      .map(part => Number(part).toString(2).padStart(8, '0'))
      .join('');
  return bits(network).slice(0, Number(length)) === bits(address).slice(0, Number(length));
}

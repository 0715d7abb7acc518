/** What NetworkPolicies mean to a node: `spec.policies`, `namespaces` and `remotePods` of its configuration. Pure. */
import { parseAddress } from '../../control/address.ts';
import { type Json, type KubeObject, placeOf } from '../object.ts';

export interface CompiledPolicies {
  policies: Json[];
  /** Both empty where there is no policy: then nobody asks who a pod is. */
  namespaces: Json[];
  remotePods: Json[];
}

/** @param others pods of other nodes */
export function compilePolicies(
  policies: readonly KubeObject[],
  namespaces: readonly KubeObject[],
  others: readonly KubeObject[],
): CompiledPolicies {
  if (policies.length === 0) return { policies: [], namespaces: [], remotePods: [] };
  return {
    policies: policies
      .map(policy => once(madeOfPolicy, policy, compilePolicy))
      .sort((a, b) => (placeOf({ metadata: a }) < placeOf({ metadata: b }) ? -1 : 1)),
    namespaces: namespaces.map(({ metadata }) => ({ name: metadata.name, labels: metadata.labels ?? {} })),
    remotePods: others.flatMap(pod => once(madeOfPod, pod, remotePod) ?? []),
  };
}

/** What has been made of an object: nobody changes either, and a change is another object. */
const madeOfPolicy = new WeakMap<KubeObject, Json>();
const madeOfPod = new WeakMap<KubeObject, Json>();

function once(known: WeakMap<KubeObject, Json>, object: KubeObject, make: (object: KubeObject) => Json): Json {
  if (known.has(object)) return known.get(object);
  const made = make(object);
  known.set(object, made);
  return made;
}

/** @returns undefined for one that no policy of another node is about */
function remotePod(pod: KubeObject): Json {
  const address = pod.status?.podIP;
  const ended = pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
  if (ended || pod.spec.hostNetwork === true || address === undefined || parseAddress(address) === undefined)
    return undefined;
  return { name: placeOf(pod), address, labels: pod.metadata.labels ?? {}, ports: namedPorts(pod) };
}

/** What named ports of policies mean in a pod. */
export function namedPorts(pod: KubeObject): Json[] {
  return pod.spec.containers.flatMap((container: Json) =>
    (container.ports ?? []).map(({ name, containerPort, protocol }: Json) => ({
      ...(name === undefined ? {} : { name }),
      containerPort,
      protocol,
    })),
  );
}

function compilePolicy({ metadata, spec }: KubeObject): Json {
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    podSelector: spec.podSelector,
    policyTypes: spec.policyTypes,
    ingress: rulesOf(spec.ingress, 'from'),
    egress: rulesOf(spec.egress, 'to'),
  };
}

/** Blocks of IPv6 hold no packet here. A rule of which nothing is left allows nothing; without peers it would allow all. */
function rulesOf(rules: Json[] | undefined, side: 'from' | 'to'): Json[] {
  return (rules ?? []).flatMap(rule => {
    const peers: Json[] = rule[side] ?? [];
    const kept = peers.filter(({ ipBlock }) => ipBlock === undefined || !String(ipBlock.cidr).includes(':'));
    if (peers.length > 0 && kept.length === 0) return [];
    return [{ [side]: kept, ports: rule.ports ?? [] }];
  });
}

/**
 * Security identities: one number for each set of labels, the same for good (CiliumIdentity), and for each pod with an address
 * a CiliumEndpoint that says which it has.
 */
import { controllerReference, type Json, type KubeObject } from '../object.ts';
import type { IndexOf } from '../store/index.ts';
import type { Cluster } from './cluster.ts';
import { isActive } from './cluster.ts';
import { type Controller, EACH_POD } from './manager.ts';

const FIRST = 256; // below are reserved ones
const LAST = 65535;
const BY_LABELS: IndexOf = {
  storage: 'ciliumidentities.cilium.io',
  keysOf: identity => [JSON.stringify(identity['security-labels'])],
};
const MANAGED = 'app.kubernetes.io/managed-by';
/** Labels that change from pod to pod, or with every rollout, say nothing of who a pod is. */
const IGNORED =
  /^(pod-template-hash|controller-revision-hash|pod-template-generation|statefulset\.kubernetes\.io\/.*|batch\.kubernetes\.io\/.*|job-name|controller-uid)$/;

export const identities: Controller = {
  name: 'identity',
  keys: EACH_POD.keys,
  *affected({ storage, place }) {
    if (storage === 'pods' || storage === 'ciliumendpoints.cilium.io') yield place;
  },
  async reconcile(key, cluster) {
    const [namespace, name] = key.split('/') as [string, string];
    const pod = cluster.find('Pod', namespace, name);
    const address = pod?.status?.podIP;
    if (pod === undefined || address === undefined || pod.spec.hostNetwork === true || !isActive(pod)) return undefined;
    const labels = identityLabels(pod);
    const id = await identityOf(cluster, labels);
    const status = {
      id: Number(BigInt(`0x${pod.metadata.uid!.replaceAll('-', '').slice(0, 4)}`) % 65536n),
      state: 'ready',
      identity: { id, labels },
      networking: {
        addressing: [{ ipv4: address }],
        ...(pod.status.hostIP === undefined ? {} : { node: pod.status.hostIP }),
      },
      'external-identifiers': { 'k8s-namespace': namespace, 'k8s-pod-name': name, 'pod-name': key },
      'named-ports': pod.spec.containers.flatMap((container: Json) =>
        (container.ports ?? [])
          .filter((port: Json) => port.name !== undefined)
          .map((port: Json) => ({ name: port.name, port: port.containerPort, protocol: port.protocol })),
      ),
    };
    let endpoint = cluster.find('CiliumEndpoint', namespace, name);
    endpoint ??= await cluster.create('CiliumEndpoint', {
      metadata: { name, namespace, labels: pod.metadata.labels, ownerReferences: [controllerReference(pod)] },
    });
    if (endpoint !== undefined) await cluster.setStatus(endpoint, status);
    return undefined;
  },
};

/** `k8s:app=web` and the like, sorted. Pure. */
export function identityLabels({ metadata, spec }: KubeObject): string[] {
  const labels = Object.entries(metadata.labels ?? {}).filter(([key]) => !IGNORED.test(key));
  return [
    ...labels.map(([key, value]) => `k8s:${key}=${value}`),
    `k8s:io.cilium.k8s.policy.serviceaccount=${spec.serviceAccountName ?? 'default'}`,
    `k8s:io.kubernetes.pod.namespace=${metadata.namespace}`,
  ].sort();
}

/** The number of a set of labels, given the first time that it is met. */
export async function identityOf(cluster: Cluster, labels: readonly string[]): Promise<number> {
  const wanted = Object.fromEntries(labels.map(label => splitLabel(label)));
  const [known] = cluster.by(BY_LABELS, JSON.stringify(wanted));
  if (known !== undefined) return Number(known.metadata.name);
  // Where none was ever taken back, this is the first that is free.
  const likely = FIRST + cluster.registry.store.countOf(BY_LABELS.storage!);
  for (let n = 0; n <= LAST - FIRST; n++) {
    const id = FIRST + ((likely - FIRST + n) % (LAST - FIRST + 1));
    if (cluster.find('CiliumIdentity', undefined, `${id}`) !== undefined) continue;
    const made = await cluster.create('CiliumIdentity', {
      metadata: { name: `${id}`, labels: { [MANAGED]: 'tunpath' } },
      'security-labels': wanted,
    });
    if (made !== undefined) return id;
  }
  throw new Error('no identity is left');
}

function splitLabel(label: string): [string, string] {
  const equals = label.indexOf('=');
  return [label.slice(0, equals), label.slice(equals + 1)];
}

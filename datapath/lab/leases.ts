/** The leases of a lab's nodes, renewed as long as each node's datapath answers; without, a node is not ready. */
import { withCondition } from '../api/controllers/cluster.ts';
import { type Json, microTime } from '../api/object.ts';
import type { Kubelet } from './pods/kubelet.ts';

/** As kubelet's. */
const RENEW_MS = 10_000;
const LEASE_SECONDS = 40;

/** Returns when each has been renewed once. */
export async function renewLeases(kubelet: Kubelet, nodes: readonly string[]): Promise<{ stop(): void }> {
  const { cluster } = kubelet;
  const renew = async (name: string): Promise<void> => {
    if (!(await kubelet.isAlive(name))) return;
    const renewTime = microTime(cluster.nowMs);
    const spec = { holderIdentity: name, leaseDurationSeconds: LEASE_SECONDS, renewTime };
    const lease = cluster.find('Lease', 'kube-node-lease', name);
    if (lease === undefined) await cluster.create('Lease', { metadata: { name, namespace: 'kube-node-lease' }, spec });
    else await cluster.change(lease, object => ({ ...object, spec: { ...object.spec, ...spec } }));
    const node = cluster.find('Node', undefined, name);
    const ready = (node?.status?.conditions ?? []).find(({ type }: Json) => type === 'Ready');
    if (node === undefined || ready?.status === 'True') return;
    const condition = {
      type: 'Ready',
      status: 'True',
      reason: 'KubeletReady',
      message: 'the datapath of the node runs',
    };
    await cluster.setStatus(node, { conditions: withCondition(node.status?.conditions, condition, cluster.now) });
  };
  const renewAll = async (): Promise<void> => {
    await Promise.all(
      nodes.map(name => renew(name).catch(error => kubelet.onError(`lease of ${name}: ${error.message}`))),
    );
  };
  await renewAll();
  const timer = setInterval(() => void renewAll(), RENEW_MS);
  return { stop: () => clearInterval(timer) };
}

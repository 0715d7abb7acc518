/** Nodes: which pod network each has, and whether it lives, by the lease that it renews. */
import { formatAddress, formatCidr, parseCidr } from '../../control/address.ts';
import type { Json, KubeObject } from '../object.ts';
import { type Cluster, isActive, withCondition } from './cluster.ts';
import type { Controller } from './manager.ts';

/** As kube-controller-manager's --node-monitor-grace-period. */
export const NODE_GRACE_MS = 40_000;

export interface IpamOptions {
  /** Where pods' networks come from; undefined: nodes come with theirs. */
  clusterCidr?: string;
  /** Prefix length of one node's. */
  nodeMask?: number;
}

/** Gives each node a part of the cluster's pod network. */
export function nodeIpam({ clusterCidr, nodeMask = 24 }: IpamOptions): Controller {
  return {
    name: 'node-ipam',
    *keys(cluster) {
      for (const { metadata } of cluster.values('Node')) yield metadata.name;
    },
    *affected({ storage, place, type }) {
      if (storage === 'nodes' && type !== 'DELETED') yield place;
    },
    async reconcile(name, cluster) {
      const node = cluster.find('Node', undefined, name);
      if (node === undefined || clusterCidr === undefined || node.spec?.podCIDR !== undefined) return undefined;
      const podCIDR = freeNetwork(
        clusterCidr,
        nodeMask,
        [...cluster.values('Node')].map(({ spec }) => spec?.podCIDR),
      );
      if (podCIDR === undefined) {
        await cluster.event(node, 'Warning', 'CIDRNotAvailable', `Node ${name} status is now: CIDRNotAvailable`);
        return undefined;
      }
      await cluster.change(node, object => ({ ...object, spec: { ...object.spec, podCIDR, podCIDRs: [podCIDR] } }));
      return undefined;
    },
  };
}

/** The first part of a network that is nobody's. Pure. */
export function freeNetwork(cidr: string, mask: number, taken: readonly (string | undefined)[]): string | undefined {
  const { prefix, length } = parseCidr(cidr)!;
  const size = 2 ** (32 - mask);
  const used = taken.flatMap(text => (text === undefined ? [] : [parseCidr(text)!]));
  for (let index = 0; index < 2 ** Math.max(0, mask - length); index++) {
    const start = (prefix + index * size) >>> 0;
    const meets = used.some(other => {
      const first = other.prefix >>> 0;
      return first < start + size && start < first + 2 ** (32 - other.length);
    });
    if (!meets) return formatCidr(start | 0, mask);
  }
  return undefined;
}

/** An address of a node's network for a pod: neither its first two nor its last. Pure. @returns undefined when all are taken */
export function freePodAddress(cidr: string, taken: ReadonlySet<string>): string | undefined {
  const { prefix, length } = parseCidr(cidr)!;
  for (let offset = 2; offset < 2 ** (32 - length) - 1; offset++) {
    const address = formatAddress((prefix + offset) | 0);
    if (!taken.has(address)) return address;
  }
  return undefined;
}

/** A node whose lease is not renewed is not known to be ready, nor are its pods. */
export const nodeLifecycle: Controller = {
  name: 'node-lifecycle',
  *keys(cluster) {
    for (const { metadata } of cluster.values('Node')) yield metadata.name;
  },
  *affected({ storage, place, object }) {
    if (storage === 'nodes') yield place;
    if (storage === 'leases.coordination.k8s.io' && object.metadata.namespace === 'kube-node-lease')
      yield object.metadata.name;
  },
  async reconcile(name, cluster) {
    const node = cluster.find('Node', undefined, name);
    const lease = cluster.find('Lease', 'kube-node-lease', name);
    // A node without a lease is one that somebody has made by hand: it is as it says.
    if (node === undefined || lease === undefined) return undefined;
    const age = cluster.nowMs - Date.parse(lease.spec?.renewTime);
    if (age < NODE_GRACE_MS) return NODE_GRACE_MS - age + 1;
    const ready = (node.status?.conditions ?? []).find(({ type }: Json) => type === 'Ready');
    if (ready?.status !== 'True') return undefined;
    await cluster.setStatus(node, {
      conditions: withCondition(
        node.status?.conditions,
        {
          type: 'Ready',
          status: 'Unknown',
          reason: 'NodeStatusUnknown',
          message: 'Kubelet stopped posting node status.',
        },
        cluster.now,
      ),
    });
    await cluster.event(node, 'Normal', 'NodeNotReady', `Node ${name} status is now: NodeNotReady`);
    for (const pod of podsOn(cluster, name)) {
      const condition = { type: 'Ready', status: 'False' };
      await cluster.setStatus(pod, { conditions: withCondition(pod.status?.conditions, condition, cluster.now) });
    }
    return undefined;
  },
};

function podsOn(cluster: Cluster, node: string): KubeObject[] {
  return cluster.list('Pod').filter(pod => pod.spec.nodeName === node && isActive(pod));
}

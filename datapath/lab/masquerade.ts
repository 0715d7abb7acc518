/** Which packets of pods leave under their node's address: the rules of each system, as a node's configuration has them. */

import { addressOf, type LabNode, type Topology } from './topology.ts';

/** One rule of a NodeConfig. */
export interface MasqueradeRule {
  from?: string[];
  notFrom?: string[];
  to?: string[];
  notTo?: string[];
  mark?: string;
  action?: 'RETURN';
  randomFully?: boolean;
}

const MULTICAST = '224.0.0.0/4';

export function masqueradeRules(topology: Topology, node: LabNode): MasqueradeRule[] {
  const { clusterCidr, inside, nodes } = topology;
  const pods = node.podCidr;
  switch (topology.masquerade) {
    case 'cilium':
      // ipv4NativeRoutingCIDR; and what goes to another node keeps the pod's address, too.
      return [{ from: [pods], notTo: [...inside, ...nodes.map(other => `${addressOf(other.address)}/32`)] }];
    case 'calico':
      // natOutgoing: from a pool that has it, to none of all pools. Without a word about nodes, so those see a node.
      return [{ from: [clusterCidr], notTo: [...inside], randomFully: true }];
    case 'flannel':
      return flannelChain(clusterCidr, pods);
    case 'aws':
      return [{ from: [pods], notTo: [...inside], randomFully: true }];
  }
}

/** FLANNEL-POSTRTG of flannel's pkg/trafficmngr/iptables, rule by rule. */
function flannelChain(cluster: string, pods: string): MasqueradeRule[] {
  return [
    // kube-proxy has seen to what carries its mark. The article prints the rule without the match: it would return all.
    { mark: '0x4000/0x4000', action: 'RETURN' },
    { from: [pods], to: [cluster], action: 'RETURN' },
    { from: [cluster], to: [pods], action: 'RETURN' },
    { notFrom: [cluster], to: [pods], action: 'RETURN' },
    { from: [cluster], notTo: [MULTICAST], randomFully: true },
    { notFrom: [cluster], to: [cluster], randomFully: true },
  ];
}

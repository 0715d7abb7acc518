/** Which packets of pods leave under their node's address: the rules of each system, as a node's configuration has them. */

import { masqueradeOf } from '../api/agent/node-network.ts';
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

export function masqueradeRules(topology: Topology, node: LabNode): MasqueradeRule[] {
  const { clusterCidr, inside, nodes, masquerade: style } = topology;
  // The VPC CNI: like natOutgoing, from the node's own pods.
  if (style === 'aws') return [{ from: [node.podCidr], notTo: [...inside], randomFully: true }];
  const addresses = nodes.map(({ address }) => addressOf(address));
  return masqueradeOf({ system: style, masquerade: { from: [clusterCidr], inside } }, [node.podCidr], addresses)!;
}

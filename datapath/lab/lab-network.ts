/** Makes a lab's nodes follow the switches of its cluster's network, and says of each switch what is not carried out. */
import { type Network, networkOf, poolOf, type System, type Told } from '../api/agent/network.ts';
import { atRest } from '../api/agent/node-network.ts';
import type { Cluster } from '../api/controllers/cluster.ts';
import type { Controller } from '../api/controllers/manager.ts';
import type { NodeAgent } from './pods/node-agent.ts';

const KEY = 'network';
const FOLLOWED = new Set(['configmaps', 'ippools.projectcalico.org', 'nodes']);

export class LabNetwork {
  private readonly cluster: Cluster;
  private readonly system: System | undefined;
  private readonly agents: ReadonlyMap<string, NodeAgent>;
  private current: Network | undefined;
  private told = new Set<string>();

  /** @param system whose switches count; undefined: of whom there is one */
  constructor(cluster: Cluster, system: System | undefined, agents: ReadonlyMap<string, NodeAgent>) {
    this.cluster = cluster;
    this.system = system;
    this.agents = agents;
  }

  /** Whether pods of that network get no address any more. */
  isClosed(podCidr: string): boolean {
    const { closed = [] } = this.current ?? {};
    return (
      poolOf(
        closed.map(cidr => ({ cidr, encap: null, direct: false })),
        podCidr,
      ) !== undefined
    );
  }

  readonly controller: Controller = {
    name: 'network',
    *keys() {
      yield KEY;
    },
    *affected({ storage }) {
      if (FOLLOWED.has(storage)) yield KEY;
    },
    reconcile: async () => {
      const { network, faults, remarks } = this.look();
      await this.tell(faults, 'Warning', 'NetworkRefused');
      await this.tell(remarks, 'Normal', 'NotCarriedOut');
      this.told = new Set([...faults, ...remarks].map(keyOf));
      if (network === null || JSON.stringify(network) === JSON.stringify(this.current)) return undefined;
      this.current = network;
      for (const agent of this.agents.values()) agent.follow(atRest(network));
      return undefined;
    },
  };

  private look(): ReturnType<typeof networkOf> {
    const configMaps = ['kube-flannel', 'kube-system'].flatMap(namespace => this.cluster.list('ConfigMap', namespace));
    const objects = { configMaps, pools: this.cluster.list('IPPool'), nodes: this.cluster.list('Node') };
    return networkOf(objects, this.system);
  }

  private async tell(list: readonly Told[], type: 'Normal' | 'Warning', reason: string): Promise<void> {
    for (const one of list) {
      if (this.told.has(keyOf(one))) continue;
      const { kind, namespace, name } = one.source;
      const object = this.cluster.find(kind, namespace, name);
      if (object === undefined) continue;
      const stays = type === 'Warning' ? '; all stays as it was' : '';
      await this.cluster.event(object, type, reason, `${one.message}${stays}`);
    }
  }
}

function keyOf({ source, message }: Told): string {
  return `${source.kind} ${source.namespace ?? ''}/${source.name} ${message}`;
}

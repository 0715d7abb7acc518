/** All controllers of a cluster. */
import type { Registry } from '../server/registry.ts';
import { Cluster } from './cluster.ts';
import { endpoints } from './endpoints.ts';
import { garbage, namespaces } from './garbage.ts';
import { identities } from './identities.ts';
import { loadBalancers } from './load-balancers.ts';
import { type Controller, Manager } from './manager.ts';
import { mirroring } from './mirroring.ts';
import { type IpamOptions, nodeIpam, nodeLifecycle } from './nodes.ts';
import { fitsNode, scheduler } from './scheduler.ts';
import { daemonSets, deployments, replicaSets } from './workloads.ts';

/** @param onError what a controller could not do, and will try again */
export function startControllers(registry: Registry, ipam: IpamOptions, onError: (text: string) => void): Manager {
  const controllers: Controller[] = [
    garbage,
    namespaces,
    nodeIpam(ipam),
    nodeLifecycle,
    deployments,
    replicaSets,
    daemonSets(fitsNode),
    scheduler,
    endpoints,
    mirroring,
    loadBalancers,
    identities,
  ];
  return new Manager(registry.store, new Cluster(registry), controllers, onError);
}

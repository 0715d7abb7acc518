/**
 * How names of hosts resolve on a lab's machines and those of services in its pods: files that `ip netns exec` mounts over those in /etc. Where the cluster has
 * a name server, resolv.conf points there as in a pod; elsewhere a hosts file lists the services.
 */

import { mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { namespaceOf, namespacePrefix } from './names.ts';
import { CLUSTER_DOMAIN, dnsNameOf, endpointsOf, machinesOf, type Topology } from './topology.ts';

/** Where `ip netns exec` looks for files of a namespace. */
export const NETNS_FILES = '/etc/netns';

/** For programs that are started on the hosts and in the pods from now on. */
export function writeNameFiles(lab: string, topology: Topology): void {
  for (const { name } of machinesOf(topology)) {
    const directory = `${NETNS_FILES}/${namespaceOf(lab, name)}`;
    mkdirSync(directory, { recursive: true });
    writeFileSync(`${directory}/hosts`, machinesFile(topology));
  }
  for (const pod of topology.pods.filter(({ memory }) => memory === undefined)) {
    const directory = `${NETNS_FILES}/${namespaceOf(lab, pod.name)}`;
    mkdirSync(directory, { recursive: true });
    const server = nameServerOf(topology);
    if (server === undefined) writeFileSync(`${directory}/hosts`, hostsFile(topology));
    else writeFileSync(`${directory}/resolv.conf`, resolvConf(server));
  }
}

/** Also those of a lab that a killed process left. */
export function removeNameFiles(lab: string): void {
  let entries: string[];
  try {
    entries = readdirSync(NETNS_FILES);
  } catch {
    return; // there is none
  }
  const own = entries.filter(entry => entry.startsWith(namespacePrefix(lab)));
  for (const entry of own) rmSync(`${NETNS_FILES}/${entry}`, { recursive: true, force: true });
  if (own.length === 0) return;
  try {
    rmdirSync(NETNS_FILES);
  } catch {
    // Others' files are in it.
  }
}

/** Cluster address of the service in front of the name server. */
function nameServerOf(topology: Topology): string | undefined {
  const server = topology.pods.find(pod => pod.dns);
  if (server === undefined) return undefined;
  return topology.services.find(service => endpointsOf(topology, service).includes(server.address))?.address;
}

/** The machines of the lab, for each other. */
function machinesFile(topology: Topology): string {
  const lines = machinesOf(topology).map(({ name, addresses }) => `${addresses[0]} ${name}`);
  return ['127.0.0.1 localhost', ...lines, ''].join('\n');
}

function hostsFile({ services }: Topology): string {
  const lines = services.map(service => {
    const [namespace, name] = service.name.split('/');
    return `${service.address} ${[dnsNameOf(service), `${name}.${namespace}`, name].join(' ')}`;
  });
  return ['127.0.0.1 localhost', ...lines, ''].join('\n');
}

/** As kubelet writes it for a pod of namespace `default`. */
function resolvConf(server: string): string {
  const search = ['default.svc', 'svc', ''].map(prefix =>
    prefix === '' ? CLUSTER_DOMAIN : `${prefix}.${CLUSTER_DOMAIN}`,
  );
  return `search ${search.join(' ')}\nnameserver ${server}\noptions ndots:5\n`;
}

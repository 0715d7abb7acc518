/**
 * How names of services resolve in a lab's pods as the API has them: the hosts files that `ip netns exec` mounts over /etc/hosts,
 * and the zone file that name servers read.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { Cluster } from '../../api/controllers/cluster.ts';
import type { Json, KubeObject } from '../../api/object.ts';
import { NETNS_FILES } from '../name-files.ts';
import { CLUSTER_DOMAIN } from '../topology.ts';

const DEBOUNCE_MS = 50;

export interface NamedService {
  name: string;
  namespace: string;
  addresses: string[];
}

/** Every name with an address: services, and the endpoints of headless ones. Pure. */
export function namedServices(services: readonly KubeObject[], slices: readonly KubeObject[]): NamedService[] {
  return services.flatMap(({ metadata, spec }) => {
    const { name, namespace } = metadata as { name: string; namespace: string };
    if (spec.type === 'ExternalName' || spec.clusterIP === undefined) return [];
    if (spec.clusterIP !== 'None') return [{ name, namespace, addresses: [spec.clusterIP] }];
    const addresses = slices
      .filter(
        slice =>
          slice.metadata.namespace === namespace && slice.metadata.labels?.['kubernetes.io/service-name'] === name,
      )
      .flatMap(({ endpoints }) => endpoints ?? [])
      .filter(({ conditions }: Json) => conditions?.ready !== false || spec.publishNotReadyAddresses === true)
      .flatMap((endpoint: Json) => endpoint.addresses as string[]);
    return addresses.length === 0 ? [] : [{ name, namespace, addresses }];
  });
}

/** /etc/hosts of a pod: short names are of its own namespace. Pure. */
export function hostsFile(services: readonly NamedService[], namespace: string): string {
  const lines = services.flatMap(({ name, namespace: of, addresses }) => {
    const names = [
      `${name}.${of}.svc.${CLUSTER_DOMAIN}`,
      `${name}.${of}.svc`,
      `${name}.${of}`,
      ...(of === namespace ? [name] : []),
    ];
    return addresses.map(address => `${address} ${names.join(' ')}`);
  });
  return ['127.0.0.1 localhost', ...lines, ''].join('\n');
}

/** Lines of NAME=ADDRESS for dns-server.ts. Pure. */
export function zoneFile(services: readonly NamedService[]): string {
  return services
    .flatMap(({ name, namespace, addresses }) =>
      addresses.map(address => `${name}.${namespace}.svc.${CLUSTER_DOMAIN}=${address}\n`),
    )
    .join('');
}

export class PodNames {
  readonly zone: { domain: string; file: string };
  private readonly cluster: Cluster;
  private readonly dns: boolean;
  /** By network namespace, the Kubernetes namespace whose short names it has. */
  private readonly pods = new Map<string, string>();
  private timer: NodeJS.Timeout | undefined;

  /** @param dns pods ask a name server instead */
  constructor(cluster: Cluster, zone: string, dns: boolean) {
    this.cluster = cluster;
    this.zone = { domain: CLUSTER_DOMAIN, file: zone };
    this.dns = dns;
  }

  /** For programs that are started in the namespace from now on. */
  write(netns: string, namespace: string): void {
    this.pods.set(netns, namespace);
    const directory = `${NETNS_FILES}/${netns}`;
    mkdirSync(directory, { recursive: true });
    if (this.dns) writeFileSync(`${directory}/resolv.conf`, this.resolvConf(namespace));
    else writeFileSync(`${directory}/hosts`, hostsFile(this.services(), namespace));
  }

  remove(netns: string): void {
    this.pods.delete(netns);
    rmSync(`${NETNS_FILES}/${netns}`, { recursive: true, force: true });
  }

  /** A pod that has its files already. */
  follow(netns: string, namespace: string): void {
    this.pods.set(netns, namespace);
  }

  /** Changes of one moment are written together. */
  changed(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.refresh();
    }, DEBOUNCE_MS);
  }

  /** Says what is new, also to programs that run: the files stay the same files. */
  refresh(): void {
    const services = this.services();
    writeFileSync(this.zone.file, zoneFile(services));
    if (this.dns) return;
    for (const [netns, namespace] of this.pods) {
      try {
        writeFileSync(`${NETNS_FILES}/${netns}/hosts`, hostsFile(services, namespace));
      } catch {
        // The pod goes just now.
      }
    }
  }

  private services(): NamedService[] {
    return namedServices(this.cluster.list('Service'), this.cluster.list('EndpointSlice'));
  }

  /** As kubelet writes it. */
  private resolvConf(namespace: string): string {
    const server = this.cluster.find('Service', 'kube-system', 'kube-dns')?.spec.clusterIP ?? '10.96.0.10';
    return `search ${namespace}.svc.${CLUSTER_DOMAIN} svc.${CLUSTER_DOMAIN} ${CLUSTER_DOMAIN}\nnameserver ${server}\noptions ndots:5\n`;
  }
}

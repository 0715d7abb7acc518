/** One API with its store: what a lab or a test starts. */
import { randomInt } from 'node:crypto';
import { formatAddress, parseCidr } from '../control/address.ts';
import type { KubeObject } from './object.ts';
import { resourceOf } from './resources.ts';
import { Registry } from './server/registry.ts';
import { ApiServer, type ApiServerOptions, type PodStreams } from './server/server.ts';
import type { Choose } from './server/services.ts';
import { Journal } from './store/journal.ts';
import { type Backend, Store, type StoreLimits } from './store/store.ts';

export interface ApiOptions extends Omit<ApiServerOptions, 'streams'> {
  /** What pods do for clients, made of the registry. */
  streams?: (registry: Registry) => PodStreams;
  /** Where the journal lies; default: in memory alone. */
  directory?: string;
  /** Instead of a journal. */
  backend?: Backend;
  /** Where cluster addresses come from. */
  serviceCidr?: string;
  nowMs?: () => number;
  choose?: Choose;
  limits?: Partial<StoreLimits>;
}

export const SERVICE_CIDR = '10.96.0.0/12'; // kubeadm's

export interface Api {
  store: Store;
  registry: Registry;
  server: ApiServer;
  close(): Promise<void>;
}

/** Opens the store and makes what every cluster has; nothing listens yet. */
export async function openApi(options: ApiOptions = {}): Promise<Api> {
  const store = await Store.open(options.backend ?? new Journal(options.directory ?? null), options.limits);
  const { serviceCidr = SERVICE_CIDR, nowMs = Date.now, choose = randomInt } = options;
  const registry = new Registry(store, { serviceCidr, nowMs, choose });
  await bootstrap(registry, serviceCidr);
  const server = new ApiServer(registry, { ...options, streams: options.streams?.(registry) });
  return {
    store,
    registry,
    server,
    close: async () => {
      await server.close();
      await store.close();
    },
  };
}

/** The namespaces that every cluster has, and the service of the API itself. */
async function bootstrap(registry: Registry, serviceCidr: string): Promise<void> {
  const manager = 'tunpath';
  const namespaces = { resource: resourceOf('v1', 'Namespace'), version: 'v1' };
  for (const name of ['default', 'kube-node-lease', 'kube-public', 'kube-system']) {
    if (registry.find(namespaces, name) === undefined)
      await registry.create(namespaces, { metadata: { name } }, { manager });
  }
  const services = { resource: resourceOf('v1', 'Service'), version: 'v1', namespace: 'default' };
  if (registry.find(services, 'kubernetes') !== undefined) return;
  const kubernetes: Partial<KubeObject> = {
    metadata: { name: 'kubernetes', labels: { component: 'apiserver', provider: 'kubernetes' } },
    spec: {
      clusterIP: formatAddress((parseCidr(serviceCidr)!.prefix + 1) | 0),
      ports: [{ name: 'https', port: 443, targetPort: 6443 }],
    },
  };
  await registry.create(services, kubernetes, { manager });
}

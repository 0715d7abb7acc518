/** What runs in a lab besides nodes: servers of its pods and of the router, and the API. */
import { fileURLToPath } from 'node:url';
import type { LabProcesses } from './lab-processes.ts';
import { zoneFileOf } from './names.ts';
import { CLUSTER_DOMAIN, dnsNameOf, routerWebAddress, type Topology } from './topology.ts';

const WEB_PORT = 80;
const DNS_PORT = 53;
/** What the API is called among a lab's processes; it is no host. */
export const API_LOG = 'api';

const API = fileURLToPath(new URL('./api-process.js', import.meta.url));
const DNS = fileURLToPath(new URL('./dns-server.js', import.meta.url));
const WHOAMI = fileURLToPath(new URL('./whoami.js', import.meta.url));

/** The API belongs to no host: it runs in the machine's own namespace. */
export function startApi(lab: string, processes: LabProcesses): Promise<void> {
  return processes.start({ host: API_LOG, argv: [process.execPath, API, lab], readyLine: 'ready', at: null });
}

export function startServers(lab: string, topology: Topology, processes: LabProcesses): Promise<void>[] {
  const { pods, services, router } = topology;
  const serve = (host: string, hostname: string, addresses: string[], port = WEB_PORT): Promise<void> => {
    const argv = [process.execPath, WHOAMI, `${port}`, hostname, ...addresses];
    return processes.start({ host, argv, readyLine: 'listening' });
  };
  const records = services.map(service => `${dnsNameOf(service)}=${service.address}`);
  return [
    ...pods
      .filter(pod => pod.hostname !== undefined)
      .map(pod => {
        const addresses = ['127.0.0.1', '::1', pod.address, ...(pod.linkLocal ? [pod.linkLocal] : [])];
        return serve(pod.name, pod.hostname!, addresses, pod.port);
      }),
    ...pods
      .filter(pod => pod.dns)
      .map(pod => {
        // The file is written where there is an API, and says what that has.
        const argv = [process.execPath, DNS, `${DNS_PORT}`, CLUSTER_DOMAIN, `@${zoneFileOf(lab)}`, ...records];
        return processes.start({ host: pod.name, argv, readyLine: 'listening' });
      }),
    serve(router.name, router.name, ['127.0.0.1', routerWebAddress(topology)]),
  ];
}

/** What runs in a lab besides nodes: servers and commands of its pods, routers and hosts, and the API. */
import { fileURLToPath } from 'node:url';
import { flattened } from '../flattened.ts';
import type { LabProcesses } from './lab-processes.ts';
import { API_LOG, zoneFileOf } from './names.ts';
import { addressOf, CLUSTER_DOMAIN, dnsNameOf, type LabPod, type Topology } from './topology.ts';

const WEB_PORT = 80;
const DNS_PORT = 53;

const API = fileURLToPath(flattened(new URL('./api-process.js', import.meta.url)));
const DNS = fileURLToPath(new URL('./dns-server.js', import.meta.url));
const WHOAMI = fileURLToPath(new URL('./whoami.js', import.meta.url));

/** The API belongs to no host: it runs in the machine's own namespace. */
export function startApi(lab: string, processes: LabProcesses): Promise<void> {
  return processes.start({ host: API_LOG, argv: [process.execPath, API, lab], readyLine: 'ready', at: null });
}

export function startServers(lab: string, topology: Topology, processes: LabProcesses): Promise<void>[] {
  const { pods, services, routers, hosts } = topology;
  const serve = (host: string, hostname: string, addresses: string[], port = WEB_PORT): Promise<void> => {
    const argv = [process.execPath, WHOAMI, `${port}`, hostname, '127.0.0.1', ...addresses];
    return processes.start({ host, argv, readyLine: 'listening' });
  };
  const records = services.map(service => `${dnsNameOf(service)}=${service.address}`);
  const servePod = ({ name, address, hostname, port, linkLocal, dns, command }: LabPod): Promise<void>[] => {
    if (hostname !== undefined) {
      return [serve(name, hostname, ['::1', address, ...(linkLocal === undefined ? [] : [linkLocal])], port)];
    }
    if (command !== undefined) return [processes.start({ host: name, argv: command })];
    if (!dns) return [];
    // The file is written where there is an API, and says what that has.
    const argv = [process.execPath, DNS, `${DNS_PORT}`, CLUSTER_DOMAIN, `@${zoneFileOf(lab)}`, ...records];
    return [processes.start({ host: name, argv, readyLine: 'listening' })];
  };
  return [
    ...pods.flatMap(servePod),
    ...hosts.flatMap(({ name, address, hostname, command }) => {
      if (hostname !== undefined) return [serve(name, hostname, [addressOf(address)])];
      return command === undefined ? [] : [processes.start({ host: name, argv: command })];
    }),
    ...routers.flatMap(({ name, loops: [web] }) =>
      web === undefined ? [] : [serve(name, name, [addressOf(web.address)])],
    ),
  ];
}

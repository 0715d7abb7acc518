/** How the services of a configuration must fit together, and with the rest of the node. */
import { type Cidr, contains, formatCidr, parseAddress, parseCidr } from './address.ts';
import {
  addressOf,
  type Check,
  type Draft,
  entries,
  formatPath,
  type Owners,
  type Path,
  uniqueNames,
} from './check-draft.ts';
import { tunnelsOf } from './check-tunnels.ts';
import type { WrittenConfig } from './config.ts';
import { addressesOf, endpointPort, typeOf } from './service-config.ts';

type DraftService = Draft<WrittenConfig['spec']['services'][number]>;

/** An address at which a service answers, and where it is written. */
interface Frontend {
  address: string;
  path: Path;
}

export function checkServices(check: Check, owners: Owners): void {
  const { spec, report, refused } = check;
  const serviceName = uniqueNames(report, 'a name no other service has');
  const frontends = uniqueNames(report, 'an address, protocol and port no other service has');
  const nodePorts = uniqueNames(report, 'a node port not yet used for this protocol');
  const range = refused('nodePortRange') ? undefined : spec.nodePortRange;
  const neighbors = new Neighbors(check, owners);

  for (const [i, service] of entries(spec.services)) {
    const at = ['services', i];
    serviceName(service.name, [...at, 'name']);
    checkServiceType(check, service, i);
    const addresses = frontendsOf(service, at);
    const unique = uniqueNames(report, 'an address the service does not have yet');
    for (const { address, path } of addresses) unique(address, path);
    for (const [j, port] of entries(service.ports)) {
      const path = [...at, 'ports', j, 'nodePort'];
      if (port.protocol === undefined) continue;
      if (port.nodePort !== undefined) {
        nodePorts(port.nodePort, path, `${port.protocol} `);
        if (
          range?.low !== undefined &&
          range.high !== undefined &&
          (port.nodePort < range.low || port.nodePort > range.high)
        ) {
          report(path, `a whole number from ${range.low} to ${range.high}, which is spec.nodePortRange`);
        }
      }
      if (port.port === undefined) continue;
      for (const address of new Set(addresses.map(frontend => frontend.address))) {
        frontends(`${address} ${port.protocol} ${port.port}`, [...at, 'ports', j, 'port']);
      }
    }
    const portName = uniqueNames(report, 'a name no other port of the service has');
    for (const [j, port] of entries(service.ports)) portName(port.name, [...at, 'ports', j, 'name']);
    checkServiceEndpoints(check, service, i);
    neighbors.check(service, at);
  }
  checkNodePortAddresses(check);
}

function frontendsOf(service: DraftService, at: Path): Frontend[] {
  const list = (name: 'addresses' | 'loadBalancerIPs' | 'externalIPs') =>
    entries(service[name]).map(([i, address]) => ({ address, path: [...at, name, i] }));
  return [
    ...(service.clusterIP === undefined ? [] : [{ address: service.clusterIP, path: [...at, 'clusterIP'] }]),
    ...list('addresses'),
    ...list('loadBalancerIPs'),
    ...list('externalIPs'),
  ];
}

function checkServiceType({ report, refused }: Check, service: DraftService, index: number): void {
  const at = ['services', index];
  if (refused(...at, 'type')) return;
  const { clusterIP, addresses, loadBalancerIPs, externalIPs } = service;
  const type = typeOf(service);
  for (const [j, port] of entries(service.ports)) {
    const path = [...at, 'ports', j, 'nodePort'];
    if (type === 'ClusterIP' && port.nodePort !== undefined) report(path, 'no nodePort: type is ClusterIP');
    if (service.type === 'NodePort' && port.nodePort === undefined && !refused(...path)) {
      report(path, 'a node port: type is NodePort');
    }
  }
  if (type !== 'LoadBalancer') {
    const none = 'type is not LoadBalancer';
    if (loadBalancerIPs?.length) report([...at, 'loadBalancerIPs'], `no addresses of a load balancer: ${none}`);
    if (service.loadBalancerSourceRanges?.length) {
      report([...at, 'loadBalancerSourceRanges'], `no source ranges: ${none}`);
    }
  }
  const short = [...at, 'addresses'];
  if (addresses?.length && (clusterIP !== undefined || loadBalancerIPs?.length)) {
    report(
      short,
      `no addresses beside ${clusterIP === undefined ? 'loadBalancerIPs' : 'clusterIP'}: it is clusterIP, loadBalancerIPs and externalIPs, or addresses`,
    );
  } else if (type === 'LoadBalancer' && addresses?.length === 1) {
    report(
      short,
      "clusterIP or loadBalancerIPs instead: type is LoadBalancer, so this may be the cluster's address or the balancer's",
    );
  }
  const lists = ['clusterIP', 'addresses', 'loadBalancerIPs', 'externalIPs'];
  const unreachable = frontendsOf(service, at).length === 0 && !lists.some(name => refused(...at, name));
  const hasNodePort = entries(service.ports).some(([, port]) => port.nodePort !== undefined);
  if (unreachable && !hasNodePort && type !== 'NodePort' && !refused(...at, 'ports') && externalIPs !== undefined) {
    report(short, 'at least one address: the service has no external address and no node port either');
  }
}

/** Endpoints must have a port for the service's, and be different from one another. */
function checkServiceEndpoints({ spec, report, refused }: Check, service: DraftService, index: number): void {
  const at = ['services', index];
  const ports = entries(service.ports);
  const pods = entries(spec.pods).flatMap(([, { address, ports = [] }]) =>
    address === undefined
      ? []
      : [{ address, ports: entries(ports).map(([, port]) => ({ containerPort: 0, protocol: '', ...port })) }],
  );
  const named = new Set(ports.map(([, { name }]) => name ?? ''));
  const names = [...named].filter(name => name !== '').join(', ');
  const first = new Map<string, Path>();
  for (const [j, endpoint] of entries(service.endpoints)) {
    const path = [...at, 'endpoints', j];
    if (endpoint.port !== undefined && endpoint.ports !== undefined) {
      report([...path, 'port'], 'no port beside ports');
    } else if (endpoint.port !== undefined && ports.length > 1 && !refused(...at, 'ports')) {
      report(
        [...path, 'port'],
        `ports by their names in the service, such as ports: { ${names.split(', ')[0] || 'http'}: 8080 }: the service has ${ports.length}`,
      );
    }
    for (const name of Object.keys(endpoint.ports ?? {})) {
      if (named.has(name) || refused(...at, 'ports')) continue;
      report([...path, 'ports', name], `the name of a port of the service (${names || 'none has one'})`);
    }
    if (endpoint.address === undefined || refused(...path) || refused(...at, 'ports') || refused('pods')) continue;
    for (const [k, port] of ports) {
      const target = endpointPort(endpoint, port, pods);
      if (target === undefined && endpoint.ports === undefined && typeof port.targetPort === 'string') {
        report(
          path,
          `a port: no pod of this node with the address ${endpoint.address} has a ${port.protocol} port named ${port.targetPort} (spec.services[${index}].ports[${k}].targetPort)`,
        );
      }
      if (target === undefined) continue;
      const key = `${k} ${endpoint.address}:${target}`;
      const before = first.get(key);
      if (before === undefined) first.set(key, [...path, 'address']);
      else if (before[3] !== j) {
        report(
          [...path, 'address'],
          `an address and port no other endpoint of the service has (${formatPath(['spec', ...before])} has it)`,
        );
        break;
      }
    }
  }
}

function checkNodePortAddresses({ spec, report, refused, subnet }: Check): void {
  const { nodePortAddresses, host } = spec;
  if (nodePortAddresses === undefined || subnet === undefined || refused('nodePortAddresses') || refused('host'))
    return;
  const own = [subnet, ...(host?.address === undefined ? [] : [parseCidr(host.address)!])];
  const networks = entries(nodePortAddresses).map(([, network]) => parseCidr(network)!);
  if (own.some(({ address }) => networks.some(network => contains(network, address)))) return;
  report(
    ['nodePortAddresses'],
    `a network with an address of this node (${own.map(({ address }) => formatCidr(address, 32).replace('/32', '')).join(', ')})`,
  );
}

/** Whose an address may be that a service wants. */
class Neighbors {
  private readonly report: Check['report'];
  private readonly warn: Check['warn'];
  private readonly owners: Owners;
  /** By address: peers of the tunnels. */
  private readonly peers = new Map<number, string>();
  /** Networks of pods: behind tunnels, and behind pods of this node. */
  private readonly pods: { to: Cidr; path: string }[] = [];

  constructor({ spec, report, warn }: Check, owners: Owners) {
    this.report = report;
    this.warn = warn;
    this.owners = owners;
    for (const { at, tunnel } of tunnelsOf(spec)) {
      for (const [i, peer] of entries<{ address?: string }>(tunnel.peers)) {
        const address = addressOf(peer.address);
        if (address !== undefined) this.peers.set(address, formatPath(['spec', ...at, 'peers', i]));
      }
    }
    for (const [i, { to, encap }] of entries(spec.routes)) {
      if (to === undefined || encap === undefined || encap === false) continue;
      const network = parseCidr(to)!;
      if (network.length > 0) this.pods.push({ to: network, path: `spec.routes[${i}]` });
    }
    for (const [i, pod] of entries(spec.pods)) {
      for (const [j, network] of entries(pod.networks)) {
        this.pods.push({ to: parseCidr(network)!, path: `spec.pods[${i}].networks[${j}]` });
      }
    }
  }

  check(service: DraftService, at: Path): void {
    const { cluster } = addressesOf(service);
    const endpoints = new Map<string, string>();
    for (const [i, { address }] of entries(service.endpoints)) {
      if (address !== undefined) endpoints.set(address, formatPath(['spec', ...at, 'endpoints', i]));
    }
    for (const { address, path } of frontendsOf(service, at)) {
      const isCluster = cluster.includes(address);
      const number = parseAddress(address)!;
      const owner = this.owners.get(number);
      const peer = this.peers.get(number);
      const pods = this.pods.find(({ to }) => contains(to, number))?.path;
      const endpoint = endpoints.get(address);
      // As in Kubernetes, an external address may be a node's own: only the ports are taken.
      const isOwn =
        owner === 'spec.uplink.address' && (path.includes('externalIPs') || path.includes('loadBalancerIPs'));
      if (owner !== undefined && !isOwn) {
        this.report(path, `an address of its own (${owner} is the same)`);
      } else if (isOwn) {
        // Nobody else is cut off.
      } else if (pods !== undefined) {
        this.report(path, `an address of its own: ${pods} leads to the pod that has it`);
      } else if (peer !== undefined && !isCluster) {
        this.warn(
          path,
          `is the address of ${peer}: from here the ports of this service lead to its endpoints, not to that node`,
        );
      } else if (peer !== undefined) {
        this.report(path, `an address of its own (${peer} has it)`);
      } else if (endpoint !== undefined) {
        this.report(path, `an address other than an endpoint's (${endpoint} is the same)`);
      }
    }
  }
}

/** How the services of a configuration must fit together, and with the rest of the node. */
import { parseAddress } from './address.ts';
import { type Check, type Draft, entries, type Owners, type Report, uniqueNames } from './check-draft.ts';
import type { WrittenConfig } from './config.ts';

export function checkServices({ spec, report, refused }: Check, owners: Owners): void {
  const serviceName = uniqueNames(report, 'a name no other service has');
  const frontends = uniqueNames(report, 'an address, protocol and port no other service has');
  const nodePorts = uniqueNames(report, 'a node port not yet used for this protocol');

  for (const [i, service] of entries(spec.services)) {
    const at = ['services', i];
    serviceName(service.name, [...at, 'name']);
    checkServiceType(service, i, report, refused);
    const addresses = new Set([...entries(service.addresses), ...entries(service.externalIPs)].map(([, text]) => text));

    for (const [j, port] of entries(service.ports)) {
      if (port.protocol === undefined) continue;
      if (port.nodePort !== undefined) nodePorts(port.nodePort, [...at, 'ports', j, 'nodePort'], `${port.protocol} `);
      if (port.port === undefined) continue;
      for (const address of addresses) {
        frontends(`${address} ${port.protocol} ${port.port}`, [...at, 'ports', j, 'port']);
      }
    }
    const portName = uniqueNames(report, 'a name no other port of the service has');
    for (const [j, port] of entries(service.ports)) portName(port.name, [...at, 'ports', j, 'name']);

    for (const list of ['addresses', 'externalIPs'] as const) {
      const unique = uniqueNames(report, 'an address the service does not have yet');
      for (const [j, address] of entries(service[list])) {
        unique(address, [...at, list, j]);
        const owner = owners.get(parseAddress(address)!);
        if (owner === undefined) continue;
        // As in Kubernetes, an external address may be the node's own: only the ports are taken.
        if (list === 'externalIPs' && owner === 'spec.uplink.address') continue;
        report([...at, list, j], `an address of its own (${owner} is the same)`);
      }
    }
    const endpointAddress = uniqueNames(report, 'an address no other endpoint of the service has');
    for (const [j, endpoint] of entries(service.endpoints)) {
      endpointAddress(endpoint.address, [...at, 'endpoints', j, 'address']);
    }
  }
}

function checkServiceType(
  service: Draft<WrittenConfig['spec']['services'][number]>,
  index: number,
  report: Report,
  refused: Check['refused'],
): void {
  const at = ['services', index];
  const { type } = service;
  if (type === undefined) return;
  for (const [j, port] of entries(service.ports)) {
    const path = [...at, 'ports', j, 'nodePort'];
    if (type === 'ClusterIP' && port.nodePort !== undefined) report(path, 'no nodePort: type is ClusterIP');
    if (type === 'NodePort' && port.nodePort === undefined && !refused(...path)) {
      report(path, 'a node port: type is NodePort');
    }
  }
  if (type !== 'LoadBalancer' && (service.loadBalancerSourceRanges?.length ?? 0) > 0) {
    report([...at, 'loadBalancerSourceRanges'], 'no source ranges: type is not LoadBalancer');
  }
  const unreachable = service.addresses?.length === 0 && service.externalIPs?.length === 0;
  const hasNodePort = entries(service.ports).some(([, port]) => port.nodePort !== undefined);
  if (unreachable && !hasNodePort && type !== 'NodePort' && !refused(...at, 'ports')) {
    report([...at, 'addresses'], 'at least one address: the service has no external address and no node port either');
  }
}

/** Which of the packets that reach a host belong to the datapath beside it. */
import type { Path } from '../check-draft.ts';
import { tunnelPath } from '../config.ts';
import { findUser, type HostPorts, type PortRange } from '../host-ports.ts';
import type { ResolvedConfig } from '../resolved.ts';
import { allAddressesOf } from '../service-config.ts';

/** The kernel's own default for outgoing connections ends at 60999. */
export const RESERVED_PORTS: PortRange = { low: 61000, high: 65535 };

export interface PortClaim extends PortRange {
  protocol: 'tcp' | 'udp' | 'sctp';
  /** Where the configuration says so, from its root. */
  path: Path;
}

export interface Claims {
  /** The host's own address; what follows is about packets to it, if nothing else is said. */
  address: string;
  /** Tunnel packets by UDP. */
  tunnelPorts: PortClaim[];
  /** IPIP, from the peers. */
  ipip: boolean;
  /** Of the tunnels. Empty without one. */
  peers: string[] | 'any';
  /** Node ports, and ports of services whose external address is the host's. */
  servicePorts: PortClaim[];
  /** Where masqueraded flows get their ports and ICMP identifiers. Empty where no flows are tracked. */
  reserved: (PortRange & { path: Path })[];
  /** Other addresses that masqueraded flows leave with. */
  sources: string[];
  /** Destinations that belong to the datapath as a whole: addresses and networks. */
  destinations: string[];
}

const PROTOCOLS = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const;

export function claimsOf({ spec }: ResolvedConfig): Claims {
  const { uplink, host, pods, tunnels, routes, services, masquerade } = spec;
  const [address] = uplink.address.split('/');
  const claims: Claims = {
    address,
    tunnelPorts: [],
    ipip: tunnels.some(({ protocol }) => protocol === 'ipip'),
    peers: tunnels.some(({ acceptFrom }) => acceptFrom === 'any')
      ? 'any'
      : [...new Set(tunnels.flatMap(({ peers }) => peers.map(({ address }) => address)))],
    servicePorts: [],
    reserved: [],
    sources: [],
    destinations: pods.flatMap(pod => [pod.address, ...pod.networks]),
  };
  for (const tunnel of tunnels) {
    if (tunnel.port !== undefined && !claims.tunnelPorts.some(({ low }) => low === tunnel.port)) {
      claims.tunnelPorts.push(portClaim('udp', tunnel.port, [...tunnelPath(spec, tunnel), 'port']));
    }
  }

  const others = new Set<string>();
  if (host !== undefined) others.add(host.address.split('/')[0]);
  services.forEach((service, i) => {
    const frontends = allAddressesOf(service);
    for (const frontend of frontends) others.add(frontend);
    service.ports.forEach((port, j) => {
      const path = ['spec', 'services', i, 'ports', j];
      const protocol = PROTOCOLS[port.protocol];
      if (port.nodePort !== undefined)
        claims.servicePorts.push(portClaim(protocol, port.nodePort, [...path, 'nodePort']));
      if (frontends.includes(address)) claims.servicePorts.push(portClaim(protocol, port.port, [...path, 'port']));
    });
  });
  // The default route by a tunnel is for pods; what comes from outside and is for somebody else is not ours.
  for (const { to, encap } of routes) if (encap && to !== '0.0.0.0/0') others.add(to);
  others.delete(address);
  claims.destinations.push(...others);

  masquerade.forEach((rule, i) => {
    if (rule.action !== 'MASQUERADE') return;
    const path = ['spec', 'masquerade', i, 'ports'];
    claims.reserved.push({ ...(rule.ports ?? RESERVED_PORTS), path });
    if (rule.source !== undefined && rule.source !== address) claims.sources.push(rule.source);
  });
  // Services take ports, too: of a client's connection that must come back here.
  if (services.length > 0 && uplink.ports !== undefined) {
    claims.reserved.push({ ...uplink.ports, path: ['spec', 'uplink'] });
  }
  return claims;
}

function portClaim(protocol: PortClaim['protocol'], port: number, path: Path): PortClaim {
  return { protocol, low: port, high: port, path };
}

/** What is in one or the other, of the same host. While a configuration changes both are true. */
export function mergeClaims(a: Claims, b: Claims): Claims {
  return {
    address: a.address,
    tunnelPorts: [...a.tunnelPorts, ...b.tunnelPorts],
    ipip: a.ipip || b.ipip,
    peers: a.peers === 'any' || b.peers === 'any' ? 'any' : [...new Set([...a.peers, ...b.peers])],
    servicePorts: [...a.servicePorts, ...b.servicePorts],
    reserved: [...a.reserved, ...b.reserved],
    sources: [...new Set([...a.sources, ...b.sources])],
    destinations: [...new Set([...a.destinations, ...b.destinations])],
  };
}

/**
 * Claims that would take something from the host.
 * @param held claims that are known to be free of that: those of the running node
 */
export function findConflicts(claims: Claims, host: HostPorts, held?: Claims): { path: Path; message: string }[] {
  const known = new Set(held === undefined ? [] : portClaims(held).map(claimText));
  const conflicts: { path: Path; message: string }[] = [];
  for (const claim of portClaims(claims)) {
    const { protocol, low, high, path } = claim;
    if (protocol === 'sctp' || known.has(claimText(claim))) continue;
    const user = findUser(host, protocol, claims.address, claim);
    if (user === undefined) continue;
    const ports = low === high ? `port ${low}` : `ports ${low}-${high}`;
    conflicts.push({
      path,
      message: `${protocol.toUpperCase()} ${ports} of ${claims.address} cannot be the datapath's: ${user}`,
    });
  }
  return conflicts;
}

function portClaims(claims: Claims): PortClaim[] {
  return [
    ...claims.tunnelPorts,
    ...claims.servicePorts,
    ...claims.reserved.flatMap(range => [
      { ...range, protocol: 'tcp' as const },
      { ...range, protocol: 'udp' as const },
    ]),
  ];
}

function claimText({ protocol, low, high }: PortClaim): string {
  return `${protocol} ${low}-${high}`;
}

/** Services and masquerade rules of a configuration as the datapath's plain data. */
import * as states from '../conntrack/timeouts.ts';
import type { MasqueradeRule, Prefix } from '../nat/masquerade.ts';
import type { NatProgram } from '../nat/nat.ts';
import type { SelectorKind } from '../nat/select.ts';
import type { Service } from '../nat/service.ts';
import { PROFILES } from '../profile.ts';
import { PROTO_SCTP, PROTO_TCP, PROTO_UDP } from '../wire/ipv4.ts';
import type { MasqueradeRuleConfig, NodeSpec, ServiceConfig } from './config.ts';
import type { PortRange } from './host-ports.ts';
import { parseAddress, parseCidr } from './validated.ts';

const PROTOCOLS = { TCP: PROTO_TCP, UDP: PROTO_UDP, SCTP: PROTO_SCTP } as const;

const SELECTORS: Record<ServiceConfig['algorithm'], SelectorKind> = {
  random: 'random',
  roundRobin: 'round-robin',
  weighted: 'weighted',
  maglev: 'maglev',
};

type Timeouts = NodeSpec['conntrack']['timeouts'];
const STATES: Record<keyof Timeouts, number> = {
  synSent: states.TCP_SYN_SENT,
  synRecv: states.TCP_SYN_RECV,
  established: states.TCP_ESTABLISHED,
  finWait: states.TCP_FIN_WAIT,
  closeWait: states.TCP_CLOSE_WAIT,
  lastAck: states.TCP_LAST_ACK,
  timeWait: states.TCP_TIME_WAIT,
  close: states.TCP_CLOSE,
  maxRetrans: states.TCP_RETRANS,
  unacknowledged: states.TCP_UNACK,
  udp: states.UDP_NEW,
  udpStream: states.UDP_STREAM,
  icmp: states.ICMP_QUERY,
  generic: states.GENERIC,
};

/**
 * @param nodeAddress where node ports answer (int32)
 * @param range where translated flows get their ports from instead of the profile's range
 * @returns null where there is nothing to translate
 */
export function compileNat(
  config: { spec: Omit<NodeSpec, 'uplink'> },
  nodeAddress: number,
  range?: PortRange,
): NatProgram | null {
  const { services, masquerade, conntrack, profile, pods } = config.spec;
  if (services.length === 0 && masquerade.length === 0) return null;
  const seconds: Record<number, number> = {};
  for (const [name, state] of Object.entries(STATES)) {
    const value = conntrack.timeouts[name as keyof Timeouts];
    if (value !== undefined) seconds[state] = value;
  }
  const local = new Set(pods.map(pod => parseCidr(pod.address).address));
  return {
    capacity: conntrack.size,
    timeouts: { profile: PROFILES[profile].timeouts, seconds },
    ports: { profile: PROFILES[profile].ports, range: range === undefined ? undefined : [range.low, range.high] },
    nodeAddresses: [nodeAddress],
    services: services.map(service => compileService(service, local)),
    rules: masquerade.map(compileRule),
  };
}

/** @param local addresses of this node's pods: their endpoints are the local ones */
export function compileService(service: ServiceConfig, local: ReadonlySet<number>): Service {
  const addresses = service.addresses.map(parseAddress);
  // Of several addresses of a LoadBalancer the first is its cluster address; the balancer's come behind it.
  const clusterCount =
    service.type === 'LoadBalancer' ? Math.max(0, Math.min(1, addresses.length - 1)) : addresses.length;
  return {
    name: service.name,
    clusterAddresses: addresses.slice(0, clusterCount),
    loadBalancerAddresses: addresses.slice(clusterCount),
    externalAddresses: service.externalIPs.map(parseAddress),
    sourceRanges: service.loadBalancerSourceRanges.map(prefix),
    ports: service.ports.map(port => ({
      protocol: PROTOCOLS[port.protocol],
      port: port.port,
      nodePort: port.nodePort ?? 0,
      endpoints: service.endpoints.map(endpoint => {
        const address = parseAddress(endpoint.address);
        return {
          address,
          port: port.targetPort,
          ready: endpoint.ready,
          serving: endpoint.serving,
          terminating: endpoint.terminating,
          local: local.has(address),
          weight: endpoint.weight,
        };
      }),
    })),
    selector: SELECTORS[service.algorithm],
    affinitySeconds: service.sessionAffinity === 'ClientIP' ? service.sessionAffinityTimeoutSeconds : 0,
    internalTrafficPolicy: service.internalTrafficPolicy,
    externalTrafficPolicy: service.externalTrafficPolicy,
  };
}

function compileRule(rule: MasqueradeRuleConfig): MasqueradeRule {
  return {
    from: rule.from?.map(prefix),
    notFrom: rule.notFrom?.map(prefix),
    to: rule.to?.map(prefix),
    notTo: rule.notTo?.map(prefix),
    mark: rule.mark,
    action: rule.action,
    randomFully: rule.randomFully,
    source: rule.source === undefined ? undefined : parseAddress(rule.source),
    ports: rule.ports === undefined ? undefined : [rule.ports.low, rule.ports.high],
  };
}

function prefix(text: string): Prefix {
  const { prefix: address, length } = parseCidr(text);
  return { address, length };
}

/** Services and masquerade rules of a configuration as the datapath's plain data. */

import { contains } from '../control/address.ts';
import type { MasqueradeRuleConfig, NodeSpec, ServiceConfig } from '../control/config.ts';
import type { PortRange } from '../control/host-ports.ts';
import { addressesOf } from '../control/service-config.ts';
import { parseAddress, parseCidr } from '../control/validated.ts';
import * as states from '../flow/timeouts.ts';
import type { MasqueradeRule, Prefix } from '../nat/masquerade.ts';
import type { NatProgram } from '../nat/nat.ts';
import type { SelectorKind } from '../nat/select.ts';
import { SERVICE_OWN, type Service, type ServiceEndpoint } from '../nat/service.ts';
import { PROFILES } from '../profile.ts';
import { PROTO_SCTP, PROTO_TCP, PROTO_UDP } from '../wire/ipv4.ts';

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

/** What decides which endpoints are near: those of this node, and of its zone. */
interface Here {
  nodeName: string;
  zone?: string;
  /** Of this node's pods. */
  pods: ReadonlySet<number>;
  /** The node's own. */
  own: readonly number[];
}

/** Where node ports answer, of the node's own addresses. @param nodeAddress of the uplink (int32) */
export function nodePortAddresses(
  { spec: { host, nodePortAddresses } }: { spec: Pick<NodeSpec, 'host' | 'nodePortAddresses'> },
  nodeAddress: number,
): number[] {
  if (nodePortAddresses === undefined) return [nodeAddress];
  const own = host === undefined ? [nodeAddress] : [nodeAddress, parseCidr(host.address).address];
  const networks = nodePortAddresses.map(parseCidr);
  return own.filter(address => networks.some(network => contains(network, address)));
}

/**
 * @param nodeAddress of the uplink (int32)
 * @param range where translated flows get their ports from instead of the profile's range
 * @returns null where there is nothing to translate
 */
export function compileNat(
  config: { metadata: { name: string }; spec: Omit<NodeSpec, 'uplink'> },
  nodeAddress: number,
  range?: PortRange,
): NatProgram | null {
  const { services, masquerade, conntrack, profile, pods, host, zone, serviceCIDR = [] } = config.spec;
  if (services.length === 0 && masquerade.length === 0 && config.spec.policies.length === 0) return null;
  const seconds: Record<number, number> = {};
  for (const [name, state] of Object.entries(STATES)) {
    const value = conntrack.timeouts[name as keyof Timeouts];
    if (value !== undefined) seconds[state] = value;
  }
  const own = host === undefined ? [nodeAddress] : [nodeAddress, parseCidr(host.address).address];
  const here: Here = {
    nodeName: config.metadata.name,
    zone,
    pods: new Set(pods.map(pod => parseCidr(pod.address).address)),
    own,
  };
  return {
    capacity: conntrack.size,
    perPod: conntrack.perSource,
    timeouts: { profile: PROFILES[profile].timeouts, seconds },
    ports: { profile: PROFILES[profile].ports, range: range === undefined ? undefined : [range.low, range.high] },
    // As own-ports.ts leads the node's own processes here.
    nodeAddresses: [...nodePortAddresses(config, nodeAddress), ...(host === undefined ? [] : [SERVICE_OWN])],
    serviceNetworks: serviceCIDR.map(prefix),
    services: services.map(service => compileService(service, here)),
    rules: masquerade.map(compileRule),
  };
}

function compileService(service: ServiceConfig, here: Here): Service {
  const addresses = addressesOf(service);
  const withOwn = (list: string[]) => {
    const numbers = list.map(parseAddress);
    return numbers.some(address => here.own.includes(address)) ? [...numbers, SERVICE_OWN] : numbers;
  };
  return {
    name: service.name,
    clusterAddresses: addresses.cluster.map(parseAddress),
    loadBalancerAddresses: withOwn(addresses.loadBalancer),
    externalAddresses: withOwn(addresses.external),
    sourceRanges: service.loadBalancerSourceRanges.map(prefix),
    ports: service.ports.map((port, i) => ({
      protocol: PROTOCOLS[port.protocol],
      port: port.port,
      nodePort: port.nodePort ?? 0,
      endpoints: compileEndpoints(service, i, here),
    })),
    selector: SELECTORS[service.algorithm],
    affinitySeconds: service.sessionAffinity === 'ClientIP' ? service.sessionAffinityTimeoutSeconds : 0,
    internalTrafficPolicy: service.internalTrafficPolicy,
    externalTrafficPolicy: service.externalTrafficPolicy,
  };
}

/** The endpoints of the service's port number `index`. */
function compileEndpoints(service: ServiceConfig, index: number, here: Here): ServiceEndpoint[] {
  const { trafficDistribution } = service;
  const endpoints = service.endpoints.flatMap(endpoint => {
    const port = endpoint.targets[index];
    if (port === undefined) return [];
    const address = parseAddress(endpoint.address);
    const { ready, serving, terminating, zone, weight } = endpoint;
    return [{ address, port, ready, serving, terminating, local: isLocal(endpoint, address, here), zone, weight }];
  });
  // As the hints of an EndpointSlice: of use only if every endpoint that is ready has one (kube-proxy's CategorizeEndpoints).
  const ready = endpoints.filter(endpoint => endpoint.ready);
  const byNode = trafficDistribution === 'PreferSameNode' && ready.some(({ local }) => local);
  const byZone =
    trafficDistribution !== undefined && here.zone !== undefined && ready.every(({ zone }) => zone !== undefined);
  return endpoints.map(({ zone, ...endpoint }) => ({
    ...endpoint,
    near: byNode ? endpoint.local : byZone && zone === here.zone,
  }));
}

/** On this node: its pods, what says so, and where nothing is said, the node's own addresses. */
function isLocal({ nodeName }: { nodeName?: string }, address: number, here: Here): boolean {
  if (here.pods.has(address)) return true;
  return nodeName === undefined ? here.own.includes(address) : nodeName === here.nodeName;
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

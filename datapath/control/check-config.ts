/**
 * How the values of a node's configuration must fit together: nothing belongs to two, every next hop can be reached,
 * nothing is given that would have no effect. Each value by itself has been checked by the schema (config.ts); what it
 * refused is undefined here, and no check speaks where the refused value could have been the answer.
 */
import * as ethernet from '../wire/ethernet.ts';
import { MAX_OPTIONS_LEN, OPT_HEADER_LEN } from '../wire/geneve.ts';
import { type Cidr, contains, parseAddress, parseCidr, parseMac, prefixMask } from './address.ts';
import { configuredOverhead } from './compile.ts';
import {
  defaultVni,
  defaultVtepMac,
  type GeneveOptionConfig,
  type UplinkConfig,
  type WrittenConfig,
} from './config.ts';

export type Path = (string | number)[];

/** Something of which any part may be missing, because the schema refused it. */
export type Draft<T> = T extends (infer E)[]
  ? (Draft<E> | undefined)[]
  : T extends object
    ? { [K in keyof T]?: Draft<T[K]> }
    : T;

/** Says that the value at `path` is not as `expected`. */
type Report = (path: Path, expected: string) => void;

type Spec = Draft<WrittenConfig['spec']>;

interface Check {
  spec: Spec;
  kind: UplinkConfig['kind'] | undefined;
  report: Report;
  /** True if the schema refused the value at this path, or a part of it. */
  refused: (...path: Path) => boolean;
  /** The uplink's own address and subnet; undefined if refused, or if the interface brings its own. */
  subnet: Cidr | undefined;
  gateway: number | undefined;
}

/**
 * Reports everything that does not fit.
 * @param refusedPaths what the schema refused, from the root of the document
 * @param report gets paths below `spec`
 * @param kind of the uplink, where `spec.uplink` is a tap's in place of another's that brought its address later
 */
export function checkSpec(spec: Spec, refusedPaths: Path[], report: Report, kind = spec.uplink?.kind): void {
  const refusedPrefixes = new Set<string>();
  for (const path of refusedPaths) {
    for (let length = 1; length <= path.length; length++) refusedPrefixes.add(path.slice(0, length).join('\n'));
  }
  const refused = (...path: Path) => refusedPrefixes.has(['spec', ...path].join('\n'));
  const { uplink } = spec;
  const own = uplink !== undefined && 'address' in uplink ? uplink : undefined;
  const subnet = own?.address === undefined ? undefined : parseCidr(own.address);
  const gateway = addressOf(own?.gateway);
  const check: Check = { spec, kind, report, refused, subnet, gateway };

  checkGateway(check);
  checkDevices(check);
  const owners = checkAddresses(check);
  checkTunnel(check);
  checkOptions(check);
  checkPeers(check, owners);
  checkRoutes(check);
  checkNextHops(check, owners);
  checkServices(check, owners);
  checkMasquerade(check);
}

// ---- ports and addresses --------------------------------------------------------------------------------------------

function checkGateway({ subnet, gateway, report }: Check): void {
  if (subnet === undefined || gateway === undefined) return;
  const path = ['uplink', 'gateway'];
  if (gateway === subnet.address) report(path, "another node's address, not the uplink's own");
  else if (subnet.length === 32)
    return; // the gateway of a /32 is on the link by definition
  else if (!contains(subnet, gateway)) report(path, 'an address in the subnet of spec.uplink.address');
  else if (isEdge(subnet, gateway)) report(path, 'a host address of the subnet of spec.uplink.address');
}

/** True for the network's own address and its broadcast address. */
function isEdge({ prefix, length }: Cidr, address: number): boolean {
  return length < 31 && (address === prefix || address === (prefix | ~prefixMask(length)));
}

function checkDevices({ spec, report }: Check): void {
  const { uplink, host } = spec;
  const inNode = uniqueNames(report, 'a device name not yet used in this namespace');
  if (uplink !== undefined && 'interface' in uplink) inNode(uplink.interface, ['uplink', 'interface']);
  if (uplink !== undefined && 'device' in uplink) inNode(uplink.device, ['uplink', 'device']);
  inNode(host?.device, ['host', 'device']);

  const inPods = uniqueNames(report, 'a device name not yet used in this network namespace');
  const podName = uniqueNames(report, 'a name no other pod has');
  for (const [i, pod] of entries(spec.pods)) {
    podName(pod.name, ['pods', i, 'name']);
    if (pod.netns !== undefined) inPods(pod.device, ['pods', i, 'device'], `${pod.netns}\n`);
  }
}

/** int32 address -> whose it is, as a path from the root. */
type Owners = Map<number, string>;

function checkAddresses({ spec, report, subnet, gateway }: Check): Owners {
  const owners: Owners = new Map();
  // The host port may have the node's own address: it is where the node's processes send from.
  const host = spec.host?.address === undefined ? undefined : parseCidr(spec.host.address);
  if (host !== undefined) owners.set(host.address, 'spec.host.address');
  if (subnet !== undefined) owners.set(subnet.address, 'spec.uplink.address');
  if (gateway !== undefined && gateway !== subnet?.address) {
    if (gateway === host?.address) report(['host', 'address'], 'an address other than spec.uplink.gateway');
    else owners.set(gateway, 'spec.uplink.gateway');
  }
  for (const [i, pod] of entries(spec.pods)) {
    const address = addressOf(pod.address);
    if (address === undefined) continue;
    const owner = owners.get(address);
    if (owner === undefined) owners.set(address, `spec.pods[${i}].address`);
    else report(['pods', i, 'address'], `an address of its own (${owner} is the same)`);
  }
  return owners;
}

/** True for the path of an address that is on this node. */
function isLocal(owner: string | undefined): boolean {
  return owner !== undefined && owner !== 'spec.uplink.gateway';
}

// ---- tunnel ---------------------------------------------------------------------------------------------------------

const MIN_IPV4_MTU = 68; // RFC 791

function checkTunnel({ spec, report, refused }: Check): void {
  const { tunnel, uplink, profile } = spec;
  const protocol = tunnel?.protocol;
  if (tunnel === undefined || protocol === undefined) return;
  if (protocol === 'none' && (tunnel.peers?.length ?? 0) > 0) {
    report(['tunnel', 'peers'], 'no peers: tunnel.protocol is none');
  }
  if (uplink !== undefined && 'mtu' in uplink && uplink.mtu !== undefined) {
    const overhead = configuredOverhead({ protocol, options: knownOptions(tunnel) });
    checkLargerUnderlay(spec, protocol, overhead, report);
    const least = MIN_IPV4_MTU + overhead;
    if (uplink.mtu < least) {
      report(['uplink', 'mtu'], `at least ${least}: ${protocol} adds ${overhead} bytes, IPv4 needs 68`);
    }
  }
  if (tunnel.protocol !== 'vxlan' && tunnel.protocol !== 'geneve') return;
  if (refused('tunnel', 'vni') || profile === undefined) return;
  if ((tunnel.vni ?? defaultVni(profile)) !== 'identity') return;
  const given = tunnel.vni === undefined ? 'by default in profile cilium' : 'as given';
  for (const [i, pod] of entries(spec.pods)) {
    if (pod.identity === undefined && !refused('pods', i, 'identity')) {
      report(['pods', i, 'identity'], `an identity: tunnel.vni is identity (${given})`);
    }
  }
}

/** The options of which nothing was refused. */
function knownOptions(tunnel: NonNullable<Spec['tunnel']>): GeneveOptionConfig[] {
  if (!('options' in tunnel)) return [];
  return entries(tunnel.options).flatMap(([, { class: optionClass, type, data }]) =>
    optionClass === undefined || type === undefined || data === undefined ? [] : [{ class: optionClass, type, data }],
  );
}

function checkOptions({ spec, report }: Check): void {
  const { tunnel } = spec;
  if (tunnel?.protocol === 'vxlan' && (tunnel.options?.length ?? 0) > 0) {
    report(['tunnel', 'options'], 'no options: VXLAN has none (GENEVE has)');
  }
  if (tunnel?.protocol !== 'geneve') return;
  const bytes = knownOptions(tunnel).reduce((sum, { data }) => sum + OPT_HEADER_LEN + data.length / 2, 0);
  if (bytes > MAX_OPTIONS_LEN) {
    report(['tunnel', 'options'], `at most ${MAX_OPTIONS_LEN} bytes, headers of 4 included (these are ${bytes})`);
  }
}

/** RFC 4459 section 3.3 is a promise: whatever a pod sends fits through the underlay with the tunnel's headers on. */
function checkLargerUnderlay({ uplink, pods, mtu }: Spec, protocol: string, overhead: number, report: Report): void {
  if (mtu?.tooBig !== 'larger-underlay' || uplink === undefined || !('mtu' in uplink) || uplink.mtu === undefined)
    return;
  const widest = Math.max(ethernet.MTU, ...entries(pods).map(([, pod]) => pod.mtu ?? 0));
  const least = widest + overhead;
  if (uplink.mtu >= least) return;
  report(
    ['uplink', 'mtu'],
    `at least ${least}: mtu.tooBig is larger-underlay, pods send ${widest} bytes, ${protocol} adds ${overhead}`,
  );
}

function checkPeers({ spec, report, subnet }: Check, owners: Owners): void {
  const { tunnel } = spec;
  const withMac = tunnel?.protocol === 'vxlan' || tunnel?.protocol === 'geneve';
  const paths = new Map<number, string>();
  const macs = new Map<string, string>();
  const ownMac = withMac ? (tunnel.mac ?? (subnet && defaultVtepMac(subnet.address))) : undefined;
  if (ownMac !== undefined) macs.set(ownMac, 'this node');
  for (const [i, peer] of entries<{ address?: string; mac?: string }>(tunnel?.peers)) {
    const address = addressOf(peer.address);
    if (address === undefined) continue;
    const path = ['tunnel', 'peers', i, 'address'];
    const first = paths.get(address);
    if (address === subnet?.address) report(path, "another node's address, not the uplink's own");
    else if (isLocal(owners.get(address))) report(path, `another node's address (${owners.get(address)} is the same)`);
    else if (first !== undefined) report(path, `an address no other peer has (${first} is the same)`);
    else paths.set(address, `spec.tunnel.peers[${i}].address`);
    if (!withMac || peer.mac === undefined || parseMac(peer.mac) === undefined) continue;
    const owner = macs.get(peer.mac);
    if (owner === undefined) macs.set(peer.mac, `spec.tunnel.peers[${i}]`);
    else report(['tunnel', 'peers', i, 'mac'], `a MAC address of its own (${owner} has it)`);
  }
}

// ---- routes ---------------------------------------------------------------------------------------------------------

function checkRoutes({ spec, report, refused }: Check): void {
  const { tunnel } = spec;
  const peers = new Set<string>();
  for (const [, peer] of entries<{ address?: string }>(tunnel?.peers)) if (peer.address) peers.add(peer.address);
  const peersKnown = tunnel !== undefined && !refused('tunnel', 'peers') && !refused('tunnel', 'protocol');
  const known = peers.size === 0 ? 'there are none' : [...peers].join(', ');

  const paths = new Map<string, string>();
  for (const [i, route] of entries(spec.routes)) {
    if (route.to !== undefined) {
      const first = paths.get(route.to);
      if (first === undefined) paths.set(route.to, `spec.routes[${i}]`);
      else report(['routes', i, 'to'], `a network no other route has (${first} has it)`);
    }
    if (route.encap === false && (route.tooBig === 'fragment-outer' || route.tooBig === 'larger-underlay')) {
      report(
        ['routes', i, 'tooBig'],
        `signal or fragment-inner: ${route.tooBig} is about a tunnel, and encap is false`,
      );
    }
    if (route.encap !== true || !peersKnown) continue;
    if (tunnel.protocol === 'none') {
      report(['routes', i, 'encap'], 'false: tunnel.protocol is none');
    } else if (route.via !== undefined && !peers.has(route.via)) {
      report(['routes', i, 'via'], `the address of a tunnel peer (${known})`);
    }
  }
}

/**
 * Every next hop on the uplink and every peer must be reached: on the link, or through a route that is not a tunnel
 * and whose own next hop is reached, or else through the gateway. With a raw uplink a route may also lead to the host port:
 * what goes there is the kernel's to forward.
 */
function checkNextHops({ spec, kind, report, refused, subnet, gateway }: Check, owners: Owners): void {
  for (const [i, route] of entries(spec.routes)) {
    const via = addressOf(route.via);
    const owner = via === undefined || route.encap !== false ? undefined : owners.get(via);
    if (isLocal(owner) && !(owner === 'spec.host.address' && kind === 'raw')) {
      report(['routes', i, 'via'], `the address of another host (${owner} is the same)`);
    }
  }
  // A refused value could be what leads there; then nothing can be said about who is out of reach.
  if (subnet === undefined || refused('uplink') || refused('routes')) return;

  const onUplink = spec.routes?.filter(route => owners.get(addressOf(route?.via) ?? 0) !== 'spec.host.address');
  const isReachable = underlayReach(subnet, gateway, onUplink);
  const way = 'in the subnet of spec.uplink.address, or reached through the gateway or a route without encap';
  for (const [i, route] of entries(spec.routes)) {
    const via = addressOf(route.via);
    if (via === undefined || route.encap !== false || owners.has(via)) continue;
    if (!isReachable(via)) report(['routes', i, 'via'], `a next hop ${way}`);
  }
  for (const [i, peer] of entries<{ address?: string }>(spec.tunnel?.peers)) {
    const address = addressOf(peer.address);
    if (address === undefined || owners.has(address)) continue;
    if (!isReachable(address)) report(['tunnel', 'peers', i, 'address'], `a peer ${way}`);
  }
}

/** Answers whether an address is reached on the underlay; each address leads to one next hop, so one walk decides. */
function underlayReach(subnet: Cidr, gateway: number | undefined, routes: Spec['routes']): (to: number) => boolean {
  const byLength: Map<number, number>[] = Array.from({ length: 33 }, () => new Map());
  if (gateway !== undefined) byLength[0].set(0, gateway);
  for (const [, route] of entries(routes)) {
    const to = route.to === undefined ? undefined : parseCidr(route.to);
    const via = addressOf(route.via);
    if (to !== undefined && via !== undefined && route.encap === false) byLength[to.length].set(to.prefix, via);
  }
  const nextHop = (to: number): number | undefined => {
    for (let length = 32; length >= 0; length--) {
      const via = byLength[length].get(to & prefixMask(length));
      if (via !== undefined) return via;
    }
    return undefined;
  };
  const answers = new Map<number, boolean>();
  return (to: number) => {
    const walked: number[] = [];
    let at: number | undefined = to;
    let answer: boolean | undefined;
    while (answer === undefined) {
      if (at === undefined) answer = false;
      else if (answers.has(at)) answer = answers.get(at)!;
      else if (at === gateway) answer = true;
      else if (contains(subnet, at)) answer = at !== subnet.address && !isEdge(subnet, at);
      else {
        answers.set(at, false); // coming back here means a loop
        walked.push(at);
        at = nextHop(at);
      }
    }
    for (const address of walked) answers.set(address, answer);
    return answer;
  };
}

// ---- services and masquerade ----------------------------------------------------------------------------------------

function checkServices({ spec, report, refused }: Check, owners: Owners): void {
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

function checkMasquerade({ spec, report }: Check): void {
  for (const [i, rule] of entries(spec.masquerade)) {
    if (rule.action !== 'RETURN') continue;
    const at = ['masquerade', i];
    if (rule.randomFully === true) report([...at, 'randomFully'], 'no randomFully: RETURN translates nothing');
    if (rule.source !== undefined) report([...at, 'source'], 'no source: RETURN translates nothing');
    if (rule.ports !== undefined) report([...at, 'ports'], 'no ports: RETURN translates nothing');
  }
}

// ---- helpers --------------------------------------------------------------------------------------------------------

/** Index and item of each item that was not refused. */
function entries<T>(list: (T | undefined)[] | undefined): [number, T][] {
  const result: [number, T][] = [];
  list?.forEach((item, i) => {
    if (item !== undefined) result.push([i, item]);
  });
  return result;
}

function addressOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : parseAddress(text);
}

/** A function that reports each value it has been given before (in the same `scope`), naming the place of the first. */
function uniqueNames(report: Report, expected: string) {
  const first = new Map<string, Path>();
  return (value: string | number | undefined, path: Path, scope = '') => {
    if (value === undefined) return;
    const key = scope + value;
    const before = first.get(key);
    if (before === undefined) first.set(key, path);
    else report(path, `${expected} (${formatPath(['spec', ...before])} has it)`);
  };
}

/** `spec.pods[0].labels["app.kubernetes.io/name"]`: the way to a value, as the messages print it. */
export function formatPath(path: readonly PropertyKey[]): string {
  let out = '';
  for (const key of path) {
    if (typeof key === 'number') out += `[${key}]`;
    else if (/^[\w-]+$/.test(String(key))) out += out === '' ? String(key) : `.${String(key)}`;
    else out += `[${JSON.stringify(String(key))}]`;
  }
  return out;
}

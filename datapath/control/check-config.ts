/**
 * How the values of a node's configuration must fit together: nothing belongs to two, every next hop can be reached,
 * nothing is given that would have no effect. Each value by itself has been checked by the schema (config.ts); what it
 * refused is undefined here, and no check speaks where the refused value could have been the answer.
 */

import { type Cidr, contains, parseCidr, prefixMask } from './address.ts';
import {
  addressOf,
  type Check,
  entries,
  isLocal,
  type Owners,
  type Path,
  type Report,
  type Spec,
  uniqueNames,
} from './check-draft.ts';
import { checkPolicies } from './check-policies.ts';
import { checkServices } from './check-services.ts';
import { checkEncap, checkTunnels, tunnelsOf } from './check-tunnels.ts';
import { DEVICE_EXPECTED, NETNS_EXPECTED } from './schema.ts';

/**
 * Reports everything that does not fit.
 * @param refusedPaths what the schema refused, from the root of the document
 * @param report gets paths below `spec`
 * @param warn gets what is not wrong, but may not be meant
 * @param kind of the uplink, where `spec.uplink` is a tap's in place of another's that brought its address later
 */
export function checkSpec(
  spec: Spec,
  refusedPaths: Path[],
  report: Report,
  warn: Report,
  kind = spec.uplink?.kind,
): void {
  const refusedPrefixes = new Set<string>();
  for (const path of refusedPaths) {
    for (let length = 1; length <= path.length; length++) refusedPrefixes.add(path.slice(0, length).join('\n'));
  }
  const refused = (...path: Path) => refusedPrefixes.has(['spec', ...path].join('\n'));
  const { uplink } = spec;
  const own = uplink !== undefined && 'address' in uplink ? uplink : undefined;
  const subnet = own?.address === undefined ? undefined : parseCidr(own.address);
  const gateway = addressOf(own?.gateway);
  const check: Check = { spec, kind, report, warn, refused, subnet, gateway };

  checkGateway(check);
  checkDevices(check);
  const owners = checkAddresses(check);
  checkTunnels(check, owners);
  checkRoutes(check);
  checkNextHops(check, owners);
  checkServices(check, owners);
  checkMasquerade(check);
  checkPolicies(check);
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

function checkDevices(check: Check): void {
  const { spec, report } = check;
  const { uplink, host } = spec;
  const inNode = uniqueNames(report, 'a device name not yet used in this namespace');
  if (uplink !== undefined && 'interface' in uplink) inNode(uplink.interface, ['uplink', 'interface']);
  if (uplink !== undefined && 'device' in uplink) inNode(uplink.device, ['uplink', 'device']);
  inNode(host?.device, ['host', 'device']);

  const inPods = uniqueNames(report, 'a device name not yet used in this network namespace');
  const podName = uniqueNames(report, 'a name no other pod has');
  for (const [i, pod] of entries(spec.pods)) {
    podName(pod.name, ['pods', i, 'name']);
    if (pod.mac !== undefined && pod.kind === 'tun') {
      report(['pods', i, 'mac'], 'no MAC: kind is tun, which has no Ethernet (tap and veth have)');
    }
    checkPodKind(pod, i, check);
    if (pod.netns !== undefined) inPods(pod.device, ['pods', i, 'device'], `${pod.netns}\n`);
  }
}

/** A pod has a namespace with a device in it, or it is in memory. */
function checkPodKind(
  pod: NonNullable<NonNullable<Spec['pods']>[number]>,
  i: number,
  { report, refused }: Check,
): void {
  const { kind } = pod;
  if (kind === undefined) return;
  const isMemory = kind === 'memory';
  for (const [key, expected] of [
    ['netns', NETNS_EXPECTED],
    ['device', DEVICE_EXPECTED],
  ] as const) {
    if (!isMemory && pod[key] === undefined && !refused('pods', i, key)) report(['pods', i, key], expected);
    if (isMemory && pod[key] !== undefined) report(['pods', i, key], `no ${key}: kind is memory`);
  }
  if (isMemory && pod.mac !== undefined) report(['pods', i, 'mac'], 'no mac: kind is memory');
  if (!isMemory && pod.app !== undefined) report(['pods', i, 'app'], `no app: kind is ${kind}`);
}

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

// ---- routes ---------------------------------------------------------------------------------------------------------

function checkRoutes(check: Check): void {
  const { spec, report } = check;
  const unique = uniqueNames(report, 'a network no other route has');
  for (const [i, pod] of entries(spec.pods)) {
    for (const [j, network] of entries(pod.networks)) unique(network, ['pods', i, 'networks', j]);
  }
  for (const [i, route] of entries(spec.routes)) {
    unique(route.to, ['routes', i, 'to']);
    if (route.encap === false && (route.tooBig === 'fragment-outer' || route.tooBig === 'larger-underlay')) {
      report(
        ['routes', i, 'tooBig'],
        `signal or fragment-inner: ${route.tooBig} is about a tunnel, and encap is false`,
      );
    }
    checkEncap(check, route, i);
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
  for (const { at, tunnel } of tunnelsOf(spec)) {
    for (const [i, peer] of entries<{ address?: string }>(tunnel.peers)) {
      const address = addressOf(peer.address);
      if (address === undefined || owners.has(address)) continue;
      if (!isReachable(address)) report([...at, 'peers', i, 'address'], `a peer ${way}`);
    }
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

// ---- masquerade -----------------------------------------------------------------------------------------------------

function checkMasquerade({ spec, report }: Check): void {
  for (const [i, rule] of entries(spec.masquerade)) {
    if (rule.action !== 'RETURN') continue;
    const at = ['masquerade', i];
    if (rule.randomFully === true) report([...at, 'randomFully'], 'no randomFully: RETURN translates nothing');
    if (rule.source !== undefined) report([...at, 'source'], 'no source: RETURN translates nothing');
    if (rule.ports !== undefined) report([...at, 'ports'], 'no ports: RETURN translates nothing');
  }
}

/** What stands in the way of a node on this machine, each with what to do about it. Pure. */
import { ROUTE_METRIC } from '../control/host-routes.ts';
import type { Facts, Nic } from './facts.ts';
import { judge } from './firewall.ts';
import {
  cloudOf,
  type Draft,
  HOOKS,
  isCniInterface,
  networkOf,
  overlap,
  type Request,
  tunnelPort,
  tunnelTraffic,
  type UplinkKindName,
} from './request.ts';

/** Made in software, and not by whoever gave the machine its network. */
const SOFTWARE = new Set(['vxlan', 'geneve', 'ipip', 'tun', 'dummy', 'ifb', 'wireguard', 'macvtap', 'gre', 'sit']);

export function machineObstacles({ tun, tap }: Facts): string[] {
  const errors = [tun, tap].flatMap(probe => ('error' in probe ? [probe.error] : []));
  return errors.slice(0, 1).map(error => `no TUN device can be made: ${error}`);
}

/** The NIC of a node, that of the route to its peers, or why it cannot be told. */
export function chooseNic(facts: Facts, { interface: name, peers }: Request): Nic | string {
  const { interfaces, routes } = facts;
  if (name !== undefined) {
    const names = interfaces.filter(nic => nic.name !== 'lo').map(nic => nic.name);
    const found = interfaces.find(nic => nic.name === name && name !== 'lo');
    return (
      found ?? `--interface ${name}: there is none, expected one of ${names.join(', ') || '(none but lo is here)'}`
    );
  }
  const towards = peers.length === 0 ? undefined : nicTowards(facts, peers);
  if (towards !== undefined) return towards;
  const real = interfaces.filter(({ name, up, addresses, kind }) => {
    return name !== 'lo' && up && addresses.length > 0 && !SOFTWARE.has(kind ?? '') && !isCniInterface(name);
  });
  const [byDefault] = routes.filter(route => route.to === 'default').sort((a, b) => a.metric - b.metric);
  const found = real.find(nic => nic.name === byDefault?.device) ?? (real.length === 1 ? real[0] : undefined);
  if (found !== undefined) return found;
  if (real.length === 0)
    return 'no interface is up with an IPv4 address: give one an address, or name it with --interface';
  const choices = real.map(nic => nic.name).join(', ');
  return `no default route says which interface leads out: expected --interface with one of ${choices}`;
}

/** The interface by which the kernel sends to every peer; a default route may lead elsewhere, into a NAT or a VPN. */
function nicTowards({ interfaces, toPeers }: Facts, peers: Request['peers']): Nic | string | undefined {
  const ways = peers.map(({ address }) => ({ address, route: toPeers.get(address) }));
  const lost = ways.find(({ route }) => route === null);
  if (lost !== undefined) {
    return `--peer ${lost.address}: this host has no route to it: add one, or name the interface with --interface`;
  }
  const devices = [...new Set(ways.flatMap(({ route }) => (route == null ? [] : [route.device])))];
  if (devices.length > 1) {
    const each = ways.map(({ address, route }) => `${address} by ${route?.device}`).join(', ');
    return `this host reaches its peers by several interfaces (${each}), and a node has one: expected --interface, or peers of one network`;
  }
  return interfaces.find(nic => nic.name === devices[0]);
}

export function nicObstacles(facts: Facts, request: Request, kind: UplinkKindName, nic: Nic): string[] {
  const obstacles: string[] = [];
  if (!nic.up) obstacles.push(`${nic.name} is down: ip link set ${nic.name} up`);
  else if (!nic.running) obstacles.push(`${nic.name} has no carrier: its cable, or its other end, is down`);
  if (kind === 'macvtap') return [...obstacles, ...macvtapObstacles(facts, request, nic)];

  if (nic.addresses.length === 0) {
    obstacles.push(
      `${nic.name} has no IPv4 address, which uplink ${kind} would use: ip address add ... dev ${nic.name}`,
    );
  }
  const port = tunnelPort(request);
  const device = facts.interfaces.find(({ tunnelPort }) => tunnelPort !== undefined && tunnelPort === port);
  const socket = facts.udpPorts.find(candidate => candidate.port === port);
  if (device !== undefined || socket !== undefined) {
    const owner = device === undefined ? `a process, at ${socket!.address}` : `the kernel's ${device.name}`;
    const other = request.tunnel === 'vxlan' ? 'geneve' : 'vxlan';
    obstacles.push(
      `UDP port ${port} belongs to ${owner}: expected another --port (the same on every node), or --tunnel ${other}`,
    );
  }
  return obstacles;
}

function macvtapObstacles(facts: Facts, request: Request, nic: Nic): string[] {
  const obstacles: string[] = [];
  if (request.address === undefined) {
    const where = nic.addresses.length > 0 ? ` of ${networkOf(nic.addresses[0])}` : '';
    obstacles.push(`a macvtap needs an address of its own: expected --address with a free one${where} and its length`);
  }
  if (nic.wireless)
    obstacles.push(`${nic.name} is wireless, and an access point takes no second MAC: expected another uplink`);
  const cloud = cloudOf(facts, nic);
  if (cloud !== undefined && request.uplink === 'auto') {
    obstacles.push(
      `${nic.name} is in ${cloud}, which forwards no MAC but its own: leave --address out, or insist with --uplink macvtap`,
    );
  }
  return obstacles;
}

export function networkObstacles({ facts, podCidr, peers, own }: Draft): string[] {
  // A node that runs here has its routes by our metric.
  const taken = facts.routes.filter(({ to, metric }) => to !== 'default' && metric !== ROUTE_METRIC);
  const routeTo = (network: string) => taken.find(({ to }) => overlap(to, network));
  const obstacles: string[] = [];
  const own4 = own.split('/')[0];
  const route = routeTo(podCidr);
  if (route !== undefined) {
    obstacles.push(
      `the pods' network ${podCidr} overlaps ${route.to}, which this host reaches by ${route.device}: expected another --pod-cidr`,
    );
  }
  const owners = new Map([[podCidr, 'this node']]);
  for (const peer of peers) {
    if (peer.address === own4) {
      obstacles.push(`--peer ${own4} is this node itself: expected the address of another one`);
      continue;
    }
    const expected = `expected --peer ${peer.address}=NETWORK`;
    const same = [...owners].find(([network]) => overlap(network, peer.podCidr));
    if (same !== undefined) {
      obstacles.push(
        `--peer ${peer.address}: the network of its pods, ${peer.podCidr}, is that of ${same[1]}: ${expected}`,
      );
    }
    const other = routeTo(peer.podCidr);
    if (other !== undefined) {
      obstacles.push(
        `--peer ${peer.address}: the network of its pods, ${peer.podCidr}, overlaps ${other.to}, which this host reaches by ${other.device}: ${expected}`,
      );
    }
    owners.set(peer.podCidr, peer.address);
  }
  return obstacles;
}

/** What the host's rules make of the tunnel's packets: those that are dropped, and those of which that cannot be told. */
export function judgeTunnel({ facts, request, kind, nic, own, peers }: Draft): { dropped: string[]; unsure: string[] } {
  const dropped: string[] = [];
  const unsure: string[] = [];
  const port = tunnelPort(request);
  // Without a peer, as from anywhere: a documentation address (RFC 5737).
  const sources = peers.length > 0 ? peers.map(({ address }) => address) : ['203.0.113.1'];
  for (const source of facts.firewall === null ? [] : sources) {
    const protocol = port === undefined ? 'ipip' : 'udp';
    const packet = { input: nic.name, protocol, port, source, destination: own.split('/')[0] } as const;
    const { outcome, chain } = judge(facts.firewall!, packet, HOOKS[kind]);
    const what = `${tunnelTraffic(request)}${peers.length > 0 ? ` from ${source}` : ''}`;
    if (outcome === 'drop') dropped.push(`the firewall drops ${what} in ${chain}: add a rule there that accepts it`);
    if (outcome === 'unknown')
      unsure.push(`whether the firewall lets ${what} through ${chain} cannot be told from its rules`);
  }
  return { dropped, unsure };
}

/** What the user of `host init` asks for, and what it comes to on this machine. */
import { type Cidr, formatCidr, parseCidr } from '../control/address.ts';
import { defaultTunnelPort, type UplinkConfig } from '../control/config.ts';
import type { Facts, Nic } from './facts.ts';

export type UplinkKindName = Exclude<UplinkConfig['kind'], 'tap' | 'segment'>;

/** Every text has been checked. */
export interface Request {
  interface?: string;
  uplink: UplinkKindName | 'auto';
  tunnel: 'vxlan' | 'geneve' | 'ipip';
  /** UDP port of the tunnel, where it is not the usual one. */
  port?: number;
  /** Underlay addresses of the other nodes, each with its pods' network where that is not the usual one. */
  peers: { address: string; podCidr?: string }[];
  name?: string;
  podCidr?: string;
  /** ADDRESS/LENGTH of a macvtap. */
  address?: string;
  /** Network namespaces that become pods. */
  pods: string[];
}

/** A request with one kind of uplink on one NIC, and what follows from that. */
export interface Draft {
  facts: Facts;
  request: Request;
  kind: UplinkKindName;
  nic: Nic;
  /** The node's underlay address, ADDRESS/LENGTH. */
  own: string;
  podCidr: string;
  peers: { address: string; podCidr: string }[];
  /** Of the NIC's default route. */
  gateway?: string;
}

/** UDP port of the tunnel; undefined for IPIP, which has none. */
export function tunnelPort({ tunnel, port }: Request): number | undefined {
  return tunnel === 'ipip' ? undefined : (port ?? defaultTunnelPort(tunnel, 'linux'));
}

/** "UDP port 8472" */
export function tunnelTraffic(request: Request): string {
  const port = tunnelPort(request);
  return port === undefined ? 'IP protocol 4' : `UDP port ${port}`;
}

/**
 * Where the pods of each node have their addresses unless it is said: 10.244.N.0/24, N the last byte of its underlay address.
 * Where two addresses end alike, the lower one has that and the other the next number that no address ends with. Nodes that
 * name the same set of nodes so come to the same networks.
 * @param underlays addresses of all nodes, this one and its peers, with or without a length
 */
export function podNetworks(underlays: readonly string[]): (underlay: string) => string {
  const plain = (underlay: string) => underlay.split('/')[0];
  const numberOf = (underlay: string) =>
    plain(underlay)
      .split('.')
      .reduce((sum, byte) => sum * 256 + Number(byte), 0);
  const sorted = [...new Set(underlays.map(plain))].sort((a, b) => numberOf(a) - numberOf(b));
  const last = (underlay: string) => numberOf(underlay) % 256;
  const taken = new Set(sorted.map(last));
  const given = new Set<number>();
  const networks = new Map<string, string>();
  for (const underlay of sorted) {
    let n = last(underlay);
    if (given.has(n)) while (taken.has(n) || given.has(n)) n = (n + 1) % 256;
    given.add(n);
    networks.set(underlay, `10.244.${n}.0/24`);
  }
  return underlay => networks.get(plain(underlay)) as string;
}

/** Where a tunnel packet meets the host's rules, in nft's words: a macvtap and the steering of routed take it before the rest. */
export const HOOKS: Record<UplinkKindName, string[]> = {
  raw: ['ingress', 'prerouting', 'input'],
  routed: ['ingress'],
  macvtap: ['ingress'],
};

/** Fabrics that forward only the MAC and addresses that they have given out. */
const CLOUDS: [RegExp, string][] = [
  [/Amazon EC2/i, 'Amazon EC2'],
  [/Google/i, 'Google Cloud'],
  [/Microsoft Corporation/i, 'Azure or Hyper-V'],
  [/Hetzner/i, 'Hetzner Cloud'],
  [/DigitalOcean/i, 'DigitalOcean'],
  [/OpenStack/i, 'OpenStack'],
  [/Alibaba/i, 'Alibaba Cloud'],
  [/OracleCloud/i, 'Oracle Cloud'],
  [/Linode|Akamai/i, 'Linode'],
  [/Vultr/i, 'Vultr'],
  [/Scaleway/i, 'Scaleway'],
];

/** Whose fabric the NIC is on, by what the machine says of itself, or by an address that has no neighbours. */
export function cloudOf({ machine }: Facts, nic: Nic): string | undefined {
  const named = CLOUDS.find(([pattern]) => pattern.test(machine))?.[1];
  if (named !== undefined) return named;
  return nic.addresses[0]?.endsWith('/32') ? 'a network that routes every address by itself (a /32)' : undefined;
}

/** Devices of other networks of pods. */
export function isCniInterface(name: string): boolean {
  return /^(cni|cali|vxlan\.calico|tunl0|flannel|cilium|lxc|kube-|nodelocaldns|weave|docker|br-)/.test(name);
}

/** A network or an address that a plan or a kernel route names. */
function toCidr(text: string): Cidr | undefined {
  return parseCidr(text.includes('/') ? text : `${text}/32`);
}

/** Have two networks an address in common? */
export function overlap(a: string, b: string): boolean {
  const [one, other] = [toCidr(a), toCidr(b)];
  if (one === undefined || other === undefined) return false;
  const shift = 32 - Math.min(one.length, other.length);
  return shift === 32 || one.prefix >>> shift === other.prefix >>> shift;
}

/** 192.168.10.0/24 of 192.168.10.5/24. */
export function networkOf(interfaceAddress: string): string {
  const { prefix, length } = parseCidr(interfaceAddress)!;
  return formatCidr(prefix, length);
}

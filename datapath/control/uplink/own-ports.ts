/**
 * Ports of services at the node's own addresses: what its processes send there never leaves its kernel, or, with a macvtap,
 * leaves it where nothing comes back. A rule gives such connections the destination SERVICE_OWN, which the host port's route
 * leads to; the datapath answers it as the node's address, and the kernel's conntrack gives the answers their source back.
 */
import { missingNftables, Nftables } from '../../io/nftables.ts';
import { SERVICE_OWN } from '../../nat/service.ts';
import { nodePortAddresses } from '../../program/compile-nat.ts';
import { formatAddress } from '../address.ts';
import { inNamespace, namespaceInode } from '../netns.ts';
import type { ResolvedConfig } from '../resolved.ts';
import { addressesOf } from '../service-config.ts';
import { parseCidr } from '../validated.ts';
import { STEERING_PREFIX } from './steering.ts';
import type { OpenUplink, StatusLine } from './uplink.ts';

/** `ADDRESS . PROTOCOL . PORT` of everything that the kernel would keep to itself, in nft's words. */
export function ownPorts(config: ResolvedConfig): string[] {
  const { uplink, host, services } = config.spec;
  if (host === undefined) return [];
  const { address } = parseCidr(uplink.address);
  const own = formatAddress(address);
  const atNode = nodePortAddresses(config, address).map(formatAddress);
  const found = new Set<string>();
  for (const service of services) {
    const { external, loadBalancer } = addressesOf(service);
    const isOwn = external.includes(own) || loadBalancer.includes(own);
    for (const { protocol, port, nodePort } of service.ports) {
      const name = protocol.toLowerCase();
      if (isOwn) found.add(`${own} . ${name} . ${port}`);
      if (nodePort !== undefined) for (const at of atNode) found.add(`${at} . ${name} . ${nodePort}`);
    }
  }
  return [...found];
}

/** Sources that the datapath leads back to the host port; any other gets the first of them. */
function sourcesOf({ spec: { uplink, host } }: ResolvedConfig): string[] {
  if (host === undefined) return [];
  const addresses = [host.address, ...(uplink.onHostPort || uplink.ofKernel === true ? [uplink.address] : [])];
  return [...new Set(addresses.map(cidr => formatAddress(parseCidr(cidr).address)))];
}

/** The table in nft's words, replacing the one of that name in one step. */
export function ownPortsTable(node: string, ports: readonly string[], sources: readonly string[]): string {
  const table = `table ip ${STEERING_PREFIX}${node}`;
  const flags = 'flags owner';
  const elements = ports.length === 0 ? '' : `elements = { ${ports.join(', ')} }`;
  return `${table} {\n${flags}\n}\ndelete ${table}\n${table} {
${flags}
set ports {
type ipv4_addr . inet_proto . inet_service
${elements}
}
chain output {
type nat hook output priority -100
ip daddr . ip protocol . th dport @ports dnat to ${formatAddress(SERVICE_OWN)}
}
${sources.length === 0 ? '' : sourceChain(sources)}}
`;
}

function sourceChain(sources: readonly string[]): string {
  const wrong = `ip daddr ${formatAddress(SERVICE_OWN)} ip saddr != { ${sources.join(', ')} }`;
  return `chain postrouting {\ntype nat hook postrouting priority 100\n${wrong} snat to ${sources[0]}\n}\n`;
}

/** The rules of a running node; none until there is a port. */
export class OwnPorts {
  private readonly node: string;
  private readonly netns: string | undefined;
  private nftables: Nftables | null = null;
  /** Of the namespace that the conversation is with; undefined: that of this process. */
  private inode: number | undefined;
  private ports: string[] = [];
  private problem: string | null = null;

  /** @param netns where the node's processes are, if not in the current namespace */
  constructor(node: string, netns: string | undefined) {
    this.node = node;
    this.netns = netns;
  }

  /** What each of the configurations needs. What stands in the way is in the status: nothing else fails for it. */
  serve(...configs: ResolvedConfig[]): void {
    this.ports = [...new Set(configs.flatMap(ownPorts))];
    const sources = configs.map(sourcesOf).findLast(list => list.length > 0) ?? [];
    const inode = this.netns === undefined ? undefined : namespaceInode(this.netns);
    if (this.nftables !== null && this.inode !== inode) this.close();
    if (this.ports.length === 0 && this.nftables === null) return;
    this.problem = missingNftables() ?? null;
    if (this.problem !== null) return;
    try {
      // The conversation stays with the namespace that it was begun in, and keeps it alive.
      this.nftables ??= this.netns === undefined ? new Nftables() : inNamespace(this.netns, () => new Nftables());
      this.inode = inode;
      this.nftables.run(ownPortsTable(this.node, this.ports, sources));
    } catch (error) {
      this.problem = (error as Error).message;
    }
  }

  status(): StatusLine[] {
    if (this.ports.length === 0) return [];
    const what = 'own-ports';
    if (this.problem === null) {
      return [
        { what, how: `a rule of nftables leads processes of this node to ${this.ports.length} ports of services` },
      ];
    }
    return [{ what, how: `processes of this node do not reach services at its own address: ${this.problem}` }];
  }

  close(): void {
    this.nftables?.close();
    this.nftables = null;
  }
}

/** The uplink of a running node, with these rules beside whatever its kind needs. */
export function withOwnPorts(config: ResolvedConfig, uplink: OpenUplink): OpenUplink {
  const ports = new OwnPorts(config.metadata.name, config.spec.host?.netns);
  ports.serve(config);
  return {
    ...uplink,
    status: async () => [...(await uplink.status()), ...ports.status()],
    async serve(...configs) {
      await uplink.serve?.(...configs);
      ports.serve(...configs);
    },
    async close() {
      ports.close();
      await uplink.close();
    },
  };
}

/**
 * The rules that lead a host's packets into the datapath: a table of the netdev family, whose hook stands before all of the
 * host's own network (routing, rp_filter, conntrack, its firewall), and leaves every part of that as it is.
 *
 *        eth0                                                        ul0 (TAP)
 *          |                                                           ^   |
 *   from_interface --- ours: fwd ------------------------------------->|   |
 *          |      \--- the host's and ours (ARP, ICMP): dup ---------->|   |
 *          v                                                               v
 *     the host, with everything else         eth0 <---- fwd ----- from_datapath
 *
 * `fwd` hands a packet to the other device as it is, superpackets and their offloads included.
 *
 * Later fragments show no port. The first of a datagram says whose they are, and that is kept by (source, id, protocol)
 * for some seconds. One that comes before its first goes to both; each side drops what it cannot put together.
 */
import type { PortRange } from '../host-ports.ts';
import { parseAddress } from '../validated.ts';
import type { Claims, PortClaim } from './claims.ts';

/** Behind the filters (priority 0) that the host may have on the same hook: what they drop stays dropped. */
const PRIORITY = 100;
/** Fragments of a datagram arrive together, or not at all. */
const FRAGMENT_SECONDS = 5;
const FRAGMENTED_DATAGRAMS = 65536;

/** Where later fragments have been sorted out already. */
const FIRST_FRAGMENT = 'ip frag-off & 0x2000 != 0';
const DATAGRAM = 'ip saddr . ip id . ip protocol';

// In an ICMP error: where the quoted header has protocol and source, and what follows it (offset and length in bits).
const QUOTED_PROTOCOL = '@th,136,8';
const QUOTED_SOURCE = '@th,160,32';
const QUOTED_SOURCE_PORT = '@th,224,16';
const QUOTED_DESTINATION_PORT = '@th,240,16';
const QUOTED_ECHO_ID = '@th,256,16';
const ECHO_ID = '@th,32,16';
const PROTOCOL_NUMBERS = { icmp: 1, ipip: 4, tcp: 6, udp: 17, sctp: 132 } as const;

/** What the names of our tables begin with. */
export const STEERING_PREFIX = 'tunpath_';

/** `tunpath_NAME`, in the netdev family. */
export function tableName(node: string): string {
  return `${STEERING_PREFIX}${node}`;
}

/**
 * The nodes whose rules are on an interface.
 * @param chains what `nft list chains netdev` prints
 */
export function steeringNodes(chains: string, networkInterface: string): string[] {
  const nodes: string[] = [];
  let table = '';
  for (const line of chains.split('\n')) {
    const words = line.split(/[\s"{},;=]+/).filter(word => word !== '');
    if (words[0] === 'table') table = words[2];
    else if (words.includes('hook') && words.includes(networkInterface) && table.startsWith(STEERING_PREFIX)) {
      nodes.push(table.slice(STEERING_PREFIX.length));
    }
  }
  return nodes;
}

/**
 * The table in nft's words, replacing the one of that name in one step.
 * @param device the datapath's TAP
 */
export function steeringTable(node: string, device: string, networkInterface: string, claims: Claims): string {
  const table = `table netdev ${tableName(node)}`;
  const { address, sources, destinations, reserved } = claims;
  const fragments = [
    `ip frag-off & 0x1fff != 0 goto later_fragment`,
    // Until a rule below says otherwise.
    `${FIRST_FRAGMENT} jump leave_datagram`,
  ];
  const parts = [
    fragmentSet('taken'),
    fragmentSet('left'),
    chain('from_datapath', [hook(device, 'drop'), `counter fwd to "${networkInterface}"`]),
    chain('from_interface', [
      hook(networkInterface, 'accept'),
      // The datapath looks for its next hops itself; who asks for the host's address is answered by the host.
      'arp operation reply jump share',
      `arp operation request arp daddr ip != ${address} jump share`,
      `meta pkttype host ip daddr ${address} goto own_address`,
      ...(sources.length > 0 ? [`meta pkttype host ip daddr { ${sources.join(', ')} } goto source_address`] : []),
      ...(destinations.length > 0
        ? [`meta pkttype host ip daddr { ${destinations.join(', ')} } counter fwd to "${device}"`]
        : []),
    ]),
    chain('own_address', [
      ...fragments,
      ...(claims.ipip ? [`ip protocol ipencap ${fromPeers(claims)}goto take`] : []),
      ...byProtocol([...claims.tunnelPorts, ...claims.servicePorts], (p, ports) => `${p} dport ${ports} goto take`),
      'goto reserved_ports',
    ]),
    ...(sources.length > 0 ? [chain('source_address', [...fragments, 'goto reserved_ports'])] : []),
    chain('reserved_ports', [
      ...given(reserved, ports => `ip protocol { tcp, udp, sctp } th dport ${ports} goto take`),
      // An identifier belongs to whoever asked, so the host may wait for this one, too.
      ...given(reserved, ids => `icmp type { echo-reply, timestamp-reply } ${ECHO_ID} ${ids} goto share`),
      'icmp type { destination-unreachable, time-exceeded, parameter-problem } goto error',
    ]),
    chain('error', errorRules(claims)),
    chain('take', [`${FIRST_FRAGMENT} jump take_datagram`, `counter fwd to "${device}"`]),
    chain('share', [`${FIRST_FRAGMENT} delete @left { ${DATAGRAM} }`, `counter dup to "${device}"`]),
    chain('take_datagram', [`delete @left { ${DATAGRAM} }`, `update @taken { ${DATAGRAM} }`]),
    chain('leave_datagram', [`delete @taken { ${DATAGRAM} }`, `update @left { ${DATAGRAM} }`]),
    chain('later_fragment', [
      `${DATAGRAM} @taken counter fwd to "${device}"`,
      `${DATAGRAM} @left accept`,
      ...laterProtocols(claims).map(protocol => `ip protocol ${protocol} counter dup to "${device}"`),
    ]),
  ];
  const flags = 'flags owner';
  return `${table} {\n${flags}\n}\ndelete ${table}\n${table} {\n${flags}\n${parts.join('\n')}\n}\n`;
}

function hook(device: string, policy: 'accept' | 'drop'): string {
  return `type filter hook ingress device "${device}" priority ${PRIORITY}; policy ${policy};`;
}

function chain(name: string, rules: string[]): string {
  return `chain ${name} {\n${rules.join('\n')}\n}`;
}

function fragmentSet(name: string): string {
  return (
    `set ${name} {\ntypeof ${DATAGRAM}\nsize ${FRAGMENTED_DATAGRAMS}\n` +
    `flags dynamic,timeout\ntimeout ${FRAGMENT_SECONDS}s\n}`
  );
}

function fromPeers(claims: Claims): string {
  return claims.peers === 'any' ? '' : `ip saddr { ${claims.peers.join(', ')} } `;
}

/** An error belongs to us if it quotes a packet of ours. The host hears of it, too: it may concern the path to a peer. */
function errorRules(claims: Claims): string[] {
  const own = [claims.address, ...claims.sources].map(hexAddress);
  return [
    `${QUOTED_SOURCE} != { ${own.join(', ')} } accept`,
    ...(claims.ipip ? [`${QUOTED_PROTOCOL} ${PROTOCOL_NUMBERS.ipip} goto share`] : []),
    ...byProtocol(claims.tunnelPorts, (p, ports) => quoted(p, QUOTED_DESTINATION_PORT, ports)),
    ...byProtocol(claims.servicePorts, (p, ports) => quoted(p, QUOTED_SOURCE_PORT, ports)),
    ...(['tcp', 'udp', 'sctp'] as const).flatMap(p =>
      given(claims.reserved, ports => quoted(p, QUOTED_SOURCE_PORT, ports)),
    ),
    ...given(claims.reserved, ids => quoted('icmp', QUOTED_ECHO_ID, ids)),
  ];
}

function quoted(protocol: keyof typeof PROTOCOL_NUMBERS, field: string, values: string): string {
  return `${QUOTED_PROTOCOL} ${PROTOCOL_NUMBERS[protocol]} ${field} ${values} goto share`;
}

function hexAddress(address: string): string {
  return `0x${(parseAddress(address) >>> 0).toString(16)}`;
}

/** Whose later fragments the datapath can put together or hold until it knows. */
function laterProtocols(claims: Claims): string[] {
  if (claims.reserved.length > 0) return ['{ icmp, tcp, udp, sctp }', ...(claims.ipip ? ['ipencap'] : [])];
  const protocols = [...(claims.ipip ? ['ipencap'] : []), ...(claims.tunnelPorts.length > 0 ? ['udp'] : [])];
  return protocols.map(protocol => `${protocol} ${fromPeers(claims)}`.trimEnd());
}

/** A rule for each protocol that occurs, with its ports as a set. */
function byProtocol(
  claims: readonly PortClaim[],
  rule: (protocol: PortClaim['protocol'], ports: string) => string,
): string[] {
  return (['tcp', 'udp', 'sctp'] as const).flatMap(protocol =>
    given(
      claims.filter(claim => claim.protocol === protocol),
      ports => rule(protocol, ports),
    ),
  );
}

/** A rule about a set of numbers, unless the set is empty. */
function given(ranges: readonly PortRange[], rule: (set: string) => string): string[] {
  if (ranges.length === 0) return [];
  const parts = mergeRanges(ranges).map(({ low, high }) => (low === high ? `${low}` : `${low}-${high}`));
  return [rule(`{ ${parts.join(', ')} }`)];
}

/** In order and without overlaps, which nft refuses. */
export function mergeRanges(ranges: readonly PortRange[]): PortRange[] {
  const merged: PortRange[] = [];
  for (const { low, high } of [...ranges].sort((a, b) => a.low - b.low)) {
    const last = merged.at(-1);
    if (last !== undefined && low <= last.high + 1) last.high = Math.max(last.high, high);
    else merged.push({ low, high });
  }
  return merged;
}

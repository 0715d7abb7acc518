/** Which ports of its own address the host uses, or may come to use, in the current network namespace. */
import { readFileSync } from 'node:fs';
import { formatAddress } from './address.ts';

/** Both ends included. */
export interface PortRange {
  low: number;
  high: number;
}

export interface HostSocket {
  protocol: 'tcp' | 'udp';
  /** Undefined: any address of the host. */
  address?: string;
  port: number;
}

export interface HostPorts {
  /** Where the kernel takes the ports of outgoing connections from... */
  ephemeral: PortRange;
  /** ...but for these. */
  spared: PortRange[];
  sockets: HostSocket[];
}

/** A connection in TIME_WAIT is over: its port is as good as free (include/net/tcp_states.h). */
const TCP_TIME_WAIT = 6;
const IPV6_ANY = '0'.repeat(32);
const IPV6_MAPPED = '0000000000000000FFFF0000';

export function readHostPorts(): HostPorts {
  const read = (file: string) => {
    try {
      return readFileSync(file, 'utf8');
    } catch {
      return ''; // a kernel without IPv6 has no tcp6
    }
  };
  const [low, high] = read('/proc/sys/net/ipv4/ip_local_port_range').split(/\s+/).map(Number);
  return {
    ephemeral: { low, high },
    spared: parseRanges(read('/proc/sys/net/ipv4/ip_local_reserved_ports')),
    sockets: [
      ...parseSockets('tcp', read('/proc/self/net/tcp')),
      ...parseSockets('tcp', read('/proc/self/net/tcp6')),
      ...parseSockets('udp', read('/proc/self/net/udp')),
      ...parseSockets('udp', read('/proc/self/net/udp6')),
    ],
  };
}

/** "8080,9000-9100", as the kernel prints lists of ports. */
export function parseRanges(text: string): PortRange[] {
  return text
    .trim()
    .split(',')
    .filter(part => part !== '')
    .map(part => {
      const [low, high] = part.split('-').map(Number);
      return { low, high: high ?? low };
    });
}

/** Those of /proc/net/{tcp,tcp6,udp,udp6} that get IPv4 packets. */
export function parseSockets(protocol: 'tcp' | 'udp', text: string): HostSocket[] {
  return text
    .trim()
    .split('\n')
    .slice(1)
    .flatMap((line): HostSocket[] => {
      const [, local, , state] = line.trim().split(/\s+/);
      const [address, port] = local.split(':');
      if (protocol === 'tcp' && Number.parseInt(state, 16) === TCP_TIME_WAIT) return [];
      const found = { protocol, port: Number.parseInt(port, 16) };
      if (address === IPV6_ANY || address === '00000000') return [found];
      const mapped = address.startsWith(IPV6_MAPPED);
      if (address.length > 8 && !mapped) return [];
      return [{ ...found, address: formatAddress(fromLittleEndian(address.slice(-8))) }];
    });
}

/** The kernel prints the address, which has network order, as a number of the machine's. */
function fromLittleEndian(hex: string): number {
  const value = Number.parseInt(hex, 16);
  return ((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
}

/**
 * Who on the host uses a port of [low, high] of `address`, or may be given one tomorrow; undefined if nobody.
 * @returns the end of "the port must be free, but ..."
 */
export function findUser(
  { ephemeral, spared, sockets }: HostPorts,
  protocol: 'tcp' | 'udp',
  address: string,
  { low, high }: PortRange,
): string | undefined {
  const socket = sockets.find(
    s =>
      s.protocol === protocol && s.port >= low && s.port <= high && (s.address === undefined || s.address === address),
  );
  if (socket !== undefined) return `the host has a ${protocol.toUpperCase()} socket on port ${socket.port}`;
  const first = firstUnspared({ low: Math.max(low, ephemeral.low), high: Math.min(high, ephemeral.high) }, spared);
  if (first === undefined) return undefined;
  return `the host may take port ${first} for connections of its own (net.ipv4.ip_local_port_range is ${ephemeral.low}-${ephemeral.high}; net.ipv4.ip_local_reserved_ports makes exceptions)`;
}

/** The first port of a range, which may be empty, that is in none of the others. */
function firstUnspared({ low, high }: PortRange, spared: readonly PortRange[]): number | undefined {
  let port = low;
  for (const range of [...spared].sort((a, b) => a.low - b.low)) {
    if (port >= range.low && port <= range.high) port = range.high + 1;
  }
  return port <= high ? port : undefined;
}

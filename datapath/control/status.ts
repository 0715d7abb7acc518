/** A running node as rows: `tunpath status` and the kinds of `get` that are about its ports and routes. */
import {
  type Counters,
  PORT_RX_BYTES,
  PORT_RX_DROPPED,
  PORT_RX_PACKETS,
  PORT_TX_BYTES,
  PORT_TX_DROPPED,
  PORT_TX_PACKETS,
} from '../counters.ts';
import { OFFLOADS } from '../io/device.ts';
import type { DeviceHandle } from '../io/handle.ts';
import type { PathMtuRow } from '../mtu/path-mtu.ts';
import { PORT_KINDS } from '../port.ts';
import { configuredOverhead, outerHeaderOf } from '../program/compile-tunnel.ts';
import { innerMtu, mtusOf } from '../program/mtus.ts';
import { type HopProgram, type PortProgram, portKey } from '../program/program.ts';
import type { Announcement } from '../route/announcements.ts';
import type { AddressConflict } from '../route/claims.ts';
import { TOO_BIG_NAMES } from '../route/nexthop.ts';
import { formatAddress, formatCidr, formatMac, parseAddress } from './address.ts';
import type { TunnelConfig } from './config.ts';
import type { PortHealth } from './port-health.ts';
import type { ResolvedConfig } from './resolved.ts';

/** A port with what the control plane knows of it. */
export interface PortState {
  port: PortProgram;
  handle: DeviceHandle;
  /** Of its counters. */
  number: number;
}

/** By portKey(). */
export type PortStates = ReadonlyMap<string, PortState>;

/** As the loop gives it. */
export interface RouteRow extends Omit<HopProgram, 'kind'> {
  prefix: number;
  length: number;
  kind: string;
}

export interface NeighborRow {
  address: number;
  mac: { hi: number; lo: number } | null;
}

/** The status, but for what only the loop knows. */
export function statusOf(config: ResolvedConfig, ports: PortStates, health: PortHealth) {
  const { metadata, spec } = config;
  const mtus = mtusOf(config);
  return {
    node: metadata.name,
    profile: spec.profile,
    underlay: {
      kind: spec.uplink.kind,
      interface: 'interface' in spec.uplink.written ? spec.uplink.written.interface : null,
      device: spec.uplink.device,
      address: spec.uplink.address,
      mac: spec.uplink.mac,
      gateway: spec.uplink.gateway ?? null,
      mtu: spec.uplink.mtu,
      /** Whether the node's own processes have the address. */
      atHostPort: spec.host !== undefined && spec.uplink.onHostPort,
    },
    ...tunnelsStatus(config),
    mtu: { pods: mtus.device, tooBig: spec.mtu.tooBig, clampMss: spec.mtu.clampMss },
    ports: Array.from(ports, ([key, { port, handle }]) => ({
      name: port.name,
      kind: PORT_KINDS[port.kind],
      device: handle.name,
      ...health.of(key),
      mtu: handle.mtu,
      ...offloadsOf(handle, config),
    })),
  };
}

/** A tunnel, and the outer header that it sends. */
function tunnelRow(config: ResolvedConfig, tunnel: TunnelConfig) {
  const outer = outerHeaderOf(config, tunnel);
  return {
    tunnel: {
      protocol: tunnel.protocol,
      ...(tunnel.port === undefined ? {} : { port: tunnel.port, vni: tunnel.vni, mac: tunnel.mac }),
      peers: tunnel.peers.map(peer => peer.address),
      acceptFrom: tunnel.acceptFrom,
      mtu: innerMtu(config, tunnel.name),
    },
    outer: {
      ttl: outer.ttl,
      dscp: outer.dscp,
      df: outer.df === 'inherit' ? outer.df : outer.df === 1 ? 'set' : 'clear',
      ecn: outer.ecn,
      ...(tunnel.protocol === 'ipip' ? {} : { udpChecksum: outer.udpChecksum }),
    },
  };
}

/** The short form has its own: `tunnel` and `outer`. Otherwise `tunnels` has a row for each. */
function tunnelsStatus(config: ResolvedConfig) {
  const { tunnels, uplink } = config.spec;
  const rows = tunnels.map(tunnel => ({ name: tunnel.name, ...tunnelRow(config, tunnel) }));
  if (tunnels.length === 0) {
    return { tunnel: { protocol: 'none', peers: [], acceptFrom: 'peers', mtu: uplink.mtu } };
  }
  if (tunnels.length === 1 && tunnels[0].isShort) return tunnelRow(config, tunnels[0]);
  return { tunnels: rows.map(({ name, tunnel, outer }) => ({ name, ...tunnel, ...outer })) };
}

/** What a device does for us, and of the rest why not. */
function offloadsOf(
  { kind, offloads, refused }: DeviceHandle,
  config: ResolvedConfig,
): { offloads: string[]; refused: string[] } {
  const names = OFFLOADS.filter(offload => (offloads & offload.bits) !== 0).map(({ name }) => name);
  const { tunnels } = config.spec;
  const onlyIpip = tunnels.length > 0 && tunnels.every(({ protocol }) => protocol === 'ipip');
  if (kind !== 'tap' || !onlyIpip) return { offloads: names, refused };
  return {
    offloads: names.filter(name => name !== 'tunnel'),
    refused: [...refused, 'tunnel: there is none for IPIP, whose superpackets are cut in software'],
  };
}

export function portRows(ports: PortStates, counters: Counters, health: PortHealth): unknown[] {
  return Array.from(ports, ([key, { port, handle, number }]) => ({
    name: port.name,
    number,
    kind: PORT_KINDS[port.kind],
    device: handle.name,
    ...health.of(key),
    addresses: port.addresses.map(formatAddress),
    identity: port.identity,
    mtu: handle.mtu,
    rxPackets: counters.ofPort(number, PORT_RX_PACKETS),
    rxBytes: counters.ofPort(number, PORT_RX_BYTES),
    rxDropped: counters.ofPort(number, PORT_RX_DROPPED),
    txPackets: counters.ofPort(number, PORT_TX_PACKETS),
    txBytes: counters.ofPort(number, PORT_TX_BYTES),
    txDropped: counters.ofPort(number, PORT_TX_DROPPED),
  }));
}

/** Who else uses an address or the MAC of the node. */
export interface ConflictRow {
  address: string;
  mac: string;
  /** Of this node. */
  ownMac: string;
  packets: number;
  firstSecondsAgo: number;
  lastSecondsAgo: number;
}

export function conflictRows(rows: readonly AddressConflict[], ownMac: string): ConflictRow[] {
  return rows.map(({ address, mac, packets, firstMs, lastMs }) => ({
    address: formatAddress(address),
    mac: formatMac(mac.hi, mac.lo),
    ownMac,
    packets,
    firstSecondsAgo: Math.round(firstMs / 1000),
    lastSecondsAgo: Math.round(lastMs / 1000),
  }));
}

/** A conflict as a sentence. @param own the node's address */
export function describeConflict({ address, mac, ownMac }: ConflictRow, own: string): string {
  if (mac !== ownMac) return `${address} is used by ${mac} as well as by this node, ${ownMac}`;
  if (address === own || address === '0.0.0.0')
    return `frames with this node's own MAC ${mac} come in: a second node of its configuration, or a loop in the network`;
  return `${address} has the MAC of this node, ${mac}: two stations with one MAC`;
}

export function neighborRows(rows: NeighborRow[], device: string): unknown[] {
  return rows.map(({ address, mac, ...rest }) => ({
    address: formatAddress(address),
    mac: mac === null ? null : formatMac(mac.hi, mac.lo),
    device,
    ...rest,
  }));
}

/** Addresses of load balancers that the node answers for, as `cilium-dbg shell -- db/show l2-announce` has them. */
export function announcementRows(rows: readonly { address: number; remainingMs: number }[], device: string): unknown[] {
  return rows.map(({ address, remainingMs }) => ({
    ip: formatAddress(address),
    networkInterface: device,
    leaseSeconds: Math.round(remainingMs / 1000),
  }));
}

/**
 * Reads what a node is to answer ARP for.
 * @param written of the request: addresses, each with the end of its lease in ms of the machine's CLOCK_MONOTONIC
 * @throws Error that says what was expected
 */
export function readAnnouncements(written: unknown): Announcement[] {
  const list: unknown[] = Array.isArray(written) ? written : [null];
  return list.map(item => {
    const { address, until } = (item ?? {}) as { address?: unknown; until?: unknown };
    const parsed = parseAddress(typeof address === 'string' ? address : '');
    if (parsed === undefined || typeof until !== 'number' || !Number.isFinite(until))
      throw new Error('lead needs addresses, a list of objects with address and until');
    return { address: parsed, until };
  });
}

export interface PathMtuState {
  peer: string;
  mtu: number;
  /** "TUNNEL MTU", for each tunnel that has the peer. */
  inner: string[];
  /** Who said so. */
  from: string;
  expiresSeconds: number;
}

/** What the underlay has said of the paths to peers, with what that leaves for packets in each tunnel to them. */
export function pathMtuRows(rows: readonly PathMtuRow[], config: ResolvedConfig): PathMtuState[] {
  return rows.map(({ peer, mtu, from, expiresMs }) => {
    const address = formatAddress(peer);
    const tunnels = config.spec.tunnels.filter(({ peers }) => peers.some(one => one.address === address));
    return {
      peer: address,
      mtu,
      inner: tunnels.map(tunnel => `${tunnel.name} ${mtu - configuredOverhead(tunnel)}`),
      from: formatAddress(from),
      expiresSeconds: Math.max(0, Math.ceil(expiresMs / 1000)),
    };
  });
}

/** @param narrower what is known of paths to peers: then fewer bytes than `mtu` get through, `pathMtu` */
export function routeRows(
  rows: RouteRow[],
  config: ResolvedConfig,
  ports: PortStates,
  narrower: readonly PathMtuRow[],
): unknown[] {
  const uplink = config.spec.uplink.device;
  return rows.map(row => {
    const to =
      row.length === 0 ? 'default' : row.length === 32 ? formatAddress(row.prefix) : formatCidr(row.prefix, row.length);
    const base = { to, kind: row.kind, mtu: row.mtu, tooBig: TOO_BIG_NAMES[row.tooBig] };
    const via = row.gateway === 0 ? null : formatAddress(row.gateway);
    switch (row.kind) {
      case 'tunnel':
        return {
          ...base,
          via: formatAddress(row.peerAddress),
          device: row.tunnel,
          underlayVia: via,
          pathMtu: pathMtuOf(row, config, narrower),
        };
      case 'gateway':
        return { ...base, via, device: uplink };
      case 'onlink':
        return { ...base, via: null, device: uplink };
      case 'pod': {
        const state = ports.get(row.port);
        return { ...base, via: null, device: state?.handle.name ?? null, pod: state?.port.name ?? null };
      }
      case 'host':
        // With a gateway it leads on, through the host's kernel.
        return { ...base, via, device: config.spec.host?.device ?? null };
      default:
        return { ...base, via: null, device: null };
    }
  });
}

/** What is left of it for a packet in the tunnel; null: nothing narrower is known. */
function pathMtuOf(row: RouteRow, config: ResolvedConfig, narrower: readonly PathMtuRow[]): number | null {
  const known = narrower.find(({ peer }) => peer === row.peerAddress);
  const tunnel = config.spec.tunnels.find(({ name }) => name === row.tunnel);
  if (known === undefined || tunnel === undefined) return null;
  return Math.min(row.mtu, known.mtu - configuredOverhead(tunnel));
}

/** The ports of a program in its order, with handles and numbers. */
export function portStates(
  ports: readonly PortProgram[],
  handleOf: (key: string, index: number) => DeviceHandle,
  numberOf: (key: string, index: number) => number,
): PortStates {
  return new Map(
    ports.map((port, i) => {
      const key = portKey(port);
      return [key, { port, handle: handleOf(key, i), number: numberOf(key, i) }];
    }),
  );
}

/**
 * A configuration whose uplink is known in full. A tap and a macvtap write their address down; a raw and a routed uplink
 * have their interface's, which is read when the node starts (uplink/index.ts). Everything behind that point, compile() first,
 * sees only this form and does not ask which kind it is.
 */
import { defaultVtepMac, type NodeConfig, type NodeSpec, type UplinkConfig } from './config.ts';
import type { PortRange } from './host-ports.ts';
import { parseCidr } from './validated.ts';

export interface ResolvedUplink {
  kind: UplinkConfig['kind'];
  /** The device of the uplink port, by the name it has in the node's namespace. */
  device: string;
  /** ADDRESS/LENGTH. */
  address: string;
  mac: string;
  gateway?: string;
  mtu: number;
  /**
   * Whether the node's own processes have this address, at the host port. Not where an interface of the kernel has it
   * already, nor where one is on the same segment: the kernel would answer ARP for it there.
   */
  onHostPort: boolean;
  /** Whether an interface of the node's kernel has this address, so that its processes have it without the host port. */
  ofKernel?: boolean;
  /**
   * Where translated flows get their ports and ICMP identifiers if no masquerade rule says otherwise; absent: anywhere. For
   * an address that the host uses as well.
   */
  ports?: PortRange;
  /**
   * MAC that stands for the kernel, where there is no link but sockets: the gateway, and the only neighbour. It takes the
   * tunnel's own packets and no others.
   */
  kernelMac?: string;
  /** The address is the datapath's own, on a link with others: it asks whether somebody else has it. */
  claims?: boolean;
  /** Of the host's interface that it stands on: another one by the same name is another interface. */
  interfaceIndex?: number;
  /** What it was made from: a running node accepts a configuration that says the same. */
  written: UplinkConfig;
}

export type ResolvedSpec = Omit<NodeSpec, 'uplink'> & { uplink: ResolvedUplink };
export type ResolvedConfig = Omit<NodeConfig, 'spec'> & { spec: ResolvedSpec };

/** The configuration with this uplink, and what follows from its address. */
export function withUplink(config: NodeConfig, uplink: ResolvedUplink): ResolvedConfig {
  const { tunnels, masquerade } = config.spec;
  const withMacs = tunnels.map(tunnel =>
    tunnel.port === undefined
      ? tunnel
      : { ...tunnel, mac: tunnel.mac ?? defaultVtepMac(parseCidr(uplink.address).address) },
  );
  const { ports } = uplink;
  const withPorts = masquerade.map(rule =>
    ports === undefined || rule.action === 'RETURN' ? rule : { ...rule, ports: rule.ports ?? ports },
  );
  return { ...config, spec: { ...config.spec, uplink, tunnels: withMacs, masquerade: withPorts } };
}

/** A tap has everything written down. */
export function resolveTap(written: Extract<UplinkConfig, { kind: 'tap' }>): ResolvedUplink {
  return { ...written, onHostPort: true, claims: true, written };
}

/** A segment's port is called like the segment. */
export function resolveSegment(written: Extract<UplinkConfig, { kind: 'segment' }>): ResolvedUplink {
  const { segment, ...rest } = written;
  return { ...rest, device: segment, onHostPort: true, written };
}

/** Tunnels of a configuration as the datapath's plain data. */
import type { GeneveOptionConfig, TunnelConfig } from '../control/config.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { parseAddress, parseMac } from '../control/validated.ts';
import { hex } from '../packet/build.ts';
import { type EcnVariant, type OuterHeader, PROFILES } from '../profile.ts';
import { overheadOf } from '../tunnel/overhead.ts';
import { type GeneveOption, TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN } from '../tunnel/spec.ts';
import type { TunnelProgram } from './program.ts';

const PROTOCOLS = { ipip: TUNNEL_IPIP, vxlan: TUNNEL_VXLAN, geneve: TUNNEL_GENEVE } as const;

const NO_MAC = { hi: 0, lo: 0 };

/** Bytes that a tunnel as configured adds to a packet. */
export function configuredOverhead(tunnel: {
  protocol: keyof typeof PROTOCOLS;
  options?: readonly GeneveOptionConfig[];
}): number {
  const { protocol, options = [] } = tunnel;
  return overheadOf({ protocol: PROTOCOLS[protocol], options: options.map(compileOption) });
}

export function compileTunnel(config: ResolvedConfig, tunnel: TunnelConfig, localAddress: number): TunnelProgram {
  const mac = tunnel.mac === undefined ? NO_MAC : parseMac(tunnel.mac);
  return {
    name: tunnel.name,
    protocol: PROTOCOLS[tunnel.protocol],
    port: tunnel.port ?? 0,
    vni: tunnel.vni === 'identity' ? -1 : (tunnel.vni ?? 0),
    localAddress,
    localMacHi: mac.hi,
    localMacLo: mac.lo,
    peers: tunnel.peers.map(peer => {
      const { hi, lo } = 'mac' in peer && peer.mac !== undefined ? parseMac(peer.mac) : NO_MAC;
      return { address: parseAddress(peer.address), macHi: hi, macLo: lo };
    }),
    acceptAny: tunnel.acceptFrom === 'any',
    outer: outerOf(config, tunnel),
    ...(tunnel.ecn === undefined ? {} : { ecnEncap: tunnel.ecn, ecnDecap: tunnel.ecn }),
    options: (tunnel.options ?? []).map(compileOption),
  };
}

const DF = { clear: 0, set: 1, inherit: 'inherit' } as const;

/** What the configuration says of the outer header instead of the profile. */
function outerOf({ spec: { mtu, routes } }: ResolvedConfig, tunnel: TunnelConfig): Partial<OuterHeader> {
  const cuts =
    mtu.tooBig === 'fragment-outer' ||
    routes.some(route => route.encap === tunnel.name && route.tooBig === 'fragment-outer');
  // Cut by us or by a router on the way: with DF only the first of these could be.
  const df = tunnel.df ?? (cuts ? 'clear' : undefined);
  return {
    ...(df === undefined ? {} : { df: DF[df] }),
    ...(tunnel.ttl === undefined ? {} : { ttl: tunnel.ttl }),
    ...(tunnel.dscp === undefined ? {} : { dscp: tunnel.dscp }),
    ...(tunnel.udpChecksum === undefined ? {} : { udpChecksum: tunnel.udpChecksum }),
  };
}

/** The outer header as it is sent: the profile's, with what the configuration says instead. */
export function outerHeaderOf(config: ResolvedConfig, tunnel: TunnelConfig): OuterHeader & { ecn: EcnVariant } {
  const habits = PROFILES[config.spec.profile];
  return { ...habits[tunnel.protocol], ...outerOf(config, tunnel), ecn: tunnel.ecn ?? habits.ecnEncap };
}

function compileOption(option: GeneveOptionConfig): GeneveOption {
  return { optionClass: option.class, type: option.type, data: [...hex(option.data)] };
}

/** What the page draws: nodes with their pods, the Ethernets that they are on, and services. Pure. */

import { formatCidr } from '../control/address.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { addressesOf } from '../control/service-config.ts';
import { parseCidr } from '../control/validated.ts';
import { innerMtu, mtusOf } from '../program/mtus.ts';
import { shortName } from './short-name.ts';

export interface PicturePod {
  name: string;
  address: string;
  identity: number | null;
  labels: string[];
  mtu: number;
}

export interface PictureNode {
  name: string;
  /** As people call it: without the prefix of its lab. */
  shortName: string;
  address: string;
  host: { name: string; address: string } | null;
  profile: string;
  /** Of the Ethernet that its uplink is on. */
  segment: string;
  mtu: number;
  /** `vxlan`, `geneve`, `ipip`, or `native` where there is none. */
  mode: string;
  tunnels: { name: string; protocol: string; mtu: number; peers: string[] }[];
  routes: { to: string; via: string; encap: string | null }[];
  policies: string[];
  pods: PicturePod[];
}

export interface PictureService {
  name: string;
  addresses: string[];
  ports: string[];
  endpoints: string[];
}

export interface Picture {
  nodes: PictureNode[];
  segments: { name: string; network: string }[];
  services: PictureService[];
}

export function pictureOf(configs: readonly ResolvedConfig[]): Picture {
  const segments = new Map<string, string>();
  const services = new Map<string, PictureService>();
  const nodes = configs.map((config): PictureNode => {
    const { uplink, host, pods, tunnels, routes, policies, profile } = config.spec;
    const { prefix, length } = parseCidr(uplink.address);
    const network = formatCidr(prefix, length);
    const segment = uplink.kind === 'segment' ? uplink.device : network;
    segments.set(segment, network);
    for (const service of config.spec.services) {
      const { cluster, loadBalancer, external } = addressesOf<string>(service);
      services.set(service.name, {
        name: service.name,
        addresses: [...cluster, ...loadBalancer, ...external],
        ports: service.ports.map(({ port, protocol }) => `${port}/${protocol.toLowerCase()}`),
        endpoints: service.endpoints.map(({ address }) => address),
      });
    }
    const podMtu = mtusOf(config).device;
    return {
      name: config.metadata.name,
      shortName: shortName(config.metadata.name),
      address: bare(uplink.address),
      host: host === undefined ? null : { name: host.device, address: bare(host.address) },
      profile,
      segment,
      mtu: uplink.mtu,
      mode: [...new Set(tunnels.map(({ protocol }) => protocol))].join(' + ') || 'native',
      tunnels: tunnels.map(({ name, protocol, peers }) => ({
        name,
        protocol,
        mtu: innerMtu(config, name),
        peers: peers.map(({ address }) => address),
      })),
      routes: routes.map(({ to, via, encap }) => ({ to, via: via ?? '', encap })),
      policies: policies.map(({ name, namespace }) => `${namespace}/${name}`),
      pods: pods.map(pod => ({
        name: pod.name,
        address: bare(pod.address),
        identity: typeof pod.identity === 'number' ? pod.identity : null,
        labels: Object.entries(pod.labels).map(([key, value]) => `${key}=${value}`),
        mtu: pod.mtu ?? podMtu,
      })),
    };
  });
  return {
    nodes,
    segments: Array.from(segments, ([name, network]) => ({ name, network })),
    services: [...services.values()],
  };
}

function bare(cidr: string): string {
  return cidr.split('/')[0];
}

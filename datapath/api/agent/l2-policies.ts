/** Which addresses a node may answer ARP for, as CiliumL2AnnouncementPolicies say it, and by what settings. Pure. */
import { parseAddress } from '../../control/address.ts';
import { type Json, type KubeObject, placeOf } from '../object.ts';
import { matchesSelector } from '../selector.ts';

const CLASS = 'io.cilium/l2-announcer';

/** Of the ConfigMap cilium-config; times in milliseconds. */
export interface L2Settings {
  isOn: boolean;
  leaseMs: number;
  /** A leader that could not renew for so long gives up. */
  renewMs: number;
  retryMs: number;
  /** How often the link is told again of all addresses; undefined: never. */
  againMs: number | undefined;
}

const DEFAULTS = { leaseMs: 15_000, renewMs: 5_000, retryMs: 2_000 };
const LONGEST_MS = 24 * 3_600_000;
const LEAST_AGAIN_MS = 1000;

/** As Cilium has them: off, and 15, 5 and 2 s. The period of gratuitous ARP is ours. */
export function l2Settings(configMap: KubeObject | undefined): L2Settings {
  const data: Record<string, string> = configMap?.data ?? {};
  const isOn = data['enable-l2-announcements'] === 'true';
  const ms = (key: string, otherwise: number) => durationOf(data[`l2-announcements-${key}`]) ?? otherwise;
  const leaseMs = ms('lease-duration', DEFAULTS.leaseMs);
  const renewMs = ms('renew-deadline', DEFAULTS.renewMs);
  const retryMs = ms('retry-period', DEFAULTS.retryMs);
  // As client-go's leader election wants them (tools/leaderelection); others are none, and no timer takes more than 24 days.
  const again = durationOf(data['l2-announcements-gratuitous-arp-period']);
  const againMs = again === undefined ? undefined : Math.max(LEAST_AGAIN_MS, Math.min(again, LONGEST_MS));
  const areTimes = retryMs < renewMs && renewMs < leaseMs && leaseMs <= LONGEST_MS;
  return { isOn, ...(areTimes ? { leaseMs, renewMs, retryMs } : DEFAULTS), againMs };
}

const UNITS: Record<string, number> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };

/** Milliseconds of a duration as Go writes it: `15s`, `1m30s`, `500ms`. */
export function durationOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^(\d+(\.\d+)?(h|ms|m|s))+$/.test(text)) return undefined;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s)/g)];
  const sum = parts.reduce((total, [, count, unit]) => total + Number(count) * UNITS[unit!]!, 0);
  return sum > 0 ? sum : undefined;
}

/** A service that a policy announces. */
export interface Announced {
  service: KubeObject;
  addresses: string[];
}

/** Addresses of the nodes themselves, each with its node: whoever answered for one would take it away. */
export function addressesOfNodes(nodes: readonly KubeObject[]): Map<string, string> {
  return new Map(
    nodes.flatMap(({ metadata, status }) =>
      (status?.addresses ?? []).map(({ address }: Json): [string, string] => [address, metadata.name]),
    ),
  );
}

/**
 * What policies announce, the oldest service first.
 * @param taken addresses that are not to be
 * @param on the node that is to answer, and its interface; without it what any node may
 */
export function announcedServices(
  policies: readonly KubeObject[],
  services: readonly KubeObject[],
  taken: ReadonlyMap<string, string>,
  on?: { node: KubeObject; device: string },
): Announced[] {
  const here = policies.filter(policy => on === undefined || reaches(policy, on.node, on.device));
  return services
    .flatMap(service => {
      const found = here.filter(policy => selects(policy, service)).flatMap(policy => addressesOf(policy, service));
      const free = [...new Set(found)].filter(ip => !taken.has(ip));
      return free.length === 0 ? [] : [{ service, addresses: free }];
    })
    .sort((a, b) => (ageOf(a.service) < ageOf(b.service) ? -1 : 1));
}

function ageOf({ metadata }: KubeObject): string {
  return `${metadata.creationTimestamp} ${metadata.namespace}/${metadata.name}`;
}

function reaches({ spec }: KubeObject, { metadata }: KubeObject, device: string): boolean {
  const { nodeSelector, interfaces = [] } = spec ?? {};
  if (nodeSelector !== undefined && !matchesSelector(nodeSelector, metadata.labels)) return false;
  return interfaces.length === 0 || interfaces.some((pattern: string) => matches(pattern, device));
}

function matches(pattern: string, device: string): boolean {
  try {
    return new RegExp(pattern).test(device);
  } catch {
    return false;
  }
}

function selects({ spec }: KubeObject, { metadata }: KubeObject): boolean {
  if (spec?.serviceSelector === undefined) return true;
  return matchesSelector(spec.serviceSelector, {
    ...metadata.labels,
    'io.kubernetes.service.namespace': metadata.namespace!,
    'io.kubernetes.service.name': metadata.name,
  });
}

function addressesOf({ spec: policy }: KubeObject, { spec, status }: KubeObject): string[] {
  const isOurs = spec.loadBalancerClass === undefined || spec.loadBalancerClass === CLASS;
  const balanced =
    policy?.loadBalancerIPs === true && spec.type === 'LoadBalancer' && isOurs
      ? (status?.loadBalancer?.ingress ?? []).map(({ ip }: Json) => ip)
      : [];
  const external = policy?.externalIPs === true ? (spec.externalIPs ?? []) : [];
  return [...balanced, ...external].filter(ip => parseAddress(String(ip)) !== undefined);
}

/** Of services that share an address one leads the others: the oldest. @returns its place, by address */
export function leadersOf(announced: readonly Announced[]): Map<string, string> {
  const leaders = new Map<string, string>();
  for (const { service, addresses } of announced) {
    for (const address of addresses) if (!leaders.has(address)) leaders.set(address, placeOf(service));
  }
  return leaders;
}

/**
 * One node's part in announcing addresses of load balancers on the link (Cilium: pkg/l2announcer, client-go:
 * tools/leaderelection). For each service there is a lease, which one node holds and renews. Whoever holds it answers ARP for
 * the service's addresses, until the lease ends by the clock of the machine.
 *
 * Nobody answers twice, in whatever order things happen:
 * - The node is told the end of the lease as it was before the lease was written: others count from later on.
 * - Of services that share an address only the lease of the oldest is good for it, and only its holder may hold the others'.
 * - A lease says for which addresses it is used. What another node may still answer for is not announced before that lease has
 *   ended, or says so no more; and it says so no more when its node has confirmed that it does not.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Cluster } from '../controllers/cluster.ts';
import { isReady, shortHash } from '../controllers/cluster.ts';
import { type KubeObject, microTime, placeOf } from '../object.ts';
import { type Announced, announcedServices, type L2Settings, l2Settings, leadersOf } from './l2-policies.ts';

const NAMESPACE = 'kube-system';
const PREFIX = 'cilium-l2announce-';
/** Addresses that the holder of a lease may answer for because of it. */
const USED_FOR = 'tunpath.dev/announced';

export interface L2AnnouncerOptions {
  cluster: Cluster;
  node: string;
  /** What policies know the node's uplink as. */
  device: string;
  /** The machine's CLOCK_MONOTONIC, ms. */
  now: () => number;
  /**
   * Makes the node answer for these addresses and no others.
   * @throws Error where the node does not say within so many milliseconds that it does
   */
  lead: (addresses: readonly { address: string; until: number }[], patienceMs: number) => Promise<unknown>;
}

interface Held {
  addresses: string[];
  /** When it was renewed last, before that was written; and when it ends if it is not again. */
  renewed: number;
  until: number;
}

export class L2Announcer {
  private readonly options: L2AnnouncerOptions;
  /** Leases that this node holds, by the place of the service. */
  private readonly held = new Map<string, Held>();
  /** When a lease, or that there is none, was first seen as it is. */
  private readonly seen = new Map<string, { as: string; at: number }>();
  private told = '[]';

  constructor(options: L2AnnouncerOptions) {
    this.options = options;
  }

  /**
   * Looks at what there is, renews, takes over and gives up. Not to be called again before it is done.
   * @returns milliseconds until it wants to be called again
   * @throws Error where the node does not answer: then nothing has been renewed
   */
  async tick(): Promise<number> {
    const { cluster, node: name, device } = this.options;
    const settings = l2Settings(cluster.find('ConfigMap', NAMESPACE, 'cilium-config'));
    const policies = settings.isOn ? cluster.list('CiliumL2AnnouncementPolicy') : [];
    if (policies.length === 0 && this.held.size === 0 && this.told === '[]') return settings.retryMs;
    const services = policies.length === 0 ? [] : cluster.list('Service');
    const node = cluster.find('Node', undefined, name);
    const own = node === undefined ? [] : announcedServices(policies, services, { node, device });
    const leaders = leadersOf(announcedServices(policies, services));
    this.look();

    // What is not to be announced any more first of all; a node that does not confirm it has nothing renewed.
    for (const [place, held] of this.held) {
      const wanted = own.find(({ service }) => placeOf(service) === place);
      held.addresses = held.addresses.filter(ip => wanted?.addresses.includes(ip) && leaders.get(ip) === place);
    }
    await this.tell(settings);
    for (const one of own) await this.campaign(one, leaders, policies, settings);
    await this.resign(own, leaders);
    const now = this.options.now();
    for (const [place, { renewed }] of this.held) if (now - renewed > settings.renewMs) this.held.delete(place);
    await this.tell(settings);
    return settings.retryMs;
  }

  /** Remembers since when leases have been as they are: by another's clock nobody can tell. */
  private look(): void {
    const now = this.options.now();
    const present = new Set<string>();
    for (const lease of this.leases()) {
      const { name } = lease.metadata;
      present.add(name);
      const as = `${lease.spec?.holderIdentity} ${lease.spec?.renewTime}`;
      if (this.seen.get(name)?.as !== as) this.seen.set(name, { as, at: now });
    }
    for (const [name, { as }] of this.seen) if (!present.has(name) && as !== '') this.seen.delete(name);
  }

  private leases(): KubeObject[] {
    return this.options.cluster.list('Lease', NAMESPACE).filter(({ metadata }) => metadata.name.startsWith(PREFIX));
  }

  /** Tells the node what it leads; where nothing holds, and nothing did, there is nothing to say. */
  private async tell({ renewMs }: L2Settings): Promise<void> {
    const list = [...this.held.values()].flatMap(({ addresses, until }) =>
      addresses.map(address => ({ address, until })),
    );
    if (list.length === 0 && this.told === '[]') return;
    // Until it has answered, it may have heard it or not.
    this.told = '?';
    await this.options.lead(list, renewMs);
    this.told = JSON.stringify(list);
  }

  /** Takes or renews the lease of a service, where that is this node's to do. */
  private async campaign(
    { service, addresses }: Announced,
    leaders: ReadonlyMap<string, string>,
    policies: readonly KubeObject[],
    settings: L2Settings,
  ): Promise<void> {
    const { cluster, node } = this.options;
    const place = placeOf(service);
    const name = leaseName(service);
    const lease = cluster.find('Lease', NAMESPACE, name);
    const holder = lease?.spec?.holderIdentity ?? '';
    // Somebody has taken it away, so others may have it at once.
    if (holder !== node) this.held.delete(place);
    if (addresses.some(ip => leaders.get(ip) !== place && !this.held.has(leaders.get(ip)!))) return;
    const now = this.options.now();
    if (lease === undefined && !this.isTurn(name, service, policies, settings)) return;
    if (holder !== '' && holder !== node && !this.hasEnded(lease!)) return;
    const usable = addresses.filter(ip => leaders.get(ip) === place && !this.isUsedElsewhere(ip, name));
    const held = this.held.get(place);
    const isFresh = held !== undefined && now - held.renewed < settings.retryMs / 2;
    if (holder === node && isFresh && isDeepStrictEqual(held.addresses, usable)) return;
    const time = microTime(cluster.nowMs);
    const before = lease?.spec ?? {};
    const spec = {
      acquireTime: holder === node ? before.acquireTime : time,
      holderIdentity: node,
      leaseDurationSeconds: Math.max(1, Math.ceil(settings.leaseMs / 1000)),
      leaseTransitions: (before.leaseTransitions ?? 0) + (lease === undefined || holder === node ? 0 : 1),
      renewTime: time,
    };
    const annotations = { ...lease?.metadata.annotations, [USED_FOR]: usable.join(',') };
    if (lease === undefined)
      await cluster.create('Lease', { metadata: { name, namespace: NAMESPACE, annotations }, spec });
    // With the version that was read: whoever writes second does not.
    else await cluster.change(lease, () => ({ ...lease, metadata: { ...lease.metadata, annotations }, spec }));
    const written = cluster.find('Lease', NAMESPACE, name);
    if (written?.spec?.holderIdentity === node && written.spec.renewTime === time) {
      this.held.set(place, { addresses: usable, renewed: now, until: now + settings.leaseMs });
    } else if (written?.spec?.holderIdentity !== node) this.held.delete(place);
  }

  /** Gives back what is no longer this node's to lead. The node has confirmed that it does not answer. */
  private async resign(own: readonly Announced[], leaders: ReadonlyMap<string, string>): Promise<void> {
    const { cluster, node } = this.options;
    for (const place of [...this.held.keys()]) {
      const wanted = own.find(({ service }) => placeOf(service) === place);
      const mayStay = wanted?.addresses.every(ip => leaders.get(ip) === place || this.held.has(leaders.get(ip)!));
      if (mayStay === true) continue;
      this.held.delete(place);
      const [namespace, name] = place.split('/') as [string, string];
      const lease = cluster.find('Lease', NAMESPACE, leaseName({ metadata: { namespace, name } } as KubeObject));
      if (lease?.spec?.holderIdentity !== node) continue;
      if (cluster.find('Service', namespace, name) === undefined) await cluster.delete(lease);
      else {
        const annotations = { ...lease.metadata.annotations, [USED_FOR]: '' };
        const spec = { ...lease.spec, holderIdentity: '' };
        await cluster.change(lease, () => ({ ...lease, metadata: { ...lease.metadata, annotations }, spec }));
      }
    }
  }

  /** Its end is that of the duration that it says, from when this node has first seen it as it is. */
  private hasEnded({ metadata, spec }: KubeObject): boolean {
    const since = this.seen.get(metadata.name);
    const as = `${spec?.holderIdentity} ${spec?.renewTime}`;
    return since?.as === as && this.options.now() - since.at > (spec?.leaseDurationSeconds ?? 0) * 1000;
  }

  /** Whether another node may answer for an address because of another lease. */
  private isUsedElsewhere(address: string, own: string): boolean {
    return this.leases().some(lease => {
      const holder = lease.spec?.holderIdentity ?? '';
      if (lease.metadata.name === own || holder === '' || holder === this.options.node) return false;
      const used = (lease.metadata.annotations?.[USED_FOR] ?? '').split(',');
      return used.includes(address) && !this.hasEnded(lease);
    });
  }

  /**
   * Where nobody has led a service yet, nodes come one after the other, in another order for each service: so that they share
   * the work.
   */
  private isTurn(
    lease: string,
    service: KubeObject,
    policies: readonly KubeObject[],
    { retryMs }: L2Settings,
  ): boolean {
    const { cluster, node, device, now } = this.options;
    const since = this.seen.get(lease);
    if (since === undefined || since.as !== '') this.seen.set(lease, { as: '', at: now() });
    const order = cluster
      .list('Node')
      .filter(one => isReady(one) && announcedServices(policies, [service], { node: one, device }).length > 0)
      .map(({ metadata }) => metadata.name)
      .sort((a, b) => (shortHash(`${lease} ${a}`) < shortHash(`${lease} ${b}`) ? -1 : 1));
    const rank = order.indexOf(node);
    return rank >= 0 && now() - this.seen.get(lease)!.at >= rank * retryMs;
  }
}

function leaseName({ metadata }: KubeObject): string {
  return `${PREFIX}${metadata.namespace}-${metadata.name}`;
}

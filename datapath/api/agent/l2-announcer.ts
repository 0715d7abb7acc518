/**
 * One node's part in announcing addresses of load balancers on the link (Cilium: pkg/l2announcer, client-go:
 * tools/leaderelection). For each service there is a lease, which one node holds and renews. Whoever holds it answers ARP for
 * the service's addresses, until the lease ends by the clock of the machine.
 *
 * Nobody answers twice, in whatever order things happen:
 * - The node is told the end of the lease as it was before the lease was written: others count from later on.
 * - Of services that share an address only the lease of the oldest is good for it, and only its holder may hold the others'.
 * - Who led a service before somebody else took away or deleted the lease by hand may not know it yet: until its lease would
 *   have ended it is reckoned with.
 * - A lease says for which addresses it is used. What another node may still answer for is not announced before that lease has
 *   ended, or says so no more; and it says so no more when its node has confirmed that it does not.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Cluster } from '../controllers/cluster.ts';
import { isReady, shortHash } from '../controllers/cluster.ts';
import { type KubeObject, microTime, placeOf } from '../object.ts';
import {
  type Announced,
  addressesOfNodes,
  announcedServices,
  type L2Settings,
  l2Settings,
  leadersOf,
} from './l2-policies.ts';

const NAMESPACE = 'kube-system';
const PREFIX = 'cilium-l2announce-';
/** Addresses that the holder of a lease may answer for because of it. */
const USED_FOR = 'tunpath.dev/announced';
const NONE: ReadonlyMap<string, string> = new Map();

export interface L2AnnouncerOptions {
  cluster: Cluster;
  node: string;
  /** What policies know the node's uplink as. */
  device: string;
  /** The machine's CLOCK_MONOTONIC, ms. */
  now: () => number;
  /**
   * Makes the node answer for these addresses and no others, and tell the link of those that are new, or of all again.
   * @throws Error where the node does not say within so many milliseconds that it does
   */
  lead: (
    addresses: readonly { address: string; until: number }[],
    patienceMs: number,
    again: boolean,
  ) => Promise<unknown>;
}

interface Held {
  addresses: string[];
  /** When it was renewed last, before that was written; and when it ends if it is not again. */
  renewed: number;
  until: number;
}

/** A lease as it was first seen. */
interface Seen {
  /** '': there is none. */
  as: string;
  at: number;
  holder: string;
  /** When its holder answers no more if it does not renew. */
  until: number;
  addresses: string[];
}

export class L2Announcer {
  private readonly options: L2AnnouncerOptions;
  /** Leases that this node holds, by the place of the service. */
  private readonly held = new Map<string, Held>();
  /** When a lease, or that there is none, was first seen as it is. */
  private readonly seen = new Map<string, Seen>();
  /** Leases as they were when their holders, others than this node, lost them otherwise than by giving them up. */
  private readonly taken = new Set<Seen>();
  /** null: nothing yet. One before it may have told the node what it still answers for. */
  private told: string | null = null;
  private toldAllAt = Number.NEGATIVE_INFINITY;
  private readonly warned = new Set<string>();

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
    if (policies.length === 0 && this.held.size === 0 && (this.told ?? '[]') === '[]') return settings.retryMs;
    const services = policies.length === 0 ? [] : cluster.list('Service');
    const node = cluster.find('Node', undefined, name);
    const nodes = addressesOfNodes(cluster.list('Node'));
    const own = node === undefined ? [] : announcedServices(policies, services, nodes, { node, device });
    const announced = announcedServices(policies, services, NONE);
    const leaders = leadersOf(announced);
    this.look();

    // What is not to be announced any more first of all; a node that does not confirm it has nothing renewed.
    for (const [place, held] of this.held) {
      const wanted = own.find(({ service }) => placeOf(service) === place);
      held.addresses = held.addresses.filter(ip => wanted?.addresses.includes(ip) && leaders.get(ip) === place);
    }
    // One that begins has nothing to take back: what its node may still answer for stays in the lease until it has spoken.
    if (this.told !== null) await this.tell(settings, false);
    for (const one of own) await this.campaign(one, leaders, policies, settings);
    await this.resign(own, leaders);
    const now = this.options.now();
    for (const [place, { renewed }] of this.held) if (now - renewed > settings.renewMs) this.held.delete(place);
    const { againMs } = settings;
    const isDue = againMs !== undefined && now - this.toldAllAt >= againMs;
    await this.tell(settings, isDue);
    if (isDue) this.toldAllAt = now;
    await this.sweep();
    await this.warn(announced, nodes);
    return Math.min(settings.retryMs, againMs ?? settings.retryMs);
  }

  /** Who has an address of its own says that nobody announces it. */
  private async warn(announced: readonly Announced[], nodes: ReadonlyMap<string, string>): Promise<void> {
    const { cluster, node } = this.options;
    for (const { service, addresses } of announced) {
      for (const address of addresses.filter(ip => nodes.get(ip) === node)) {
        const key = `${service.metadata.uid} ${address}`;
        if (this.warned.has(key)) continue;
        this.warned.add(key);
        await cluster.event(service, 'Warning', 'NotAnnounced', `${address} is the address of node ${node}`);
      }
    }
  }

  /** Remembers since when leases have been as they are: by another's clock nobody can tell. */
  private look(): void {
    const leases = new Map(this.leases().map(lease => [lease.metadata.name, lease]));
    for (const name of new Set([...leases.keys(), ...this.seen.keys()])) this.lookAt(name, leases.get(name));
    const now = this.options.now();
    for (const seen of this.taken) if (seen.until <= now) this.taken.delete(seen);
  }

  private lookAt(name: string, lease: KubeObject | undefined): void {
    const now = this.options.now();
    const before = this.seen.get(name);
    if (lease === undefined) {
      // That there is none is remembered, too.
      if (before === undefined || before.as === '') return;
      this.seen.delete(name);
      this.reckonWith(before);
      return;
    }
    const { as, holder, addresses } = wordsOf(lease);
    if (before?.as === as) return;
    const isGivenUp = holder === '' && addresses.length === 0;
    if (before !== undefined && before.holder !== holder && !isGivenUp) {
      // Who takes it by hand leaves what its holder wrote last, which nobody else may have seen yet.
      this.reckonWith({ ...before, addresses: [...before.addresses, ...addresses] });
    }
    const until = now + (lease.spec?.leaseDurationSeconds ?? 0) * 1000;
    this.seen.set(name, { as, at: now, holder, until, addresses });
  }

  private reckonWith(before: Seen): void {
    if (before.holder !== '' && before.holder !== this.options.node) this.taken.add(before);
  }

  private leases(): KubeObject[] {
    return this.options.cluster.list('Lease', NAMESPACE).filter(({ metadata }) => metadata.name.startsWith(PREFIX));
  }

  /** Tells the node what it leads; where nothing holds, and nothing did, there is nothing to say. */
  private async tell({ renewMs }: L2Settings, again: boolean): Promise<void> {
    const list = [...this.held.values()].flatMap(({ addresses, until }) =>
      addresses.map(address => ({ address, until })),
    );
    const isOwn = (lease: KubeObject): boolean => wordsOf(lease).holder === this.options.node;
    const mayAnswer = this.told === null ? this.leases().some(isOwn) : this.told !== '[]';
    if (list.length === 0 && !mayAnswer) return;
    // Until it has answered, it may have heard it or not.
    this.told = '?';
    await this.options.lead(list, renewMs, again);
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
    this.lookAt(name, lease);
    // Somebody has taken it away, so others may have it at once.
    if (holder !== node) this.held.delete(place);
    if (addresses.some(ip => leaders.get(ip) !== place && !this.held.has(leaders.get(ip)!))) return;
    const now = this.options.now();
    if (lease === undefined && !this.isTurn(name, service, policies, settings)) return;
    if (holder !== '' && holder !== node && !this.hasEnded(lease!)) return;
    const usable = addresses.filter(ip => leaders.get(ip) === place && !this.isUsedElsewhere(ip, name));
    const held = this.held.get(place);
    const isFresh = held !== undefined && now - held.renewed < settings.retryMs / 2;
    const said = lease === undefined ? [] : wordsOf(lease).addresses;
    const isSaid = isDeepStrictEqual(said, usable) && isDeepStrictEqual(held?.addresses, usable);
    if (holder === node && isFresh && isSaid) return;
    const time = microTime(cluster.nowMs);
    const before = lease?.spec ?? {};
    const spec = {
      acquireTime: holder === node ? before.acquireTime : time,
      holderIdentity: node,
      leaseDurationSeconds: Math.max(1, Math.ceil(settings.leaseMs / 1000)),
      leaseTransitions: (before.leaseTransitions ?? 0) + (lease === undefined || holder === node ? 0 : 1),
      renewTime: time,
    };
    const still = this.told === null && holder === node ? said : [];
    const annotations = { ...lease?.metadata.annotations, [USED_FOR]: [...new Set([...usable, ...still])].join(',') };
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
      const annotations = { ...lease.metadata.annotations, [USED_FOR]: '' };
      const spec = { ...lease.spec, holderIdentity: '' };
      await cluster.change(lease, () => ({ ...lease, metadata: { ...lease.metadata, annotations }, spec }));
    }
  }

  /** Removes leases of services that are gone, once they have been given up: so that others see that before. */
  private async sweep(): Promise<void> {
    const { cluster } = this.options;
    const given = this.leases().filter(lease => {
      const { as, holder } = wordsOf(lease);
      return holder === '' && this.seen.get(lease.metadata.name)?.as === as;
    });
    if (given.length === 0) return;
    const used = new Set(cluster.list('Service').map(leaseName));
    for (const lease of given) if (!used.has(lease.metadata.name)) await cluster.delete(lease);
  }

  /** Its end is that of the duration that it says, from when this node has first seen it as it is. */
  private hasEnded(lease: KubeObject): boolean {
    const since = this.seen.get(lease.metadata.name);
    return since?.as === wordsOf(lease).as && this.options.now() > since.until;
  }

  /** Whether another node may answer for an address because of another lease. */
  private isUsedElsewhere(address: string, own: string): boolean {
    const isUsed = this.leases().some(lease => {
      const { holder, addresses } = wordsOf(lease);
      if (lease.metadata.name === own || holder === '' || holder === this.options.node) return false;
      return addresses.includes(address) && !this.hasEnded(lease);
    });
    return isUsed || [...this.taken].some(({ addresses }) => addresses.includes(address));
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
    if (since === undefined || since.as !== '') {
      this.seen.set(lease, { as: '', at: now(), holder: '', until: 0, addresses: [] });
    }
    const nodes = cluster.list('Node');
    const taken = addressesOfNodes(nodes);
    const order = nodes
      .filter(one => isReady(one) && announcedServices(policies, [service], taken, { node: one, device }).length > 0)
      .map(({ metadata }) => metadata.name)
      .sort((a, b) => (shortHash(`${lease} ${a}`) < shortHash(`${lease} ${b}`) ? -1 : 1));
    const rank = order.indexOf(node);
    return rank >= 0 && now() - this.seen.get(lease)!.at >= rank * retryMs;
  }
}

/** What a lease says of its holder. */
function wordsOf({ metadata, spec }: KubeObject): Pick<Seen, 'as' | 'holder' | 'addresses'> {
  const holder: string = spec?.holderIdentity ?? '';
  const used = metadata.annotations?.[USED_FOR] ?? '';
  return { as: `${holder} ${spec?.renewTime} ${used}`, holder, addresses: used === '' ? [] : used.split(',') };
}

function leaseName({ metadata }: KubeObject): string {
  return `${PREFIX}${metadata.namespace}-${metadata.name}`;
}

/**
 * Keeps a node's ports attached. Whenever the kernel says that something has changed, it looks at every port's device, says
 * what has become of it (port-health.ts), has the loop refuse what leads nowhere, and attaches again what has come back:
 *
 *   pod      same network namespace by name, same device
 *   host     the node's own TUN: made again at once
 *   uplink   what it stands on, by the same name; address and MTU of the host's interface are followed
 *
 * A fault of all this is logged and ends nothing. What cannot come back in this process ends it, so that a service manager
 * may start another.
 */
import { closeSync, constants, type FSWatcher, fstatSync, openSync, statSync, watch } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import type { DeviceHandle } from '../io/handle.ts';
import { type Link, Netlink, NetlinkMonitor } from '../io/netlink.ts';
import { CONDITION_CUT_OFF, CONDITION_DOWN, CONDITION_UP, PORT_HOST, PORT_POD } from '../port.ts';
import type { Change } from '../program/diff.ts';
import { missingCapabilities } from './capabilities.ts';
import type { PodConfig } from './config.ts';
import { allowedOffloads, hostPortAddresses, openHostPort, openPods, setUpHostPort } from './devices.ts';
import { hostRoutes } from './host-routes.ts';
import { inNamespace, namespaceExists, namespaceInode, namespacePath } from './netns.ts';
import type { Condition, PortHealth } from './port-health.ts';
import type { ResolvedConfig, ResolvedUplink } from './resolved.ts';
import type { PortState, PortStates } from './status.ts';
import { lookAtUplink, openUplink } from './uplink/index.ts';
import { linkOfTun } from './uplink/look.ts';
import type { OpenUplink } from './uplink/uplink.ts';
import { parseCidr } from './validated.ts';
import { findHostEnd, releaseVeth } from './veth.ts';

/** One change seldom comes alone. */
const QUIET_MS = 5;
/** However many there are, they are looked at so often at most. */
const LEAST_MS = 50;
/**
 * While something is missing or down, it is looked at so often: a namespace that is mounted says nothing, and of a device in
 * another one a node without CAP_NET_BROADCAST hears nothing.
 */
const RETRY_MS = 500;
/** An uplink that cannot be opened although what it stands on is there. */
const ATTEMPTS = 10;

const NETNS_DIRECTORY = '/run/netns';

/** The node, as far as its ports are concerned. */
export interface KeptNode {
  readonly config: ResolvedConfig;
  readonly ports: PortStates;
  uplink: OpenUplink;
  /** Runs `work` when no configuration is being applied, and lets none be until it is done. */
  exclusively(work: () => Promise<void>): Promise<void>;
  /** Has the loop apply changes. */
  change(changes: Change[]): Promise<void>;
  /** Takes the device of a port away: its handle has no descriptor any more. */
  detach(key: string): Promise<void>;
  /** Gives a port another device. */
  attach(key: string, handle: DeviceHandle): Promise<void>;
  /** Goes on with another address, MAC or MTU on the underlay. */
  changeUplink(uplink: ResolvedUplink): Promise<void>;
  /** The uplink is attached: has the loop claim the node's address. */
  claim(): Promise<void>;
}

/** What is gone cannot come back in this process. */
export class PortLostError extends Error {}

export interface KeeperOptions {
  health: PortHealth;
  onError(error: Error): void;
  /** The uplink is another one: what has changed, in words. */
  onUplink(what: string): void;
  /** A port that stays up has changed: a pod's veth takes packets of another length, the host port has its routes again. */
  onPortChange(what: string): void;
  /** Something cannot come back in this process. */
  onLost(error: PortLostError): void;
}

export class PortKeeper {
  private readonly node: KeptNode;
  private readonly options: KeeperOptions;
  private netlink: Netlink | null = null;
  private monitor: NetlinkMonitor | null = null;
  private watcher: FSWatcher | null = null;
  private timer: NodeJS.Timeout | null = null;
  private lastCheck = 0;
  private stopped = false;
  /** Ports that the loop takes for down. */
  private readonly down = new Set<string>();
  /** The namespace that each device was moved into. */
  private readonly inodes = new Map<string, { path: string; inode: number }>();
  /** Of pods' veths, as the loop has them. */
  private readonly mtus = new Map<string, number>();
  private attempts = 0;

  constructor(node: KeptNode, options: KeeperOptions) {
    this.node = node;
    this.options = options;
  }

  /** Begins to look. Where there is no netlink, the node runs without. */
  start(): void {
    try {
      this.netlink = new Netlink();
      this.monitor = new NetlinkMonitor(() => this.hint(), this.options.onError);
      this.watcher = watch(NETNS_DIRECTORY, () => this.hint());
      this.watcher.on('error', () => {});
    } catch (error) {
      // No /run/netns: no pod is there by the name of a namespace.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.options.onError(error as Error);
    }
    this.hint();
  }

  stop(): void {
    this.stopped = true;
    if (this.timer !== null) clearTimeout(this.timer);
    this.watcher?.close();
    this.monitor?.close();
    this.netlink?.close();
    this.netlink = null;
  }

  /** Something may have changed. */
  hint(afterMs = QUIET_MS): void {
    if (this.stopped || this.timer !== null || this.netlink === null) return;
    const wait = Math.max(afterMs, this.lastCheck + LEAST_MS - performance.now());
    this.timer = setTimeout(() => void this.run(), wait).unref();
  }

  /** Looks now, and comes back when everything has been looked at. */
  async run(): Promise<void> {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    try {
      await this.node.exclusively(() => this.look());
    } catch (error) {
      if (!this.stopped) this.options.onError(error as Error);
    }
    this.lastCheck = performance.now();
    const isMissing = [...this.node.ports.values()].some(({ handle }) => isDetached(handle));
    if (isMissing || this.down.size > 0) this.hint(RETRY_MS);
  }

  /** Looks now, for whoever keeps configurations from being applied meanwhile. */
  async look(): Promise<void> {
    const { ports } = this.node;
    this.options.health.keepOnly(ports.keys());
    for (const key of this.down) if (!ports.has(key)) this.down.delete(key);
    for (const key of this.inodes.keys()) if (!ports.has(key)) this.inodes.delete(key);
    for (const key of this.mtus.keys()) if (!ports.has(key)) this.mtus.delete(key);
    for (const [key, state] of ports) {
      if (this.stopped || this.netlink === null) return;
      // One that fails must not keep the others from being looked at.
      try {
        if (state.port.kind === PORT_POD) await this.checkPod(key, state, this.netlink);
        else if (state.port.kind === PORT_HOST) await this.checkHost(key, state, this.netlink);
        else await this.checkUplink(key, state, this.netlink);
      } catch (error) {
        this.options.onError(error as Error);
      }
    }
  }

  // ---------------------------------------------------------------- pods and host

  private async checkPod(key: string, state: PortState, netlink: Netlink): Promise<void> {
    const { port, handle } = state;
    const pod = this.node.config.spec.pods.find(({ name }) => name === port.name);
    if (pod === undefined || pod.kind === 'memory') return;
    if (!isDetached(handle)) {
      const seen = pod.kind === 'veth' ? vethState(netlink, pod) : tunState(netlink, pod, handle);
      // A packet socket hears nothing any more once its device has been down.
      const isDeaf = pod.kind === 'veth' && seen.state === 'up' && this.down.has(key);
      if (seen.state !== 'gone' && !isDeaf && !this.isMoved(key, pod.netns)) {
        await this.setCondition(key, seen.state, seen.why);
        if (seen.mtu !== undefined) await this.followMtu(key, state, seen.mtu);
        return;
      }
      const why = isDeaf ? null : `${pod.netns} is another network namespace now`;
      await this.detach(key, handle, seen.why ?? why);
    }
    if (!this.mayEnter(key, pod.netns)) return;
    try {
      const [opened] = await openPods(this.node.config, [pod]);
      await this.attach(key, opened, `${pod.device} in ${pod.netns} is attached again`);
      this.remember(key, pod.netns);
    } catch (error) {
      this.options.health.set(key, 'gone', (error as Error).message);
    }
  }

  /** Whoever made a veth may give it another MTU. */
  private async followMtu(key: string, state: PortState, mtu: number): Promise<void> {
    if (this.mtus.get(key) === mtu) return;
    this.mtus.set(key, mtu);
    await this.node.change([{ kind: 'mtu', key, mtu }]);
    if (state.handle.mtu === mtu) return;
    this.options.onPortChange(`${key}: mtu ${mtu} (was ${state.handle.mtu})`);
    state.handle.mtu = mtu;
  }

  /** Does the name of a port's namespace stand for another one than it did? */
  private isMoved(key: string, netns: string): boolean {
    const known = this.inodes.get(key);
    if (known?.path !== netns) {
      this.remember(key, netns);
      return false;
    }
    // A namespace whose name is gone lives on while something runs in it.
    const inode = namespaceInode(netns);
    return inode !== undefined && inode !== known.inode;
  }

  private remember(key: string, netns: string): void {
    const inode = namespaceInode(netns);
    if (inode !== undefined) this.inodes.set(key, { path: netns, inode });
  }

  private async checkHost(key: string, { handle }: PortState, netlink: Netlink): Promise<void> {
    const { config } = this.node;
    const { host } = config.spec;
    if (!isDetached(handle)) {
      // The uplink's rules there would keep a namespace alive that has been deleted.
      if (host?.netns !== undefined && !namespaceExists(host.netns)) await this.node.uplink.serve?.(config);
      const isMoved = host?.netns !== undefined && this.isMoved(key, host.netns);
      const found = linkOfTun(netlink, handle);
      if (found !== undefined && !isMoved) {
        const { up, name } = found.link;
        await this.setCondition(key, up ? 'up' : 'down', up ? null : `${name} is down`);
        if (up && this.hasLostItsSetup(found.link, netlink)) {
          await setUpHostPort(this.node.config);
          this.options.onPortChange(`${key}: has its addresses and routes again`);
        }
        return;
      }
      await this.detach(
        key,
        handle,
        isMoved ? `${host!.netns} is another network namespace now` : `${handle.name} is gone`,
      );
    }
    if (host === undefined || (host.netns !== undefined && !this.mayEnter(key, host.netns))) return;
    try {
      const opened = await openHostPort(config);
      await this.attach(key, opened, `${opened.name} is made again`);
      if (host.netns === undefined) return;
      this.remember(key, host.netns);
      await this.node.uplink.serve?.(config);
    } catch (error) {
      this.options.health.set(key, 'gone', (error as Error).message);
    }
  }

  /** May a device be made in a namespace? If not, it is said why; if never again in this process, that ends it. */
  private mayEnter(key: string, netns: string): boolean {
    if (!namespaceExists(netns)) {
      this.options.health.set(key, 'gone', `network namespace ${netns} is gone`);
      return false;
    }
    if (missingCapabilities(['CAP_SYS_ADMIN']).length === 0) return true;
    this.options.onLost(
      new PortLostError(`port ${key} can come back, but without CAP_SYS_ADMIN only at the next start of this node`),
    );
    return false;
  }

  /**
   * The kernel takes routes away when their device is switched off, or the address goes that they name, and nobody else brings
   * them back.
   */
  private hasLostItsSetup({ name, index }: Link, netlink: Netlink): boolean {
    const { config } = this.node;
    const netns = config.spec.host?.netns;
    const wanted = hostPortAddresses(config).map(cidr => parseCidr(cidr).address);
    // Somebody may have added others.
    const destinations = new Set(hostRoutes(config).map(line => line.split(' ', 1)[0])).size;
    const look = (there: Netlink) => {
      if (there.link(name)?.index !== index) return false;
      const found = there.addresses().filter(one => one.index === index);
      return (
        wanted.some(own => !found.some(({ address }) => address === own)) || there.countRoutes(index) < destinations
      );
    };
    if (netns === undefined) return look(netlink);
    if (!namespaceExists(netns) || missingCapabilities(['CAP_SYS_ADMIN']).length > 0) return false;
    return inNamespace(netns, () => {
      const there = new Netlink();
      try {
        return look(there);
      } finally {
        there.close();
      }
    });
  }

  // ---------------------------------------------------------------- uplink

  private async checkUplink(key: string, { handle }: PortState, netlink: Netlink): Promise<void> {
    const { node } = this;
    // Every other kind stands on an interface of the host, of which its own device knows nothing.
    const isOurs = node.config.spec.uplink.kind === 'tap';
    let sight = await lookAtUplink(netlink, node.config, isDetached(handle) ? null : handle);
    if (sight.stale && !isDetached(handle)) {
      // From here on nobody asks anything of it: `status` would look at descriptors that are closed.
      const { close } = node.uplink;
      const gone = { status: () => [], serve: undefined, findRefusals: undefined, close: async () => {} };
      node.uplink = { ...node.uplink, ...gone };
      await this.detach(key, handle, sight.why ?? 'what it stands on is another interface now');
      await close();
      sight = await lookAtUplink(netlink, node.config, null);
    }
    if (sight.uplink !== undefined && !isDeepStrictEqual(sight.uplink, node.config.spec.uplink)) {
      const what = describeUplink(node.config.spec.uplink, sight.uplink);
      await node.changeUplink(sight.uplink);
      if (what !== '') this.options.onUplink(what);
      if (!sight.stale) await node.claim();
    }
    if (sight.state !== 'up' || !sight.stale) {
      if (sight.stale) this.options.health.set(key, 'gone', sight.why);
      else await this.setCondition(key, sight.state, sight.why, isOurs ? CONDITION_DOWN : CONDITION_CUT_OFF);
      return;
    }
    try {
      const uplink = await openUplink(node.config, allowedOffloads(node.config.spec.offload));
      node.uplink = uplink;
      await this.attach(key, uplink.handle, `${uplink.handle.name} is attached again`);
      this.attempts = 0;
      await node.claim();
    } catch (error) {
      const { message } = error as Error;
      this.options.health.set(key, 'gone', message);
      if (++this.attempts >= ATTEMPTS)
        this.options.onLost(new PortLostError(`port ${key} does not come back: ${message}`));
    }
  }

  // ---------------------------------------------------------------- the loop's side

  private async detach(key: string, handle: DeviceHandle, why: string | null): Promise<void> {
    this.down.delete(key);
    this.mtus.delete(key);
    await this.node.detach(key);
    releaseVeth(handle);
    this.options.health.set(key, 'gone', why);
  }

  private async attach(key: string, handle: DeviceHandle, why: string): Promise<void> {
    await this.node.attach(key, handle);
    this.options.health.set(key, 'up', why);
  }

  /** @param down CONDITION_*, as which it is down */
  private async setCondition(key: string, state: Condition, why: string | null, down = CONDITION_DOWN): Promise<void> {
    const isDown = state !== 'up';
    // Of one that is down it is said each time: the loop may have found it up in between.
    if (isDown || this.down.has(key)) {
      await this.node.change([{ kind: 'condition', key, condition: isDown ? down : CONDITION_UP }]);
      if (isDown) this.down.add(key);
      else this.down.delete(key);
    }
    // Of one that has been up all the time nothing is told, and what brought it back stays.
    if (isDown || this.options.health.of(key).state !== 'up') this.options.health.set(key, state, why);
  }
}

function isDetached(handle: DeviceHandle): boolean {
  return 'fd' in handle && handle.fd < 0;
}

/** @param mtu only of a veth: what goes through both of its ends */
type Seen = { state: Condition; why: string | null; mtu?: number };

function tunState(netlink: Netlink, { netns, device }: PodConfig, handle: DeviceHandle): Seen {
  const found = linkOfTun(netlink, handle);
  if (found !== undefined) {
    if (isElsewhere(netlink, netns, found.nsid)) return { state: 'gone', why: `${device} was moved out of ${netns}` };
    const { up, name } = found.link;
    return up ? { state: 'up', why: null } : { state: 'down', why: `${name} in ${netns} is down` };
  }
  return {
    state: 'gone',
    why: namespaceExists(netns) ? `${device} in ${netns} is gone` : `network namespace ${netns} is gone`,
  };
}

/** Is a device in another namespace than the one of that name? @param nsid where it is; null: in ours */
function isElsewhere(netlink: Netlink, netns: string, nsid: number | null): boolean {
  if (!namespaceExists(netns)) return false;
  const fd = openSync(namespacePath(netns), constants.O_RDONLY);
  try {
    const isOurs = fstatSync(fd).ino === statSync('/proc/self/ns/net').ino;
    return isOurs ? nsid !== null : nsid !== netlink.nsidOf(fd);
  } finally {
    closeSync(fd);
  }
}

function vethState(netlink: Netlink, pod: PodConfig): Seen {
  if (!namespaceExists(pod.netns)) return { state: 'gone', why: `network namespace ${pod.netns} is gone` };
  try {
    const { end, pod: far } = findHostEnd(netlink, pod);
    const mtu = Math.min(end.mtu, far.mtu);
    if (end.running) return { state: 'up', why: null, mtu };
    return { state: 'down', why: `${pod.device} in ${pod.netns} is down`, mtu };
  } catch (error) {
    return { state: 'gone', why: (error as Error).message };
  }
}

/** What of an uplink has changed that its user cares about. */
function describeUplink(from: ResolvedUplink, to: ResolvedUplink): string {
  const fields = ['address', 'mtu', 'mac', 'gateway'] as const;
  return fields
    .filter(field => from[field] !== to[field])
    .map(field => `${field} ${to[field] ?? 'none'} (was ${from[field] ?? 'none'})`)
    .join(', ');
}

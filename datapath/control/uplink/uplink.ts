/**
 * What a kind of uplink is made of. Each has a file of its own beside this one, and its line in index.ts; nothing else asks
 * which kind a node has.
 *
 * A start calls, in this order: resolve, findObstacles, open. The first two touch nothing, and what they object to ends the
 * start with exit code 2. Whatever open has made is taken back by close, on every way out.
 */
import type { DeviceHandle } from '../../io/handle.ts';
import type { Netlink } from '../../io/netlink.ts';
import type { Refusal } from '../apply.ts';
import type { NodeConfig, NodeSpec, UplinkConfig } from '../config.ts';
import type { Condition } from '../port-health.ts';
import type { ResolvedConfig, ResolvedUplink } from '../resolved.ts';

/** A configuration as far as it says nothing of the uplink: written or resolved. */
export type RestOfConfig = Omit<NodeConfig, 'spec'> & { spec: Omit<NodeSpec, 'uplink'> };

export interface UplinkKind<Written extends UplinkConfig = UplinkConfig> {
  /**
   * Address, MAC, MTU and gateway, from the configuration or from the interface.
   * @returns the uplink, or what stands in the way as text: "spec.uplink.interface: there is no eth7 (eth0, eth1)"
   */
  resolve(written: Written, config: RestOfConfig): Promise<ResolvedUplink | string[]>;
  /** Why this node cannot have this uplink on this machine, each with the place in the configuration and what to do. */
  findObstacles(config: ResolvedConfig): Promise<string[]>;
  /**
   * Opens the device and brings it up, in the current namespace.
   * @param allowed OFFLOAD_* bits that the configuration allows
   * @throws Error with nothing left behind
   */
  open(config: ResolvedConfig, allowed: number): Promise<OpenUplink>;
  /**
   * Looks again, at an uplink that is open and runs as the configuration says. Touches nothing.
   * @param handle of its device; null: it has none at the moment
   */
  look(netlink: Netlink, config: ResolvedConfig, handle: DeviceHandle | null): Promise<Sight>;
}

/** What has become of an uplink that is open. */
export interface Sight {
  state: Condition;
  /** Of one that is not up. */
  why: string | null;
  /** Its device has to be opened again: it is gone, or what it stands on is another one by the same name. */
  stale: boolean;
  /** What it is now, where that is known. */
  uplink?: ResolvedUplink;
}

export interface OpenUplink {
  /** For the loop's thread, which makes the device of it and closes it. */
  readonly handle: DeviceHandle;
  /** What `tunpath status` shows of it: what is in use, and what works differently from a TAP and why. */
  status(): StatusLine[] | Promise<StatusLine[]>;
  /**
   * Why the running node cannot become this; absent: no reason of the uplink's. Touches nothing.
   */
  findRefusals?(to: ResolvedConfig): Refusal[] | Promise<Refusal[]>;
  /**
   * From now on the node needs what each of these does: two while its configuration changes, the new one when it has.
   * @throws Error, and everything is as before
   */
  serve?(...configs: ResolvedConfig[]): Promise<void>;
  /**
   * Takes back everything that does not go with the handle. Called once the node takes no more requests, with the loop
   * still running, or after it has died; perhaps more than once. Never throws: what cannot be removed is said on stderr.
   */
  close(): Promise<void>;
}

/** A row of the table `uplink` of the status. */
export interface StatusLine {
  what: string;
  how: string;
}

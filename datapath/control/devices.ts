/** Opens a node's devices and sets up the kernel's side of them. */
import { OFFLOADS, type Offload } from '../io/device.ts';
import { closeHandle, type DeviceHandle, type PodHandle } from '../io/handle.ts';
import { openTunTap, type TunTapHandle } from '../io/tuntap.ts';
import { mtusOf } from '../program/mtus.ts';
import { hostRoutes } from './host-routes.ts';
import { ipBatch } from './ip.ts';
import { passageName, QUEUE_PACKETS, sysctlsOf, withoutIpv6 } from './kernel-side.ts';
import { namespaceExists } from './netns.ts';
import { openPodDevices } from './pod-devices.ts';
import type { ResolvedConfig } from './resolved.ts';
import { openUplink, uplinkObstacles } from './uplink/index.ts';
import type { OpenUplink } from './uplink/uplink.ts';

/** The OFFLOAD_* bits that the configuration allows. Every other one needs the checksum. */
export function allowedOffloads(offload: 'auto' | 'none' | Offload[]): number {
  const allowed = OFFLOADS.filter(({ name }) => offload === 'auto' || (offload !== 'none' && offload.includes(name)));
  return allowed.reduce((bits, { bits: more }) => bits | more, 0);
}

/** What stands in the way of opening the devices, each with the place in the configuration. Touches nothing. */
export async function findObstacles(config: ResolvedConfig): Promise<string[]> {
  const { pods } = config.spec;
  const missing = pods.flatMap((pod, i) =>
    pod.kind === 'memory' || namespaceExists(pod.netns)
      ? []
      : [`spec.pods[${i}].netns: network namespace "${pod.netns}" does not exist${howToMake(pod.netns)}`],
  );
  const netns = config.spec.host?.netns;
  const own =
    netns === undefined || namespaceExists(netns)
      ? []
      : [`spec.host.netns: network namespace "${netns}" does not exist (ip netns add ${netns})`];
  return [...(await uplinkObstacles(config)), ...own, ...missing];
}

function howToMake(netns: string): string {
  return netns.startsWith('/') ? '' : ` (ip netns add ${netns})`;
}

/** A node's open devices. */
export interface Devices {
  /** In the order of compile()'s ports; the last is the uplink's. */
  handles: DeviceHandle[];
  uplink: OpenUplink;
}

/**
 * Opens the pods' devices, moves each into the namespace of its pod and configures it there. The only part of a start that
 * needs CAP_SYS_ADMIN, for setns(2). All or nothing.
 * @param pods those of the configuration, or some of them
 */
export async function openPods(config: ResolvedConfig, pods = config.spec.pods): Promise<PodHandle[]> {
  return openPodDevices(pods, mtusOf(config), allowedOffloads(config.spec.offload));
}

/** Opens the host port and configures it. @throws Error with nothing left behind */
export async function openHostPort(config: ResolvedConfig): Promise<TunTapHandle> {
  const { host, uplink, offload } = config.spec;
  const { device, netns } = host!;
  const name = netns === undefined ? device : passageName();
  const handle = openTunTap({ kind: 'tun', name, mtu: uplink.mtu, allowed: allowedOffloads(offload) });
  try {
    if (netns === undefined) withoutIpv6(device);
    else await ipBatch([`link set dev ${name} netns ${netns} name ${device}`]);
    await setUpHostPort(config);
    return { ...handle, name: device };
  } catch (error) {
    closeHandle(handle);
    throw error;
  }
}

/**
 * Opens every device, in the order of compile()'s ports, and configures addresses, routes and MTUs behind them.
 * All or nothing: if one fails, those already open are closed, which removes them, and what the uplink made is undone.
 * @param pods what openPods() has opened
 */
export async function openDevices(config: ResolvedConfig, pods: readonly PodHandle[]): Promise<Devices> {
  const handles: PodHandle[] = [...pods];
  let uplink: OpenUplink | null = null;
  try {
    uplink = await openUplink(config, allowedOffloads(config.spec.offload));
    if (config.spec.host !== undefined) handles.push(await openHostPort(config));
    return { handles: [...handles, uplink.handle], uplink };
  } catch (error) {
    await uplink?.close();
    for (const handle of [...handles, ...(uplink === null ? [] : [uplink.handle])]) closeHandle(handle);
    throw error;
  }
}

/** Of the host port, in the node's own namespace: each as ADDRESS/LENGTH. */
export function hostPortAddresses({ spec: { uplink, host } }: ResolvedConfig): string[] {
  if (host === undefined) return [];
  return [host.address, ...(uplink.onHostPort ? [`${uplink.address.split('/')[0]}/32`] : [])];
}

/**
 * In the node's own namespace the host port gets the node's addresses and, as routes, all that the datapath can reach; what
 * it may have had of them goes first.
 */
export async function setUpHostPort(config: ResolvedConfig): Promise<void> {
  const { uplink, host } = config.spec;
  const { device, netns } = host!;
  const lines = [
    `link set dev lo up`,
    `addr flush dev ${device}`,
    `route flush dev ${device}`,
    ...hostPortAddresses(config).map(address => `addr replace ${address} dev ${device} noprefixroute`),
    `link set dev ${device} mtu ${uplink.mtu} txqueuelen ${QUEUE_PACKETS} up`,
    ...hostRoutes(config).map(route => `route append ${route}`),
  ];
  await ipBatch(lines, netns === undefined ? {} : { netns, sysctls: sysctlsOf(device) });
}

/** Opens a node's devices and sets up the kernel's side of them. */
import { existsSync, writeFileSync } from 'node:fs';
import { OFFLOADS, type Offload } from '../io/device.ts';
import * as libc from '../io/libc.ts';
import { openTunTap, type TunTapHandle } from '../io/tuntap.ts';
import { ipBatch } from '../lab/ip.ts';
import { type Mtus, mtusOf, type TapNodeConfig } from './compile.ts';
import { hostRoutes } from './host-routes.ts';
import { namespaceExists } from './netns.ts';

/** Packets that a TUN keeps for us while we are busy: the ring between the kernel and our read(). */
const QUEUE_PACKETS = 1000;

/** The OFFLOAD_* bits that the configuration allows. Every other one needs the checksum. */
export function allowedOffloads(offload: 'auto' | 'none' | Offload[]): number {
  const allowed = OFFLOADS.filter(({ name }) => offload === 'auto' || (offload !== 'none' && offload.includes(name)));
  return allowed.reduce((bits, { bits: more }) => bits | more, 0);
}

/** What stands in the way of opening the devices, each with the place in the configuration. Touches nothing. */
export function findObstacles(config: TapNodeConfig): string[] {
  const { pods } = config.spec;
  return pods.flatMap((pod, i) =>
    namespaceExists(pod.netns)
      ? []
      : [`spec.pods[${i}].netns: network namespace "${pod.netns}" does not exist (ip netns add ${pod.netns})`],
  );
}

/**
 * Opens every device, in the order of compile()'s ports, and configures addresses, routes and MTUs behind them.
 * All or nothing: if one fails, those already open are closed, which removes them.
 */
export async function openDevices(config: TapNodeConfig): Promise<TunTapHandle[]> {
  const { spec } = config;
  const mtus = mtusOf(config);
  const allowed = allowedOffloads(spec.offload);
  const handles: TunTapHandle[] = [];
  try {
    // Made here and moved: a descriptor opened inside the pod's namespace would keep that alive after `ip netns del`.
    for (const [i, pod] of spec.pods.entries()) {
      handles.push(openTunTap({ kind: 'tun', name: passageName(i), mtu: pod.mtu ?? mtus.device, allowed }));
    }
    if (spec.host !== undefined) {
      handles.push(openTunTap({ kind: 'tun', name: spec.host.device, mtu: spec.uplink.mtu, allowed }));
      withoutIpv6(spec.host.device);
    }
    handles.push(openTunTap({ kind: 'tap', name: spec.uplink.device, mtu: spec.uplink.mtu, allowed }));
    withoutIpv6(spec.uplink.device);
    await ipBatch(spec.pods.map((pod, i) => `link set dev ${passageName(i)} netns ${pod.netns} name ${pod.device}`));
    await Promise.all([...spec.pods.map(pod => setUpPod(pod, mtus)), setUpNode(config)]);
    return handles.map((handle, i) => (i < spec.pods.length ? { ...handle, name: spec.pods[i].device } : handle));
  } catch (error) {
    closeDevices(handles);
    throw error;
  }
}

export function closeDevices(handles: TunTapHandle[]): void {
  for (const handle of handles) libc.close(handle.fd);
}

/** Name of a pod's device until it is in its namespace. */
function passageName(pod: number): string {
  return `tp${process.pid}.${pod}`;
}

/** The datapath speaks IPv4: the kernel need not solicit routers behind our devices. In the current namespace. */
function withoutIpv6(device: string): void {
  const file = `/proc/sys/net/ipv6/conf/${device}/disable_ipv6`;
  if (existsSync(file)) writeFileSync(file, '1');
}

function setUpPod(pod: TapNodeConfig['spec']['pods'][number], mtus: Mtus): Promise<void> {
  const { device, address } = pod;
  const mtu = pod.mtu ?? mtus.device;
  const routeMtu = mtus.route > 0 && mtus.route < mtu ? ` mtu ${mtus.route}` : '';
  return ipBatch(
    [
      `link set dev lo up`,
      `addr add ${address}/32 dev ${device}`,
      `link set dev ${device} mtu ${mtu} txqueuelen ${QUEUE_PACKETS} up`,
      `route replace default dev ${device}${routeMtu}`,
    ],
    {
      netns: pod.netns,
      sysctls: existsSync('/proc/sys/net/ipv6') ? { [`net/ipv6/conf/${device}/disable_ipv6`]: 1 } : {},
    },
  );
}

/**
 * The node's own namespace: the uplink is only brought up; the host port gets the node's addresses and, as routes, all
 * that the datapath can reach.
 */
function setUpNode(config: TapNodeConfig): Promise<void> {
  const { uplink, host } = config.spec;
  const lines = [`link set dev ${uplink.device} mtu ${uplink.mtu} txqueuelen ${QUEUE_PACKETS} up`];
  if (host !== undefined) {
    const [nodeAddress] = uplink.address.split('/');
    const { device } = host;
    lines.push(
      `link set dev lo up`,
      `addr add ${host.address} dev ${device} noprefixroute`,
      `addr replace ${nodeAddress}/32 dev ${device} noprefixroute`,
      `link set dev ${device} mtu ${uplink.mtu} txqueuelen ${QUEUE_PACKETS} up`,
    );
    lines.push(...hostRoutes(config).map(route => `route append ${route}`));
  }
  return ipBatch(lines);
}

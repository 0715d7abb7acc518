/** The devices of pods: a TUN or TAP that is made and moved into the pod's namespace, or a veth that is there already. */
import { closeHandle, type PodHandle } from '../io/handle.ts';
import { macOfTap, openTunTap } from '../io/tuntap.ts';
import { type Mtus, podMtuOf } from '../program/mtus.ts';
import type { PodConfig } from './config.ts';
import { ipBatch } from './ip.ts';
import { passageName, QUEUE_PACKETS, sysctlsOf } from './kernel-side.ts';
import { parseCidr } from './validated.ts';
import { openVeth, releaseVeth } from './veth.ts';

/** The gateway of pods with a link layer. Nobody has it: the port answers for it, as for every address. */
export const POD_GATEWAY = '169.254.1.1';

/**
 * Opens and configures the pods' devices. All or nothing.
 * @param allowed OFFLOAD_* bits that the configuration allows
 * @throws Error with nothing left behind
 */
export async function openPodDevices(pods: readonly PodConfig[], mtus: Mtus, allowed: number): Promise<PodHandle[]> {
  if (pods.length === 0) return [];
  const handles: PodHandle[] = [];
  const close = () => {
    for (const handle of handles) {
      closeHandle(handle);
      releaseVeth(handle);
    }
  };
  try {
    // Made here and moved: a descriptor opened inside the pod's namespace would keep that alive after `ip netns del`.
    for (const pod of pods) {
      const mtu = podMtuOf(pod, mtus).device;
      handles.push(openPod(pod, mtu, allowed));
    }
    const made = pods.map((pod, i) => ({ pod, handle: handles[i] })).filter(({ pod }) => isMade(pod));
    if (made.length > 0) {
      await ipBatch(made.map(({ pod, handle }) => `link set dev ${handle.name} netns ${pod.netns} name ${pod.device}`));
    }
    await Promise.all(made.map(({ pod }) => setUpPod(pod, mtus)));
    return handles.map((handle, i) => {
      if (!isMade(pods[i])) return handle;
      const named = { ...handle, name: pods[i].device };
      return 'fd' in handle && pods[i].kind === 'tap' ? { ...named, peerMac: macOfTap(handle.fd) } : named;
    });
  } catch (error) {
    close();
    throw error;
  }
}

function openPod(pod: PodConfig, mtu: number, allowed: number): PodHandle {
  const { kind, name, app = 'echo' } = pod;
  if (kind === 'veth') return openVeth(pod, allowed);
  if (kind === 'memory') {
    return { kind, name, address: parseCidr(pod.address).address, app, mtu, offloads: 0, refused: [] };
  }
  return openTunTap({ kind, name: passageName(), mtu, allowed });
}

/** Is the pod's device made by the node? */
function isMade({ kind }: PodConfig): boolean {
  return kind === 'tun' || kind === 'tap';
}

function setUpPod(pod: PodConfig, mtus: Mtus): Promise<void> {
  const { device, address } = pod;
  return ipBatch(
    [
      `link set dev lo up`,
      `addr add ${address}/32 dev ${device}`,
      `link set dev ${device} mtu ${podMtuOf(pod, mtus).device} txqueuelen ${QUEUE_PACKETS} up`,
      ...(pod.kind === 'tap' ? [`route replace ${POD_GATEWAY} dev ${device} scope link`] : []),
      defaultRoute(pod, mtus),
    ],
    { netns: pod.netns, sysctls: sysctlsOf(device) },
  );
}

/** A pod's default route, as a line for `ip`: with an MTU where that is less than the device's. */
export function defaultRoute(pod: PodConfig, mtus: Mtus): string {
  const { device: mtu, route } = podMtuOf(pod, mtus);
  const via = pod.kind === 'tap' ? `via ${POD_GATEWAY} ` : '';
  return `route replace default ${via}dev ${pod.device}${route > 0 && route < mtu ? ` mtu ${route}` : ''}`;
}

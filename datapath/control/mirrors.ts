/**
 * Devices that show what nodes send to their segment and get from it, for tcpdump. Each is there as long as somebody has asked
 * for it: a copy of every packet is made for it.
 */
import { closeHandle } from '../io/handle.ts';
import { openTunTap, type TunTapHandle } from '../io/tuntap.ts';
import { allowedOffloads } from './devices.ts';
import { ipBatch } from './ip.ts';
import { QUEUE_PACKETS, withoutIpv6 } from './kernel-side.ts';

/** A TAP to show a port on, in the namespace of the process. */
export interface MirrorRequest {
  device: string;
  offload: 'auto' | 'none';
  mtu: number;
}

/** What the loop of a node's segment does with the TAP. */
export interface MirrorLoop {
  begin(tap: TunTapHandle): Promise<unknown>;
  /** Closes it. */
  end(): Promise<unknown>;
}

export class Mirrors {
  /** How many want to see each node. */
  private readonly users = new Map<string, number>();
  /** What is being done about each node: one thing after the other. */
  private readonly work = new Map<string, Promise<unknown>>();

  /** @throws Error when the device cannot be made */
  begin(node: string, loop: MirrorLoop, request: MirrorRequest): Promise<void> {
    return this.inTurn(node, async () => {
      const users = this.users.get(node) ?? 0;
      // The loop closes the device also when it cannot take it.
      if (users === 0) await loop.begin(await openMirror(request));
      this.users.set(node, users + 1);
    });
  }

  /** One fewer; the last takes the device with him. */
  end(node: string, loop: MirrorLoop): Promise<void> {
    return this.inTurn(node, async () => {
      const users = this.users.get(node) ?? 0;
      if (users === 1) await loop.end();
      this.users.set(node, Math.max(0, users - 1));
    });
  }

  private inTurn(node: string, what: () => Promise<void>): Promise<void> {
    const done = (this.work.get(node) ?? Promise.resolve()).then(what);
    this.work.set(
      node,
      done.catch(() => {}),
    );
    return done;
  }
}

async function openMirror({ device, offload, mtu }: MirrorRequest): Promise<TunTapHandle> {
  const handle = openTunTap({ kind: 'tap', name: device, mtu, allowed: allowedOffloads(offload) });
  try {
    withoutIpv6(device);
    await ipBatch([`link set dev ${device} mtu ${mtu} txqueuelen ${QUEUE_PACKETS} up`]);
    return handle;
  } catch (error) {
    closeHandle(handle);
    throw error;
  }
}

/** A host on a lab's underlay that is nobody's peer and says whatever it is told to. */

import { ipBatch } from '../control/ip.ts';
import { inNamespace } from '../control/netns.ts';
import { openTunTap, TunTap } from '../io/tuntap.ts';
import { Pool } from '../packet/pool.ts';
import type { Lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import { SWITCH } from './names.ts';

const DEVICE = 'stranger';

export class Stranger {
  private readonly tap: TunTap;
  private readonly pool: Pool;

  private constructor(tap: TunTap, pool: Pool) {
    this.tap = tap;
    this.pool = pool;
  }

  /** Plugs a new host into one of the lab's bridges. One at a time. */
  static async join(lab: Lab, bridge: string): Promise<Stranger> {
    const pool = new Pool(1);
    const netns = lab.namespace(SWITCH);
    const handle = inNamespace(netns, () => openTunTap({ kind: 'tap', name: DEVICE, mtu: 1500, allowed: 0 }));
    const stranger = new Stranger(new TunTap(handle, pool), pool);
    try {
      await ipBatch([`link set ${DEVICE} master ${bridge} up`], { netns });
    } catch (error) {
      stranger.leave();
      throw error;
    }
    return stranger;
  }

  /** @param frame  Ethernet, without its checksum */
  send(frame: Uint8Array): void {
    const packet = this.pool.take()!;
    this.pool.bytes.set(frame, packet.off);
    packet.len = frame.length;
    const error = this.tap.write(packet);
    this.pool.release(packet);
    if (error !== 0) throw new LabError(`${DEVICE}: write failed with errno ${error}`);
  }

  /** Takes the device with it. */
  leave(): void {
    this.tap.close();
  }
}

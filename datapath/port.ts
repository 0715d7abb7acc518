/** A port: a device with what the datapath knows about who is behind it, and the packets waiting to be written to it. */
import { type Counters, PORT_TX_BYTES, PORT_TX_DROPPED, PORT_TX_PACKETS, PORT_WRITES } from './counters.ts';
import type { Device } from './io/device.ts';
import * as libcErrors from './io/errors.ts';
import type { Packet } from './packet/packet.ts';
import type { Pool } from './packet/pool.ts';
import * as verdict from './verdict.ts';

export const PORT_POD = 1;
export const PORT_HOST = 2;
export const PORT_UPLINK = 3;

export const PORT_KINDS: readonly string[] = ['', 'pod', 'host', 'uplink'];

/** Packets that may wait for one flush; more than a burst can produce, fragments included, is written out early. */
const TX_LIMIT = 128;

export class Port {
  readonly index: number;
  readonly kind: number;
  readonly name: string;
  readonly device: Device;
  /** Addresses that its user may send from (int32). Pods only. */
  readonly addresses: Int32Array;
  /** Security identity of what is behind it; 0 for none. */
  readonly identity: number;
  private readonly tx: Packet[] = [];
  private txCount = 0;
  private readonly pool: Pool;
  private readonly counters: Counters;

  constructor(options: {
    index: number;
    kind: number;
    name: string;
    device: Device;
    addresses: number[];
    identity: number;
    pool: Pool;
    counters: Counters;
  }) {
    this.index = options.index;
    this.kind = options.kind;
    this.name = options.name;
    this.device = options.device;
    this.addresses = Int32Array.from(options.addresses);
    this.identity = options.identity;
    this.pool = options.pool;
    this.counters = options.counters;
  }

  /** Is `address` one that the user of this port may send from? */
  owns(address: number): boolean {
    const { addresses } = this;
    for (let i = 0; i < addresses.length; i++) if (addresses[i] === address) return true;
    return false;
  }

  /** Queues a packet that is complete for this device; it is written at the next flush. Takes ownership. */
  queue(p: Packet): void {
    this.tx[this.txCount++] = p;
    if (this.txCount >= TX_LIMIT) this.flush();
  }

  /** Writes what waits, in order, and gives the slots back. */
  flush(): void {
    const { tx, txCount, pool, counters, device } = this;
    if (txCount === 0) return;
    for (let i = 0; i < txCount; i++) {
      const p = tx[i];
      const error = device.write(p);
      if (error === 0) {
        counters.port(this.index, PORT_TX_PACKETS, 1);
        counters.port(this.index, PORT_TX_BYTES, p.len);
      } else {
        counters.port(this.index, PORT_TX_DROPPED, 1);
        counters.drop(dropReason(error), p.len);
      }
      pool.release(p);
    }
    counters.port(this.index, PORT_WRITES, txCount);
    this.txCount = 0;
  }
}

function dropReason(error: number): number {
  switch (error) {
    case libcErrors.EAGAIN:
    case libcErrors.ENOBUFS:
      return verdict.DROP_DEVICE_QUEUE_FULL;
    case libcErrors.EIO:
    case libcErrors.EBADFD:
      return verdict.DROP_DEVICE_DOWN;
    default:
      return verdict.DROP_DEVICE_REFUSED;
  }
}

/** What a table of neighbours is made with, asks of its owner, and shows of itself. */
import type { Clock } from '../clock.ts';
import type { Counters } from '../counters.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import type { Random } from '../random.ts';
import type { Mac } from '../wire/ethernet.ts';

/** What the table asks of its owner. Each call hands the packet over; only unreachable() may call the table back. */
export interface NeighborEvents {
  /** A complete frame for the uplink. */
  transmit(p: Packet): void;
  /** Would a frame leave now? Without it, always. */
  canTransmit?(): boolean;
  /** A held packet that there is no more room for: count it under `reason` (DROP_*) and release it. */
  release(p: Packet, reason: number): void;
  /**
   * A held packet whose next hop does not answer; `p.off` at the Ethernet header. Answer ICMP host unreachable, count
   * DROP_NEIGHBOR_UNREACHABLE, release. May call resolve() and hold() again.
   */
  unreachable(p: Packet): void;
}

/** Times are milliseconds. Defaults are those of Linux (/proc/sys/net/ipv4/neigh) where it has the setting. */
export interface NeighborOptions {
  /** Entries, PERMANENT ones included. Linux: gc_thresh3, 1024. */
  capacity: number;
  pool: Pool;
  counters: Counters;
  events: NeighborEvents;
  /** The node's address on the uplink (int32): answered for, and the sender of our requests. */
  address: number;
  /** Length of the subnet's prefix, 0 to 32. */
  prefixLength: number;
  mac: Mac;
  /** Read for each request for an announced address; default: the time of the burst. */
  clock?: Clock;
  /** Spreads reachable times (0.5 to 1.5 of reachableMs, RFC 4861 section 6.3.2) and seeds the hash; without it both are fixed. */
  random?: Random;
  /** Packets held for one neighbour, 64. Linux counts bytes (unres_qlen_bytes 212992), which a single superpacket nearly fills. */
  queuePerNeighbor?: number;
  /** Packets held in all: 1024, but no more than a quarter of the pool. */
  totalQueue?: number;
  /** Entries being resolved or failed: half the capacity. */
  maxUnresolved?: number;
  /** Entries learnt from requests to us and not used yet: a quarter of the capacity. */
  maxLearnt?: number;
  /** base_reachable_time, 30 s. */
  reachableMs?: number;
  /** delay_first_probe_time, 5 s. */
  delayMs?: number;
  /** retrans_time, 1 s: also the least time between two broadcasts for one address. */
  retransMs?: number;
  /** mcast_solicit, 3: broadcasts before an INCOMPLETE entry fails. */
  maxProbes?: number;
  /** ucast_solicit, 3: unicast requests in PROBE. */
  unicastProbes?: number;
  /** mcast_resolicit, 0: broadcasts in PROBE, after the unicast ones. */
  broadcastReprobes?: number;
  /** locktime, 1 s: for so long after a change the first answer stands; later ones with another MAC are ignored. */
  lockMs?: number;
  /** gc_stale_time, 60 s: how long an unused STALE entry stays when the table is more than half full. FAILED ones stay as long. */
  gcStaleMs?: number;
  /** The same when it is not, 10 min. */
  gcIdleMs?: number;
  /** Timers served by one tick() at most, 64. */
  tickWork?: number;
}

/** One row of `get neighbors`. */
export interface NeighborEntry {
  /** int32 */
  address: number;
  /** null while unknown */
  mac: Mac | null;
  state: string;
  /** Since the neighbour was last heard of, or since the entry began to be resolved. */
  ageMs: number;
  /** Since we last wanted to send to it. */
  idleMs: number;
  /** Packets held for it. */
  queued: number;
  /** Requests sent since it was last known. */
  probes: number;
}

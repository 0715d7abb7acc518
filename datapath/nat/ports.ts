/**
 * Which source port (or ICMP identifier) a translated flow gets outside.
 *
 * Two flows may share an outside address and port as long as they go to different destinations; what must be unique is
 * the reply tuple, and the flow table is the judge of that. For every (outside address, destination, port, protocol)
 * this keeps how many ports are taken: exhaustion is known at once and `get nat` can show it. A destination with many
 * flows also gets a bitmap of its ports, so that the last free port is found in about 1 us and not in 64 k lookups.
 *
 * As Linux, an inside endpoint that had to be given another port keeps it towards its next destinations where it is free
 * there (nf_nat_core.c find_appropriate_src).
 */

import type { FlowTable } from '../flow/table.ts';
import {
  ENTRY_SHIFT,
  META,
  O_PORTS,
  O_SRC,
  PROTOCOL_MASK,
  R_DST,
  R_PORTS,
  R_SRC,
  REPLY,
  STATE_MASK,
  STATE_SHIFT,
  TCP_SEEN,
} from '../flow/table.ts';
import { TCP_CLOSE, TCP_SYN_SENT, TCP_TIME_WAIT } from '../flow/timeouts.ts';
import { CountTable } from '../memory/count-table.ts';
import type { Random } from '../random.ts';
import { hasPorts, PROTO_ICMP, PROTO_TCP } from '../wire/ipv4.ts';
import { EXTERNAL, FLAG_SNAT } from './flow-words.ts';

/**
 * linux: the port is kept if free, else another of its class (1-511, 600-1023, 1024-65535).
 * cilium: kept inside 32768-65535, else random there; gives up after 128 probes as Cilium does.
 */
export type PortProfile = 'linux' | 'cilium';

export interface PortOptions {
  profile?: PortProfile;
  /** Ports to use, both ends included, instead of the profile's: leaves the host's own ports alone. */
  range?: readonly [number, number];
}

/** No port is free. */
export const NO_PORT = -1;

/** Linux: NF_NAT_MAX_ATTEMPTS. */
const MAX_PROBES = 128;
/** Flows to one destination from which on it has a bitmap, and below which it loses it. */
const BITMAP_FROM = 1024;
const BITMAP_UNTIL = 256;
/** A bit for each port. */
const BITMAP_WORDS = 2048;
const MAX_BITMAPS = 512;

export class PortAllocator {
  profile: PortProfile;
  /** 0, 0: no range given. */
  private readonly min: number;
  private readonly max: number;
  private readonly table: FlowTable;
  private readonly random: Random;
  /** (outside address, destination, port | protocol << 16) -> flows, bitmap number. */
  private readonly groups: CountTable;
  /**
   * (inside address, inside port | protocol << 16, outside address) -> the outside port that it was given last, and flows that
   * have another port outside than inside. What kept its port finds it without this.
   */
  private readonly given: CountTable;
  /** One behind the other; what no destination has used yet is address space only, and not counted by the collector. */
  private readonly bitmaps = new Int32Array(new SharedArrayBuffer(4 * MAX_BITMAPS * BITMAP_WORDS));
  private bitmapsUsed = 0;
  private readonly freeBitmaps: number[] = [];

  /** Allocations that found no port, and closed connections whose port was taken early. */
  exhausted = 0;
  reused = 0;

  constructor(table: FlowTable, random: Random, options: PortOptions = {}) {
    this.table = table;
    this.random = random;
    this.profile = options.profile ?? 'linux';
    const [min, max] = options.range ?? [0, 0];
    if (max !== 0 && !(min >= 1 && min <= max && max <= 65535)) throw new RangeError(`port range ${min}-${max}`);
    this.min = min;
    this.max = max;
    // A flow is in one group.
    this.groups = new CountTable(table.capacity, random, table.capacity);
    this.given = new CountTable(table.capacity, random, table.capacity);
  }

  /**
   * Chooses a source port for the new flow that is being built in `entry`, for the outside address `address`; the tuples
   * there have their destination already. Protocols without ports get 0.
   *
   * @param keep whether the flow may keep its port (false: --random-fully)
   * @param min first port of a range that goes before the allocator's own; 0: none
   * @returns the port or identifier, or NO_PORT
   */
  allocate(entry: number, address: number, keep: boolean, now: number, min = 0, max = 0): number {
    const words = this.table.words;
    const base = entry << ENTRY_SHIFT;
    const protocol = words[base + META] & PROTOCOL_MASK;
    const isIcmp = protocol === PROTO_ICMP;
    if (!isIcmp && !hasPorts(protocol)) return this.taken(base, address, 0, protocol, now) ? this.fail() : 0;

    const wanted = words[base + O_PORTS] >>> 16;
    const given = keep && this.profile === 'linux' ? this.givenTo(base, address, protocol) : NO_PORT;
    let low = min;
    let high = max;
    let mayKeep = keep;
    if (high === 0 && isIcmp) {
      low = 0;
      high = 65535;
    } else if (high === 0 && this.max !== 0) {
      low = this.min;
      high = this.max;
    } else if (high === 0 && this.profile === 'cilium') {
      low = 32768;
      high = 65535;
    } else if (high === 0) {
      if (given !== NO_PORT && !this.taken(base, address, given, protocol, now)) return given;
      // A wanted port outside its class is kept if free: 512-599 belong to no class.
      if (mayKeep && wanted !== 0 && !this.taken(base, address, wanted, protocol, now)) return wanted;
      mayKeep = false;
      low = wanted < 512 ? 1 : wanted < 1024 ? 600 : 1024;
      high = wanted < 512 ? 511 : wanted < 1024 ? 1023 : 65535;
    }
    if (given >= low && given <= high && !this.taken(base, address, given, protocol, now)) return given;
    if (mayKeep && wanted >= low && wanted <= high && !this.taken(base, address, wanted, protocol, now)) return wanted;
    return this.search(base, address, low, high, protocol, now);
  }

  /** Counts a flow that has just been inserted with a translated source. */
  record(entry: number): void {
    const { words } = this.table;
    const base = entry << ENTRY_SHIFT;
    const protocol = words[base + META] & PROTOCOL_MASK;
    const at = this.groups.make(
      words[base + R_DST],
      words[base + R_SRC],
      destinationKey(words[base + R_PORTS], protocol),
    );
    if (at < 0) return;
    words[base + EXTERNAL] = 1;
    this.countGiven(base, protocol, 1);
    const count = this.groups.value(at) + 1;
    this.groups.setValue(at, count);
    let bitmap = this.groups.extra(at);
    if (bitmap === 0 && count >= BITMAP_FROM && (hasPorts(protocol) || protocol === PROTO_ICMP)) {
      bitmap = this.takeBitmap();
      this.groups.setExtra(at, bitmap);
    }
    if (bitmap !== 0) {
      const port = outsidePort(words[base + R_PORTS], protocol);
      this.bitmaps[(bitmap - 1) * BITMAP_WORDS + (port >>> 5)] |= 1 << (port & 31);
    }
  }

  /** The flow goes; its port is free again. */
  release(entry: number): void {
    const { words } = this.table;
    const base = entry << ENTRY_SHIFT;
    if (words[base + EXTERNAL] === 0) return;
    const protocol = words[base + META] & PROTOCOL_MASK;
    this.countGiven(base, protocol, -1);
    const at = this.groups.find(
      words[base + R_DST],
      words[base + R_SRC],
      destinationKey(words[base + R_PORTS], protocol),
    );
    const count = this.groups.value(at) - 1;
    this.groups.setValue(at, count);
    const bitmap = this.groups.extra(at);
    if (bitmap !== 0) {
      const port = outsidePort(words[base + R_PORTS], protocol);
      this.bitmaps[(bitmap - 1) * BITMAP_WORDS + (port >>> 5)] &= ~(1 << (port & 31));
      if (count < BITMAP_UNTIL) {
        this.freeBitmaps.push(bitmap);
        this.groups.setExtra(at, 0);
      }
    }
    if (count === 0) this.groups.removeAt(at);
  }

  /** Flows that use `address` towards one destination. */
  inUse(address: number, dst: number, dstPort: number, protocol: number): number {
    return this.groups.get(address, dst, (protocol << 16) | dstPort);
  }

  /**
   * For `get nat`: the destinations with at least `atLeast` flows, most first.
   * Walks all destinations: not for the loop.
   */
  usage(atLeast = 1): { address: number; dst: number; dstPort: number; protocol: number; used: number; of: number }[] {
    const rows: ReturnType<PortAllocator['usage']> = [];
    for (let i = 0; i < this.groups.slotCount; i++) {
      const at = this.groups.slotAt(i);
      if (at < 0 || this.groups.value(at) < atLeast) continue;
      const key = this.groups.key(at, 2);
      const protocol = key >>> 16;
      rows.push({
        address: this.groups.key(at, 0),
        dst: this.groups.key(at, 1),
        dstPort: key & 0xffff,
        protocol,
        used: this.groups.value(at),
        of: this.size(protocol),
      });
    }
    return rows.sort((a, b) => b.used - a.used);
  }

  /** Ports there are for clients with ordinary (1024 and up) source ports. */
  private size(protocol: number): number {
    if (protocol === PROTO_ICMP) return 65536;
    if (!hasPorts(protocol)) return 1;
    if (this.max !== 0) return this.max - this.min + 1;
    return this.profile === 'cilium' ? 32768 : 64512;
  }

  private fail(): number {
    this.exhausted++;
    return NO_PORT;
  }

  /** The outside port that the new flow's inside endpoint was given last, while a flow has it; NO_PORT if it has kept its own. */
  private givenTo(base: number, address: number, protocol: number): number {
    const { words } = this.table;
    // What keeps its address is not masqueraded: it gets another port only to be told from another flow.
    if (address === words[base + O_SRC]) return NO_PORT;
    const at = this.given.find(words[base + O_SRC], (protocol << 16) | (words[base + O_PORTS] >>> 16), address);
    return at < 0 ? NO_PORT : this.given.value(at);
  }

  /** A flow with another port outside than inside begins (1) or ends (-1). */
  private countGiven(base: number, protocol: number, change: number): void {
    const { words } = this.table;
    const inside = words[base + O_PORTS] >>> 16;
    const outside = outsidePort(words[base + R_PORTS], protocol);
    if (outside === inside || this.profile !== 'linux') return;
    const key = (protocol << 16) | inside;
    const at =
      change > 0
        ? this.given.make(words[base + O_SRC], key, words[base + R_DST])
        : this.given.find(words[base + O_SRC], key, words[base + R_DST]);
    if (at < 0) return;
    const flows = this.given.extra(at) + change;
    if (flows <= 0) {
      this.given.removeAt(at);
      return;
    }
    this.given.setExtra(at, flows);
    if (change > 0) this.given.setValue(at, outside);
  }

  /** True if the reply tuple that `port` would give belongs to a flow. */
  private taken(base: number, address: number, port: number, protocol: number, now: number): boolean {
    return this.findReply(base, address, port, protocol, now) >= 0;
  }

  /** The flow, as table.find gives it, that has the reply tuple which the flow built at `base` would get with `port`. */
  private findReply(base: number, address: number, port: number, protocol: number, now: number): number {
    const { table } = this;
    const ports = this.replyPorts(base, port, protocol);
    return table.find(table.words[base + R_SRC], address, ports, protocol, now);
  }

  private replyPorts(base: number, port: number, protocol: number): number {
    const ports = this.table.words[base + R_PORTS];
    return protocol === PROTO_ICMP ? (port << 16) | (ports & 0xffff) : (ports & ~0xffff) | port;
  }

  /** A free port of [low, high], from a random one on. */
  private search(base: number, address: number, low: number, high: number, protocol: number, now: number): number {
    const words = this.table.words;
    const range = high - low + 1;
    const at = this.groups.find(address, words[base + R_SRC], destinationKey(words[base + R_PORTS], protocol));
    const bitmap = at < 0 ? 0 : this.groups.extra(at);
    if (bitmap !== 0) {
      const port = this.searchBitmap(bitmap, base, address, low, high, protocol, now);
      if (port !== NO_PORT) return port;
    } else {
      let attempts = Math.min(range, MAX_PROBES);
      for (;;) {
        let offset = this.random.below(range);
        for (let i = 0; i < attempts; i++, offset++) {
          const port = low + (offset % range);
          if (!this.taken(base, address, port, protocol, now)) return port;
        }
        if (this.profile === 'cilium' || attempts < 16) break;
        if (attempts >= range) break; // all have been tried
        attempts >>= 1;
      }
      // Without a bitmap fewer than BITMAP_FROM flows are ours; try all once rather than fail while a port is free.
      if (this.profile !== 'cilium' && range > MAX_PROBES) {
        const offset = this.random.below(range);
        for (let i = 0; i < range; i++) {
          const port = low + ((offset + i) % range);
          if (!this.taken(base, address, port, protocol, now)) return port;
        }
      }
    }
    return this.reuseClosed(base, address, low, range, protocol, now);
  }

  /**
   * The first port from a random one on whose bit is clear and that is really free. Bits of flows older than the bitmap
   * are missing; each is learnt the first time it is met.
   */
  private searchBitmap(
    bitmap: number,
    base: number,
    address: number,
    low: number,
    high: number,
    protocol: number,
    now: number,
  ): number {
    const { bitmaps } = this;
    const first = (bitmap - 1) * BITMAP_WORDS;
    const start = low + this.random.below(high - low + 1);
    let port = start;
    let end = high;
    for (let round = 0; round < 2; round++) {
      while (port <= end) {
        const free = ~(bitmaps[first + (port >>> 5)] | ((1 << (port & 31)) - 1));
        if (free === 0) {
          port = ((port >>> 5) + 1) << 5;
          continue;
        }
        port = (port & ~31) + (31 - Math.clz32(free & -free));
        if (port > end) break;
        const ref = this.findReply(base, address, port, protocol, now);
        if (ref < 0) return port;
        const holder = (ref >>> 1) << ENTRY_SHIFT;
        // Only flows counted here clear their bit again.
        if (this.table.words[holder + EXTERNAL] !== 0) bitmaps[first + (port >>> 5)] |= 1 << (port & 31);
        port++;
      }
      port = low;
      end = start - 1;
    }
    return NO_PORT;
  }

  /**
   * Takes the port of a connection that is closed and only waits (TIME_WAIT, CLOSE), if the new SYN has a higher
   * sequence number than all the old one sent (RFC 1122 section 4.2.2.13; Linux nf_nat_used_tuple_harder).
   */
  private reuseClosed(
    base: number,
    address: number,
    low: number,
    range: number,
    protocol: number,
    now: number,
  ): number {
    const words = this.table.words;
    const state = (words[base + META] >>> STATE_SHIFT) & STATE_MASK;
    // What is only asked for, in the other scratch entry, takes nobody's port.
    if (protocol !== PROTO_TCP || state !== TCP_SYN_SENT || base !== 0) return this.fail();
    const probes = Math.min(range, MAX_PROBES);
    let offset = this.random.below(range);
    for (let i = 0; i < probes; i++, offset++) {
      const port = low + (offset % range);
      const ref = this.findReply(base, address, port, protocol, now);
      if (ref < 0) return port;
      if ((ref & 1) !== REPLY) continue;
      const holder = (ref >>> 1) << ENTRY_SHIFT;
      const meta = words[holder + META];
      const old = (meta >>> STATE_SHIFT) & STATE_MASK;
      if ((old !== TCP_TIME_WAIT && old !== TCP_CLOSE) || (meta & FLAG_SNAT) === 0) continue;
      if (((words[base + TCP_SEEN] - words[holder + TCP_SEEN]) | 0) <= 0) continue;
      this.table.remove(ref >>> 1);
      this.reused++;
      return port;
    }
    return this.fail();
  }

  private takeBitmap(): number {
    const free = this.freeBitmaps.pop();
    if (free !== undefined) {
      this.bitmaps.fill(0, (free - 1) * BITMAP_WORDS, free * BITMAP_WORDS);
      return free;
    }
    return this.bitmapsUsed < MAX_BITMAPS ? ++this.bitmapsUsed : 0;
  }
}

/** The third key word of a group, from a reply tuple's ports: destination port and protocol. */
function destinationKey(replyPorts: number, protocol: number): number {
  return (protocol << 16) | (protocol === PROTO_ICMP ? 0 : replyPorts >>> 16);
}

/** The outside port or identifier in a reply tuple. */
function outsidePort(replyPorts: number, protocol: number): number {
  return protocol === PROTO_ICMP ? replyPorts >>> 16 : replyPorts & 0xffff;
}

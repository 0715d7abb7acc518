/**
 * Devices that end in memory.
 *
 * MemoryDevice has a queue on each side: `inject` fills the one that the datapath reads, `collect` empties the one that
 * it writes; for tests and tools. ReplayDevice reads the same frames over and over and throws away what is written; for
 * benchmarks, where nothing but the datapath should cost.
 */
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { FLAG_NEEDS_CSUM, GSO_UDP_TUNNEL_IPV4 } from '../wire/virtio-net.ts';
import type { Device } from './device.ts';
import { EAGAIN, ENODEV } from './errors.ts';

/** A packet outside the slab, with its virtio-net fields; offsets count from its first byte, as in the virtio header. */
export interface Frame {
  bytes: Uint8Array;
  vnetFlags: number;
  gsoType: number;
  gsoSize: number;
  csumStart: number;
  csumOffset: number;
  outerTransport: number;
  innerNetwork: number;
}

export interface MemoryOptions {
  name?: string;
  /** 3 by default. */
  layer?: 2 | 3;
  /** 1500 by default. */
  mtu?: number;
  /** OFFLOAD_* bits; none by default. */
  offloads?: number;
  /** Packets that the written side holds before write answers EAGAIN; no limit by default. */
  capacity?: number;
}

/** A frame without offloads, or with those that `fields` gives. */
export function frame(bytes: Uint8Array, fields: Partial<Frame> = {}): Frame {
  return {
    vnetFlags: 0,
    gsoType: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
    outerTransport: 0,
    innerNetwork: 0,
    ...fields,
    bytes,
  };
}

/** Puts `f` into the empty packet `p`, at its `off`. */
function fill(slab: Uint8Array, p: Packet, f: Frame): void {
  slab.set(f.bytes, p.off);
  p.len = f.bytes.length;
  p.vnetFlags = f.vnetFlags;
  p.gsoType = f.gsoType;
  p.gsoSize = f.gsoSize;
  p.csumStart = p.off + f.csumStart;
  p.csumOffset = f.csumOffset;
  p.outerTransport = p.off + f.outerTransport;
  p.innerNetwork = p.off + f.innerNetwork;
}

/** A copy of `p` outside the slab. Fields that mean nothing for it are 0. */
export function copyOut(slab: Uint8Array, p: Packet): Frame {
  const partial = (p.vnetFlags & FLAG_NEEDS_CSUM) !== 0;
  const tunnel = (p.gsoType & GSO_UDP_TUNNEL_IPV4) !== 0;
  return {
    bytes: new Uint8Array(slab.subarray(p.off, p.off + p.len)),
    vnetFlags: p.vnetFlags,
    gsoType: p.gsoType,
    gsoSize: p.gsoSize,
    csumStart: partial ? p.csumStart - p.off : 0,
    csumOffset: partial ? p.csumOffset : 0,
    outerTransport: tunnel ? p.outerTransport - p.off : 0,
    innerNetwork: tunnel ? p.innerNetwork - p.off : 0,
  };
}

export class MemoryDevice implements Device {
  readonly name: string;
  readonly layer: 2 | 3;
  readonly mtu: number;
  readonly offloads: number;
  readonly fd = -1;
  /** Set to an errno and every write is answered with it, as by an interface that is down. */
  failWrites = 0;
  private readonly capacity: number;
  private readonly slab: Uint8Array;
  private readonly toRead: Frame[] = [];
  private written: Frame[] = [];
  private closed = false;

  constructor(pool: Pool, options: MemoryOptions = {}) {
    this.slab = pool.bytes;
    this.name = options.name ?? 'memory';
    this.layer = options.layer ?? 3;
    this.mtu = options.mtu ?? 1500;
    this.offloads = options.offloads ?? 0;
    this.capacity = options.capacity ?? Number.POSITIVE_INFINITY;
  }

  /** Queues a packet for the datapath to read. The bytes are not copied before that. */
  inject(bytes: Uint8Array, fields: Partial<Frame> = {}): void {
    this.toRead.push(frame(bytes, fields));
  }

  /** Packets that wait to be read. */
  get pending(): number {
    return this.toRead.length;
  }

  /** Takes the bytes of everything written so far, in order. */
  collect(): Uint8Array[] {
    return this.collectFrames().map(f => f.bytes);
  }

  /** As collect, with the virtio-net fields. */
  collectFrames(): Frame[] {
    const frames = this.written;
    this.written = [];
    return frames;
  }

  readBurst(slots: Packet[], max: number): number {
    if (this.closed) return -ENODEV;
    const n = Math.min(max, this.toRead.length);
    for (let i = 0; i < n; i++) fill(this.slab, slots[i], this.toRead[i]);
    this.toRead.splice(0, n);
    return n;
  }

  write(p: Packet): number {
    if (this.closed) return ENODEV;
    if (this.failWrites !== 0) return this.failWrites;
    if (this.written.length >= this.capacity) return EAGAIN;
    this.written.push(copyOut(this.slab, p));
    return 0;
  }

  close(): void {
    this.closed = true;
  }
}

/** Packets to be read over and over. All have the same virtio-net fields. */
export interface Replay {
  /** The first `headerWords` words of each packet, as they lie in memory, one packet behind the other. */
  headers: Int32Array;
  headerWords: number;
  /** Bytes of each packet, at least those of its header words. */
  lengths: Uint16Array;
  /** As in Frame; 0 by default. */
  vnetFlags?: number;
  csumStart?: number;
  csumOffset?: number;
}

const NOTHING: Replay = { headers: new Int32Array(0), headerWords: 0, lengths: new Uint16Array(0) };
const CACHE_LINE = 64;

/**
 * A read writes the header words, as DMA would without the processor; what stands behind them is what the slot held. A
 * write reads one word of each cache line of the packet.
 */
export class ReplayDevice implements Device {
  readonly name: string;
  readonly layer: 2 | 3;
  readonly mtu: number;
  readonly offloads: number;
  readonly fd = -1;
  /** Packets per read at most. */
  burst = Number.MAX_SAFE_INTEGER;
  /** What has been written. */
  packets = 0;
  bytes = 0;
  /** Sum of the words that writes have read. */
  touched = 0;
  /** Positions in the slab of the last packets written; packet n is at [n & (length - 1)]. */
  readonly offsets = new Int32Array(128);
  private readonly view: DataView;
  private replay: Replay = NOTHING;
  private next = 0;

  /** @param replay read in turn, for ever; without any it is a sink only */
  constructor(pool: Pool, replay: Replay = NOTHING, options: MemoryOptions = {}) {
    this.view = pool.view;
    this.name = options.name ?? 'replay';
    this.layer = options.layer ?? 3;
    this.mtu = options.mtu ?? 1500;
    this.offloads = options.offloads ?? 0;
    this.play(replay);
  }

  /** Reads these from now on, from the first. */
  play(replay: Replay): void {
    this.replay = replay;
    this.next = 0;
  }

  readBurst(slots: Packet[], max: number): number {
    const { view, replay } = this;
    const { headers, headerWords, lengths } = replay;
    if (lengths.length === 0) return 0;
    const n = Math.min(max, this.burst);
    const flags = replay.vnetFlags ?? 0;
    const csumStart = replay.csumStart ?? 0;
    const csumOffset = replay.csumOffset ?? 0;
    let { next } = this;
    for (let i = 0; i < n; i++) {
      const p = slots[i];
      const { off } = p;
      const from = next * headerWords;
      for (let word = 0; word < headerWords; word++) view.setInt32(off + 4 * word, headers[from + word], true);
      p.len = lengths[next];
      p.vnetFlags = flags;
      p.csumStart = off + csumStart;
      p.csumOffset = csumOffset;
      if (++next === lengths.length) next = 0;
    }
    this.next = next;
    return n;
  }

  write(p: Packet): number {
    const { view } = this;
    const { off, len } = p;
    let sum = this.touched;
    for (let at = 0; at < len - 3; at += CACHE_LINE) sum = (sum + view.getInt32(off + at, true)) | 0;
    this.touched = sum;
    this.offsets[this.packets & (this.offsets.length - 1)] = off;
    this.packets++;
    this.bytes += len;
    return 0;
  }

  close(): void {}
}

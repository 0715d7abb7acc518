/** What is at the ends of a segment: a node that its thread runs, or a device of the kernel's. */
import {
  type Counters,
  PORT_RX_BYTES,
  PORT_RX_PACKETS,
  PORT_TX_BYTES,
  PORT_TX_DROPPED,
  PORT_TX_PACKETS,
} from '../counters.ts';
import { type Device, takesWhole, writeCopy } from '../io/device.ts';
import { EIO, ENODEV } from '../io/errors.ts';
import { HEADROOM, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { completeChecksum } from '../packet/segment.ts';
import * as verdict from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { cutFrame, MAX_PIECES, protocolOf } from './frames.ts';
import type { Impairments } from './impairments.ts';
import { Inbox } from './inbox.ts';
import type { Line, LineEnd } from './line.ts';

/** Frames that wait for one write to a device. */
const TX_LIMIT = 128;
/** Frames read from a device in one turn, as of a node's port. */
const RX_LIMIT = 64;

/** A port of a segment for display: what came and left, and what happens on its line. */
export interface PortRow {
  name: string;
  kind: string;
  from: Impairments;
  to: Impairments;
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  waiting: number;
}

/** The segment that a port is of. */
export interface PortOwner {
  readonly name: string;
  /** Longest IP packet that it carries. */
  readonly mtu: number;
  readonly pool: Pool;
  readonly counters: Counters;
  /** Whether frames may wait, or the packets are needed elsewhere. */
  readonly hasRoom: boolean;
  makeLine(name: string, end: LineEnd, checked: number): Line;
  /** A frame of a port's comes in, and has crossed the port's line. */
  enter(p: Packet, port: SegmentPort): void;
  cross(p: Packet, from: number): void;
  drop(p: Packet, reason: number): void;
  /** A port gets a frame: it is counted, and shown where the port is mirrored. */
  countTo(port: SegmentPort, p: Packet): void;
  detach(port: SegmentPort): void;
}

export abstract class SegmentPort {
  readonly index: number;
  readonly name: string;
  /** Where everything is shown that it sends and gets. */
  mirror: Outlet | null = null;
  /** What it sends, and what it gets. */
  readonly from: Line;
  readonly to: Line;
  protected readonly segment: PortOwner;

  constructor(segment: PortOwner, index: number, name: string) {
    this.segment = segment;
    this.index = index;
    this.name = name;
    this.from = segment.makeLine(`from ${name}`, { arrive: (p, by) => segment.cross(p, by) }, ipv4.SRC);
    this.to = segment.makeLine(`to ${name}`, { arrive: p => this.arrive(p) }, ipv4.DST);
  }

  abstract readonly kind: string;
  /** A frame has come to it. Takes ownership. */
  abstract arrive(p: Packet): void;
  /** Gives back what waits. */
  abstract release(): void;
  abstract close(): void;
  protected abstract readonly waiting: number;

  row(): PortRow {
    const { counters } = this.segment;
    return {
      name: this.name,
      kind: this.kind,
      from: this.from.impairments,
      to: this.to.impairments,
      rxPackets: counters.ofPort(this.index, PORT_RX_PACKETS),
      rxBytes: counters.ofPort(this.index, PORT_RX_BYTES),
      txPackets: counters.ofPort(this.index, PORT_TX_PACKETS),
      txBytes: counters.ofPort(this.index, PORT_TX_BYTES),
      waiting: this.waiting + this.from.waiting + this.to.waiting,
    };
  }

  protected refuse(p: Packet, reason: number): void {
    this.segment.counters.port(this.index, PORT_TX_DROPPED, 1);
    this.segment.drop(p, reason);
  }
}

/** Slots that a segment leaves to the paths at least, and the share of a small pool. */
const RESERVE = 512;
const RESERVE_SHARE = 8;

/** So many slots of a pool are not for what waits on segments. */
export function reserveOf(pool: Pool): number {
  return Math.min(RESERVE, Math.floor(pool.size / RESERVE_SHARE));
}

/** The device of a node's uplink. */
export class NodePort extends SegmentPort implements Device {
  readonly kind = 'node';
  readonly layer = 2;
  readonly mtu: number;
  readonly offloads: number;
  readonly fd = -1;
  private readonly inbox: Inbox;
  private isOpen = true;

  constructor(segment: PortOwner, index: number, name: string, offloads: number) {
    super(segment, index, name);
    this.mtu = segment.mtu;
    this.offloads = offloads;
    this.inbox = new Inbox(segment.pool);
  }

  get pending(): number {
    return this.inbox.size;
  }

  protected get waiting(): number {
    return this.inbox.size;
  }

  arrive(p: Packet): void {
    const { segment } = this;
    if (this.inbox.isFull || !segment.hasRoom) {
      this.refuse(p, verdict.DROP_WIRE_QUEUE_FULL);
      return;
    }
    segment.countTo(this, p);
    this.inbox.push(p);
  }

  readBurst(slots: Packet[], max: number): number {
    return this.isOpen ? this.inbox.read(slots, max) : -ENODEV;
  }

  handOver(p: Packet): number {
    if (!this.isOpen) return EIO;
    this.segment.enter(p, this);
    return 0;
  }

  write(p: Packet): number {
    return writeCopy(this, this.segment.pool, p);
  }

  release(): void {
    this.isOpen = false;
    while (this.inbox.size > 0) this.refuse(this.inbox.shift(), verdict.DROP_WIRE_CLOSED);
  }

  close(): void {
    this.segment.detach(this);
  }
}

/** Frames on their way to a device of the kernel's, each in pieces that the device takes. */
export class Outlet {
  readonly device: Device;
  private readonly pool: Pool;
  private readonly refuse: (p: Packet, reason: number) => void;
  private readonly pieces: Packet[] = [];
  private readonly tx: Packet[] = [];
  private readonly errors = new Int32Array(TX_LIMIT);
  private txCount = 0;

  /** @param refuse takes what the device does not */
  constructor(device: Device, pool: Pool, refuse: (p: Packet, reason: number) => void) {
    this.device = device;
    this.pool = pool;
    this.refuse = refuse;
    for (let i = 0; i < MAX_PIECES; i++) this.pieces.push(pool.packets[0]);
  }

  get waiting(): number {
    return this.txCount;
  }

  /** Takes ownership. */
  take(p: Packet): void {
    const { pool, device } = this;
    if (takesWhole(device.offloads, p, protocolOf(pool.view, p))) {
      this.queue(p);
      return;
    }
    if (p.gsoType === 0) {
      completeChecksum(pool.view, p);
      this.queue(p);
      return;
    }
    const n = cutFrame(pool, p, this.pieces);
    if (n === 0) this.refuse(p, verdict.DROP_WIRE_CANNOT_CUT);
    else pool.release(p);
    for (let i = 0; i < n; i++) this.queue(this.pieces[i]);
  }

  private queue(p: Packet): void {
    this.tx[this.txCount++] = p;
    if (this.txCount === TX_LIMIT) this.flush();
  }

  /** Writes what waits. */
  flush(): void {
    const { device, tx, errors, pool, txCount } = this;
    if (txCount === 0) return;
    if (device.writeBurst !== undefined) device.writeBurst(tx, txCount, errors);
    else for (let i = 0; i < txCount; i++) errors[i] = device.write(tx[i]);
    for (let i = 0; i < txCount; i++) {
      if (errors[i] === 0) pool.release(tx[i]);
      else this.refuse(tx[i], verdict.DROP_DEVICE_REFUSED);
    }
    this.txCount = 0;
  }

  /** Gives back what waits. */
  release(): void {
    for (let i = 0; i < this.txCount; i++) this.refuse(this.tx[i], verdict.DROP_WIRE_CLOSED);
    this.txCount = 0;
  }
}

/** A TAP, whose other side is the kernel's. */
export class KernelPort extends SegmentPort {
  readonly kind = 'tap';
  readonly device: Device;
  readonly outlet: Outlet;
  private readonly slots: Packet[] = [];

  constructor(segment: PortOwner, index: number, device: Device) {
    super(segment, index, device.name);
    this.device = device;
    const { pool } = segment;
    this.outlet = new Outlet(device, pool, (p, reason) => this.refuse(p, reason));
    for (let i = 0; i < RX_LIMIT; i++) {
      const p = pool.take();
      if (p === null) throw new RangeError(`no packets left for port ${device.name} of segment ${segment.name}`);
      this.slots.push(p);
    }
  }

  protected get waiting(): number {
    return this.outlet.waiting;
  }

  /** Reads one burst into the segment. @returns frames read; a negative errno when the device is gone */
  receive(): number {
    const { slots, device, segment } = this;
    const n = device.readBurst(slots, RX_LIMIT);
    for (let i = 0; i < n; i++) {
      const p = slots[i];
      const fresh = segment.pool.take();
      if (fresh === null) {
        segment.counters.drop(verdict.DROP_NO_BUFFER, p.len);
        p.reset(HEADROOM);
        continue;
      }
      slots[i] = fresh;
      segment.enter(p, this);
    }
    return n;
  }

  arrive(p: Packet): void {
    this.segment.countTo(this, p);
    this.outlet.take(p);
  }

  release(): void {
    this.outlet.release();
    for (const p of this.slots) this.segment.pool.release(p);
    this.slots.length = 0;
  }

  close(): void {
    this.segment.detach(this);
    this.device.close();
  }
}

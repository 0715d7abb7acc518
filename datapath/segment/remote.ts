/**
 * A node on a segment that another thread runs. The segment, with its switch, its lines and what is drawn by chance, is
 * whole in one thread; the node's frames cross to it, and from it, by rings (mesh.ts).
 *
 *   node b -- RemoteUplink --+-- ring -->+-- RemotePort -- the segment
 *           (thread of b)    +<- ring ---+     (thread of the segment)
 */
import { Counters } from '../counters.ts';
import { type Device, writeCopy } from '../io/device.ts';
import { EIO, ENOBUFS, ENODEV, EXFULL } from '../io/errors.ts';
import type { Packet } from '../packet/packet.ts';
import * as verdict from '../verdict.ts';
import { Inbox } from './inbox.ts';
import type { CrossingEnd, Mesh } from './mesh.ts';
import { type PortOwner, reserveOf, SegmentPort } from './ports.ts';

/** Of a RemotePort: how to get to its node. */
export interface Crossing {
  mesh: Mesh;
  /** Of the node. */
  thread: number;
  crossing: number;
}

/** The port of a node that another thread runs. */
export class RemotePort extends SegmentPort {
  readonly kind = 'node';
  /** What waits is in the ring, and no more of this thread. */
  protected readonly waiting = 0;
  private readonly mesh: Mesh;
  private readonly thread: number;
  private readonly crossing: number;

  /** @param thread of the node */
  constructor(segment: PortOwner, index: number, name: string, { mesh, thread, crossing }: Crossing) {
    super(segment, index, name);
    this.mesh = mesh;
    this.thread = thread;
    this.crossing = crossing;
    mesh.setEnd(crossing, { hasSpace: true, arrive: p => segment.enter(p, this) });
  }

  arrive(p: Packet): void {
    const { segment, mesh, thread } = this;
    if (!segment.hasRoom) this.refuse(p, verdict.DROP_WIRE_QUEUE_FULL);
    else if (!mesh.hasRoom(thread)) this.refuse(p, verdict.DROP_WIRE_RING_FULL);
    else {
      segment.countTo(this, p);
      mesh.send(p, thread, this.crossing);
    }
  }

  release(): void {
    const { segment } = this;
    this.mesh.setEnd(this.crossing, { hasSpace: true, arrive: p => segment.drop(p, verdict.DROP_WIRE_CLOSED) });
  }

  close(): void {
    this.segment.detach(this);
  }
}

/** What a thread knows of a segment that another one runs. */
export class RemoteSegment {
  readonly name: string;
  /** Longest IP packet that it carries. */
  readonly mtu: number;
  readonly mesh: Mesh;
  /** The thread of the segment. */
  readonly home: number;
  /** What is lost on this side. */
  readonly counters = new Counters();
  private readonly uplinks = new Set<RemoteUplink>();
  private isGone = false;

  constructor(options: { name: string; mtu: number; mesh: Mesh; home: number }) {
    this.name = options.name;
    this.mtu = options.mtu;
    this.mesh = options.mesh;
    this.home = options.home;
  }

  /** The segment may send something before the node is there. */
  expect(crossing: number): void {
    this.mesh.setEnd(crossing, { hasSpace: true, arrive: p => this.drop(p, verdict.DROP_WIRE_CLOSED) });
  }

  /** The device of a node's uplink; the segment has made, or makes, the port at its other side. */
  attach(name: string, offloads: number, crossing: number): RemoteUplink {
    const uplink = new RemoteUplink(this, name, offloads, crossing);
    this.uplinks.add(uplink);
    if (this.isGone) uplink.cutOff();
    return uplink;
  }

  detach(uplink: RemoteUplink): void {
    this.uplinks.delete(uplink);
  }

  /** Its thread is no more. */
  cutOff(): void {
    this.isGone = true;
    for (const uplink of this.uplinks) uplink.cutOff();
  }

  drop(p: Packet, reason: number): void {
    this.counters.drop(reason, p.len);
    this.mesh.pool.release(p);
  }
}

/** The device of a node's uplink to such a segment. */
export class RemoteUplink implements Device, CrossingEnd {
  readonly name: string;
  readonly layer = 2;
  readonly mtu: number;
  readonly offloads: number;
  readonly fd = -1;
  private readonly segment: RemoteSegment;
  private readonly crossing: number;
  private readonly inbox: Inbox;
  /** Slots that this thread keeps for itself. */
  private readonly reserve: number;
  private isOpen = true;
  private isCutOff = false;

  constructor(segment: RemoteSegment, name: string, offloads: number, crossing: number) {
    const { pool } = segment.mesh;
    this.segment = segment;
    this.name = name;
    this.mtu = segment.mtu;
    this.offloads = offloads;
    this.crossing = crossing;
    this.inbox = new Inbox(pool);
    this.reserve = reserveOf(pool);
    segment.mesh.setEnd(crossing, this);
  }

  get pending(): number {
    return this.inbox.size;
  }

  get hasSpace(): boolean {
    return !this.inbox.isFull;
  }

  arrive(p: Packet): void {
    if (this.inbox.isFull) this.segment.drop(p, verdict.DROP_WIRE_QUEUE_FULL);
    else this.inbox.push(p);
  }

  readBurst(slots: Packet[], max: number): number {
    return this.isOpen ? this.inbox.read(slots, max) : -ENODEV;
  }

  handOver(p: Packet): number {
    const { mesh, home } = this.segment;
    if (!this.isOpen || this.isCutOff) return EIO;
    if (mesh.pool.available < this.reserve) return ENOBUFS;
    return mesh.send(p, home, this.crossing) ? 0 : EXFULL;
  }

  write(p: Packet): number {
    return writeCopy(this, this.segment.mesh.pool, p);
  }

  /** The segment is no more. */
  cutOff(): void {
    this.isCutOff = true;
  }

  close(): void {
    const { segment } = this;
    if (!this.isOpen) return;
    this.isOpen = false;
    while (this.inbox.size > 0) segment.drop(this.inbox.shift(), verdict.DROP_WIRE_CLOSED);
    segment.detach(this);
    // What is still on its way from there.
    segment.expect(this.crossing);
  }
}

/**
 * An Ethernet segment in the process: a switch that learns and floods, between nodes of this thread and of others, and
 * devices of the kernel's that join it to the outside.
 *
 *   node a ---- from a --+                                    +-- to b ---- node b
 *                        +-- the wire -- learn, look up ------+
 *   TAP -------- from ---+                                    +-- to TAP -- TAP
 *
 * Each of the lines may be impaired (line.ts). A frame crosses by reference: all nodes of the thread share one pool, and
 * whoever has the packet owns its slot; nodes of other threads are at the other end of rings (remote.ts). Superpackets cross whole, those in IPIP as well, and are cut where a device takes less.
 */
import {
  type Counters,
  MAX_PORTS,
  PORT_RX_BYTES,
  PORT_RX_PACKETS,
  PORT_TX_BYTES,
  PORT_TX_DROPPED,
  PORT_TX_PACKETS,
} from '../counters.ts';
import type { Device } from '../io/device.ts';
import { clone } from '../packet/copy.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { segmentsOf, wireBytes } from '../packet/segment.ts';
import * as verdict from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { wireLength } from './frames.ts';
import { type Impairments, UNIMPAIRED } from './impairments.ts';
import { Line, type LineEnd } from './line.ts';
import { KernelPort, NodePort, Outlet, type PortOwner, type PortRow, reserveOf, type SegmentPort } from './ports.ts';
import { type Crossing, RemotePort } from './remote.ts';
import { Stations } from './stations.ts';

/** What a segment is and what has happened on it, for display. */
export interface SegmentRow {
  name: string;
  mtu: number;
  impairments: Impairments;
  waiting: number;
  drops: { name: string; packets: number; bytes?: number }[];
  ports: PortRow[];
  stations: { hi: number; lo: number; port: string; ageMs: number }[];
}

export class Segment implements PortOwner {
  readonly name: string;
  /** Longest IP packet that it carries. */
  readonly mtu: number;
  readonly pool: Pool;
  readonly counters: Counters;
  private readonly time: Float64Array;
  private readonly seed: number;
  private readonly reserve: number;
  /** By index; null where a port was. */
  private readonly ports: (SegmentPort | null)[] = [];
  private readonly mirrors: KernelPort[] = [];
  /** Devices of the kernel's that frames are written to. */
  private readonly outlets: Outlet[] = [];
  /** What is shown of single ports, by their names, also of those that are not there yet. */
  private readonly portMirrors = new Map<string, Outlet>();
  private readonly stations: Stations;
  private readonly line: Line;
  /** Of ports by their names, also of those that are not there yet. */
  private readonly wanted = new Map<string, { from: Impairments; to: Impairments }>();

  /**
   * @param options.time [0]: now, in milliseconds; whoever drives the segment sets it before each round
   * @param options.seed of all that happens by chance: the same one loses the same packets
   */
  constructor(options: {
    name: string;
    mtu: number;
    pool: Pool;
    counters: Counters;
    time: Float64Array;
    seed: number;
    impairments?: Impairments;
  }) {
    this.name = options.name;
    this.mtu = options.mtu;
    this.pool = options.pool;
    this.counters = options.counters;
    this.time = options.time;
    this.seed = options.seed;
    this.reserve = reserveOf(options.pool);
    this.stations = new Stations(options.time);
    this.line = this.makeLine('wire', { arrive: (p, from) => this.switchFrame(p, from) }, ipv4.DST);
    this.line.set(options.impairments ?? UNIMPAIRED);
  }

  /** A port for a node, whose name it has: the device of its uplink. @throws Error when there is no place for it */
  attach(name: string, offloads: number): NodePort {
    const port = new NodePort(this, this.freeIndex(name), name, offloads);
    this.add(port);
    return port;
  }

  /** A port for a node that another thread runs. @throws Error when there is no place for it */
  attachRemote(name: string, crossing: Crossing): RemotePort {
    const port = new RemotePort(this, this.freeIndex(name), name, crossing);
    this.add(port);
    return port;
  }

  /**
   * A port with a device of the kernel's, which goes with the segment.
   * @param mirror whether it is shown every frame, also those between others
   */
  attachKernel(device: Device, mirror: boolean): KernelPort {
    const port = new KernelPort(this, this.freeIndex(device.name), device);
    this.add(port);
    this.outlets.push(port.outlet);
    if (mirror) this.mirrors.push(port);
    return port;
  }

  /**
   * Shows on a device of the kernel's everything that a port sends, as it is before the port's own line, and gets. Nothing
   * comes in by it. @throws Error when the port is shown already
   */
  mirrorPort(name: string, device: Device): void {
    if (this.portMirrors.has(name)) throw new Error(`port ${name} of segment ${this.name} is mirrored already`);
    const outlet = new Outlet(device, this.pool, (p, reason) => this.drop(p, reason));
    this.portMirrors.set(name, outlet);
    this.outlets.push(outlet);
    for (const port of this.ports) if (port?.name === name) port.mirror = outlet;
  }

  /** Ends mirrorPort() and closes its device. */
  unmirrorPort(name: string): void {
    const outlet = this.portMirrors.get(name);
    if (outlet === undefined) return;
    this.portMirrors.delete(name);
    this.outlets.splice(this.outlets.indexOf(outlet), 1);
    for (const port of this.ports) if (port?.name === name) port.mirror = null;
    outlet.flush();
    outlet.device.close();
  }

  /** Takes a port away; what waits for it or is on its way to it is lost. */
  detach(port: SegmentPort): void {
    if (this.ports[port.index] !== port) return;
    this.ports[port.index] = null;
    port.release();
    port.from.close();
    port.to.close();
    this.stations.forgetPort(port.index);
    this.line.forgetPort(port.index);
    if (!(port instanceof KernelPort)) return;
    this.outlets.splice(this.outlets.indexOf(port.outlet), 1);
    if (this.mirrors.includes(port)) this.mirrors.splice(this.mirrors.indexOf(port), 1);
  }

  /** Closes the port of that name, if there is one. */
  closePort(name: string): void {
    for (const port of this.ports) if (port?.name === name) port.close();
  }

  /** Impairs the wire between all, from now on. */
  impair(impairments: Impairments): void {
    this.line.set(impairments);
  }

  /** Impairs what a port sends (`from`) or gets (`to`), also before it is there. */
  impairPort(name: string, direction: 'from' | 'to', impairments: Impairments): void {
    const wanted = this.wanted.get(name) ?? { from: UNIMPAIRED, to: UNIMPAIRED };
    this.wanted.set(name, { ...wanted, [direction]: impairments });
    for (const port of this.ports) if (port?.name === name) port[direction].set(impairments);
  }

  /** What impairs the wire, or a direction of a port. */
  impairmentsOf(port?: { name: string; direction: 'from' | 'to' }): Impairments {
    if (port === undefined) return this.line.impairments;
    return this.wanted.get(port.name)?.[port.direction] ?? UNIMPAIRED;
  }

  portNames(): string[] {
    return this.ports.flatMap(port => (port === null ? [] : [port.name]));
  }

  /** A frame that a port sends. Takes ownership. */
  enter(p: Packet, port: SegmentPort): void {
    const { view } = this.pool;
    if (p.len < ethernet.HEADER_LEN || ethernet.isGroup(ethernet.macHi(view, p.off + ethernet.SRC))) {
      this.drop(p, verdict.DROP_MALFORMED_ETHERNET);
      return;
    }
    this.counters.port(port.index, PORT_RX_PACKETS, segmentsOf(view, p));
    this.counters.port(port.index, PORT_RX_BYTES, wireBytes(view, p));
    if (port.mirror !== null) this.show(p, port.mirror);
    if (wireLength(view, p) > this.mtu) this.drop(p, verdict.DROP_WIRE_MTU);
    else if (port.from.isClear) this.cross(p, port.index);
    else port.from.send(p, port.index);
  }

  /** Lets arrive what is due, and writes what waits for devices. @returns when it wants to be called again, as `time` */
  run(): number {
    const { ports } = this;
    let next = Number.POSITIVE_INFINITY;
    // In the order in which a frame meets them.
    for (let i = 0; i < ports.length; i++) next = Math.min(next, ports[i]?.from.run() ?? next);
    next = Math.min(next, this.line.run());
    for (let i = 0; i < ports.length; i++) next = Math.min(next, ports[i]?.to.run() ?? next);
    this.flush();
    return next;
  }

  /** Writes what waits for devices. */
  flush(): void {
    for (let i = 0; i < this.outlets.length; i++) this.outlets[i].flush();
  }

  /** All of it is lost, and the devices are closed. */
  close(): void {
    for (const name of [...this.portMirrors.keys()]) this.unmirrorPort(name);
    for (const port of this.ports) port?.close();
    this.line.close();
  }

  row(): SegmentRow {
    const nameOf = (index: number) => this.ports[index]?.name ?? '';
    return {
      name: this.name,
      mtu: this.mtu,
      impairments: this.line.impairments,
      waiting: this.line.waiting,
      drops: this.counters.snapshot(),
      ports: this.ports.flatMap(port => (port === null ? [] : [port.row()])),
      stations: Array.from(this.stations.entries(), ({ port, ...rest }) => ({ ...rest, port: nameOf(port) })),
    };
  }

  /** A line of this segment. Its chances follow from its name. @param checked as LineOptions */
  makeLine(name: string, end: LineEnd, checked: number): Line {
    const { pool, reserve, counters, time } = this;
    return new Line({ pool, reserve, counters, time, seed: mix(this.seed, name), end, checked });
  }

  /** From a port's own line onto the wire. */
  cross(p: Packet, from: number): void {
    if (this.line.isClear) this.switchFrame(p, from);
    else this.line.send(p, from);
  }

  /** Is there room in the pool for what waits on a segment? */
  get hasRoom(): boolean {
    return this.pool.available >= this.reserve;
  }

  drop(p: Packet, reason: number): void {
    this.counters.drop(reason, p.len);
    this.pool.release(p);
  }

  private switchFrame(p: Packet, from: number): void {
    const { pool, stations, ports, mirrors } = this;
    const { view } = pool;
    const { off } = p;
    if (from >= 0) {
      stations.learn(ethernet.macHi(view, off + ethernet.SRC), ethernet.macLo(view, off + ethernet.SRC), from);
    }
    const hi = ethernet.macHi(view, off);
    const to = ethernet.isGroup(hi) ? -1 : stations.lookup(hi, ethernet.macLo(view, off));
    if (to < 0) {
      this.flood(p, from);
      return;
    }
    const port = ports[to];
    for (let i = 0; i < mirrors.length; i++) {
      if (mirrors[i] !== port && mirrors[i].index !== from) this.sendCopy(p, mirrors[i]);
    }
    if (to === from || port === null) this.drop(p, verdict.DROP_WIRE_SAME_PORT);
    else this.send(p, port);
  }

  private flood(p: Packet, from: number): void {
    let last: SegmentPort | null = null;
    for (let i = 0; i < this.ports.length; i++) {
      const port = this.ports[i];
      if (port === null || i === from) continue;
      if (last !== null) this.sendCopy(p, last);
      last = port;
    }
    if (last === null) this.pool.release(p);
    else this.send(p, last);
  }

  private sendCopy(p: Packet, port: SegmentPort): void {
    const copy = this.hasRoom ? clone(this.pool, p) : null;
    if (copy === null) {
      this.counters.port(port.index, PORT_TX_DROPPED, 1);
      this.counters.drop(verdict.DROP_NO_BUFFER, p.len);
    } else this.send(copy, port);
  }

  private show(p: Packet, mirror: Outlet): void {
    const copy = this.hasRoom ? clone(this.pool, p) : null;
    if (copy === null) this.counters.drop(verdict.DROP_NO_BUFFER, p.len);
    else mirror.take(copy);
  }

  private send(p: Packet, port: SegmentPort): void {
    if (port.to.isClear) port.arrive(p);
    else port.to.send(p, port.index);
  }

  countTo(port: SegmentPort, p: Packet): void {
    this.counters.port(port.index, PORT_TX_PACKETS, segmentsOf(this.pool.view, p));
    this.counters.port(port.index, PORT_TX_BYTES, wireBytes(this.pool.view, p));
    if (port.mirror !== null) this.show(p, port.mirror);
  }

  private add(port: SegmentPort): void {
    this.ports[port.index] = port;
    port.mirror = this.portMirrors.get(port.name) ?? null;
    const wanted = this.wanted.get(port.name);
    if (wanted === undefined) return;
    port.from.set(wanted.from);
    port.to.set(wanted.to);
  }

  private freeIndex(name: string): number {
    if (this.ports.some(port => port?.name === name)) {
      throw new Error(`segment ${this.name} has a port ${name} already`);
    }
    const free = this.ports.indexOf(null);
    const index = free < 0 ? this.ports.length : free;
    if (index >= MAX_PORTS) throw new Error(`segment ${this.name} has ${MAX_PORTS} ports already`);
    return index;
  }
}

/** FNV-1a of the name, from the seed on. */
function mix(seed: number, name: string): number {
  let hash = (seed ^ 0x811c9dc5) | 0;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash;
}

/**
 * Drives many nodes in memory, on a clock that only this moves: pods and host ports are queues, uplinks are ports of segments
 * with all their impairments, or queues as well. No device, no root; the same input and seeds give the same packets at the
 * same virtual times, on every machine.
 */
import type { ResolvedConfig } from '../control/resolved.ts';
import { Counters } from '../counters.ts';
import type { Datapath } from '../forward.ts';
import type { Device } from '../io/device.ts';
import { type Frame, MemoryDevice } from '../io/memory.ts';
import { Pool } from '../packet/pool.ts';
import { PORT_POD, PORT_UPLINK, type Port } from '../port.ts';
import { compile } from '../program/compile.ts';
import { diff } from '../program/diff.ts';
import { Installation } from '../program/install.ts';
import { mtusOf } from '../program/mtus.ts';
import type { Program } from '../program/program.ts';
import { Random } from '../random.ts';
import { type Impairments, UNIMPAIRED } from '../segment/impairments.ts';
import { Segment } from '../segment/segment.ts';

/** As of a loop: what is held, and for each node a burst and a share. */
const SLOTS = 4096;
/** Where the clock begins: past 0, where an entry without a deadline would be due. */
const EPOCH_MS = 1000;

export interface SimOptions {
  /** Packets in the pool of all nodes. */
  slots?: number;
  /** Of the nodes' random choices, and of the segments' chances. */
  seed?: number;
}

/** Makes the device of a pod, by the pod's name. */
export type PodDevices = (name: string, mtu: number) => Device;

export interface NodeOptions {
  /** OFFLOAD_* of all its ports; none by default. */
  offloads?: number;
  /** Of its random choices; by default they follow from the sim's. */
  seed?: number;
  /** Its pods; queues by default. */
  pods?: PodDevices;
  /** Instead of what the configuration compiles to; with the same ports. */
  program?: Program;
  /** `queue`: also where the configuration has it on a segment. */
  uplink?: 'segment' | 'queue';
}

export class SimNode {
  readonly name: string;
  config: ResolvedConfig;
  readonly counters: Counters;
  readonly datapath: Datapath;
  /** When its timers want to be looked at. */
  due = 0;
  readonly installation: Installation;
  private program: Program;
  private readonly devices: Device[];

  constructor(
    config: ResolvedConfig,
    world: { pool: Pool; time: Float64Array; seed: number; segments: ReadonlyMap<string, Segment> },
    { offloads = 0, pods, program = compile(config), uplink: end = 'segment' }: NodeOptions,
  ) {
    const { pool, time, seed, segments } = world;
    const { kind, device: uplink, mtu } = config.spec.uplink;
    const podMtu = mtusOf(config).device;
    this.name = config.metadata.name;
    this.config = config;
    this.counters = new Counters();
    this.devices = program.ports.map(port => {
      if (port.kind === PORT_POD && pods !== undefined) return pods(port.name, podMtu);
      if (port.kind !== PORT_UPLINK) {
        return new MemoryDevice(pool, { name: port.name, mtu: port.kind === PORT_POD ? podMtu : mtu, offloads });
      }
      if (kind !== 'segment' || end === 'queue')
        return new MemoryDevice(pool, { name: port.name, layer: 2, mtu, offloads });
      const segment = segments.get(uplink);
      if (segment === undefined) throw new RangeError(`no segment ${uplink}`);
      return segment.attach(this.name, offloads);
    });
    this.program = program;
    this.installation = new Installation(program, this.devices, {
      pool,
      counters: this.counters,
      clock: { now: () => time[0] },
      random: new Random(seed),
      // Not counted by the collector.
      memory: bytes => new Uint8Array(new SharedArrayBuffer(bytes)),
    });
    this.datapath = this.installation.datapath;
  }

  /** The port of a pod, the host port or the uplink, by name. @throws RangeError */
  port(name: string): Port {
    const port = this.datapath.ports.find(one => one.name === name);
    if (port === undefined) throw new RangeError(`node ${this.name} has no port ${name}`);
    return port;
  }

  /** Queues a packet that whoever is behind the port sends. */
  inject(port: string, bytes: Uint8Array, fields?: Partial<Frame>): void {
    this.memory(port).inject(bytes, fields);
  }

  /** Takes what has come out of a port. */
  collect(port: string): Frame[] {
    return this.memory(port).collectFrames();
  }

  private memory(name: string): MemoryDevice {
    const { device } = this.port(name);
    if (device instanceof MemoryDevice) return device;
    throw new RangeError(`port ${name} of node ${this.name} is on a segment`);
  }

  /**
   * Makes the node what another configuration says, between two bursts. Its ports stay.
   * @throws RangeError for one with other ports
   */
  apply(config: ResolvedConfig): void {
    const program = compile(config);
    const changes = diff(this.program, program);
    if (changes.some(change => change.kind === 'port' && (change.port === null || change.device !== 'kept'))) {
      throw new RangeError(`node ${this.name}: its ports stay in a simulation`);
    }
    this.installation.apply(changes, () => {
      throw new RangeError(`node ${this.name}: a new port`);
    });
    this.config = config;
    this.program = program;
  }

  /** Works until nothing waits at its ports. @returns whether anything did */
  work(): boolean {
    let any = false;
    for (const port of this.datapath.ports) {
      while ((port.device.pending ?? 0) > 0) {
        any = true;
        if (this.datapath.receive(port) <= 0) break;
      }
    }
    return any;
  }

  close(): void {
    this.datapath.close();
    for (const device of this.devices) device.close();
  }
}

export class Sim {
  readonly pool: Pool;
  readonly nodes = new Map<string, SimNode>();
  readonly segments = new Map<string, Segment>();
  private readonly time = Float64Array.of(EPOCH_MS);
  private readonly seeds: Random;

  constructor({ slots = SLOTS, seed = 1 }: SimOptions = {}) {
    this.pool = new Pool(slots);
    this.seeds = new Random(seed);
  }

  /** Virtual milliseconds since the beginning. */
  get now(): number {
    return this.time[0] - EPOCH_MS;
  }

  addSegment(name: string, options: { mtu?: number; impairments?: Partial<Impairments> } = {}): Segment {
    const { pool, time } = this;
    const segment = new Segment({
      name,
      mtu: options.mtu ?? 1500,
      pool,
      counters: new Counters(),
      time,
      seed: this.seeds.next(),
      impairments: { ...UNIMPAIRED, ...options.impairments },
    });
    this.segments.set(name, segment);
    return segment;
  }

  /** @throws RangeError for a segment that is not there */
  addNode(config: ResolvedConfig, options: NodeOptions = {}): SimNode {
    const { pool, time, segments } = this;
    const node = new SimNode(config, { pool, time, seed: options.seed ?? this.seeds.next(), segments }, options);
    this.nodes.set(node.name, node);
    return node;
  }

  /** What the node holds goes back to the pool. */
  removeNode(name: string): void {
    this.nodes.get(name)?.close();
    this.nodes.delete(name);
  }

  /** Works until nothing waits anywhere; no time passes. */
  settle(): void {
    for (let busy = true; busy; ) {
      busy = false;
      for (const node of this.nodes.values()) {
        if (!node.work()) continue;
        busy = true;
        node.due = 0;
      }
      for (const segment of this.segments.values()) segment.flush();
    }
  }

  /** Lets time pass, with a stop wherever a timer or a packet on a segment is due. @param each called at each stop */
  run(ms: number, each: () => void = () => {}): void {
    const end = this.time[0] + ms;
    while (true) {
      this.settle();
      each();
      const due = this.nextDue();
      if (due > end) break;
      this.time[0] = due;
    }
    this.time[0] = end;
    this.nextDue();
    this.settle();
    each();
  }

  /** Time passes in which nobody looks: timers that have run out meanwhile run with the next tick() or run(). */
  skip(ms: number): void {
    this.time[0] += ms;
  }

  /** All nodes and segments end. */
  close(): void {
    for (const name of [...this.nodes.keys()]) this.removeNode(name);
    for (const segment of this.segments.values()) segment.close();
    this.segments.clear();
  }

  /** Runs what is due. @returns when the next is, later than now */
  private nextDue(): number {
    const now = this.time[0];
    let due = Number.POSITIVE_INFINITY;
    for (const node of this.nodes.values()) {
      if (node.due <= now) node.due = now + Math.max(1, node.datapath.tick());
      due = Math.min(due, node.due);
    }
    for (const segment of this.segments.values()) due = Math.min(due, segment.run());
    for (const node of this.nodes.values()) {
      for (const port of node.datapath.ports) if ((port.device.pending ?? 0) > 0) return now;
    }
    return due;
  }
}

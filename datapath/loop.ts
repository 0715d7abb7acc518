/**
 * The loop's thread: it drives the nodes that it is given, over devices and in real time. It alone owns their tables, so they
 * need no locks; it sleeps until a device or the control plane has something for it (drive/poll.ts, drive/requests.ts).
 * Between nodes of one loop packets cross segments by reference: all have one pool. Between loops they cross by rings, where
 * the nodes of a segment are spread over several (segment/mesh.ts).
 */
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import './inlining.ts';
import { Counters } from './counters.ts';
import { BusyPoll } from './drive/busy-poll.ts';
import { LoopNode, type LoopShare } from './drive/loop-node.ts';
import { Poller, type Source } from './drive/poll.ts';
import type {
  CrossingStart,
  ImpairRequest,
  LoopData,
  LoopEvent,
  LoopMethod,
  LoopRequest,
  LoopResponse,
  MirrorStart,
  NodeData,
  NodeMethod,
  PortName,
  RemoteDrops,
  RemoteJoin,
  SegmentData,
  Spot,
} from './drive/requests.ts';
import { Rounds } from './drive/rounds.ts';
import { slotsFor } from './drive/slots.ts';
import { readTime } from './io/clock.ts';
import { clearEventFd, raiseEventFd } from './io/event-fd.ts';
import { hugeMemory } from './io/huge-memory.ts';
import * as libc from './io/libc.ts';
import { TunTap, type TunTapHandle } from './io/tuntap.ts';
import { Uring } from './io/uring.ts';
import { SLOT_BYTES } from './packet/packet.ts';
import { Pool } from './packet/pool.ts';
import { Mesh } from './segment/mesh.ts';
import { RemoteSegment } from './segment/remote.ts';
import { Segment } from './segment/segment.ts';

/**
 * A round that has sent on so many packets without flow control lets others have the processor. Who reads them may be
 * waiting for it, and the default socket buffer (212,992 bytes) holds 277 datagrams of 64 bytes, a tenth of what the loop
 * moves in one time slice: without this a flood fills it again and again while its reader does not run, and of 800,000
 * datagrams a second that got to the pod 200,000 were read. With nobody waiting it costs 0.3 us.
 */
const YIELD_AFTER = 16;

/** So often a packet may cross from node to node before devices have their turn again. */
const HOPS_PER_ROUND = 8;

class Loop {
  private readonly data: LoopData;
  private readonly pool: Pool;
  private readonly ring: Uring | string;
  private readonly nodes: LoopNode[] = [];
  private readonly mesh: Mesh | null;
  private readonly segments = new Map<string, Segment>();
  private readonly segmentList: Segment[] = [];
  /** Those that other loops run. */
  private readonly remotes: RemoteSegment[] = [];
  private readonly kernelSources: Source[] = [];
  private readonly poller: Poller;
  /** Now, in ms, with its fraction: for what lies on segments. */
  private readonly time = new Float64Array(1);
  private readonly share: LoopShare;
  private readonly rounds = new Rounds();
  private busyPoll = new BusyPoll(0);
  /** Whether anything comes without a descriptor: on a segment, from pods in memory, or from other loops. */
  private isInMemory = false;
  private running = true;

  constructor(data: LoopData) {
    this.data = data;
    const { mesh } = data;
    this.mesh = mesh && new Mesh(mesh.memory, mesh.thread, thread => raiseEventFd(mesh.wakeFds[thread]));
    this.pool = this.mesh?.pool ?? ownPool(slotsFor(data.nodes));
    this.poller = new Poller(this.mesh);
    this.ring = Uring.open();
    const { pool, ring } = this;
    const segments = new Map<string, Segment | RemoteSegment>();
    this.share = {
      pool,
      ring,
      segments,
      rounds: this.rounds,
      failed: (node, error) => this.fail(node, error),
      tell: (node, event) => data.control.postMessage({ node, event } satisfies LoopEvent),
    };
    readTime(this.time);
    for (const segment of data.segments) segments.set(segment.name, this.addSegment(segment));
    for (const { name, mtu, home } of mesh?.remotes ?? []) {
      const remote = new RemoteSegment({ name, mtu, home, mesh: this.mesh! });
      segments.set(name, remote);
      this.remotes.push(remote);
    }
    if (mesh !== null) {
      const fd = mesh.wakeFds[mesh.thread];
      this.kernelSources.push({ fd, read: () => getUp(fd) });
    }
    this.poll();
  }

  private addSegment({ name, mtu, seed, impairments, ports, tap, mirror }: SegmentData): Segment {
    const { pool, time } = this;
    const segment = new Segment({ name, mtu, pool, counters: new Counters(), time, seed, impairments });
    for (const { node, from, to } of ports) {
      if (from !== undefined) segment.impairPort(node, 'from', from);
      if (to !== undefined) segment.impairPort(node, 'to', to);
    }
    if (tap !== null) {
      const port = segment.attachKernel(this.openTap(tap), mirror);
      this.kernelSources.push({ fd: tap.fd, read: () => port.receive() });
    }
    this.segments.set(name, segment);
    this.segmentList.push(segment);
    return segment;
  }

  private openTap(tap: TunTapHandle): TunTap {
    return new TunTap(tap, this.pool, typeof this.ring === 'string' ? null : this.ring);
  }

  /** Sets up what is waited for, after nodes or their ports have come or gone. */
  private poll(): void {
    const wake: Source = { fd: this.data.wakeFd, read: () => this.handleRequests() };
    this.poller.set([...this.nodes.flatMap(({ sources }) => sources), ...this.kernelSources, wake]);
    const { nodes, segmentList, mesh } = this;
    this.isInMemory = mesh !== null || segmentList.length > 0 || nodes.some(node => node.isInMemory);
    this.busyPoll = new BusyPoll(busiest(this.nodes.map(({ busyPoll }) => busyPoll)));
  }

  /** Runs until it is told to stop. */
  run(): void {
    const { poller, time, mesh, rounds } = this;
    /** When the packets of the round that ends were there; negative where there were none. */
    let woken = -1;
    while (this.running) {
      readTime(time);
      if (woken >= 0) rounds.add(time[0] - woken);
      const wait = this.runTimers() - time[0];
      if (mesh !== null) mesh.flush();
      const ready = poller.wait(wait, this.busyPoll);
      readTime(time);
      woken = ready > 0 || this.isInMemory ? time[0] : -1;
      if (ready > 0) poller.read();
      this.carryOver();
      this.yieldToReaders();
    }
    for (const node of this.nodes) node.close();
    for (const segment of this.segmentList) segment.close();
    mesh?.flush();
  }

  /** @returns when the next timer is due; now, while anything waits in memory */
  private runTimers(): number {
    const { nodes, segmentList, time } = this;
    const now = time[0];
    let due = Number.POSITIVE_INFINITY;
    for (let i = 0; i < nodes.length; i++) due = Math.min(due, nodes[i].tick(now));
    for (let i = 0; i < segmentList.length; i++) due = Math.min(due, segmentList[i].run());
    for (let i = 0; i < nodes.length; i++) if (nodes[i].hasPending) return now;
    return due;
  }

  /** Takes packets from node to node, across segments, and from loop to loop. */
  private carryOver(): void {
    const { nodes, segmentList, mesh } = this;
    if (!this.isInMemory) return;
    for (let hops = 0; hops < HOPS_PER_ROUND; hops++) {
      let any = mesh?.receive() ?? false;
      for (let i = 0; i < nodes.length; i++) if (nodes[i].receivePending()) any = true;
      if (mesh !== null) mesh.flush();
      if (!any) break;
    }
    for (let i = 0; i < segmentList.length; i++) segmentList[i].flush();
  }

  private yieldToReaders(): void {
    let sent = 0;
    for (let i = 0; i < this.nodes.length; i++) {
      const { datapath } = this.nodes[i];
      sent += datapath.uncontrolled;
      datapath.uncontrolled = 0;
    }
    if (sent >= YIELD_AFTER) libc.schedYield();
  }

  /** A fault of our own in one node: it is taken out, and the others go on. */
  private fail(node: LoopNode, error: unknown): void {
    this.remove(node);
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.data.control.postMessage({ id: -1, node: node.name, error: text } satisfies LoopResponse);
    try {
      node.close();
    } catch {
      // It is out of order: whatever it still holds is lost to the pool.
    }
  }

  private remove(node: LoopNode): void {
    const at = this.nodes.indexOf(node);
    if (at >= 0) this.nodes.splice(at, 1);
    this.poll();
  }

  private handleRequests(): number {
    const { control, wakeFd } = this.data;
    clearEventFd(wakeFd);
    const started = performance.now();
    for (let m = receiveMessageOnPort(control); m !== undefined; m = receiveMessageOnPort(control)) {
      const request = m.message as LoopRequest;
      const response: LoopResponse = { id: request.id };
      try {
        response.result = this.handle(request);
      } catch (error) {
        response.error = error instanceof Error ? error.message : String(error);
      }
      response.tookMs = performance.now() - started;
      control.postMessage(response);
    }
    return 0;
  }

  private handle({ node: name, method, params }: LoopRequest): unknown {
    if (name === undefined) return this.handleOwn(method as LoopMethod, params);
    const node = this.nodes.find(one => one.name === name);
    if (node === undefined) throw new Error(`no node ${name} in this loop`);
    try {
      return node.handle(method as NodeMethod, params);
    } finally {
      node.isActive = true;
      if (method === 'change') {
        node.findPorts();
        this.poll();
      }
    }
  }

  private handleOwn(method: LoopMethod, params: unknown): unknown {
    switch (method) {
      case 'start':
        this.nodes.push(new LoopNode(params as NodeData, this.share));
        this.poll();
        return null;
      case 'stop': {
        const node = this.nodes.find(({ name }) => name === params);
        if (node === undefined) return null;
        this.remove(node);
        node.close();
        return null;
      }
      case 'segments':
        return this.segmentList.map(segment => segment.row());
      case 'remote-drops':
        return this.remotes.map(({ name, counters }): RemoteDrops => ({ segment: name, drops: counters.snapshot() }));
      case 'expect': {
        const { segment, crossing } = params as CrossingStart;
        this.remotes.find(({ name }) => name === segment)!.expect(crossing);
        return null;
      }
      case 'join': {
        const { segment, port, thread, crossing } = params as RemoteJoin;
        this.segmentOf(segment).attachRemote(port, { mesh: this.mesh!, thread, crossing });
        return null;
      }
      case 'leave': {
        const { segment, port } = params as PortName;
        this.segmentOf(segment).closePort(port);
        return null;
      }
      case 'forget':
        this.mesh?.forget(params as number);
        for (const remote of this.remotes) if (remote.home === params) remote.cutOff();
        return null;
      case 'reclaim':
        return this.mesh?.reclaim(params as number) ?? 0;
      case 'impairments': {
        const { segment, port } = params as Spot;
        return this.segmentOf(segment, port).impairmentsOf(port);
      }
      case 'impair': {
        const { segment: name, port, impairments } = params as ImpairRequest;
        const segment = this.segmentOf(name);
        if (port === undefined) segment.impair(impairments);
        else segment.impairPort(port.name, port.direction, impairments);
        return null;
      }
      case 'mirror': {
        const { segment, port, tap } = params as MirrorStart;
        const device = this.openTap(tap);
        try {
          this.segmentOf(segment).mirrorPort(port, device);
        } catch (error) {
          device.close();
          throw error;
        }
        return null;
      }
      case 'unmirror': {
        const { segment, port } = params as PortName;
        this.segmentOf(segment).unmirrorPort(port);
        return null;
      }
      case 'end':
        this.running = false;
        return null;
    }
  }

  /** @throws Error for a segment that is not there, or has no such port */
  private segmentOf(name: string, port?: Spot['port']): Segment {
    const segment = this.segments.get(name);
    if (segment === undefined) throw new Error(`no segment ${name} in this loop`);
    const names = segment.portNames();
    if (port !== undefined && !names.includes(port.name)) {
      throw new Error(`segment ${name} has no port ${port.name}: expected one of ${names.join(', ')}`);
    }
    return segment;
  }
}

/** Another loop has sent something: carryOver() takes it. */
function getUp(fd: number): number {
  clearEventFd(fd);
  return 0;
}

/** Packets of a loop that exchanges none with others. */
function ownPool(slots: number): Pool {
  return new Pool(slots, hugeMemory(slots * SLOT_BYTES));
}

/** The thread waits for all of its nodes at once: as the most impatient of them wants. */
function busiest(settings: readonly (number | 'auto')[]): number | 'auto' {
  return settings.includes('auto') ? 'auto' : Math.max(0, ...(settings as number[]));
}

const data = workerData as LoopData;
const loop = new Loop(data);
data.control.postMessage({ id: 0, result: 'ready' } satisfies LoopResponse);
loop.run();
data.control.close();

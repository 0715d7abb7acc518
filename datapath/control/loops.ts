/**
 * The loops of this process, and the segments that its nodes are on. Nodes of one segment run in one loop, where packets cross
 * it by reference, unless a number of loops is asked for: then nodes are spread over so many, each segment runs where most of
 * its nodes do, and the others' packets cross by rings (segment/mesh.ts). Nodes that no segment joins may have loops of
 * their own in any case.
 */
import { availableParallelism } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import type {
  CrossingStart,
  ImpairRequest,
  MeshData,
  MirrorStart,
  NodeData,
  PortName,
  RemoteDrops,
  RemoteJoin,
  SegmentData,
  Spot,
} from '../drive/requests.ts';
import { MOST_LOOPS, slotsFor } from '../drive/slots.ts';
import { openEventFd } from '../io/event-fd.ts';
import { closeHandle } from '../io/handle.ts';
import { hugeMemory } from '../io/huge-memory.ts';
import * as libc from '../io/libc.ts';
import { openTunTap, type TunTapHandle } from '../io/tuntap.ts';
import { MOST_SLOTS, makeSharedSlab } from '../packet/shared-pool.ts';
import { type Impairments, UNIMPAIRED } from '../segment/impairments.ts';
import { type MeshMemory, makeMeshMemory } from '../segment/mesh.ts';
import type { SegmentRow } from '../segment/segment.ts';
import { formatMac } from './address.ts';
import { allowedOffloads } from './devices.ts';
import { ipBatch } from './ip.ts';
import { passageName, QUEUE_PACKETS } from './kernel-side.ts';
import { type LoopClient, LoopThread } from './loop-thread.ts';
import { type MirrorLoop, Mirrors } from './mirrors.ts';
import { changeImpairments, formatImpairments } from './netem.ts';
import type { SegmentConfig } from './segment-config.ts';

/** A segment as `tunpath segment list` shows it; impairments as `formatImpairments`. */
export interface SegmentState {
  name: string;
  pid: number;
  mtu: number;
  impairments: string;
  waiting: number;
  drops: SegmentRow['drops'];
  ports: {
    name: string;
    kind: string;
    from: string;
    to: string;
    rxPackets: number;
    rxBytes: number;
    txPackets: number;
    txBytes: number;
    waiting: number;
  }[];
  stations: { mac: string; port: string; ageSeconds: number }[];
}

/** A node as far as its place in the loops is concerned. */
export interface Placed {
  name: string;
  /** The segment of its uplink, if it is on one. */
  segment?: string;
}

/** What is made once for loops that exchange packets. */
interface Joints {
  memory: MeshMemory;
  wakeFds: number[];
}

export class Loops {
  private readonly threads: readonly LoopThread[];
  private readonly joints: Joints | null;
  private readonly threadOfNode: ReadonlyMap<string, LoopThread>;
  private readonly threadOfSegment: ReadonlyMap<string, LoopThread>;
  private readonly segmentOfNode: Map<string, string>;
  private readonly mirrors = new Mirrors();
  /** As their documents have them. */
  private readonly configs: Map<string, SegmentConfig>;
  private nextCrossing = 0;
  /** Nodes on segments of other loops. */
  private readonly remote = new Map<string, { home: LoopThread; client: LoopClient; left: Promise<unknown> }>();
  /** Loops that have died are dealt with one after the other. */
  private burials: Promise<unknown> = Promise.resolve();
  private isEnding = false;

  private constructor(threads: readonly LoopThread[], groups: readonly Group[], joints: Joints | null) {
    this.threads = threads;
    this.joints = joints;
    const nodes = groups.flatMap(group => group.nodes);
    const segments = groups.flatMap(group => group.segments);
    this.segmentOfNode = new Map(
      nodes.flatMap(({ name, segment }) => (segment === undefined ? [] : [[name, segment]])),
    );
    this.configs = new Map(segments.map(segment => [segment.metadata.name, segment]));
    this.threadOfNode = new Map(groups.flatMap((group, i) => group.nodes.map(({ name }) => [name, threads[i]!])));
    this.threadOfSegment = new Map(
      groups.flatMap((group, i) => group.segments.map(({ metadata }) => [metadata.name, threads[i]!])),
    );
    if (joints === null) return;
    for (const [i, { ended }] of threads.entries()) {
      ended
        .catch(() => {})
        .then(() => {
          if (!this.isEnding) this.burials = this.burials.then(() => this.bury(i));
        });
    }
  }

  /**
   * Starts the loops and makes the segments, with their devices.
   * @param nodes all that will run in them
   * @param count of loops at most; 0: by the processors, and the nodes of one segment in one loop
   * @throws Error with nothing left behind
   */
  static async start(nodes: readonly Placed[], segments: readonly SegmentConfig[], count = 0): Promise<Loops> {
    const groups =
      count > 0
        ? placeSpread(nodes, segments, Math.min(count, MOST_LOOPS))
        : placeTogether(nodes, segments, Math.max(1, availableParallelism() >> 1));
    const taps = new Map<string, TunTapHandle>();
    let joints: Joints | null = null;
    try {
      if (needJoints(groups)) joints = makeJoints(groups);
      for (const segment of segments) {
        const tap = await openTap(segment);
        if (tap !== null) taps.set(segment.metadata.name, tap);
      }
    } catch (error) {
      for (const tap of taps.values()) closeHandle(tap);
      for (const fd of joints?.wakeFds ?? []) libc.close(fd);
      throw error;
    }
    const threads = groups.map(
      (group, i) =>
        new LoopThread({
          nodes: group.nodes.length,
          segments: group.segments.map(segment => segmentData(segment, taps.get(segment.metadata.name) ?? null)),
          mesh: joints && { ...joints, thread: i, remotes: remotesOf(groups, i) },
        }),
    );
    return new Loops(threads, groups, joints);
  }

  /**
   * Has a node run in its loop, which start() was told of. The loop closes its devices from then on, also when this fails.
   * @throws Error for a device that cannot be had, or a loop that has ended
   */
  async startNode(node: NodeData): Promise<LoopClient> {
    const thread = this.threadOfNode.get(node.name)!;
    const uplink = node.devices.find(device => device.kind === 'segment');
    const home = uplink && this.threadOfSegment.get(uplink.name);
    if (uplink === undefined || home === undefined || home === thread) return thread.start(node);
    const port = { segment: uplink.name, port: uplink.port };
    const crossing = this.nextCrossing++;
    try {
      // Its port may still be that of the node that it was.
      await this.remote.get(node.name)?.left;
      await thread.request('expect', { segment: uplink.name, crossing } satisfies CrossingStart);
      await home.request('join', { ...port, thread: this.threads.indexOf(thread), crossing } satisfies RemoteJoin);
    } catch (error) {
      for (const device of node.devices) closeHandle(device);
      throw error;
    }
    const leave = () => home.request('leave', port satisfies PortName).catch(() => {});
    try {
      const devices = node.devices.map(device => (device === uplink ? { ...uplink, crossing } : device));
      const client = await thread.start({ ...node, devices });
      this.remote.set(node.name, { home, client, left: client.ended.catch(() => {}).then(leave) });
      return client;
    } catch (error) {
      await leave();
      throw error;
    }
  }

  /** A loop has died: the others take back what it held of theirs, and nodes on its segments end. */
  private async bury(dead: number): Promise<void> {
    const others = this.threads.filter((_, i) => i !== dead);
    const askAll = (method: 'forget' | 'reclaim') =>
      Promise.all(others.map(thread => thread.request(method, dead).catch(() => {})));
    // Not before all have: what it had sent to one may be another's.
    await askAll('forget');
    await askAll('reclaim');
    for (const [name, { home, client }] of this.remote) {
      if (home === this.threads[dead]) {
        client.end(new Error(`the loop of segment ${this.segmentOfNode.get(name)}, which ${name} is on, has died`));
      }
    }
  }

  async segments(): Promise<SegmentState[]> {
    // Those of a loop that has died are no more.
    const homes = [...new Set(this.threadOfSegment.values())];
    const rows = await Promise.all(
      homes.map(thread => thread.request('segments').catch(() => []) as Promise<SegmentRow[]>),
    );
    const sides = this.joints === null ? [] : this.threads;
    const remote = await Promise.all(
      sides.map(thread => thread.request('remote-drops').catch(() => []) as Promise<RemoteDrops[]>),
    );
    return rows.flat().map(row => {
      const others = remote.flat().filter(({ segment }) => segment === row.name);
      return stateOf({ ...row, drops: addDrops([row.drops, ...others.map(({ drops }) => drops)]) });
    });
  }

  /**
   * Changes impairments, each value as it is written; those that are not given stay.
   * @param clear they go, instead
   * @returns what then holds
   * @throws Error for a segment or a port that is not there, or values that cannot be
   */
  async impair(spot: Spot, written: Record<string, unknown>, clear: boolean): Promise<string> {
    const thread = this.threadOfSegment.get(spot.segment);
    if (thread === undefined) {
      throw new Error(`no segment ${spot.segment}: expected one of ${[...this.threadOfSegment.keys()].join(', ')}`);
    }
    const now = (await thread.request('impairments', spot)) as Impairments;
    const impairments = changeImpairments(clear ? UNIMPAIRED : now, written);
    if (spot.port === undefined && impairments.sourceDestCheck.length > 0) {
      throw new Error('sourceDestCheck: expected a port beside it, of what it sends or of what it gets');
    }
    await thread.request('impair', { ...spot, impairments });
    return formatImpairments(impairments);
  }

  /**
   * Shows what a node sends to its segment and gets from it on a TAP in the namespace of this process, until endMirror() has
   * been called as often. @throws Error for a node that is on no segment, or a device that cannot be made
   */
  beginMirror(node: string, device: string, offload: 'auto' | 'none'): Promise<void> {
    const { mtu } = this.configs.get(this.segmentNameOf(node))!.spec;
    return this.mirrors.begin(node, this.mirrorLoop(node), { device, offload, mtu });
  }

  endMirror(node: string): Promise<void> {
    return this.mirrors.end(node, this.mirrorLoop(node));
  }

  private mirrorLoop(port: string): MirrorLoop {
    const segment = this.segmentNameOf(port);
    const thread = this.threadOfSegment.get(segment)!;
    return {
      begin: tap => thread.request('mirror', { segment, port, tap } satisfies MirrorStart),
      end: () => thread.request('unmirror', { segment, port }),
    };
  }

  private segmentNameOf(node: string): string {
    const segment = this.segmentOfNode.get(node);
    if (segment === undefined) throw new Error(`node ${node} is on no segment of this process`);
    return segment;
  }

  /** Why running segments cannot become what these documents say: all but impairments stays as it was at the start. */
  findRefusals(segments: readonly SegmentConfig[]): string[] {
    return segments.flatMap(({ metadata: { name }, spec: { impairments: _wire, ports: _ports, ...rest } }) => {
      const running = this.configs.get(name);
      if (running === undefined) return [`got a new segment ${name}, expected those that the process was started with`];
      const { impairments: _old, ports: _oldPorts, ...before } = running.spec;
      return isDeepStrictEqual(rest, before)
        ? []
        : [`got another MTU, TAP or seed of segment ${name}, expected the same: these wait for a restart`];
    });
  }

  /** Makes impairments those of the documents. */
  async follow(segments: readonly SegmentConfig[]): Promise<void> {
    for (const segment of segments) {
      const { name } = segment.metadata;
      const { impairments, ports } = segment.spec;
      const before = this.configs.get(name)!.spec.ports;
      const names = new Set([...ports, ...before].map(({ node }) => node));
      await this.threadOfSegment.get(name)!.request('impair', { segment: name, impairments } satisfies ImpairRequest);
      for (const node of names) {
        const port = ports.find(one => one.node === node);
        for (const direction of ['from', 'to'] as const) {
          const spot = { segment: name, port: { name: node, direction } };
          await this.threadOfSegment
            .get(name)!
            .request('impair', { ...spot, impairments: port?.[direction] ?? UNIMPAIRED } satisfies ImpairRequest);
        }
      }
      this.configs.set(name, segment);
    }
  }

  /** Ends all loops, with the segments and their devices. */
  async end(): Promise<void> {
    this.isEnding = true;
    await Promise.all(this.threads.map(thread => thread.end()));
    // Not before the last one that may write to them.
    for (const fd of this.joints?.wakeFds ?? []) libc.close(fd);
  }
}

/** What a loop runs. */
interface Group {
  nodes: Placed[];
  segments: SegmentConfig[];
}

/** Nodes of one segment together; groups onto loops so that each has about as many nodes. */
export function placeTogether(nodes: readonly Placed[], segments: readonly SegmentConfig[], count: number): Group[] {
  const groups: Group[] = segments.map(segment => ({
    nodes: nodes.filter(node => node.segment === segment.metadata.name),
    segments: [segment],
  }));
  for (const node of nodes) if (node.segment === undefined) groups.push({ nodes: [node], segments: [] });
  return balance(groups, count);
}

/** Nodes onto loops so that each has about as many; each segment to the loop with most of its nodes. */
export function placeSpread(nodes: readonly Placed[], segments: readonly SegmentConfig[], count: number): Group[] {
  const loops = balance(
    nodes.map(node => ({ nodes: [node], segments: [] })),
    count,
  );
  for (const segment of segments) {
    const onIt = (loop: Group) => loop.nodes.filter(node => node.segment === segment.metadata.name).length;
    loops.reduce((best, loop) => (onIt(loop) > onIt(best) ? loop : best)).segments.push(segment);
  }
  return loops;
}

/** The largest first, each to the loop that has the fewest nodes. */
function balance(groups: Group[], count: number): Group[] {
  const loops: Group[] = Array.from({ length: Math.max(1, Math.min(count, groups.length)) }, () => ({
    nodes: [],
    segments: [],
  }));
  for (const group of groups.sort((a, b) => b.nodes.length - a.nodes.length)) {
    const least = loops.reduce((best, loop) => (loop.nodes.length < best.nodes.length ? loop : best));
    least.nodes.push(...group.nodes);
    least.segments.push(...group.segments);
  }
  return loops;
}

/** Segments of other loops that nodes of this one are on. */
function remotesOf(groups: readonly Group[], own: number): MeshData['remotes'] {
  const wanted = new Set(groups[own]!.nodes.map(({ segment }) => segment));
  return groups.flatMap(({ segments }, home) =>
    segments
      .filter(({ metadata }) => home !== own && wanted.has(metadata.name))
      .map(({ metadata, spec }) => ({ name: metadata.name, mtu: spec.mtu, home })),
  );
}

function needJoints(groups: readonly Group[]): boolean {
  return groups.some((_, i) => remotesOf(groups, i).length > 0);
}

function makeJoints(groups: readonly Group[]): Joints {
  const wanted = Math.max(...groups.map(({ nodes }) => slotsFor(nodes.length)));
  const share = Math.min(wanted, Math.floor(MOST_SLOTS / groups.length));
  const slab = makeSharedSlab(groups.length, share, bytes => hugeMemory(bytes, true));
  return { memory: makeMeshMemory(slab), wakeFds: groups.map(() => openEventFd()) };
}

/** Counters of several places as one list. */
function addDrops(lists: SegmentRow['drops'][]): SegmentRow['drops'] {
  const sums = new Map<string, SegmentRow['drops'][number]>();
  for (const row of lists.flat()) {
    const sum = sums.get(row.name);
    if (sum === undefined) sums.set(row.name, { ...row });
    else {
      sum.packets += row.packets;
      if (row.bytes !== undefined) sum.bytes = (sum.bytes ?? 0) + row.bytes;
    }
  }
  return [...sums.values()];
}

function segmentData({ metadata, spec }: SegmentConfig, tap: TunTapHandle | null): SegmentData {
  const { mtu, seed, impairments, ports } = spec;
  return { name: metadata.name, mtu, seed, impairments, ports, tap, mirror: spec.tap?.mirror ?? false };
}

async function openTap({ spec: { mtu, tap } }: SegmentConfig): Promise<TunTapHandle | null> {
  if (tap === undefined) return null;
  const { device, netns, offload } = tap;
  const name = passageName();
  const handle = openTunTap({ kind: 'tap', name, mtu, allowed: allowedOffloads(offload) });
  try {
    await ipBatch([`link set dev ${name} ${netns === undefined ? '' : `netns ${netns} `}name ${device}`]);
    await ipBatch(
      [`link set dev ${device} mtu ${mtu} txqueuelen ${QUEUE_PACKETS} up`],
      netns === undefined ? {} : { netns },
    );
    return { ...handle, name: device };
  } catch (error) {
    closeHandle(handle);
    throw error;
  }
}

function stateOf({ name, mtu, impairments, waiting, drops, ports, stations }: SegmentRow): SegmentState {
  return {
    name,
    pid: process.pid,
    mtu,
    impairments: formatImpairments(impairments),
    waiting,
    drops,
    ports: ports.map(port => ({ ...port, from: formatImpairments(port.from), to: formatImpairments(port.to) })),
    stations: stations.map(({ hi, lo, port, ageMs }) => ({
      mac: formatMac(hi, lo),
      port,
      ageSeconds: Math.floor(ageMs / 1000),
    })),
  };
}

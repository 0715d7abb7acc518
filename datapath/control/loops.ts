/**
 * The loops of this process, and the segments that its nodes are on. Nodes of one segment run in one loop, where packets cross
 * it by reference; nodes that no segment joins may have loops of their own.
 */
import { availableParallelism } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import type { ImpairRequest, MirrorStart, SegmentData, Spot } from '../drive/requests.ts';
import { closeHandle } from '../io/handle.ts';
import { openTunTap, type TunTapHandle } from '../io/tuntap.ts';
import { type Impairments, UNIMPAIRED } from '../segment/impairments.ts';
import type { SegmentRow } from '../segment/segment.ts';
import { formatMac } from './address.ts';
import { allowedOffloads } from './devices.ts';
import { ipBatch } from './ip.ts';
import { passageName, QUEUE_PACKETS } from './kernel-side.ts';
import { LoopThread } from './loop-thread.ts';
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

export class Loops {
  private readonly threads: LoopThread[];
  private readonly threadOfNode: Map<string, LoopThread>;
  private readonly threadOfSegment: Map<string, LoopThread>;
  private readonly segmentOfNode: Map<string, string>;
  private readonly mirrors = new Mirrors();
  /** As their documents have them. */
  private readonly configs: Map<string, SegmentConfig>;

  private constructor(
    threads: LoopThread[],
    threadOfNode: Map<string, LoopThread>,
    threadOfSegment: Map<string, LoopThread>,
    nodes: readonly Placed[],
    segments: readonly SegmentConfig[],
  ) {
    this.segmentOfNode = new Map(
      nodes.flatMap(({ name, segment }) => (segment === undefined ? [] : [[name, segment]])),
    );
    this.configs = new Map(segments.map(segment => [segment.metadata.name, segment]));
    this.threads = threads;
    this.threadOfNode = threadOfNode;
    this.threadOfSegment = threadOfSegment;
  }

  /**
   * Starts the loops and makes the segments, with their devices.
   * @param nodes all that will run in them
   * @param count of loops at most; 0: by the processors
   * @throws Error with nothing left behind
   */
  static async start(nodes: readonly Placed[], segments: readonly SegmentConfig[], count = 0): Promise<Loops> {
    const groups = place(nodes, segments, count > 0 ? count : Math.max(1, availableParallelism() >> 1));
    const taps = new Map<string, TunTapHandle>();
    try {
      for (const segment of segments) {
        const tap = await openTap(segment);
        if (tap !== null) taps.set(segment.metadata.name, tap);
      }
    } catch (error) {
      for (const tap of taps.values()) closeHandle(tap);
      throw error;
    }
    const threadOfNode = new Map<string, LoopThread>();
    const threadOfSegment = new Map<string, LoopThread>();
    const threads = groups.map(group => {
      const thread = new LoopThread({
        nodes: group.nodes.length,
        segments: group.segments.map(segment => segmentData(segment, taps.get(segment.metadata.name) ?? null)),
      });
      for (const { name } of group.nodes) threadOfNode.set(name, thread);
      for (const { metadata } of group.segments) threadOfSegment.set(metadata.name, thread);
      return thread;
    });
    return new Loops(threads, threadOfNode, threadOfSegment, nodes, segments);
  }

  /** The loop of a node that start() was told of. */
  threadOf(node: string): LoopThread {
    return this.threadOfNode.get(node)!;
  }

  async segments(): Promise<SegmentState[]> {
    const threads = [...new Set(this.threadOfSegment.values())];
    const rows = await Promise.all(threads.map(thread => thread.request('segments') as Promise<SegmentRow[]>));
    return rows.flat().map(stateOf);
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
    await Promise.all(this.threads.map(thread => thread.end()));
  }
}

interface Group {
  nodes: Placed[];
  segments: SegmentConfig[];
}

/** Nodes of one segment together; groups onto loops so that each has about as many nodes. */
export function place(nodes: readonly Placed[], segments: readonly SegmentConfig[], count: number): Group[] {
  const groups: Group[] = segments.map(segment => ({
    nodes: nodes.filter(node => node.segment === segment.metadata.name),
    segments: [segment],
  }));
  for (const node of nodes) if (node.segment === undefined) groups.push({ nodes: [node], segments: [] });
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

/**
 * What the control plane asks of a loop. Requests come through a message port, read synchronously after an eventfd has woken
 * the loop: in-band, between two bursts, so a change is seen by all packets after it and by none before.
 */
import type { MessagePort } from 'node:worker_threads';
import type { DeviceHandle } from '../io/handle.ts';
import type { TunTapHandle } from '../io/tuntap.ts';
import type { Program } from '../program/program.ts';
import type { Announcement } from '../route/announcements.ts';
import type { Impairments } from '../segment/impairments.ts';
import type { MeshMemory } from '../segment/mesh.ts';
import type { SegmentRow } from '../segment/segment.ts';

export interface LoopData {
  control: MessagePort;
  /** eventfd that is written after a message has been posted to `control`. */
  wakeFd: number;
  /** Segments that its nodes are on. */
  segments: SegmentData[];
  /** How many nodes it will have at once: its packets follow from that, where it has them alone. */
  nodes: number;
  /** Where packets cross between loops. */
  mesh: MeshData | null;
}

/** A loop's place among others that it exchanges packets with. */
export interface MeshData {
  memory: MeshMemory;
  /** Its number among them. */
  thread: number;
  /** eventfd of each, written when it sleeps and has something to do. */
  wakeFds: number[];
  /** Segments that others run. */
  remotes: { name: string; mtu: number; home: number }[];
}

export interface SegmentData {
  name: string;
  mtu: number;
  seed: number;
  impairments: Impairments;
  ports: { node: string; from?: Impairments; to?: Impairments }[];
  tap: TunTapHandle | null;
  mirror: boolean;
}

export interface NodeData {
  name: string;
  program: Program;
  /** One for each port of the program, in order. */
  devices: DeviceHandle[];
  counters: SharedArrayBuffer;
  seed: number;
  ioUring: 'auto' | 'off';
  /** Microseconds to look for packets again and again before the thread sleeps; 0: it sleeps at once; auto: busy-poll.ts. */
  busyPoll: number | 'auto';
}

/** Asked of one node of the loop. */
export type NodeMethod =
  | 'routes'
  | 'neighbors'
  | 'path-mtus'
  | 'tables'
  | 'io'
  | 'rounds'
  | 'flows'
  | 'services'
  | 'ports-in-use'
  | 'masquerade-hits'
  | 'change'
  | 'ports'
  | 'watch'
  | 'unwatch'
  | 'conflicts'
  | 'keep-ledger'
  | 'ledger'
  | 'claim'
  | 'lead'
  | 'led';

/** Parameters of `lead`: what the node leads now, times as CLOCK_MONOTONIC of the machine. */
export interface Lead {
  announcements: Announcement[];
  /** The link is told of all of them, and not only of new ones. */
  again: boolean;
}

/** Asked of the loop: `start` and `stop` a node, its segments, what crosses between loops, and its end. */
export type LoopMethod =
  | 'start'
  | 'stop'
  | 'segments'
  | 'remote-drops'
  | 'impairments'
  | 'impair'
  | 'mirror'
  | 'unmirror'
  | 'expect'
  | 'join'
  | 'leave'
  | 'forget'
  | 'reclaim'
  | 'end';

export interface LoopRequest {
  id: number;
  /** Whom it is for; absent: the loop. */
  node?: string;
  method: NodeMethod | LoopMethod;
  params?: unknown;
}

/** What impairments are of: the wire of a segment, or a direction of one of its ports. */
export interface Spot {
  segment: string;
  port?: { name: string; direction: 'from' | 'to' };
}

/** Parameters of `impair`; those of `impairments`, which asks, are a Spot. */
export interface ImpairRequest extends Spot {
  impairments: Impairments;
}

/** A port of a segment. */
export interface PortName {
  segment: string;
  port: string;
}

/** Parameters of `expect`, before a node of this loop comes to a segment of another: frames may come by this crossing. */
export interface CrossingStart {
  segment: string;
  crossing: number;
}

/** Parameters of `join`: a node of another loop comes to a segment of this one. Those of `leave` are a PortName. */
export interface RemoteJoin extends PortName, CrossingStart {
  /** Of the node. */
  thread: number;
}

/** What `remote-drops` answers for each segment of another loop: as SegmentRow. */
export interface RemoteDrops {
  segment: string;
  drops: SegmentRow['drops'];
}

/** Parameters of `mirror`: the loop closes the TAP, also when this fails. Those of `unmirror` are a PortName. */
export interface MirrorStart extends PortName {
  tap: TunTapHandle;
}

/** What a node's loop says by itself: something for the control plane to look at. */
export interface LoopEvent {
  node: string;
  /** device: a port's device is gone. conflict: somebody else uses an address or the MAC of this node. */
  event: 'device' | 'conflict';
}

export interface LoopResponse {
  /** Of the request; -1: a node has failed by itself. */
  id: number;
  /** Of a failure: whose. */
  node?: string;
  /** How long packets had to wait for it, ms. */
  tookMs?: number;
  result?: unknown;
  error?: string;
}

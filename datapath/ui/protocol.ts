/**
 * What the page and those who know about nodes say to each other: a server over HTTP (server.ts), or in the static page the
 * datapath itself (page/offline.ts). All of it goes through JSON; bytes are hex digits.
 */
import type { Row as ClauseRow } from '../conformance/check.ts';
import type { Effect } from '../control/effects.ts';
import type { TableRow as ProofRow } from '../mtu-prove/report.ts';
import type { documentOf } from '../observe/ask.ts';
import type { Variant } from '../observe/explain-text.ts';
import type { Question } from '../observe/question.ts';
import type { Picture } from './picture.ts';

export interface PageEnd {
  /** Pod, node or service; '' for nobody known. */
  name: string;
  address: string;
  port: number;
}

/** A moment of a flow on one node. */
export interface PageFlow {
  timeMs: number;
  node: string;
  source: PageEnd;
  destination: PageEnd;
  protocol: number;
  verdict: 'FORWARDED' | 'DROPPED';
  /** Name of the drop; '' for none. */
  reason: string;
  isReply: boolean;
  summary: string;
  length: number;
  /** Pod or host port by name, or `uplink`. '' where it did not get so far. */
  inPort: string;
  outPort: string;
  /** Of what was dropped: the whole packet as it was there; '' where it is too long. */
  hex: string;
}

/** A packet at one point of a node. */
export interface PagePacket {
  timeMs: number;
  node: string;
  port: string;
  direction: 'in' | 'out';
  /** Name of the drop; '' for none. */
  reason: string;
  /** The same wherever one packet is seen on a node. */
  number: number;
  length: number;
  layer: 2 | 3;
  hex: string;
}

export interface PageCounters {
  timeMs: number;
  nodes: {
    node: string;
    counters: { name: string; packets: number }[];
    ports: { name: string; kind: string; rxPackets: number; txPackets: number; rxBytes: number; txBytes: number }[];
    tables: { table: string; used: number; size: number }[];
  }[];
}

export interface ExplainRequest extends Partial<Question> {
  both?: boolean;
  whatIf?: string[];
}

type Document = ReturnType<typeof documentOf>;

export interface ExplainAnswer extends Document {
  variants: Variant[];
  notCopied: string[];
}

/** One step, as documents have it. */
export type ExplainedVisit = Document['visits'][number];

/** What is to become otherwise. */
export interface ChangeRequest {
  /** `mode=vxlan`, `mtu=1400`, `policy`: as --what-if of explain, but that an MTU is that of pods. */
  change: string;
  /** Of `policy`: NetworkPolicy objects, YAML. */
  text?: string;
  dryRun: boolean;
}

export interface ChangeAnswer {
  node: string;
  /** Why not; empty where it is done, or could be. */
  problems: string[];
  effects: Effect[];
  longestStopMs: number;
}

export interface Lost {
  flows?: number;
  packets?: number;
}

/** What comes without being asked for. */
export interface Sink {
  picture(picture: Picture): void;
  flows(flows: PageFlow[]): void;
  packets(packets: PagePacket[]): void;
  counters(counters: PageCounters): void;
  /** Not shown: it came faster than it could be sent. */
  lost(lost: Lost): void;
  /** '' once it is over. */
  trouble(text: string): void;
}

export type { ClauseRow, ProofRow };

/** Whom the page asks. A promise that is rejected has the reason as its message. */
export interface Source {
  readonly isLive: boolean;
  start(sink: Sink): void;
  explain(request: ExplainRequest): Promise<ExplainAnswer>;
  change(request: ChangeRequest): Promise<ChangeAnswer[]>;
  prove(): Promise<ProofRow[]>;
  /** @param rfc 0: all of them */
  conformance(profile: string, rfc: number): Promise<ClauseRow[]>;
  /** Begins, or with null ends, to show packets. */
  capture(request: { filter: string; drops: boolean } | null): void;
}

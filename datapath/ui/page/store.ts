/** What the page knows, and who wants to hear when that changes. Bounded: the oldest goes where there is too much. */
import type { Picture } from '../picture.ts';
import type { Lost, PageCounters, PageEnd, PageFlow, PagePacket, Sink } from '../protocol.ts';

/** Flows that are kept, and how many go at once. */
const MAX_FLOWS = 100_000;
const MAX_PACKETS = 20_000;
/** How often the page is drawn anew, ms. */
const DRAW_MS = 200;

/** One flow, both directions, all nodes. */
export interface FlowRow {
  id: number;
  firstMs: number;
  lastMs: number;
  source: PageEnd;
  destination: PageEnd;
  protocol: number;
  verdict: PageFlow['verdict'];
  reason: string;
  nodes: string;
  seen: number;
  hasReply: boolean;
  last: PageFlow;
  /** For the filter: all of it in small letters. */
  text: string;
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 132: 'sctp' };

export function protocolName(protocol: number): string {
  return PROTOCOL_NAMES[protocol] ?? String(protocol);
}

/** `default/webpod` -> `webpod:80`; an address where there is no name. */
export function endText({ name, address, port }: PageEnd): string {
  const short = name === '' || name === 'world' ? address : name.slice(name.indexOf('/') + 1);
  return port === 0 ? short : `${short}:${port}`;
}

export class Store implements Sink {
  flowRows: FlowRow[] = [];
  packetRows: PagePacket[] = [];
  nodes: Picture = { nodes: [], segments: [], services: [] };
  now: PageCounters | null = null;
  /** The counters before those. */
  before: PageCounters | null = null;
  lostFlows = 0;
  lostPackets = 0;
  message = '';
  isPaused = false;
  /** Each moment of a flow, as it comes: for the picture. */
  onFlow: ((flow: PageFlow) => void) | null = null;
  private readonly byKey = new Map<string, FlowRow>();
  private readonly listeners = new Set<() => void>();
  private timer: ReturnType<typeof setTimeout> | null = null;
  private nextId = 0;

  /** @returns what ends it */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  }

  changed(): void {
    if (this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      for (const listener of this.listeners) listener();
    }, DRAW_MS);
  }

  picture(picture: Picture): void {
    this.nodes = picture;
    this.changed();
  }

  counters(counters: PageCounters): void {
    this.before = this.now;
    this.now = counters;
    this.changed();
  }

  lost({ flows = 0, packets = 0 }: Lost): void {
    this.lostFlows += flows;
    this.lostPackets += packets;
    this.changed();
  }

  trouble(text: string): void {
    this.message = text;
    this.changed();
  }

  flows(flows: PageFlow[]): void {
    if (this.isPaused) return;
    for (const flow of flows) {
      this.add(flow);
      this.onFlow?.(flow);
    }
    this.changed();
  }

  private add(flow: PageFlow): void {
    const [source, destination] = flow.isReply ? [flow.destination, flow.source] : [flow.source, flow.destination];
    const key = `${flow.protocol} ${source.address} ${source.port} ${destination.address} ${destination.port} ${flow.reason}`;
    const known = this.byKey.get(key);
    if (known !== undefined) {
      known.lastMs = flow.timeMs;
      known.seen++;
      known.hasReply ||= flow.isReply;
      if (!known.nodes.includes(flow.node)) known.nodes += ` ${flow.node}`;
      known.last = flow;
      return;
    }
    const { protocol, verdict, reason, node, timeMs } = flow;
    const row: FlowRow = {
      id: this.nextId++,
      firstMs: timeMs,
      lastMs: timeMs,
      source,
      destination,
      protocol,
      verdict,
      reason,
      nodes: node,
      seen: 1,
      hasReply: flow.isReply,
      last: flow,
      text: `${source.name} ${source.address}:${source.port} ${destination.name} ${destination.address}:${destination.port} ${protocolName(protocol)} ${verdict} ${reason} ${node}`.toLowerCase(),
    };
    this.byKey.set(key, row);
    this.flowRows.push(row);
    if (this.flowRows.length > MAX_FLOWS) this.forget();
  }

  /** A tenth at once, so that it is rarely done. */
  private forget(): void {
    const gone = new Set(this.flowRows.slice(0, MAX_FLOWS / 10));
    this.flowRows = this.flowRows.slice(MAX_FLOWS / 10);
    for (const [key, row] of this.byKey) if (gone.has(row)) this.byKey.delete(key);
  }

  clearFlows(): void {
    this.flowRows = [];
    this.byKey.clear();
    this.lostFlows = 0;
    this.changed();
  }

  packets(packets: PagePacket[]): void {
    this.packetRows.push(...packets);
    if (this.packetRows.length > MAX_PACKETS) {
      this.lostPackets += this.packetRows.length - MAX_PACKETS;
      this.packetRows = this.packetRows.slice(-MAX_PACKETS);
    }
    this.changed();
  }

  clearPackets(): void {
    this.packetRows = [];
    this.lostPackets = 0;
    this.changed();
  }
}

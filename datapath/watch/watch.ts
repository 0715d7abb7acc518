/**
 * One client's view of a path: which moments of which packets it wants, written as records into its ring. Runs in the loop,
 * only while the client is there; a ring that is full loses records and counts them, and holds nobody up.
 */
import { REPLY as REPLY_DIRECTION } from '../flow/table.ts';
import { RecordRing } from '../memory/record-ring.ts';
import type { Packet } from '../packet/packet.ts';
import type { Path } from '../path/path.ts';
import { STEP_EGRESS_POLICY, STEP_INGRESS_POLICY, type Watcher } from '../path/watcher.ts';
import type { Port } from '../port.ts';
import * as hops from '../route/nexthop.ts';
import { CONTINUE } from '../verdict.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import { compileFilter, type Filter } from './filter.ts';
import { Peek } from './peek.ts';
import * as record from './record.ts';

/** What a client wants; plain data, so that it can be posted to the loop. */
export interface WatchSpec {
  /** The ring's memory, from RecordRing.allocate. */
  ring: SharedArrayBuffer;
  /** In the words of tcpdump (observe/filter.ts); '' takes everything. */
  filter: string;
  /**
   * Flows as Cilium's monitor aggregates them: what leaves, if it is the first of its direction, has SYN, FIN or RST, or
   * nothing of it was reported for FLOW_INTERVAL_MS.
   */
  flows: boolean;
  drops: boolean;
  /** Every packet where it comes in (bit 0) and leaves (bit 1), by port name; '' for all ports. */
  points: { port: string; bits: number }[];
  /** Every step of the packets that pass the filter when they come in. */
  steps: boolean;
  /** What policies say of flows that begin. */
  policies: boolean;
  /** Bytes kept of a packet. */
  snapLen: number;
}

export const POINT_IN = 1;
export const POINT_OUT = 2;

/** Cilium's monitor-aggregation-interval. */
const FLOW_INTERVAL_MS = 5000;
const SEEN_SLOTS = 1 << 14;

export class Watch implements Watcher {
  readonly ring: RecordRing;
  private readonly path: Path;
  private readonly spec: WatchSpec;
  private readonly filter: Filter;
  private readonly wallClock: () => number;
  private readonly peek = new Peek();
  /** When a tuple was last reported, by its hash; a place may change hands, and then the newcomer is reported at once. */
  private readonly seenHash = new Int32Array(SEEN_SLOTS);
  private readonly seenAt = new Int32Array(SEEN_SLOTS);

  /**
   * @param wallClock milliseconds since 1970
   * @throws FilterError
   */
  constructor(path: Path, spec: WatchSpec, wallClock: () => number) {
    this.path = path;
    this.spec = spec;
    this.ring = new RecordRing(spec.ring);
    this.filter = compileFilter(spec.filter);
    this.wallClock = wallClock;
  }

  received(p: Packet, port: Port): void {
    const { spec, peek } = this;
    // Left over from whoever had the slot before.
    p.flow = 0;
    p.isNew = 0;
    p.isRelated = 0;
    p.direction = 0;
    p.backend = 0;
    p.backendPort = 0;
    p.rule = 0;
    const isPoint = this.wants(port, POINT_IN);
    if (!isPoint && !spec.steps && !spec.policies) return;
    peek.look(this.path.view, p, port.device.layer);
    if (!this.filter(peek)) return;
    if (spec.steps || spec.policies) p.trace = 1;
    if (isPoint || spec.steps) this.write(p, record.KIND_RECEIVED, port.index, 0, port.device.layer);
  }

  sent(p: Packet, port: Port): void {
    const { spec, peek, path } = this;
    const layer = port.device.layer;
    const isTunnel = layer === 2 && path.nextHops[p.hop]?.kind === hops.HOP_TUNNEL;
    const isTraced = spec.steps && p.trace !== 0;
    if (isTraced || this.wants(port, POINT_OUT)) {
      peek.look(path.view, p, layer);
      if (isTraced || this.filter(peek)) {
        this.write(p, record.KIND_SENT, port.index, isTunnel ? record.TO_OVERLAY : 0, layer);
      }
    }
    if (!spec.flows) return;
    // The flow is that of the inner packet.
    if (isTunnel) peek.lookAt(path.view, p.innerNetwork, p.off + p.len - p.innerNetwork);
    else peek.look(path.view, p, layer);
    if (!peek.isIpv4 || !this.filter(peek) || !this.isNews(p)) return;
    this.write(p, record.KIND_SENT, port.index, isTunnel ? record.TO_OVERLAY : 0, layer);
  }

  dropped(p: Packet, reason: number): void {
    const { spec, peek, path } = this;
    const isTraced = spec.steps && p.trace !== 0;
    if (!isTraced && !spec.drops) return;
    peek.look(path.view, p);
    if (isTraced || this.filter(peek)) {
      this.write(p, record.KIND_DROPPED, reason, reason, peek.network === p.off ? 3 : 2);
    }
  }

  stepped(p: Packet, step: number, verdict: number): void {
    if (!this.spec.steps && !(this.spec.policies && isJudged(p, step, verdict))) return;
    this.peek.look(this.path.view, p);
    this.write(p, record.KIND_STEP, step, verdict, this.peek.network === p.off ? 3 : 2);
  }

  private wants(port: Port, bit: number): boolean {
    const { points } = this.spec;
    for (let i = 0; i < points.length; i++) {
      const point = points[i];
      if ((point.bits & bit) !== 0 && (point.port === '' || point.port === port.name)) return true;
    }
    return false;
  }

  /** Worth a line for somebody who looks at flows? */
  private isNews(p: Packet): boolean {
    const { peek, path, seenHash, seenAt } = this;
    const ports = (peek.srcPort << 16) | peek.dstPort;
    let hash = Math.imul(peek.src, 0x9e3779b1) ^ Math.imul(peek.dst, 0x85ebca6b) ^ Math.imul(ports, 0xc2b2ae35);
    hash = Math.imul(hash ^ (hash >>> 15) ^ (peek.protocol << 8) ^ (p.hop << 20), 0x27d4eb2f) | 1;
    const slot = (hash >>> 12) & (SEEN_SLOTS - 1);
    const isKnown = seenHash[slot] === hash && path.now - seenAt[slot] < FLOW_INTERVAL_MS;
    const isEdge = peek.protocol === ipv4.PROTO_TCP && (peek.l4Bits & (tcp.SYN | tcp.FIN | tcp.RST)) !== 0;
    if (isKnown && !isEdge && p.isNew === 0) return false;
    seenHash[slot] = hash;
    seenAt[slot] = path.now;
    return true;
  }

  /** `peek` has looked at the packet. */
  private write(p: Packet, kind: number, detail: number, verdict: number, layer: number): void {
    const { ring, path, peek, spec } = this;
    const captured = Math.min(p.len, spec.snapLen);
    const at = ring.reserve(record.HEADER_BYTES + captured);
    if (at < 0) return;
    const { words } = ring;
    const word = at >> 2;
    words[word + record.KIND] = kind;
    words[word + record.DETAIL] = detail;
    words[word + record.VERDICT] = verdict;
    ring.doubles[(word + record.TIME) >> 1] = this.wallClock();
    words[word + record.NUMBER] = p.number;
    words[word + record.IN_PORT] = p.inPort;
    words[word + record.SRC] = peek.isIpv4 ? peek.src : 0;
    words[word + record.DST] = peek.isIpv4 ? peek.dst : 0;
    words[word + record.PORTS] = (peek.srcPort << 16) | peek.dstPort;
    words[word + record.PROTOCOL] = peek.isIpv4 ? peek.protocol : 0;
    words[word + record.L4_BITS] = peek.l4Bits;
    words[word + record.IDENTITY] = p.identity;
    words[word + record.TUNNEL_SOURCE] = p.tunnelSource;
    words[word + record.STATE] = this.stateOf(p);
    words[word + record.NEXT_HOP] = p.hop;
    words[word + record.RULE] = p.rule;
    words[word + record.BACKEND] = p.backend;
    words[word + record.BACKEND_PORT] = p.backendPort;
    words[word + record.NEW_SRC] = p.newSrc;
    words[word + record.NEW_DST] = p.newDst;
    words[word + record.SERVICE_PORT] = p.servicePort;
    words[word + record.POLICY] = p.policy;
    words[word + record.MARK] = p.mark;
    words[word + record.LENGTH] = p.len;
    words[word + record.CAPTURED] = captured;
    words[word + record.GSO_SIZE] = p.gsoType === 0 ? 0 : p.gsoSize;
    words[word + record.LAYER] = layer;
    const data = at + record.HEADER_BYTES;
    ring.bytes.set(path.pool.bytes.subarray(p.off, p.off + captured), data);
    ring.publish();
  }

  private stateOf(p: Packet): number {
    const isTracked = this.path.nat !== null && p.flow !== 0;
    return (
      (isTracked ? record.STATE_TRACKED : 0) |
      (p.isNew !== 0 ? record.STATE_NEW : 0) |
      (isTracked && p.direction === REPLY_DIRECTION ? record.STATE_REPLY : 0) |
      (p.isRelated !== 0 ? record.STATE_RELATED : 0) |
      (p.translated !== 0 ? record.STATE_TRANSLATED : 0) |
      (p.local !== 0 ? record.STATE_LOCAL : 0)
    );
  }
}

/** Has a policy just said something of a flow that begins? */
function isJudged(p: Packet, step: number, verdict: number): boolean {
  if (step !== STEP_EGRESS_POLICY && step !== STEP_INGRESS_POLICY) return false;
  return p.isNew !== 0 && (verdict !== CONTINUE || p.policy > 0);
}

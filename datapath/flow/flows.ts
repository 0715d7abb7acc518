/**
 * Connection tracking as the path calls it, for each packet:
 *
 *   track(p)     finds the packet's flow or begins one, judges the packet
 *   confirm(p)   of a packet that begins one, when nothing has dropped it: now the flow exists
 *
 * What the steps need to know lies on the packet, in `flow`, `direction`, `isNew` and `isRelated`; nothing is allocated.
 * Until confirm(), `flow` of a packet that begins one is the scratch entry that it is built in. Of translation nothing is
 * known here: whoever translates (nat/translation.ts) is a FlowClient, writes the reply tuple of a new flow before it is
 * confirmed, and has words of its own in the entry.
 *
 * What cannot be judged is dropped with a reason. Unlike Linux, where an INVALID packet passes as it came, and a backend's
 * late answer with it (kubernetes#74839).
 */
import type { Packet } from '../packet/packet.ts';
import type { Random } from '../random.ts';
import {
  CONTINUE,
  DROP_CT_BACKEND_PICKUP,
  DROP_CT_FRAGMENT,
  DROP_CT_ICMP_CHECKSUM,
  DROP_CT_ICMP_NO_FLOW,
  DROP_CT_INVALID_ICMP_QUOTE,
  DROP_CT_INVALID_ICMP_REPLY,
  DROP_CT_INVALID_ICMP_TYPE,
  DROP_CT_SOURCE_QUOTA,
  DROP_CT_TABLE_FULL,
  DROP_CT_TUPLE_TAKEN,
} from '../verdict.ts';
import { foldSum, sumWords } from '../wire/checksum.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as virtio from '../wire/virtio-net.ts';
import { openSctp, trackSctp } from './sctp.ts';
import {
  ATTACHED,
  ATTACHED_FAR,
  CREATED,
  DEADLINE,
  EGRESS_RULE,
  ENTRY_SHIFT,
  ENTRY_WORDS,
  FLAG_ASSURED,
  FLAG_SEEN_REPLY,
  type FlowOwner,
  FlowTable,
  type FullPolicy,
  GENERATION,
  INGRESS_RULE,
  LAST_SEEN,
  META,
  O_DST,
  O_PORTS,
  O_SRC,
  ORIGINAL,
  PAYER_SHIFT,
  POLICY_EPOCH,
  PROTOCOL_MASK,
  R_DST,
  R_PORTS,
  R_SRC,
  REFUSED_CLASH,
  REFUSED_QUOTA,
  REPLY,
  STATE_MASK,
  STATE_SHIFT,
  TCP_LAST,
} from './table.ts';
import { LAST_PACKET, REOPEN, type TcpOptions, TcpTracker } from './tcp.ts';
import {
  GENERIC,
  GRE_NEW,
  GRE_STREAM,
  ICMP_QUERY,
  SCTP_ESTABLISHED,
  STATE_NAMES,
  TCP_SYN_SENT,
  type TimeoutProfile,
  timeoutsOf,
  UDP_NEW,
  UDP_STREAM,
} from './timeouts.ts';

/** Who keeps something in the flows' entries (table.ts) and is told what becomes of them. `base`: first word of the entry. */
export interface FlowClient {
  /** A flow with something attached meets a packet of its original direction. @returns true: it shall begin anew */
  isStale(base: number): boolean;
  /** False if the parsed packet, of the middle of a connection, must not begin a flow. */
  mayPickUp(p: Packet): boolean;
  /** The flow built in a scratch entry has not come to be. The entry may never have been used. */
  flowAbandoned(base: number): void;
  /** The flow ends; its words are still there. */
  flowRemoved(flow: number): void;
}

/** What decides how flows are tracked, as plain data. */
export interface FlowProgram {
  /** Flows that fit, 16 to 4 Mi. */
  capacity: number;
  /** Flows that one pod may have begun; 0: no limit. */
  perPod?: number;
  timeouts: { profile: TimeoutProfile; seconds: Record<number, number> };
}

export interface FlowOptions {
  /** Flows, 16 to 4 Mi. */
  capacity: number;
  random: Random;
  whenFull?: FullPolicy;
  /** Flows that one payer may have begun (table.ts); 0: no limit. */
  perPayer?: number;
  profile?: TimeoutProfile;
  /** Seconds by state instead of the profile's. */
  timeouts?: Record<number, number>;
  tcp?: TcpOptions;
  /** Refuse an ICMP error whose quoted header has a wrong checksum (RFC 5508 REQ-3a); Linux does not look. */
  verifyQuotes?: boolean;
  /** Memory for the flow table, see TableOptions. */
  memory?: (bytes: number) => Uint8Array;
}

/** One flow, for listings. Addresses int32. */
export interface FlowRow {
  flow: number;
  protocol: number;
  state: string;
  /** Seconds until it expires. */
  expires: number;
  age: number;
  original: { src: number; dst: number; sport: number; dport: number };
  reply: { src: number; dst: number; sport: number; dport: number };
  seenReply: boolean;
  assured: boolean;
  /** The policies that judged it last, and which of their rules let it leave its pod and enter the other (path/policy.ts). */
  policyEpoch: number;
  egressRule: number;
  ingressRule: number;
}

/** UDP: both ways for this long makes a stream (Linux: 2 s). */
const STREAM_AFTER_MS = 2000;
/** An invalid FIN or RST shortens only deadlines beyond this (Linux). */
const SHORTEN_FROM_MS = 120_000;

export class Flows implements FlowOwner {
  readonly table: FlowTable;
  readonly tcp: TcpTracker;
  client: FlowClient | null = null;
  verifyQuotes: boolean;
  /** On whose quota a flow is that begins now (table.ts); what the node itself sends is on nobody's. */
  payer = 0;

  private readonly view: DataView;
  /** Milliseconds by state (timeouts.ts). */
  readonly timeouts: Int32Array;

  /** @param view the pool's view */
  constructor(view: DataView, options: FlowOptions) {
    this.view = view;
    this.table = new FlowTable(options);
    this.table.owner = this;
    this.timeouts = timeoutsOf(options.profile ?? 'linux', options.timeouts);
    this.tcp = new TcpTracker(this.timeouts, options.tcp);
    this.verifyQuotes = options.verifyQuotes ?? false;
  }

  /** Other timeouts, as the options of the constructor: for flows that begin, and for those that get another packet. */
  setTimeouts(profile: TimeoutProfile, seconds: Record<number, number>): void {
    this.timeouts.set(timeoutsOf(profile, seconds));
  }

  /**
   * Finds the flow of a parsed packet, or begins one in scratch space, and judges the packet. Sets flow, direction,
   * isNew (confirm() is due) and isRelated (an ICMP error about the flow) of the packet.
   * @param now milliseconds
   * @returns CONTINUE, or DROP_CT_*
   */
  track(p: Packet, now: number): number {
    now |= 0;
    p.flow = 0;
    p.direction = ORIGINAL;
    p.isNew = 0;
    p.isRelated = 0;
    if ((p.fragment & ipv4.OFFSET_MASK) !== 0) return DROP_CT_FRAGMENT;

    const protocol = p.protocol;
    const ports = this.portsOf(p);
    if (protocol === ipv4.PROTO_ICMP) {
      const type = ports & 0xff;
      if (icmp.isError(type)) return this.trackError(p, now);
      if (!icmp.isQuery(type)) return DROP_CT_INVALID_ICMP_TYPE;
    }
    const ref = this.table.find(p.src, p.dst, ports, protocol, now);
    if (ref < 0) return this.begin(p, ports, now);

    const flow = ref >>> 1;
    const direction = ref & 1;
    let base = flow << ENTRY_SHIFT;
    const { words } = this.table;
    const meta = words[base + META];
    if (words[base + ATTACHED] !== 0 && direction === ORIGINAL && this.client?.isStale(base) === true) {
      if (p.probe === 0) this.table.remove(flow);
      return this.begin(p, ports, now);
    }
    // What a probe would change of the flow changes in a copy.
    if (p.probe !== 0) base = this.copyToScratch(base);

    let timeout: number;
    if (protocol === ipv4.PROTO_TCP) {
      const verdict = this.tcp.track(words, base, this.view, p, direction);
      timeout = p.timeout;
      if (verdict !== CONTINUE) {
        if (verdict === REOPEN) {
          if (p.probe === 0) this.table.remove(flow);
          return this.begin(p, ports, now);
        }
        if (verdict !== LAST_PACKET) {
          if (timeout >= 0) this.shorten(base, timeout, now);
          return verdict;
        }
        timeout = 0; // still there for translate(), gone for the next packet
      }
    } else {
      timeout = this.trackDatagram(base, p, direction, now);
      if (timeout < 0) return -timeout;
    }
    if (direction === REPLY && (meta & FLAG_SEEN_REPLY) === 0) words[base + META] |= FLAG_SEEN_REPLY;
    if (timeout >= 0) words[base + DEADLINE] = now + timeout;
    words[base + LAST_SEEN] = now;
    p.flow = flow;
    p.direction = direction;
    return CONTINUE;
  }

  /**
   * Puts the new flow into the table. A probe's is not entered: it stays in scratch space.
   * @returns CONTINUE and `p.flow` set; DROP_CT_TABLE_FULL, DROP_CT_SOURCE_QUOTA, DROP_CT_TUPLE_TAKEN
   */
  confirm(p: Packet, now: number): number {
    if (p.probe !== 0) return CONTINUE;
    const flow = this.table.insert(now | 0, p.flow);
    if (flow < 0) {
      if (flow === REFUSED_CLASH) return DROP_CT_TUPLE_TAKEN;
      return flow === REFUSED_QUOTA ? DROP_CT_SOURCE_QUOTA : DROP_CT_TABLE_FULL;
    }
    p.flow = flow;
    return CONTINUE;
  }

  /**
   * Whether a later fragment's flow is still that of the first one. Whoever holds fragments keeps the flow, its
   * generation() and the direction of the first fragment, once confirm() has been called for it, and gives all three to
   * the later ones.
   * @returns CONTINUE, or DROP_CT_FRAGMENT if the flow has gone in between
   */
  trackLaterFragment(p: Packet): number {
    p.isRelated = 0;
    return p.flow === 0 || this.generation(p.flow) !== p.generation ? DROP_CT_FRAGMENT : CONTINUE;
  }

  /** Changes whenever the entry is used for another flow; 16 bits. */
  generation(flow: number): number {
    return this.table.words[(flow << ENTRY_SHIFT) + GENERATION] >>> 16;
  }

  /**
   * Fetches what track() will need for these parsed packets of a big table.
   * @param tuples room for 4 words a packet
   * @returns anything; to be kept
   */
  lookAhead(packets: readonly Packet[], n: number, tuples: Int32Array): number {
    for (let i = 0; i < n; i++) {
      const p = packets[i];
      const at = 4 * i;
      tuples[at] = p.src;
      tuples[at + 1] = p.dst;
      tuples[at + 2] = this.portsOf(p);
      tuples[at + 3] = p.protocol;
    }
    return this.table.touchAll(tuples, n);
  }

  /** Expires flows, a bounded number per call. To be called once per burst. @returns as FlowTable.tick */
  tick(now: number): number {
    return this.table.tick(now | 0);
  }

  /**
   * Calls `visit` for flows to be listed, from among the next `limit` entries. Start with 1; a long table is read in pieces between
   * bursts. @returns where to go on; 0 at the end
   */
  list(from: number, limit: number, now: number, visit: (flow: number) => void): number {
    return this.table.walk(from, limit, now | 0, visit);
  }

  /** One flow as a row. */
  row(flow: number, now: number): FlowRow {
    const { words } = this.table;
    const base = flow << ENTRY_SHIFT;
    const meta = words[base + META];
    const tuple = (at: number) => ({
      src: words[base + at],
      dst: words[base + at + 1],
      sport: words[base + at + 2] >>> 16,
      dport: words[base + at + 2] & 0xffff,
    });
    return {
      flow,
      protocol: meta & PROTOCOL_MASK,
      state: STATE_NAMES[(meta >>> STATE_SHIFT) & STATE_MASK],
      expires: Math.max(0, Math.ceil(((words[base + DEADLINE] - now) | 0) / 1000)),
      age: Math.floor(((now - words[base + CREATED]) | 0) / 1000),
      original: tuple(O_SRC),
      reply: tuple(R_SRC),
      seenReply: (meta & FLAG_SEEN_REPLY) !== 0,
      assured: (meta & FLAG_ASSURED) !== 0,
      policyEpoch: words[base + POLICY_EPOCH],
      egressRule: words[base + EGRESS_RULE],
      ingressRule: words[base + INGRESS_RULE],
    };
  }

  /** FlowOwner: called by the table for every flow that goes. */
  flowRemoved(flow: number): void {
    this.client?.flowRemoved(flow);
  }

  /** The third word of a parsed packet's tuple. */
  private portsOf(p: Packet): number {
    // The tuple of a query is its identifier and type: an echo request from either side is a flow of its own.
    const low = p.protocol === ipv4.PROTO_ICMP ? this.view.getUint8(p.l4 + icmp.TYPE) : p.dstPort;
    return (p.srcPort << 16) | low;
  }

  /** Builds a flow in scratch space from its first packet. */
  private begin(p: Packet, ports: number, now: number): number {
    const { words } = this.table;
    const protocol = p.protocol;
    const scratch = (p.local | p.probe) === 0 ? 0 : this.table.ownScratch;
    const base = scratch << ENTRY_SHIFT;
    this.client?.flowAbandoned(base); // one that was dropped before it was confirmed
    words.fill(0, base, base + ENTRY_WORDS);
    words[base + O_SRC] = p.src;
    words[base + O_DST] = p.dst;
    words[base + O_PORTS] = ports;
    words[base + R_SRC] = p.dst;
    words[base + R_DST] = p.src;
    words[base + R_PORTS] = (ports << 16) | (ports >>> 16);
    words[base + META] = protocol | ((p.local === 0 ? this.payer : 0) << PAYER_SHIFT);
    let state = GENERIC;
    let timeout = -1;
    if (protocol === ipv4.PROTO_TCP) {
      const verdict = this.tcp.open(words, base, this.view, p);
      if (verdict !== CONTINUE) return verdict;
      state = (words[base + META] >>> STATE_SHIFT) & STATE_MASK;
      timeout = p.timeout;
      if (state !== TCP_SYN_SENT && this.client?.mayPickUp(p) === false) return DROP_CT_BACKEND_PICKUP;
    } else if (protocol === ipv4.PROTO_UDP) {
      state = UDP_NEW;
      words[base + TCP_LAST] = now + STREAM_AFTER_MS;
    } else if (protocol === ipv4.PROTO_ICMP) {
      const partner = replyType(ports & 0xff);
      if (partner < 0) return DROP_CT_INVALID_ICMP_REPLY;
      words[base + R_PORTS] = (ports & ~0xffff) | partner;
      state = ICMP_QUERY;
    } else if (protocol === ipv4.PROTO_SCTP) {
      state = openSctp(this.view, p);
      if (state < 0) return -state;
    } else if (protocol === ipv4.PROTO_GRE) {
      state = GRE_NEW;
    }
    words[base + META] = (words[base + META] & ~(STATE_MASK << STATE_SHIFT)) | (state << STATE_SHIFT);
    words[base + DEADLINE] = now + (timeout >= 0 ? timeout : this.timeouts[state]);
    p.flow = scratch;
    p.isNew = 1;
    return CONTINUE;
  }

  /** State of a flow that is not TCP. @returns its timeout, or -DROP_* */
  private trackDatagram(base: number, p: Packet, direction: number, now: number): number {
    const { words } = this.table;
    const meta = words[base + META];
    let state = (meta >>> STATE_SHIFT) & STATE_MASK;
    let flags = meta;
    if (p.protocol === ipv4.PROTO_UDP) {
      if ((meta & FLAG_SEEN_REPLY) !== 0 && state === UDP_NEW && ((now - words[base + TCP_LAST]) | 0) > 0) {
        state = UDP_STREAM;
        flags |= FLAG_ASSURED;
      }
    } else if (p.protocol === ipv4.PROTO_SCTP) {
      state = trackSctp(this.view, p, state);
      if (state < 0) return state;
      if (state === SCTP_ESTABLISHED && (direction === REPLY || (meta & FLAG_SEEN_REPLY) !== 0)) flags |= FLAG_ASSURED;
    } else if (p.protocol === ipv4.PROTO_GRE && (meta & FLAG_SEEN_REPLY) !== 0) {
      state = GRE_STREAM;
      flags |= FLAG_ASSURED;
    }
    words[base + META] = (flags & ~(STATE_MASK << STATE_SHIFT)) | (state << STATE_SHIFT);
    return this.timeouts[state];
  }

  /** Finds the flow of the packet that an ICMP error quotes. Errors never refresh a flow (RFC 5508 REQ-6). */
  private trackError(p: Packet, now: number): number {
    const { view } = this;
    const end = p.off + p.len;
    const quote = p.l4 + icmp.HEADER_LEN;
    if ((p.fragment & ipv4.FLAG_MF) !== 0) return DROP_CT_INVALID_ICMP_QUOTE;
    if (quote + ipv4.HEADER_LEN + 8 > end) return DROP_CT_INVALID_ICMP_QUOTE;
    const headerLen = ipv4.headerLen(view, quote);
    const l4 = quote + headerLen;
    if (view.getUint8(quote) >>> 4 !== 4 || headerLen < ipv4.HEADER_LEN || l4 + 8 > end) {
      return DROP_CT_INVALID_ICMP_QUOTE;
    }
    if ((view.getUint16(quote + ipv4.FLAGS_FRAGMENT) & ipv4.OFFSET_MASK) !== 0) return DROP_CT_INVALID_ICMP_QUOTE;
    const verified = (p.vnetFlags & (virtio.FLAG_NEEDS_CSUM | virtio.FLAG_DATA_VALID)) !== 0;
    if (!verified && foldSum(sumWords(view, p.l4, end - p.l4, 0)) !== 0xffff) return DROP_CT_ICMP_CHECKSUM;
    if (this.verifyQuotes && !ipv4.headerChecksumOk(view, quote, headerLen)) return DROP_CT_ICMP_CHECKSUM;

    const src = view.getInt32(quote + ipv4.SRC);
    const dst = view.getInt32(quote + ipv4.DST);
    const protocol = view.getUint8(quote + ipv4.PROTOCOL);
    let ports = 0;
    if (ipv4.hasPorts(protocol)) {
      const quoted = view.getInt32(l4);
      ports = (quoted << 16) | (quoted >>> 16);
    } else if (protocol === ipv4.PROTO_ICMP) {
      const partner = partnerType(view.getUint8(l4 + icmp.TYPE));
      if (partner < 0) return DROP_CT_INVALID_ICMP_QUOTE;
      ports = (view.getUint16(l4 + icmp.ID) << 16) | partner;
    }
    // An error goes to whoever sent the packet; to anybody else it is forged.
    if (src !== p.dst) return DROP_CT_INVALID_ICMP_QUOTE;
    // The answer to the quoted packet would have travelled as the error does.
    const ref = this.table.find(dst, src, ports, protocol, now);
    if (ref < 0) return DROP_CT_ICMP_NO_FLOW;
    p.flow = ref >>> 1;
    p.direction = ref & 1;
    p.isRelated = 1;
    return CONTINUE;
  }

  /** @returns where the copy of the entry at `base` begins */
  private copyToScratch(base: number): number {
    const { words, ownScratch } = this.table;
    const at = ownScratch << ENTRY_SHIFT;
    this.client?.flowAbandoned(at);
    words.copyWithin(at, base, base + ENTRY_WORDS);
    // What the flow has is not the copy's to give back.
    words[at + ATTACHED_FAR] = 0;
    return at;
  }

  private shorten(base: number, timeout: number, now: number): void {
    const { words } = this.table;
    const left = (words[base + DEADLINE] - now) | 0;
    if (left >= SHORTEN_FROM_MS && left > timeout) words[base + DEADLINE] = now + timeout;
  }
}

/** The type that answers an ICMP query, or -1 for what is not a question. */
function replyType(type: number): number {
  if (type === icmp.ECHO) return icmp.ECHO_REPLY;
  return type === icmp.TIMESTAMP || type === 15 || type === 17 ? type + 1 : -1;
}

/** The other type of a query pair, or -1. */
function partnerType(type: number): number {
  if (type === icmp.ECHO_REPLY) return icmp.ECHO;
  const reply = replyType(type);
  if (reply >= 0) return reply;
  return type === icmp.TIMESTAMP + 1 || type === 16 || type === 18 ? type - 1 : -1;
}

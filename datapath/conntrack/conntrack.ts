/**
 * Connection tracking and translation as the path calls it. First everything is decided, for each packet in this order:
 *
 *   track(p)                     finds the packet's flow or begins one, judges the packet
 *     known flow, or isRelated:  follow(p), and the packet's new addresses are known
 *     isNew:                     translateDestination(p, ...)   the service step, if it picks a backend
 *                                translateSource(p, ...)        the masquerade step, if a rule says so
 *                                confirm(p)                     when nothing has dropped it: now the flow exists
 *
 * and then done: translate(p) rewrites the packet as its flow says.
 *
 * What the steps need to know lies on the packet, in `flow`, `direction`, `isNew` and `isRelated`; nothing is allocated.
 * Until confirm(), `flow` of a packet that begins one is the scratch entry that it is built in.
 *
 * No packet leaves half translated: what cannot be judged, or not be rewritten, is dropped with a reason. Unlike Linux,
 * where an INVALID packet passes as it came, and a backend's late answer with it (kubernetes#74839).
 */
import { EndpointMappings, type Filtering } from '../nat/mapping.ts';
import { NO_PORT, PortAllocator, type PortOptions } from '../nat/ports.ts';
import { hasPorts, packDeltas, rewriteIcmpError, rewritePacket } from '../nat/rewrite.ts';
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
  DROP_NAT_CANNOT_REWRITE,
  DROP_NAT_FILTERED,
  DROP_NAT_PORTS_EXHAUSTED,
} from '../verdict.ts';
import { foldSum, sumWords } from '../wire/checksum.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as virtio from '../wire/virtio-net.ts';
import { openSctp, trackSctp } from './sctp.ts';
import {
  BACKEND,
  CREATED,
  DEADLINE,
  DELTA,
  EGRESS_RULE,
  ENTRY_SHIFT,
  ENTRY_WORDS,
  FLAG_ASSURED,
  FLAG_DNAT,
  FLAG_SEEN_REPLY,
  FLAG_SNAT,
  FLAGS_NAT,
  type FlowOwner,
  FlowTable,
  type FullPolicy,
  GENERATION,
  INGRESS_RULE,
  LAST_SEEN,
  MAPPING,
  META,
  O_DST,
  O_PORTS,
  O_SRC,
  ORIGINAL,
  POLICY_EPOCH,
  PROTOCOL_MASK,
  R_DST,
  R_PORTS,
  R_SRC,
  REFUSED_CLASH,
  REFUSED_QUOTA,
  REPLY,
  RULE,
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
  SCTP_SHUTDOWN,
  STATE_NAMES,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_SYN_SENT,
  type TimeoutProfile,
  timeoutsOf,
  UDP_NEW,
  UDP_STREAM,
} from './timeouts.ts';

/** What conntrack needs to know of services (nat/service.ts). */
export interface BackendOwner {
  /** 1 for a backend that is gone: its flows that are not established TCP begin anew. Indexed by backend number. */
  readonly gone: Uint8Array;
  /** True if a service sends flows to this endpoint. */
  isBackend(address: number, port: number, protocol: number): boolean;
  /** A flow to the backend begins (1) or ends (-1). */
  countFlow(backend: number, change: number): void;
}

export interface ConntrackOptions {
  /** Flows, 16 to 4 Mi. */
  capacity: number;
  random: Random;
  whenFull?: FullPolicy;
  /** Flows per source address; 0: no limit. */
  perSource?: number;
  profile?: TimeoutProfile;
  /** Seconds by state instead of the profile's. */
  timeouts?: Record<number, number>;
  tcp?: TcpOptions;
  ports?: PortOptions;
  /** Endpoint-independent mapping (RFC 4787), with room for so many mappings. */
  mappings?: { capacity: number; filtering?: Filtering };
  /** ICMP errors through a DNAT keep the address of the router that sent them; Linux shows the service's instead. */
  keepIcmpSource?: boolean;
  /** Refuse an ICMP error whose quoted header has a wrong checksum (RFC 5508 REQ-3a); Linux does not look. */
  verifyQuotes?: boolean;
  /** Memory for the flow table, see TableOptions. */
  memory?: (bytes: number) => Uint8Array;
}

/** One flow, for listings. Addresses int32; deadlines in ms. */
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
  snat: boolean;
  dnat: boolean;
  backend: number;
  rule: number;
  /** The policies that judged it last, and which of their rules let it leave its pod and enter the other (path/policy.ts). */
  policyEpoch: number;
  egressRule: number;
  ingressRule: number;
}

/** Which flows a deletion means; an absent field means any. */
export interface FlowFilter {
  protocol?: number;
  /** Original tuple. */
  src?: number;
  dst?: number;
  sport?: number;
  dport?: number;
  /** Reply tuple: where the flow goes, and the outside address that it has. */
  replySrc?: number;
  replyDst?: number;
  backend?: number;
}

/** UDP: both ways for this long makes a stream (Linux: 2 s). */
const STREAM_AFTER_MS = 2000;
/** An invalid FIN or RST shortens only deadlines beyond this (Linux). */
const SHORTEN_FROM_MS = 120_000;

export class Conntrack implements FlowOwner {
  readonly table: FlowTable;
  readonly ports: PortAllocator;
  readonly mappings: EndpointMappings | null;
  readonly tcp: TcpTracker;
  backends: BackendOwner | null = null;

  private readonly view: DataView;
  /** Milliseconds by state (timeouts.ts). */
  readonly timeouts: Int32Array;
  private readonly keepIcmpSource: boolean;
  verifyQuotes: boolean;

  /** @param view the pool's view */
  constructor(view: DataView, options: ConntrackOptions) {
    this.view = view;
    this.table = new FlowTable(options);
    this.table.owner = this;
    this.ports = new PortAllocator(this.table, options.random, options.ports);
    this.timeouts = timeoutsOf(options.profile ?? 'linux', options.timeouts);
    this.tcp = new TcpTracker(this.timeouts, options.tcp);
    this.keepIcmpSource = options.keepIcmpSource ?? false;
    this.verifyQuotes = options.verifyQuotes ?? false;
    this.mappings =
      options.mappings === undefined
        ? null
        : new EndpointMappings(options.mappings.capacity, options.random, options.mappings.filtering, options.memory);
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
    const backend = words[base + BACKEND];
    if (backend !== 0 && direction === ORIGINAL && this.hasLostBackend(backend, meta)) {
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
   * Gives a packet of a known flow, or a related ICMP error, the addresses that it will leave with: newSrc, newDst,
   * translated. Its bytes stay.
   * @returns CONTINUE or DROP_NAT_CANNOT_REWRITE
   */
  follow(p: Packet): number {
    const { words } = this.table;
    const base = p.flow << ENTRY_SHIFT;
    const meta = words[base + META];
    if ((meta & FLAGS_NAT) === 0) return CONTINUE;
    // The other direction's tuple, reversed.
    const reply = p.direction === REPLY;
    const other = base + (reply ? O_SRC : R_SRC);
    if (p.isRelated === 0) {
      p.newSrc = words[other + 1];
    } else {
      // A redirect would tell its reader of an address that is none on its side (Linux: nf_nat_icmp_reply_translation).
      if (this.view.getUint8(p.l4 + icmp.TYPE) === icmp.REDIRECT) return DROP_NAT_CANNOT_REWRITE;
      // Its sender is a router; only where that is the translated end does it change.
      const sourceChanges = (meta & (reply ? FLAG_DNAT : FLAG_SNAT)) !== 0 && !(reply && this.keepIcmpSource);
      if (sourceChanges) p.newSrc = words[other + 1];
    }
    p.newDst = words[other];
    p.translated = p.newSrc !== p.src || p.newDst !== p.dst ? 1 : 0;
    return CONTINUE;
  }

  /**
   * The same for a later fragment, like for the first one. Whoever holds fragments keeps the flow, its generation() and
   * the direction of the first fragment, once confirm() has been called for it, and gives all three to the later ones.
   * @returns CONTINUE, or DROP_CT_FRAGMENT if the flow has gone in between
   */
  followFirst(p: Packet): number {
    p.isNew = 0;
    p.isRelated = 0;
    if (p.flow === 0 || this.generation(p.flow) !== p.generation) return DROP_CT_FRAGMENT;
    return this.follow(p);
  }

  /**
   * Rewrites a packet as its flow says, which it belongs to or is an error about.
   * @returns CONTINUE or DROP_NAT_CANNOT_REWRITE
   */
  translate(p: Packet): number {
    const base = p.flow << ENTRY_SHIFT;
    // 0: an error of our own about a packet that no flow came of.
    if (base === 0 || (this.table.words[base + META] & FLAGS_NAT) === 0) return CONTINUE;
    if (p.isRelated === 0) return this.translatePacket(p, base);
    this.translateError(p, base);
    return CONTINUE;
  }

  /** Changes whenever the entry is used for another flow; 16 bits. */
  generation(flow: number): number {
    return this.table.words[(flow << ENTRY_SHIFT) + GENERATION] >>> 16;
  }

  /**
   * Sends the new flow of the packet to `address` and `port` (ignored where there are no ports).
   * @param backend number of the backend it was given, 0 for none
   * @returns CONTINUE
   */
  translateDestination(p: Packet, address: number, port: number, backend: number): number {
    const { words } = this.table;
    const base = p.flow << ENTRY_SHIFT;
    words[base + BACKEND] = backend;
    const target = hasPorts(p.protocol) ? port : p.dstPort;
    if (address === p.dst && target === p.dstPort) return CONTINUE;
    p.newDst = address;
    words[base + R_SRC] = address;
    if (hasPorts(p.protocol)) words[base + R_PORTS] = (target << 16) | (words[base + R_PORTS] & 0xffff);
    words[base + META] |= FLAG_DNAT;
    return CONTINUE;
  }

  /**
   * Gives the new flow of the packet the outside address `address`, and a port that makes it unique.
   * @param rule number of the rule that says so, shown in listings
   * @param keepPort false: --random-fully
   * @param min first port of a range for this rule, 0 for none
   * @returns CONTINUE, or DROP_NAT_PORTS_EXHAUSTED (answer with ICMP 3/13, RFC 5508 REQ-8)
   */
  translateSource(p: Packet, address: number, rule: number, keepPort: boolean, now: number, min = 0, max = 0): number {
    this.table.words[(p.flow << ENTRY_SHIFT) + RULE] = rule;
    if (address === p.src && keepPort && min === 0) return CONTINUE;
    // Rule 0: no masquerade of an inside host, but what brings a service's answers back here.
    const port =
      this.mappings === null || rule === 0
        ? this.ports.allocate(p.flow, address, keepPort, now | 0, min, max)
        : this.mapSource(this.mappings, p, address, keepPort, now | 0, min, max);
    if (port === NO_PORT) return DROP_NAT_PORTS_EXHAUSTED;
    this.setSource(p, address, port);
    return CONTINUE;
  }

  /**
   * With endpoint-independent mapping: a new flow to a masquerade address may belong to a mapping.
   * @param fromInside a hairpin, which no filter is meant for (RFC 4787 REQ-9); an ICMP query is none, but for the host
   * @returns CONTINUE: with a new destination if a mapping is there;
   *   DROP_NAT_FILTERED: the mapping is not for this sender
   */
  translateInbound(p: Packet, now: number, fromInside: boolean): number {
    const mappings = this.mappings;
    if (mappings === null || (fromInside && !hasPorts(p.protocol))) return CONTINUE;
    const port = p.protocol === ipv4.PROTO_ICMP ? p.srcPort : p.dstPort;
    const mapping = mappings.findOutside(p.protocol, p.dst, port, now | 0);
    if (mapping === 0) return CONTINUE;
    const admitted = fromInside || (p.protocol !== ipv4.PROTO_ICMP && mappings.admits(mapping, p.src));
    if (!admitted) return DROP_NAT_FILTERED;
    this.table.words[(p.flow << ENTRY_SHIFT) + MAPPING] = mapping;
    return this.translateDestination(p, mappings.insideAddress(mapping), mappings.insidePort(mapping), 0);
  }

  /**
   * Puts the new flow into the table. If its reply tuple is taken by another flow, it gets another source port, as
   * Linux's null binding does: two clients' flows through two services may meet at one backend.
   *
   * A probe's flow is not entered: it stays in scratch space.
   *
   * @returns CONTINUE and `p.flow` set; DROP_CT_TABLE_FULL, DROP_CT_SOURCE_QUOTA, DROP_CT_TUPLE_TAKEN,
   *   DROP_NAT_PORTS_EXHAUSTED, DROP_NAT_CANNOT_REWRITE
   */
  confirm(p: Packet, now: number): number {
    now |= 0;
    const { words } = this.table;
    const scratch = p.flow;
    const built = scratch << ENTRY_SHIFT;
    if (p.probe !== 0) return CONTINUE;
    if (!this.canRewrite(p, built)) return DROP_NAT_CANNOT_REWRITE;
    let flow = this.insert(scratch, now);
    if (flow === REFUSED_CLASH) {
      const address = words[built + R_DST];
      const port = this.ports.allocate(scratch, address, true, now);
      if (port === NO_PORT) return DROP_NAT_PORTS_EXHAUSTED;
      this.setSource(p, address, port);
      if (!this.canRewrite(p, built)) return DROP_NAT_CANNOT_REWRITE;
      flow = this.insert(scratch, now);
    }
    if (flow < 0) {
      this.dropMapping(built);
      if (flow === REFUSED_CLASH) return DROP_CT_TUPLE_TAKEN;
      return flow === REFUSED_QUOTA ? DROP_CT_SOURCE_QUOTA : DROP_CT_TABLE_FULL;
    }
    const base = flow << ENTRY_SHIFT;
    if ((words[base + META] & FLAG_SNAT) !== 0) this.ports.record(flow);
    if (words[base + BACKEND] !== 0 && this.backends !== null) this.backends.countFlow(words[base + BACKEND], 1);
    if (words[base + MAPPING] !== 0 && this.mappings !== null) {
      this.mappings.join(words[base + MAPPING], this.remoteOf(base));
      words[built + MAPPING] = 0;
    }
    p.flow = flow;
    return CONTINUE;
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

  /** The third word of a parsed packet's tuple. */
  private portsOf(p: Packet): number {
    // The tuple of a query is its identifier and type: an echo request from either side is a flow of its own.
    const low = p.protocol === ipv4.PROTO_ICMP ? this.view.getUint8(p.l4 + icmp.TYPE) : p.dstPort;
    return (p.srcPort << 16) | low;
  }

  /** Number of the masquerade rule that the flow matched, 0 for none. */
  rule(flow: number): number {
    return this.table.words[(flow << ENTRY_SHIFT) + RULE];
  }

  /** Backend number of the flow, 0 for none. */
  backend(flow: number): number {
    return this.table.words[(flow << ENTRY_SHIFT) + BACKEND];
  }

  /** True once packets of both directions have been seen. */
  isAnswered(flow: number): boolean {
    return (this.table.words[(flow << ENTRY_SHIFT) + META] & FLAG_SEEN_REPLY) !== 0;
  }

  /** Expires flows, a bounded number per call. To be called once per burst. @returns as FlowTable.tick */
  tick(now: number): number {
    return this.table.tick(now | 0);
  }

  /**
   * Flows for a listing, from among the next `limit` entries. Start with 1; a long table is read in pieces between
   * bursts. @returns where to go on; 0 at the end
   */
  list(from: number, limit: number, now: number, into: FlowRow[]): number {
    return this.table.walk(from, limit, now | 0, flow => into.push(this.row(flow, now | 0)));
  }

  /** Deletes matching flows among the next `limit` entries. @returns where to go on; 0 at the end */
  deleteMatching(filter: FlowFilter, from: number, limit: number, now: number): number {
    return this.table.walk(from, limit, now | 0, flow => {
      if (this.matches(flow, filter)) this.table.remove(flow);
    });
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
      snat: (meta & FLAG_SNAT) !== 0,
      dnat: (meta & FLAG_DNAT) !== 0,
      backend: words[base + BACKEND],
      rule: words[base + RULE],
      policyEpoch: words[base + POLICY_EPOCH],
      egressRule: words[base + EGRESS_RULE],
      ingressRule: words[base + INGRESS_RULE],
    };
  }

  /** FlowOwner: called by the table for every flow that goes. */
  flowRemoved(flow: number): void {
    const base = flow << ENTRY_SHIFT;
    const { words } = this.table;
    if ((words[base + META] & FLAG_SNAT) !== 0) this.ports.release(flow);
    if (words[base + BACKEND] !== 0 && this.backends !== null) this.backends.countFlow(words[base + BACKEND], -1);
    if (words[base + MAPPING] !== 0 && this.mappings !== null) {
      this.mappings.leave(words[base + MAPPING], this.remoteOf(base));
    }
  }

  /** Builds a flow in scratch space from its first packet. */
  private begin(p: Packet, ports: number, now: number): number {
    const { words } = this.table;
    const protocol = p.protocol;
    const scratch = (p.local | p.probe) === 0 ? 0 : this.table.ownScratch;
    const base = scratch << ENTRY_SHIFT;
    if (words[base + MAPPING] !== 0) this.dropMapping(base); // of a flow that was dropped before it was confirmed
    words.fill(0, base, base + ENTRY_WORDS);
    words[base + O_SRC] = p.src;
    words[base + O_DST] = p.dst;
    words[base + O_PORTS] = ports;
    words[base + R_SRC] = p.dst;
    words[base + R_DST] = p.src;
    words[base + R_PORTS] = (ports << 16) | (ports >>> 16);
    words[base + META] = protocol;
    let state = GENERIC;
    let timeout = -1;
    if (protocol === ipv4.PROTO_TCP) {
      const verdict = this.tcp.open(words, base, this.view, p);
      if (verdict !== CONTINUE) return verdict;
      state = (words[base + META] >>> STATE_SHIFT) & STATE_MASK;
      timeout = p.timeout;
      // The middle of a connection, seen from the server: its client knows it under the service's address only.
      if (state !== TCP_SYN_SENT && this.backends?.isBackend(p.src, p.srcPort, protocol)) return DROP_CT_BACKEND_PICKUP;
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
    if (hasPorts(protocol)) {
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

  private translateError(p: Packet, base: number): void {
    const { words } = this.table;
    // The quote becomes the packet as it was on the other side: the other direction's tuple.
    const other = base + (p.direction === REPLY ? O_SRC : R_SRC);
    rewriteIcmpError(this.view, p, p.newSrc, p.newDst, words[other], words[other + 1], words[other + 2]);
  }

  private translatePacket(p: Packet, base: number): number {
    const { words } = this.table;
    const { direction } = p;
    const mine = base + (direction === ORIGINAL ? O_SRC : R_SRC);
    const other = base + (direction === ORIGINAL ? R_SRC : O_SRC);
    const reversed = words[other + 2];
    const ports =
      p.protocol === ipv4.PROTO_ICMP
        ? (reversed & ~0xffff) | (words[mine + 2] & 0xffff)
        : (reversed << 16) | (reversed >>> 16);
    const deltas = direction === ORIGINAL ? words[base + DELTA] : ~words[base + DELTA];
    const done = rewritePacket(this.view, p, words[other + 1], words[other], ports, deltas);
    return done ? CONTINUE : DROP_NAT_CANNOT_REWRITE;
  }

  /** Gives the new flow's reply tuple, and so the packet, a chosen source. */
  private setSource(p: Packet, address: number, port: number): void {
    const { words } = this.table;
    const isIcmp = p.protocol === ipv4.PROTO_ICMP;
    p.newSrc = address;
    const base = p.flow << ENTRY_SHIFT;
    const reply = words[base + R_PORTS];
    words[base + R_DST] = address;
    words[base + R_PORTS] = isIcmp ? (port << 16) | (reply & 0xffff) : (reply & ~0xffff) | port;
    words[base + META] |= FLAG_SNAT;
  }

  /** False where the packet cannot get its flow's ports: the CRC32c of SCTP covers bytes that another fragment has. */
  private canRewrite(p: Packet, base: number): boolean {
    if (p.protocol !== ipv4.PROTO_SCTP || !ipv4.isFragment(p.fragment)) return true;
    const reply = this.table.words[base + R_PORTS];
    return ((reply << 16) | (reply >>> 16)) === ((p.srcPort << 16) | p.dstPort);
  }

  /** @returns where the copy of the entry at `base` begins */
  private copyToScratch(base: number): number {
    const { words, ownScratch } = this.table;
    const at = ownScratch << ENTRY_SHIFT;
    this.dropMapping(at);
    words.copyWithin(at, base, base + ENTRY_WORDS);
    // Those of the flow itself are not the copy's to give back.
    words[at + MAPPING] = 0;
    return at;
  }

  /** The source port by endpoint-independent mapping: the mapping's, or a new mapping's. */
  private mapSource(
    mappings: EndpointMappings,
    p: Packet,
    address: number,
    keepPort: boolean,
    now: number,
    min: number,
    max: number,
  ): number {
    const { words } = this.table;
    const { flow, protocol } = p;
    const base = flow << ENTRY_SHIFT;
    if (protocol !== ipv4.PROTO_ICMP && !hasPorts(protocol)) {
      return this.ports.allocate(flow, address, keepPort, now, min, max);
    }
    const source = words[base + O_SRC];
    const inside = words[base + O_PORTS] >>> 16;
    const known = mappings.findInside(protocol, source, inside, address, now);
    if (known !== 0) {
      words[base + MAPPING] = known;
      return mappings.outsidePort(known);
    }
    // A port may be free towards this destination and yet be somebody's mapping: ask again, bounded.
    for (let attempt = 0; attempt < 128; attempt++) {
      const port = this.ports.allocate(flow, address, keepPort && attempt === 0, now, min, max);
      if (port === NO_PORT) return NO_PORT;
      const mapping = mappings.create(protocol, source, inside, address, port, now);
      if (mapping !== 0) {
        words[base + MAPPING] = mapping;
        return port;
      }
    }
    return NO_PORT;
  }

  /** Forgets the mapping that a flow was given which did not come to be. */
  private dropMapping(base: number): void {
    const mapping = this.table.words[base + MAPPING];
    if (mapping !== 0 && this.mappings !== null) this.mappings.discard(mapping);
    this.table.words[base + MAPPING] = 0;
  }

  /** The host on the far side of the flow's mapping. */
  private remoteOf(base: number): number {
    const { words } = this.table;
    return (words[base + META] & FLAG_SNAT) !== 0 ? words[base + R_SRC] : words[base + O_SRC];
  }

  private insert(scratch: number, now: number): number {
    const { words } = this.table;
    const base = scratch << ENTRY_SHIFT;
    const isIcmp = (words[base + META] & PROTOCOL_MASK) === ipv4.PROTO_ICMP;
    const ports = words[base + O_PORTS];
    const reply = words[base + R_PORTS];
    const newPorts = isIcmp ? (reply & ~0xffff) | (ports & 0xffff) : (reply << 16) | (reply >>> 16);
    words[base + DELTA] = packDeltas(
      words[base + O_SRC],
      words[base + O_DST],
      ports,
      words[base + R_DST],
      words[base + R_SRC],
      newPorts,
    );
    return this.table.insert(now, scratch);
  }

  /** True if the flow must begin anew because its backend is gone. Established TCP may finish. */
  private hasLostBackend(backend: number, meta: number): boolean {
    if (this.backends === null || this.backends.gone[backend] !== 1) return false;
    const state = (meta >>> STATE_SHIFT) & STATE_MASK;
    if ((meta & PROTOCOL_MASK) === ipv4.PROTO_SCTP) return state !== SCTP_ESTABLISHED && state !== SCTP_SHUTDOWN;
    return (meta & PROTOCOL_MASK) !== ipv4.PROTO_TCP || state < TCP_ESTABLISHED || state > TCP_CLOSE;
  }

  private shorten(base: number, timeout: number, now: number): void {
    const { words } = this.table;
    const left = (words[base + DEADLINE] - now) | 0;
    if (left >= SHORTEN_FROM_MS && left > timeout) words[base + DEADLINE] = now + timeout;
  }

  private matches(flow: number, filter: FlowFilter): boolean {
    const { words } = this.table;
    const base = flow << ENTRY_SHIFT;
    const is = (wanted: number | undefined, value: number) => wanted === undefined || wanted === value;
    return (
      is(filter.protocol, words[base + META] & PROTOCOL_MASK) &&
      is(filter.src, words[base + O_SRC]) &&
      is(filter.dst, words[base + O_DST]) &&
      is(filter.sport, words[base + O_PORTS] >>> 16) &&
      is(filter.dport, words[base + O_PORTS] & 0xffff) &&
      is(filter.replySrc, words[base + R_SRC]) &&
      is(filter.replyDst, words[base + R_DST]) &&
      is(filter.backend, words[base + BACKEND])
    );
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

/**
 * Translation: what flows make of addresses and ports. A client of connection tracking (flow/), called between its steps.
 * First everything is decided, for each packet in this order:
 *
 *   flows.track(p)
 *     known flow, or isRelated:  follow(p), and the packet's new addresses are known
 *     isNew:                     translateDestination(p, ...)   the service step, if it picks a backend
 *                                translateSource(p, ...)        the masquerade step, if a rule says so
 *                                confirm(p)                     when nothing has dropped it: now the flow exists
 *
 * and then done: translate(p) rewrites the packet as its flow says. No packet leaves half translated: what cannot be
 * rewritten is dropped with a reason.
 */
import type { FlowClient, FlowRow, Flows } from '../flow/flows.ts';
import {
  ENTRY_SHIFT,
  type FlowTable,
  META,
  O_DST,
  O_PORTS,
  O_SRC,
  ORIGINAL,
  PROTOCOL_MASK,
  R_DST,
  R_PORTS,
  R_SRC,
  REPLY,
  STATE_MASK,
  STATE_SHIFT,
} from '../flow/table.ts';
import { SCTP_ESTABLISHED, SCTP_SHUTDOWN, TCP_CLOSE, TCP_ESTABLISHED } from '../flow/timeouts.ts';
import type { Packet } from '../packet/packet.ts';
import type { Random } from '../random.ts';
import {
  CONTINUE,
  DROP_CT_TUPLE_TAKEN,
  DROP_NAT_CANNOT_REWRITE,
  DROP_NAT_FILTERED,
  DROP_NAT_PORTS_EXHAUSTED,
} from '../verdict.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { BACKEND, DELTA, FLAG_DNAT, FLAG_SNAT, FLAGS_NAT, MAPPING, RULE } from './flow-words.ts';
import { EndpointMappings, type Filtering } from './mapping.ts';
import { NO_PORT, PortAllocator, type PortOptions } from './ports.ts';
import { packDeltas, rewriteIcmpError, rewritePacket } from './rewrite.ts';

/** What translation needs to know of services (service.ts). */
export interface BackendOwner {
  /** 1 for a backend that is gone: its flows that are not established TCP begin anew. Indexed by backend number. */
  readonly gone: Uint8Array;
  /** True if a service sends flows to this endpoint. */
  isBackend(address: number, port: number, protocol: number): boolean;
  /** A flow to the backend begins (1) or ends (-1). */
  countFlow(backend: number, change: number): void;
}

export interface TranslationOptions {
  random: Random;
  ports?: PortOptions;
  /** Endpoint-independent mapping (RFC 4787), with room for so many mappings. */
  mappings?: { capacity: number; filtering?: Filtering };
  /** Memory for mappings, see TableOptions. */
  memory?: (bytes: number) => Uint8Array;
}

/** One flow, for listings, with what is translated of it. */
export interface TranslatedRow extends FlowRow {
  snat: boolean;
  dnat: boolean;
  backend: number;
  rule: number;
}

/** A flow as a row, whether anything is translated or not. */
export function rowOf(flows: Flows, flow: number, now: number): TranslatedRow {
  const { words } = flows.table;
  const base = flow << ENTRY_SHIFT;
  const meta = words[base + META];
  return {
    ...flows.row(flow, now),
    snat: (meta & FLAG_SNAT) !== 0,
    dnat: (meta & FLAG_DNAT) !== 0,
    backend: words[base + BACKEND],
    rule: words[base + RULE],
  };
}

export class Translation implements FlowClient {
  readonly ports: PortAllocator;
  readonly mappings: EndpointMappings | null;
  backends: BackendOwner | null = null;

  private readonly view: DataView;
  private readonly flows: Flows;
  private readonly table: FlowTable;

  /**
   * Becomes the client of `flows`.
   * @param view the pool's view
   */
  constructor(view: DataView, flows: Flows, options: TranslationOptions) {
    const { random, ports, mappings, memory } = options;
    this.view = view;
    this.flows = flows;
    this.table = flows.table;
    flows.client = this;
    this.ports = new PortAllocator(this.table, random, ports);
    this.mappings =
      mappings === undefined ? null : new EndpointMappings(mappings.capacity, random, mappings.filtering, memory);
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
    // 0: an error of our own about a packet that no flow came of; what is being built there is not its.
    if (base === 0 || (meta & FLAGS_NAT) === 0) return CONTINUE;
    // The other direction's tuple, reversed.
    const reply = p.direction === REPLY;
    const other = base + (reply ? O_SRC : R_SRC);
    if (p.isRelated === 0) {
      p.newSrc = words[other + 1];
    } else {
      // A redirect would tell its reader of an address that is none on its side (Linux: nf_nat_icmp_reply_translation).
      if (this.view.getUint8(p.l4 + icmp.TYPE) === icmp.REDIRECT) return DROP_NAT_CANNOT_REWRITE;
      // Its sender is a router; only where that is the translated end does it change.
      const sourceChanges = (meta & (reply ? FLAG_DNAT : FLAG_SNAT)) !== 0;
      if (sourceChanges) p.newSrc = words[other + 1];
    }
    p.newDst = words[other];
    p.translated = p.newSrc !== p.src || p.newDst !== p.dst ? 1 : 0;
    return CONTINUE;
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

  /**
   * Sends the new flow of the packet to `address` and `port` (ignored where there are no ports).
   * @param backend number of the backend it was given, 0 for none
   * @returns CONTINUE
   */
  translateDestination(p: Packet, address: number, port: number, backend: number): number {
    const { words } = this.table;
    const base = p.flow << ENTRY_SHIFT;
    words[base + BACKEND] = backend;
    const target = ipv4.hasPorts(p.protocol) ? port : p.dstPort;
    if (address === p.dst && target === p.dstPort) return CONTINUE;
    p.newDst = address;
    words[base + R_SRC] = address;
    if (ipv4.hasPorts(p.protocol)) words[base + R_PORTS] = (target << 16) | (words[base + R_PORTS] & 0xffff);
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
    if (mappings === null || (fromInside && !ipv4.hasPorts(p.protocol))) return CONTINUE;
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
    let verdict = this.insert(p, now);
    if (verdict === DROP_CT_TUPLE_TAKEN) {
      const address = words[built + R_DST];
      const port = this.ports.allocate(scratch, address, true, now);
      if (port === NO_PORT) return DROP_NAT_PORTS_EXHAUSTED;
      this.setSource(p, address, port);
      if (!this.canRewrite(p, built)) return DROP_NAT_CANNOT_REWRITE;
      verdict = this.insert(p, now);
    }
    if (verdict !== CONTINUE) {
      this.flowAbandoned(built);
      return verdict;
    }
    const { flow } = p;
    const base = flow << ENTRY_SHIFT;
    if ((words[base + META] & FLAG_SNAT) !== 0) this.ports.record(flow);
    if (words[base + BACKEND] !== 0 && this.backends !== null) this.backends.countFlow(words[base + BACKEND], 1);
    if (words[base + MAPPING] !== 0 && this.mappings !== null) {
      this.mappings.join(words[base + MAPPING], this.remoteOf(base));
      words[built + MAPPING] = 0;
    }
    return CONTINUE;
  }

  /** Backend number of the flow, 0 for none. */
  backend(flow: number): number {
    return this.table.words[(flow << ENTRY_SHIFT) + BACKEND];
  }

  /** FlowClient: true if the flow must begin anew because its backend is gone. Established TCP may finish. */
  isStale(base: number): boolean {
    const { words } = this.table;
    const meta = words[base + META];
    if (this.backends === null || this.backends.gone[words[base + BACKEND]] !== 1) return false;
    const state = (meta >>> STATE_SHIFT) & STATE_MASK;
    if ((meta & PROTOCOL_MASK) === ipv4.PROTO_SCTP) return state !== SCTP_ESTABLISHED && state !== SCTP_SHUTDOWN;
    return (meta & PROTOCOL_MASK) !== ipv4.PROTO_TCP || state < TCP_ESTABLISHED || state > TCP_CLOSE;
  }

  /** FlowClient: not from a server whose client knows it under the service's address only. */
  mayPickUp(p: Packet): boolean {
    return this.backends === null || !this.backends.isBackend(p.src, p.srcPort, p.protocol);
  }

  /** FlowClient: forgets the mapping that a flow was given which did not come to be. */
  flowAbandoned(base: number): void {
    const mapping = this.table.words[base + MAPPING];
    if (mapping !== 0 && this.mappings !== null) this.mappings.discard(mapping);
    this.table.words[base + MAPPING] = 0;
  }

  /** FlowClient. */
  flowRemoved(flow: number): void {
    const base = flow << ENTRY_SHIFT;
    const { words } = this.table;
    if ((words[base + META] & FLAG_SNAT) !== 0) this.ports.release(flow);
    if (words[base + BACKEND] !== 0 && this.backends !== null) this.backends.countFlow(words[base + BACKEND], -1);
    if (words[base + MAPPING] !== 0 && this.mappings !== null) {
      this.mappings.leave(words[base + MAPPING], this.remoteOf(base));
    }
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
    if (protocol !== ipv4.PROTO_ICMP && !ipv4.hasPorts(protocol)) {
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

  /** The host on the far side of the flow's mapping. */
  private remoteOf(base: number): number {
    const { words } = this.table;
    return (words[base + META] & FLAG_SNAT) !== 0 ? words[base + R_SRC] : words[base + O_SRC];
  }

  private insert(p: Packet, now: number): number {
    const { words } = this.table;
    const base = p.flow << ENTRY_SHIFT;
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
    return this.flows.confirm(p, now);
  }
}

/**
 * A node over memory for the questions of scale: a pod port with 64 addresses, an uplink, and packets that are written
 * straight into the slots, so that millions of them cost no more than the path does.
 */
import { ManualClock } from '../../datapath/clock.ts';
import {
  Counters,
  EVENT_ARP_RECEIVED,
  EVENT_ARP_REPLY_SENT,
  EVENT_ARP_REQUEST_SENT,
  EVENT_ICMP_UNREACHABLE_SENT,
  PORT_READS,
  PORT_WRITES,
} from '../../datapath/counters.ts';
import type { Datapath } from '../../datapath/forward.ts';
import type { Device } from '../../datapath/io/device.ts';
import type { MasqueradeRule } from '../../datapath/nat/masquerade.ts';
import type { Service } from '../../datapath/nat/service.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import type { PolicyProgram } from '../../datapath/policy/policies.ts';
import { PORT_POD, PORT_UPLINK } from '../../datapath/port.ts';
import type { ProfileName } from '../../datapath/profile.ts';
import { createDatapath } from '../../datapath/program/install.ts';
import { hopProgram } from '../../datapath/program/program.ts';
import { Random } from '../../datapath/random.ts';
import * as hops from '../../datapath/route/nexthop.ts';
import { VERDICT_NAMES } from '../../datapath/verdict.ts';
import * as arp from '../../datapath/wire/arp.ts';
import * as ethernet from '../../datapath/wire/ethernet.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import * as tcp from '../../datapath/wire/tcp.ts';

export const PODS = Array.from({ length: 64 }, (_, i) => (0x0af40101 + i) | 0);
export const NODE = 0xc0a80a01 | 0;
const GATEWAY = 0xc0a80afe | 0;
const MAC = { hi: 0x0200, lo: 1 };
const GATEWAY_MAC = { hi: 0x0200, lo: 2 };

/** A TCP packet to send; addresses int32. */
export interface Segment {
  src: number;
  dst: number;
  sport: number;
  dport: number;
  seq: number;
  ack: number;
  flags: number;
}

/** Reads segments that are asked for one by one, and keeps the headers of what is written. */
export class SegmentDevice implements Device {
  readonly name: string;
  readonly layer: 2 | 3;
  readonly mtu = 1500;
  readonly offloads = 0;
  readonly fd = -1;
  /** Segments to read: filled by `next` until it says that there is none. */
  next: (segment: Segment) => boolean = () => false;
  /** Called with every packet written, at its IP header. */
  written: (view: DataView, at: number) => void = () => {};
  /** A frame that is read before any segment. */
  frame: Uint8Array | null = null;
  /** The gateway's request, for when the node asks for it. */
  arpFrame: Uint8Array | null = null;
  private readonly segment: Segment = { src: 0, dst: 0, sport: 0, dport: 0, seq: 0, ack: 0, flags: 0 };
  private readonly pool: Pool;

  constructor(pool: Pool, name: string, layer: 2 | 3) {
    this.pool = pool;
    this.name = name;
    this.layer = layer;
  }

  readBurst(slots: Packet[], max: number): number {
    if (this.frame !== null) {
      this.pool.bytes.set(this.frame, slots[0].off);
      slots[0].len = this.frame.length;
      this.frame = null;
      return 1;
    }
    let n = 0;
    while (n < max && this.next(this.segment)) this.fill(slots[n++]);
    return n;
  }

  write(p: Packet): number {
    const at = this.layer === 2 ? p.off + ethernet.HEADER_LEN : p.off;
    if (this.layer === 2 && this.pool.view.getUint16(p.off + ethernet.TYPE) !== ethernet.TYPE_IPV4) {
      // The gateway is there: it asks back, which tells as much as an answer.
      if (this.pool.view.getUint16(at + arp.OPER) === arp.REQUEST) this.frame = this.arpFrame;
      return 0;
    }
    this.written(this.pool.view, at);
    return 0;
  }

  close(): void {}

  private fill(p: Packet): void {
    const { view } = this.pool;
    const s = this.segment;
    let at = p.off;
    if (this.layer === 2) {
      ethernet.setMac(view, at + ethernet.DST, MAC.hi, MAC.lo);
      ethernet.setMac(view, at + ethernet.SRC, GATEWAY_MAC.hi, GATEWAY_MAC.lo);
      view.setUint16(at + ethernet.TYPE, ethernet.TYPE_IPV4);
      at += ethernet.HEADER_LEN;
    }
    const total = ipv4.HEADER_LEN + tcp.HEADER_LEN;
    view.setInt32(at, 0x45000000 | total);
    view.setInt32(at + ipv4.ID, 0);
    view.setInt32(at + ipv4.TTL, (64 << 24) | (ipv4.PROTO_TCP << 16));
    view.setInt32(at + ipv4.SRC, s.src);
    view.setInt32(at + ipv4.DST, s.dst);
    ipv4.setHeaderChecksum(view, at);
    const l4 = at + ipv4.HEADER_LEN;
    view.setInt32(l4, (s.sport << 16) | s.dport);
    view.setInt32(l4 + tcp.SEQ, s.seq);
    view.setInt32(l4 + tcp.ACK, s.ack);
    view.setInt32(l4 + tcp.DATA_OFFSET, (5 << 28) | (s.flags << 16) | 60000);
    view.setInt32(l4 + tcp.CHECKSUM, 1 << 16);
    p.len = at + total - p.off;
  }
}

export class World {
  readonly clock = new ManualClock();
  readonly counters = new Counters();
  readonly datapath: Datapath;
  readonly inside: SegmentDevice;
  readonly outside: SegmentDevice;

  constructor(options: {
    capacity: number;
    services?: Service[];
    rules?: MasqueradeRule[];
    profile?: ProfileName;
    policy?: PolicyProgram | null;
    memory?: (bytes: number) => Uint8Array;
  }) {
    const pool = new Pool(2048);
    const { clock, counters } = this;
    this.inside = new SegmentDevice(pool, 'inside', 3);
    this.outside = new SegmentDevice(pool, 'outside', 2);
    const hop = (kind: number, port: string, gateway = 0) => hopProgram(kind, { port, gateway, mtu: 1500 });
    this.datapath = createDatapath(
      {
        profile: options.profile ?? 'linux',
        underlay: { address: NODE, prefixLength: 24, macHi: MAC.hi, macLo: MAC.lo, mtu: 1500 },
        hostAddress: NODE,
        ports: [
          { kind: PORT_POD, name: 'inside', addresses: PODS, identity: 0, place: '' },
          { kind: PORT_UPLINK, name: 'outside', addresses: [NODE], identity: 2, place: '' },
        ],
        nextHops: [
          hop(hops.HOP_REFUSE, ''),
          hop(hops.HOP_POD, 'pod inside'),
          hop(hops.HOP_HOST, ''),
          hop(hops.HOP_GATEWAY, 'uplink outside', GATEWAY),
        ],
        routes: [
          ...PODS.map(prefix => ({ prefix, length: 32, hop: 1 })),
          { prefix: NODE, length: 32, hop: 2 },
          { prefix: 0, length: 0, hop: 3 },
        ],
        tunnels: [],
        neighbors: [],
        policy: options.policy ?? null,
        nat: {
          capacity: options.capacity,
          timeouts: { profile: 'linux', seconds: {} },
          ports: {},
          nodeAddresses: [NODE],
          services: options.services ?? [],
          rules: options.rules ?? [],
        },
      },
      [this.inside, this.outside],
      { pool, counters, clock, random: new Random(20261121), memory: options.memory },
    );
    this.meetGateway();
  }

  /** Lets both ports be read until neither has anything more. */
  work(): void {
    const [inside, outside] = this.datapath.ports;
    while (this.datapath.receive(inside) + this.datapath.receive(outside) > 0);
    this.datapath.tick();
  }

  /** Reasons with how many packets, most first. */
  drops(): Map<string, number> {
    const rows = VERDICT_NAMES.map((name, reason) => [name, this.counters.dropped(reason)] as const);
    return new Map(rows.filter(([name, n]) => name.startsWith('drop-') && n > 0).sort((a, b) => b[1] - a[1]));
  }

  /** Packets read and made, less those written, held, consumed (ARP) and dropped for a reason: 0. */
  unexplained(): number {
    const { counters } = this;
    const sum = (counter: number) => counters.ofPort(0, counter) + counters.ofPort(1, counter);
    const dropped = [...this.drops().values()].reduce((a, b) => a + b, 0);
    const made =
      counters.events(EVENT_ARP_REQUEST_SENT) +
      counters.events(EVENT_ARP_REPLY_SENT) +
      counters.events(EVENT_ICMP_UNREACHABLE_SENT);
    const consumed = counters.events(EVENT_ARP_RECEIVED) + this.datapath.neighbors.held;
    return sum(PORT_READS) + made - sum(PORT_WRITES) - dropped - consumed;
  }

  private meetGateway(): void {
    const frame = new Uint8Array(ethernet.HEADER_LEN + 28);
    const view = new DataView(frame.buffer);
    ethernet.setMac(view, ethernet.DST, 0xffff, -1);
    ethernet.setMac(view, ethernet.SRC, GATEWAY_MAC.hi, GATEWAY_MAC.lo);
    view.setUint16(ethernet.TYPE, ethernet.TYPE_ARP);
    const at = ethernet.HEADER_LEN;
    view.setInt32(at, 0x00010800);
    view.setInt32(at + 4, 0x06040000 | arp.REQUEST);
    ethernet.setMac(view, at + arp.SHA, GATEWAY_MAC.hi, GATEWAY_MAC.lo);
    view.setInt32(at + arp.SPA, GATEWAY);
    view.setInt32(at + arp.TPA, NODE);
    this.outside.frame = frame;
    this.outside.arpFrame = frame;
    this.work();
  }
}

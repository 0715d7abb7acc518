/** A SYN flood from random sources against a service with established connections: who loses what. */
import { PORT_RX_PACKETS } from '../../datapath/counters.ts';
import { Random } from '../../datapath/random.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import { ACK_FLAG, PSH, SYN } from '../../datapath/wire/tcp.ts';
import { PODS, World } from './world.ts';

const VIP = 0x0a60000a;
const CLIENTS = 0xcb007100 | 0; // 203.0.113.0
/** Flood packets between two rounds of the established connections, and per millisecond: 100,000 a second. */
const PER_ROUND = 50_000;
const PER_MS = 100;

export interface FloodResult {
  flood: number;
  established: number;
  /** Packets of the established connections, sent and delivered translated. */
  sent: number;
  delivered: number;
  nsPerPacket: number;
  /** Packets that neither left nor have a reason. */
  unexplained: number;
  drops: Map<string, number>;
  flows: { capacity: number; used: number; created: number; evicted: number; expired: number };
  /** MiB after the first and after the last round. */
  rss: [number, number];
  heap: [number, number];
}

/** @param flood SYNs. @param established connections beside them */
export function floodWithSyns(flood: number, established: number, capacity = 131072): FloodResult {
  const world = new World({
    capacity,
    services: [
      {
        name: 'default/web',
        clusterAddresses: [],
        externalAddresses: [VIP],
        ports: [
          {
            protocol: ipv4.PROTO_TCP,
            port: 80,
            endpoints: [{ address: PODS[0], port: 8080, ready: true, serving: true, terminating: false, local: true }],
          },
        ],
        // The client keeps its address: what is asked here is what the table does, not when the ports are gone.
        externalTrafficPolicy: 'Local',
      },
    ],
  });
  const { inside, outside, clock } = world;
  const random = new Random(7);
  let delivered = 0;
  const port = (i: number) => 1024 + (i % 50_000);
  const address = (i: number) => (CLIENTS + Math.floor(i / 50_000)) | 0;

  /** Every established connection sends one segment in one direction. */
  const round = (toPod: boolean, flags: number, seq: number, ack: number) => {
    let i = 0;
    const device = toPod ? outside : inside;
    device.next = s => {
      if (i >= established) return false;
      s.src = toPod ? address(i) : PODS[0];
      s.dst = toPod ? VIP : address(i);
      s.sport = toPod ? port(i) : 8080;
      s.dport = toPod ? 80 : port(i);
      s.seq = seq;
      s.ack = ack;
      s.flags = flags;
      i++;
      return true;
    };
    world.work();
    device.next = () => false;
  };

  round(true, SYN, 0, 0);
  round(false, SYN | ACK_FLAG, 0, 1);
  round(true, ACK_FLAG, 1, 1);

  const memory = () => process.memoryUsage();
  const mib = (bytes: number) => Math.round(bytes / 1048576);
  let first: NodeJS.MemoryUsage | null = null;
  let sent = 0;
  let flooded = 0;
  let ns = 0n;
  while (flooded < flood) {
    const until = Math.min(flood, flooded + PER_ROUND);
    outside.next = s => {
      if (flooded >= until) return false;
      if (flooded++ % PER_MS === 0) clock.advance(1);
      // Any source that is none of 0, 127 and 224 up, nor one of ours.
      s.src = ((11 + random.below(100)) << 24) | (random.next() >>> 8);
      s.dst = VIP;
      s.sport = 1 + random.below(65535);
      s.dport = 80;
      s.seq = random.next();
      s.ack = 0;
      s.flags = SYN;
      return true;
    };
    const started = process.hrtime.bigint();
    world.work();
    ns += process.hrtime.bigint() - started;

    // A delivered packet has the addresses that its receiver knows; the flood is not counted.
    inside.written = (view, at) => {
      if (view.getInt32(at + ipv4.DST) === PODS[0] && view.getUint16(at + 22) === 8080) delivered++;
    };
    outside.written = (view, at) => {
      if (view.getInt32(at + ipv4.SRC) === VIP && view.getUint16(at + 20) === 80) delivered++;
    };
    round(true, ACK_FLAG | PSH, 1, 1);
    round(false, ACK_FLAG, 1, 1);
    sent += 2 * established;
    inside.written = () => {};
    outside.written = () => {};
    first ??= memory();
  }
  const last = memory();
  const { table } = world.datapath.flows!;
  const { created, evicted, expired } = table.stats;
  return {
    flood: world.counters.ofPort(1, PORT_RX_PACKETS),
    established,
    sent,
    delivered,
    nsPerPacket: Number(ns) / flood,
    unexplained: world.unexplained(),
    drops: world.drops(),
    flows: { capacity, used: table.used, created, evicted, expired },
    rss: [mib(first!.rss), mib(last.rss)],
    heap: [mib(first!.heapUsed), mib(last.heapUsed)],
  };
}

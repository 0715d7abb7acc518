/** A datapath over memory, from a node's configuration, for tests: packets in by one port, out by another, time by hand. */
import { strict as assert } from 'node:assert';
import { ManualClock } from '../datapath/clock.ts';
import { loadConfig } from '../datapath/control/load-config.ts';
import { type ResolvedConfig, resolveTap, withUplink } from '../datapath/control/resolved.ts';
import {
  Counters,
  EVENT_ARP_RECEIVED,
  EVENT_ARP_REPLY_SENT,
  EVENT_ARP_REQUEST_SENT,
  EVENT_COALESCED,
  EVENT_DATAGRAMS_REASSEMBLED,
  EVENT_FRAGMENTED,
  EVENT_FRAGMENTS_REASSEMBLED,
  EVENT_FRAGMENTS_SENT,
  EVENT_ICMP_FRAG_NEEDED_SENT,
  EVENT_ICMP_PARAMETER_PROBLEM_SENT,
  EVENT_ICMP_TIME_EXCEEDED_SENT,
  EVENT_ICMP_UNREACHABLE_SENT,
  EVENT_SEGMENTED,
  EVENT_SEGMENTS_SENT,
  EVENT_TUNNEL_ERRORS,
  PORT_READS,
  PORT_WRITES,
} from '../datapath/counters.ts';
import { BURST, type Datapath } from '../datapath/forward.ts';
import { type Frame, MemoryDevice } from '../datapath/io/memory.ts';
import { Pool } from '../datapath/packet/pool.ts';
import { PORT_POD, PORT_UPLINK, type Port } from '../datapath/port.ts';
import { compile } from '../datapath/program/compile.ts';
import { diff } from '../datapath/program/diff.ts';
import { Installation } from '../datapath/program/install.ts';
import { mtusOf } from '../datapath/program/mtus.ts';
import type { Program } from '../datapath/program/program.ts';
import { Random } from '../datapath/random.ts';
import * as verdict from '../datapath/verdict.ts';
import { arpFrame, ethernet } from './fixtures/packets.ts';

export const NODE_MAC = '02:00:00:00:00:01';
export const PEER_MAC = '02:00:00:00:00:02';
export const NODE = '192.168.10.1';
export const PEER = '192.168.10.2';
export const GATEWAY = '192.168.10.254';
export const VTEP_MACS = ['02:42:0a:f4:01:00', '02:42:0a:f4:02:00'] as const;
export const HOST = '10.244.1.1';
/** Two pods here, one behind the peer. */
export const POD = '10.244.1.10';
export const POD2 = '10.244.1.11';
export const REMOTE = '10.244.2.20';

export interface NodeOptions {
  protocol?: 'none' | 'ipip' | 'vxlan' | 'geneve';
  profile?: string;
  /** Port names: the pods are p1 and p2, tp0 the host port, ul0 the uplink. */
  withHost?: boolean;
  vni?: number | 'identity';
  /** OFFLOAD_* of every device. */
  offloads?: number;
  routes?: object[];
  /** spec.mtu, and more fields of spec.tunnel and spec.uplink. */
  mtu?: object;
  tunnel?: object;
  uplink?: object;
  /** The uplink's address is also that of an interface of the node's kernel, as with a routed uplink. */
  besideKernel?: boolean;
  /** Several tunnels instead of the one of `protocol`, which is then none; the routes are those of `routes`. */
  tunnels?: object[];
  masquerade?: object[];
  services?: object[];
  /** More pods, behind p2. */
  pods?: object[];
  conntrack?: object;
  policies?: object[];
  remotePods?: object[];
  /** Packets in the pool. */
  slots?: number;
}

export class TestNode {
  readonly clock = new ManualClock();
  readonly counters = new Counters();
  readonly pool: Pool;
  readonly datapath: Datapath;
  readonly installation: Installation;
  private program: Program;
  private readonly devices: MemoryDevice[];
  /** DROP_INVALID_SOURCE from the uplink. */
  private arpInvalid = 0;

  constructor(o: NodeOptions = {}) {
    this.pool = new Pool(o.slots ?? 2048);
    const config = nodeConfig(o);
    const program = compile(config);
    const { device: podMtu } = mtusOf(config);
    const withLink = new Set(config.spec.pods.filter(({ kind }) => kind !== 'tun').map(({ name }) => name));
    this.devices = program.ports.map(
      port =>
        new MemoryDevice(this.pool, {
          name: port.name,
          layer: port.kind === PORT_UPLINK || withLink.has(port.name) ? 2 : 3,
          mtu: port.kind === PORT_POD ? podMtu : config.spec.uplink.mtu,
          offloads: o.offloads ?? 0,
        }),
    );
    const { pool, counters, clock } = this;
    this.program = program;
    this.installation = new Installation(program, this.devices, { pool, counters, clock, random: new Random(7) });
    this.datapath = this.installation.datapath;
  }

  /** Other routes and tunnel for a node that runs, as `apply` changes them; ports and NAT stay. */
  reconfigure(o: NodeOptions): void {
    const program = compile(nodeConfig(o));
    this.installation.apply(diff(this.program, program), () => {
      throw new Error('ports stay');
    });
    this.program = program;
  }

  port(name: string): Port {
    const port = this.datapath.ports.find(one => one.name === name);
    if (port === undefined) throw new Error(`no port ${name}`);
    return port;
  }

  device(name: string): MemoryDevice {
    return this.devices[this.port(name).index];
  }

  /** Sends packets into a port, and lets the datapath work until it has read all. */
  send(name: string, ...packets: Uint8Array[]): void {
    for (const bytes of packets) this.device(name).inject(bytes);
    this.work(name);
  }

  /** As send, with virtio-net fields. */
  sendFrame(name: string, bytes: Uint8Array, fields: Partial<Frame>): void {
    this.device(name).inject(bytes, fields);
    this.work(name);
  }

  work(name: string): void {
    const port = this.port(name);
    const before = this.counters.dropped(verdict.DROP_INVALID_SOURCE);
    while (this.device(name).pending > 0) this.datapath.receive(port);
    if (name === 'ul0') this.arpInvalid += this.counters.dropped(verdict.DROP_INVALID_SOURCE) - before;
  }

  /** What the datapath has written to a port since the last call. */
  collect(name: string): Uint8Array[] {
    return this.device(name).collect();
  }

  /** Everything written to all ports, by port name; ports without anything are left out. */
  collectAll(): Record<string, Uint8Array[]> {
    const all = this.devices.map(device => [device.name, device.collect()] as const);
    return Object.fromEntries(all.filter(([, packets]) => packets.length > 0));
  }

  /** Teaches the node the peer's and the gateway's MAC: they ask for it. */
  meetNeighbors(): void {
    for (const spa of [PEER, GATEWAY]) this.send('ul0', arpFrame({ sha: PEER_MAC, spa, tpa: NODE }));
    this.collect('ul0');
  }

  /** Lets time pass, timers included. */
  advance(ms: number, step = 100): void {
    for (let passed = 0; passed < ms; passed += step) {
      this.clock.advance(step);
      this.datapath.tick();
    }
  }

  /** Packets in less packets that came to an end; 0 if none was lost or made up. See `balance`. */
  get balance(): number {
    const rows = this.datapath.ports;
    const sum = (counter: number) => rows.reduce((n, port) => n + this.counters.ofPort(port.index, counter), 0);
    return balance({
      read: sum(PORT_READS),
      written: sum(PORT_WRITES) - REFUSED_BY_DEVICE.reduce((n, reason) => n + this.counters.dropped(reason), 0),
      held: this.datapath.neighbors.held + this.datapath.fragmentsHeld,
      arpInvalid: this.arpInvalid,
      event: event => this.counters.events(event),
      drops: reason => this.counters.dropped(reason),
    });
  }

  /** Packets of the pool that nobody accounts for: not free, not waiting for a burst, not held for a neighbour. */
  get leaked(): number {
    return this.pool.packets.length - this.pool.available - BURST - this.datapath.neighbors.held;
  }
}

/** Drops of packets that were on their way out; the port counts them among its writes, too. */
const REFUSED_BY_DEVICE = [verdict.DROP_DEVICE_QUEUE_FULL, verdict.DROP_DEVICE_DOWN, verdict.DROP_DEVICE_REFUSED];

/** What the conservation of packets is computed from. */
export interface Totals {
  /** Reads and successful writes of all ports: a superpacket is one. */
  read: number;
  written: number;
  held: number;
  /** DROP_INVALID_SOURCE from the uplink: an ARP frame of ours come back. From pods it means something else. */
  arpInvalid: number;
  event(event: number): number;
  drops(reason: number): number;
}

/**
 * Conservation: what was read, and what the node made itself, was written, dropped for a reason, kept, or consumed.
 * ARP is consumed unless it was refused or became the answer, and so is what the underlay says of the tunnel's packets.
 */
export function balance(t: Totals): number {
  let drops = 0;
  for (let reason = 10; reason < verdict.VERDICTS; reason++) {
    // That an error was not sent is counted beside the drop of the packet it was about.
    if (reason !== verdict.DROP_ICMP_RATE_LIMIT) drops += t.drops(reason);
  }
  const errors =
    t.event(EVENT_ICMP_TIME_EXCEEDED_SENT) +
    t.event(EVENT_ICMP_FRAG_NEEDED_SENT) +
    t.event(EVENT_ICMP_PARAMETER_PROBLEM_SENT) +
    t.event(EVENT_ICMP_UNREACHABLE_SENT);
  const pieces =
    t.event(EVENT_FRAGMENTS_SENT) - t.event(EVENT_FRAGMENTED) + t.event(EVENT_SEGMENTS_SENT) - t.event(EVENT_SEGMENTED);
  const arpRefused = t.drops(verdict.DROP_MALFORMED_ARP) + t.drops(verdict.DROP_ADDRESS_CONFLICT) + t.arpInvalid;
  const arpConsumed = t.event(EVENT_ARP_RECEIVED) - t.event(EVENT_ARP_REPLY_SENT) - arpRefused;
  const joined = t.event(EVENT_FRAGMENTS_REASSEMBLED) - t.event(EVENT_DATAGRAMS_REASSEMBLED);
  const made = errors + t.event(EVENT_ARP_REQUEST_SENT) + pieces - joined - t.event(EVENT_COALESCED);
  return t.read + made - t.written - drops - arpConsumed - t.event(EVENT_TUNNEL_ERRORS) - t.held;
}

function nodeConfig(o: NodeOptions): ResolvedConfig {
  const protocol = o.tunnels === undefined ? (o.protocol ?? 'vxlan') : 'none';
  const encap = protocol !== 'none';
  const withMac = protocol === 'vxlan' || protocol === 'geneve';
  const config = {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: 'a' },
    spec: {
      uplink: { kind: 'tap', device: 'ul0', mac: NODE_MAC, address: `${NODE}/24`, gateway: GATEWAY, ...o.uplink },
      ...(o.withHost === false ? {} : { host: { device: 'tp0', address: `${HOST}/32` } }),
      pods: [
        { name: 'p1', netns: 'n1', device: 'eth0', address: POD, identity: 101 },
        { name: 'p2', netns: 'n2', device: 'eth0', address: POD2, identity: 102 },
        ...(o.pods ?? []),
      ],
      tunnel: {
        protocol,
        ...(withMac ? { port: protocol === 'vxlan' ? 8472 : 6081, vni: o.vni ?? 7, mac: VTEP_MACS[0] } : {}),
        ...o.tunnel,
        peers: encap ? [{ address: PEER, ...(withMac ? { mac: VTEP_MACS[1] } : {}) }] : [],
      },
      tunnels: o.tunnels ?? [],
      routes: [...(o.tunnels === undefined ? [{ to: '10.244.2.0/24', via: PEER, encap }] : []), ...(o.routes ?? [])],
      profile: o.profile ?? 'linux',
      ...(o.mtu === undefined ? {} : { mtu: o.mtu }),
      ...(o.masquerade === undefined ? {} : { masquerade: o.masquerade }),
      ...(o.services === undefined ? {} : { services: o.services }),
      ...(o.conntrack === undefined ? {} : { conntrack: o.conntrack }),
      ...(o.policies === undefined ? {} : { policies: o.policies }),
      ...(o.remotePods === undefined ? {} : { remotePods: o.remotePods }),
    },
  };
  const loaded = loadConfig(JSON.stringify(config), 'test');
  if (loaded.config === undefined) throw new Error(JSON.stringify(loaded.problems));
  const { uplink } = loaded.config.spec;
  assert(uplink.kind === 'tap');
  const beside = o.besideKernel === true ? { onHostPort: false, ofKernel: true } : {};
  return withUplink(loaded.config, { ...resolveTap(uplink), ...beside });
}

/** An IP packet as it comes from the peer or the gateway, in its frame. */
export function fromWire(packet: Uint8Array): Uint8Array {
  return ethernet(packet, { src: PEER_MAC, dst: NODE_MAC });
}

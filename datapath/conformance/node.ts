/**
 * The node that the checks look at: a whole datapath over memory, time by hand.
 *
 *   pods p1 10.244.1.10, p2 10.244.1.11        'wire': the uplink 192.168.10.1
 *              |                                  peer 192.168.10.2, behind it 10.244.2.0/24
 *              +------------ node ------------ gateway 192.168.10.254, behind it everything else
 *              |
 *   'host': its own processes, 10.244.1.1
 */
import { loadConfig } from '../control/load-config.ts';
import { type ResolvedConfig, resolveTap, withUplink } from '../control/resolved.ts';
import { EVENT_NAMES } from '../counters.ts';
import { Sim, type SimNode } from '../drive/sim.ts';
import { arpFrame, dotted, ethernet } from '../packet/build.ts';
import { PORT_HOST, PORT_UPLINK } from '../port.ts';
import type { ProfileName } from '../profile.ts';
import { VERDICT_NAMES, VERDICTS } from '../verdict.ts';
import * as ethernetWire from '../wire/ethernet.ts';
import { describePacket } from './describe.ts';

export const NODE = '192.168.10.1';
export const PEER = '192.168.10.2';
export const GATEWAY = '192.168.10.254';
export const HOST = '10.244.1.1';
export const POD = '10.244.1.10';
export const POD2 = '10.244.1.11';
export const REMOTE = '10.244.2.20';
/** Two hosts outside. */
export const SERVER = '203.0.113.5';
export const SERVER2 = '198.51.100.7';
export const VTEP_MAC = '02:42:0a:f4:01:00';
export const PEER_VTEP_MAC = '02:42:0a:f4:02:00';
export const VNI = 7;

const NODE_MAC = '02:00:00:00:00:01';
const PEER_MAC = '02:00:00:00:00:02';

/** Packets of a node, unless a check wants more. */
const SLOTS = 200;

export type TunnelProtocol = 'none' | 'ipip' | 'vxlan' | 'geneve';
export type Side = 'p1' | 'p2' | 'host' | 'wire';

export interface Sent {
  side: Side;
  /** An IP packet; what came by the wire without its Ethernet header. */
  bytes: Uint8Array;
}

export interface NodeOptions {
  tunnel?: TunnelProtocol;
  /** DF of the tunnel's packets, if not as the profile has it. */
  df?: 'set';
  /** Masquerade what pods send to the outside. */
  nat?: boolean;
  /** MTU of the uplink. */
  mtu?: number;
  /** Flows that the table holds. */
  flows?: number;
  /** Outside ports of the masquerade rule, LOW-HIGH. */
  ports?: string;
  /** Packets in the pool. */
  slots?: number;
  /** Further fields of the configuration's spec. */
  spec?: Record<string, unknown>;
  /** Whether the gateway and the peer answer ARP. */
  neighbors?: boolean;
}

/** Makes the nodes of a check, and writes down what went in and out of them. */
export class Testbed {
  readonly profile: ProfileName;
  readonly packets: string[] = [];

  constructor(profile: ProfileName) {
    this.profile = profile;
  }

  node(options: NodeOptions = {}): CheckNode {
    return new CheckNode(this, options);
  }
}

export class CheckNode {
  readonly tunnelPort: number;
  /** Why packets were dropped by the last exchange or wait: names of verdict.ts without the 'drop-'. */
  dropped: string[] = [];
  private readonly bed: Testbed;
  private readonly sim: Sim;
  private readonly node: SimNode;
  /** Of each port. */
  private readonly sides: Side[];
  private readonly hasNeighbors: boolean;
  private readonly drops = new Float64Array(VERDICTS);

  constructor(bed: Testbed, o: NodeOptions) {
    this.bed = bed;
    const config = configure(bed.profile, o);
    this.tunnelPort = config.spec.tunnels[0]?.port ?? 0;
    this.sim = new Sim({ slots: o.slots ?? SLOTS });
    this.node = this.sim.addNode(config);
    this.sides = this.node.datapath.ports.map(({ kind, name }) => {
      return kind === PORT_UPLINK ? 'wire' : kind === PORT_HOST ? 'host' : (name as Side);
    });
    this.hasNeighbors = o.neighbors !== false;
  }

  /** Sends an IP packet into the node. @returns the IP packets that come out of it because of that */
  exchange(side: Side, bytes: Uint8Array): Sent[] {
    this.bed.packets.push(`${side} > ${describePacket(bytes)}`);
    this.read(side, side === 'wire' ? ethernet(bytes, { src: PEER_MAC, dst: NODE_MAC }) : bytes);
    return this.note(this.written());
  }

  /** As exchange, for a whole Ethernet frame of the wire. */
  exchangeFrame(frame: Uint8Array): Sent[] {
    this.bed.packets.push(`wire > frame, ${describePacket(frame.subarray(ethernetWire.HEADER_LEN))}`);
    this.read('wire', frame);
    return this.note(this.written());
  }

  /** Lets time pass, the node's timers included. @returns what comes out of it meanwhile */
  wait(seconds: number): Sent[] {
    this.bed.packets.push(`${seconds} s pass`);
    // The timers' own bounded work needs no more than a call each second; long waits are flows that run out.
    const steps = Math.min(seconds, 100);
    const sent: Sent[] = [];
    for (let i = 0; i < steps; i++) {
      this.sim.skip((seconds * 1000) / steps);
      this.node.datapath.tick();
      sent.push(...this.written());
    }
    return this.note(sent);
  }

  /** How often something happened that is no drop, by its name in counters.ts. */
  event(name: string): number {
    return this.node.counters.events(EVENT_NAMES.indexOf(name));
  }

  private read(side: Side, bytes: Uint8Array): void {
    this.node.inject(this.node.datapath.ports[this.sides.indexOf(side)].name, bytes);
    this.node.work();
  }

  /** Writes down what came out, and what did not. */
  private note(sent: Sent[]): Sent[] {
    this.noteDrops();
    const { packets } = this.bed;
    for (const { side, bytes } of sent) packets.push(`  ${side} < ${describePacket(bytes)}`);
    if (this.dropped.length > 0) packets.push(`  dropped: ${this.dropped.join(', ')}`);
    return sent;
  }

  private noteDrops(): void {
    this.dropped = [];
    for (let reason = 10; reason < VERDICTS; reason++) {
      const count = this.node.counters.dropped(reason);
      if (count > this.drops[reason]) this.dropped.push(VERDICT_NAMES[reason].replace(/^drop-/, ''));
      this.drops[reason] = count;
    }
  }

  private written(): Sent[] {
    const sent: Sent[] = [];
    let asked = false;
    for (const [i, { name }] of this.node.datapath.ports.entries()) {
      const side = this.sides[i];
      for (const { bytes } of this.node.collect(name)) {
        if (side !== 'wire') sent.push({ side, bytes });
        else if (typeOf(bytes) === ethernetWire.TYPE_IPV4) {
          sent.push({ side, bytes: bytes.slice(ethernetWire.HEADER_LEN) });
        } else if (this.answer(bytes)) asked = true;
      }
    }
    // What waited for the answer goes on.
    return asked ? [...sent, ...this.written()] : sent;
  }

  /** The peer and the gateway answer ARP, if they are there. */
  private answer(frame: Uint8Array): boolean {
    const target = dotted(new DataView(frame.buffer, frame.byteOffset).getInt32(ethernetWire.HEADER_LEN + 24));
    if (!this.hasNeighbors || (target !== PEER && target !== GATEWAY)) return false;
    this.read('wire', arpFrame({ oper: 2, sha: PEER_MAC, spa: target, tha: NODE_MAC, tpa: NODE }));
    return true;
  }
}

function typeOf(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset).getUint16(ethernetWire.TYPE);
}

function configure(profile: ProfileName, o: NodeOptions): ResolvedConfig {
  const protocol = o.tunnel ?? 'none';
  const framed = protocol === 'vxlan' || protocol === 'geneve';
  const masquerade = {
    from: ['10.244.0.0/16'],
    notTo: ['10.244.0.0/16', '224.0.0.0/4'],
    ...(o.ports === undefined ? {} : { ports: o.ports }),
  };
  const document = {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: 'a' },
    spec: {
      uplink: {
        kind: 'tap',
        device: 'ul0',
        mac: NODE_MAC,
        address: `${NODE}/24`,
        gateway: GATEWAY,
        mtu: o.mtu ?? 1500,
      },
      host: { device: 'tp0', address: `${HOST}/32` },
      pods: [
        { name: 'p1', netns: 'n1', device: 'eth0', address: POD, identity: 101 },
        { name: 'p2', netns: 'n2', device: 'eth0', address: POD2, identity: 102 },
      ],
      tunnel: {
        protocol,
        peers: protocol === 'none' ? [] : [{ address: PEER, ...(framed ? { mac: PEER_VTEP_MAC } : {}) }],
        ...(framed ? { vni: VNI, mac: VTEP_MAC } : {}),
        ...(o.df === undefined ? {} : { df: o.df }),
      },
      routes: protocol === 'none' ? [] : [{ to: '10.244.2.0/24', via: PEER, encap: true }],
      profile,
      masquerade: o.nat === true ? [masquerade] : [],
      conntrack: { size: o.flows ?? 1024 },
      ...o.spec,
    },
  };
  const loaded = loadConfig(JSON.stringify(document), 'check');
  const uplink = loaded.config?.spec.uplink;
  if (loaded.config === undefined || uplink?.kind !== 'tap') throw new Error(JSON.stringify(loaded.problems));
  return withUplink(loaded.config, resolveTap(uplink));
}

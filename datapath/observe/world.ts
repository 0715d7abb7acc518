/**
 * One packet through nodes in memory, with everything that happens to it: the nodes are those of the sim (drive/sim.ts), what
 * they do is reported by their own steps (path/watcher.ts), and only the wire between them is made here.
 *
 * Whoever a node asks for by ARP is there. A frame goes to the node that has its MAC; without one, to the node that the
 * underlay would bring it to: the one with that underlay address, else the one with that pod. Anything else leaves.
 */
import type { ResolvedConfig } from '../control/resolved.ts';
import { answerOf, NEIGHBOR_MAC, portNamed, roleOf } from '../drive/entry.ts';
import { Sim, type SimNode } from '../drive/sim.ts';
import { ip, mac } from '../packet/build.ts';
import type { Packet } from '../packet/packet.ts';
import type { Watcher } from '../path/watcher.ts';
import { PORT_UPLINK, type Port } from '../port.ts';
import { CONTINUE, DROP_WIRE_ICMP_FILTERED, DROP_WIRE_MTU, MUST_CUT, TAKEN, VERDICT_NAMES } from '../verdict.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { type Change, changesBetween, type HeaderOptions, type Moment } from './headers.ts';
import { stepWords } from './step-words.ts';

/** A step that a packet has taken on a node. */
export interface Step {
  /** STEP_* */
  number: number;
  /** go-on, cut, held; or the name of the drop */
  result: string;
  /** The row or the rule that it went by, in words. */
  used: string;
  /** Of its bytes, since the step before. */
  changes: Change[];
  /** The packet as the step left it. */
  packet: Moment;
  /** True for a step of what the node says itself about the packet. */
  isOwn: boolean;
}

export interface Sent extends Moment {
  /** As a replay names it: a pod, the host's device, `uplink`. */
  port: string;
  changes: Change[];
  /** The node's own: an ICMP error. */
  isOwn: boolean;
}

/** A packet on one node, from where it came in. */
export interface Visit {
  node: string;
  port: string;
  came: Moment;
  /** It is what another node has said about the packet, or that in turn. */
  isOwn: boolean;
  steps: Step[];
  sent: Sent[];
  dropped: { reason: string; isOwn: boolean }[];
}

/** Where a packet ends its way through the nodes. */
export interface Arrival extends Moment {
  node: string;
  /** Of a pod or the host; `uplink`: it left towards somebody who is no node here. */
  port: string;
  isOwn: boolean;
}

export interface Trip {
  visits: Visit[];
  arrivals: Arrival[];
  /** Lost on a wire: why. */
  lost: string[];
  /** Packets that nodes hold now and did not before: fragments. */
  held: number;
}

/** What is known of the wire that a node's uplink is on. */
export interface Wire {
  mtu: number;
  icmpFiltered: boolean;
}

export interface WorldOptions {
  seed?: number;
  /** By the name of the segment. */
  wires?: ReadonlyMap<string, Wire>;
}

/** A burst, its fragments and what may be held, for each node; and a share for all. */
const SLOTS_PER_NODE = 512;
const SLOTS = 1024;

export class World {
  readonly nodes: ReadonlyMap<string, SimNode>;
  private readonly sim: Sim;
  private readonly wires: ReadonlyMap<string, Wire>;
  private readonly options: HeaderOptions;
  private trip: Trip = emptyTrip();

  /** @throws RangeError as the sim */
  constructor(configs: readonly ResolvedConfig[], { seed = 1, wires = new Map() }: WorldOptions = {}) {
    this.sim = new Sim({ slots: SLOTS + configs.length * SLOTS_PER_NODE, seed });
    this.wires = wires;
    const udpPorts = (protocol: string) =>
      configs.flatMap(({ spec }) =>
        spec.tunnels.flatMap(tunnel => (tunnel.protocol === protocol && tunnel.port !== undefined ? tunnel.port : [])),
      );
    this.options = { vxlanPorts: udpPorts('vxlan'), genevePorts: udpPorts('geneve') };
    configs.forEach((config, i) => {
      // The wire is made here, also that of a segment.
      this.sim.addNode(config, { seed: seed + i, uplink: 'queue' });
    });
    this.nodes = this.sim.nodes;
    this.sim.run(0);
    for (const node of this.nodes.values()) {
      node.datapath.watch(new Follower(node, () => this.trip, this.options));
    }
  }

  close(): void {
    this.sim.close();
  }

  /** Follows one packet from a port of a node until nothing moves any more. `bytes` begin as the port's device has it. */
  send(nodeName: string, portName: string, bytes: Uint8Array): Trip {
    const trip = emptyTrip();
    this.trip = trip;
    const before = this.heldCount();
    const node = this.nodes.get(nodeName) as SimNode;
    node.inject((portNamed(node.datapath, portName) as Port).name, bytes);
    for (let moved = true; moved; ) {
      this.sim.settle();
      moved = false;
      for (const one of this.nodes.values()) if (this.collect(one, trip)) moved = true;
    }
    trip.held = Math.max(0, this.heldCount() - before);
    return trip;
  }

  private heldCount(): number {
    let held = 0;
    for (const { datapath } of this.nodes.values()) held += datapath.fragmentsHeld + datapath.neighbors.held;
    return held;
  }

  /** Takes what a node has written. @returns whether anything goes on from there */
  private collect(node: SimNode, trip: Trip): boolean {
    let moved = false;
    for (const port of node.datapath.ports) {
      for (const { bytes } of node.collect(port.name)) {
        if (port.kind !== PORT_UPLINK) {
          trip.arrivals.push({ node: node.name, port: port.name, bytes, layer: 3, isOwn: isOwnIn(trip, bytes) });
        } else if (this.carry(node, port, bytes, trip)) moved = true;
      }
    }
    return moved;
  }

  /** @returns whether it has come to a node */
  private carry(from: SimNode, uplink: Port, frame: Uint8Array, trip: Trip): boolean {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    if (view.getUint16(ethernet.TYPE) === ethernet.TYPE_ARP) {
      const macOf = (address: number) => this.nodeAt(address)?.config.spec.uplink.mac ?? NEIGHBOR_MAC;
      const answer = answerOf(frame, from.config.spec.uplink.mac, macOf);
      if (answer !== null) from.inject(uplink.name, answer);
      return answer !== null;
    }
    const wire = this.wires.get(from.config.spec.uplink.device);
    const packet = frame.subarray(ethernet.HEADER_LEN);
    const isOwn = isOwnIn(trip, packet);
    if (wire !== undefined && packet.length > wire.mtu) {
      trip.lost.push(VERDICT_NAMES[DROP_WIRE_MTU]);
      return false;
    }
    if (wire?.icmpFiltered === true && packet[ipv4.PROTOCOL] === ipv4.PROTO_ICMP) {
      if (!isOwn) trip.lost.push(VERDICT_NAMES[DROP_WIRE_ICMP_FILTERED]);
      return false;
    }
    const to = this.receiverOf(view);
    if (to === undefined || to === from) {
      trip.arrivals.push({ node: from.name, port: 'uplink', bytes: frame, layer: 2, isOwn });
      return false;
    }
    const copy = frame.slice();
    // A router between them writes its own.
    copy.set(mac(to.config.spec.uplink.mac), ethernet.DST);
    to.inject((to.datapath.uplink as Port).name, copy);
    return true;
  }

  private nodeAt(underlayAddress: number): SimNode | undefined {
    return [...this.nodes.values()].find(({ datapath }) => datapath.underlay.address === underlayAddress);
  }

  private receiverOf(view: DataView): SimNode | undefined {
    const [hi, lo] = [ethernet.macHi(view, ethernet.DST), ethernet.macLo(view, ethernet.DST)];
    const nodes = [...this.nodes.values()];
    const destination = view.getInt32(ethernet.HEADER_LEN + ipv4.DST);
    return (
      nodes.find(({ datapath }) => datapath.underlay.macHi === hi && datapath.underlay.macLo === lo) ??
      this.nodeAt(destination) ??
      nodes.find(({ config }) => config.spec.pods.some(pod => ip(pod.address.split('/')[0]) === destination))
    );
  }
}

function emptyTrip(): Trip {
  return { visits: [], arrivals: [], lost: [], held: 0 };
}

/** Is this what a node has said itself, wherever it has come since? */
function isOwnIn({ visits }: Trip, packet: Uint8Array): boolean {
  return visits.some(({ isOwn, sent }) => sent.some(one => (isOwn || one.isOwn) && isSame(ipOf(one), packet)));
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function ipOf({ bytes, layer }: Moment): Uint8Array {
  return layer === 2 ? bytes.subarray(ethernet.HEADER_LEN) : bytes;
}

/** Writes down what a node's path says of packets. */
class Follower implements Watcher {
  private readonly node: SimNode;
  private readonly trip: () => Trip;
  private readonly options: HeaderOptions;
  private readonly visits = new Map<number, Visit>();
  /** Of the packet in a slot, as it was last seen. */
  private readonly last = new Map<number, Moment>();

  constructor(node: SimNode, trip: () => Trip, options: HeaderOptions) {
    this.node = node;
    this.trip = trip;
    this.options = options;
  }

  received(p: Packet, port: Port): void {
    // Left over from whoever had the slot before.
    p.flow = 0;
    p.isNew = 0;
    p.backend = 0;
    p.rule = 0;
    p.policy = 0;
    const came: Moment = { bytes: this.bytesOf(p), layer: port.device.layer };
    const view = new DataView(came.bytes.buffer);
    if (came.layer === 2 && came.bytes.length > ethernet.HEADER_LEN) {
      if (view.getUint16(ethernet.TYPE) === ethernet.TYPE_ARP) return;
    }
    p.trace = 1;
    const trip = this.trip();
    const isOwn = isOwnIn(trip, ipOf(came));
    const visit: Visit = { node: this.node.name, port: roleOf(port), came, isOwn, steps: [], sent: [], dropped: [] };
    trip.visits.push(visit);
    this.visits.set(p.number, visit);
    this.last.set(p.slot, came);
  }

  stepped(p: Packet, step: number, verdict: number): void {
    const visit = this.visits.get(p.number);
    if (visit === undefined) return;
    const used = stepWords(this.node, p, step, verdict);
    // Held: there is room for an Ethernet header, and nothing in it yet.
    const isHeld = verdict === TAKEN;
    const changes = isHeld ? [] : this.changes(p, this.layerOf(p));
    visit.steps.push({
      number: step,
      result: resultOf(verdict),
      used,
      changes,
      packet: (isHeld ? undefined : this.last.get(p.slot)) ?? visit.came,
      isOwn: p.local !== 0,
    });
  }

  sent(p: Packet, port: Port): void {
    if (p.trace === 0) return;
    const { layer } = port.device;
    const changes = this.changes(p, layer);
    const bytes = this.bytesOf(p);
    this.visits.get(p.number)?.sent.push({ port: roleOf(port), bytes, layer, changes, isOwn: p.local !== 0 });
  }

  dropped(p: Packet, reason: number): void {
    const visit = this.visits.get(p.number);
    if (p.trace !== 0) visit?.dropped.push({ reason: VERDICT_NAMES[reason], isOwn: p.local !== 0 });
  }

  private changes(p: Packet, layer: 2 | 3): Change[] {
    const before = this.last.get(p.slot);
    const now: Moment = { bytes: this.bytesOf(p), layer };
    this.last.set(p.slot, now);
    // A piece of a packet, or what the node says: it has no past here.
    if (before === undefined) return [];
    return changesBetween(before, now, this.options);
  }

  /** On the path a packet begins with its IP header, and behind the last step with Ethernet. */
  private layerOf(p: Packet): 2 | 3 {
    const { view } = this.node.datapath;
    const isIpv4 = view.getUint8(p.off) >> 4 === 4 && view.getUint16(p.off + ipv4.TOTAL_LEN) <= p.len;
    return isIpv4 ? 3 : 2;
  }

  private bytesOf(p: Packet): Uint8Array {
    return this.node.datapath.pool.bytes.slice(p.off, p.off + p.len);
  }
}

function resultOf(verdict: number): string {
  if (verdict === CONTINUE) return 'go-on';
  if (verdict === TAKEN) return 'held';
  return verdict === MUST_CUT ? 'cut' : VERDICT_NAMES[verdict];
}

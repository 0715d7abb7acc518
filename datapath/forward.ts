/**
 * The path of a packet: the order of its steps. The steps stand in path/, in the rooms named here.
 *
 * From a pod or the host:
 *    1. checkSource       ingress    a pod may only send from its own addresses
 *    2. parsePacket       ingress    one header, checked once, trusted afterwards
 *    3. trackFlow         judge      a packet of a known flow follows that flow's rewrite
 *    4. chooseBackend     judge      a new flow to a service address gets a backend
 *    5. judgeEgress       policy     may this pod begin a flow to that destination, a service's backend chosen?
 *    6. lookupRoute       judge      longest prefix match: a pod, the host, a gateway, a peer, or a reason to refuse
 *    7. judgeIngress      policy     may that source begin one to this pod?
 *    8. masqueradeFlow    judge      the first matching rule allocates a source port; then the new flow exists
 *       rewriteAddresses  judge      until here all is decided and nothing done: now the packet gets its addresses
 *    9. checkTtlAndMtu    mtu        time exceeded; MSS clamp; too big: one of the four answers of RFC 4459
 *   10. encapsulate       egress     a header template moved into the headroom
 *   11. sendToNeighbor    egress     ARP on the uplink, then out
 *
 * A pod behind a link layer has its Ethernet taken off before 1 (path/pod-link.ts).
 * From the uplink: openFrame (Ethernet, ARP), then an IPv4 packet. openTunnel takes the headers of a tunnel of ours off, and the
 * inner packet enters at 3, as does everything else that is for us or routed through us. The fragments of a datagram meet
 * 3 to 8 together (path/fragments.ts). What the node says itself (path/icmp.ts) is a packet that enters at 3.
 *
 * A step returns a verdict: CONTINUE, TAKEN (somebody else owns the packet now), DONE, or the DROP_* that is counted. What
 * it has found out is on the packet. Nothing here allocates, throws, or drops without a reason. All packets of a burst are
 * parsed before the first is tracked.
 */
import * as counters from './counters.ts';
import type { Flows } from './flow/flows.ts';
import type { Packet } from './packet/packet.ts';
import { segmentsOf, wireBytes } from './packet/segment.ts';
import { sendToHost, sendToPod, sendToUnderlay } from './path/egress.ts';
import { acceptFragment, admitFragments, isJoined, joinFragment, judgeLaterFragment } from './path/fragments.ts';
import { openTunnel } from './path/from-tunnel.ts';
import { answer } from './path/icmp.ts';
import {
  checkForeignSource,
  checkForwardable,
  checkSource,
  openFrame,
  parsePacket,
  refusePodTunnel,
} from './path/ingress.ts';
import * as ip from './path/ipv4.ts';
import {
  beginJudgement,
  chooseBackend,
  chooseId,
  confirmFlow,
  followFlow,
  lookupRoute,
  masqueradeFlow,
  rewriteAddresses,
  trackFlow,
} from './path/judge.ts';
import { Path, type PathOptions } from './path/path.ts';
import { openPodFrame } from './path/pod-link.ts';
import { judgeEgress, judgeIngress } from './path/policy.ts';
import {
  STEP_EGRESS_POLICY,
  STEP_FLOW,
  STEP_INGRESS_POLICY,
  STEP_MASQUERADE,
  STEP_PARSE,
  STEP_REWRITE,
  STEP_ROUTE,
  STEP_SERVICE,
  STEP_SOURCE,
  STEP_TUNNEL,
  type Watcher,
} from './path/watcher.ts';
import { PORT_UPLINK, type Port } from './port.ts';
import * as hops from './route/nexthop.ts';
import { CONTINUE, DROP_NEIGHBOR_UNREACHABLE, DROP_NO_PORT, TAKEN } from './verdict.ts';
import * as ethernet from './wire/ethernet.ts';

/** Packets read from one port before the next has its turn. */
export const BURST = 64;
/** A smaller flow table stays in the cache, and a smaller burst leaves nothing to overlap. */
const LOOK_AHEAD_FLOWS = 4096;
const LOOK_AHEAD_BURST = 4;
/** How often an idle node looks for flows that have run out; a busy one looks after each round. */
const FLOWS_TICK_MS = 1000;
/** Beyond every timeout of what holds packets; again, for a timeout may make a packet that is held in turn. */
const LAST_TICK_MS = 3_600_000;
const LAST_TICKS = 32;

export class Datapath extends Path {
  private readonly slots: Packet[] = [];
  private readonly tuples = new Int32Array(4 * BURST);
  /** What lookAhead() has read; means nothing. */
  touched = 0;
  /** Packets that a watcher has been shown. */
  private shown = 0;
  /** Packets of the burst that are parsed and wait for the others. */
  private readonly parsed: Packet[] = [];
  private parsedCount = 0;

  constructor(options: PathOptions) {
    super(options);
    const { pool } = options;
    for (let i = 0; i < BURST; i++) {
      this.slots.push(pool.packets[0]);
      this.parsed.push(pool.packets[0]);
    }
    for (let i = 0; i < BURST; i++) {
      const p = pool.take();
      if (p === null) throw new RangeError(`the pool must hold more than ${BURST} packets`);
      this.slots[i] = p;
    }
  }

  // ---------------------------------------------------------------- bursts

  /**
   * Reads one burst from a port, takes every packet through the path, and writes what came of it.
   * @returns packets read; a negative errno when the device is gone
   */
  receive(port: Port): number {
    const { slots, pool, counters: c } = this;
    const n = port.device.readBurst(slots, BURST);
    if (n <= 0) return n;
    this.now = Math.floor(this.clock.now());
    let packets = 0;
    let bytes = 0;
    for (let i = 0; i < n; i++) {
      packets += segmentsOf(this.view, slots[i]);
      bytes += wireBytes(this.view, slots[i]);
    }
    const left = port.coalesceInput(slots, n);
    for (let i = 0; i < left; i++) {
      const p = slots[i];
      p.inPort = port.index;
      p.owner = this.id;
      if (this.watcher !== null) this.show(p, port, this.watcher);
      const v = port.kind === PORT_UPLINK ? this.fromUplink(p) : this.fromPodOrHost(p, port);
      if (v === CONTINUE) this.enter(p);
      else if (v !== TAKEN) this.drop(p, v);
    }
    this.forwardParsed();
    // Before the slots are filled again, so that the next burst gets the packets of this one, which the cache still holds.
    this.flush();
    for (let i = 0; i < n; i++) {
      // What is held (ARP, reassembly) is capped well below the pool's size.
      slots[i] = pool.take() as Packet;
    }
    c.port(port.index, counters.PORT_RX_PACKETS, packets);
    c.port(port.index, counters.PORT_RX_BYTES, bytes);
    c.port(port.index, counters.PORT_READS, n);
    c.event(counters.EVENT_BURSTS);
    return n;
  }

  /** To whoever looks at packets. */
  private show(p: Packet, port: Port, watcher: Watcher): void {
    this.shown = (this.shown + 1) | 0;
    p.number = this.shown;
    watcher.received(p, port);
  }

  /** A parsed packet goes on behind those that came before it. */
  enter(p: Packet): void {
    if (this.parsedCount === BURST) this.forwardParsed();
    this.parsed[this.parsedCount++] = p;
  }

  /** Takes what is parsed through the rest of the path, once the processor has begun to fetch the flows of all. */
  private forwardParsed(): void {
    const { parsed, parsedCount: n, flows } = this;
    if (flows !== null && n >= LOOK_AHEAD_BURST && flows.table.used >= LOOK_AHEAD_FLOWS) {
      this.touched = flows.lookAhead(parsed, n, this.tuples);
    }
    for (let i = 0; i < n; i++) {
      const p = parsed[i];
      const v = this.forward(p);
      if (v !== TAKEN) this.drop(p, v);
    }
    this.parsedCount = 0;
  }

  /** Timers: ARP, fragments, path MTUs, flows. @returns milliseconds until it wants to be called again */
  tick(): number {
    this.now = Math.floor(this.clock.now());
    const { now } = this;
    this.pathMtu.tick(now);
    const wait = Math.min(
      this.neighbors.tick(now),
      this.virtual.tick(now),
      this.reassembly.tick(now),
      this.joined.tick(now),
    );
    this.flush();
    if (this.nat !== null) this.nat.tick(now);
    if (this.flows === null) return wait;
    return Math.min(wait, this.flows.tick(now) > 0 ? 0 : FLOWS_TICK_MS);
  }

  /**
   * Gives every packet back to the pool, for others who use it: what waits for a neighbour or for fragments ends as if it had
   * waited in vain. Nothing may be read or sent afterwards.
   */
  close(): void {
    const { neighbors, virtual, reassembly, joined } = this;
    for (let i = 0; i < LAST_TICKS && neighbors.held + this.fragmentsHeld > 0; i++) {
      this.now += LAST_TICK_MS;
      neighbors.tick(this.now);
      virtual.tick(this.now);
      reassembly.tick(this.now);
      joined.tick(this.now);
      this.flush();
    }
    this.flush();
    for (const p of this.slots) this.pool.release(p);
    this.slots.length = 0;
  }

  // ---------------------------------------------------------------- the order of steps

  /** Steps 1 and 2. */
  private fromPodOrHost(p: Packet, port: Port): number {
    const { link } = port;
    let v = link === null ? CONTINUE : openPodFrame(this, p, port, link);
    if (v !== CONTINUE) return v;
    v = this.took(STEP_SOURCE, p, checkSource(this, p, port));
    if (v !== CONTINUE) return v;
    v = this.took(STEP_PARSE, p, parsePacket(this, p));
    return v === CONTINUE ? refusePodTunnel(this, p, port) : v;
  }

  private fromUplink(p: Packet): number {
    let v = openFrame(this, p);
    if (v !== CONTINUE) return v;
    v = this.took(STEP_PARSE, p, parsePacket(this, p));
    if (v !== CONTINUE) return v;
    v = this.took(STEP_SOURCE, p, checkForeignSource(this, p));
    if (v !== CONTINUE) return v;
    if (this.tunnels.list.length === 0 || p.dst !== this.underlay.address) {
      if (this.ledger !== null) this.ledger.received(p, 0);
      return CONTINUE;
    }
    return this.took(STEP_TUNNEL, p, openTunnel(this, p));
  }

  /** From step 3 on: a parsed packet, wherever it came from. @returns TAKEN, or why it ends here */
  forward(p: Packet): number {
    const { flows } = this;
    let v = checkForwardable(this, p);
    if (v !== CONTINUE) return v;
    if (flows !== null && ip.isFragment(p)) return this.forwardFragment(p, flows);
    v = this.judge(p);
    if (v !== CONTINUE) return v;
    chooseId(this, p);
    return this.send(p);
  }

  /**
   * What would become of a parsed packet in steps 3 to 8, and no trace of the question: no flow, no answer, no count. The
   * decision is on the packet.
   */
  decide(p: Packet): number {
    const { nat, random } = this;
    const state = random.state;
    const ofServices = nat === null ? 0 : nat.random.state;
    p.probe = 1;
    let v = checkForwardable(this, p);
    if (v === CONTINUE) v = this.judge(p);
    random.state = state;
    if (nat !== null) nat.random.state = ofServices;
    return v;
  }

  /** Steps 3 to 8: the addresses that the packet will have, and its next hop. Nothing of it is changed. */
  private judge(p: Packet): number {
    const { flows, nat, policies } = this;
    beginJudgement(p);
    let v: number;
    if (flows !== null) {
      v = this.took(STEP_FLOW, p, trackFlow(this, p, flows));
      if (v !== CONTINUE) return v;
      if (nat !== null) {
        v = p.isNew === 0 ? followFlow(p, nat) : this.took(STEP_SERVICE, p, chooseBackend(this, p, nat));
        if (v !== CONTINUE) return v;
      }
    }
    if (policies !== null && flows !== null) {
      v = this.took(STEP_EGRESS_POLICY, p, judgeEgress(this, p, flows, policies));
      if (v !== CONTINUE) return v;
    }
    v = this.took(STEP_ROUTE, p, lookupRoute(this, p));
    if (v !== CONTINUE || flows === null || p.isNew === 0) return v;
    if (policies !== null) {
      v = this.took(STEP_INGRESS_POLICY, p, judgeIngress(p, flows, policies));
      if (v !== CONTINUE) return v;
    }
    if (nat === null) return confirmFlow(this, p, flows);
    return this.took(STEP_MASQUERADE, p, masqueradeFlow(this, p, nat));
  }

  private forwardFragment(p: Packet, flows: Flows): number {
    if (isJoined(this, p)) return joinFragment(this, p);
    const { virtual } = this;
    const v = acceptFragment(this, p);
    if (v !== CONTINUE) return v;
    if (ip.isLaterFragment(p)) return this.forwardLaterFragment(p, flows);
    const first = this.judge(p);
    if (first !== CONTINUE) {
      virtual.refuse(p, first);
      return first;
    }
    admitFragments(this, p, flows);
    const { datagram } = p;
    const sent = this.send(p);
    for (let held = virtual.nextReleased(datagram); held !== null; held = virtual.nextReleased(datagram)) {
      const w = this.forwardLaterFragment(held, flows);
      if (w !== TAKEN) this.drop(held, w);
    }
    return sent;
  }

  private forwardLaterFragment(p: Packet, flows: Flows): number {
    const v = judgeLaterFragment(this, p, flows);
    return v === CONTINUE ? this.send(p) : v;
  }

  /** The packet gets its new addresses; steps 9 to 11. */
  private send(p: Packet): number {
    if (this.nat !== null) {
      const v = this.took(STEP_REWRITE, p, rewriteAddresses(p, this.nat));
      if (v !== CONTINUE) return v;
    }
    if (!ip.isTcp(p)) this.uncontrolled += segmentsOf(this.view, p);
    const hop = this.nextHops[p.hop];
    switch (hop.kind) {
      case hops.HOP_POD:
        return sendToPod(this, p, hop);
      case hops.HOP_HOST:
        return sendToHost(this, p, hop);
      default:
        return sendToUnderlay(this, p, hop);
    }
  }

  // ---------------------------------------------------------------- packets that waited

  /** A frame of the neighbour table's own, or one that it held until its next hop was known. */
  transmit(p: Packet): void {
    if (this.uplink === null) this.drop(p, DROP_NO_PORT);
    else this.uplink.queue(p);
  }

  /** For frames that can wait: the device is asked itself, for the control plane hears late of a link that goes down. */
  canTransmit(): boolean {
    const { uplink } = this;
    return uplink !== null && uplink.device.isUp?.() !== false;
  }

  /** The next hop of a held packet never answered: its sender hears of it, as from Linux. */
  unreachable(p: Packet): void {
    p.pull(ethernet.HEADER_LEN);
    if (ip.takeOffTunnel(this.view, p)) answer(this, p, ip.HOST_UNREACHABLE, 0);
    this.drop(p, DROP_NEIGHBOR_UNREACHABLE);
  }

  /** A datagram for the tunnel stayed incomplete; `first` is only lent. */
  timeout(first: Packet): void {
    answer(this, first, ip.REASSEMBLY_EXCEEDED, 0);
  }
}

/**
 * One direction of a wire with its impairments, in netem's order: loss, duplication, corruption; then the rate, the delay,
 * and what is not delayed. Whatever depends on how many packets there are is done to what a wire would carry: a superpacket
 * is cut for it. Only delay, MTU and filter leave it whole.
 *
 * Each kind of chance has its own sequence: what is lost does not depend on how long it took.
 */
import type { Counters } from '../counters.ts';
import { clone } from '../packet/copy.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { Random } from '../random.ts';
import * as verdict from '../verdict.ts';
import { PROTO_ICMP } from '../wire/ipv4.ts';
import { sample } from './delay.ts';
import { cutFrame, flipBit, MAX_PIECES, markCe, passesCheck, protocolOf, wireLength } from './frames.ts';
import { Held } from './held.ts';
import { type Impairments, UNIMPAIRED } from './impairments.ts';

/** Where a line ends. */
export interface LineEnd {
  /** Takes ownership of `p`, which came by the port `from` (-1: gone). */
  arrive(p: Packet, from: number): void;
}

export interface LineOptions {
  pool: Pool;
  /** Slots that it leaves in the pool. */
  reserve: number;
  counters: Counters;
  /** [0]: now, in milliseconds; whoever runs the line keeps it. */
  time: Float64Array;
  /** Of all that happens by chance. */
  seed: number;
  end: LineEnd;
  /** Offset in an IPv4 header of the address that `sourceDestCheck` is about. */
  checked: number;
}

export class Line {
  impairments: Impairments = UNIMPAIRED;
  private readonly pool: Pool;
  private readonly counters: Counters;
  /** [0]: now, in milliseconds. */
  private readonly time: Float64Array;
  private readonly end: LineEnd;
  private readonly checked: number;
  private readonly held = new Held();
  private readonly pieces: Packet[] = [];
  /** Packets that the pool keeps for the path itself: what a wire holds is taken from the rest. */
  private readonly reserve: number;
  private isPlain = true;
  private cuts = false;
  private timed = false;
  private maxPackets = 0;
  private maxBacklogMs = 0;
  private ceBacklogMs = 0;
  private msPerByte = 0;
  private burstMs = 0;
  /** When the rate lets the next frame go. */
  private readonly nextFree = Float64Array.of(Number.NEGATIVE_INFINITY);
  private isBad = false;
  private readonly losses: Random;
  private readonly duplicates: Random;
  private readonly corruptions: Random;
  private readonly reorders: Random;
  private readonly jitters: Random;

  constructor(options: LineOptions) {
    this.pool = options.pool;
    this.reserve = options.reserve;
    this.counters = options.counters;
    this.time = options.time;
    this.end = options.end;
    this.checked = options.checked;
    const seeds = new Random(options.seed);
    // The first few numbers of neighbouring seeds are alike.
    for (let i = 0; i < 8; i++) seeds.next();
    this.losses = new Random(seeds.next());
    this.duplicates = new Random(seeds.next());
    this.corruptions = new Random(seeds.next());
    this.reorders = new Random(seeds.next());
    this.jitters = new Random(seeds.next());
  }

  /** Whether nothing at all is done to a packet. */
  get isClear(): boolean {
    return this.isPlain && this.held.size === 0;
  }

  /** Packets that are on their way. */
  get waiting(): number {
    return this.held.size;
  }

  /** From now on; what is on its way arrives when it would have. */
  set(impairments: Impairments): void {
    const i = impairments;
    this.impairments = i;
    this.cuts = i.loss !== 0 || i.duplicate > 0 || i.corrupt > 0 || i.reorder > 0 || i.jitter > 0 || i.rate > 0;
    this.timed = i.delay > 0 || i.jitter > 0 || i.rate > 0;
    this.isPlain = !this.cuts && !this.timed && i.mtu === 0 && i.icmp === 'passed' && i.sourceDestCheck.length === 0;
    this.msPerByte = i.rate > 0 ? 8000 / i.rate : 0;
    this.burstMs = i.burst * this.msPerByte;
    this.maxPackets = 'packets' in i.limit ? i.limit.packets : Number.POSITIVE_INFINITY;
    this.maxBacklogMs = 'bytes' in i.limit ? i.limit.bytes * this.msPerByte : Number.POSITIVE_INFINITY;
    this.ceBacklogMs = i.ceThreshold > 0 ? i.ceThreshold * this.msPerByte : Number.POSITIVE_INFINITY;
    if (this.cuts && this.pieces.length === 0) {
      for (let n = 0; n < MAX_PIECES; n++) this.pieces.push(this.pool.packets[0]);
    }
  }

  /** Takes ownership of `p`, an Ethernet frame that came by the port `from`. */
  send(p: Packet, from: number): void {
    const { pool, impairments } = this;
    if (impairments.mtu > 0 && wireLength(pool.view, p) > impairments.mtu) {
      this.drop(p, verdict.DROP_WIRE_MTU);
      return;
    }
    if (impairments.icmp === 'filtered' && protocolOf(pool.view, p) === PROTO_ICMP) {
      this.drop(p, verdict.DROP_WIRE_ICMP_FILTERED);
      return;
    }
    const { sourceDestCheck } = impairments;
    if (sourceDestCheck.length > 0 && !passesCheck(pool.view, p, this.checked, sourceDestCheck)) {
      this.drop(p, verdict.DROP_WIRE_SOURCE_DEST_CHECK);
      return;
    }
    if (!this.cuts || p.gsoType === 0) {
      this.impair(p, from);
      return;
    }
    const n = cutFrame(pool, p, this.pieces);
    if (n === 0) this.drop(p, verdict.DROP_WIRE_CANNOT_CUT);
    else pool.release(p);
    for (let i = 0; i < n; i++) this.impair(this.pieces[i], from);
  }

  /** Lets arrive what is due. @returns when the next is, in ms as `time`; Infinity if nothing is on its way */
  run(): number {
    const { held, end } = this;
    const now = this.time[0];
    while (held.first <= now) {
      const p = held.pop();
      end.arrive(p, held.tag);
    }
    return held.first;
  }

  /** The port is gone: nothing that came by it says any more where its sender is. */
  forgetPort(port: number): void {
    this.held.forgetTag(port);
  }

  /** What is on its way is lost. */
  close(): void {
    while (this.held.size > 0) this.drop(this.held.pop(), verdict.DROP_WIRE_CLOSED);
  }

  private impair(p: Packet, from: number): void {
    const { impairments } = this;
    if (impairments.loss !== 0 && this.isLost()) {
      this.drop(p, verdict.DROP_WIRE_LOSS);
      return;
    }
    if (happens(this.duplicates, impairments.duplicate)) {
      const copy = this.pool.available > this.reserve ? clone(this.pool, p) : null;
      if (copy === null) this.counters.drop(verdict.DROP_NO_BUFFER, p.len);
      else this.enqueue(copy, from);
    }
    this.enqueue(p, from);
  }

  private isLost(): boolean {
    const { loss } = this.impairments;
    if (typeof loss === 'number') return happens(this.losses, loss);
    // As loss_gilb_ell() of sch_netem.c: the packet is judged in the state that it found.
    const wasBad = this.isBad;
    if (happens(this.losses, wasBad ? loss.r : loss.p)) this.isBad = !wasBad;
    return happens(this.losses, wasBad ? loss.badLoss : loss.goodLoss);
  }

  private enqueue(p: Packet, from: number): void {
    const { pool, impairments, held, nextFree } = this;
    if (happens(this.corruptions, impairments.corrupt)) flipBit(pool.view, p, this.corruptions.below(8 * p.len));
    if (!this.timed) {
      this.end.arrive(p, from);
      return;
    }
    const now = this.time[0];
    let due = now;
    if (held.size >= this.maxPackets || pool.available < this.reserve) {
      this.drop(p, verdict.DROP_WIRE_QUEUE_FULL);
      return;
    }
    if (this.msPerByte > 0) {
      const start = Math.max(nextFree[0], now - this.burstMs);
      const backlog = Math.max(0, start - now);
      const took = p.len * this.msPerByte;
      if (backlog + took > this.maxBacklogMs) {
        this.drop(p, verdict.DROP_WIRE_QUEUE_FULL);
        return;
      }
      if (backlog > this.ceBacklogMs) markCe(pool.view, p);
      nextFree[0] = start + took;
      due = Math.max(now, nextFree[0]);
    }
    if (!happens(this.reorders, impairments.reorder)) {
      const { delay, jitter, distribution } = impairments;
      due += jitter === 0 ? delay : Math.max(0, delay + jitter * sample(this.jitters, distribution));
    }
    held.push(p, from, due);
    this.run();
  }

  private drop(p: Packet, reason: number): void {
    this.counters.drop(reason, p.len);
    this.pool.release(p);
  }
}

/** A number below 2^32 falls below `probability` of it. */
function happens(random: Random, probability: number): boolean {
  return probability > 0 && random.next() >>> 0 < probability * 4294967296;
}

/**
 * The node's own addresses on the link, and whoever else uses them (RFC 5227):
 *
 *   probe, probe, probe           is the address free? (section 2.1.1)
 *     announce, announce          it is ours (section 2.3)
 *       in use -- conflict --> defended, once in DEFEND_INTERVAL (section 2.4, its third kind of host: c)
 *
 * Unlike the RFC's host we use an address while we probe for it: it stands in a configuration, and a router that waits for
 * nine seconds after each start loses more than a conflict costs. For the same reason it is never given up.
 *
 * Conflicts are remembered for whoever runs the node, so many at most, the oldest giving way.
 */
import type { Random } from '../random.ts';

// RFC 5227 section 1.1, in milliseconds.
const PROBES = 3;
const PROBE_MIN_MS = 1000;
const PROBE_MAX_MS = 2000;
const ANNOUNCE_WAIT_MS = 2000;
const ANNOUNCEMENTS = 2;
const ANNOUNCE_INTERVAL_MS = 2000;
const DEFEND_INTERVAL_MS = 10_000;

/** Pairs of address and MAC that are remembered. */
const CONFLICTS = 16;
/** A conflict that has not been seen for so long is over. */
const CONFLICT_MS = 600_000;

/** Sends an ARP request. Probe: sender 0. Announcement: sender and target are the address. */
export type SendRequest = (sender: number, target: number) => void;

interface Claim {
  /** Probes and announcements sent. */
  step: number;
  /** When the next is due; Infinity: none is. */
  at: number;
  /** When it was last announced against somebody. */
  defendedAt: number;
}

/** While the link is down, it is looked at so often. */
const LINK_WAIT_MS = 100;

/** Another station with an address or a MAC of ours. */
export interface AddressConflict {
  /** int32: the address that it says it has. */
  address: number;
  mac: { hi: number; lo: number };
  /** ARP frames that said so. */
  packets: number;
  firstMs: number;
  /** Age of the last one. */
  lastMs: number;
}

export class AddressClaims {
  private readonly claims = new Map<number, Claim>();
  private readonly random: Random | null;
  private readonly send: SendRequest;
  private readonly isLinkUp: () => boolean;
  private nextAt = Number.POSITIVE_INFINITY;

  // Conflicts, by row. A row with no packets is free.
  private readonly address = new Int32Array(CONFLICTS);
  private readonly macHi = new Uint16Array(CONFLICTS);
  private readonly macLo = new Int32Array(CONFLICTS);
  private readonly packets = new Float64Array(CONFLICTS);
  private readonly first = new Float64Array(CONFLICTS);
  private readonly last = new Float64Array(CONFLICTS);
  /** Counts conflicts that were not known, or had been over: a change is news. */
  news = 0;

  /** @param isLinkUp would a request leave now? Until it does, claims wait: a probe that nobody hears asks nothing. */
  constructor(random: Random | null, send: SendRequest, isLinkUp: () => boolean = () => true) {
    this.random = random;
    this.send = send;
    this.isLinkUp = isLinkUp;
  }

  /** @param addr int32 */
  has(addr: number): boolean {
    return this.claims.has(addr);
  }

  /** The address is ours, without a word to anybody. */
  add(addr: number): void {
    if (this.claims.has(addr)) return;
    this.claims.set(addr, { step: 0, at: Number.POSITIVE_INFINITY, defendedAt: Number.NEGATIVE_INFINITY });
  }

  remove(addr: number): void {
    this.claims.delete(addr);
  }

  /** Asks whether an own address is free, and tells everybody that it is taken. The first probe leaves at once. */
  claim(addr: number, now: number): void {
    this.begin(addr, 0, now);
  }

  /** Tells everybody that an own address is here, once, and asks nothing. */
  announce(addr: number, now: number): void {
    this.begin(addr, PROBES + ANNOUNCEMENTS - 1, now);
  }

  private begin(addr: number, step: number, now: number): void {
    const claim = this.claims.get(addr);
    if (claim === undefined) return;
    claim.step = step;
    claim.at = now;
    this.nextAt = now;
    this.tick(now);
  }

  /** Sends what is due. @returns milliseconds until it wants to be called again */
  tick(now: number): number {
    if (now < this.nextAt) return this.nextAt - now;
    if (!this.isLinkUp()) {
      this.nextAt = now + LINK_WAIT_MS;
      return LINK_WAIT_MS;
    }
    this.nextAt = Number.POSITIVE_INFINITY;
    for (const [addr, claim] of this.claims) {
      if (claim.at <= now) this.step(addr, claim, now);
      this.nextAt = Math.min(this.nextAt, claim.at);
    }
    return this.nextAt - now;
  }

  private step(addr: number, claim: Claim, now: number): void {
    const step = ++claim.step;
    this.send(step <= PROBES ? 0 : addr, addr);
    if (step < PROBES) claim.at = now + this.probeInterval();
    else if (step === PROBES) claim.at = now + ANNOUNCE_WAIT_MS;
    else if (step < PROBES + ANNOUNCEMENTS) claim.at = now + ANNOUNCE_INTERVAL_MS;
    else claim.at = Number.POSITIVE_INFINITY;
  }

  private probeInterval(): number {
    return this.random === null ? PROBE_MIN_MS : PROBE_MIN_MS + this.random.below(PROBE_MAX_MS - PROBE_MIN_MS);
  }

  /**
   * Somebody else has sent an ARP frame with an own address or the own MAC as its sender's.
   * @param addr, hi, lo the sender's address (int32) and MAC
   */
  meet(addr: number, hi: number, lo: number, now: number): void {
    this.note(addr, hi, lo, now);
    const claim = this.claims.get(addr);
    if (claim === undefined || now - claim.defendedAt < DEFEND_INTERVAL_MS) return;
    claim.defendedAt = now;
    this.send(addr, addr);
  }

  private note(addr: number, hi: number, lo: number, now: number): void {
    const { address, macHi, macLo, packets, first, last } = this;
    let row = 0;
    for (let i = 0; i < CONFLICTS; i++) {
      if (packets[i] > 0 && address[i] === addr && macHi[i] === hi && macLo[i] === lo) {
        row = i;
        break;
      }
      // A free one, or that of which least has been heard lately.
      if (packets[row] > 0 && (packets[i] === 0 || last[i] < last[row])) row = i;
    }
    const known = packets[row] > 0 && address[row] === addr && macHi[row] === hi && macLo[row] === lo;
    if (!known || now - last[row] > CONFLICT_MS) {
      address[row] = addr;
      macHi[row] = hi;
      macLo[row] = lo;
      packets[row] = 0;
      first[row] = now;
      this.news++;
    }
    packets[row]++;
    last[row] = now;
  }

  /** Conflicts that are not over, the oldest first. */
  conflicts(now: number): AddressConflict[] {
    const rows: AddressConflict[] = [];
    for (let i = 0; i < CONFLICTS; i++) {
      if (this.packets[i] === 0 || now - this.last[i] > CONFLICT_MS) continue;
      rows.push({
        address: this.address[i],
        mac: { hi: this.macHi[i], lo: this.macLo[i] },
        packets: this.packets[i],
        firstMs: now - this.first[i],
        lastMs: now - this.last[i],
      });
    }
    return rows.sort((a, b) => b.firstMs - a.firstMs);
  }
}

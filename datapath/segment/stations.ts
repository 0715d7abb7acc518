/**
 * Which station is behind which port: what a switch learns from source addresses (IEEE 802.1Q clause 8.7). A table of fixed
 * size, 8 places for each hash: nothing is ever moved, and a station that finds no place is simply not learnt.
 */

/** Milliseconds after which a silent station is forgotten: that of Linux's bridge and of IEEE 802.1Q table 8-6. */
export const AGEING_MS = 300_000;

const WAYS = 8;
const SETS = 512;

export class Stations {
  private readonly hi = new Int32Array(SETS * WAYS);
  private readonly lo = new Int32Array(SETS * WAYS);
  /** Port + 1; 0: empty. */
  private readonly ports = new Int32Array(SETS * WAYS);
  private readonly seen = new Float64Array(SETS * WAYS);
  /** [0]: now, in milliseconds. */
  private readonly time: Float64Array;

  constructor(time: Float64Array) {
    this.time = time;
  }

  /** The station was heard behind `port`. MACs as in wire/ethernet.ts. */
  learn(hi: number, lo: number, port: number): void {
    const now = this.time[0];
    const first = setOf(hi, lo);
    let free = -1;
    for (let i = first; i < first + WAYS; i++) {
      if (this.ports[i] !== 0 && this.hi[i] === hi && this.lo[i] === lo) {
        this.ports[i] = port + 1;
        this.seen[i] = now;
        return;
      }
      if (free < 0 && (this.ports[i] === 0 || now - this.seen[i] >= AGEING_MS)) free = i;
    }
    if (free < 0) return;
    this.hi[free] = hi;
    this.lo[free] = lo;
    this.ports[free] = port + 1;
    this.seen[free] = now;
  }

  /** The port behind which the station was heard last, or -1. */
  lookup(hi: number, lo: number): number {
    const first = setOf(hi, lo);
    for (let i = first; i < first + WAYS; i++) {
      if (this.ports[i] === 0 || this.hi[i] !== hi || this.lo[i] !== lo) continue;
      return this.time[0] - this.seen[i] < AGEING_MS ? this.ports[i] - 1 : -1;
    }
    return -1;
  }

  /** Forgets all that are behind a port. */
  forgetPort(port: number): void {
    for (let i = 0; i < this.ports.length; i++) if (this.ports[i] === port + 1) this.ports[i] = 0;
  }

  /** All that are known, for display. */
  *entries(): Generator<{ hi: number; lo: number; port: number; ageMs: number }> {
    for (let i = 0; i < this.ports.length; i++) {
      const ageMs = this.time[0] - this.seen[i];
      if (this.ports[i] === 0 || ageMs >= AGEING_MS) continue;
      yield { hi: this.hi[i], lo: this.lo[i], port: this.ports[i] - 1, ageMs };
    }
  }
}

function setOf(hi: number, lo: number): number {
  return (Math.imul(lo ^ (hi << 8), 0x9e3779b1) >>> 23) * WAYS;
}

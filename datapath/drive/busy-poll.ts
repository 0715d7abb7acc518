/**
 * How long a thread looks for packets again and again before it sleeps, by what that would have saved, as KVM chooses
 * halt_poll_ns (virt/kvm/kvm_main.c, kvm_vcpu_halt). Packets that come soon after each other find it awake, which saves the
 * wake-up of a processor (30 to 60 us in a VM); after a longer pause it sleeps at once, so that a node with little to do costs
 * next to nothing.
 */

/** A wait that would have been covered by less than this is taken as the beginning of more. */
const FIRST_MS = 0.01;
/** Longer waits are slept through, however regular: with a packet every 3 ms it looks all the time, with one every 10 ms never. */
export const MOST_MS = 5;

export class BusyPoll {
  private readonly least: number;
  private readonly most: number;
  /** Milliseconds to look in the next wait. */
  ms: number;

  /** @param setting microseconds, always; or auto */
  constructor(setting: number | 'auto') {
    this.least = setting === 'auto' ? 0 : setting / 1000;
    this.most = setting === 'auto' ? MOST_MS : this.least;
    this.ms = this.least;
  }

  /** False: it sleeps at once, always. */
  get isOn(): boolean {
    return this.most > 0;
  }

  /** A wait is over. @param ms how long it was, whatever ended it */
  waited(ms: number): void {
    if (ms > this.most) this.ms = this.least;
    else if (ms > this.ms) this.ms = Math.min(this.most, Math.max(FIRST_MS, 2 * this.ms));
  }

  /** Others wait for the processor that it looked on. */
  crowded(): void {
    this.ms = this.least;
  }
}

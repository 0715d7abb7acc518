/**
 * Waiting for descriptors. One struct pollfd for each source stays in memory that the kernel reads and writes; a source whose
 * device is gone stays in the list, and is not waited for any more.
 */
import { readTime } from '../io/clock.ts';
import * as libc from '../io/libc.ts';
import type { BusyPoll } from './busy-poll.ts';

const POLLIN = 1;
const POLLERR = 8;
const POLLHUP = 16;
const POLLNVAL = 32;
/** Who gives the processor away, and gets it back so late, was not alone in wanting it. */
const CROWDED_MS = 0.2;
/** struct pollfd: int fd; short events; short revents. */
const POLLFD_BYTES = 8;

export interface Source {
  readonly fd: number;
  /** Reads what is there. @returns a negative number when nothing will come any more */
  read(): number;
  /** Called when nothing will come any more. */
  gone?(): void;
}

/** Where something for this thread may come from without a descriptor: other threads (segment/mesh.ts). */
export interface Elsewhere {
  readonly hasFrames: boolean;
  /** It is about to sleep, and a descriptor will wake it. @returns false when it must not */
  lieDown(): boolean;
  getUp(): void;
}

export class Poller {
  private readonly elsewhere: Elsewhere | null;
  private sources: Source[] = [];
  private readonly dead = new Set<Source>();
  private view = new DataView(new ArrayBuffer(0));
  /** Kept: the kernel knows it by its address. */
  private bytes = new Uint8Array(0);
  private address = 0;
  /** struct timespec. */
  private readonly timeout = new Int32Array(4);
  private readonly timeoutAddress = libc.addressOf(this.timeout);
  /** Now, in ms. */
  private readonly time = new Float64Array(1);

  constructor(elsewhere: Elsewhere | null = null) {
    this.elsewhere = elsewhere;
  }

  /** What is waited for from now on; those that are gone stay so. */
  set(sources: readonly Source[]): void {
    this.sources = sources.filter(({ fd }) => fd >= 0);
    for (const source of this.dead) if (!this.sources.includes(source)) this.dead.delete(source);
    this.bytes = new Uint8Array(POLLFD_BYTES * this.sources.length);
    this.view = new DataView(this.bytes.buffer);
    this.address = libc.addressOf(this.bytes);
    this.sources.forEach((source, i) => {
      this.view.setInt32(i * POLLFD_BYTES, this.dead.has(source) ? -1 : source.fd, true);
      this.view.setInt16(i * POLLFD_BYTES + 4, POLLIN, true);
    });
  }

  /**
   * Waits until a source is ready, or `ms` are over.
   * @param ms Infinity: for ever; a fraction counts
   * @param busy for how long it looks again and again before it sleeps
   * @returns how many are
   */
  wait(ms: number, busy: BusyPoll): number {
    if (ms <= 0) return libc.poll(this.address, this.sources.length, 0);
    if (!busy.isOn) return this.sleep(ms);
    const { time } = this;
    readTime(time);
    const began = time[0];
    let ready = busy.ms > 0 ? this.look(began + Math.min(busy.ms, ms), busy) : 0;
    if (ready === 0) ready = this.sleep(ms - (time[0] - began));
    readTime(time);
    busy.waited(time[0] - began);
    return ready;
  }

  /** Looks until `end`, or until somebody else wants the processor, as the kernel's busy polling does (sk_busy_loop_end). */
  private look(end: number, busy: BusyPoll): number {
    const { address, sources, time, elsewhere } = this;
    do {
      if (elsewhere?.hasFrames) return 0;
      const ready = libc.poll(address, sources.length, 0);
      if (ready !== 0) return ready;
      const before = time[0];
      libc.schedYield();
      readTime(time);
      if (time[0] - before > CROWDED_MS) {
        busy.crowded();
        return 0;
      }
    } while (time[0] < end);
    return 0;
  }

  private sleep(ms: number): number {
    const { address, sources, elsewhere } = this;
    if (ms <= 0) return 0;
    if (elsewhere === null) return this.block(ms);
    if (!elsewhere.lieDown()) return libc.poll(address, sources.length, 0);
    const ready = this.block(ms);
    elsewhere.getUp();
    return ready;
  }

  private block(ms: number): number {
    const { address, sources } = this;
    if (ms > 0x7fffffff) return libc.poll(address, sources.length, -1);
    const seconds = Math.floor(ms / 1000);
    this.timeout[0] = seconds;
    this.timeout[2] = Math.ceil((ms - 1000 * seconds) * 1e6);
    if (this.timeout[2] === 1e9) {
      this.timeout[0]++;
      this.timeout[2] = 0;
    }
    return libc.ppoll(address, sources.length, this.timeoutAddress, 0, 0);
  }

  /** Reads once from each source that is ready: a busy one waits for the others between its bursts. */
  read(): void {
    const { sources, view } = this;
    for (let i = 0; i < sources.length; i++) {
      const events = view.getInt16(i * POLLFD_BYTES + 6, true);
      if (events === 0) continue;
      const isGone = (events & POLLIN) !== 0 ? sources[i].read() < 0 : (events & (POLLERR | POLLHUP | POLLNVAL)) !== 0;
      // It may have been taken out of the list meanwhile.
      if (isGone && this.sources === sources) {
        this.dead.add(sources[i]);
        view.setInt32(i * POLLFD_BYTES, -1, true);
        sources[i].gone?.();
      }
      if (this.sources !== sources) return;
    }
  }
}

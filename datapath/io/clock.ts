/** The machine's monotonic clock, in whole milliseconds. */
import type { Clock } from '../clock.ts';
import * as libc from './libc.ts';

/** struct timespec: seconds and nanoseconds, 8 bytes each. */
const timespec = new Int32Array(4);
const address = libc.addressOf(timespec);

/**
 * Read by a system call of our own into memory that stays: performance.now() leaves one or two numbers on the heap each
 * time that it is not inlined, 0.5 bytes a packet in full bursts. Costs 100 ns, that one 80.
 */
export const monotonicClock: Clock = {
  now() {
    libc.clockGettime(libc.CLOCK_MONOTONIC, address);
    return (timespec[0] - firstSecond) * 1000 + ((timespec[2] / 1e6) | 0);
  },
};

libc.clockGettime(libc.CLOCK_MONOTONIC, address);
/** Counting from here, a reading stays small enough for V8 to keep it off the heap for 24 days of the process, not of the machine. */
const firstSecond = timespec[0];

/** A reading of the machine's CLOCK_MONOTONIC, in ms since it was started, as this clock says it. */
export function fromMachineTime(ms: number): number {
  return ms - firstSecond * 1000;
}

/** The same clock with its fraction, into `cell[0]`: whoever reads it there gets no number on the heap. */
export function readTime(cell: Float64Array): void {
  libc.clockGettime(libc.CLOCK_MONOTONIC, address);
  cell[0] = (timespec[0] - firstSecond) * 1000 + timespec[2] / 1e6;
}

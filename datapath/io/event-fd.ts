/** eventfd (man 2 eventfd): what wakes a thread that sleeps until one of its descriptors is ready. */
import * as libc from './libc.ts';

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

/** It counts in 8 bytes. */
const BYTES = 8;
// Asked for their addresses at each use: nothing else would keep them from being collected.
const one = new Int32Array([1, 0]);
const word = new Int32Array(2);

/** @throws Error when there are no descriptors left */
export function openEventFd(): number {
  const fd = libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) throw new Error(`eventfd: ${libc.errnoName(libc.errno())}`);
  return fd;
}

/** Makes it ready. */
export function raiseEventFd(fd: number): void {
  libc.write(fd, libc.addressOf(one), BYTES);
}

/** Makes it wait again. */
export function clearEventFd(fd: number): void {
  libc.read(fd, libc.addressOf(word), BYTES);
}

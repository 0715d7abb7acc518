/**
 * Which processor a thread runs on. Two threads that are compared in turn must share one: a neighbour on the same core
 * makes one of two processors slower for seconds (1.7 times as long was seen), and the thread on it would look slow.
 */
import koffi from 'koffi';
import { errno, errnoName } from '../datapath/io/libc.ts';

const libc = koffi.load('libc.so.6');
/** pid 0 is the calling thread. @returns 0, or -1 */
const setAffinity = libc.func('int sched_setaffinity(int pid, size_t bytes, const uint8_t *mask)');
const getAffinity = libc.func('int sched_getaffinity(int pid, size_t bytes, _Out_ uint8_t *mask)');
/** CPU_SETSIZE bits. */
const MASK_BYTES = 128;

function currentMask(): Uint8Array {
  const mask = new Uint8Array(MASK_BYTES);
  if (getAffinity(0, MASK_BYTES, mask) < 0) throw new Error(`sched_getaffinity: ${errnoName(errno())}`);
  return mask;
}

function setMask(mask: Uint8Array): void {
  if (setAffinity(0, MASK_BYTES, mask) !== 0) throw new Error(`sched_setaffinity: ${errnoName(errno())}`);
}

/** Numbers of those that the calling thread may run on, ascending. */
export function processors(): number[] {
  const mask = currentMask();
  const found: number[] = [];
  for (let cpu = 0; cpu < 8 * MASK_BYTES; cpu++) if ((mask[cpu >> 3] >> (cpu & 7)) & 1) found.push(cpu);
  return found;
}

/**
 * Calls `start` on processor `cpu`: the threads that it starts may run on no other, since they inherit that from the one
 * that starts them. The calling thread itself may run where it could before.
 * @throws Error if the processor is none of ours
 */
export function onProcessor<T>(cpu: number, start: () => T): T {
  const before = currentMask();
  const only = new Uint8Array(MASK_BYTES);
  only[cpu >> 3] = 1 << (cpu & 7);
  setMask(only);
  try {
    return start();
  } finally {
    setMask(before);
  }
}

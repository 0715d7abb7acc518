/** Memory with pages of 2 MiB, for tables that are read at random: it spares most page walks (bench/conntrack.ts). */
import * as libc from './libc.ts';

const PAGE = 4096;

/**
 * Zeroed memory of `bytes`. The kernel takes huge pages where it has them (madvise; it may be told not to in
 * /sys/kernel/mm/transparent_hugepage/enabled), and what is never touched costs nothing but address space.
 * @throws RangeError when there is no memory
 */
export function hugeMemory(bytes: number): ArrayBuffer {
  // V8's own, so that it goes with the thread. A mapping stayed until the process ended: 6.7 GB in a whole `bench all`.
  const memory = new ArrayBuffer(bytes);
  const at = libc.addressOf(new Uint8Array(memory));
  const start = Math.floor(at / PAGE) * PAGE;
  // Refused by a kernel without huge pages; then it is slower.
  libc.madvise(start, Math.ceil((at + bytes - start) / PAGE) * PAGE, libc.MADV_HUGEPAGE);
  return memory;
}

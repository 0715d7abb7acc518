/** Memory with pages of 2 MiB, for tables that are read at random: it spares most page walks (bench/conntrack.ts). */
import * as libc from './libc.ts';

const PAGE = 2 << 20;
const LARGE = 1 << 20;
const SMALL_PAGE = 4096;

/**
 * Zeroed memory of `bytes` that begins with a page, and so with a cache line. The kernel takes huge pages where it has them
 * (madvise; it may be told not to in /sys/kernel/mm/transparent_hugepage/enabled), and what is never touched costs nothing
 * but address space.
 * @param forThreads so that other threads see it, too
 * @throws RangeError when there is no memory
 */
export function hugeMemory(bytes: number, forThreads = false): Uint8Array {
  // V8's own, so that it goes with the thread. A mapping stayed until the process ended: 6.7 GB in a whole `bench all`.
  const size = bytes + 2 * PAGE;
  const room = forThreads ? new Uint8Array(new SharedArrayBuffer(size)) : new Uint8Array(size);
  const at = libc.addressOf(room);
  const start = Math.ceil(at / PAGE) * PAGE;
  // Refused by a kernel without huge pages; then it is slower.
  libc.madvise(start, Math.ceil(bytes / PAGE) * PAGE, libc.MADV_HUGEPAGE);
  return room.subarray(start - at, start - at + bytes);
}

/**
 * As hugeMemory, and all of it is there when this returns: for tables that a loop fills. The first touch of 2 MiB takes 0.1
 * ms on bare metal, and up to 6 ms in a virtual machine whose host has to find the memory first.
 * @throws RangeError when there is no memory
 */
export function residentMemory(bytes: number): Uint8Array {
  const memory = hugeMemory(bytes);
  const refused = libc.madvise(
    libc.addressOf(memory),
    Math.ceil(bytes / SMALL_PAGE) * SMALL_PAGE,
    libc.MADV_POPULATE_WRITE,
  );
  // Linux before 5.14.
  if (refused !== 0) for (let at = 0; at < bytes; at += SMALL_PAGE) memory[at] = 0;
  return memory;
}

/**
 * From here on, what is large and freed goes back to the kernel, and comes from there, where it is zero without work. glibc
 * learns otherwise from the first piece that is freed (mallopt(3), M_MMAP_THRESHOLD): it keeps the next ones, and writes zeros
 * into all of them, also where a table of 64 MiB uses 1. For whoever makes nodes by the hundred, one after the other.
 */
export function mapLargeMemory(): void {
  libc.mallopt(libc.M_MMAP_THRESHOLD, LARGE);
}

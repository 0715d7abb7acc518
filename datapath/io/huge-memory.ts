/** Memory with pages of 2 MiB, for tables that are read at random: it spares most page walks (bench/conntrack.ts). */
import koffi from 'koffi';
import * as libc from './libc.ts';

const PAGE = 2 << 20;

/**
 * Zeroed memory of `bytes`, never given back. The kernel takes huge pages where it has them (madvise; it may be told not
 * to in /sys/kernel/mm/transparent_hugepage/enabled), and what is never touched costs nothing but address space.
 * @throws RangeError when there is no memory
 */
export function hugeMemory(bytes: number): ArrayBufferLike {
  const length = Math.ceil(bytes / PAGE) * PAGE;
  const at = libc.mmap(
    0,
    length + PAGE,
    libc.PROT_READ | libc.PROT_WRITE,
    libc.MAP_PRIVATE | libc.MAP_ANONYMOUS,
    -1,
    0,
  );
  if (at === -1) throw new RangeError(`${bytes} bytes of memory: ${libc.errnoName(libc.errno())}`);
  const start = Math.ceil(at / PAGE) * PAGE;
  libc.madvise(start, length, libc.MADV_HUGEPAGE);
  return koffi.view(BigInt(start), bytes);
}

/**
 * io_uring (man 7 io_uring), as much of it as batching needs: up to RING_SIZE reads or writes, submitted and waited for by one
 * system call. A TUN takes one packet for each call otherwise. bench/batching.ts: 0.7 of the time for short packets, 0.86 for
 * superpackets, with the interface's own work in both.
 *
 * Every operation says RWF_NOWAIT (O_NONBLOCK is not enough: io_rw_init_file, io_uring/rw.c): it ends within the call, in the
 * order of its place, and nothing is left to a kernel thread that would change the order of packets.
 */
import koffi from 'koffi';
import { EAGAIN, EINTR } from './errors.ts';
import * as libc from './libc.ts';

/** Operations of one submission. */
export const RING_SIZE = 64;

const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;
const SETUP_COOP_TASKRUN = 1 << 8;
const SETUP_SINGLE_ISSUER = 1 << 12;
const FEAT_SINGLE_MMAP = 1;
const ENTER_GETEVENTS = 1;
const OFF_SQES = 0x10000000;

const RWF_NOWAIT = 8;

export const OP_READ = 22;
export const OP_WRITE = 23;

// struct io_uring_params: words at the start, then struct io_sqring_offsets and io_cqring_offsets.
const PARAMS_BYTES = 120;
const PARAMS = { sqEntries: 0, cqEntries: 4, flags: 8, features: 20, sq: 40, cq: 80 } as const;
const SQ = { tail: 4, mask: 8, array: 24 } as const;
const CQ = { head: 0, tail: 4, mask: 8, cqes: 20 } as const;

// struct io_uring_sqe and io_uring_cqe, in words of 4 bytes.
const SQE_WORDS = 16;
const SQE = { opcode: 0, fd: 1, address: 4, length: 6, flags: 7, userData: 8 } as const;
const CQE_WORDS = 4;
const CQE = { userData: 0, result: 2 } as const;

/** One thread's ring: made, and used, by that thread alone. */
export class Uring {
  /** What the operation at each place said: bytes, or a negative errno. */
  readonly results = new Int32Array(RING_SIZE);
  private readonly fd: number;
  private readonly ring: Int32Array;
  private readonly sqes: Int32Array;
  // Places in `ring`, in words.
  private readonly sqTail: number;
  private readonly sqArray: number;
  private readonly sqMask: number;
  private readonly cqHead: number;
  private readonly cqTail: number;
  private readonly cqes: number;
  private readonly cqMask: number;

  private constructor(fd: number, params: DataView) {
    this.fd = fd;
    const word = (at: number) => params.getInt32(at, true);
    const { sq, cq } = PARAMS;
    const bytes = Math.max(
      word(sq + SQ.array) + 4 * word(PARAMS.sqEntries),
      word(cq + CQ.cqes) + 4 * CQE_WORDS * word(PARAMS.cqEntries),
    );
    this.ring = mapWords(fd, bytes, 0);
    this.sqes = mapWords(fd, 4 * SQE_WORDS * word(PARAMS.sqEntries), OFF_SQES);
    this.sqTail = word(sq + SQ.tail) >> 2;
    this.sqArray = word(sq + SQ.array) >> 2;
    this.sqMask = this.ring[word(sq + SQ.mask) >> 2];
    this.cqHead = word(cq + CQ.head) >> 2;
    this.cqTail = word(cq + CQ.tail) >> 2;
    this.cqes = word(cq + CQ.cqes) >> 2;
    this.cqMask = this.ring[word(cq + CQ.mask) >> 2];
  }

  /** @returns why there is none, where the kernel has none (before 6.0), forbids it, or a filter does */
  static open(): Uring | string {
    const params = new Uint8Array(PARAMS_BYTES);
    const view = new DataView(params.buffer);
    view.setInt32(PARAMS.flags, SETUP_COOP_TASKRUN | SETUP_SINGLE_ISSUER, true);
    const fd = libc.syscall(SYS_IO_URING_SETUP, RING_SIZE, libc.addressOf(params), 0, 0, 0, 0);
    if (fd < 0) return `io_uring_setup: ${libc.errnoName(libc.errno())}`;
    if ((view.getInt32(PARAMS.features, true) & FEAT_SINGLE_MMAP) !== 0) {
      try {
        return new Uring(fd, view);
      } catch (error) {
        libc.close(fd);
        return (error as Error).message;
      }
    }
    libc.close(fd);
    return 'io_uring: its two rings are not one mapping';
  }

  /** Puts an operation at place `i` of the next submission; places are filled from 0. Addresses as everywhere in libc.ts. */
  prepare(i: number, operation: number, fd: number, address: number, bytes: number): void {
    const { ring, sqes } = this;
    const index = (ring[this.sqTail] + i) & this.sqMask;
    const at = index * SQE_WORDS;
    sqes[at + SQE.opcode] = operation;
    sqes[at + SQE.fd] = fd;
    sqes[at + SQE.address] = address;
    sqes[at + SQE.address + 1] = address / 2 ** 32;
    sqes[at + SQE.length] = bytes;
    sqes[at + SQE.flags] = RWF_NOWAIT;
    sqes[at + SQE.userData] = i;
    ring[this.sqArray + index] = index;
  }

  /** Does the operations at places 0 to n - 1 and leaves in `results` what they said; -EAGAIN where nothing was done. */
  run(n: number): void {
    const { ring, results } = this;
    results.fill(-EAGAIN, 0, n);
    ring[this.sqTail] = (ring[this.sqTail] + n) | 0;
    let submitted = 0;
    let completed = 0;
    // More than one call only where a signal has cut the first one short.
    while (completed < n) {
      const now = libc.syscall(SYS_IO_URING_ENTER, this.fd, n - submitted, n - completed, ENTER_GETEVENTS, 0, 0);
      if (now >= 0) submitted += now;
      else if (libc.errno() !== EINTR) {
        ring[this.sqTail] = (ring[this.sqTail] - (n - submitted)) | 0;
        return;
      }
      let head = ring[this.cqHead];
      for (const tail = ring[this.cqTail]; head !== tail; head = (head + 1) | 0) {
        const cqe = this.cqes + CQE_WORDS * (head & this.cqMask);
        results[ring[cqe + CQE.userData]] = ring[cqe + CQE.result];
        completed++;
      }
      ring[this.cqHead] = head;
    }
  }

  close(): void {
    libc.close(this.fd);
  }
}

function mapWords(fd: number, bytes: number, offset: number): Int32Array {
  const at = libc.mmap(0, bytes, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED | libc.MAP_POPULATE, fd, offset);
  if (at === -1) throw new Error(`io_uring: mmap: ${libc.errnoName(libc.errno())}`);
  return new Int32Array(koffi.view(BigInt(at), bytes) as ArrayBuffer);
}

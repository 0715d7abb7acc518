/**
 * The system calls that the program makes itself, through koffi. Nothing outside io/ and control/ imports this.
 *
 * Addresses are passed as plain numbers (`intptr_t`): the fastest form, about 50 ns over the bare call here, and exact,
 * since user space ends at 2^47. Every function returns what the libc function returns; -1 then means look at errno().
 */
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const CLONE_NEWNET = 0x40000000;

export const read: (fd: number, address: number, bytes: number) => number = libc.func(
  'intptr_t read(int fd, intptr_t buf, intptr_t n)',
);
export const write: (fd: number, address: number, bytes: number) => number = libc.func(
  'intptr_t write(int fd, intptr_t buf, intptr_t n)',
);
/** `fds` is the address of an array of struct pollfd {int fd; short events; short revents}. */
export const poll: (fds: number, count: number, timeoutMs: number) => number = libc.func(
  'int poll(intptr_t fds, intptr_t n, int timeout)',
);
/** As poll; `timeout` is the address of a struct timespec. */
export const ppoll: (fds: number, count: number, timeout: number, mask: number, maskBytes: number) => number =
  libc.func('int ppoll(intptr_t fds, intptr_t n, intptr_t timeout, intptr_t mask, size_t mask_n)');
export const open: (path: string, flags: number) => number = libc.func('int open(const char *path, int flags)');
export const close: (fd: number) => number = libc.func('int close(int fd)');
/** ioctl whose argument is an address or a plain value. */
export const ioctl: (fd: number, request: number, arg: number) => number = libc.func(
  'int ioctl(int fd, uint64_t request, intptr_t arg)',
);
export const eventfd: (initial: number, flags: number) => number = libc.func(
  'int eventfd(unsigned int initial, int flags)',
);
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_POPULATE = 0x8000;
export const MADV_HUGEPAGE = 14;
export const MADV_POPULATE_WRITE = 23;
/** -1 when it fails. */
export const mmap: (
  address: number,
  bytes: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
) => number = libc.func('intptr_t mmap(intptr_t addr, size_t length, int prot, int flags, int fd, int64_t offset)');
export const M_MMAP_THRESHOLD = -3;
export const mallopt: (param: number, value: number) => number = libc.func('int mallopt(int param, int value)');
export const madvise: (address: number, bytes: number, advice: number) => number = libc.func(
  'int madvise(intptr_t addr, size_t length, int advice)',
);
/** For calls that libc has no function for. */
export const syscall: (n: number, a: number, b: number, c: number, d: number, e: number, f: number) => number =
  libc.func('intptr_t syscall(intptr_t n, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e, intptr_t f)');
export const CLOCK_MONOTONIC = 1;
/** `time` is the address of a struct timespec. */
export const clockGettime: (clock: number, time: number) => number = libc.func(
  'int clock_gettime(int clock, intptr_t time)',
);
/** Lets whoever else is waiting for this processor run first. */
export const schedYield: () => number = libc.func('int sched_yield()');
/** Moves the calling thread into a namespace. */
export const setns: (fd: number, type: number) => number = libc.func('int setns(int fd, int type)');

export const F_SETFD = 2;
export const FD_CLOEXEC = 1;
export const fcntl: (fd: number, command: number, arg: number) => number = libc.func(
  'int fcntl(int fd, int command, intptr_t arg)',
);
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const flock: (fd: number, operation: number) => number = libc.func('int flock(int fd, int operation)');
export const F_DUPFD_CLOEXEC = 1030;
export const AF_UNIX = 1;
export const AF_INET = 2;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const MSG_DONTWAIT = 0x40;
export const socket: (domain: number, type: number, protocol: number) => number = libc.func(
  'int socket(int domain, int type, int protocol)',
);
/** `address` is that of a struct sockaddr. */
export const bind: (fd: number, address: number, bytes: number) => number = libc.func(
  'int bind(int fd, intptr_t addr, unsigned int n)',
);
export const sendto: (
  fd: number,
  address: number,
  bytes: number,
  flags: number,
  to: number,
  toBytes: number,
) => number = libc.func('intptr_t sendto(int fd, intptr_t buf, size_t n, int flags, intptr_t to, unsigned int to_n)');
/** `value` is an address. */
export const setsockopt: (fd: number, level: number, option: number, value: number, bytes: number) => number =
  libc.func('int setsockopt(int fd, int level, int option, intptr_t value, uint32_t bytes)');
/** `bytes` is the address of a u32: in, the room at `value`; out, what was filled. */
export const getsockopt: (fd: number, level: number, option: number, value: number, bytes: number) => number =
  libc.func('int getsockopt(int fd, int level, int option, intptr_t value, intptr_t bytes)');
/** `message` is the address of a struct msghdr. */
export const recvmsg: (fd: number, message: number, flags: number) => number = libc.func(
  'intptr_t recvmsg(int fd, intptr_t message, int flags)',
);
export const EPOLL_CTL_ADD = 1;
export const EPOLLIN = 1;
export const epollCreate: (flags: number) => number = libc.func('int epoll_create1(int flags)');
/** `event` is the address of a struct epoll_event. */
export const epollCtl: (epoll: number, operation: number, fd: number, event: number) => number = libc.func(
  'int epoll_ctl(int epoll, int operation, int fd, intptr_t event)',
);
export const PR_CAPBSET_DROP = 24;
export const PR_SET_NO_NEW_PRIVS = 38;
export const prctl: (option: number, arg2: number, arg3: number, arg4: number, arg5: number) => number = libc.func(
  'int prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, unsigned long arg5)',
);
/** Of the calling thread only. Addresses of struct __user_cap_header_struct and of two __user_cap_data_struct. */
export const capset: (header: number, data: number) => number = libc.func('int capset(intptr_t header, intptr_t data)');
/** Replaces the process; its other threads end. `argv` and `env` are addresses of arrays of strings that end with 0. */
export const execve: (path: string, argv: number, env: number) => number = libc.func(
  'int execve(const char *path, intptr_t argv, intptr_t env)',
);

/** errno of the last call made by this thread. */
export function errno(): number {
  return koffi.errno();
}

const NAMES = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));

/** 'EINVAL' for 22. */
export function errnoName(value: number): string {
  return NAMES.get(value) ?? `errno ${value}`;
}

/** Where a typed array lies in memory. Stays valid as long as its buffer is neither resized nor transferred. */
export function addressOf(array: Uint8Array | Int32Array | Int16Array): number {
  return Number(koffi.address(array));
}

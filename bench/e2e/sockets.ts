/**
 * Sockets for the programs that make and take traffic, by system calls through koffi: an event loop between the socket and
 * the clock would add microseconds of its own and their spread. Buffers go in as addresses (addressOf).
 */
import { setPriority } from 'node:os';
import koffi from 'koffi';
import { addressOf, close, errno, errnoName } from '../../datapath/io/libc.ts';

export { close, errno };

const libc = koffi.load('libc.so.6');
const socket: (domain: number, type: number, protocol: number) => number = libc.func(
  'int socket(int domain, int type, int protocol)',
);
const bindTo: (fd: number, address: number, bytes: number) => number = libc.func(
  'int bind(int fd, intptr_t addr, unsigned int len)',
);
const connectTo: (fd: number, address: number, bytes: number) => number = libc.func(
  'int connect(int fd, intptr_t addr, unsigned int len)',
);
const listenOn: (fd: number, backlog: number) => number = libc.func('int listen(int fd, int backlog)');
const setsockopt: (fd: number, level: number, name: number, value: number, bytes: number) => number = libc.func(
  'int setsockopt(int fd, int level, int name, intptr_t value, unsigned int len)',
);
const prctl: (option: number, value: number) => number = libc.func('int prctl(int option, unsigned long value)');
const nanosleep: (request: number, remaining: number) => number = libc.func(
  'int nanosleep(intptr_t request, intptr_t remaining)',
);
const ppoll: (fds: number, count: number, timeout: number, mask: number) => number = libc.func(
  'int ppoll(intptr_t fds, unsigned long n, intptr_t timeout, intptr_t mask)',
);

const accept4: (fd: number, address: number, length: number, flags: number) => number = libc.func(
  'int accept4(int fd, intptr_t addr, intptr_t len, int flags)',
);
export const recvfrom: (
  fd: number,
  buf: number,
  bytes: number,
  flags: number,
  from: number,
  fromLen: number,
) => number = libc.func(
  'intptr_t recvfrom(int fd, intptr_t buf, intptr_t n, int flags, intptr_t from, intptr_t fromlen)',
);
export const sendto: (fd: number, buf: number, bytes: number, flags: number, to: number, toLen: number) => number =
  libc.func('intptr_t sendto(int fd, intptr_t buf, intptr_t n, int flags, intptr_t to, unsigned int tolen)');
/** `messages` is the address of an array of struct mmsghdr. */
export const sendmmsg: (fd: number, messages: number, count: number, flags: number) => number = libc.func(
  'int sendmmsg(int fd, intptr_t messages, unsigned int count, int flags)',
);
export const recvmmsg: (fd: number, messages: number, count: number, flags: number, timeout: number) => number =
  libc.func('int recvmmsg(int fd, intptr_t messages, unsigned int count, int flags, intptr_t timeout)');

export const SOCKADDR_LEN = 16;
export const MSG_DONTWAIT = 0x40;
/** Of recvmmsg: wait for the first message, take what else there is. */
export const MSG_WAITFORONE = 0x10000;
export const MSG_NOSIGNAL = 0x4000;
export const EAGAIN = 11;
export const EINPROGRESS = 115;

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVTIMEO = 20; // SO_RCVTIMEO_OLD: struct timeval of two longs
const SO_RCVBUFFORCE = 33;
const PR_SET_TIMERSLACK = 29;

export function openUdp(): number {
  return check(socket(AF_INET, SOCK_DGRAM, 0), 'socket');
}

export function openTcp(): number {
  return check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), 'socket');
}

export function bind(fd: number, port: number): void {
  check(bindTo(fd, addressOf(socketAddress('0.0.0.0', port)), SOCKADDR_LEN), 'bind');
}

/** Before bind: connections of an earlier server in TIME-WAIT are no obstacle. */
export function allowReuse(fd: number): void {
  setOption(fd, SO_REUSEADDR, new Int32Array([1]));
}

export function listen(fd: number, backlog: number): void {
  check(listenOn(fd, backlog), 'listen');
}

/** -1 where no connection waits. */
export function acceptNonblocking(fd: number): number {
  return accept4(fd, 0, 0, SOCK_NONBLOCK);
}

export function connect(fd: number, address: string, port: number): void {
  check(startConnect(fd, socketAddress(address, port)), 'connect');
}

/** @returns what connect(2) does: -1 and EINPROGRESS where the socket does not block */
export function startConnect(fd: number, address: Uint8Array): number {
  return connectTo(fd, addressOf(address), SOCKADDR_LEN);
}

/** recv then gives up with EAGAIN. The kernel counts in ticks of up to 10 ms. */
export function setReceiveTimeout(fd: number, us: number): void {
  setOption(fd, SO_RCVTIMEO, new Int32Array([Math.floor(us / 1e6), 0, us % 1e6, 0]));
}

/** More than net.core.rmem_max allows: for root. */
export function setReceiveBuffer(fd: number, bytes: number): void {
  setOption(fd, SO_RCVBUFFORCE, new Int32Array([bytes]));
}

function setOption(fd: number, name: number, value: Int32Array): void {
  check(setsockopt(fd, SOL_SOCKET, name, addressOf(value), value.byteLength), `setsockopt ${name}`);
}

/** struct sockaddr_in: family in host byte order, port and address in network byte order. */
export function socketAddress(address: string, port: number): Uint8Array {
  const bytes = new Uint8Array(SOCKADDR_LEN);
  new DataView(bytes.buffer).setUint16(0, AF_INET, true);
  new DataView(bytes.buffer).setUint16(2, port, false);
  bytes.set(address.split('.').map(Number), 4);
  return bytes;
}

export function check(result: number, call: string): number {
  if (result < 0) throw new Error(`${call}: ${errnoName(errno())}`);
  return result;
}

// ---- many messages in one call

const MMSGHDR_LEN = 64; // struct msghdr of 56 bytes, u32 msg_len, padding: the same on every 64-bit Linux
const IOVEC_LEN = 16;

/** An array of struct mmsghdr, one buffer each. */
export class Messages {
  readonly address: number;
  /** What the array points to, so that the collector does not take what only the kernel knows of. */
  readonly kept: readonly Uint8Array[];

  /**
   * @param count   of messages
   * @param data    `stride` bytes for each message, or one buffer for all where the stride is 0
   * @param bytes   of a message, or what of a received one is kept
   * @param names   SOCKADDR_LEN bytes for the sender of each
   */
  constructor(count: number, data: Uint8Array, stride: number, bytes: number, names?: Uint8Array) {
    const headers = new Uint8Array(count * MMSGHDR_LEN);
    const vectors = new Uint8Array(count * IOVEC_LEN);
    this.kept = names === undefined ? [headers, vectors, data] : [headers, vectors, data, names];
    this.address = addressOf(headers);
    const headerView = new DataView(headers.buffer);
    const vectorView = new DataView(vectors.buffer);
    const pointer = (view: DataView, at: number, value: number) => view.setBigUint64(at, BigInt(value), true);
    for (let i = 0; i < count; i++) {
      const header = i * MMSGHDR_LEN;
      const vector = i * IOVEC_LEN;
      if (names !== undefined) {
        pointer(headerView, header, addressOf(names) + i * SOCKADDR_LEN);
        headerView.setUint32(header + 8, SOCKADDR_LEN, true);
      }
      pointer(headerView, header + 16, addressOf(vectors) + vector);
      pointer(headerView, header + 24, 1);
      pointer(vectorView, vector, addressOf(data) + i * stride);
      pointer(vectorView, vector + 8, bytes);
    }
  }
}

// ---- waiting

const timespec = new Int32Array(4);
const timespecAt = addressOf(timespec);

const TESTER_PRIORITY = -10;

/**
 * For what stands beside the path, not in it: this process goes before those that are measured, as a tester that is a
 * machine of its own would, and its sleeps end within microseconds of their time, not 50 us later.
 */
export function actAsTester(): void {
  setPriority(TESTER_PRIORITY);
  check(prctl(PR_SET_TIMERSLACK, 1), 'prctl');
}

/** @param us  less than a second */
export function sleepUs(us: number): void {
  timespec[0] = 0;
  timespec[2] = us * 1000;
  nanosleep(timespecAt, 0);
}

export const POLLIN = 1;
export const POLLOUT = 4;

/** struct pollfd {int fd; short events; short revents} of several sockets; a negative fd is passed over. */
export class PollSet {
  private readonly fds: Int32Array;
  private readonly events: Int16Array;
  private readonly address: number;
  readonly size: number;

  constructor(size: number) {
    this.size = size;
    this.fds = new Int32Array(2 * size).fill(-1);
    this.events = new Int16Array(this.fds.buffer);
    this.address = addressOf(this.fds);
  }

  set(i: number, fd: number, events: number): void {
    this.fds[2 * i] = fd;
    this.events[4 * i + 2] = events;
    this.events[4 * i + 3] = 0;
  }

  fd(i: number): number {
    return this.fds[2 * i];
  }

  wanted(i: number): number {
    return this.events[4 * i + 2];
  }

  /** What has happened, errors and hang-ups included; 0 for nothing. */
  happened(i: number): number {
    return this.fds[2 * i] < 0 ? 0 : this.events[4 * i + 3];
  }

  /** @returns how many have something; 0 when the time is over. @param us  less than 2000 s */
  wait(us: number): number {
    const whole = Math.max(0, Math.floor(us));
    timespec[0] = Math.floor(whole / 1e6);
    timespec[2] = (whole % 1e6) * 1000;
    return ppoll(this.address, this.size, timespecAt, 0);
  }
}

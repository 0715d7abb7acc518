/**
 * Request and response over UDP with one request on its way at a time, as netperf's UDP_RR:
 *
 *   node rr.js server PORT                       prints ready, then echoes until it is ended
 *   node rr.js client ADDRESS PORT SECONDS       prints one RoundTrips as JSON
 *
 * Both block in system calls made through koffi: an event loop between the socket and the clock would add a few
 * microseconds of its own and its spread. Round trips go into an HDR histogram (Node's own, which is HdrHistogram_c).
 */
import { createHistogram, performance } from 'node:perf_hooks';
import koffi from 'koffi';
import { addressOf } from '../../datapath/io/libc.ts';
import type { RoundTrips } from './parse.ts';

const libc = koffi.load('libc.so.6');
const socket: (domain: number, type: number, protocol: number) => number = libc.func(
  'int socket(int domain, int type, int protocol)',
);
const bind: (fd: number, address: number, bytes: number) => number = libc.func(
  'int bind(int fd, intptr_t addr, unsigned int len)',
);
const connect: (fd: number, address: number, bytes: number) => number = libc.func(
  'int connect(int fd, intptr_t addr, unsigned int len)',
);
const setsockopt: (fd: number, level: number, name: number, value: number, bytes: number) => number = libc.func(
  'int setsockopt(int fd, int level, int name, intptr_t value, unsigned int len)',
);
const recvfrom: (fd: number, buf: number, bytes: number, flags: number, from: number, fromLen: number) => number =
  libc.func('intptr_t recvfrom(int fd, intptr_t buf, intptr_t n, int flags, intptr_t from, intptr_t fromlen)');
const sendto: (fd: number, buf: number, bytes: number, flags: number, to: number, toLen: number) => number = libc.func(
  'intptr_t sendto(int fd, intptr_t buf, intptr_t n, int flags, intptr_t to, unsigned int tolen)',
);

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20; // SO_RCVTIMEO_OLD: struct timeval of two longs
const SOCKADDR_LEN = 16;

const MESSAGE_BYTES = 64;
/** A reply that takes longer counts as lost. */
const TIMEOUT_US = 200_000;
/** Before the first that counts: neighbours resolved, this loop compiled. */
const WARM_UP_MS = 100;

function serve(port: number): void {
  const fd = openSocket();
  check(bind(fd, addressOf(socketAddress('0.0.0.0', port)), SOCKADDR_LEN), 'bind');
  const message = new Uint8Array(2048);
  const from = new Uint8Array(SOCKADDR_LEN);
  const fromLen = new Int32Array([SOCKADDR_LEN]);
  const [messageAt, fromAt, fromLenAt] = [addressOf(message), addressOf(from), addressOf(fromLen)];
  process.stdout.write('ready\n');
  for (;;) {
    const bytes = recvfrom(fd, messageAt, message.length, 0, fromAt, fromLenAt);
    if (bytes >= 0) sendto(fd, messageAt, bytes, 0, fromAt, SOCKADDR_LEN);
  }
}

function ask(address: string, port: number, seconds: number): RoundTrips {
  const fd = openSocket();
  const timeout = new Int32Array([0, 0, TIMEOUT_US, 0]);
  check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, addressOf(timeout), timeout.byteLength), 'setsockopt');
  check(connect(fd, addressOf(socketAddress(address, port)), SOCKADDR_LEN), 'connect');

  const request = new Uint8Array(MESSAGE_BYTES);
  const reply = new Uint8Array(2048);
  const requestNumber = new Int32Array(request.buffer, 0, 1);
  const replyNumber = new Int32Array(reply.buffer, 0, 1);
  const [requestAt, replyAt] = [addressOf(request), addressOf(reply)];

  /** @returns nanoseconds, or -1 where no reply came */
  const roundTrip = (): number => {
    requestNumber[0]++;
    const sent = performance.now();
    sendto(fd, requestAt, MESSAGE_BYTES, 0, 0, 0);
    for (;;) {
      if (recvfrom(fd, replyAt, reply.length, 0, 0, 0) < 0) return -1;
      // A late reply to an earlier request is passed over.
      if (replyNumber[0] === requestNumber[0]) return Math.round((performance.now() - sent) * 1e6);
    }
  };

  const warm = performance.now() + WARM_UP_MS;
  while (performance.now() < warm) roundTrip();

  const histogram = createHistogram();
  let lost = 0;
  const start = performance.now();
  const end = start + seconds * 1000;
  while (performance.now() < end) {
    const ns = roundTrip();
    if (ns < 0) lost++;
    else histogram.record(Math.max(1, ns));
  }
  const percentile = (p: number) => histogram.percentile(p) / 1000;
  return {
    count: histogram.count,
    lost,
    seconds: (performance.now() - start) / 1000,
    p50: percentile(50),
    p99: percentile(99),
    p999: percentile(99.9),
    max: histogram.max / 1000,
  };
}

function openSocket(): number {
  return check(socket(AF_INET, SOCK_DGRAM, 0), 'socket');
}

/** struct sockaddr_in: family in host byte order, port and address in network byte order. */
function socketAddress(address: string, port: number): Uint8Array {
  const bytes = new Uint8Array(SOCKADDR_LEN);
  new DataView(bytes.buffer).setUint16(0, AF_INET, true);
  new DataView(bytes.buffer).setUint16(2, port, false);
  bytes.set(address.split('.').map(Number), 4);
  return bytes;
}

function check(result: number, call: string): number {
  if (result < 0) throw new Error(`${call}: errno ${koffi.errno()}`);
  return result;
}

const [role, ...args] = process.argv.slice(2);
if (role === 'server') serve(Number(args[0]));
else process.stdout.write(`${JSON.stringify(ask(args[0], Number(args[1]), Number(args[2])))}\n`);

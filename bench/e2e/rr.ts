/**
 * Request and response over UDP with one request on its way at a time, as netperf's UDP_RR:
 *
 *   node rr.js server PORT                       prints ready, then echoes until it is ended
 *   node rr.js client ADDRESS PORT SECONDS       prints one RoundTrips as JSON
 *
 * Both block in system calls (sockets.ts says why). Round trips go into an HDR histogram of nanoseconds (Node's own).
 */
import { createHistogram, performance } from 'node:perf_hooks';
import { addressOf } from '../../datapath/io/libc.ts';
import type { RoundTrips } from './parse.ts';
import * as sockets from './sockets.ts';

const MESSAGE_BYTES = 64;
/** A reply that takes longer counts as lost. */
const TIMEOUT_US = 200_000;
/** Before the first that counts: neighbours resolved, this loop compiled. */
const WARM_UP_MS = 100;

function serve(port: number): void {
  sockets.actAsTester();
  const fd = sockets.openUdp();
  sockets.bind(fd, port);
  const message = new Uint8Array(2048);
  const from = new Uint8Array(sockets.SOCKADDR_LEN);
  const fromLen = new Int32Array([sockets.SOCKADDR_LEN]);
  const [messageAt, fromAt, fromLenAt] = [addressOf(message), addressOf(from), addressOf(fromLen)];
  process.stdout.write('ready\n');
  for (;;) {
    const bytes = sockets.recvfrom(fd, messageAt, message.length, 0, fromAt, fromLenAt);
    if (bytes >= 0) sockets.sendto(fd, messageAt, bytes, 0, fromAt, sockets.SOCKADDR_LEN);
  }
}

function ask(address: string, port: number, seconds: number): RoundTrips {
  const fd = sockets.openUdp();
  sockets.setReceiveTimeout(fd, TIMEOUT_US);
  sockets.connect(fd, address, port);

  const request = new Uint8Array(MESSAGE_BYTES);
  const reply = new Uint8Array(2048);
  const requestNumber = new Int32Array(request.buffer, 0, 1);
  const replyNumber = new Int32Array(reply.buffer, 0, 1);
  const [requestAt, replyAt] = [addressOf(request), addressOf(reply)];

  /** @returns nanoseconds, or -1 where no reply came */
  const roundTrip = (): number => {
    requestNumber[0]++;
    const sent = performance.now();
    sockets.sendto(fd, requestAt, MESSAGE_BYTES, 0, 0, 0);
    for (;;) {
      if (sockets.recvfrom(fd, replyAt, reply.length, 0, 0, 0) < 0) return -1;
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

const [role, ...args] = process.argv.slice(2);
if (role === 'server') serve(Number(args[0]));
else process.stdout.write(`${JSON.stringify(ask(args[0], Number(args[1]), Number(args[2])))}\n`);

/**
 * New TCP connections: each is opened, carries a byte to the server and one back, and is closed, by the server first.
 *
 *   node connections.js server PORT                    prints ready, then serves until it is ended
 *   node connections.js client ADDRESS PORT SECONDS    IN_FLIGHT connections at a time; prints a ConnectionTrial
 */
import { performance } from 'node:perf_hooks';
import { addressOf } from '../../datapath/io/libc.ts';
import { newHistogram, percentileOf, recordMs } from './histogram.ts';
import * as sockets from './sockets.ts';

/** What the client prints. */
export interface ConnectionTrial {
  completed: number;
  /** Refused, reset, or ended without the byte. */
  failed: number;
  seconds: number;
  /** Microseconds from connect() to the server's end of the connection. */
  p50: number;
  p99: number;
}

const IN_FLIGHT = 16;
const MOST_CLIENTS = 256;
const BACKLOG = 1024;
const WARM_UP_MS = 150;
const WAIT_US = 100_000;

const byte = new Uint8Array(16);
const byteAt = addressOf(byte);

function serve(port: number): void {
  const listener = sockets.openTcp();
  sockets.allowReuse(listener);
  sockets.bind(listener, port);
  sockets.listen(listener, BACKLOG);
  const polls = new sockets.PollSet(1 + MOST_CLIENTS);
  polls.set(0, listener, sockets.POLLIN);
  const free = Array.from({ length: MOST_CLIENTS }, (_, i) => 1 + i);
  process.stdout.write('ready\n');
  for (;;) {
    polls.wait(WAIT_US);
    for (let i = 1; i < polls.size; i++) {
      if (polls.happened(i) === 0) continue;
      const fd = polls.fd(i);
      if (sockets.recvfrom(fd, byteAt, 1, 0, 0, 0) === 1) sockets.sendto(fd, byteAt, 1, sockets.MSG_NOSIGNAL, 0, 0);
      sockets.close(fd);
      polls.set(i, -1, 0);
      free.push(i);
    }
    while (free.length > 0) {
      const fd = sockets.acceptNonblocking(listener);
      if (fd < 0) break;
      polls.set(free.pop()!, fd, sockets.POLLIN);
    }
  }
}

class Client {
  completed = 0;
  failed = 0;
  histogram = newHistogram();
  private readonly address: Uint8Array;
  private readonly polls = new sockets.PollSet(IN_FLIGHT);
  private readonly started = new Float64Array(IN_FLIGHT);
  /** 1 once the answer is there. */
  private readonly answered = new Uint8Array(IN_FLIGHT);

  constructor(address: string, port: number) {
    this.address = sockets.socketAddress(address, port);
  }

  /** @returns seconds that it took */
  run(ms: number): number {
    const start = performance.now();
    let now = start;
    for (; now < start + ms; now = performance.now()) {
      for (let i = 0; i < IN_FLIGHT; i++) if (this.polls.fd(i) < 0) this.open(i);
      if (this.polls.wait(WAIT_US) === 0) continue;
      for (let i = 0; i < IN_FLIGHT; i++) if (this.polls.happened(i) !== 0) this.serve(i);
    }
    return (now - start) / 1000;
  }

  private open(i: number): void {
    const fd = sockets.openTcp();
    this.started[i] = performance.now();
    this.answered[i] = 0;
    const result = sockets.startConnect(fd, this.address);
    if (result < 0 && sockets.errno() !== sockets.EINPROGRESS) sockets.check(result, 'connect');
    this.polls.set(i, fd, sockets.POLLOUT);
  }

  private serve(i: number): void {
    const fd = this.polls.fd(i);
    if ((this.polls.wanted(i) & sockets.POLLOUT) !== 0) {
      if (sockets.sendto(fd, byteAt, 1, sockets.MSG_NOSIGNAL, 0, 0) === 1) this.polls.set(i, fd, sockets.POLLIN);
      else this.end(i, false);
      return;
    }
    for (;;) {
      const n = sockets.recvfrom(fd, byteAt, 1, sockets.MSG_DONTWAIT, 0, 0);
      if (n === 1) this.answered[i] = 1;
      else if (n === 0 || sockets.errno() !== sockets.EAGAIN) this.end(i, n === 0 && this.answered[i] === 1);
      if (n !== 1) return;
    }
  }

  private end(i: number, complete: boolean): void {
    sockets.close(this.polls.fd(i));
    this.polls.set(i, -1, 0);
    if (!complete) {
      this.failed++;
      return;
    }
    this.completed++;
    recordMs(this.histogram, performance.now() - this.started[i]);
  }
}

function ask(address: string, port: number, seconds: number): ConnectionTrial {
  const client = new Client(address, port);
  client.run(WARM_UP_MS);
  client.completed = 0;
  client.failed = 0;
  client.histogram = newHistogram();
  const took = client.run(seconds * 1000);
  const { completed, failed, histogram } = client;
  return { completed, failed, seconds: took, p50: percentileOf(histogram, 50), p99: percentileOf(histogram, 99) };
}

const [role, ...args] = process.argv.slice(2);
if (role === 'server') serve(Number(args[0]));
else process.stdout.write(`${JSON.stringify(ask(args[0], Number(args[1]), Number(args[2])))}\n`);

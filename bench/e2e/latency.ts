/**
 * Latency under a constant rate of requests:
 *
 *   node latency.js ADDRESS PORT SECONDS RATE        prints a LatencyTrial; the server is that of rr.js
 */
import { addressOf } from '../../datapath/io/libc.ts';
import { encodeHistogram, newHistogram, recordMs } from './histogram.ts';
import { type Link, runOpenLoop } from './open-loop.ts';
import * as sockets from './sockets.ts';

/** What it prints. */
export interface LatencyTrial {
  sent: number;
  lost: number;
  /** encodeHistogram of all of them. */
  histogram: string;
}

const MESSAGE_BYTES = 64;
const PATIENCE_MS = 500;
const WARM_UP_MS = 200;
const WARM_UP_PATIENCE_MS = 50;

class UdpLink implements Link {
  private readonly fd = sockets.openUdp();
  private readonly request = new Uint8Array(MESSAGE_BYTES);
  private readonly reply = new Uint8Array(MESSAGE_BYTES);
  private readonly requestWords = new Int32Array(this.request.buffer);
  private readonly replyWords = new Int32Array(this.reply.buffer);
  private readonly requestAt = addressOf(this.request);
  private readonly replyAt = addressOf(this.reply);
  private readonly polls = new sockets.PollSet(1);

  constructor(address: string, port: number) {
    sockets.connect(this.fd, address, port);
    this.polls.set(0, this.fd, sockets.POLLIN);
  }

  /** Answers to what was sent before are passed over from now on. */
  nextRun(): void {
    this.requestWords[1]++;
  }

  now(): number {
    return performance.now();
  }

  send(sequence: number): void {
    this.requestWords[0] = sequence;
    sockets.sendto(this.fd, this.requestAt, MESSAGE_BYTES, 0, 0, 0);
  }

  receive(deadline: number): number {
    for (;;) {
      if (sockets.recvfrom(this.fd, this.replyAt, MESSAGE_BYTES, sockets.MSG_DONTWAIT, 0, 0) > 0) {
        if (this.replyWords[1] === this.requestWords[1]) return this.replyWords[0];
        continue;
      }
      const left = 1000 * (deadline - this.now());
      if (left <= 0 || this.polls.wait(left) === 0) return -1;
    }
  }
}

function measure(address: string, port: number, seconds: number, rate: number): LatencyTrial {
  sockets.actAsTester();
  const link = new UdpLink(address, port);
  // Neighbours resolved, both ends compiled.
  runOpenLoop(link, { rate, count: (rate * WARM_UP_MS) / 1000, patience: WARM_UP_PATIENCE_MS }, () => {});
  link.nextRun();
  const histogram = newHistogram();
  const plan = { rate, count: Math.round(rate * seconds), patience: PATIENCE_MS };
  const { sent, lost } = runOpenLoop(link, plan, ms => recordMs(histogram, ms));
  return { sent, lost, histogram: encodeHistogram(histogram) };
}

const [address, ...numbers] = process.argv.slice(2);
const [port, seconds, rate] = numbers.map(Number);
process.stdout.write(`${JSON.stringify(measure(address, port, seconds, rate))}\n`);

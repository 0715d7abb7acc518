/**
 * UDP packets at a rate that is kept, and what of them arrives:
 *
 *   node packets.js server PORT                                prints ready, then counts until it is ended
 *   node packets.js client ADDRESS PORT BYTES TRIAL_MS         searches the rates without loss; prints a PacketRates
 *
 * The sender wakes every TICK_US and sends what is due in one sendmmsg, so packets come in bursts of rate times TICK_US: a
 * sender that spun for an even spacing would take a core from the path. What it cannot send in time is left out, not
 * caught up with, and the rate of a trial is what was sent. The receiver's count is asked for behind the last packet, in
 * the same queue.
 */
import { performance } from 'node:perf_hooks';
import { addressOf } from '../../datapath/io/libc.ts';
import { machineTime, timeBetween } from '../machine.ts';
import { ACCEPTABLE, type RateFound, type RateTrial, searchRates } from './search.ts';
import * as sockets from './sockets.ts';

/** What the client prints. */
export interface PacketRates {
  found: RateFound[];
  /** Packets per second that the sender sent without a limit, the path's own cost in its system calls included. */
  senderLimit: number;
  /** Packets per second that arrived then. */
  delivered: number;
  /** Seconds of all cores per 10^6 packets that arrived, at the rate without loss. */
  cpuPerMillion: number;
  trials: number;
}

const RESOLUTION = 0.03;
const ATTEMPTS = 2;
const LEAST_RATE = 500;
const TICK_US = 200;
/** What the sender is behind by more than this is left out. */
const MOST_BEHIND_MS = 2;
const BATCH = 64;
/** The receiver may be away from its processor for 10 ms at 200 000 packets a second; more would hide a slow one. */
const RECEIVE_BUFFER = 4 << 20;
const HEADER_BYTES = 16;
const WARM_UP_RATE = 20_000;
const WARM_UP_MS = 150;
const SETTLE_MS = 10;
const ANSWER_TIMEOUT_US = 40_000;
const MOST_ASKS = 25;

// Words of a message: which trial, what it is, and of an answer how many packets of that trial came.
const TRIAL = 0;
const KIND = 1;
const COUNT = 2;
const DATA = 0;
const ASK = 1;
const ANSWER = 2;

function serve(port: number): void {
  sockets.actAsTester();
  const fd = sockets.openUdp();
  sockets.setReceiveBuffer(fd, RECEIVE_BUFFER);
  sockets.bind(fd, port);
  const data = new Uint8Array(BATCH * HEADER_BYTES);
  const words = new Int32Array(data.buffer);
  const names = new Uint8Array(BATCH * sockets.SOCKADDR_LEN);
  const messages = new sockets.Messages(BATCH, data, HEADER_BYTES, HEADER_BYTES, names);
  const stride = HEADER_BYTES / 4;
  process.stdout.write('ready\n');
  let before = 0;
  let trial = 0;
  let count = 0;
  for (;;) {
    const n = sockets.recvmmsg(fd, messages.address, BATCH, sockets.MSG_WAITFORONE, 0);
    for (let i = 0; i < n; i++) {
      const at = i * stride;
      if (words[at + TRIAL] !== trial) {
        if (words[at + TRIAL] === before) continue; // a straggler
        before = trial;
        trial = words[at + TRIAL];
        count = 0;
      }
      if (words[at + KIND] === DATA) count++;
      else {
        words[at + KIND] = ANSWER;
        words[at + COUNT] = count;
        const from = addressOf(names) + i * sockets.SOCKADDR_LEN;
        sockets.sendto(fd, addressOf(data) + i * HEADER_BYTES, HEADER_BYTES, 0, from, sockets.SOCKADDR_LEN);
      }
    }
  }
}

class Sender {
  private readonly fd = sockets.openUdp();
  private readonly packet: Uint8Array;
  private readonly words: Int32Array;
  private readonly messages: sockets.Messages;
  private readonly reply = new Uint8Array(HEADER_BYTES);
  private readonly replyWords = new Int32Array(this.reply.buffer);
  /** Unlike those of clients before this one, whose answers or packets may still be on their way. */
  private trial = (process.pid << 8) | 0;

  constructor(address: string, port: number, bytes: number) {
    this.packet = new Uint8Array(bytes);
    this.words = new Int32Array(this.packet.buffer, 0, HEADER_BYTES / 4);
    this.messages = new sockets.Messages(BATCH, this.packet, 0, bytes);
    sockets.setReceiveTimeout(this.fd, ANSWER_TIMEOUT_US);
    sockets.connect(this.fd, address, port);
  }

  /** @param rate  packets per second; Infinity for as fast as it can */
  run(rate: number, ms: number): RateTrial & { arrived: number; cpuSeconds: number } {
    this.trial = (this.trial + 1) | 0;
    this.words[TRIAL] = this.trial;
    this.words[KIND] = DATA;
    const before = machineTime();
    const start = performance.now();
    const { sent, seconds } = this.send(rate, start, start + ms);
    const arrived = this.askCount(sent);
    const cpuSeconds = timeBetween(before, machineTime()).busy;
    sockets.sleepUs(SETTLE_MS * 1000);
    return { rate: sent / seconds, loss: 1 - arrived / sent, arrived, cpuSeconds };
  }

  private send(rate: number, start: number, end: number): { sent: number; seconds: number } {
    const perMs = rate / 1000;
    const mostDue = Math.max(BATCH, perMs * MOST_BEHIND_MS);
    let sent = 0;
    let leftOut = 0;
    let now = start;
    for (; now < end; now = performance.now()) {
      let due = rate === Infinity ? BATCH : Math.floor((now - start) * perMs) + 1 - sent - leftOut;
      if (due > mostDue) {
        leftOut += due - Math.floor(mostDue);
        due = Math.floor(mostDue);
      }
      if (due > 0) sent += sockets.check(this.sendBatch(Math.min(due, BATCH)), 'sendmmsg');
      if (due <= BATCH && rate !== Infinity) sockets.sleepUs(TICK_US);
    }
    return { sent, seconds: (now - start) / 1000 };
  }

  private sendBatch(count: number): number {
    return sockets.sendmmsg(this.fd, this.messages.address, count, 0);
  }

  /** How many of the trial's packets came, once no more come. */
  private askCount(sent: number): number {
    this.words[KIND] = ASK;
    let last = -1;
    for (let i = 0; i < MOST_ASKS; i++) {
      sockets.sendto(this.fd, addressOf(this.packet), HEADER_BYTES, 0, 0, 0);
      const count = this.readAnswer();
      if (count === sent || (count >= 0 && count === last)) return count;
      if (count >= 0) {
        last = count;
        sockets.sleepUs(SETTLE_MS * 1000);
      }
    }
    throw new Error('the receiver does not answer');
  }

  /** @returns -1 where none came in time */
  private readAnswer(): number {
    while (sockets.recvfrom(this.fd, addressOf(this.reply), HEADER_BYTES, 0, 0, 0) >= 0) {
      if (this.replyWords[KIND] === ANSWER && this.replyWords[TRIAL] === this.trial) return this.replyWords[COUNT];
    }
    return -1;
  }
}

function search(address: string, port: number, bytes: number, trialMs: number): PacketRates {
  sockets.actAsTester();
  const sender = new Sender(address, port, bytes);
  sender.run(WARM_UP_RATE, WARM_UP_MS);
  let trials = 0;
  let full: RateTrial | null = null;
  const trial = (rate: number): RateTrial => {
    trials++;
    const result = sender.run(rate, trialMs);
    full ??= result;
    return result;
  };
  const found = searchRates(trial, {
    acceptable: ACCEPTABLE,
    resolution: RESOLUTION,
    attempts: ATTEMPTS,
    least: LEAST_RATE,
  });
  // Ticks of /proc/stat are 10 ms, so this one is longer.
  const last = sender.run(Math.max(found[0].rate, LEAST_RATE), 2 * trialMs);
  const { rate: senderLimit, loss } = full!;
  return {
    found,
    senderLimit,
    delivered: senderLimit * (1 - loss),
    cpuPerMillion: (last.cpuSeconds / last.arrived) * 1e6,
    trials,
  };
}

const [role, ...args] = process.argv.slice(2);
if (role === 'server') serve(Number(args[0]));
else {
  const [port, bytes, trialMs] = args.slice(1).map(Number);
  process.stdout.write(`${JSON.stringify(search(args[0], port, bytes, trialMs))}\n`);
}

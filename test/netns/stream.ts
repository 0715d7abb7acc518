/**
 * A constant stream of UDP datagrams to an echo server, as its own process inside a namespace:
 *
 *   stream ADDRESS PORT PER_SECOND [PATIENCE_MS]
 *
 * Runs until its standard input says so: each line read ends a phase, for which a line of JSON is printed:
 * {sent, lost, maxGapMs, p50Ms, maxMs}, gaps between answers and the time each took; what its kernel does not take is not
 * sent. A line "end" ends it.
 */
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** How long an answer may take before it counts as lost. */
const PATIENCE_MS = 500;

const [address, port, perSecond, patience] = process.argv.slice(2);
const interval = 1000 / Number(perSecond);
const socket = createSocket('udp4');
const sentAt = new Map<number, number>();
let next = 0;
let sent = 0;
let last = 0;
let maxGapMs = 0;
let times: number[] = [];

socket.on('error', () => {});
socket.on('message', message => {
  const number = message.readUInt32BE(0);
  const at = sentAt.get(number);
  if (at === undefined) return;
  const now = performance.now();
  sentAt.delete(number);
  times.push(now - at);
  if (last !== 0) maxGapMs = Math.max(maxGapMs, now - last);
  last = now;
});
await new Promise<void>(resolve => socket.connect(Number(port), address, resolve));

let due = performance.now();
const timer = setInterval(() => {
  // Never a burst: what the timer has missed stays missed.
  const now = performance.now();
  if (now < due) return;
  due = Math.max(due + interval, now);
  const message = Buffer.alloc(64);
  message.writeUInt32BE(next, 0);
  const number = next++;
  sentAt.set(number, now);
  sent++;
  // Of a connected socket it is also the ICMP error about an earlier one that says no.
  socket.send(message, error => {
    if (error !== null && sentAt.delete(number)) sent--;
  });
}, 1);

process.stdout.write('running\n');
for await (const line of createInterface({ input: process.stdin })) {
  const phase = { sent, until: next };
  sent = 0;
  await sleep(Number(patience ?? PATIENCE_MS));
  const lost = [...sentAt.keys()].filter(number => number < phase.until);
  for (const number of lost) sentAt.delete(number);
  times.sort((a, b) => a - b);
  const result = {
    sent: phase.sent,
    lost: lost.length,
    maxGapMs,
    p50Ms: times[times.length >> 1] ?? 0,
    maxMs: times.at(-1) ?? 0,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  times = [];
  maxGapMs = 0;
  if (line === 'end') break;
}
clearInterval(timer);
socket.close();
process.stdin.destroy();

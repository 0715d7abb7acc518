/**
 * Sends malformed packets into a device, as its own process in the device's namespace, by an AF_PACKET socket: past the
 * kernel's own checks.
 *
 *   inject DEVICE ip|frame COUNT SEED ENDS       ENDS: the addresses as JSON (fixtures/malformed.ts)
 *
 * Prints how many the device has taken: a TUN or TAP refuses what does not fit into its queue or MTU.
 */
import { readFileSync } from 'node:fs';
import { Random } from '../../datapath/random.ts';
import { frameTemplates, ipTemplates, malform } from '../fixtures/malformed.ts';
import { ENOBUFS, PacketSocket } from './packet-socket.ts';

/** A TUN holds 1000 packets for its reader. */
const BATCH = 200;
const PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 16;

/** Packets that the device threw away since it was made, its queue being full. Not all of them are told to the sender. */
function droppedBy(device: string): number {
  return Number(readFileSync(`/sys/class/net/${device}/statistics/tx_dropped`, 'utf8'));
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

const [device, form, count, seed, endsText] = process.argv.slice(2);
const { srcMac, dstMac, ...ends } = JSON.parse(endsText);
const templates = form === 'ip' ? ipTemplates(ends) : frameTemplates(ends, srcMac, dstMac);
const random = new Random(Number(seed));
const socket = new PacketSocket(device, false);
const droppedBefore = droppedBy(device);
let attempts = 0;
let pauseMs = PAUSE_MS;
let droppedLast = droppedBefore;
for (let i = 0; i < Number(count); i++) {
  const bytes = malform(templates[i % templates.length], random);
  attempts++;
  let error = socket.send(bytes);
  for (let tries = 0; error === ENOBUFS && tries < 100; tries++) {
    pause(PAUSE_MS);
    attempts++;
    error = socket.send(bytes);
  }
  if (error !== 0 && error !== ENOBUFS) attempts--;
  if (i % BATCH === BATCH - 1) {
    // A reader that does not keep up, on a busy machine, gets more time from then on.
    const dropped = droppedBy(device);
    if (dropped > droppedLast) pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    droppedLast = dropped;
    pause(pauseMs);
  }
}
process.stdout.write(`${attempts - (droppedBy(device) - droppedBefore)}\n`);

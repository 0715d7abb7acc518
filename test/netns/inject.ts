/**
 * Sends malformed packets into a device, as its own process in the device's namespace, by an AF_PACKET socket: past the
 * kernel's own checks.
 *
 *   inject DEVICE ip|frame COUNT SEED ENDS       ENDS: the addresses as JSON (fixtures/malformed.ts)
 *
 * Prints how many the device has taken: a TUN or TAP refuses what does not fit into its queue or MTU.
 */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { Random } from '../../datapath/random.ts';
import { frameTemplates, ipTemplates, malform } from '../fixtures/malformed.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ENOBUFS = 105;
/** A TUN holds 1000 packets for its reader. */
const BATCH = 200;
const PAUSE_MS = 2;

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, uint32_t len)');
const send = libc.func('intptr_t send(int fd, const void *data, size_t len, int flags)');

/** A socket that sends by `device` and receives nothing. */
function openPacketSocket(device: string): number {
  const fd = socket(AF_PACKET, SOCK_RAW, 0);
  // struct sockaddr_ll: u16 family, u16 protocol, int ifindex, 12 more.
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setInt32(4, Number(readFileSync(`/sys/class/net/${device}/ifindex`, 'utf8')), true);
  if (fd < 0 || bind(fd, address, address.length) < 0) throw new Error(`${device}: errno ${koffi.errno()}`);
  return fd;
}

/** Packets that the device threw away since it was made, its queue being full. Not all of them are told to the sender. */
function droppedBy(device: string): number {
  return Number(readFileSync(`/sys/class/net/${device}/statistics/tx_dropped`, 'utf8'));
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
}

const [device, form, count, seed, endsText] = process.argv.slice(2);
const { srcMac, dstMac, ...ends } = JSON.parse(endsText);
const templates = form === 'ip' ? ipTemplates(ends) : frameTemplates(ends, srcMac, dstMac);
const random = new Random(Number(seed));
const fd = openPacketSocket(device);
const droppedBefore = droppedBy(device);
let attempts = 0;
for (let i = 0; i < Number(count); i++) {
  const bytes = malform(templates[i % templates.length], random);
  attempts++;
  let sent = send(fd, bytes, bytes.length, 0);
  for (let tries = 0; sent < 0 && koffi.errno() === ENOBUFS && tries < 100; tries++) {
    pause();
    attempts++;
    sent = send(fd, bytes, bytes.length, 0);
  }
  if (sent < 0 && koffi.errno() !== ENOBUFS) attempts--;
  if (i % BATCH === BATCH - 1) pause();
}
process.stdout.write(`${attempts - (droppedBy(device) - droppedBefore)}\n`);

/**
 * Packets for who looks at them, from inside a pod: `look-load PER_SECOND ADDRESS NOWHERE` sends UDP to changing ports of
 * ADDRESS, each a new flow sooner or later, and every tenth to NOWHERE, which is dropped.
 */
import { createSocket } from 'node:dgram';

const TICK_MS = 10;
const FIRST_PORT = 20_000;
const PORTS = 8192;
const PAYLOAD = Buffer.alloc(400, 'look');

const [perSecond, address, nowhere] = process.argv.slice(2);
const perTick = Math.ceil((Number(perSecond) * TICK_MS) / 1000);
const socket = createSocket('udp4');
// What refuses it, and what has no route, says so by ICMP.
socket.on('error', () => {});
let sent = 0;
setInterval(() => {
  for (let i = 0; i < perTick; i++) {
    sent++;
    socket.send(PAYLOAD, FIRST_PORT + (sent % PORTS), sent % 10 === 0 ? nowhere : address, () => {});
  }
}, TICK_MS);

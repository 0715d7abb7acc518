/**
 * Sends frames out of a device, in order, as its own process in the device's namespace:
 *
 *   send-frames DEVICE HEX...
 */
import { hex } from '../fixtures/packets.ts';
import { PacketSocket } from './packet-socket.ts';

const [device, ...frames] = process.argv.slice(2);
const socket = new PacketSocket(device, false);
for (const frame of frames) {
  const error = socket.send(hex(frame));
  if (error !== 0) throw new Error(`${device}: errno ${error}`);
}

/**
 * Sends what no tunnel would, as its own process inside a namespace:
 *
 *   ADDRESS PORT COUNT   datagrams: from empty to 200 bytes, half of them a GENEVE header with something wrong behind it
 *   ADDRESS ipip COUNT   packets of protocol 4 with nothing, or garbage, inside
 */
import { createSocket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadRawSocket } from '../../datapath/io/raw-socket.ts';
import { Random } from '../../datapath/random.ts';

const random = new Random(7);

function garbage(i: number): Uint8Array {
  const bytes = new Uint8Array(i % 200);
  for (let at = 0; at < bytes.length; at++) bytes[at] = random.below(256);
  if (i % 2 === 1 && bytes.length > 8) bytes.set([i & 0x3f, 0, 0x65, 0x58, 0, 0, 1, 0]);
  return bytes;
}

const [address, kind, count] = process.argv.slice(2);
if (kind === 'ipip') {
  const socket = loadRawSocket().createSocket({ protocol: 4 }) as unknown as {
    send(data: Buffer, from: number, bytes: number, to: string, done: () => void): void;
    close(): void;
  };
  for (let i = 0; i < Number(count); i++) {
    const bytes = Buffer.from(garbage(i + 1));
    await new Promise<void>(resolve => socket.send(bytes, 0, bytes.length, address, resolve));
  }
  socket.close();
} else {
  const socket = createSocket('udp4');
  for (let i = 0; i < Number(count); i++) {
    socket.send(garbage(i), Number(kind), address);
    if (i % 100 === 0) await sleep(1);
  }
  socket.close();
}

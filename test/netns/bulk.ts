/**
 * Bulk data whose segmentation is the point, as its own process inside a namespace:
 *
 *   serve PORT                      takes TCP connections and UDP datagrams; prints a line of JSON for each connection,
 *                                   {bytes, sha256}, and for each run of datagrams that 300 ms of silence end,
 *                                   {datagrams, lengths, sha256}
 *   tcp ADDRESS PORT BYTES COUNT    COUNT connections, one after the other: BYTES in one write and a FIN right behind it, so
 *                                   that the FIN joins the data that still waits for a window
 *   train ADDRESS PORT SIZE BYTES COUNT   COUNT writes of BYTES, each cut by UDP_SEGMENT into datagrams of SIZE
 *
 * What is sent is pattern(BYTES).
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { pattern } from '../fixtures/packets.ts';
import { InetSocket, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET } from './inet-socket.ts';

const SO_SNDBUF = 7;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const SILENCE_MS = 300;

function open(type: number, address: string, port: number): InetSocket {
  const socket = new InetSocket(type);
  socket.set(SOL_SOCKET, SO_SNDBUF, 1 << 20);
  socket.connect(address, port);
  return socket;
}

function sendTcp(address: string, port: number, bytes: number, count: number): void {
  const data = pattern(bytes);
  for (let i = 0; i < count; i++) {
    const socket = open(SOCK_STREAM, address, port);
    const sent = socket.send(data);
    if (sent !== bytes) throw new Error(`${sent} of ${bytes} bytes sent: is the send buffer too small?`);
    socket.end();
    // The server closes when it has all.
    const received = socket.receive(new Uint8Array(1));
    if (received !== 0) throw new Error(`an answer from nowhere: ${received}`);
    socket.close();
  }
}

function sendTrain(address: string, port: number, size: number, bytes: number, count: number): void {
  const data = pattern(bytes);
  const socket = open(SOCK_DGRAM, address, port);
  socket.set(SOL_UDP, UDP_SEGMENT, size);
  for (let i = 0; i < count; i++) {
    const sent = socket.send(data);
    if (sent < 0) throw new Error(`send: errno ${-sent}`);
  }
  socket.close();
}

function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

async function serve(port: number): Promise<void> {
  const server = createServer(connection => {
    const hash = createHash('sha256');
    let bytes = 0;
    connection.on('data', chunk => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    connection.on('end', () => print({ bytes, sha256: hash.digest('hex') }));
    connection.on('error', error => print({ error: error.message }));
  });
  const udp = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  let hash = createHash('sha256');
  let lengths: number[] = [];
  let timer: NodeJS.Timeout | undefined;
  udp.on('message', message => {
    hash.update(message);
    lengths.push(message.length);
    clearTimeout(timer);
    timer = setTimeout(() => {
      print({ datagrams: lengths.length, lengths: [...new Set(lengths)], sha256: hash.digest('hex') });
      lengths = [];
      hash = createHash('sha256');
    }, SILENCE_MS);
  });
  server.listen(port);
  udp.bind(port);
  await Promise.all([once(server, 'listening'), once(udp, 'listening')]);
  process.stdout.write('listening\n');
}

const [role, ...args] = process.argv.slice(2);
const [first, second, ...numbers] = args;
if (role === 'serve') await serve(Number(first));
else if (role === 'tcp') sendTcp(first, Number(second), Number(numbers[0]), Number(numbers[1]));
else if (role === 'train') sendTrain(first, Number(second), Number(numbers[0]), Number(numbers[1]), Number(numbers[2]));
else throw new Error(`unknown role ${role}`);

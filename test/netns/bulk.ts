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
import koffi from 'koffi';
import { pattern } from '../fixtures/packets.ts';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const SHUT_WR = 1;
const SILENCE_MS = 300;

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t len)');
const connect = libc.func('int connect(int fd, const void *address, uint32_t len)');
const send = libc.func('intptr_t send(int fd, const void *data, size_t len, int flags)');
const recv = libc.func('intptr_t recv(int fd, _Out_ void *data, size_t len, int flags)');
const shutdown = libc.func('int shutdown(int fd, int how)');
const close = libc.func('int close(int fd)');

function check(what: string, result: number): number {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

function int32(value: number): Uint8Array {
  return new Uint8Array(Int32Array.of(value).buffer);
}

function open(type: number, address: string, port: number): number {
  const fd = check('socket', socket(AF_INET, type, 0));
  check('SO_SNDBUF', setsockopt(fd, SOL_SOCKET, SO_SNDBUF, int32(1 << 20), 4));
  const name = new Uint8Array(16);
  const view = new DataView(name.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  name.set(address.split('.').map(Number), 4);
  check('connect', connect(fd, name, 16));
  return fd;
}

function sendTcp(address: string, port: number, bytes: number, count: number): void {
  const data = pattern(bytes);
  for (let i = 0; i < count; i++) {
    const fd = open(SOCK_STREAM, address, port);
    if (check('send', send(fd, data, bytes, 0)) !== bytes) throw new Error('the send buffer is too small');
    shutdown(fd, SHUT_WR);
    // The server closes when it has all.
    if (check('recv', recv(fd, new Uint8Array(1), 1, 0)) !== 0) throw new Error('an answer from nowhere');
    close(fd);
  }
}

function sendTrain(address: string, port: number, size: number, bytes: number, count: number): void {
  const data = pattern(bytes);
  const fd = open(SOCK_DGRAM, address, port);
  check('UDP_SEGMENT', setsockopt(fd, SOL_UDP, UDP_SEGMENT, int32(size), 4));
  for (let i = 0; i < count; i++) check('send', send(fd, data, bytes, 0));
  close(fd);
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

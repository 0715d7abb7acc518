/**
 * Traffic for tests, as its own process inside a namespace:
 *
 *   ping ADDRESS MAX      an echo request of every payload size from 0 to MAX with DF set; one byte more must be refused
 *   udp-serve PORT        sends every datagram back
 *   udp ADDRESS PORT MAX  a datagram of every size from 0 to MAX, each compared with what comes back
 *
 * Prints what it has done, and ends with an error if an answer is missing or differs.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { pattern } from '../fixtures/packets.ts';
import { slowChecksum } from '../model/checksum.ts';
import { InetSocket, SOCK_RAW, SOL_SOCKET } from './inet-socket.ts';

const IPPROTO_IP = 0;
const IPPROTO_ICMP = 1;
const SO_RCVTIMEO = 20;
const IP_MTU_DISCOVER = 10;
const IP_PMTUDISC_DO = 2;
const EMSGSIZE = 90;
const ANSWER_TIMEOUT_S = 2;

function openPing(address: string): InetSocket {
  const socket = new InetSocket(SOCK_RAW, IPPROTO_ICMP);
  socket.set(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
  socket.set(SOL_SOCKET, SO_RCVTIMEO, ANSWER_TIMEOUT_S, 0, 0, 0);
  socket.connect(address);
  return socket;
}

function echoRequest(size: number): Uint8Array {
  const message = new Uint8Array(8 + size);
  const view = new DataView(message.buffer);
  message[0] = 8;
  view.setUint16(4, process.pid & 0xffff);
  view.setUint16(6, size);
  message.set(pattern(size, size + 1), 8);
  view.setUint16(2, slowChecksum(message));
  return message;
}

function ping(address: string, max: number): void {
  const socket = openPing(address);
  const buffer = new Uint8Array(65536);
  for (let size = 0; size <= max; size++) {
    const request = echoRequest(size);
    const sent = socket.send(request);
    if (sent !== request.length) throw new Error(`${size} bytes refused: ${sent}`);
    for (;;) {
      const n = socket.receive(buffer);
      if (n < 0) throw new Error(`no answer to ${size} bytes: ${n}`);
      const reply = Buffer.from(buffer.subarray(20, n));
      // A raw socket sees every ICMP message of the host.
      if (reply[0] !== 0 || reply.readUInt16BE(4) !== (process.pid & 0xffff)) continue;
      if (slowChecksum(reply) !== 0) throw new Error(`the answer to ${size} bytes has a wrong checksum`);
      if (!reply.subarray(4).equals(request.subarray(4))) throw new Error(`the answer to ${size} bytes differs`);
      break;
    }
  }
  const tooLong = echoRequest(max + 1);
  const refused = socket.send(tooLong);
  if (refused !== -EMSGSIZE) throw new Error(`${max + 1} bytes were not refused as too long: ${refused}`);
  process.stdout.write(`${max + 1} sizes answered\n`);
}

async function serveUdp(port: number): Promise<void> {
  const server = createSocket('udp4');
  server.on('message', (message, { address, port: from }) => server.send(message, from, address));
  server.bind(port);
  await once(server, 'listening');
  process.stdout.write('listening\n');
}

async function exchangeUdp(address: string, port: number, max: number): Promise<void> {
  const client = createSocket('udp4');
  client.connect(port, address);
  await once(client, 'connect');
  const WINDOW = 16;
  let next = 0;
  let answered = 0;
  const sendNext = () => {
    if (next <= max) client.send(pattern(next, next + 1), () => {});
    next++;
  };
  // Answers come in order: there is one path.
  const done = new Promise<void>((resolve, reject) => {
    let timer = setTimeout(reject, 2000, new Error('no answer'));
    client.on('message', message => {
      clearTimeout(timer);
      if (!message.equals(pattern(answered, answered + 1)))
        return reject(new Error(`answer to ${answered} bytes differs`));
      if (answered++ === max) return resolve();
      timer = setTimeout(() => reject(new Error(`no answer to ${answered} bytes`)), 2000);
      sendNext();
    });
    client.on('error', reject);
  });
  for (let i = 0; i < WINDOW; i++) sendNext();
  try {
    await done;
  } finally {
    client.close();
  }
  process.stdout.write(`${answered} datagrams answered\n`);
}

const [role, ...args] = process.argv.slice(2);
if (role === 'ping') ping(args[0], Number(args[1]));
else if (role === 'udp-serve') await serveUdp(Number(args[0]));
else if (role === 'udp') await exchangeUdp(args[0], Number(args[1]), Number(args[2]));
else throw new Error(`unknown role ${role}`);

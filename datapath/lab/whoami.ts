/**
 * The HTTP server of pods and of the router, run as its own process inside their namespace.
 *
 *   GET /            who answered whom, byte for byte in the form of traefik/whoami
 *   GET /bytes/N     N bytes of noise, the same for the same N, with their SHA-256 in X-Sha256
 *   POST, PUT /      the SHA-256 of the body and its length
 *
 * Usage: whoami.js PORT HOSTNAME ADDRESS...   Prints `listening` on stderr.
 */

import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { Random } from '../random.ts';

export interface WhoamiIdentity {
  hostname: string;
  /** Listed one per line, in this order. */
  addresses: string[];
}

/** One block of noise that every download repeats. A prime: no power of two lines up with it. */
const NOISE_LEN = 1_048_573;
const MAX_DOWNLOAD = 2 ** 34;

let noise: Buffer | null = null;

function noiseBlock(): Buffer {
  if (noise === null) {
    const random = new Random(1);
    noise = Buffer.alloc(NOISE_LEN);
    for (let i = 0; i < NOISE_LEN; i++) noise[i] = random.next();
  }
  return noise;
}

function* noiseOf(length: number): Generator<Buffer> {
  const block = noiseBlock();
  for (let left = length; left > 0; left -= NOISE_LEN) {
    yield left >= NOISE_LEN ? block : block.subarray(0, left);
  }
}

const digests = new Map<number, string>();

/** SHA-256, in hex, of the `length` bytes that `/bytes/LENGTH` sends. */
export function noiseDigest(length: number): string {
  let digest = digests.get(length);
  if (digest === undefined) {
    const hash = createHash('sha256');
    for (const chunk of noiseOf(length)) hash.update(chunk);
    digest = hash.digest('hex');
    digests.set(length, digest);
  }
  return digest;
}

/**
 * What traefik/whoami writes: its name and addresses, the client's, and the request as Go prints it, which is the
 * request line, Host and User-Agent, then the other headers by name.
 */
export function describeRequest(request: IncomingMessage, identity: WhoamiIdentity): string {
  const headers: [string, string][] = [];
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i]!.toLowerCase().replace(/(^|-)[a-z]/g, letter => letter.toUpperCase());
    if (name !== 'Host' && name !== 'User-Agent') headers.push([name, request.rawHeaders[i + 1]!]);
  }
  headers.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));

  const lines = [`${request.method} ${request.url} HTTP/1.1`, `Host: ${request.headers.host ?? ''}`];
  if (request.headers['user-agent'] !== undefined) lines.push(`User-Agent: ${request.headers['user-agent']}`);
  for (const [name, value] of headers) lines.push(`${name}: ${value}`);

  const { remoteAddress, remotePort } = request.socket;
  return [
    `Hostname: ${identity.hostname}\n`,
    ...identity.addresses.map(address => `IP: ${address}\n`),
    `RemoteAddr: ${remoteAddress}:${remotePort}\n`,
    ...lines.map(line => `${line}\r\n`),
    '\r\n',
  ].join('');
}

function sendText(response: ServerResponse, status: number, body: string): void {
  // Go sends no Connection header on a persistent connection; the frame lengths of the articles depend on it.
  response.removeHeader('Connection');
  response.writeHead(status, {
    'Content-Length': Buffer.byteLength(body),
    'Content-Type': 'text/plain; charset=utf-8',
  });
  response.end(body);
}

async function sendNoise(response: ServerResponse, length: number): Promise<void> {
  response.writeHead(200, {
    'Content-Length': length,
    'Content-Type': 'application/octet-stream',
    'X-Sha256': noiseDigest(length),
  });
  await pipeline(Readable.from(noiseOf(length)), response);
}

async function answerUpload(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const hash = createHash('sha256');
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    hash.update(chunk);
    length += chunk.length;
  }
  sendText(response, 200, `sha256: ${hash.digest('hex')}\nbytes: ${length}\n`);
}

async function answer(request: IncomingMessage, response: ServerResponse, identity: WhoamiIdentity): Promise<void> {
  if (request.method === 'POST' || request.method === 'PUT') return answerUpload(request, response);
  const download = /^\/bytes\/(\d{1,11})$/.exec(request.url ?? '');
  if (download === null) return sendText(response, 200, describeRequest(request, identity));
  const length = Number(download[1]);
  if (length > MAX_DOWNLOAD) return sendText(response, 400, `at most ${MAX_DOWNLOAD} bytes\n`);
  return sendNoise(response, length);
}

/** A server that answers as `identity`, not yet listening. A client that goes away ends only its own request. */
export function createWhoami(identity: WhoamiIdentity): Server {
  return createServer((request, response) => {
    answer(request, response, identity).catch(() => response.destroy());
  });
}

function main(argv: string[]): void {
  const [port, hostname, ...addresses] = argv;
  if (port === undefined || hostname === undefined) {
    process.stderr.write('usage: whoami PORT HOSTNAME ADDRESS...\n');
    process.exitCode = 2;
    return;
  }
  createWhoami({ hostname, addresses })
    .on('error', error => {
      process.stderr.write(`whoami: ${error.message}\n`);
      process.exit(1);
    })
    .listen(Number(port), '0.0.0.0', () => process.stderr.write('listening\n'));
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv.slice(2));
}

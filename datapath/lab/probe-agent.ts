/**
 * Measures one direction of a path from inside, as a process of its own in the sender's namespace, against one in the
 * receiver's.
 *
 *   probe-agent receive                      prints the port it listens on; answers each datagram with its number
 *   probe-agent search ADDRESS PORT          prints a Search as JSON
 *   probe-agent burst ADDRESS PORT BYTES N   sends N packets of BYTES with DF, whatever becomes of them; prints how many arrived
 */
import { createSocket } from 'node:dgram';
import { fileURLToPath } from 'node:url';
import { formatAddress } from '../control/address.ts';
import { parseAddress } from '../control/validated.ts';
import { DatagramSocket, DF_CLEAR, DF_PROBE, DF_SET } from '../io/datagram-socket.ts';
import { errnoName } from '../io/libc.ts';
import { CODE_FRAG_NEEDED, UNREACHABLE } from '../wire/icmp.ts';
import { HEADER_LEN as IPV4_HEADER, MAX_TOTAL_LEN } from '../wire/ipv4.ts';
import { HEADER_LEN as UDP_HEADER } from '../wire/udp.ts';

/** What became of one packet. */
export type Outcome =
  | { outcome: 'arrived' }
  /** The sender's own kernel refused it, and nothing was sent. */
  | { outcome: 'local'; error: string; mtu: number }
  /** Somebody answered that it is too long. */
  | { outcome: 'signalled'; by: string; mtu: number }
  /** Somebody answered something else. */
  | { outcome: 'refused'; by: string; type: number; code: number }
  | { outcome: 'lost' };

export interface Search {
  /** Of the sender's device, and what its kernel held for the path's MTU when it began: ordinary programs get no further. */
  device: number;
  known: number;
  /** The largest packet with DF that arrived; 0: not even the smallest. */
  largest: number;
  /** One byte more, and what became of it. */
  next: number;
  ended: Outcome;
  /** The same size without DF; null where the device does not take it. */
  withoutDf: Outcome | null;
  packets: number;
}

export const AGENT = fileURLToPath(import.meta.url);

const HEADERS = IPV4_HEADER + UDP_HEADER;
/** Number and length, which the receiver sends back. */
const PAYLOAD = 8;
const SMALLEST = HEADERS + PAYLOAD;
/** What is lost once may have been lost by chance, or be what a node learnt from. */
const ATTEMPTS = 4;
/** While searching: a wrong answer shows at the end, when the size behind the largest is tried with all attempts. */
const HASTY_ATTEMPTS = 2;
/** A datagram that takes longer than so many times the first is lost, within these bounds. */
const PATIENCE = 20;
const WAIT_MS = { least: 100, most: 1000 };

class Prober {
  packets = 0;
  /** How long an answer is waited for. */
  waitMs = WAIT_MS.most;
  private readonly address: number;
  private readonly port: number;
  private readonly sockets = new Map<number, DatagramSocket>();
  private number = 0;

  constructor(address: number, port: number) {
    this.address = address;
    this.port = port;
  }

  socketOf(discover: number): DatagramSocket {
    let socket = this.sockets.get(discover);
    if (socket === undefined) {
      socket = new DatagramSocket(this.address, this.port, discover);
      this.sockets.set(discover, socket);
    }
    return socket;
  }

  /** Sends a packet of `bytes` until something is known about it. */
  try(bytes: number, discover: number, attempts = ATTEMPTS): Outcome {
    let outcome: Outcome = { outcome: 'lost' };
    for (let i = 0; i < attempts && outcome.outcome === 'lost'; i++) outcome = this.once(bytes, discover);
    return outcome;
  }

  private once(bytes: number, discover: number): Outcome {
    const socket = this.socketOf(discover);
    const payload = new Uint8Array(bytes - HEADERS);
    const view = new DataView(payload.buffer);
    const number = ++this.number;
    view.setUint32(0, number);
    view.setUint32(4, bytes);
    const error = socket.send(payload);
    if (error !== 0) {
      let mtu = 0;
      for (let e = socket.receiveError(); e !== null; e = socket.receiveError()) if (e.isLocal) mtu = e.info;
      return { outcome: 'local', error: errnoName(error), mtu };
    }
    this.packets++;
    const deadline = Date.now() + this.waitMs;
    for (let left = this.waitMs; left > 0; left = deadline - Date.now()) {
      if (!socket.wait(left)) break;
      const answer = socket.receive();
      if (answer !== null && answer.length >= 4 && numberOf(answer) === number) return { outcome: 'arrived' };
      const e = socket.receiveError();
      if (e === null || e.isLocal || (e.payload.length >= 4 && numberOf(e.payload) !== number)) continue;
      const by = formatAddress(e.offender);
      if (e.type === UNREACHABLE && e.code === CODE_FRAG_NEEDED) return { outcome: 'signalled', by, mtu: e.info };
      return { outcome: 'refused', by, type: e.type, code: e.code };
    }
    return { outcome: 'lost' };
  }

  close(): void {
    for (const socket of this.sockets.values()) socket.close();
  }
}

function numberOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
}

/** The largest packet that arrives, by halving; what somebody says about the MTU is tried first. */
function search(prober: Prober): Search {
  const known = prober.socketOf(DF_SET).pathMtu;
  const refusal = prober.try(MAX_TOTAL_LEN, DF_PROBE);
  const device = refusal.outcome === 'local' && refusal.mtu > 0 ? refusal.mtu : MAX_TOTAL_LEN;
  prober.try(SMALLEST, DF_PROBE); // waits for ARP, too
  const started = Date.now();
  const smallest = prober.try(SMALLEST, DF_PROBE);
  prober.waitMs = Math.min(WAIT_MS.most, Math.max(WAIT_MS.least, PATIENCE * (Date.now() - started)));
  const result = (largest: number, ended: Outcome): Search => {
    const next = largest === 0 ? SMALLEST : largest + 1;
    const withoutDf = next > device ? null : prober.try(next, DF_CLEAR);
    return { device, known, largest, next, ended, withoutDf, packets: prober.packets };
  };
  if (smallest.outcome !== 'arrived') return result(0, smallest);

  let passes = SMALLEST;
  while (true) {
    passes = halve(prober, passes, device + 1);
    const ended = prober.try(passes + 1, DF_PROBE);
    if (ended.outcome !== 'arrived') return result(passes, ended);
    passes++;
  }
}

/** @returns the largest size below `fails` that arrives */
function halve(prober: Prober, passes: number, fails: number): number {
  for (let size = fails - 1; fails - passes > 1; ) {
    const { outcome, ...said } = prober.try(size, DF_PROBE, HASTY_ATTEMPTS);
    if (outcome === 'arrived') passes = size;
    else fails = size;
    const hint = 'mtu' in said ? said.mtu : 0;
    size = hint > passes && hint < fails ? hint : (passes + fails) >> 1;
  }
  return passes;
}

function receive(): void {
  const socket = createSocket('udp4');
  socket.on('message', (datagram, from) => socket.send(datagram.subarray(0, PAYLOAD), from.port, from.address));
  socket.bind(0, () => process.stdout.write(`${socket.address().port}\n`));
}

function run([what, address, port, bytes, count]: string[]): void {
  if (what === 'receive') {
    receive();
    return;
  }
  const prober = new Prober(parseAddress(address), Number(port));
  if (what === 'search') {
    process.stdout.write(`${JSON.stringify(search(prober))}\n`);
  } else {
    let arrived = 0;
    for (let i = 0; i < Number(count); i++) {
      if (prober.try(Number(bytes), DF_PROBE, 1).outcome === 'arrived') arrived++;
    }
    process.stdout.write(`${arrived}\n`);
  }
  prober.close();
}

if (process.argv[1] === AGENT) run(process.argv.slice(2));

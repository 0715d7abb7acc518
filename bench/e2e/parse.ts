/** What iperf3 and our own clients print, as figures. */
import type { ConnectionTrial } from './connections.ts';
import type { LatencyTrial } from './latency.ts';
import type { PacketRates } from './packets.ts';

/** A trial that gave no figure, and why. */
export class TrialError extends Error {
  override name = 'TrialError';
}

export interface TcpTrial {
  gigabitsPerSecond: number;
  /** Bytes received, in 10^9. */
  gigabytes: number;
  retransmits: number;
}

export interface UdpTrial {
  /** Datagrams per second that the receiving process got. */
  delivered: number;
  /** Datagrams per second that the sending process sent. */
  offered: number;
  /** Of those offered, in percent. */
  lostPercent: number;
}

/** What rr.ts prints: times in microseconds. */
export interface RoundTrips {
  count: number;
  lost: number;
  seconds: number;
  p50: number;
  p99: number;
  p999: number;
  max: number;
}

interface IperfSum {
  seconds: number;
  bytes: number;
  bits_per_second: number;
  retransmits?: number;
  packets?: number;
}

interface IperfEnd {
  sum_sent?: IperfSum;
  sum_received?: IperfSum;
}

/**
 * @param text  what `iperf3 -c ... -J` printed; all flows together
 * @throws TrialError when it says that it failed, or nothing arrived
 */
export function parseTcp(text: string): TcpTrial {
  const { sent, received } = sumsOf(text);
  return {
    gigabitsPerSecond: received.bits_per_second / 1e9,
    gigabytes: received.bytes / 1e9,
    retransmits: sent.retransmits ?? 0,
  };
}

/**
 * What was received is taken from the bytes, not from the datagrams missing in the sequence: those lost at the very end
 * of a trial are not missing from any sequence.
 * @param text     what `iperf3 -c ... -u -J` printed
 * @param payload  bytes of each datagram
 * @throws TrialError when it says that it failed, or nothing arrived
 */
export function parseUdp(text: string, payload: number): UdpTrial {
  const { sent, received } = sumsOf(text);
  const arrived = received.bytes / payload;
  const offered = sent.packets ?? sent.bytes / payload;
  return {
    delivered: arrived / received.seconds,
    offered: offered / sent.seconds,
    lostPercent: 100 * Math.max(0, 1 - arrived / offered),
  };
}

function sumsOf(text: string): { sent: IperfSum; received: IperfSum } {
  const { error, end } = parseJson(text) as { error?: string; end?: IperfEnd };
  if (error !== undefined) throw new TrialError(`iperf3: ${error}`);
  const sent = end?.sum_sent;
  const received = end?.sum_received;
  if (sent === undefined || received === undefined) throw new TrialError('iperf3: no sums in its report');
  if (!(received.bytes > 0)) throw new TrialError('iperf3: nothing arrived');
  return { sent, received };
}

/** @throws TrialError when no request was answered */
export function parseRoundTrips(text: string): RoundTrips {
  const trips = parseJson(text) as RoundTrips;
  if (!(trips.count > 0)) throw new TrialError('no request was answered');
  return trips;
}

/** @throws TrialError when nothing arrived */
export function parsePacketRates(text: string): PacketRates {
  const rates = parseJson(text) as PacketRates;
  if (!(rates.delivered > 0 && rates.found?.every(({ rate }) => rate > 0)))
    throw new TrialError('no rate without loss');
  return rates;
}

/** @throws TrialError when no request was answered */
export function parseLatency(text: string): LatencyTrial {
  const trial = parseJson(text) as LatencyTrial;
  if (!(trial.lost < trial.sent)) throw new TrialError('no request was answered');
  return trial;
}

/** @throws TrialError when no connection came about */
export function parseConnections(text: string): ConnectionTrial {
  const trial = parseJson(text) as ConnectionTrial;
  if (!(trial.completed > 0)) throw new TrialError('no connection came about');
  return trial;
}

function parseJson(text: string): object {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    // Below, with what is no object either.
  }
  if (typeof document === 'object' && document !== null) return document;
  throw new TrialError(`no JSON but '${text.trim().slice(0, 200)}'`);
}

/**
 * Counters live in one shared Float64Array: the loop adds, anyone reads, nobody locks. A double counts exactly to 2^53.
 *
 *   [0, VERDICTS)             packets by drop reason
 *   [VERDICTS, 2 * VERDICTS)  bytes by drop reason
 *   then the EVENT_* slots, then PORT_STRIDE slots for each port
 */
import { VERDICT_NAMES, VERDICTS } from './verdict.ts';

export const MAX_PORTS = 256;

// Things that happen and are not drops.
export const EVENT_ICMP_TIME_EXCEEDED_SENT = 0;
export const EVENT_ICMP_FRAG_NEEDED_SENT = 1;
export const EVENT_ICMP_UNREACHABLE_SENT = 2;
export const EVENT_ICMP_ECHO_ANSWERED = 3;
export const EVENT_ARP_REQUEST_SENT = 4;
export const EVENT_ARP_REPLY_SENT = 5;
export const EVENT_ARP_RECEIVED = 6;
export const EVENT_NEIGHBOR_LEARNT = 7;
export const EVENT_NEIGHBOR_MOVED = 8;
export const EVENT_NEIGHBOR_FAILED = 9;
export const EVENT_ENCAPSULATED = 10;
export const EVENT_DECAPSULATED = 11;
export const EVENT_FRAGMENTED = 12;
export const EVENT_FRAGMENTS_SENT = 13;
export const EVENT_DELIVERED_POD = 14;
export const EVENT_DELIVERED_HOST = 15;
export const EVENT_SEGMENTED = 16;
export const EVENT_SEGMENTS_SENT = 17;
export const EVENT_COALESCED = 18;
export const EVENT_BURSTS = 19;
export const EVENT_WAKEUPS = 20;
export const EVENT_ECN_ODD = 21;
export const EVENT_FRAGMENTS_HELD = 22;
export const EVENT_DATAGRAMS_REASSEMBLED = 23;
export const EVENT_PATH_MTU_LOWERED = 24;
export const EVENT_MSS_CLAMPED = 25;
export const EVENT_FRAGMENTS_REASSEMBLED = 26;
export const EVENT_TUNNEL_ERRORS = 27;
export const EVENT_ICMP_PARAMETER_PROBLEM_SENT = 28;
export const EVENTS = 64;

export const EVENT_NAMES: readonly string[] = [
  'icmp-time-exceeded-sent',
  'icmp-frag-needed-sent',
  'icmp-unreachable-sent',
  'icmp-echo-answered',
  'arp-request-sent',
  'arp-reply-sent',
  'arp-received',
  'neighbor-learnt',
  'neighbor-moved',
  'neighbor-failed',
  'encapsulated',
  'decapsulated',
  'fragmented',
  'fragments-sent',
  'delivered-pod',
  'delivered-host',
  'segmented',
  'segments-sent',
  'coalesced',
  'bursts',
  'wakeups',
  'ecn-odd-combination',
  'fragments-held',
  'datagrams-reassembled',
  'path-mtu-lowered',
  'mss-clamped',
  'fragments-reassembled',
  'tunnel-errors',
  'icmp-parameter-problem-sent',
];

// Per port.
export const PORT_RX_PACKETS = 0;
export const PORT_RX_BYTES = 1;
export const PORT_TX_PACKETS = 2;
export const PORT_TX_BYTES = 3;
export const PORT_RX_DROPPED = 4;
export const PORT_TX_DROPPED = 5;
export const PORT_READS = 6;
export const PORT_WRITES = 7;
export const PORT_STRIDE = 8;

const EVENT_BASE = 2 * VERDICTS;
const PORT_BASE = EVENT_BASE + EVENTS;

export class Counters {
  readonly values: Float64Array;

  /** @param buffer an existing counter memory to look into; a new one is made without it */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer((PORT_BASE + MAX_PORTS * PORT_STRIDE) * 8)) {
    this.values = new Float64Array(buffer);
  }

  /** Counts a packet of `bytes` that ended for `reason` (verdict.ts). */
  drop(reason: number, bytes: number): void {
    this.values[reason] += 1;
    this.values[VERDICTS + reason] += bytes;
  }

  /** Counts `n` times an EVENT_*. */
  event(event: number, n = 1): void {
    this.values[EVENT_BASE + event] += n;
  }

  /** Adds to a PORT_* counter. */
  port(port: number, counter: number, n: number): void {
    this.values[PORT_BASE + port * PORT_STRIDE + counter] += n;
  }

  /** The number of a port goes to another one: all of its PORT_* counters are 0. */
  clearPort(port: number): void {
    const from = PORT_BASE + port * PORT_STRIDE;
    this.values.fill(0, from, from + PORT_STRIDE);
  }

  dropped(reason: number): number {
    return this.values[reason];
  }

  events(event: number): number {
    return this.values[EVENT_BASE + event];
  }

  ofPort(port: number, counter: number): number {
    return this.values[PORT_BASE + port * PORT_STRIDE + counter];
  }

  /** All drops that are not zero, then all events that are not zero, for display. */
  snapshot(): { name: string; packets: number; bytes?: number }[] {
    const rows: { name: string; packets: number; bytes?: number }[] = [];
    for (let i = 0; i < VERDICTS; i++) {
      if (this.values[i] > 0)
        rows.push({ name: VERDICT_NAMES[i], packets: this.values[i], bytes: this.values[VERDICTS + i] });
    }
    for (let i = 0; i < EVENT_NAMES.length; i++) {
      if (this.events(i) > 0) rows.push({ name: EVENT_NAMES[i], packets: this.events(i) });
    }
    return rows;
  }
}

/**
 * The states a flow can be in, and how long an idle flow stays in each, per behaviour profile.
 *
 * One flat number space for all protocols, so that the timeout of a flow is one array load: timeouts[state].
 * The TCP states are those of Linux nf_conntrack_proto_tcp.c, with its numbers.
 */

export const TCP_NONE = 0;
export const TCP_SYN_SENT = 1;
export const TCP_SYN_RECV = 2;
export const TCP_ESTABLISHED = 3;
export const TCP_FIN_WAIT = 4;
export const TCP_CLOSE_WAIT = 5;
export const TCP_LAST_ACK = 6;
export const TCP_TIME_WAIT = 7;
export const TCP_CLOSE = 8;
export const TCP_SYN_SENT2 = 9;
// Not states: shorter timeouts for flows that retransmit without an answer, or have data unacknowledged.
export const TCP_RETRANS = 10;
export const TCP_UNACK = 11;
export const UDP_NEW = 12;
export const UDP_STREAM = 13;
export const ICMP_QUERY = 14;
export const GENERIC = 15;
export const GRE_NEW = 16;
export const GRE_STREAM = 17;
export const SCTP_COOKIE_WAIT = 18;
export const SCTP_COOKIE_ECHOED = 19;
export const SCTP_ESTABLISHED = 20;
export const SCTP_SHUTDOWN = 21;
export const SCTP_CLOSED = 22;
export const STATES = 23;

/** Names as `conntrack -L` prints them; '' where it prints none. */
export const STATE_NAMES: readonly string[] = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'SYN_SENT2',
  'RETRANS',
  'UNACK',
  '',
  '',
  '',
  '',
  '',
  '',
  'COOKIE_WAIT',
  'COOKIE_ECHOED',
  'ESTABLISHED',
  'SHUTDOWN_SENT',
  'CLOSED',
];

export type TimeoutProfile = 'linux' | 'kube-proxy' | 'cilium' | 'rfc';

/** Seconds by state. */
type Seconds = readonly number[];

// Order: NONE, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE, SYN_SENT2, RETRANS,
// UNACK, UDP_NEW, UDP_STREAM, ICMP, GENERIC, GRE_NEW, GRE_STREAM, SCTP cookie wait, echoed, established, shutdown, closed.
const LINUX: Seconds = [
  0, 120, 60, 432000, 120, 60, 30, 120, 10, 120, 300, 300, 30, 120, 30, 600, 30, 180, 3, 3, 432000, 3, 10,
];

function change(base: Seconds, changes: Record<number, number>): Seconds {
  return base.map((seconds, state) => changes[state] ?? seconds);
}

const PROFILES: Record<TimeoutProfile, Seconds> = {
  linux: LINUX,
  // conntrack.tcpEstablishedTimeout 24h and tcpCloseWaitTimeout 1h; the rest is the kernel's.
  'kube-proxy': change(LINUX, { [TCP_ESTABLISHED]: 86400, [TCP_CLOSE_WAIT]: 3600 }),
  // Cilium knows three TCP phases (syn, established, fin) and one timeout for everything else.
  cilium: change(LINUX, {
    [TCP_SYN_SENT]: 60,
    [TCP_SYN_RECV]: 60,
    [TCP_SYN_SENT2]: 60,
    [TCP_ESTABLISHED]: 8000,
    [TCP_FIN_WAIT]: 10,
    [TCP_CLOSE_WAIT]: 10,
    [TCP_LAST_ACK]: 10,
    [TCP_TIME_WAIT]: 10,
    [TCP_CLOSE]: 10,
    [TCP_RETRANS]: 8000,
    [TCP_UNACK]: 8000,
    [UDP_NEW]: 60,
    [UDP_STREAM]: 60,
    [ICMP_QUERY]: 60,
    [GENERIC]: 60,
    [GRE_NEW]: 60,
    [GRE_STREAM]: 60,
    [SCTP_COOKIE_WAIT]: 60,
    [SCTP_COOKIE_ECHOED]: 60,
    [SCTP_ESTABLISHED]: 60,
    [SCTP_SHUTDOWN]: 60,
    [SCTP_CLOSED]: 60,
  }),
  // RFC 5382 REQ-5 (2 h 4 min, 4 min), RFC 7857 section 2 (4 min after a RST), RFC 4787 REQ-5 (5 min advised),
  // RFC 5508 REQ-2 (60 s).
  rfc: change(LINUX, {
    [TCP_SYN_SENT]: 240,
    [TCP_SYN_RECV]: 240,
    [TCP_SYN_SENT2]: 240,
    [TCP_ESTABLISHED]: 7440,
    [TCP_FIN_WAIT]: 240,
    [TCP_CLOSE_WAIT]: 240,
    [TCP_LAST_ACK]: 240,
    [TCP_TIME_WAIT]: 240,
    [TCP_CLOSE]: 240,
    [TCP_RETRANS]: 7440,
    [TCP_UNACK]: 7440,
    [UDP_NEW]: 300,
    [UDP_STREAM]: 300,
    [ICMP_QUERY]: 60,
  }),
};

/**
 * Timeouts of a profile in milliseconds, indexed by state.
 * @param seconds values that replace the profile's, by state
 */
export function timeoutsOf(profile: TimeoutProfile, seconds: Record<number, number> = {}): Int32Array {
  return Int32Array.from(change(PROFILES[profile], seconds), s => s * 1000);
}

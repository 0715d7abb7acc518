/**
 * SCTP association tracking by the first chunk of each packet (RFC 9260 section 4). Coarser than Linux's
 * nf_conntrack_proto_sctp.c: verification tags are not checked, and secondary paths are flows of their own.
 */
import type { Packet } from '../packet/packet.ts';
import { CONTINUE, DROP_CT_INVALID_SCTP } from '../verdict.ts';
import { HEADER_LEN } from '../wire/sctp.ts';
import { SCTP_CLOSED, SCTP_COOKIE_ECHOED, SCTP_COOKIE_WAIT, SCTP_ESTABLISHED, SCTP_SHUTDOWN } from './timeouts.ts';

const INIT = 1;
const INIT_ACK = 2;
const ABORT = 6;
const SHUTDOWN = 7;
const SHUTDOWN_ACK = 8;
const COOKIE_ECHO = 10;
const COOKIE_ACK = 11;
const SHUTDOWN_COMPLETE = 14;

/** Chunk type of the first chunk, or -1 if there is none. */
function firstChunk(view: DataView, p: Packet): number {
  return p.off + p.len >= p.l4 + HEADER_LEN + 4 ? view.getUint8(p.l4 + HEADER_LEN) : -1;
}

/** The state that this first packet of a flow puts it in; a negative verdict (-DROP_*) if it cannot be one. */
export function openSctp(view: DataView, p: Packet): number {
  const chunk = firstChunk(view, p);
  if (chunk === INIT) return SCTP_COOKIE_WAIT;
  if (chunk === COOKIE_ECHO) return SCTP_COOKIE_ECHOED;
  const answers =
    chunk === INIT_ACK || chunk === COOKIE_ACK || chunk === ABORT || chunk === SHUTDOWN_COMPLETE || chunk < 0;
  return answers ? -DROP_CT_INVALID_SCTP : SCTP_ESTABLISHED;
}

/** The next state of a flow in `state`; CONTINUE is not a state, so a packet without a chunk answers -DROP_*. */
export function trackSctp(view: DataView, p: Packet, state: number): number {
  const chunk = firstChunk(view, p);
  if (chunk < CONTINUE) return -DROP_CT_INVALID_SCTP;
  if (chunk === ABORT || chunk === SHUTDOWN_COMPLETE) return SCTP_CLOSED;
  if (chunk === INIT) return state === SCTP_ESTABLISHED ? state : SCTP_COOKIE_WAIT;
  if (chunk === COOKIE_ECHO) return state === SCTP_ESTABLISHED ? state : SCTP_COOKIE_ECHOED;
  if (chunk === COOKIE_ACK) return SCTP_ESTABLISHED;
  if (chunk === SHUTDOWN || chunk === SHUTDOWN_ACK) return SCTP_SHUTDOWN;
  return state;
}

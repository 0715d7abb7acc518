/**
 * One moment of a packet, as the loop writes it into a ring and the control plane reads it: fixed words, then the first
 * bytes of the packet. Positions are words from the record's start; word 0 is the ring's (memory/record-ring.ts).
 */
import type { RecordRing } from '../memory/record-ring.ts';

/** It came in by a port; as it was read. */
export const KIND_RECEIVED = 1;
/** It leaves by a port; as it is written. */
export const KIND_SENT = 2;
/** It ended here; `detail` is the reason. */
export const KIND_DROPPED = 3;
/** It has taken a step of the path; `detail` is the step. */
export const KIND_STEP = 4;

/** VERDICT of a KIND_SENT that has a tunnel's headers on. */
export const TO_OVERLAY = 1;

// What is known of a packet beside its numbers: bits of STATE.
export const STATE_TRACKED = 1;
export const STATE_NEW = 2;
export const STATE_REPLY = 4;
export const STATE_RELATED = 8;
export const STATE_TRANSLATED = 16;
/** The node made it itself. */
export const STATE_LOCAL = 32;

export const KIND = 1;
export const DETAIL = 2;
/** CONTINUE or the verdict of a step. */
export const VERDICT = 3;
/** Milliseconds since 1970, a double. */
export const TIME = 4;
/** Counts the packets of a path; the same for every moment of one packet, and for what the node says about it. */
export const NUMBER = 6;
export const IN_PORT = 7;
export const SRC = 8;
export const DST = 9;
/** srcPort << 16 | dstPort. */
export const PORTS = 10;
export const PROTOCOL = 11;
/** TCP flags, or ICMP type << 8 | code. */
export const L4_BITS = 12;
export const IDENTITY = 13;
export const TUNNEL_SOURCE = 14;
export const STATE = 15;
export const NEXT_HOP = 16;
export const RULE = 17;
export const BACKEND = 18;
export const SERVICE_PORT = 19;
export const POLICY = 20;
export const MARK = 21;
/** Bytes of the packet, and how many of them follow. */
export const LENGTH = 22;
export const CAPTURED = 23;
export const GSO_SIZE = 24;
/** 2: the bytes begin with an Ethernet header; 3: with an IP header. */
export const LAYER = 25;
/** What the packet will have when it leaves: source and destination as decided so far, and the backend's port. */
export const NEW_SRC = 26;
export const NEW_DST = 27;
export const BACKEND_PORT = 28;
export const WORDS = 30;
export const HEADER_BYTES = WORDS * 4;

/** A record as an object. Addresses int32. */
export interface WatchRecord {
  kind: number;
  detail: number;
  verdict: number;
  timeMs: number;
  number: number;
  inPort: number;
  src: number;
  dst: number;
  srcPort: number;
  dstPort: number;
  protocol: number;
  l4Bits: number;
  identity: number;
  tunnelSource: number;
  state: number;
  nextHop: number;
  rule: number;
  backend: number;
  backendPort: number;
  newSrc: number;
  newDst: number;
  servicePort: number;
  policy: number;
  mark: number;
  length: number;
  gsoSize: number;
  layer: number;
  /** The first bytes of the packet; a copy. */
  bytes: Uint8Array;
}

/** Reads the record at `at` (bytes) of the ring. */
export function readRecord(ring: RecordRing, at: number): WatchRecord {
  const { words, doubles, bytes } = ring;
  const word = at >> 2;
  const data = at + HEADER_BYTES;
  return {
    kind: words[word + KIND],
    detail: words[word + DETAIL],
    verdict: words[word + VERDICT],
    timeMs: doubles[(word + TIME) >> 1],
    number: words[word + NUMBER] >>> 0,
    inPort: words[word + IN_PORT],
    src: words[word + SRC],
    dst: words[word + DST],
    srcPort: words[word + PORTS] >>> 16,
    dstPort: words[word + PORTS] & 0xffff,
    protocol: words[word + PROTOCOL],
    l4Bits: words[word + L4_BITS],
    identity: words[word + IDENTITY],
    tunnelSource: words[word + TUNNEL_SOURCE],
    state: words[word + STATE],
    nextHop: words[word + NEXT_HOP],
    rule: words[word + RULE],
    backend: words[word + BACKEND],
    backendPort: words[word + BACKEND_PORT],
    newSrc: words[word + NEW_SRC],
    newDst: words[word + NEW_DST],
    servicePort: words[word + SERVICE_PORT],
    policy: words[word + POLICY],
    mark: words[word + MARK],
    length: words[word + LENGTH],
    gsoSize: words[word + GSO_SIZE],
    layer: words[word + LAYER],
    bytes: bytes.slice(data, data + words[word + CAPTURED]),
  };
}

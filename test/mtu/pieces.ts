/** Fragments of small datagrams, and all the ways in which they can come. */
import { ipv4, patch, pattern, udp4 } from '../fixtures/packets.ts';
import type { Piece } from '../model/datagram.ts';

/** Bytes that the last unit of 8 lacks, unless told otherwise, so that the datagram has an odd end. */
const SHORT = 3;
/** What the UDP header says, so that only datagrams of at least this length are right. */
export const UDP_LENGTH = 16;

/** The piece of units [from, to) of 8 bytes; the last one ends `short` bytes early. */
export function pieceOf(from: number, to: number, more: boolean, short = SHORT): Piece {
  return { from: from * 8, end: to * 8 - (more ? 0 : short), more };
}

/** All fragments that a datagram of at most `units` can have, in every size. */
export function allPieces(units: number, short = SHORT): Piece[] {
  const pieces: Piece[] = [];
  for (let from = 0; from < units; from++) {
    for (let to = from + 1; to <= units; to++) {
      pieces.push(pieceOf(from, to, true));
      if (from > 0) pieces.push(pieceOf(from, to, false, short)); // without an offset it would be no fragment
    }
  }
  return pieces;
}

/** All sequences of `length` out of `pieces`. */
export function* sequences(pieces: Piece[], length: number): Generator<Piece[]> {
  if (length === 0) {
    yield [];
    return;
  }
  for (const rest of sequences(pieces, length - 1)) for (const piece of pieces) yield [piece, ...rest];
}

/** All ways to cut a datagram of `units` into at least two fragments. */
export function* cuts(units: number): Generator<Piece[]> {
  for (let mask = 1; mask < 1 << (units - 1); mask++) {
    const pieces: Piece[] = [];
    let from = 0;
    for (let to = 1; to <= units; to++) {
      if (to < units && (mask & (1 << (to - 1))) === 0) continue;
      pieces.push(pieceOf(from, to, to < units));
      from = to;
    }
    yield pieces;
  }
}

export function* permutations<T>(list: T[]): Generator<T[]> {
  if (list.length < 2) {
    yield list;
    return;
  }
  for (let i = 0; i < list.length; i++) {
    for (const rest of permutations([...list.slice(0, i), ...list.slice(i + 1)])) yield [list[i], ...rest];
  }
}

/**
 * Every cut of a datagram of `units`, in every order: as it is, and with every fragment there can be put in at every
 * place, which are all duplicates and all overlaps.
 */
export function* disturbed(units: number): Generator<Piece[]> {
  const strangers = allPieces(units);
  for (const cut of cuts(units)) {
    for (const order of permutations(cut)) {
      yield order;
      for (const stranger of strangers) {
        for (let at = 0; at <= order.length; at++) yield [...order.slice(0, at), stranger, ...order.slice(at)];
      }
    }
  }
}

const made = new Map<string, Uint8Array>();

/** A fragment as bytes, its payload that of its place in the datagram, its UDP ports as given. */
export function bytesOfPiece(
  piece: Piece,
  o: { id?: number; sport?: number; src?: string; dst?: string } = {},
): Uint8Array {
  const key = `${piece.from} ${piece.end} ${piece.more} ${o.id} ${o.sport} ${o.src} ${o.dst}`;
  let bytes = made.get(key);
  if (bytes === undefined) {
    const datagram = udp4({ sport: o.sport ?? 40000, payload: pattern(8200), noChecksum: true }).slice(20);
    bytes = ipv4(17, patch(datagram, 4, 0, UDP_LENGTH).slice(piece.from, piece.end), {
      id: o.id ?? 7,
      src: o.src,
      dst: o.dst,
      fragment: (piece.more ? 0x2000 : 0) | (piece.from / 8),
    });
    made.set(key, bytes);
  }
  return bytes;
}

export function show(list: Piece[]): string {
  return list.map(p => `[${p.from},${p.end}${p.more ? '' : '.'})`).join(' ');
}

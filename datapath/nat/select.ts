/** How a service port picks one of its backends for a new flow. */
import { hash3 } from '../memory/hash.ts';
import type { Random } from '../random.ts';

export type SelectorKind = 'random' | 'round-robin' | 'weighted' | 'maglev';

/**
 * Cilium's default table size. M > 100 N makes shares even to 1 %. When one of N backends goes, so many flows of the
 * others move (measured): N 10 0.6 %, N 100 1.4 %; with M 65521, N 100 0.6 %.
 */
export const MAGLEV_DEFAULT_SIZE = 16381;
/** The sizes Cilium allows: all prime, so that every skip visits every place. */
export const MAGLEV_SIZES: readonly number[] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071];

/** What a flow looks like to a selector. Addresses int32; `seed` is shared by all nodes, so that they agree. */
export function flowHash(
  src: number,
  dst: number,
  srcPort: number,
  dstPort: number,
  protocol: number,
  seed: number,
): number {
  return hash3(src, dst, (srcPort << 16) | dstPort, seed, protocol, 0);
}

/** One backend as a selector sees it. */
export interface Candidate {
  /** Backend number. */
  backend: number;
  address: number;
  port: number;
  weight: number;
}

/**
 * The candidates of one service port in the form their selector needs. Built when the service changes; pick() is for
 * the loop.
 */
export class Selection {
  readonly size: number;
  /** Backend numbers. */
  readonly backends: Int32Array;
  private readonly kind: SelectorKind;
  /** weighted: running sums of the weights. maglev: the lookup table, indexes into `backends`. */
  private readonly table: Int32Array | Uint16Array;
  private next = 0;

  constructor(kind: SelectorKind, candidates: readonly Candidate[], seed: number, maglevSize = MAGLEV_DEFAULT_SIZE) {
    this.kind = kind;
    this.size = candidates.length;
    this.backends = Int32Array.from(candidates, c => c.backend);
    if (kind === 'maglev' && candidates.length > 0) this.table = maglevTable(candidates, maglevSize, seed);
    else if (kind === 'weighted') {
      let sum = 0;
      this.table = Int32Array.from(candidates, c => {
        sum += c.weight;
        return sum;
      });
    } else this.table = new Int32Array(0);
  }

  /** @param hash flowHash of the flow, for maglev @returns a backend number, 0 if there is none */
  pick(hash: number, random: Random): number {
    const size = this.size;
    if (size === 0) return 0;
    if (this.kind === 'maglev') return this.backends[this.table[(hash >>> 0) % this.table.length]];
    if (this.kind === 'round-robin') {
      if (this.next >= size) this.next = 0;
      return this.backends[this.next++];
    }
    if (this.kind === 'weighted') {
      const total = this.table[size - 1];
      if (total === 0) return 0;
      const point = random.below(total);
      let low = 0;
      let high = size - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.table[middle] > point) high = middle;
        else low = middle + 1;
      }
      return this.backends[low];
    }
    return this.backends[random.below(size)];
  }
}

/**
 * The lookup table of Maglev (Eisenbud et al., NSDI 2016, section 3.4): every backend has its own permutation of the
 * places, from its address and port only, and they take turns in claiming their next free place. With weights, a
 * backend's turns are proportional to its weight.
 *
 * @param size a prime
 * @returns per place an index into `candidates`
 */
export function maglevTable(candidates: readonly Candidate[], size: number, seed: number): Int32Array | Uint16Array {
  const n = candidates.length;
  const table = n < 65535 ? new Uint16Array(size).fill(65535) : new Int32Array(size).fill(-1);
  const empty = table[0];
  // The paper fills in a fixed order of backends; by name, so that all nodes agree whatever order they learnt them in.
  const order = candidates
    .map((_, i) => i)
    .sort((a, b) => candidates[a].address - candidates[b].address || candidates[a].port - candidates[b].port);
  const place = new Int32Array(n);
  const skip = new Int32Array(n);
  const turns = new Float64Array(n);
  let heaviest = 1;
  for (let i = 0; i < n; i++) {
    const { address, port, weight } = candidates[i];
    place[i] = (hash3(address, port, 1, seed, 0, 0) >>> 0) % size;
    skip[i] = ((hash3(address, port, 2, seed, 0, 0) >>> 0) % (size - 1)) + 1;
    if (weight > heaviest) heaviest = weight;
  }
  if (!candidates.some(c => c.weight > 0)) heaviest = 0;
  let filled = 0;
  while (filled < size) {
    for (const i of order) {
      turns[i] += heaviest === 0 ? 1 : candidates[i].weight / heaviest;
      if (turns[i] < 1) continue;
      turns[i] -= 1;
      let at = place[i];
      while (table[at] !== empty) {
        at += skip[i];
        if (at >= size) at -= size;
      }
      table[at] = i;
      place[i] = at + skip[i] >= size ? at + skip[i] - size : at + skip[i];
      if (++filled === size) break;
    }
  }
  return table;
}

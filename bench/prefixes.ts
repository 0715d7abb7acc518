/** Random routing tables, for tests and benches. */
import type { Random } from '../datapath/random.ts';

/**
 * How many of 1000 prefixes have each length: the shape of the Internet's table (60 % are /24), with 1 % longer than
 * /24 added, which a cluster has and the Internet filters out.
 */
export const LENGTHS_PER_MILLE: readonly (readonly [length: number, share: number])[] = [
  [8, 0.02],
  [9, 0.02],
  [10, 0.05],
  [11, 0.1],
  [12, 0.3],
  [13, 0.6],
  [14, 1.2],
  [15, 2],
  [16, 13],
  [17, 8],
  [18, 14],
  [19, 25],
  [20, 50],
  [21, 55],
  [22, 120],
  [23, 105],
  [24, 595.71],
  [25, 1],
  [26, 1],
  [27, 1],
  [28, 1],
  [29, 1.5],
  [30, 1.5],
  [31, 0.5],
  [32, 2.5],
];

/** Routes in the form that Lpm.replaceAll takes. */
export interface Table {
  prefixes: Int32Array;
  lengths: Uint8Array;
  values: Int32Array;
}

/** The bits of an address that a prefix of this length keeps. */
export function maskOf(length: number): number {
  return length === 0 ? 0 : -1 << (32 - length);
}

/** A length, drawn from LENGTHS_PER_MILLE. */
export function randomLength(random: Random): number {
  let draw = random.below(1e6) / 1e3;
  for (const [length, share] of LENGTHS_PER_MILLE) {
    draw -= share;
    if (draw < 0) return length;
  }
  return 24;
}

/**
 * `count` different prefixes between 1.0.0.0 and 223.255.255.255, spread evenly (the real ones lie closer together,
 * which is easier for every lookup structure), with values from 1 to `nextHops`.
 */
export function internetTable(random: Random, count: number, nextHops: number): Table {
  const table = { prefixes: new Int32Array(count), lengths: new Uint8Array(count), values: new Int32Array(count) };
  const seen = new Set<number>();
  for (let i = 0; i < count; ) {
    const length = randomLength(random);
    const prefix = random.next() & maskOf(length);
    const first = prefix >>> 24;
    if (first < 1 || first > 223) continue;
    const key = (prefix >>> 0) * 64 + length;
    if (seen.has(key)) continue;
    seen.add(key);
    table.prefixes[i] = prefix;
    table.lengths[i] = length;
    table.values[i] = 1 + random.below(nextHops);
    i++;
  }
  return table;
}

/** Lookups, and the addresses that are looked up. */
import { Random } from '../../datapath/random.ts';
import type { Lpm } from '../../datapath/route/lpm.ts';

/** random: hardly two lookups share a cache line. hot: 1024 destinations, as traffic has them. latency: one waits for the other. */
export const KINDS = ['random', 'hot', 'latency'] as const;
export type Kind = (typeof KINDS)[number];

export const ADDRESSES = 1 << 21;
const HOT = 1024;

/** Drawn before the clock starts. */
export function addressesOf(kind: 'random' | 'hot', seed: number): Int32Array {
  const random = new Random(seed ^ 0x5eed);
  if (kind === 'random') return new Int32Array(ADDRESSES).map(() => random.next());
  const destinations = new Int32Array(HOT).map(() => random.next());
  return new Int32Array(ADDRESSES).map(() => destinations[random.below(HOT)]);
}

/** Sum of the results, so that no lookup can be left out. */
export function lookupAll(lpm: Lpm, addresses: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < addresses.length; i++) sum = (sum + lpm.lookup(addresses[i])) | 0;
  return sum;
}

/** The same, one after the other: a value is below 2^24, so the next address waits for it and is not changed by it. */
export function lookupChained(lpm: Lpm, addresses: Int32Array): number {
  let sum = 0;
  let value = 0;
  for (let i = 0; i < addresses.length; i++) {
    value = lpm.lookup(addresses[i] ^ (value >>> 24));
    sum = (sum + value) | 0;
  }
  return sum;
}

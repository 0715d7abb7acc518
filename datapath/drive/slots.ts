/**
 * Packets in flight and held: a burst, its fragments, and what waits for ARP; and for each further node its burst and a share.
 * Untouched slots cost address space only.
 */
const SLOTS = 4096;
const SLOTS_PER_NODE = 256;

/** Slots of a loop with so many nodes. */
export function slotsFor(nodes: number): number {
  return SLOTS + SLOTS_PER_NODE * Math.max(0, nodes - 1);
}

/** Those that exchange packets have a ring from every other one each, and a share of MOST_SLOTS (packet/shared-pool.ts). */
export const MOST_LOOPS = 16;

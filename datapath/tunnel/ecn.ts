/**
 * DSCP and ECN at the two ends of a tunnel, as tables: the hot path does one load instead of the case distinctions of
 * RFC 3168, 6040 and 2983.
 */
import type { EcnVariant, OuterHeader } from '../profile.ts';
import { ECN_CE, ECN_ECT0, ECN_ECT1, ECN_MASK, ECN_NOT_ECT } from '../wire/ipv4.ts';

/** Decapsulation result: the packet must be dropped. */
export const ECN_DROP = 0x80;
/** Decapsulation result: goes on, but somebody on the way has mixed up ECN; to be counted. */
export const ECN_ODD = 0x40;

/**
 * The outer TOS byte for each inner one (256 entries).
 * @param dscp the outer DSCP (6 bits), or the inner one copied
 */
export function outerTosTable(dscp: OuterHeader['dscp'], variant: EcnVariant): Uint8Array {
  const table = new Uint8Array(256);
  for (let tos = 0; tos < 256; tos++) {
    const ecn = tos & ECN_MASK;
    const outerEcn = variant === 'linux' && ecn === ECN_CE ? ECN_ECT0 : ecn;
    table[tos] = (typeof dscp === 'number' ? dscp << 2 : tos & ~ECN_MASK) | outerEcn;
  }
  return table;
}

/**
 * The inner ECN after decapsulation, with ECN_DROP or ECN_ODD, by `inner << 2 | outer` (16 entries): RFC 6040 figure 4.
 *
 *              outer  Not-ECT   ECT(1)    ECT(0)    CE
 *   inner Not-ECT     Not-ECT   Not-ECT!  Not-ECT!  drop
 *         ECT(1)      ECT(1)    ECT(1)    ECT(1)?   CE
 *         ECT(0)      ECT(0)    ECT(1)    ECT(0)    CE
 *         CE          CE        CE?       CE        CE
 *
 * '!' is odd in both variants, '?' in rfc6040 only: Linux reports just the Not-ECT row.
 */
export function innerEcnTable(variant: EcnVariant): Uint8Array {
  const table = new Uint8Array(16);
  for (let inner = 0; inner < 4; inner++) {
    for (let outer = 0; outer < 4; outer++) table[(inner << 2) | outer] = innerEcn(inner, outer, variant);
  }
  return table;
}

function innerEcn(inner: number, outer: number, variant: EcnVariant): number {
  if (inner === ECN_NOT_ECT) {
    if (outer === ECN_CE) return ECN_DROP;
    return outer === ECN_NOT_ECT ? inner : inner | ECN_ODD;
  }
  if (outer === ECN_CE) return ECN_CE;
  const mixed = (inner === ECN_CE && outer === ECN_ECT1) || (inner === ECN_ECT1 && outer === ECN_ECT0);
  if (mixed) return variant === 'rfc6040' ? inner | ECN_ODD : inner;
  if (inner === ECN_ECT0 && outer === ECN_ECT1) return ECN_ECT1;
  return inner;
}

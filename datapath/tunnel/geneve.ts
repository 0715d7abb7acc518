/** The GENEVE header on receipt (RFC 8926 sections 3.4 and 3.5). On transmission it is two template words (udp-encap.ts). */
import {
  CONTINUE,
  DROP_GENEVE_CRITICAL_OPTION,
  DROP_GENEVE_OPTION_LENGTH,
  DROP_GENEVE_VERSION,
  DROP_TUNNEL_CONTROL,
} from '../verdict.ts';
import { TYPE_TEB } from '../wire/ethernet.ts';
import * as geneve from '../wire/geneve.ts';

/** First word of the header that we send: version 0, no options, no flags, an Ethernet frame behind. */
export const GENEVE_WORD = TYPE_TEB;

/**
 * Checks version, flags and options of the GENEVE header at `off`. We know no option: any that is critical refuses the
 * packet, the others are skipped. Reserved bits are ignored, by Linux and the RFC alike.
 *
 * @param end the byte behind the datagram; the fixed header fits, the options may not
 * @param dropCriticalBit refuse by the C bit alone, without looking at the options
 * @returns CONTINUE or a DROP_*
 */
export function checkGeneve(view: DataView, off: number, end: number, dropCriticalBit: boolean): number {
  if (view.getUint8(off + geneve.VERSION_OPT_LEN) >>> 6 !== 0) return DROP_GENEVE_VERSION;
  const flags = view.getUint8(off + geneve.FLAGS);
  if ((flags & geneve.FLAG_CONTROL) !== 0) return DROP_TUNNEL_CONTROL;
  if (dropCriticalBit && (flags & geneve.FLAG_CRITICAL) !== 0) return DROP_GENEVE_CRITICAL_OPTION;

  let at = off + geneve.HEADER_LEN;
  const optionsEnd = at + geneve.optionsLen(view, off);
  if (optionsEnd > end) return DROP_GENEVE_OPTION_LENGTH;
  while (at < optionsEnd) {
    // optionsEnd - at is a multiple of 4: the option's own header fits.
    const next = at + geneve.OPT_HEADER_LEN + ((view.getUint8(at + geneve.OPT_LEN) & 0x1f) << 2);
    if (next > optionsEnd) return DROP_GENEVE_OPTION_LENGTH;
    if ((view.getUint8(at + geneve.OPT_TYPE) & geneve.OPT_TYPE_CRITICAL) !== 0) return DROP_GENEVE_CRITICAL_OPTION;
    at = next;
  }
  return CONTINUE;
}

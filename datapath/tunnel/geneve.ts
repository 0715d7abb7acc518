/** The GENEVE header (RFC 8926 sections 3.4 and 3.5): what is sent, as template words (udp-encap.ts), and checks on receipt. */
import {
  CONTINUE,
  DROP_GENEVE_CRITICAL_OPTION,
  DROP_GENEVE_OPTION_LENGTH,
  DROP_GENEVE_VERSION,
  DROP_TUNNEL_CONTROL,
} from '../verdict.ts';
import { TYPE_TEB } from '../wire/ethernet.ts';
import * as geneve from '../wire/geneve.ts';
import type { GeneveOption } from './spec.ts';

/** Bytes of these options with their headers. */
export function optionsBytes(options: readonly GeneveOption[]): number {
  return options.reduce((sum, { data }) => sum + geneve.OPT_HEADER_LEN + data.length, 0);
}

/** First word of the header that we send: version 0, the options' length, C if one is critical, an Ethernet frame behind. */
export function geneveWord(options: readonly GeneveOption[]): number {
  const isCritical = options.some(({ type }) => (type & geneve.OPT_TYPE_CRITICAL) !== 0);
  const flags = isCritical ? geneve.FLAG_CRITICAL : 0;
  return ((optionsBytes(options) >> 2) << 24) | (flags << 16) | TYPE_TEB;
}

/** The options as they lie in the header, in words. */
export function optionWords(options: readonly GeneveOption[]): Int32Array {
  const view = new DataView(new ArrayBuffer(optionsBytes(options)));
  let at = 0;
  for (const { optionClass, type, data } of options) {
    view.setUint16(at + geneve.OPT_CLASS, optionClass);
    view.setUint8(at + geneve.OPT_TYPE, type);
    view.setUint8(at + geneve.OPT_LEN, data.length >> 2);
    for (const [i, byte] of data.entries()) view.setUint8(at + geneve.OPT_HEADER_LEN + i, byte);
    at += geneve.OPT_HEADER_LEN + data.length;
  }
  return Int32Array.from({ length: at >> 2 }, (_, i) => view.getInt32(4 * i));
}

/** Class and type of each option, as checkGeneve compares them. */
export function optionKeys(options: readonly GeneveOption[]): Int32Array {
  return Int32Array.from(options, ({ optionClass, type }) => (optionClass << 8) | type);
}

/**
 * Checks version, flags and options of the GENEVE header at `off`. An option that we do not know refuses the packet if it
 * is critical and is skipped if not. Reserved bits are ignored, by Linux and the RFC alike.
 *
 * @param end the byte behind the datagram; the fixed header fits, the options may not
 * @param dropCriticalBit refuse by the C bit alone, without looking at the options
 * @param known optionKeys of the options that we know
 * @returns CONTINUE or a DROP_*
 */
export function checkGeneve(
  view: DataView,
  off: number,
  end: number,
  dropCriticalBit: boolean,
  known: Int32Array,
): number {
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
    // Class and type are the first three bytes.
    const key = view.getUint32(at + geneve.OPT_CLASS) >>> 8;
    if ((key & geneve.OPT_TYPE_CRITICAL) !== 0 && !isKnown(key, known)) return DROP_GENEVE_CRITICAL_OPTION;
    at = next;
  }
  return CONTINUE;
}

function isKnown(key: number, known: Int32Array): boolean {
  for (let i = 0; i < known.length; i++) if (known[i] === key) return true;
  return false;
}

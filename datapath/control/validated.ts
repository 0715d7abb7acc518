/** Texts of a configuration that loadConfig has accepted, as numbers. Anything else is a mistake of ours, and throws. */
import type { Mac } from '../wire/ethernet.ts';
import * as text from './address.ts';

function known<T>(value: T | undefined, written: string): T {
  if (value === undefined) throw new TypeError(`not validated: ${written}`);
  return value;
}

export function parseAddress(written: string): number {
  return known(text.parseAddress(written), written);
}

export function parseMac(written: string): Mac {
  return known(text.parseMac(written), written);
}

/** A missing length means 32. */
export function parseCidr(written: string): text.Cidr {
  return known(text.parseCidr(written.includes('/') ? written : `${written}/32`), written);
}

/**
 * Addresses between text and the numbers of the datapath: IPv4 as int32 in host arithmetic (10.0.0.1 is 0x0a000001 | 0),
 * MACs as `Mac`. Parsing is strict, because the loose forms of inet_aton mean different hosts to different programs:
 * "010.1.1.1" (octal or decimal?), "10.1", "0x0a.1.1.1" and surrounding blanks are all refused.
 */
import ipaddr from 'ipaddr.js';
import type { Mac } from '../wire/ethernet.ts';

/** A parsed "ADDRESS/LENGTH": the address as written, and the network it lies in. All int32 but `length` (0..32). */
export interface Cidr {
  address: number;
  prefix: number;
  length: number;
}

/** The text of an int32 address: 0x0a000001 gives "10.0.0.1". */
export function formatAddress(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** The address as int32, or undefined if the text is anything but four decimal numbers with dots. */
export function parseAddress(text: string): number | undefined {
  if (!ipaddr.IPv4.isValidFourPartDecimal(text)) return undefined;
  const [a, b, c, d] = ipaddr.IPv4.parse(text).octets;
  return (a << 24) | (b << 16) | (c << 8) | d;
}

/** Network mask of a prefix length (0..32), as int32. */
export function prefixMask(length: number): number {
  return length === 0 ? 0 : -1 << (32 - length); // JavaScript shifts by the count modulo 32, so 0 needs its own answer
}

/** "ADDRESS/LENGTH" as numbers, or undefined. The prefix length is required, without leading zeros. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/');
  if (slash < 0 || !/^(0|[1-9]\d?)$/.test(text.slice(slash + 1))) return undefined;
  const address = parseAddress(text.slice(0, slash));
  const length = Number(text.slice(slash + 1));
  if (address === undefined || length > 32) return undefined;
  return { address, prefix: address & prefixMask(length), length };
}

/** "ADDRESS/LENGTH" from int32 and length. */
export function formatCidr(address: number, length: number): string {
  return `${formatAddress(address)}/${length}`;
}

/** True if `address` lies in the network of `cidr`. */
export function contains(cidr: Cidr, address: number): boolean {
  return (address & prefixMask(cidr.length)) === cidr.prefix;
}

/** Whether a dotted address lies in what `text` names, an address or a network; undefined where it names neither. */
export function networkTest(text: string): ((address: string) => boolean) | undefined {
  const cidr = parseCidr(text.includes('/') ? text : `${text}/32`);
  if (cidr === undefined) return undefined;
  const network = { ...cidr, address: cidr.prefix };
  return address => {
    const own = parseAddress(address);
    return own !== undefined && contains(network, own);
  };
}

/** Six hex pairs with colons, lower case. */
export function formatMac(hi: number, lo: number): string {
  const digits = (hi & 0xffff).toString(16).padStart(4, '0') + (lo >>> 0).toString(16).padStart(8, '0');
  return digits.replace(/(..)(?=.)/g, '$1:');
}

/** The MAC as two numbers, or undefined if the text is anything but six hex pairs with colons. */
export function parseMac(text: string): Mac | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  const digits = text.replaceAll(':', '');
  return { hi: Number.parseInt(digits.slice(0, 4), 16), lo: Number.parseInt(digits.slice(4), 16) | 0 };
}

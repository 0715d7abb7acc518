/**
 * Impairments as they are written: the names and units of `tc netem` and `tc tbf` (tc(8), tc-netem(8)). Each value's parser
 * is its rule: what it cannot read is refused.
 */
import { z } from 'zod';
import {
  DEFAULT_LIMIT,
  DISTRIBUTIONS,
  type GilbertElliott,
  type Impairments,
  UNIMPAIRED,
} from '../segment/impairments.ts';
import { formatAddress, parseAddress } from './address.ts';
import { choice, mtu, record, text } from './schema.ts';

const TIME_UNITS: Record<string, number> = { s: 1000, sec: 1000, ms: 1, msec: 1, us: 1e-3, usec: 1e-3, ns: 1e-6 };
/** In bytes; k is 1024, as in tc. */
const SIZE_UNITS: Record<string, number> = {
  b: 1,
  k: 1024,
  kb: 1024,
  m: 1 << 20,
  mb: 1 << 20,
  g: 1 << 30,
  gb: 1 << 30,
};
/** In bits per second. */
const RATE_UNITS: Record<string, number> = {
  bit: 1,
  kbit: 1e3,
  mbit: 1e6,
  gbit: 1e9,
  tbit: 1e12,
  kibit: 1024,
  mibit: 1024 ** 2,
  gibit: 1024 ** 3,
  bps: 8,
  kbps: 8e3,
  mbps: 8e6,
  gbps: 8e9,
};
const MAX_MS = 600_000;
const MAX_PACKETS = 1_000_000;
const MAX_RATE = 1e13;
const MAX_SIZE = 2 ** 40;
/** Looked through for each packet. EC2 gives a NIC at most 50. */
const MAX_ADDRESSES = 64;

/** A number with one of these units, or undefined. */
function quantity(value: string, units: Record<string, number>): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([a-z]+)$/i.exec(value);
  const unit = match === null ? undefined : units[match[2].toLowerCase()];
  return match === null || unit === undefined ? undefined : Number(match[1]) * unit;
}

/** Milliseconds of "5ms". */
export function parseTime(value: string): number | undefined {
  const ms = value === '0' ? 0 : quantity(value, TIME_UNITS);
  return ms === undefined || ms > MAX_MS ? undefined : ms;
}

/** Bits per second of "10mbit". */
export function parseRate(value: string): number | undefined {
  const rate = value === '0' ? 0 : quantity(value, RATE_UNITS);
  return rate === undefined || (rate > 0 && rate < 1) || rate > MAX_RATE ? undefined : rate;
}

/** Bytes of "30kb". */
export function parseSize(value: string): number | undefined {
  const bytes = quantity(value, SIZE_UNITS);
  return bytes === undefined || bytes > MAX_SIZE ? undefined : bytes;
}

/** 0.001 of "0.1%". */
export function parsePercent(value: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)%$/.exec(value);
  const part = value === '0' ? 0 : match === null ? undefined : Number(match[1]) / 100;
  return part === undefined || part > 1 ? undefined : part;
}

/** "0.1%", or "gemodel P [R [1-H [1-K]]]" with netem's defaults: r is 1-p, 1-h 100 %, 1-k 0. */
export function parseLoss(value: string): number | GilbertElliott | undefined {
  const [word, ...rest] = value.trim().split(/\s+/);
  if (word !== 'gemodel') return parsePercent(value);
  const [p, r, badLoss = 1, goodLoss = 0, ...more] = rest.map(parsePercent);
  if (p === undefined || more.length > 0 || rest.map(parsePercent).includes(undefined)) return undefined;
  return { p, r: r ?? 1 - p, badLoss, goodLoss };
}

/** Packets of "100" or 100, bytes of "30kb". */
export function parseLimit(value: string): Impairments['limit'] | undefined {
  if (/^\d+$/.test(value)) {
    const packets = Number(value);
    return packets >= 1 && packets <= MAX_PACKETS ? { packets } : undefined;
  }
  const bytes = parseSize(value);
  return bytes === undefined || bytes < 1 ? undefined : { bytes };
}

/** Addresses of "192.168.10.1,192.168.10.2"; none of "off". */
export function parseAddresses(value: string): number[] | undefined {
  if (value === 'off') return [];
  const addresses = value.split(',').map(text => parseAddress(text.trim()));
  return addresses.includes(undefined) || addresses.length > MAX_ADDRESSES ? undefined : (addresses as number[]);
}

function parsed<T>(parse: (value: string) => T | undefined, expected: string) {
  // A plain 0 is a number to YAML.
  return z
    .preprocess(
      value => (typeof value === 'number' ? String(value) : value),
      text(value => (parse(value) === undefined ? expected : undefined)),
    )
    .transform(value => parse(value) as T);
}

const time = parsed(parseTime, 'a time up to 10 minutes with its unit, such as 5ms, 200us or 1s');
const percent = parsed(parsePercent, 'a share such as 0.1%');
const size = parsed(parseSize, 'a size with its unit, such as 1600b, 30kb or 1mb');

const fields = {
  delay: time.optional(),
  jitter: time.optional(),
  distribution: choice(...DISTRIBUTIONS).optional(),
  loss: parsed(parseLoss, 'a share such as 0.1%, or "gemodel P [R [1-H [1-K]]]" with shares').optional(),
  duplicate: percent.optional(),
  reorder: percent.optional(),
  corrupt: percent.optional(),
  rate: parsed(parseRate, 'a rate with its unit, such as 10mbit or 1gbit').optional(),
  burst: size.optional(),
  limit: parsed(parseLimit, `packets from 1 to ${MAX_PACKETS}, or with a rate bytes, such as 30kb`).optional(),
  ceThreshold: size.optional(),
  mtu: mtu.optional(),
  icmp: choice('passed', 'filtered').optional(),
  sourceDestCheck: parsed(
    parseAddresses,
    `up to ${MAX_ADDRESSES} addresses such as 192.168.10.1,192.168.10.2, or off`,
  ).optional(),
};

/** Names of all fields: options of `tunpath segment set`, too. */
export const IMPAIRMENT_FIELDS = Object.keys(fields) as (keyof typeof fields)[];

/** What must be there for a field to have an effect. */
const NEEDS: Partial<Record<keyof typeof fields, 'delay' | 'jitter' | 'rate'>> = {
  jitter: 'delay',
  distribution: 'jitter',
  reorder: 'delay',
  burst: 'rate',
  ceThreshold: 'rate',
};

const given = record(fields);
export type GivenImpairments = z.output<typeof given>;

/** What does not go together, by field. */
function misfits(value: GivenImpairments): { field: keyof typeof fields; expected: string }[] {
  const found: { field: keyof typeof fields; expected: string }[] = [];
  for (const [field, needed] of Object.entries(NEEDS) as [keyof typeof fields, 'delay' | 'jitter' | 'rate'][]) {
    const isIdle = value[field] === undefined || value[field] === 0;
    if (!isIdle && (value[needed] ?? 0) === 0) found.push({ field, expected: `a ${needed} beside it` });
  }
  if (value.limit !== undefined && 'bytes' in value.limit && (value.rate ?? 0) === 0) {
    found.push({ field: 'limit', expected: 'packets, or a rate beside it' });
  }
  return found;
}

export const impairments = given
  .superRefine((value, context) => {
    for (const { field, expected } of misfits(value)) {
      context.addIssue({ code: 'custom', path: [field], message: expected });
    }
  })
  .transform((value): Impairments => ({ ...UNIMPAIRED, ...value }));

/**
 * Impairments by their fields, each as it is written ("20ms").
 * @throws Error that says of each value what was expected instead
 */
export function readImpairments(written: Record<string, unknown>): GivenImpairments {
  const result = given.safeParse(written);
  if (!result.success) {
    throw new Error(
      result.error.issues
        .map(({ path, message, ...issue }) => {
          const field = issue.code === 'unrecognized_keys' ? 'fields' : String(path[0]);
          const got = issue.code === 'unrecognized_keys' ? issue.keys.join(', ') : JSON.stringify(written[field]);
          return `${field}: got ${got}, expected ${message}`;
        })
        .join('; '),
    );
  }
  return result.data;
}

/** Impairments with some of them set anew; the others stay. @throws Error as readImpairments, and for what does not go together */
export function changeImpairments(from: Impairments, written: Record<string, unknown>): Impairments {
  const given = readImpairments(written);
  const to = { ...from, ...given };
  const faults = misfits({ ...to, distribution: given.distribution });
  if (faults.length > 0) {
    throw new Error(faults.map(({ field, expected }) => `${field}: expected ${expected}`).join('; '));
  }
  return to;
}

/** Impairments as a file has them, without those that do nothing. */
export function writtenImpairments(i: Impairments): Record<string, string | number> {
  const written: Record<string, string | number> = {};
  if (i.delay > 0) written.delay = formatTime(i.delay);
  if (i.jitter > 0) {
    written.jitter = formatTime(i.jitter);
    written.distribution = i.distribution;
  }
  if (typeof i.loss === 'object') {
    const shares = [i.loss.p, i.loss.r, i.loss.badLoss, i.loss.goodLoss].map(formatPercent);
    written.loss = `gemodel ${shares.join(' ')}`;
  } else if (i.loss > 0) written.loss = formatPercent(i.loss);
  for (const name of ['duplicate', 'reorder', 'corrupt'] as const)
    if (i[name] > 0) written[name] = formatPercent(i[name]);
  if (i.rate > 0) written.rate = formatRate(i.rate);
  if (i.burst > 0) written.burst = `${i.burst}b`;
  if ('bytes' in i.limit) written.limit = `${i.limit.bytes}b`;
  else if (i.limit.packets !== DEFAULT_LIMIT) written.limit = String(i.limit.packets);
  if (i.ceThreshold > 0) written.ceThreshold = `${i.ceThreshold}b`;
  if (i.mtu > 0) written.mtu = i.mtu;
  if (i.icmp === 'filtered') written.icmp = 'filtered';
  if (i.sourceDestCheck.length > 0) written.sourceDestCheck = i.sourceDestCheck.map(formatAddress).join(',');
  return written;
}

/** Impairments in a line, in the words of netem; '' where there are none: "delay 20ms loss 0.1%". */
export function formatImpairments(i: Impairments): string {
  return Object.entries(writtenImpairments(i))
    .map(([name, value]) => (name === 'distribution' ? value : `${name} ${value}`))
    .join(' ');
}

function formatTime(ms: number): string {
  if (ms >= 1000 && ms % 1000 === 0) return `${ms / 1000}s`;
  return ms < 1 ? `${round(ms * 1000)}us` : `${round(ms)}ms`;
}

function formatPercent(part: number): string {
  return `${round(100 * part)}%`;
}

function formatRate(rate: number): string {
  const [name, unit] = (['gbit', 'mbit', 'kbit'] as const)
    .map(name => [name, RATE_UNITS[name]] as const)
    .find(([, unit]) => rate >= unit) ?? ['bit', 1];
  return `${round(rate / unit)}${name}`;
}

/** Without the digits that binary fractions leave behind. */
function round(value: number): number {
  return Number(value.toPrecision(9));
}

/**
 * The values that configurations are made of: texts with rules, numbers, choices, lists and maps, as zod schemas.
 *
 * Every schema carries as its error message what was expected there ("a whole number from 1 to 65535"), never what was
 * found: load-config.ts knows that, and joins the two.
 */
import { z } from 'zod';
import { MIN_MTU } from '../mtu/path-mtu.ts';
import { isGroup } from '../wire/ethernet.ts';
import { formatCidr, parseAddress, parseCidr, parseMac, prefixMask } from './address.ts';
import { suggest } from './nearest.ts';

const MAX_MTU = 65535;

// ---- texts ----------------------------------------------------------------------------------------------------------

/**
 * A text with a rule. `fault` says what was expected instead of the value, or undefined if the value is right; it must
 * find fault with ''.
 */
export function text(fault: (value: string) => string | undefined) {
  return z.custom<string>(value => typeof value === 'string' && fault(value) === undefined, {
    abort: false, // so that the checks across values still run
    error: issue => fault(typeof issue.input === 'string' ? issue.input : ''),
  });
}

/** Why an address cannot belong to one host, or undefined if it can. 240.0.0.0/4 may: Linux takes it as unicast. */
function hostAddressFault(address: number): string | undefined {
  const first = address >>> 24;
  if (first === 0) return 'a host address, not one of 0.0.0.0/8';
  if (first === 127) return 'a host address, not a loopback address';
  if (first >= 224 && first < 240) return 'a host address, not a multicast address';
  if (address === -1) return 'a host address, not the broadcast address';
  return undefined;
}

function addressFault(value: string): string | undefined {
  const address = parseAddress(value);
  return address === undefined ? 'an IPv4 address such as 10.244.1.10' : hostAddressFault(address);
}

function networkFault(value: string): string | undefined {
  const alone = parseAddress(value);
  if (alone !== undefined) return `a network with its prefix length (did you mean "${formatCidr(alone, 32)}"?)`;
  const cidr = parseCidr(value);
  if (cidr === undefined) return 'a network such as 10.244.0.0/16';
  if (cidr.address === cidr.prefix) return undefined;
  return `a network without host bits (did you mean "${formatCidr(cidr.prefix, cidr.length)}"?)`;
}

/** The rule for an interface's address: ADDRESS/LENGTH, the address not the network's own nor its broadcast. */
function interfaceFault(value: string): string | undefined {
  const cidr = parseCidr(value);
  if (cidr === undefined) return 'an address with its prefix length, such as 192.168.10.1/24';
  const { address, prefix, length } = cidr;
  const fault = hostAddressFault(address);
  if (fault !== undefined) return fault;
  if (length === 0) return 'a prefix length from 1 to 32';
  if (length > 30) return undefined; // RFC 3021: a /31 has no network and no broadcast address
  if (address === prefix) return `a host address, not the address of the network ${formatCidr(prefix, length)}`;
  if (address === (prefix | ~prefixMask(length))) {
    return `a host address, not the broadcast address of ${formatCidr(prefix, length)}`;
  }
  return undefined;
}

function macFault(value: string): string | undefined {
  const mac = parseMac(value);
  if (mac === undefined) return 'a MAC address such as 02:00:00:00:00:01';
  if (isGroup(mac.hi)) return 'the MAC address of one station, not a group address';
  if (mac.hi === 0 && mac.lo === 0) return 'a MAC address other than zero';
  return undefined;
}

export const DEVICE_EXPECTED =
  'a device name: 1 to 15 bytes without blank, slash, colon or percent, and not lo, all or default';
export const NETNS_EXPECTED =
  'the name of a network namespace, as "ip netns" lists it, or a path such as /proc/PID/ns/net';

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** Linux: dev_valid_name (net/core/dev.c). "%" would make it a pattern, "all" and "default" are names in sysctl. */
function deviceFault(value: string): string | undefined {
  const wellFormed = value !== '' && bytesOf(value) <= 15 && !/[/:%\s]/.test(value);
  if (wellFormed && !['.', '..', 'lo', 'all', 'default'].includes(value)) return undefined;
  return DEVICE_EXPECTED;
}

/** A name, or the path of a file that stands for a namespace, as container runtimes give it. */
function netnsFault(value: string): string | undefined {
  const isPath = value.startsWith('/') && bytesOf(value) <= 4095 && !/[\s\0]/.test(value);
  const isName = value.length > 0 && bytesOf(value) <= 255 && !/[/\s\0]/.test(value);
  if (isPath || (isName && value !== '.' && value !== '..')) return undefined;
  return NETNS_EXPECTED;
}

/** IANA_SVC_NAME of the Kubernetes API, from RFC 6335 section 5.1. */
export function portNameFault(value: string): string | undefined {
  const wellFormed = /^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/.test(value) && /[a-z]/.test(value) && !value.includes('--');
  return wellFormed ? undefined : 'the name of a port: 1 to 15 lower case letters, digits and inner hyphens';
}

const LABEL = '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?';
const LABEL_PATTERN = new RegExp(`^${LABEL}$`);
const OBJECT_PATTERN = new RegExp(`^(${LABEL}/)?${LABEL}(\\.${LABEL})*$`);

export function labelFault(value: string): string | undefined {
  if (LABEL_PATTERN.test(value)) return undefined;
  return 'a DNS label: 1 to 63 lower case letters, digits and inner hyphens';
}

function objectNameFault(value: string): string | undefined {
  if (value.length <= 253 && OBJECT_PATTERN.test(value)) return undefined;
  return 'a name such as default/web: lower case letters, digits, hyphens and dots';
}

export const filled = (expected: string) => text(value => (value === '' ? expected : undefined));

export const address = text(addressFault);
export const network = text(networkFault);
export const interfaceAddress = text(interfaceFault);
export const mac = text(macFault).transform(value => value.toLowerCase());
export const device = text(deviceFault);
/** In one spelling for what is one namespace: the directory of `ip netns` is left out. */
export const netns = text(netnsFault).transform(value => value.replace(/^\/(var\/)?run\/netns\/([^/]+)$/, '$2'));
export const objectName = text(objectNameFault);

/** A pod has one address; "/32" behind it is allowed and dropped. */
export const podAddress = text(value => {
  const cidr = parseCidr(value);
  if (cidr !== undefined && cidr.length < 32) return 'an address without a prefix length, or with /32';
  return addressFault(value.replace(/\/32$/, ''));
}).transform(value => value.replace('/32', ''));

/** The host port's address; a missing prefix length means /32. */
export const hostAddress = text(value => interfaceFault(value.includes('/') ? value : `${value}/32`)).transform(
  value => (value.includes('/') ? value : `${value}/32`),
);

// ---- numbers, choices, lists, maps ----------------------------------------------------------------------------------

export function whole(min: number, max: number) {
  const expected = `a whole number from ${min} to ${max}`;
  return z.int(expected).min(min, expected).max(max, expected);
}

export function choice<const T extends readonly [string, ...string[]]>(...values: T) {
  const expected = values.length === 1 ? values[0] : `one of ${values.join(', ')}`;
  return z.enum(values, { error: issue => expected + suggest(issue.input, values) });
}

export const flag = z.boolean('true or false');

export function list<T extends z.ZodType>(item: T) {
  return z.array(item, 'a list');
}

/** One network or a list of them; the result is always a list. */
export const networks = z.preprocess(
  value => (typeof value === 'string' ? [value] : value),
  z.array(network, 'a network or a list of networks').min(1, 'at least one network'),
);

/**
 * A map with known fields. Its message for unknown fields is the list of the known ones (load-config.ts splits it).
 * `without` names fields that exist elsewhere but mean nothing here, each with what to say about it.
 */
export function record<T extends z.ZodRawShape, W extends string = never>(
  shape: T,
  without: Record<W, string> = {} as never,
) {
  const known = Object.keys(shape).join(', ');
  const refused = {} as Record<W, z.ZodOptional<z.ZodUndefined>>;
  for (const name in without) refused[name] = z.undefined(without[name]).optional();
  return z.strictObject(
    { ...refused, ...shape },
    { error: issue => (issue.code === 'unrecognized_keys' ? known : 'a map') },
  );
}

export const mtu = whole(MIN_MTU, MAX_MTU);
export const port = whole(1, 65535);

function parsePorts(value: string): { low: number; high: number } | undefined {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(value);
  if (match === null) return undefined;
  const low = Number(match[1]);
  const high = Number(match[2]);
  return low >= 1 && low <= high && high <= 65535 ? { low, high } : undefined;
}

export const ports = text(value =>
  parsePorts(value) ? undefined : 'a range LOW-HIGH of ports, such as 32768-60999',
).transform(value => parsePorts(value)!);

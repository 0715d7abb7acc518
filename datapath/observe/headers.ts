/** The headers of a packet in words, and what differs between two moments of it: for people, never for the loop. */
import { dotted, hexText } from '../packet/build.ts';
import { PROFILES } from '../profile.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as geneve from '../wire/geneve.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as vxlan from '../wire/vxlan.ts';
import { tcpFlagNames } from './flow.ts';

/** One header, outermost first. */
export interface Header {
  /** ethernet, ipv4, tcp, udp, icmp, sctp, vxlan, geneve; "protocol N" */
  name: string;
  text: string;
  /** Where it begins, and its bytes. */
  at: number;
  length: number;
}

/** Ports that tunnels are known by, beside those that the caller names. */
const VXLAN_PORTS = Object.values(PROFILES).map(({ vxlanPort }) => vxlanPort);

export interface HeaderOptions {
  /** UDP ports of VXLAN tunnels. */
  vxlanPorts?: readonly number[];
  genevePorts?: readonly number[];
}

/** All headers of the packet, those inside a tunnel too. @param layer 2: it begins with Ethernet */
export function headersOf(bytes: Uint8Array, layer: 2 | 3, options: HeaderOptions = {}): Header[] {
  const headers: Header[] = [];
  if (layer === 2) addEthernet(headers, bytes, 0, options);
  else addIpv4(headers, bytes, 0, options);
  return headers;
}

function addEthernet(headers: Header[], bytes: Uint8Array, at: number, options: HeaderOptions): void {
  if (bytes.length < at + ethernet.HEADER_LEN) return;
  const type = word(bytes, at + ethernet.TYPE);
  const text = `${macText(bytes, at + ethernet.SRC)} > ${macText(bytes, at + ethernet.DST)}`;
  const isIpv4 = type === ethernet.TYPE_IPV4;
  const suffix = isIpv4 ? '' : `, type 0x${type.toString(16).padStart(4, '0')}`;
  headers.push({ name: 'ethernet', text: text + suffix, at, length: ethernet.HEADER_LEN });
  if (isIpv4) addIpv4(headers, bytes, at + ethernet.HEADER_LEN, options);
}

function addIpv4(headers: Header[], bytes: Uint8Array, at: number, options: HeaderOptions): void {
  if (bytes.length < at + ipv4.HEADER_LEN || bytes[at] >> 4 !== 4) return;
  const length = (bytes[at] & 15) * 4;
  const flags = word(bytes, at + ipv4.FLAGS_FRAGMENT);
  const offset = flags & ipv4.OFFSET_MASK;
  const details = [
    `ttl ${bytes[at + ipv4.TTL]}`,
    ...((flags & ipv4.FLAG_DF) === 0 ? [] : ['DF']),
    ...(ipv4.isFragment(flags) ? [`fragment at ${offset * 8}${(flags & ipv4.FLAG_MF) === 0 ? '' : '+'}`] : []),
    ...(bytes[at + ipv4.TOS] === 0 ? [] : [`tos 0x${bytes[at + ipv4.TOS].toString(16)}`]),
    `${word(bytes, at + ipv4.TOTAL_LEN)} bytes`,
  ];
  const text = `${addressAt(bytes, at + ipv4.SRC)} > ${addressAt(bytes, at + ipv4.DST)}, ${details.join(', ')}`;
  headers.push({ name: 'ipv4', text, at, length });
  if (offset === 0) addTransport(headers, bytes, at + length, bytes[at + ipv4.PROTOCOL], options);
}

function addTransport(headers: Header[], bytes: Uint8Array, at: number, protocol: number, options: HeaderOptions) {
  if (protocol === ipv4.PROTO_IPIP) {
    addIpv4(headers, bytes, at, options);
    return;
  }
  if (bytes.length < at + 8) return;
  const ports = `${word(bytes, at)} > ${word(bytes, at + 2)}`;
  if (protocol === ipv4.PROTO_TCP && bytes.length >= at + tcp.HEADER_LEN) {
    const length = (bytes[at + tcp.DATA_OFFSET] >> 4) * 4;
    const names = tcpFlagNames(bytes[at + tcp.FLAGS]).join(', ');
    headers.push({ name: 'tcp', text: `${ports}, ${names === '' ? 'no flags' : names}`, at, length });
  } else if (protocol === ipv4.PROTO_UDP) {
    headers.push({ name: 'udp', text: ports, at, length: udp.HEADER_LEN });
    addTunnel(headers, bytes, at + udp.HEADER_LEN, word(bytes, at + 2), options);
  } else if (protocol === ipv4.PROTO_ICMP) {
    const [type, code] = [bytes[at], bytes[at + 1]];
    const about = type === 3 && code === 4 ? `, MTU ${word(bytes, at + 6)}` : '';
    headers.push({ name: 'icmp', text: `type ${type} code ${code}${about}`, at, length: 8 });
  } else if (protocol === ipv4.PROTO_SCTP) {
    headers.push({ name: 'sctp', text: ports, at, length: 12 });
  } else headers.push({ name: `protocol ${protocol}`, text: '', at, length: 0 });
}

function addTunnel(headers: Header[], bytes: Uint8Array, at: number, port: number, options: HeaderOptions): void {
  if (bytes.length < at + vxlan.HEADER_LEN) return;
  const vni = (word(bytes, at + 4) << 8) | bytes[at + 6];
  if ([...VXLAN_PORTS, ...(options.vxlanPorts ?? [])].includes(port)) {
    headers.push({ name: 'vxlan', text: `VNI ${vni}`, at, length: vxlan.HEADER_LEN });
    addEthernet(headers, bytes, at + vxlan.HEADER_LEN, options);
  } else if ([geneve.PORT, ...(options.genevePorts ?? [])].includes(port)) {
    const optionBytes = (bytes[at] & 63) * 4;
    const text = `VNI ${vni}${optionBytes === 0 ? '' : `, ${optionBytes} bytes of options`}`;
    headers.push({ name: 'geneve', text, at, length: geneve.HEADER_LEN + optionBytes });
    addEthernet(headers, bytes, at + geneve.HEADER_LEN + optionBytes, options);
  }
}

/** One thing that has changed in a packet. */
export interface Change {
  /** A field (`ttl`), or what was put in front or taken off: the names of headers. */
  what: string;
  before: string;
  after: string;
  /** First byte that differs, from the start of the packet; the bytes there before and after, in hex. */
  at: number;
  beforeHex: string;
  afterHex: string;
}

/** A field of a header. `text` of its bytes. */
interface Field {
  name: string;
  at: number;
  length: number;
  text: (bytes: Uint8Array, at: number) => string;
}

const number: Field['text'] = (bytes, at) => String(word(bytes, at));
const octet: Field['text'] = (bytes, at) => String(bytes[at]);
const hexWord: Field['text'] = (bytes, at) => `0x${word(bytes, at).toString(16).padStart(4, '0')}`;

const FIELDS: Readonly<Record<string, readonly Field[]>> = {
  ethernet: [
    { name: 'destination MAC', at: ethernet.DST, length: 6, text: macText },
    { name: 'source MAC', at: ethernet.SRC, length: 6, text: macText },
  ],
  ipv4: [
    { name: 'tos', at: ipv4.TOS, length: 1, text: octet },
    { name: 'total length', at: ipv4.TOTAL_LEN, length: 2, text: number },
    { name: 'id', at: ipv4.ID, length: 2, text: number },
    { name: 'flags and offset', at: ipv4.FLAGS_FRAGMENT, length: 2, text: hexWord },
    { name: 'ttl', at: ipv4.TTL, length: 1, text: octet },
    { name: 'header checksum', at: ipv4.CHECKSUM, length: 2, text: hexWord },
    { name: 'source', at: ipv4.SRC, length: 4, text: addressAt },
    { name: 'destination', at: ipv4.DST, length: 4, text: addressAt },
  ],
  tcp: [
    { name: 'source port', at: tcp.SRC_PORT, length: 2, text: number },
    { name: 'destination port', at: tcp.DST_PORT, length: 2, text: number },
    { name: 'checksum', at: tcp.CHECKSUM, length: 2, text: hexWord },
  ],
  udp: [
    { name: 'source port', at: udp.SRC_PORT, length: 2, text: number },
    { name: 'destination port', at: udp.DST_PORT, length: 2, text: number },
    { name: 'checksum', at: udp.CHECKSUM, length: 2, text: hexWord },
  ],
  icmp: [
    { name: 'checksum', at: 2, length: 2, text: hexWord },
    { name: 'id', at: 4, length: 2, text: number },
  ],
};

/** What a packet was at a moment: its bytes, and whether they begin with Ethernet. */
export interface Moment {
  bytes: Uint8Array;
  layer: 2 | 3;
}

/**
 * What has changed from one moment of a packet to the next: headers in front of it that came or went, and fields of those
 * that stayed. Bytes of no known field are named by where they are.
 */
export function changesBetween(before: Moment, after: Moment, options: HeaderOptions = {}): Change[] {
  const grown = after.bytes.length - before.bytes.length;
  const changes: Change[] = [];
  if (grown !== 0) {
    const [longer, by] = grown > 0 ? [after, grown] : [before, -grown];
    const names = headersOf(longer.bytes, longer.layer, options)
      .filter(({ at }) => at < by)
      .map(({ name, text }) => `${name} (${text})`)
      .join(', ');
    const hex = hexOf(longer.bytes, 0, by);
    changes.push(
      grown > 0
        ? { what: 'put in front', before: '', after: names, at: 0, beforeHex: '', afterHex: hex }
        : { what: 'taken off', before: names, after: '', at: 0, beforeHex: hex, afterHex: '' },
    );
  }
  // What stayed lies at the end of both.
  const from = Math.max(0, grown);
  const back = Math.max(0, -grown);
  const stayed = after.bytes.subarray(from);
  const was = before.bytes.subarray(back);
  return [...changes, ...fieldChanges(was, stayed, from, grown > 0 ? before : after, options)];
}

/** @param shorter the one that has nothing in front, by which the fields are found */
function fieldChanges(was: Uint8Array, is: Uint8Array, from: number, shorter: Moment, options: HeaderOptions) {
  const changes: Change[] = [];
  const known = new Uint8Array(is.length);
  for (const { name, at: header } of headersOf(shorter.bytes, shorter.layer, options)) {
    for (const field of FIELDS[name] ?? []) {
      const at = header + field.at;
      known.fill(1, at, at + field.length);
      const [beforeHex, afterHex] = [hexOf(was, at, field.length), hexOf(is, at, field.length)];
      if (beforeHex === afterHex) continue;
      changes.push({
        what: field.name,
        before: field.text(was, at),
        after: field.text(is, at),
        at: from + at,
        beforeHex,
        afterHex,
      });
    }
  }
  for (let at = 0; at < is.length; at++) {
    if (known[at] === 1 || was[at] === is[at]) continue;
    let end = at + 1;
    while (end < is.length && known[end] === 0 && was[end] !== is[end]) end++;
    const [beforeHex, afterHex] = [hexOf(was, at, end - at), hexOf(is, at, end - at)];
    const what = end - at === 1 ? `byte ${from + at}` : `bytes ${from + at}-${from + end - 1}`;
    changes.push({ what, before: beforeHex, after: afterHex, at: from + at, beforeHex, afterHex });
    at = end;
  }
  return changes;
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

function addressAt(bytes: Uint8Array, at: number): string {
  return dotted((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]);
}

function macText(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.subarray(at, at + 6), byte => byte.toString(16).padStart(2, '0')).join(':');
}

function hexOf(bytes: Uint8Array, at: number, length: number): string {
  return hexText(bytes.subarray(at, at + length));
}

/** Captured frames as tshark decodes them, in the words that the checks use. */

import { type CaptureSummary, decodeCapture } from '../capture.ts';
import { LabError } from '../lab-error.ts';

/** One IPv4 header of a frame. */
export interface Ipv4Header {
  src: string;
  dst: string;
  protocol: number;
  ttl: number;
  df: number;
  tos: number;
  id: number;
  /** Of the whole packet, in bytes. */
  length: number;
}

export interface Frame {
  /** Bytes on the wire; in a capture on `any` with the 20 bytes of the cooked header. */
  length: number;
  /** Index of the interface and whether the packet left through it; only in a capture on `any`. */
  ifindex: number;
  sent: boolean;
  /** Ethernet addresses, outermost first; a cooked frame has only those inside a tunnel. */
  ethernet: { src: string; dst: string }[];
  /** Outermost first. An ICMP error also lists the header it quotes. */
  ip: Ipv4Header[];
  /** Outermost first. */
  udp: { src: number; dst: number; checksum: string }[];
  /** VXLAN or GENEVE header, in hex. */
  tunnelHeader: string;
  vni: number | null;
  /** Flag byte of VXLAN, as `0x08`. */
  vxlanFlags: string;
  /** GENEVE protocol type, as `0x6558`. */
  genevePayload: string;
  tcp: { src: number; dst: number; flags: number; mss: number | null; payload: number } | null;
  icmpType: number | null;
  icmpId: string;
  /** Protocols in it whose checksum tshark finds wrong or cannot judge, with the values: `tcp 0x1d0f`. */
  badChecksums: string[];
}

const CHECKSUMS = ['ip', 'udp', 'tcp', 'icmp'] as const;

const FIELDS = [
  'frame.len',
  'sll.ifindex',
  'sll.pkttype',
  'eth.src',
  'eth.dst',
  'ip.src',
  'ip.dst',
  'ip.proto',
  'ip.ttl',
  'ip.flags.df',
  'ip.dsfield',
  'ip.id',
  'ip.len',
  'udp.srcport',
  'udp.dstport',
  'udp.payload',
  'vxlan.vni',
  'vxlan.flags',
  'geneve.vni',
  'geneve.proto_type',
  'tcp.srcport',
  'tcp.dstport',
  'tcp.flags',
  'tcp.options.mss_val',
  'tcp.len',
  'icmp.type',
  'icmp.ident',
  ...CHECKSUMS.map(protocol => `${protocol}.checksum` as const),
  ...CHECKSUMS.map(protocol => `${protocol}.checksum.status` as const),
] as const;

/** Values of tshark's checksum status that are in order: right, and a UDP checksum that is not there. */
const CHECKSUMS_IN_ORDER = ['1', '3'];
/** LINUX_SLL_OUTGOING */
const PKTTYPE_SENT = '4';
const TUNNEL_HEADER_HEX = 16;

/**
 * Decodes a capture; frames without IPv4 are left out.
 * @param decodeAs  tshark -d rules, after those that decodeCapture knows
 */
export async function readFrames(
  file: CaptureSummary,
  displayFilter = 'ip',
  decodeAs: readonly string[] = [],
): Promise<Frame[]> {
  // tshark would need half a second to say the same.
  if (file.packets === 0) return [];
  const rows = await decodeCapture(file.path, FIELDS, displayFilter, decodeAs);
  return rows.map(row => frameOf(name => row[FIELDS.indexOf(name)] ?? []));
}

function frameOf(field: (name: (typeof FIELDS)[number]) => string[]): Frame {
  const first = (name: (typeof FIELDS)[number]): string | undefined => field(name)[0];
  const number = (text: string | undefined): number => (text === undefined ? Number.NaN : Number(text));
  const vxlanFlags = first('vxlan.flags');
  const vni = first('vxlan.vni') ?? first('geneve.vni');
  const mss = first('tcp.options.mss_val');
  return {
    length: number(first('frame.len')),
    ifindex: number(first('sll.ifindex') ?? '0'),
    sent: first('sll.pkttype') === PKTTYPE_SENT,
    ethernet: field('eth.src').map((src, i) => ({ src, dst: field('eth.dst')[i]! })),
    ip: field('ip.src').map((src, i) => ({
      src,
      dst: field('ip.dst')[i]!,
      protocol: number(field('ip.proto')[i]),
      ttl: number(field('ip.ttl')[i]),
      df: number(field('ip.flags.df')[i]),
      tos: number(field('ip.dsfield')[i]),
      id: number(field('ip.id')[i]),
      length: number(field('ip.len')[i]),
    })),
    udp: field('udp.srcport').map((src, i) => ({
      src: number(src),
      dst: number(field('udp.dstport')[i]),
      checksum: field('udp.checksum')[i]!,
    })),
    tunnelHeader: vni === undefined ? '' : (first('udp.payload') ?? '').slice(0, TUNNEL_HEADER_HEX),
    vni: vni === undefined ? null : Number(vni),
    vxlanFlags: vxlanFlags === undefined ? '' : vxlanFlags.slice(0, 4),
    genevePayload: first('geneve.proto_type') ?? '',
    tcp:
      first('tcp.flags') === undefined
        ? null
        : {
            src: number(first('tcp.srcport')),
            dst: number(first('tcp.dstport')),
            flags: number(first('tcp.flags')),
            mss: mss === undefined ? null : Number(mss),
            payload: number(first('tcp.len')),
          },
    icmpType: first('icmp.type') === undefined ? null : Number(first('icmp.type')),
    icmpId: first('icmp.ident') ?? '',
    badChecksums: CHECKSUMS.filter(protocol =>
      field(`${protocol}.checksum.status`).some(status => !CHECKSUMS_IN_ORDER.includes(status)),
    ).map(protocol => `${protocol} ${field(`${protocol}.checksum`).join(', ')}`),
  };
}

/** @throws LabError for a frame that has no IPv4 header. */
export function outerOf(frame: Frame): Ipv4Header {
  if (frame.ip.length === 0) throw new LabError('a captured frame has no IPv4 header');
  return frame.ip[0]!;
}

/** The innermost header: that of the pods' packet, in a tunnel or not. */
export function innerOf(frame: Frame): Ipv4Header {
  outerOf(frame);
  return frame.ip.at(-1)!;
}

/** Different values of something, smallest first. */
export function distinct<T>(items: readonly T[], of: (item: T) => string | number): string[] {
  return [...new Set(items.map(of))].sort(numerically).map(String);
}

function numerically(a: string | number, b: string | number): number {
  return typeof a === 'number' && typeof b === 'number' ? a - b : String(a) < String(b) ? -1 : 1;
}

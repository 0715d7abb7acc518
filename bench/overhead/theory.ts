/** What a tunnel should cost, from the lengths of headers alone. */

export const MODES = ['native', 'ipip', 'vxlan', 'geneve'] as const;
export type Mode = (typeof MODES)[number];

/** Bytes in front of the inner IPv4 header: outer IPv4; outer IPv4, UDP, VXLAN or GENEVE without options, Ethernet. */
export const HEADER_BYTES: Record<Mode, number> = {
  native: 0,
  ipip: 20,
  vxlan: 20 + 8 + 8 + 14,
  geneve: 20 + 8 + 8 + 14,
};

/** Of the underlay: the smallest that IPv6 allows, clouds, Ethernet, jumbo frames. */
export const UNDERLAY_MTUS = [1280, 1400, 1500, 9000];

/** On a wire: destination, source and type, frame check sequence, preamble and start, gap (IEEE 802.3). */
export const ETHERNET_HEADER = 14;
export const ETHERNET_REST = 4 + 8 + 12;
const IP_HEADER = 20;
const UDP_HEADER = 8;
/** With timestamps, as Linux sends them. */
export const TCP_HEADERS = IP_HEADER + 20 + 12;
/** The longest superpacket: what a length field of 16 bits can say. */
export const MAX_IP_LEN = 65_535;

export interface Theory {
  headerBytes: number;
  /** What a pod may send in one packet. */
  mtuInside: number;
  /** Of the bytes on an Ethernet wire, the share that TCP delivers: full segments, timestamps. */
  goodputShare: number;
  /** Segments of a superpacket of 64 KiB. */
  segments: number;
  /** Packets on the wire for one of the underlay's full MTU, without DF, from a pod that does not know of the tunnel. */
  fragments: number;
  /** What UDP delivers of the wire's bytes when every packet is cut so. */
  fragmentedShare: number;
}

export function theoryOf(mode: Mode, underlayMtu: number): Theory {
  const headerBytes = HEADER_BYTES[mode];
  const mtuInside = underlayMtu - headerBytes;
  const payload = mtuInside - TCP_HEADERS;
  const frame = (inner: number) => inner + headerBytes + ETHERNET_HEADER + ETHERNET_REST;
  // Fragments carry multiples of 8 bytes, but the last (RFC 791).
  const whole = underlayMtu - IP_HEADER;
  const most = mtuInside - IP_HEADER;
  const fragments = whole <= most ? 1 : Math.ceil(whole / (most & ~7));
  const wire = whole + fragments * frame(IP_HEADER);
  return {
    headerBytes,
    mtuInside,
    goodputShare: payload / frame(mtuInside),
    segments: Math.ceil((MAX_IP_LEN - TCP_HEADERS) / payload),
    fragments,
    fragmentedShare: (whole - UDP_HEADER) / wire,
  };
}

/**
 * Reads and writes of both nodes for 10^9 bytes, when TCP sends superpackets of 64 KiB and each is acknowledged. IPIP is
 * cut in software, since no device takes such a tunnel's superpackets whole, and put together again where it arrives.
 */
export function callsPerGigabyte(mode: Mode, underlayMtu: number): number {
  const superpackets = 1e9 / (MAX_IP_LEN - TCP_HEADERS);
  const { segments } = theoryOf(mode, underlayMtu);
  const acknowledgement = 4;
  return superpackets * (acknowledgement + (mode === 'ipip' ? 1 + segments + segments + 1 : 4));
}

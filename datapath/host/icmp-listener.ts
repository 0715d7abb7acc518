/** Hears the ICMP errors that come to this host: an ordinary socket is told less of them than they say. */
import { formatAddress } from '../control/address.ts';
import * as libc from '../io/libc.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as udp from '../wire/udp.ts';

/** An ICMP error, and who sent it. */
export interface IcmpError {
  type: number;
  code: number;
  from: string;
}

const SOCK_RAW = 3;
/** Enough for both IPv4 headers with options and a UDP header. */
const BYTES = 256;

export class IcmpListener {
  private readonly fd = libc.socket(libc.AF_INET, SOCK_RAW | libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC, ipv4.PROTO_ICMP);
  private readonly buffer = new Uint8Array(BYTES);

  /**
   * The first error that has come about a packet of ours.
   * @param port UDP port that the packet went to; undefined for an IPIP packet
   */
  errorAbout(destination: string, port: number | undefined): IcmpError | undefined {
    for (;;) {
      const length = this.fd < 0 ? -1 : libc.read(this.fd, libc.addressOf(this.buffer), BYTES);
      if (length < 0) return undefined;
      const { error, quoted } = parseIcmpError(new DataView(this.buffer.buffer, 0, Math.min(length, BYTES))) ?? {};
      if (error !== undefined && quoted?.destination === destination && quoted.port === port) return error;
    }
  }

  close(): void {
    if (this.fd >= 0) libc.close(this.fd);
  }
}

/** An IPv4 packet with an ICMP error, and what it quotes; undefined for any other packet. `port` is that of UDP. */
export function parseIcmpError(
  view: DataView,
): { error: IcmpError; quoted: { destination: string; port: number | undefined } } | undefined {
  if (view.byteLength < ipv4.HEADER_LEN) return undefined;
  const at = ipv4.headerLen(view, 0);
  const inner = at + icmp.HEADER_LEN;
  if (view.byteLength < inner + ipv4.HEADER_LEN || !icmp.isError(view.getUint8(at + icmp.TYPE))) return undefined;
  const isUdp = view.getUint8(inner + ipv4.PROTOCOL) === ipv4.PROTO_UDP;
  const l4 = inner + ipv4.headerLen(view, inner);
  return {
    error: {
      type: view.getUint8(at + icmp.TYPE),
      code: view.getUint8(at + icmp.CODE),
      from: formatAddress(view.getInt32(ipv4.SRC)),
    },
    quoted: {
      destination: formatAddress(view.getInt32(inner + ipv4.DST)),
      port: isUdp && view.byteLength >= l4 + udp.HEADER_LEN ? view.getUint16(l4 + udp.DST_PORT) : undefined,
    },
  };
}

/** A packet as a line of text, what is in it when it is a tunnel's, and its bytes. */
import { dotted, hexText } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';

const HEX_BYTES = 160;
const TUNNEL_PORTS = [4789, 8472, 6081];

/** '10.244.1.10:40000 > 203.0.113.5:53 udp, 48 bytes, ttl 64, id 1234 | 4500...' */
export function describePacket(bytes: Uint8Array): string {
  const hex = hexText(bytes.subarray(0, HEX_BYTES));
  const rest = bytes.length > HEX_BYTES ? `... ${bytes.length - HEX_BYTES} more` : '';
  return `${summary(bytes)} | ${hex}${rest}`;
}

function summary(bytes: Uint8Array): string {
  if (bytes.length < ipv4.HEADER_LEN || bytes[0] >> 4 !== 4) return `${bytes.length} bytes`;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const l4 = (bytes[0] & 15) * 4;
  const protocol = bytes[ipv4.PROTOCOL];
  const flags = view.getUint16(ipv4.FLAGS_FRAGMENT);
  const isFirst = (flags & ipv4.OFFSET_MASK) === 0;
  const src = dotted(view.getInt32(ipv4.SRC));
  const dst = dotted(view.getInt32(ipv4.DST));
  const details = [
    `${bytes.length} bytes`,
    `ttl ${bytes[ipv4.TTL]}`,
    `id ${view.getUint16(ipv4.ID).toString(16)}`,
    ...(bytes[ipv4.TOS] === 0 ? [] : [`tos ${bytes[ipv4.TOS].toString(16)}`]),
    ...((flags & ipv4.FLAG_DF) === 0 ? [] : ['DF']),
    ...(ipv4.isFragment(flags)
      ? [`bytes from ${(flags & ipv4.OFFSET_MASK) * 8}${(flags & ipv4.FLAG_MF) === 0 ? '' : '+'}`]
      : []),
  ].join(', ');
  if (isFirst && protocol === ipv4.PROTO_ICMP && bytes.length >= l4 + 8) {
    const [type, code] = [bytes[l4], bytes[l4 + 1]];
    const quote = type === 3 || type === 11 ? ` about [${summary(bytes.subarray(l4 + 8))}]` : '';
    return `${src} > ${dst} icmp ${type}/${code}, ${details}${quote}`;
  }
  if (isFirst && (protocol === ipv4.PROTO_TCP || protocol === ipv4.PROTO_UDP) && bytes.length >= l4 + 8) {
    const [sport, dport] = [view.getUint16(l4), view.getUint16(l4 + 2)];
    const isTunnel = protocol === ipv4.PROTO_UDP && TUNNEL_PORTS.includes(dport);
    const inner = isTunnel ? ` around [${summary(bytes.subarray(l4 + 30))}]` : '';
    return `${src}:${sport} > ${dst}:${dport} ${protocol === ipv4.PROTO_TCP ? 'tcp' : 'udp'}, ${details}${inner}`;
  }
  if (isFirst && protocol === ipv4.PROTO_IPIP) {
    return `${src} > ${dst} ipip, ${details} around [${summary(bytes.subarray(l4))}]`;
  }
  return `${src} > ${dst} protocol ${protocol}, ${details}`;
}

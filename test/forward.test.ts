/** The path of a packet, step by step, over memory. */
import { strict as assert } from 'node:assert';
import { OFFLOAD_CSUM } from '../datapath/io/device.ts';
import { VERDICT_NAMES } from '../datapath/verdict.ts';
import * as virtio from '../datapath/wire/virtio-net.ts';
import {
  arpFrame,
  dotted,
  ethernet,
  fix,
  fragment,
  hex,
  icmpEcho,
  icmpError,
  ipip,
  ipv4,
  patch,
  pattern,
  sctp4,
  tcp4,
  udp4,
} from './fixtures/packets.ts';
import {
  fromWire,
  GATEWAY,
  HOST,
  NODE,
  NODE_MAC,
  type NodeOptions,
  PEER,
  PEER_MAC,
  POD,
  POD2,
  REMOTE,
  TestNode,
  VTEP_MACS,
} from './forward-rig.ts';
import { slowHeaderOk, slowTransportOk } from './model/checksum.ts';

const DF = 0x4000;
const OUTSIDE = '198.51.100.7';

// ---- what packets look like, in one line

/** "SRC > DST PROTOCOL ttl=N len=N", with what matters of each protocol, tunnels unwrapped. */
function describePacket(packet: Uint8Array): string {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const headerLen = (packet[0] & 15) * 4;
  const fragmentField = view.getUint16(6);
  const l4 = packet.subarray(headerLen);
  let text = `${dotted(view.getInt32(12))} > ${dotted(view.getInt32(16))}`;
  if (!slowHeaderOk(packet) || view.getUint16(2) !== packet.length) text += ' BAD HEADER';
  if ((fragmentField & 0x3fff) !== 0) {
    text += ` frag ${(fragmentField & 0x1fff) * 8}${(fragmentField & 0x2000) !== 0 ? '+' : ''}`;
  } else if (packet[9] === 1) {
    text += ` icmp ${l4[0]}/${l4[1]}`;
    if (l4[0] === 3 && l4[1] === 4) text += ` mtu=${view.getUint16(headerLen + 6)}`;
  } else if (packet[9] === 4) {
    return `${text} ttl=${packet[8]} ipip [${describePacket(l4)}]`;
  } else if (packet[9] === 17) {
    const port = view.getUint16(headerLen + 2);
    const tunnel = { 8472: 'vxlan', 6081: 'geneve' }[port];
    if (tunnel !== undefined && l4.length >= 8 + 8 + 14 + 20) {
      const vni = view.getUint32(headerLen + 8 + 4) >>> 8;
      return `${text} ttl=${packet[8]} ${tunnel} ${vni} [${describePacket(l4.subarray(8 + 8 + 14))}]`;
    }
    text += ` udp ${port}`;
  } else if (packet[9] === 6) {
    text += ` tcp ${view.getUint16(headerLen + 2)}`;
  }
  const whole = (fragmentField & 0x3fff) === 0 && (packet[9] === 6 || packet[9] === 17);
  if (whole && !slowTransportOk(packet)) text += ' BAD CHECKSUM';
  return `${text} ttl=${packet[8]} len=${packet.length}`;
}

function describeFrame(frame: Uint8Array): string {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (view.getUint16(12) === 0x0806) {
    return `arp ${view.getUint16(20) === 1 ? 'who-has' : 'reply'} ${dotted(view.getInt32(view.getUint16(20) === 1 ? 38 : 28))}`;
  }
  const to = Buffer.from(frame.subarray(0, 6))
    .toString('hex')
    .replace(/(..)(?=.)/g, '$1:');
  const from = Buffer.from(frame.subarray(6, 12))
    .toString('hex')
    .replace(/(..)(?=.)/g, '$1:');
  assert.equal(from, NODE_MAC);
  return `${to === PEER_MAC ? '' : `${to} `}${describePacket(frame.subarray(14))}`;
}

/** "PORT: PACKET" for all that came out. */
function outputOf(node: TestNode): string[] {
  return Object.entries(node.collectAll()).flatMap(([port, packets]) =>
    packets.map(bytes => `${port}: ${port === 'ul0' ? describeFrame(bytes) : describePacket(bytes)}`),
  );
}

/** Names of the drops counted since `since`. */
function dropsSince(node: TestNode, since: Float64Array): string[] {
  return VERDICT_NAMES.flatMap((name, i) => (node.counters.values[i] > since[i] ? [name] : []));
}

// ---- the tunnel packets of the peer

function vxlan(
  inner: Uint8Array,
  o: { src?: string; vni?: number; flags?: number; innerType?: number } = {},
): Uint8Array {
  return udpTunnel(inner, 8472, [(o.flags ?? 8) << 24, (o.vni ?? 7) << 8], o);
}

function geneve(inner: Uint8Array, o: { src?: string; vni?: number; innerType?: number } = {}): Uint8Array {
  return udpTunnel(inner, 6081, [0x00006558, (o.vni ?? 7) << 8], o);
}

function udpTunnel(
  inner: Uint8Array,
  dport: number,
  words: number[],
  o: { src?: string; innerType?: number },
): Uint8Array {
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  words.forEach((word, i) => {
    view.setInt32(4 * i, word);
  });
  const frame = ethernet(inner, { src: VTEP_MACS[1], dst: VTEP_MACS[0], type: o.innerType });
  return udp4({ src: o.src ?? PEER, dst: NODE, sport: 50000, dport, payload: Uint8Array.from([...header, ...frame]) });
}

// ---- the rows

interface Row {
  what: string;
  node?: NodeOptions;
  /** Port that it comes in by: a packet, on ul0 an IP packet from the peer unless `frame` is set. */
  into: string;
  packet: Uint8Array;
  frame?: boolean;
  /** All that comes out, in order of ports. */
  out?: string[];
  /** All drop counters that rise. */
  drops?: string[];
}

const podEcho = (o: Parameters<typeof icmpEcho>[0] = {}) => icmpEcho({ src: POD, dst: REMOTE, ...o });
const back = (o: Parameters<typeof icmpEcho>[0] = {}) => icmpEcho({ type: 0, src: REMOTE, dst: POD, ...o });
/** A packet of exactly `len` bytes from the pod. */
const ofLength = (len: number, o: Parameters<typeof udp4>[0] = {}) =>
  udp4({ src: POD, dst: REMOTE, payload: pattern(len - 28), ...o });
const onWire = (inner: string, ttl = 64) => `ul0: ${NODE} > ${PEER} ttl=${ttl} vxlan 7 [${inner}]`;

const SOURCE: Row[] = [
  {
    what: 'its own address passes',
    into: 'p1',
    packet: podEcho(),
    out: [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84`)],
  },
  {
    what: "another pod's address does not",
    into: 'p1',
    packet: podEcho({ src: POD2 }),
    drops: ['drop-invalid-source'],
  },
  { what: "the host's does not", into: 'p1', packet: podEcho({ src: HOST }), drops: ['drop-invalid-source'] },
  { what: '0.0.0.0 does not', into: 'p1', packet: podEcho({ src: '0.0.0.0' }), drops: ['drop-invalid-source'] },
  {
    what: 'the host may send from any',
    into: 'tp0',
    packet: podEcho({ src: NODE, dst: POD }),
    out: [`p1: ${NODE} > ${POD} icmp 8/0 ttl=64 len=84`],
  },
  {
    what: 'IPv6 is refused, and is no malformed IPv4',
    into: 'p1',
    packet: hex(`6000000000083aff ${'00'.repeat(32)} 8500000000000000`),
    drops: ['drop-not-ipv4'],
  },
  { what: 'less than a header', into: 'p1', packet: podEcho().subarray(0, 19), drops: ['drop-malformed-ipv4'] },
  { what: 'less than it says', into: 'p1', packet: podEcho().subarray(0, 83), drops: ['drop-truncated'] },
  { what: 'a wrong header checksum', into: 'p1', packet: patch(podEcho(), 8, 9), drops: ['drop-ipv4-checksum'] },
  {
    what: "the tunnel's protocol towards a node",
    into: 'p1',
    packet: udp4({ src: POD, dst: PEER, dport: 8472 }),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'the same port towards anybody else is nothing special',
    into: 'p1',
    packet: udp4({ src: POD, dst: POD2, dport: 8472 }),
    out: [`p2: ${POD} > ${POD2} udp 8472 ttl=63 len=28`],
  },
  {
    what: 'IPIP towards a node',
    node: { protocol: 'ipip' },
    into: 'p1',
    packet: ipip(podEcho(), { src: POD, dst: NODE }),
    drops: ['drop-encap-from-workload'],
  },
];

const ROUTES: Row[] = [
  {
    what: 'to a pod here',
    into: 'p1',
    packet: podEcho({ dst: POD2 }),
    out: [`p2: ${POD} > ${POD2} icmp 8/0 ttl=63 len=84`],
  },
  { what: 'to itself', into: 'p1', packet: podEcho({ dst: POD }), out: [`p1: ${POD} > ${POD} icmp 8/0 ttl=63 len=84`] },
  {
    what: 'to the host port',
    into: 'p1',
    packet: podEcho({ dst: HOST }),
    out: [`tp0: ${POD} > ${HOST} icmp 8/0 ttl=64 len=84`],
  },
  {
    what: "to the node's address on the underlay",
    into: 'p1',
    packet: podEcho({ dst: NODE }),
    out: [`tp0: ${POD} > ${NODE} icmp 8/0 ttl=64 len=84`],
  },
  {
    what: 'to the gateway by the default route',
    into: 'p1',
    packet: podEcho({ dst: OUTSIDE }),
    out: [`ul0: ${POD} > ${OUTSIDE} icmp 8/0 ttl=63 len=84`],
  },
  {
    what: 'to the subnet itself, on link',
    into: 'p1',
    packet: podEcho({ dst: PEER }),
    out: [`ul0: ${POD} > ${PEER} icmp 8/0 ttl=63 len=84`],
  },
  {
    what: 'to loopback is refused, and said',
    into: 'p1',
    packet: podEcho({ dst: '127.0.0.1' }),
    out: [`p1: ${HOST} > ${POD} icmp 3/1 ttl=64 len=112`],
    drops: ['drop-route-refused'],
  },
  {
    what: "to the subnet's broadcast is refused",
    into: 'p1',
    packet: podEcho({ dst: '192.168.10.255' }),
    out: [`p1: ${HOST} > ${POD} icmp 3/1 ttl=64 len=112`],
    drops: ['drop-route-refused'],
  },
  {
    what: 'to a group is not answered',
    into: 'p1',
    packet: podEcho({ dst: '224.0.0.251' }),
    drops: ['drop-multicast'],
  },
  {
    what: 'to everybody is not answered',
    into: 'p1',
    packet: podEcho({ dst: '255.255.255.255' }),
    drops: ['drop-multicast'],
  },
  {
    what: 'a packet of the host for the host goes round in no circle',
    into: 'tp0',
    packet: podEcho({ src: HOST, dst: NODE }),
    drops: ['drop-route-loop'],
  },
  {
    what: 'without a host port, ping of the node is answered by the datapath',
    node: { withHost: false },
    into: 'p1',
    packet: podEcho({ dst: NODE }),
    out: [`p1: ${NODE} > ${POD} icmp 0/0 ttl=64 len=84`],
  },
  {
    what: 'and anything else has no taker',
    node: { withHost: false },
    into: 'p1',
    packet: udp4({ src: POD, dst: NODE }),
    drops: ['drop-no-host-port'],
  },
  {
    what: 'not even a fragment of a ping',
    node: { withHost: false },
    into: 'p1',
    packet: fragment(podEcho({ dst: NODE, payload: pattern(100) }), 0, 64),
    drops: ['drop-no-host-port'],
  },
];

const UPLINK: Row[] = [
  {
    what: 'for a pod, without a tunnel',
    into: 'ul0',
    packet: back(),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'for the host',
    into: 'ul0',
    packet: back({ src: PEER, dst: NODE }),
    out: [`tp0: ${PEER} > ${NODE} icmp 0/0 ttl=64 len=84`],
  },
  {
    what: 'Ethernet padding is cut off',
    into: 'ul0',
    packet: Uint8Array.from([...back({ payload: pattern(4) }), ...new Uint8Array(14)]),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=32`],
  },
  {
    what: 'a runt',
    into: 'ul0',
    frame: true,
    packet: fromWire(back()).subarray(0, 13),
    drops: ['drop-malformed-ethernet'],
  },
  {
    what: 'for another station',
    into: 'ul0',
    frame: true,
    packet: ethernet(back(), { src: PEER_MAC, dst: '02:00:00:00:00:99' }),
    drops: ['drop-other-mac'],
  },
  {
    what: 'IP to all stations',
    into: 'ul0',
    frame: true,
    packet: ethernet(back(), { src: PEER_MAC, dst: 'ff:ff:ff:ff:ff:ff' }),
    drops: ['drop-multicast'],
  },
  {
    what: 'another protocol',
    into: 'ul0',
    frame: true,
    packet: ethernet(back(), { src: PEER_MAC, dst: NODE_MAC, type: 0x86dd }),
    drops: ['drop-not-ipv4'],
  },
  { what: 'from loopback', into: 'ul0', packet: back({ src: '127.0.0.1' }), drops: ['drop-martian-source'] },
  { what: 'from a group', into: 'ul0', packet: back({ src: '224.0.0.1' }), drops: ['drop-martian-source'] },
  {
    what: "from the subnet's broadcast address, by RFC 1812",
    node: { profile: 'rfc' },
    into: 'ul0',
    packet: back({ src: '192.168.10.255' }),
    drops: ['drop-martian-source'],
  },
  { what: 'from our own address', into: 'ul0', packet: back({ src: NODE }), drops: ['drop-martian-source'] },
  { what: 'from a pod of ours', into: 'ul0', packet: back({ src: POD2 }), drops: ['drop-martian-source'] },
  { what: 'from our host port', into: 'ul0', packet: back({ src: HOST }), drops: ['drop-martian-source'] },
  {
    what: 'for others by the default route is refused: this node is no open router',
    into: 'ul0',
    packet: back({ dst: OUTSIDE }),
    drops: ['drop-not-routed'],
  },
  {
    what: 'for others on the subnet, too',
    into: 'ul0',
    packet: back({ dst: '192.168.10.9' }),
    drops: ['drop-not-routed'],
  },
  {
    what: 'for others by an explicit route passes',
    into: 'ul0',
    packet: back({ src: OUTSIDE, dst: REMOTE }),
    out: [onWire(`${OUTSIDE} > ${REMOTE} icmp 0/0 ttl=63 len=84`)],
  },
];

const TUNNELS: Row[] = [
  {
    what: 'IPIP out',
    node: { protocol: 'ipip' },
    into: 'p1',
    packet: podEcho(),
    out: [`ul0: ${NODE} > ${PEER} ttl=63 ipip [${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84]`],
  },
  {
    what: 'IPIP in',
    node: { protocol: 'ipip' },
    into: 'ul0',
    packet: ipip(back(), { src: PEER, dst: NODE }),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'VXLAN in',
    into: 'ul0',
    packet: vxlan(back()),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'GENEVE out',
    node: { protocol: 'geneve' },
    into: 'p1',
    packet: podEcho(),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 geneve 7 [${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84]`],
  },
  {
    what: 'GENEVE in',
    node: { protocol: 'geneve' },
    into: 'ul0',
    packet: geneve(back()),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'no tunnel',
    node: { protocol: 'none' },
    into: 'p1',
    packet: podEcho(),
    out: [`ul0: ${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84`],
  },
  {
    what: "Cilium's VNI is the sender's identity",
    node: { profile: 'cilium', vni: 'identity' },
    into: 'p2',
    packet: podEcho({ src: POD2 }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 102 [${POD2} > ${REMOTE} icmp 8/0 ttl=64 len=84]`],
  },
  {
    what: "a node's own packets travel as remote-node",
    node: { profile: 'cilium', vni: 'identity' },
    into: 'tp0',
    packet: podEcho({ src: HOST }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 6 [${HOST} > ${REMOTE} icmp 8/0 ttl=64 len=84]`],
  },
  {
    what: 'and so do the errors that it sends',
    node: { profile: 'cilium', vni: 'identity' },
    into: 'ul0',
    packet: vxlan(podEcho({ src: REMOTE, dst: POD, ttl: 1 }), { vni: 201 }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 6 [${HOST} > ${REMOTE} icmp 11/0 ttl=64 len=112]`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: "and its answers to ping, where it has no host port's",
    node: { profile: 'cilium', vni: 'identity', withHost: false },
    into: 'ul0',
    packet: vxlan(podEcho({ src: REMOTE, dst: NODE }), { vni: 201 }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 6 [${NODE} > ${REMOTE} icmp 0/0 ttl=64 len=84]`],
  },
  {
    what: 'what comes from outside is the world',
    node: { profile: 'cilium', vni: 'identity' },
    into: 'ul0',
    packet: back({ src: OUTSIDE, dst: REMOTE }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 2 [${OUTSIDE} > ${REMOTE} icmp 0/0 ttl=63 len=84]`],
  },
  {
    what: 'from a stranger',
    into: 'ul0',
    packet: vxlan(back(), { src: GATEWAY }),
    drops: ['drop-encap-unknown-peer'],
  },
  { what: 'another VNI', into: 'ul0', packet: vxlan(back(), { vni: 8 }), drops: ['drop-tunnel-unknown-vni'] },
  { what: 'no I flag', into: 'ul0', packet: vxlan(back(), { flags: 0 }), drops: ['drop-vxlan-flags'] },
  { what: 'IPv6 inside', into: 'ul0', packet: vxlan(back(), { innerType: 0x86dd }), drops: ['drop-tunnel-inner-type'] },
  {
    what: 'a tunnel packet for us inside: it would be taken for our own',
    into: 'ul0',
    packet: vxlan(udp4({ src: REMOTE, dst: NODE, dport: 8472, payload: pattern(60) })),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'a tunnel packet for another node inside',
    into: 'ul0',
    packet: vxlan(udp4({ src: REMOTE, dst: PEER, dport: 8472, payload: pattern(60) })),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'IPIP in IPIP, for another node',
    node: { protocol: 'ipip' },
    into: 'ul0',
    packet: ipip(ipip(back(), { src: REMOTE, dst: PEER }), { src: PEER, dst: NODE }),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'a pod of ours as the inner source',
    into: 'ul0',
    packet: vxlan(back({ src: POD2 })),
    drops: ['drop-martian-source'],
  },
  { what: 'a broken inner header', into: 'ul0', packet: vxlan(patch(back(), 8, 1)), drops: ['drop-ipv4-checksum'] },
  {
    what: "another tunnel's packet is for the host",
    into: 'ul0',
    packet: ipip(back(), { src: PEER, dst: NODE }),
    out: [`tp0: ${PEER} > ${NODE} ttl=64 ipip [${REMOTE} > ${POD} icmp 0/0 ttl=64 len=84]`],
  },
  {
    what: 'a tunnel packet for another address of ours is no tunnel packet',
    into: 'ul0',
    packet: udp4({ src: PEER, dst: POD, dport: 9999, payload: pattern(40) }),
    out: [`p1: ${PEER} > ${POD} udp 9999 ttl=63 len=68`],
  },
];

const TTL_AND_MTU: Row[] = [
  {
    what: 'TTL 1 from a pod',
    into: 'p1',
    packet: podEcho({ ttl: 1 }),
    out: [`p1: ${HOST} > ${POD} icmp 11/0 ttl=64 len=112`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'TTL 2 passes',
    into: 'p1',
    packet: podEcho({ ttl: 2 }),
    out: [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=1 len=84`)],
  },
  {
    what: "TTL 1 in Cilium's tunnel passes: it is decremented at delivery",
    node: { profile: 'cilium' },
    into: 'p1',
    packet: podEcho({ ttl: 1 }),
    out: [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=1 len=84`)],
  },
  {
    what: 'there the delivering node says so, through the tunnel',
    node: { profile: 'cilium', vni: 7 },
    into: 'ul0',
    packet: vxlan(podEcho({ src: REMOTE, dst: POD, ttl: 1 })),
    out: [onWire(`${HOST} > ${REMOTE} icmp 11/0 ttl=64 len=112`)],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'TTL 1 for the host itself is no matter',
    into: 'p1',
    packet: podEcho({ dst: HOST, ttl: 1 }),
    out: [`tp0: ${POD} > ${HOST} icmp 8/0 ttl=1 len=84`],
  },
  {
    what: 'TTL 1 of the host itself neither',
    into: 'tp0',
    packet: podEcho({ src: HOST, dst: POD, ttl: 1 }),
    out: [`p1: ${HOST} > ${POD} icmp 8/0 ttl=1 len=84`],
  },
  {
    what: 'TTL 1 from outside is told by the underlay address',
    into: 'ul0',
    packet: podEcho({ src: PEER, dst: POD, ttl: 1 }),
    out: [`ul0: ${NODE} > ${PEER} icmp 11/0 ttl=64 len=112`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'an ICMP error is not answered by another',
    into: 'p1',
    packet: icmpError(3, 3, podEcho().subarray(0, 28), { src: POD, dst: REMOTE, ttl: 1 }),
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'nor is a later fragment',
    into: 'p1',
    packet: fragment(podEcho({ payload: pattern(200), ttl: 1 }), 64, 64),
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'the first fragment is',
    into: 'p1',
    packet: fragment(podEcho({ payload: pattern(200), ttl: 1 }), 0, 64),
    out: [`p1: ${HOST} > ${POD} icmp 11/0 ttl=64 len=112`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'a long packet is quoted up to 576 bytes',
    into: 'p1',
    packet: ofLength(1400, { ttl: 1 }),
    out: [`p1: ${HOST} > ${POD} icmp 11/0 ttl=64 len=576`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'exactly the MTU of the tunnel, DF',
    into: 'p1',
    packet: ofLength(1450, { fragment: DF }),
    out: [onWire(`${POD} > ${REMOTE} udp 53 ttl=63 len=1450`)],
  },
  {
    what: 'one byte more, DF',
    into: 'p1',
    packet: ofLength(1451, { fragment: DF }),
    out: [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1450 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
  {
    what: 'one byte more, without DF',
    into: 'p1',
    packet: ofLength(1451),
    out: [onWire(`${POD} > ${REMOTE} frag 0+ ttl=63 len=1444`), onWire(`${POD} > ${REMOTE} frag 1424 ttl=63 len=27`)],
  },
  {
    what: 'IPIP leaves 1480',
    node: { protocol: 'ipip' },
    into: 'p1',
    packet: ofLength(1481, { fragment: DF }),
    out: [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1480 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
  {
    what: 'from outside to a pod with a smaller MTU',
    into: 'ul0',
    packet: udp4({ src: PEER, dst: POD, payload: pattern(1472), fragment: DF }),
    out: [`ul0: ${NODE} > ${PEER} icmp 3/4 mtu=1450 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
  {
    what: "a route's own MTU",
    node: { routes: [{ to: '10.9.0.0/16', via: GATEWAY, mtu: 1400 }] },
    into: 'p1',
    packet: ofLength(1401, { dst: '10.9.1.1', fragment: DF }),
    out: [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1400 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
];

describe('the path of a packet', () => {
  const steps: [string, Row[]][] = [
    ['source check and validation', SOURCE],
    ['route', ROUTES],
    ['from the uplink', UPLINK],
    ['tunnels', TUNNELS],
    ['TTL and MTU', TTL_AND_MTU],
  ];
  for (const [step, rows] of steps) {
    describe(step, () => {
      for (const row of rows) {
        it(row.what, () => {
          const node = new TestNode(row.node);
          node.meetNeighbors();
          const since = node.counters.values.slice();
          node.send(row.into, row.into === 'ul0' && row.frame !== true ? fromWire(row.packet) : row.packet);
          assert.deepEqual(outputOf(node), row.out ?? []);
          assert.deepEqual(dropsSince(node, since), row.drops ?? []);
          assert.equal(node.balance, 0, 'packets in, packets out');
          assert.equal(node.leaked, 0, 'packets of the pool');
        });
      }
    });
  }
});

describe('a neighbour that is not known yet', () => {
  const reply = arpFrame({ oper: 2, sha: PEER_MAC, spa: PEER, tha: NODE_MAC, tpa: NODE });

  it('is asked for, packets wait, and leave in their order', () => {
    const node = new TestNode();
    node.send('p1', ...[1, 2, 3].map(i => ofLength(100 + i)));
    assert.deepEqual(outputOf(node), [`ul0: arp who-has ${PEER}`]);
    assert.equal(node.datapath.neighbors.held, 3);
    node.send('ul0', reply);
    assert.deepEqual(
      outputOf(node),
      [1, 2, 3].map(i => onWire(`${POD} > ${REMOTE} udp 53 ttl=63 len=${100 + i}`)),
    );
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('is asked for three times, a second apart; then the senders hear of it, of packets in a tunnel, too', () => {
    const node = new TestNode();
    node.send('p1', podEcho());
    node.send('p2', icmpEcho({ src: POD2, dst: '192.168.10.77' }));
    node.send('tp0', udp4({ src: HOST, dst: REMOTE }));
    node.collectAll();
    node.advance(2900);
    assert.deepEqual(outputOf(node).length, 4, 'two more requests for each of two');
    node.advance(200);
    assert.deepEqual(outputOf(node), [
      `p1: ${HOST} > ${POD} icmp 3/1 ttl=64 len=112`,
      `p2: ${HOST} > ${POD2} icmp 3/1 ttl=64 len=112`,
      `tp0: ${REMOTE} > ${HOST} icmp 3/1 ttl=64 len=56`,
    ]);
    assert.equal(node.counters.dropped(55), 3);
    assert.equal(VERDICT_NAMES[55], 'drop-neighbor-unreachable');
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('quotes the inner packet as it was sent into each tunnel', () => {
    for (const protocol of ['none', 'ipip', 'vxlan', 'geneve'] as const) {
      const node = new TestNode({ protocol });
      const sent = podEcho();
      node.send('p1', sent);
      node.advance(3200);
      const [error] = node.collect('p1');
      const quoted = error.slice(28);
      // The TTL has gone down, and with it the header checksum has changed.
      assert.deepEqual([...quoted], [...fix(patch(sent, 8, 63))], protocol);
    }
  });

  it('the datapath answers for its own addresses only', () => {
    const node = new TestNode();
    for (const tpa of [NODE, PEER, POD, HOST])
      node.send('ul0', arpFrame({ sha: '02:00:00:00:00:09', spa: '192.168.10.9', tpa }));
    assert.deepEqual(outputOf(node), [`ul0: arp reply ${NODE}`]);
    assert.equal(node.balance, 0);
  });
});

describe('fragments', () => {
  const cut = (packet: Uint8Array, at: number) => [
    fragment(packet, 0, at),
    fragment(packet, at, packet.length - 20 - at),
  ];

  it('of a tunnel packet are put together at the exit, in any order', () => {
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const node = new TestNode();
      node.meetNeighbors();
      const pieces = cut(vxlan(back()), 64);
      for (const i of order) node.send('ul0', fromWire(pieces[i]));
      assert.deepEqual(outputOf(node), [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`]);
      assert.equal(node.balance, 0);
      assert.equal(node.leaked, 0);
    }
  });

  it('that stay alone end in time, and their sender hears of it', () => {
    const node = new TestNode();
    node.meetNeighbors();
    node.send('ul0', fromWire(cut(vxlan(back()), 64)[0]));
    assert.deepEqual(outputOf(node), []);
    node.advance(31_000, 1000);
    assert.ok(outputOf(node).some(line => line.includes(`${NODE} > ${PEER} icmp 11/1`)));
    assert.equal(node.counters.dropped(VERDICT_NAMES.indexOf('drop-fragment-timeout')), 1);
    assert.equal(node.balance, 0);
  });

  it('go through a masquerade as one datagram, in any order, and back', () => {
    const masquerade = [{ from: ['10.244.0.0/16'], action: 'MASQUERADE' }];
    const request = udp4({ src: POD, dst: OUTSIDE, sport: 4000, dport: 53, payload: pattern(100) });
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const node = new TestNode({ masquerade });
      node.meetNeighbors();
      for (const i of order) node.send('p1', cut(request, 64)[i]);
      const out = outputOf(node);
      assert.deepEqual(out, [
        `ul0: ${NODE} > ${OUTSIDE} frag 0+ ttl=63 len=84`,
        `ul0: ${NODE} > ${OUTSIDE} frag 64 ttl=63 len=64`,
      ]);
      const reply = udp4({ src: OUTSIDE, dst: NODE, sport: 53, dport: 4000, payload: pattern(100) });
      for (const i of order) node.send('ul0', fromWire(cut(reply, 64)[i]));
      assert.deepEqual(outputOf(node), [
        `p1: ${OUTSIDE} > ${POD} frag 0+ ttl=63 len=84`,
        `p1: ${OUTSIDE} > ${POD} frag 64 ttl=63 len=64`,
      ]);
      assert.equal(node.balance, 0);
      assert.equal(node.leaked, 0);
    }
  });

  it('of a datagram whose first is refused are refused, too', () => {
    const services = [{ name: 'default/none', addresses: ['10.96.0.1'], ports: [{ port: 53, protocol: 'UDP' }] }];
    const node = new TestNode({ services });
    const request = udp4({ src: POD, dst: '10.96.0.1', dport: 53, payload: pattern(100) });
    for (const piece of cut(request, 64).reverse()) node.send('p1', piece);
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/3 ttl=64 len=112`]);
    assert.equal(node.counters.dropped(VERDICT_NAMES.indexOf('drop-no-service-endpoint')), 2);
    assert.equal(node.balance, 0);
  });
});

describe('the path MTU to a tunnel peer', () => {
  /** What a router says about a tunnel packet of ours that it could not forward. */
  const tooBig = (quoted: Uint8Array, mtu: number) =>
    fromWire(icmpError(3, 4, quoted, { src: GATEWAY, dst: NODE, mtu }));

  it('goes down when the underlay says so, and the pods hear of it', () => {
    const node = new TestNode({ profile: 'rfc' });
    node.meetNeighbors();
    const big = ofLength(1450, { fragment: DF });
    node.send('p1', big);
    const sent = node.collect('ul0');
    assert.equal(sent.length, 1);
    node.send('ul0', tooBig(sent[0].subarray(14), 1400));
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1350 ttl=64 len=576`]);
    node.send('p1', big);
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1350 ttl=64 len=576`]);
    node.send('p1', ofLength(1350, { fragment: DF }));
    assert.equal(node.collect('ul0').length, 1);
    node.advance(601_000, 1000);
    node.meetNeighbors();
    node.send('p1', big);
    assert.equal(node.collect('ul0').length, 1, 'forgotten after ten minutes');
  });

  it('does not go down for what we never sent', () => {
    const node = new TestNode({ profile: 'rfc' });
    node.meetNeighbors();
    const forged = udp4({
      src: NODE,
      dst: '203.0.113.1',
      sport: 50000,
      dport: 8472,
      payload: pattern(80),
      fragment: DF,
    });
    node.send('ul0', tooBig(forged, 1400));
    node.collectAll();
    node.send('p1', ofLength(1450, { fragment: DF }));
    assert.equal(node.collect('ul0').length, 1);
  });
});

describe('checksums and superpackets', () => {
  const GSO = {
    vnetFlags: virtio.FLAG_NEEDS_CSUM,
    gsoType: virtio.GSO_TCPV4,
    gsoSize: 1410,
    csumStart: 20,
    csumOffset: 16,
  };

  function partial(packet: Uint8Array): Uint8Array {
    const copy = packet.slice();
    const view = new DataView(copy.buffer);
    let sum = 0;
    for (let at = 12; at < 20; at += 2) sum += view.getUint16(at);
    sum += copy[9] + copy.length - 20;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    view.setUint16(20 + (copy[9] === 6 ? 16 : 6), sum);
    return copy;
  }

  it('completes what the next device does not take', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const packet = partial(udp4({ src: POD, dst: REMOTE, payload: pattern(99) }));
    node.sendFrame('p1', packet, { vnetFlags: virtio.FLAG_NEEDS_CSUM, csumStart: 20, csumOffset: 6 });
    node.sendFrame('p1', partial(udp4({ src: POD, dst: POD2, payload: pattern(99) })), {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      csumStart: 20,
      csumOffset: 6,
    });
    assert.deepEqual(outputOf(node), [
      `p2: ${POD} > ${POD2} udp 53 ttl=63 len=127`,
      onWire(`${POD} > ${REMOTE} udp 53 ttl=63 len=127`),
    ]);
  });

  it('leaves to the device what it does take', () => {
    const node = new TestNode({ offloads: OFFLOAD_CSUM });
    node.sendFrame('p1', partial(udp4({ src: POD, dst: POD2, payload: pattern(99) })), {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      csumStart: 20,
      csumOffset: 6,
    });
    const [frame] = node.device('p2').collectFrames();
    assert.deepEqual([frame.vnetFlags, frame.csumStart, frame.csumOffset], [virtio.FLAG_NEEDS_CSUM, 20, 6]);
  });

  it('cuts a superpacket for a device and for a tunnel that takes none, each piece whole', () => {
    const node = new TestNode();
    node.meetNeighbors();
    for (const dst of [POD2, REMOTE]) {
      node.sendFrame('p1', partial(tcp4({ src: POD, dst, payload: pattern(10_000), fragment: DF })), GSO);
    }
    const pieces = [...Array(7).fill(1450), 10_000 - 7 * 1410 + 40];
    assert.deepEqual(outputOf(node), [
      ...pieces.map(len => `p2: ${POD} > ${POD2} tcp 80 ttl=63 len=${len}`),
      ...pieces.map(len => onWire(`${POD} > ${REMOTE} tcp 80 ttl=63 len=${len}`)),
    ]);
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('takes a train of tunnel datagrams that GRO has joined apart again', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const datagrams = [1, 2, 3].map(seq => vxlan(back({ sequence: seq })));
    const bodies = datagrams.map(datagram => datagram.subarray(28));
    const train = udp4({
      src: PEER,
      dst: NODE,
      sport: 50000,
      dport: 8472,
      payload: Uint8Array.from(bodies.flatMap(b => [...b])),
    });
    node.sendFrame('ul0', fromWire(partial(train)), {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      gsoType: virtio.GSO_UDP_L4,
      gsoSize: bodies[0].length,
      csumStart: 34,
      csumOffset: 6,
    });
    assert.deepEqual(outputOf(node), Array(3).fill(`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`));
    assert.equal(node.leaked, 0);
  });

  it('tells the sender of a superpacket whose segments are too long', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const packet = partial(tcp4({ src: POD, dst: REMOTE, payload: pattern(10_000), fragment: DF }));
    node.sendFrame('p1', packet, { ...GSO, gsoSize: 1411 });
    assert.deepEqual(outputOf(node), [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1450 ttl=64 len=576`]);
    assert.equal(node.balance, 0);
  });
});

describe('limits', () => {
  it('counts what no flow control holds back: datagrams, each of a train, and not TCP', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const { datapath } = node;
    const count = () => {
      const n = datapath.uncontrolled;
      datapath.uncontrolled = 0;
      return n;
    };
    count();
    node.send('p1', tcp4({ src: POD, dst: POD2 }), tcp4({ src: POD, dst: REMOTE }));
    assert.equal(count(), 0);
    node.send('p1', udp4({ src: POD, dst: POD2 }), udp4({ src: POD, dst: REMOTE }), podEcho());
    assert.equal(count(), 3);
    node.send('p1', udp4({ src: POD2, dst: POD }));
    assert.equal(count(), 0, 'dropped');
    const train = udp4({ src: POD, dst: POD2, payload: pattern(1000) });
    const options = { vnetFlags: virtio.FLAG_NEEDS_CSUM, gsoType: virtio.GSO_UDP_L4, csumStart: 20, csumOffset: 6 };
    node.sendFrame('p1', train, { ...options, gsoSize: 300 });
    assert.equal(count(), 4);
  });

  it('sends no more ICMP errors than the rate allows, and counts those it does not', () => {
    const node = new TestNode();
    // How many is the limiter's own business (mtu/icmp-error.ts).
    const suppressed = () => node.counters.dropped(VERDICT_NAMES.indexOf('drop-icmp-rate-limit'));
    for (let round = 1; round <= 2; round++) {
      const before = suppressed();
      node.send('p1', ...Array.from({ length: 80 }, () => podEcho({ ttl: 1 })));
      const sent = node.collect('p1').length;
      assert.ok(sent >= 1 && sent <= 50, `${sent} in round ${round}`);
      assert.equal(sent + suppressed() - before, 80);
      node.advance(5000);
    }
    assert.equal(node.balance, 0);
  });

  it('a device that is down or full costs the packet and nothing else', () => {
    const node = new TestNode();
    for (const [errno, reason] of [
      [5, 'drop-device-down'],
      [11, 'drop-device-queue-full'],
      [22, 'drop-device-refused'],
    ] as const) {
      node.device('p2').failWrites = errno;
      node.send('p1', udp4({ src: POD, dst: POD2 }));
      assert.equal(node.counters.dropped(VERDICT_NAMES.indexOf(reason)), 1, reason);
    }
    node.device('p2').failWrites = 0;
    node.send('p1', udp4({ src: POD, dst: POD2 }));
    assert.equal(node.collect('p2').length, 1);
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('a flood for unknown neighbours leaves room for a known one', () => {
    const node = new TestNode();
    node.meetNeighbors();
    const flood = Array.from({ length: 3000 }, (_, i) =>
      udp4({ src: POD, dst: `192.168.10.${3 + (i % 250)}`, sport: i + 1 }),
    );
    node.send('p1', ...flood);
    node.collectAll();
    node.send('p1', podEcho());
    assert.deepEqual(outputOf(node), [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84`)]);
    assert.equal(node.balance, 0);
    assert.equal(node.leaked, 0);
  });

  it('every packet of a long burst comes out, in its order', () => {
    const node = new TestNode();
    node.send('p1', ...Array.from({ length: 1000 }, (_, i) => udp4({ src: POD, dst: POD2, sport: i + 1 })));
    const ports = node.collect('p2').map(packet => packet[20] * 256 + packet[21]);
    assert.deepEqual(
      ports,
      Array.from({ length: 1000 }, (_, i) => i + 1),
    );
  });

  it('forwards protocols without ports', () => {
    const node = new TestNode();
    node.meetNeighbors();
    node.send('p1', sctp4({ src: POD, dst: POD2 }), ipv4(47, pattern(20), { src: POD, dst: POD2 }));
    assert.equal(node.collect('p2').length, 2);
  });
});

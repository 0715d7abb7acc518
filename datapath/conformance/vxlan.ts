/** RFC 7348, Virtual eXtensible Local Area Network. */
import { fragment, hexText, patch, pattern, tcp4, udp4 } from '../packet/build.ts';
import type { Clause } from './check.ts';
import { KERNEL } from './check.ts';
import { vxlanFromPeer } from './from-peer.ts';
import { type CheckNode, NODE, PEER, POD, REMOTE, type Testbed, VNI } from './node.ts';
import { at, checksumsOk, fate, innerOf, only, readIp, readPorts, same, viewOf, yesNo } from './read.ts';

const vxlanNode = (bed: Testbed) => bed.node({ tunnel: 'vxlan' });
const toRemote = (o: Parameters<typeof udp4>[0] = {}) => udp4({ src: POD, dst: REMOTE, payload: pattern(32), ...o });
const toPod = () => udp4({ src: REMOTE, dst: POD, payload: pattern(32) });

/** Source ports of many flows, and whether one flow keeps its port. */
export function portsOfFlows(node: CheckNode): { ports: number[]; steady: boolean } {
  const portOf = (sport: number) => readPorts(only(node, node.exchange('p1', toRemote({ sport })), 'wire')).sport;
  const ports = Array.from({ length: 300 }, (_, i) => portOf(20_000 + i));
  return { ports, steady: ports.slice(0, 10).every((port, i) => portOf(20_000 + i) === port) };
}

const RANGES: [string, number, number][] = [
  ['49152-65535', 49152, 65535],
  ['32768-60999', 32768, 60999],
  ['1-65535', 1, 65535],
];

function rangeOf(ports: readonly number[]): string {
  const [name] = RANGES.find(([, from, to]) => ports.every(port => port >= from && port <= to)) ?? ['any port'];
  return name;
}

export const VXLAN: Clause[] = [
  {
    rfc: 7348,
    clause: '§4.1',
    level: 'MUST',
    requirement: 'a packet of an unknown VNI is not delivered',
    quote: 'the remote VTEP verifies the validity of the VNI',
    expect: 'dropped: tunnel-unknown-vni',
    run(bed) {
      const node = vxlanNode(bed);
      return fate(node, node.exchange('wire', vxlanFromPeer(node, toPod(), { last: (VNI + 1) << 8 })), 'p1');
    },
  },
  {
    rfc: 7348,
    clause: '§4.3',
    level: 'MUST',
    requirement: 'a VTEP does not fragment its own packets',
    quote: 'VTEPs MUST NOT fragment VXLAN packets.',
    expect: 'whole outer packets, 2 inner fragments',
    run(bed) {
      const node = vxlanNode(bed);
      const outer = at(node.exchange('p1', toRemote({ payload: pattern(1460) })), 'wire').map(readIp);
      const whole = outer.every(ip => !ip.more && ip.offset === 0);
      const inner = outer.filter(ip => viewOf(ip.payload).getUint16(30 + 6) !== 0).length;
      return `${yesNo(whole, 'whole outer packets', 'outer fragments')}, ${inner} inner fragments`;
    },
  },
  {
    rfc: 7348,
    clause: '§4.3',
    level: 'MAY',
    requirement: 'a VTEP may discard fragments that routers made; this one puts them together',
    quote: 'The destination VTEP MAY silently discard such VXLAN fragments.',
    expect: 'delivered',
    run(bed) {
      const node = vxlanNode(bed);
      const whole = vxlanFromPeer(node, toPod());
      const [first, second] = [fragment(whole, 0, 64), fragment(whole, 64, whole.length - 84)];
      node.exchange('wire', second);
      return fate(node, node.exchange('wire', first), 'p1');
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'MUST',
    requirement: 'flag I is 1, all reserved bits are 0 as sent',
    quote: 'the I flag MUST be set to 1 [...] reserved fields and MUST be set to zero on transmission',
    expect: '0800000000000700',
    run(bed) {
      const node = vxlanNode(bed);
      const outer = only(node, node.exchange('p1', toRemote()), 'wire');
      return hexText(readPorts(outer).payload.subarray(0, 8));
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'MUST',
    requirement: 'without flag I there is no VNI: not delivered',
    quote: 'the I flag MUST be set to 1 for a valid VXLAN Network ID (VNI)',
    expect: 'dropped: vxlan-flags',
    run(bed) {
      const node = vxlanNode(bed);
      return fate(node, node.exchange('wire', vxlanFromPeer(node, toPod(), { first: 0 })), 'p1');
    },
  },
  ...(
    [
      ['flags', { first: 0x88000000 }],
      ['24 bits behind the flags', { first: 0x08000001 }],
      ['8 bits behind the VNI', { last: (VNI << 8) | 1 }],
    ] as const
  ).map(
    ([where, header]): Clause => ({
      rfc: 7348,
      clause: '§5',
      level: 'MUST',
      requirement: `reserved bits are ignored as received: ${where}`,
      quote: 'MUST be set to zero on transmission and ignored on receipt',
      expect: 'delivered',
      deviations: [
        {
          sees: 'dropped: vxlan-flags',
          by: 'vxlan_rcv (drivers/net/vxlan/vxlan_core.c) drops what has bits left that it does not know, and says that this diverges from RFC 7348',
        },
      ],
      run(bed) {
        const node = vxlanNode(bed);
        return fate(node, node.exchange('wire', vxlanFromPeer(node, toPod(), header)), 'p1');
      },
    }),
  ),
  {
    rfc: 7348,
    clause: '§5',
    level: 'SHOULD',
    requirement: 'the destination port is 4789 by default',
    quote: 'IANA has assigned the value 4789 [...] and this value SHOULD be used by default',
    expect: '4789',
    deviations: [
      {
        sees: '8472',
        by: 'vxlan_port (drivers/net/vxlan/vxlan_core.c) is 8472, from before IANA; flannel and Cilium follow it',
        profiles: ['linux', 'flannel', 'cilium'],
      },
    ],
    run(bed) {
      const node = vxlanNode(bed);
      return `${readPorts(only(node, node.exchange('p1', toRemote()), 'wire')).dport}`;
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'RECOMMENDED',
    requirement: 'the source port is a dynamic one',
    quote: 'it is RECOMMENDED that the value be in the dynamic/private port range 49152-65535',
    expect: '49152-65535',
    deviations: [
      {
        sees: '32768-60999',
        by: 'udp_flow_src_port (include/net/udp.h) takes ip_local_port_range where the device has no range of its own',
      },
    ],
    run: bed => rangeOf(portsOfFlows(vxlanNode(bed)).ports),
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'RECOMMENDED',
    requirement: 'the source port is a hash of the inner packet: steady in a flow, spread over flows',
    quote: 'the UDP source port number be calculated using a hash of fields from the inner packet',
    expect: 'steady, more than 250 ports in 300 flows',
    run(bed) {
      const { ports, steady } = portsOfFlows(vxlanNode(bed));
      const count = new Set(ports).size;
      return `${yesNo(steady, 'steady', 'unsteady')}, ${count > 250 ? 'more than 250' : count} ports in 300 flows`;
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'SHOULD',
    requirement: 'the UDP checksum is sent as zero',
    quote: 'UDP Checksum: It SHOULD be transmitted as zero.',
    expect: 'zero',
    deviations: [
      {
        sees: 'a right one',
        by: 'vxlan_nl2conf (drivers/net/vxlan/vxlan_core.c) sends checksums unless told not to; flannel and Calico leave it so',
        profiles: KERNEL,
      },
    ],
    run(bed) {
      const node = vxlanNode(bed);
      const outer = only(node, node.exchange('p1', toRemote()), 'wire');
      return readPorts(outer).checksum === 0 ? 'zero' : yesNo(checksumsOk(outer), 'a right one', 'a wrong one');
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'MUST',
    requirement: 'a checksum of zero is accepted',
    quote: 'When a packet is received with a UDP checksum of zero, it MUST be accepted for decapsulation.',
    expect: 'delivered',
    run(bed) {
      const node = vxlanNode(bed);
      return fate(node, node.exchange('wire', vxlanFromPeer(node, toPod())), 'p1');
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'MUST',
    requirement: 'a right checksum is accepted',
    quote: 'performs it successfully, the packet MUST be accepted for decapsulation',
    expect: 'delivered',
    run(bed) {
      const node = vxlanNode(bed);
      return fate(node, node.exchange('wire', vxlanFromPeer(node, toPod(), { checksum: 'right' })), 'p1');
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'MUST',
    requirement: 'a wrong checksum, once verified, means drop',
    quote: 'If it chooses to perform such verification, and the verification fails, the packet MUST be dropped.',
    expect: 'dropped: tunnel-checksum',
    run(bed) {
      const node = vxlanNode(bed);
      const packet = vxlanFromPeer(node, toPod(), { checksum: 'right' });
      const last = packet.length - 1;
      return fate(node, node.exchange('wire', patch(packet, last, packet[last] ^ 1)), 'p1');
    },
  },
  {
    rfc: 7348,
    clause: '§5',
    level: 'MUST',
    requirement: "outer addresses are the two VTEPs', the inner frame is as it was but for the hop",
    quote:
      'the source IP address indicating the IP address of the VTEP over which the communicating VM [...] is running',
    expect: `${NODE} > ${PEER}, payload kept`,
    run(bed) {
      const node = vxlanNode(bed);
      const sent = tcp4({ src: POD, dst: REMOTE, payload: pattern(100) });
      const outer = only(node, node.exchange('p1', sent), 'wire');
      const { src, dst } = readIp(outer);
      const kept = same(innerOf(outer).subarray(12), sent.subarray(12));
      return `${src} > ${dst}, payload ${yesNo(kept, 'kept', 'changed')}`;
    },
  },
  {
    rfc: 7348,
    clause: '§6.1',
    level: 'SHOULD',
    requirement: 'frames with an inner VLAN tag are discarded',
    quote: 'Decapsulated VXLAN frames with the inner VLAN tag SHOULD be discarded unless configured otherwise.',
    expect: 'dropped: tunnel-inner-type',
    run(bed) {
      const node = vxlanNode(bed);
      const tagged = new Uint8Array([0x00, 0x05, 0x08, 0x00, ...toPod()]);
      return fate(node, node.exchange('wire', vxlanFromPeer(node, tagged, { type: 0x8100 })), 'p1');
    },
  },
  {
    rfc: 7348,
    clause: '§7',
    level: 'MAY',
    requirement: 'a rogue that is no peer cannot inject frames',
    quote: 'rogues [...] sourcing MAC-over-UDP frames into the transport network to inject spurious traffic',
    expect: 'dropped: encap-unknown-peer',
    run(bed) {
      const node = vxlanNode(bed);
      return fate(node, node.exchange('wire', vxlanFromPeer(node, toPod(), { src: '192.168.10.66' })), 'p1');
    },
  },
  {
    rfc: 7348,
    clause: '§7',
    level: 'MAY',
    requirement: 'a pod cannot pose as a VTEP',
    quote: 'A MAC-over-IP mechanism for delivering Layer 2 traffic significantly extends this attack surface.',
    expect: 'dropped: encap-from-workload',
    run(bed) {
      const node = vxlanNode(bed);
      const forged = udp4({ src: POD, dst: PEER, dport: node.tunnelPort, payload: pattern(60) });
      return fate(node, node.exchange('p1', forged), 'wire');
    },
  },
];

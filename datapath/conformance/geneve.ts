/** RFC 8926, Generic Network Virtualization Encapsulation. */
import { hexText, patch, pattern, udp4 } from '../packet/build.ts';
import type { Clause } from './check.ts';
import { NO_GENEVE } from './check.ts';
import { geneveFromPeer, type TunnelOptions } from './from-peer.ts';
import { POD, REMOTE, type Testbed, VNI } from './node.ts';
import { checksumsOk, fate, only, readIp, readPorts, yesNo } from './read.ts';
import { portsOfFlows } from './vxlan.ts';

const geneveNode = (bed: Testbed) => bed.node({ tunnel: 'geneve' });
const toRemote = (o: Parameters<typeof udp4>[0] = {}) => udp4({ src: POD, dst: REMOTE, payload: pattern(32), ...o });
const toPod = () => udp4({ src: REMOTE, dst: POD, payload: pattern(32) });

/** What becomes of a packet from the peer with this header. */
function received(bed: Testbed, o: TunnelOptions): string {
  const node = geneveNode(bed);
  return fate(node, node.exchange('wire', geneveFromPeer(node, toPod(), o)), 'p1');
}

/** An option of class 0x0103 with `words` words of data; `type` with its high bit is critical. */
function option(type: number, words = 1, reserved = 0): Uint8Array {
  const bytes = new Uint8Array(4 + 4 * words);
  bytes.set([0x01, 0x03, type, (reserved << 5) | words]);
  return bytes;
}

/** First word of a header with `optionWords` words of options. */
const header = (optionWords: number, flags = 0) => ((optionWords << 24) | (flags << 16) | 0x6558) >>> 0;
const FLAG_CRITICAL = 0x40;
const FLAG_CONTROL = 0x80;
const CRITICAL_OPTION = 0x81;
const PLAIN_OPTION = 0x01;

const CLAUSES: Clause[] = [
  {
    rfc: 8926,
    clause: '§3.3',
    level: 'SHOULD',
    requirement: 'the destination port is 6081 by default',
    quote: 'IANA has assigned port 6081 as the fixed well-known destination port for Geneve.',
    expect: '6081',
    run(bed) {
      const node = geneveNode(bed);
      return `${readPorts(only(node, node.exchange('p1', toRemote()), 'wire')).dport}`;
    },
  },
  {
    rfc: 8926,
    clause: '§3.3',
    level: 'SHOULD',
    requirement: 'the source port is a hash of the inner headers: steady in a flow, spread over flows',
    quote: 'This source port SHOULD be the same for all packets belonging to a single encapsulated flow',
    expect: 'steady, more than 250 ports in 300 flows',
    run(bed) {
      const { ports, steady } = portsOfFlows(geneveNode(bed));
      const count = new Set(ports).size;
      return `${yesNo(steady, 'steady', 'unsteady')}, ${count > 250 ? 'more than 250' : count} ports in 300 flows`;
    },
  },
  {
    rfc: 8926,
    clause: '§3.3',
    level: 'SHOULD',
    requirement: 'the UDP checksum is computed over IPv4',
    quote: 'the UDP checksum SHOULD be generated [...] when Geneve is encapsulated in IPv4',
    expect: 'a right one',
    deviations: [
      {
        sees: 'zero',
        by: 'geneve_nl2info (drivers/net/geneve.c) computes none over IPv4 unless told to; Cilium asks for none (BPF_F_ZERO_CSUM_TX)',
      },
    ],
    run(bed) {
      const node = geneveNode(bed);
      const outer = only(node, node.exchange('p1', toRemote()), 'wire');
      return readPorts(outer).checksum === 0 ? 'zero' : yesNo(checksumsOk(outer), 'a right one', 'a wrong one');
    },
  },
  {
    rfc: 8926,
    clause: '§3.3',
    level: 'MUST',
    requirement: 'a right checksum is accepted',
    quote: 'If the checksum is not correct, the packet MUST be dropped; otherwise, the packet MUST be accepted',
    expect: 'delivered',
    run: bed => received(bed, { checksum: 'right' }),
  },
  {
    rfc: 8926,
    clause: '§3.3',
    level: 'MUST',
    requirement: 'a wrong checksum means drop',
    quote: 'If the checksum is not correct, the packet MUST be dropped',
    expect: 'dropped: tunnel-checksum',
    run(bed) {
      const node = geneveNode(bed);
      const packet = geneveFromPeer(node, toPod(), { checksum: 'right' });
      const last = packet.length - 1;
      return fate(node, node.exchange('wire', patch(packet, last, packet[last] ^ 1)), 'p1');
    },
  },
  {
    rfc: 8926,
    clause: '§3.4',
    level: 'MUST',
    requirement: 'an unknown version means drop',
    quote: 'Packets received by a tunnel endpoint with an unknown version MUST be dropped.',
    expect: 'dropped: geneve-version',
    run: bed => received(bed, { first: 0x40006558 }),
  },
  {
    rfc: 8926,
    clause: '§3.4',
    level: 'MUST',
    requirement: 'Opt Len leads to the payload: 0, 1 and all 63 words of options',
    quote: 'The start of the payload headers can be found using this offset from the end of the base Geneve header.',
    expect: 'delivered, delivered, delivered',
    run(bed) {
      const most = new Uint8Array([...option(PLAIN_OPTION, 31), ...option(PLAIN_OPTION, 30)]);
      return [new Uint8Array(0), option(PLAIN_OPTION, 0), most].map(options => received(bed, { options })).join(', ');
    },
  },
  {
    rfc: 8926,
    clause: '§3.4',
    level: 'MUST',
    requirement: 'a control packet (O) is not forwarded',
    quote: 'Tunnel endpoints MUST NOT forward the payload',
    expect: 'dropped: tunnel-control',
    run: bed => received(bed, { first: header(0, FLAG_CONTROL) }),
  },
  {
    rfc: 8926,
    clause: '§3.4',
    level: 'MUST',
    requirement: 'flag C is judged by the options where they can be parsed, else it means drop',
    quote:
      'If this bit is set, then tunnel endpoints MUST parse the options list [...] On tunnel endpoints where option parsing is not supported, the packet MUST be dropped',
    // With C set and no critical option a reader of the options delivers and one that reads none drops: both keep it.
    expect: 'critical option dropped',
    run(bed) {
      const critical = received(bed, { options: option(CRITICAL_OPTION), first: header(2, FLAG_CRITICAL) });
      const isDropped = critical === 'dropped: geneve-critical-option';
      return isDropped ? 'critical option dropped' : critical;
    },
  },
  {
    rfc: 8926,
    clause: '§3.4',
    level: 'MUST',
    requirement: 'reserved bits are 0 as sent and ignored as received',
    quote: 'Reserved field, which MUST be zero on transmission and MUST be ignored on receipt.',
    expect: 'sent 0000655800000700; delivered, delivered',
    run(bed) {
      const node = geneveNode(bed);
      const sent = readPorts(only(node, node.exchange('p1', toRemote()), 'wire')).payload.subarray(0, 8);
      const flags = received(bed, { first: header(0, 0x3f) });
      const last = received(bed, { last: (VNI << 8) | 0xff });
      return `sent ${hexText(sent)}; ${flags}, ${last}`;
    },
  },
  {
    rfc: 8926,
    clause: '§3.4',
    level: 'MUST',
    requirement: 'the protocol type says what follows: Ethernet is 0x6558, and an unknown type is not delivered',
    quote:
      'This follows the Ethertype [ETYPES] convention, with Ethernet itself being represented by the value 0x6558.',
    expect: 'delivered; dropped: tunnel-inner-type',
    run: bed => `${received(bed, {})}; ${received(bed, { first: 0x00008847 })}`,
  },
  {
    rfc: 8926,
    clause: '§3.5',
    level: 'MUST',
    requirement: 'an unknown critical option means drop, whatever flag C says',
    quote:
      'If the receiving tunnel endpoint does not recognize the option and this bit is set, then the packet MUST be dropped.',
    expect: 'dropped: geneve-critical-option',
    run: bed => received(bed, { options: option(CRITICAL_OPTION) }),
  },
  {
    rfc: 8926,
    clause: '§3.4',
    level: 'MAY',
    requirement: 'an unknown option that is not critical is skipped, its reserved bits ignored',
    quote: "tunnel endpoints MAY strip all options using 'Opt Len' and forward the decapsulated packet",
    expect: 'delivered',
    run: bed => received(bed, { options: option(PLAIN_OPTION, 2, 7) }),
  },
  {
    rfc: 8926,
    clause: '§3.5',
    level: 'MUST',
    requirement: 'options that do not add up to Opt Len mean drop',
    quote:
      "Packets in which the total length of all options is not equal to the 'Opt Len' in the base header are invalid and MUST be silently dropped",
    expect: 'dropped: geneve-option-length',
    run(bed) {
      // One option that says 3 words of data where there is 1.
      const options = option(PLAIN_OPTION, 1);
      options[3] = 3;
      return received(bed, { options });
    },
  },
  {
    rfc: 8926,
    clause: '§4.3',
    level: 'MAY',
    requirement: 'a checksum of zero is accepted over IPv4',
    quote: 'An operator MAY choose to disable UDP checksums and use zero UDP checksum',
    expect: 'delivered',
    run: bed => received(bed, {}),
  },
  {
    rfc: 8926,
    clause: '§4.4.1',
    level: 'RECOMMENDED',
    requirement: 'path MTU discovery on the underlay: the outer DF is set',
    quote: 'It is RECOMMENDED that Path MTU Discovery [...] be used to prevent or minimize fragmentation.',
    expect: 'DF set',
    deviations: [
      {
        sees: 'DF clear',
        by: 'geneve_xmit_skb (drivers/net/geneve.c) sets DF only with "df set" or "df inherit"; Cilium asks for neither',
      },
    ],
    run(bed) {
      const node = geneveNode(bed);
      return yesNo(readIp(only(node, node.exchange('p1', toRemote()), 'wire')).df, 'DF set', 'DF clear');
    },
  },
  {
    rfc: 8926,
    clause: '§4.4.2',
    level: 'RECOMMENDED',
    requirement: 'TTL in the pipe model: the outer one is its own, the inner one counts the hop',
    quote: 'the Pipe model is more consistent with network virtualization. [RFC2003] [...] is RECOMMENDED',
    expect: 'outer 64, inner counted where the node forwards',
    run(bed) {
      const node = geneveNode(bed);
      const outer = only(node, node.exchange('p1', toRemote({ ttl: 9 })), 'wire');
      const inner = outer[50 + 8];
      // Cilium counts at delivery: then the node that delivers takes it off.
      const delivered = only(node, node.exchange('wire', geneveFromPeer(node, toPod())), 'p1');
      const counted = 9 - inner + (64 - delivered[8]);
      return `outer ${readIp(outer).ttl}, inner ${counted >= 1 ? 'counted where the node forwards' : 'not counted'}`;
    },
  },
  {
    rfc: 8926,
    clause: '§4.7',
    level: 'MAY',
    requirement: 'inner VLAN tags are optional: not accepted here',
    quote: 'support for inner VLAN headers is OPTIONAL',
    expect: 'dropped: tunnel-inner-type',
    run(bed) {
      const node = geneveNode(bed);
      const tagged = new Uint8Array([0x00, 0x05, 0x08, 0x00, ...toPod()]);
      return fate(node, node.exchange('wire', geneveFromPeer(node, tagged, { type: 0x8100 })), 'p1');
    },
  },
];

export const GENEVE: Clause[] = [
  ...CLAUSES.map(clause => ({ ...clause, exempt: NO_GENEVE })),
  {
    rfc: 8926,
    clause: '§4.3.1',
    level: 'MUST',
    requirement: 'zero checksums over IPv6 only under conditions',
    quote: 'by default, Geneve MUST use UDP checksums when transported over IPv6',
    reason: 'the underlay is IPv4',
  },
  {
    rfc: 8926,
    clause: '§4.5.1',
    level: 'MAY',
    requirement: 'a control plane may restrict the options sent',
    quote: 'a control plane may restrict the number of option TLVs as well as the order and size of the TLVs',
    reason: 'no options are sent',
  },
];

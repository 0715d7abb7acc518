/** RFC 1812, Requirements for IP Version 4 Routers: what it forwards, and the ICMP errors that it sends. */
import { ethernet, icmpEcho, icmpError, patch, pattern, udp4 } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Clause } from './check.ts';
import { type CheckNode, HOST, NODE, POD, POD2, REMOTE, SERVER, type Testbed } from './node.ts';
import { at, checksumsOk, describeSent, fate, only, readIcmp, readIp, same, yesNo } from './read.ts';

const FRAG_DF = ipv4.FLAG_DF;
const toServer = (o: Parameters<typeof udp4>[0] = {}) => udp4({ src: POD, dst: SERVER, payload: pattern(32), ...o });

/** The error that a pod hears about a packet that is too big. */
function errorAbout(node: CheckNode, packet: Uint8Array): Uint8Array {
  return only(node, node.exchange('p1', packet), 'p1');
}

const tooBig = (o: Parameters<typeof udp4>[0] = {}) => toServer({ fragment: FRAG_DF, payload: pattern(1472), ...o });
const narrow = (bed: Testbed) => bed.node({ mtu: 1400 });
/** Never forwarded, so whether an error is sent about it is the only thing to see. */
const expired = (o: Parameters<typeof udp4>[0] = {}) => toServer({ ttl: 1, ...o });

/** 'silence', or what was said. */
function said(sent: ReturnType<CheckNode['exchange']>): string {
  return sent.length === 0 ? 'silence' : sent.map(describeSent).join(', ');
}

const NEVER_QUOTE = 'An ICMP error message MUST NOT be sent as the result of receiving: [...] ';

const SUBNET_BROADCAST = '192.168.10.255';
/** Sources that RFC 1812 calls invalid and the kernel does not. */
const TAKEN_BY_LINUX: readonly string[] = ['0.1.2.3', '240.0.0.1', SUBNET_BROADCAST];

export const ICMP: Clause[] = [
  {
    rfc: 1812,
    clause: '§4.2.2.7',
    level: 'MUST',
    requirement: 'fragmentation: as few as can be, in order, each within the MTU',
    quote:
      'When a router fragments an IP datagram, it SHOULD minimize the number of fragments [...] send the fragments in order',
    expect: '3 fragments in order, 1396 at most',
    run(bed) {
      const node = narrow(bed);
      // The pod's own MTU is no smaller: 3000 bytes come as one packet only in a check.
      const sent = at(node.exchange('p1', toServer({ payload: pattern(2972) })), 'wire');
      const pieces = sent.map(readIp);
      const ordered = pieces.every((ip, i) => i === 0 || ip.offset > pieces[i - 1].offset);
      const longest = Math.max(...sent.map(bytes => bytes.length));
      return `${pieces.length} fragments ${yesNo(ordered, 'in order', 'out of order')}, ${longest} at most`;
    },
  },
  {
    rfc: 1812,
    clause: '§4.3.2.3',
    level: 'SHOULD',
    requirement: 'an error quotes as much as fits 576 bytes, unchanged',
    quote: 'as much of the original datagram as possible without the length of the ICMP datagram exceeding 576 bytes',
    expect: '576 bytes, quote as sent',
    run(bed) {
      const sent = tooBig();
      const error = errorAbout(narrow(bed), sent);
      const { quote } = readIcmp(error);
      const kept = same(quote, sent.subarray(0, quote.length)) && checksumsOk(error);
      return `${error.length} bytes, quote ${yesNo(kept, 'as sent', 'changed')}`;
    },
  },
  {
    rfc: 1812,
    clause: '§4.3.2.4',
    level: 'MUST',
    requirement: "an error's source is an address of the interface that it leaves by",
    quote:
      'MUST be one of the IP addresses associated with the physical interface over which the ICMP message is transmitted',
    expect: `to a pod ${HOST}, to the wire ${NODE}`,
    run(bed) {
      const node = narrow(bed);
      const toPod = readIp(errorAbout(node, tooBig())).src;
      const fromOutside = udp4({ src: SERVER, dst: POD, ttl: 1 });
      return `to a pod ${toPod}, to the wire ${readIp(only(node, node.exchange('wire', fromOutside), 'wire')).src}`;
    },
  },
  {
    rfc: 1812,
    clause: '§4.3.2.5',
    level: 'SHOULD',
    requirement: 'precedence 6 or 7, the other type of service bits as in the packet',
    quote: 'SHOULD have their precedence value set to 6 (INTERNETWORK CONTROL) or 7 (NETWORK CONTROL)',
    expect: 'precedence 6, service bits 8',
    run(bed) {
      const tos = errorAbout(narrow(bed), tooBig({ tos: 0x48 }))[ipv4.TOS];
      return `precedence ${tos >> 5}, service bits ${tos & 0x1e}`;
    },
  },
  ...(
    [
      [
        'an ICMP error message',
        'An ICMP error message',
        (node: CheckNode) => node.exchange('p1', icmpError(3, 1, toServer(), { src: POD, dst: SERVER, ttl: 1 })),
      ],
      [
        'a packet that fails header validation',
        'A packet which fails the IP header validation tests',
        (node: CheckNode) => node.exchange('p1', patch(expired(), ipv4.CHECKSUM, 0x12, 0x34)),
      ],
      [
        'a packet to a group',
        'A packet destined to an IP broadcast or IP multicast address',
        (node: CheckNode) => node.exchange('p1', expired({ dst: '224.0.0.5' })),
      ],
      [
        'a packet to the limited broadcast address',
        'A packet destined to an IP broadcast or IP multicast address',
        (node: CheckNode) => node.exchange('p1', expired({ dst: '255.255.255.255' })),
      ],
      [
        'a packet sent as link layer broadcast',
        'A packet sent as a Link Layer broadcast or multicast',
        (node: CheckNode) =>
          node.exchangeFrame(
            ethernet(udp4({ src: SERVER, dst: POD, ttl: 1 }), { src: '02:00:00:00:00:02', dst: 'ff:ff:ff:ff:ff:ff' }),
          ),
      ],
      [
        'a packet from network 0',
        'A packet whose source address has a network prefix of zero or is an invalid source address',
        (node: CheckNode) => node.exchange('wire', udp4({ src: '0.0.0.5', dst: POD, ttl: 1 })),
      ],
      [
        'a packet from a group',
        'A packet whose source address has a network prefix of zero or is an invalid source address',
        (node: CheckNode) => node.exchange('wire', udp4({ src: '239.1.2.3', dst: POD, ttl: 1 })),
      ],
      [
        'a fragment that is not the first',
        'Any fragment of a datagram other then the first fragment',
        (node: CheckNode) => node.exchange('p1', expired({ fragment: 100 })),
      ],
    ] as const
  ).map(
    ([what, quote, send]): Clause => ({
      rfc: 1812,
      clause: '§4.3.2.7',
      level: 'MUST',
      requirement: `no error about ${what}`,
      quote: NEVER_QUOTE + quote,
      expect: 'silence',
      run: bed => said(send(bed.node())),
    }),
  ),
  {
    rfc: 1812,
    clause: '§4.3.2.8',
    level: 'SHOULD',
    requirement: 'the rate of errors is limited',
    quote: 'A router SHOULD also be able to limit the rate at which it sends other sorts of ICMP error messages',
    expect: 'fewer than 10 of 100',
    run(bed) {
      const node = bed.node();
      let errors = 0;
      for (let i = 0; i < 100; i++) errors += at(node.exchange('p1', expired({ sport: 1000 + i })), 'p1').length;
      return errors < 10 ? 'fewer than 10 of 100' : `${errors} of 100`;
    },
  },
  {
    rfc: 1812,
    clause: '§4.3.3.1',
    level: 'MUST',
    requirement: 'no route at all: code 0, network unreachable',
    quote: 'then the router MUST generate a Destination Unreachable, Code 0 (Network Unreachable) ICMP message',
    expect: 'ICMP 3/0 to p1',
    run(bed) {
      const uplink = { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: `${NODE}/24` };
      return said(bed.node({ spec: { uplink }, neighbors: false }).exchange('p1', toServer()));
    },
  },
  {
    rfc: 1812,
    clause: '§5.2.7.1',
    level: 'MUST',
    requirement: 'a next hop that does not answer ARP: code 1, host unreachable',
    quote: '1 = Host Unreachable - [...] not available (does not respond to ARP)',
    expect: 'ICMP 3/1 to p1',
    run(bed) {
      const node = bed.node({ neighbors: false });
      node.exchange('p1', toServer());
      return said(node.wait(10));
    },
  },
  {
    rfc: 1812,
    clause: '§5.2.7.1',
    level: 'MUST',
    requirement: 'too big with DF: code 4, fragmentation needed',
    quote: '4 = Fragmentation Needed and DF Set - generated if a router needs to fragment a datagram but cannot',
    expect: 'ICMP 3/4, MTU 1400, to p1',
    run: bed => said(narrow(bed).exchange('p1', tooBig())),
  },
  {
    rfc: 1812,
    clause: '§5.3.1',
    level: 'MUST',
    requirement: 'forwarding reduces the TTL by at least one',
    quote: 'When a router forwards a packet, it MUST reduce the TTL by at least one.',
    expect: 'out 63, in 63, between pods 63',
    run(bed) {
      const node = bed.node();
      const out = only(node, node.exchange('p1', toServer()), 'wire');
      const into = only(node, node.exchange('wire', udp4({ src: SERVER, dst: POD })), 'p1');
      const between = only(node, node.exchange('p1', udp4({ src: POD, dst: POD2 })), 'p2');
      return `out ${readIp(out).ttl}, in ${readIp(into).ttl}, between pods ${readIp(between).ttl}`;
    },
  },
  {
    rfc: 1812,
    clause: '§5.3.1',
    level: 'MUST',
    requirement: 'into a tunnel, too',
    quote: 'Each router (or other module) that handles a packet MUST decrement the TTL by at least one',
    expect: 'inner TTL 63',
    deviations: [
      {
        sees: 'inner TTL 64',
        by: 'Cilium counts the hop at delivery: over two nodes its captures show 63',
        profiles: ['cilium'],
      },
    ],
    run(bed) {
      const node = bed.node({ tunnel: 'vxlan' });
      const outer = only(node, node.exchange('p1', udp4({ src: POD, dst: REMOTE })), 'wire');
      return `inner TTL ${outer[50 + ipv4.TTL]}`;
    },
  },
  {
    rfc: 1812,
    clause: '§5.3.1',
    level: 'MUST',
    requirement: 'a TTL that becomes 0: time exceeded, code 0',
    quote: 'the router MUST send an ICMP Time Exceeded message, Code 0 (TTL Exceeded in Transit) message to the source',
    expect: 'ICMP 11/0 to p1',
    run: bed => said(bed.node().exchange('p1', expired())),
  },
  {
    rfc: 1812,
    clause: '§5.3.1',
    level: 'MUST',
    requirement: 'a packet for the node itself is taken with any TTL',
    quote:
      'a router MUST NOT discard an IP unicast or broadcast packet with a non-zero TTL merely because it can predict [...]',
    expect: 'delivered',
    run(bed) {
      const node = bed.node();
      return fate(node, node.exchange('p1', icmpEcho({ src: POD, dst: HOST, ttl: 1 })), 'host');
    },
  },
  ...(['0.1.2.3', '127.0.0.1', '224.1.1.1', '240.0.0.1', '255.255.255.255', SUBNET_BROADCAST, NODE] as const).map(
    (src): Clause => ({
      rfc: 1812,
      clause: '§5.3.7',
      level: 'SHOULD',
      requirement: `a packet from ${src} is not forwarded`,
      quote:
        'A router SHOULD NOT forward any packet that has an invalid IP source address or a source address on network 0',
      expect: 'dropped: martian-source',
      deviations: TAKEN_BY_LINUX.includes(src)
        ? [
            {
              sees: 'delivered',
              by: 'ip_route_input_slow (net/ipv4/route.c) knows fewer martians, and fib_validate_source without rp_filter only its own addresses',
            },
          ]
        : [],
      run(bed) {
        const node = bed.node({ nat: true });
        return fate(node, node.exchange('wire', udp4({ src, dst: POD })), 'p1');
      },
    }),
  ),
  ...(['0.1.2.3', '127.0.0.1', '240.0.0.1'] as const).map(
    (dst): Clause => ({
      rfc: 1812,
      clause: '§5.3.7',
      level: 'SHOULD',
      requirement: `a packet to ${dst} is not forwarded`,
      quote: 'A router SHOULD NOT forward any packet that has an invalid IP destination address',
      expect: 'not forwarded',
      run(bed) {
        const node = bed.node();
        const forwarded = at(node.exchange('p1', toServer({ dst })), 'wire').length > 0;
        return yesNo(forwarded, 'forwarded', 'not forwarded');
      },
    }),
  ),
  {
    rfc: 1812,
    clause: '§5.3.8',
    level: 'SHOULD',
    requirement: 'a pod sends from its own addresses only',
    quote:
      'A router SHOULD IMPLEMENT the ability to filter traffic based on a comparison of the source address of a packet',
    expect: 'dropped: invalid-source',
    run(bed) {
      const node = bed.node();
      return fate(node, node.exchange('p1', udp4({ src: POD2, dst: SERVER })), 'wire');
    },
  },
  {
    rfc: 1812,
    clause: '§5.3.8',
    level: 'MUST',
    requirement: 'on the wire it is off by default: asymmetric paths work',
    quote: 'If this feature is implemented, it MUST be disabled by default.',
    expect: 'delivered',
    run(bed) {
      // The way back to 10.244.2.20 is the tunnel; this comes beside it.
      const node = bed.node({ tunnel: 'vxlan' });
      return fate(node, node.exchange('wire', udp4({ src: REMOTE, dst: POD })), 'p1');
    },
  },
  {
    rfc: 5927,
    clause: '§4.1',
    level: 'MAY',
    requirement: 'an ICMP error about a connection must quote data that is under way',
    quote: 'the sequence number be within the range of the data already sent but not yet acknowledged',
    reason:
      'a duty of the TCP at the end of the connection; the errors that the node itself believes are those of its tunnels (RFC 8085 §5.2)',
  },
  {
    rfc: 4884,
    clause: '§4',
    level: 'MAY',
    requirement: 'errors carry extensions, and the length of what they quote',
    quote: 'RFC 792 defines the following ICMPv4 message types',
    reason: 'the node sends no extensions',
  },
  {
    rfc: 4443,
    clause: '§2.4',
    level: 'MUST',
    requirement: 'when ICMPv6 errors are sent',
    quote: 'Implementations MUST observe the following rules when processing ICMPv6 messages',
    reason: 'the datapath speaks IPv4 only',
  },
];

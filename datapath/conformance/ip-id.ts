/** RFC 6864, Updated Specification of the IPv4 ID Field; RFC 1624, incremental checksums. */
import { fragment, icmpEcho, pattern, tcp4, udp4 } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Clause } from './check.ts';
import { POD, POD2, REMOTE, SERVER } from './node.ts';
import { at, checksumsOk, fate, only, readIp, same, yesNo } from './read.ts';

const KEPT = 'nf_nat_manip_pkt (net/netfilter/nf_nat_proto.c) does not touch the identification';

export const IP_ID: Clause[] = [
  {
    rfc: 6864,
    clause: '§4.1',
    level: 'MUST',
    requirement: 'the ID of datagrams that cannot be fragmented is ignored: the same one twice passes',
    quote: 'All devices that examine IPv4 headers MUST ignore the IPv4 ID field of atomic datagrams.',
    expect: 'delivered, delivered',
    run(bed) {
      const node = bed.node({ nat: true });
      const packet = udp4({ src: POD, dst: SERVER, id: 0, fragment: ipv4.FLAG_DF });
      return [packet, packet].map(one => fate(node, node.exchange('p1', one), 'wire')).join(', ');
    },
  },
  ...(['vxlan', 'geneve', 'ipip'] as const).map(
    (tunnel): Clause => ({
      rfc: 6864,
      clause: '§4.3',
      level: 'MUST',
      requirement: `${tunnel}: outer headers that may be fragmented have IDs of their own`,
      quote:
        'Sources emitting non-atomic datagrams MUST NOT repeat IPv4 ID values within one MDL for a given [...] tuple',
      expect: '200 IDs in 200 packets',
      run(bed) {
        const node = bed.node({ tunnel });
        const ids = new Set<number>();
        // With DF the packets are atomic, and any ID would do.
        for (let i = 0; i < 200; i++) {
          const outer = only(node, node.exchange('p1', udp4({ src: POD, dst: REMOTE, id: 5 })), 'wire');
          ids.add(readIp(outer).id);
        }
        bed.packets.length = 4;
        return `${ids.size} IDs in 200 packets`;
      },
    }),
  ),
  {
    rfc: 6864,
    clause: '§4.3',
    level: 'MUST',
    requirement: 'DF is never cleared on the way, nor is what has it fragmented',
    quote:
      'IPv4 datagrams whose DF=1 MUST NOT be fragmented. [...] IPv4 datagram transit devices MUST NOT clear the DF bit.',
    expect: 'DF set; too big ICMP 3/4, MTU 1500, to p1',
    run(bed) {
      const node = bed.node({ nat: true });
      const packet = (payload: number) =>
        udp4({ src: POD, dst: SERVER, fragment: ipv4.FLAG_DF, payload: pattern(payload) });
      const kept = readIp(only(node, node.exchange('p1', packet(100)), 'wire')).df;
      return `DF ${yesNo(kept, 'set', 'clear')}; too big ${fate(node, node.exchange('p1', packet(1473)), 'wire')}`;
    },
  },
  {
    rfc: 6864,
    clause: '§5.3.1',
    level: 'MUST',
    requirement: 'NAT gives translated datagrams that may be fragmented IDs of its own: two pods, one ID, one server',
    quote:
      'Address-sharing or rewriting devices MUST ensure that the IPv4 ID field [...] comply with these requirements as if the datagram were sourced by that device',
    expect: 'different IDs',
    deviations: [{ sees: 'one ID', by: KEPT }],
    run(bed) {
      const node = bed.node({ nat: true });
      const a = only(node, node.exchange('p1', udp4({ src: POD, dst: SERVER, id: 7 })), 'wire');
      const b = only(node, node.exchange('p2', udp4({ src: POD2, dst: SERVER, id: 7 })), 'wire');
      return yesNo(readIp(a).id === readIp(b).id, 'one ID', 'different IDs');
    },
  },
  {
    rfc: 6864,
    clause: '§5.3.1',
    level: 'MUST',
    requirement: 'and the fragments of one datagram keep one between them, in any order',
    quote: 'as if the datagram were sourced by that device',
    expect: 'one ID in a datagram, different ones in two',
    deviations: [{ sees: 'one ID in a datagram, the same in two', by: KEPT }],
    run(bed) {
      const node = bed.node({ nat: true });
      const idsOf = (side: 'p1' | 'p2', src: string) => {
        const whole = udp4({ src, dst: SERVER, id: 9, payload: pattern(400) });
        const pieces = [fragment(whole, 208, 200), fragment(whole, 0, 208)];
        return pieces.flatMap(piece => at(node.exchange(side, piece), 'wire').map(bytes => readIp(bytes).id));
      };
      const a = idsOf('p1', POD);
      const b = idsOf('p2', POD2);
      const steady = a.length === 2 && b.length === 2 && a[0] === a[1] && b[0] === b[1];
      return `${yesNo(steady, 'one ID', 'several IDs')} in a datagram, ${yesNo(a[0] === b[0], 'the same', 'different ones')} in two`;
    },
  },
  {
    rfc: 1624,
    clause: '§3',
    level: 'MUST',
    requirement: 'every checksum that translation has updated is right, and payloads are untouched',
    quote: "HC' = ~(C + (-m) + m')",
    expect: '600 of 600 right, payloads as sent',
    run(bed) {
      const node = bed.node({ nat: true });
      let right = 0;
      let kept = true;
      for (let i = 0; i < 200; i++) {
        const payload = pattern(1 + i, i + 1);
        const ends = { src: POD, dst: SERVER, id: i, sport: 1024 + 331 * i, payload };
        for (const packet of [udp4(ends), tcp4({ ...ends, flags: 2 }), icmpEcho({ ...ends, icmpId: 77 * i })]) {
          const out = only(node, node.exchange('p1', packet), 'wire');
          if (checksumsOk(out)) right++;
          kept &&= same(out.subarray(out.length - payload.length), payload);
        }
      }
      bed.packets.length = 12;
      return `${right} of 600 right, payloads ${yesNo(kept, 'as sent', 'changed')}`;
    },
  },
  ...(
    [
      [
        '6935',
        '§5',
        'zero UDP checksums over IPv6 for tunnels that are set up so',
        'MAY',
        'This specification updates IPv6 to allow a zero UDP checksum in the outer encapsulating datagram of a tunnel protocol.',
      ],
      [
        '6936',
        '§4',
        'what a node must do that uses them',
        'MUST',
        'All implementations that support the zero UDP checksum method MUST conform to the requirements defined below',
      ],
    ] as const
  ).map(
    ([rfc, clause, requirement, level, quote]): Clause => ({
      rfc: Number(rfc),
      clause,
      level,
      requirement,
      quote,
      reason: 'the underlay is IPv4',
    }),
  ),
];

/** Fragments: RFC 791 and 1122, and the attacks of RFC 1858, 3128 and 5722. */
import { fragment, pattern, tcp4, udp4 } from '../packet/build.ts';
import { type Clause, KERNEL } from './check.ts';
import { vxlanFromPeer } from './from-peer.ts';
import { type CheckNode, POD, REMOTE, SERVER, type Testbed } from './node.ts';
import { at, fate, readIcmp, readIp, yesNo } from './read.ts';

/** A node that puts together what comes for its tunnel. */
const exit = (bed: Testbed) => bed.node({ tunnel: 'vxlan' });
/** A node that lets fragments pass, judged as one datagram. */
const nat = (bed: Testbed) => bed.node({ nat: true });

/** Pieces of a tunnel packet at these byte offsets. */
function outerPieces(node: CheckNode, id: number, ...starts: number[]): Uint8Array[] {
  const outer = vxlanFromPeer(node, udp4({ src: REMOTE, dst: POD, payload: pattern(400) }), { id });
  const ends = [...starts.slice(1), outer.length - 20];
  return starts.map((start, i) => fragment(outer, start, ends[i] - start));
}

/** Sends all; what becomes of the datagram. */
function sendAll(node: CheckNode, side: 'wire' | 'p1', packets: readonly Uint8Array[], to: 'p1' | 'wire'): string {
  const sent = packets.map(packet => node.exchange(side, packet));
  return fate(node, sent.flat(), to);
}

const toServer = (payload: number, id = 7) => udp4({ src: POD, dst: SERVER, id, payload: pattern(payload) });

const JOINS =
  'ipv4_conntrack_defrag (net/ipv4/netfilter/nf_defrag_ipv4.c) puts the datagram together before conntrack looks at it';

export const FRAGMENTS: Clause[] = [
  {
    rfc: 791,
    clause: '§2.3',
    level: 'MUST',
    requirement: 'fragments belong together by identification, source, destination and protocol: two datagrams at once',
    quote: 'The identification field is used to distinguish the fragments of one datagram from those of another.',
    expect: 'nothing came out, nothing came out, delivered, delivered',
    run(bed) {
      const node = exit(bed);
      const [a1, a2] = outerPieces(node, 1, 0, 200);
      const [b1, b2] = outerPieces(node, 2, 0, 200);
      return [a1, b2, a2, b1].map(piece => fate(node, node.exchange('wire', piece), 'p1')).join(', ');
    },
  },
  {
    rfc: 791,
    clause: '§2.3',
    level: 'MAY',
    requirement: 'an identification that has come round: what is left of the old datagram does not spoil the new one',
    quote:
      'a value that must be unique for that source-destination pair and protocol for the time the datagram will be active in the internet system.',
    expect: 'after 63 other fragments lost, after 64 lost',
    deviations: [
      {
        sees: 'after 63 other fragments lost, after 64 delivered',
        by: 'ip_frag_too_far (net/ipv4/ip_fragment.c): the source has sent more than ipfrag_max_dist fragments since',
      },
    ],
    run(bed) {
      const node = nat(bed);
      const after = (others: number, id: number) => {
        const old = toServer(400, id);
        node.exchange('p1', fragment(old, 200, 208));
        for (let i = 0; i < others; i++) node.exchange('p1', fragment(toServer(400, 1000 + id * 200 + i), 0, 200));
        const sent = [fragment(old, 0, 208), fragment(old, 208, 200)].flatMap(piece => node.exchange('p1', piece));
        return at(sent, 'wire').length > 0 ? 'delivered' : 'lost';
      };
      const results = `after 63 other fragments ${after(63, 1)}, after 64 ${after(64, 2)}`;
      bed.packets.splice(8, Number.POSITIVE_INFINITY, '... the other fragments, and the new datagrams');
      return results;
    },
  },
  {
    rfc: 791,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'offsets count 8 bytes, all but the last fragment have MF, options with the copy flag go into each',
    quote: 'The copied flag indicates that this option is copied into all fragments on fragmentation.',
    expect: 'lengths in eights, MF in all but the last, options 148 4 0 0 7 3 4 0 and 148 4 0 0 1 1 1 0',
    run(bed) {
      const node = bed.node({ mtu: 1400 });
      // Router Alert (copied) and Record Route (not copied).
      const options = new Uint8Array([148, 4, 0, 0, 7, 3, 4, 0]);
      const packet = udp4({ src: POD, dst: SERVER, options, payload: pattern(1440) });
      const pieces = at(node.exchange('p1', packet), 'wire').map(readIp);
      const last = pieces.length - 1;
      const eights = pieces.every((ip, i) => i === last || ip.payload.length % 8 === 0);
      const more = pieces.every((ip, i) => ip.more === (i !== last));
      const kept = pieces.map(ip => ip.header.subarray(20).join(' ')).join(' and ');
      return `lengths ${yesNo(eights, 'in eights', 'odd')}, MF ${yesNo(more, 'in all but the last', 'wrong')}, options ${kept}`;
    },
  },
  {
    rfc: 791,
    clause: '§2.3',
    level: 'MUST',
    requirement: 'reassembly in any order',
    quote: 'The fragment offset field tells the receiver the position of a fragment in the original datagram.',
    expect: 'all 6 orders delivered',
    run(bed) {
      const orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
      ];
      const node = exit(bed);
      const delivered = orders.filter((order, i) => {
        const pieces = outerPieces(node, 10 + i, 0, 160, 320);
        return (
          sendAll(
            node,
            'wire',
            order.map(j => pieces[j]),
            'p1',
          ) === 'delivered'
        );
      });
      return delivered.length === orders.length ? 'all 6 orders delivered' : `${delivered.length} orders delivered`;
    },
  },
  {
    rfc: 1122,
    clause: '§3.3.2',
    level: 'MUST',
    requirement: 'an incomplete datagram is discarded after a fixed time, of 60 to 120 s',
    quote:
      'There MUST be a reassembly timeout [...] It is recommended that the value lie between 60 seconds and 120 seconds.',
    expect: 'completes after 59 s, not after 61 s',
    deviations: [
      {
        sees: 'completes after 29 s, not after 31 s',
        by: 'IP_FRAG_TIME (include/net/ip.h): net.ipv4.ipfrag_time is 30 s',
      },
    ],
    run(bed) {
      const node = exit(bed);
      const completes = (seconds: number, id: number) => {
        const [first, second] = outerPieces(node, id, 0, 200);
        node.exchange('wire', first);
        node.wait(seconds);
        return fate(node, node.exchange('wire', second), 'p1') === 'delivered';
      };
      for (const [long, short, id] of [
        [61, 59, 1],
        [31, 29, 3],
      ]) {
        if (completes(short, id) && !completes(long, id + 1)) return `completes after ${short} s, not after ${long} s`;
      }
      return 'some other time';
    },
  },
  {
    rfc: 1122,
    clause: '§3.3.2',
    level: 'MUST',
    requirement: 'then the source hears ICMP 11/1, if fragment zero has come',
    quote: 'an ICMP Time Exceeded message sent to the source host (if fragment zero has been received)',
    expect: 'with fragment zero ICMP 11/1 to wire; without it silence',
    run(bed) {
      const hears = (piece: number) => {
        const node = exit(bed);
        node.exchange('wire', outerPieces(node, 5, 0, 200)[piece]);
        const sent = at(node.wait(70), 'wire');
        return sent.length === 0 ? 'silence' : `ICMP ${readIcmp(sent[0]).type}/${readIcmp(sent[0]).code} to wire`;
      };
      return `with fragment zero ${hears(0)}; without it ${hears(1)}`;
    },
  },
  {
    rfc: 1122,
    clause: '§3.3.2',
    level: 'MUST',
    requirement: 'datagrams of any length up to 65535 are put together',
    quote: 'EMTU_R MUST be greater than or equal to 576, SHOULD be either configurable or indefinite',
    expect: 'delivered',
    run(bed) {
      const node = exit(bed);
      const outer = vxlanFromPeer(node, udp4({ src: REMOTE, dst: POD, payload: pattern(60_000) }));
      const pieces: Uint8Array[] = [];
      for (let from = 0; from < outer.length - 20; from += 1480) {
        pieces.push(fragment(outer, from, Math.min(1480, outer.length - 20 - from)));
      }
      return sendAll(node, 'wire', pieces, 'p1');
    },
  },
  {
    rfc: 815,
    clause: '§3',
    level: 'MAY',
    requirement: 'the algorithm of hole descriptors',
    quote: 'Fragment Processing Algorithm',
    reason: 'an algorithm, not a behaviour: two bits for each 8 bytes do the same here, without a limit of holes',
  },
  {
    rfc: 1858,
    clause: '§3.2.1',
    level: 'SHOULD',
    requirement: 'a first fragment too short for the TCP header is dropped',
    quote: 'if FO=0 and PROTOCOL=TCP and TRANSPORTLEN < tmin then DROP PACKET',
    expect: '8 bytes dropped: malformed-l4; 16 bytes dropped: malformed-l4',
    deviations: [
      { sees: '8 bytes delivered; 16 bytes delivered', by: JOINS, profiles: KERNEL },
      {
        sees: '8 bytes dropped: malformed-l4; 16 bytes delivered',
        by: 'ct_lookup4 (bpf/lib/conntrack.h) drops what does not reach to the flags',
        profiles: ['cilium'],
      },
    ],
    run(bed) {
      const node = nat(bed);
      const small = (bytes: number, id: number) => {
        const segment = tcp4({ src: POD, dst: SERVER, sport: 40000 + id, id, flags: 2, payload: pattern(32) });
        const pieces = [fragment(segment, 0, bytes), fragment(segment, bytes, segment.length - 20 - bytes)];
        const first = node.exchange('p1', pieces[0]);
        if (node.dropped.length > 0) return fate(node, first, 'wire');
        return fate(node, [...first, ...node.exchange('p1', pieces[1])], 'wire');
      };
      return `8 bytes ${small(8, 1)}; 16 bytes ${small(16, 2)}`;
    },
  },
  {
    rfc: 1858,
    clause: '§4.2',
    level: 'SHOULD',
    requirement: 'a fragment that could overwrite the TCP header (offset 1) is dropped',
    quote: 'IF FO=1 and PROTOCOL=TCP then DROP PACKET',
    expect: 'dropped: malformed-l4',
    deviations: [
      { sees: 'dropped: fragment-overlap', by: `${JOINS}; what overlaps is dropped then (inet_frag_queue_insert)` },
    ],
    run(bed) {
      const node = nat(bed);
      const segment = tcp4({ src: POD, dst: SERVER, flags: 2, payload: pattern(64) });
      const first = node.exchange('p1', fragment(segment, 0, 40));
      return fate(node, node.exchange('p1', fragment(segment, 8, 40)), first.length > 0 ? 'host' : 'wire');
    },
  },
  {
    rfc: 3128,
    clause: '§3',
    level: 'SHOULD',
    requirement: 'a second first fragment, short and with other ports, does not pass behind a good one',
    quote: 'it is also necessary to block FO=0 that hold less than a complete header',
    expect: 'dropped: malformed-l4',
    deviations: [
      { sees: 'dropped: fragment-overlap', by: `${JOINS}; a second first fragment is an overlap`, profiles: KERNEL },
    ],
    run(bed) {
      const node = nat(bed);
      const good = tcp4({ src: POD, dst: SERVER, dport: 25, flags: 2, payload: pattern(64) });
      const evil = tcp4({ src: POD, dst: SERVER, dport: 23, flags: 2, payload: pattern(64) });
      node.exchange('p1', fragment(good, 0, 40));
      return fate(node, node.exchange('p1', fragment(evil, 0, 8)), 'wire');
    },
  },
  ...(
    [
      ['that pass through', nat, 'p1', 'wire'],
      ['for the node itself', exit, 'wire', 'p1'],
    ] as const
  ).map(
    ([which, make, from, to]): Clause => ({
      rfc: 5722,
      clause: '§4',
      level: 'MUST',
      requirement: `fragments ${which}: overlap discards the whole datagram, what comes of it later included`,
      quote:
        'the entire datagram (and any constituent fragments, including those not yet received) MUST be silently discarded',
      expect: 'dropped: fragment-overlap; the rest dropped: fragment-overlap',
      run(bed) {
        const node = make(bed);
        const whole =
          from === 'p1'
            ? toServer(400)
            : vxlanFromPeer(node, udp4({ src: REMOTE, dst: POD, payload: pattern(400) }), { id: 7 });
        const length = whole.length - 20;
        node.exchange(from, fragment(whole, 0, 200));
        const overlap = fate(node, node.exchange(from, fragment(whole, 160, 80)), to);
        return `${overlap}; the rest ${fate(node, node.exchange(from, fragment(whole, 240, length - 240)), to)}`;
      },
    }),
  ),
  {
    rfc: 8900,
    clause: '§3.7',
    level: 'MAY',
    requirement: 'fragments that can never be completed do not fill the memory: a flood, then an honest datagram',
    quote:
      'An attacker can construct a series of fragmented packets with one fragment missing from each packet so that the reassembly is impossible.',
    expect: 'delivered',
    run(bed) {
      const node = bed.node({ tunnel: 'vxlan', slots: 600 });
      for (let id = 0; id < 3000; id++) node.exchange('wire', outerPieces(node, id, 0, 200)[id & 1]);
      bed.packets.splice(8, Number.POSITIVE_INFINITY, '... 3000 pieces of 3000 datagrams');
      return sendAll(node, 'wire', outerPieces(node, 60_000, 0, 200), 'p1');
    },
  },
];

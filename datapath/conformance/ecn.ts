/** RFC 6040, Tunnelling of Explicit Congestion Notification; RFC 2983, Differentiated Services and Tunnels; RFC 3168. */
import { fragment, pattern, udp4 } from '../packet/build.ts';
import type { Check, Clause } from './check.ts';
import { NO_GENEVE, NO_IPIP } from './check.ts';
import { geneveFromPeer, ipipFromPeer, type TunnelOptions, vxlanFromPeer } from './from-peer.ts';
import { type CheckNode, POD, REMOTE, type Testbed } from './node.ts';
import { at, checksumsOk, fate, innerOf, only, readIp } from './read.ts';

type Protocol = 'ipip' | 'vxlan' | 'geneve';

const TUNNELS: [Protocol, Check['exempt']][] = [
  ['vxlan', undefined],
  ['geneve', NO_GENEVE],
  ['ipip', NO_IPIP],
];

const NAMES = ['Not-ECT', 'ECT(1)', 'ECT(0)', 'CE'];
const NOT_ECT = 0;
const ECT1 = 1;
const ECT0 = 2;
const CE = 3;

const toRemote = (tos: number) => udp4({ src: POD, dst: REMOTE, tos, payload: pattern(32) });

function fromPeer(node: CheckNode, protocol: Protocol, inner: Uint8Array, o: TunnelOptions): Uint8Array {
  if (protocol === 'ipip') return ipipFromPeer(inner, o);
  return protocol === 'vxlan' ? vxlanFromPeer(node, inner, o) : geneveFromPeer(node, inner, o);
}

/** Outer ECN by inner ECN: 'Not-ECT>Not-ECT ...' */
function encapsulations(bed: Testbed, protocol: Protocol): string {
  const node = bed.node({ tunnel: protocol });
  const cells = [NOT_ECT, ECT0, ECT1, CE].map(ecn => {
    const outer = only(node, node.exchange('p1', toRemote(ecn)), 'wire');
    return `${NAMES[ecn]}>${NAMES[readIp(outer).ecn]}`;
  });
  return cells.join(' ');
}

/** What becomes of an inner ECN under each outer one, in the order of RFC 6040's figure 4. */
function decapsulations(bed: Testbed, protocol: Protocol, inner: number): string {
  const node = bed.node({ tunnel: protocol });
  const cells = [NOT_ECT, ECT0, ECT1, CE].map(outer => {
    const packet = udp4({ src: REMOTE, dst: POD, tos: inner, payload: pattern(32) });
    const sent = node.exchange('wire', fromPeer(node, protocol, packet, { tos: outer }));
    const [delivered] = at(sent, 'p1');
    if (delivered === undefined) return fate(node, sent, 'p1') === 'dropped: tunnel-ecn' ? 'drop' : 'lost';
    return checksumsOk(delivered) ? NAMES[readIp(delivered).ecn] : 'wrong header checksum';
  });
  return cells.join(' ');
}

const ROWS: [inner: number, expected: string, quote: string][] = [
  [
    NOT_ECT,
    'Not-ECT Not-ECT Not-ECT drop',
    'If the inner ECN field is Not-ECT and the outer ECN field is CE, the decapsulator MUST drop the packet.',
  ],
  [ECT0, 'ECT(0) ECT(0) ECT(1) CE', 'MUST set the outgoing ECN field to the more severe marking'],
  [ECT1, 'ECT(1) ECT(1) ECT(1) CE', 'MUST set the outgoing ECN field to the more severe marking'],
  [CE, 'CE CE CE CE', 'MUST set the outgoing ECN field to the more severe marking'],
];

export const ECN: Clause[] = [
  ...TUNNELS.map(
    ([protocol, exempt]): Clause => ({
      rfc: 6040,
      clause: '§4.1',
      level: 'MUST',
      requirement: `${protocol}: normal mode copies the inner ECN to the outer header`,
      quote: 'MUST construct the outer encapsulating IP header by copying the',
      expect: 'Not-ECT>Not-ECT ECT(0)>ECT(0) ECT(1)>ECT(1) CE>CE',
      deviations: [
        {
          sees: 'Not-ECT>Not-ECT ECT(0)>ECT(0) ECT(1)>ECT(1) CE>ECT(0)',
          by: 'INET_ECN_encapsulate (include/net/inet_ecn.h) turns CE into ECT(0), as RFC 3168 section 9.1.1 wanted it',
        },
      ],
      exempt,
      run: bed => encapsulations(bed, protocol),
    }),
  ),
  ...TUNNELS.flatMap(([protocol, exempt]) =>
    ROWS.map(
      ([inner, expected, quote]): Clause => ({
        rfc: 6040,
        clause: '§4.2',
        level: 'MUST',
        requirement: `${protocol}: inner ${NAMES[inner]} under outer Not-ECT, ECT(0), ECT(1), CE`,
        quote,
        expect: expected,
        exempt,
        run: bed => decapsulations(bed, protocol, inner),
      }),
    ),
  ),
  {
    rfc: 6040,
    clause: '§4.2',
    level: 'SHOULD',
    requirement:
      'combinations that nobody produces are counted: CE under ECT(1), ECT(1) under ECT(0), Not-ECT under either',
    quote: 'particularly the more dangerous ones, the decapsulator SHOULD log the event',
    expect: '4 of 4 counted',
    deviations: [
      {
        sees: '2 of 4 counted',
        by: '__INET_ECN_decapsulate (include/net/inet_ecn.h) reports only what is under Not-ECT',
      },
    ],
    run(bed) {
      const node = bed.node({ tunnel: 'vxlan' });
      const odd = [
        [NOT_ECT, ECT0],
        [NOT_ECT, ECT1],
        [ECT1, ECT0],
        [CE, ECT1],
      ];
      for (const [inner, outer] of odd) {
        const packet = udp4({ src: REMOTE, dst: POD, tos: inner, payload: pattern(32) });
        node.exchange('wire', vxlanFromPeer(node, packet, { tos: outer }));
      }
      return `${node.event('ecn-odd-combination')} of 4 counted`;
    },
  },
  ...TUNNELS.map(
    ([protocol, exempt]): Clause => ({
      rfc: 2983,
      clause: '§3.1',
      level: 'MAY',
      requirement: `${protocol}: DSCP in the uniform or in the pipe model, the inner one never changed on the way in`,
      quote: 'copy the DSCP value to the outer IP header at encapsulation',
      expect: ['outer 46, inner 46', 'outer 0, inner 46'],
      exempt,
      run(bed) {
        const node = bed.node({ tunnel: protocol });
        const outer = only(node, node.exchange('p1', toRemote(46 << 2)), 'wire');
        return `outer ${readIp(outer).dscp}, inner ${readIp(innerOf(outer)).dscp}`;
      },
    }),
  ),
  {
    rfc: 3168,
    clause: '§5.3',
    level: 'MUST',
    requirement: 'reassembly does not lose CE: ECT(0) and CE give CE',
    quote: 'Reassembly of a fragmented packet MUST NOT lose indications of congestion.',
    expect: 'CE',
    run: bed => reassembledEcn(bed, ECT0, CE),
  },
  {
    rfc: 3168,
    clause: '§5.3',
    level: 'MUST',
    requirement: 'CE beside Not-ECT: the datagram is dropped',
    quote:
      'this MUST NOT occur if any of the other fragments contributing to this reassembly carries the Not-ECT codepoint',
    expect: 'dropped: fragment-ecn',
    run: bed => reassembledEcn(bed, NOT_ECT, CE),
  },
];

/** ECN of an inner ECT(0) packet after its tunnel packet came in two fragments with these. */
function reassembledEcn(bed: Testbed, first: number, second: number): string {
  const node = bed.node({ tunnel: 'vxlan' });
  const inner = udp4({ src: REMOTE, dst: POD, tos: ECT0, payload: pattern(200) });
  const pieces = [first, second].map((tos, i) => {
    const outer = vxlanFromPeer(node, inner, { tos, id: 99 });
    return i === 0 ? fragment(outer, 0, 104) : fragment(outer, 104, outer.length - 20 - 104);
  });
  node.exchange('wire', pieces[0]);
  const sent = node.exchange('wire', pieces[1]);
  const [delivered] = at(sent, 'p1');
  return delivered === undefined ? fate(node, sent, 'p1') : NAMES[readIp(delivered).ecn];
}

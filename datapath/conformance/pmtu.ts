/** Path MTU: RFC 1191 and what became of it; the four ways of RFC 4459. */
import { fragment as cut, icmpError, patch, pattern, tcp4, udp4 } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { type Clause, NO_GENEVE } from './check.ts';
import { vxlanFromPeer } from './from-peer.ts';
import { type CheckNode, GATEWAY, NODE, PEER, POD, REMOTE, SERVER, type Testbed } from './node.ts';
import { at, fate, innerOf, only, readIcmp, readIp, same, viewOf, yesNo } from './read.ts';

const DF = ipv4.FLAG_DF;
const toServer = (o: Parameters<typeof udp4>[0] = {}) => udp4({ src: POD, dst: SERVER, ...o });
/** An inner packet of `length` bytes to the far pod. */
const toRemote = (length: number, o: Parameters<typeof udp4>[0] = {}) =>
  udp4({ src: POD, dst: REMOTE, payload: pattern(length - 28), fragment: DF, ...o });

/**
 * Soft state of a path, seen from the pod: the MTU that it is told when its next packet does not fit, or 'fits'.
 * Of the tunnel's own packets only those with DF can be answered with "fragmentation needed".
 */
function tunnelNode(bed: Testbed, tunnel: 'vxlan' | 'geneve' = 'vxlan'): CheckNode {
  return bed.node({ tunnel, spec: { tunnel: { ...TUNNEL_WITH_DF, protocol: tunnel } } });
}

const TUNNEL_WITH_DF = {
  protocol: 'vxlan',
  vni: 7,
  mac: '02:42:0a:f4:01:00',
  peers: [{ address: PEER, mac: '02:42:0a:f4:02:00' }],
  df: 'set',
};

/** A router in the underlay refuses a packet of `length` inner bytes. */
function refuse(node: CheckNode, mtu: number, length = 1450, change = (quoted: Uint8Array) => quoted) {
  const outer = only(node, node.exchange('p1', toRemote(length)), 'wire');
  const quoted = change(outer).subarray(0, 78);
  return node.exchange('wire', icmpError(3, 4, quoted, { src: GATEWAY, dst: NODE, mtu }));
}

/** What a pod is told about a packet of that length: the inner MTU, or 'fits'. */
function told(node: CheckNode, length: number): string {
  const sent = node.exchange('p1', toRemote(length));
  const [error] = at(sent, 'p1');
  if (error !== undefined) return `MTU ${readIcmp(error).mtu}`;
  return at(sent, 'wire').length > 0 ? 'fits' : fate(node, sent, 'wire');
}

/** RFC 4459: the way of a node, the underlay's MTU and what comes out of a packet that is too big for it. */
function tooBigNode(bed: Testbed, tooBig: string, mtu = 1500): CheckNode {
  return bed.node({ tunnel: 'vxlan', mtu, spec: { mtu: { tooBig } } });
}

export const PMTU: Clause[] = [
  {
    rfc: 1191,
    clause: '§3',
    level: 'MUST',
    requirement: 'no message lowers the path MTU below 68',
    quote: 'A host MUST never reduce its estimate of the Path MTU below 68 octets.',
    // And so no sender is told of less, though the tunnel's headers leave 18 of 68.
    expect: 'MTU 68',
    deviations: [
      {
        sees: 'MTU 502',
        by: '__ip_rt_update_pmtu (net/ipv4/route.c) stops at min_pmtu, 552, and locks it: 502 in the tunnel',
      },
    ],
    run(bed) {
      const node = tunnelNode(bed);
      refuse(node, 20);
      return told(node, 1450);
    },
  },
  {
    rfc: 1191,
    clause: '§3',
    level: 'MUST',
    requirement: 'no message raises the path MTU',
    quote:
      'A host MUST not increase its estimate of the Path MTU in response to the contents of a Datagram Too Big message.',
    expect: 'MTU 1250, then MTU 1250',
    run(bed) {
      const node = tunnelNode(bed);
      // Both are about packets that were under way before the first message came.
      const outer = only(node, node.exchange('p1', toRemote(1450)), 'wire').subarray(0, 78);
      const message = (mtu: number) => icmpError(3, 4, outer, { src: GATEWAY, dst: NODE, mtu });
      node.exchange('wire', message(1300));
      const before = told(node, 1450);
      node.exchange('wire', message(1400));
      return `${before}, then ${told(node, 1450)}`;
    },
  },
  {
    rfc: 1191,
    clause: '§4',
    level: 'MUST',
    requirement: 'a router fills in the next-hop MTU, the 16 bits before it are 0',
    quote:
      'the router MUST include the MTU of that next-hop network in the low-order 16 bits [...] high-order 16 bits [...] MUST be set to zero',
    expect: '0, 1400',
    run(bed) {
      const node = bed.node({ mtu: 1400 });
      const error = only(node, node.exchange('p1', toServer({ fragment: DF, payload: pattern(1472) })), 'p1');
      const view = viewOf(readIp(error).payload);
      return `${view.getUint16(4)}, ${view.getUint16(6)}`;
    },
  },
  {
    rfc: 1191,
    clause: '§4',
    level: 'MUST',
    requirement: 'the MTU told is the largest that really passes, into the tunnel as well',
    quote:
      'The size in octets of the largest datagram that could be forwarded [...] without being fragmented at this router',
    expect: 'MTU 1450; 1450 fits; 1451 MTU 1450',
    run(bed) {
      const node = bed.node({ tunnel: 'vxlan' });
      return `${told(node, 1500)}; 1450 ${told(node, 1450)}; 1451 ${told(node, 1451)}`;
    },
  },
  {
    rfc: 1191,
    clause: '§5',
    level: 'MAY',
    requirement: 'an MTU of 0, from an old router: down to the next plateau of section 7',
    quote:
      'If the Total Length field returned is not less than the current PMTU estimate, it must be reduced by 4 times the value of the returned Header Length field',
    // 1500 less the header that routers derived from 4.2BSD count twice, then the next lower row of the table.
    expect: 'MTU 956, of a path of 1006',
    deviations: [
      {
        sees: 'MTU 502, of a path of 552',
        by: '__ip_rt_update_pmtu (net/ipv4/route.c) takes min_pmtu for anything below it, 0 included',
      },
    ],
    run(bed) {
      const node = tunnelNode(bed);
      refuse(node, 0);
      const mtu = told(node, 1450);
      return `${mtu}, of a path of ${Number(mtu.replace('MTU ', '')) + 50}`;
    },
  },
  {
    rfc: 1191,
    clause: '§6.3',
    level: 'SHOULD',
    requirement: 'what was learnt is forgotten after 10 minutes',
    quote:
      'When a PMTU value has not been decreased for a while (on the order of 10 minutes), the PMTU estimate should be set to the first-hop data-link MTU',
    expect: 'MTU 1350, after 590 s MTU 1350, after 610 s fits',
    run(bed) {
      const node = tunnelNode(bed);
      refuse(node, 1400);
      const first = told(node, 1450);
      node.wait(590);
      const before = told(node, 1450);
      node.wait(20);
      return `${first}, after 590 s ${before}, after 610 s ${told(node, 1450)}`;
    },
  },
  ...(
    [
      ['a port that we never sent from', (quoted: Uint8Array) => patch(quoted, 20, 0, 7)],
      ['another VNI', (quoted: Uint8Array) => patch(quoted, 34, 0xee)],
      ['a host that is no peer', (quoted: Uint8Array) => patch(quoted, 19, 99)],
      ['an inner flow that does not go with its source port', (quoted: Uint8Array) => patch(quoted, 50 + 19, 77)],
    ] as const
  ).map(
    ([what, change]): Clause => ({
      rfc: 8085,
      clause: '§5.2',
      level: 'SHOULD',
      requirement: `"fragmentation needed" is refused where the quote shows ${what}`,
      quote:
        'SHOULD appropriately validate the payload of ICMP messages to ensure these are received in response to transmitted traffic',
      expect: 'fits',
      run(bed) {
        const node = tunnelNode(bed);
        refuse(node, 1300, 1450, change);
        return told(node, 1450);
      },
    }),
  ),
  ...(['vxlan', 'geneve'] as const).map(
    (tunnel): Clause => ({
      rfc: 792,
      clause: '§3/4',
      level: 'MAY',
      requirement: `${tunnel}: "fragmentation needed" from a router that quotes 8 bytes, and so no VNI, lowers the path MTU`,
      quote: "The internet header plus the first 64 bits of the original datagram's data.",
      expect: 'MTU 1250',
      deviations: [
        {
          sees: 'fits',
          by: `${tunnel === 'vxlan' ? 'vxlan_err_lookup (drivers/net/vxlan/vxlan_core.c)' : 'geneve_udp_encap_err_lookup (drivers/net/geneve.c)'} wants the tunnel header, with a VNI that it knows: what a forger cannot guess`,
        },
      ],
      exempt: tunnel === 'geneve' ? NO_GENEVE : {},
      run(bed) {
        const node = bed.node({ tunnel, df: 'set' });
        refuse(node, 1300, 1450, quoted => quoted.subarray(0, 28));
        return told(node, 1450);
      },
    }),
  ),
  ...(['vxlan', 'geneve'] as const).map(
    (tunnel): Clause => ({
      rfc: 792,
      clause: '§3/4',
      level: 'SHOULD',
      requirement: `${tunnel}: "fragmentation needed" that quotes a VNI that the node has not is not believed`,
      quote: "The internet header plus the first 64 bits of the original datagram's data.",
      expect: 'with another one not believed, with its own believed',
      exempt: tunnel === 'geneve' ? NO_GENEVE : {},
      run(bed) {
        const node = bed.node({ tunnel, df: 'set' });
        refuse(node, 1300, 1450, quoted => patch(quoted, 32, 0, 0, 99));
        // What the kernel knows, it tells nobody for whom it only forwards (ip_forward_use_pmtu 0).
        const believed = () => yesNo(told(node, 1450) === 'fits', 'not believed', 'believed');
        const forged = believed();
        refuse(node, 1300);
        return `with another one ${forged}, with its own ${believed()}`;
      },
    }),
  ),
  {
    rfc: 4459,
    clause: '§3.1',
    level: 'MAY',
    requirement: 'fragment-outer: the outer packet is cut, and put together at the exit',
    quote: 'fragmentation of the outer packet by the encapsulator and reassembly by the decapsulator',
    expect: '2 outer fragments, at the exit as sent',
    run(bed) {
      const node = tooBigNode(bed, 'fragment-outer');
      const sent = toRemote(1500);
      const pieces = at(node.exchange('p1', sent), 'wire');
      const cut = pieces.filter(bytes => readIp(bytes).more || readIp(bytes).offset > 0).length;
      return `${cut} outer fragments, at the exit ${yesNo(sameButHop(joined(pieces), sent), 'as sent', 'changed')}`;
    },
  },
  {
    rfc: 4459,
    clause: '§3.1',
    level: 'MAY',
    requirement: 'the exit puts outer fragments together, in any order',
    quote: 'reassembly by the decapsulator',
    expect: 'delivered',
    run(bed) {
      const far = tooBigNode(bed, 'fragment-outer');
      const big = udp4({ src: REMOTE, dst: POD, payload: pattern(1472) });
      const outer = vxlanFromPeer(far, big);
      const cuts = [cut(outer, 1040, outer.length - 20 - 1040), cut(outer, 0, 520), cut(outer, 520, 520)];
      far.exchange('wire', cuts[0]);
      far.exchange('wire', cuts[1]);
      return fate(far, far.exchange('wire', cuts[2]), 'p1');
    },
  },
  {
    rfc: 4459,
    clause: '§3.2',
    level: 'MAY',
    requirement: 'signal: with DF the source is told the lower MTU',
    quote: 'if the IPv4-only DF bit is set, the router sends an ICMP Packet Too Big message to the source',
    expect: 'MTU 1450',
    run: bed => told(tooBigNode(bed, 'signal'), 1500),
  },
  {
    rfc: 4459,
    clause: '§3.2',
    level: 'MAY',
    requirement: "signal: the underlay's Packet Too Big adjusts the tunnel's MTU, and the source hears of it at once",
    quote:
      '(1) adjusts the tunnel MTU, and (2) originates an ICMP Packet Too Big message to the source address of the encapsulated packet',
    expect: 'ICMP 3/4, MTU 1350, to p1; then MTU 1350',
    run(bed) {
      const node = tunnelNode(bed);
      const heard = refuse(node, 1400);
      return `${fate(node, heard, 'wire')}; then ${told(node, 1450)}`;
    },
  },
  {
    rfc: 4459,
    clause: '§3.2',
    level: 'MAY',
    requirement: 'MSS clamping: the option of a SYN is lowered to what passes',
    quote: "the TCP packets' Maximum Segment Size (MSS) is reduced by tunnel endpoints",
    expect: 'MSS 1410',
    run(bed) {
      const node = bed.node({ tunnel: 'vxlan', spec: { mtu: { clampMss: true } } });
      const outer = only(node, node.exchange('p1', synWithMss(1460)), 'wire');
      return `MSS ${viewOf(innerOf(outer)).getUint16(20 + 20 + 2)}`;
    },
  },
  {
    rfc: 4459,
    clause: '§3.3',
    level: 'MAY',
    requirement: 'larger-underlay: all that a pod sends fits with the headers on',
    quote: 'all the encapsulated packets would always fit MTU-wise in the backbone links',
    expect: '1500 fits, 1550 on the wire',
    run(bed) {
      const node = tooBigNode(bed, 'larger-underlay', 1600);
      const outer = only(node, node.exchange('p1', toRemote(1500)), 'wire');
      return `1500 fits, ${outer.length} on the wire`;
    },
  },
  {
    rfc: 4459,
    clause: '§3.4',
    level: 'MAY',
    requirement: 'fragment-inner: the inner packet is cut before the tunnel, whatever its DF says',
    quote: 'fragmenting the inner packet, before encapsulation, in such a manner that the encapsulated packet fits',
    expect: '2 whole outer packets, DF of the fragments clear',
    run(bed) {
      const node = tooBigNode(bed, 'fragment-inner');
      const outer = at(node.exchange('p1', toRemote(1500)), 'wire');
      const whole = outer.every(bytes => !readIp(bytes).more && readIp(bytes).offset === 0);
      const clear = outer.every(bytes => !readIp(innerOf(bytes)).df);
      return `${outer.length} ${yesNo(whole, 'whole outer packets', 'outer fragments')}, DF of the fragments ${yesNo(clear, 'clear', 'set')}`;
    },
  },
  {
    rfc: 8201,
    clause: '§4',
    level: 'MUST',
    requirement: 'Packet Too Big below 1280 is discarded',
    quote:
      'A node must not reduce its estimate of the Path MTU below the IPv6 minimum link MTU on receipt of a Packet Too Big message.',
    reason: 'the datapath speaks IPv4 only',
  },
  {
    rfc: 8899,
    clause: '§3',
    level: 'MAY',
    requirement: 'packetization layer path MTU discovery (also RFC 4821)',
    quote: 'Unlike TCP, a datagram PL requires additional mechanisms and considerations to implement PLPMTUD.',
    reason: "a duty of the transport at the ends; the node's own probes are those of `tunpath mtu`",
  },
];

/** A SYN with an MSS option. */
function synWithMss(mss: number): Uint8Array {
  return tcp4({ src: POD, dst: REMOTE, flags: 2, tcpOptions: new Uint8Array([2, 4, mss >> 8, mss & 255]) });
}

/** The inner packet of outer fragments, in whatever order. */
function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const parts = pieces.map(readIp).sort((a, b) => a.offset - b.offset);
  return Uint8Array.from(parts.flatMap(ip => [...ip.payload])).subarray(30);
}

/** Equal but for TTL and header checksum. */
function sameButHop(a: Uint8Array, b: Uint8Array): boolean {
  const plain = (bytes: Uint8Array) => patch(patch(bytes, ipv4.TTL, 0), ipv4.CHECKSUM, 0, 0);
  return same(plain(a), plain(b));
}

/** RFC 2003, IP Encapsulation within IP. */
import { icmpError, patch, pattern, udp4 } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Clause } from './check.ts';
import { KERNEL, NO_IPIP } from './check.ts';
import { ipipFromPeer } from './from-peer.ts';
import { type CheckNode, GATEWAY, NODE, PEER, POD, REMOTE, type Testbed } from './node.ts';
import { at, fate, innerOf, only, readIcmp, readIp, same, yesNo } from './read.ts';

const ipipNode = (bed: Testbed) => bed.node({ tunnel: 'ipip' });
const toRemote = (o: Parameters<typeof udp4>[0] = {}) => udp4({ src: POD, dst: REMOTE, payload: pattern(32), ...o });
const toPod = (o: Parameters<typeof udp4>[0] = {}) => udp4({ src: REMOTE, dst: POD, payload: pattern(32), ...o });

/** The outer packet that a packet to the far pod becomes. */
function encapsulated(bed: Testbed, o: Parameters<typeof udp4>[0] = {}): Uint8Array {
  const node = ipipNode(bed);
  return only(node, node.exchange('p1', toRemote(o)), 'wire');
}

/** What the pod hears of an ICMP message that a router in the tunnel sends about its packet. */
function relayed(bed: Testbed, type: number, code: number, mtu = 0): string {
  const node = ipipNode(bed);
  const outer = only(node, node.exchange('p1', toRemote({ fragment: ipv4.FLAG_DF, payload: pattern(1400) })), 'wire');
  const error = icmpError(type, code, withDf(outer).subarray(0, 60), { src: GATEWAY, dst: NODE, mtu });
  return heardBy(node, node.exchange('wire', error));
}

/** The quoted outer packet, DF set as that of path MTU discovery is. */
function withDf(outer: Uint8Array): Uint8Array {
  return patch(outer, ipv4.FLAGS_FRAGMENT, 0x40);
}

function heardBy(node: CheckNode, sent: Parameters<typeof fate>[1]): string {
  const errors = at(sent, 'p1');
  if (errors.length === 0) return fate(node, sent, 'p1');
  const { type, code, mtu, quote } = readIcmp(errors[0]);
  const about = same(quote.subarray(12, 20), toRemote().subarray(12, 20)) ? 'its packet' : 'something else';
  return `ICMP ${type}/${code}${mtu === 0 ? '' : `, MTU ${mtu}`}, about ${about}`;
}

const NOT_RELAYED = 'dropped: tunnel-error';
const TUNL0 = {
  sees: NOT_RELAYED,
  by: 'ipip_err (net/ipv4/ipip.c) tells nobody where the device has no remote, as tunl0 of Calico and flannel',
};

const CLAUSES: Clause[] = [
  {
    rfc: 2003,
    clause: '§3',
    level: 'MUST',
    requirement: 'outer header: protocol 4, no options, from the entry to the exit of the tunnel',
    quote: 'The outer IP header Source Address and Destination Address identify the "endpoints" of the tunnel.',
    expect: `protocol 4, 20 bytes, ${NODE} > ${PEER}`,
    run(bed) {
      const node = ipipNode(bed);
      // Record Route: an option that must stay inside.
      const options = new Uint8Array([7, 7, 4, 0, 0, 0, 0, 0]);
      const outer = only(node, node.exchange('p1', toRemote({ options })), 'wire');
      const { protocol, header, src, dst } = readIp(outer);
      return `protocol ${protocol}, ${header.length} bytes, ${src} > ${dst}`;
    },
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'the type of service is copied to the outer header',
    quote: 'The Type of Service (TOS) is copied from the inner IP header.',
    expect: 'DSCP 46',
    deviations: [
      {
        sees: 'DSCP 0',
        by: 'ip_tunnel_xmit (net/ipv4/ip_tunnel.c) copies it only for a device with "tos inherit"',
        profiles: KERNEL,
      },
    ],
    run: bed => `DSCP ${readIp(encapsulated(bed, { tos: 46 << 2 })).dscp}`,
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'inner DF is set in the outer header',
    quote: `if the "Don't Fragment" bit is set in the inner IP header, it MUST be set in the outer IP header`,
    expect: 'DF set',
    run: bed => yesNo(readIp(encapsulated(bed, { fragment: ipv4.FLAG_DF })).df, 'DF set', 'DF clear'),
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'the outer TTL is enough for the tunnel, whatever the inner one',
    quote: 'set to a value appropriate for delivery of the encapsulated datagram to the tunnel exit point',
    expect: 'inner 3, outer 64',
    deviations: [
      {
        sees: 'inner 3, outer 3',
        by: 'ip_tunnel_xmit (net/ipv4/ip_tunnel.c) takes the inner TTL for a device with ttl 0, as tunl0 is',
        profiles: KERNEL,
      },
    ],
    run(bed) {
      const outer = encapsulated(bed, { ttl: 4 });
      return `inner ${readIp(innerOf(outer)).ttl}, outer ${readIp(outer).ttl}`;
    },
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'the inner TTL is decremented once as part of forwarding, nothing else of the inner header changes',
    quote: 'the TTL in the inner IP header is decremented by one if the tunneling is being done as part of forwarding',
    expect: 'TTL 64 to 63, the rest as it was',
    run(bed) {
      const node = ipipNode(bed);
      const sent = toRemote({ tos: 0xb8, id: 0x7777 });
      const inner = innerOf(only(node, node.exchange('p1', sent), 'wire'));
      const rest = same(mask(inner), mask(sent));
      return `TTL 64 to ${readIp(inner).ttl}, ${yesNo(rest, 'the rest as it was', 'more has changed')}`;
    },
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'SHOULD',
    requirement: 'a TTL that becomes 0 ends the datagram, with ICMP time exceeded, unencapsulated',
    quote: 'the datagram is discarded and an ICMP Time Exceeded message SHOULD be returned to the sender',
    expect: 'ICMP 11/0 to p1',
    run(bed) {
      const node = ipipNode(bed);
      return fate(node, node.exchange('p1', toRemote({ ttl: 1 })), 'wire');
    },
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'a datagram with TTL 0 is not delivered after decapsulation',
    quote: 'If, after decapsulation, the inner datagram has TTL = 0, the decapsulator MUST discard the datagram.',
    expect: 'not delivered',
    run(bed) {
      const node = ipipNode(bed);
      const reached = at(node.exchange('wire', ipipFromPeer(toPod({ ttl: 0 }))), 'p1').length > 0;
      return yesNo(reached, 'delivered', 'not delivered');
    },
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'decapsulation leaves the inner TTL alone, forwarding takes off one',
    quote: 'The TTL in the inner IP header is not changed when decapsulating.',
    expect: 'TTL 64 to 63',
    run(bed) {
      const node = ipipNode(bed);
      return `TTL 64 to ${readIp(only(node, node.exchange('wire', ipipFromPeer(toPod(), { ttl: 7 })), 'p1')).ttl}`;
    },
  },
  {
    rfc: 2003,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'no fragmentation where inner DF is set',
    quote: `use of fragmentation is allowed unless the "Don't Fragment" bit is set in the inner IP header`,
    expect: 'ICMP 3/4, MTU 1480, to p1',
    run(bed) {
      const node = ipipNode(bed);
      const big = toRemote({ fragment: ipv4.FLAG_DF, payload: pattern(1460) });
      return fate(node, node.exchange('p1', big), 'wire');
    },
  },
  {
    rfc: 2003,
    clause: '§3.2',
    level: 'MUST',
    requirement: "a datagram from outside that bears the node's own address is not tunnelled",
    quote:
      "If the IP Source Address of the datagram matches the router's own IP address [...] MUST NOT tunnel the datagram",
    expect: 'dropped: martian-source',
    run(bed) {
      const node = ipipNode(bed);
      return fate(node, node.exchange('wire', udp4({ src: NODE, dst: REMOTE })), 'wire');
    },
  },
  {
    rfc: 2003,
    clause: '§3.2',
    level: 'MUST',
    requirement: 'a datagram from the exit of the tunnel is not sent into it',
    quote: 'matches the IP address of the tunnel destination [...] the router MUST NOT tunnel the datagram',
    expect: 'dropped: route-loop',
    deviations: [
      {
        sees: 'delivered',
        by: 'ip_tunnel_xmit (net/ipv4/ip_tunnel.c) looks only whether the route leads back into the same device',
        profiles: KERNEL,
      },
    ],
    run(bed) {
      const node = ipipNode(bed);
      return fate(node, node.exchange('wire', udp4({ src: PEER, dst: REMOTE })), 'wire');
    },
  },
  {
    rfc: 2003,
    clause: '§4.1',
    level: 'MUST',
    requirement: 'Datagram Too Big is relayed to the inner sender, its MTU less the outer header',
    quote: 'The encapsulator MUST relay ICMP Datagram Too Big messages to the sender',
    expect: 'ICMP 3/4, MTU 1380, about its packet',
    run: bed => relayed(bed, 3, 4, 1400),
  },
  {
    rfc: 2003,
    clause: '§4.1',
    level: 'SHOULD',
    requirement: 'Network Unreachable is returned to the inner sender',
    quote: 'Network Unreachable (Code 0) [...] An ICMP Destination Unreachable message SHOULD be returned',
    expect: 'ICMP 3/0, about its packet',
    deviations: [TUNL0],
    run: bed => relayed(bed, 3, 0),
  },
  {
    rfc: 2003,
    clause: '§4.1',
    level: 'SHOULD',
    requirement: 'Host Unreachable is relayed to the inner sender',
    quote:
      'The encapsulator SHOULD relay Host Unreachable messages to the sender of the original unencapsulated datagram',
    expect: 'ICMP 3/1, about its packet',
    deviations: [TUNL0],
    run: bed => relayed(bed, 3, 1),
  },
  {
    rfc: 2003,
    clause: '§4.1',
    level: 'SHOULD',
    requirement: 'Protocol Unreachable becomes Host Unreachable: the sender did not send protocol 4',
    quote: 'it SHOULD send a Destination Unreachable message with Code 0 or 1',
    expect: 'ICMP 3/1, about its packet',
    deviations: [TUNL0],
    run: bed => relayed(bed, 3, 2),
  },
  ...(
    [
      ['§4.1', 'Port Unreachable', 3, 3, 'It MUST NOT be relayed'],
      ['§4.1', 'Source Route Failed', 3, 5, 'It MUST NOT be relayed'],
      ['§4.2', 'Source Quench', 4, 0, 'The encapsulator SHOULD NOT relay ICMP Source Quench messages'],
      ['§4.3', 'Redirect', 5, 1, 'It MUST NOT not relay the Redirect to the sender'],
    ] as const
  ).map(
    ([clause, message, type, code, quote]): Clause => ({
      rfc: 2003,
      clause,
      level: message === 'Source Quench' ? 'SHOULD' : 'MUST',
      requirement: `${message} is not relayed`,
      quote,
      expect: NOT_RELAYED,
      run: bed => relayed(bed, type, code),
    }),
  ),
  {
    rfc: 2003,
    clause: '§4.4',
    level: 'MUST',
    requirement: 'Time Exceeded in the tunnel is reported as Host Unreachable',
    quote:
      'MUST be reported to the sender of the original unencapsulated datagram as Host Unreachable (Type 3, Code 1)',
    expect: 'ICMP 3/1, about its packet',
    deviations: [TUNL0],
    run: bed => relayed(bed, 11, 0),
  },
  {
    rfc: 2003,
    clause: '§5.1',
    level: 'MUST',
    requirement: 'the MTU of the tunnel is kept: the next packet that is too big is answered at once',
    quote: 'all encapsulator implementations MUST support Path MTU Discovery [5, 7] soft state within their tunnels',
    expect: 'ICMP 3/4, MTU 1380, to p1',
    run(bed) {
      const node = ipipNode(bed);
      const big = toRemote({ fragment: ipv4.FLAG_DF, payload: pattern(1400) });
      const outer = only(node, node.exchange('p1', big), 'wire');
      node.exchange('wire', icmpError(3, 4, withDf(outer).subarray(0, 60), { src: GATEWAY, dst: NODE, mtu: 1400 }));
      return fate(node, node.exchange('p1', big), 'wire');
    },
  },
  {
    rfc: 2003,
    clause: '§5.1',
    level: 'SHOULD',
    requirement: 'path MTU discovery: outer DF is set even where inner DF is not',
    quote: `requiring it to send all datagrams into the tunnel with the "Don't Fragment" bit set in the outer IP header`,
    expect: 'DF set',
    deviations: [
      {
        sees: 'DF clear',
        by: 'ip_tunnel_xmit (net/ipv4/ip_tunnel.c) copies inner DF for a device with nopmtudisc, as tunl0 is',
        profiles: KERNEL,
      },
    ],
    run: bed => yesNo(readIp(encapsulated(bed)).df, 'DF set', 'DF clear'),
  },
  {
    rfc: 2003,
    clause: '§5.1',
    level: 'SHOULD',
    requirement: 'a datagram without DF is fragmented before it is encapsulated, not after',
    quote: 'it is much better to fragment the original datagram when encapsulating',
    expect: '2 whole outer packets',
    run(bed) {
      const node = ipipNode(bed);
      const outer = at(node.exchange('p1', toRemote({ payload: pattern(1460) })), 'wire').map(readIp);
      const whole = outer.every(ip => !ip.more && ip.offset === 0);
      return `${outer.length} ${yesNo(whole, 'whole outer packets', 'outer fragments')}`;
    },
  },
];

export const IPIP: Clause[] = CLAUSES.map(clause => ({ ...clause, exempt: NO_IPIP }));

/** A copy without TTL and header checksum. */
function mask(packet: Uint8Array): Uint8Array {
  return patch(patch(packet, ipv4.TTL, 0), ipv4.CHECKSUM, 0, 0);
}

/** RFC 5508, NAT Behavioral Requirements for ICMP; the parts of RFC 7857 that change it. */
import { icmpEcho, icmpError, patch, pattern, tcp4, udp4 } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Clause } from './check.ts';
import { A, B, DF, livesFor, mappedId, mappedPort, natNode } from './nat-rig.ts';
import { perFlow } from './nat-udp.ts';
import { type CheckNode, GATEWAY, HOST, NODE, POD, POD2, SERVER, SERVER2, type Testbed } from './node.ts';
import { at, checksumsOk, fate, only, readIcmp, readIp, same, yesNo } from './read.ts';

const ping = (o: Parameters<typeof icmpEcho>[0] = {}) => icmpEcho({ src: POD, dst: SERVER, icmpId: 77, ...o });
const pong = (icmpId: number, src = SERVER) => icmpEcho({ src, dst: NODE, type: 0, icmpId });
const sent = (o: Parameters<typeof udp4>[0] = {}) => udp4({ src: POD, sport: 40_000, dst: SERVER, ...o });

/** An error of a router about what a pod has sent, as the router saw it. */
function errorAbout(node: CheckNode, packet: Uint8Array, change = (quoted: Uint8Array) => quoted): Uint8Array {
  const seen = only(node, node.exchange('p1', packet), 'wire');
  return icmpError(3, 1, change(seen), { src: GATEWAY, dst: NODE });
}

/** 'ICMP 3/1 to p1, quoting what it sent' */
function heard(node: CheckNode, error: Uint8Array, original: Uint8Array, to: 'p1' | 'wire' = 'p1'): string {
  const out = node.exchange(to === 'p1' ? 'wire' : 'p1', error);
  const [packet] = at(out, to);
  if (packet === undefined) return fate(node, out, to);
  const { type, code, quote } = readIcmp(packet);
  const header = (original[0] & 15) * 4;
  const length = Math.min(quote.length, original.length, header + 8);
  // Addresses and what follows them; TTL and checksum are the way's.
  const known = same(quote.subarray(12, length), original.subarray(12, length));
  const valid = checksumsOk(packet) ? '' : ', checksum wrong';
  return `ICMP ${type}/${code} to ${readIp(packet).dst}, quoting ${yesNo(known, 'what it sent', 'something else')}${valid}`;
}

const TO_POD = `ICMP 3/1 to ${POD}, quoting what it sent`;

export const NAT_ICMP: Clause[] = [
  {
    rfc: 5508,
    clause: 'REQ-1',
    level: 'MUST',
    requirement: 'queries from inside pass, and so do their answers: echo and timestamp',
    quote: 'a NAT device MUST permit ICMP Queries and their associated responses',
    expect: 'echo answered, timestamp answered',
    run(bed) {
      const node = natNode(bed);
      const works = (type: number, answer: number) => {
        const out = only(node, node.exchange('p1', ping({ type, payload: pattern(12) })), 'wire');
        const back = icmpEcho({ src: SERVER, dst: NODE, type: answer, icmpId: readIcmp(out).id, payload: pattern(12) });
        return yesNo(at(node.exchange('wire', back), 'p1').length > 0, 'answered', 'not answered');
      };
      return `echo ${works(8, 0)}, timestamp ${works(13, 14)}`;
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-1',
    level: 'SHOULD',
    requirement: 'a) the mapping of an identifier is the same for every host',
    quote: 'NAT mapping of ICMP Query Identifiers SHOULD be external host independent.',
    expect: 'one outside identifier',
    deviations: perFlow('an outside identifier for each flow'),
    run(bed) {
      const node = natNode(bed);
      const there = mappedId(node, A, 77, SERVER);
      mappedId(node, B, 77, SERVER2);
      const elsewhere = mappedId(node, A, 77, SERVER2);
      return yesNo(there === elsewhere, 'one outside identifier', 'an outside identifier for each flow');
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-2',
    level: 'MUST',
    requirement: 'a query session lives 60 s or more',
    quote: 'An ICMP Query session timer MUST NOT expire in less than 60 seconds.',
    expect: 'after 59 s, not after 61 s',
    deviations: [
      {
        sees: 'after 29 s, not after 31 s',
        by: 'nf_ct_icmp_timeout (net/netfilter/nf_conntrack_proto_icmp.c) is 30 s',
        profiles: ['linux', 'calico', 'flannel'],
      },
    ],
    run: bed =>
      livesFor(() => {
        const node = natNode(bed);
        const id = mappedId(node, A, 77);
        return { node, isAlive: () => at(node.exchange('wire', pong(id)), 'p1').length > 0 };
      }, [29, 31, 59, 61]),
  },
  {
    rfc: 5508,
    clause: 'REQ-3',
    level: 'SHOULD',
    requirement: 'an error with a wrong ICMP checksum is dropped',
    quote: 'if the ICMP checksum fails to validate, the NAT SHOULD silently drop the ICMP Error packet',
    expect: 'dropped: ct-icmp-checksum',
    run(bed) {
      const node = natNode(bed);
      return fate(node, node.exchange('wire', patch(errorAbout(node, sent()), 22, 0x12, 0x34)), 'p1');
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-3',
    level: 'SHOULD',
    requirement: 'a) so is one that quotes a header with a wrong checksum',
    quote: 'If the IP checksum of the embedded packet fails to validate, the NAT SHOULD silently drop the Error packet',
    expect: 'dropped: ct-icmp-checksum',
    deviations: [
      {
        sees: 'delivered',
        by: 'nf_conntrack_inet_error (net/netfilter/nf_conntrack_proto_icmp.c) looks at the tuple in the quote, not at its checksum; Cilium is like it',
      },
    ],
    run(bed) {
      const node = natNode(bed);
      const wrong = errorAbout(node, sent(), seen => patch(seen, ipv4.CHECKSUM, 0x12, 0x34));
      return fate(node, node.exchange('wire', wrong), 'p1');
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-3',
    level: 'MUST',
    requirement: 'b) options in the quoted header are stepped over',
    quote: 'the NAT device MUST traverse past the IP options to locate the start of the transport header',
    expect: TO_POD,
    run(bed) {
      const node = natNode(bed);
      // Stream Identifier, which no router changes.
      const original = sent({ options: new Uint8Array([136, 4, 0, 7, 1, 1, 1, 0]) });
      return heard(node, errorAbout(node, original), original);
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-3',
    level: 'SHOULD',
    requirement: 'c) the transport checksum in the quote is not validated',
    quote:
      'The NAT device SHOULD NOT validate the transport checksum of the embedded packet within an ICMP Error message',
    expect: TO_POD,
    run(bed) {
      const node = natNode(bed);
      const original = sent({ payload: pattern(40) });
      // Cut short and with another byte: a checksum over it would be wrong.
      return heard(
        node,
        errorAbout(node, original, seen => patch(seen, 40, 0xff).subarray(0, 48)),
        original,
      );
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-4',
    level: 'SHOULD',
    requirement: 'from outside, about no mapping: dropped in silence',
    quote:
      'the NAT device does not have an active mapping for the embedded payload, the NAT SHOULD silently drop the ICMP Error packet',
    expect: 'dropped: ct-icmp-no-flow',
    run(bed) {
      const node = natNode(bed);
      const foreign = udp4({ src: NODE, sport: 1, dst: SERVER });
      return fate(node, node.exchange('wire', icmpError(3, 1, foreign, { src: GATEWAY, dst: NODE })), 'p1');
    },
  },
  ...(['udp', 'tcp', 'icmp'] as const).map(
    (protocol): Clause => ({
      rfc: 5508,
      clause: 'REQ-4',
      level: 'MUST',
      requirement: `from outside, about ${protocol}: quote and destination translated back, type and code kept`,
      quote:
        'Revert the IP and transport headers of the embedded IP packet to their original form, using the matching mapping',
      expect: TO_POD,
      run(bed) {
        const node = natNode(bed);
        // B has the outside port that A would have kept.
        if (protocol === 'icmp') mappedId(node, B, 77);
        else mappedPort(node, B, protocol);
        const original =
          protocol === 'udp'
            ? sent()
            : protocol === 'tcp'
              ? tcp4({ src: POD, dst: SERVER, dport: 53, flags: 2 })
              : ping();
        return heard(node, errorAbout(node, original), original);
      },
    }),
  ),
  {
    rfc: 5508,
    clause: 'REQ-5',
    level: 'SHOULD',
    requirement: 'from inside, about no mapping: dropped in silence',
    quote:
      'the NAT does not have an active mapping for the embedded payload, the NAT SHOULD silently drop the ICMP Error packet',
    expect: 'dropped: ct-icmp-no-flow',
    run(bed) {
      const node = natNode(bed);
      const never = udp4({ src: SERVER, sport: 9, dst: POD, dport: 9 });
      return fate(node, node.exchange('p1', icmpError(3, 3, never, { src: POD, dst: SERVER })), 'wire');
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-5',
    level: 'MUST',
    requirement: "from inside: quote as the outside knows it, source the NAT's own address, type and code kept",
    quote:
      'In all other cases, translate the source IP address of the ICMP Error packet with its own public IP address.',
    expect: `ICMP 3/3 from ${NODE}, quoting what the server sent`,
    run(bed) {
      const node = natNode(bed);
      mappedPort(node, B, 'udp');
      const port = mappedPort(node, A, 'udp');
      const answer = udp4({ src: SERVER, sport: 53, dst: NODE, dport: port });
      const received = only(node, node.exchange('wire', answer), 'p1');
      const error = only(node, node.exchange('p1', icmpError(3, 3, received, { src: POD, dst: SERVER })), 'wire');
      const { type, code, quote } = readIcmp(error);
      const known = same(quote.subarray(12, 28), answer.subarray(12, 28));
      return `ICMP ${type}/${code} from ${readIp(error).src}, quoting ${yesNo(known, 'what the server sent', 'something else')}`;
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-6',
    level: 'MUST',
    requirement: 'errors neither refresh nor delete a session',
    quote: 'a NAT device MUST NOT refresh or delete the NAT Session that pertains to the embedded payload',
    expect: 'alive after 10 s, gone after 100 s of errors',
    run(bed) {
      const node = natNode(bed);
      const seen = only(node, node.exchange('p1', ping()), 'wire');
      const { id } = readIcmp(seen);
      let alive = false;
      for (let i = 1; i <= 20; i++) {
        node.wait(5);
        node.exchange('wire', icmpError(3, 1, seen, { src: GATEWAY, dst: NODE }));
        // A probe refreshes the session: look once on the way in a node of its own.
        if (i === 2) alive = at(copyOf(bed, 10).exchange('wire', pong(id)), 'p1').length > 0;
      }
      const gone = at(node.exchange('wire', pong(id)), 'p1').length === 0;
      return `${yesNo(alive, 'alive', 'gone')} after 10 s, ${yesNo(gone, 'gone', 'alive')} after 100 s of errors`;
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-7',
    level: 'MUST',
    requirement: 'hairpinned errors: destination and quote as the other pod knows them',
    quote:
      'All NAT devices (i.e., Basic NAT as well as NAPT devices) MUST support the traversal of hairpinned ICMP Error messages.',
    expect: 'ICMP 3/3 to the pod, quoting what it sent',
    deviations: [
      {
        sees: 'no hairpin',
        by: 'nf_nat_setup_info (net/netfilter/nf_nat_core.c) maps flows, not endpoints: there is no hairpinned packet to err about. Cilium is like it',
      },
    ],
    run(bed) {
      const node = natNode(bed);
      const ofA = mappedPort(node, A, 'udp');
      mappedPort(node, B, 'udp');
      const original = udp4({ src: POD2, sport: B.sport, dst: NODE, dport: ofA });
      const [received] = at(node.exchange('p2', original), 'p1');
      if (received === undefined) return 'no hairpin';
      const error = icmpError(3, 3, received, { src: POD, dst: readIp(received).src });
      const { type, code, quote } = readIcmp(only(node, node.exchange('p1', error), 'p2'));
      const known = same(quote.subarray(12, 28), original.subarray(12, 28));
      return `ICMP ${type}/${code} to the pod, quoting ${yesNo(known, 'what it sent', 'something else')}`;
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-8',
    level: 'SHOULD',
    requirement: 'no outside port is left for a new flow: ICMP 3/13, about the packet as it was sent',
    quote: 'the NAT device SHOULD send an ICMP destination unreachable message, with a code of 13',
    expect: 'ICMP 3/13, quoting what was sent',
    run(bed) {
      const node = bed.node({ nat: true, ports: '50000-50003' });
      for (let i = 0; i < 4; i++) mappedPort(node, { ...B, sport: 1000 + i }, 'udp');
      return refusal(node, sent());
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-8',
    level: 'SHOULD',
    requirement: 'the table of flows is full: the same',
    quote: 'When a NAT device is unable to establish a NAT Session [...] due to resource constraints',
    expect: 'ICMP 3/13, quoting what was sent',
    deviations: [
      {
        sees: 'delivered',
        by: 'early_drop (net/netfilter/nf_conntrack_core.c) ends a flow that nobody has answered to make room; Cilium the one unused longest',
      },
    ],
    run(bed) {
      const node = bed.node({ nat: true, flows: 16 });
      for (let i = 0; i < 16; i++) mappedPort(node, { ...B, sport: 1000 + i }, 'udp');
      return refusal(node, sent());
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-10',
    level: 'MUST',
    requirement: 'a.1) too big with DF: Destination Unreachable with the next-hop MTU',
    quote: 'the NAT device MUST send a "Packet Too Big" ICMP message (ICMP type 3, code 4) with the next-hop MTU',
    expect: 'ICMP 3/4, MTU 1400, to p1',
    run(bed) {
      const node = bed.node({ nat: true, mtu: 1400 });
      return fate(node, node.exchange('p1', sent({ fragment: DF, payload: pattern(1472) })), 'wire');
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-10',
    level: 'MUST',
    requirement: 'a.1) what is told quotes the packet as the pod sent it, not as NAT made it',
    quote: 'A NAT device MUST honor the DF bit in the IP header of the packets that transit the device.',
    expect: 'ICMP 3/4, quoting what was sent',
    run(bed) {
      const node = bed.node({ nat: true, mtu: 1400 });
      mappedPort(node, B, 'udp', SERVER, 53);
      return refusal(node, sent({ fragment: DF, payload: pattern(1472) }));
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-10',
    level: 'MUST',
    requirement: 'a.2) Time Exceeded',
    quote:
      'A NAT device MUST generate a "Time Exceeded" ICMP Error message when it discards a packet due to an expired Time to Live (TTL) field.',
    expect: 'ICMP 11/0, quoting what was sent',
    run(bed) {
      const node = natNode(bed);
      mappedPort(node, B, 'udp', SERVER, 53);
      return refusal(node, sent({ ttl: 1 }));
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-10',
    level: 'MUST',
    requirement: 'a.3) the node answers echo itself, or passes it to its own processes',
    quote: 'Echo Request/Reply Messages, as described in REQ-1',
    expect: 'delivered',
    run(bed) {
      const node = natNode(bed);
      return fate(node, node.exchange('p1', ping({ dst: HOST })), 'host');
    },
  },
  {
    rfc: 5508,
    clause: 'REQ-9',
    level: 'MAY',
    requirement: 'a policy that forbids ICMP towards some interfaces',
    quote:
      'A NAT device MAY implement a policy control that prevents ICMP messages being generated toward certain interface(s).',
    reason: 'optional, and not there',
  },
  {
    rfc: 5508,
    clause: 'REQ-11',
    level: 'MAY',
    requirement: 'ICMP that is neither query nor error may be dropped',
    quote: 'A NAT MAY drop or appropriately handle Non-QueryError ICMP messages.',
    expect: 'dropped: ct-invalid-icmp-type',
    run(bed) {
      const node = natNode(bed);
      // Router solicitation.
      return fate(node, node.exchange('p1', ping({ type: 10 })), 'wire');
    },
  },
  {
    rfc: 7857,
    clause: '§12',
    level: 'MUST',
    requirement: 'hairpinned ICMP queries, for a NAT that maps addresses only (Basic NAT)',
    quote:
      'REQ-7 from [RFC5508] specifies that a NAT enforcing Basic NAT must support traversal of hairpinned ICMP Query sessions.',
    reason: 'masquerade maps addresses and ports (NAPT)',
  },
];

/** What the pod hears about a packet that does not get through. */
function refusal(node: CheckNode, packet: Uint8Array): string {
  const out = node.exchange('p1', packet);
  const [error] = at(out, 'p1');
  if (error === undefined) return fate(node, out, 'wire');
  const { type, code, quote } = readIcmp(error);
  const known = same(quote, packet.subarray(0, quote.length)) && checksumsOk(error);
  return `ICMP ${type}/${code}, quoting ${yesNo(known, 'what was sent', 'something else')}`;
}

/** A node in which a ping was sent `seconds` ago, with an error every 5 s since. */
function copyOf(bed: Testbed, seconds: number): CheckNode {
  const node = natNode(bed);
  const seen = only(node, node.exchange('p1', ping()), 'wire');
  for (let passed = 0; passed < seconds; passed += 5) {
    node.wait(5);
    node.exchange('wire', icmpError(3, 1, seen, { src: GATEWAY, dst: NODE }));
  }
  return node;
}

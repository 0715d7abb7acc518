/** RFC 4787, NAT Behavioral Requirements for Unicast UDP; the parts of RFC 7857 that change it. */
import { fragment, icmpError, pattern, udp4 } from '../packet/build.ts';
import type { Clause } from './check.ts';
import {
  A,
  B,
  DF,
  FILTERING,
  first,
  livesFor,
  mappedPort,
  natNode,
  type Protocol,
  reaches,
  reply,
  sendEveryIcmpError,
  sourceOf,
} from './nat-rig.ts';
import { type CheckNode, NODE, POD, POD2, SERVER, SERVER2, type Testbed } from './node.ts';
import { at, fate, only, readIcmp, readIp, readPorts, same, yesNo } from './read.ts';

const WHERE_FREE =
  'get_unique_tuple (net/netfilter/nf_nat_core.c) keeps what the endpoint has (find_appropriate_src), or its own port, where that is free towards this one host';
const CILIUM_PER_FLOW = 'snat_v4_new_mapping (bpf/lib/nat.h) maps each flow by itself';

/** What becomes of an endpoint whose port another one has towards some host. */
export const perFlow = (kernelSees: string, ciliumSees = kernelSees) => [
  { sees: kernelSees, by: WHERE_FREE, profiles: ['linux', 'calico', 'flannel'] as const },
  { sees: ciliumSees, by: CILIUM_PER_FLOW, profiles: ['cilium'] as const },
];

export const MOVED = 'another outside port from where its own is taken on';
export const EACH = 'an outside port for each flow';

/**
 * Endpoint-independent mapping shows where two inside endpoints have the same port. A has the outside port 40000 towards one
 * server; B, from the inside port 40000, talks to a second one. Does A, which talks to that one as well, keep its port?
 */
export function mappingOf(bed: Testbed, protocol: Protocol): string {
  const node = natNode(bed);
  const there = mappedPort(node, A, protocol, SERVER);
  mappedPort(node, B, protocol, SERVER2);
  const elsewhere = mappedPort(node, A, protocol, SERVER2);
  const otherPort = mappedPort(node, A, protocol, SERVER, 5353);
  if (there === elsewhere && there === otherPort) return 'one outside port';
  return elsewhere === otherPort ? MOVED : EACH;
}

/** Two pods that talk to each other by their outside addresses. */
export function hairpin(bed: Testbed, protocol: Protocol): string {
  const node = natNode(bed);
  const ofA = mappedPort(node, A, protocol);
  const ofB = mappedPort(node, B, protocol);
  const sent = node.exchange('p2', first(protocol, { src: POD2, sport: B.sport, dst: NODE, dport: ofA }));
  const [packet] = at(sent, 'p1');
  if (packet === undefined) return fate(node, sent, 'p1');
  const back = node.exchange('p1', answerTo(protocol, packet));
  const [answer] = at(back, 'p2');
  const from = sourceOf(packet) === `${NODE}:${ofB}` ? 'the outside endpoint' : sourceOf(packet);
  if (answer === undefined) return `arrives from ${from}, no answer: ${fate(node, back, 'p2')}`;
  return `arrives from ${from}, its answer from ${sourceOf(answer) === `${NODE}:${ofA}` ? 'the outside endpoint' : sourceOf(answer)}`;
}

export const HAIRPIN_KEPT = 'arrives from the outside endpoint, its answer from the outside endpoint';
export const hairpinDeviations = [
  {
    sees: 'sent to host',
    by: 'nf_nat_setup_info (net/netfilter/nf_nat_core.c): what masquerade maps is a flow, not an endpoint; a packet to the outside address is for the node',
    profiles: ['linux', 'calico', 'flannel'] as const,
  },
  {
    sees: 'sent to host',
    by: 'snat_v4_rev_nat (bpf/lib/nat.h) knows the replies of flows only; a packet to the outside address is for the node',
    profiles: ['cilium'] as const,
  },
];

function answerTo(protocol: Protocol, packet: Uint8Array): Uint8Array {
  const { src, dst } = readIp(packet);
  const { sport, dport } = readPorts(packet);
  const ends = { src: dst, sport: dport, dst: src, dport: sport };
  return protocol === 'udp' ? udp4(ends) : first('tcp', { ...ends, flags: 18, seq: 7000, ack: 1001 });
}

/** A UDP mapping whose life is to be measured. */
function mapping(bed: Testbed, answered: boolean): { node: CheckNode; isAlive: () => boolean } {
  const node = natNode(bed);
  const port = mappedPort(node, A, 'udp');
  if (answered) {
    reply(node, port);
    node.wait(3);
    mappedPort(node, A, 'udp');
    reply(node, port);
  }
  return { node, isAlive: () => reaches(node, A, port) };
}

const SECONDS = [29, 31, 59, 61, 119, 121, 299, 301];

export const NAT_UDP: Clause[] = [
  {
    rfc: 4787,
    clause: 'REQ-1',
    level: 'MUST',
    requirement: 'endpoint-independent mapping: one outside port for an inside endpoint, whatever it talks to',
    quote: 'A NAT MUST have an "Endpoint-Independent Mapping" behavior.',
    expect: 'one outside port',
    deviations: perFlow(MOVED, EACH),
    run: bed => mappingOf(bed, 'udp'),
  },
  {
    rfc: 4787,
    clause: 'REQ-1',
    level: 'MUST',
    requirement: 'an endpoint that was given another port, as its own was taken, has it towards 8 more hosts as well',
    quote: 'A NAT MUST have an "Endpoint-Independent Mapping" behavior.',
    expect: 'one outside port',
    deviations: [{ sees: 'another one', by: CILIUM_PER_FLOW, profiles: ['cilium'] }],
    run(bed) {
      const node = natNode(bed);
      const taken = mappedPort(node, A, 'udp', SERVER);
      const rival = { ...B, sport: taken };
      const given = mappedPort(node, rival, 'udp', SERVER);
      const ports = Array.from({ length: 8 }, (_, i) => mappedPort(node, rival, 'udp', `198.51.100.${10 + i}`));
      return yesNo(ports.every(port => port === given) && given !== taken, 'one outside port', 'another one');
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-2',
    level: 'RECOMMENDED',
    requirement: 'paired pooling: all of a host is seen under one outside address',
    quote: 'It is RECOMMENDED that a NAT have an "IP address pooling" behavior of "Paired".',
    expect: `${NODE} only`,
    run(bed) {
      const node = natNode(bed);
      const seen = new Set<string>();
      for (let i = 0; i < 20; i++) {
        const sent = node.exchange('p1', udp4({ src: POD, sport: 2000 + i, dst: i % 2 ? SERVER : SERVER2 }));
        seen.add(readIp(only(node, sent, 'wire')).src);
      }
      return `${[...seen].join(', ')} only`;
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-3',
    level: 'MUST',
    requirement:
      'no port overloading: two inside endpoints never share an outside port towards a host, and both get their answers',
    quote: 'A NAT MUST NOT have a "Port assignment" behavior of "Port overloading".',
    expect: 'two ports, each answer to its own pod',
    run(bed) {
      const node = natNode(bed);
      const [ofA, ofB] = [mappedPort(node, A, 'udp'), mappedPort(node, B, 'udp')];
      const right = reaches(node, A, ofA) && reaches(node, B, ofB);
      return `${ofA === ofB ? 'one port' : 'two ports'}, ${yesNo(right, 'each answer to its own pod', 'answers go astray')}`;
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-3',
    level: 'RECOMMENDED',
    requirement:
      'a) well-known source ports stay well-known, the others stay above 1023, also where they cannot be kept',
    quote: "it is RECOMMENDED the NAT's source port be in the same range",
    expect: 'both in their range',
    deviations: [
      {
        sees: 'all above 1023',
        by: 'Cilium takes its ports from 32768-65535 (bpf/lib/nat.h)',
        profiles: ['cilium'],
      },
    ],
    run(bed) {
      const node = natNode(bed);
      const ports = (sport: number) => [A, B].map(from => mappedPort(node, { ...from, sport }, 'udp', SERVER, sport));
      const low = ports(700);
      const high = ports(5000);
      if (!high.every(port => port > 1023)) return 'a high one became low';
      return low.every(port => port < 1024) ? 'both in their range' : 'all above 1023';
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-4',
    level: 'RECOMMENDED',
    requirement: 'port parity is preserved',
    quote: 'It is RECOMMENDED that a NAT have a "Port parity preservation" behavior of "Yes".',
    reason: 'RFC 7857 section 8: "A NAT MAY disable port parity preservation for all dynamic mappings"',
  },
  {
    rfc: 4787,
    clause: 'REQ-5',
    level: 'MUST',
    requirement: 'a mapping lives 2 minutes or more without packets, 5 by default: one that was not answered',
    quote:
      'A NAT UDP mapping timer MUST NOT expire in less than two minutes [...] A default value of five minutes or more [...] is RECOMMENDED.',
    expect: 'after 299 s, not after 301 s',
    deviations: [
      {
        sees: 'after 29 s, not after 31 s',
        by: 'udp_timeouts (net/netfilter/nf_conntrack_proto_udp.c): nf_conntrack_udp_timeout is 30 s',
        profiles: ['linux', 'calico', 'flannel'],
      },
      { sees: 'after 59 s, not after 61 s', by: 'Cilium: bpf-ct-timeout-regular-any is 60 s', profiles: ['cilium'] },
    ],
    run: bed => livesFor(() => mapping(bed, false), SECONDS),
  },
  {
    rfc: 4787,
    clause: 'REQ-5',
    level: 'MUST',
    requirement: 'the same for one with packets both ways',
    quote: 'A NAT UDP mapping timer MUST NOT expire in less than two minutes',
    expect: 'after 299 s, not after 301 s',
    deviations: [
      {
        sees: 'after 119 s, not after 121 s',
        by: 'udp_timeouts (net/netfilter/nf_conntrack_proto_udp.c): nf_conntrack_udp_timeout_stream is 120 s, the 5 minutes are only recommended',
        profiles: ['linux', 'calico', 'flannel'],
      },
      { sees: 'after 59 s, not after 61 s', by: 'Cilium: bpf-ct-timeout-regular-any is 60 s', profiles: ['cilium'] },
    ],
    run: bed => livesFor(() => mapping(bed, true), SECONDS),
  },
  {
    rfc: 4787,
    clause: 'REQ-6',
    level: 'MUST',
    requirement: 'packets from inside refresh the mapping',
    quote: 'The NAT mapping Refresh Direction MUST have a "NAT Outbound refresh behavior" of "True".',
    expect: 'alive after 20 times 20 s',
    run(bed) {
      const node = natNode(bed);
      const port = mappedPort(node, A, 'udp');
      for (let i = 0; i < 20; i++) {
        node.wait(20);
        mappedPort(node, A, 'udp');
      }
      return yesNo(reaches(node, A, port), 'alive after 20 times 20 s', 'gone');
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-8',
    level: 'RECOMMENDED',
    requirement: 'filtering: endpoint-independent or address-dependent',
    quote:
      'it is RECOMMENDED that a NAT have "Endpoint-Independent Filtering" behavior [...] "Address-Dependent Filtering" behavior',
    ...FILTERING,
    run(bed) {
      const node = natNode(bed);
      const port = mappedPort(node, A, 'udp');
      const says = (passes: boolean) => yesNo(passes, 'passes', 'does not');
      const samePeer = says(reaches(node, A, port, SERVER, 9999));
      return `another port of the server ${samePeer}, another host ${says(reaches(node, A, port, SERVER2, 53))}`;
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-9',
    level: 'MUST',
    requirement: 'hairpinning, with the outside source',
    quote:
      'A NAT MUST support "Hairpinning". [...] A NAT Hairpinning behavior MUST be "External source IP address and port".',
    expect: HAIRPIN_KEPT,
    deviations: hairpinDeviations,
    run: bed => hairpin(bed, 'udp'),
  },
  {
    rfc: 4787,
    clause: 'REQ-10',
    level: 'SHOULD',
    requirement: 'no application level gateway meddles with the payload: SIP passes as it is',
    quote: 'NAT ALGs for UDP-based protocols SHOULD be turned off',
    expect: 'payload as sent',
    run(bed) {
      const node = natNode(bed);
      const payload = new TextEncoder().encode(`INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP ${POD}:5060\r\n`);
      const sent = node.exchange('p1', udp4({ src: POD, sport: 5060, dst: SERVER, dport: 5060, payload }));
      return yesNo(same(readPorts(only(node, sent, 'wire')).payload, payload), 'payload as sent', 'payload changed');
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-11',
    level: 'MUST',
    requirement: 'deterministic: the mapping of an endpoint does not change when others come into its way',
    quote:
      'A NAT MUST have deterministic behavior, i.e., it MUST NOT change the NAT translation [...] at any point in time',
    expect: 'the port stays',
    deviations: perFlow('the port changes'),
    run(bed) {
      const node = natNode(bed);
      const port = mappedPort(node, A, 'udp', SERVER);
      // Somebody else has the same port towards the second server by now.
      node.exchange('p2', udp4({ src: POD2, sport: port, dst: SERVER2, dport: 53 }));
      return yesNo(mappedPort(node, A, 'udp', SERVER2) === port, 'the port stays', 'the port changes');
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-12',
    level: 'MUST',
    requirement: 'no ICMP message ends a mapping',
    quote: 'Receipt of any sort of ICMP message MUST NOT terminate the NAT mapping.',
    expect: 'alive after all of 10',
    run(bed) {
      const node = natNode(bed);
      const out = only(node, node.exchange('p1', udp4({ src: POD, sport: 40_000, dst: SERVER })), 'wire');
      const count = sendEveryIcmpError(node, out);
      return yesNo(reaches(node, A, readPorts(out).sport), `alive after all of ${count}`, 'gone');
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-12',
    level: 'SHOULD',
    requirement: 'a) ICMP messages are not filtered by their source; b) Destination Unreachable gets through',
    quote: "The NAT's default configuration SHOULD NOT filter ICMP messages based on their source IP address.",
    expect: 'ICMP 3/1, quoting what the pod sent',
    run(bed) {
      const node = natNode(bed);
      const sent = udp4({ src: POD, sport: 40_000, dst: SERVER });
      const out = only(node, node.exchange('p1', sent), 'wire');
      const error = only(node, node.exchange('wire', icmpError(3, 1, out, { src: '100.64.9.9', dst: NODE })), 'p1');
      const { type, code, quote } = readIcmp(error);
      const known = same(quote.subarray(12, 24), sent.subarray(12, 24));
      return `ICMP ${type}/${code}, quoting ${yesNo(known, 'what the pod sent', 'something else')}`;
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-13',
    level: 'MUST',
    requirement: 'DF and too big: fragmentation needed',
    quote: 'the NAT MUST send back an ICMP message "Fragmentation needed and DF set" to the host',
    expect: 'ICMP 3/4, MTU 1400, to p1',
    run(bed) {
      const node = bed.node({ nat: true, mtu: 1400 });
      const big = udp4({ src: POD, dst: SERVER, fragment: DF, payload: pattern(1440) });
      return fate(node, node.exchange('p1', big), 'wire');
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-13',
    level: 'MUST',
    requirement: 'a) without DF it is fragmented, in order',
    quote: 'If the packet has DF=0, the NAT MUST fragment the packet and SHOULD send the fragments in order.',
    expect: 'fragments at 0, 1376',
    run(bed) {
      const node = bed.node({ nat: true, mtu: 1400 });
      const sent = at(node.exchange('p1', udp4({ src: POD, dst: SERVER, payload: pattern(1440) })), 'wire');
      return `fragments at ${sent.map(bytes => readIp(bytes).offset).join(', ')}`;
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-14',
    level: 'MUST',
    requirement: 'fragments are translated in any order of arrival',
    quote: 'A NAT MUST support receiving in-order and out-of-order fragments',
    expect: 'in order 2 out, out of order 2 out, one source each',
    run(bed) {
      const node = natNode(bed);
      const through = (id: number, order: readonly number[]) => {
        const whole = udp4({ src: POD, dst: SERVER, id, payload: pattern(400) });
        const pieces = [fragment(whole, 0, 200), fragment(whole, 200, 208)];
        return order.flatMap(i => at(node.exchange('p1', pieces[i]), 'wire'));
      };
      const [inOrder, outOfOrder] = [through(1, [0, 1]), through(2, [1, 0])];
      const mapped = [...inOrder, ...outOfOrder].every(bytes => readIp(bytes).src === NODE);
      return `in order ${inOrder.length} out, out of order ${outOfOrder.length} out, ${yesNo(mapped, 'one source each', 'not translated')}`;
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-14',
    level: 'MUST',
    requirement: 'a) a flood of fragments does not stop honest ones, nor whole packets',
    quote: 'fragmentation-based DoS attacks do not compromise the NAT',
    expect: 'a whole packet delivered, fragments delivered',
    run(bed) {
      const node = bed.node({ nat: true, slots: 2500 });
      for (let id = 0; id < 4000; id++) {
        const whole = udp4({ src: POD2, dst: SERVER, id, payload: pattern(64) });
        node.exchange('p2', fragment(whole, 32, 40));
      }
      bed.packets.splice(6, Number.POSITIVE_INFINITY, '... 4000 fragments without a first');
      const packet = fate(node, node.exchange('p1', udp4({ src: POD, dst: SERVER })), 'wire');
      const whole = udp4({ src: POD, dst: SERVER, id: 3, payload: pattern(400) });
      node.exchange('p1', fragment(whole, 200, 208));
      return `a whole packet ${packet}, fragments ${fate(node, node.exchange('p1', fragment(whole, 0, 200)), 'wire')}`;
    },
  },
  {
    rfc: 4787,
    clause: 'REQ-7',
    level: 'MUST',
    requirement: 'an external address that is assigned dynamically must not collide with the internal network',
    quote: 'A NAT device whose external IP interface can be configured dynamically',
    reason: 'addresses are configured; a collision is refused before the node starts',
  },
  {
    rfc: 7857,
    clause: '§5',
    level: 'SHOULD',
    requirement: 'mappings are of one protocol: those of UDP and TCP from one port are two',
    quote: 'EIM mappings SHOULD be protocol dependent.',
    expect: 'a TCP mapping does not let UDP in',
    run(bed) {
      const node = natNode(bed);
      const port = mappedPort(node, A, 'tcp', SERVER, 80);
      return yesNo(
        reaches(node, A, port, SERVER, 80),
        'a TCP mapping lets UDP in',
        'a TCP mapping does not let UDP in',
      );
    },
  },
  {
    rfc: 7857,
    clause: '§7',
    level: 'SHOULD',
    requirement: 'packets from outside that the filter refuses do not refresh a mapping',
    quote: 'such packets SHOULD NOT refresh the mapping',
    expect: 'gone after 310 s of refused packets',
    run(bed) {
      const node = natNode(bed);
      const port = mappedPort(node, A, 'udp');
      for (let i = 0; i < 31; i++) {
        node.wait(10);
        reply(node, port, '198.51.100.99', 1);
      }
      return yesNo(reaches(node, A, port), 'still alive', 'gone after 310 s of refused packets');
    },
  },
  {
    rfc: 7857,
    clause: '§7.1',
    level: 'SHOULD',
    requirement: "a pod's ICMP errors about what it receives do not refresh a mapping",
    quote:
      'ICMP Errors or TCP RST outbound packets sent as a response to inbound packets SHOULD NOT refresh the mapping',
    expect: 'gone',
    run(bed) {
      const node = natNode(bed);
      const port = mappedPort(node, A, 'udp');
      const [received] = at(reply(node, port), 'p1');
      for (let i = 0; i < 31; i++) {
        node.wait(10);
        node.exchange('p1', icmpError(3, 3, received, { src: POD, dst: SERVER }));
      }
      return yesNo(reaches(node, A, port), 'still alive', 'gone');
    },
  },
  {
    rfc: 7857,
    clause: '§9',
    level: 'SHOULD',
    requirement: 'a port that must be changed is chosen at random',
    quote: 'SHOULD obfuscate the ephemeral port of a packet only if the port must be changed',
    expect: 'kept where free, else no pattern',
    run(bed) {
      const node = natNode(bed);
      const chosen: number[] = [];
      let kept = true;
      for (let i = 0; i < 40; i++) {
        const sport = 41_000 + i;
        kept &&= mappedPort(node, { ...A, sport }, 'udp') === sport;
        chosen.push(mappedPort(node, { ...B, sport }, 'udp'));
      }
      const steps = new Set(chosen.slice(1).map((port, i) => port - chosen[i]));
      return `${yesNo(kept, 'kept where free', 'never kept')}, ${steps.size > 35 ? 'else no pattern' : 'else in steps'}`;
    },
  },
  {
    rfc: 7857,
    clause: '§4',
    level: 'SHOULD',
    requirement: 'what happens when one address of a pool runs out of ports',
    quote:
      'new sessions from a host that already has a mapping associated with an external IP that ran out of ports SHOULD be dropped',
    reason: 'a masquerade rule has one outside address: there is nothing to change over to',
  },
];

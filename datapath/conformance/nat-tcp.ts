/** RFC 5382, NAT Behavioral Requirements for TCP; the parts of RFC 7857 that change it. */
import { icmpError, tcp4 } from '../packet/build.ts';
import type { Clause } from './check.ts';
import {
  A,
  ACK,
  B,
  connect,
  dataReaches,
  FILTERING,
  livesFor,
  mappedPort,
  natNode,
  RST,
  SYN,
  sendEveryIcmpError,
} from './nat-rig.ts';
import { EACH, HAIRPIN_KEPT, hairpin, hairpinDeviations, MOVED, mappingOf, perFlow } from './nat-udp.ts';
import { type CheckNode, GATEWAY, NODE, POD, SERVER, SERVER2, type Testbed } from './node.ts';
import { at, fate, only, readIcmp, same, yesNo } from './read.ts';

const out = (o: Parameters<typeof tcp4>[0]) => tcp4({ src: POD, sport: A.sport, dst: SERVER, dport: 80, ...o });
const back = (port: number, o: Parameters<typeof tcp4>[0]) =>
  tcp4({ src: SERVER, sport: 80, dst: NODE, dport: port, ...o });

/** A connection in one of its phases, whose life is to be measured. */
function connection(
  bed: Testbed,
  phase: 'established' | 'half-open' | 'closing',
): { node: CheckNode; isAlive: () => boolean } {
  const node = natNode(bed);
  if (phase === 'half-open') {
    const port = mappedPort(node, A, 'tcp', SERVER, 80);
    return { node, isAlive: () => at(node.exchange('wire', synAck(port)), 'p1').length > 0 };
  }
  const port = connect(node, A);
  if (phase === 'closing') {
    node.exchange('p1', out({ flags: 17, seq: 1001, ack: 5001 }));
    node.exchange('wire', back(port, { flags: 17, seq: 5001, ack: 1002 }));
  }
  // The last FIN once more, or an acknowledgement.
  const isClosing = phase === 'closing';
  const probe = back(port, { flags: isClosing ? 17 : ACK, seq: 5001, ack: isClosing ? 1002 : 1001 });
  return { node, isAlive: () => at(node.exchange('wire', probe), 'p1').length > 0 };
}

const synAck = (port: number) => back(port, { flags: SYN | ACK, seq: 5000, ack: 1001 });

const KERNEL_TIMEOUTS = 'tcp_timeouts (net/netfilter/nf_conntrack_proto_tcp.c)';

export const NAT_TCP: Clause[] = [
  {
    rfc: 5382,
    clause: 'REQ-1',
    level: 'MUST',
    requirement: 'endpoint-independent mapping',
    quote: 'A NAT MUST have an "Endpoint-Independent Mapping" behavior for TCP.',
    expect: 'one outside port',
    deviations: perFlow(MOVED, EACH),
    run: bed => mappingOf(bed, 'tcp'),
  },
  {
    rfc: 5382,
    clause: 'REQ-2',
    level: 'MUST',
    requirement: 'every valid sequence passes: handshake, data, both FINs, the last ACK',
    quote: 'A NAT MUST support all valid sequences of TCP packets',
    expect: '8 of 8 passed',
    run(bed) {
      const node = natNode(bed);
      const port = connect(node, A);
      const passed = [
        at(node.exchange('p1', out({ flags: ACK, seq: 1001, ack: 5001, payload: new Uint8Array(100) })), 'wire'),
        at(node.exchange('wire', back(port, { flags: ACK, seq: 5001, ack: 1101 })), 'p1'),
        at(node.exchange('p1', out({ flags: 17, seq: 1101, ack: 5001 })), 'wire'),
        at(node.exchange('wire', back(port, { flags: 17, seq: 5001, ack: 1102 })), 'p1'),
        at(node.exchange('p1', out({ flags: ACK, seq: 1102, ack: 5002 })), 'wire'),
      ].filter(packets => packets.length === 1).length;
      return `${passed + 3} of 8 passed`;
    },
  },
  {
    rfc: 5382,
    clause: 'REQ-2',
    level: 'MUST',
    requirement: 'a) simultaneous open: SYNs cross, both SYN-ACKs pass',
    quote: 'A NAT MUST handle the TCP simultaneous-open mode of connection initiation.',
    expect: '5 of 5 passed',
    run(bed) {
      const node = natNode(bed);
      const port = mappedPort(node, A, 'tcp', SERVER, 80);
      const passed = [
        at(node.exchange('wire', back(port, { flags: SYN, seq: 5000 })), 'p1'),
        at(node.exchange('p1', out({ flags: SYN | ACK, seq: 1000, ack: 5001 })), 'wire'),
        at(node.exchange('wire', synAck(port)), 'p1'),
        at(node.exchange('p1', out({ flags: ACK, seq: 1001, ack: 5001 })), 'wire'),
      ].filter(packets => packets.length === 1).length;
      return `${passed + 1} of 5 passed`;
    },
  },
  {
    rfc: 5382,
    clause: 'REQ-3',
    level: 'RECOMMENDED',
    requirement: 'filtering: endpoint-independent or address-dependent',
    quote:
      'it is RECOMMENDED that a NAT have an "Endpoint-Independent Filtering" behavior for TCP. [...] "Address-Dependent Filtering" behavior.',
    ...FILTERING,
    run(bed) {
      const node = natNode(bed);
      const port = connect(node, A);
      const passes = (src: string, sport: number) => {
        const syn = tcp4({ src, sport, dst: NODE, dport: port, flags: SYN, seq: 9000 });
        return yesNo(at(node.exchange('wire', syn), 'p1').length > 0, 'passes', 'does not');
      };
      return `another port of the server ${passes(SERVER, 8080)}, another host ${passes(SERVER2, 80)}`;
    },
  },
  {
    rfc: 5382,
    clause: 'REQ-4',
    level: 'MUST',
    requirement: 'no answer to an unsolicited SYN for 6 s, and a connection to its sender can still be made',
    quote: 'A NAT MUST NOT respond to an unsolicited inbound SYN packet for at least 6 seconds',
    expect: 'silence for 6 s, then connected',
    run(bed) {
      const node = natNode(bed);
      // A mapping of A towards the server, so that the port is one of ours, but nobody has let SERVER2 in.
      const port = connect(node, A);
      const syn = tcp4({ src: SERVER2, sport: 80, dst: NODE, dport: port, flags: SYN, seq: 9000 });
      const answers = at(node.exchange('wire', syn), 'wire').length + at(node.wait(6), 'wire').length;
      const own = mappedPort(node, A, 'tcp', SERVER2, 80);
      const reply = tcp4({ src: SERVER2, sport: 80, dst: NODE, dport: own, flags: SYN | ACK, seq: 5000, ack: 1001 });
      const connected = at(node.exchange('wire', reply), 'p1').length > 0;
      return `${answers === 0 ? 'silence for 6 s' : `${answers} answers`}, then ${yesNo(connected, 'connected', 'not connected')}`;
    },
  },
  {
    rfc: 5382,
    clause: 'REQ-5',
    level: 'MUST',
    requirement: 'an established connection lives 2 h 4 min or more without packets',
    quote: 'the value of the "established connection idle-timeout" MUST NOT be less than 2 hours 4 minutes',
    expect: 'after 7430 s',
    run: bed => livesFor(() => connection(bed, 'established'), [7430]),
  },
  {
    rfc: 5382,
    clause: 'REQ-5',
    level: 'MUST',
    requirement: 'a half-open connection lives 4 minutes or more',
    quote: 'The value of the "transitory connection idle-timeout" MUST NOT be less than 4 minutes.',
    expect: 'after 239 s, not after 241 s',
    deviations: [
      {
        sees: 'after 119 s, not after 121 s',
        by: `${KERNEL_TIMEOUTS}: SYN_SENT 120 s`,
        profiles: ['linux', 'calico', 'flannel'],
      },
      {
        sees: 'after 59 s, not after 61 s',
        by: 'Cilium: bpf-ct-timeout-regular-tcp-syn is 60 s',
        profiles: ['cilium'],
      },
    ],
    run: bed => livesFor(() => connection(bed, 'half-open'), [59, 61, 119, 121, 239, 241]),
  },
  {
    rfc: 5382,
    clause: 'REQ-5',
    level: 'MUST',
    requirement: 'a closing connection as well',
    quote: 'The value of the "transitory connection idle-timeout" MUST NOT be less than 4 minutes.',
    expect: 'after 239 s, not after 241 s',
    deviations: [
      {
        sees: 'after 29 s, not after 31 s',
        by: `${KERNEL_TIMEOUTS}: LAST_ACK 30 s`,
        profiles: ['linux', 'calico', 'flannel'],
      },
      { sees: 'after 9 s, not after 11 s', by: 'Cilium: bpf-ct-timeout-regular-tcp-fin is 10 s', profiles: ['cilium'] },
    ],
    run: bed => livesFor(() => connection(bed, 'closing'), [9, 11, 29, 31, 239, 241]),
  },
  {
    rfc: 5382,
    clause: 'REQ-6',
    level: 'RECOMMENDED',
    requirement: 'no application level gateway: the addresses that FTP writes into its data stay as they are',
    quote: 'it is RECOMMENDED that all of those ALGs (except for FTP [RFC0959]) be disabled by default',
    expect: 'payload as sent',
    run(bed) {
      const node = natNode(bed);
      connect(node, A, SERVER, 21);
      const payload = new TextEncoder().encode('PORT 10,244,1,10,156,64\r\n');
      const sent = node.exchange('p1', out({ dport: 21, flags: ACK, seq: 1001, ack: 5001, payload }));
      const packet = only(node, sent, 'wire');
      return yesNo(
        same(packet.subarray(packet.length - payload.length), payload),
        'payload as sent',
        'payload changed',
      );
    },
  },
  {
    rfc: 5382,
    clause: 'REQ-7',
    level: 'MUST',
    requirement: 'no port overloading',
    quote: 'A NAT MUST NOT have a "Port assignment" behavior of "Port overloading" for TCP.',
    expect: 'two ports, each connection with its own pod',
    run(bed) {
      const node = natNode(bed);
      const [ofA, ofB] = [connect(node, A), connect(node, B)];
      const right = dataReaches(node, A, ofA) && dataReaches(node, B, ofB);
      return `${ofA === ofB ? 'one port' : 'two ports'}, ${yesNo(right, 'each connection with its own pod', 'data goes astray')}`;
    },
  },
  {
    rfc: 5382,
    clause: 'REQ-8',
    level: 'MUST',
    requirement: 'hairpinning, with the outside source',
    quote: 'A NAT MUST support "hairpinning" for TCP. [...] MUST be of type "External source IP address and port".',
    expect: HAIRPIN_KEPT,
    deviations: hairpinDeviations,
    run: bed => hairpin(bed, 'tcp'),
  },
  {
    rfc: 5382,
    clause: 'REQ-9',
    level: 'SHOULD',
    requirement: 'Destination Unreachable is translated, the packet that it quotes as well',
    quote: 'If a NAT translates TCP, it SHOULD translate ICMP Destination Unreachable (Type 3) messages.',
    expect: 'ICMP 3/4, MTU 1300, quoting what the pod sent',
    run(bed) {
      const node = natNode(bed);
      // From a port that B has already, so that the outside port is another one.
      mappedPort(node, B, 'tcp', SERVER, 80);
      const sent = out({ flags: SYN, seq: 1000 });
      const seen = only(node, node.exchange('p1', sent), 'wire');
      const error = icmpError(3, 4, seen.subarray(0, 28), { src: GATEWAY, dst: NODE, mtu: 1300 });
      const { type, code, mtu, quote } = readIcmp(only(node, node.exchange('wire', error), 'p1'));
      const known = same(quote.subarray(12, 28), sent.subarray(12, 28));
      return `ICMP ${type}/${code}, MTU ${mtu}, quoting ${yesNo(known, 'what the pod sent', 'something else')}`;
    },
  },
  {
    rfc: 5382,
    clause: 'REQ-10',
    level: 'MUST',
    requirement: 'no ICMP message ends a mapping or a connection',
    quote: 'Receipt of any sort of ICMP message MUST NOT terminate the NAT mapping or TCP connection',
    expect: 'alive after all of 10',
    run(bed) {
      const node = natNode(bed);
      const port = connect(node, A);
      const seen = only(node, node.exchange('p1', out({ flags: ACK, seq: 1001, ack: 5001 })), 'wire');
      const count = sendEveryIcmpError(node, seen);
      return yesNo(dataReaches(node, A, port), `alive after all of ${count}`, 'gone');
    },
  },
  {
    rfc: 7857,
    clause: '§2.2',
    level: 'MUST',
    requirement: 'a RST that matches a mapping is translated',
    quote:
      'when the NAT receives a TCP RST matching an existing mapping, it MUST translate the packet according to the NAT mapping entry',
    expect: 'delivered',
    run(bed) {
      const node = natNode(bed);
      const port = connect(node, A);
      return fate(node, node.exchange('wire', back(port, { flags: RST, seq: 5001 })), 'p1');
    },
  },
  {
    rfc: 7857,
    clause: '§2.2',
    level: 'SHOULD',
    requirement: 'and the session stays 4 minutes after it: established before',
    quote: 'the NAT SHOULD wait for 4 minutes before deleting the session and removing any state associated with it',
    expect: 'after 239 s, not after 241 s',
    deviations: [{ sees: 'after 9 s, not after 11 s', by: `${KERNEL_TIMEOUTS}: CLOSE 10 s, and Cilium has the same` }],
    run: bed => livesFor(() => afterReset(bed, true), [1, 9, 11, 239, 241]),
  },
  {
    rfc: 7857,
    clause: '§2.2',
    level: 'SHOULD',
    requirement: 'and the session stays 4 minutes after it: a connection refused by its server',
    quote: 'the NAT SHOULD wait for 4 minutes before deleting the session and removing any state associated with it',
    expect: 'after 239 s, not after 241 s',
    deviations: [
      {
        sees: 'not after 1 s',
        by: 'nf_conntrack_tcp_packet (net/netfilter/nf_conntrack_proto_tcp.c) kills a flow that a RST is the first answer to',
        profiles: ['linux', 'calico', 'flannel', 'cilium'],
      },
    ],
    run: bed => livesFor(() => afterReset(bed, false), [1, 9, 11, 239, 241]),
  },
  {
    rfc: 7857,
    clause: '§2.2',
    level: 'MUST',
    requirement: 'a RST that does not belong to the connection does not end it',
    quote: 'the NAT has to verify whether received TCP RST packets belong to a connection',
    expect: 'alive',
    run(bed) {
      const node = natNode(bed);
      const port = connect(node, A);
      // Sequence numbers far from all that was sent.
      for (let i = 1; i <= 8; i++) node.exchange('wire', back(port, { flags: RST, seq: 5001 + i * 0x1000_0000 }));
      node.wait(400);
      return yesNo(dataReaches(node, A, port), 'alive', 'gone');
    },
  },
  {
    rfc: 7857,
    clause: '§3',
    level: 'MAY',
    requirement: 'one outside port for several inside endpoints, as long as their destinations differ',
    quote:
      'this port overlapping behavior may be extended to connections originating from different internal source IP addresses and ports',
    expect: ['two ports', 'one port'],
    run(bed) {
      const node = natNode(bed);
      const ofA = mappedPort(node, A, 'tcp', SERVER, 80);
      return mappedPort(node, B, 'tcp', SERVER2, 80) === ofA ? 'one port' : 'two ports';
    },
  },
];

/** A session that its server has reset. */
function afterReset(bed: Testbed, established: boolean): { node: CheckNode; isAlive: () => boolean } {
  const node = natNode(bed);
  const port = established ? connect(node, A) : mappedPort(node, A, 'tcp', SERVER, 80);
  const flags = established ? RST : RST | ACK;
  const reset = back(port, { flags, seq: established ? 5001 : 0, ack: 1001 });
  node.exchange('wire', reset);
  // The same once more, as if the first had been lost behind the NAT.
  return { node, isAlive: () => at(node.exchange('wire', reset), 'p1').length > 0 };
}

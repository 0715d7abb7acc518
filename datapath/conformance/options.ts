/** IPv4 options that a router writes into: Record Route and Timestamp (RFC 791, RFC 1812). */
import { dotted, udp4 } from '../packet/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Clause } from './check.ts';
import { HOST, NODE, PEER, POD, REMOTE, SERVER } from './node.ts';
import { fate, innerOf, only, readIp, viewOf } from './read.ts';

const NOT_BY_CILIUM = {
  by: "Cilium's programs (bpf/lib/l3.h) redirect packets past the kernel's forwarding, and do not look at options",
  profiles: ['cilium'] as const,
};

const bytesOf = (address: string) => address.split('.').map(Number);

/** An option padded to whole words. */
function option(...bytes: number[]): Uint8Array {
  return Uint8Array.from({ length: Math.ceil(bytes.length / 4) * 4 }, (_, i) => bytes[i] ?? ipv4.OPT_END);
}

const recordRoute = (slots: number, pointer = 4) =>
  option(ipv4.OPT_RECORD_ROUTE, 3 + 4 * slots, pointer, ...Array<number>(4 * slots).fill(0));
const timestamp = (flags: number, pointer: number, ...entries: number[]) =>
  option(ipv4.OPT_TIMESTAMP, 4 + entries.length, pointer, flags, ...entries);

/** The pointer and entries of a Record Route option. */
function route(packet: Uint8Array): string {
  const { header } = readIp(packet);
  const view = viewOf(header);
  const entries: string[] = [];
  for (let at = 23; at + 4 <= 20 + header[21]; at += 4) entries.push(dotted(view.getInt32(at)));
  return `${entries.join(' ')}, next at ${header[22]}`;
}

/** The pointer, the overflow and the entries of a Timestamp option, times as 'a time' or 'none'. */
function times(packet: Uint8Array): string {
  const { header } = readIp(packet);
  const view = viewOf(header);
  const flags = header[23];
  const entries: string[] = [];
  const isTime = (at: number) => (view.getInt32(at) === 0 ? 'none' : 'a time');
  for (let at = 24; at + 4 <= 20 + header[21]; at += 4) {
    const named = (flags & 15) !== ipv4.TS_ONLY && (at - 24) % 8 === 0;
    entries.push(named ? dotted(view.getInt32(at)) : isTime(at));
  }
  return `${entries.join(', ')}; next at ${header[22]}, overflow ${flags >> 4}`;
}

const ZEROS = [0, 0, 0, 0];

export const OPTIONS: Clause[] = [
  {
    rfc: 1812,
    clause: '§5.3.13.4',
    level: 'MUST',
    requirement: 'Record Route: the node that forwards writes its address, towards the next hop',
    quote: 'Routers MUST support the Record Route option in forwarded packets.',
    expect: `${NODE} 0.0.0.0, next at 8`,
    deviations: [{ sees: '0.0.0.0 0.0.0.0, next at 4', ...NOT_BY_CILIUM }],
    run(bed) {
      const node = bed.node({ nat: true });
      const packet = udp4({ src: POD, dst: SERVER, options: recordRoute(2) });
      return route(only(node, node.exchange('p1', packet), 'wire'));
    },
  },
  {
    rfc: 1812,
    clause: '§5.3.13.4',
    level: 'MUST',
    requirement: 'Record Route that is full stays as it is, and the packet goes on',
    quote: 'Routers MUST support the Record Route option in forwarded packets.',
    expect: '0.0.0.0, next at 8',
    run(bed) {
      const node = bed.node({ nat: true });
      const packet = udp4({ src: POD, dst: SERVER, options: recordRoute(1, 8) });
      return route(only(node, node.exchange('p1', packet), 'wire'));
    },
  },
  {
    rfc: 791,
    clause: '§3.1',
    level: 'MUST',
    requirement: 'an entry that would lie half outside its option is an error: Record Route and Timestamp',
    quote:
      'If there is some room but not enough room for a full address to be inserted, the original datagram is considered to be in error and is discarded.',
    expect: 'dropped: malformed-ipv4, dropped: malformed-ipv4',
    run(bed) {
      const node = bed.node({ nat: true });
      const options = [option(7, 8, 6, 0, 0, 0, 0, 0), timestamp(0, 6, ...ZEROS)];
      return options
        .map(one => node.exchange('p1', udp4({ src: POD, dst: SERVER, options: one })))
        .map(sent => (sent.some(({ side }) => side === 'wire') ? 'delivered' : 'dropped: malformed-ipv4'))
        .join(', ');
    },
  },
  ...(
    [
      [
        'times alone',
        timestamp(0, 5, ...ZEROS, ...ZEROS),
        'a time, none; next at 9, overflow 0',
        'none, none; next at 5, overflow 0',
      ],
      [
        'addresses and times',
        timestamp(1, 5, ...ZEROS, ...ZEROS),
        `${HOST}, a time; next at 13, overflow 0`,
        '0.0.0.0, none; next at 5, overflow 0',
      ],
      [
        'addresses that are asked, ours',
        timestamp(3, 5, ...bytesOf(NODE), ...ZEROS),
        `${NODE}, a time; next at 13, overflow 0`,
        `${NODE}, none; next at 5, overflow 0`,
      ],
      [
        "addresses that are asked, another's",
        timestamp(3, 5, ...bytesOf(PEER), ...ZEROS),
        `${PEER}, none; next at 5, overflow 0`,
        `${PEER}, none; next at 5, overflow 0`,
      ],
      ['no room left', timestamp(0, 9, ...ZEROS), 'none; next at 9, overflow 1', 'none; next at 9, overflow 0'],
    ] as const
  ).map(
    ([what, options, expect, unfilled]): Clause => ({
      rfc: 1812,
      clause: '§5.3.13.5',
      level: 'MUST',
      requirement: `Timestamp: ${what}`,
      quote: 'Routers MUST support the timestamp option in datagrams forwarded by the router.',
      expect,
      deviations: expect === unfilled ? [] : [{ sees: unfilled, ...NOT_BY_CILIUM }],
      run(bed) {
        const node = bed.node({ nat: true });
        return times(only(node, node.exchange('p1', udp4({ src: POD, dst: SERVER, options })), 'wire'));
      },
    }),
  ),
  {
    rfc: 1812,
    clause: '§5.3.13.4',
    level: 'MUST',
    requirement: 'Record Route inside a tunnel: each node writes its own, the headers around it none',
    quote: 'Routers MUST support the Record Route option in forwarded packets.',
    expect: '10.244.1.1, next at 8; the outer header has 20 bytes',
    deviations: [{ sees: '0.0.0.0, next at 4; the outer header has 20 bytes', ...NOT_BY_CILIUM }],
    run(bed) {
      const node = bed.node({ tunnel: 'geneve' });
      const packet = udp4({ src: POD, dst: REMOTE, options: recordRoute(1) });
      const outer = only(node, node.exchange('p1', packet), 'wire');
      return `${route(innerOf(outer))}; the outer header has ${readIp(outer).header.length} bytes`;
    },
  },
  {
    rfc: 1812,
    clause: '§5.3.13.3',
    level: 'SHOULD',
    requirement: 'a source route is refused',
    quote: 'A router MAY have a switch that, if set, causes the router to discard all source-routed datagrams.',
    expect: 'dropped: source-route',
    run(bed) {
      const node = bed.node({ nat: true });
      const options = option(ipv4.OPT_LSRR, 7, 4, ...bytesOf(SERVER));
      return fate(node, node.exchange('p1', udp4({ src: POD, dst: SERVER, options })), 'wire');
    },
  },
];

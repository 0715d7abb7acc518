/** The sequences that are compared: connections written down, datagrams, queries, errors, and random ones. */
import { Random } from '../../../datapath/random.ts';
import { icmpEcho, icmpError, ipv4, patch, pattern, tcp4, udp4 } from '../../fixtures/packets.ts';
import {
  Conversation,
  datagram,
  FIRST_PORT,
  inFragments,
  query,
  ROUTES,
  type Route,
  type Sequence,
  type Step,
  single,
  TcpScript,
} from './conversation.ts';
import { CLIENTS, INSIDE_ADDRESS, OUTSIDE_ADDRESS, PEER, SERVER, TO_PEER, TO_SERVER } from './network.ts';
import { TCP_SCRIPTS } from './scripts.ts';

/** Gives every sequence ports and clients of its own, so that none meets the flows of another. */
class Numbers {
  private n = 0;
  private readonly seed: number;

  constructor(seed: number) {
    this.seed = seed;
  }

  conversation(route: Route, dport: number, name?: string): Conversation {
    const n = this.n++;
    return new Conversation(route, n, FIRST_PORT + n, dport, name);
  }

  script(route: Route, lines: readonly string[]): { steps: Step[]; conversation: Conversation } {
    const conversation = this.conversation(route, 80);
    return { steps: new TcpScript(conversation, this.seed + this.n * 7919).steps(lines), conversation };
  }

  port(): number {
    return FIRST_PORT + this.n++;
  }
}

const byName = (name: string) => ROUTES.find(route => route.name === name)!;

export function allSequences(seed: number, randomOnes: number): Sequence[] {
  const numbers = new Numbers(seed);
  const random = new Random(seed);
  return [
    ...tcpSequences(numbers),
    ...ROUTES.flatMap(route => [...udpSequences(numbers, route), ...icmpSequences(numbers, route)]),
    ...ROUTES.flatMap(route => errorSequences(numbers, route)),
    ...ROUTES.flatMap(route => fragmentSequences(numbers, route)),
    ...clashSequences(numbers),
    ...nodeSequences(numbers),
    ...Array.from({ length: randomOnes }, (_, i) => {
      const route = ROUTES[random.below(ROUTES.length)];
      return i % 4 === 3 ? randomDatagrams(numbers, route, random) : randomTcp(numbers, route, random);
    }),
  ];
}

function tcpSequences(numbers: Numbers): Sequence[] {
  return ROUTES.flatMap(route =>
    Object.entries(TCP_SCRIPTS).map(([name, lines]) => ({
      name: `TCP, ${route.name}: ${name}`,
      steps: numbers.script(route, lines).steps,
    })),
  );
}

function udpSequences(numbers: Numbers, route: Route): Sequence[] {
  const make = (name: string, steps: (c: Conversation) => Step[]) => ({
    name: `UDP, ${route.name}: ${name}`,
    steps: steps(numbers.conversation(route, 53)),
  });
  return [
    make('question and answer', c => [datagram(c, true), datagram(c, false), datagram(c, true), datagram(c, false)]),
    make('one way', c => [datagram(c, true), datagram(c, true), datagram(c, true)]),
    make('without checksum', c => [datagram(c, true, { sum: false }), datagram(c, false, { sum: false })]),
    make('empty', c => [datagram(c, true, { len: 0 }), datagram(c, false, { len: 0 })]),
    make('odd lengths', c =>
      [1, 3, 555, 1371].flatMap(len => [datagram(c, true, { len }), datagram(c, false, { len })]),
    ),
    make('DSCP and ECN', c => [datagram(c, true, { tos: 0xb8 }), datagram(c, false, { tos: 3 })]),
    make('the TTL runs out', c => [
      datagram(c, true, { ttl: 1 }),
      datagram(c, true, { ttl: 2 }),
      datagram(c, false, { ttl: 1 }),
      datagram(c, false, { ttl: 2 }),
    ]),
    make('too long for the way', c => [
      datagram(c, true, { len: 1380, fragment: 0x4000 }),
      datagram(c, true, { len: 1372, fragment: 0x4000 }),
      datagram(c, false, { len: 1372, fragment: 0x4000 }),
    ]),
    make('fragmented by the node', c => [datagram(c, true, { len: 1480 }), datagram(c, true, { len: 4000 })]),
    make('header options', c => [
      datagram(c, true, { options: Uint8Array.of(1, 1, 1, 0) }),
      datagram(c, false, { options: Uint8Array.of(1, 1, 1, 0) }),
    ]),
    make('a bad header checksum', c => [
      c.forward('bad header', (t, id) => patch(udp4({ ...t, id }), 10, 1, 2)),
      datagram(c, true),
      datagram(c, false),
    ]),
    make('a bad checksum', c => [
      c.forward('bad checksum', (t, id) => patch(udp4({ ...t, id, payload: pattern(9) }), 30, 99)),
    ]),
    make('a UDP length that is not the packet', c => [
      c.forward('long', (t, id) => patch(udp4({ ...t, id, payload: pattern(9) }), 24, 0, 200)),
      c.forward('short', (t, id) => patch(udp4({ ...t, id, payload: pattern(9) }), 24, 0, 7)),
    ]),
  ];
}

function icmpSequences(numbers: Numbers, route: Route): Sequence[] {
  // A service has no port for a query.
  if (route.dnat) return [];
  const make = (name: string, steps: (c: Conversation) => Step[]) => ({
    name: `ICMP, ${route.name}: ${name}`,
    steps: steps(numbers.conversation(route, 0)),
  });
  return [
    make('echo', c => [query(c, true, 8, 1), query(c, false, 0, 1), query(c, true, 8, 2), query(c, false, 0, 2)]),
    make('timestamp', c => [query(c, true, 13, 1, 12), query(c, false, 14, 1, 12)]),
    make('two answers', c => [query(c, true, 8, 1), query(c, false, 0, 1), query(c, false, 0, 1)]),
    make('an answer to nothing', c => [query(c, true, 0, 1), query(c, true, 14, 1, 12)]),
    make('a question back', c => [query(c, true, 8, 1), query(c, false, 8, 1), query(c, true, 0, 1)]),
    make('other types', c => [1, 2, 6, 7, 9, 10, 19, 30, 40].map(type => query(c, true, type, 1))),
    make('a long one', c => [query(c, true, 8, 1, 1300), query(c, false, 0, 1, 1300)]),
    make('a code', c => [
      c.forward('code 5', (t, id) => icmpEcho({ src: t.src, dst: t.dst, code: 5, icmpId: t.sport, id })),
      query(c, false, 0, 1),
    ]),
    make('a bad checksum', c => [
      c.forward('bad checksum', (t, id) => patch(icmpEcho({ ...t, id, icmpId: t.sport }), 22, 1, 2)),
    ]),
  ];
}

function errorSequences(numbers: Numbers, route: Route): Sequence[] {
  const sequences: Sequence[] = [];
  const protocols: [string, number, (c: Conversation) => Step[]][] = [
    ['UDP', 53, c => [datagram(c, true, { len: 400 }), datagram(c, false, { len: 400 })]],
    ['TCP', 80, c => new TcpScript(c, 99).steps(['> S', '< SA', '> A', '> PA len=400', '< PA len=400'])],
  ];
  if (!route.dnat) protocols.push(['echo', 0, c => [query(c, true, 8, 1), query(c, false, 0, 1)]]);
  for (const [protocol, dport, talk] of protocols) {
    const add = (name: string, errors: (c: Conversation) => Step[]) => {
      const c = numbers.conversation(route, dport);
      const again = protocol === 'UDP' ? [datagram(c, true), datagram(c, false)] : [];
      sequences.push({
        name: `error about ${protocol}, ${route.name}: ${name}`,
        steps: [...talk(c), ...errors(c), ...again],
      });
    };
    for (const about of ['forward', 'reverse'] as const) {
      const on = about === 'forward' ? 'the way out' : 'the way back';
      add(`port unreachable on ${on}`, c => [c.error(about, 3, 3), c.error(about, 3, 3, { quoted: 28 })]);
      add(`fragmentation needed on ${on}`, c => [
        c.error(about, 3, 4, { mtu: 1280 }),
        c.error(about, 3, 4, { mtu: 576, quoted: 28 }),
      ]);
      add(`time exceeded on ${on}`, c => [c.error(about, 11, 0), c.error(about, 11, 1, { quoted: 48 })]);
      add(`other errors on ${on}`, c => [
        c.error(about, 3, 0),
        c.error(about, 3, 13),
        c.error(about, 12, 0),
        c.error(about, 4, 0),
        c.error(about, 5, 1),
        c.error(about, 5, 0),
      ]);
      add(`quotes that break off on ${on}`, c =>
        [20, 22, 28, 29, 33, 36, 40, 41].map(quoted => c.error(about, 3, 1, { quoted })),
      );
      add(`from the end itself on ${on}`, c => [
        c.error(about, 3, 3, { from: about === 'forward' ? undefined : c.near.src }),
      ]);
      add(`a quote of 27 bytes on ${on}`, c => [c.error(about, 3, 1, { quoted: 27 })]);
      add(`a quote of 39 bytes on ${on}`, c => [c.error(about, 3, 1, { quoted: 39 })]);
      add(`quotes with bad checksums on ${on}`, c => [
        c.error(about, 3, 1, { label: 'IP', spoil: quote => patch(quote, 10, 0, 1) }),
        c.error(about, 3, 1, {
          label: 'L4',
          spoil: quote => patch(quote, protocol === 'TCP' ? 36 : protocol === 'UDP' ? 26 : 22, 7, 7),
        }),
      ]);
      add(`quotes of other packets on ${on}`, c => [
        c.error(about, 3, 1, { label: 'other port', spoil: quote => patch(quote, 20, 0, 9) }),
      ]);
      add(`quotes of nonsense on ${on}`, c =>
        (
          [
            ['other protocol', 9, 200],
            ['IP header too long', 0, 0x4f],
            ['IP header too short', 0, 0x44],
          ] as const
        ).map(([label, at, byte]) => c.error(about, 3, 1, { label, spoil: quote => patch(quote, at, byte) })),
      );
      add(`quote of IP version 6 on ${on}`, c => [
        c.error(about, 3, 1, { label: 'IP version 6', spoil: quote => patch(quote, 0, 0x65) }),
      ]);
      add(`quote of a fragment on ${on}`, c => [
        c.error(about, 3, 1, { label: 'fragment', spoil: quote => patch(quote, 6, 0x00, 0x10) }),
      ]);
      add(`bad checksum on ${on}`, c => [c.error(about, 3, 1, {}, packet => patch(packet, 22, 1, 1))]);
    }
    add('about a packet of somebody else', c => [
      single('> icmp 3/1', route.near, id =>
        icmpError(3, 1, udp4({ src: '10.99.0.1', dst: c.near.src, sport: 7, dport: 7 }), {
          src: c.near.src,
          dst: SERVER,
          id,
        }),
      ),
    ]);
  }
  return sequences;
}

/** Datagrams in pieces, in any order, with some of them twice, or one of them lost. */
function fragmentSequences(numbers: Numbers, route: Route): Sequence[] {
  const make = (name: string, steps: (c: Conversation) => Step[]) => ({
    name: `fragments, ${route.name}: ${name}`,
    steps: steps(numbers.conversation(route, 53)),
  });
  const both = (c: Conversation, len: number, size: number, order: number[]) => [
    inFragments(datagram(c, true, { len }), size, order),
    inFragments(datagram(c, false, { len }), size, order),
  ];
  return [
    make('two in order', c => both(c, 1500, 1000, [0, 1])),
    make('two, the last one first', c => both(c, 1500, 1000, [1, 0])),
    make('five in order', c => both(c, 5000, 1024, [0, 1, 2, 3, 4])),
    make('five, the first one last', c => both(c, 5000, 1024, [4, 3, 1, 2, 0])),
    make('in the middle of a conversation', c => [
      datagram(c, true),
      ...both(c, 3000, 1008, [1, 0, 2]),
      datagram(c, false),
    ]),
  ];
}

/** Flows that would look the same at the far end. */
function clashSequences(numbers: Numbers): Sequence[] {
  const sequences: Sequence[] = [];
  const out = byName('masqueraded');
  const two = (
    name: string,
    first: [Route, number, number],
    second: [Route, number, number],
    talk: (c: Conversation) => [Step, Step],
  ) => {
    const port = numbers.port();
    const a = new Conversation(first[0], first[1], port, first[2], 'a');
    const b = new Conversation(second[0], second[1], port, second[2], 'b');
    const [toA, fromA] = talk(a);
    const [toB, fromB] = talk(b);
    sequences.push({
      name: `clash: ${name}`,
      steps: [
        toA,
        toB,
        fromB,
        fromA,
        toB,
        toA,
        fromA,
        fromB,
        a.error('forward', 3, 4, { mtu: 600 }),
        b.error('forward', 3, 3),
      ],
    });
  };
  const udp = (c: Conversation): [Step, Step] => [datagram(c, true), datagram(c, false)];
  const echo = (c: Conversation): [Step, Step] => [query(c, true, 8, 1), query(c, false, 0, 1)];
  const other = (dst: string): Route => ({ ...out, dst });
  two('two clients, one port, one server', [out, 0, 53], [out, 1, 53], udp);
  two('two clients, one port, two ports of a server', [out, 0, 53], [out, 1, 54], udp);
  two('two clients, one port, two servers', [out, 0, 53], [other('203.0.113.6'), 1, 53], udp);
  two('two clients, one identifier', [out, 0, 0], [out, 1, 0], echo);
  two('two clients, one identifier, two servers', [out, 0, 0], [other('203.0.113.6'), 1, 0], echo);
  // The same client at the backend by the service and by the backend's own address.
  two(
    'service and backend',
    [byName('to a service'), 0, 53],
    [{ ...byName('not translated'), dst: PEER }, 0, 5353],
    udp,
  );
  two(
    'backend and service',
    [{ ...byName('not translated'), dst: PEER }, 0, 5353],
    [byName('to a service'), 0, 53],
    udp,
  );
  two(
    'service and backend, masqueraded',
    [byName('to a service, masqueraded'), 0, 53],
    [other(TO_SERVER.backend), 0, 5353],
    udp,
  );
  const port = numbers.port();
  const clients = [0, 1, 2].map(n => new Conversation(out, n, port, 80, `c${n}`));
  const scripts = clients.map((c, n) => new TcpScript(c, 500 + n));
  sequences.push({
    name: 'clash: three clients, one port, TCP',
    steps: ['> S', '< SA', '> A', '> PA len=100', '< PA len=100', '> FA', '< FA', '> A'].flatMap(line =>
      scripts.map(script => script.step(line)!),
    ),
  });
  return sequences;
}

/** What is for the node itself, or for nobody. */
function nodeSequences(numbers: Numbers): Sequence[] {
  const port = numbers.port();
  const client = CLIENTS[2];
  const payload = Uint8Array.of(0, 0, 8, 0, ...pattern(40));
  const echo = (side: 'in' | 'out', src: string, dst: string) =>
    single(`echo to ${dst}`, side, id => icmpEcho({ src, dst, icmpId: port, id }));
  return [
    {
      name: 'node: ping from inside',
      steps: [echo('in', client, INSIDE_ADDRESS), echo('in', client, OUTSIDE_ADDRESS)],
    },
    { name: 'node: ping from outside', steps: [echo('out', '192.0.2.1', OUTSIDE_ADDRESS)] },
    {
      name: 'node: answers that nobody waits for',
      steps: [
        single('UDP', 'out', id => udp4({ src: SERVER, dst: OUTSIDE_ADDRESS, sport: 53, dport: port, id })),
        single('SYN ACK', 'out', id =>
          tcp4({ src: SERVER, dst: OUTSIDE_ADDRESS, sport: 80, dport: port, flags: 0x12, id }),
        ),
        single('echo reply', 'out', id => icmpEcho({ src: SERVER, dst: OUTSIDE_ADDRESS, type: 0, icmpId: port, id })),
        single('error', 'out', id =>
          icmpError(3, 3, udp4({ src: OUTSIDE_ADDRESS, dst: SERVER, sport: port, dport: 9 }), {
            src: SERVER,
            dst: OUTSIDE_ADDRESS,
            id,
          }),
        ),
      ],
    },
    {
      name: 'node: a port that no service has',
      steps: (['in', 'out'] as const).flatMap(side => {
        const src = side === 'in' ? client : '192.0.2.1';
        return [
          single('TCP', side, id => tcp4({ src, dst: TO_PEER.vip, sport: port, dport: 81, flags: 2, id })),
          single('UDP', side, id => udp4({ src, dst: TO_PEER.vip, sport: port, dport: 81, id, payload: pattern(30) })),
        ];
      }),
    },
    {
      name: 'node: other protocols',
      // GRE, version 0.
      steps: [47, 50, 51, 4, 103, 255].flatMap(protocol => [
        single(`protocol ${protocol} out`, 'in', id => ipv4(protocol, payload, { src: client, dst: SERVER, id })),
        single(`protocol ${protocol} back`, 'out', id =>
          ipv4(protocol, payload, { src: SERVER, dst: OUTSIDE_ADDRESS, id }),
        ),
        single(`protocol ${protocol}, not translated`, 'in', id =>
          ipv4(protocol, payload, { src: client, dst: PEER, id }),
        ),
      ]),
    },
  ];
}

// ---------------------------------------------------------------- random

function randomTcp(numbers: Numbers, route: Route, random: Random): Sequence {
  const { conversation } = numbers.script(route, []);
  const lines: string[] = [];
  const chance = (percent: number) => random.below(100) < percent;
  const options = () => `${chance(50) ? ` ws=${random.below(15)}` : ''}${chance(50) ? ' sack' : ''}`;
  if (chance(80)) {
    lines.push(`> S${options()}`);
    if (chance(90)) lines.push(`< SA${options()}`);
    if (chance(90)) lines.push('> A');
  }
  const flags = ['A', 'A', 'PA', 'PA', 'PA', 'FA', 'R', 'RA', 'S', 'SA', 'FPA', 'F', 'UA', '-', 'SF'];
  for (let n = 5 + random.below(20); n > 0; n--) {
    const letters = flags[random.below(flags.length)];
    const words = [chance(50) ? '>' : '<', letters];
    if (letters.includes('P')) words.push(`len=${1 + random.below(1300)}`);
    if (chance(20)) words.push(`seq${offset(random)}`);
    if (chance(15)) words.push(`ack${offset(random)}`);
    if (letters[0] === 'R' && chance(30)) words.push('seq=0');
    if (letters[0] === 'S') {
      words.push(...options().split(' ').filter(Boolean));
      if (chance(30)) words.push('new');
    }
    if (letters === 'A' && chance(20)) words.push(`sackto${offset(random)}`);
    if (chance(15)) words.push(`win=${[0, 1, 100, 1000, 65535][random.below(5)]}`);
    if (chance(5)) words.push('lost');
    lines.push(words.join(' '));
  }
  return {
    name: `random TCP, ${route.name}`,
    steps: new TcpScript(conversation, random.next()).steps(lines),
  };
}

/** A distance of every size, with the edges that the windows here have. */
function offset(random: Random): string {
  const sizes = [1, 2, 100, 1000, 8191, 8192, 8193, 65999, 66001, 70000, 1_000_000, 0x70000000];
  return `${random.below(2) === 0 ? '+' : '-'}${sizes[random.below(sizes.length)]}`;
}

function randomDatagrams(numbers: Numbers, route: Route, random: Random): Sequence {
  const c = numbers.conversation(route, 53);
  const steps: Step[] = [];
  for (let n = 6 + random.below(12); n > 0; n--) {
    const about = random.below(2) === 0 ? 'forward' : 'reverse';
    if (random.below(3) > 0) {
      const ttl = random.below(10) === 0 ? 1 : 64;
      steps.push(
        datagram(c, random.below(2) === 0, {
          len: random.below(1300),
          tos: random.below(256),
          ttl,
          sum: random.below(5) > 0,
        }),
      );
    } else {
      const [type, code] = [
        [3, 3],
        [3, 4],
        [11, 0],
        [12, 0],
        [3, 1],
      ][random.below(5)];
      steps.push(
        c.error(about, type, code, {
          mtu: 500 + random.below(1000),
          quoted: random.below(2) === 0 ? undefined : 20 + random.below(40),
        }),
      );
    }
  }
  return { name: `random UDP and errors, ${route.name}`, steps };
}

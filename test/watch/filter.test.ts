import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { LINK_ETHERNET, LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { compileFilter } from '../../datapath/watch/filter.ts';
import { Peek } from '../../datapath/watch/peek.ts';
import { arpFrame, ethernet, icmpEcho, ipv4, load, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

/** Addresses and ports from a small set, so that conditions meet packets. */
const HOSTS = ['10.0.0.1', '10.0.0.2', '10.0.1.1', '192.168.0.1'];
const PORTS = [53, 80, 443, 40_000];
const FLAGS = [0x02, 0x12, 0x10, 0x11];
const DATAGRAM = Uint8Array.of(0, 53, 0, 80, 0, 8, 0, 0);
const MACS = { src: '02:00:00:00:00:01', dst: '46:00:00:20:00:02' };

const ipPackets = HOSTS.flatMap((src, i) =>
  HOSTS.flatMap((dst, j) => [
    ...PORTS.map((dport, k) => tcp4({ src, dst, sport: PORTS[(k + 1) % 4], dport, flags: FLAGS[(i + k) % 4] })),
    ...PORTS.map((dport, k) => udp4({ src, dst, sport: PORTS[(k + 2) % 4], dport, payload: pattern(20 * j) })),
    icmpEcho({ src, dst }),
    // A first fragment and a later one, whose first bytes are no ports; and what has none.
    ipv4(17, DATAGRAM, { src, dst, fragment: 0x2000 }),
    ipv4(17, DATAGRAM, { src, dst, fragment: 1 }),
    ipv4(47, pattern(30), { src, dst }),
  ]),
).concat(ipv4(112, pattern(20), { src: HOSTS[0], dst: '224.0.0.18' }));

const PACKETS: Record<string, { layer: 2 | 3; link: number; packets: Uint8Array[] }> = {
  raw: { layer: 3, link: LINK_RAW, packets: ipPackets },
  ethernet: {
    layer: 2,
    link: LINK_ETHERNET,
    packets: [
      ...ipPackets.map(packet => ethernet(packet, MACS)),
      ...HOSTS.map(spa => arpFrame({ oper: 1, sha: MACS.src, spa, tha: '00:00:00:00:00:00', tpa: HOSTS[1] })),
      ethernet(new Uint8Array(46).fill(0x60), { ...MACS, type: 0x86dd }),
      ethernet(pattern(46), { ...MACS, type: 0x88cc }),
    ],
  },
};

const side = fc.constantFrom('', 'src ', 'dst ', 'src or dst ', 'src and dst ');
/** Bytes of one protocol, first: libpcap forgets to ask for the protocol of what stands behind an operator. */
const relationOf = (name: string) => {
  const words = { ip: 'ip[0]', icmp: 'icmp[icmptype]', tcp: 'tcp[tcpflags]', udp: 'udp[4:2]' };
  const bytes = fc.oneof(
    fc.constant(words[name as keyof typeof words]),
    fc.tuple(fc.nat(30), fc.constantFrom('', ':1', ':2', ':4')).map(([at, size]) => `${name}[${at}${size}]`),
  );
  const second = fc.oneof(bytes, fc.constantFrom('len', '2', '0x1f', '010', 'tcp-syn', 'icmp-echo'));
  const operation = fc.tuple(fc.constantFrom('+', '-', '*', '&', '|', '<<', '>>'), second).map(both => both.join(' '));
  const arithmetic = fc.oneof(
    bytes,
    fc.tuple(bytes, operation).map(([a, b]) => `${a} ${b}`),
    fc.tuple(bytes, operation, operation).map(([a, b, c]) => `${a} ${b} ${c}`),
    fc.tuple(bytes, operation, operation).map(([a, b, c]) => `(${a} ${b}) ${c}`),
  );
  const relation = fc.constantFrom('=', '!=', '<', '>', '<=', '>=', '==');
  return fc.tuple(arithmetic, relation, fc.oneof(arithmetic, second)).map(all => all.join(' '));
};
const primitive = fc.oneof(
  fc.tuple(fc.constantFrom('', 'ip ', 'arp '), side, fc.constantFrom(...HOSTS)).map(([p, s, h]) => `${p}${s}host ${h}`),
  fc
    .tuple(
      side,
      fc.constantFrom('10.0.0.0/24', '10.0.0.0/8', '10', '10.0.1', '10.0.0.0 mask 255.255.254.0', '0.0.0.0/0'),
    )
    .map(([s, net]) => `${s}net ${net}`),
  fc
    .tuple(fc.constantFrom('', 'tcp ', 'udp '), side, fc.constantFrom(...PORTS, 0, 'domain'))
    .map(([p, s, n]) => `${p}${s}port ${n}`),
  fc.tuple(side, fc.constantFrom('50-90', '443-40000', '0-60')).map(([s, range]) => `${s}portrange ${range}`),
  fc.constantFrom('tcp', 'udp', 'icmp', 'ip', 'arp', 'ip6', 'less 40', 'greater 54', 'ip proto 17', 'ip proto \\tcp'),
  fc.constantFrom('ip multicast', 'ether proto 0x806', 'ether proto \\ip', 'sctp', 'rarp'),
  fc.constantFrom('port 80 or 443', 'src port 53 or 80', 'port (80 or 443)', 'src host (10.0.0.1 or 10.0.0.2)'),
  fc.constantFrom(...HOSTS.map(host => `host ${host} or ${HOSTS[0]}`), 'src 10.0.0.1', 'not dst net 10.0.1.0/24'),
  fc.constantFrom('ip', 'tcp', 'udp', 'icmp').chain(relationOf),
);
const { filter } = fc.letrec<{ filter: string }>(tie => ({
  filter: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    primitive,
    fc.tuple(tie('filter'), fc.constantFrom('and', 'or', '&&', '||'), tie('filter')).map(all => all.join(' ')),
    fc.tuple(tie('filter'), fc.constantFrom('and', 'or'), tie('filter')).map(([a, op, b]) => `(${a}) ${op} (${b})`),
    tie('filter').map(a => `not (${a})`),
    tie('filter').map(a => `! (${a})`),
  ),
}));

describe('filters', function () {
  this.timeout(60_000);
  let dir = '';
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-filter-'));
    for (const [name, { link, packets }] of Object.entries(PACKETS)) {
      const writer = new PcapWriter(join(dir, name), link);
      packets.forEach((packet, i) => {
        writer.write(i * 1000, packet);
      });
      writer.close();
    }
  });
  after(() => rmSync(dir, { recursive: true }));

  /** Positions of the packets that pass, as the loop looks at them. */
  const mine = (name: string, text: string): number[] => {
    const { layer, packets } = PACKETS[name];
    const passes = compileFilter(text);
    const pool = new Pool(1);
    const peek = new Peek();
    return packets.flatMap((packet, i) => {
      const p = load(pool, packet);
      peek.look(pool.view, p, layer);
      const isPassed = passes(peek);
      pool.release(p);
      return isPassed ? [i] : [];
    });
  };

  /** -O: libpcap's optimizer loses packets of nested negations. */
  const theirs = (name: string, text: string): number[] | string => {
    const argv = ['-O', '-n', '-tt', '-r', join(dir, name), text];
    const { stdout, stderr, status } = spawnSync('tcpdump', argv, { encoding: 'utf8' });
    if (status !== 0) return stderr;
    return stdout.split('\n').flatMap(line => (/^\d/.test(line) ? [Math.floor(Number(line.split(' ')[0]))] : []));
  };

  for (const name of Object.keys(PACKETS)) {
    it(`pass what tcpdump passes: ${name}`, () => {
      fc.assert(
        fc.property(filter, text => {
          const expected = theirs(name, text);
          // What libpcap refuses: `ether` without Ethernet, and what it finds out to pass nothing.
          fc.pre(Array.isArray(expected));
          assert.deepEqual(mine(name, text), expected, text);
        }),
        { numRuns: 40 },
      );
    });
  }

  it('pass what tcpdump passes: the filters that people write', () => {
    for (const text of [
      'tcp or udp and port 53',
      'tcp[tcpflags] & (tcp-syn|tcp-fin) != 0',
      'tcp[tcpflags] == tcp-syn',
      'tcp[13] & 2 != 0 and not host 10.0.0.1',
      'icmp[icmptype] = icmp-echo or icmp[0]=0',
      'tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)',
      'ip[6:2] & 0x1fff != 0',
      'udp[4:2]>20',
      'len/2 > 20',
      'udp[4:2]/8=3 and udp[4:2]%8=4',
      '100/len = 2 or ip[2:2]/2*2 != ip[2:2]',
      '(ip[6:2]&0x1fff)/1=0',
      'net 10.0.0.0 / 8 and not net 10.0.1/24',
      'src net 10.0.0.0/24 or 192.168.0/24',
      'host 10.0.0.1 and (10.0.0.2 or 10.0.1.1)',
      'not arp and not (tcp port 80 or 443)',
      'src net 10 and dst port domain',
    ]) {
      for (const name of Object.keys(PACKETS))
        assert.deepEqual(mine(name, text), theirs(name, text), `${name}: ${text}`);
    }
  });

  it('say at which character what was expected', () => {
    const wrong: [string, RegExp][] = [
      ['host', /character 5: got the end, expected an IPv4 address/],
      ['port 70000', /character 6: got "70000", expected a port from 0 to 65535/],
      ['tcp and', /character 8: got the end, expected a condition/],
      ['(tcp', /character 5: got the end, expected \)/],
      ['tcp udp', /character 5: got "udp", expected and, or, or the end/],
      ['net 10.0.0.0/33', /character 14: got "33", expected a prefix length from 0 to 32/],
      ['net 10.0.0.0.0/8', /character 5: .*expected an IPv4 address or network/],
      ['len __proto__ 1 > 0', /character 5: got "__proto__", expected =, !=/],
      ['len constructor 1', /character 5: got "constructor", expected =, !=/],
      ['net 10.0.0.0 mask x', /character 19: got "x", expected a mask/],
      ['portrange 90-80', /expected a range of ports/],
      ['tcp[13', /character 7: got the end, expected \]/],
      ['tcp[13] & 2', /character 12: got the end, expected =, !=/],
      ['tcp[13:3] = 2', /character 8: got "3", expected 1, 2 or 4/],
      ['vlan[2] = 2', /character 1: got "vlan", expected ip, arp, icmp, tcp, udp or sctp/],
      ['((((('.repeat(20), /64 parentheses and negations at most/],
      ['x'.repeat(5000), /filter of 5000 characters/],
    ];
    for (const [text, message] of wrong) assert.throws(() => compileFilter(text), message, text.slice(0, 20));
  });

  it('any text ends in a filter or an error of ours', () => {
    const words = fc.constantFrom(
      ...[
        'host',
        'src',
        'or',
        '(',
        ')',
        'not',
        'and',
        '10.0.0.1',
        'port',
        '80',
        '!',
        '/',
        '-1',
        'é',
        'tcp',
        '[',
        ']',
        ':',
      ],
      ...['&', '=', 'len', 'net', '10', 'mask', 'proto', '>', '__proto__', 'constructor', 'toString'],
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(words).map(w => w.join(' ')),
        ),
        text => {
          try {
            assert.ok(Array.isArray(mine('ethernet', text)));
          } catch (error) {
            assert.equal((error as Error).name, 'FilterError', (error as Error).stack);
          }
        },
      ),
    );
  });
});

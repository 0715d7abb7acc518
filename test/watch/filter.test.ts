import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { compileFilter, type Filtered } from '../../datapath/watch/filter.ts';
import { icmpEcho, ip, tcp4, udp4 } from '../fixtures/packets.ts';

/** Addresses and ports from a small set, so that conditions meet packets. */
const HOSTS = ['10.0.0.1', '10.0.0.2', '10.0.1.1', '192.168.0.1'];
const PORTS = [53, 80, 443, 40_000];

const packets = HOSTS.flatMap(src =>
  HOSTS.flatMap(dst => [
    ...PORTS.map((dport, i) => ({ src, dst, sport: PORTS[(i + 1) % 4], dport, protocol: 6 })),
    ...PORTS.map((dport, i) => ({ src, dst, sport: PORTS[(i + 2) % 4], dport, protocol: 17 })),
    { src, dst, sport: 0, dport: 0, protocol: 1 },
  ]),
);

const bytesOf = ({ src, dst, sport, dport, protocol }: (typeof packets)[number]): Uint8Array => {
  if (protocol === 1) return icmpEcho({ src, dst });
  return protocol === 6 ? tcp4({ src, dst, sport, dport }) : udp4({ src, dst, sport, dport });
};

const filtered: Filtered[] = packets.map(p => ({
  src: ip(p.src),
  dst: ip(p.dst),
  srcPort: p.sport,
  dstPort: p.dport,
  protocol: p.protocol,
  len: bytesOf(p).length,
}));

const side = fc.constantFrom('', 'src ', 'dst ');
const primitive = fc.oneof(
  fc.tuple(side, fc.constantFrom(...HOSTS)).map(([s, host]) => `${s}host ${host}`),
  fc.tuple(side, fc.constantFrom('10.0.0.0/24', '10.0.0.0/8', '192.168.0.0/16')).map(([s, net]) => `${s}net ${net}`),
  fc
    .tuple(fc.constantFrom('', 'tcp ', 'udp '), side, fc.constantFrom(...PORTS))
    .map(([p, s, n]) => `${p}${s}port ${n}`),
  fc.tuple(side, fc.constantFrom('50-90', '443-40000')).map(([s, range]) => `${s}portrange ${range}`),
  fc.constantFrom('tcp', 'udp', 'icmp', 'ip', 'less 40', 'greater 40', 'ip proto 17'),
  fc.constantFrom(...HOSTS.map(host => `host ${host} or ${HOSTS[0]}`), 'port 80 or 443', 'src port 53 or 80'),
);
const { filter } = fc.letrec<{ filter: string }>(tie => ({
  filter: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    primitive,
    fc.tuple(tie('filter'), fc.constantFrom('and', 'or'), tie('filter')).map(([a, op, b]) => `(${a}) ${op} (${b})`),
    tie('filter').map(a => `not (${a})`),
  ),
}));

describe('filters', () => {
  let dir = '';
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-filter-'));
    const writer = new PcapWriter(join(dir, 'all.pcap'), LINK_RAW);
    packets.forEach((p, i) => {
      writer.write(i * 1000, bytesOf(p));
    });
    writer.close();
  });
  after(() => rmSync(dir, { recursive: true }));

  it('pass what tcpdump passes', () => {
    fc.assert(
      fc.property(filter, text => {
        const own = text.replaceAll('ip proto', 'proto');
        const mine = filtered.flatMap((p, i) => (compileFilter(own)(p) ? [i] : []));
        // -O: libpcap's optimizer loses packets of nested negations.
        const { stdout, stderr, status } = spawnSync(
          'tcpdump',
          ['-O', '-n', '-tt', '-r', join(dir, 'all.pcap'), text],
          {
            encoding: 'utf8',
          },
        );
        assert.ok(status === 0 || stderr.includes('expression rejects all packets'), stderr);
        const theirs = stdout
          .split('\n')
          .filter(line => line !== '')
          .map(line => Math.floor(Number(line.split(' ')[0])));
        assert.deepEqual(mine, theirs, text);
      }),
      { numRuns: 60 },
    );
  });

  it('say at which character what was expected', () => {
    const wrong: [string, RegExp][] = [
      ['host', /character 5: got the end, expected an IPv4 address/],
      ['port 70000', /character 6: got "70000", expected a port from 0 to 65535/],
      ['tcp and', /character 8: got the end, expected a condition/],
      ['(tcp', /character 5: got the end, expected \)/],
      ['tcp udp', /character 5: got "udp", expected and, or, or the end/],
      ['net 10.0.0.0/33', /expected an IPv4 address or network/],
      ['portrange 90-80', /expected a range of ports/],
      ['((((('.repeat(20), /64 parentheses and negations at most/],
      ['x'.repeat(5000), /filter of 5000 characters/],
    ];
    for (const [text, message] of wrong) assert.throws(() => compileFilter(text), message, text.slice(0, 20));
  });

  it('any text ends in a filter or an error of ours', () => {
    const words = fc.constantFrom('host', 'src', '(', ')', 'not', 'and', '10.0.0.1', 'port', '80', '!', '/', '-1', 'é');
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(words).map(w => w.join(' ')),
        ),
        text => {
          try {
            assert.equal(typeof compileFilter(text)(filtered[0]), 'boolean');
          } catch (error) {
            assert.equal((error as Error).name, 'FilterError');
          }
        },
      ),
    );
  });
});

import { strict as assert } from 'node:assert';
import { parseIcmpError } from '../../datapath/host/icmp-listener.ts';
import {
  judgeChecksums,
  judgeConflicts,
  judgeDrops,
  judgePair,
  judgePorts,
  type PairFacts,
  type Ping,
  type Result,
} from '../../datapath/host/judge-pair.ts';
import { parsePing, parseSnmp } from '../../datapath/host/probe-pair.ts';

const ANSWERED: Ping = { sent: 3, received: 3, rttMs: 0.1 };
const SILENT: Ping = { sent: 3, received: 0 };
const refusedFor = (tooLongFor: number): Ping => ({ sent: 1, received: 0, tooLongFor });

/** A pair that works. */
function facts(more: Partial<PairFacts> = {}): PairFacts {
  return {
    peer: '192.168.10.2',
    node: { address: '192.168.10.1', kind: 'routed', underlayMtu: 1500, tunnelMtu: 1450 },
    traffic: 'UDP port 8472',
    neighbor: { address: '192.168.10.2', answers: true },
    underlay: ANSWERED,
    underlayFull: ANSWERED,
    firewall: { outcome: 'accept' },
    target: { address: '10.244.2.1', source: '10.244.1.1' },
    tunnel: ANSWERED,
    counted: { encapsulated: 3, decapsulated: 3 },
    sizes: [0, 56, 1422].map(size => ({ size, ping: ANSWERED })),
    above: refusedFor(1450),
    fragments: [ANSWERED, ANSWERED],
    ...more,
  };
}

/** A pair whose tunnel is silent. */
const silent = (more: Partial<PairFacts> = {}) =>
  facts({
    tunnel: SILENT,
    sizes: undefined,
    above: undefined,
    fragments: undefined,
    counted: { encapsulated: 3 },
    ...more,
  });

describe('host check', () => {
  it('a pair that works', () => {
    const rows = judgePair(facts());
    assert.deepEqual(
      rows.map(row => row.check),
      ['underlay', 'underlay-mtu', 'firewall', 'tunnel', 'tunnel-sizes', 'above-mtu', 'fragments'],
    );
    for (const row of rows) assert.deepEqual([row.result, row.todo, row.peer], ['ok', '', '192.168.10.2'], row.check);
  });

  type Case = [what: string, facts: PairFacts, check: string, result: Result, seen: RegExp, todo?: RegExp];
  const refusals: [type: number, code: number, from: string, seen: RegExp, todo: RegExp][] = [
    [3, 0, '10.0.0.254', /10\.0\.0\.254, on the way to 192\.168\.10\.2, has no route/, /missing on 10\.0\.0\.254/],
    [3, 1, '10.0.0.254', /finds nobody at 192\.168\.10\.2 \(ICMP 3\/1\)/, /is 192\.168\.10\.2 up/],
    [3, 2, '192.168.10.2', /nobody listens \(ICMP 3\/2\)$/, /start the node/],
    [3, 3, '10.0.0.7', /nobody listens \(ICMP 3\/3\); 10\.0\.0\.7 answers for it/, /start the node/],
    [3, 9, '10.0.0.254', /a firewall there forbids it \(ICMP 3\/9\)/, /pass on 10\.0\.0\.254/],
    [3, 10, '192.168.10.2', /192\.168\.10\.2 refuses UDP port 8472: a firewall there forbids it/, /let UDP port 8472/],
    [3, 13, '10.0.0.254', /a firewall there forbids it \(ICMP 3\/13\)/, /pass on 10\.0\.0\.254, both ways/],
    [11, 0, '10.0.0.254', /with an ICMP error \(ICMP 11\/0\)/, /look at 10\.0\.0\.254/],
  ];
  const cases: Case[] = [
    [
      'nobody at the address',
      silent({ underlay: SILENT, neighbor: { address: '192.168.10.2', answers: false } }),
      'underlay',
      'fail',
      /192\.168\.10\.2 does not answer ARP/,
      /VLAN/,
    ],
    [
      'no gateway',
      silent({ underlay: SILENT, neighbor: { address: '192.168.10.254', answers: false } }),
      'underlay',
      'fail',
      /next hop 192\.168\.10\.254 does not answer ARP/,
    ],
    [
      'no route',
      silent({ underlay: { ...SILENT, error: 'Destination Net Unreachable' }, neighbor: undefined }),
      'underlay',
      'fail',
      /Destination Net Unreachable/,
    ],
    [
      'ping filtered on the underlay',
      facts({ underlay: SILENT, underlayFull: undefined }),
      'underlay',
      'ok',
      /answers by the tunnel/,
    ],
    [
      'silence on the underlay',
      silent({ underlay: SILENT }),
      'underlay',
      'unknown',
      /although 192\.168\.10\.2 answers ARP/,
    ],
    [
      'a narrower way that says so',
      facts({ underlayFull: refusedFor(1400) }),
      'underlay-mtu',
      'fail',
      /takes 1400 bytes, the uplink is set to 1500/,
      /MTU of 1400/,
    ],
    [
      'a narrower way that does not',
      facts({ underlayFull: SILENT }),
      'underlay-mtu',
      'fail',
      /without a word/,
      /type 3 code 4/,
    ],
    [
      'the firewall here',
      facts({ firewall: { outcome: 'drop', chain: 'inet filter input' } }),
      'firewall',
      'fail',
      /inet filter input drops UDP port 8472 from 192\.168\.10\.2/,
      /accepts/,
    ],
    [
      'a firewall that does not tell',
      facts({ firewall: { outcome: 'unknown', chain: 'ip f i' } }),
      'firewall',
      'unknown',
      /ip f i/,
    ],
    ['no firewall to ask', facts({ firewall: undefined }), 'firewall', 'unknown', /neither nft nor iptables/],
    [
      'nothing sent',
      silent({ counted: { 'drop-no-route': 3 } }),
      'tunnel',
      'fail',
      /nothing went into the tunnel: drop-no-route 3/,
      /ip route get 10\.244\.2\.1/,
    ],
    [
      'filtered on the way',
      silent(),
      'tunnel',
      'fail',
      /nothing comes back by UDP port 8472, although ping works/,
      /192\.168\.10\.1 among its peers.*security group/,
    ],
    [
      'protocol 4 filtered',
      silent({ traffic: 'IP protocol 4' }),
      'tunnel',
      'fail',
      /nothing comes back by IP protocol 4/,
    ],
    [
      'no node there',
      silent({ refusal: { type: 3, code: 3, from: '192.168.10.2' } }),
      'tunnel',
      'fail',
      /refuses UDP port 8472: nobody listens/,
      /start the node on 192\.168\.10\.2/,
    ],
    [
      'no node there, by an ICMP error',
      silent({ counted: { encapsulated: 3, 'drop-tunnel-error': 3 } }),
      'tunnel',
      'fail',
      /an ICMP error comes back for UDP port 8472/,
    ],
    ...refusals.map(
      ([type, code, from, seen, todo]): Case => [
        `ICMP ${type}/${code} from ${from}`,
        silent({ refusal: { type, code, from } }),
        'tunnel',
        'fail',
        seen,
        todo,
      ],
    ),
    [
      'another VNI',
      silent({ counted: { encapsulated: 3, 'drop-tunnel-unknown-vni': 3 } }),
      'tunnel',
      'fail',
      /3 packets came by UDP port 8472 with a VNI that this node has not/,
      /same VNI/,
    ],
    [
      'an old VTEP MAC there',
      silent({ counted: { encapsulated: 3, 'drop-tunnel-inner-mac': 2 } }),
      'tunnel',
      'fail',
      /2 packets came by UDP port 8472 for another VTEP MAC than this node's/,
      /192\.168\.10\.2 has an old MAC for this node: its peers\[\]\.mac/,
    ],
    [
      'an old VTEP MAC or VNI here: the peer drops in silence',
      silent(),
      'tunnel',
      'fail',
      /nothing comes back/,
      /the VNI and VTEP MAC that this node has for it\? If so, let UDP port 8472 pass/,
    ],
    [
      'no route of this host',
      silent({ underlay: { sent: 0, received: 0, error: 'Network is unreachable' }, neighbor: undefined }),
      'underlay',
      'fail',
      /this host cannot send to 192\.168\.10\.2: Network is unreachable/,
      /ip route get 192\.168\.10\.2/,
    ],
    [
      'a firewall that refuses echo',
      silent({ underlay: { ...SILENT, error: 'Packet filtered', from: '10.0.0.254' } }),
      'underlay',
      'fail',
      /10\.0\.0\.254, on the way to 192\.168\.10\.2: Packet filtered/,
      /a firewall on 10\.0\.0\.254 forbids ICMP echo/,
    ],
    [
      'the host there does not answer',
      silent({ counted: { encapsulated: 3, decapsulated: 1 } }),
      'tunnel',
      'fail',
      /come out of the tunnel, and no answer of 10\.244\.2\.1/,
    ],
    ['some are lost', facts({ tunnel: { sent: 3, received: 2 } }), 'tunnel', 'fail', /1 of 3 lost/],
    [
      'nowhere to send to',
      facts({ target: { missing: 'the node has no host port' }, tunnel: undefined }),
      'tunnel',
      'unknown',
      /no host port/,
    ],
    [
      'large ones get lost',
      facts({
        sizes: [
          { size: 56, ping: ANSWERED },
          { size: 1422, ping: SILENT },
        ],
      }),
      'tunnel-sizes',
      'fail',
      /answers up to 84 bytes, none to 1450/,
      /lower the uplinks' MTU/,
    ],
    ['not tried', silent(), 'tunnel-sizes', 'unknown', /not tried/],
    [
      'answers above the MTU',
      facts({ above: ANSWERED }),
      'above-mtu',
      'fail',
      /1451 bytes with DF are answered/,
      /ip route get/,
    ],
    ['another MTU above', facts({ above: refusedFor(1400) }), 'above-mtu', 'fail', /too long for 1400, expected 1450/],
    ['silence above the MTU', facts({ above: SILENT }), 'above-mtu', 'fail', /without a word/],
    ['fragments lost', facts({ fragments: [ANSWERED, SILENT] }), 'fragments', 'fail', /get lost/],
  ];
  for (const [what, given, check, result, seen, todo] of cases) {
    it(what, () => {
      const row = judgePair(given).find(candidate => candidate.check === check)!;
      assert.equal(row.result, result);
      assert.match(row.seen, seen);
      if (todo !== undefined) assert.match(row.todo, todo);
      if (result === 'fail') assert.notEqual(row.todo, '', 'what to do');
    });
  }

  it('checksums: ours and the kernel’s', () => {
    assert.equal(judgeChecksums({ 'Udp.InDatagrams': 4, encapsulated: 3 }).result, 'ok');
    const row = judgeChecksums({ 'Tcp.InCsumErrors': 1, 'drop-ipv4-checksum': 2 });
    assert.deepEqual([row.result, row.seen], ['fail', 'Tcp.InCsumErrors 1, drop-ipv4-checksum 2']);
  });

  it('drops are said, never judged, and some are explained', () => {
    assert.equal(judgeDrops({ encapsulated: 3 }).result, 'ok');
    assert.deepEqual(judgeDrops({ 'drop-multicast': 2 }), {
      check: 'drops',
      peer: '-',
      result: 'unknown',
      seen: 'drop-multicast 2',
      todo: '',
    });
    assert.match(judgeDrops({ 'drop-encap-unknown-peer': 2 }).todo, /no peer of this node/);
    assert.match(judgeDrops({ 'drop-tunnel-unknown-vni': 2 }).todo, /VNI/);
    assert.equal(judgeDrops({ 'drop-tunnel-error': 2 }).todo, '');
  });

  describe('reads what ping prints', () => {
    it('answers', () => {
      const text = `PING 10.244.2.1 (10.244.2.1) from 10.244.1.1 : 56(84) bytes of data.
64 bytes from 10.244.2.1: icmp_seq=1 ttl=64 time=0.853 ms

--- 10.244.2.1 ping statistics ---
3 packets transmitted, 3 received, 0% packet loss, time 401ms
rtt min/avg/max/mdev = 0.853/0.953/1.104/0.107 ms
`;
      assert.deepEqual(parsePing(text), { sent: 3, received: 3, rttMs: 0.853 });
    });
    it('a packet that is too long here, and one that is on the way', () => {
      assert.deepEqual(
        parsePing(
          'ping: local error: message too long, mtu=1450\n\n1 packets transmitted, 0 received, +1 errors, 100% packet loss',
        ),
        { sent: 1, received: 0, tooLongFor: 1450 },
      );
      const text =
        'From 192.168.10.254 icmp_seq=1 Frag needed and DF set (mtu = 1400)\n1 packets transmitted, 0 received';
      assert.equal(parsePing(text).tooLongFor, 1400);
    });
    it('an error', () => {
      const text =
        'From 192.168.10.1 icmp_seq=1 Destination Host Unreachable\n3 packets transmitted, 0 received, +3 errors';
      const { error, from } = parsePing(text);
      assert.deepEqual([error, from], ['Destination Host Unreachable', '192.168.10.1']);
    });
    it('the kernel, which does not send at all', () => {
      assert.deepEqual(parsePing('ping: connect: Network is unreachable\n'), {
        sent: 0,
        received: 0,
        error: 'Network is unreachable',
      });
    });
  });

  it('takes IPv6 that is not carried for no drop of a pair', () => {
    assert.equal(judgeDrops({ 'drop-not-ipv4': 12 }).result, 'ok');
    assert.equal(judgeDrops({ 'drop-not-ipv4': 12, 'drop-no-route': 1 }).seen, 'drop-no-route 1');
  });

  it('reads an ICMP error and whom it is about', () => {
    const packet = (quoted: Uint8Array) => {
      const bytes = new Uint8Array(28 + quoted.length);
      bytes.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 254, 10, 0, 0, 1, 3, 13]);
      bytes.set(quoted, 28);
      return new DataView(bytes.buffer);
    };
    const udp = new Uint8Array(28);
    udp.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x80, 0, 0x21, 0x18]);
    assert.deepEqual(parseIcmpError(packet(udp)), {
      error: { type: 3, code: 13, from: '10.0.0.254' },
      quoted: { destination: '10.0.0.2', port: 8472 },
    });
    udp[9] = 4;
    assert.equal(parseIcmpError(packet(udp))?.quoted.port, undefined);
    for (let length = 0; length < 28 + 20; length++) {
      assert.equal(parseIcmpError(new DataView(packet(udp).buffer, 0, length)), undefined);
    }
  });

  it('reads /proc/net/snmp', () => {
    assert.deepEqual(parseSnmp('Udp: InDatagrams InCsumErrors\nUdp: 7 1\nIcmp: InMsgs\nIcmp: 2\n'), {
      'Udp.InDatagrams': 7,
      'Udp.InCsumErrors': 1,
      'Icmp.InMsgs': 2,
    });
  });
});

describe('host check: ports and conflicts', () => {
  it('names ports that are not up, and no other', () => {
    const port = { name: 'p1', kind: 'pod', since: '2026-01-01T00:00:00.000Z' };
    assert.deepEqual(judgePorts([{ ...port, state: 'up', why: null }]), []);
    const [row] = judgePorts([{ ...port, state: 'gone', why: 'network namespace p1 is gone' }]);
    assert.deepEqual([row.check, row.result], ['port p1', 'fail']);
    assert.match(row.seen, /^pod port gone since 2026-01-01T00:00:00.000Z: network namespace p1 is gone$/);
  });

  it('names both MACs of a conflict, and tells two stations with one MAC from two with one address', () => {
    const conflict = {
      address: '192.168.10.1',
      mac: '02:00:00:00:00:09',
      ownMac: '02:00:00:00:00:01',
      lastSecondsAgo: 3,
    };
    const [address, mac] = judgeConflicts([conflict, { ...conflict, address: '192.168.10.7', mac: conflict.ownMac }]);
    assert.match(address.seen, /^02:00:00:00:00:09 says that it has 192.168.10.1, which .* 02:00:00:00:00:01/);
    assert.match(mac.seen, /^192.168.10.7 says that it has 02:00:00:00:00:01, the MAC of this node/);
    assert.deepEqual([address.result, mac.result], ['fail', 'fail']);
  });

  it('a learnt path MTU is said, with who told it and until when, and what it refuses is no fault', () => {
    const pathMtu = { mtu: 1400, inner: 1350, from: '192.168.10.254', expiresSeconds: 480 };
    const rows = judgePair(facts({ pathMtu, above: refusedFor(1350) }));
    const row = rows.find(({ check }) => check === 'path-mtu')!;
    assert.equal(row.result, 'unknown');
    assert.match(row.seen, /^192.168.10.254 has said that 1400 bytes .* takes 1350 for 480 s more$/);
    assert.equal(rows.find(({ check }) => check === 'above-mtu')!.result, 'ok');
    assert.equal(
      judgePair(facts()).some(({ check }) => check === 'path-mtu'),
      false,
    );
  });
});

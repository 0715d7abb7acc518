import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { Random } from '../../datapath/random.ts';
import * as verdict from '../../datapath/verdict.ts';
import * as ipv4Wire from '../../datapath/wire/ipv4.ts';
import * as tcpWire from '../../datapath/wire/tcp.ts';
import * as virtio from '../../datapath/wire/virtio-net.ts';
import {
  CLIENT,
  fix,
  fixHeader,
  fragment,
  icmpEcho,
  ip,
  ipv4,
  load,
  loadPartial,
  patch,
  pattern,
  SERVER,
  sctp4,
  tcp4,
  timestampOption,
  udp4,
} from '../fixtures/packets.ts';

/** A packet that fills a view of its own: any read outside throws. `around` bytes in front and behind do not. */
function alone(bytes: Uint8Array, around = 0): { view: DataView; p: Packet } {
  const memory = new Uint8Array(bytes.length + 2 * around).fill(0xa5);
  memory.set(bytes, around);
  const p = new Packet(0, 0);
  p.off = around;
  p.len = bytes.length;
  return { view: new DataView(memory.buffer), p };
}

const { FLAG_DF, FLAG_MF } = ipv4Wire;
const padded = (bytes: Uint8Array, n: number) => new Uint8Array([...bytes, ...new Uint8Array(n)]);
const options = (...bytes: number[]) => ipv4(99, pattern(8), { options: Uint8Array.from(bytes) });

describe('parseIpv4', () => {
  const accepted: [string, Uint8Array, Partial<Packet>][] = [
    ['TCP', tcp4({ sport: 40001, dport: 443 }), { protocol: 6, srcPort: 40001, dstPort: 443, fragment: 0 }],
    [
      'TCP with options and payload',
      tcp4({ tcpOptions: timestampOption(1, 2), payload: pattern(100) }),
      { protocol: 6 },
    ],
    ['UDP with ports above 32767', udp4({ sport: 65535, dport: 65534 }), { srcPort: 65535, dstPort: 65534 }],
    ['UDP with bytes behind the datagram', fixHeader(padded(udp4({ payload: pattern(4) }), 6)), { len: 38 }],
    ['echo request', icmpEcho({ icmpId: 0xbeef }), { srcPort: 0xbeef, dstPort: 0xbeef }],
    ['timestamp reply', icmpEcho({ type: 14, icmpId: 7 }), { srcPort: 7, dstPort: 7 }],
    ['ICMP error has no identifier', icmpEcho({ type: 3, icmpId: 0xbeef }), { srcPort: 0, dstPort: 0 }],
    ['ICMP router advertisement has none', icmpEcho({ type: 9, icmpId: 0xbeef }), { srcPort: 0, dstPort: 0 }],
    ['SCTP', sctp4({ sport: 5, dport: 6 }), { srcPort: 5, dstPort: 6 }],
    ['another protocol', ipv4(47, pattern(3)), { protocol: 47, srcPort: 0, dstPort: 0 }],
    ['a header and nothing else', ipv4(99, pattern(0)), { len: 20 }],
    ['DF', tcp4({ fragment: FLAG_DF }), { fragment: FLAG_DF }],
    ['Ethernet padding is cut off', padded(tcp4(), 6), { len: 40 }],
    ['first fragment', fragment(udp4({ payload: pattern(2000) }), 0, 1480), { fragment: FLAG_MF, dstPort: 53 }],
    [
      'later fragment',
      fragment(udp4({ payload: pattern(2000) }), 1480, 528),
      { fragment: 185, srcPort: 0, dstPort: 0 },
    ],
    ['last fragment of odd size', fragment(tcp4({ payload: pattern(2001) }), 2016, 5), { fragment: 252, srcPort: 0 }],
    ['highest fragment that fits', ipv4(17, pattern(7), { fragment: 8188 }), { fragment: 8188 }],
    ['options: NOP, router alert, end', options(1, 148, 4, 0, 0, 0, 0, 0), { l4: 28 }],
    ['options: record route', options(7, 7, 4, 0, 0, 0, 0, 0), { l4: 28 }],
    ['options: bytes behind the end are not read', options(0, 131, 0, 0), { l4: 24 }],
    ['60 bytes of header', ipv4(6, tcp4().slice(20), { options: new Uint8Array(40).fill(1) }), { l4: 60, dstPort: 80 }],
  ];
  for (const [what, bytes, expected] of accepted) {
    it(`accepts ${what}`, () => {
      const { view, p } = alone(bytes);
      p.srcPort = 99;
      p.dstPort = 99;
      assert.equal(parseIpv4(view, p), verdict.CONTINUE);
      assert.equal(p.src, ip(CLIENT));
      assert.equal(p.dst, ip(SERVER));
      for (const [field, value] of Object.entries(expected)) assert.equal(p[field as keyof Packet], value, field);
    });
  }

  const refused: [string, Uint8Array, number][] = [
    ['nothing', new Uint8Array(0), verdict.DROP_TRUNCATED],
    ['19 bytes', tcp4().slice(0, 19), verdict.DROP_TRUNCATED],
    ['one byte missing', tcp4().slice(0, 39), verdict.DROP_TRUNCATED],
    ['version 6', fixHeader(patch(tcp4(), 0, 0x65)), verdict.DROP_MALFORMED_IPV4],
    ['version 0', fixHeader(patch(tcp4(), 0, 0x05)), verdict.DROP_MALFORMED_IPV4],
    ['ihl 4', patch(tcp4(), 0, 0x44), verdict.DROP_MALFORMED_IPV4],
    ['total length below the header', patch(tcp4(), 2, 0, 19), verdict.DROP_MALFORMED_IPV4],
    ['header longer than the packet', patch(ipv4(99, pattern(0)), 0, 0x46), verdict.DROP_MALFORMED_IPV4],
    ['checksum', patch(tcp4(), 8, 63), verdict.DROP_IPV4_CHECKSUM],
    ['checksum with options', patch(options(1, 1, 1, 0), 20, 7), verdict.DROP_IPV4_CHECKSUM],
    ['loose source route', options(131, 7, 4, 10, 0, 0, 1, 0), verdict.DROP_SOURCE_ROUTE],
    ['strict source route behind NOPs', options(1, 1, 137, 3, 4, 0, 0, 0), verdict.DROP_SOURCE_ROUTE],
    ['option of length 0', options(148, 0, 0, 0), verdict.DROP_MALFORMED_IPV4],
    ['option of length 1', options(148, 1, 0, 0), verdict.DROP_MALFORMED_IPV4],
    ['option past the header', options(1, 148, 4, 0), verdict.DROP_MALFORMED_IPV4],
    ['option without length', options(1, 1, 1, 148), verdict.DROP_MALFORMED_IPV4],
    ['TCP of 19 bytes', ipv4(6, pattern(19)), verdict.DROP_MALFORMED_L4],
    ['TCP data offset 4', patch(tcp4(), 32, 0x40), verdict.DROP_MALFORMED_L4],
    ['TCP data offset past the end', patch(tcp4(), 32, 0x60), verdict.DROP_MALFORMED_L4],
    ['UDP of 7 bytes', ipv4(17, pattern(7)), verdict.DROP_MALFORMED_L4],
    ['UDP length 7', patch(udp4({ payload: pattern(4) }), 24, 0, 7), verdict.DROP_MALFORMED_L4],
    ['UDP length one too long', patch(udp4({ payload: pattern(4) }), 24, 0, 13), verdict.DROP_MALFORMED_L4],
    ['ICMP of 7 bytes', ipv4(1, pattern(7)), verdict.DROP_MALFORMED_L4],
    ['SCTP of 11 bytes', ipv4(132, pattern(11)), verdict.DROP_MALFORMED_L4],
    ['first TCP fragment without its header', ipv4(6, pattern(16), { fragment: FLAG_MF }), verdict.DROP_MALFORMED_L4],
    ['TCP fragment at offset 8', ipv4(6, pattern(16), { fragment: FLAG_MF | 1 }), verdict.DROP_MALFORMED_L4],
    ['fragment without payload', ipv4(17, pattern(0), { fragment: 5 }), verdict.DROP_MALFORMED_IPV4],
    ['fragment that ends past 65535', ipv4(17, pattern(16), { fragment: 8188 }), verdict.DROP_MALFORMED_IPV4],
    ['more fragments, payload not of 8s', ipv4(17, pattern(12), { fragment: FLAG_MF }), verdict.DROP_MALFORMED_IPV4],
  ];
  for (const [what, bytes, reason] of refused) {
    it(`refuses ${what}`, () => {
      const { view, p } = alone(bytes);
      assert.equal(verdict.VERDICT_NAMES[parseIpv4(view, p)], verdict.VERDICT_NAMES[reason]);
    });
  }

  it('finds the same wherever the packet lies, odd offsets included', () => {
    const bytes = tcp4({ payload: pattern(33), src: '200.1.2.3' });
    for (let around = 0; around < 9; around++) {
      const { view, p } = alone(bytes, around);
      assert.equal(parseIpv4(view, p), verdict.CONTINUE);
      assert.deepEqual([p.src, p.l4 - p.off, p.srcPort], [ip('200.1.2.3'), 20, 40000]);
    }
  });

  it('sees every flipped bit of the header', () => {
    const bytes = tcp4({ payload: pattern(40), tcpOptions: timestampOption(5, 6) });
    for (let bit = 0; bit < 160; bit++) {
      const { view, p } = alone(patch(bytes, bit >> 3, bytes[bit >> 3] ^ (128 >> (bit & 7))));
      assert.notEqual(parseIpv4(view, p), verdict.CONTINUE, `bit ${bit}`);
    }
  });

  it('reads nothing outside the packet, however broken', () => {
    const random = new Random(20240607);
    const originals = [...accepted.map(row => row[1]), ...refused.map(row => row[1])];
    for (let i = 0; i < 200_000; i++) {
      let bytes: Uint8Array = Uint8Array.from(originals[random.below(originals.length)]);
      for (let flips = random.below(4); flips > 0 && bytes.length > 0; flips--) {
        bytes[random.below(bytes.length)] ^= 1 << random.below(8);
      }
      if (random.below(2) === 0) bytes = bytes.slice(0, random.below(bytes.length + 1));
      // Half of them get a right header checksum, so that the checks behind it are reached.
      if (random.below(2) === 0 && bytes.length >= 20 && (bytes[0] & 15) * 4 <= bytes.length) bytes = fixHeader(bytes);
      const { view, p } = alone(bytes);
      const v = parseIpv4(view, p);
      if (v !== verdict.CONTINUE) continue;
      assert.ok(p.off === 0 && p.len <= bytes.length && p.l4 <= p.len);
    }
  });

  it('accepts exactly the headers that the checksum of the slow model accepts', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 20, maxLength: 20 }), header => {
        // Version, length and no fragment are given; the rest is free.
        const bytes = patch(header, 0, 0x45, header[1], 0, 20, header[4], header[5], 0, 0, header[8], 99);
        assert.equal(parse(fixHeader(bytes)), verdict.CONTINUE);
        const broken = patch(fixHeader(bytes), 10, fixHeader(bytes)[10] ^ 1);
        assert.equal(parse(broken), verdict.DROP_IPV4_CHECKSUM);
      }),
    );
    function parse(bytes: Uint8Array) {
      const { view, p } = alone(bytes);
      return parseIpv4(view, p);
    }
  });
});

describe('checkVnet, by parseIpv4', () => {
  const superTcp = tcp4({ payload: pattern(5000) });
  const superUdp = udp4({ payload: pattern(5000) });
  const bad = verdict.DROP_MALFORMED_VNET_HEADER;

  const rows: [string, Uint8Array, number, (p: Packet) => void, number][] = [
    ['partial checksum', tcp4(), 0, () => {}, verdict.CONTINUE],
    ['TCP superpacket', superTcp, 1448, () => {}, verdict.CONTINUE],
    ['TCP superpacket with ECN', superTcp, 1448, p => (p.gsoType |= virtio.GSO_ECN), verdict.CONTINUE],
    ['UDP superpacket', superUdp, 1000, () => {}, verdict.CONTINUE],
    ['checksum field past the end', tcp4(), 0, p => (p.csumStart = p.off + p.len - 17), bad],
    ['checksum field that just fits', tcp4(), 0, p => (p.csumStart = p.off + p.len - 18), verdict.CONTINUE],
    ['checksum start in the IP header', tcp4(), 0, p => (p.csumStart = p.off + 10), bad],
    ['checksum start before the packet', tcp4(), 0, p => (p.csumStart = p.off - 40), bad],
    ['superpacket without segment size', superTcp, 1448, p => (p.gsoSize = 0), bad],
    ['superpacket with its checksum complete', superTcp, 1448, p => (p.vnetFlags = 0), bad],
    ['TCP type on UDP', superUdp, 1000, p => (p.gsoType = virtio.GSO_TCPV4), bad],
    ['UDP type on TCP', superTcp, 1000, p => (p.gsoType = virtio.GSO_UDP_L4), bad],
    ['UDP type with ECN', superUdp, 1000, p => (p.gsoType |= virtio.GSO_ECN), bad],
    ['IPv6 type', superTcp, 1000, p => (p.gsoType = virtio.GSO_TCPV6), bad],
    ['UDP fragmentation offload', superUdp, 1000, p => (p.gsoType = 3), bad],
    ['checksum start elsewhere', superTcp, 1000, p => (p.csumStart += 2), bad],
    ['checksum offset elsewhere', superTcp, 1000, p => (p.csumOffset = 14), bad],
    ['superpacket that is a fragment', tcp4({ payload: pattern(5004), fragment: FLAG_MF }), 1000, () => {}, bad],
  ];
  for (const [what, bytes, gsoSize, change, expected] of rows) {
    it(`${expected === verdict.CONTINUE ? 'accepts' : 'refuses'} ${what}`, () => {
      const pool = new Pool(1);
      const p = loadPartial(pool, bytes, gsoSize);
      change(p);
      assert.equal(verdict.VERDICT_NAMES[parseIpv4(pool.view, p)], verdict.VERDICT_NAMES[expected]);
    });
  }

  it('refuses padding behind a superpacket', () => {
    const pool = new Pool(1);
    const p = loadPartial(pool, superTcp, 1448);
    p.len += 4;
    assert.equal(parseIpv4(pool.view, p), verdict.DROP_MALFORMED_IPV4);
  });

  it('refuses a UDP superpacket whose length is that of one datagram', () => {
    const pool = new Pool(1);
    const p = loadPartial(pool, patch(superUdp, 24, 3, 0xf0), 1000);
    assert.equal(parseIpv4(pool.view, p), verdict.DROP_MALFORMED_L4);
  });

  it('accepts the tunnel superpacket and refuses one whose headers are out of order', () => {
    const pool = new Pool(4);
    const inner = tcp4({ payload: pattern(3000) });
    const outer = fix(udp4({ dport: 8472, payload: new Uint8Array([...pattern(8 + 14), ...inner]) }));
    const make = (change: (p: Packet) => void) => {
      const p = load(pool, outer);
      p.vnetFlags = virtio.FLAG_NEEDS_CSUM;
      p.gsoType = virtio.GSO_TCPV4 | virtio.GSO_UDP_TUNNEL_IPV4;
      p.gsoSize = 1398;
      p.outerTransport = p.off + 20;
      p.innerNetwork = p.off + 20 + 8 + 8 + 14;
      p.csumStart = p.innerNetwork + 20;
      p.csumOffset = tcpWire.CHECKSUM;
      change(p);
      return parseIpv4(pool.view, p);
    };
    assert.equal(
      make(() => {}),
      verdict.CONTINUE,
    );
    assert.equal(
      make(p => (p.outerTransport += 8)),
      bad,
    );
    assert.equal(
      make(p => (p.innerNetwork = p.off)),
      bad,
    );
    assert.equal(
      make(p => (p.csumStart = p.innerNetwork)),
      bad,
    );
  });
});

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type CoalesceOptions, Coalescer } from '../../datapath/packet/coalesce.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { completeChecksum, segment } from '../../datapath/packet/segment.ts';
import { Random } from '../../datapath/random.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import * as ipv4Wire from '../../datapath/wire/ipv4.ts';
import * as tcpWire from '../../datapath/wire/tcp.ts';
import * as virtio from '../../datapath/wire/virtio-net.ts';
import {
  arpFrame,
  bytesOf,
  ethernet,
  fix,
  icmpEcho,
  load,
  loadPartial,
  patch,
  pattern,
  type TcpOptions,
  tcp4,
  timestampOption,
  type UdpOptions,
  udp4,
} from '../fixtures/packets.ts';
import { type SlowPacket, slowCoalesce } from '../model/coalesce.ts';
import { slowSegment } from '../model/segment.ts';

const { ACK_FLAG, CWR, ECE, FIN, PSH, RST, SYN, URG } = tcpWire;
const { FLAG_DF, FLAG_MF } = ipv4Wire;
const pool = new Pool(256);
const EVERYTHING: CoalesceOptions = { layer: 3, tcp: true, ecn: true, udp: true };

/** Runs a burst through a coalescer; superpackets come back with the checksum they owe computed. */
function run(packets: SlowPacket[], options = EVERYTHING, coalescer = new Coalescer(pool, options)): SlowPacket[] {
  const before = pool.available;
  const burst = packets.map(({ bytes, gsoSize }) => {
    const p = gsoSize > 0 ? loadPartial(pool, bytes, gsoSize) : load(pool, bytes);
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    return p;
  });
  const n = coalescer.coalesce(burst, burst.length);
  assert.equal(pool.available, before - n, 'what was merged is back in the pool');
  const out: SlowPacket[] = [];
  for (const p of burst.slice(0, n)) {
    const { gsoSize } = p;
    if (gsoSize > 0) {
      assert.equal(p.vnetFlags, virtio.FLAG_NEEDS_CSUM);
      assert.equal(parseIpv4(pool.view, p), CONTINUE, 'a superpacket as the parser wants it');
      const bytes = bytesOf(pool, p);
      assert.deepEqual(bytes.slice(p.csumStart - p.off + p.csumOffset).slice(0, 2), partialSum(bytes));
      completeChecksum(pool.view, p);
    }
    out.push({ bytes: bytesOf(pool, p), gsoSize });
    pool.release(p);
  }
  return out;
}

/** The checksum field of a packet whose checksum is owed. */
function partialSum(bytes: Uint8Array): Uint8Array {
  const p = loadPartial(pool, bytes, 1);
  const field = bytesOf(pool, p)
    .slice(p.csumStart - p.off + p.csumOffset)
    .slice(0, 2);
  pool.release(p);
  return field;
}

const plain = (bytes: Uint8Array): SlowPacket => ({ bytes, gsoSize: 0 });

/** Segments of one TCP flow: `n` of `size` bytes, ids and sequence numbers in step; `change(i)` alters the i-th. */
function train(n: number, size: number, change: (i: number) => TcpOptions = () => ({})): Uint8Array[] {
  return Array.from({ length: n }, (_, i) =>
    tcp4({
      seq: 1000 + i * size,
      id: 50 + i,
      fragment: FLAG_DF,
      tcpOptions: timestampOption(9, 8),
      payload: pattern(size, i + 1),
      ...change(i),
    }),
  );
}

function datagrams(n: number, size: number, change: (i: number) => UdpOptions = () => ({})): Uint8Array[] {
  return Array.from({ length: n }, (_, i) =>
    udp4({ id: 7 + i, fragment: FLAG_DF, payload: pattern(size, i + 1), ...change(i) }),
  );
}

describe('Coalescer', () => {
  describe('merges', () => {
    const rows: [string, Uint8Array[]][] = [
      ['two segments', train(2, 1000)],
      ['45 segments', train(45, 1400)],
      ['a shorter last segment', train(3, 1000, i => (i === 2 ? { payload: pattern(1) } : {}))],
      ['PSH on the last', train(3, 1000, i => (i === 2 ? { flags: ACK_FLAG | PSH } : {}))],
      ['FIN on the last', train(3, 1000, i => (i === 2 ? { flags: ACK_FLAG | FIN | PSH } : {}))],
      ['CWR on the first', train(3, 1000, i => (i === 0 ? { flags: ACK_FLAG | CWR } : {}))],
      ['ECE on all', train(3, 1000, () => ({ flags: ACK_FLAG | ECE }))],
      ['sequence numbers that wrap', train(4, 1000, i => ({ seq: (0xfffff800 + i * 1000) >>> 0 }))],
      ['ids that wrap', train(4, 1000, i => ({ id: (65534 + i) & 65535 }))],
      ['ids that stand still, with DF', train(4, 1000, () => ({ id: 0 }))],
      ['ids that count, without DF', train(4, 1000, () => ({ fragment: 0 }))],
      ['single bytes', train(4, 1)],
      ['datagrams', datagrams(5, 64)],
      ['datagrams with a shorter last', datagrams(5, 64, i => (i === 4 ? { payload: pattern(63) } : {}))],
      ['64 datagrams', datagrams(64, 10)],
    ];
    for (const [what, packets] of rows) {
      it(what, () => {
        const out = run(packets.map(plain));
        assert.equal(out.length, 1);
        assert.ok(out[0].gsoSize > 0);
        const { bytes, gsoSize } = out[0];
        const cut = slowSegment(bytes, gsoSize).map(piece => fix(patch(piece, 4, 0, 0)));
        assert.deepEqual(
          cut,
          packets.map(packet => fix(patch(packet, 4, 0, 0))),
        );
      });
    }
  });

  describe('merges nothing where there is', () => {
    const second = (o: TcpOptions) => train(2, 1000, i => (i === 1 ? o : {}));
    const secondUdp = (o: UdpOptions) => datagrams(2, 100, i => (i === 1 ? o : {}));
    const wrong = (packet: Uint8Array) => patch(packet, packet.length - 1, packet[packet.length - 1] ^ 1);
    const rows: [string, Uint8Array[]][] = [
      ['another source', second({ src: '10.244.1.11' })],
      ['another destination', second({ dst: '10.244.2.21' })],
      ['another source port', second({ sport: 40001 })],
      ['another destination port', second({ dport: 81 })],
      ['another TOS', second({ tos: 2 })],
      ['another TTL', second({ ttl: 63 })],
      ['another DF', second({ fragment: 0 })],
      ['a gap', second({ seq: 2001 })],
      ['an overlap', second({ seq: 1999 })],
      ['a repetition', second({ seq: 1000 })],
      ['another ACK number', second({ ack: 2 })],
      ['another window', second({ window: 64239 })],
      ['another urgent pointer', second({ urgent: 1 })],
      ['another timestamp', second({ tcpOptions: timestampOption(10, 8) })],
      ['another echoed timestamp', second({ tcpOptions: timestampOption(9, 9) })],
      ['no options', second({ tcpOptions: new Uint8Array(0) })],
      ['a longer segment', second({ payload: pattern(1001) })],
      ['a pure ACK', second({ payload: new Uint8Array(0) })],
      ['ECE on one', second({ flags: ACK_FLAG | ECE })],
      ['CWR on the second', second({ flags: ACK_FLAG | CWR })],
      ['SYN', second({ flags: ACK_FLAG | SYN })],
      ['RST', second({ flags: ACK_FLAG | RST })],
      ['URG', second({ flags: ACK_FLAG | URG })],
      ['no ACK flag', train(2, 1000, () => ({ flags: 0 }))],
      ['URG on both', train(2, 1000, () => ({ flags: ACK_FLAG | URG, urgent: 5 }))],
      ['PSH on the first', train(2, 1000, i => (i === 0 ? { flags: ACK_FLAG | PSH } : {}))],
      ['FIN on the first', train(2, 1000, i => (i === 0 ? { flags: ACK_FLAG | FIN } : {}))],
      ['an id that jumps', second({ id: 52 })],
      ['an id that goes back', second({ id: 49 })],
      ['ids that stand still without DF', train(2, 1000, () => ({ id: 9, fragment: 0 }))],
      ['a wrong checksum on the first', [wrong(train(2, 1000)[0]), train(2, 1000)[1]]],
      ['a wrong checksum on the second', [train(2, 1000)[0], wrong(train(2, 1000)[1])]],
      ['IP options', train(2, 1000, () => ({ options: Uint8Array.from([148, 4, 0, 0]) }))],
      ['the reserved flag', train(2, 1000, () => ({ fragment: 0x8000 }))],
      ['a datagram that is longer', secondUdp({ payload: pattern(101) })],
      ['a datagram without checksum', secondUdp({ noChecksum: true })],
      ['an empty datagram', secondUdp({ payload: new Uint8Array(0) })],
      ['a datagram with a wrong checksum', [datagrams(2, 100)[0], wrong(datagrams(2, 100)[1])]],
      ['a datagram from another port', secondUdp({ sport: 4 })],
      ['ICMP', [icmpEcho({ id: 1 }), icmpEcho({ id: 2 })]],
      [
        'TCP and UDP with the same numbers',
        [tcp4({ payload: pattern(9), dport: 53, id: 1 }), udp4({ payload: pattern(9), id: 2 })],
      ],
      [
        'a fragment',
        [
          udp4({ id: 1, payload: pattern(8), fragment: FLAG_MF }),
          udp4({ id: 2, payload: pattern(8), fragment: FLAG_MF }),
        ],
      ],
    ];
    for (const [what, packets] of rows) {
      it(what, () => {
        assert.deepEqual(run(packets.map(plain)), packets.map(plain));
      });
    }
  });

  it('keeps the order of a flow around a packet that cannot be merged', () => {
    const [a, b, c, d] = train(4, 500);
    const ack = tcp4({ seq: 2000, fragment: FLAG_DF });
    const out = run([a, b, ack, c, d].map(plain));
    assert.deepEqual(
      out.map(p => p.bytes.length),
      [52 + 1000, 40, 52 + 1000],
    );
    const fragments = run([a, b, tcp4({ payload: pattern(20), fragment: FLAG_MF }), c, d].map(plain));
    assert.deepEqual(
      fragments.map(p => p.gsoSize),
      [500, 0, 500],
    );
  });

  it('merges across packets of other flows', () => {
    const a = train(3, 500);
    const b = train(3, 600, () => ({ sport: 1 }));
    const u = datagrams(3, 70);
    const out = run([a[0], b[0], u[0], icmpEcho(), a[1], u[1], b[1], u[2], a[2], b[2]].map(plain));
    assert.deepEqual(
      out.map(p => p.gsoSize),
      [500, 600, 70, 0],
    );
  });

  it('holds eight flows at once, and displaces one for a ninth', () => {
    const eight = Array.from({ length: 8 }, (_, f) => train(2, 100, () => ({ sport: f + 1 })));
    const inTurn = [...eight.map(t => t[0]), ...eight.map(t => t[1])];
    assert.equal(run(inTurn.map(plain)).length, 8);
    const nine = [...eight, train(2, 100, () => ({ sport: 9 }))];
    const out = run([...nine.map(t => t[0]), ...nine.map(t => t[1])].map(plain));
    assert.ok(out.length > 9 && out.length < 18, `${out.length} packets`);
  });

  it('appends segments and superpackets to a superpacket of the same segment size', () => {
    const whole = tcp4({ payload: pattern(20_500), id: 5, seq: 77, flags: ACK_FLAG | PSH });
    const parts = slowSegment(whole, 1000);
    const join = (from: number, to: number) => {
      const bytes = parts[from].slice();
      const payload = parts.slice(from, to).flatMap(part => [...part.slice(40)]);
      bytes[33] |= parts[to - 1][33];
      return { bytes: fix(new Uint8Array([...bytes.slice(0, 40), ...payload])), gsoSize: to - from > 1 ? 1000 : 0 };
    };
    for (const cuts of [
      [0, 5, 21],
      [0, 1, 21],
      [0, 20, 21],
      [0, 3, 4, 5, 9, 21],
    ]) {
      const pieces = cuts.slice(1).map((to, i) => join(cuts[i], to));
      assert.deepEqual(run(pieces), [{ bytes: whole, gsoSize: 1000 }], cuts.join(' '));
    }
    const other = { ...join(0, 5), gsoSize: 500 };
    assert.equal(run([other, join(5, 21)]).length, 2, 'other segment size');
    const short = { ...join(0, 5), gsoSize: 900 };
    assert.equal(run([short, join(5, 6)]).length, 2, 'a superpacket with a short last segment is closed');
  });

  it('never grows past the longest packet', () => {
    const packets = train(60, 1400);
    const out = run(packets.map(plain));
    assert.deepEqual(
      out.map(p => p.bytes.length),
      [52 + 46 * 1400, 52 + 14 * 1400],
    );
    const under = run(packets.map(plain), { ...EVERYTHING, maxLen: 52 + 10 * 1400 - 1 });
    assert.deepEqual(
      under.map(p => (p.bytes.length - 52) / 1400),
      [9, 9, 9, 9, 9, 9, 6],
    );
    assert.deepEqual(
      run(datagrams(70, 10).map(plain)).map(p => (p.bytes.length - 28) / 10),
      [64, 6],
    );
  });

  it('does only what the port takes', () => {
    const mixed = [...train(2, 100), ...datagrams(2, 100)];
    assert.equal(run(mixed.map(plain), { ...EVERYTHING, tcp: false }).length, 3);
    assert.equal(run(mixed.map(plain), { ...EVERYTHING, udp: false }).length, 3);
    const cwr = train(2, 100, i => (i === 0 ? { flags: ACK_FLAG | CWR } : {}));
    assert.equal(run(cwr.map(plain), { ...EVERYTHING, ecn: false }).length, 2);
    assert.equal(run(cwr.map(plain)).length, 1);
  });

  it('marks a superpacket that begins with CWR', () => {
    const burst = train(2, 100, i => (i === 0 ? { flags: ACK_FLAG | CWR } : {})).map(bytes => load(pool, bytes));
    assert.equal(new Coalescer(pool, EVERYTHING).coalesce(burst, 2), 1);
    assert.equal(burst[0].gsoType, virtio.GSO_TCPV4 | virtio.GSO_ECN);
    pool.release(burst[0]);
  });

  it('keeps packets of different identities apart', () => {
    const burst = train(2, 100).map(bytes => load(pool, bytes));
    burst[1].identity = 1;
    assert.equal(new Coalescer(pool, EVERYTHING).coalesce(burst, 2), 2);
    for (const p of burst) pool.release(p);
  });

  it('believes the device about checksums, and no checksum owed elsewhere', () => {
    const partial = (bytes: Uint8Array) => loadPartial(pool, bytes);
    const valid = (bytes: Uint8Array) => {
      const p = load(pool, bytes);
      p.vnetFlags = virtio.FLAG_DATA_VALID;
      return p;
    };
    const [a, b, c] = train(3, 100);
    const burst = [partial(a), valid(patch(b, 60, 1, 2, 3)), load(pool, c)];
    assert.equal(new Coalescer(pool, EVERYTHING).coalesce(burst, 3), 1);
    pool.release(burst[0]);
    const elsewhere = [partial(a), partial(b)];
    elsewhere[1].csumStart += 4;
    assert.equal(new Coalescer(pool, EVERYTHING).coalesce(elsewhere, 2), 2);
    for (const p of elsewhere) pool.release(p);
  });

  it('works behind an Ethernet header, and compares it', () => {
    const coalescer = new Coalescer(pool, { ...EVERYTHING, layer: 2 });
    const go = (frames: Uint8Array[]) => {
      const burst = frames.map(bytes => load(pool, bytes));
      const n = coalescer.coalesce(burst, burst.length);
      const out = burst
        .slice(0, n)
        .map(p => ({ bytes: bytesOf(pool, p), gsoSize: p.gsoSize, csum: p.csumStart - p.off }));
      for (const p of burst.slice(0, n)) pool.release(p);
      return out;
    };
    const [a, b] = train(2, 100);
    const [one, ...none] = go([ethernet(a), ethernet(b)]);
    assert.deepEqual([one.bytes.length, one.gsoSize, one.csum, none], [14 + 52 + 200, 100, 34, []]);
    assert.equal(go([ethernet(a), ethernet(b, { dst: '02:00:00:00:00:03' })]).length, 2);
    assert.equal(go([ethernet(a, { type: 0x86dd }), ethernet(b, { type: 0x86dd })]).length, 2);
    assert.equal(go([arpFrame(), arpFrame()]).length, 2);
  });

  it('undoes segment: the superpacket comes back bit for bit', () => {
    const arbitrary = fc.record({
      size: fc.integer({ min: 1, max: 20_000 }),
      gsoSize: fc.integer({ min: 200, max: 1448 }),
      flags: fc.constantFrom(0, PSH, FIN, PSH | FIN, CWR, CWR | PSH | ECE, ECE).map(f => f | ACK_FLAG),
      seq: fc.oneof(fc.nat(0xffffffff), fc.integer({ min: 0xffffe000, max: 0xffffffff })),
      id: fc.oneof(fc.nat(65535), fc.integer({ min: 65500, max: 65535 })),
      tcpOptions: fc.constantFrom(new Uint8Array(0), timestampOption(1, 2), new Uint8Array(40).fill(1)),
      fragment: fc.constantFrom(0, FLAG_DF),
      tos: fc.nat(255),
      udp: fc.boolean(),
    });
    const coalescer = new Coalescer(pool, EVERYTHING);
    const out: Packet[] = [];
    fc.assert(
      fc.property(arbitrary, o => {
        // A superpacket holds more than one segment, and a UDP train at most 64.
        const size = o.udp ? Math.min(o.size, 64 * o.gsoSize) : o.size;
        fc.pre(size > o.gsoSize);
        const payload = pattern(size, o.seq);
        const p = loadPartial(pool, o.udp ? udp4({ ...o, payload }) : tcp4({ ...o, payload }), o.gsoSize);
        assert.equal(parseIpv4(pool.view, p), CONTINUE);
        if (!o.udp && (o.flags & CWR) !== 0) p.gsoType |= virtio.GSO_ECN;
        const n = segment(pool, p, out, 200);
        assert.ok(n > 1);
        assert.equal(coalescer.coalesce(out, n), 1);
        const q = out[0];
        assert.deepEqual(bytesOf(pool, q), bytesOf(pool, p));
        assert.deepEqual(
          [q.vnetFlags, q.gsoType, q.gsoSize, q.csumStart - q.off, q.csumOffset],
          [p.vnetFlags, p.gsoType, p.gsoSize, p.csumStart - p.off, p.csumOffset],
        );
        pool.release(p);
        pool.release(q);
      }),
      { numRuns: 300 },
    );
  });

  /** A burst of a few flows that mostly go on as they should. */
  function randomBurst(random: Random, flows: number): SlowPacket[] {
    const state = Array.from({ length: flows }, (_, f) => ({
      sport: 1000 + f,
      seq: random.next() >>> 0,
      id: random.below(65536),
      step: random.below(2),
      size: 1 + random.below(300),
      df: random.below(4) === 0 ? 0 : FLAG_DF,
    }));
    const odd = (n: number) => random.below(n) === 0;
    return Array.from({ length: 2 + random.below(60) }, () => {
      const s = state[random.below(flows)];
      const tcp = s.sport % 3 !== 0;
      const segments = odd(8) ? 2 + random.below(4) : 1;
      let size = segments * s.size;
      if (odd(8)) size -= random.below(s.size); // at least one byte stays, and a superpacket stays one
      if (odd(40)) size = 0;
      let flags = ACK_FLAG;
      if (odd(10)) flags |= [PSH, FIN, CWR, ECE, URG, SYN, RST][random.below(7)];
      const common = {
        id: s.id,
        sport: s.sport,
        fragment: odd(50) ? FLAG_DF ^ s.df : s.df,
        ttl: odd(50) ? 9 : 64,
        tos: odd(50) ? 2 : 0,
        payload: pattern(size, random.next()),
      };
      const tcpOptions = odd(50) ? timestampOption(2, 2) : timestampOption(1, 1);
      let bytes = tcp
        ? tcp4({ ...common, seq: s.seq, flags, tcpOptions, window: odd(50) ? 5 : 6 })
        : udp4({ ...common, noChecksum: segments === 1 && odd(50) });
      const gsoSize = segments > 1 && size > s.size ? s.size : 0;
      if (gsoSize === 0 && odd(40)) bytes = patch(bytes, bytes.length - 1, bytes[bytes.length - 1] ^ 1);
      if (gsoSize === 0 && odd(60)) bytes = tcp4({ ...common, payload: pattern(20), fragment: FLAG_MF });
      if (!odd(30)) {
        s.seq = (s.seq + size) >>> 0;
        s.id = (s.id + (gsoSize > 0 ? Math.ceil(size / gsoSize) : s.step)) & 65535;
      }
      return { bytes, gsoSize };
    });
  }

  it('undoes segment at every small size: TCP and UDP, payloads of 2 to 64 bytes', () => {
    for (let size = 2; size <= 64; size++) {
      for (let gsoSize = 1; gsoSize < size; gsoSize++) {
        for (const bytes of [
          tcp4({ id: 9, fragment: FLAG_DF, payload: pattern(size) }),
          udp4({ id: 9, fragment: FLAG_DF, payload: pattern(size) }),
        ]) {
          assert.deepEqual(run(slowSegment(bytes, gsoSize).map(plain)), [{ bytes, gsoSize }]);
        }
      }
    }
  });

  it('does what the model does, on bursts of up to eight flows', () => {
    const random = new Random(77);
    const coalescer = new Coalescer(pool, EVERYTHING);
    let merged = 0;
    for (let i = 0; i < 400; i++) {
      const burst = randomBurst(random, 1 + random.below(8));
      const out = run(burst, EVERYTHING, coalescer);
      assert.deepEqual(out, slowCoalesce(burst), `burst ${i}`);
      merged += burst.length - out.length;
    }
    assert.ok(merged > 1500, `the bursts are such that ${merged} packets were merged`);
  });

  it('loses, changes and reorders nothing, with any number of flows', () => {
    const random = new Random(78);
    const coalescer = new Coalescer(pool, EVERYTHING);
    /** The packets on the wire, by flow; ids apart, which may stand still. */
    const wire = (packets: SlowPacket[]) => {
      const flows = new Map<string, string[]>();
      for (const { bytes, gsoSize } of packets) {
        for (const piece of gsoSize > 0 ? slowSegment(bytes, gsoSize) : [bytes]) {
          const key = Buffer.from(piece.slice(20, 24)).toString('hex') + piece[9];
          const masked = patch(piece, 4, 0, 0, piece[6], piece[7], piece[8], piece[9], 0, 0);
          flows.set(key, [...(flows.get(key) ?? []), Buffer.from(masked).toString('hex')]);
        }
      }
      return [...flows].sort((a, b) => (a[0] < b[0] ? -1 : 1));
    };
    for (let i = 0; i < 150; i++) {
      const burst = randomBurst(random, 9 + random.below(10));
      assert.deepEqual(wire(run(burst, EVERYTHING, coalescer)), wire(burst), `burst ${i}`);
    }
  });
});

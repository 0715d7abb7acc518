import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ManualClock } from '../../datapath/clock.ts';
import { Counters, EVENT_DATAGRAMS_REASSEMBLED, PORT_RX_DROPPED } from '../../datapath/counters.ts';
import { fragment } from '../../datapath/mtu/fragment.ts';
import { Reassembly, type ReassemblyOptions } from '../../datapath/mtu/reassembly.ts';
import { HEADROOM, Packet, SLOT_BYTES } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { Random } from '../../datapath/random.ts';
import { CONTINUE, isDrop, TAKEN, VERDICT_NAMES, VERDICTS } from '../../datapath/verdict.ts';
import {
  bytesOf,
  fixHeader,
  ipv4,
  load,
  patch,
  pattern,
  fragment as pieceOfPacket,
  udp4,
} from '../fixtures/packets.ts';
import { type Piece, slowComplete, slowJudge } from '../model/datagram.ts';
import { slowReassemble } from '../model/fragment.ts';
import { allPieces, bytesOfPiece, disturbed, pieceOf, sequences, show, UDP_LENGTH } from './pieces.ts';

const PORT = 5;
const MALFORMED = VERDICT_NAMES.indexOf('drop-fragment-malformed');
const OVERLAP = VERDICT_NAMES.indexOf('drop-fragment-overlap');
const DUPLICATE = VERDICT_NAMES.indexOf('drop-fragment-duplicate');
const TIMEOUT = VERDICT_NAMES.indexOf('drop-fragment-timeout');
const QUEUE_FULL = VERDICT_NAMES.indexOf('drop-fragment-queue-full');

/** A node's end of a tunnel, as far as reassembly goes. */
class Exit {
  readonly pool: Pool;
  readonly clock = new ManualClock();
  readonly counters = new Counters();
  readonly reassembly: Reassembly;
  /** First fragments about which an ICMP error would be sent. */
  readonly errors: Uint8Array[] = [];

  constructor(options: Partial<ReassemblyOptions> = {}, slots = 64) {
    this.pool = new Pool(slots);
    this.reassembly = new Reassembly({
      pool: this.pool,
      counters: this.counters,
      random: new Random(1),
      events: this,
      ...options,
    });
  }

  timeout(first: Packet): void {
    const copy = new Packet(first.start, first.slot);
    copy.off = first.off;
    copy.len = first.len;
    assert.equal(parseIpv4(this.pool.view, copy), CONTINUE, 'as it came');
    assert.deepEqual(
      [first.src, first.dst, first.protocol, first.l4, first.fragment, first.srcPort],
      [copy.src, copy.dst, copy.protocol, copy.l4, copy.fragment, copy.srcPort],
    );
    this.errors.push(bytesOf(this.pool, first));
  }

  /** @returns the whole datagram as bytes, or accept()'s verdict */
  receive(bytes: Uint8Array, shift = 0, zone = 0): Uint8Array | number {
    const { pool, reassembly } = this;
    const p = pool.take()!;
    p.off += shift;
    pool.bytes.set(bytes, p.off);
    p.len = bytes.length;
    p.inPort = PORT;
    p.identity = 4711;
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    const v = reassembly.accept(p, zone, this.clock.now());
    const whole = reassembly.takeWhole();
    assert.equal(reassembly.takeWhole(), null, 'given once');
    if (isDrop(v)) {
      assert.equal(whole, null);
      this.counters.drop(v, p.len);
      this.counters.port(PORT, PORT_RX_DROPPED, 1);
      pool.release(p);
      return v;
    }
    assert.equal(v, TAKEN);
    if (whole === null) return v;
    const result = bytesOf(pool, whole);
    assert.ok(whole.off >= whole.start + HEADROOM && whole.off + whole.len <= whole.start + SLOT_BYTES);
    assert.deepEqual([whole.inPort, whole.identity, whole.fragment], [PORT, 4711, 0]);
    assert.equal(whole.l4, whole.off + (result[0] & 15) * 4);
    assert.deepEqual(
      [whole.srcPort, whole.dstPort],
      [whole.protocol === 17 ? 40000 : 0, whole.protocol === 17 ? 53 : 0],
    );
    pool.release(whole);
    return result;
  }

  get dropped(): number {
    let n = 0;
    for (let reason = 0; reason < VERDICTS; reason++) n += this.counters.dropped(reason);
    return n;
  }

  /** Lets everything run out; nothing may be left. */
  clear(): void {
    this.clock.advance(30_000);
    while (this.reassembly.datagrams > 0) this.reassembly.tick(this.clock.now());
    assert.equal(this.pool.available, this.pool.packets.length);
    assert.equal(this.counters.ofPort(PORT, PORT_RX_DROPPED), this.dropped);
    this.errors.length = 0;
  }
}

/** Takes `list` through reassembly and the model. */
function compare(exit: Exit, list: Piece[]): void {
  let come: Piece[] = [];
  let refused = 0;
  const before = exit.dropped;
  let drops = 0;
  for (const piece of list) {
    const result = exit.receive(bytesOfPiece(piece));
    if (refused !== 0) {
      drops++;
      assert.equal(result, refused, show(list));
      continue;
    }
    const finding = slowJudge(come, piece);
    if (finding === 'duplicate') {
      drops++;
      assert.equal(result, DUPLICATE, show(list));
    } else if (finding !== 'new') {
      refused = finding === 'overlap' ? OVERLAP : MALFORMED;
      drops += come.length + 1;
      assert.equal(result, refused, show(list));
    } else {
      come.push(piece);
      if (!slowComplete(come)) {
        assert.equal(result, TAKEN, show(list));
        continue;
      }
      if (come.find(c => !c.more)!.end < UDP_LENGTH) {
        // Shorter than its UDP header says.
        assert.equal(result, TAKEN);
        drops += come.length;
      } else {
        assert.deepEqual(result, slowReassemble(come.map(c => bytesOfPiece(c))), show(list));
      }
      come = [];
    }
  }
  assert.equal(exit.dropped - before, drops, show(list));
  const pending = refused === 0 ? come : [];
  exit.clock.advance(30_000);
  exit.reassembly.tick(exit.clock.now());
  const first = pending.find(c => c.from === 0);
  assert.deepEqual(exit.errors, first === undefined ? [] : [bytesOfPiece(first)], show(list));
  exit.clear();
}

describe('reassembly', () => {
  it('equals the model: every cut of 5 units, in every order, with every other fragment put in anywhere', () => {
    const exit = new Exit();
    for (const list of disturbed(5)) compare(exit, list);
  });

  it('equals the model: every sequence of 4 fragments of 3 units', () => {
    const exit = new Exit();
    for (const short of [0, 3]) {
      for (const list of sequences(allPieces(3, short), 4)) compare(exit, list);
    }
  });

  it('puts together what fragment() has cut, at any MTU, in any order, with options, wherever it lies', () => {
    const exit = new Exit({}, 1200);
    const options = Uint8Array.from([7, 7, 4, 0, 0, 0, 0, 130, 5, 9, 9, 9, 1, 148, 4, 0, 0, 0, 77, 77]);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9000 }),
        fc.integer({ min: 68, max: 3000 }),
        fc.constantFrom(17, 99),
        fc.boolean(),
        fc.nat(14),
        fc.integer(),
        (size, mtu, protocol, withOptions, shift, seed) => {
          const o = { options: withOptions ? options : undefined, id: size };
          const bytes = protocol === 17 ? udp4({ payload: pattern(size), ...o }) : ipv4(99, pattern(size), o);
          fc.pre(bytes.length > mtu);
          const out: Packet[] = [];
          const p = load(exit.pool, bytes);
          assert.equal(parseIpv4(exit.pool.view, p), CONTINUE);
          const n = fragment(exit.pool, p, mtu, out);
          const pieces = out.slice(0, n).map(q => bytesOf(exit.pool, q));
          for (let i = 0; i < n; i++) exit.pool.release(out[i]);
          exit.pool.release(p);

          const random = new Random(seed);
          for (let i = n - 1; i > 0; i--) {
            const j = random.below(i + 1);
            [pieces[i], pieces[j]] = [pieces[j], pieces[i]];
          }
          pieces.slice(0, -1).forEach(piece => {
            assert.equal(exit.receive(piece, shift), TAKEN);
          });
          assert.deepEqual(exit.receive(pieces[n - 1], shift), bytes);
          assert.equal(exit.pool.available, 1200);
          assert.equal(exit.reassembly.datagrams, 0);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('the longest packet comes whole out of its smallest pieces', () => {
    const exit = new Exit();
    const bytes = ipv4(99, pattern(65515));
    for (let at = 65512; at > 0; at -= 8) assert.equal(exit.receive(pieceOfPacket(bytes, at, 8)), TAKEN);
    assert.deepEqual(exit.receive(pieceOfPacket(bytes, 0, 8)), bytes);
  });

  it('drops what would be longer than 65535 bytes with the header of its first fragment', () => {
    const exit = new Exit();
    const bytes = ipv4(99, pattern(65515));
    const first = ipv4(99, pattern(65515).slice(0, 8), { options: new Uint8Array(4).fill(1), fragment: 0x2000 });
    assert.equal(exit.receive(pieceOfPacket(bytes, 8, 65507)), TAKEN);
    assert.equal(exit.receive(first), TAKEN);
    assert.equal(exit.counters.dropped(MALFORMED), 2);
    exit.clear();
  });

  it('drops a datagram that is malformed as a whole, under that reason', () => {
    const exit = new Exit();
    // 13 bytes, less than its UDP header says.
    exit.receive(bytesOfPiece(pieceOf(0, 1, true)));
    assert.equal(exit.receive(bytesOfPiece(pieceOf(1, 2, false))), TAKEN);
    assert.equal(exit.counters.dropped(VERDICT_NAMES.indexOf('drop-malformed-l4')), 2);
    assert.equal(exit.counters.events(EVENT_DATAGRAMS_REASSEMBLED), 0);
    exit.clear();
  });

  it('loses no congestion mark, and drops what is marked in contradiction (RFC 3168 section 5.3)', () => {
    const bytes = udp4({ payload: pattern(56) });
    for (let a = 0; a < 4; a++) {
      for (let b = 0; b < 4; b++) {
        for (const order of [0, 1]) {
          const exit = new Exit();
          const dscp = 46 << 2;
          const pieces = [
            fixHeader(patch(pieceOfPacket(bytes, 0, 32), 1, dscp | a)),
            fixHeader(patch(pieceOfPacket(bytes, 32, 100), 1, dscp | b)),
          ];
          exit.receive(pieces[order]);
          const whole = exit.receive(pieces[1 - order]);
          if ((a === 0) !== (b === 0)) {
            assert.equal(whole, TAKEN);
            assert.equal(exit.counters.dropped(VERDICT_NAMES.indexOf('drop-fragment-ecn')), 2);
          } else {
            const ecn = a === 3 || b === 3 ? 3 : a;
            assert.deepEqual(whole, fixHeader(patch(bytes, 1, dscp | ecn)), `${a} and ${b}`);
          }
          exit.clear();
        }
      }
    }
  });

  it('takes its header from the first fragment', () => {
    const exit = new Exit();
    const bytes = udp4({ payload: pattern(56), ttl: 9, tos: 0x20, options: new Uint8Array(8).fill(1) });
    const later = fixHeader(
      patch(pieceOfPacket(udp4({ payload: pattern(56), ttl: 200 }), 32, 100), 6, 0x40 /* DF, offset 4 */, 4),
    );
    assert.equal(exit.receive(later), TAKEN);
    assert.deepEqual(exit.receive(pieceOfPacket(bytes, 0, 32)), bytes);
  });

  it('tells of a timeout only if the first fragment has come', () => {
    const exit = new Exit();
    const [first, second, third] = [pieceOf(0, 2, true), pieceOf(2, 4, true), pieceOf(5, 6, false)];
    exit.receive(bytesOfPiece(second, { id: 1 }));
    exit.receive(bytesOfPiece(third, { id: 1 }));
    exit.receive(bytesOfPiece(third, { id: 2 }));
    exit.receive(bytesOfPiece(first, { id: 2 }));
    exit.clock.advance(29_999);
    assert.equal(exit.reassembly.tick(exit.clock.now()), 1);
    assert.equal(exit.counters.dropped(TIMEOUT), 0);
    exit.clock.advance(1);
    assert.equal(exit.reassembly.tick(exit.clock.now()), Number.POSITIVE_INFINITY);
    assert.deepEqual(exit.errors, [bytesOfPiece(first, { id: 2 })]);
    assert.equal(exit.counters.dropped(TIMEOUT), 4);
    exit.clear();
  });

  it('says nothing about a datagram that it has refused', () => {
    const exit = new Exit();
    exit.receive(bytesOfPiece(pieceOf(0, 2, true)));
    exit.receive(bytesOfPiece(pieceOf(1, 3, true)));
    exit.clock.advance(30_000);
    exit.reassembly.tick(exit.clock.now());
    assert.deepEqual(exit.errors, []);
    exit.clear();
  });

  it('counts the bytes of all fragments that it drops', () => {
    const exit = new Exit();
    exit.receive(bytesOfPiece(pieceOf(1, 2, true)));
    exit.receive(bytesOfPiece(pieceOf(3, 5, true)));
    exit.clock.advance(30_000);
    exit.reassembly.tick(exit.clock.now());
    assert.equal(exit.counters.values[TIMEOUT], 2);
    assert.equal(exit.counters.values[VERDICTS + TIMEOUT], 28 + 36);
  });

  it('does not join what is too old with what comes now, though no tick has come between', () => {
    const exit = new Exit();
    exit.receive(bytesOfPiece(pieceOf(4, 9, false)));
    exit.clock.advance(30_000);
    assert.equal(exit.receive(bytesOfPiece(pieceOf(0, 4, true))), TAKEN);
    assert.equal(exit.counters.dropped(TIMEOUT), 1);
    exit.clear();
  });

  it('gives up the oldest datagram when there are too many', () => {
    const exit = new Exit({ datagrams: 2 });
    for (const id of [1, 2, 3]) exit.receive(bytesOfPiece(pieceOf(4, 8, false), { id }));
    assert.equal(exit.counters.dropped(QUEUE_FULL), 1);
    assert.equal(exit.pool.available, 62);
    assert.deepEqual(exit.errors, [], 'this is no timeout');
    assert.equal(exit.receive(bytesOfPiece(pieceOf(0, 4, true), { id: 1 })), TAKEN, 'the oldest is forgotten');
    exit.clear();
  });

  it('gives up refused ones, too, which hold nothing', () => {
    const exit = new Exit({ datagrams: 2 });
    for (const id of [1, 2, 3, 4]) {
      exit.receive(bytesOfPiece(pieceOf(4, 8, false), { id }));
      exit.receive(bytesOfPiece(pieceOf(5, 8, false), { id }));
    }
    assert.equal(exit.pool.available, 64);
    assert.equal(exit.counters.dropped(OVERLAP), 8);
    exit.clear();
  });

  it('drops a fragment that no packet of the pool is left for', () => {
    const exit = new Exit({}, 2);
    assert.equal(exit.receive(bytesOfPiece(pieceOf(4, 8, false), { id: 1 })), TAKEN);
    assert.equal(exit.receive(bytesOfPiece(pieceOf(4, 8, false), { id: 2 })), VERDICT_NAMES.indexOf('drop-no-buffer'));
    assert.equal(exit.reassembly.datagrams, 1);
    exit.clear();
  });

  it('keeps apart zones', () => {
    const exit = new Exit();
    exit.receive(bytesOfPiece(pieceOf(4, 8, false)), 0, 1);
    assert.equal(exit.receive(bytesOfPiece(pieceOf(0, 4, true)), 0, 2), TAKEN);
    assert.equal(exit.reassembly.datagrams, 2);
    exit.clear();
  });

  it('stays within its bounds, and loses nothing, under a million fragments a second', () => {
    const exit = new Exit({ datagrams: 24 });
    const random = new Random(20260102);
    const quarters = [0, 2, 4, 6].map(from => pieceOf(from, from + 2, from < 6));
    const strangers = [pieceOf(1, 3, true), pieceOf(3, 5, true), pieceOf(5, 7, false)];
    const rounds = 300_000;
    let whole = 0;
    for (let i = 0; i < rounds; i++) {
      const piece = random.below(100) === 0 ? strangers[random.below(3)] : quarters[random.below(4)];
      const result = exit.receive(bytesOfPiece(piece, { id: random.below(30) }), random.below(3));
      if (result instanceof Uint8Array) whole++;
      assert.ok(exit.reassembly.datagrams <= 24);
      assert.ok(exit.pool.available >= 64 - exit.reassembly.datagrams);
      exit.clock.advance(0.001);
      if (i % 10_000 === 0) exit.clock.advance(random.below(20_000));
      if (i % 64 === 0) exit.reassembly.tick(exit.clock.now());
      exit.errors.length = 0;
    }
    exit.clear();
    assert.ok(whole > 1000, `${whole} whole datagrams`);
    assert.equal(exit.counters.events(EVENT_DATAGRAMS_REASSEMBLED), whole);
    assert.equal(whole * 4 + exit.dropped, rounds, 'each fragment is in a whole datagram, or dropped under a reason');
  });

  it('begins anew with a fragment behind too many others of its source, and counts what it gives up', () => {
    const exit = new Exit();
    exit.reassembly.setLimits(30_000, 64);
    const old = bytesOfPiece(pieceOf(1, 3, false), { id: 1 });
    exit.receive(old);
    for (let id = 2; id <= 33; id++) {
      for (const piece of [pieceOf(0, 1, true), pieceOf(1, 2, false, 0)]) exit.receive(bytesOfPiece(piece, { id }));
    }
    assert.equal(exit.receive(bytesOfPiece(pieceOf(1, 2, true), { id: 1 })), TAKEN, 'no overlap with what came before');
    assert.deepEqual([exit.counters.dropped(TIMEOUT), exit.counters.dropped(OVERLAP)], [1, 0]);
    exit.receive(bytesOfPiece(pieceOf(0, 1, true), { id: 1 }));
    assert.ok(exit.receive(bytesOfPiece(pieceOf(2, 3, false), { id: 1 })) instanceof Uint8Array);
  });
});

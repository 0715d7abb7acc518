import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ManualClock } from '../../datapath/clock.ts';
import { Counters, EVENT_FRAGMENTS_HELD } from '../../datapath/counters.ts';
import { VirtualReassembly, type VirtualReassemblyOptions } from '../../datapath/mtu/virtual-reassembly.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { Random } from '../../datapath/random.ts';
import { CONTINUE, isDrop, TAKEN, VERDICT_NAMES } from '../../datapath/verdict.ts';
import { icmpEcho, ipv4, load, pattern, fragment as pieceOfPacket, sctp4, tcp4 } from '../fixtures/packets.ts';
import { type Piece, SlowVirtualReassembly } from '../model/datagram.ts';
import { allPieces, bytesOfPiece, disturbed, pieceOf, sequences, show } from './pieces.ts';

const SLOTS = 128;
const DROP_ROUTE_REFUSED = VERDICT_NAMES.indexOf('drop-route-refused');

/** What the path refuses; everything else it admits with twice its source port as decision. */
const REFUSED_PORT = 666;

function newModel(): SlowVirtualReassembly {
  return new SlowVirtualReassembly(ports => {
    const sport = Number(ports.split(':')[0]);
    return sport === REFUSED_PORT ? 'drop-route-refused' : sport * 2;
  });
}

/** The path around virtual reassembly: judges first fragments by their source port, and writes down what happens. */
class Path {
  readonly pool: Pool;
  readonly clock = new ManualClock();
  readonly counters = new Counters();
  readonly fates: string[] = [];
  readonly fragments: VirtualReassembly;
  private readonly numbers = new Map<Packet, number>();
  private count = 0;

  constructor(options: Partial<VirtualReassemblyOptions> = {}) {
    this.pool = new Pool(SLOTS);
    this.fragments = new VirtualReassembly({
      pool: this.pool,
      counters: this.counters,
      random: new Random(1),
      events: this,
      ...options,
    });
  }

  /** The path takes one fragment. @returns accept()'s verdict */
  receive(bytes: Uint8Array, zone = 0): number {
    const { pool, fragments } = this;
    const p = load(pool, bytes);
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    this.numbers.set(p, this.count++);
    const v = fragments.accept(p, zone, this.clock.now());
    if (v === TAKEN) return v;
    if (isDrop(v)) {
      this.release(p, v);
      return v;
    }
    if ((p.fragment & 0x1fff) !== 0) {
      this.goOn(p);
      return v;
    }
    if (p.srcPort === REFUSED_PORT) {
      this.release(p, DROP_ROUTE_REFUSED);
      fragments.refuse(p, DROP_ROUTE_REFUSED);
      return v;
    }
    const { datagram } = p;
    decide(p, p.srcPort * 2);
    this.fates.push(`${this.numbers.get(p)} goes first`);
    fragments.admit(p);
    pool.release(p);
    for (let q = fragments.nextReleased(datagram); q !== null; q = fragments.nextReleased(datagram)) this.goOn(q);
    return v;
  }

  goOn(p: Packet): void {
    const { flow, direction, generation, newId } = p;
    assert.deepEqual([direction, generation, newId], [flow & 1, flow & 0xffff, (flow & 3) === 0 ? -1 : flow & 0xffff]);
    this.fates.push(`${this.numbers.get(p)} goes ${p.srcPort}:${p.dstPort} ${flow}`);
    this.pool.release(p);
  }

  release(p: Packet, reason: number): void {
    this.fates.push(`${this.numbers.get(p)} ${VERDICT_NAMES[reason]}`);
    this.counters.drop(reason, p.len);
    this.pool.release(p);
  }

  /** Forgets what was written down, and lets all that is known run out. */
  clear(): void {
    this.clock.advance(30_000);
    while (this.fragments.datagrams > 0) this.fragments.tick(this.clock.now());
    assert.equal(this.pool.available, this.pool.packets.length);
    assert.equal(this.fragments.held, 0);
    this.fates.length = 0;
    this.numbers.clear();
    this.count = 0;
  }
}

/** Takes `list` through both, in one datagram, and compares what became of each fragment. */
function compare(path: Path, list: Piece[], sport: number): void {
  const now = path.clock.now();
  const model = newModel();
  list.forEach((piece, i) => {
    path.receive(bytesOfPiece(piece, { sport }));
    model.accept(i, 'one', piece, `${sport}:53`, now);
  });
  assert.equal(path.fragments.held, model.held, show(list));
  assert.equal(path.pool.available, SLOTS - model.held);
  path.clock.advance(30_000);
  path.fragments.tick(path.clock.now());
  model.expire(now + 30_000);
  if (path.fates.join() !== model.fates.join()) assert.deepEqual(path.fates, model.fates, show(list));
  path.clear();
}

/** A path, and the arrival of a first fragment on it that it says nothing about. */
/** What the path says of a first fragment; the flow's number tells the rest. */
function decide(p: Packet, flow: number): void {
  p.flow = flow;
  p.direction = flow & 1;
  p.generation = flow & 0xffff;
  p.newId = (flow & 3) === 0 ? -1 : flow & 0xffff;
}

function firstOf(path: Path): { path: Path; undecided: () => Packet } {
  const undecided = () => {
    const { pool, fragments, clock } = path;
    const p = load(pool, bytesOfPiece(pieceOf(0, 1, true)));
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    assert.equal(fragments.accept(p, 0, clock.now()), CONTINUE);
    decide(p, 7);
    return p;
  };
  return { path, undecided };
}

describe('virtual reassembly', () => {
  it('equals the model: every cut of 5 units, in every order, with every other fragment put in anywhere', () => {
    const path = new Path();
    let n = 0;
    for (const list of disturbed(5)) {
      compare(path, list, n % 3 === 0 ? REFUSED_PORT : 40000);
      n++;
    }
    assert.ok(n > 30_000, `${n} sequences`);
  });

  it('equals the model: every sequence of 4 fragments of 3 units', () => {
    const path = new Path();
    for (const short of [0, 3]) {
      for (const list of sequences(allPieces(3, short), 4)) compare(path, list, 40000);
    }
  });

  it('equals the model: many datagrams at once, other orders, time passing, ports that change', () => {
    const pieces = allPieces(4);
    const step = fc.record({
      id: fc.nat(3),
      zone: fc.nat(1),
      src: fc.constantFrom('10.0.0.1', '10.0.0.2'),
      dst: fc.constantFrom('10.1.0.1', '10.1.0.2'),
      piece: fc.nat(pieces.length - 1),
      sport: fc.constantFrom(1000, 1001, REFUSED_PORT),
      wait: fc.constantFrom(0, 0, 0, 0, 100, 9000, 29_999),
    });
    // Few hash buckets, so that most datagrams share one with another.
    const path = new Path({ datagrams: 32 });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), steps => {
        const model = newModel();
        steps.forEach((s, i) => {
          path.clock.advance(s.wait);
          const now = path.clock.now();
          path.fragments.tick(now);
          const piece = pieces[s.piece];
          path.receive(bytesOfPiece(piece, s), s.zone);
          model.accept(i, `${s.id} ${s.zone} ${s.src} ${s.dst}`, piece, `${s.sport}:53`, now);
        });
        assert.equal(path.fragments.held, model.held);
        assert.deepEqual(path.fates, model.fates);
        path.clear();
      }),
      { numRuns: 400 },
    );
  });

  it('holds what comes before the first, and releases it in order of arrival, with the ports and the decision of the first', () => {
    const path = new Path();
    for (const from of [3, 1, 2]) assert.equal(path.receive(bytesOfPiece(pieceOf(from, from + 1, from < 3))), TAKEN);
    assert.equal(path.fragments.held, 3);
    assert.equal(path.counters.events(EVENT_FRAGMENTS_HELD), 3);
    assert.deepEqual(path.fates, []);
    assert.equal(path.receive(bytesOfPiece(pieceOf(0, 1, true))), CONTINUE);
    assert.deepEqual(path.fates, ['3 goes first', ...[0, 1, 2].map(i => `${i} goes 40000:53 80000`)]);
    assert.equal(path.fragments.datagrams, 0, 'complete, so forgotten');
    path.clear();
  });

  it('lets later fragments pass at once when the first has been admitted', () => {
    const path = new Path();
    path.receive(bytesOfPiece(pieceOf(0, 1, true)));
    assert.equal(path.receive(bytesOfPiece(pieceOf(2, 3, false))), CONTINUE);
    assert.equal(path.receive(bytesOfPiece(pieceOf(1, 2, true))), CONTINUE);
    assert.equal(path.counters.events(EVENT_FRAGMENTS_HELD), 0);
    assert.equal(path.fragments.datagrams, 0);
  });

  it('knows the identifier of ICMP queries and the ports of TCP and SCTP', () => {
    const packets: [Uint8Array, string][] = [
      [icmpEcho({ icmpId: 77, payload: pattern(100) }), '77:77 154'],
      [tcp4({ sport: 1, dport: 2, payload: pattern(100) }), '1:2 2'],
      [sctp4({ sport: 65535, dport: 9, payload: pattern(100) }), '65535:9 131070'],
    ];
    for (const [bytes, expected] of packets) {
      const path = new Path();
      path.receive(pieceOfPacket(bytes, 64, 200));
      path.receive(pieceOfPacket(bytes, 0, 64));
      assert.deepEqual(path.fates, ['1 goes first', `0 goes ${expected}`]);
      path.clear();
    }
  });

  it('drops the rest, held and to come, of a datagram whose first fragment was refused', () => {
    const path = new Path();
    path.receive(bytesOfPiece(pieceOf(1, 2, true)));
    path.receive(bytesOfPiece(pieceOf(0, 1, true), { sport: REFUSED_PORT }));
    assert.equal(path.receive(bytesOfPiece(pieceOf(2, 3, false))), DROP_ROUTE_REFUSED);
    assert.equal(path.counters.dropped(DROP_ROUTE_REFUSED), 3);
  });

  it('drops a datagram with two first fragments, also of equal length', () => {
    const path = new Path();
    path.receive(bytesOfPiece(pieceOf(0, 1, true), { sport: 1000 }));
    path.receive(bytesOfPiece(pieceOf(0, 1, true), { sport: 1000 }));
    path.receive(bytesOfPiece(pieceOf(0, 1, true), { sport: 1001 }));
    path.receive(bytesOfPiece(pieceOf(1, 2, false)));
    assert.deepEqual(path.fates, [
      '0 goes first',
      '1 drop-fragment-duplicate',
      '2 drop-fragment-overlap',
      '3 drop-fragment-overlap',
    ]);
  });

  const piece = pieceOf(1, 2, true);
  const differences: [string, (path: Path, i: number) => number][] = [
    ['source', (path, i) => path.receive(bytesOfPiece(piece, { src: `10.9.9.${i}` }))],
    ['destination', (path, i) => path.receive(bytesOfPiece(piece, { dst: `10.9.9.${i}` }))],
    ['identification', (path, i) => path.receive(bytesOfPiece(piece, { id: i }))],
    ['zone', (path, i) => path.receive(bytesOfPiece(piece), i)],
    ['protocol', (path, i) => path.receive(ipv4(140 + i, pattern(8), { fragment: 0x2001 }))],
  ];
  for (const [what, receive] of differences) {
    it(`keeps apart what differs in its ${what}`, () => {
      // As many as there is room for, so that some share a hash bucket.
      const path = new Path({ datagrams: 100 });
      for (let i = 0; i < 100; i++) assert.equal(receive(path, i), TAKEN);
      assert.equal(path.fragments.datagrams, 100);
      path.clear();
    });
  }

  it('gives a datagram 30 seconds from its first arrival, not from its last', () => {
    const path = new Path();
    path.receive(bytesOfPiece(pieceOf(1, 2, true)));
    path.clock.advance(29_000);
    assert.equal(path.fragments.tick(path.clock.now()), 1000);
    path.receive(bytesOfPiece(pieceOf(2, 3, true)));
    path.clock.advance(999);
    assert.equal(path.fragments.tick(path.clock.now()), 1);
    assert.equal(path.fragments.held, 2);
    path.clock.advance(1);
    assert.equal(path.fragments.tick(path.clock.now()), Number.POSITIVE_INFINITY);
    assert.deepEqual(path.fates, ['0 drop-fragment-timeout', '1 drop-fragment-timeout']);
    assert.equal(path.pool.available, SLOTS);
  });

  it('does not join what is too old with what comes now, though no tick has come between', () => {
    const path = new Path();
    path.receive(bytesOfPiece(pieceOf(1, 2, false)));
    path.clock.advance(30_000);
    path.receive(bytesOfPiece(pieceOf(0, 1, true)));
    assert.deepEqual(path.fates, ['0 drop-fragment-timeout', '1 goes first']);
  });

  it('does a bounded amount of work in one tick', () => {
    const path = new Path({ datagrams: 100 });
    for (let id = 0; id < 100; id++) path.receive(bytesOfPiece(pieceOf(1, 2, true), { id }));
    path.clock.advance(30_000);
    assert.equal(path.fragments.tick(path.clock.now()), 0, 'at once again');
    assert.equal(path.fragments.datagrams, 68);
    path.clear();
  });

  it('gives up the oldest datagram when there are too many', () => {
    const path = new Path({ datagrams: 3 });
    for (const id of [1, 2, 3, 4]) path.receive(bytesOfPiece(pieceOf(1, 2, true), { id }));
    assert.deepEqual(path.fates, ['0 drop-fragment-queue-full']);
    assert.equal(path.fragments.datagrams, 3);
    path.clear();
  });

  it('gives up the oldest datagram that holds anything when too many fragments are held', () => {
    const path = new Path({ held: 3 });
    path.receive(bytesOfPiece(pieceOf(0, 1, true), { id: 1 }));
    path.receive(bytesOfPiece(pieceOf(1, 2, true), { id: 2 }));
    path.receive(bytesOfPiece(pieceOf(2, 3, true), { id: 2 }));
    path.receive(bytesOfPiece(pieceOf(1, 2, true), { id: 3 }));
    path.receive(bytesOfPiece(pieceOf(1, 2, true), { id: 4 }));
    assert.deepEqual(path.fates, ['0 goes first', '1 drop-fragment-queue-full', '2 drop-fragment-queue-full']);
    assert.equal(path.fragments.held, 2);
    assert.equal(path.receive(bytesOfPiece(pieceOf(1, 2, false), { id: 1 })), CONTINUE, 'what holds nothing is spared');
    path.clear();
  });

  it('does not hold a fragment of the datagram that it has just given up for it', () => {
    const path = new Path({ held: 2 });
    for (const from of [1, 2, 3]) path.receive(bytesOfPiece(pieceOf(from, from + 1, true)));
    assert.deepEqual(
      path.fates,
      [0, 1, 2].map(i => `${i} drop-fragment-queue-full`),
    );
    assert.equal(path.fragments.held, 0);
    path.clear();
  });

  it('refuses a datagram that has too many fragments waiting', () => {
    const path = new Path();
    for (let unit = 1; unit <= 64; unit++) {
      assert.equal(path.receive(bytesOfPiece(pieceOf(unit, unit + 1, true))), TAKEN);
    }
    path.receive(bytesOfPiece(pieceOf(65, 66, true)));
    assert.equal(path.fragments.held, 0);
    path.receive(bytesOfPiece(pieceOf(0, 1, true)));
    assert.equal(path.counters.dropped(VERDICT_NAMES.indexOf('drop-fragment-queue-full')), 66);
    path.clear();
  });

  it('passes a datagram of any number of fragments', () => {
    const path = new Path();
    path.receive(bytesOfPiece(pieceOf(0, 1, true)));
    // Backwards, each with a hole in front of it.
    for (let unit = 1023; unit >= 1; unit--) {
      assert.equal(path.receive(bytesOfPiece(pieceOf(unit, unit + 1, unit < 1023))), CONTINUE);
    }
    assert.equal(path.fragments.datagrams, 0);
  });

  it('holds on as long as the path has not said what becomes of the first', () => {
    const { path, undecided } = firstOf(new Path());
    const first = undecided();
    assert.equal(path.receive(bytesOfPiece(pieceOf(1, 2, false))), TAKEN);
    path.fragments.admit(first);
    path.pool.release(first);
    path.goOn(path.fragments.nextReleased(first.datagram)!);
    assert.equal(path.fragments.nextReleased(first.datagram), null);
    assert.deepEqual(path.fates, ['0 goes 40000:53 7']);
    path.clear();
  });

  it('keeps the order when the path takes its time to fetch what was released', () => {
    const { path, undecided } = firstOf(new Path());
    path.receive(bytesOfPiece(pieceOf(2, 3, false)));
    const first = undecided();
    path.fragments.admit(first);
    path.pool.release(first);
    assert.equal(path.receive(bytesOfPiece(pieceOf(1, 2, true))), TAKEN);
    for (
      let q = path.fragments.nextReleased(first.datagram);
      q !== null;
      q = path.fragments.nextReleased(first.datagram)
    )
      path.goOn(q);
    assert.deepEqual(path.fates, ['0 goes 40000:53 7', '1 goes 40000:53 7']);
    assert.equal(path.fragments.datagrams, 0);
    path.clear();
  });

  it('does not release what has run out meanwhile', () => {
    const { path, undecided } = firstOf(new Path());
    path.receive(bytesOfPiece(pieceOf(1, 2, true)));
    const first = undecided();
    path.fragments.admit(first);
    path.pool.release(first);
    path.clock.advance(30_000);
    path.fragments.tick(path.clock.now());
    assert.deepEqual(path.fates, ['0 drop-fragment-timeout']);
    path.receive(bytesOfPiece(pieceOf(1, 2, true), { id: 99 }));
    assert.equal(path.fragments.nextReleased(first.datagram), null, 'though another datagram has its place now');
    path.clear();
  });

  it('does not admit what has run out meanwhile', () => {
    const { path, undecided } = firstOf(new Path());
    const first = undecided();
    path.clock.advance(30_000);
    path.fragments.tick(path.clock.now());
    path.fragments.admit(first);
    path.pool.release(first);
    assert.equal(path.fragments.datagrams, 0);
    assert.equal(path.receive(bytesOfPiece(pieceOf(1, 2, true), { id: 99 })), TAKEN);
    assert.equal(path.fragments.nextReleased(first.datagram), null);
    path.clear();
  });

  it('stays within its bounds, and loses nothing, under a million fragments a second', () => {
    const path = new Path({ datagrams: 64, held: 48, heldPerDatagram: 8 });
    const random = new Random(20260101);
    const pieces = allPieces(4);
    const sources = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4'];
    let ended = 0;
    const rounds = 200_000;
    for (let i = 0; i < rounds; i++) {
      path.receive(
        bytesOfPiece(pieces[random.below(pieces.length)], {
          id: random.below(100),
          src: sources[random.below(4)],
          sport: random.below(4) === 0 ? REFUSED_PORT : 40000,
        }),
        random.below(2),
      );
      ended += path.fates.length;
      path.fates.length = 0;
      assert.ok(path.fragments.datagrams <= 64 && path.fragments.held <= 48);
      assert.equal(path.pool.available, SLOTS - path.fragments.held);
      path.clock.advance(0.001);
      if (i % 1000 === 0) {
        path.clock.advance(random.below(8000));
        path.fragments.tick(path.clock.now());
      }
    }
    assert.equal(ended + path.fragments.held, rounds, 'each has gone on, was dropped, or is held');
    path.clear();
  });

  it('takes a fragment behind too many others of its source for one of a new datagram, and counts those that waited', () => {
    const path = new Path();
    path.fragments.setLimits(30_000, 3);
    const tail = bytesOfPiece(pieceOf(1, 3, false), { id: 1 });
    const head = bytesOfPiece(pieceOf(0, 1, true), { id: 1 });
    const other = (id: number) => bytesOfPiece(pieceOf(0, 1, true), { id });
    path.receive(tail);
    for (let id = 2; id <= 3; id++) path.receive(other(id));
    assert.equal(path.receive(tail), VERDICT_NAMES.indexOf('drop-fragment-duplicate'), 'two others came between');
    for (let id = 4; id <= 6; id++) path.receive(other(id));
    for (let id = 7; id <= 40; id++) path.receive(bytesOfPiece(pieceOf(0, 1, true), { id, src: '10.9.9.9' }));
    assert.equal(path.fates.filter(fate => fate === '0 drop-fragment-timeout').length, 0);
    assert.equal(path.receive(tail), TAKEN, 'three others of this source, and many of another');
    assert.ok(path.fates.includes('0 drop-fragment-timeout'));
    assert.equal(path.receive(head), CONTINUE);
    assert.match(path.fates.at(-1)!, / goes 40000:/);
  });
});

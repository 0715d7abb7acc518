import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { hugeMemory } from '../../datapath/io/huge-memory.ts';
import { RowRing } from '../../datapath/memory/row-ring.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { makeSharedSlab, SharedPool } from '../../datapath/packet/shared-pool.ts';
import { Mesh, type MeshMemory, makeMeshMemory, RING_FRAMES } from '../../datapath/segment/mesh.ts';
import { type Sent, SlowMesh } from '../model/mesh.ts';

const THREADS = 3;
const SHARE = 24;
const CROSSINGS = 4;

/** One slab for all runs: each would be allocated anew. */
const bytes = hugeMemory(THREADS * SHARE * 66240, true);

function memory(): MeshMemory {
  return makeMeshMemory(makeSharedSlab(THREADS, SHARE, () => bytes));
}

/** A thread's side, played by this one. */
class Side {
  readonly mesh: Mesh;
  readonly held: Packet[] = [];
  readonly came: Sent[] = [];
  isFull = false;

  constructor(shared: MeshMemory, thread: number, woken: number[]) {
    this.mesh = new Mesh(shared, thread, other => woken.push(other));
    const side = this;
    for (let crossing = 0; crossing < CROSSINGS; crossing++) {
      this.mesh.setEnd(crossing, {
        get hasSpace() {
          return !side.isFull;
        },
        arrive: p => {
          this.came.push({ slot: p.slot, crossing });
          this.held.push(p);
        },
      });
    }
  }

  /** Every field that crosses follows from the slot. */
  check(p: Packet): void {
    const at = p.slot;
    assert.deepEqual(
      [p.off - p.start, p.len, p.vnetFlags, p.gsoType, p.gsoSize, p.csumStart, p.csumOffset, p.outerTransport],
      [448 + (at & 7), 60 + at, at & 1, at & 3, at * 3, at * 5, at * 7, at * 11],
    );
    assert.deepEqual([p.innerNetwork, p.identity, p.trace], [at * 13, 0, 0]);
    assert.equal(this.mesh.pool.view.getUint32(p.off), at);
  }
}

function fill(side: Side, p: Packet): void {
  const at = p.slot;
  p.off = p.start + 448 + (at & 7);
  p.len = 60 + at;
  p.vnetFlags = at & 1;
  p.gsoType = at & 3;
  p.gsoSize = at * 3;
  p.csumStart = at * 5;
  p.csumOffset = at * 7;
  p.outerTransport = at * 11;
  p.innerNetwork = at * 13;
  side.mesh.pool.view.setUint32(p.off, at);
}

type Step =
  | { kind: 'take' | 'receive' | 'flush' | 'release' | 'full'; thread: number }
  | { kind: 'send'; thread: number; to: number; crossing: number }
  | { kind: 'kill'; thread: number };

const thread = fc.nat(THREADS - 1);
const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('take' as const), thread }) },
  {
    weight: 12,
    arbitrary: fc.record({ kind: fc.constant('send' as const), thread, to: thread, crossing: fc.nat(CROSSINGS - 1) }),
  },
  {
    weight: 16,
    arbitrary: fc.record({ kind: fc.constantFrom('receive' as const, 'flush' as const, 'release' as const), thread }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('kill' as const, 'full' as const), thread }) },
);

describe('frames between threads', () => {
  it('arrive once, in order, as they were sent; no slot is lost, also where a thread dies', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 250 }), steps => {
        const model = new SlowMesh(THREADS, SHARE);
        const shared = memory();
        const woken: number[] = [];
        const sides = Array.from({ length: THREADS }, (_, i) => new Side(shared, i, woken));
        const receive = (i: number, expected: Sent[]) => {
          const { came, held } = sides[i];
          assert.deepEqual(came, expected);
          for (const p of held.slice(held.length - came.length)) sides[i].check(p);
          came.length = 0;
        };
        for (const one of steps as Step[]) {
          const i = one.thread;
          const { mesh, held } = sides[i];
          if (!model.alive[i]) continue;
          if (one.kind === 'take') {
            if (mesh.pool.available === 0) model.collect(i);
            const p = mesh.pool.take();
            assert.equal(p !== null, model.available(i) > 0);
            if (p === null) continue;
            model.take(i, p.slot);
            fill(sides[i], p);
            held.push(p);
          } else if (one.kind === 'send') {
            const p = held[0];
            if (p === undefined || one.to === i) continue;
            fill(sides[i], p);
            const isSent = mesh.send(p, one.to, one.crossing);
            assert.equal(isSent, model.send(i, one.to, { slot: p.slot, crossing: one.crossing }, RING_FRAMES));
            if (isSent) held.shift();
          } else if (one.kind === 'release') {
            const p = held.shift();
            if (p === undefined) continue;
            mesh.pool.release(p);
            model.release(i, p.slot);
          } else if (one.kind === 'flush') {
            mesh.flush();
            model.flush(i);
          } else if (one.kind === 'full') {
            sides[i].isFull = true;
            mesh.receive();
            assert.equal(sides[i].came.length, 0);
            model.collect(i);
            sides[i].isFull = false;
          } else if (one.kind === 'receive') {
            mesh.receive();
            receive(i, model.receive(i));
          } else {
            const others = sides.filter((_, j) => j !== i && model.alive[j]);
            const expected = model.kill(i);
            for (const side of others) side.mesh.forget(i);
            for (const side of others) side.mesh.reclaim(i);
            for (let j = 0; j < THREADS; j++) if (model.alive[j]) receive(j, expected[j]!);
          }
          for (let j = 0; j < THREADS; j++) {
            if (!model.alive[j]) continue;
            assert.equal(sides[j].mesh.pool.available, model.available(j));
            assert.deepEqual(sides[j].held.map(p => p.slot).sort(), model.holding(j).sort());
          }
        }
        const alive = sides.filter((_, j) => model.alive[j]);
        // Each way that is left is gone twice: there, and back.
        for (let round = 0; round < 3; round++) {
          for (const { mesh } of alive) mesh.flush();
          for (const { mesh, held } of alive) {
            mesh.receive();
            for (const p of held.splice(0)) mesh.pool.release(p);
            mesh.flush();
          }
        }
        for (const { mesh } of alive) {
          mesh.receive();
          const all = new Set<number>();
          for (let p = mesh.pool.take(); p !== null; p = mesh.pool.take()) all.add(p.slot);
          assert.equal(all.size, SHARE, 'slots lost or doubled');
        }
        assert.deepEqual(woken, [], 'nobody slept');
      }),
      { numRuns: 300 },
    );
  });

  it('takes no more than the ring has room for, and says so', () => {
    const shared = makeMeshMemory(makeSharedSlab(2, 8, () => bytes));
    const a = new Mesh(shared, 0, () => {});
    const b = new Mesh(shared, 1, () => {});
    // The same slot again and again: the ring does not care.
    const p = a.pool.take()!;
    for (let i = 0; i < RING_FRAMES; i++) assert.ok(a.hasRoom(1) && a.send(p, 1, 0));
    assert.equal(a.hasRoom(1), false);
    assert.equal(a.send(p, 1, 0), false);
    a.flush();
    let came = 0;
    b.setEnd(0, { hasSpace: true, arrive: () => came++ });
    assert.ok(b.receive());
    assert.equal(came, RING_FRAMES);
    assert.ok(a.hasRoom(1) && a.send(p, 1, 0));
  });

  it('wakes a sleeper, once, and nobody else', () => {
    const woken: number[] = [];
    const shared = makeMeshMemory(makeSharedSlab(3, 8, () => bytes));
    const [a, b, c] = [0, 1, 2].map(i => new Mesh(shared, i, other => woken.push(other)));
    for (const mesh of [a, b, c]) mesh.setEnd(0, { hasSpace: true, arrive: p => mesh.pool.release(p) });
    const send = () => {
      a.send(a.pool.take()!, 1, 0);
      a.flush();
    };
    send();
    assert.deepEqual(woken, []);
    assert.equal(b.lieDown(), false, 'a frame waits');
    assert.equal(b.hasFrames, true);
    b.receive();
    assert.equal(b.hasFrames, false);
    assert.equal(b.lieDown(), true);
    assert.equal(c.lieDown(), true);
    send();
    send();
    assert.deepEqual(woken, [1]);
    b.getUp();
    b.receive();
    send();
    assert.deepEqual(woken, [1]);
  });

  it('leaves a frame that was taken, and not settled, to those who ask for what the dead held', () => {
    const shared = makeMeshMemory(makeSharedSlab(2, 8, () => bytes));
    const a = new Mesh(shared, 0, () => {});
    for (let i = 0; i < 3; i++) assert.ok(a.send(a.pool.take()!, 1, 0));
    a.flush();
    // What the other one's receive() does until it dies behind the first frame.
    const ring = new RowRing(shared.frames[0][1]!, 16, 'reader');
    const slot = ring.words[ring.peek() + 1];
    new SharedPool(shared, 1).receive(slot);
    ring.next();
    a.forget(1);
    assert.equal(a.pool.available, 7);
    assert.equal(a.reclaim(1), 1);
    assert.equal(a.pool.available, 8);
  });
});

/** A segment whose nodes are in several threads, all of them played by this one. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Counters } from '../../datapath/counters.ts';
import { EIO, ENOBUFS, EXFULL } from '../../datapath/io/errors.ts';
import { hugeMemory } from '../../datapath/io/huge-memory.ts';
import { SLOT_BYTES } from '../../datapath/packet/packet.ts';
import { makeSharedSlab } from '../../datapath/packet/shared-pool.ts';
import { type Impairments, UNIMPAIRED } from '../../datapath/segment/impairments.ts';
import { Mesh, makeMeshMemory, RING_FRAMES } from '../../datapath/segment/mesh.ts';
import { RemoteSegment } from '../../datapath/segment/remote.ts';
import { Segment } from '../../datapath/segment/segment.ts';
import { AGEING_MS } from '../../datapath/segment/stations.ts';
import * as verdict from '../../datapath/verdict.ts';
import { ethernet, pattern, udp4 } from '../fixtures/packets.ts';
import { SlowSwitch } from '../model/switch.ts';
import { ALL, End } from './rig.ts';

const THREADS = 3;
const SHARE = 1536;
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
/** p0 is in the thread of the segment. */
const PORTS = 5;
const threadOf = (port: number) => (port + 1) >> 1;

const bytes = hugeMemory(THREADS * SHARE * SLOT_BYTES, true);

const mac = (station: number) => `02:00:00:00:00:0${station}`;

function frame(src: number, dst: number | null, id: number): Uint8Array {
  const payload = pattern(30, id);
  new DataView(payload.buffer).setUint32(0, id);
  return ethernet(udp4({ payload }), { src: mac(src), dst: dst === null ? BROADCAST : mac(dst) });
}

class World {
  readonly time = new Float64Array(1);
  readonly meshes: Mesh[];
  readonly segment: Segment;
  readonly remotes: RemoteSegment[];
  readonly ends: (End | null)[] = [];
  private crossings = 0;

  constructor(impairments: Partial<Impairments> = {}) {
    const memory = makeMeshMemory(makeSharedSlab(THREADS, SHARE, () => bytes));
    this.meshes = Array.from({ length: THREADS }, (_, i) => new Mesh(memory, i, () => {}));
    const [home] = this.meshes;
    this.segment = new Segment({
      name: 'lan',
      mtu: 1500,
      pool: home.pool,
      counters: new Counters(),
      time: this.time,
      seed: 1,
      impairments: { ...UNIMPAIRED, ...impairments },
    });
    this.remotes = this.meshes.map(mesh => new RemoteSegment({ name: 'lan', mtu: 1500, mesh, home: 0 }));
  }

  open(port: number): End {
    const thread = threadOf(port);
    const name = `p${port}`;
    const { pool } = this.meshes[thread];
    const end = thread === 0 ? new End(pool, this.segment.attach(name, ALL)) : new End(pool, this.cross(thread, name));
    this.ends[port] = end;
    return end;
  }

  private cross(thread: number, name: string) {
    const crossing = this.crossings++;
    this.remotes[thread].expect(crossing);
    this.segment.attachRemote(name, { mesh: this.meshes[0], thread, crossing });
    return this.remotes[thread].attach(name, ALL, crossing);
  }

  /** In two steps, as two threads do: between them frames may cross. */
  closeEnd(port: number): void {
    this.ends[port]?.close();
  }

  leave(port: number): void {
    this.segment.closePort(`p${port}`);
    this.ends[port] = null;
  }

  /** All threads have had several turns. */
  settle(rounds = 3): void {
    for (let i = 0; i < rounds; i++) {
      for (const mesh of this.meshes) mesh.flush();
      for (const mesh of this.meshes) mesh.receive();
    }
    for (const mesh of this.meshes) mesh.flush();
  }

  lost(reason: number): number {
    const all = [this.segment.counters, ...this.remotes.map(({ counters }) => counters)];
    return all.reduce((sum, counters) => sum + counters.dropped(reason), 0);
  }

  /** Everything is closed: each slot is back where it came from, once. */
  assertWhole(): void {
    for (let port = 0; port < PORTS; port++) {
      this.closeEnd(port);
      this.leave(port);
    }
    this.settle();
    this.segment.close();
    this.settle();
    for (const { pool } of this.meshes) {
      const all = new Set<number>();
      for (let p = pool.take(); p !== null; p = pool.take()) all.add(p.slot);
      assert.equal(all.size, SHARE, 'slots lost or doubled');
    }
  }
}

const port = fc.nat(PORTS - 1);
const send = fc.record({ kind: fc.constant('send' as const), port, src: fc.nat(6), dst: fc.option(fc.nat(6)) });
const read = fc.record({ kind: fc.constantFrom('read' as const, 'give-back' as const), port });
const turn = fc.record({ kind: fc.constantFrom('close' as const, 'leave' as const, 'open' as const), port });
const pass = fc.record({ kind: fc.constantFrom('flush' as const, 'receive' as const), thread: fc.nat(THREADS - 1) });
const wait = fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(1, 20, AGEING_MS) });

describe('a segment across threads', () => {
  it('carries as the model of a switch does, whole and unspoiled', () => {
    const steps = fc.array(
      fc.oneof({ weight: 12, arbitrary: send }, { weight: 6, arbitrary: read }, { weight: 1, arbitrary: turn }, wait),
      { maxLength: 100 },
    );
    fc.assert(
      fc.property(steps, all => {
        const world = new World();
        const model = new SlowSwitch(AGEING_MS);
        const expected = Array.from({ length: PORTS }, () => new Map<number, Uint8Array>());
        for (let i = 0; i < PORTS; i++) {
          world.open(i);
          model.attach(`p${i}`);
        }
        let id = 1;
        for (const step of all) {
          if (step.kind === 'wait') {
            world.time[0] += step.ms;
            continue;
          }
          const end = world.ends[step.port];
          if (step.kind === 'open' && end === null) {
            world.open(step.port);
            model.attach(`p${step.port}`);
          } else if (end === null) {
            // Nothing to do with a port that is closed.
          } else if (step.kind === 'send') {
            const sent = frame(step.src, step.dst, ++id);
            assert.ok(end.send(sent));
            world.settle();
            for (const name of model.send(`p${step.port}`, step.src, step.dst, world.time[0])) {
              expected[Number(name.slice(1))]!.set(id, sent);
            }
          } else if (step.kind === 'read') {
            const got = end.read();
            assert.equal(got.length, expected[step.port]!.size);
            for (const p of got) {
              const came = end.bytes(p);
              const number = new DataView(came.buffer).getUint32(14 + 28);
              assert.deepEqual(came, expected[step.port]!.get(number));
              // Whoever has a packet may write into it: nobody else sees that.
              end.pool.bytes.fill(0xa5, p.off, p.off + p.len);
            }
            expected[step.port]!.clear();
          } else if (step.kind === 'give-back') end.giveBack();
          else {
            world.closeEnd(step.port);
            world.leave(step.port);
            expected[step.port]!.clear();
            model.detach(`p${step.port}`);
          }
        }
        world.assertWhole();
      }),
      { numRuns: 100 },
    );
  });

  it('loses and doubles no slot, whoever is slow, is impaired, or comes and goes', () => {
    const steps = fc.array(
      fc.oneof(
        { weight: 20, arbitrary: send },
        { weight: 6, arbitrary: read },
        { weight: 4, arbitrary: turn },
        { weight: 20, arbitrary: pass },
        wait,
      ),
      { maxLength: 200 },
    );
    const how = fc.constantFrom<Partial<Impairments>>(
      {},
      { delay: 5, jitter: 3 },
      { loss: 0.2, duplicate: 0.3, corrupt: 0.2 },
      { rate: 1e6, limit: { packets: 5 } },
    );
    fc.assert(
      fc.property(steps, how, (all, impairments) => {
        const world = new World(impairments);
        for (let i = 0; i < PORTS; i++) world.open(i);
        let id = 1;
        for (const step of all) {
          if (step.kind === 'wait') {
            world.time[0] += step.ms;
            world.segment.run();
          } else if ('thread' in step) {
            if (step.kind === 'flush') world.meshes[step.thread].flush();
            else world.meshes[step.thread].receive();
          } else if (step.kind === 'open') {
            if (world.ends[step.port] === null) world.open(step.port);
          } else if (step.kind === 'close') world.closeEnd(step.port);
          else if (step.kind === 'leave') {
            world.closeEnd(step.port);
            world.leave(step.port);
          } else {
            const end = world.ends[step.port];
            // A node that has closed its uplink neither reads nor sends.
            if (end === null || end.isClosed) continue;
            if (step.kind === 'send') end.send(frame(step.src, step.dst, ++id));
            else if (step.kind === 'read') end.read();
            else end.giveBack();
          }
        }
        world.assertWhole();
      }),
      { numRuns: 150 },
    );
  });

  it('says by name what it had no room for', () => {
    const world = new World();
    const node = world.open(1);
    const local = world.open(0);
    const p = () => world.meshes[1].pool.take()!;
    // To the segment, which does not take anything in.
    let sent = 0;
    for (let q = p(); ; q = p(), sent++) {
      q.len = 60;
      const error = node.port.handOver(q);
      if (error === 0) continue;
      assert.equal(error, EXFULL);
      world.meshes[1].pool.release(q);
      break;
    }
    assert.equal(sent, RING_FRAMES);
    world.settle();
    // To the node, which does not.
    node.send(frame(1, null, 1));
    world.settle();
    local.receive();
    for (let i = 0; i < RING_FRAMES + 1000; i++) assert.ok(local.send(frame(2, 1, i)));
    assert.equal(world.lost(verdict.DROP_WIRE_RING_FULL) + world.lost(verdict.DROP_WIRE_QUEUE_FULL), 1000);
    // Its packets are elsewhere: it keeps some for itself.
    const { pool } = world.meshes[1];
    const taken = [];
    while (pool.available > 150) taken.push(pool.take()!);
    const last = pool.take()!;
    assert.equal(node.port.handOver(last), ENOBUFS);
    for (const one of [last, ...taken]) pool.release(one);
    world.assertWhole();
  });

  it('is cut off from a thread that is no more, and says so to nodes of others on its segment', () => {
    const world = new World();
    const node = world.open(1);
    const other = world.open(3);
    node.send(frame(1, null, 1));
    world.settle();
    assert.equal(other.receive().length, 1);
    for (const thread of [1, 2]) world.meshes[thread].forget(0);
    for (const thread of [1, 2]) world.meshes[thread].reclaim(0);
    for (const remote of world.remotes) remote.cutOff();
    const p = world.meshes[1].pool.take()!;
    assert.equal(node.port.handOver(p), EIO);
    world.meshes[1].pool.release(p);
    assert.equal(world.remotes[1].attach('again', ALL, 9).handOver(p), EIO);
    for (const port of [1, 3]) world.closeEnd(port);
    for (const mesh of world.meshes.slice(1)) mesh.flush();
    for (const mesh of world.meshes.slice(1)) mesh.receive();
    assert.equal(world.meshes[1].pool.available, SHARE);
    assert.equal(world.meshes[2].pool.available, SHARE);
  });
});

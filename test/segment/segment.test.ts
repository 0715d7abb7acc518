import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { OFFLOAD_CSUM, OFFLOAD_IPIP, OFFLOAD_TSO, OFFLOAD_TUNNEL } from '../../datapath/io/device.ts';
import { MemoryDevice } from '../../datapath/io/memory.ts';
import type { Impairments } from '../../datapath/segment/impairments.ts';
import { UNIMPAIRED } from '../../datapath/segment/impairments.ts';
import { AGEING_MS } from '../../datapath/segment/stations.ts';
import * as verdict from '../../datapath/verdict.ts';
import * as virtio from '../../datapath/wire/virtio-net.ts';
import { ethernet, ipv4, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { slowSegment } from '../model/segment.ts';
import { SlowSwitch } from '../model/switch.ts';
import { ALL, type End, Rig } from './rig.ts';

const BROADCAST = 'ff:ff:ff:ff:ff:ff';

function mac(station: number): string {
  return `02:00:00:00:00:${station.toString(16).padStart(2, '0')}`;
}

function frame(src: number, dst: number | null, id: number, size = 20): Uint8Array {
  const payload = pattern(size, id);
  new DataView(payload.buffer).setUint32(0, id);
  return ethernet(udp4({ payload }), { src: mac(src), dst: dst === null ? BROADCAST : mac(dst) });
}

const idOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(14 + 28);

type Step =
  | { kind: 'send'; port: number; src: number; dst: number | null; size: number }
  | { kind: 'read' | 'give-back' | 'close' | 'open'; port: number }
  | { kind: 'wait'; ms: number }
  | { kind: 'impair'; port: number; direction: 'from' | 'to'; how: Partial<Impairments> };

const PORTS = 5;
const port = fc.nat(PORTS - 1);
const send = fc.record({
  kind: fc.constant('send' as const),
  port,
  src: fc.nat(6),
  dst: fc.option(fc.nat(6)),
  size: fc.integer({ min: 4, max: 1400 }),
});
const read = fc.record({ kind: fc.constantFrom('read' as const, 'give-back' as const), port });
const turn = fc.record({ kind: fc.constantFrom('close' as const, 'open' as const), port });
const wait = fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(1, 20, 1000, AGEING_MS) });
const impair = fc.record({
  kind: fc.constant('impair' as const),
  port,
  direction: fc.constantFrom('from' as const, 'to' as const),
  how: fc.constantFrom<Partial<Impairments>>(
    {},
    { delay: 10 },
    { delay: 5, jitter: 3 },
    { loss: 0.2, duplicate: 0.3, corrupt: 0.2 },
    { rate: 1e6, limit: { packets: 5 } },
    { delay: 4, reorder: 0.5 },
  ),
});

describe('segment', () => {
  it('carries as the model does, whole and unspoiled, and every slot is in one place', () => {
    const steps = fc.array(
      fc.oneof({ weight: 12, arbitrary: send }, { weight: 6, arbitrary: read }, { weight: 1, arbitrary: turn }, wait),
      { maxLength: 120 },
    );
    fc.assert(
      fc.property(steps, all => {
        const rig = new Rig({ slots: 1024 });
        const model = new SlowSwitch(AGEING_MS);
        const ends: (End | null)[] = [];
        const expected: Map<number, Uint8Array>[] = [];
        for (let i = 0; i < PORTS; i++) {
          ends.push(rig.end(`p${i}`));
          expected.push(new Map());
          model.attach(`p${i}`);
        }
        let id = 1;
        for (const step of all) {
          if (step.kind === 'wait') {
            rig.time[0] += step.ms;
            continue;
          }
          const end = ends[step.port];
          if (step.kind === 'open' && end === null) {
            ends[step.port] = rig.end(`p${step.port}`);
            model.attach(`p${step.port}`);
          } else if (end === null) {
            // Nothing to do with a port that is closed.
          } else if (step.kind === 'send') {
            const bytes = frame(step.src, step.dst, ++id, step.size);
            assert.ok(end.send(bytes));
            for (const name of model.send(`p${step.port}`, step.src, step.dst, rig.time[0])) {
              expected[Number(name.slice(1))].set(id, bytes);
            }
          } else if (step.kind === 'read') {
            const got = end.read();
            assert.equal(got.length, expected[step.port].size);
            for (const p of got) {
              const bytes = end.bytes(p);
              assert.deepEqual(bytes, expected[step.port].get(idOf(bytes)));
              // Whoever has a packet may write into it: nobody else sees that.
              rig.pool.bytes.fill(0xa5, p.off, p.off + p.len);
            }
            expected[step.port].clear();
          } else if (step.kind === 'give-back') end.giveBack();
          else if (step.kind === 'close') {
            end.close();
            ends[step.port] = null;
            expected[step.port].clear();
            model.detach(`p${step.port}`);
          }
        }
        for (const end of ends) end?.close();
        rig.segment.close();
        rig.assertWhole();
      }),
      { numRuns: 200 },
    );
  });

  it('loses no slot under impairments, faults of devices, closes, and in a pool that runs out', () => {
    const steps = fc.array(
      fc.oneof(
        { weight: 12, arbitrary: send as fc.Arbitrary<Step> },
        { weight: 5, arbitrary: read as fc.Arbitrary<Step> },
        { weight: 2, arbitrary: impair as fc.Arbitrary<Step> },
        { weight: 1, arbitrary: turn as fc.Arbitrary<Step> },
        { weight: 3, arbitrary: wait as fc.Arbitrary<Step> },
      ),
      { maxLength: 150 },
    );
    fc.assert(
      fc.property(steps, fc.constantFrom(180, 220, 400), fc.boolean(), (all, slots, mirror) => {
        const rig = new Rig({ slots });
        const ends: (End | null)[] = Array.from({ length: PORTS }, (_, i) => rig.end(`p${i}`));
        const tap = new MemoryDevice(rig.pool, { name: 'tap', layer: 2, capacity: 10 });
        const kernel = rig.segment.attachKernel(tap, mirror);
        const shown = new MemoryDevice(rig.pool, { name: 'shown', layer: 2, capacity: 10 });
        rig.segment.mirrorPort('p1', shown);
        let id = 1;
        for (const step of all) {
          if (step.kind === 'wait') {
            rig.until(rig.time[0] + Math.min(step.ms, 1000));
            // Full, down and working by turns.
            tap.failWrites = step.ms === 20 ? 5 : 0;
            if (step.ms === 1) tap.collect();
            if (step.ms === 1) shown.collect();
            continue;
          }
          if (step.kind === 'impair') {
            const how = { ...UNIMPAIRED, ...step.how };
            if (step.port === 0) rig.segment.impair(how);
            else rig.segment.impairPort(`p${step.port}`, step.direction, how);
            continue;
          }
          const end = ends[step.port];
          if (step.kind === 'open' && end === null) ends[step.port] = rig.end(`p${step.port}`);
          else if (end === null) continue;
          else if (step.kind === 'send') {
            end.send(frame(step.src, step.dst, ++id, step.size));
            tap.inject(frame(step.src + 7, step.dst, ++id, step.size));
            kernel.receive();
          } else if (step.kind === 'read') {
            for (const p of end.read()) rig.pool.bytes.fill(0xa5, p.off, p.off + p.len);
          } else if (step.kind === 'give-back') end.giveBack();
          else {
            end.close();
            ends[step.port] = null;
          }
        }
        for (const end of ends) end?.close();
        rig.segment.close();
        rig.assertWhole();
      }),
      { numRuns: 200 },
    );
  });

  it('forgets what a path has learnt, and says what the next has to know', () => {
    const rig = new Rig();
    const [a, b] = [rig.end('a'), rig.end('b')];
    a.send(frame(1, 2, 1), { identity: 7, tunnelSource: 5, local: 1, vnetFlags: virtio.FLAG_DATA_VALID });
    const [p] = b.read();
    assert.deepEqual([p.identity, p.tunnelSource, p.local, p.vnetFlags], [0, 0, 0, virtio.FLAG_DATA_VALID]);
  });

  it('gives a frame that has no headroom left a slot with all of it', () => {
    const rig = new Rig();
    const [a, b] = [rig.end('a'), rig.end('b')];
    const p = rig.pool.take()!;
    p.reset(100);
    const bytes = frame(1, 2, 1, 1000);
    rig.pool.bytes.set(bytes, p.off);
    p.len = bytes.length;
    assert.equal(a.port.handOver(p), 0);
    const [got] = b.read();
    assert.ok(got.off - got.start >= 326);
    assert.deepEqual(b.bytes(got), bytes);
  });

  it('drops what is longer than its MTU, a superpacket by its segments', () => {
    const rig = new Rig({ mtu: 1500 });
    const [a, b] = [rig.end('a'), rig.end('b')];
    a.send(frame(1, 2, 1, 1472));
    a.send(frame(1, 2, 2, 1473));
    for (const gsoSize of [1460, 1461]) {
      a.send(ethernet(tcp4({ payload: pattern(6000) }), { src: mac(1), dst: mac(2) }), partial(gsoSize, a));
    }
    assert.deepEqual(
      b.read().map(p => [p.len, p.gsoSize]),
      [
        [1514, 0],
        [6054, 1460],
      ],
    );
    assert.equal(rig.counters.dropped(verdict.DROP_WIRE_MTU), 2);
  });

  /** virtio-net fields of a TCP superpacket in the slot that is taken next. */
  function partial(gsoSize: number, end: End, before = 0) {
    const next = nextSlot(end);
    const tunnel = before === 0 ? {} : { outerTransport: next + 34, innerNetwork: next + 14 + before };
    return {
      vnetFlags: virtio.FLAG_NEEDS_CSUM,
      gsoType: virtio.GSO_TCPV4 | (before === 0 ? 0 : virtio.GSO_UDP_TUNNEL_IPV4),
      gsoSize,
      csumStart: next + 14 + before + 20,
      csumOffset: 16,
      ...tunnel,
    };
  }

  function nextSlot(end: End): number {
    const p = end.pool.take()!;
    end.pool.release(p);
    return p.off;
  }

  it('hands superpackets over whole, and cuts them where a device takes less: TCP, and TCP in IPIP', () => {
    for (const inTunnel of [false, true]) {
      for (const offloads of [0, OFFLOAD_CSUM | OFFLOAD_TSO, OFFLOAD_CSUM | OFFLOAD_TSO | OFFLOAD_TUNNEL, ALL]) {
        const rig = new Rig();
        const a = rig.end('a');
        const tap = new MemoryDevice(rig.pool, { name: 'tap', layer: 2, offloads });
        rig.segment.attachKernel(tap, false);
        const inner = tcp4({ payload: pattern(5000), id: 9, seq: 77 });
        const packet = inTunnel ? ipv4(4, inner, { id: 500 }) : inner;
        const before = inTunnel ? 20 : 0;
        a.send(ethernet(packet, { src: mac(1), dst: BROADCAST }), partial(1000, a, before));
        rig.segment.run();
        const frames = tap.collectFrames();
        const whole = (offloads & (inTunnel ? OFFLOAD_IPIP : OFFLOAD_TSO)) !== 0;
        if (whole) {
          assert.equal(frames.length, 1);
          assert.equal(frames[0].gsoSize, 1000);
          continue;
        }
        const pieces = slowSegment(inner, 1000);
        const expected = inTunnel ? pieces.map((piece, i) => ipv4(4, piece, { id: 500 + i })) : pieces;
        assert.deepEqual(
          frames.map(f => Buffer.from(f.bytes).toString('hex')),
          expected.map(p => Buffer.from(ethernet(p, { src: mac(1), dst: BROADCAST })).toString('hex')),
        );
        for (const f of frames) assert.deepEqual([f.vnetFlags, f.gsoType], [0, 0]);
      }
    }
  });

  it('shows a mirror everything, and a plain device only what is for it', () => {
    for (const mirror of [false, true]) {
      const rig = new Rig();
      const [a, b] = [rig.end('a'), rig.end('b')];
      const tap = new MemoryDevice(rig.pool, { name: 'tap', layer: 2 });
      const kernel = rig.segment.attachKernel(tap, mirror);
      a.send(frame(1, null, 1));
      b.send(frame(2, 1, 2));
      a.send(frame(1, 2, 3));
      tap.inject(frame(3, 1, 4));
      kernel.receive();
      rig.segment.run();
      assert.deepEqual(tap.collect().map(idOf), mirror ? [1, 2, 3] : [1]);
      assert.deepEqual(a.receive().map(idOf), [2, 4]);
      assert.deepEqual(b.receive().map(idOf), [1, 3]);
    }
  });

  it('shows a port, from before its line to what it gets, also when another node comes to it', () => {
    const rig = new Rig();
    const a = rig.end('a');
    let b = rig.end('b');
    const tap = new MemoryDevice(rig.pool, { name: 'tap', layer: 2 });
    rig.segment.mirrorPort('b', tap);
    assert.throws(() => rig.segment.mirrorPort('b', tap), /mirrored already/);
    rig.segment.impairPort('b', 'from', { ...UNIMPAIRED, loss: 1 });
    a.send(frame(1, null, 1));
    b.send(frame(2, 1, 2));
    b.close();
    b = rig.end('b');
    a.send(frame(1, null, 3));
    rig.segment.run();
    assert.deepEqual(tap.collect().map(idOf), [1, 2, 3]);
    assert.deepEqual(a.receive(), []);
    a.send(ethernet(tcp4({ payload: pattern(5000) }), { src: mac(1), dst: BROADCAST }), partial(1000, a));
    rig.segment.run();
    assert.equal(tap.collect().length, 5, 'in pieces that the device takes');
    rig.segment.unmirrorPort('b');
    a.send(frame(1, null, 4));
    rig.segment.run();
    assert.deepEqual(tap.collect(), []);
    for (const end of [a, b]) end.close();
    rig.segment.close();
    rig.assertWhole();
  });

  it('counts as a wire would, and tells what it knows', () => {
    const rig = new Rig();
    const [a, b] = [rig.end('a'), rig.end('b')];
    a.send(ethernet(tcp4({ payload: pattern(5000) }), { src: mac(1), dst: mac(2) }), partial(1000, a));
    b.send(frame(2, 1, 1));
    const row = rig.segment.row();
    assert.deepEqual(
      row.ports.map(p => [p.name, p.rxPackets, p.rxBytes, p.txPackets, p.waiting]),
      [
        ['a', 5, 5054 + 4 * 54, 1, 1],
        ['b', 1, 62, 5, 1],
      ],
    );
    assert.deepEqual(row.stations.map(s => [s.lo, s.port]).sort(), [
      [1, 'a'],
      [2, 'b'],
    ]);
  });

  it('refuses a second port of one name, and has the place again when the first is closed', () => {
    const rig = new Rig();
    const a = rig.end('a');
    assert.throws(() => rig.end('a'), /segment lan has a port a already/);
    a.close();
    rig.end('a');
  });
});

import assert from 'node:assert/strict';
import { OFFLOAD_TSO } from '../../datapath/io/device.ts';
import { frame, MemoryDevice, ReplayDevice } from '../../datapath/io/memory.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { bytesOf, loadPartial, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

describe('MemoryDevice', () => {
  it('gives what was injected, in order, into the slots of the caller', () => {
    const pool = new Pool(4);
    const device = new MemoryDevice(pool);
    const packets = [udp4({ payload: pattern(1) }), udp4({ payload: pattern(2) }), udp4({ payload: pattern(3) })];
    for (const bytes of packets) device.inject(bytes);
    const slots = [pool.take()!, pool.take()!];
    slots[1].reset(77);
    assert.equal(device.readBurst(slots, 2), 2);
    assert.deepEqual(bytesOf(pool, slots[0]), packets[0]);
    assert.deepEqual(bytesOf(pool, slots[1]), packets[1]);
    assert.equal(slots[1].off, slots[1].start + 77);
    assert.equal(device.pending, 1);
    slots[0].reset(128);
    assert.equal(device.readBurst(slots, 2), 1);
    assert.deepEqual(bytesOf(pool, slots[0]), packets[2]);
    assert.equal(device.readBurst(slots, 2), 0);
  });

  it('carries virtio-net fields both ways, as offsets from the first byte', () => {
    const pool = new Pool(2);
    const device = new MemoryDevice(pool, { offloads: OFFLOAD_TSO, layer: 3 });
    const p = loadPartial(pool, tcp4({ payload: pattern(3000) }), 1448);
    assert.equal(device.write(p), 0);
    const [out] = device.collectFrames();
    assert.deepEqual(
      { ...out, bytes: 0 },
      { ...frame(out.bytes), bytes: 0, vnetFlags: 1, gsoType: 1, gsoSize: 1448, csumStart: 20, csumOffset: 16 },
    );
    device.inject(out.bytes, out);
    const q = pool.take()!;
    assert.equal(device.readBurst([q], 1), 1);
    assert.deepEqual([q.vnetFlags, q.gsoType, q.gsoSize, q.csumStart - q.off, q.csumOffset], [1, 1, 1448, 20, 16]);
    assert.deepEqual(bytesOf(pool, q), bytesOf(pool, p));
  });

  it('keeps a copy: what is written may change afterwards', () => {
    const pool = new Pool(1);
    const device = new MemoryDevice(pool);
    const bytes = udp4({ payload: pattern(9) });
    device.inject(bytes);
    const p = pool.take()!;
    device.readBurst([p], 1);
    device.write(p);
    pool.bytes.fill(0, p.off, p.off + p.len);
    assert.deepEqual(device.collect(), [bytes]);
    assert.deepEqual(device.collect(), []);
  });

  it('answers with errno values when it is full, failing or closed', () => {
    const pool = new Pool(1);
    const device = new MemoryDevice(pool, { capacity: 1 });
    const p = pool.take()!;
    assert.equal(device.write(p), 0);
    assert.equal(device.write(p), 11);
    device.collect();
    device.failWrites = 5;
    assert.equal(device.write(p), 5);
    device.close();
    assert.equal(device.write(p), 19);
    assert.equal(device.readBurst([p], 1), -19);
  });
});

describe('ReplayDevice', () => {
  it('reads its packets in turn without end, and counts and reads what is written', () => {
    const pool = new Pool(3);
    const packets = [udp4({ payload: pattern(5) }), udp4({ payload: pattern(6) })];
    const headers = new Uint8Array(64);
    headers.set(packets[0].subarray(0, 32), 0);
    headers.set(packets[1].subarray(0, 32), 32);
    const replay = { headers: new Int32Array(headers.buffer), headerWords: 8, lengths: Uint16Array.of(33, 34) };
    const device = new ReplayDevice(pool, { ...replay, vnetFlags: 1, csumStart: 20, csumOffset: 6 });
    const slots = [pool.take()!, pool.take()!, pool.take()!];
    assert.equal(device.readBurst(slots, 3), 3);
    assert.deepEqual(
      slots.map(p => [p.len, p.vnetFlags, p.csumStart - p.off, p.csumOffset]),
      [33, 34, 33].map(len => [len, 1, 20, 6]),
    );
    assert.deepEqual(bytesOf(pool, slots[2]).subarray(0, 32), packets[0].subarray(0, 32));
    for (const p of slots) assert.equal(device.write(p), 0);
    assert.deepEqual([device.packets, device.bytes], [3, 100]);
    assert.equal(device.touched, 3 * pool.view.getInt32(slots[0].off, true) + (1 << 24)); // total length, low byte: 33 34 33
    assert.deepEqual(
      [...device.offsets.subarray(0, 3)],
      slots.map(p => p.off),
    );
  });

  it('takes no more than a burst, and without packets is a sink', () => {
    const pool = new Pool(2);
    const slots = [pool.take()!, pool.take()!];
    const device = new ReplayDevice(pool);
    assert.equal(device.readBurst(slots, 2), 0);
    device.play({ headers: new Int32Array(2), headerWords: 1, lengths: Uint16Array.of(4, 4) });
    device.burst = 1;
    assert.equal(device.readBurst(slots, 2), 1);
  });
});

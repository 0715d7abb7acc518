import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { RecordRing } from '../../datapath/memory/record-ring.ts';

/** Writes a record whose body is its number over and over. */
function write(ring: RecordRing, bytes: number, number: number): boolean {
  const at = ring.reserve(bytes);
  if (at < 0) return false;
  for (let i = at + 4; i < at + bytes; i++) ring.bytes[i] = number;
  ring.publish();
  return true;
}

function readAll(ring: RecordRing, most: number): { size: number; number: number }[] {
  const records: { size: number; number: number }[] = [];
  ring.drain((at, size) => records.push({ size, number: ring.bytes[at + 4] }), most);
  return records;
}

describe('record ring', () => {
  it('is a queue that refuses what has no room', () => {
    const step = fc.oneof(
      fc.record({ write: fc.integer({ min: 5, max: 120 }) }),
      fc.record({ read: fc.integer({ min: 1, max: 4 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.constantFrom(0, 0x1ffffff8, -8), (steps, start) => {
        const memory = RecordRing.allocate(256);
        // Positions that are about to wrap.
        new Int32Array(memory, 0, 2).fill(start);
        const ring = new RecordRing(memory);
        const model: { size: number; number: number }[] = [];
        let number = 0;
        let lost = 0;
        for (const s of steps) {
          if ('write' in s) {
            number = (number + 1) & 0xff;
            const size = (s.write + 7) & ~7;
            if (write(ring, s.write, number)) model.push({ size, number });
            else {
              lost++;
              // The pieces passed over at the end are shorter than the longest record, one for each time around.
              const used = model.reduce((sum, record) => sum + record.size, 0);
              assert.ok(used + size + 120 + 120 > 256, `${used} of 256 used, ${size} refused`);
            }
          } else assert.deepEqual(readAll(ring, s.read), model.splice(0, s.read));
        }
        assert.deepEqual(readAll(ring, 1000), model);
        assert.equal(ring.lost, lost);
      }),
    );
  });

  it('carries records between threads, whole and in order', async () => {
    const ring = new RecordRing(RecordRing.allocate(4096));
    const source = `
      const { workerData } = require('node:worker_threads');
      import(workerData.module).then(({ RecordRing }) => {
        const ring = new RecordRing(workerData.memory);
        for (let n = 0; n < 100000; ) {
          const bytes = 8 + (n * 7) % 200;
          const at = ring.reserve(bytes);
          if (at < 0) continue;
          for (let i = at + 4; i < at + bytes; i++) ring.bytes[i] = n;
          ring.publish();
          n++;
        }
      });`;
    const module = new URL('../../datapath/memory/record-ring.js', import.meta.url).href;
    const worker = new Worker(source, { eval: true, workerData: { module, memory: ring.buffer } });
    let n = 0;
    const check = (at: number, size: number) => {
      const bytes = 8 + ((n * 7) % 200);
      assert.equal(size, (bytes + 7) & ~7);
      for (let i = at + 4; i < at + bytes; i++) assert.equal(ring.bytes[i], n & 0xff);
      n++;
    };
    while (n < 100_000) {
      if (ring.drain(check, 1000) === 0) await new Promise(resolve => setImmediate(resolve));
    }
    await worker.terminate();
  });

  it('has a size that positions can be computed in', () => {
    for (const bytes of [0, 32, 100, 2 ** 31])
      assert.throws(() => RecordRing.allocate(bytes), /a power of two from 64/);
  });
});

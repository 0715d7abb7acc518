/** What a TUN makes of a ring's results; real devices and a real ring are in test/netns/uring.test.ts. */
import { strict as assert } from 'node:assert';
import { closeSync, openSync } from 'node:fs';
import { describe, it } from 'mocha';
import { EAGAIN, EINTR } from '../../datapath/io/errors.ts';
import { TunTap } from '../../datapath/io/tuntap.ts';
import type { Uring } from '../../datapath/io/uring.ts';
import { Pool } from '../../datapath/packet/pool.ts';

const VNET_BYTES = 12;
const ENODEV = 19;
const MAX = 16;

/** A burst whose reads end as `results` say, in turn; the rest finds nothing. */
function readTogether(results: number[]): { n: number; lengths: number[]; slots: number[] } {
  const pool = new Pool(MAX);
  const slots = Array.from({ length: MAX }, () => pool.take()!);
  const ring = { results: Int32Array.from({ length: 64 }, (_, i) => results[i] ?? -EAGAIN), prepare() {}, run() {} };
  const fd = openSync('/dev/zero', 'r');
  try {
    const handle = { kind: 'tun', fd, name: 't', mtu: 1500, vnetBytes: VNET_BYTES, offloads: 0, refused: [] } as const;
    const device = new TunTap({ ...handle, refused: [] }, pool, ring as unknown as Uring);
    // Zeros without end are a burst of full length: the next one goes through the ring.
    assert.ok(device.readBurst(slots, MAX) >= 4);
    const n = device.readBurst(slots, MAX);
    const come = slots.slice(0, Math.max(0, n));
    return { n, lengths: come.map(p => p.len), slots: slots.map(p => p.slot).sort((a, b) => a - b) };
  } finally {
    closeSync(fd);
  }
}

describe('a burst through the ring', () => {
  const all = Array.from({ length: MAX }, (_, i) => i);

  it('has its packets at the front, in order, and loses no slot', () => {
    const { n, lengths, slots } = readTogether([-EAGAIN, 112, -EAGAIN, 52]);
    assert.deepEqual([n, lengths], [2, [100, 40]]);
    assert.deepEqual(slots, all);
  });

  it('is empty, not the end of the device, when a signal has come between', () => {
    assert.equal(readTogether([-EINTR, -EAGAIN]).n, 0);
    assert.deepEqual(readTogether([-EINTR, 112]).lengths, [100]);
  });

  it('is empty when a read brings less than its header', () => {
    assert.equal(readTogether([5]).n, 0);
  });

  it('says that the device is gone when nothing else has come', () => {
    assert.equal(readTogether([-ENODEV]).n, -ENODEV);
    assert.deepEqual(readTogether([112, -ENODEV]).lengths, [100]);
  });
});

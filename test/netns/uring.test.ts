/** Bursts through io_uring are what the same packets one call each are: two TAPs on a bridge, in a namespace of their own. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'mocha';
import { inNamespace } from '../../datapath/control/netns.ts';
import { EIO } from '../../datapath/io/errors.ts';
import { closeHandle } from '../../datapath/io/handle.ts';
import { openTunTap, TunTap, type TunTapHandle } from '../../datapath/io/tuntap.ts';
import { RING_SIZE, Uring } from '../../datapath/io/uring.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { ethernet, pattern } from '../fixtures/packets.ts';
import { Rig, until } from './rig.ts';

const FROM = '02:00:00:00:00:01';
const TO = '02:00:00:00:00:02';
/** IEEE 802 local experimental: no protocol of the kernel's takes it. */
const TYPE = 0x88b5;

describe('io_uring', () => {
  const rig = new Rig('ring');
  const pool = new Pool(512);
  const handles: TunTapHandle[] = [];
  let ring: Uring;

  before(async function () {
    this.timeout(20_000);
    const opened = Uring.open();
    assert.ok(typeof opened !== 'string', `this machine's kernel has none: ${opened}`);
    ring = opened;
    await rig.bridge('sw');
    for (const name of ['in', 'out']) {
      handles.push(inNamespace(rig.full('sw'), () => openTunTap({ kind: 'tap', name, mtu: 9000, allowed: 0 })));
    }
    await rig.ip('sw', [
      'link set br0 mtu 9000',
      ...['in', 'out'].flatMap(name => [`link set ${name} mtu 9000 master br0`, `link set ${name} txqueuelen 1000 up`]),
    ]);
    await rig.run('sw', 'bridge', 'fdb', 'add', TO, 'dev', 'out', 'master', 'static');
    const [input, output] = devices(null, null);
    await until('the bridge to forward', () => {
      write(input, [frame(0, 46)]);
      return read(output).length > 0;
    });
  });

  after(async function () {
    this.timeout(20_000);
    ring.close();
    for (const handle of handles) closeHandle(handle);
    await rig.close();
  });

  const devices = (...rings: (Uring | null)[]) => handles.map((handle, i) => new TunTap(handle, pool, rings[i]));
  const frame = (number: number, length: number) =>
    ethernet(Uint8Array.of(number >> 8, number & 255, ...pattern(length - 2, number)), {
      src: FROM,
      dst: TO,
      type: TYPE,
    });

  function write(device: TunTap, frames: Uint8Array[]): number[] {
    const packets = frames.map(bytes => {
      const p = pool.take() as Packet;
      pool.bytes.set(bytes, p.off);
      p.len = bytes.length;
      return p;
    });
    const errors = new Int32Array(packets.length).fill(-1);
    device.writeBurst(packets, packets.length, errors);
    for (const p of packets) pool.release(p);
    return [...errors];
  }

  /** One burst. */
  function read(device: TunTap): Uint8Array[] {
    const slots = Array.from({ length: RING_SIZE }, () => pool.take() as Packet);
    const own = new Set(slots);
    const n = device.readBurst(slots, RING_SIZE);
    assert.ok(n >= 0, `errno ${-n}`);
    assert.deepEqual(new Set(slots), own, 'every slot once');
    const got = slots.slice(0, n).map(p => pool.bytes.slice(p.off, p.off + p.len));
    for (const p of slots) pool.release(p);
    return got;
  }

  for (const [name, writer, reader] of [
    ['written', true, false],
    ['read', false, true],
    ['written and read', true, true],
  ] as const) {
    it(`frames ${name} together come whole, in their order, in bursts of every length`, function () {
      this.timeout(20_000);
      const [input, output] = devices(writer ? ring : null, reader ? ring : null);
      let number = 0;
      for (const burst of [1, 2, 3, 4, 5, 8, 63, 64, 65, 128, 1, 7, 100]) {
        const frames = Array.from({ length: burst }, () => frame(number, 46 + ((number++ * 131) % 8000)));
        assert.deepEqual(write(input, frames), new Array(burst).fill(0));
        const got: Uint8Array[] = [];
        for (let some = read(output); some.length > 0; some = read(output)) got.push(...some);
        assert.equal(got.length, burst);
        for (const [i, bytes] of got.entries()) assert.deepEqual(bytes, frames[i], `burst of ${burst}, frame ${i}`);
      }
    });
  }

  it('reads what waits, and no more, without waiting for more', () => {
    const [input, output] = devices(null, ring);
    // So that many are expected.
    write(
      input,
      Array.from({ length: 60 }, (_, i) => frame(i, 60)),
    );
    assert.equal(read(output).length + read(output).length + read(output).length + read(output).length >= 60, true);
    while (read(output).length > 0);
    assert.deepEqual(read(output), []);
    write(input, [frame(1, 60)]);
    assert.equal(read(output).length, 1);
  });

  it('says of each packet why it was not written', async () => {
    const [input] = devices(ring, null);
    await rig.ip('sw', ['link set in down']);
    assert.deepEqual(
      write(
        input,
        Array.from({ length: 5 }, (_, i) => frame(i, 60)),
      ),
      new Array(5).fill(EIO),
    );
    await rig.ip('sw', ['link set in up']);
  });

  it('is what a node uses, unless it is told not to; busy polling is there to be asked for', async function () {
    this.timeout(40_000);
    const spec = (name: string, loop: object) => ({
      uplink: { kind: 'tap', device: 'ul0', mac: FROM, address: '192.168.10.1/24' },
      pods: [1, 2].map(i => ({
        name: `default/p${i}`,
        netns: rig.full(`${name}p${i}`),
        device: 'eth0',
        address: `10.244.1.1${i}`,
      })),
      loop,
    });
    for (const [name, loop, expected] of [
      ['auto', {}, { ioUring: 'in use', busyPoll: 0 }],
      ['off', { ioUring: 'off', busyPoll: 200 }, { ioUring: 'off by the configuration', busyPoll: 200 }],
    ] as const) {
      await rig.namespace(name, `${name}p1`, `${name}p2`);
      await rig.node(name, spec(name, loop));
      assert.deepEqual((await rig.status<{ loop: object }>(name)).loop, expected);
      await rig.run(`${name}p1`, 'ping', '-n', '-c20', '-i0.01', '-W2', '-l8', '10.244.1.12');
    }
  });
});

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CapturedPacket, CaptureFile } from '../../datapath/io/capture-file.ts';
import { LINK_ETHERNET, LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { arpFrame, ethernet, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

interface Shape {
  little: boolean;
  nanoseconds: boolean;
  linkType: number;
}

interface Record {
  seconds: number;
  fraction: number;
  bytes: Uint8Array;
  wireLen?: number;
}

/** A pcap file, field by field. */
function build(shape: Shape, records: Record[]): Buffer {
  const file = Buffer.alloc(24 + records.reduce((n, r) => n + 16 + r.bytes.length, 0));
  const u32 = (at: number, v: number) => (shape.little ? file.writeUInt32LE(v, at) : file.writeUInt32BE(v, at));
  u32(0, shape.nanoseconds ? 0xa1b23c4d : 0xa1b2c3d4);
  if (shape.little) file.writeUInt16LE(2, 4);
  else file.writeUInt16BE(2, 4);
  u32(16, 65535);
  u32(20, shape.linkType);
  let at = 24;
  for (const r of records) {
    u32(at, r.seconds);
    u32(at + 4, r.fraction);
    u32(at + 8, r.bytes.length);
    u32(at + 12, r.wireLen ?? r.bytes.length);
    file.set(r.bytes, at + 16);
    at += 16 + r.bytes.length;
  }
  return file;
}

/** A Linux cooked header (version 2) in front of `packet`. */
function cooked(protocol: number, packet: Uint8Array): Uint8Array {
  return new Uint8Array([
    protocol >> 8,
    protocol & 255,
    0,
    0,
    0,
    0,
    0,
    2,
    0,
    1,
    0,
    6,
    2,
    0,
    0,
    0,
    0,
    1,
    0,
    0,
    ...packet,
  ]);
}

function readAll(path: string): { packets: CapturedPacket[]; skipped: number } {
  const file = new CaptureFile(path);
  try {
    const packets: CapturedPacket[] = [];
    for (let p = file.next(); p !== null; p = file.next()) packets.push({ ...p, bytes: p.bytes.slice() });
    return { packets, skipped: file.skipped };
  } finally {
    file.close();
  }
}

describe('pcap', () => {
  let dir = '';
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-pcap-'));
  });
  after(() => rmSync(dir, { recursive: true }));
  const save = (bytes: Uint8Array) => {
    const path = join(dir, 'in.pcap');
    writeFileSync(path, bytes);
    return path;
  };

  for (const little of [true, false]) {
    for (const nanoseconds of [true, false]) {
      it(`reads ${little ? 'little' : 'big'} endian with ${nanoseconds ? 'nano' : 'micro'}seconds`, () => {
        const packet = tcp4({ payload: pattern(50) });
        const path = save(
          build({ little, nanoseconds, linkType: 101 }, [
            { seconds: 1_700_000_000, fraction: 250_000, bytes: packet },
            { seconds: 1_700_000_001, fraction: 7, bytes: packet.slice(0, 30), wireLen: 90 },
          ]),
        );
        const [first, second, ...rest] = readAll(path).packets;
        assert.deepEqual(first.bytes, packet);
        assert.equal(first.seconds, 1_700_000_000);
        assert.equal(first.nanoseconds, nanoseconds ? 250_000 : 250_000_000);
        assert.deepEqual([second.frame, second.bytes.length, second.wireLen], [2, 30, 90]);
        assert.deepEqual(rest, []);
      });
    }
  }

  const shape: Shape = { little: true, nanoseconds: true, linkType: 101 };
  const packet = udp4({ payload: pattern(20) });
  const record = { seconds: 1, fraction: 2, bytes: packet };

  const layers: [string, number, Uint8Array[], number, Uint8Array[], number][] = [
    ['Ethernet', 1, [ethernet(packet), arpFrame()], 2, [ethernet(packet), arpFrame()], 0],
    ['Ethernet with a note about its check sequence', 0x24000001, [ethernet(packet)], 2, [ethernet(packet)], 0],
    ['raw IP', 101, [packet], 3, [packet], 0],
    ['IPv4', 228, [packet], 3, [packet], 0],
    [
      'SLL2',
      276,
      [cooked(0x0800, packet), cooked(0x0806, pattern(28)), cooked(0x0800, tcp4())],
      3,
      [packet, tcp4()],
      1,
    ],
  ];
  for (const [what, linkType, records, layer, expected, skipped] of layers) {
    it(`reads ${what}`, () => {
      const file = build(
        { ...shape, linkType },
        records.map(bytes => ({ ...record, bytes })),
      );
      const { packets, skipped: passedOver } = readAll(save(file));
      assert.deepEqual(
        packets.map(p => p.bytes),
        expected,
      );
      assert.ok(packets.every(p => p.layer === layer));
      assert.equal(passedOver, skipped);
    });
  }

  const good = build(shape, [record, record]);
  const patched = (at: number, ...bytes: number[]) => {
    const copy = Buffer.from(good);
    copy.set(bytes, at);
    return copy;
  };
  const second = 24 + 16 + packet.length;
  const broken: [string, Uint8Array, RegExp][] = [
    ['an empty file', new Uint8Array(0), /in\.pcap: byte 0: not a capture file/],
    [
      'some text',
      Buffer.from('hello, world, this is no capture'),
      /byte 0: not a capture file: magic number 0x68656c6c/,
    ],
    ['a header cut off', good.subarray(0, 20), /byte 20: the file header is cut off/],
    ['version 3', patched(4, 3), /byte 4: pcap version 3/],
    ['Bluetooth', patched(20, 187), /byte 40: link type 187/],
    [
      'a record header cut off',
      good.subarray(0, second + 5),
      new RegExp(`byte ${second}: record header cut off after 5`),
    ],
    [
      'a record cut off',
      good.subarray(0, second + 20),
      new RegExp(`byte ${second}: record of 48 bytes cut off after 4`),
    ],
    [
      'an absurd length',
      patched(second + 8, 0, 0, 0, 0x10),
      new RegExp(`byte ${second + 8}: record of 268435456 bytes`),
    ],
    ['an absurd fraction', patched(28, 0, 0, 0, 0xff), /byte 28: record with 4278190080 as fraction/],
    ['a packet too long', build(shape, [{ ...record, bytes: pattern(70000) }]), /byte 40: packet of 70000 bytes/],
    [
      'a cooked header cut off',
      build({ ...shape, linkType: 276 }, [{ ...record, bytes: pattern(19) }]),
      /byte 40: cooked/,
    ],
  ];
  for (const [what, bytes, message] of broken) {
    it(`names the byte of ${what}`, () => {
      assert.throws(() => readAll(save(bytes)), message);
    });
  }

  it('cut anywhere ends with an error, but between records', () => {
    for (let n = 0; n < good.length; n++) {
      const read = () => readAll(save(good.subarray(0, n)));
      if (n === 24 || n === second) read();
      else assert.throws(read, /in\.pcap: byte \d+: /, `${n} bytes`);
    }
  });

  it('reads back what it wrote, more than a buffer of it', () => {
    const path = join(dir, 'out.pcap');
    const writer = new PcapWriter(path, LINK_RAW);
    const packets = Array.from({ length: 300 }, (_, i) => pattern(1 + i * 37, i + 1));
    packets.forEach((bytes, i) => {
      writer.write(1_700_000_000_000 + i * 1.5, bytes, bytes.length + i);
    });
    writer.close();
    const read = readAll(path).packets;
    assert.equal(read.length, packets.length);
    for (const [i, bytes] of packets.entries()) {
      assert.deepEqual(read[i].bytes, bytes);
      assert.equal(read[i].seconds * 1000 + read[i].nanoseconds / 1e6, 1_700_000_000_000 + i * 1.5);
      assert.equal(read[i].wireLen, bytes.length + i);
    }
  });

  it('writes what the format says, byte for byte', () => {
    const path = join(dir, 'out.pcap');
    const writer = new PcapWriter(path, LINK_ETHERNET);
    writer.write(1234.567891, ethernet(packet));
    writer.close();
    const expected = build({ ...shape, linkType: LINK_ETHERNET }, [
      { seconds: 1, fraction: 234_567_891, bytes: ethernet(packet) },
    ]);
    expected.writeUInt16LE(4, 6); // minor version
    expected.writeUInt32LE(262144, 16);
    assert.deepEqual(new Uint8Array(readFileSync(path)), new Uint8Array(expected));
  });
});

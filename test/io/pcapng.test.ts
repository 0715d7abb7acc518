import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { MemoryBytes } from '../../datapath/io/byte-source.ts';
import { CaptureReader } from '../../datapath/io/capture-file.ts';
import { LINK_ETHERNET, LINK_IPV4, LINK_RAW } from '../../datapath/io/pcap.ts';
import {
  DIRECTION_IN,
  DIRECTION_OUT,
  type PacketRecord,
  PcapngReader,
  PcapngWriter,
  type ReadRecord,
} from '../../datapath/io/pcapng.ts';
import { arpFrame, ethernet, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

/** What the writer makes, in one piece. */
function written(write: (writer: PcapngWriter) => void): Uint8Array {
  const blocks: Uint8Array[] = [];
  write(new PcapngWriter(block => blocks.push(block.slice())));
  return new Uint8Array(Buffer.concat(blocks));
}

function readAll(bytes: Uint8Array): ReadRecord[] {
  const reader = new PcapngReader(new MemoryBytes(bytes, 'in.pcapng'));
  const records: ReadRecord[] = [];
  for (let r = reader.next(); r !== null; r = reader.next()) records.push({ ...r, bytes: r.bytes.slice() });
  return records;
}

/** A section of one interface and one packet, big endian, its time stamp 2^32 * high + low in units of `resolution`. */
function foreign(resolution: number[], high: number, low: number): Uint8Array {
  const option = resolution.length === 0 ? [] : [0, 9, 0, 1, ...resolution, 0, 0, 0, 0, 0, 0, 0];
  const idb = 20 + option.length;
  const u32 = (v: number) => [v >>> 24, (v >>> 16) & 255, (v >>> 8) & 255, v & 255];
  return Uint8Array.from([
    ...u32(0x0a0d0d0a),
    ...u32(28),
    ...u32(0x1a2b3c4d),
    ...[0, 1, 0, 0],
    ...u32(0xffffffff),
    ...u32(0xffffffff),
    ...u32(28),
    ...[...u32(1), ...u32(idb), 0, 101, 0, 0, ...u32(0), ...option, ...u32(idb)],
    ...[...u32(0xbad), ...u32(16), 1, 2, 3, 4, ...u32(16)], // a block that nobody knows
    ...[...u32(6), ...u32(36), ...u32(0), ...u32(high), ...u32(low), ...u32(3), ...u32(60), 7, 8, 9, 0, ...u32(36)],
  ]);
}

describe('pcapng', () => {
  let dir = '';
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-pcapng-'));
  });
  after(() => rmSync(dir, { recursive: true }));

  const sample = () =>
    written(writer => {
      writer.addInterface({ name: 'default/p1', description: 'pod', linkType: LINK_RAW });
      writer.addInterface({ name: 'ul0', linkType: LINK_ETHERNET, snapLen: 96 });
      writer.addInterface({ name: 'ip', linkType: LINK_IPV4 });
      const time = { seconds: 1_790_000_000, nanoseconds: 123_456_789 };
      writer.packet({ interfaceId: 0, ...time, bytes: tcp4(), direction: DIRECTION_IN, packetId: 2 ** 33 + 1 });
      const bytes = ethernet(udp4({ payload: pattern(301) }));
      writer.packet({ interfaceId: 1, ...time, bytes: bytes.slice(0, 96), wireLen: bytes.length, dropCount: 3 });
      writer.packet({ interfaceId: 1, ...time, bytes: arpFrame(), direction: DIRECTION_OUT, comment: 'drop: ü' });
      writer.packet({ interfaceId: 2, seconds: 0, nanoseconds: 1, bytes: udp4({ payload: pattern(1) }) });
      writer.statistics(1, time.seconds, time.nanoseconds, 2, 3);
    });

  it('reads what it wrote', () => {
    const record = fc.record(
      {
        interfaceId: fc.nat(2),
        seconds: fc.nat(0xffffffff),
        nanoseconds: fc.nat(999_999_999),
        bytes: fc.uint8Array({ maxLength: 200 }),
        direction: fc.nat(2),
        comment: fc.string({ unit: 'grapheme', maxLength: 50 }),
      },
      { noNullPrototype: true },
    );
    fc.assert(
      fc.property(fc.array(record, { maxLength: 10 }), records => {
        const bytes = written(writer => {
          for (const name of ['a', 'b', 'c']) writer.addInterface({ name, linkType: LINK_RAW });
          for (const r of records) writer.packet(r satisfies PacketRecord);
        });
        const read = readAll(bytes).map(({ interface: from, wireLen, ...rest }) => {
          assert.equal(wireLen, rest.bytes.length);
          return { interfaceId: 'abc'.indexOf(from.name), ...rest };
        });
        assert.deepEqual(read, records);
      }),
    );
  });

  const times: [string, number[], number, number, number, number][] = [
    ['microseconds by default', [], 0x00053a3c, 0x8d4e6f01, 0, 0],
    ['milliseconds', [3], 0, 61_250, 61, 250_000_000],
    ['nanoseconds', [9], 0x18e2b1f2, 0x45d4cd15, 0, 0],
    ['picoseconds', [12], 1, 0, 0, 4_294_967],
    ['powers of two', [0x80 | 10], 0, 1536, 1, 500_000_000],
  ];
  for (const [what, resolution, high, low, seconds, nanoseconds] of times) {
    it(`reads time stamps in ${what}, big endian, and passes over blocks that it does not know`, () => {
      const [record, ...rest] = readAll(foreign(resolution, high, low));
      assert.deepEqual(rest, []);
      assert.deepEqual([...record.bytes], [7, 8, 9]);
      assert.equal(record.wireLen, 60);
      // The obvious way, in integers of any size.
      const units =
        resolution.length === 0 || resolution[0] === 9 ? (resolution.length === 0 ? 10n ** 6n : 10n ** 9n) : 0n;
      if (units > 0n) {
        const stamp = (BigInt(high) << 32n) | BigInt(low);
        assert.equal(record.seconds, Number(stamp / units));
        assert.equal(record.nanoseconds, Number(((stamp % units) * 10n ** 9n) / units));
      } else assert.deepEqual([record.seconds, record.nanoseconds], [seconds, nanoseconds]);
    });
  }

  it('cut or changed anywhere ends with an error that names the byte, or reads on; it never hangs or reads outside', () => {
    const good = sample();
    for (let n = 0; n < good.length; n++) {
      try {
        readAll(good.subarray(0, n));
      } catch (error) {
        assert.match((error as Error).message, /^in\.pcapng: byte \d+: /);
      }
    }
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }), changes => {
        const bad = good.slice();
        for (const [at, value] of changes) bad[at] = value;
        try {
          const reader = new CaptureReader(new MemoryBytes(bad, 'in.pcapng'));
          while (reader.next() !== null);
        } catch (error) {
          assert.match((error as Error).message, /^in\.pcapng: byte -?\d+: /);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('is read and saved again by tshark, capinfos, editcap and mergecap without a warning', () => {
    const path = join(dir, 'out.pcapng');
    writeFileSync(path, sample());
    const run = (command: string, ...args: string[]) =>
      execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    const fields = ['frame.interface_name', 'frame.time_epoch', 'frame.packet_flags', 'frame.comment', 'frame.len'];
    const show = (file: string) =>
      run('tshark', '-n', '-r', file, '-T', 'fields', ...fields.flatMap(field => ['-e', field]));
    const shown = show(path);
    assert.deepEqual(
      shown.split('\n').map(line => line.split('\t')),
      [
        ['default/p1', '1790000000.123456789', '0x00000001', '', '40'],
        ['ul0', '1790000000.123456789', '', '', '343'],
        ['ul0', '1790000000.123456789', '0x00000002', 'drop: ü', '42'],
        ['ip', '0.000000001', '', '', '29'],
        [''],
      ],
    );
    assert.match(run('capinfos', '-c', '-I', path), /Number of packets: +4[\s\S]*Name = default\/p1[\s\S]*Name = ul0/);
    const again = join(dir, 'again.pcapng');
    run('editcap', path, again);
    assert.equal(show(again), shown);
    const merged = join(dir, 'merged.pcapng');
    run('mergecap', '-a', '-w', merged, path);
    assert.equal(show(merged), shown);
    const back = readAll(new Uint8Array(readFileSync(again)));
    assert.deepEqual(
      back.map(r => [r.interface.name, r.direction, r.comment, r.wireLen]),
      readAll(sample()).map(r => [r.interface.name, r.direction, r.comment, r.wireLen]),
    );
  });
});

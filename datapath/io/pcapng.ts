/**
 * pcapng (draft-ietf-opsawg-pcapng): blocks of a section written one after the other, and read whatever wrote them.
 *
 *   block:  | type 4 | total length 4 | body, padded to 4 | options | total length 4 |
 *   file:   section header, interface descriptions, enhanced packets in any order, interface statistics at the end
 *
 * The writer keeps to what tshark, capinfos, editcap and mergecap 4.0 read and save again without a warning: little
 * endian, nanoseconds (if_tsresol 9), epb_flags, epb_packetid, epb_dropcount and comments. Not epb_verdict, which editcap
 * 4.0.17 writes back corrupted. It knows no files: every block goes to a sink, so it serves a browser as well.
 */

import type { ByteSource } from './byte-source.ts';

export const DIRECTION_UNKNOWN = 0;
export const DIRECTION_IN = 1;
export const DIRECTION_OUT = 2;

const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_SIMPLE_PACKET = 3;
const BLOCK_STATISTICS = 5;
const BLOCK_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

const OPT_END = 0;
const OPT_COMMENT = 1;
const SHB_USERAPPL = 4;
const IF_NAME = 2;
const IF_DESCRIPTION = 3;
const IF_TSRESOL = 9;
const IF_TSOFFSET = 14;
const EPB_FLAGS = 2;
const EPB_DROPCOUNT = 4;
const EPB_PACKETID = 5;
const ISB_IFRECV = 4;
const ISB_IFDROP = 5;

/** Blocks longer than this are no blocks: 256 KiB of packet and as much of options. */
const MAX_BLOCK = 1 << 20;
const NANOSECONDS = 9;
const TWO_32 = 2 ** 32;
const ENCODER = new TextEncoder();

export interface InterfaceDescription {
  name: string;
  description?: string;
  linkType: number;
  /** Bytes kept of each packet; 0: all. */
  snapLen?: number;
}

export interface PacketRecord {
  /** Index of its interface, in the order of description. */
  interfaceId: number;
  seconds: number;
  nanoseconds: number;
  bytes: Uint8Array;
  /** What it had on the wire, where that is more than `bytes`. */
  wireLen?: number;
  /** DIRECTION_*. */
  direction?: number;
  /** The same for one packet wherever it is seen. */
  packetId?: number;
  /** Packets that this interface lost since the record before. */
  dropCount?: number;
  comment?: string;
}

/** Makes one section. `sink` gets whole blocks, in memory that the next block uses again. */
export class PcapngWriter {
  private readonly sink: (block: Uint8Array) => void;
  private readonly block = new Block();
  private interfaces = 0;

  constructor(sink: (block: Uint8Array) => void, application = 'tunpath') {
    this.sink = sink;
    const block = this.block.begin(BLOCK_SECTION);
    block.u32(BYTE_ORDER_MAGIC);
    block.u16(1); // version 1.0
    block.u16(0);
    block.u32(0xffffffff); // the section's length is not given
    block.u32(0xffffffff);
    block.text(SHB_USERAPPL, application);
    sink(block.end());
  }

  /** @returns the interface's index */
  addInterface({ name, description, linkType, snapLen = 0 }: InterfaceDescription): number {
    const block = this.block.begin(BLOCK_INTERFACE);
    block.u16(linkType);
    block.u16(0);
    block.u32(snapLen);
    block.text(IF_NAME, name);
    if (description !== undefined) block.text(IF_DESCRIPTION, description);
    block.option(IF_TSRESOL, Uint8Array.of(NANOSECONDS));
    this.sink(block.end());
    return this.interfaces++;
  }

  packet(record: PacketRecord): void {
    const { bytes, interfaceId, direction, packetId, dropCount, comment } = record;
    const block = this.block.begin(BLOCK_PACKET);
    block.u32(interfaceId);
    block.time(record.seconds, record.nanoseconds);
    block.u32(bytes.length);
    block.u32(record.wireLen ?? bytes.length);
    block.bytes(bytes);
    if (comment !== undefined) block.text(OPT_COMMENT, comment);
    if (direction !== undefined) block.numberOption(EPB_FLAGS, direction);
    if (dropCount !== undefined) block.numberOption64(EPB_DROPCOUNT, dropCount);
    if (packetId !== undefined) block.numberOption64(EPB_PACKETID, packetId);
    this.sink(block.end());
  }

  /** What an interface has seen and lost in all, up to a moment. */
  statistics(interfaceId: number, seconds: number, nanoseconds: number, received: number, dropped: number): void {
    const block = this.block.begin(BLOCK_STATISTICS);
    block.u32(interfaceId);
    block.time(seconds, nanoseconds);
    block.numberOption64(ISB_IFRECV, received);
    block.numberOption64(ISB_IFDROP, dropped);
    this.sink(block.end());
  }
}

/** One block under construction. */
class Block {
  private buffer = new Uint8Array(256);
  private view = new DataView(this.buffer.buffer);
  private at = 0;
  private hasOptions = false;

  begin(type: number): this {
    this.at = 0;
    this.hasOptions = false;
    this.u32(type);
    this.u32(0);
    return this;
  }

  u16(value: number): void {
    this.reserve(2);
    this.view.setUint16(this.at, value, true);
    this.at += 2;
  }

  u32(value: number): void {
    this.reserve(4);
    this.view.setUint32(this.at, value, true);
    this.at += 4;
  }

  /** Nanoseconds since 1970 as two halves, the high one first: more than a double counts exactly. */
  time(seconds: number, nanoseconds: number): void {
    const upper = Math.floor(seconds / 65536) * 1e9;
    const lower = (seconds % 65536) * 1e9 + nanoseconds;
    const low = (upper % 65536) * 65536 + lower;
    this.u32(Math.floor(upper / 65536) + Math.floor(low / TWO_32));
    this.u32(low % TWO_32);
  }

  /** Padded to 4 bytes. */
  bytes(bytes: Uint8Array): void {
    this.reserve(bytes.length + 3);
    this.buffer.set(bytes, this.at);
    this.pad(bytes.length);
  }

  private pad(length: number): void {
    this.buffer.fill(0, this.at + length, this.at + ((length + 3) & ~3));
    this.at += (length + 3) & ~3;
  }

  option(code: number, value: Uint8Array): void {
    this.hasOptions = true;
    this.u16(code);
    this.u16(value.length);
    this.bytes(value);
  }

  text(code: number, value: string): void {
    this.hasOptions = true;
    // UTF-8 takes three bytes at most for one unit of a string; what does not fit in 16 bits of length is cut.
    const most = Math.min(3 * value.length, 65535);
    this.reserve(4 + most + 3);
    this.u16(code);
    const { written } = ENCODER.encodeInto(value, this.buffer.subarray(this.at + 2, this.at + 2 + most));
    this.u16(written);
    this.pad(written);
  }

  numberOption(code: number, value: number): void {
    this.hasOptions = true;
    this.u16(code);
    this.u16(4);
    this.u32(value);
  }

  numberOption64(code: number, value: number): void {
    this.hasOptions = true;
    this.u16(code);
    this.u16(8);
    this.u32(value % TWO_32);
    this.u32(Math.floor(value / TWO_32));
  }

  end(): Uint8Array {
    if (this.hasOptions) this.u32(OPT_END);
    const length = this.at + 4;
    this.u32(length);
    this.view.setUint32(4, length, true);
    return this.buffer.subarray(0, length);
  }

  private reserve(n: number): void {
    if (this.at + n <= this.buffer.length) return;
    const larger = new Uint8Array(2 * (this.at + n));
    larger.set(this.buffer.subarray(0, this.at));
    this.buffer = larger;
    this.view = new DataView(larger.buffer);
  }
}

export interface ReadInterface {
  name: string;
  linkType: number;
  snapLen: number;
}

/** A packet as it was read; `bytes` lies in the reader's memory until the next one is asked for. */
export interface ReadRecord {
  interface: ReadInterface;
  seconds: number;
  nanoseconds: number;
  bytes: Uint8Array;
  wireLen: number;
  direction: number;
  comment: string;
}

interface Timed extends ReadInterface {
  /** Units of a second. */
  unitsPerSecond: number;
  offsetSeconds: number;
}

/**
 * Reads the packets of a pcapng file from anything that gives bytes. Sections of both byte orders, every time resolution;
 * blocks that it does not know are passed over, as the format wants. What cannot be read ends with the source's error,
 * which names file and byte.
 */
export class PcapngReader {
  private readonly source: ByteSource;
  private little = true;
  private interfaces: Timed[] = [];

  constructor(source: ByteSource) {
    this.source = source;
  }

  /** @returns the next packet, null at the end of the file */
  next(): ReadRecord | null {
    while (true) {
      const { source } = this;
      if (!source.fill(12)) {
        if (source.available > 0) throw source.error(`block header cut off after ${source.available} bytes`);
        return null;
      }
      const isSection = source.view.getUint32(source.begin) === BLOCK_SECTION;
      if (isSection) this.readByteOrder();
      const type = this.u32(0);
      const length = this.u32(4);
      if (length < 12 || length % 4 !== 0 || length > MAX_BLOCK) {
        throw source.error(`block of ${length} bytes, expected a multiple of 4 from 12 to ${MAX_BLOCK}`, 4);
      }
      if (!source.fill(length)) throw source.error(`block of ${length} bytes cut off after ${source.available}`);
      if (this.u32(length - 4) !== length) {
        throw source.error(`block ends with length ${this.u32(length - 4)}, expected ${length}`, length - 4);
      }
      let record: ReadRecord | null = null;
      if (isSection) this.interfaces = [];
      else if (type === BLOCK_INTERFACE) this.interfaces.push(this.readInterface(length));
      else if (type === BLOCK_PACKET) record = this.readPacket(length);
      else if (type === BLOCK_SIMPLE_PACKET) record = this.readSimplePacket(length);
      source.advance(length);
      if (record !== null) return record;
    }
  }

  private readByteOrder(): void {
    const { source } = this;
    const magic = source.view.getUint32(source.begin + 8, true);
    this.little = magic === BYTE_ORDER_MAGIC;
    if (!this.little && source.view.getUint32(source.begin + 8) !== BYTE_ORDER_MAGIC) {
      throw source.error(`byte-order magic 0x${magic.toString(16)}, expected 0x1a2b3c4d`, 8);
    }
  }

  private readInterface(length: number): Timed {
    if (length < 20) throw this.source.error(`interface description of ${length} bytes, expected 20 at least`);
    const read: Timed = {
      name: '',
      linkType: this.u16(8),
      snapLen: this.u32(12),
      unitsPerSecond: 1e6,
      offsetSeconds: 0,
    };
    this.eachOption(16, length, (code, at, size) => {
      if (code === IF_NAME) read.name = this.string(at, size);
      else if (code === IF_TSRESOL && size === 1) read.unitsPerSecond = unitsPerSecond(this.u8(at));
      else if (code === IF_TSOFFSET && size === 8) read.offsetSeconds = this.i64(at);
    });
    return read;
  }

  private readPacket(length: number): ReadRecord {
    const { source } = this;
    if (length < 32) throw source.error(`packet block of ${length} bytes, expected 32 at least`);
    const id = this.u32(8);
    const from = this.interfaces[id];
    if (from === undefined) throw source.error(`packet of interface ${id}, ${this.interfaces.length} are described`, 8);
    const captured = this.u32(20);
    if (captured > length - 32) throw source.error(`packet of ${captured} bytes in a block of ${length}`, 20);
    const record: ReadRecord = {
      interface: from,
      ...timeOf(from, this.u32(12), this.u32(16)),
      bytes: this.slice(28, captured),
      wireLen: this.u32(24),
      direction: DIRECTION_UNKNOWN,
      comment: '',
    };
    this.eachOption(28 + ((captured + 3) & ~3), length, (code, at, size) => {
      if (code === OPT_COMMENT) record.comment = this.string(at, size);
      else if (code === EPB_FLAGS && size === 4) record.direction = this.u32(at) & 3;
    });
    return record;
  }

  private readSimplePacket(length: number): ReadRecord {
    const { source } = this;
    const from = this.interfaces[0];
    if (from === undefined) throw source.error('a simple packet, and no interface is described');
    if (length < 16) throw source.error(`simple packet block of ${length} bytes, expected 16 at least`);
    const wireLen = this.u32(8);
    const limit = from.snapLen === 0 ? wireLen : Math.min(wireLen, from.snapLen);
    const captured = Math.min(limit, length - 16);
    const bytes = this.slice(12, captured);
    return { interface: from, seconds: 0, nanoseconds: 0, bytes, wireLen, direction: DIRECTION_UNKNOWN, comment: '' };
  }

  /** Calls `take` for each option between `from` and the block's end, positions counted from the block's start. */
  private eachOption(from: number, length: number, take: (code: number, at: number, size: number) => void): void {
    const end = length - 4;
    let at = from;
    while (at + 4 <= end) {
      const code = this.u16(at);
      const size = this.u16(at + 2);
      if (code === OPT_END) return;
      if (at + 4 + size > end) throw this.source.error(`option of ${size} bytes reaches over its block`, at);
      take(code, at + 4, size);
      at += 4 + ((size + 3) & ~3);
    }
  }

  private u8(at: number): number {
    return this.source.view.getUint8(this.source.begin + at);
  }

  private u16(at: number): number {
    return this.source.view.getUint16(this.source.begin + at, this.little);
  }

  private u32(at: number): number {
    return this.source.view.getUint32(this.source.begin + at, this.little);
  }

  private i64(at: number): number {
    const high = this.source.view.getInt32(this.source.begin + at + (this.little ? 4 : 0), this.little);
    const low = this.source.view.getUint32(this.source.begin + at + (this.little ? 0 : 4), this.little);
    return high * TWO_32 + low;
  }

  private slice(at: number, length: number): Uint8Array {
    const { view, begin } = this.source;
    return new Uint8Array(view.buffer, view.byteOffset + begin + at, length);
  }

  private string(at: number, length: number): string {
    return new TextDecoder().decode(this.slice(at, length));
  }
}

/** if_tsresol: a power of ten, or of two with the high bit set. */
function unitsPerSecond(resolution: number): number {
  return (resolution & 0x80) !== 0 ? 2 ** (resolution & 0x7f) : 10 ** resolution;
}

/** The halves of a time stamp as seconds and nanoseconds, without losing any of the 64 bits. */
function timeOf(from: Timed, high: number, low: number): { seconds: number; nanoseconds: number } {
  const { unitsPerSecond: units, offsetSeconds } = from;
  if (units > 2 ** 53 || units < 1) return { seconds: offsetSeconds, nanoseconds: 0 };
  // Long division by `units`, 8 bits at a time: the rest stays below units * 256, which is exact up to 2^45 units.
  let seconds = 0;
  let rest = 0;
  for (const half of [high, low]) {
    for (let shift = 24; shift >= 0; shift -= 8) {
      const value = rest * 256 + ((half >>> shift) & 0xff);
      seconds = seconds * 256 + Math.floor(value / units);
      rest = value % units;
    }
  }
  const nanoseconds =
    1e9 % units === 0
      ? rest * (1e9 / units)
      : Math.floor(rest * 1e9 < Number.MAX_SAFE_INTEGER ? (rest * 1e9) / units : rest / (units / 1e9));
  return { seconds: seconds + offsetSeconds, nanoseconds: Math.min(999_999_999, nanoseconds) };
}

/**
 * Classic pcap files (draft-ietf-opsawg-pcap): a reader for both byte orders and both time units, and a writer with
 * nanoseconds.
 *
 *   file:   | magic 4 | version 2+2 | 8 unused | snaplen 4 | link type 4 | record, record...
 *   record: | seconds 4 | us or ns 4 | bytes captured 4 | bytes on the wire 4 | bytes
 *
 * What cannot be read ends with an Error that names the file and the byte.
 */
import type { ByteSource } from './byte-source.ts';
import { FileWriter } from './file-writer.ts';
import { DIRECTION_UNKNOWN, type ReadInterface, type ReadRecord } from './pcapng.ts';

export const LINK_ETHERNET = 1;
export const LINK_RAW = 101;
export const LINK_IPV4 = 228;
export const LINK_LINUX_SLL2 = 276;

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const FILE_HEADER_LEN = 24;
const RECORD_HEADER_LEN = 16;
/** libpcap's limit for one record; more means that we are not reading a length. */
export const MAX_RECORD = 262144;

/** Reads one record after the other. */
export class PcapReader {
  private readonly source: ByteSource;
  private readonly from: ReadInterface;
  private readonly littleEndian: boolean;
  private readonly unit: number;

  /** @throws the source's error for what is no pcap file */
  constructor(source: ByteSource) {
    this.source = source;
    if (!source.fill(4)) throw source.error('not a capture file: it is too short for a magic number');
    const big = source.view.getUint32(source.begin);
    const little = source.view.getUint32(source.begin, true);
    this.littleEndian = little === MAGIC_MICROSECONDS || little === MAGIC_NANOSECONDS;
    const magic = this.littleEndian ? little : big;
    if (magic !== MAGIC_MICROSECONDS && magic !== MAGIC_NANOSECONDS) {
      throw source.error(`not a capture file: magic number 0x${big.toString(16).padStart(8, '0')}`);
    }
    this.unit = magic === MAGIC_NANOSECONDS ? 1 : 1000;
    if (!source.fill(FILE_HEADER_LEN)) throw source.error('the file header is cut off', source.available);
    const major = source.view.getUint16(source.begin + 4, this.littleEndian);
    if (major !== 2) throw source.error(`pcap version ${major}, expected 2`, 4);
    // The upper half says how long a frame check sequence is, if there is one.
    this.from = { name: '', linkType: this.field(20) & 0xffff, snapLen: this.field(16) };
    source.advance(FILE_HEADER_LEN);
  }

  /** @returns the next record, its bytes in memory that the one after it uses again; null at the end of the file */
  next(): ReadRecord | null {
    const { source } = this;
    if (!source.fill(RECORD_HEADER_LEN)) {
      if (source.available > 0) throw source.error(`record header cut off after ${source.available} bytes`);
      return null;
    }
    const seconds = this.field(0);
    const nanoseconds = this.field(4) * this.unit;
    const captured = this.field(8);
    const wireLen = this.field(12);
    if (nanoseconds >= 1e9) throw source.error(`record with ${this.field(4)} as fraction of a second`, 4);
    if (captured > MAX_RECORD) throw source.error(`record of ${captured} bytes, at most ${MAX_RECORD} can be`, 8);
    if (!source.fill(RECORD_HEADER_LEN + captured)) {
      throw source.error(`record of ${captured} bytes cut off after ${source.available - RECORD_HEADER_LEN}`);
    }
    const { view, begin } = source;
    const bytes = new Uint8Array(view.buffer, view.byteOffset + begin + RECORD_HEADER_LEN, captured);
    source.advance(RECORD_HEADER_LEN + captured);
    return { interface: this.from, seconds, nanoseconds, bytes, wireLen, direction: DIRECTION_UNKNOWN, comment: '' };
  }

  private field(at: number): number {
    return this.source.view.getUint32(this.source.begin + at, this.littleEndian);
  }
}

/** Writes a little endian pcap file with nanoseconds. Records are gathered and reach the file by flush or close. */
export class PcapWriter {
  readonly path: string;
  private readonly file: FileWriter;
  private readonly header = new Uint8Array(RECORD_HEADER_LEN);
  private readonly view = new DataView(this.header.buffer);

  /** @throws the error of open(2) */
  constructor(path: string, linkType: number) {
    this.path = path;
    this.file = new FileWriter(path);
    const view = new DataView(new ArrayBuffer(FILE_HEADER_LEN));
    view.setUint32(0, MAGIC_NANOSECONDS, true);
    view.setUint16(4, 2, true);
    view.setUint16(6, 4, true);
    view.setUint32(16, MAX_RECORD, true);
    view.setUint32(20, linkType, true);
    this.file.write(new Uint8Array(view.buffer));
  }

  /** Adds a packet seen at `timeMs` (milliseconds since 1970, or since whatever the clock counts from). */
  write(timeMs: number, bytes: Uint8Array, wireLen = bytes.length): void {
    const seconds = Math.floor(timeMs / 1000);
    this.view.setUint32(0, seconds, true);
    this.view.setUint32(4, Math.min(Math.round((timeMs - seconds * 1000) * 1e6), 999_999_999), true);
    this.view.setUint32(8, bytes.length, true);
    this.view.setUint32(12, wireLen, true);
    this.file.write(this.header);
    this.file.write(bytes);
  }

  flush(): void {
    this.file.flush();
  }

  close(): void {
    this.file.close();
  }
}

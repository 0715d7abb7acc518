/**
 * Classic pcap files (draft-ietf-opsawg-pcap): a reader for both byte orders and both time units, a writer with
 * nanoseconds, and a device that reads the one and writes the other.
 *
 *   file:   | magic 4 | version 2+2 | 8 unused | snaplen 4 | link type 4 | record, record...
 *   record: | seconds 4 | us or ns 4 | bytes captured 4 | bytes on the wire 4 | bytes
 *
 * What cannot be read ends with an Error that names the file and the byte. A pcap has no virtio-net header, so the
 * device has no offloads: every packet in it is as it was on the wire.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { Clock } from '../clock.ts';
import { MAX_FRAME, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { TYPE_IPV4 } from '../wire/ethernet.ts';
import type { Device } from './device.ts';

export const LINK_ETHERNET = 1;
export const LINK_RAW = 101;
export const LINK_IPV4 = 228;
export const LINK_LINUX_SLL2 = 276;

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const MAGIC_PCAPNG = 0x0a0d0d0a;
const FILE_HEADER_LEN = 24;
const RECORD_HEADER_LEN = 16;
/** libpcap's limit for one record; more means that we are not reading a length. */
const MAX_RECORD = 262144;
/** The Linux cooked header of LINKTYPE_LINUX_SLL2: protocol u16, then 18 bytes that say by which interface and from whom. */
const SLL2_HEADER_LEN = 20;

const EIO = 5;
const EINVAL = 22;

/**
 * Reads one record after the other. As a Clock it stands at the time of the last one, so that a replay runs by the
 * file's time.
 */
export class PcapReader implements Clock {
  readonly path: string;
  readonly linkType: number;
  /** Bytes of the current record; the memory is used again for the next. Link headers are still in it. */
  bytes: Uint8Array = new Uint8Array(0);
  /** What the record's packet had on the wire; more than `bytes` if the capture cut it. */
  wireLen = 0;
  seconds = 0;
  nanoseconds = 0;
  private readonly fd: number;
  private readonly littleEndian: boolean;
  private readonly unit: number;
  private readonly buffer = new Uint8Array(2 * MAX_RECORD);
  private readonly view = new DataView(this.buffer.buffer);
  /** Unread bytes are [begin, end) of the buffer; `position` is the file offset of `begin`. */
  private begin = 0;
  private end = 0;
  private position = 0;

  constructor(path: string) {
    this.path = path;
    this.fd = openSync(path, 'r');
    try {
      if (!this.fill(4)) throw this.error('not a pcap file: it is too short for a magic number');
      const big = this.view.getUint32(0);
      const little = this.view.getUint32(0, true);
      if (big === MAGIC_PCAPNG) throw this.error('a pcapng file: convert it with `editcap -F nsecpcap`');
      this.littleEndian = little === MAGIC_MICROSECONDS || little === MAGIC_NANOSECONDS;
      const magic = this.littleEndian ? little : big;
      if (magic !== MAGIC_MICROSECONDS && magic !== MAGIC_NANOSECONDS) {
        throw this.error(`not a pcap file: magic number 0x${big.toString(16).padStart(8, '0')}`);
      }
      this.unit = magic === MAGIC_NANOSECONDS ? 1 : 1000;
      if (!this.fill(FILE_HEADER_LEN)) throw this.error('the file header is cut off', this.end);
      const major = this.view.getUint16(4, this.littleEndian);
      if (major !== 2) throw this.error(`pcap version ${major}, expected 2`, 4);
      // The upper half says how long a frame check sequence is, if there is one.
      this.linkType = this.view.getUint32(20, this.littleEndian) & 0xffff;
      if (![LINK_ETHERNET, LINK_RAW, LINK_IPV4, LINK_LINUX_SLL2].includes(this.linkType)) {
        throw this.error(
          `link type ${this.linkType}; known are 1 (Ethernet), 101 (raw IP), 228 (IPv4), 276 (SLL2)`,
          20,
        );
      }
      this.advance(FILE_HEADER_LEN);
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  /** Milliseconds since 1970 of the current record. */
  now(): number {
    return this.seconds * 1000 + this.nanoseconds / 1e6;
  }

  /** Moves to the next record. @returns false at the end of the file */
  next(): boolean {
    if (!this.fill(RECORD_HEADER_LEN)) {
      if (this.end > this.begin) throw this.error(`record header cut off after ${this.end - this.begin} bytes`);
      return false;
    }
    const fraction = this.field(4) * this.unit;
    const captured = this.field(8);
    if (fraction >= 1e9) throw this.error(`record with ${this.field(4)} as fraction of a second`, 4);
    if (captured > MAX_RECORD) throw this.error(`record of ${captured} bytes, at most ${MAX_RECORD} can be`, 8);
    this.seconds = this.field(0);
    this.nanoseconds = fraction;
    this.wireLen = this.field(12);
    if (!this.fill(RECORD_HEADER_LEN + captured)) {
      const there = this.end - this.begin - RECORD_HEADER_LEN;
      throw this.error(`record of ${captured} bytes cut off after ${there}`);
    }
    this.bytes = this.buffer.subarray(this.begin + RECORD_HEADER_LEN, this.begin + RECORD_HEADER_LEN + captured);
    this.advance(RECORD_HEADER_LEN + captured);
    return true;
  }

  close(): void {
    closeSync(this.fd);
  }

  /** An error about the byte `at` behind the current position. */
  error(message: string, at = 0): Error {
    return new Error(`${this.path}: byte ${this.position + at}: ${message}`);
  }

  private field(at: number): number {
    return this.view.getUint32(this.begin + at, this.littleEndian);
  }

  private advance(n: number): void {
    this.begin += n;
    this.position += n;
  }

  /** Makes `n` unread bytes lie in the buffer; false if the file has not so many. */
  private fill(n: number): boolean {
    if (this.end - this.begin >= n) return true;
    this.buffer.copyWithin(0, this.begin, this.end);
    this.end -= this.begin;
    this.begin = 0;
    while (this.end < n) {
      const got = readSync(this.fd, this.buffer, this.end, this.buffer.length - this.end, null);
      if (got === 0) return false;
      this.end += got;
    }
    return true;
  }
}

/** Writes a little endian pcap file with nanoseconds. Records are gathered and reach the file by flush or close. */
export class PcapWriter {
  readonly path: string;
  private readonly fd: number;
  private readonly buffer = new Uint8Array(4 * MAX_RECORD);
  private readonly view = new DataView(this.buffer.buffer);
  private used = 0;

  constructor(path: string, linkType: number) {
    this.path = path;
    this.fd = openSync(path, 'w');
    this.view.setUint32(0, MAGIC_NANOSECONDS, true);
    this.view.setUint16(4, 2, true);
    this.view.setUint16(6, 4, true);
    this.view.setUint32(16, MAX_RECORD, true);
    this.view.setUint32(20, linkType, true);
    this.used = FILE_HEADER_LEN;
  }

  /** Adds a packet seen at `timeMs` (milliseconds since 1970, or since whatever the clock counts from). */
  write(timeMs: number, bytes: Uint8Array, wireLen = bytes.length): void {
    if (this.used + RECORD_HEADER_LEN + bytes.length > this.buffer.length) this.flush();
    const seconds = Math.floor(timeMs / 1000);
    const at = this.used;
    this.view.setUint32(at, seconds, true);
    this.view.setUint32(at + 4, Math.min(Math.round((timeMs - seconds * 1000) * 1e6), 999_999_999), true);
    this.view.setUint32(at + 8, bytes.length, true);
    this.view.setUint32(at + 12, wireLen, true);
    this.buffer.set(bytes, at + RECORD_HEADER_LEN);
    this.used = at + RECORD_HEADER_LEN + bytes.length;
  }

  flush(): void {
    let done = 0;
    while (done < this.used) done += writeSync(this.fd, this.buffer, done, this.used - done);
    this.used = 0;
  }

  close(): void {
    this.flush();
    closeSync(this.fd);
  }
}

export interface PcapOptions {
  name?: string;
  /** File to read from; without it nothing ever arrives. */
  read?: string;
  /** File to write to; without it writes are refused with EINVAL. */
  write?: string;
  /** Layer of the written file, and of the device if it reads none; 3 by default. */
  layer?: 2 | 3;
  /** 1500 by default. */
  mtu?: number;
  /** Stamps what is written. Without it packets bear the time of the record read last. */
  clock?: Clock;
}

export class PcapDevice implements Device {
  readonly name: string;
  readonly layer: 2 | 3;
  readonly mtu: number;
  readonly offloads = 0;
  readonly fd = -1;
  /** Records passed over: not IPv4 in a cooked capture. */
  skipped = 0;
  readonly reader: PcapReader | null;
  private readonly writer: PcapWriter | null;
  private readonly clock: Clock | null;
  private readonly slab: Uint8Array;

  /** @throws Error when a file cannot be opened, or is no pcap file */
  constructor(pool: Pool, options: PcapOptions) {
    this.slab = pool.bytes;
    this.reader = options.read === undefined ? null : new PcapReader(options.read);
    const readLayer = this.reader?.linkType === LINK_ETHERNET ? 2 : 3;
    this.layer = this.reader === null ? (options.layer ?? 3) : readLayer;
    this.mtu = options.mtu ?? 1500;
    this.name = options.name ?? options.read ?? options.write ?? 'pcap';
    this.clock = options.clock ?? this.reader;
    this.writer =
      options.write === undefined ? null : new PcapWriter(options.write, this.layer === 2 ? LINK_ETHERNET : LINK_RAW);
  }

  /** True when the whole file has been read. */
  done = false;

  /** @throws Error that names file and byte when the file is broken there */
  readBurst(slots: Packet[], max: number): number {
    const reader = this.reader;
    if (reader === null || this.done) return 0;
    let n = 0;
    while (n < max) {
      if (!reader.next()) {
        this.done = true;
        break;
      }
      let bytes = reader.bytes;
      if (reader.linkType === LINK_LINUX_SLL2) {
        if (bytes.length < SLL2_HEADER_LEN) {
          throw reader.error(`cooked header cut off after ${bytes.length} bytes`, -bytes.length);
        }
        const protocol = (bytes[0] << 8) | bytes[1];
        if (protocol !== TYPE_IPV4) {
          this.skipped++;
          continue;
        }
        bytes = bytes.subarray(SLL2_HEADER_LEN);
      }
      if (bytes.length > MAX_FRAME) {
        throw reader.error(`packet of ${bytes.length} bytes, at most ${MAX_FRAME} can be`, -bytes.length);
      }
      const p = slots[n++];
      this.slab.set(bytes, p.off);
      p.len = bytes.length;
    }
    return n;
  }

  write(p: Packet): number {
    if (this.writer === null) return EINVAL;
    try {
      this.writer.write(this.clock?.now() ?? 0, this.slab.subarray(p.off, p.off + p.len));
    } catch {
      return EIO;
    }
    return 0;
  }

  close(): void {
    this.reader?.close();
    this.writer?.close();
  }
}

/** A capture file, pcap or pcapng, as IP packets and Ethernet frames with the time and the interface of each. */
import { MAX_FRAME } from '../packet/packet.ts';
import { TYPE_IPV4 } from '../wire/ethernet.ts';
import { type ByteSource, FileBytes } from './byte-source.ts';
import { LINK_ETHERNET, LINK_IPV4, LINK_LINUX_SLL2, LINK_RAW, PcapReader } from './pcap.ts';
import { PcapngReader, type ReadRecord } from './pcapng.ts';

const MAGIC_PCAPNG = 0x0a0d0d0a;
/** LINKTYPE_LINUX_SLL2: protocol u16, then by which interface and from whom. */
const SLL2_HEADER_LEN = 20;
const SLL2_PACKET_TYPE = 10;
const PACKET_OUTGOING = 4;

/** A packet without its link header, or with that of Ethernet. */
export interface CapturedPacket {
  /** 1 for the first record of the file, as Wireshark counts, records that are passed over included. */
  frame: number;
  /** 2: an Ethernet frame; 3: an IP packet. */
  layer: 2 | 3;
  /** Valid until the next one is asked for. */
  bytes: Uint8Array;
  /** More than `bytes` where the capture cut it. */
  wireLen: number;
  seconds: number;
  nanoseconds: number;
  /** Name of the interface; '' where the file has none. */
  interface: string;
  /** DIRECTION_* of io/pcapng.ts. */
  direction: number;
  comment: string;
}

export class CaptureReader {
  /** Records passed over: not IPv4 in a cooked capture. */
  skipped = 0;
  private readonly source: ByteSource;
  private readonly records: { next(): ReadRecord | null };
  private frame = 0;

  /** @throws the source's error for what is no capture file */
  constructor(source: ByteSource) {
    this.source = source;
    const isPcapng = source.fill(4) && source.view.getUint32(source.begin) === MAGIC_PCAPNG;
    this.records = isPcapng ? new PcapngReader(source) : new PcapReader(source);
  }

  /** @returns the next packet, null at the end of the file. @throws the source's error where the file is broken */
  next(): CapturedPacket | null {
    for (let record = this.records.next(); record !== null; record = this.records.next()) {
      this.frame++;
      const packet = this.packetOf(record);
      if (packet !== null) return packet;
      this.skipped++;
    }
    return null;
  }

  private packetOf(record: ReadRecord): CapturedPacket | null {
    const { linkType, name } = record.interface;
    const { seconds, nanoseconds, comment } = record;
    let { bytes, wireLen, direction } = record;
    if (linkType === LINK_LINUX_SLL2) {
      if (bytes.length < SLL2_HEADER_LEN) {
        throw this.source.error(`cooked header cut off after ${bytes.length} bytes`, -bytes.length);
      }
      if (((bytes[0] << 8) | bytes[1]) !== TYPE_IPV4) return null;
      direction = bytes[SLL2_PACKET_TYPE] === PACKET_OUTGOING ? 2 : 1;
      bytes = bytes.subarray(SLL2_HEADER_LEN);
      wireLen -= SLL2_HEADER_LEN;
    } else if (linkType !== LINK_ETHERNET && linkType !== LINK_RAW && linkType !== LINK_IPV4) {
      throw this.source.error(
        `link type ${linkType}; known are 1 (Ethernet), 101 (raw IP), 228 (IPv4), 276 (SLL2)`,
        -bytes.length,
      );
    }
    if (bytes.length > MAX_FRAME) {
      throw this.source.error(`packet of ${bytes.length} bytes, at most ${MAX_FRAME} can be`, -bytes.length);
    }
    const layer = linkType === LINK_ETHERNET ? 2 : 3;
    return { frame: this.frame, layer, bytes, wireLen, seconds, nanoseconds, interface: name, direction, comment };
  }
}

/** A capture file on disk. */
export class CaptureFile extends CaptureReader {
  private readonly file: FileBytes;

  /** @throws the error of open(2), or one that names file and byte */
  constructor(path: string) {
    const file = new FileBytes(path);
    try {
      super(file);
    } catch (error) {
      file.close();
      throw error;
    }
    this.file = file;
  }

  close(): void {
    this.file.close();
  }
}

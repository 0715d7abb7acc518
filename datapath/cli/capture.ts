/** `tunpath capture`: packets of running nodes at any set of points, as pcapng, pcap or lines. */

import { describePacket } from '../conformance/describe.ts';
import { describeFileError } from '../control/read-text.ts';
import type { WatchContext, WatchParams } from '../control/watch.ts';
import { FileWriter } from '../io/file-writer.ts';
import { LINK_ETHERNET, LINK_IPV4, LINK_RAW, PcapWriter } from '../io/pcap.ts';
import { DIRECTION_IN, DIRECTION_OUT, PcapngWriter } from '../io/pcapng.ts';
import { watchNodes } from '../observe/watch-nodes.ts';
import { VERDICT_NAMES } from '../verdict.ts';
import { compileFilter } from '../watch/filter.ts';
import { KIND_DROPPED, KIND_RECEIVED, type WatchRecord } from '../watch/record.ts';
import * as ethernet from '../wire/ethernet.ts';
import { DONE, UsageError } from './exit.ts';
import { print } from './output.ts';
import { sayGone, untilSignal, watchedNodes } from './watched.ts';

export interface CaptureFlags {
  node?: string;
  at?: string[];
  drops?: boolean;
  write?: string;
  count?: string;
  snapshotLength: string;
  format: 'pcapng' | 'pcap';
  fileSize?: string;
  files?: string;
}

const MAX_SNAP = 262_144;
const PCAP_RECORD_HEADER = 16;

export async function capture(filter: string[], flags: CaptureFlags): Promise<number> {
  const most = numberOf('--count', flags.count ?? '4294967295', 1, 4_294_967_295);
  const snapLen = numberOf('--snapshot-length', flags.snapshotLength, 0, MAX_SNAP) || MAX_SNAP;
  const points = flags.drops === true && flags.at === undefined ? [] : (flags.at ?? ['']).map(parsePoint);
  const params = { filter: filter.join(' '), drops: flags.drops === true, points, snapLen };
  compileFilter(params.filter);
  const nodes = watchedNodes(flags.node);
  const sink = makeSink(flags, nodes.length > 1, ringOf(flags));
  const stop = untilSignal();
  let captured = 0;
  let lost = 0;
  try {
    const ready = () => process.stderr.write(`capturing on ${nodes.join(', ')}; SIGINT ends it\n`);
    for await (const events of watchNodes(nodes, params, stop.signal, { ready, gone: sayGone })) {
      for (const event of events) {
        if ('context' in event) {
          checkPoints(points, event.context);
          sink.context(event.context);
        } else if ('lost' in event) {
          lost += event.lost;
          sink.lost(event.node, event.lost);
        } else if (captured < most) {
          captured++;
          sink.packet(event.node, event.record);
        }
      }
      await sink.flush();
      if (captured >= most) break;
    }
  } finally {
    sink.close();
  }
  process.stderr.write(`${captured} packets captured, ${lost} lost\n`);
  return DONE;
}

function numberOf(option: string, text: string, from: number, to: number): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < from || number > to) {
    throw new UsageError(`${option} ${text}: expected a number from ${from} to ${to}`);
  }
  return number;
}

type Point = WatchParams['points'][number];

/** `default/p1`, `default/p1:in`, `any:out`. */
function parsePoint(text: string): Point {
  const match = /^(.*?)(?::(in|out))?$/.exec(text);
  const [, port, direction] = match as RegExpExecArray;
  return { port: port === 'any' ? '' : port, in: direction !== 'out', out: direction !== 'in' };
}

/** @throws UsageError for a point that no port of the node is. */
function checkPoints(points: Point[], { node, ports }: WatchContext): void {
  for (const { port } of points) {
    if (port === '' || ports.some(({ name }) => name === port)) continue;
    const names = ports.map(({ name }) => name).join(', ');
    throw new UsageError(`--at ${port}: node ${node} has no such port; expected any, or one of ${names}`);
  }
}

export interface Sink {
  context(context: WatchContext): void;
  packet(node: string, record: WatchRecord): void;
  lost(node: string, count: number): void;
  flush(): Promise<void>;
  close(): void;
}

export interface FileSink extends Sink {
  /** Bytes of the file. */
  readonly written: number;
}

function makeSink({ write, format }: CaptureFlags, several: boolean, ring: FileRing | null): Sink {
  if (write === undefined) return new LineSink(several);
  const open = (path: string): FileSink => {
    try {
      return format === 'pcap' ? new PcapSink(path) : new PcapngSink(path, several);
    } catch (error) {
      throw new UsageError(`${path}: ${describeFileError(error)}`);
    }
  };
  return ring === null ? open(write) : new RingSink(write, open, ring);
}

/** One file after the other, as tcpdump's -C and -W. */
export interface FileRing {
  /** Bytes after which the next file begins. */
  size: number;
  /** How many there are before the first is written anew; infinite: each has its own name. */
  files: number;
}

function ringOf({ fileSize, files, write }: CaptureFlags): FileRing | null {
  if (fileSize === undefined && files === undefined) return null;
  if (write === undefined || write === '-') throw new UsageError('--file-size and --files go with -w FILE');
  if (fileSize === undefined) throw new UsageError('--files goes with --file-size');
  return {
    size: numberOf('--file-size', fileSize, 1, 1_000_000) * 1_000_000,
    files: files === undefined ? Number.POSITIVE_INFINITY : numberOf('--files', files, 1, 9999),
  };
}

/** Begins the next file when one is full: FILE, FILE1, FILE2..., or with a number of files FILE0, FILE1 and round again. */
export class RingSink implements Sink {
  private readonly path: string;
  private readonly open: (path: string) => FileSink;
  private readonly ring: FileRing;
  private readonly contexts = new Map<string, WatchContext>();
  private sink: FileSink;
  private number = 0;

  constructor(path: string, open: (path: string) => FileSink, ring: FileRing) {
    this.path = path;
    this.open = open;
    this.ring = ring;
    this.sink = open(this.name());
  }

  context(context: WatchContext): void {
    this.contexts.set(context.node, context);
    this.sink.context(context);
  }

  packet(node: string, record: WatchRecord): void {
    if (this.sink.written >= this.ring.size) this.next();
    this.sink.packet(node, record);
  }

  lost(node: string, count: number): void {
    this.sink.lost(node, count);
  }

  flush(): Promise<void> {
    return this.sink.flush();
  }

  close(): void {
    this.sink.close();
  }

  private next(): void {
    this.sink.close();
    this.number = (this.number + 1) % this.ring.files;
    this.sink = this.open(this.name());
    for (const context of this.contexts.values()) this.sink.context(context);
  }

  private name(): string {
    const { files } = this.ring;
    if (files === Number.POSITIVE_INFINITY) return this.number === 0 ? this.path : `${this.path}${this.number}`;
    return `${this.path}${String(this.number).padStart(String(files - 1).length, '0')}`;
  }
}

/** Names of ports by number, of every node. */
class PortNames {
  private readonly byNode = new Map<string, WatchContext['ports']>();

  update({ node, ports }: WatchContext): void {
    this.byNode.set(node, ports);
  }

  of(node: string, number: number): WatchContext['ports'][number] | undefined {
    return this.byNode.get(node)?.find(port => port.number === number);
  }
}

function reasonOf({ detail }: WatchRecord): string {
  return VERDICT_NAMES[detail].replace(/^drop-/, '');
}

/** For people: a line for each packet. */
class LineSink implements Sink {
  private readonly ports = new PortNames();
  private readonly several: boolean;
  private lines: string[] = [];

  constructor(several: boolean) {
    this.several = several;
  }

  context(context: WatchContext): void {
    this.ports.update(context);
  }

  packet(node: string, record: WatchRecord): void {
    const bytes = record.layer === 2 ? record.bytes.subarray(ethernet.HEADER_LEN) : record.bytes;
    const isIp = record.protocol !== 0;
    const summary = isIp ? describePacket(bytes).split(' | ')[0] : record.layer === 2 ? frameType(record) : 'not IPv4';
    const isDrop = record.kind === KIND_DROPPED;
    const port = this.ports.of(node, isDrop ? record.inPort : record.detail)?.name ?? '?';
    const where = isDrop
      ? `${port} dropped ${reasonOf(record)}`
      : `${port} ${record.kind === KIND_RECEIVED ? 'in ' : 'out'}`;
    const time = new Date(record.timeMs).toISOString().slice(11, 23);
    this.lines.push(`${time} ${this.several ? `[${node}] ` : ''}${where} ${summary}\n`);
  }

  lost(node: string, count: number): void {
    this.lines.push(`[${node}] ${count} packets lost: they came faster than they could be read\n`);
  }

  async flush(): Promise<void> {
    const text = this.lines.join('');
    this.lines = [];
    if (text !== '') await print(text);
  }

  close(): void {}
}

function frameType({ bytes }: WatchRecord): string {
  const type = (bytes[ethernet.TYPE] << 8) | bytes[ethernet.TYPE + 1];
  return type === ethernet.TYPE_ARP ? 'ARP' : `frame of type 0x${type.toString(16).padStart(4, '0')}`;
}

/** Each port is an interface, and what was dropped before it left is one more for each link type. */
export class PcapngSink implements FileSink {
  written = 0;
  private readonly file: FileWriter;
  private readonly writer: PcapngWriter;
  private readonly ports = new PortNames();
  private readonly interfaces = new Map<string, { id: number; received: number; dropped: number }>();
  /** Since the last packet; which interface they would have been of, nobody knows. */
  private newlyLost = 0;
  private readonly several: boolean;
  private last = 0;

  constructor(path: string, several: boolean) {
    this.file = new FileWriter(path);
    this.writer = new PcapngWriter(block => {
      this.written += block.length;
      this.file.write(block);
    });
    this.several = several;
  }

  context(context: WatchContext): void {
    this.ports.update(context);
  }

  packet(node: string, record: WatchRecord): void {
    const { kind, detail, bytes, length, number, timeMs, layer } = record;
    const isDrop = kind === KIND_DROPPED;
    const port = this.ports.of(node, isDrop ? record.inPort : detail)?.name ?? 'port that is gone';
    const entry = this.interfaceOf(node, isDrop ? `${port} dropped` : port, layer);
    const seconds = Math.floor(timeMs / 1000);
    this.last = timeMs;
    entry.received++;
    this.writer.packet({
      interfaceId: entry.id,
      seconds,
      nanoseconds: Math.min(999_999_999, Math.round((timeMs - seconds * 1000) * 1e6)),
      bytes,
      wireLen: length,
      packetId: number,
      ...(isDrop
        ? { direction: DIRECTION_IN, comment: `dropped: ${reasonOf(record)}` }
        : { direction: kind === KIND_RECEIVED ? DIRECTION_IN : DIRECTION_OUT }),
      ...(this.newlyLost > 0 ? { dropCount: this.newlyLost } : {}),
    });
    entry.dropped += this.newlyLost;
    this.newlyLost = 0;
  }

  lost(_node: string, count: number): void {
    this.newlyLost += count;
  }

  async flush(): Promise<void> {
    this.file.flush();
  }

  close(): void {
    const seconds = Math.floor(this.last / 1000);
    const nanoseconds = Math.min(999_999_999, Math.round((this.last - seconds * 1000) * 1e6));
    for (const { id, received, dropped } of this.interfaces.values()) {
      this.writer.statistics(id, seconds, nanoseconds, received + dropped, dropped);
    }
    this.file.close();
  }

  private interfaceOf(node: string, port: string, layer: number) {
    const name = this.several ? `${node}:${port}` : port;
    const key = `${name} ${layer}`;
    let entry = this.interfaces.get(key);
    if (entry === undefined) {
      const id = this.writer.addInterface({ name, linkType: layer === 2 ? LINK_ETHERNET : LINK_RAW });
      entry = { id, received: 0, dropped: 0 };
      this.interfaces.set(key, entry);
    }
    return entry;
  }
}

/** One link type: IPv4, without what is none and without Ethernet headers. */
class PcapSink implements FileSink {
  written = 0;
  private readonly writer: PcapWriter;

  constructor(path: string) {
    this.writer = new PcapWriter(path, LINK_IPV4);
  }

  context(): void {}

  packet(_node: string, { bytes, layer, protocol, timeMs, length }: WatchRecord): void {
    if (protocol === 0) return;
    const from = layer === 2 ? ethernet.HEADER_LEN : 0;
    this.written += PCAP_RECORD_HEADER + bytes.length - from;
    this.writer.write(timeMs, bytes.subarray(from), length - from);
  }

  lost(): void {}

  async flush(): Promise<void> {
    this.writer.flush();
  }

  close(): void {
    this.writer.close();
  }
}

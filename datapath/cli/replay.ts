/** `tunpath replay`: a capture through a configuration, in memory and in the capture's own time. */

import { describePacket } from '../conformance/describe.ts';
import { formatProblems } from '../control/load-config.ts';
import { describeFileError } from '../control/read-text.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { Replay, type Replayed } from '../drive/replay.ts';
import { type CapturedPacket, CaptureFile } from '../io/capture-file.ts';
import { FileWriter } from '../io/file-writer.ts';
import { LINK_ETHERNET, LINK_RAW } from '../io/pcap.ts';
import { DIRECTION_IN, DIRECTION_OUT, PcapngWriter } from '../io/pcapng.ts';
import { loadInputs } from '../mtu-prove/load.ts';
import * as wire from '../wire/ethernet.ts';
import { DONE, NO, USAGE, UsageError } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { type Column, printDocument, printRows, printTable } from './table.ts';

export interface ReplayFlags {
  config: string;
  compare?: string;
  node?: string;
  write?: string;
  port?: string;
  seed: string;
  arp: boolean;
  packets?: boolean;
  output: Format;
}

/** How long timers run on behind the last packet: fragments and neighbours that never came are given up by then. */
const DRAIN_MS = 60_000;

interface PacketRow {
  frame: number;
  time: string;
  port: string | null;
  packet: string;
  verdict: string;
  reasons: string[];
  to: string[];
}

interface Difference {
  frame: number;
  packet: string;
  before: string;
  after: string;
}

const PACKET_COLUMNS: Column<PacketRow>[] = [
  { title: 'FRAME', value: row => row.frame, align: 'right' },
  { title: 'TIME', value: row => row.time, align: 'right' },
  { title: 'PORT', value: row => row.port },
  { title: 'PACKET', value: row => row.packet },
  { title: 'VERDICT', value: row => row.verdict },
  { title: 'REASON', value: row => row.reasons },
  { title: 'TO', value: row => row.to },
];

const DIFFERENCE_COLUMNS: Column<Difference>[] = [
  { title: 'FRAME', value: row => row.frame, align: 'right' },
  { title: 'PACKET', value: row => row.packet },
  { title: 'BEFORE', value: row => row.before },
  { title: 'AFTER', value: row => row.after },
];

export async function replay(file: string, flags: ReplayFlags): Promise<number> {
  const seed = Number(flags.seed);
  if (!/^\d+$/.test(flags.seed)) throw new UsageError(`--seed ${flags.seed}: expected a whole number from 0`);
  const configs = [flags.config, ...(flags.compare === undefined ? [] : [flags.compare])].map(name =>
    readConfig(name, flags.node),
  );
  if (configs.some(config => config === null)) return USAGE;
  const options = { seed, answerArp: flags.arp, port: flags.port };
  const nodes = (configs as ResolvedConfig[]).map(config => makeReplay(config, options));
  const input = openInput(file);
  try {
    if (flags.compare === undefined) return await run(input, nodes[0], flags);
    return await compare(input, nodes[0], nodes[1], flags);
  } finally {
    input.close();
  }
}

function openInput(file: string): CaptureFile {
  try {
    return new CaptureFile(file);
  } catch (error) {
    throw new UsageError(`${file}: ${describeFileError(error).replace(`${file}: `, '')}`);
  }
}

function makeReplay(config: ResolvedConfig, options: ConstructorParameters<typeof Replay>[1]): Replay {
  try {
    return new Replay(config, options);
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(`--port: ${error.message}`);
    throw error;
  }
}

/** One node of a file, by its name where there are several; null where the file's problems have been printed. */
function readConfig(file: string, name: string | undefined): ResolvedConfig | null {
  let inputs: ReturnType<typeof loadInputs>;
  try {
    inputs = loadInputs([file]);
  } catch (error) {
    throw new UsageError(`${file}: ${describeFileError(error)}`);
  }
  const { configs, problems } = inputs;
  if (problems.length > 0) {
    process.stderr.write(`${formatProblems(problems)}\n`);
    return null;
  }
  const names = configs.map(config => config.metadata.name);
  const config = name === undefined && configs.length === 1 ? configs[0] : configs[names.indexOf(name ?? '')];
  if (config !== undefined) return config;
  if (name !== undefined) throw new UsageError(`${file}: got --node ${name}, expected one of ${names.join(', ')}`);
  if (configs.length === 0) throw new UsageError(`${file}: got none, expected a NodeConfig`);
  throw new UsageError(`${file}: got ${configs.length} NodeConfigs, expected one, or --node NAME`);
}

/** Calls `take` with every packet. @throws UsageError where the file is broken */
function eachPacket(input: CaptureFile, take: (packet: CapturedPacket) => void): void {
  const next = () => {
    try {
      return input.next();
    } catch (error) {
      throw new UsageError((error as Error).message);
    }
  };
  for (let packet = next(); packet !== null; packet = next()) take(packet);
}

async function run(input: CaptureFile, node: Replay, flags: ReplayFlags): Promise<number> {
  const output = flags.write === undefined ? null : new ReplayCapture(flags.write, node);
  const rows: PacketRow[] = [];
  const total = { packets: 0, forwarded: 0, dropped: 0, held: 0, consumed: 0, skipped: 0, sent: 0 };
  let start = -1;
  let last: CapturedPacket | null = null;
  eachPacket(input, packet => {
    if (start < 0) start = packet.seconds + packet.nanoseconds / 1e9;
    const result = node.feed(packet);
    total.packets++;
    total[result.verdict]++;
    total.sent += result.outputs.length;
    output?.add(packet, result);
    if (flags.packets === true) rows.push(rowOf(packet, result, start));
    last = { ...packet, bytes: new Uint8Array(0) };
  });
  const drained = node.finish(DRAIN_MS);
  total.sent += drained.outputs.length;
  if (last !== null) output?.addOutputs(last, drained.outputs);
  output?.close();
  const report = {
    ...total,
    notIpv4: input.skipped,
    ports: node.portCounters(),
    counters: node.counters.snapshot(),
    flows: node.datapath.flows?.table.used ?? 0,
  };
  if (flags.packets === true) await printRows(flags.output, rows, PACKET_COLUMNS);
  else if (isForPeople(flags.output)) printReport(report, flags.output === 'wide');
  else await printDocument(flags.output, report);
  return DONE;
}

function printReport(
  {
    ports,
    counters,
    ...scalars
  }: Record<string, unknown> & {
    ports: ReturnType<Replay['portCounters']>;
    counters: { name: string; packets: number; bytes?: number }[];
  },
  wide: boolean,
): void {
  process.stdout.write(
    Object.entries(scalars)
      .map(([name, value]) => `${`${name}:`.padEnd(11)}${String(value)}\n`)
      .join(''),
  );
  process.stdout.write('\nports:\n');
  printTable(
    ports,
    [
      { title: 'PORT', value: row => row.port },
      { title: 'RX-PACKETS', value: row => row.rxPackets, align: 'right' },
      { title: 'RX-DROPPED', value: row => row.rxDropped, align: 'right' },
      { title: 'TX-PACKETS', value: row => row.txPackets, align: 'right' },
    ],
    wide,
  );
  process.stdout.write('\ncounters:\n');
  printTable(
    counters,
    [
      { title: 'NAME', value: row => row.name },
      { title: 'PACKETS', value: row => row.packets, align: 'right' },
      { title: 'BYTES', value: row => row.bytes, align: 'right' },
    ],
    wide,
  );
}

function rowOf(packet: CapturedPacket, result: Replayed, start: number): PacketRow {
  return {
    frame: packet.frame,
    time: (packet.seconds + packet.nanoseconds / 1e9 - start).toFixed(6),
    port: result.port,
    packet: summaryOf(packet),
    verdict: result.verdict,
    reasons: result.reasons,
    to: result.outputs.map(({ port }) => port),
  };
}

/** Without the bytes, which describePacket gives behind a bar. */
function summaryOf({ bytes, layer }: Pick<CapturedPacket, 'bytes' | 'layer'>): string {
  if (layer === 3) return describePacket(bytes).split(' | ')[0];
  const type = bytes.length < wire.HEADER_LEN ? -1 : (bytes[wire.TYPE] << 8) | bytes[wire.TYPE + 1];
  if (type === wire.TYPE_ARP) return 'ARP';
  if (type !== wire.TYPE_IPV4) return `frame of type 0x${Math.max(0, type).toString(16).padStart(4, '0')}`;
  return describePacket(bytes.subarray(wire.HEADER_LEN)).split(' | ')[0];
}

/** Both configurations see every packet; what they make of it is compared in whole. Answers no where anything differs. */
async function compare(input: CaptureFile, before: Replay, after: Replay, flags: ReplayFlags): Promise<number> {
  const differences: Difference[] = [];
  eachPacket(input, packet => {
    const a = wordsOf(before.feed(packet));
    const b = wordsOf(after.feed(packet));
    if (a.key !== b.key) {
      differences.push({ frame: packet.frame, packet: summaryOf(packet), before: a.words, after: b.words });
    }
  });
  if (differences.length === 0 && isForPeople(flags.output)) process.stderr.write('no packet differs\n');
  else await printRows(flags.output, differences, DIFFERENCE_COLUMNS);
  return differences.length === 0 ? DONE : NO;
}

function wordsOf({ verdict, reasons, outputs }: Replayed): { key: string; words: string } {
  const sent = outputs.map(({ port, bytes }) => {
    return `${port}: ${summaryOf({ bytes, layer: port === 'uplink' ? 2 : 3 })}`;
  });
  const bytes = outputs.map(output => Buffer.from(output.bytes).toString('hex')).join(' ');
  const words = [verdict, ...reasons, ...sent].join('; ');
  return { key: `${words} ${bytes}`, words };
}

/** What went in and what came out of it, with the verdict as the comment. */
class ReplayCapture {
  private readonly file: FileWriter;
  private readonly writer: PcapngWriter;
  private readonly interfaces = new Map<string, number>();

  constructor(path: string, node: Replay) {
    try {
      this.file = new FileWriter(path);
    } catch (error) {
      throw new UsageError(`${path}: ${describeFileError(error)}`);
    }
    this.writer = new PcapngWriter(block => this.file.write(block));
    for (const { name, layer } of node.ports) {
      const linkType = layer === 2 ? LINK_ETHERNET : LINK_RAW;
      this.interfaces.set(name, this.writer.addInterface({ name, linkType }));
    }
  }

  add(packet: CapturedPacket, { port, input, verdict, reasons, outputs }: Replayed): void {
    if (port !== null && input !== null) {
      const wireLen = packet.wireLen + input.length - packet.bytes.length;
      this.write(packet, port, input, DIRECTION_IN, [verdict, ...reasons].join(' '), wireLen);
    }
    this.addOutputs(packet, outputs);
  }

  addOutputs(packet: CapturedPacket, outputs: Replayed['outputs']): void {
    for (const { port, bytes } of outputs) this.write(packet, port, bytes, DIRECTION_OUT, `of frame ${packet.frame}`);
  }

  close(): void {
    this.file.close();
  }

  private write(
    { seconds, nanoseconds, frame }: CapturedPacket,
    port: string,
    bytes: Uint8Array,
    direction: number,
    comment: string,
    wireLen = bytes.length,
  ): void {
    const interfaceId = this.interfaces.get(port) as number;
    this.writer.packet({ interfaceId, seconds, nanoseconds, bytes, wireLen, direction, packetId: frame, comment });
  }
}

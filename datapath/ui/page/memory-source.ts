/** The datapath in the page: configurations, captures and articles' labs, through nodes in memory. */
import { formatProblems } from '../../control/load-config.ts';
import type { ResolvedConfig } from '../../control/resolved.ts';
import type { SegmentConfig } from '../../control/segment-config.ts';
import { writtenText } from '../../control/written-text.ts';
import { MemoryBytes } from '../../io/byte-source.ts';
import { type CapturedPacket, CaptureReader } from '../../io/capture-file.ts';
import { DIRECTION_OUT } from '../../io/pcapng.ts';
import { type Mode, nodeConfig, segmentConfigs } from '../../lab/modes.ts';
import { TOPOLOGIES } from '../../lab/topology-file.ts';
import { inputsOf } from '../../mtu-prove/load.ts';
import { documentOf, subjectOf } from '../../observe/ask.ts';
import { explain } from '../../observe/explain.ts';
import { entryOf } from '../../observe/question.ts';
import { World } from '../../observe/world.ts';
import { hexText } from '../../packet/build.ts';
import { answerConformance, answerExplain, answerProve, withChange } from '../answers.ts';
import { pictureOf } from '../picture.ts';
import type {
  ChangeAnswer,
  ChangeRequest,
  ExplainAnswer,
  ExplainRequest,
  PagePacket,
  Sink,
  Source,
} from '../protocol.ts';
import { flowsOfTrip } from './trip-flows.ts';

/** Of a capture; each is taken through the path. */
const MAX_PACKETS = 20_000;
const LAB = 'lab';
const QUESTION = { sport: '40000', ttl: '64', df: true };

export interface NamedText {
  file: string;
  text: string;
}

export class MemorySource implements Source {
  readonly isLive = false;
  private configs: ResolvedConfig[] = [];
  private segments: SegmentConfig[] = [];
  private sink!: Sink;

  start(sink: Sink): void {
    this.sink = sink;
    this.openLab('cilium', 'vxlan');
  }

  /** An article's lab. */
  openLab(name: string, mode: Mode): void {
    const topology = TOPOLOGIES[name];
    const documents = [
      ...topology.nodes.map(node => nodeConfig(LAB, topology, node, { mode })),
      ...segmentConfigs(topology, { mode }),
    ];
    this.openFiles(documents.map((document, i) => ({ file: `${name} ${i + 1}`, text: JSON.stringify(document) })));
  }

  /** Configurations in place of those that there are. @throws Error with all that is wrong with them */
  openFiles(files: readonly NamedText[]): void {
    const { configs, segments, problems } = inputsOf(files);
    if (problems.length > 0) throw new Error(formatProblems(problems));
    if (configs.length === 0) throw new Error(`${files.map(({ file }) => file).join(', ')}: expected a NodeConfig`);
    this.configs = configs;
    this.segments = segments;
    this.sink.picture(pictureOf(configs));
  }

  /** Takes every packet of a capture through the nodes. @throws Error for what is no capture */
  openCapture(name: string, bytes: Uint8Array): void {
    const capture = new CaptureReader(new MemoryBytes(bytes, name));
    const subject = subjectOf({ configs: this.configs, segments: this.segments });
    const world = new World(this.configs, { wires: subject.wires });
    const packets: PagePacket[] = [];
    try {
      for (let packet = capture.next(); packet !== null && packets.length < MAX_PACKETS; packet = capture.next()) {
        packets.push(this.follow(world, packet));
      }
    } finally {
      world.close();
    }
    this.sink.packets(packets);
  }

  private follow(world: World, packet: CapturedPacket): PagePacket {
    const { bytes, layer, wireLen, seconds, nanoseconds, frame } = packet;
    const timeMs = seconds * 1000 + nanoseconds / 1e6;
    const shown = { timeMs, reason: '', number: frame, length: wireLen, layer, hex: hexText(bytes) };
    try {
      const entry = entryOf(this.configs, QUESTION, { ...packet, bytes: bytes.slice() });
      const found = explain(world, entry);
      this.sink.flows(flowsOfTrip(documentOf({ there: found, back: null }), pictureOf(this.configs), timeMs));
      return { ...shown, node: entry.node, port: entry.port, direction: 'in', reason: found.reasons[0] ?? '' };
    } catch {
      // Of nobody here, or the node itself had sent it: it is shown as it is.
      const direction = packet.direction === DIRECTION_OUT ? 'out' : 'in';
      return { ...shown, node: '', port: packet.interface, direction };
    }
  }

  async explain(request: ExplainRequest): Promise<ExplainAnswer> {
    const given = request.node === '' ? { ...request, node: undefined, port: undefined } : request;
    const answer = answerExplain(subjectOf({ configs: this.configs, segments: this.segments }), given);
    const picture = pictureOf(this.configs);
    this.sink.flows(flowsOfTrip(answer, picture, Date.now()));
    if (answer.answer !== null) this.sink.flows(flowsOfTrip(answer.answer, picture, Date.now(), true));
    return answer;
  }

  async change(request: ChangeRequest): Promise<ChangeAnswer[]> {
    const changed = this.configs.map(config => ({
      file: config.metadata.name,
      text: writtenText(withChange(config, request)),
    }));
    const { configs, problems } = inputsOf(changed);
    if (problems.length === 0 && !request.dryRun) {
      this.configs = configs;
      this.sink.picture(pictureOf(configs));
    }
    return this.configs.map(({ metadata }) => ({
      node: metadata.name,
      problems: problems.filter(({ file }) => file === metadata.name).map(({ path, message }) => `${path}: ${message}`),
      effects: [],
      longestStopMs: 0,
    }));
  }

  async prove() {
    return answerProve(this.configs, this.segments);
  }

  conformance(profile: string, rfc: number) {
    return answerConformance(profile, rfc);
  }

  capture(): void {}
}

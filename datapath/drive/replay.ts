/**
 * Drives a node by a capture: packets enter at the times that the file says, on a clock that only they move, with
 * randomness from a seed. No device, no root; the same input gives the same output, byte for byte, on every machine.
 *
 * Packets enter where the file says they were seen: at the port that the capture's interface is named after; without such
 * a name an Ethernet frame enters at the uplink, and an IP packet at the port that its source address belongs to. What the
 * node itself had sent (frames from its MAC, records marked outbound at one of its ports) is not put in again.
 *
 * Whoever the node asks for by ARP is there and answers at once, unless that is turned off: a capture of pods has no
 * neighbours in it.
 */
import { ManualClock } from '../clock.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { Counters, PORT_RX_DROPPED, PORT_RX_PACKETS, PORT_TX_PACKETS } from '../counters.ts';
import type { Datapath } from '../forward.ts';
import type { CapturedPacket } from '../io/capture-file.ts';
import { MemoryDevice } from '../io/memory.ts';
import { Pool } from '../packet/pool.ts';
import { PORT_POD, PORT_UPLINK, type Port } from '../port.ts';
import { compile } from '../program/compile.ts';
import { createDatapath } from '../program/install.ts';
import { mtusOf } from '../program/mtus.ts';
import { Random } from '../random.ts';
import { VERDICT_NAMES, VERDICTS } from '../verdict.ts';
import { answerOf, asSeenAt, entryOf, portNamed, roleOf } from './entry.ts';

/** More than a burst, its fragments, and all that may be held. */
const SLOTS = 2048;
/** The first packet's time on the node's clock, ms: past 0, where an entry without a deadline would be due. */
const EPOCH_MS = 1000;
const FIRST_DROP = 10;

export interface ReplayOptions {
  /** Of source ports, IP ids and backends. 1 by default. */
  seed?: number;
  /** Whether neighbours answer ARP; true by default. */
  answerArp?: boolean;
  /** All packets enter at this port. */
  port?: string;
}

export interface ReplayedOutput {
  port: string;
  /** As it left: an Ethernet frame at the uplink, an IP packet elsewhere. */
  bytes: Uint8Array;
}

export interface Replayed {
  /** Port that it entered by; null for a packet that was not put in. */
  port: string | null;
  /** As it entered there; null, too. */
  input: Uint8Array | null;
  /** dropped: it, or one that it set free; held: it waits for fragments or a neighbour; consumed: it was for the node itself. */
  verdict: 'forwarded' | 'dropped' | 'held' | 'consumed' | 'skipped';
  /** Names of the drops that it caused; or why it was skipped. */
  reasons: string[];
  /** Names of the drops that timers decided on before it came. */
  late: string[];
  /** What left because of it, ICMP errors and packets that it set free included. */
  outputs: ReplayedOutput[];
}

export class Replay {
  readonly counters = new Counters();
  readonly datapath: Datapath;
  /** Ports in the order of the program, with the layer of what they carry. */
  readonly ports: { name: string; layer: 2 | 3 }[];
  private readonly clock = new ManualClock();
  private readonly devices: MemoryDevice[];
  private readonly answerArp: boolean;
  private readonly onlyPort: Port | null;
  private readonly drops = new Float64Array(VERDICTS);
  private readonly uplinkMac: string;
  private readonly pool: Pool;
  private started = -1;
  private due = 0;

  /** @throws RangeError for a port that the configuration has not */
  constructor(config: ResolvedConfig, { seed = 1, answerArp = true, port }: ReplayOptions = {}) {
    const program = compile(config);
    this.pool = new Pool(SLOTS);
    const podMtu = mtusOf(config).device;
    this.devices = program.ports.map(({ kind, name }) => {
      const mtu = kind === PORT_POD ? podMtu : config.spec.uplink.mtu;
      return new MemoryDevice(this.pool, { name, layer: kind === PORT_UPLINK ? 2 : 3, mtu });
    });
    this.ports = program.ports.map((port, i) => ({ name: roleOf(port), layer: this.devices[i].layer }));
    this.datapath = createDatapath(program, this.devices, {
      pool: this.pool,
      counters: this.counters,
      clock: this.clock,
      random: new Random(seed),
    });
    this.answerArp = answerArp;
    this.uplinkMac = config.spec.uplink.mac;
    this.onlyPort = port === undefined ? null : portNamed(this.datapath, port);
    if (port !== undefined && this.onlyPort === null) {
      throw new RangeError(`got ${port}, expected one of ${this.ports.map(({ name }) => name).join(', ')}`);
    }
  }

  /** Lets time pass to that of the packet, and takes it through the node. */
  feed(packet: CapturedPacket): Replayed {
    const outputs: ReplayedOutput[] = [];
    this.passTo(this.timeOf(packet), outputs);
    const late = this.newDrops();
    const port = this.onlyPort ?? entryOf(this.datapath, packet);
    if (typeof port === 'string') return skipped(port, outputs, late);
    const bytes = asSeenAt(port, packet, this.uplinkMac);
    if (bytes === null) return skipped('an Ethernet frame that holds no IPv4', outputs, late);
    const held = this.datapath.pool.available;
    this.inject(port, bytes);
    const left = this.collect(outputs);
    const reasons = this.newDrops();
    const isHeld = this.datapath.pool.available < held;
    const verdict = reasons.length > 0 ? 'dropped' : left > 0 ? 'forwarded' : isHeld ? 'held' : 'consumed';
    return { port: roleOf(port), input: bytes, verdict, reasons, late, outputs };
  }

  /** Lets `ms` pass after the last packet. @returns what timers send, and the drops that they decide */
  finish(ms: number): Pick<Replayed, 'outputs' | 'reasons'> {
    const outputs: ReplayedOutput[] = [];
    this.passTo(this.clock.now() + ms, outputs);
    return { outputs, reasons: this.newDrops() };
  }

  private timeOf({ seconds, nanoseconds }: CapturedPacket): number {
    const ms = seconds * 1000 + nanoseconds / 1e6;
    if (this.started < 0) this.started = ms;
    return EPOCH_MS + ms - this.started;
  }

  /** A file may go back in time; the clock stays then. */
  private passTo(time: number, outputs: ReplayedOutput[]): void {
    while (this.due <= time) {
      this.clock.advance(Math.max(0, this.due - this.clock.now()));
      this.due = this.clock.now() + Math.max(1, this.datapath.tick());
      this.collect(outputs);
    }
    this.clock.advance(Math.max(0, time - this.clock.now()));
  }

  private inject(port: Port, bytes: Uint8Array): void {
    const device = this.devices[port.index];
    device.inject(bytes);
    while (device.pending > 0) this.datapath.receive(port);
  }

  /** Takes what the node has written, and answers its ARP requests, until it has no more to say. @returns packets */
  private collect(outputs: ReplayedOutput[]): number {
    let taken = 0;
    for (let asked = true; asked; ) {
      asked = false;
      for (const [i, device] of this.devices.entries()) {
        for (const bytes of device.collect()) {
          if (this.answerArp && this.answer(this.datapath.ports[i], bytes)) {
            asked = true;
          } else {
            outputs.push({ port: roleOf(this.datapath.ports[i]), bytes });
            taken++;
          }
        }
      }
    }
    return taken;
  }

  /** Whoever is asked for says that it is there. @returns false for what is no request of the node */
  private answer(port: Port, frame: Uint8Array): boolean {
    const reply = port.kind === PORT_UPLINK ? answerOf(frame, this.uplinkMac) : null;
    if (reply !== null) this.inject(port, reply);
    return reply !== null;
  }

  private newDrops(): string[] {
    const names: string[] = [];
    for (let reason = FIRST_DROP; reason < VERDICTS; reason++) {
      const count = this.counters.dropped(reason);
      if (count > this.drops[reason]) names.push(VERDICT_NAMES[reason]);
      this.drops[reason] = count;
    }
    return names;
  }

  /** What each port has received, refused and sent. */
  portCounters(): { port: string; rxPackets: number; rxDropped: number; txPackets: number }[] {
    const { counters } = this;
    return this.datapath.ports.map(port => ({
      port: roleOf(port),
      rxPackets: counters.ofPort(port.index, PORT_RX_PACKETS),
      rxDropped: counters.ofPort(port.index, PORT_RX_DROPPED),
      txPackets: counters.ofPort(port.index, PORT_TX_PACKETS),
    }));
  }
}

function skipped(why: string, outputs: ReplayedOutput[], late: string[]): Replayed {
  return { port: null, input: null, verdict: 'skipped', reasons: [why], late, outputs };
}

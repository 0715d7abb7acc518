/** Real datapaths of a proof's nodes over memory, and an underlay between them that does what its stretches say. */
import { ManualClock } from '../../datapath/clock.ts';
import { Counters } from '../../datapath/counters.ts';
import type { Datapath } from '../../datapath/forward.ts';
import { MemoryDevice } from '../../datapath/io/memory.ts';
import type { Network, ProvedNode } from '../../datapath/mtu-prove/network.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { PORT_UPLINK } from '../../datapath/port.ts';
import { createDatapath } from '../../datapath/program/install.ts';
import { Random } from '../../datapath/random.ts';
import { arpFrame, dotted, ethernet, fixHeader, fragment, icmpError } from '../fixtures/packets.ts';

const ROUTER_MAC = '02:00:00:00:00:99';
const ROUTER = '192.168.99.1';
const SLOTS = 160;
const ETHERNET = 14;
const FORGET_MS = 700_000;

interface Station {
  node: ProvedNode;
  datapath: Datapath;
  devices: MemoryDevice[];
}

export class Wire {
  /** Frames with IP that have come in at each node since the last look. */
  readonly arrived = new Map<string, number>();
  private readonly network: Network;
  private readonly stations: Station[];
  private readonly clock = new ManualClock();

  constructor(network: Network) {
    this.network = network;
    this.stations = network.nodes.map(node => {
      const pool = new Pool(SLOTS);
      const devices = node.program.ports.map(({ name, kind }) => {
        return new MemoryDevice(pool, { name, layer: kind === PORT_UPLINK ? 2 : 3, mtu: 65535, offloads: 0 });
      });
      const environment = { pool, counters: new Counters(), clock: this.clock, random: new Random(7) };
      return { node, devices, datapath: createDatapath(node.program, devices, environment) };
    });
  }

  /** Lets pass what path MTUs and fragments are remembered for. */
  forget(): void {
    this.clock.advance(FORGET_MS);
    for (const { datapath, devices } of this.stations) {
      datapath.tick();
      for (const device of devices) device.collect();
    }
  }

  /** Sends a packet from the first pod of a node. @returns what came to the first pods, by node name */
  send(from: string, packet: Uint8Array): Map<string, Uint8Array[]> {
    this.clock.advance(1000);
    this.arrived.clear();
    this.station(from).devices[0].inject(packet);
    const delivered = new Map<string, Uint8Array[]>();
    for (let moved = true; moved; ) {
      moved = false;
      for (const station of this.stations) {
        for (const [i, device] of station.devices.entries()) {
          while (device.pending > 0) station.datapath.receive(station.datapath.ports[i]);
        }
        for (const frame of station.devices.at(-1)!.collect()) {
          this.carry(station, frame);
          moved = true;
        }
        const got = station.devices[0].collect();
        delivered.set(station.node.name, [...(delivered.get(station.node.name) ?? []), ...got]);
      }
    }
    return delivered;
  }

  private station(name: string): Station {
    return this.stations.find(({ node }) => node.name === name)!;
  }

  private carry(from: Station, frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    const own = macOf(from.node);
    if (view.getUint16(12) === 0x0806) {
      const [asker, asked] = [view.getInt32(ETHERNET + 14), view.getInt32(ETHERNET + 24)].map(dotted);
      this.toUplink(from, arpFrame({ oper: 2, sha: ROUTER_MAC, spa: asked, tha: own, tpa: asker }));
      return;
    }
    const to = this.stations.find(station => station !== from)!;
    let pieces: Uint8Array[] = [frame.slice(ETHERNET)];
    for (const stretch of this.network.between(from.node, to.node)) {
      const next: Uint8Array[] = [];
      for (const piece of pieces) {
        if (piece.length <= stretch.limit) next.push(piece);
        else if (stretch.router === null) continue;
        else if ((piece[6] & 0x40) === 0) next.push(...cut(piece, stretch.limit));
        else if (stretch.icmpLostAt === null) this.answer(from, piece, stretch.limit);
      }
      pieces = next;
    }
    for (const piece of pieces) {
      this.arrived.set(to.node.name, (this.arrived.get(to.node.name) ?? 0) + 1);
      this.toUplink(to, ethernet(piece, { src: ROUTER_MAC, dst: macOf(to.node) }));
    }
  }

  private answer(to: Station, packet: Uint8Array, mtu: number): void {
    const source = dotted(new DataView(packet.buffer, packet.byteOffset).getInt32(12));
    const error = icmpError(3, 4, packet.slice(0, 548), { src: ROUTER, dst: source, mtu });
    this.toUplink(to, ethernet(error, { src: ROUTER_MAC, dst: macOf(to.node) }));
  }

  private toUplink(station: Station, frame: Uint8Array): void {
    station.devices.at(-1)!.inject(frame);
  }
}

function macOf({ config }: ProvedNode): string {
  return config.spec.uplink.mac;
}

/** As a router does it: RFC 791. A fragment of a fragment keeps its place. */
function cut(packet: Uint8Array, mtu: number): Uint8Array[] {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const field = view.getUint16(6);
  const step = (mtu - 20) & ~7;
  const pieces: Uint8Array[] = [];
  for (let offset = 0; offset < packet.length - 20; ) {
    const rest = packet.length - 20 - offset;
    const length = rest <= mtu - 20 ? rest : step;
    const piece = fragment(packet, offset, length);
    const pieceView = new DataView(piece.buffer);
    const more = offset + length < packet.length - 20 ? 0x2000 : field & 0x2000;
    pieceView.setUint16(6, more | ((field & 0x1fff) + offset / 8));
    pieces.push(fixHeader(piece));
    offset += length;
  }
  return pieces;
}
